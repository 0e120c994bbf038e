"""The conversation with GitHub, checked by Prism against GitHub's own description: `make test-github`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from gate.artifact import dumps_record
from gate.cli import main
from gate.records import RunRecord
from tests import records_factory as factory
from tests.github import job as jobs
from tests.github import openapi
from tests.github import prism as prisms
from tests.github.job import Job
from tests.github.prism import Prism
from tests.github.publishing import told
from tests.github.server import GITHUB_TOKEN, PERSONAL, GitHubMock
from tests.github.test_events import HEAD, TABLE, TOKENS
from tests.github.test_limits_end_to_end import release

pytestmark = pytest.mark.github

SHA, NEXT = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prism]:
    with prisms.running(tmp_path_factory.mktemp("prism")) as found:
        yield found


@pytest.fixture(scope="module")
def described() -> Mapping[str, Any]:
    return openapi.subset(openapi.load(prisms.NODE_MODULES))


@pytest.fixture
def github(prism: Prism, described: Mapping[str, Any]) -> Iterator[GitHubMock]:
    """The mock behind Prism; in the end nothing may have been said that GitHub's description does not allow.

    Names in queries are looked up here: Prism lets unknown ones pass, and GitHub ignores them, so that a misspelt
    filter would filter nothing.
    """
    before = len(prism.violations())
    with GitHubMock() as mock, prism.before(mock):
        yield mock
        found = prism.violations()[before:]
        assert found == (), "\n".join(map(str, found))
        for call in mock.calls:
            assert set(call.query) <= openapi.query_parameters(described, call.method, call.path), (
                f"{call}: {call.query}"
            )


def ask(prism: Prism, method: str, path: str, body: Any = None, *, token: str = GITHUB_TOKEN) -> requests.Response:
    return requests.request(
        method,
        prism.url + path,
        data=None if body is None else json.dumps(body),
        headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
        timeout=60,
    )


HOME = "/repos/acme/models"
OUTPUT = {"title": "Failed", "summary": "one rule is red", "text": "…"}


def test_everything_that_the_mock_can_say_is_what_github_says(prism: Prism, github: GitHubMock) -> None:
    """So that what the gate is tested against is not a GitHub of our own making."""
    github.add_pull(7, SHA, files=("a.json", ("b.json", "c.json")))
    github.add_run(5)
    created = ask(prism, "POST", f"{HOME}/check-runs", {"name": "quantgate", "head_sha": SHA, "status": "in_progress"})
    check = created.json()["id"]
    annotation = {"path": "p.yaml", "start_line": 3, "end_line": 3, "annotation_level": "failure", "message": "red"}
    done = {"status": "completed", "conclusion": "failure", "output": OUTPUT | {"annotations": [annotation] * 50}}
    state = {"state": "failure", "context": "quantgate/verdict", "description": "Failed"}
    asked = [
        ("PATCH", f"/check-runs/{check}", done),
        ("GET", f"/check-runs/{check}", None),
        ("GET", f"/check-runs/{check}/annotations?per_page=20", None),
        ("GET", f"/commits/{SHA}/check-runs?check_name=quantgate&filter=all&per_page=100", None),
        ("POST", f"/statuses/{SHA}", state),
        ("GET", f"/commits/{SHA}/statuses?per_page=1", None),
        ("GET", f"/commits/{SHA}/pulls", None),
        ("GET", f"/commits/{SHA}", None),
        ("POST", "/issues/7/comments", {"body": "first"}),
        ("GET", "/issues/7/comments", None),
        ("GET", "/pulls?state=all", None),
        ("GET", "/pulls/7", None),
        ("GET", "/pulls/7/files", None),
        ("GET", f"/compare/main...{SHA}", None),
        ("GET", "/issues/7/events", None),
        ("GET", "/actions/runs/5", None),
        ("GET", "", None),
    ]
    for method, path, body in asked:
        answer = ask(prism, method, HOME + path, body)
        assert answer.status_code in (200, 201), (method, path, answer.text)
    comment = github.comments[0]["id"]
    assert ask(prism, "PATCH", f"{HOME}/issues/comments/{comment}", {"body": "second"}).status_code == 200
    assert ask(prism, "DELETE", f"{HOME}/issues/comments/{comment}").status_code == 204
    assert ask(prism, "GET", "/user", token=PERSONAL).status_code == 200


def test_what_the_mock_refuses_is_refused_in_githubs_words(prism: Prism, github: GitHubMock) -> None:
    github.add_commit(SHA)
    one = {"name": "quantgate", "head_sha": SHA}
    assert ask(prism, "POST", f"{HOME}/check-runs", one, token=PERSONAL).status_code == 403
    assert ask(prism, "POST", f"{HOME}/check-runs", one, token="ghs_nobody").status_code == 401
    assert ask(prism, "POST", f"{HOME}/check-runs", one | {"head_sha": NEXT}).status_code == 422
    assert ask(prism, "GET", f"{HOME}/pulls/8").status_code == 404
    long = {"state": "failure", "context": "x", "description": "d" * 141}
    assert ask(prism, "POST", f"{HOME}/statuses/{SHA}", long).status_code == 422


class Jobs:
    """Runs `gate publish github` as jobs of GitHub Actions do, through Prism."""

    def __init__(self, github: GitHubMock, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.github, self._folder, self._patch = github, folder, patch

    def run(self, job: Job, *arguments: str, code: int = 0) -> None:
        for name, value in job.environment(self.github, self._folder).items():
            self._patch.setenv(name, value)
        assert main(["publish", "github", *arguments]) == code

    def record(self, record: RunRecord) -> str:
        (self._folder / "bank").mkdir(exist_ok=True)
        (self._folder / "bank" / "run.json").write_text(dumps_record(record), encoding="utf-8")
        return str(self._folder / "bank")


@pytest.fixture
def run(github: GitHubMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    return Jobs(github, tmp_path, monkeypatch)


REMARKED = ("--policy-path", "thresholds/demo.yaml")


def test_the_whole_conversation_of_an_installation(github: GitHubMock, run: Jobs) -> None:
    """Start, finish with more remarks than one request takes, the same again, a repaired commit."""
    github.add_pull(7, SHA)
    for n in range(130):
        github.add_comment(7, "octocat", f"remark {n}")
    opened = jobs.pull_request(github, 7, SHA)
    run.run(opened, "--start")
    assert [c["status"] for c in github.checks] == ["in_progress"]
    red = run.record(release("full", n_tasks=250))
    for _ in range(2):
        run.run(opened, red, *REMARKED)
        [check] = github.checks
        assert check["conclusion"] == "failure"
        assert len(github.annotations(check["id"])) > 100, "three requests, and not twice"
        assert len([c for c in github.comments if c["user"]["login"] == "github-actions[bot]"]) == 1
    github.push(7, NEXT)
    run.run(jobs.pull_request(github, 7, NEXT), run.record(factory.passing()), *REMARKED)
    assert [c["conclusion"] for c in github.checks] == ["failure", "success"]
    assert "Was **regression** at `aaaaaaa` → now **pass**" in github.comments[-1]["body"]
    calls = {(c.method, c.path.rsplit("/", 1)[-1]) for c in github.calls}
    assert {("POST", "check-runs"), ("POST", "comments")} <= calls
    assert any(c.query.get("page") == "2" for c in github.calls), "further pages were read"


def test_two_comments_become_one(github: GitHubMock, run: Jobs) -> None:
    """Two runs that ended together: the younger comment is deleted."""
    github.add_pull(7, SHA)
    opened, red = jobs.pull_request(github, 7, SHA), run.record(factory.regression())
    run.run(opened, red)
    github.add_comment(7, "github-actions[bot]", github.comments[0]["body"])
    run.run(opened, red)
    assert len(github.comments) == 1
    assert [c.status for c in github.calls if c.method == "DELETE"] == [204]


@pytest.mark.parametrize("token", [PERSONAL, "unknown_" + "e" * 36])
def test_a_token_that_may_not_write_checks_writes_a_status(token: str, github: GitHubMock, run: Jobs) -> None:
    """A personal one is known by its prefix; of an unknown one GitHub says it (403)."""
    github.tokens[token] = github.tokens[PERSONAL]
    github.add_pull(7, SHA)
    opened, red = jobs.pull_request(github, 7, SHA, token=token), run.record(factory.regression())
    for _ in range(2):
        run.run(opened, red)
    assert [(s["context"], s["state"]) for s in github.statuses] == [("quantgate/verdict", "failure")]
    assert github.checks == []
    assert [c["user"]["login"] for c in github.comments] == ["octocat"]


def test_a_fork_through_the_second_stage(github: GitHubMock, run: Jobs) -> None:
    github.add_pull(8, SHA, head_repository=jobs.FORK, head_branch=jobs.BRANCH)
    run.run(jobs.workflow_run(github, SHA), run.record(factory.regression()))
    assert [(c["name"], c["conclusion"]) for c in github.checks] == [("quantgate (unverified)", "neutral")]
    assert [c["issue_url"].rsplit("/", 1)[-1] for c in github.comments] == ["8"]


def test_a_merge_group(github: GitHubMock, run: Jobs) -> None:
    github.add_commit(SHA)
    github.compare("main", SHA, ("models/a.safetensors",))
    run.run(jobs.merge_group(github, 7, SHA), run.record(factory.passing()))
    assert [(c["name"], c["conclusion"]) for c in github.checks] == [("quantgate", "success")]


def test_reaping(github: GitHubMock, run: Jobs) -> None:
    """A check whose run is over, in the year in which the mock's clock begins."""
    github.add_pull(7, SHA)
    opened = jobs.pull_request(github, 7, SHA)
    github.add_commit("main")
    github.add_run(int(jobs.run_id(opened.sha)), status="completed", conclusion="cancelled")
    run.run(opened, "--start")
    run.run(opened, "--reap")
    assert [c["conclusion"] for c in github.checks] == ["timed_out"]


