"""Verdicts → the conclusion of a check and the state of a commit status, in one title.

Pure.  Maps verdicts and never makes one: a record that contradicts itself is a failure, whatever it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gate.decide import combine
from gate.decide import waiver as waiving
from gate.errors import ExitCode, UsageError
from gate.publish import limits
from gate.publish.model import Candidate, CheckConclusion, Conclusion, Trust
from gate.records import RunRecord, Severity, Status
from gate.reports import allowance, escape
from gate.reports.sentence import PASSED_WITH_WAIVER, TITLES

UNVERIFIED = "Unverified: "
NOTHING_CHANGED = "No checkpoint changed: nothing was gated"
_NAME_CHARACTERS = 60
_CODES = {
    Status.PASS: (ExitCode.PASS,),
    Status.REGRESSION: (ExitCode.REGRESSION,),
    Status.INCONCLUSIVE: (ExitCode.INCONCLUSIVE, ExitCode.PASS),  # on_inconclusive: warn
    Status.ERROR: (ExitCode.ERROR, ExitCode.INTERRUPTED),
    Status.REFUSED: (ExitCode.REFUSED,),
}
_OF_INCONCLUSIVE = {
    # (conclusion, state): a status has no neutral; who asks for it wants merging unblocked
    "failure": (CheckConclusion.FAILURE, "failure"),
    "action_required": (CheckConclusion.ACTION_REQUIRED, "failure"),
    "neutral": (CheckConclusion.NEUTRAL, "success"),
}
_WORST_CHECK_FIRST = (
    CheckConclusion.FAILURE,
    CheckConclusion.ACTION_REQUIRED,
    CheckConclusion.NEUTRAL,
    CheckConclusion.SUCCESS,
)
_WORST_STATUS_FIRST = (Status.REFUSED, Status.REGRESSION, Status.ERROR, Status.INCONCLUSIVE, Status.PASS)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    """Of one candidate.  `word` begins the title, `said` ends it; a plain pass has no word; `harm` orders equals."""

    name: str
    check: CheckConclusion
    state: str
    status: Status
    word: str
    said: str
    harm: float

    @property
    def title(self) -> str:
        return f"{self.word}: {self.said}" if self.word else self.said

    @property
    def rank(self) -> tuple[int, int, bool, float]:
        check, status = _WORST_CHECK_FIRST.index(self.check), _WORST_STATUS_FIRST.index(self.status)
        return check, status, not self.word, -self.harm


def conclude(
    candidates: Sequence[Candidate], *, inconclusive: str, trust: Trust, nothing_expected: bool = False
) -> Conclusion:
    """What the check says of all candidates: the worst of them.

    Args:
        inconclusive: the policy's `publish.inconclusive`: failure, action_required or neutral.
        nothing_expected: somebody looked, and no checkpoint was to be gated.  Otherwise no candidate is an error.

    Raises:
        UsageError: an unknown `inconclusive`.
    """
    if inconclusive not in _OF_INCONCLUSIVE:
        raise UsageError(f"found inconclusive {inconclusive!r}, expected one of {', '.join(_OF_INCONCLUSIVE)}")
    if candidates:
        said = _of_all([_of_one(c, inconclusive) for c in candidates])
    elif nothing_expected:
        said = Conclusion(check=CheckConclusion.SKIPPED, state="success", title=NOTHING_CHANGED, status=None)
    else:
        said = _of_all([_broken("", "no result came back, and nobody said that none was expected")])
    if trust.verified:
        return said
    return Conclusion(
        check=CheckConclusion.NEUTRAL,
        state="pending",
        title=limits.title(UNVERIFIED + said.title),
        status=said.status,
    )


def contradiction(record: RunRecord) -> str | None:
    """Why what a record claims cannot be true; None where it can.

    A guard against forged and broken records: its own findings are combined again, nothing is measured or decided.
    """
    status, code = record.verdict.status, record.exit_code
    waived = status is Status.REGRESSION and bool(record.waivers)
    allowed = [*_CODES.get(status, ()), *([ExitCode.PASS] if waived else [])]
    if code not in allowed:
        return f"{status} with exit code {code}, expected {' or '.join(str(int(c)) for c in allowed) or 'a verdict'}"
    match status:
        case Status.PASS:
            return _no_pass(record)
        case Status.REGRESSION:
            if not _red(record):
                return "REGRESSION without a blocking rule that regressed"
            return _no_waived_pass(record) if code == ExitCode.PASS else None
        case Status.INCONCLUSIVE:
            worse = _combined(record, frozenset())
            return f"INCONCLUSIVE although its rules make it {worse}" if worse in _WORST_STATUS_FIRST[:3] else None
        case _:
            return None  # the worst that it can claim


def waived(record: RunRecord) -> bool:
    """Waivers made a regression pass, and the record is sound."""
    return record.verdict.status is Status.REGRESSION and record.exit_code == 0 and contradiction(record) is None


def left_open(record: RunRecord) -> bool:
    """`on_inconclusive: warn` made the exit code 0 although rules are undecided: a check follows another setting."""
    waived_rules = frozenset(w.rule for w in record.waivers)
    return record.exit_code == 0 and (
        record.verdict.status is Status.INCONCLUSIVE or _combined(record, waived_rules) is Status.INCONCLUSIVE
    )


def _of_one(candidate: Candidate, inconclusive: str) -> _Outcome:
    record, name = candidate.record, candidate.name
    if record is None:
        return _broken(name, candidate.problem)
    problem = contradiction(record)
    if problem is not None:
        return _broken(name, f"the record contradicts itself: {problem}")
    status = record.verdict.status
    word, said = _parted(record)
    check, state = CheckConclusion.FAILURE, "failure"
    match status:
        case Status.PASS:
            check, state, word = CheckConclusion.SUCCESS, "success", ""
        case Status.INCONCLUSIVE:
            check, state = _OF_INCONCLUSIVE[inconclusive]
        case Status.ERROR:
            state = "error"
        case Status.REGRESSION if record.exit_code == 0:
            undecided = left_open(record)
            check, state = _OF_INCONCLUSIVE[inconclusive] if undecided else (CheckConclusion.SUCCESS, "success")
            word = _capital("inconclusive beside a waiver" if undecided else PASSED_WITH_WAIVER)
            said = _line(record).removeprefix(f"{_capital(PASSED_WITH_WAIVER)}: ")
    harm = allowance.harm(record)
    return _Outcome(name=name, check=check, state=state, status=status, word=word, said=said, harm=harm)


def _of_all(outcomes: Sequence[_Outcome]) -> Conclusion:
    worst = min(outcomes, key=lambda o: (o.rank, o.name))
    bad = sum(o.check is not CheckConclusion.SUCCESS for o in outcomes)
    with_waiver = [o.name for o in outcomes if o.check is CheckConclusion.SUCCESS and o.word]
    title = worst.title
    if len(outcomes) > 1 and bad:
        of = f"{bad} of {len(outcomes)} candidates did not pass"
        title = f"{worst.word}: {of}, worst {_name(worst.name)}: {worst.said}"
    elif len(outcomes) > 1 and with_waiver:
        title = f"{worst.word}: {_names(with_waiver)} ({len(with_waiver)} of {len(outcomes)} candidates)"
        others = len(outcomes) - len(with_waiver)
        if others:
            title += f"; the {'other passes' if others == 1 else 'others pass'} without one"
    elif len(outcomes) > 1:
        title = f"All {len(outcomes)} candidates pass: {', '.join(_name(o.name) for o in outcomes)}"
    return Conclusion(check=worst.check, state=worst.state, title=limits.title(title), status=worst.status)


def _broken(name: str, problem: str) -> _Outcome:
    return _Outcome(
        name=name,
        check=CheckConclusion.FAILURE,
        state="error",
        status=Status.ERROR,
        word=_capital(TITLES[Status.ERROR]),
        said=escape.line(problem, limits.TITLE_CHARACTERS),
        harm=0.0,
    )


def _parted(record: RunRecord) -> tuple[str, str]:
    """The word of the status and the sentence behind it; a sentence cannot pass itself off as another verdict."""
    word = _capital(TITLES[record.verdict.status])
    return word, _line(record).removeprefix(f"{word}: ") or "the record says no more"


def _line(record: RunRecord) -> str:
    return escape.line(record.verdict.sentence, 2 * limits.TITLE_CHARACTERS)


def _no_pass(record: RunRecord) -> str | None:
    if record.waivers:
        return "PASS with waivers, which only a regression has"
    combined = _combined(record, frozenset())
    return _not_judged(record) or (None if combined is Status.PASS else f"PASS although its rules make it {combined}")


def _no_waived_pass(record: RunRecord) -> str | None:
    """A regression whose exit code is 0 needs a waiver for each red rule, of this checkpoint, on its day."""
    if record.candidate is None:
        return "waived, and nobody knows which checkpoint"
    digest = waiving.identity(record.candidate)
    day = _day(record.created_at)
    if day is None:
        return f"waived on no day: {record.created_at[:40]!r}"
    for one in record.waivers:
        if one.checkpoint != digest:
            return f"the waiver of {one.rule} is of another checkpoint, {one.checkpoint[:12]}"
        if one.expires < day:
            return f"the waiver of {one.rule} expired on {one.expires}, this was measured on {day}"
    uncovered = sorted(_red(record) - {w.rule for w in record.waivers})
    if uncovered:
        return f"exit code 0 although {uncovered[0]} regressed and is not waived"
    combined = _combined(record, frozenset(w.rule for w in record.waivers))
    allowed = (Status.PASS, Status.INCONCLUSIVE)
    return _not_judged(record) or (
        None if combined in allowed else f"exit code 0 although its other rules make it {combined}"
    )


def _not_judged(record: RunRecord) -> str | None:
    """A stage that did not run, or learnt nothing: of it no pass can speak."""
    for stage in record.stages:
        if stage.status is Status.SKIPPED:
            return f"it passes although the stage {stage.name} was skipped"
        if not stage.findings:
            return f"it passes although the stage {stage.name} has no finding"
        blocking = any(f.rule.severity is Severity.BLOCKING for f in stage.findings)
        if blocking and stage.status is Status.ERROR:
            return f"it passes although the stage {stage.name} could not be measured"
    return None if record.stages else "it passes without a stage"


def _combined(record: RunRecord, waived: frozenset[str]) -> Status | None:
    """What its own blocking rules come to, as if the waived ones had held; None where there are none."""
    rules = tuple(f.rule for s in record.stages for f in s.findings if f.rule.severity is Severity.BLOCKING)
    stages = waiving.granted(record.stages, waived)
    return combine.combine(rules, stages, restricted=False).status if rules else None


def _red(record: RunRecord) -> set[str]:
    return {
        f.rule.id
        for s in record.stages
        for f in s.findings
        if f.status is Status.REGRESSION and f.rule.severity is Severity.BLOCKING
    }


def _day(iso: str) -> str | None:
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return None
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date().isoformat()


def _name(name: str) -> str:
    return escape.line(name, _NAME_CHARACTERS)


def _names(names: Sequence[str]) -> str:
    """The first of them and how many more: what stands behind them must not be cut off, in a status either."""
    shown = [_name(names[0])]
    for one in map(_name, names[1:]):
        if len(", ".join([*shown, one])) > _NAME_CHARACTERS:
            break
        shown.append(one)
    left = len(names) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
