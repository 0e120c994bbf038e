"""200 publications in bad weather: one check, one comment, the right conclusion; finished, or failed out loud.

The clock is invented; a fault's consequences are what the server really did with the request.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from gate.errors import ExitCode
from gate.publish import github as publishing
from gate.publish.api import GitHubClient
from gate.publish.model import Publication
from gate.publish.problem import PublishError, Unanswered
from tests import records_factory as factory
from tests.github.faults import KINDS, Plan
from tests.github.publishing import NAME, PULL, SHA, UNVERIFIED, VERIFIED, Clock, client, kind_of, publication
from tests.github.server import APP, GITHUB_TOKEN, PERSONAL, Call, Fault, GitHubMock

N_CASES = 200
BAD, HOPELESS = (0.1, 0.2, 0.3), (0.6, 0.85)
READ_SECONDS = 0.25


def probability(seed: int) -> float:
    """Of a fault at each request; in hopeless weather it is given up now and then."""
    return random.Random(f"weather {seed}").choice(BAD * 3 + HOPELESS)


class Case:
    """What a seed stands for."""

    def __init__(self, seed: int) -> None:
        choose = random.Random(f"case {seed}")
        self.probability = probability(seed)
        self.token = choose.choice((GITHUB_TOKEN, GITHUB_TOKEN, APP, PERSONAL))
        self.started = choose.random() < 0.5
        self.commented = choose.random() < 0.5
        self.trust = choose.choice((VERIFIED, VERIFIED, UNVERIFIED))
        record = choose.choice((factory.passing, factory.regression, factory.error, factory.inconclusive))
        self.publication = publication(record(), n_annotations=choose.choice((0, 3, 50, 130)), trust=self.trust)

    @property
    def personal(self) -> bool:
        return self.token == PERSONAL

    @property
    def finishes(self) -> bool:
        return self.probability in BAD


@pytest.mark.parametrize("seed", range(N_CASES))
def test_publishing_in_bad_weather(seed: int) -> None:
    case = Case(seed)
    clock = Clock()
    with (
        GitHubMock() as github,
        client(
            github, case.token, patience=(patience := clock.patience(100_000.0)), read_seconds=READ_SECONDS
        ) as talking,
    ):
        github.add_pull(PULL, SHA)
        for n in range(110):  # the sticky comment lies on the second page
            github.add_comment(PULL, "octocat" if case.personal else "somebody", f"remark {n}")
        if case.commented:
            publish(replace(case.publication, measured_at="2020-01-01T00:00:00+00:00"), talking, case)
        github.faults = Plan(seed, case.probability)
        problems: list[PublishError] = []
        try:
            if case.started:
                publishing.start(
                    case.publication.target,
                    talking,
                    name=NAME,
                    external_id=case.publication.external_id,
                    kind=kind_of(case.token),
                    patience=patience,
                )
            told = publish(case.publication, talking, case)
            problems += [PublishError(p) for p in told.problems]
        except PublishError as failed:
            problems.append(failed)
        assert not (case.finishes and problems), problems
        for problem in problems:
            assert problem.exit_code is ExitCode.ERROR
            assert "given up" in str(problem), "loud: what, and that it was tried for long enough"
            assert case.token not in str(problem)
        never_wrong(github, case, finished=not problems)
        github.faults = lambda call: None  # and whatever was left undone, the next one puts right
        publish(case.publication, talking, case)
        never_wrong(github, case, finished=True)


def publish(wanted: Publication, talking: GitHubClient, case: Case) -> publishing.Published:
    return publishing.publish(
        wanted,
        talking,
        kind=kind_of(case.token),
        author=None,
        required_name=NAME,
        patience=talking._session._patience,
    )


def never_wrong(github: GitHubMock, case: Case, *, finished: bool) -> None:
    wanted = case.publication
    ids = Counter((c["name"], c["external_id"]) for c in github.checks)
    assert max(ids.values(), default=0) <= 1, "a check run twice"
    allowed = {NAME: {None, "action_required"}, wanted.name: {None, str(wanted.conclusion.check)}}
    for check in github.checks:
        assert check["conclusion"] in allowed[check["name"]], "a wrong conclusion"
    mine = [c for c in github.comments if "quantgate:sticky" in c["body"]]
    assert len(mine) <= 1, "a comment twice"
    assert len({(s["context"], s["state"]) for s in github.statuses}) <= 1
    if not finished:
        return
    assert len(mine) == 1
    assert wanted.target.head_sha in mine[0]["body"]
    assert f'"at":"{wanted.measured_at}"' in mine[0]["body"]
    if case.personal:
        assert github.statuses[-1]["state"] == wanted.conclusion.state
        return
    [check] = [c for c in github.checks if c["name"] == wanted.name]
    assert (check["status"], check["conclusion"]) == ("completed", str(wanted.conclusion.check))
    assert check["output"]["title"] == wanted.conclusion.title
    assert [a["start_line"] for a in github.annotations(check["id"])] == [a.line for a in wanted.annotations]
    assert all(c["status"] == "completed" for c in github.checks), "nothing of ours stays in progress"


def test_the_cases_cover_every_kind_of_fault() -> None:
    """Of the plans alone, as far as the first twenty requests of each case."""
    happened: Counter[str] = Counter()
    for seed in range(N_CASES):
        plan = Plan(seed, probability(seed))
        for _ in range(20):
            plan(None)  # type: ignore[arg-type]
        happened += plan.happened
    assert happened.keys() == KINDS.keys()
    assert min(happened.values()) > 20
    assert sum(probability(seed) in BAD for seed in range(N_CASES)) > 100


@pytest.mark.parametrize("kind", [k for k, f in KINDS.items() if f.kind != "slow"])
@pytest.mark.parametrize("write", range(3))
def test_one_fault_at_each_write(kind: str, write: int) -> None:
    """The check's creation, its completion, the comment: each is lost, or its answer is."""
    with GitHubMock() as github:
        github.add_pull(PULL, SHA)
        seen: list[Call] = []

        def once(call: Call) -> Fault | None:
            seen.extend([call] if call.method != "GET" else [])
            return KINDS[kind] if seen and call is seen[-1] and len(seen) == write + 1 else None

        github.faults = once
        clock = Clock()
        with client(github, patience=(patience := clock.patience())) as talking:
            done = publishing.publish(
                publication(n_annotations=3),
                talking,
                kind=kind_of(GITHUB_TOKEN),
                author=None,
                required_name=NAME,
                patience=patience,
            )
        assert done.problems == ()
        assert [c["conclusion"] for c in github.checks] == ["failure"]
        assert len(github.annotations(github.checks[0]["id"])) == 3
        assert len(github.comments) == 1
        assert clock.pauses, "it did not go on at once"
        wanted = KINDS[kind].headers.get("Retry-After", "")
        if wanted and KINDS[kind].status != 503:  # a write that may have been carried out is looked for instead
            assert clock.pauses == [float(wanted)]


