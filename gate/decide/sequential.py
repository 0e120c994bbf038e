"""Item scores under the sequential rule: from two measurements to a finding, on the evidence of the first crossing.

Pure.  `walk` says when a rule is settled; here is what the evidence says by then, for people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from gate.decide import items, ratio_sequence
from gate.decide.combine import REACHED
from gate.decide.estimate import NOUN, Span, check_can_fail, decide, hull, larger_is_worse, p_value, span
from gate.decide.lineup import Entry, Lineup, lineup, lost_text
from gate.decide.pairing import Item, LostItems, Pair, Pairs
from gate.decide.terms import Terms
from gate.decide.walk import Walk
from gate.records import Bound, BoundKind, Finding, Interval, Measurement, Metric, Rule, Scope, Status
from gate.stats import betting, bounded, confidence_sequence, exact_finite, mcnemar, tango, wald
from gate.stats.betting import Floats, Test
from gate.stats.quantiles import small_sample


def begin(rule: Rule, baseline: Sequence[float | None], terms: Terms) -> Walk:
    """The walk of this rule over a sample with these values of the baseline's, in any order (None: lost).

    Raises:
        CouldNotMeasure: nothing to retain, or a rule that could not fail.
    """
    least = math.fsum(v for v in baseline if v is not None) / max(len(baseline), 1)
    check_can_fail(rule, None if rule.bound.kind in items.ABSOLUTE else least)
    return Walk(rule, baseline, terms)


def judge(rule: Rule, baseline: Measurement, candidate: Measurement, metric: Metric, terms: Terms) -> Finding:
    """The finding on the evidence up to the first block at whose end the rule was settled.

    Raises:
        CouldNotMeasure: more items lost than allowed, nothing reached, or a rule that could not fail.
    """
    found = lineup(baseline, candidate, metric, terms.order_seed)
    walk = begin(rule, [e.baseline for e in found.entries], terms)
    walk.feed(found.entries[: found.reached])
    walk.close()
    evidence = walk.evidence
    n_lost = sum(e.is_lost for e in evidence)
    if not evidence:
        raise LostItems(f"{metric.name}: no item was measured", n_paired=0, n_lost=0)
    if walk.settled == "lost" or n_lost == len(evidence):
        raise LostItems(
            f"{metric.name}: {lost_text(evidence, found.n, found.causes)}, and max_lost allows "
            f"{walk.plan.allowed_lost}; an item without a value is neither right nor wrong: mend the measurement and "
            "run again",
            n_paired=len(evidence) - n_lost,
            n_lost=n_lost,
        )
    return _Judged(rule, found, walk, terms).finding()


class _Extreme(NamedTuple):
    """The differences with all lost items at their most (0) or at their least (1) harmful, and their test."""

    test: Test
    differences: Floats
    total: float
    lost_are_right: int


class _Judged:
    """One rule's evidence and what it says."""

    def __init__(self, rule: Rule, found: Lineup, walk: Walk, terms: Terms) -> None:
        self.rule, self.found, self.walk, self.terms = rule, found, walk, terms
        self.plan = walk.plan
        self.evidence = walk.evidence
        self.paired = [e for e in self.evidence if not e.is_lost]
        low, high = (np.array(d, dtype=np.float64) for d in self.plan.differences(self.evidence))
        extremes = [
            _Extreme(self.plan.low, low, self.plan.totals[0], 0),
            _Extreme(self.plan.high, high, self.plan.totals[1], 1),
        ]
        same = self.plan.low == self.plan.high and np.array_equal(low, high)
        self.extremes = extremes[:1] if same else extremes
        middle, _ = self.plan.differences(self.paired)
        self.mean = math.fsum(middle) / len(middle)
        # in benchmark scope the baseline is known on the whole sample; else it is compared where both were measured
        whole = found.entries if rule.scope is Scope.BENCHMARK else self.paired
        known = [e.baseline for e in whole if e.baseline is not None]
        self.baseline = math.fsum(known) / len(known)

    def finding(self) -> Finding:
        plan, t = self.plan, len(self.evidence)
        looked = self.walk.settled == "cap" and plan.cap is not None
        limits = self._limits(looked)
        status = self._status(limits, looked)
        limits = agreeing(limits, status, self.rule.bound)
        value = self._value(self.mean, plan.totals[1])
        for low, high in (self._possible(), limits):
            value = min(max(value, low), high)
        whole = t == plan.n
        return Finding(
            rule=self.rule,
            status=status,
            baseline=self.baseline,
            candidate=self._candidate(),
            estimate=value,
            interval=Interval(
                low=limits[0],
                high=limits[1],
                confidence=self.terms.confidence,
                fail_confidence=self.terms.fail_confidence,
                method=self._method(looked),
                scope=self.rule.scope,
                valid="anytime",
            ),
            p_value=self._p_value(looked),
            counts=self._counts(stopped=status is Status.INCONCLUSIVE and self.walk.settled is None),
            n_paired=len(self.paired),
            n_lost=t - len(self.paired),
            n_needed=plan.n if status is Status.INCONCLUSIVE and not whole else None,
            detectable=self._detectable(),
            members=(),
            reason=self._reason(status, looked),
        )

    # -- numbers ------------------------------------------------------------------------------------------

    def _value(self, mean: float, total: float) -> float:
        """From the mean difference of all items to the scale of the bound."""
        n = self.plan.n
        match self.rule.bound.kind:
            case BoundKind.MAX_DROP:
                return -mean
            case BoundKind.MIN_RETAINED if self.rule.scope is Scope.BENCHMARK:
                return 1 + mean * n / total
            case BoundKind.MIN_RETAINED:
                b = math.fsum(e.baseline for e in self.paired if e.baseline is not None)
                c = math.fsum(e.candidate for e in self.paired if e.candidate is not None)
                return c / b if b else math.inf
            case BoundKind.MIN:
                return total / n + mean
            case _:
                return 1 - (total / n + mean)

    def _possible(self) -> Span:
        """The values there can be once the items not yet asked are all wrong, or all right."""
        if self.rule.scope is Scope.POPULATION:
            return -math.inf, math.inf
        rest = [e.baseline for e in self.found.entries[len(self.evidence) :]]
        if self.plan.mirrored:
            rest = [None if b is None else 1 - b for b in rest]
        least = math.fsum(-1.0 if b is None else -b for b in rest)
        most = math.fsum(1.0 if b is None else 1 - b for b in rest)
        sums = [math.fsum(e.differences) for e in self.extremes]
        low, high = min(sums), max(sums)
        n, total = self.plan.n, self.plan.totals[1]
        ends = self._value((low + least) / n, total), self._value((high + most) / n, total)
        return min(ends), max(ends)

    def _candidate(self) -> float:
        """Its score on the whole sample: the baseline's, which is known, plus the mean difference so far."""
        b = math.fsum(e.baseline for e in self.paired if e.baseline is not None)
        c = math.fsum(e.candidate for e in self.paired if e.candidate is not None)
        if self.rule.scope is Scope.POPULATION:
            return c / len(self.paired)
        return min(max(self.baseline + (c - b) / len(self.paired), 0.0), 1.0)

    def _limits(self, looked: bool) -> Span:
        """Limits of the value: of the wealth, and of the last look where there was one; with lost items, of both."""
        low_at, high_at = 1 - self.plan.pass_alpha, 1 - self.plan.fail_alpha
        limits = hull(*(self._sequence(e, low_at, high_at) for e in self.extremes))
        if looked:
            last = self._last_look(low_at, high_at)
            both = max(limits[0], last[0]), min(limits[1], last[1])
            limits = both if both[0] <= both[1] else hull(limits, last)
        return limits

    def _sequence(self, extreme: _Extreme, low_at: float, high_at: float) -> Span:
        test, values = extreme.test, extreme.differences
        if self.rule.bound.kind is BoundKind.MIN_RETAINED and self.rule.scope is Scope.POPULATION:
            worst = extreme.lost_are_right
            b = np.array([1.0 - worst if e.baseline is None else e.baseline for e in self.evidence])
            c = np.array([float(worst) if e.candidate is None else e.candidate for e in self.evidence])
            return ratio_sequence.limits(self.plan, b, c, extreme.total)
        low = confidence_sequence.low(test=test, differences=values, confidence=low_at)
        high = confidence_sequence.high(test=test, differences=values, confidence=high_at)
        low, high = confidence_sequence.ordered(test=test, low=low, high=high, estimate=float(values.mean()))
        return self._span(low, high, extreme.total)

    def _span(self, low: float, high: float, total: float) -> Span:
        ends = self._value(low, total), self._value(high, total)
        floor = -math.inf if self.rule.bound.kind is BoundKind.MAX_DROP else 0.0
        return max(min(ends), floor), max(*ends, floor)

    def _last_look(self, low_at: float, high_at: float) -> Span:
        """One fixed-n look at the cap; in benchmark scope at a part of a finite number of items."""
        if self.rule.scope is Scope.POPULATION:
            passing, failing = self._fixed_n(low_at), self._fixed_n(high_at)
            if larger_is_worse(self.rule.bound.kind):
                return failing[0], passing[1]
            return passing[0], failing[1]
        spans = []
        for e in self.extremes:
            at = {level: self._mean_limits(e.differences, level) for level in {low_at, high_at}}
            spans.append(self._span(at[low_at][0], at[high_at][1], e.total))
        return hull(*spans)

    @cached_property
    def _fixed_n(self) -> Callable[[float], Span]:
        """Limits of one look at the evidence as if it were all that was planned, by confidence."""
        paired = tuple(
            Pair(item_id=e.item_id, group=e.group, cluster=None, weight=1.0, baseline=e.baseline, candidate=e.candidate)
            for e in self.evidence
            if e.baseline is not None and e.candidate is not None
        )
        one_sided = tuple(
            Item(item_id=e.item_id, group=e.group, cluster=None, weight=1.0, baseline=e.baseline, candidate=e.candidate)
            for e in self.evidence
            if e.is_lost and not (e.baseline is None and e.candidate is None)
        )
        pairs = Pairs(
            metric=self.found.metric,
            n_expected=len(self.evidence),
            paired=paired,
            one_sided=one_sided,
            causes=self.found.causes,
            lost_ids=(),
        )
        return items.estimate(self.rule, pairs, self.terms.confidence).limits

    def _mean_limits(self, differences: Floats, level: float) -> Span:
        """Of the mean difference of all N items, from some of them; each at `level`, the upper one to fail by."""
        n, plan = len(differences), self.plan
        if not plan.low.integral:
            at = small_sample(level, n)
            return span(bounded.mean(values=differences.tolist(), smallest=-1, largest=1, confidence=at))
        lost, gained = _flips(differences)
        if n <= exact_finite.LARGEST_N:
            # here Tango's with the finite-population factor errs up to three times as often as it says
            return span(exact_finite.interval(lost=lost, gained=gained, n=n, population=plan.n, confidence=level))
        score = tango.interval(lost=lost, gained=gained, n=n, confidence=level, population=plan.n)
        other = wald.interval(lost=lost, gained=gained, n=n, confidence=level)
        return score.low, max(score.high, other.high)

    def _p_value(self, looked: bool) -> float:
        """Of "the bound is kept", valid at every look; with a last look, half of the level is for each."""
        p = betting.p_fail(self.walk.state.high, self.plan.high)
        if self.plan.cap is None or p == 0.0:
            return p
        return min(1.0, 2 * (min(p, self._p_of_look()) if looked else p))

    def _p_of_look(self) -> float:
        n, of = len(self.evidence), self.plan.n
        if self.rule.scope is Scope.POPULATION or not self.plan.low.integral or n > exact_finite.LARGEST_N:
            return p_value(lambda level: self._last_look(level, level), self.rule.bound, at_most=0.49)
        p = 0.0
        for e in self.extremes:  # mirrored: that at least `fail_total` are gained
            lost, gained = _flips(e.differences)
            total = -int(e.test.fail_total)
            p = max(p, exact_finite.p_value(lost=gained, gained=lost, n=n, population=of, total=total))
        return p

    def _counts(self, *, stopped: bool) -> dict[str, float]:
        lost = sum(_d(e) < 0 for e in self.paired)
        gained = sum(_d(e) > 0 for e in self.paired)
        counts: dict[str, float] = {"n": len(self.evidence), "N": self.plan.n, "b": lost, "c": gained}
        if self.plan.low.integral:
            counts["a"] = sum(e.baseline == 1 == e.candidate for e in self.paired)
            if len(self.paired) == self.plan.n:  # it holds at a fixed number of items only
                counts["mcnemar_p"] = mcnemar.p_values(lost=lost, gained=gained).exact_two_sided
        else:
            counts["baseline_total"] = math.fsum(e.baseline for e in self.paired if e.baseline is not None)
            counts["candidate_total"] = math.fsum(e.candidate for e in self.paired if e.candidate is not None)
        counts["flip_rate"] = self._flip_rate()
        if stopped:
            counts[REACHED] = len(self.evidence)
        return counts

    def _flip_rate(self) -> float:
        return math.fsum(_d(e) ** 2 for e in self.paired) / len(self.paired)

    def _detectable(self) -> float | None:
        """The smallest harm that all N items resolve in population scope: what a benchmark verdict does not say."""
        scales = {BoundKind.MAX_DROP: 1.0, BoundKind.MIN_RETAINED: self.baseline}
        scale = scales.get(self.rule.bound.kind)
        if not scale:
            return None
        return items.detectable(self._flip_rate(), self.plan.n, self.terms.confidence) / scale

    def _method(self, looked: bool) -> str:
        if not looked:
            return "betting"
        if not self.plan.low.integral:
            return "betting+bounded"
        if self.rule.scope is Scope.POPULATION:
            return "betting+nam_blackwelder" if self.rule.bound.kind is BoundKind.MIN_RETAINED else "betting+tango"
        return "betting+exact_finite" if len(self.evidence) <= exact_finite.LARGEST_N else "betting+tango"

    # -- words --------------------------------------------------------------------------------------------

    def _status(self, limits: Span, looked: bool) -> Status:
        match self.walk.settled:
            case "fail":
                return Status.REGRESSION
            case "pass":
                return Status.PASS
            case _ if looked:
                return decide(limits, self.rule.bound)
            case _:
                return Status.INCONCLUSIVE

    def _reason(self, status: Status, looked: bool) -> str:
        noun, bound, t, n = NOUN[self.rule.bound.kind], self.rule.bound.text, len(self.evidence), self.plan.n
        sure = f"{100 * self.terms.confidence:g}% sure"
        fail_sure = f"{100 * self.terms.fail_confidence:.4g}% sure"
        whole = t == n and self.rule.scope is Scope.BENCHMARK
        if status is Status.PASS:
            text = f"the {noun} keeps the bound {bound}"
        elif status is Status.REGRESSION:
            text = f"the {noun} is beyond the bound {bound}"
        else:
            text = f"not yet known whether the {noun} keeps the bound {bound}"
        if whole and status is not Status.INCONCLUSIVE:
            text += f", counted over all {n:,} items of the sample"
        elif status is Status.INCONCLUSIVE:
            text += f" after {t:,} of {n:,} items" if t < n else f" after all {n:,} items"
        elif looked:
            text += f" at the last look, after {t:,} of {n:,} items ({sure if status is Status.PASS else fail_sure})"
        else:
            text += f", settled by the first {t:,} of {n:,} items ({sure if status is Status.PASS else fail_sure})"
        if t > len(self.paired):
            lost = lost_text(self.evidence, n, self.found.causes)
            text += f"; {lost}; the interval covers whatever they were"
        return text


def _flips(differences: Floats) -> tuple[int, int]:
    """(lost, gained) of 0/1 items."""
    return int((differences < 0).sum()), int((differences > 0).sum())


def _d(entry: Entry) -> float:
    return (entry.candidate or 0.0) - (entry.baseline or 0.0)


def agreeing(limits: Span, status: Status, bound: Bound) -> Span:
    """The limits, with the end at the bound put where the exact comparison of totals says it is."""
    found = decide(limits, bound)
    if found is status:
        return limits
    low, high = limits
    worse_high = larger_is_worse(bound.kind)
    beyond = math.nextafter(bound.value, math.inf if worse_high else -math.inf)
    if status is Status.PASS:
        return (min(low, bound.value), bound.value) if worse_high else (bound.value, max(high, bound.value))
    if status is Status.REGRESSION:
        return (beyond, max(high, beyond)) if worse_high else (min(low, beyond), beyond)
    if found is Status.PASS:
        return (low, beyond) if worse_high else (beyond, high)
    return (bound.value, high) if worse_high else (low, bound.value)
