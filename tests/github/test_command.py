"""`gate publish github` as it is called: what it prints, writes and exits with; --start, --reap, --dry-run, --optional.

The conversation itself is tested next door.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gate.artifact import dumps_record
from gate.cli import main
from gate.publish.reap import TITLE, reap
from gate.records import RunRecord
from tests import records_factory as factory
from tests.github import job as jobs
from tests.github.publishing import NAME, PULL, SHA, Clock, client
from tests.github.server import ALL, GITHUB_TOKEN, READ_ONLY, Fault, GitHubMock

RUN = int(jobs.run_id(SHA))


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GitHubMock]:
    """The variables are those of a job for pull request 7."""
    with GitHubMock() as mock:
        mock.add_pull(PULL, SHA)
        environment = jobs.pull_request(mock, PULL, SHA).environment(mock, tmp_path)
        for name in ("GH_TOKEN", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield mock


def run(folder: Path, record: RunRecord | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(dumps_record(record or factory.regression()), encoding="utf-8")
    return folder


def publish(*arguments: str | Path) -> int:
    return main(["publish", "github", *map(str, arguments)])


def conclusions(github: GitHubMock) -> dict[str, str | None]:
    return {c["name"]: c["conclusion"] for c in github.checks}


def test_it_says_what_it_did(github: GitHubMock, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish(run(tmp_path / "w4")) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("check quantgate: failure (Regression")
    assert second == "comment on pull request 7: created"


def test_several_candidates_one_of_which_did_not_come_back(github: GitHubMock, tmp_path: Path) -> None:
    run(tmp_path / "runs" / "w8", factory.passing())
    assert publish(tmp_path / "runs", "--expect", '["w4", "w8"]') == 0
    [check] = github.checks
    assert check["conclusion"] == "failure"
    assert "Could not measure" in check["output"]["title"]
    assert "w4" in check["output"]["title"]


@pytest.mark.parametrize("text", ["", "{", '{"artifact_version": 4}', "[" * 100_000])
def test_a_damaged_record_is_published_as_such(text: str, github: GitHubMock, tmp_path: Path) -> None:
    (tmp_path / "w4").mkdir()
    (tmp_path / "w4" / "run.json").write_text(text)
    assert publish(tmp_path / "w4") == 0
    assert conclusions(github) == {NAME: "failure"}
    assert github.checks[0]["output"]["title"].startswith("Could not measure")


def test_nothing_was_to_be_gated(github: GitHubMock) -> None:
    assert publish("--expect", "[]") == 0
    [check] = github.checks
    assert (check["conclusion"], check["output"]["title"]) == ("skipped", "No checkpoint changed: nothing was gated")
    assert github.comments == []


@pytest.mark.parametrize(
    "arguments",
    [(), ("--start", "--reap"), ("--start", "out"), ("--expect", "x"), ("--older-than", "soon", "--reap")],
)
def test_what_cannot_be_asked(arguments: tuple[str, ...], github: GitHubMock) -> None:
    assert publish(*arguments) == 2
    assert github.calls == []


@pytest.mark.parametrize("text", ["", "[]", "{", "\ud800".encode("utf-8", "surrogatepass")])
def test_an_event_that_is_no_event(text: str | bytes, github: GitHubMock, tmp_path: Path) -> None:
    event = tmp_path / "odd.json"
    event.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert publish("--expect", "[]", "--payload", event) == 2
    assert publish("--expect", "[]", "--payload", tmp_path / "missing.json") == 2
    assert github.calls == []


def test_the_token_may_be_in_gh_token(github: GitHubMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    monkeypatch.setenv("GH_TOKEN", GITHUB_TOKEN)
    assert publish(run(tmp_path / "w4")) == 0
    assert conclusions(github) == {NAME: "failure"}


def test_required_and_optional(
    github: GitHubMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", READ_ONLY)
    assert publish(run(tmp_path / "w4")) == 4
    told = capsys.readouterr()
    assert told.err.startswith("gate: GitHub answered 403 to POST check-runs: Resource not accessible by integration")
    assert "::" not in told.out
    assert publish(run(tmp_path / "w4"), "--optional") == 0
    told = capsys.readouterr()
    assert told.out.startswith("::warning title=Not published on GitHub::GitHub answered 403")
    assert told.out.count("\n") == 1
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert publish(run(tmp_path / "w4")) == 4
    assert capsys.readouterr().out.startswith("::error title=Not published on GitHub::")


def test_a_comment_that_fails_is_loud_and_the_check_stands(
    github: GitHubMock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    github.faults = lambda call: Fault(kind="status", status=410, body="{}") if "/comments" in call.path else None
    assert publish(run(tmp_path / "w4")) == 4
    told = capsys.readouterr()
    assert told.out.startswith("check quantgate: failure")
    assert "the comment was not written" in told.err
    assert conclusions(github) == {NAME: "failure"}


def test_start_and_then_publish(github: GitHubMock, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish("--start") == 0
    assert capsys.readouterr().out == "check quantgate: in progress (1001)\n"
    assert conclusions(github) == {NAME: None}
    assert publish(run(tmp_path / "w4", factory.passing())) == 0
    assert conclusions(github) == {NAME: "success"}


def test_start_needs_a_run_that_will_complete_it(github: GitHubMock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_RUN_ID")
    assert publish("--start") == 2
    assert github.checks == []


def test_code_paths(github: GitHubMock, tmp_path: Path) -> None:
    github.push(PULL, SHA, files=["scripts/measure.py", "candidate/config.json"])
    assert publish(run(tmp_path / "w4", factory.passing()), "--code-path", "scripts/**") == 0
    assert conclusions(github) == {"quantgate (unverified)": "neutral"}
    assert publish(run(tmp_path / "w4", factory.passing())) == 0
    assert conclusions(github)[NAME] == "success"


def test_a_changed_workflow_makes_it_unverified(github: GitHubMock, tmp_path: Path) -> None:
    github.push(PULL, SHA, files=[("docs/gate.yml", ".github/workflows/gate.yml")])
    assert publish("--start") == 0
    assert publish(run(tmp_path / "w4", factory.passing())) == 0
    assert conclusions(github) == {NAME: "action_required", "quantgate (unverified)": "neutral"}


@pytest.mark.parametrize(
    ("publish_section", "expected"),
    [
        ({"inconclusive": "neutral"}, "neutral"),
        ({"inconclusive": "action_required"}, "action_required"),
        ({"inconclusive": "success"}, "failure"),
        ({"inconclusive": ["neutral"]}, "failure"),
        ("neutral", "failure"),
        (None, "failure"),
    ],
)
def test_the_policy_says_what_inconclusive_means(
    publish_section: Any, expected: str, github: GitHubMock, tmp_path: Path
) -> None:
    policy: Mapping[str, Any] = {**factory.POLICY, "publish": publish_section}
    assert publish(run(tmp_path / "w4", factory.inconclusive(policy))) == 0
    assert conclusions(github) == {NAME: expected}


def test_the_option_comes_before_the_policy(github: GitHubMock, tmp_path: Path) -> None:
    policy = {**factory.POLICY, "publish": {"inconclusive": "neutral", "comment": "always"}}
    folder = run(tmp_path / "w4", factory.inconclusive(policy))
    assert publish(folder, "--inconclusive", "action_required", "--comment", "never") == 0
    assert conclusions(github) == {NAME: "action_required"}
    assert github.comments == []


def test_the_job_s_summary(github: GitHubMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert publish(run(tmp_path / "w4"), "--no-summary") == 0
    assert summary.read_text() == "before\n"
    assert publish(run(tmp_path / "w4")) == 0
    assert summary.read_text() == "before\n" + github.checks[0]["output"]["summary"] + "\n"
    summary.write_text("x" * (2**20 - 100))
    assert publish(run(tmp_path / "w4")) == 0
    assert summary.stat().st_size == 2**20 - 100, "a summary that is too large is dropped whole"


def test_nothing_hostile_reaches_the_log(
    github: GitHubMock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = factory.hostile()
    verdict = replace(hostile.verdict, sentence=f"::error::boom\n::set-env name=x::y\n{factory.HOSTILE}")
    publish(run(tmp_path / "w4", replace(hostile, verdict=verdict)))
    told = capsys.readouterr()
    for line in (told.out + told.err).splitlines():
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
        assert "\x1b" not in line


def test_a_dry_run_needs_neither_token_nor_network(
    github: GitHubMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    monkeypatch.setenv("GITHUB_API_URL", "https://nowhere.invalid")
    out = tmp_path / "payloads"
    assert publish(run(tmp_path / "w4"), "--dry-run", out) == 0
    assert github.calls == []
    assert sorted(p.name for p in out.iterdir()) == [
        "01-create-check.json",
        "02-update-check.json",
        "03-create-comment.json",
        "comment.md",
        "summary.md",
    ]
    body = json.loads((out / "02-update-check.json").read_text())
    assert body["conclusion"] == "failure"
    assert (out / "comment.md").read_text().startswith("<!-- quantgate:sticky v1 ")
    assert (out / "summary.md").read_text() == body["output"]["summary"]
    assert publish("--start", "--dry-run", tmp_path / "started") == 0
    assert [p.name for p in (tmp_path / "started").iterdir()] == ["01-create-check.json"]


def test_a_dry_run_that_cannot_be_written(github: GitHubMock, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert publish(run(tmp_path / "w4"), "--dry-run", tmp_path / "file") == 2


# --reap

LONG_AGO, JUST_NOW = "2026-01-01T00:00:00Z", "2026-01-02T23:00:00Z"
NOW = datetime(2026, 1, 3, tzinfo=UTC)


def reaped(github: GitHubMock, token: str = GITHUB_TOKEN) -> tuple[str, ...]:
    patience = Clock().patience()
    with client(github, token, patience=patience) as talking:
        return reap(talking, name=NAME, older_than=timedelta(hours=6), now=NOW, patience=patience)


def begun(github: GitHubMock, sha: str, *, id: str, at: str = LONG_AGO, **more: Any) -> int:
    sent = {"status": "in_progress", "external_id": id, "started_at": at, **more}
    return github.add_check(
        sha, more.pop("name", NAME), app="github-actions", **{k: v for k, v in sent.items() if k != "name"}
    )


def test_a_check_whose_run_is_over_is_reaped(github: GitHubMock) -> None:
    github.add_run(RUN, status="completed")
    begun(github, SHA, id=f"quantgate/{RUN}.1/quantgate")
    begun(github, github.default_sha, id="quantgate/5.1/quantgate")  # its run is gone altogether
    done = reaped(github)
    assert [(c["conclusion"], c["output"]["title"]) for c in github.checks] == [("timed_out", TITLE)] * 2
    assert len(done) == 2
    assert reaped(github) == ("no check quantgate in progress for longer than 6 hours",)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"id": f"quantgate/{RUN}.1/quantgate"}, "in_progress"),
        ({"id": f"quantgate/{RUN}.1/quantgate"}, "queued"),
        ({"id": f"quantgate/{RUN}.1/quantgate", "at": JUST_NOW}, "completed"),
        ({"id": "somebody/1.1/quantgate"}, "completed"),
        ({"id": ""}, "completed"),
        ({"id": f"quantgate/{RUN}.1/quantgate", "name": "other"}, "completed"),
    ],
)
def test_checks_that_are_left_alone(more: dict[str, Any], status: str, github: GitHubMock) -> None:
    github.add_run(RUN, status=status)
    begun(github, SHA, **more)
    reaped(github)
    assert [c["status"] for c in github.checks] == ["in_progress"]


def test_what_is_completed_stays(github: GitHubMock) -> None:
    begun(github, SHA, id=f"quantgate/{RUN}.1/quantgate", conclusion="success")
    reaped(github)
    assert conclusions(github) == {NAME: "success"}


def test_without_permission_to_see_runs_age_alone_says_so(github: GitHubMock) -> None:
    token = github.add_token(
        "ghs_" + "z" * 36,
        login="github-actions[bot]",
        app="github-actions",
        permissions={k: v for k, v in ALL.items() if k != "actions"},
    )
    github.add_run(RUN, status="in_progress")
    begun(github, SHA, id=f"quantgate/{RUN}.1/quantgate")
    reaped(github, token)
    assert conclusions(github) == {NAME: "timed_out"}


def test_only_open_pull_requests_are_looked_at(github: GitHubMock) -> None:
    begun(github, SHA, id="quantgate/5.1/quantgate")
    github.close(PULL)
    reaped(github)
    assert conclusions(github) == {NAME: None}


def test_reap_from_the_command_line(github: GitHubMock, capsys: pytest.CaptureFixture[str]) -> None:
    begun(github, SHA, id="quantgate/5.1/quantgate", at="2020-01-01T00:00:00Z")
    assert publish("--reap", "--older-than", "90min") == 0
    assert "timed_out, its run has vanished" in capsys.readouterr().out
    assert conclusions(github) == {NAME: "timed_out"}
