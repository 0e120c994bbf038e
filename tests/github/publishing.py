"""What the tests of publishing share: an invented clock, the client on the mock, a publication, and the calls as text.

Never sleeps, never asserts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gate.publish import compose
from gate.publish.api import GitHubClient
from gate.publish.model import Annotation, Candidate, Publication, Target, TokenKind, Trust
from gate.publish.patience import DEADLINE_SECONDS, Patience
from gate.publish.session import Session
from gate.records import RunRecord
from tests import records_factory as factory
from tests.github.server import GITHUB_TOKEN, Call, GitHubMock

SHA, OTHER_SHA = "a" * 40, "b" * 40
PULL = 7
NAME = "quantgate"
BOT = "github-actions[bot]"
VERIFIED = Trust(verified=True, reason="the pull request changes no code that measures")
UNVERIFIED = Trust(verified=False, reason="made by code of a fork")
NOW = datetime(2027, 1, 1, tzinfo=UTC)


class Clock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.seconds += seconds

    def monotonic(self) -> float:
        return self.seconds

    def patience(self, deadline_seconds: float = DEADLINE_SECONDS) -> Patience:
        return Patience(sleep=self.sleep, monotonic=self.monotonic, deadline_seconds=deadline_seconds)


@contextmanager
def client(
    github: GitHubMock,
    token: str = GITHUB_TOKEN,
    *,
    patience: Patience | None = None,
    repository: str = "",
    read_seconds: float = 30.0,
) -> Iterator[GitHubClient]:
    session = Session(
        github.url, token, patience=patience or Clock().patience(), now=lambda: 0.0, read_seconds=read_seconds
    )
    one = GitHubClient(session, repository or github.repository)
    try:
        yield one
    finally:
        one.close()


def target(**changes: Any) -> Target:
    """Of pull request 7, from the repository's own branch."""
    first = Target(
        repository="acme/models",
        head_sha=SHA,
        event="pull_request",
        second_stage=False,
        pull=PULL,
        head_repository="acme/models",
        head_branch="quantize",
        default_branch="main",
        base_ref="main",
        base_sha="0" * 40,
        run_id=99,
        run_attempt=1,
        details_url="https://github.com/acme/models/actions/runs/99",
    )
    return replace(first, **changes)


def publication(
    record: RunRecord | None = None,
    *,
    n_annotations: int = 0,
    trust: Trust = VERIFIED,
    comment: str = "always",
    at: str = "",
    names: Sequence[str] = (),
    **changes: Any,
) -> Publication:
    """Of a regression, unless another record is given; `at` is when it was measured."""
    found = factory.regression() if record is None else record
    found = replace(found, created_at=at) if at else found
    one = compose.publication(
        [Candidate(name="w4", record=found, problem="")],
        target(**changes),
        trust,
        name=NAME,
        inconclusive="failure",
        comment=comment,
        policy_path=None,
        external_id=None,
        now=NOW,
        names=names,
    )
    remarks = tuple(
        Annotation(path="policy.yaml", line=k + 1, level="failure", title=f"rule {k}", message="it fell")
        for k in range(n_annotations)
    )
    return replace(one, annotations=remarks)


def kind_of(token: str) -> TokenKind:
    return TokenKind.PERSONAL if token.startswith("ghp_") else TokenKind.INSTALLATION


def told(call: Call) -> str:
    """A write in a line: what was written, where, by whom."""
    where, body = call.path.split("/")[4:], call.body or {}
    match where:
        case ["check-runs", *_]:
            what = f"check {body.get('name', '')} {body.get('conclusion') or body.get('status') or 'remarks'}"
        case ["statuses", _]:
            what = f"status {body['context']} {body['state']}"
        case ["issues", *_, "comments"] | ["issues", "comments", _]:
            what = "comment"
        case _:
            what = call.path
    return f"{call.method} {what} by {call.login}"
