"""The sequential judge: exact at the end, honest before, and indifferent to what was computed beyond its evidence."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from gate.decide import items, pairing, sequential, stoppable
from gate.decide.estimate import decide
from gate.decide.judge import judge
from gate.decide.walk import START, State, plan, settled, step
from gate.metrics import DOMAIN
from gate.order import BLOCK_ITEMS
from gate.records import Finding, Rule, Scope, Severity, Status
from gate.stats import betting
from gate.stats.betting import Wealth
from tests.decide_factory import ACCURACY, BASELINE, scored
from tests.sequence_factory import (
    FINISHED,
    ONE_RULE,
    entries,
    of_differences,
    roles,
    rule,
    shuffled,
    some_lost,
    terms,
)

DROP = rule("max_drop 3pp")


def balanced(n: int, right: int, lost: int, gained: int) -> tuple[list[float], list[float]]:
    """`right` items that the baseline has right, of which `lost` flip, spread evenly over the order."""
    rng = np.random.default_rng(n + 7 * right + lost)
    b = [1.0] * right + [0.0] * (n - right)
    c = [0.0] * lost + [1.0] * (right - lost) + [1.0] * gained + [0.0] * (n - right - gained)
    order = rng.permutation(n)
    return [b[i] for i in order], [c[i] for i in order]


class TestAllItems:
    """A5: after all N, the verdict is a comparison of integers."""

    @pytest.mark.parametrize(
        ("text", "n", "right", "kept"),
        [
            ("max_drop 3pp", 100, 80, 3),  # m·N is an integer
            ("max_drop 2.7pp", 1000, 700, 27),
            ("max_drop 7pp", 100, 60, 7),
            ("max_drop 3pp", 164, 100, 4),
            ("max_drop 1.1pp", 1000, 900, 11),
            ("min_retained 97%", 200, 100, 3),  # r·A is an integer
            ("min_retained 97%", 200, 67, 2),  # 64.99 must be kept
            ("min_retained 95%", 500, 300, 15),
            ("min 0.9", 50, 50, 5),
            ("min 0.35", 60, 41, 20),  # 0.35·60 = 21, as float 20.999999999999996
            ("min 0.57", 100, 80, 23),  # 0.57·100 = 56.99999999999999 as float
        ],
    )
    def test_one_item_decides(self, text: str, n: int, right: int, kept: int) -> None:
        for over, expected in ((0, Status.PASS), (1, Status.REGRESSION)):
            for gained in {0, min(3, n - right)}:
                pair = roles(*balanced(n, right, kept + over + gained, gained))
                found = judge(rule(text), *pair, FINISHED)
                assert (found.status, found.counts["n"]) == (expected, n)
                assert found.interval is not None
                assert decide((found.interval.low, found.interval.high), found.rule.bound) is expected
                assert "counted over all" in found.reason
                assert found.p_value == float(expected is Status.PASS)

    @pytest.mark.parametrize(("n", "kept"), [(50, 5), (70, 7), (164, 16)])
    def test_one_item_decides_an_upper_bound(self, n: int, kept: int) -> None:
        for over, expected in ((0, Status.PASS), (1, Status.REGRESSION)):
            b, c = [0.0] * n, [1.0] * (kept + over) + [0.0] * (n - kept - over)
            found = judge(rule("max 0.1"), *roles(b, c), FINISHED)
            assert found.status is expected
            assert found.estimate == pytest.approx((kept + over) / n)

    def test_in_blocks_it_is_the_same_comparison(self) -> None:
        for over, expected in ((0, Status.PASS), (1, Status.REGRESSION)):
            d = [0] * (164 - 4 - over) + [-1] * (4 + over)
            rng = np.random.default_rng(3)
            found = judge(DROP, *of_differences([int(x) for x in rng.permutation(d)]), ONE_RULE)
            assert found.status is expected
            assert found.counts["n"] >= 160

    def test_a18_partial_credit_is_not_rounded(self) -> None:
        """N = 164 at 3 pp keeps a total of −4.5 (of −4.92) and no −5."""
        metric = DOMAIN["rouge_l"]
        of = rule("max_drop 3pp", metric="rouge_l")
        for lost, expected in ((4.5, Status.PASS), (4.92, Status.PASS), (4.93, Status.REGRESSION)):
            b = [1.0] * 164
            c = [1.0 - lost / 164] * 164
            assert judge(of, *roles(b, c, metric=metric), FINISHED).status is expected
            assert judge(of, *roles(b, c, metric=metric), ONE_RULE).status is expected


class TestEvidence:
    def test_what_was_computed_beyond_the_crossing_changes_nothing(self) -> None:
        d = shuffled(2800, 84, 84, np.random.default_rng(1))
        whole = judge(DROP, *of_differences(d), ONE_RULE)
        t = int(whole.counts["n"])
        assert whole.status is Status.PASS
        assert t % BLOCK_ITEMS == 0
        assert t < 2800
        for reached in (t, t + 1, t + 32, 1000, 2799):
            assert judge(DROP, *of_differences(d, reached=reached), ONE_RULE) == whole
        before = judge(DROP, *of_differences(d, reached=t - 32), ONE_RULE)
        assert (before.status, before.counts["n"]) == (Status.INCONCLUSIVE, t - 32)
        assert before.counts["reached"] == t - 32
        assert f"after {t - 32} of 2,800 items" in before.reason
        other = [*d[:t], *(-1 for _ in d[t:])]  # however bad the rest: only what is known of the baseline's total
        assert judge(DROP, *of_differences(other), ONE_RULE).status is Status.PASS

    def test_a15_the_order_of_the_records_is_irrelevant(self) -> None:
        rng = np.random.default_rng(2)
        baseline, candidate = of_differences(shuffled(500, 20, 10, rng))
        found = judge(DROP, baseline, candidate, ONE_RULE)
        for _ in range(3):
            b, c = (
                replace(m, observations=tuple(m.observations[i] for i in rng.permutation(500)))
                for m in (baseline, candidate)
            )
            assert judge(DROP, b, c, ONE_RULE) == found

    def test_a4_wealth_is_the_same_however_the_items_come(self) -> None:
        d = shuffled(640, 24, 20, np.random.default_rng(4))
        whole = sequential.begin(DROP, [1.0] * 640, ONE_RULE)
        whole.feed(entries(d))
        for size in (1, 7, 32, 50, 64, 640):
            walk = sequential.begin(DROP, [1.0] * 640, ONE_RULE)
            for begin in range(0, 640, size):
                walk.feed(entries(d)[begin : begin + size])
            assert (walk.state, walk.settled, len(walk.evidence)) == (whole.state, whole.settled, len(whole.evidence))

    def test_a14_the_state_is_plain_data_to_go_on_from(self) -> None:
        d = shuffled(2800, 84, 84, np.random.default_rng(1))
        tested = plan(DROP, [float(x <= 0) for x in d], ONE_RULE, integral=True)
        state, resumed = START, START
        for begin in range(0, 2800, 32):
            block = entries(d[begin : begin + 32])
            state = step(state, tested, block)
            resumed = step(_reread(resumed), tested, block)
            assert resumed == state
            if settled(state, tested):
                break
        assert settled(resumed, tested) == "pass"

    def test_a_partial_block_at_the_end_is_looked_at(self) -> None:
        found = judge(DROP, *of_differences([-1] * 40 + [0] * 960, reached=40), ONE_RULE)
        assert found.status is Status.REGRESSION
        assert found.counts["n"] == 32
        some = judge(DROP, *of_differences([0] * 1000, reached=40), ONE_RULE)
        assert (some.status, some.counts["n"]) == (Status.INCONCLUSIVE, 40)

    def test_partial_credit_met_late_is_judged_as_partial_credit_throughout(self) -> None:
        metric = DOMAIN["rouge_l"]
        of = rule("max_drop 3pp", metric="rouge_l")
        late = [1.0] * 90 + [0.5] + [1.0] * 909
        found = judge(of, *roles([1.0] * 1000, late, metric=metric), ONE_RULE)
        early = judge(of, *roles([1.0] * 1000, [1.0, 0.5, *late[2:90], 1.0, *late[91:]], metric=metric), ONE_RULE)
        assert "a" not in found.counts  # not 0/1
        assert (found.status, early.status) == (Status.PASS, Status.PASS)


def _reread(state: State) -> State:
    raw: dict[str, Any] = json.loads(json.dumps(asdict(state)))

    def wealth(side: dict[str, Any]) -> Wealth:
        logs = {name: tuple(side[name]) for name in ("log_pass", "log_fail")}
        return Wealth(**{**side, **logs})

    low, high = raw["said"]
    return State(low=wealth(raw["low"]), high=wealth(raw["high"]), said=(low, high), lost=raw["lost"])


class TestInterval:
    @pytest.mark.parametrize("text", ["max_drop 3pp", "max_drop 10pp", "min_retained 95%", "min 0.8", "max 0.97"])
    @pytest.mark.parametrize("scope", Scope)
    def test_a6_it_keeps_the_bound_exactly_when_the_rule_passes(self, text: str, scope: Scope) -> None:
        rng = np.random.default_rng(5)
        seen = set()
        for _ in range(12):
            n = int(rng.integers(30, 400))
            b = (rng.random(n) < 0.9).astype(float)
            c = np.where(rng.random(n) < rng.choice([0.02, 0.1, 0.3]), 1 - b, b)
            lost = np.where(rng.random(n) < 0.01, None, c)  # type: ignore[call-overload]
            for values in (c.tolist(), lost.tolist()):
                reached = int(rng.integers(1, n + 1))
                of = rule(text, scope=scope, max_lost=some_lost(9), max_items=int(rng.choice([20, 10**6])))
                found = judge(of, *roles(b.tolist(), values, reached=reached), terms(3))
                seen.add(found.status)
                if found.status is Status.ERROR:
                    continue
                assert found.interval is not None
                assert found.estimate is not None
                if found.interval.valid == "anytime":
                    ends = found.interval.low, found.interval.high
                    assert decide(ends, found.rule.bound) is found.status
                assert found.interval.low <= found.estimate <= found.interval.high
        assert len(seen) > 1 or scope is Scope.POPULATION

    @pytest.mark.parametrize(("kind", "worse"), [("max_drop 3pp", 1), ("min_retained 97%", -1)])
    def test_what_divisions_round_away_tells_no_other_story(self, kind: str, worse: int) -> None:
        bound = rule(kind).bound
        for status in (Status.PASS, Status.INCONCLUSIVE, Status.REGRESSION):
            for ends in ((-1, 0), (-1, -1), (-1, 1), (0, 1), (1, 1), (0, 0)):
                low, high = (bound.value + 0.001 * e for e in ends)
                fixed = sequential.agreeing((low, high), status, bound)
                assert decide(fixed, bound) is status
                assert fixed[0] <= fixed[1]
        beyond = sequential.agreeing((bound.value, bound.value), Status.REGRESSION, bound)
        assert abs(beyond[0] - bound.value) < 1e-15
        assert (beyond[0] - bound.value) * worse > 0

    def test_a8_it_has_a_width_before_the_end(self) -> None:
        found = judge(DROP, *of_differences([0] * 1000, reached=96), ONE_RULE)
        assert found.interval is not None
        assert found.interval.high > 0.01
        assert found.interval.low < 0

    def test_it_says_what_population_scope_would_resolve(self) -> None:
        found = judge(DROP, *of_differences(shuffled(1000, 30, 30, np.random.default_rng(1))), ONE_RULE)
        assert found.detectable == pytest.approx(2.486 * (found.counts["flip_rate"] / 1000) ** 0.5, rel=0.01)


class TestCap:
    def test_it_splits_the_error_and_looks_once(self) -> None:
        capped = rule("max_drop 3pp", max_items=100)
        d = shuffled(1000, 10, 30, np.random.default_rng(6))
        tested = plan(capped, [1.0] * 1000, terms(5), integral=True)
        assert tested.cap == 100
        assert (tested.pass_alpha, tested.fail_alpha) == pytest.approx((0.025, 0.005))
        found = judge(capped, *of_differences(d), ONE_RULE)
        assert found.counts["n"] == 100
        assert found.interval is not None
        assert found.interval.method == "betting+exact_finite"
        assert f"after {100} of 1,000 items" in found.reason
        beyond = judge(capped, *of_differences([*d[:100], *([-1] * 900)]), ONE_RULE)  # baseline all right in both
        assert beyond.counts["n"] == 100

    def test_items_after_the_cap_are_no_evidence(self) -> None:
        capped = rule("max_drop 3pp", max_items=100)
        d = shuffled(1000, 30, 0, np.random.default_rng(7))
        for reached in (100, 128, 1000):
            found = judge(capped, *of_differences(d, reached=reached), ONE_RULE)
            assert found == judge(capped, *of_differences([*d[:100], *([0] * 900)]), ONE_RULE)

    def test_before_the_cap_there_is_no_look(self) -> None:
        found = judge(rule("max_drop 3pp", max_items=100), *of_differences([0] * 1000, reached=64), ONE_RULE)
        assert found.status is Status.INCONCLUSIVE
        assert found.interval is not None
        assert found.interval.method == "betting"

    def test_the_look_can_fail_and_can_pass(self) -> None:
        passes = rule("max_drop 10pp", max_items=60)
        assert judge(passes, *of_differences([0] * 1000), ONE_RULE).status is Status.PASS
        bad = [-1, 0, 0, 0] * 250
        found = judge(rule("max_drop 10pp", max_items=40), *of_differences(bad), ONE_RULE)
        assert found.counts["n"] <= 40
        assert found.status is Status.REGRESSION

    def test_half_of_the_error_is_twice_the_p_value(self) -> None:
        d = [-1 if i % 12 == 0 else 0 for i in range(1000)]
        capped, free = (
            judge(rule("max_drop 3pp", max_items=most), *of_differences(d, reached=64), terms(5))
            for most in (100, 1000)
        )
        assert free.p_value is not None
        assert 0 < free.p_value < 0.5
        assert capped.p_value == pytest.approx(2 * free.p_value)

    @pytest.mark.parametrize("lost", [3, 8, 14, 20])
    def test_the_look_says_what_its_p_value_says(self, lost: int) -> None:
        d = ([-1] * lost + [0] * (60 - lost)) * 5
        order = np.random.default_rng(lost).permutation(60)
        mixed = [d[i] for i in order] + d[60:]
        found = judge(rule("max_drop 10pp", max_items=60), *of_differences(mixed), ONE_RULE)
        assert found.p_value is not None
        assert (found.status is Status.REGRESSION) == (found.p_value <= 0.05)

    def test_a_cap_that_is_no_cap_costs_nothing(self) -> None:
        d = shuffled(200, 5, 5, np.random.default_rng(8))
        found = judge(rule("max_drop 3pp", max_items=200), *of_differences(d), ONE_RULE)
        assert replace(found, rule=DROP) == judge(DROP, *of_differences(d), ONE_RULE)


class TestPopulation:
    OF = rule("max_drop 3pp", scope=Scope.POPULATION)

    def applies(self, n: int, of: Rule = OF, **changes: Any) -> bool:
        baseline, _ = of_differences([0] * n)
        return stoppable.applies(of, ACCURACY, replace(baseline, **changes), ONE_RULE)

    def test_it_stops_early_where_a_fixed_test_would_be_sure_to_pass(self) -> None:
        assert [self.applies(n) for n in (164, 500, 1319, 2800)] == [False, False, True, True]
        assert self.applies(900, chance=0.25)  # multiple choice flips less
        assert not self.applies(2800, rule("max_drop 0pp", scope=Scope.POPULATION))
        assert not self.applies(2800, rule("min 0.3", scope=Scope.POPULATION))

    def test_clusters_need_every_item(self) -> None:
        baseline = scored(BASELINE, [1.0] * 2800, clusters=[f"c{i % 50}" for i in range(2800)])
        assert not stoppable.applies(self.OF, ACCURACY, baseline, ONE_RULE)
        alone = scored(BASELINE, [1.0] * 2800, clusters=[f"c{i}" for i in range(2800)])
        assert stoppable.applies(self.OF, ACCURACY, alone, ONE_RULE)

    def test_finished_results_are_judged_once(self) -> None:
        baseline, _ = of_differences([0] * 2800)
        assert not stoppable.applies(self.OF, ACCURACY, baseline, FINISHED)

    def test_the_last_look_holds_each_side_at_its_own_level(self) -> None:
        """Found: the two levels were swapped, so that of five rules at their bounds one in ten failed falsely."""
        n, many = 2000, terms(5)
        moved = 0
        for lost in range(60, 140, 4):
            d = [0] * n
            for k in range(lost):
                d[k * n // lost] = -1
            found = judge(self.OF, *of_differences(d), many)
            if found.counts["n"] < n:
                continue
            pairs = pairing.pair(*of_differences(d), ACCURACY)
            limits = items.estimate(self.OF, pairs, 0.95).limits
            strict, loose = limits(1 - 0.01 / 2), limits(1 - 0.05 / 2)
            assert found.interval is not None
            assert found.interval.low >= strict[0]
            assert found.interval.high <= loose[1]
            if found.status is Status.REGRESSION:
                assert found.p_value is not None
                assert found.p_value <= 0.01
            moved += loose[0] > 0.03 >= strict[0] and found.status is Status.INCONCLUSIVE
        assert moved

    def test_a_ratio_has_limits_of_its_own(self) -> None:
        of = rule("min_retained 95%", scope=Scope.POPULATION)
        d = shuffled(2800, 60, 60, np.random.default_rng(3))
        found = judge(of, *of_differences(d), ONE_RULE)
        assert found.status is Status.PASS
        assert found.interval is not None
        assert 0.95 <= found.interval.low < 1 <= found.interval.high


class TestSeverity:
    def test_only_blocking_rules_share_the_error(self) -> None:
        d = [-1 if i % 8 == 0 else 0 for i in range(1000)]

        def found(severity: Severity) -> Finding:
            return judge(rule("max_drop 3pp", severity=severity), *of_differences(d), terms(20))

        blocking, advisory = found(Severity.BLOCKING), found(Severity.ADVISORY)
        assert blocking.status is advisory.status is Status.REGRESSION
        assert blocking.counts["n"] > advisory.counts["n"]
        assert advisory.interval is not None
        assert advisory.interval.fail_confidence == 0.95


def test_a_million_items_take_no_more_memory_than_a_few() -> None:
    rng = np.random.default_rng(1)
    test = betting.drop(scope=Scope.BENCHMARK, n=10**6, bound=Fraction(3, 100), integral=True)
    wealth = betting.start()
    tracemalloc.start()
    try:
        while wealth.t < 10**6:
            size = min(4096, 10**6 - wealth.t)
            wealth = betting.advance(wealth, test, rng.choice([-1.0, 0.0, 1.0], size=size, p=[0.045, 0.94, 0.015]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
    assert wealth.pass_certain or wealth.fail_certain
