"""A rule on item scores, block after block: is it decided, and on which items?

Pure.  Evidence is the seeded order up to the first block at whose end the wealth decides; what was computed beyond it,
for other rules or in larger batches, changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from gate.decide.lineup import Entry
from gate.decide.stoppable import bound_of
from gate.decide.terms import Terms
from gate.errors import CouldNotMeasure
from gate.order import BLOCK_ITEMS
from gate.records import BoundKind, Rule, Scope
from gate.stats import betting
from gate.stats.betting import Side, Test, Wealth

Settled = Literal["pass", "fail", "lost", "cap"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is tested, known before the candidate's first item.

    Attributes:
        n: items in the sample.
        low, high: the test with lost items at their most and at their least harmful: a PASS must hold in the first, a
            REGRESSION in the second.
        totals: the baseline's total under either of them, mirrored for `max` rules.
        cap: items after which a last look is taken, or None.
        pass_alpha, fail_alpha: what the wealth may spend on each side; half of it where there is a last look.
        allowed_lost: items that may be lost.
    """

    rule: Rule
    n: int
    low: Test
    high: Test
    totals: tuple[float, float]
    cap: int | None
    pass_alpha: float
    fail_alpha: float
    allowed_lost: int

    @property
    def end(self) -> int:
        """Items after which nothing more is looked at."""
        return self.n if self.cap is None else self.cap

    @property
    def mirrored(self) -> bool:
        """`max` rules are judged on 1 − value, of which more is better."""
        return self.rule.bound.kind is BoundKind.MAX

    @property
    def baseline_weight(self) -> float:
        """d = candidate − weight·baseline."""
        ratio = self.rule.bound.kind is BoundKind.MIN_RETAINED and self.rule.scope is Scope.POPULATION
        return self.rule.bound.value if ratio else 1.0

    def differences(self, entries: Sequence[Entry]) -> tuple[list[float], list[float]]:
        """d of each item, with lost values at their most and at their least harmful."""
        low, high, weight, mirrored = [], [], self.baseline_weight, self.mirrored
        for e in entries:
            b, c = (e.candidate, e.baseline) if mirrored else (e.baseline, e.candidate)  # (1 − c) − (1 − b) = b − c
            low.append((0.0 if c is None else c) - weight * (1.0 if b is None else b))
            high.append((1.0 if c is None else c) - weight * (0.0 if b is None else b))
        return low, high


def plan(rule: Rule, baseline: Sequence[float | None], terms: Terms, *, integral: bool) -> Plan:
    """The test of `rule` on a sample whose baseline values are `baseline` (None: lost).

    Raises:
        CouldNotMeasure: there is nothing to retain.
    """
    n = len(baseline)
    values = [1 - b if rule.bound.kind is BoundKind.MAX else b for b in baseline if b is not None]
    known = math.fsum(values)
    totals = known + (n - len(values)), known
    capped = rule.max_items is not None and rule.max_items < n and terms.order_seed is not None
    cap = rule.max_items if capped else n if rule.scope is Scope.POPULATION else None
    share = 1.0 if cap is None else 0.5
    tests = [_test(rule, n, total, integral) for total in totals]
    return Plan(
        rule=rule,
        n=n,
        low=tests[0],
        high=tests[1],
        totals=totals,
        cap=cap,
        pass_alpha=share * (1 - terms.confidence),
        fail_alpha=share * (1 - terms.fail_confidence),
        allowed_lost=rule.max_lost.allowed(n),
    )


