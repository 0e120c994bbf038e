"""The A/A run: the baseline measured once more and compared with itself.

Measures through the evidence of a run and judges by the policy's own rules; prints nothing.

What it finds of scores is numeric noise: of batch sizes, of the order of the items, and of the seeds where answers are
sampled.  What it finds of timings is how much two processes of one model differ, which one run cannot see.
A rule that calls it a REGRESSION cannot be relied on, whatever the candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gate import metrics, noise_floor, policy, timing_run
from gate.decide import judge
from gate.decide.items import ABSOLUTE
from gate.decide.noise import Noise, noise, observed, timing_noise
from gate.decide.terms import Terms, gate_wide
from gate.errors import CouldNotMeasure, DataError, UsageError, WorkerError
from gate.evidence import Collector, whole
from gate.noise_floor import Calibrated, Place
from gate.policy_file import LoadedPolicy
from gate.records import Estimand, Finding, Measurement, Rule, Severity, Status, merge
from gate.stage_run import reason_of
from gate.store import Store

Twice = Callable[[str, policy.Stage], tuple[Measurement, Measurement]]
"""(source, settings of the stage cut down to it) → both measurements of the baseline, the second as a candidate."""

PAIRS = 4
"""Pairs of blocks of every pair of processes but the first, which is timed as a run is: two times A B B A."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """The baseline timed against itself, as a run does it, and in further pairs of fresh processes."""

    as_in_a_run: timing_run.Timed
    fresh: tuple[tuple[Measurement, Measurement], ...]


Timings = Callable[[policy.ProfileStage, Sequence[Rule], Terms], Processes]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceResult:
    """One source against itself.

    Attributes:
        noises: empty when it could not be measured twice.
        findings: of the rules that compare with the baseline.
        problem: why it could not be measured twice, or None.
    """

    stage: str
    source: str
    noises: tuple[Noise, ...]
    findings: tuple[Finding, ...]
    problem: str | None


def calibrate(
    loaded: LoadedPolicy, twice: Twice, timings: Timings | None, store: Store, place: Place, *, batch_size: int
) -> tuple[SourceResult, ...]:
    """Measure every source twice, time every profile stage in several processes, and keep the noise of each.

    A source that could not be measured is a result with its problem; the others go on.

    Args:
        timings: None leaves profile stages out.

    Raises:
        UsageError: the policy has nothing to calibrate.
        ArtifactError: the store cannot be written.
    """
    sources = calibrated_sources(loaded, timing=timings is not None)
    n_blocking = sum(r.severity is Severity.BLOCKING for r in loaded.rules)
    terms = gate_wide(loaded.policy.confidence, n_blocking, None)  # all items are asked: no order to stop in
    results = []
    for stage, source, settings in sources:
        rules = [r for r in loaded.rules if (r.stage, r.source) == (stage, source) and compares(r)]
        try:
            if isinstance(settings, policy.ProfileStage):
                assert timings is not None  # or it would not be among the sources
                baseline, again, found = _timed(settings, rules, timings, terms)
            else:
                baseline, again = twice(source, settings)
                found = Calibrated(batch_size=batch_size, noises=noise(baseline, again, loaded.policy.confidence))
        except (CouldNotMeasure, DataError) as problem:
            results.append(SourceResult(stage=stage, source=source, noises=(), findings=(), problem=reason_of(problem)))
            continue
        noise_floor.keep(store, place, source, settings, found)
        findings = tuple(judge.judge(rule, baseline, again, terms) for rule in rules)
        results.append(SourceResult(stage=stage, source=source, noises=found.noises, findings=findings, problem=None))
    return tuple(results)


def _timed(
    settings: policy.ProfileStage, rules: Sequence[Rule], timings: Timings, terms: Terms
) -> tuple[Measurement, Measurement, Calibrated]:
    """Both sides as a run would judge them once the noise is known, and that noise.

    Raises:
        CouldNotMeasure, DataError: as `Timings` and `timing_noise`.
    """
    timed = timings(settings, rules, terms)
    first = timed.as_in_a_run
    processes = [(first.baseline, first.candidate), *timed.fresh]
    found = timing_noise(processes, settings.planned_pairs[-1], terms.confidence)
    baseline = replace(first.baseline, observations=(*first.baseline.observations, *observed(found)))
    return baseline, first.candidate, Calibrated(batch_size=None, noises=found)


def calibrated_sources(loaded: LoadedPolicy, *, timing: bool) -> tuple[tuple[str, str, policy.Stage], ...]:
    """(stage name, source, settings) of everything there is to calibrate.  Raises UsageError where that is nothing."""
    stages = [s for s in loaded.policy.stages if timing or not isinstance(s, policy.ProfileStage)]
    if not stages:
        raise UsageError(
            f"{loaded.source}: found only profile stages and no processes to time them in, expected --processes of "
            "more than 0, or a perplexity, lm_eval or domain stage"
        )
    return tuple((stage.name, source, settings) for stage in stages for source, settings in policy.split(stage))


def compares(rule: Rule) -> bool:
    """Whether a rule is about the baseline and the candidate: what a candidate scores by itself says nothing of noise.

    Divergence is the baseline's too, though its bound is absolute.
    """
    divergent = metrics.PERPLEXITY.get(rule.metric)
    if divergent is not None and divergent.estimand is not Estimand.PERPLEXITY:
        return True
    return rule.bound.kind not in ABSOLUTE


def failures(results: Sequence[SourceResult]) -> tuple[str, ...]:
    """A sentence for each thing that makes the measurement unreliable; advisory rules do not."""
    said = [f"{r.source} could not be measured twice: {r.problem}" for r in results if r.problem is not None]
    for finding in (f for r in results for f in r.findings if f.rule.severity is Severity.BLOCKING):
        if finding.status is Status.REGRESSION:
            said.append(
                f"the baseline is a REGRESSION against itself under {finding.rule.id}: {finding.reason}. This "
                f"measurement is too noisy for its bound: {_advice(finding.rule)}"
            )
        elif finding.status not in (Status.PASS, Status.INCONCLUSIVE):
            said.append(f"{finding.rule.id} could not be judged on the baseline itself: {finding.reason}")
    return tuple(said)


def _advice(rule: Rule) -> str:
    metric = metrics.PROFILE.get(rule.metric)
    if metric is not None and metric.estimand is Estimand.TIMING:
        return "use a quieter machine, more blocks or a wider bound"
    return "use more items, a wider bound, float32 or greedy decoding"


def twice_by(collector: Collector) -> Twice:
    """Both measurements through the evidence of a run whose two sides are the same checkpoint."""

    def measured(source: str, settings: policy.Stage) -> tuple[Measurement, Measurement]:
        try:
            collector.check(settings)
            evidence = collector.of_baseline(source, settings, lambda: None)
            stream = collector.of_candidate(settings, evidence.artifacts)
            again = whole(merge(list(iter(lambda: stream.advance(None), None))))
            return evidence.measurement, again
        except WorkerError:
            collector.drop_workers()
            raise

    return measured


def timed_by(collector: Collector, processes: int, *, beside: Collector) -> Timings:
    """So many pairs of processes through the evidence of a run whose two sides are the same checkpoint.

    The workers of `beside` are ended first: nothing else may run meanwhile.
    """

    def timings(settings: policy.ProfileStage, rules: Sequence[Rule], terms: Terms) -> Processes:
        try:
            beside.drop_workers()
            collector.check(settings)
            first = timing_run.timed(collector, settings, rules, terms, _no_end, stop_early=False)
            pairs = min(PAIRS, settings.planned_pairs[-1])
            fresh = tuple(
                timing_run.fresh_pair(collector, settings, pairs, _no_end, purpose=f"processes {n} of {processes}")
                for n in range(2, processes + 1)
            )
        finally:
            collector.drop_workers()
        return Processes(as_in_a_run=first, fresh=fresh)

    return timings


def _no_end() -> None:
    """The time budgets of a policy are a run's."""
