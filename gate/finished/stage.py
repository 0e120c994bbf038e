"""One stage judged from evidence that is already there.

The only place here that judges; reads no files and runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from gate import policy
from gate.decide import combine, flips, unjudged
from gate.decide import source as judge_source
from gate.decide.terms import Terms
from gate.evidence import items_scored
from gate.records import (
    Finding,
    Flip,
    Measurement,
    Role,
    Rule,
    Scope,
    StageResult,
    Status,
)
from gate.stage_run import StageRun, unmeasured


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceEvidence:
    """Both roles' measurements of one source.

    Attributes:
        population_only: why these items are no random sample of the source's, so that nothing may be concluded of the
            whole benchmark; None where they are.
        notes: remarks for the reader.
    """

    baseline: Measurement
    candidate: Measurement
    population_only: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class NoEvidence:
    """Why a source cannot be judged.  `was_skipped`: the run that was read chose not to measure it."""

    reason: str
    was_skipped: bool


def judged_stage(
    stage: policy.Stage,
    rules: Sequence[Rule],
    evidence: Mapping[str, SourceEvidence | NoEvidence],
    terms: Terms,
    *,
    stop_early: bool,
    seconds: float,
    baseline_from: str,
    waived: Set[str],
) -> StageRun:
    """Judge the rules of a stage, each on the evidence of its source; a source without any is an ERROR.

    A stage that the run which was read had skipped altogether stays SKIPPED.  `waived` are the ids of rules that may be
    red: guard rails beside them must have seen every item all the same.
    """
    missing = [e for e in evidence.values() if isinstance(e, NoEvidence)]
    if len(missing) == len(evidence) and all(e.was_skipped for e in missing):
        skipped = unmeasured(stage, Status.SKIPPED, (), skipped_because=missing[0].reason)
        return StageRun(result=skipped, measurements=(), flips=())
    findings: list[Finding] = []
    measurements: list[Measurement] = []
    notes: list[str] = []
    turned: list[Flip] = []
    for source, _ in policy.split(stage):
        mine = [rule for rule in rules if rule.source == source]
        match evidence[source]:
            case NoEvidence(reason=reason, was_skipped=was_skipped):
                made = unjudged.skipped if was_skipped else unjudged.could_not_measure
                findings += [made(rule, reason) for rule in mine]
                notes.append(f"{source}: {reason}")
            case SourceEvidence(baseline=baseline, candidate=candidate) as found:
                measurements += [baseline, candidate]
                notes += [*found.notes, *baseline.notes, *candidate.notes]
                if found.population_only is not None:
                    mine = [replace(rule, scope=Scope.POPULATION) for rule in mine]
                    notes.append(f"{found.population_only}: judged in population scope only")
                judged = judge_source.findings(mine, baseline, candidate, terms, stop_early=stop_early, waived=waived)
                findings += [_explained(finding, baseline, candidate) for finding in judged]
                turned += flips.of_rules(baseline, candidate, mine)
    of_candidate = [m for m in measurements if m.role is Role.CANDIDATE]
    result = StageResult(
        kind=stage.kind,
        name=stage.name,
        status=combine.stage_status(findings),
        findings=tuple(findings),
        seconds=seconds,
        items_scored=sum(map(items_scored, of_candidate)),
        items_available=sum(m.n_expected for m in of_candidate),
        baseline_from=baseline_from if measurements else "none",
        skipped_because=None,
        notes=tuple(dict.fromkeys(notes)),
    )
    return StageRun(result=result, measurements=tuple(measurements), flips=tuple(turned))


def _explained(finding: Finding, *measurements: Measurement) -> Finding:
    """The finding; where a side left its metric out, with that side's own words for why."""
    if finding.status is not Status.ERROR:
        return finding
    left_out = f"metric {finding.rule.metric!r} is not reported"
    for one in measurements:
        for note in one.notes:
            if note.startswith(left_out):
                return unjudged.could_not_measure(finding.rule, f"{one.source}, {one.role}: {note}")
    return finding
