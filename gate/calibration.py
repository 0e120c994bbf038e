"""The A/A run: the baseline measured once more with another batch size and order, and compared with itself.

Measures through the evidence of a run and judges by the policy's own rules; prints nothing.

What it finds is numeric noise: of batch sizes, of the order of the items, and of the seeds where answers are sampled.
A rule that calls it a REGRESSION cannot be relied on, whatever the candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gate import metrics, noise_floor, policy
from gate.decide import judge
from gate.decide.items import ABSOLUTE
from gate.decide.noise import Noise, noise
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
    loaded: LoadedPolicy, twice: Twice, store: Store, place: Place, *, batch_size: int
) -> tuple[SourceResult, ...]:
    """Measure every source of the perplexity, lm_eval and domain stages twice, and keep the noise of each.

    Timing is not calibrated.  A source that could not be measured is a result with its problem; the others go on.

    Raises:
        UsageError: the policy has nothing to calibrate.
        ArtifactError: the store cannot be written.
    """
    sources = calibrated_sources(loaded)
    n_blocking = sum(r.severity is Severity.BLOCKING for r in loaded.rules)
    terms = gate_wide(loaded.policy.confidence, n_blocking, None)  # all items are asked: no order to stop in
    results = []
    for stage, source, settings in sources:
        try:
            baseline, again = twice(source, settings)
            noises = noise(baseline, again, loaded.policy.confidence)
        except (CouldNotMeasure, DataError) as problem:
            results.append(SourceResult(stage=stage, source=source, noises=(), findings=(), problem=reason_of(problem)))
            continue
        found = Calibrated(batch_size=batch_size, noises=noises)
        noise_floor.keep(store, place, source, settings, found)
        rules = [r for r in loaded.rules if (r.stage, r.source) == (stage, source) and compares(r)]
        findings = tuple(_judged(rule, baseline, again, terms) for rule in rules)
        results.append(SourceResult(stage=stage, source=source, noises=noises, findings=findings, problem=None))
    return tuple(results)


def calibrated_sources(loaded: LoadedPolicy) -> tuple[tuple[str, str, policy.Stage], ...]:
    """(stage name, source, settings) of everything but timing.  Raises UsageError where that is nothing."""
    stages = [s for s in loaded.policy.stages if not isinstance(s, policy.ProfileStage)]
    if not stages:
        raise UsageError(
            f"{loaded.source}: found only profile stages, expected a perplexity, lm_eval or domain stage: timing is "
            "measured side by side in every run and not calibrated"
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
                "measurement is too noisy for its bound: use more items, a wider bound, float32 or greedy decoding"
            )
        elif finding.status not in (Status.PASS, Status.INCONCLUSIVE):
            said.append(f"{finding.rule.id} could not be judged on the baseline itself: {finding.reason}")
    return tuple(said)


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


def _judged(rule: Rule, baseline: Measurement, again: Measurement, terms: Terms) -> Finding:
    return judge.judge(rule, baseline, again, terms)
