"""One stage of a run: both roles' evidence of each source, judged as it comes, and the stage's result.

Decides when a stage stops; what is measured and how it is judged live below.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gate import metrics, policy, units
from gate.decide import combine, flips, judge, prefix
from gate.errors import BudgetExceeded, CouldNotMeasure, DataError, WorkerError
from gate.evidence import Collector, items_scored, with_scalar
from gate.records import (
    Estimand,
    Finding,
    Flip,
    Measurement,
    Role,
    Rule,
    Severity,
    StageResult,
    Status,
    merge,
)
from gate.stages.profile import block_order

LAST_LINES = 20
"""How much of a broken worker's log a finding carries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRun:
    """A stage's result with what it was decided from."""

    result: StageResult
    measurements: tuple[Measurement, ...]
    flips: tuple[Flip, ...]


def unmeasured(
    stage: policy.Stage, status: Status, findings: Sequence[Finding], *, skipped_because: str | None
) -> StageResult:
    """The result of a stage in which nothing was measured."""
    return StageResult(
        kind=stage.kind,
        name=stage.name,
        status=status,
        findings=tuple(findings),
        seconds=0.0,
        items_scored=0,
        items_available=0,
        baseline_from="none",
        skipped_because=skipped_because,
        notes=(),
    )


def reason_of(problem: CouldNotMeasure | DataError) -> str:
    """Why something was not measured; of a worker that broke, with its last words.

    Only the first line is printed where a report may leave this machine (see `reports.sentence`).
    """
    if not isinstance(problem, WorkerError):
        return str(problem)
    lines = problem.stderr_tail.strip().splitlines()[-LAST_LINES:]
    return "\n".join([str(problem), *(["the last lines of its log:", *lines] if lines else [])])


def run_stage(
    collector: Collector,
    stage: policy.Stage,
    rules: Sequence[Rule],
    *,
    confidence: float,
    keep_going: bool,
    monotonic: Callable[[], float],
    run_seconds_left: Callable[[], float | None],
) -> StageRun:
    """Measure and judge every source of a stage; after a red blocking rule the rest is skipped unless `keep_going`.

    Raises:
        UsageError: the baseline store cannot be written.
    """
    begun = monotonic()
    findings: list[Finding] = []
    measurements: list[Measurement] = []
    notes: list[str] = []
    turned: list[Flip] = []
    from_store: list[bool] = []

    def seconds_left() -> float | None:
        """What is left of the tighter of the stage's and the run's time budget."""
        left = [run_seconds_left()]
        if stage.budget is not None:
            left.append(units.duration_seconds(stage.budget) - (monotonic() - begun))
        return min((s for s in left if s is not None), default=None)

    for source, settings in policy.split(stage):
        mine = [r for r in rules if r.source == source]
        if not keep_going and any(map(_stops, findings)):
            findings += [judge.skipped(r, "not measured: an earlier rule of this stage stopped it") for r in mine]
            continue
        try:
            if isinstance(settings, policy.ProfileStage):
                from_store.append(False)  # timing is always measured side by side, never reused
                baseline, candidate = _profile(collector, settings, seconds_left())
            else:
                evidence = collector.of_baseline(source, settings, seconds_left())
                from_store.append(evidence.from_store)
                baseline = evidence.measurement
                try:
                    candidate = collector.of_candidate(settings, evidence.artifacts, seconds_left())
                except BudgetExceeded as late:
                    reached = late.reached[0] if late.reached else None
                    findings += [prefix.out_of_time(r, baseline, reached, confidence, str(late)) for r in mine]
                    notes.append(f"{source}: {late}")
                    continue
        except (CouldNotMeasure, DataError) as problem:  # what was measured before is kept
            findings += [judge.could_not_measure(r, reason_of(problem)) for r in mine]
            notes.append(f"{source}: {problem}")
            if isinstance(problem, WorkerError):
                collector.drop_workers()
            continue
        measurements += [baseline, candidate]
        notes += [*baseline.notes, *candidate.notes]
        findings += [judge.judge(r, baseline, candidate, confidence) for r in mine]
        turned += _flips(stage.name, baseline, candidate, mine)
    measured = [m for m in measurements if m.role is Role.CANDIDATE]
    result = StageResult(
        kind=stage.kind,
        name=stage.name,
        status=combine.stage_status(findings),
        findings=tuple(findings),
        seconds=monotonic() - begun,
        items_scored=sum(map(items_scored, measured)),
        items_available=sum(m.n_expected for m in measured),
        baseline_from=("store" if all(from_store) else "measured") if from_store else "none",
        skipped_because=None,
        notes=tuple(dict.fromkeys(notes)),
    )
    return StageRun(result=result, measurements=tuple(measurements), flips=tuple(turned))


def _profile(
    collector: Collector, settings: policy.ProfileStage, deadline_seconds: float | None
) -> tuple[Measurement, Measurement]:
    order = tuple(chain.from_iterable(block_order(settings.blocks)))
    with tempfile.TemporaryDirectory(prefix="quantgate-") as scratch:
        blocks = collector.blocks(settings, order, Path(scratch), deadline_seconds)
    disk = metrics.PROFILE["disk_bytes"]
    baseline = with_scalar(merge(blocks[Role.BASELINE]), disk, collector.baseline.ref.weight_bytes)
    return baseline, with_scalar(merge(blocks[Role.CANDIDATE]), disk, collector.candidate.ref.weight_bytes)


def _flips(stage: str, baseline: Measurement, candidate: Measurement, rules: Sequence[Rule]) -> list[Flip]:
    judged = dict.fromkeys(r.metric for r in rules)
    chosen = [m for m in candidate.metrics if m.name in judged and m.estimand is Estimand.ITEM_MEAN]
    return [flip for metric in chosen for flip in flips.flips(stage, baseline, candidate, metric)]


def _stops(finding: Finding) -> bool:
    """Does this finding end the stage?  Advisory rules never do."""
    red = finding.status in (Status.REGRESSION, Status.ERROR, Status.REFUSED)
    return red and finding.rule.severity is Severity.BLOCKING
