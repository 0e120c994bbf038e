"""Checks of ours that were begun and never completed: their run vanished, and a required check would wait for ever.

Touches only checks of our name with our kind of id; one whose workflow run may still be working is left alone.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import partial

from gate.publish.client import Check, Client
from gate.publish.github import persist
from gate.publish.model import CheckConclusion
from gate.publish.patience import Patience
from gate.publish.problem import PublishError

TITLE = "Could not measure: the run that was to report here has vanished"
_ID = re.compile(r"quantgate/(?:(\d{1,18})\.\d+/)?.+")
_FORBIDDEN = 403


def reap(client: Client, *, name: str, older_than: timedelta, now: datetime, patience: Patience) -> tuple[str, ...]:
    """What was done, in sentences.  Looks at the heads of open pull requests and of the default branch."""
    done = []
    for ref in dict.fromkeys([client.default_branch(), *(p.head_sha for p in client.open_pulls())]):
        for check in client.checks(ref, name):
            if _stale(check, older_than, now) and _gone(check, client):
                persist(partial(_end, client, check), lambda: False, patience)
                done.append(f"check {name} ({check.id}) at {ref[:40]}: timed_out, its run has vanished")
    return tuple(done) or (f"no check {name} in progress for longer than {_hours(older_than)}",)


def _stale(check: Check, older_than: timedelta, now: datetime) -> bool:
    if check.status == "completed" or not _ID.fullmatch(check.external_id):
        return False
    try:
        begun = datetime.fromisoformat(check.started_at)
    except ValueError:
        return False
    return begun.tzinfo is not None and now - begun > older_than


def _gone(check: Check, client: Client) -> bool:
    """Is its workflow run over?  Without a run, or without permission to ask, its age alone says so."""
    found = _ID.fullmatch(check.external_id)
    if found is None or found[1] is None:
        return True
    try:
        return client.run_status(int(found[1])) in (None, "completed")
    except PublishError as problem:
        if problem.status == _FORBIDDEN:
            return True
        raise


def _end(client: Client, check: Check) -> None:
    summary = f"Begun at {check.started_at} and never completed. Run the workflow again."
    client.update_check(
        check.id,
        {
            "status": "completed",
            "conclusion": str(CheckConclusion.TIMED_OUT),
            "output": {"title": TITLE, "summary": summary},
        },
    )


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:g} hours"
