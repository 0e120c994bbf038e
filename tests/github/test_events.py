"""Event × token: which calls write what, on which commit, through the command as a workflow runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gate.artifact import dumps_record
from gate.cli import main
from tests import records_factory as factory
from tests.github import job as jobs
from tests.github.job import Job
from tests.github.publishing import told
from tests.github.server import APP, GITHUB_TOKEN, PERSONAL, GitHubMock

HEAD = "a1" * 20
"""The gated commit of every event; GITHUB_SHA of a pull request is another one."""

PULL = 7
ACTIONS, BOT, PERSON = "github-actions[bot]", "quantgate-bot[bot]", "octocat"
TOKENS = {"GITHUB_TOKEN": GITHUB_TOKEN, "App": APP, "personal": PERSONAL, "none": ""}


def push(github: GitHubMock) -> Job:
    payload = {"ref": "refs/heads/main", "after": HEAD, "deleted": False, "head_commit": {"id": HEAD}}
    return Job(event="push", payload={**payload, **_repository(github)}, sha=HEAD)


def tag(github: GitHubMock) -> Job:
    """An annotated tag of the default branch: `after` is the tag's own object, which takes no check."""
    github.compare("main", HEAD, [])
    payload = {"ref": "refs/tags/v1", "after": "7" * 40, "deleted": False, "head_commit": {"id": HEAD}}
    return Job(event="push", payload={**payload, **_repository(github)}, sha=HEAD)


def dispatch(github: GitHubMock) -> Job:
    payload = {"ref": "refs/heads/main", "inputs": {}, "workflow": ".github/workflows/gate.yml"}
    return Job(event="workflow_dispatch", payload={**payload, **_repository(github)}, sha=HEAD)


def pull_request(github: GitHubMock) -> Job:
    github.add_pull(PULL, HEAD)
    return jobs.pull_request(github, PULL, HEAD)


def fork(github: GitHubMock) -> Job:
    github.add_pull(PULL, HEAD, head_repository=jobs.FORK)
    return jobs.workflow_run(github, HEAD)


def merge_group(github: GitHubMock) -> Job:
    github.add_pull(PULL, "b2" * 20)
    github.compare("main", HEAD, ["candidate/config.json"])
    return jobs.merge_group(github, PULL, HEAD)


def _repository(github: GitHubMock) -> Mapping[str, Any]:
    return {"repository": {"full_name": github.repository, "default_branch": github.default_branch}}


def check(login: str) -> list[str]:
    return [f"POST check quantgate in_progress by {login}", f"PATCH check quantgate failure by {login}"]


def unverified(login: str) -> list[str]:
    name = "check quantgate (unverified)"
    return [f"POST {name} in_progress by {login}", f"PATCH {name} neutral by {login}"]


STATUS = f"POST status quantgate/verdict failure by {PERSON}"
UNVERIFIED_STATUS = f"POST status quantgate/verdict (unverified) pending by {PERSON}"


def comment(login: str) -> str:
    return f"POST comment by {login}"


TABLE: list[tuple[Callable[[GitHubMock], Job], str, list[str]]] = [
    (push, "GITHUB_TOKEN", check(ACTIONS)),
    (push, "App", check(BOT)),
    (push, "personal", [STATUS]),
    (push, "none", []),
    (tag, "GITHUB_TOKEN", check(ACTIONS)),
    (tag, "App", check(BOT)),
    (tag, "personal", [STATUS]),
    (tag, "none", []),
    (pull_request, "GITHUB_TOKEN", [*check(ACTIONS), comment(ACTIONS)]),
    (pull_request, "App", [*check(BOT), comment(BOT)]),
    (pull_request, "personal", [STATUS, comment(PERSON)]),
    (pull_request, "none", []),
    (fork, "GITHUB_TOKEN", [*unverified(ACTIONS), comment(ACTIONS)]),
    (fork, "App", [*unverified(BOT), comment(BOT)]),
    (fork, "personal", [UNVERIFIED_STATUS, comment(PERSON)]),
    (fork, "none", []),
    (merge_group, "GITHUB_TOKEN", check(ACTIONS)),
    (merge_group, "App", check(BOT)),
    (merge_group, "personal", [STATUS]),
    (merge_group, "none", []),
    (dispatch, "GITHUB_TOKEN", check(ACTIONS)),
    (dispatch, "App", check(BOT)),
    (dispatch, "personal", [STATUS]),
    (dispatch, "none", []),
]


@pytest.mark.parametrize(("event", "token", "expected"), TABLE, ids=[f"{e.__name__}-{t}" for e, t, _ in TABLE])
def test_event_and_token(
    event: Callable[[GitHubMock], Job],
    token: str,
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(dumps_record(factory.regression()), encoding="utf-8")
    with GitHubMock() as github:
        github.add_commit(HEAD)
        job = event(github)
        environment = {**job.environment(github, tmp_path), "GITHUB_TOKEN": TOKENS[token]}
        monkeypatch.delenv("GH_TOKEN", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code = main(["publish", "github", str(tmp_path / "run")])
        told_of = capsys.readouterr()
        assert [told(call) for call in github.writes] == expected
        assert code == (0 if expected else 4)
        assert {c["head_sha"] for c in github.checks} <= {HEAD}
        assert [s["url"].endswith(HEAD) for s in github.statuses] == [True] * len(github.statuses)
        assert [c.status for c in github.calls if c.status >= 400] == []
        if not expected:
            assert github.calls == [], "without a token nothing is asked"
            assert "found no token" in told_of.err
        for secret in TOKENS.values():
            assert not secret or secret not in told_of.out + told_of.err


def test_the_table_is_the_whole_matrix() -> None:
    events = {push, tag, pull_request, fork, merge_group, dispatch}
    assert {(e, t) for e, t, _ in TABLE} == {(e, t) for e in events for t in TOKENS}
    assert len(TABLE) == 24


def test_the_fork_s_pull_request_is_found_by_its_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another fork's branch of the same name, and a closed pull request of the same commit, are not it."""
    (tmp_path / "run.json").write_text(dumps_record(factory.regression()), encoding="utf-8")
    with GitHubMock() as github:
        github.add_pull(5, HEAD, head_repository="stranger/models")
        github.add_pull(6, HEAD, head_repository=jobs.FORK, state="closed")
        github.add_pull(PULL, HEAD, head_repository=jobs.FORK)
        for name, value in jobs.workflow_run(github, HEAD).environment(github, tmp_path).items():
            monkeypatch.setenv(name, value)
        assert main(["publish", "github", str(tmp_path)]) == 0
        assert [c["issue_url"].rsplit("/", 1)[1] for c in github.comments] == [str(PULL)]
