"""One timing rule on one group: planned looks at the first measurement, and its confirmation by a second, fresh one.

Pure.  K planned numbers of pairs are looked at one after the other, each side of each at α/K (Bonferroni), and the
first that decides counts.  A number of pairs that was not planned decides nothing.  REGRESSION takes both measurements:
by itself each is wrong with probability ≤ α, so both are with about α².  What stayed disturbed decides nothing either.
Whatever is INCONCLUSIVE has no p-value: a step-down must not turn red what was not confirmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gate.decide import fixed_n, looks, timing_blocks
from gate.decide.combine import REACHED
from gate.decide.estimate import NOUN, hull
from gate.decide.pairing import LostItems
from gate.decide.terms import Terms
from gate.decide.timing_blocks import FIRST, SECOND
from gate.decide.timing_estimate import estimate
from gate.decide.unjudged import error
from gate.errors import CouldNotMeasure
from gate.records import BoundKind, Estimand, Finding, Measurement, Metric, Rule, Status

_DECIDED = (Status.PASS, Status.REGRESSION)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A rule on one group.

    `baseline` is None where the rule is about the candidate alone; `calibrated` may hold the spread between processes.
    """

    rule: Rule
    metric: Metric
    group: str | None
    baseline: Measurement | None
    candidate: Measurement
    calibrated: Measurement | None
    terms: Terms

    @property
    def measurements(self) -> list[Measurement]:
        return [m for m in (self.baseline, self.candidate) if m is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What a group finds in the end.

    Attributes:
        red: the first measurement is beyond the bound, and nothing disturbed it.
        confirming: a second measurement has begun.
        is_open: more blocks of the measurement that is under way could change the finding.
    """

    group: str | None
    finding: Finding
    red: bool
    confirming: bool
    is_open: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """One measurement at its planned looks.  `valid`: what it finds counts, neither cut short nor disturbed."""

    finding: Finding
    valid: bool
    is_open: bool


def judged(asked: Asked) -> Judged:
    """The first measurement, and where that is red the second."""
    plan = timing_blocks.planned(asked.measurements)
    first = _looked(asked, FIRST, plan)
    red = first.valid and first.finding.status is Status.REGRESSION
    confirming = timing_blocks.reached(SECOND, asked.measurements) > 0
    found, is_open = first.finding, first.is_open
    if red and confirming:
        second = _looked(asked, SECOND, plan)
        found, is_open = _confirmed(asked, first.finding, second), second.is_open
    elif red:
        found = _unconfirmed(first.finding, "not confirmed yet, and there is no second measurement here")
    if found.status is Status.INCONCLUSIVE:
        found = replace(found, p_value=None)
    return Judged(group=asked.group, finding=found, red=red, confirming=confirming, is_open=is_open)


def _looked(asked: Asked, series: str, plan: Sequence[int]) -> _Seen:
    """At each planned number of pairs that was reached, until one decides."""
    reached = timing_blocks.reached(series, asked.measurements)
    sizes = [size for size in plan if size <= reached]
    each = replace(
        asked.terms,
        confidence=looks.level(asked.terms.confidence, len(plan)),
        fail_confidence=looks.level(asked.terms.fail_confidence, len(plan)),
    )
    if not sizes:
        return _Seen(finding=_too_early(asked, series, plan, reached, each), valid=False, is_open=True)
    p: float | None = None
    for size in sizes:
        found = _at(asked, series, size, each)
        if found.p_value is not None:
            p = min(1.0, len(plan) * found.p_value, 1.0 if p is None else p)
        if found.status in _DECIDED:
            break
    found = replace(found, p_value=None if found.p_value is None else p)
    number = sizes.index(size) + 1
    count, what = timing_blocks.disturbed(asked.measurements, series, size)
    if what is not None and found.interval is not None:
        return _Seen(finding=_disturbed(found, count, size, what), valid=False, is_open=False)
    # a percentile that has too few times at this look may have enough at the next
    undecided = found.status is Status.INCONCLUSIVE or asked.metric.estimand is Estimand.QUANTILE
    is_open = number < len(plan) and undecided and found.status not in _DECIDED
    if len(plan) > 1:
        found = _at_look(found, number, len(plan), size)
    return _Seen(finding=found, valid=True, is_open=is_open)


def _at(asked: Asked, series: str, pairs: int, terms: Terms) -> Finding:
    """The finding on the first so many pairs of a series, whatever was planned."""
    roles = [timing_blocks.part(m, series, pairs, asked.metric.observed, asked.group) for m in asked.measurements]
    try:
        e = estimate(
            asked.rule,
            roles[0] if asked.baseline is not None else None,
            roles[-1],
            asked.metric,
            asked.group,
            between=timing_blocks.between_processes(asked.calibrated, asked.metric, asked.group),
            confidence=max(terms.confidence, terms.fail_confidence),
        )
    except LostItems as problem:
        return error(asked.rule, str(problem), n_paired=problem.n_paired, n_lost=problem.n_lost)
    except CouldNotMeasure as problem:
        return error(asked.rule, str(problem))
    return fixed_n.finding(asked.rule, e, terms)


def _at_look(found: Finding, number: int, of: int, pairs: int) -> Finding:
    counts: dict[str, float] = {**found.counts, "look": number, "looks": of}
    if number < of and found.status is Status.INCONCLUSIVE:
        counts[REACHED] = found.n_paired
    interval = found.interval
    return replace(
        found,
        interval=None if interval is None else replace(interval, valid="planned_looks"),
        counts=counts,
        reason=f"at look {number} of {of} ({pairs} pairs of blocks): {found.reason}",
    )


def _too_early(asked: Asked, series: str, plan: Sequence[int], reached: int, terms: Terms) -> Finding:
    """Fewer pairs than the first look is planned at: what they say so far, deciding nothing."""
    said = f"{reached} of {plan[0]} planned pairs of timing blocks were measured, which decides nothing"
    if reached < 2:
        return error(asked.rule, said)
    found = _at(asked, series, reached, terms)
    if found.interval is None:
        return replace(found, reason=f"{said}; so far, {found.reason}")
    return replace(
        found,
        status=Status.INCONCLUSIVE,
        n_needed=None,
        counts={**found.counts, "N": plan[-1], REACHED: found.n_paired},
        reason=f"{said}; so far, {found.reason}",
    )


def _disturbed(found: Finding, count: int, pairs: int, what: str) -> Finding:
    """Figures that are not the checkpoint's; the run is not complete, so that nobody waives it as mere doubt."""
    return replace(
        found,
        status=Status.INCONCLUSIVE,
        n_needed=None,
        counts={**found.counts, "disturbed": count, REACHED: found.n_paired},
        reason=(
            f"{count} of {pairs} pairs of blocks stayed disturbed ({what}), so nothing is concluded from them: run on "
            f"a quieter machine; by itself, {found.reason}"
        ),
    )


def _unconfirmed(first: Finding, why: str) -> Finding:
    """Red once; the run is not complete, so that nobody waives it as mere doubt."""
    return replace(
        first,
        status=Status.INCONCLUSIVE,
        n_needed=None,
        counts={**first.counts, REACHED: first.n_paired},
        reason=f"{_RED_ONCE}, {why}; the first: {first.reason}",
    )


_RED_ONCE = "a timing rule turns red only when a second, fresh measurement says the same"


def _confirmed(asked: Asked, first: Finding, second: _Seen) -> Finding:
    """What both measurements say together; the first one's estimate stands, the second one's is in the counts."""
    found = second.finding
    if found.estimate is None or found.interval is None or first.interval is None or first.estimate is None:
        return _unconfirmed(first, f"and the second could not be judged: {found.reason}")
    numbers = {
        "second_R": found.n_paired,
        "second_estimate": found.estimate,
        "second_low": found.interval.low,
        "second_high": found.interval.high,
    }
    said = f"first measurement {_written(asked, first)}; second, fresh measurement {_written(asked, found)}"
    cut_short = second.is_open or REACHED in found.counts or found.n_paired < first.n_paired
    if found.status is Status.INCONCLUSIVE and cut_short:
        cut = _unconfirmed(first, f"and the second decides nothing: {found.reason}")
        return replace(cut, counts={**cut.counts, **numbers}, reason=f"{said}; {cut.reason}")
    agrees = second.valid and found.status is Status.REGRESSION
    counts = {**first.counts, **numbers, "confirmed": float(agrees)}
    if agrees:
        assert first.p_value is not None  # a REGRESSION on blocks always has one
        assert found.p_value is not None
        p = max(first.p_value, found.p_value)
        return replace(first, counts=counts, p_value=p, reason=f"{first.reason}; confirmed: {said}")
    low, high = hull(*((i.low, i.high) for i in (first.interval, found.interval)))
    return replace(
        first,
        status=Status.INCONCLUSIVE,
        interval=replace(first.interval, low=low, high=high),
        counts=counts,
        reason=f"red once and not confirmed: {said} (the interval spans both); {_RED_ONCE}",
    )


def _written(asked: Asked, found: Finding) -> str:
    """`speed-up 0.84 (0.81 to 0.88)`."""
    assert found.estimate is not None
    assert found.interval is not None
    kind, unit = asked.rule.bound.kind, asked.metric.unit

    def one(value: float) -> str:
        match kind:
            case BoundKind.MAX_INCREASE:
                return f"{value:+.2%}"
            case BoundKind.MIN_RETAINED:
                return f"{value:.2%}"
            case BoundKind.MIN_SPEEDUP:
                return f"{value:.3f}x"
        return f"{value:.4g} {unit}"

    return f"{NOUN[kind]} {one(found.estimate)} ({one(found.interval.low)} to {one(found.interval.high)})"
