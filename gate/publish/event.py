"""The event that started a workflow → where the verdict belongs: repository, commit, pull request.

Pure.  A payload is data: nothing in it is taken without its type and shape; nothing that is missing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gate.errors import UsageError
from gate.publish import payload as read
from gate.publish.model import Target
from gate.publish.payload import Payload

SECOND_STAGE = "workflow_run"
EVENTS = (
    "push",
    "pull_request",
    "pull_request_target",
    "merge_group",
    "workflow_dispatch",
    "schedule",
    "release",
)
"""Events that measure; under `workflow_run` it is the first of the two workflows that was started by one of them."""

UNKNOWN_REPOSITORY = "(deleted fork)"
"""`head_repository` where GitHub names none: somebody else's, and gone."""

_QUEUED = re.compile(r"(?:refs/heads/)?gh-readonly-queue/(.+)/pr-([1-9][0-9]{0,17})-[0-9a-f]{40}")


def target(
    event: str,
    payload: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    repository: str | None,
    sha: str | None,
    pull: int | None,
) -> Target:
    """Where the verdict belongs.

    Args:
        event: GITHUB_EVENT_NAME; empty outside of Actions.
        payload: the file that GITHUB_EVENT_PATH names; empty outside of Actions.
        environ: the variables of the job.
        repository, sha, pull: what the user says, before what the event says.

    Raises:
        UsageError: the event names no commit, or not in the way that is expected of it.
    """
    data = Payload(payload)
    given = _Given(
        repository=None if repository is None else read.repository(repository, "--repository"),
        sha=None if sha is None else read.sha(sha, "--sha"),
        pull=None if pull is None else read.number(pull, "--pull"),
    )
    return (_second_stage if event == SECOND_STAGE else _direct)(event, data, environ, given)


def queued_pull(head_branch: str | None) -> int | None:
    """The pull request that a branch of the merge queue was made for: for information, it is tested with others."""
    found = _QUEUED.fullmatch(head_branch or "")
    return int(found[2]) if found else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Given:
    """What the user said, checked."""

    repository: str | None
    sha: str | None
    pull: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Change:
    """What an event says of the commit and of where it wants to go."""

    sha: str
    head_repository: str
    head_branch: str | None
    base_ref: str | None = None
    base_sha: str | None = None
    pull: int | None = None


def _direct(event: str, data: Payload, environ: Mapping[str, str], given: _Given) -> Target:
    if event not in EVENTS and given.sha is None:
        where = f"the event {event!r} names no commit to publish for" if event else "no event of GitHub Actions is set"
        raise UsageError(f"{where}, expected one of {', '.join(EVENTS)}, {SECOND_STAGE}: give --repository and --sha")
    repository = _where(data, environ, given)
    change = _change(event, data, environ, given, repository)
    run_id = read.written_number(environ, "GITHUB_RUN_ID")
    return Target(
        repository=repository,
        head_sha=change.sha,
        event=event,
        second_stage=False,
        pull=given.pull or change.pull,
        head_repository=change.head_repository,
        head_branch=change.head_branch,
        default_branch=data.ref("repository.default_branch"),
        base_ref=change.base_ref,
        base_sha=change.base_sha,
        run_id=run_id,
        run_attempt=read.written_number(environ, "GITHUB_RUN_ATTEMPT") or 1,
        details_url=_run_page(environ, run_id),
    )


def _change(event: str, data: Payload, environ: Mapping[str, str], given: _Given, repository: str) -> _Change:
    match event:
        case "pull_request" | "pull_request_target":
            # never GITHUB_SHA: it is a merge commit that nobody will ever see again
            return _Change(
                sha=given.sha or data.sha("pull_request.head.sha"),
                head_repository=_repository_or_gone(data, "pull_request.head.repo.full_name"),
                head_branch=data.ref("pull_request.head.ref"),
                base_ref=data.ref("pull_request.base.ref"),
                base_sha=data.sha("pull_request.base.sha"),
                pull=given.pull or data.number("pull_request.number"),
            )
        case "merge_group":
            return _Change(
                sha=given.sha or data.sha("merge_group.head_sha"),
                head_repository=repository,
                head_branch=_short(data.ref("merge_group.head_ref")),
                base_ref=_short(data.ref("merge_group.base_ref")),
                base_sha=data.sha("merge_group.base_sha"),
            )
        case "push":
            branch = _branch_of(data.ref("ref") or environ.get("GITHUB_REF", ""), "ref")
            sha = given.sha or _pushed(data, environ, tag=branch is None)
        case "workflow_dispatch" | "schedule" | "release":
            ref = data.ref("ref") if event == "workflow_dispatch" else None
            branch = _branch_of(ref or environ.get("GITHUB_REF", ""), "ref, nor the job a GITHUB_REF")
            sha = given.sha or read.sha(environ.get("GITHUB_SHA") or "", "GITHUB_SHA")
        case _:
            branch, sha = None, given.sha or ""  # asked for before
    return _Change(sha=sha, head_repository=repository, head_branch=branch)


