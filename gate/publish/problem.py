"""What GitHub says no to, as an error that names the call, GitHub's own words and what to do.

Pure: a response → an error.  Nothing here retries, and no message holds a token or a line that a program obeys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gate.errors import ExitCode, GateError
from gate.reports import escape

_SAID_CHARACTERS = 600
_NEEDS_APP = "authenticate via a github app"
_NOT_ALLOWED = "not accessible by"

PERMISSIONS = {
    "check-runs": "checks: write",
    "statuses": "statuses: write",
    "comments": "pull-requests: write",
    "pulls": "pull-requests: read",
    "files": "pull-requests: read",
    "compare": "contents: read",
    "branches": "contents: read",
    "runs": "actions: read",
}
"""Word in a call's path → the permission that the job needs for it."""


class PublishError(GateError):
    """The verdict was not published, or not all of it.  The verdict itself is what it was.

    `status` is that of GitHub's answer, 0 where there was none.
    """

    exit_code = ExitCode.ERROR

    def __init__(self, message: str, *, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


class Unanswered(PublishError):
    """A write without an answer: it may have been carried out, so it is looked for before it is sent again."""


class AppNeeded(PublishError):
    """Check runs are written by Apps only, and this token is a person's."""


def refused(call: str, status: int, body: bytes) -> PublishError:
    """The error for an answer that is not what was asked for.  `call` is `POST check-runs` and the like."""
    said = _said(body)
    kind = AppNeeded if status == 403 and _NEEDS_APP in said.casefold() else PublishError
    return kind(f"GitHub answered {status} to {call}: {said}; {_advice(call, status, said)}", status=status)


def unanswered(call: str, why: str) -> Unanswered:
    return Unanswered(f"GitHub may or may not have carried out {call}: {escape.line(why, 300)}")


def limited(call: str, status: int, body: bytes) -> PublishError:
    """A primary or secondary limit: GitHub did not begin."""
    return PublishError(f"GitHub answered {status} to {call}, a limit of requests: {_said(body)}", status=status)


def _said(body: bytes) -> str:
    """GitHub's message with the list of errors, which is where a 422 says what is wrong."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping):
        return repr(escape.line(body[:200].decode(errors="replace"))) if body else "nothing"
    parts = [str(found.get("message") or "no message")]
    errors = found.get("errors")
    parts += [_one(error) for error in errors] if isinstance(errors, list) else []
    return escape.line("; ".join(parts), _SAID_CHARACTERS)


def _one(error: Any) -> str:
    if not isinstance(error, Mapping):
        return str(error)
    where = ".".join(str(error[key]) for key in ("resource", "field") if error.get(key))
    what = " ".join(str(error[key]) for key in ("code", "message") if error.get(key))
    return f"{where} {what}".strip() or str(dict(error))


def _advice(call: str, status: int, said: str) -> str:
    needed = next((p for word, p in PERMISSIONS.items() if word in call), "")
    if call.startswith("GET "):
        needed = needed.replace("write", "read")
    match status:
        case 401:
            return "the token is wrong or has expired: set GITHUB_TOKEN to one of this GitHub (and GITHUB_API_URL)"
        case 403 if _NEEDS_APP in said.casefold():
            return "use the job's GITHUB_TOKEN or an App's token; a personal token can only set a commit status"
        case 403 if "invalid app_id" in said.casefold():
            return "another App created this check: publish with the token that --start was called with"
        case 403 if _NOT_ALLOWED in said.casefold() and needed:
            return (
                f"the job needs `permissions: {{{needed}}}`; a pull request from a fork never has it: "
                "publish from workflow_run (docs/github.md)"
            )
        case 403:
            return f"the token may not do this{f', it needs {needed}' if needed else ''}"
        case 404:
            return f"check --repository and that the token sees it{f' ({needed})' if needed else ''}"
        case 301 | 302 | 307 | 308:
            return "the repository has moved: use its new name"
        case 422 if "no commit found" in said.casefold():
            return "check --sha: this repository has no such commit"
        case 422:
            return "this is a bug in the gate: please report it with this line"
        case _ if status >= 500:
            return "GitHub has a problem: try again later"
        case _:
            return "see docs/github.md"
