"""Whose code made a result: what is not known is not trusted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.errors import UsageError
from gate.publish.model import Target, Trust
from gate.publish.trust import DEFAULT_CODE_PATHS, matching, trust

HEAD, OTHER = "a" * 40, "b" * 40
CODE, PLAIN = (".github/workflows/gate.yml",), ("models/w4/config.json", "README.md")


def target(event: str, **changes: Any) -> Target:
    values: dict[str, Any] = {
        "repository": "acme/models",
        "head_sha": HEAD,
        "event": event,
        "second_stage": False,
        "pull": 12 if event == "pull_request" else None,
        "head_repository": "acme/models",
        "head_branch": "w4",
        "default_branch": "main",
        "base_ref": "main" if event in ("pull_request", "merge_group") else None,
        "base_sha": None,
        "run_id": 1,
        "run_attempt": 1,
        "details_url": None,
        **changes,
    }
    return Target(**values)


def judged(of: Target, changed: tuple[str, ...] | None = None, **changes: Any) -> Trust:
    values: dict[str, Any] = {
        "problem": "GitHub lists at most 3,000 files",
        "pull_head": HEAD if of.event == "pull_request" else None,
        "code_paths": DEFAULT_CODE_PATHS,
        "measured_here": False,
        **changes,
    }
    return trust(of, changed=changed, **values)


FORK = {"head_repository": "eve/models"}
TABLE: tuple[tuple[str, Target, tuple[str, ...] | None, dict[str, Any], bool, str], ...] = (
    ("pull request, no code", target("pull_request"), PLAIN, {}, True, "changes no code"),
    ("pull request that changes nothing", target("pull_request"), (), {}, True, "changes no code"),
    ("pull request, code", target("pull_request"), (*PLAIN, *CODE), {}, False, "gate.yml"),
    ("pull request, files unknown", target("pull_request"), None, {}, False, "3,000 files"),
    ("force-push", target("pull_request"), PLAIN, {"pull_head": OTHER}, False, "moved on"),
    ("head unknown", target("pull_request"), PLAIN, {"pull_head": None}, False, "nobody knows"),
    ("head in capitals", target("pull_request"), PLAIN, {"pull_head": HEAD.upper()}, True, ""),
    ("fork", target("pull_request", **FORK), PLAIN, {}, False, "fork eve/models"),
    ("fork that changes nothing", target("pull_request", **FORK), (), {}, False, "fork"),
    ("same repository in other letters", target("pull_request", head_repository="ACME/Models"), PLAIN, {}, True, ""),
    ("fork, second stage", target("pull_request", second_stage=True, **FORK), PLAIN, {}, False, "fork"),
    ("second stage, no code", target("pull_request", second_stage=True), PLAIN, {}, True, ""),
    ("second stage, code", target("pull_request", second_stage=True), CODE, {}, False, ""),
    (
        "measured again for a fork",
        target("pull_request", second_stage=True, **FORK),
        None,
        {"measured_here": True, "pull_head": None},
        True,
        "default branch's workflow",
    ),
    ("a pull request's own word", target("pull_request"), CODE, {"measured_here": True}, False, ""),
    ("a merge group's own word", target("merge_group"), CODE, {"measured_here": True}, False, ""),
    ("a branch's own word", target("push"), CODE, {"measured_here": True}, False, ""),
    ("pull_request_target", target("pull_request_target", **FORK), None, {}, False, "base branch"),
    ("another base", target("pull_request", base_ref="evil"), PLAIN, {}, False, "its base is evil"),
    ("another base that counts", target("pull_request", base_ref="rel/2"), PLAIN, {"bases": ["rel/2"]}, True, ""),
    ("merge group of another base", target("merge_group", base_ref="evil"), PLAIN, {}, False, "its base is evil"),
    ("no base is known", target("merge_group", base_ref=None, default_branch=None), PLAIN, {}, False, "not known"),
    ("merge group, no code", target("merge_group"), PLAIN, {}, True, "merge group"),
    ("merge group, code", target("merge_group"), CODE, {}, False, "merge group"),
    ("merge group, files unknown", target("merge_group"), None, {}, False, ""),
    ("push to the default branch", target("push", head_branch="main"), None, {}, True, "default branch"),
    ("push to a branch, unknown", target("push"), None, {}, False, "w4"),
    ("push to a branch, its own policy perhaps", target("push"), PLAIN, {}, False, "whose policy counts"),
    ("push to a branch, nothing of its own", target("push"), (), {}, True, "nothing that"),
    ("push to a branch, code", target("push"), CODE, {}, False, ""),
    (
        "push where no default branch is known",
        target("push", head_branch="main", default_branch=None),
        None,
        {},
        False,
        "",
    ),
    ("tag of the default branch", target("push", head_branch=None), (), {}, True, "tag"),
    ("tag, unknown", target("push", head_branch=None), None, {}, False, "tag"),
    ("tag of something else", target("push", head_branch=None), PLAIN, {}, False, "tag"),
    ("second stage, neither branch nor tag", target("push", head_branch=None, second_stage=True), None, {}, False, ""),
    ("second stage, default branch", target("push", head_branch="main", second_stage=True), None, {}, True, ""),
    ("dispatch on the default branch", target("workflow_dispatch", head_branch="main"), None, {}, True, ""),
    ("dispatch on a branch, unknown", target("workflow_dispatch"), None, {}, False, ""),
    ("dispatch on a branch, its own policy perhaps", target("workflow_dispatch"), PLAIN, {}, False, ""),
    ("release", target("release", head_branch=None), (), {}, True, ""),
    ("schedule", target("schedule", head_branch="main"), None, {}, True, "scheduled"),
    ("another event", target("deployment"), PLAIN, {}, False, "deployment"),
    ("another event's own word", target("pull_request_review"), PLAIN, {"measured_here": True}, False, ""),
    ("outside of Actions", target(""), PLAIN, {}, False, "no event"),
    ("outside of Actions, measured here", target(""), None, {"measured_here": True}, True, "outside"),
)


@pytest.mark.parametrize(
    ("of", "changed", "more", "verified", "said"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_whose_code(of: Target, changed: Any, more: dict[str, Any], verified: bool, said: str) -> None:
    found = judged(of, changed, **more)
    assert found.verified is verified
    assert said in found.reason
    assert found.reason
    assert not found.reason.endswith(".")


@pytest.mark.parametrize(
    ("path", "glob", "code"),
    [
        (".github/workflows/gate.yml", ".github/**", True),
        (".github", ".github/**", True),
        (".GitHub/workflows/gate.yml", ".github/**", True),
        ("org", "org/model/**", True),
        ("org/mode", "org/model/**", False),
        (".github/a\nb/c", ".github/**", True),
        ("docs/.github/x", ".github/**", False),
        (".githubx/x", ".github/**", False),
        ("docs/.github/x", "**/.github/**", True),
        (".github/x", "**/.github/**", True),
        ("gate/cli.py", "gate/", True),
        ("gate/a/b.py", "./gate", True),
        ("gate/a/b.py", "gate/*.py", False),
        ("gate/b.py", "gate/*.py", True),
        ("gate/a/b.py", "gate/**/*.py", True),
        ("gate/b.py", "gate/**/*.py", True),
        ("agate/b.py", "gate/**/*.py", False),
        ("Makefile", "makefile", True),
        ("makefile", "Makefile", True),
        ("a/Makefile", "Makefile", False),
        ("requirements-dev.txt", "requirements*.txt", True),
        ("a/b/c/d/conftest.py", "**/conftest.py", True),
        ("conftest.py", "**/conftest.py", True),
        ("x", "**", True),
        ("a/" * 400 + "x", "/".join(["**"] * 40) + "/y", False),
    ],
)
def test_code_paths(path: str, glob: str, code: bool) -> None:
    assert (matching([path, "models/x"], (glob,))[:1] == (path,)) == code


@pytest.mark.parametrize("paths", [(), ("",), ("/",), ("/etc/**",), ("../**",), ("a\\b",), ("a\nb",), ".github/**"])
def test_code_paths_that_would_match_nothing_are_mistakes(paths: Any) -> None:
    with pytest.raises(UsageError, match="code path"):
        judged(target("push", head_branch="main"), code_paths=paths)


def test_long_lists_and_hostile_names_stay_one_line() -> None:
    names = tuple(f".github/\x1b[31m{k}\n::error::{'x' * 10_000}" for k in range(50))
    reason = judged(target("pull_request"), names).reason
    assert "and 47 more" in reason
    assert len(reason) < 600
    assert reason.isprintable()


@given(st.lists(st.text(max_size=30), max_size=5), st.sampled_from(["pull_request", "merge_group", "push"]))
def test_one_code_file_among_any_others(paths: list[str], event: str) -> None:
    assert not judged(target(event), (*paths, ".github/actions/gate/action.yml")).verified