def _second_stage(event: str, data: Payload, environ: Mapping[str, str], given: _Given) -> Target:
    """The run that measured is described by the payload; the variables of this job are about this job."""
    measured_by = data.needed(f"{event}.event")
    if measured_by not in EVENTS:
        raise UsageError(
            f"the workflow that measured was started by {str(measured_by)[:80]!r}, expected one of "
            f"{', '.join(EVENTS)}: publish from that workflow itself, with --repository and --sha"
        )
    sha = given.sha or data.sha(f"{event}.head_sha")
    pull, base_ref, base_sha = None, None, None
    if measured_by in ("pull_request", "pull_request_target"):
        pull, base_ref, base_sha = _listed_pull(data.get(f"{event}.pull_requests"), sha)
    head_branch = data.ref(f"{event}.head_branch")
    if measured_by == "merge_group" and (queued := _QUEUED.fullmatch(head_branch or "")):
        base_ref = queued[1]
    return Target(
        repository=_where(data, environ, given),
        head_sha=sha,
        event=measured_by,
        second_stage=True,
        pull=given.pull or pull,
        head_repository=_repository_or_gone(data, f"{event}.head_repository.full_name"),
        head_branch=head_branch,
        default_branch=data.ref("repository.default_branch"),
        base_ref=base_ref,
        base_sha=base_sha,
        run_id=data.number(f"{event}.id"),
        run_attempt=1 if data.get(f"{event}.run_attempt") is None else data.number(f"{event}.run_attempt"),
        details_url=read.address(data.get(f"{event}.html_url")),
    )


def _listed_pull(listed: Any, sha: str) -> tuple[int | None, str | None, str | None]:
    """Number, base branch and base commit of the pull request whose head is this commit.

    The list follows the branch, not the run: after a force-push its heads are others.  It is empty for forks.
    """
    pulls = listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ()
    found = [one for one in map(Payload, pulls) if str(one.get("head.sha")).lower() == sha]
    if len(found) != 1:  # of two pull requests with one commit only the API can tell which is meant
        return None, None, None
    base_sha = None if found[0].get("base.sha") is None else found[0].sha("base.sha")
    return found[0].number("number"), found[0].ref("base.ref"), base_sha


def _where(data: Payload, environ: Mapping[str, str], given: _Given) -> str:
    if given.repository is not None:
        return given.repository
    named = data.get("repository.full_name")
    if named is not None:
        return read.repository(named, "repository.full_name")
    return read.repository(environ.get("GITHUB_REPOSITORY") or "", "GITHUB_REPOSITORY (or --repository)")


def _repository_or_gone(data: Payload, path: str) -> str:
    named = data.get(path)
    return UNKNOWN_REPOSITORY if named is None else read.repository(named, path)


def _pushed(data: Payload, environ: Mapping[str, str], *, tag: bool) -> str:
    """The commit that was pushed; `after` of an annotated tag is the tag's own object, which takes no check."""
    if data.get("deleted") is True or data.get("after") == read.NOWHERE:
        raise UsageError("this push deleted its branch or tag: there is no commit to publish for (say --sha)")
    if data.get("head_commit.id") is not None:
        return data.sha("head_commit.id")
    if tag or data.get("after") is None:
        return read.sha(environ.get("GITHUB_SHA") or "", "head_commit.id, and GITHUB_SHA,")
    return data.sha("after")


def _branch_of(ref: str, name: str) -> str | None:
    """The branch of a full ref, None for a tag."""
    if ref.startswith("refs/heads/"):
        return read.ref(ref.removeprefix("refs/heads/"), name)
    if ref.startswith("refs/tags/"):
        return None
    raise UsageError(f"the event has no {name}: found {ref[:80]!r}, expected refs/heads/… or refs/tags/…")


def _short(ref: str | None) -> str | None:
    return None if ref is None else ref.removeprefix("refs/heads/")


def _run_page(environ: Mapping[str, str], run_id: int | None) -> str | None:
    """The page of this job's run; GITHUB_SERVER_URL is that of a GitHub Enterprise server too."""
    server, repository = environ.get("GITHUB_SERVER_URL") or "", environ.get("GITHUB_REPOSITORY") or ""
    if run_id is None or not server or not repository:
        return None
    return read.address(f"{server.rstrip('/')}/{repository}/actions/runs/{run_id}")
