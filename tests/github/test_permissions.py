"""Tokens that may not do it, repositories that moved, answers that lie: refused in words that say what to do.

No message, log or repr holds the token.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from gate.errors import UsageError
from gate.publish import changes
from gate.publish import github as publishing
from gate.publish.model import TokenKind
from gate.publish.problem import AppNeeded, PublishError, refused
from gate.publish.session import Session, base_url, token_kind
from tests.github.publishing import NAME, PULL, SHA, Clock, client, kind_of, publication, target
from tests.github.server import ALL, APP, GITHUB_TOKEN, PERSONAL, READ_ONLY, Call, Fault, GitHubMock

LIMITED = "ghs_" + "e" * 36
OLD_STYLE = "0" * 40


def publish(github: GitHubMock, token: str, **more: Any) -> publishing.Published:
    patience = Clock().patience()
    with client(github, token, patience=patience) as talking:
        return publishing.publish(
            publication(**more), talking, kind=token_kind(token), author=None, required_name=NAME, patience=patience
        )


@pytest.mark.parametrize(("lacks", "needed"), [("checks", "checks: write"), ("statuses", "statuses: write")])
def test_a_missing_permission_is_named(lacks: str, needed: str) -> None:
    token = LIMITED if lacks == "checks" else "ghp_" + "f" * 36
    with GitHubMock() as github:
        app = "github-actions" if lacks == "checks" else None
        github.add_token(token, login="somebody", app=app, permissions={**ALL, lacks: "read"})
        github.add_pull(PULL, SHA)
        with pytest.raises(PublishError, match=needed):
            publish(github, token)
        assert github.checks == github.comments == github.statuses == []


def test_without_permission_for_comments_the_check_stands_and_the_problem_is_told() -> None:
    with GitHubMock() as github:
        github.add_token(
            LIMITED, login="github-actions[bot]", app="github-actions", permissions={**ALL, "pull_requests": "read"}
        )
        github.add_pull(PULL, SHA)
        done = publish(github, LIMITED)
        assert [c["conclusion"] for c in github.checks] == ["failure"]
        assert len(done.problems) == 1
        assert "the comment was not written" in done.problems[0]
        assert "pull-requests: write" in done.problems[0]


def test_a_fork_s_token_is_told_where_to_publish_from() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        with pytest.raises(PublishError, match=r"not accessible by integration.*workflow_run"):
            publish(github, READ_ONLY)


def test_a_wrong_token_and_a_wrong_repository() -> None:
    with GitHubMock() as github:
        with (
            client(github, "ghs_wrong") as talking,
            pytest.raises(PublishError, match=r"401.*Bad credentials.*GITHUB_TOKEN"),
        ):
            talking.default_branch()
        with (
            client(github, repository="acme/other") as talking,
            pytest.raises(PublishError, match=r"404.*--repository"),
        ):
            talking.default_branch()


def test_an_unknown_commit() -> None:
    with GitHubMock() as github, pytest.raises(PublishError, match=r"422.*No commit found.*--sha"):
        publish(github, GITHUB_TOKEN)


def test_what_a_422_says_is_all_in_the_message() -> None:
    with GitHubMock() as github, client(github) as talking:
        github.add_commit(SHA)
        body = {"name": NAME, "head_sha": SHA, "output": {"title": "x" * 256, "summary": "s" * 70_000}}
        with pytest.raises(PublishError) as caught:
            talking.create_check(body)
        for said in ("output.title", "too_long", "output.summary", "70000 were supplied"):
            assert said in str(caught.value)


def test_a_token_that_turns_out_to_be_personal_writes_a_status_and_its_own_comments() -> None:
    """Tokens of old servers have no prefix that tells."""
    with GitHubMock() as github:
        github.add_token(OLD_STYLE, login="hubot", app=None, permissions=ALL)
        github.add_pull(PULL, SHA)
        publish(github, OLD_STYLE)
        publish(github, OLD_STYLE)
        assert github.checks == []
        assert [s["context"] for s in github.statuses] == ["quantgate/verdict"]
        assert [c["user"]["login"] for c in github.comments] == ["hubot"]


def test_an_app_s_comment_is_found_without_being_told_its_name() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(github, APP)
        publish(github, APP, run_attempt=2)
        assert [c["user"]["login"] for c in github.comments] == ["quantgate-bot[bot]"]


def test_another_app_s_check_is_refused_in_words() -> None:
    one = publication()
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        github.add_check(SHA, NAME, app="quantgate-bot", external_id=one.external_id, status="in_progress")
        with pytest.raises(PublishError, match="publish with the token that --start was called with"):
            publish(github, GITHUB_TOKEN)


def test_a_renamed_repository_is_written_under_its_new_name() -> None:
    with GitHubMock(renamed_from=("acme/old",)) as github:
        github.add_pull(PULL, SHA)
        patience = Clock().patience()
        with client(github, patience=patience, repository="acme/old") as talking:
            publishing.publish(
                publication(repository="acme/old"),
                talking,
                kind=kind_of(GITHUB_TOKEN),
                author=None,
                required_name=NAME,
                patience=patience,
            )
        assert len(github.checks) == len(github.comments) == 1
        assert all(c.path.startswith("/repos/acme/models/") for c in github.writes)


def test_a_write_is_not_led_elsewhere() -> None:
    moved = Fault(kind="status", status=301, body="{}", headers={"Location": "/repos/acme/other"})

    def plan(call: Call) -> Fault | None:
        return moved if call.method == "POST" else None

    with GitHubMock(faults=plan) as github, client(github) as talking:
        github.add_commit(SHA)
        with pytest.raises(PublishError, match=r"301.*moved"):
            talking.create_check({"name": NAME, "head_sha": SHA})


def test_the_token_stays_on_its_host() -> None:
    """Neither a redirect nor the link to a next page takes it elsewhere."""
    with GitHubMock() as github, GitHubMock() as elsewhere:
        away = f"{elsewhere.url}/repos/acme/models"
        github.faults = lambda call: Fault(kind="status", status=302, body="{}", headers={"Location": away})
        with client(github) as talking, pytest.raises(PublishError, match="302"):
            talking.default_branch()
        link = {"Link": f'<{away}/issues/7/comments?page=2>; rel="next"'}

        def paged(call: Call) -> Fault | None:
            return Fault(kind="status", status=200, body="[]", headers=link) if "comments" in call.path else None

        github.faults = paged
        with client(github) as talking, pytest.raises(PublishError, match="leads to"):
            talking.comments(PULL)
        assert elsewhere.calls == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[]", "expected a JSON object"),
        ("{", "cut short"),
        ("null", "expected a JSON object"),
        ('{"default_branch": 7}', "default_branch: 7"),
        ("<html>", "cut short"),
    ],
)
def test_answers_that_are_something_else(body: str, said: str) -> None:
    strange = Fault(kind="status", status=200, body=body)
    with (
        GitHubMock(faults=lambda call: strange) as github,
        client(github) as talking,
        pytest.raises(PublishError, match=said),
    ):
        talking.default_branch()


@pytest.mark.parametrize(
    "body",
    ["{}", '{"check_runs": [7]}', '{"check_runs": {"a": 1}}', '{"check_runs": [{"id": "x", "name": "quantgate"}]}'],
)
def test_lists_that_are_something_else(body: str) -> None:
    def plan(call: Call) -> Fault | None:
        return Fault(kind="status", status=200, body=body) if "check-runs" in call.path else None

    with GitHubMock(faults=plan) as github, client(github) as talking, pytest.raises(PublishError, match="answer"):
        talking.checks(SHA, NAME)


def test_a_comment_of_an_account_that_is_gone() -> None:
    one = {"id": 1, "body": None, "user": None}

    def plan(call: Call) -> Fault | None:
        return Fault(kind="status", status=200, body=json.dumps([one])) if "comments" in call.path else None

    with GitHubMock(faults=plan) as github, client(github) as talking:
        [found] = talking.comments(PULL)
        assert (found.author, found.body) == ("", "")


def test_github_enterprise_s_address_is_taken_as_it_is() -> None:
    with GitHubMock(prefix="/api/v3") as github:
        assert github.url.endswith("/api/v3")
        github.add_pull(PULL, SHA)
        for n in range(101):
            github.add_comment(PULL, "somebody", f"remark {n}")
        publish(github, GITHUB_TOKEN)
        assert len(github.checks) == 1
        assert len(github.comments) == 102


@pytest.mark.parametrize(
    "url",
    ["http://ghe.example/api/v3", "ghe.example", "https://", "https://u:p@ghe.example", "file:///x", "https://[x"],
)
def test_addresses_that_would_give_the_token_away(url: str) -> None:
    with pytest.raises(UsageError, match="GITHUB_API_URL"):
        base_url(url)


def test_kinds_of_tokens() -> None:
    kinds = {GITHUB_TOKEN: TokenKind.INSTALLATION, PERSONAL: TokenKind.PERSONAL, "": TokenKind.NONE}
    kinds |= {"github_pat_x": TokenKind.PERSONAL, "gho_x": TokenKind.PERSONAL, "ghu_x": TokenKind.PERSONAL}
    kinds |= {OLD_STYLE: TokenKind.INSTALLATION}
    assert {token: token_kind(token) for token in kinds} == kinds


def test_no_message_log_or_repr_holds_the_token(caplog: pytest.LogCaptureFixture) -> None:
    echo = Fault(kind="status", status=422, body=f'{{"message": "no {GITHUB_TOKEN}", "errors": ["{GITHUB_TOKEN}"]}}')
    with caplog.at_level(logging.DEBUG), GitHubMock() as github, client(github) as talking:
        github.add_pull(PULL, SHA)
        talking.checks(SHA, NAME)
        github.faults = lambda call: echo
        with pytest.raises(PublishError) as caught:
            talking.create_check({"name": NAME, "head_sha": SHA})
        said = [
            str(caught.value),
            repr(caught.value),
            repr(talking),
            repr(talking._session),
            repr(talking._session.auth),
        ]
        assert not [text for text in (*said, caplog.text) if GITHUB_TOKEN in text]
        assert "***" in said[0]


def test_errors_name_the_call_and_hold_no_commands() -> None:
    errors = b'[{"resource": "CheckRun", "field": "x", "code": "y"}, "z", 7]'
    body = b'{"message": "a\\n::error::b\\u001b[31m", "errors": ' + errors + b"}"
    problem = refused("POST check-runs", 422, body)
    assert str(problem).startswith("GitHub answered 422 to POST check-runs: a ::error::b; CheckRun.x y; z; 7; ")
    assert "\n" not in str(problem)
    assert "\x1b" not in str(problem)
    assert isinstance(
        refused("POST check-runs", 403, b'{"message": "You must authenticate via a GitHub App."}'), AppNeeded
    )
    assert "nothing" in str(refused("GET x", 500, b""))


# what trust is decided from


def asked(github: GitHubMock, **more: Any) -> changes.Changes:
    with client(github) as talking:
        return changes.changes(target(**more), talking)


def test_changed_files_of_a_pull_request() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA, files=["a.json", (".github/new.yml", "old.yml")])
        found = asked(github)
        assert found.files == ("a.json", ".github/new.yml", "old.yml")
        assert found.pull_head == SHA
        assert [c.path.split("/")[4] for c in github.calls[1:]] == ["compare", "pulls"]


def test_the_pull_requests_of_a_branch_are_those_of_its_repository() -> None:
    """GitHub filters by owner and branch; an owner may have two forks."""
    with GitHubMock() as github, client(github) as talking:
        github.add_pull(PULL, SHA, head_repository="mallory/models", head_branch="w4/fix #1")
        assert [p.number for p in talking.pulls_of("mallory/models", "w4/fix #1")] == [PULL]
        assert talking.pulls_of("mallory/models-2", "w4/fix #1") == []


def test_more_than_300_files_are_asked_for_page_by_page() -> None:
    files = [f"shard-{n}" for n in range(350)]
    with GitHubMock() as github:
        github.add_pull(PULL, SHA, files=files)
        assert asked(github).files == tuple(files)
        github.push(PULL, SHA, files=[f"shard-{n}" for n in range(3100)])
        found = asked(github)
        assert found.files is None
        assert "does not list all files" in found.problem


def test_the_list_of_another_head_is_no_list() -> None:
    """The pull request is pushed to while its files are listed, and back: every file says of which commit it is."""
    files = [f"shard-{n}" for n in range(350)]
    with GitHubMock() as github, client(github) as talking:
        github.add_pull(PULL, SHA, files=files)
        github.push(PULL, "c" * 40, files=files)
        assert talking.pull_files(PULL, SHA) is None


@pytest.mark.parametrize(
    ("more", "compared"),
    [
        ({"event": "push", "pull": None, "head_branch": "main", "base_ref": None}, None),
        ({"event": "push", "pull": None, "head_branch": None, "base_ref": None}, "main"),
        ({"event": "push", "pull": None, "head_branch": "feature", "base_ref": None}, "main"),
        ({"event": "workflow_dispatch", "pull": None, "head_branch": "feature", "base_ref": None}, "main"),
        ({"event": "merge_group", "pull": None}, "main"),
        ({"event": "pull_request", "base_ref": "release"}, "release"),
        ({"event": "pull_request", "base_ref": "mine"}, "mine"),
        ({"event": "pull_request", "head_repository": "mallory/models"}, None),
        ({"event": "schedule", "pull": None, "base_ref": None}, None),
    ],
)
def test_what_it_is_compared_with(more: Mapping[str, Any], compared: str | None) -> None:
    """With its own base: whether that one may judge is for `trust` to say."""
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        for base in ("main", "release", "mine"):
            github.compare(base, SHA, [f"from-{base}"])
        found = asked(github, **more)
        assert found.files == (None if compared is None else (f"from-{compared}",))


def test_a_pull_request_that_was_pointed_elsewhere_since_was_judged_by_nobody_knows_what() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        github.add_event(PULL, "labeled")
        assert asked(github, second_stage=True).files is not None
        github.add_event(PULL, "base_ref_changed")
        assert asked(github).files is not None, "the event of a direct run names the base that judged it"
        found = asked(github, second_stage=True)
        assert found.files is None
        assert "pointed to another base" in found.problem


def test_what_cannot_be_asked_is_not_known() -> None:
    with GitHubMock() as github:
        found = asked(github)
        assert found.files is None
        assert "404" in found.problem


def test_the_session_is_github3_s_with_an_installation_s_token() -> None:
    """`create_check_run` of github3 refuses what `login(token=…)` makes."""
    from github3.session import AppInstallationTokenAuth, GitHubSession

    session = Session("", GITHUB_TOKEN, patience=Clock().patience(), now=lambda: 0.0)
    assert isinstance(session, GitHubSession)
    assert isinstance(session.auth, AppInstallationTokenAuth)
    assert session.base_url == "https://api.github.com"
    session.close()