def test_a_limit_that_outlasts_the_deadline_is_given_up_at_once() -> None:
    limit = Fault(
        kind="status", status=403, body="{}", headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}
    )
    with GitHubMock(faults=lambda call: limit) as github:
        clock = Clock()
        with client(github, patience=clock.patience()) as talking, pytest.raises(PublishError, match="600 seconds"):
            talking.default_branch()
        assert clock.pauses == []
        assert len(github.calls) == 1


def test_reads_are_repeated_and_given_up() -> None:
    with GitHubMock(faults=lambda call: Fault(kind="status", status=502)) as github:
        clock = Clock()
        with client(github, patience=clock.patience()) as talking, pytest.raises(PublishError, match="after 7 tries"):
            talking.default_branch()
        assert clock.pauses == [1, 2, 4, 8, 16, 32]
        assert len(github.calls) == 7


def test_the_deadline_ends_a_conversation_that_always_goes_on() -> None:
    with GitHubMock() as github:
        clock = Clock()
        with client(github, patience=clock.patience(10.0)) as talking:
            assert talking.default_branch() == "main"
            clock.sleep(11.0)
            with pytest.raises(PublishError, match="longer than 10 seconds"):
                talking.retargeted(PULL)


def test_a_write_is_never_repeated_blindly() -> None:
    with GitHubMock() as github, client(github) as talking:
        github.add_commit(SHA)
        talking.default_branch()
        github.faults = lambda call: Fault(kind="reset", after=True)
        with pytest.raises(Unanswered, match="may or may not"):
            talking.create_check({"name": NAME, "head_sha": SHA})
        assert len(github.writes) == 1


def test_nobody_is_there() -> None:
    with GitHubMock() as github:
        pass
    clock = Clock()
    with client(github, patience=clock.patience()) as talking, pytest.raises(PublishError, match="no answer to GET"):
        talking.default_branch()
    assert len(clock.pauses) == 6
