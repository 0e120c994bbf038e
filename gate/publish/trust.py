"""Whose code made a result: may it conclude the required check?

Pure.  What is not known is not trusted: only what provably ran the default branch's code is verified.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from gate.errors import UsageError
from gate.publish.model import Target, Trust
from gate.reports import escape

DEFAULT_CODE_PATHS = (".github/**",)
"""Files that decide what a workflow runs; a repository that runs scripts or installs from itself names those too."""

_ELSEWHERE = ("", "repository_dispatch", "issue_comment")
"""Outside of Actions, and events that always run the default branch's workflow, but say nothing of what they gate."""

_SHOWN = 3


def trust(
    target: Target,
    *,
    changed: Sequence[str] | None,
    problem: str,
    pull_head: str | None,
    code_paths: Sequence[str],
    measured_here: bool,
    bases: Sequence[str] = (),
) -> Trust:
    """May this result conclude the required check?

    Args:
        changed: all files that differ from the base (from the default branch where there is no pull request), renamed
            ones under both names; None where they are not known, or not all of them.
        problem: why they are not known.
        pull_head: the pull request's head, asked for after its files were listed; None where nobody asked.
        code_paths: globs of files that are code here: `**` for any folders, `*` within one name; a folder's name
            stands for all below it.
        measured_here: the workflow that publishes measured it again, as data.  Means nothing in a workflow that a
            pull request or a branch can change: those are judged by their files all the same.

    Raises:
        UsageError: no code paths, or one that is no relative path.
    """
    patterns = _patterns(code_paths)
    if measured_here and (target.second_stage or target.event in _ELSEWHERE):
        where = "by the default branch's workflow" if target.event else "here, outside of GitHub Actions"
        return Trust(verified=True, reason=f"measured {where}")
    match target.event:
        case "pull_request_target":
            reason = "pull_request_target measures files of the base branch, and would speak for the pull request's"
            return Trust(verified=False, reason=reason)
        case _ if target.fork:
            return Trust(
                verified=False, reason=f"made by code of the fork {escape.line(target.head_repository, 120)}, not ours"
            )
        case "pull_request" | "merge_group" if target.base_ref is None or not _sets_the_bar(target, bases):
            base = escape.line(target.base_ref or "not known", 120)
            return Trust(verified=False, reason=f"its base is {base}: only the default branch's policy and tasks count")
        case "pull_request":
            if pull_head is None:
                return Trust(verified=False, reason="nobody knows whether it still is the pull request's head")
            if pull_head.lower() != target.head_sha:
                now = escape.line(pull_head, 40)[:7]
                reason = f"the pull request moved on from {target.head_sha[:7]} to {now}: what it changed is not known"
                return Trust(verified=False, reason=reason)
            return _by_files(patterns, changed, problem, "the pull request")
        case "merge_group":
            return _by_files(patterns, changed, problem, "the merge group")
        case "schedule":
            return Trust(verified=True, reason="a scheduled run has the code of the default branch")
        case "push" | "workflow_dispatch" | "release":
            return _by_place(target, changed, problem)
        case _:
            event = f"the event {escape.line(target.event, 40)!r} does not say" if target.event else "no event says"
            return Trust(verified=False, reason=f"{event} whose code made it")


def matching(changed: Sequence[str], code_paths: Sequence[str]) -> tuple[str, ...]:
    """Those of the files that are code.

    Raises:
        UsageError: no code paths, or one that is no relative path.
    """
    patterns = _patterns(code_paths)
    return tuple(path for path in changed if any(_matches(path, pattern) for pattern in patterns))


def _sets_the_bar(target: Target, bases: Sequence[str]) -> bool:
    return target.base_ref == target.default_branch or target.base_ref in bases


def _by_place(target: Target, changed: Sequence[str] | None, problem: str) -> Trust:
    """Of a branch or a tag.  It is judged by the policy that lies on it, so nothing may differ, not only no code."""
    if target.head_branch is not None and target.head_branch == target.default_branch:
        return Trust(verified=True, reason=f"made on the default branch, {escape.line(target.head_branch, 120)}")
    place = "the tag" if target.head_branch is None else f"the branch {escape.line(target.head_branch, 120)}"
    if changed is None:
        return _not_listed(place, problem)
    if changed:
        named = _named(changed)
        return Trust(verified=False, reason=f"{place} differs from the default branch, whose policy counts: {named}")
    return Trust(verified=True, reason=f"{place} holds nothing that the default branch has not")


def _by_files(patterns: Sequence[tuple[str, ...]], changed: Sequence[str] | None, problem: str, who: str) -> Trust:
    if changed is None:
        return _not_listed(who, problem)
    found = [path for path in changed if any(_matches(path, pattern) for pattern in patterns)]
    if not found:
        return Trust(verified=True, reason=f"{who} changes no code that measures")
    return Trust(verified=False, reason=f"{who} changes code that measures: {_named(found)}")


def _not_listed(who: str, problem: str) -> Trust:
    why = escape.line(problem, 300).rstrip(".") or "nobody asked"
    return Trust(verified=False, reason=f"which files {who} changes is not known: {why}")


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(escape.line(path, 120) for path in paths[:_SHOWN]) + more


def _patterns(code_paths: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    if not code_paths or isinstance(code_paths, str):
        raise UsageError("no code paths: without them nothing would be code; the default is " + DEFAULT_CODE_PATHS[0])
    return tuple(_pattern(glob) for glob in code_paths)


def _pattern(glob: str) -> tuple[str, ...]:
    parts = [part for part in glob.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or glob.startswith("/") or not glob.isprintable() or "\\" in glob:
        raise UsageError(f"found code path {glob!r}, expected a glob relative to the repository, such as .github/**")
    return tuple(part.casefold() for part in parts)


def _matches(path: str, pattern: tuple[str, ...]) -> bool:
    """Is it what the glob names, or a folder above that, or below?  Case is ignored: some runners' disks do.

    A file above what is named can only be a link that takes its place.
    """
    parts = re.split("/+", path.strip("/").casefold())
    if len(parts) < len(pattern) and all(p != "**" and _fits(part, p) for part, p in zip(parts, pattern, strict=False)):
        return True
    at = _reach({0}, pattern)
    for part in parts:
        if len(pattern) in at:
            return True
        steps = {k if pattern[k] == "**" else k + 1 for k in at if k < len(pattern) and _fits(part, pattern[k])}
        at = _reach(steps, pattern)
    return len(pattern) in at


def _fits(part: str, pattern: str) -> bool:
    return pattern == "**" or fnmatchcase(part, pattern)


def _reach(at: set[int], pattern: tuple[str, ...]) -> set[int]:
    """`**` stands for no folder as well."""
    reached = set(at)
    for k in range(len(pattern)):
        if k in reached and pattern[k] == "**":
            reached.add(k + 1)
    return reached
