"""The sticky comment: one of each name in a pull request, found again by a marker, telling what it was and is now.

Pure.  A marker in somebody else's comment is only text: who wrote it is for the caller to check.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gate.publish import limits
from gate.publish.model import CheckConclusion, Publication
from gate.records import Status
from gate.reports.sentence import PASSED_WITH_WAIVER, TITLES

NOTHING, WAIVED = "NOTHING", "WAIVED"
"""Beside the statuses: no checkpoint was to be gated; waivers made a regression pass."""

WORDS = {
    **{str(status): word for status, word in TITLES.items()},
    NOTHING: "nothing to gate",
    WAIVED: PASSED_WITH_WAIVER,
}
MAX_MARKER_CHARACTERS = 2_000
_MARKER = re.compile(r"<!-- quantgate:sticky v1 (\{.*\}) -->")
_SHA = re.compile(r"[0-9a-f]{40}")
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "--": "\\u002d\\u002d"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Marker:
    """What a comment says to machines.

    `status` is one of `WORDS`; `at` is the ISO time of the newest record in it; `was` is status and commit of what was
    said before, None where nothing was.
    """

    name: str
    sha: str
    status: str
    at: str
    was: tuple[str, str] | None


def parse(body: Any) -> Marker | None:
    """The marker in the first line of a comment; None for every other comment, and for a marker that is not ours."""
    if not isinstance(body, str):
        return None
    first = body.partition("\n")[0].removesuffix("\r")
    found = _MARKER.fullmatch(first) if len(first) <= MAX_MARKER_CHARACTERS else None
    if found is None:
        return None
    try:
        data = json.loads(found[1], object_pairs_hook=_distinct)
        return _marker(data)
    except (ValueError, RecursionError):
        return None


def marker(publication: Publication, previous: Marker | None) -> Marker:
    """That of a publication that replaces `previous`.

    Publishing the same twice changes nothing: what it was before stays what it was.
    """
    target = publication.target
    one = Marker(
        name=own_name(publication),
        sha=target.head_sha,
        status=_status(publication),
        at=publication.measured_at,
        was=None,
    )
    if previous is None:
        return one
    same = (previous.sha, previous.status, previous.at) == (one.sha, one.status, one.at)
    was = previous.was if same else (previous.status, previous.sha)
    return Marker(name=one.name, sha=one.sha, status=one.status, at=one.at, was=was)


def own_name(publication: Publication) -> str:
    """The name by which a comment is this publication's own; an unverified result has another than a verified one.

    So what a pull request's own code claims, the time included, cannot stand in the way of a verified result.
    """
    return limits.one_line(publication.name, 100)


def superseded_name(publication: Publication) -> str:
    """The name of a comment that this publication makes needless: what was unverified before it was measured again."""
    return limits.one_line(unverified(publication.name), 100)


def unverified(name: str) -> str:
    """What an unverified result is published as: never under the name that a branch protection requires."""
    return f"{name} (unverified)"


def line(one: Marker) -> str:
    """The marker as the first line of a comment; nothing in it can end the HTML comment that it is."""
    data: dict[str, Any] = {"name": one.name, "sha": one.sha, "status": one.status, "at": one.at}
    if one.was is not None:
        data["was"] = list(one.was)
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    for character, escaped in _ESCAPED.items():
        text = text.replace(character, escaped)
    return f"<!-- quantgate:sticky v1 {text} -->"


def outdated(publication: Publication, previous: Marker) -> bool:
    """The comment was written of something newer: it is not to be overwritten."""
    return _moment(previous.at) > _moment(publication.measured_at)


def body(publication: Publication, previous: Marker | None) -> str:
    """The whole comment, within GitHub's limit.

    Raises:
        ValueError: no comment is wanted.
    """
    if publication.comment is None:
        raise ValueError(f"{publication.name}: no comment is wanted, and none can be written")
    one = marker(publication, previous)
    said = [line(one), *([f"{_moved(one)}\n"] if one.was else []), publication.comment]
    return limits.markdown("\n".join(said), limits.COMMENT_BYTES)


def _moved(one: Marker) -> str:
    """`Was regression at 0123456, now pass at 89abcde.`"""
    assert one.was is not None
    status, sha = one.was
    again = " (measured again)" if sha == one.sha else ""
    still = "still" if status == one.status else "now"
    return f"Was **{WORDS[status]}** at `{sha[:7]}` → {still} **{WORDS[one.status]}** at `{one.sha[:7]}`{again}."


def _status(publication: Publication) -> str:
    said = publication.conclusion
    if said.status is None:
        return NOTHING
    waived = said.status is Status.REGRESSION and said.check is CheckConclusion.SUCCESS
    return WAIVED if waived else str(said.status)


def _marker(data: Any) -> Marker | None:
    """Strictly what `line` writes."""
    if not isinstance(data, dict) or data.keys() - {"was"} != {"name", "sha", "status", "at"}:
        return None
    if not all(isinstance(data[key], str) for key in ("name", "sha", "status", "at")):
        return None
    was = data.get("was")
    if "was" in data and not (isinstance(was, list) and len(was) == 2 and all(isinstance(x, str) for x in was)):
        return None
    said = [(data["status"], data["sha"]), *([(was[0], was[1])] if was else [])]
    if not all(status in WORDS and _SHA.fullmatch(sha) for status, sha in said):
        return None
    _moment(data["at"])
    return Marker(
        name=data["name"],
        sha=data["sha"],
        status=data["status"],
        at=data["at"],
        was=(was[0], was[1]) if was else None,
    )


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _moment(iso: str) -> datetime:
    """With its zone: times without one cannot be compared."""
    moment = datetime.fromisoformat(iso)
    if moment.tzinfo is None:
        raise ValueError(f"found {iso!r}, expected a time with its zone")
    return moment