@pytest.mark.parametrize(("event", "token", "expected"), TABLE, ids=[f"{e.__name__}-{t}" for e, t, _ in TABLE])
def test_every_event_with_every_token(
    event: Callable[[GitHubMock], Job], token: str, expected: list[str], github: GitHubMock, run: Jobs
) -> None:
    """The table of test_events.py once more, judged by GitHub's description."""
    github.add_commit(HEAD)
    job = replace(event(github), token=TOKENS[token])
    run.run(job, run.record(factory.regression()), code=0 if expected else 4)
    assert [told(call) for call in github.writes] == expected


BROKEN: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "no commit": ("POST", "/check-runs", {"name": "quantgate"}, "required property 'head_sha'"),
    "a misspelt field": ("POST", "/check-runs", {"name": "q", "head_sha": SHA, "heda": 1}, "found 'heda'"),
    "a conclusion that does not exist": (
        "POST",
        "/check-runs",
        {"name": "q", "head_sha": SHA, "conclusion": "failed"},
        "conclusion must be equal to one of the allowed values",
    ),
    "completed without a conclusion": (
        "PATCH",
        "/check-runs/1",
        {"status": "completed"},
        "required property 'conclusion'",
    ),
    "a time that is none": (
        "POST",
        "/check-runs",
        {"name": "q", "head_sha": SHA, "started_at": "yesterday"},
        'started_at must match format "date-time"',
    ),
    "too many annotations": (
        "POST",
        "/check-runs",
        {
            "name": "q",
            "head_sha": SHA,
            "output": OUTPUT
            | {
                "annotations": [
                    {"path": "p", "start_line": 1, "end_line": 1, "annotation_level": "notice", "message": "m"}
                ]
                * 51
            },
        },
        "annotations must NOT have more than 50 items",
    ),
    "an annotation without a line": (
        "POST",
        "/check-runs",
        {
            "name": "q",
            "head_sha": SHA,
            "output": OUTPUT | {"annotations": [{"path": "p", "annotation_level": "notice", "message": "m"}]},
        },
        "required property 'start_line'",
    ),
    "too long a summary": (
        "POST",
        "/check-runs",
        {"name": "q", "head_sha": SHA, "output": OUTPUT | {"summary": "s" * 65_536}},
        "summary must NOT have more than 65535 characters",
    ),
    "a state that does not exist": ("POST", f"/statuses/{SHA}", {"state": "red"}, "state must be equal to one of"),
    "a comment without a body": ("POST", "/issues/7/comments", {"text": "hello"}, "required property 'body'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_prism_reports_what_is_broken(name: str, prism: Prism) -> None:
    """A checker that never complains checks nothing."""
    method, path, body, expected = BROKEN[name]
    before = len(prism.violations())
    with GitHubMock() as mock, prism.before(mock):
        mock.add_pull(7, SHA)
        ask(prism, method, HOME + path, body)
        found = prism.violations()[before:]
    assert any(expected in one.said for one in found), found
    assert {(one.method, one.path) for one in found} == {(method, HOME + path)}


def test_prism_reports_a_call_and_an_answer_that_github_does_not_know(
    prism: Prism, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(prism.violations())
    with GitHubMock() as mock, prism.before(mock):
        mock.add_comment(7, "octocat", "hello")
        ask(prism, "GET", f"{HOME}/check-run/1")
        mock.add_pull(7, SHA)
        monkeypatch.setattr("tests.github.objects.comment", lambda *_: {"id": "seven"})
        ask(prism, "GET", f"{HOME}/issues/7/comments")
        found = [one.said for one in prism.violations()[before:]]
    assert found[0] == "request Selected route not found"
    assert any("response.body" in said and "id must be integer" in said for said in found), found


def test_which_limits_the_description_knows(described: Mapping[str, Any]) -> None:
    """The rest of facts.md's limits is checked by the mock alone (tests/github/rules.py)."""

    def fields(path: str) -> dict[str, Any]:
        _, found = openapi.operation(described, "POST", HOME + path)
        properties: dict[str, Any] = found["requestBody"]["content"]["application/json"]["schema"]["properties"]
        return properties

    output = fields("/check-runs")["output"]["properties"]
    assert output["summary"]["maxLength"] == output["text"]["maxLength"] == 65_535
    assert output["annotations"]["maxItems"] == 50
    unknown = (output["title"], fields(f"/statuses/{SHA}")["description"], fields("/issues/7/comments")["body"])
    assert all("maxLength" not in one for one in unknown)
