"""From an event to the commit that takes the check: the right one for each, or an error that names what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.errors import UsageError
from gate.publish import event as events
from gate.publish.model import Target
from tests.records_factory import HOSTILE

HEAD, BASE, MERGE, TAG, MERGED = "a" * 40, "b" * 40, "c" * 40, "d" * 40, "e" * 40
REPOSITORY = {"full_name": "acme/models", "default_branch": "main"}
JOB = {
    "GITHUB_REPOSITORY": "acme/models",
    "GITHUB_SHA": MERGE,
    "GITHUB_RUN_ID": "71",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_SERVER_URL": "https://github.com",
}
PULL = {
    "number": 12,
    "head": {"sha": HEAD, "ref": "w4", "repo": {"full_name": "acme/models"}},
    "base": {"sha": BASE, "ref": "main", "repo": {"full_name": "acme/models"}},
}
GROUP = {
    "head_sha": MERGED,
    "head_ref": f"refs/heads/gh-readonly-queue/main/pr-12-{BASE}",
    "base_sha": BASE,
    "base_ref": "refs/heads/main",
}
RUN = {
    "id": 9,
    "run_attempt": 3,
    "event": "pull_request",
    "head_sha": HEAD,
    "head_branch": "w4",
    "head_repository": {"full_name": "acme/models"},
    "html_url": "https://github.com/acme/models/actions/runs/9",
    "pull_requests": [{"number": 12, "head": {"sha": HEAD, "ref": "w4"}, "base": {"sha": BASE, "ref": "main"}}],
}


def target(event: str, payload: Mapping[str, Any], environ: Mapping[str, str] = JOB, **given: Any) -> Target:
    asked: dict[str, Any] = {"repository": None, "sha": None, "pull": None, **given}
    return events.target(event, payload, environ, **asked)


def payload(**values: Any) -> dict[str, Any]:
    return {"repository": REPOSITORY, **values}


def run(**values: Any) -> dict[str, Any]:
    return payload(workflow_run={**RUN, **values})


def pull(**values: Any) -> dict[str, Any]:
    return payload(pull_request={**PULL, **values})


TABLE: tuple[tuple[str, str, dict[str, Any], dict[str, str], dict[str, Any]], ...] = (
    (
        "branch",
        "push",
        payload(ref="refs/heads/w4", after=HEAD, head_commit={"id": HEAD}),
        JOB,
        {"head_sha": HEAD, "head_branch": "w4", "pull": None, "base_ref": None, "base_sha": None, "run_id": 71},
    ),
    ("branch without head_commit", "push", payload(ref="refs/heads/w4", after=HEAD), JOB, {"head_sha": HEAD}),
    ("no payload but the job", "push", {}, {**JOB, "GITHUB_REF": "refs/heads/main"}, {"head_sha": MERGE}),
    (
        "tag",
        "push",
        payload(ref="refs/tags/v1", after=HEAD, head_commit={"id": HEAD}),
        JOB,
        {"head_sha": HEAD, "head_branch": None},
    ),
    (
        "annotated tag: `after` is the tag's own object",
        "push",
        payload(ref="refs/tags/v1", after=TAG, head_commit={"id": HEAD}),
        JOB,
        {"head_sha": HEAD, "head_branch": None},
    ),
    (
        "annotated tag without head_commit",
        "push",
        payload(ref="refs/tags/v1", after=TAG, head_commit=None),
        {**JOB, "GITHUB_SHA": HEAD},
        {"head_sha": HEAD},
    ),
    (
        "pull request: never GITHUB_SHA, which is a merge commit",
        "pull_request",
        pull(),
        JOB,
        {"head_sha": HEAD, "pull": 12, "head_branch": "w4", "base_ref": "main", "base_sha": BASE, "fork": False},
    ),
    (
        "fork",
        "pull_request",
        pull(head={"sha": HEAD, "ref": "main", "repo": {"full_name": "eve/models"}}),
        JOB,
        {"head_sha": HEAD, "pull": 12, "head_repository": "eve/models", "fork": True},
    ),
    (
        "deleted fork",
        "pull_request",
        pull(head={"sha": HEAD, "ref": "main", "repo": None}),
        JOB,
        {"head_sha": HEAD, "fork": True},
    ),
    ("pull_request_target", "pull_request_target", pull(), JOB, {"head_sha": HEAD, "pull": 12}),
    (
        "merge group",
        "merge_group",
        payload(merge_group=GROUP),
        JOB,
        {
            "head_sha": MERGED,
            "pull": None,
            "head_branch": f"gh-readonly-queue/main/pr-12-{BASE}",
            "base_ref": "main",
            "base_sha": BASE,
        },
    ),
    (
        "dispatch",
        "workflow_dispatch",
        payload(ref="refs/heads/w4", inputs={}),
        JOB,
        {"head_sha": MERGE, "head_branch": "w4", "pull": None},
    ),
    ("schedule", "schedule", payload(), {**JOB, "GITHUB_REF": "refs/heads/main"}, {"head_branch": "main"}),
    (
        "release",
        "release",
        payload(release={"tag_name": "v1"}),
        {**JOB, "GITHUB_REF": "refs/tags/v1"},
        {"head_sha": MERGE, "head_branch": None},
    ),
    (
        "second stage",
        "workflow_run",
        run(),
        JOB,
        {
            "head_sha": HEAD,
            "event": "pull_request",
            "second_stage": True,
            "pull": 12,
            "base_ref": "main",
            "base_sha": BASE,
            "run_id": 9,
            "run_attempt": 3,
            "details_url": "https://github.com/acme/models/actions/runs/9",
        },
    ),
    (
        "second stage of a fork: GitHub lists no pull request",
        "workflow_run",
        run(pull_requests=[], head_repository={"full_name": "eve/models"}),
        JOB,
        {"pull": None, "fork": True, "head_sha": HEAD},
    ),
    (
        "second stage after a force-push: the listed pull request is of another commit",
        "workflow_run",
        run(pull_requests=[{"number": 12, "head": {"sha": TAG}, "base": {"sha": BASE, "ref": "main"}}]),
        JOB,
        {"pull": None, "base_ref": None, "head_sha": HEAD},
    ),
    (
        "second stage, one commit in two pull requests",
        "workflow_run",
        run(pull_requests=[*RUN["pull_requests"], {**RUN["pull_requests"][0], "number": 13}]),  # type: ignore[index,misc]
        JOB,
        {"pull": None},
    ),
    (
        "second stage of a push lists pull requests of the branch: none is meant",
        "workflow_run",
        run(event="push"),
        JOB,
        {"pull": None, "event": "push", "head_branch": "w4"},
    ),
    (
        "second stage of a merge group",
        "workflow_run",
        run(event="merge_group", head_branch=f"gh-readonly-queue/release/1.x/pr-7-{BASE}", pull_requests=[]),
        JOB,
        {"pull": None, "event": "merge_group", "base_ref": "release/1.x"},
    ),
    (
        "deleted head repository",
        "workflow_run",
        run(head_repository=None, head_branch=None),
        JOB,
        {"fork": True, "head_branch": None},
    ),
)


@pytest.mark.parametrize(
    ("event", "data", "environ", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_each_event(event: str, data: dict[str, Any], environ: dict[str, str], expected: dict[str, Any]) -> None:
    found = target(event, data, environ)
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.repository == "acme/models"
    assert found.second_stage == (event == "workflow_run")


def test_what_the_user_says_comes_first() -> None:
    found = target("pull_request", pull(), repository="other/place", sha=TAG.upper(), pull=99)
    assert (found.repository, found.head_sha, found.pull) == ("other/place", TAG, 99)


def test_outside_of_actions_only_what_is_said_counts() -> None:
    found = target("", {}, {}, repository="acme/models", sha=HEAD, pull=3)
    assert (found.event, found.head_sha, found.pull, found.run_id, found.run_attempt) == ("", HEAD, 3, None, 1)
    assert found.details_url is None
    for missing in ({"repository": "acme/models"}, {"sha": HEAD}):
        with pytest.raises(UsageError, match=r"--sha|--repository"):
            target("", {}, {"GITHUB_SHA": HEAD}, **missing)


@pytest.mark.parametrize("event", ["issue_comment", "deployment", "workflow_call", "Push", HOSTILE])
def test_other_events_name_no_commit(event: str) -> None:
    with pytest.raises(UsageError, match="--sha"):
        target(event, payload())
    assert target(event, payload(), sha=HEAD).head_sha == HEAD


def test_the_second_stage_of_another_event() -> None:
    for event in ("workflow_run", "issue_comment", None, 7, ["push"], "x" * 10_000_000):
        with pytest.raises(UsageError, match="--sha") as caught:
            target("workflow_run", run(event=event))
        assert len(str(caught.value)) < 1000


def test_a_branch_that_was_deleted_has_no_commit() -> None:
    for gone in ({"deleted": True, "after": "0" * 40}, {"after": "0" * 40}, {"deleted": True, "after": HEAD}):
        with pytest.raises(UsageError, match="deleted"):
            target("push", payload(ref="refs/heads/w4", **gone))


MISSING: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("pull_request", payload(), "pull_request.head.sha"),
    ("pull_request", pull(number=None), "pull_request.number"),
    ("pull_request", pull(base=None), "pull_request.base.sha"),
    ("merge_group", payload(), "merge_group.head_sha"),
    ("push", payload(head_commit={"id": HEAD}), "no ref"),
    ("push", payload(ref="w4", head_commit={"id": HEAD}), "refs/heads"),
    ("workflow_dispatch", payload(), "GITHUB_REF"),
    ("workflow_run", payload(), "workflow_run"),
    ("workflow_run", run(head_sha=None), "workflow_run.head_sha"),
    ("workflow_run", run(id=None), "workflow_run.id"),
)


@pytest.mark.parametrize(("event", "data", "named"), MISSING)
def test_what_is_missing_is_named(event: str, data: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        target(event, data)


WRONG: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pull_request", pull(head={"sha": HEAD[:7], "ref": "w4", "repo": None})),
    ("pull_request", pull(head={"sha": HEAD + "\n", "ref": "w4", "repo": None})),
    ("pull_request", pull(head={"sha": "0" * 40, "ref": "w4", "repo": None})),
    ("pull_request", pull(head={"sha": [HEAD], "ref": "w4", "repo": None})),
    ("pull_request", pull(head=[HEAD])),
    ("pull_request", pull(head="x" * 1_000_000)),
    ("pull_request", pull(head={"sha": HEAD, "ref": "w4", "repo": {"full_name": "../../x"}})),
    ("pull_request", pull(head={"sha": HEAD, "ref": "a..b", "repo": None})),
    ("pull_request", pull(head={"sha": HEAD, "ref": "w4\nGITHUB_TOKEN", "repo": None})),
    ("pull_request", pull(number=True)),
    ("pull_request", pull(number="12")),
    ("pull_request", pull(number=-12)),
    ("pull_request", pull(number=10**400)),
    ("push", {"repository": {"full_name": "acme/models/x"}, "ref": "refs/heads/w4", "after": HEAD}),
    ("push", {"repository": {"full_name": "acme/.."}, "ref": "refs/heads/w4", "after": HEAD}),
    ("push", {"repository": "acme/models", "ref": "refs/heads/w4", "after": HEAD}),
    ("push", {"repository": {**REPOSITORY, "default_branch": 7}, "ref": "refs/heads/w4", "after": HEAD}),
    ("push", payload(ref=7, after=HEAD)),
    ("push", payload(ref=HOSTILE, after=HEAD)),
    ("workflow_run", run(id="9")),
    ("workflow_run", run(run_attempt=0)),
    ("workflow_run", run(pull_requests=[{"number": "12", "head": {"sha": HEAD}, "base": {"ref": "main"}}])),
    ("workflow_run", run(pull_requests=["12"])),
    ("workflow_run", {"workflow_run": "9", "repository": REPOSITORY}),
)


@pytest.mark.parametrize(("event", "data"), WRONG)
def test_what_is_wrong_is_not_taken_for_missing(event: str, data: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected") as caught:
        target(event, data)
    assert len(str(caught.value)) < 1000


def test_the_payload_is_an_object() -> None:
    wrong: tuple[Any, ...] = ([], "x", None, 7)
    for data in wrong:
        with pytest.raises(UsageError, match="JSON object"):
            target("push", data)


def test_wrong_numbers_of_the_run() -> None:
    for wrong in ("0", "-1", "1e3", "9" * 30, "7\n"):
        with pytest.raises(UsageError, match="GITHUB_RUN_ID"):
            target("pull_request", pull(), {**JOB, "GITHUB_RUN_ID": wrong})


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("https://github.com", "https://github.com/acme/models/actions/runs/71"),
        ("https://ghe.example.com/", "https://ghe.example.com/acme/models/actions/runs/71"),
        ("http://localhost:8080", "http://localhost:8080/acme/models/actions/runs/71"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/acme/models/actions/runs/71"),
        ("http://github.com", None),
        ("http://localhost.evil.example", None),
        ("https://user@evil.example", None),
        ("javascript:alert(1)//", None),
        ("https://git hub.com", None),
        ("https://[", None),
        ("", None),
    ],
)
def test_where_a_reader_is_sent(server: str, expected: str | None) -> None:
    assert target("pull_request", pull(), {**JOB, "GITHUB_SERVER_URL": server}).details_url == expected
    hop = target("workflow_run", run(html_url=f"{server}/x" if server else None)).details_url
    assert (hop is None) == (expected is None)


def test_the_pull_request_of_the_queue_is_information() -> None:
    found = target("merge_group", payload(merge_group=GROUP))
    assert events.queued_pull(found.head_branch) == 12
    for other in (None, "main", "gh-readonly-queue/main/pr-x-1", f"gh-readonly-queue/main/pr-{'9' * 30}-{BASE}"):
        assert events.queued_pull(other) is None


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from([HEAD, "acme/models"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["repository", "full_name", "pull_request", "head", "sha", "workflow_run", "event", "ref"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from([*events.EVENTS, "workflow_run", "", "else"]), st.dictionaries(st.text(max_size=5), json) | json)
def test_any_payload_is_a_target_or_a_usage_error(event: str, data: Any) -> None:
    try:
        found = target(event, data)
    except UsageError:
        return
    assert len(found.head_sha) == 40
