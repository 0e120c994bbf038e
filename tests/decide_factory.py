"""Measurements, rules and findings for the tests of `gate.decide`, from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gate import metrics
from gate.decide.judge import judge
from gate.decide.terms import Terms
from gate.records import (
    Bound,
    Direction,
    Estimand,
    Finding,
    Interval,
    ItemFailure,
    MaxLost,
    Measurement,
    Metric,
    Observation,
    Role,
    Rule,
    Scope,
    Severity,
    StageResult,
    Status,
)

BASELINE, CANDIDATE = Role.BASELINE, Role.CANDIDATE
ACCURACY = metrics.DOMAIN["accuracy"]
CONFIDENCE = 0.95
TERMS = Terms(confidence=CONFIDENCE, fail_confidence=CONFIDENCE, order_seed=None)
"""Of finished results, with nothing corrected."""


def bound(text: str) -> Bound:
    """`max_drop 3pp` and the like, as a policy would parse it."""
    from gate.policy_rule import RuleSettings

    kind, value = text.split()
    return RuleSettings.model_validate({"metric": "accuracy", kind: value}).bound()


def rule(text: str, metric: str = "accuracy", **changes: Any) -> Rule:
    kind = text.split()[0]
    settings: dict[str, Any] = {
        "id": f"fraud.{metric}.{kind}",
        "stage": "fraud",
        "source": "fraud",
        "metric": metric,
        "bound": bound(text),
        "by": None,
        "batch": None,
        "severity": Severity.BLOCKING,
        "scope": Scope.POPULATION,
        "max_items": None,
        "max_lost": MaxLost(count=0, share=None),
        "line": None,
    }
    return Rule(**(settings | changes))


def lost(count: int) -> MaxLost:
    return MaxLost(count=count, share=None)


def observation(
    metric: Metric,
    item_id: str,
    value: float,
    *,
    weight: float = 1.0,
    cluster: str | None = None,
    group: str | None = None,
) -> Observation:
    return Observation(
        metric=metric.observed, item_id=item_id, value=value, weight=weight, cluster=cluster, group=group
    )


def measurement(
    role: Role,
    observations: Sequence[Observation],
    n_expected: int,
    *,
    metric: Metric = ACCURACY,
    also: Sequence[Metric] = (),
    failures: Sequence[ItemFailure] = (),
    **changes: Any,
) -> Measurement:
    settings: dict[str, Any] = {
        "stage": "fraud",
        "source": "fraud",
        "role": role,
        "settings_digest": "d" * 64,
        "n_expected": n_expected,
        "n_available": n_expected,
        "n_reached": n_expected,
        "planned_tokens": 10 * n_expected,
        "chance": None,
        "metrics": (metric, *also),
        "observations": tuple(observations),
        "failures": tuple(failures),
        "answers": (),
        "seconds": 1.0,
        "notes": (),
    }
    return Measurement(**(settings | changes))


def failure(item_id: str, kind: str = "timeout") -> ItemFailure:
    return ItemFailure(item_id=item_id, kind=kind, message="it took too long")


def scored(
    role: Role,
    values: Sequence[float] | Mapping[str, float],
    *,
    metric: Metric = ACCURACY,
    n_expected: int | None = None,
    clusters: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    **changes: Any,
) -> Measurement:
    """One observation per value; items are called `item 0000`, … unless a mapping names them."""
    named = values if isinstance(values, Mapping) else {f"item {i:04d}": v for i, v in enumerate(values)}
    found = [
        observation(
            metric,
            item_id,
            value,
            weight=1.0 if weights is None else weights[i],
            cluster=None if clusters is None else clusters[i],
            group=None if groups is None else groups[i],
        )
        for i, (item_id, value) in enumerate(named.items())
    ]
    return measurement(role, found, len(found) if n_expected is None else n_expected, metric=metric, **changes)


def pair_of(
    both: int, lost: int, gained: int, neither: int, *, metric: Metric = ACCURACY, **changes: Any
) -> tuple[Measurement, Measurement]:
    """Two measurements of 0/1 items with these counts."""
    baseline = [1.0] * (both + lost) + [0.0] * (gained + neither)
    candidate = [1.0] * both + [0.0] * lost + [1.0] * gained + [0.0] * neither
    return scored(BASELINE, baseline, metric=metric, **changes), scored(CANDIDATE, candidate, metric=metric, **changes)


def item_metric(name: str, direction: Direction = Direction.HIGHER_IS_BETTER) -> Metric:
    return Metric(name=name, observed=name, unit="rate", direction=direction, estimand=Estimand.ITEM_MEAN)


def finding(of: Rule, status: Status, *, estimate: float = 0.02, half: float = 0.01) -> Finding:
    """A finding with this status, whatever its numbers say."""
    decided = status in (Status.PASS, Status.REGRESSION, Status.INCONCLUSIVE)
    interval = Interval(
        low=estimate - half,
        high=estimate + half,
        confidence=CONFIDENCE,
        fail_confidence=CONFIDENCE,
        method="tango",
        scope=Scope.POPULATION,
        valid="fixed_n",
    )
    return Finding(
        rule=of,
        status=status,
        baseline=0.9 if decided else None,
        candidate=0.9 - estimate if decided else None,
        estimate=estimate if decided else None,
        interval=interval if decided else None,
        p_value=None,
        counts={},
        n_paired=100 if decided else 0,
        n_lost=0,
        n_needed=None,
        detectable=None,
        members=(),
        reason="because the test says so",
    )


def stage(name: str, status: Status, findings: Sequence[Finding] = (), because: str | None = None) -> StageResult:
    return StageResult(
        kind="domain",
        name=name,
        status=status,
        findings=tuple(findings),
        seconds=1.0,
        items_scored=0,
        items_available=0,
        baseline_from="none",
        skipped_because=because,
        notes=(),
    )


def judged(of: Rule, pair: tuple[Measurement | None, Measurement | None]) -> Finding:
    return judge(of, *pair, TERMS)