def _test(rule: Rule, n: int, total: float, integral: bool) -> Test:
    bound = bound_of(rule)
    match rule.bound.kind:
        case BoundKind.MAX_DROP:
            return betting.drop(scope=rule.scope, n=n, bound=bound, integral=integral)
        case BoundKind.MIN_RETAINED:
            if total <= 0:
                raise CouldNotMeasure(
                    f"{rule.metric}: the baseline scored 0 over all {n} items, so nothing can be retained and nothing "
                    "can be said of the candidate: fix the template, the matcher or the task"
                )
            if rule.scope is Scope.POPULATION:
                return betting.population_retention(n=n, bound=bound, baseline_mean=total / n)
            return betting.retention(n=n, bound=bound, baseline_total=Fraction(total), integral=integral)
        case BoundKind.MIN:
            return betting.absolute(n=n, least=bound, baseline_total=Fraction(total), integral=integral)
        case BoundKind.MAX:
            return betting.absolute(n=n, least=1 - bound, baseline_total=Fraction(total), integral=integral)
        case kind:
            raise CouldNotMeasure(f"{kind} does not fit a mean over items")


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What the next block needs to know of the earlier ones; plain data.

    `low` and `high` are the wealth with lost items at their most and at their least harmful; `said` is what either of
    them came to say first, which is what it would have ended with by itself.
    """

    low: Wealth
    high: Wealth
    said: tuple[Side | None, Side | None]
    lost: int

    @property
    def t(self) -> int:
        return self.low.t


START = State(low=betting.start(), high=betting.start(), said=(None, None), lost=0)


def step(state: State, plan: Plan, block: Sequence[Entry]) -> State:
    """The state after a further block (cut at the cap)."""
    some = block[: plan.end - state.t]
    low_d, high_d = (np.array(d, dtype=np.float64) for d in plan.differences(some))
    low = betting.advance(state.low, plan.low, low_d)
    same = plan.low == plan.high and state.low == state.high and np.array_equal(low_d, high_d)
    high = low if same else betting.advance(state.high, plan.high, high_d)
    return State(
        low=low,
        high=high,
        said=(state.said[0] or _verdict(low, plan.low, plan), state.said[1] or _verdict(high, plan.high, plan)),
        lost=state.lost + sum(e.is_lost for e in some),
    )


def _verdict(wealth: Wealth, test: Test, plan: Plan) -> Side | None:
    if wealth.t == 0:
        return None
    return betting.verdict(wealth, test, pass_alpha=plan.pass_alpha, fail_alpha=plan.fail_alpha)


def settled(state: State, plan: Plan) -> Settled | None:
    """Whether the rule needs no further item, and why.

    With lost items both extremes must say the same: what one of them was would not have moved it.
    """
    if state.lost > plan.allowed_lost:
        return "lost"
    if state.said[0] is not None and state.said[0] == state.said[1]:
        return state.said[0]
    return "cap" if state.t == plan.end else None


class Walk:
    """Feeds a plan until it is settled; judges and schedulers walk alike."""

    def __init__(self, rule: Rule, baseline: Sequence[float | None], terms: Terms) -> None:
        self._made = (rule, tuple(baseline), terms)
        self.plan = plan(*self._made, integral=all(b in (0, 1, None) for b in baseline))
        # without a seeded order there is nothing to stop early for: only the totals of all items count
        self._block = self.plan.n if terms.order_seed is None else BLOCK_ITEMS
        self._pending: list[Entry] = []
        self.state = START
        self.settled: Settled | None = None
        self.evidence: list[Entry] = []

    def feed(self, entries: Sequence[Entry]) -> None:
        """The next items of the seeded order, however many: looked at in whole blocks.  Ignored once settled."""
        self._pending += entries
        taken = 0
        while self.settled is None and 0 < self._next <= len(self._pending) - taken:
            begin, taken = taken, taken + self._next
            self._take(self._pending[begin:taken])
        del self._pending[:taken]

    def close(self) -> None:
        """No further items come: what is left of a block is looked at too."""
        if self.settled is None and self._pending:
            self._take(self._pending)
            self._pending = []

    @property
    def _next(self) -> int:
        return min(self._block, self.plan.end - self.state.t)

    def _take(self, block: Sequence[Entry]) -> None:
        fractional = any(e.candidate not in (0, 1, None) for e in block)
        if self.plan.low.integral and fractional:  # partial credit: from here on, totals are no integers
            earlier, self.evidence = self.evidence, []
            self.plan, self.state = plan(*self._made, integral=False), START
            for begin in range(0, len(earlier), self._block):
                self._step(earlier[begin : begin + self._block])
        self._step(block)

    def _step(self, block: Sequence[Entry]) -> None:
        if self.settled is not None:
            return
        self.state = step(self.state, self.plan, block)
        self.evidence += block
        self.settled = settled(self.state, self.plan)
