"""`gate baseline measure`: every source of a policy measured for one baseline, without a candidate, and kept.

Measures through the evidence of a run; judges nothing and prints nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gate import policy
from gate.errors import CouldNotMeasure, UsageError, WorkerError
from gate.evidence import Again, Collector, items_scored
from gate.policy_file import LoadedPolicy
from gate.stage_run import reason_of


class Result(StrEnum):
    """What became of one source."""

    THERE = "already stored"
    MEASURED = "measured"
    SAME = "same scores"
    """Measured again, with nothing to promote."""
    PROPOSED = "proposed"
    """Measured again, with other scores, and kept beside the baseline."""
    FAILED = "not stored"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """One source.  `again` is there after SAME and PROPOSED, `problem` after FAILED."""

    stage: str
    source: str
    result: Result
    items: int
    seconds: float
    again: Again | None
    problem: str | None


def storable(loaded: LoadedPolicy) -> tuple[tuple[str, str, policy.Stage], ...]:
    """(stage, source, settings) of everything that can be stored.  Raises UsageError where that is nothing."""
    stages = [s for s in loaded.policy.stages if not isinstance(s, policy.ProfileStage)]
    if not stages:
        raise UsageError(
            f"{loaded.source}: found only profile stages, expected a perplexity, lm_eval or domain stage: timings are "
            "never stored, for both sides are timed side by side in every run"
        )
    return tuple((stage.name, source, settings) for stage in stages for source, settings in policy.split(stage))


def keep(loaded: LoadedPolicy, collector: Collector, *, again: bool) -> tuple[Kept, ...]:
    """Measure what is not stored; with `again`, propose another measurement of what is.

    A source that could not be measured or kept is a result with its problem; the others go on.

    Raises:
        UsageError: the policy has nothing to store, or an evaluation file is wrong; nothing was measured.
    """
    done = []
    unusable: dict[tuple[str, str], CouldNotMeasure] = {}
    sources = storable(loaded)
    for stage, source, settings in sources:  # all of them before anything is paid for
        try:
            collector.check(settings)
        except CouldNotMeasure as problem:
            collector.drop_workers()
            unusable[stage, source] = problem
    for stage, source, settings in sources:
        try:
            if (stage, source) in unusable:
                raise unusable[stage, source]
            done.append(_kept(collector, stage, source, settings, again=again))
        except CouldNotMeasure as problem:
            if isinstance(problem, WorkerError):
                collector.drop_workers()
            done.append(_failed(stage, source, reason_of(problem)))
    return tuple(done)


def _kept(collector: Collector, stage: str, source: str, settings: policy.Stage, *, again: bool) -> Kept:
    repeated = collector.again(source, settings) if again else None
    if repeated is not None:
        return Kept(
            stage=stage,
            source=source,
            result=Result.SAME if repeated.proposal is None else Result.PROPOSED,
            items=items_scored(repeated.new),
            seconds=repeated.new.seconds,
            again=repeated,
            problem=None,
        )
    evidence, unkept = collector.stored(source, settings)
    if unkept is not None:
        return _failed(stage, source, unkept)
    return Kept(
        stage=stage,
        source=source,
        result=Result.THERE if evidence.from_store else Result.MEASURED,
        items=items_scored(evidence.measurement),
        seconds=evidence.measurement.seconds,
        again=None,
        problem=None,
    )


def _failed(stage: str, source: str, problem: str) -> Kept:
    return Kept(stage=stage, source=source, result=Result.FAILED, items=0, seconds=0.0, again=None, problem=problem)
