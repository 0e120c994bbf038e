"""Which files a proposed change touches, and where it stands now: what trust is decided from.

Asks GitHub, decides nothing.  A list that may be incomplete, or of another commit, is no list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gate.publish.client import Client, Pull
from gate.publish.model import Target
from gate.publish.problem import PublishError

_PROPOSALS = ("pull_request", "merge_group")
_PLACES = ("push", "workflow_dispatch", "release")


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """`files` is None where they are not known, and `problem` says why; `pull_head` None where nobody asked."""

    files: tuple[str, ...] | None
    problem: str
    pull_head: str | None


def resolved(target: Target, client: Client) -> Target:
    """The target with its pull request, which `workflow_run` does not name for forks.

    The one whose head is the gated commit; after a push since then, the only open one of the branch.  Two that fit:
    none, and the comment has no place.
    """
    if target.default_branch is None:
        target = replace(target, default_branch=client.default_branch())
    if target.pull is not None or target.event not in ("pull_request", "pull_request_target"):
        return target
    if target.head_branch is None or "/" not in target.head_repository:
        return target
    pulls = client.pulls_of(target.head_repository, target.head_branch)
    of_commit = [p for p in pulls if p.head_sha == target.head_sha]
    for found in ([p for p in of_commit if p.open], of_commit, [p for p in pulls if p.open]):
        if len(found) == 1:
            return replace(target, pull=found[0].number, base_ref=found[0].base_ref, base_sha=found[0].base_sha)
        if found:
            break
    return target


def changes(target: Target, client: Client) -> Changes:
    """What trust needs to know about this target; what it does not need is not asked for."""
    try:
        files, problem = _files(target, client)
        pull = _pull(target, client) if target.event == "pull_request" else None
    except PublishError as failed:
        return Changes(files=None, problem=str(failed), pull_head=None)
    # asked for after the files: a head that still is ours now was ours when they were listed
    head = None if pull is None else pull.head_sha
    return Changes(files=None if files is None else tuple(files), problem=problem, pull_head=head)


def _files(target: Target, client: Client) -> tuple[Sequence[str] | None, str]:
    if target.fork or target.event not in _PROPOSALS + _PLACES:
        return None, "nobody asked"
    if target.event == "pull_request" and target.second_stage and target.pull and client.retargeted(target.pull):
        return None, "it was pointed to another base since it was opened, and nobody knows by which it was judged"
    base = target.default_branch or client.default_branch()
    if target.event in _PLACES:
        if target.head_branch == base:
            return None, "nobody asked"
    elif target.base_ref is None:
        return None, "its base branch is not known"
    else:
        base = target.base_ref
    files = client.compared(base, target.head_sha)
    if files is None and target.event == "pull_request" and target.pull is not None:
        files = client.pull_files(target.pull, target.head_sha)
    return files, "" if files is not None else f"GitHub does not list all files that differ from {base}"


def _pull(target: Target, client: Client) -> Pull | None:
    return None if target.pull is None else client.pull(target.pull)
