"""Published twice, by two at once, after a push, over a forgery: one check and one comment that tell the truth.

Interleavings are made, not hoped for: one publisher runs as a whole inside any gap of another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Barrier, Thread
from typing import Any

import pytest

from gate.publish import github as publishing
from gate.publish.api import GitHubClient
from gate.publish.model import CheckConclusion, Publication
from gate.publish.problem import PublishError
from tests import records_factory as factory
from tests.github.publishing import (
    BOT,
    NAME,
    OTHER_SHA,
    PULL,
    SHA,
    UNVERIFIED,
    Clock,
    client,
    kind_of,
    publication,
    told,
)
from tests.github.server import GITHUB_TOKEN, PERSONAL, GitHubMock

BEFORE, EARLY, LATE = (f"2026-11-01T{hour}:00:00+00:00" for hour in ("09", "10", "11"))
CREATED = [
    f"POST check quantgate in_progress by {BOT}",
    f"PATCH check quantgate failure by {BOT}",
    f"POST comment by {BOT}",
]


def publish(wanted: Publication, github: GitHubMock, token: str = GITHUB_TOKEN, **more: Any) -> publishing.Published:
    patience = Clock().patience()
    with client(github, token, patience=patience) as talking:
        return publishing.publish(
            wanted,
            talking,
            **{"kind": kind_of(token), "author": None, "required_name": NAME, "patience": patience, **more},
        )


def start(wanted: Publication, github: GitHubMock) -> publishing.Published:
    patience = Clock().patience()
    with client(github, patience=patience) as talking:
        return publishing.start(
            wanted.target,
            talking,
            name=NAME,
            external_id=wanted.external_id,
            kind=kind_of(GITHUB_TOKEN),
            patience=patience,
        )


def test_publishing_again_updates_the_check_and_leaves_the_comment() -> None:
    one = publication(n_annotations=120)
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(one, github)
        more = f"PATCH check quantgate failure by {BOT}"
        assert [told(c) for c in github.writes] == [*CREATED[:2], more, more, CREATED[2]]
        before = github.comments, github.annotations(github.checks[0]["id"])
        assert publish(one, github).done[-1] == "comment on pull request 7: it is up to date"
        assert [told(c) for c in github.writes[5:]] == [more]
        assert (github.comments, github.annotations(github.checks[0]["id"])) == before
        assert len(before[1]) == 120


def test_a_started_check_is_completed() -> None:
    one = publication()
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        start(one, github)
        start(one, github)
        [check] = github.checks
        assert (check["status"], check["conclusion"]) == ("in_progress", None)
        publish(one, github)
        [check] = github.checks
        assert (check["status"], check["conclusion"]) == ("completed", "failure")
        assert "completed already" in start(one, github).done[0]
        assert [c["status"] for c in github.checks] == ["completed"], "a late --start undoes nothing"


def test_a_new_attempt_is_a_new_check() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(publication(), github)
        publish(publication(factory.passing(), run_attempt=2), github)
        assert [c["conclusion"] for c in github.checks] == ["failure", "success"]


def test_an_unverified_result_never_concludes_the_required_check() -> None:
    one = publication(factory.passing(), trust=UNVERIFIED)
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        start(one, github)
        publish(one, github)
        found = {c["name"]: (c["conclusion"], c["output"]["title"][:12]) for c in github.checks}
        assert found == {NAME: ("action_required", "Unverified: "), f"{NAME} (unverified)": ("neutral", "Unverified: ")}
        [comment] = github.comments
        assert "Unverified" in comment["body"]


def test_an_unverified_result_does_not_undo_a_verified_one() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(publication(), github)
        publish(publication(factory.passing(), trust=UNVERIFIED), github)
        assert {c["name"]: c["conclusion"] for c in github.checks}[NAME] == "failure"
        assert len(github.comments) == 2, "what is unverified is said beside it"


def test_statuses_are_not_repeated() -> None:
    one = publication()
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(one, github, PERSONAL)
        publish(one, github, PERSONAL)
        assert [(s["context"], s["state"]) for s in github.statuses] == [("quantgate/verdict", "failure")]
        assert [c["user"]["login"] for c in github.comments] == ["octocat"]
        publish(publication(factory.passing(), at=LATE), github, PERSONAL)
        publish(one, github, PERSONAL)
        assert [s["state"] for s in github.statuses] == ["failure", "success", "failure"]


def test_was_and_now() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(publication(at=EARLY), github)
        github.push(PULL, OTHER_SHA)
        publish(publication(factory.passing(), at=LATE, head_sha=OTHER_SHA, run_id=100), github)
        [comment] = github.comments
        assert f"Was **regression** at `{SHA[:7]}` → now **pass** at `{OTHER_SHA[:7]}`" in comment["body"]


@pytest.mark.parametrize(
    ("comment", "record", "n"),
    [
        ("on_failure", factory.passing, 0),
        ("on_failure", factory.regression, 1),
        ("always", factory.passing, 1),
        ("never", factory.regression, 0),
    ],
)
def test_when_a_comment_is_created(comment: str, record: Callable[[], Any], n: int) -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(publication(record(), comment=comment), github)
        assert len(github.comments) == n


def test_a_pass_updates_a_comment_that_it_would_not_create() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(publication(at=EARLY, comment="on_failure"), github)
        publish(publication(factory.passing(), at=LATE, comment="on_failure", run_attempt=2), github)
        assert '"status":"PASS"' in github.comments[0]["body"]


@pytest.mark.parametrize("change", ["pushed", "closed"])
def test_a_pull_request_that_went_on_keeps_its_comment(change: str) -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(publication(at=EARLY), github)
        before = github.comments
        if change == "pushed":
            github.push(PULL, OTHER_SHA)
        else:
            github.close(PULL)
        done = publish(publication(factory.passing(), at=LATE, run_attempt=2), github).done
        assert github.comments == before
        assert [c["conclusion"] for c in github.checks] == ["failure", "success"], "the commit gets its check"
        assert ("moved on to bbbbbbb" if change == "pushed" else "is closed") in done[-1]


def test_an_older_result_does_not_replace_a_newer_one() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(publication(factory.passing(), at=LATE, run_attempt=2), github)
        publish(publication(at=EARLY), github)
        assert '"status":"PASS"' in github.comments[0]["body"]


def test_a_comment_of_another_commit_is_replaced_whatever_its_time() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, OTHER_SHA)
        publish(publication(at=LATE, head_sha=OTHER_SHA), github)
        github.push(PULL, SHA)
        publish(publication(factory.passing(), at=EARLY, run_attempt=2), github)
        assert '"status":"PASS"' in github.comments[0]["body"]


@pytest.mark.parametrize("author", ["mallory", "github-actions", "octocat"])
def test_somebody_else_s_marker_is_only_text(author: str) -> None:
    one = publication()
    with GitHubMock() as github, GitHubMock() as other:
        other.add_pull(PULL, SHA)
        publish(one, other)
        forged = other.comments[0]["body"].replace("REGRESSION", "PASS")
        github.add_pull(PULL, SHA)
        number = github.add_comment(PULL, author, forged)
        publish(one, github)
        assert [c["id"] for c in github.comments if c["body"] == forged] == [number]
        [ours] = [c for c in github.comments if c["user"]["login"] == BOT]
        assert '"status":"REGRESSION"' in ours["body"]
        assert '"was"' not in ours["body"], "what a forged marker says was, was not"


def test_our_own_comment_without_a_marker_of_this_name_is_another_one() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        github.add_comment(PULL, BOT, "Deployed to https://staging.example")
        github.add_comment(PULL, BOT, "text first\n<!-- quantgate:sticky v1 {} -->")
        publish(publication(), github)
        assert len(github.comments) == 3


def inside(gap: int, run: Callable[[], object], talking: GitHubClient) -> list[int]:
    """Let `run` happen as a whole before the request number `gap` of this client; how many requests there were."""
    session: Any = talking._session
    plain = session.request
    count = [0]

    def request(*args: Any, **kwargs: Any) -> Any:
        if count[0] == gap:
            count[0] += 1
            run()
        else:
            count[0] += 1
        return plain(*args, **kwargs)

    session.request = request
    return count


BETWEEN_LOOK_AND_UPDATE = 8


@pytest.mark.parametrize("gap", range(13))
@pytest.mark.parametrize("same_run", [True, False])
@pytest.mark.parametrize("second_is_newer", [True, False])
@pytest.mark.parametrize("commented", [True, False])
def test_two_publishers_at_once(gap: int, same_run: bool, second_is_newer: bool, commented: bool) -> None:
    """The second one publishes everything in some gap of the first one."""
    first = publication(at=EARLY if second_is_newer else LATE, n_annotations=2)
    second = publication(
        factory.passing() if not same_run else None,
        at=LATE if second_is_newer else EARLY,
        n_annotations=2,
        run_attempt=1 if same_run else 2,
    )
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        if commented:
            publish(publication(at=BEFORE, run_id=98), github)
        patience = Clock().patience()
        with client(github, patience=patience) as talking:
            count = inside(gap, lambda: publish(second, github), talking)
            publishing.publish(
                first, talking, kind=kind_of(GITHUB_TOKEN), author=None, required_name=NAME, patience=patience
            )
        if count[0] <= gap:
            publish(second, github)  # there is no such gap: one after the other
        named = [c for c in github.checks if c["name"] == NAME and "/98." not in c["external_id"]]
        assert {c["external_id"]: c["conclusion"] for c in named} == {
            first.external_id: "failure",
            second.external_id: "failure" if same_run else "success",
        }
        assert len(named) == (1 if same_run else 2), "one check for each run"
        assert all(c["status"] == "completed" for c in github.checks)
        [comment] = github.comments
        newest = max(first, second, key=lambda p: p.measured_at)
        if commented and second_is_newer and gap == BETWEEN_LOOK_AND_UPDATE:
            newest = first  # GitHub has no conditional update; the checks tell which run is which
        assert f'"at":"{newest.measured_at}"' in comment["body"]


def test_two_publishers_in_threads() -> None:
    for _ in range(5):
        with GitHubMock() as github:
            github.add_pull(PULL, SHA)
            barrier = Barrier(3)
            failed: list[PublishError] = []

            def one(
                n: int, github: GitHubMock = github, barrier: Barrier = barrier, failed: list[PublishError] = failed
            ) -> None:
                barrier.wait()
                try:
                    publish(publication(run_id=n // 2 + 1), github)
                except PublishError as problem:
                    failed.append(problem)

            threads = [Thread(target=one, args=(n,)) for n in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failed == []
            named = [c for c in github.checks if c["name"] == NAME]
            assert len({c["external_id"] for c in named}) == len(named) == 2
            assert {c["conclusion"] for c in named} == {"failure"}
            assert len(github.comments) == 1


def test_a_check_that_another_publisher_has_set_aside_is_not_taken_up_again() -> None:
    """Ours is made second; before we look again, the other one has renamed it."""
    one = publication()
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        patience = Clock().patience()
        with client(github, patience=patience) as talking, client(github) as other:
            plain = talking.create_check

            def create(body: Any) -> Any:
                github.add_check(SHA, NAME, app="github-actions", external_id=one.external_id, status="in_progress")
                made = plain(body)
                other.update_check(made.id, {"name": f"{NAME} (duplicate)", "external_id": "quantgate/aside"})
                return made

            talking.create_check = create  # type: ignore[method-assign]
            publishing.publish(
                one, talking, kind=kind_of(GITHUB_TOKEN), author=None, required_name=NAME, patience=patience
            )
        named = {c["name"]: (c["conclusion"], c["external_id"]) for c in github.checks}
        assert named[NAME] == ("failure", one.external_id)
        assert named[f"{NAME} (duplicate)"][0] == "neutral"


def test_what_was_made_twice_is_set_aside_and_says_so() -> None:
    one = publication()
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        for _ in range(2):
            github.add_check(SHA, NAME, app="github-actions", external_id=one.external_id, status="in_progress")
        publish(one, github)
        assert [(c["name"], c["conclusion"]) for c in github.checks] == [
            (NAME, "failure"),
            (f"{NAME} (duplicate)", "neutral"),
        ]


def test_the_newest_of_two_comments_stays_in_the_first() -> None:
    with GitHubMock() as github, GitHubMock() as other:
        for mock in (github, other):
            mock.add_pull(PULL, SHA)
        publish(publication(factory.passing(), at=LATE, run_attempt=2), other)
        publish(publication(at=EARLY), github)
        github.add_comment(PULL, BOT, other.comments[0]["body"])
        publish(replace(publication(at=EARLY), create_comment=False), github)
        [comment] = github.comments
        assert '"status":"PASS"' in comment["body"]
        assert comment["id"] == min(c["id"] for c in github.comments)


def test_a_verified_result_takes_the_place_of_the_unverified_comment() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(publication(trust=UNVERIFIED), github)
        [unverified] = github.comments
        assert "Unverified" in unverified["body"]
        publish(publication(), github)
        [verified] = github.comments
        assert "Unverified" not in verified["body"]
        assert verified["id"] != unverified["id"]


def test_an_unverified_result_leaves_the_verified_comment() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(publication(), github)
        before = github.comments
        publish(publication(factory.passing(), trust=UNVERIFIED), github)
        assert github.comments[: len(before)] == before


def test_two_jobs_of_one_run_that_publish_under_one_name_are_red_whatever_they_found() -> None:
    """GitHub shows the newest check of a name: the pass of one would stand before the regression of the other."""
    red, green = publication(names=["w4"]), publication(factory.passing(), names=["w8"])
    open_ = publication(factory.inconclusive(), names=["w8"])
    neutral = replace(open_, conclusion=replace(open_.conclusion, check=CheckConclusion.NEUTRAL))
    for first, second in ((red, green), (green, red), (red, neutral)):
        with GitHubMock() as github:
            github.add_pull(PULL, SHA)
            publish(first, github)
            publish(second, github)
            newest = max(github.checks, key=lambda c: c["id"])
            assert newest["conclusion"] == "failure"
            assert newest["output"]["title"].startswith("Could not measure: two jobs of this run publish as quantgate")


def test_the_next_attempt_is_no_rival() -> None:
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        publish(publication(names=["w4"]), github)
        publish(publication(factory.passing(), names=["w4", "w8"], run_attempt=2), github)
        assert [c["conclusion"] for c in github.checks] == ["failure", "success"]
