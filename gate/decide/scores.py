"""Rules on scores that are no mean over items (macro-F1, BLEU, chrF), from delete-group values.

Pure.  What a lost item would have done to such a score cannot be said, so nothing is concluded past one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from gate.decide.estimate import Estimate, Span, check_can_fail, hull, span
from gate.decide.items import ABSOLUTE, best_rate
from gate.decide.pairing import LostItems, causes
from gate.errors import CouldNotMeasure
from gate.records import BoundKind, Estimand, Measurement, Metric, Rule
from gate.stats import jackknife
from gate.stats.quantiles import z

FULL, WITHOUT = "all", "without/"
_PER_ITEM = frozenset({Estimand.ITEM_MEAN, Estimand.MEAN_RATIO})


def estimate(
    rule: Rule, baseline: Measurement | None, candidate: Measurement, metric: Metric, confidence: float
) -> Estimate:
    """Judge-ready evidence on a corpus score in [0, 1].

    The interval is never narrower than the share z²/(n + z²) of n items that could have gone unseen.

    Raises:
        CouldNotMeasure: the score or its delete-group values are missing or do not match, items were lost beyond
            `max_lost`, there is nothing to retain, or no score could break the bound.
    """
    roles = [candidate] if baseline is None else [baseline, candidate]
    n, n_lost = _present(roles)
    allowed = rule.max_lost.allowed(candidate.n_expected)
    if n < 1 or n_lost > allowed:
        kinds = ", ".join(f"{kind}: {count}" for kind, count in causes(*roles)) or "no reason given"
        raise LostItems(
            f"{metric.name}: {n_lost} of {candidate.n_expected} items could not be measured ({kinds}), and max_lost "
            f"allows {allowed}: mend the measurement and run again",
            n_paired=n,
            n_lost=n_lost,
        )
    full, deleted = _values(candidate, metric)
    kind = rule.bound.kind
    if baseline is None:
        full_b, deleted_b = full, deleted
    else:
        full_b, deleted_b = _values(baseline, metric)
        if deleted.keys() != deleted_b.keys():
            raise CouldNotMeasure(
                f"{metric.name}: the roles left out different groups of items ({len(deleted_b)} and {len(deleted)}); "
                "measure both with the same policy and data"
            )
    check_can_fail(rule, None if baseline is None else full_b)
    if kind is BoundKind.MIN_RETAINED and full_b <= 0:
        raise CouldNotMeasure(
            f"{metric.name}: the baseline's score is {full_b:g}, so there is nothing to retain and nothing can be said "
            "of the candidate: fix the template, the matcher or the task"
        )
    groups = sorted(deleted)
    c, b = [deleted[k] for k in groups], [deleted_b[k] for k in groups]

    def limits(level: float) -> Span:
        q2 = max(z(level), 0.1) ** 2  # p-values look at confidences down to ½, where z is 0
        unseen = q2 / (n + q2)
        if kind is BoundKind.MIN_RETAINED:
            return span(
                jackknife.retention(
                    baseline=full_b,
                    candidate=full,
                    baseline_deleted=b,
                    candidate_deleted=c,
                    confidence=level,
                    least_half_width=unseen,
                )
            )
        if kind is BoundKind.MAX_DROP:
            drops = [x - y for x, y in zip(b, c, strict=True)]
            result = jackknife.interval(full=full_b - full, deleted=drops, confidence=level, least_half_width=unseen)
            return max(result.low, -1.0), min(result.high, 1.0)
        result = jackknife.interval(full=full, deleted=c, confidence=level, least_half_width=unseen)
        return hull((full, full), (max(result.low, 0.0), min(result.high, 1.0)))

    match kind:
        case BoundKind.MAX_DROP:
            value = full_b - full
        case BoundKind.MIN_RETAINED:
            value = full / full_b
        case _:
            value = full
    return Estimate(
        baseline=None if kind in ABSOLUTE else full_b,
        candidate=full,
        value=value,
        limits=limits,
        method="jackknife_ratio" if kind is BoundKind.MIN_RETAINED else "jackknife_t",
        counts={"groups": len(groups), "n": n, "N": candidate.n_expected},
        unit="items",
        n_paired=n,
        n_lost=n_lost,
        detectable=None,
        best=best_rate(kind),
        undecidable=f"{n_lost} items could not be measured and could have moved {metric.name} anywhere"
        if n_lost
        else None,
        cautions=(),
    )


def _values(measurement: Measurement, metric: Metric) -> tuple[float, Mapping[str, float]]:
    """The full score and the delete-group scores by group.  Raises CouldNotMeasure."""
    found = [o for o in measurement.observations if o.metric == metric.observed]
    full = [o.value for o in found if o.item_id == FULL]
    deleted = {o.item_id: o.value for o in found if o.item_id.startswith(WITHOUT)}
    if len(full) != 1 or len(deleted) < 2 or len(full) + len(deleted) != len(found):
        raise CouldNotMeasure(
            f"{metric.name}: found {len(full)} full scores and {len(deleted)} delete-group scores for the "
            f"{measurement.role}, expected one and at least two, each group once"
        )
    outside = [v for v in (*full, *deleted.values()) if not 0 <= v <= 1]
    if outside:
        raise CouldNotMeasure(
            f"{metric.name}: found the score {outside[0]!r}, expected 0 to 1: rescale it in the stage"
        )
    return full[0], deleted


def _present(roles: list[Measurement]) -> tuple[int, int]:
    """(items behind the score, items lost on either side), from the per-item metrics measured beside it."""
    present: Counter[str] | None = None
    for measurement in roles:
        names = {m.observed for m in measurement.metrics if m.estimand in _PER_ITEM}
        here: Counter[str] = Counter()
        for name in names:
            here |= Counter(o.item_id for o in measurement.observations if o.metric == name)
        if not names:
            here = Counter({f"measured {i}": 1 for i in range(measurement.n_expected - len(measurement.failures))})
        present = here if present is None else present & here
    n = 0 if present is None else present.total()
    return n, roles[0].n_expected - n
