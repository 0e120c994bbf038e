"""The items on which exactly one of the two was right: what people read after a red verdict.

Pure.  Shows, never decides; a score that changes without crossing from right to wrong is no flip.
"""

from __future__ import annotations

from collections.abc import Sequence

from gate.decide.pairing import pair
from gate.errors import CouldNotMeasure
from gate.records import Answer, Direction, Estimand, Flip, Measurement, Metric, Rule


def flips(stage: str, baseline: Measurement, candidate: Measurement, metric: Metric) -> tuple[Flip, ...]:
    """Flips of an item metric, lost ones first, then by item; empty for other metrics or what does not pair."""
    if metric.estimand is not Estimand.ITEM_MEAN:
        return ()
    try:
        paired = pair(baseline, candidate, metric).paired
    except CouldNotMeasure:
        return ()  # the finding says so
    right = 1.0 if metric.direction is Direction.HIGHER_IS_BETTER else 0.0
    of_baseline, of_candidate = _answers(baseline), _answers(candidate)
    found = []
    for p in paired:
        if {p.baseline, p.candidate} != {0.0, 1.0}:
            continue
        b, c = of_baseline.get(p.item_id), of_candidate.get(p.item_id)
        asked = b or c
        found.append(
            Flip(
                stage=stage,
                source=candidate.source,
                metric=metric.name,
                item_id=p.item_id,
                kind="lost" if p.baseline == right else "gained",
                group=p.group,
                prompt="" if asked is None else asked.prompt,
                target="" if asked is None else asked.target,
                baseline_output="" if b is None else b.output,
                candidate_output="" if c is None else c.output,
            )
        )
    return tuple(sorted(found, key=lambda f: (f.kind != "lost", f.item_id)))


def of_rules(baseline: Measurement, candidate: Measurement, rules: Sequence[Rule]) -> list[Flip]:
    """Flips of every item metric that one of the rules judges, in the candidate's order of metrics."""
    judged = {rule.metric for rule in rules}
    chosen = [m for m in candidate.metrics if m.name in judged]
    return [flip for metric in chosen for flip in flips(candidate.stage, baseline, candidate, metric)]


def _answers(measurement: Measurement) -> dict[str, Answer]:
    return {a.item_id: a for a in reversed(measurement.answers)}
