"""Laws of the betting gate: what no order, no split and no choice of bets may change."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gate.records import Scope
from gate.stats import control_variate
from gate.stats.betting import (
    Floats,
    Test,
    absolute,
    advance,
    drop,
    p_fail,
    paths,
    population_retention,
    reaches,
    retention,
    start,
    verdict,
)
from gate.stats.confidence_sequence import high, interval, low, ordered

WHOLE = st.sampled_from([-1.0, 0.0, 0.0, 0.0, 1.0])
PARTIAL = st.floats(-1, 1, allow_subnormal=False)
BOUNDS = st.fractions(0, Fraction(1, 2), max_denominator=100)
ALPHAS = st.sampled_from([0.01, 0.05, 0.2, 0.5])
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def cases(draw: st.DrawFn, *, scopes: tuple[Scope, ...] = tuple(Scope), whole: bool = False) -> tuple[Test, Floats]:
    """A test, and the differences of some of its items (one at least), or of all."""
    integral = draw(st.booleans())
    n = draw(st.integers(1, 80))
    test = drop(scope=draw(st.sampled_from(scopes)), n=n, bound=draw(BOUNDS), integral=integral)
    if draw(st.booleans()):  # one-sided data, where wealth grows fast
        values = st.sampled_from([-1.0, 0.0]) if draw(st.booleans()) else st.sampled_from([0.0, 0.0, 0.0, 1.0])
    else:
        values = WHOLE if integral else PARTIAL
    return test, np.array(draw(st.lists(values, min_size=n if whole else 1, max_size=n)))


BENCHMARK = cases(scopes=(Scope.BENCHMARK,))
FULL_RUNS = cases(scopes=(Scope.BENCHMARK,), whole=True)


def decide(test: Test, differences: Floats, alpha: float = 0.05) -> str | None:
    return verdict(advance(start(), test, differences), test, pass_alpha=alpha, fail_alpha=alpha)


def long_run(seed: int, n: int, integral: bool) -> Floats:
    rng = np.random.default_rng(seed)
    return rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.9, 0.05], size=n) if integral else rng.uniform(-1, 1, n)


class TestSplits:
    """A4."""

    @settings(max_examples=60)
    @given(seed=SEEDS, n=st.integers(1, 9000), integral=st.booleans(), scope=st.sampled_from(Scope), data=st.data())
    def test_any_split_gives_the_same_bits(
        self, seed: int, n: int, integral: bool, scope: Scope, data: st.DataObject
    ) -> None:
        test = drop(scope=scope, n=n, bound=Fraction(3, 100), integral=integral)
        differences = long_run(seed, n, integral)
        cuts = data.draw(st.lists(st.integers(0, n), max_size=12).map(sorted))
        pieces = start()
        for part in np.split(differences, cuts):
            pieces = advance(pieces, test, part)
        assert pieces == advance(start(), test, differences)

    @settings(max_examples=10)
    @given(seed=SEEDS, block=st.sampled_from([1, 8, 32, 100]))
    def test_arrival_inside_a_block_changes_nothing_once_it_is_in_order(self, seed: int, block: int) -> None:
        test = drop(scope=Scope.BENCHMARK, n=400, bound=Fraction(3, 100), integral=True)
        differences, rng = long_run(seed, 400, True), np.random.default_rng(seed)
        found = start()
        for begin in range(0, 400, block):
            arrived = rng.permutation(np.arange(begin, min(begin + block, 400)))
            found = advance(found, test, differences[np.sort(arrived)])
        assert found == advance(start(), test, differences)


class TestFullRun:
    """A5: after all N items the verdict is the comparison of totals, in any order, for any α."""

    @given(b=st.integers(0, 40), c=st.integers(0, 40), same=st.integers(0, 40), bound=BOUNDS, seed=SEEDS, alpha=ALPHAS)
    def test_drop(self, b: int, c: int, same: int, bound: Fraction, seed: int, alpha: float) -> None:
        n = b + c + same
        assume(n > 0)
        differences = np.random.default_rng(seed).permutation(np.repeat([-1.0, 1.0, 0.0], [b, c, same]))
        test = drop(scope=Scope.BENCHMARK, n=n, bound=bound, integral=True)
        keeps = Fraction(c - b, n) >= -bound
        assert decide(test, differences, alpha) == ("pass" if keeps else "fail")
        if not keeps:
            assert p_fail(advance(start(), test, differences), test) == 0

    @given(
        both=st.integers(0, 30),
        b=st.integers(0, 30),
        c=st.integers(0, 30),
        neither=st.integers(0, 30),
        bound=st.fractions(0, Fraction(6, 5), max_denominator=100),
    )
    def test_retention_and_absolute(self, both: int, b: int, c: int, neither: int, bound: Fraction) -> None:
        n, right = both + b + c + neither, both + b
        assume(right > 0)
        differences = np.repeat([0.0, -1.0, 1.0, 0.0], [both, b, c, neither])
        retained = retention(n=n, bound=bound, baseline_total=Fraction(right), integral=True)
        assert (decide(retained, differences) == "pass") == (both + c >= bound * right)
        floor = absolute(n=n, least=bound, baseline_total=Fraction(right), integral=True)
        assert (decide(floor, differences) == "pass") == (both + c >= bound * n)

    @given(sixteenths=st.lists(st.integers(-16, 16), min_size=1, max_size=60), bound=BOUNDS)
    def test_partial_credit(self, sixteenths: list[int], bound: Fraction) -> None:
        test = drop(scope=Scope.BENCHMARK, n=len(sixteenths), bound=bound, integral=False)
        keeps = Fraction(sum(sixteenths), 16) >= -bound * len(sixteenths)
        assert decide(test, np.array(sixteenths) / 16) == ("pass" if keeps else "fail")

    @given(case=FULL_RUNS, item=st.integers(0, 79))
    def test_a_better_answer_never_turns_pass_to_fail(self, case: tuple[Test, Floats], item: int) -> None:
        test, differences = case
        better = differences.copy()
        better[item % better.size] = 1.0
        assert not (decide(test, differences) == "pass" and decide(test, better) == "fail")

    @given(case=FULL_RUNS, bound=BOUNDS)
    def test_a_looser_bound_never_turns_pass_to_fail(self, case: tuple[Test, Floats], bound: Fraction) -> None:
        test, differences = case
        tight = drop(scope=Scope.BENCHMARK, n=test.n, bound=bound, integral=test.integral)
        loose = drop(scope=Scope.BENCHMARK, n=test.n, bound=bound + Fraction(1, 50), integral=test.integral)
        assert not (decide(tight, differences) == "pass" and decide(loose, differences) == "fail")

    @settings(max_examples=40)
    @given(case=FULL_RUNS)
    def test_limits_mirror_when_the_roles_are_swapped(self, case: tuple[Test, Floats]) -> None:
        test, differences = case
        found = interval(test=test, differences=differences, low_confidence=0.95, high_confidence=0.95)
        swapped = interval(test=test, differences=-differences, low_confidence=0.95, high_confidence=0.95)
        assert abs(found.low + swapped.high) <= 1e-12
        assert abs(found.high + swapped.low) <= 1e-12


class TestEarly:
    @given(case=BENCHMARK, seed=SEEDS)
    def test_what_is_certain_is_what_every_continuation_says(self, case: tuple[Test, Floats], seed: int) -> None:
        test, differences = case
        found = advance(start(), test, differences)
        left = test.n - differences.size
        worst = advance(found, test, np.full(left, -1.0))
        best = advance(found, test, np.full(left, 1.0))
        assert found.pass_certain == worst.pass_certain
        assert found.fail_certain == best.fail_certain
        assert worst.pass_certain != worst.fail_certain

    @given(case=cases(), alpha=ALPHAS, share=st.floats(0.1, 1))
    def test_evidence_once_won_is_not_lost(self, case: tuple[Test, Floats], alpha: float, share: float) -> None:
        test, differences = case
        some = advance(start(), test, differences[: math.ceil(share * differences.size)])
        more = advance(some, test, differences[some.t :])
        assert more.max_pass >= some.max_pass
        assert more.max_fail >= some.max_fail
        assert more.pass_certain >= some.pass_certain
        assert more.fail_certain >= some.fail_certain
        if not more.pass_certain:
            assert p_fail(more, test) <= p_fail(some, test)

    @given(case=cases(), alpha=ALPHAS)
    def test_p_is_below_alpha_exactly_when_the_verdict_may_be_fail(
        self, case: tuple[Test, Floats], alpha: float
    ) -> None:
        test, differences = case
        found = advance(start(), test, differences)
        p = p_fail(found, test)
        assert 0 <= p <= 1
        near = abs(found.max_fail - math.log(1 / alpha)) < 1e-9
        if decide(test, differences, alpha) == "fail":
            assert p <= alpha or near
        elif not found.max_pass >= math.log(1 / alpha):
            assert p > alpha or near

    @settings(max_examples=50)
    @given(case=cases())
    def test_wealth_is_monotone_in_the_null(self, case: tuple[Test, Floats]) -> None:
        """Bisection rests on it."""
        test, differences = case
        unit = test.n if test.scope is Scope.BENCHMARK else 1
        nulls = np.linspace(-1, 1, 21) * unit
        if test.scope is Scope.BENCHMARK:  # what is not certain already
            total, left = differences.sum(), test.n - differences.size
            nulls = nulls[(nulls > total - left) & (nulls < total + left)]
        refuted = [reaches(test, differences, side="pass", null=float(x), alpha=0.3) for x in nulls]
        assert refuted == sorted(refuted, reverse=True)
        refuted = [reaches(test, differences, side="fail", null=float(x), alpha=0.3) for x in nulls]
        assert refuted == sorted(refuted)


class TestLimits:
    """A6: the limits tell what the wealth tells."""

    @settings(max_examples=120)
    @given(case=cases(), alpha=ALPHAS)
    def test_they_keep_the_bound_exactly_when_the_verdict_says_so(
        self, case: tuple[Test, Floats], alpha: float
    ) -> None:
        test, differences = case
        found = interval(test=test, differences=differences, low_confidence=1 - alpha, high_confidence=1 - alpha)
        said = decide(test, differences, 1 - (1 - alpha))
        assert (found.low >= test.mean) == (said == "pass")
        assert (found.high < test.mean) == (said == "fail")

    @settings(max_examples=50)
    @given(case=cases(), alpha=ALPHAS)
    def test_each_side_alone_is_that_side(self, case: tuple[Test, Floats], alpha: float) -> None:
        test, differences = case
        found = interval(test=test, differences=differences, low_confidence=1 - alpha, high_confidence=0.9)
        lower = low(test=test, differences=differences, confidence=1 - alpha)
        upper = high(test=test, differences=differences, confidence=0.9)
        assert ordered(test=test, low=lower, high=upper, estimate=found.estimate) == (found.low, found.high)
        assert (found.confidence, found.high_confidence) == (1 - alpha, 0.9)

    @settings(max_examples=50)
    @given(case=cases(), alpha=ALPHAS)
    def test_they_are_finite_ordered_and_possible(self, case: tuple[Test, Floats], alpha: float) -> None:
        test, differences = case
        found = interval(test=test, differences=differences, low_confidence=1 - alpha, high_confidence=1 - alpha)
        assert -1 <= found.low <= found.high <= 1
        if test.scope is Scope.BENCHMARK:
            total, left = differences.sum(), test.n - differences.size
            assert found.low >= (total - left) / test.n - 1e-12
            assert found.high <= (total + left) / test.n + 1e-12
            if test.integral:
                assert abs(found.low * test.n - round(found.low * test.n)) < 1e-9
                assert abs(found.high * test.n - round(found.high * test.n)) < 1e-9

    @settings(max_examples=40)
    @given(case=cases(), alpha=ALPHAS)
    def test_they_close_in_unless_the_items_contradict_them(self, case: tuple[Test, Floats], alpha: float) -> None:
        test, differences = case
        lows, highs = [], []
        for t in range(1, differences.size + 1):
            part, left = differences[:t], test.n - t
            lower = low(test=test, differences=part, confidence=1 - alpha)
            upper = high(test=test, differences=part, confidence=1 - alpha)
            least, most = (part.sum() - left) / test.n, (part.sum() + left) / test.n
            if test.scope is Scope.BENCHMARK and not (lower < most - 1e-9 and upper > least + 1e-9):
                break
            lows.append(lower)
            highs.append(upper)
        # limits off the lattice are found to 2⁻²³
        assert all(b >= a - 2**-22 for a, b in pairwise(lows))
        assert all(b <= a + 2**-22 for a, b in pairwise(highs))

    @settings(max_examples=30)
    @given(case=cases())
    def test_more_confidence_is_never_narrower(self, case: tuple[Test, Floats]) -> None:
        test, differences = case
        for narrow, wide in ((0.5, 0.8), (0.8, 0.95), (0.95, 0.999)):
            assert (
                low(test=test, differences=differences, confidence=wide)
                <= low(test=test, differences=differences, confidence=narrow) + 2**-22
            )
            assert (
                high(test=test, differences=differences, confidence=wide)
                >= high(test=test, differences=differences, confidence=narrow) - 2**-22
            )

    @settings(max_examples=50)
    @given(
        scores=st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1), alpha=ALPHAS
    )
    def test_population_retention_too(self, scores: list[tuple[float, float]], alpha: float) -> None:
        test = population_retention(n=len(scores), bound=Fraction(9, 10), baseline_mean=0.6)
        differences = np.array([candidate - 0.9 * baseline for baseline, candidate in scores])
        found = interval(test=test, differences=differences, low_confidence=1 - alpha, high_confidence=1 - alpha)
        said = decide(test, differences, 1 - (1 - alpha))
        assert (found.low >= 0, found.high < 0) == (said == "pass", said == "fail")


class TestPrediction:
    @given(
        scores=st.lists(
            st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]), st.floats(0, 1)), min_size=1
        ),
        bound=BOUNDS,
    )
    def test_it_never_changes_the_verdict_of_the_full_run(
        self, scores: list[tuple[float, float, float]], bound: Fraction
    ) -> None:
        baseline, candidate, predicted = np.array(scores).T
        plain = drop(scope=Scope.BENCHMARK, n=len(scores), bound=bound, integral=True)
        test = control_variate.adjusted(plain, baseline=baseline, predicted=predicted)
        assert decide(test, candidate - predicted) == decide(plain, candidate - baseline)

    @given(case=BENCHMARK)
    def test_predicting_the_baseline_is_predicting_nothing(self, case: tuple[Test, Floats]) -> None:
        test, differences = case
        baseline = np.full(test.n, 0.5)
        same = control_variate.adjusted(test, baseline=baseline, predicted=baseline)
        for old, new in zip(paths(test, differences), paths(same, differences), strict=True):
            np.testing.assert_allclose(old, new, rtol=1e-12, atol=1e-12)
