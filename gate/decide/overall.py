"""What is said of a whole run once its stages are judged: what a first REGRESSION frees, and the quality score.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from gate.decide import combine, control
from gate.decide.lineup import lineup
from gate.decide.quality import SourceScores, quality
from gate.decide.terms import Terms
from gate.errors import CouldNotMeasure
from gate.records import Direction, Estimand, Measurement, Metric, Quality, Role, Rule, Severity, StageResult

_KINDS = ("lm_eval", "domain")


def stepped_down(stages: Sequence[StageResult], planned: Sequence[Rule], confidence: float) -> tuple[StageResult, ...]:
    """The stages after Holm's step-down over all planned blocking rules; stages that nothing changes stay as they are.

    Raises:
        ValueError: as `control.step_down`.
    """
    findings = [f for s in stages for f in s.findings]
    after = iter(control.step_down(findings, planned, confidence))
    results = []
    for stage in stages:
        now = tuple(next(after) for _ in stage.findings)
        changed = now != stage.findings
        results.append(replace(stage, findings=now, status=combine.stage_status(now)) if changed else stage)
    return tuple(results)


def score(
    rules: Sequence[Rule], stages: Iterable[tuple[str, Sequence[Measurement]]], terms: Terms
) -> tuple[Quality | None, str | None]:
    """The quality score, or why there is none; neither where nothing on items was measured.

    Args:
        rules: planned; of each source, the metric of its first blocking rule on an item mean counts, else of its first.
        stages: (kind, measurements of both roles) of the stages that were measured.
    """
    found: list[SourceScores] = []
    try:
        for kind, measurements in stages:
            if kind not in _KINDS:
                continue
            of = {(m.source, m.role): m for m in measurements}
            for source in dict.fromkeys(m.source for m in measurements):
                baseline, candidate = of.get((source, Role.BASELINE)), of.get((source, Role.CANDIDATE))
                if baseline is None or candidate is None:
                    continue
                metric = _metric([r for r in rules if r.stage == baseline.stage and r.source == source], candidate)
                if metric is not None and metric in baseline.metrics:
                    found.append(_scores(baseline, candidate, metric, terms))
        return quality(found, terms.confidence), None
    except CouldNotMeasure as problem:
        return None, f"no quality score: {problem}"


def _metric(rules: Sequence[Rule], candidate: Measurement) -> Metric | None:
    fitting = {
        m.name: m
        for m in candidate.metrics
        if m.estimand is Estimand.ITEM_MEAN and m.direction is Direction.HIGHER_IS_BETTER
    }
    chosen = [r for r in rules if r.metric in fitting and r.by is None]
    chosen.sort(key=lambda r: r.severity is not Severity.BLOCKING)
    return fitting[chosen[0].metric] if chosen else None


def _scores(baseline: Measurement, candidate: Measurement, metric: Metric, terms: Terms) -> SourceScores:
    line = lineup(baseline, candidate, metric, terms.order_seed)
    clusters = [e.cluster for e in line.entries]
    return SourceScores(
        source=candidate.source,
        baseline=[e.baseline for e in line.entries],
        candidate=[e.candidate for e in line.entries[: line.reached]],
        clusters=[c or f"item {i}" for i, c in enumerate(clusters)] if any(clusters) else None,
    )
