"""Judged stages → the verdict of a run: status, sentence, exit code, and the waivers that were applied.

Puts together what `decide` decides and `reports` words; judges nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gate.decide import waiver
from gate.decide.combine import Decision
from gate.decide.waiver import Ruling, Standing
from gate.policy import Policy
from gate.records import CheckpointRef, Rule, StageResult, Status, Verdict, Waiver
from gate.reports import escape, sentence

_NAME_LIMIT, _REASON_LIMIT = 120, 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a run ended; `notes` say what became of every waiver of its checkpoint."""

    verdict: Verdict
    exit_code: int
    waivers: tuple[Waiver, ...]
    notes: tuple[str, ...]


def standing(waivers: Sequence[Waiver], candidate: CheckpointRef | None, created: datetime) -> Standing:
    """The waivers that count for a run of this candidate, created at this time."""
    return waiver.standing(waivers, candidate, created.astimezone(UTC).date().isoformat())


def decided(
    policy: Policy,
    planned: tuple[Rule, ...],
    stages: tuple[StageResult, ...],
    standing: Standing,
    *,
    restricted: bool,
    unasked: Sequence[StageResult] = (),
) -> Ended:
    """The end of a run whose stages are judged.

    `unasked` stages are no part of what is decided; the sentence names them.
    """
    ruling = waiver.ruling(
        planned, stages, standing.in_force, restricted=restricted, on_inconclusive=policy.on_inconclusive
    )
    said = _sentence(ruling, (*stages, *unasked), policy)
    if unasked:
        said += f" Not judged: {', '.join(s.name for s in unasked)}."
    return Ended(
        verdict=Verdict(status=ruling.decision.status, deciding=ruling.decision.deciding, sentence=said),
        exit_code=ruling.exit_code,
        waivers=ruling.applied,
        notes=waiver.notes(standing, ruling.applied, stages),
    )


def undecided(policy: Policy, stages: Sequence[StageResult], status: Status, reason: str, exit_code: int) -> Ended:
    """The end of a run that could not be decided by its rules: no waiver changes it."""
    decision = Decision(status=status, deciding=(), complete=False)
    verdict = Verdict(status=status, deciding=(), sentence=_said(decision, (), stages, policy, reason))
    return Ended(verdict=verdict, exit_code=exit_code, waivers=(), notes=())


def _sentence(ruling: Ruling, stages: Sequence[StageResult], policy: Policy) -> str:
    """What fails the run comes first; what is waived is never left out."""
    waived = {w.rule for w in ruling.applied}
    decision, rest = ruling.decision, ruling.rest
    if not ruling.applied:
        return _said(decision, decision.deciding, stages, policy)
    besides = _said(rest, [i for i in rest.deciding if i not in waived], stages, policy)
    if rest.status not in (Status.PASS, Status.INCONCLUSIVE):
        return f"{besides} Not what fails this run: {_waived(ruling.applied)}."
    open_ = besides if rest.status is Status.INCONCLUSIVE else ""
    if ruling.exit_code:
        return f"Regression: {_waived(ruling.applied)}, and the run does not pass for another reason. {open_}".strip()
    reason = escape.line(ruling.applied[0].reason, _REASON_LIMIT).rstrip(".")
    red = _said(decision, decision.deciding, stages, policy)
    return f"Passed with waiver: {_waived(ruling.applied)} ({reason}). {red} {open_}".strip()


def _waived(applied: Sequence[Waiver]) -> str:
    """`fraud.accuracy.max_drop is waived by Ada until 2026-12-31, and so is sanity.perplexity.max_increase`."""
    first, *others = applied
    owner = escape.line(first.owner, _NAME_LIMIT)
    said = f"{escape.line(first.rule, _NAME_LIMIT)} is waived by {owner} until {first.expires}"
    if others:
        names = ", ".join(escape.line(w.rule, _NAME_LIMIT) for w in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        said += f", and so {'is' if len(others) == 1 else 'are'} {names}{more}"
    return said


def _said(
    decision: Decision, deciding: Sequence[str], stages: Sequence[StageResult], policy: Policy, reason: str = ""
) -> str:
    found = {f.rule.id: f for s in stages for f in s.findings}
    return sentence.sentence(
        decision.status,
        [found[i] for i in deciding if i in found],
        stages,
        policy.model_dump(mode="json", exclude_none=True),
        complete=decision.complete,
        reason=reason,
    )
