"""What GitHub refuses, as its 422 bodies name it: limits of check runs, statuses and comments.

Pure: request body → errors.  Bytes where GitHub counts bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

CHECK_STATES = ("queued", "in_progress", "completed")
CONCLUSIONS = ("action_required", "cancelled", "failure", "neutral", "success", "skipped", "timed_out")
STATUS_STATES = ("error", "failure", "pending", "success")
LEVELS = ("notice", "warning", "failure")
MAX_ANNOTATIONS = 50
MAX_OUTPUT_BYTES = 65_535
MAX_TITLE = 255
MAX_MESSAGE_BYTES = 64 * 1024
MAX_COMMENT = 65_536
MAX_DESCRIPTION = 140


def refused(resource: str, field: str, code: str, message: str = "") -> Object:
    found = {"resource": resource, "field": field, "code": code}
    return {**found, "message": message} if message else found


def check_run(body: Object, *, create: bool) -> list[Object]:
    return list(_check_run(body, create=create))


def _check_run(body: Object, *, create: bool) -> Iterator[Object]:
    for field in ("name", "head_sha") if create else ():
        if not isinstance(body.get(field), str) or not body[field]:
            yield refused("CheckRun", field, "missing_field")
    if body.get("status", "queued") not in CHECK_STATES:
        yield refused("CheckRun", "status", "invalid")
    if "conclusion" in body and body["conclusion"] not in CONCLUSIONS:
        yield refused("CheckRun", "conclusion", "invalid")
    if (body.get("status") == "completed" or "completed_at" in body) and "conclusion" not in body:
        yield refused("CheckRun", "conclusion", "missing_field")
    if not str(body.get("details_url", "https://")).startswith(("http://", "https://")):
        yield refused("CheckRun", "details_url", "invalid", "must use http or https")
    for field in ("name", "external_id"):
        yield from _text("CheckRun", field, body.get(field), MAX_TITLE)
    if "output" in body:
        yield from _output(body["output"])


def _output(output: Any) -> Iterator[Object]:
    if not isinstance(output, dict):
        yield refused("CheckRun", "output", "invalid")
        return
    for field in ("title", "summary"):
        if not isinstance(output.get(field), str) or (field == "title" and not output[field]):
            yield refused("CheckRun", f"output.{field}", "missing_field")
    yield from _text("CheckRun", "output.title", output.get("title"), MAX_TITLE)
    for field in ("summary", "text"):
        text = output.get(field) or ""
        yield from _characters("CheckRun", f"output.{field}", text)
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > MAX_OUTPUT_BYTES:
            told = f"Only {MAX_OUTPUT_BYTES} characters are allowed; {size} were supplied."
            yield refused("CheckRun", f"output.{field}", "custom", told)
    annotations = output.get("annotations", [])
    if len(annotations) > MAX_ANNOTATIONS:
        told = f"No more than {MAX_ANNOTATIONS} annotations are allowed; {len(annotations)} were supplied."
        yield refused("CheckRun", "output.annotations", "custom", told)
    for annotation in annotations:
        yield from _annotation(annotation)


def _annotation(found: Object) -> Iterator[Object]:
    for field in ("path", "start_line", "end_line", "annotation_level", "message"):
        if found.get(field) in (None, ""):
            yield refused("CheckAnnotation", field, "missing_field")
    for field in ("start_line", "end_line"):
        if type(found.get(field)) is not int or found[field] < 1:
            yield refused("CheckAnnotation", field, "invalid")
    if found.get("annotation_level") not in LEVELS:
        yield refused("CheckAnnotation", "annotation_level", "invalid")
    if str(found.get("path", "")).startswith("/"):
        yield refused("CheckAnnotation", "path", "invalid")
    yield from _text("CheckAnnotation", "title", found.get("title"), MAX_TITLE)
    for field in ("message", "raw_details"):
        text = found.get(field) or ""
        yield from _characters("CheckAnnotation", field, text)
        if len(text.encode("utf-8", "surrogatepass")) > MAX_MESSAGE_BYTES:
            yield refused("CheckAnnotation", field, "too_long")


def status(body: Object) -> list[Object]:
    found = []
    if body.get("state") not in STATUS_STATES:
        found.append(refused("Status", "state", "invalid"))
    found += _text("Status", "description", body.get("description"), MAX_DESCRIPTION)
    found += _text("Status", "context", body.get("context"), MAX_TITLE)
    if not str(body.get("target_url") or "https://").startswith(("http://", "https://")):
        found.append(refused("Status", "target_url", "invalid"))
    return found


def comment(body: Object) -> list[Object]:
    text = body.get("body")
    if not isinstance(text, str) or not text.strip():
        return [refused("IssueComment", "body", "missing_field")]
    if len(text) > MAX_COMMENT:
        told = f"body is too long (maximum is {MAX_COMMENT} characters)"
        return [refused("IssueComment", "body", "unprocessable", told)]
    return list(_characters("IssueComment", "body", text, astral=True))


def _text(resource: str, field: str, text: str | None, limit: int) -> Iterator[Object]:
    if text is None:
        return
    yield from _characters(resource, field, text)
    if len(text) > limit:
        yield refused(resource, field, "too_long", f"{field} is too long (maximum is {limit} characters)")


def _characters(resource: str, field: str, text: str, *, astral: bool = False) -> Iterator[Object]:
    """No half surrogate pairs and no NUL anywhere; no character above U+FFFF in checks and statuses."""
    if any(0xD800 <= ord(c) <= 0xDFFF or c == "\0" for c in text):
        yield refused(resource, field, "invalid", f"{field} contains invalid characters")
    if not astral and any(ord(c) > 0xFFFF for c in text):
        yield refused(resource, field, "invalid", f"{field} contains unicode characters above 0xffff")
