"""What publishing is about: where a verdict belongs on GitHub, whether it may be believed, and what is said there.

Pure: frozen data and invariants; no judgement has a default.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gate.records import RunRecord, Status


class TokenKind(StrEnum):
    """What the token may do: only installation tokens (GITHUB_TOKEN, an App's) write check runs."""

    INSTALLATION = "installation"
    PERSONAL = "personal"
    NONE = "none"


class CheckConclusion(StrEnum):
    """Conclusions of a check run.  A required check is satisfied by success, by neutral and by skipped."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"
    ACTION_REQUIRED = "action_required"
    SKIPPED = "skipped"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where the verdict belongs.

    Attributes:
        repository: `owner/name` of the repository whose checks are written.
        head_sha: the commit that was gated, 40 hex digits.
        event: the event that started the measurement (under `workflow_run`: that of the run that measured).
        second_stage: this is the `workflow_run` stage, whose code is that of the default branch.
        pull: number of the pull request, None where there is none; `None` under workflow_run until it is resolved.
        head_repository: `owner/name` the commit comes from; another one than `repository` is a fork.
        head_branch: branch of the commit, None for tags.
        base_ref: branch that the change wants to go to; None for push, tags, dispatch, schedule.
        base_sha: the base commit as the event names it.
        run_id, run_attempt: of the workflow run that measured; None outside of Actions.
        details_url: where a reader finds the run; None: GitHub shows the check itself.
    """

    repository: str
    head_sha: str
    event: str
    second_stage: bool
    pull: int | None
    head_repository: str
    head_branch: str | None
    default_branch: str | None
    base_ref: str | None
    base_sha: str | None
    run_id: int | None
    run_attempt: int
    details_url: str | None

    @property
    def fork(self) -> bool:
        return self.head_repository.casefold() != self.repository.casefold()


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """May this result conclude the required check?  `reason` says why, or why not, in a sentence without full stop."""

    verified: bool
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One candidate that was to be gated.  Without a record, `problem` says what came back instead."""

    name: str
    record: RunRecord | None
    problem: str

    def __post_init__(self) -> None:
        if (self.record is None) == (not self.problem):
            raise ValueError(f"candidate {self.name!r} needs a record or a problem, and not both")

    @property
    def status(self) -> Status:
        return Status.ERROR if self.record is None else self.record.verdict.status


@dataclass(frozen=True, kw_only=True, slots=True)
class Conclusion:
    """`title` is one line, within every limit; `state` is that of the commit status (success, failure, error, pending).

    `status` is the worst of the candidates; None where there was nothing to gate.
    """

    check: CheckConclusion
    state: str
    title: str
    status: Status | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """A remark on a line of the policy.  `level` is notice, warning or failure."""

    path: str
    line: int
    level: str
    title: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """Everything that is said about one gated commit; texts are escaped and within GitHub's limits already.

    Attributes:
        name: of the check run; an unverified result has another name than the required check.
        context: of the commit status, which is never the name of the check.
        external_id: identifies this publication: a second one with the same id updates the first.
        comment: body of the sticky comment, None: no comment is wanted.
        create_comment: create it where there is none yet; otherwise only an existing one is updated.
        measured_at: ISO time of the newest record; an older publication never overwrites a newer comment.
    """

    name: str
    context: str
    external_id: str
    target: Target
    conclusion: Conclusion
    summary: str
    text: str
    annotations: tuple[Annotation, ...]
    comment: str | None
    create_comment: bool
    measured_at: str
