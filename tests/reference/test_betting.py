"""The betting gate against an independent transcription, and its error rates and costs by simulation (A1–A6, A14, A18).

Sizes are bounded here; `python benchmarks/decisions.py` runs the full ones, and docs/simulations.md keeps its output.
"""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from benchmarks.foresight import Foresight, latent
from benchmarks.simulate import ALPHA, World, at_most_drop, covers, decided, rate, repeat, with_drop, world
from gate.records import Scope
from gate.stats import control_variate
from gate.stats.betting import (
    Floats,
    Test,
    Wealth,
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
from gate.stats.confidence_sequence import interval, ordered

RUNS = 400
TOO_OFTEN = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)
"""More wrong verdicts than this in `RUNS` are no accident when α is kept."""


def decide(test: Test, differences: Floats) -> str | None:
    return verdict(advance(start(), test, differences), test, pass_alpha=ALPHA, fail_alpha=ALPHA)


def transcribed(differences: Floats, *, n: int, fail_total: float, step: int, gap: float) -> list[float]:
    """statistics.md §2 line by line, for benchmark scope: highest log wealth of either side, then all bettors."""
    logs = {"pass": [math.log(0.25)] * 4, "fail": [math.log(0.25)] * 4}
    highest = {"pass": 0.0, "fail": 0.0}
    total = squares = 0.0
    for t, d in enumerate(differences.tolist(), start=1):
        left = n - t + 1
        mu_pass, mu_fail, boost = (fail_total - step - total) / left, (fail_total - total) / left, n / left
        spread = (50 * 0.08 + squares) / (50 + t - 1)
        for k, share in enumerate((0.15, 0.35, 0.7, 1.1)):
            if -1 <= mu_pass < 1:
                g = share * gap * boost
                lam = g / (spread + g * g)
                if mu_pass > -1:
                    lam = min(lam, 0.95 / (1 + mu_pass))
                logs["pass"][k] += math.log(1 + lam * (d - mu_pass))
        for k, share in enumerate((0.2, 0.6, 1.5, 4.0)):
            if -1 < mu_fail <= 1:
                g = share * gap * boost
                lam = g / (spread + g * g)
                if mu_fail < 1:
                    lam = min(lam, 0.95 / (1 - mu_fail))
                logs["fail"][k] += math.log(1 - lam * (d - mu_fail))
        total += d
        squares += d * d
        for side, each in logs.items():
            highest[side] = max(highest[side], math.log(sum(math.exp(x) for x in each)))
    return [highest["pass"], highest["fail"], *logs["pass"], *logs["fail"]]


def as_transcribed(wealth: Wealth) -> list[float]:
    return [wealth.max_pass, wealth.max_fail, *wealth.log_pass, *wealth.log_fail]


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (2, 4), (7, 5), (20, 3), (60, 0), (0, 60)])
def test_the_wealth_is_that_of_the_transcription(lost: int, gained: int) -> None:
    differences = np.random.default_rng(3).permutation(World(n=200, lost=lost, gained=gained).differences)
    found = advance(start(), at_most_drop(200), differences)
    expected = transcribed(differences, n=200, fail_total=-6, step=1, gap=0.03)
    assert as_transcribed(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_real_valued_wealth_is_that_of_the_transcription() -> None:
    differences = np.random.default_rng(4).uniform(-0.3, 0.3, 150)
    test = drop(scope=Scope.BENCHMARK, n=200, bound=Fraction(33, 1000), integral=False)
    found = advance(start(), test, differences)
    expected = transcribed(differences, n=200, fail_total=-6.6, step=0, gap=0.033)
    assert as_transcribed(found) == pytest.approx(expected, rel=1e-9)


class TestTheTest:
    """What each bound says about totals."""

    def test_a_drop_is_rounded_to_whole_items_only_if_scores_are(self) -> None:
        whole = drop(scope=Scope.BENCHMARK, n=164, bound=Fraction(3, 100), integral=True)
        assert (whole.fail_total, whole.pass_total) == (Fraction(-4), Fraction(-5))
        assert whole.gap == pytest.approx(4 / 164)
        partial = drop(scope=Scope.BENCHMARK, n=164, bound=Fraction(3, 100), integral=False)
        assert partial.fail_total == partial.pass_total == Fraction(-492, 100)

    def test_a_margin_of_whole_items_is_kept_by_exactly_that_many(self) -> None:
        assert at_most_drop(500).fail_total == -15
        assert decide(at_most_drop(500), World(n=500, lost=15, gained=0).differences) == "pass"
        assert decide(at_most_drop(500), World(n=500, lost=16, gained=0).differences) == "fail"

    def test_retention_is_linear_in_a_known_baseline(self) -> None:
        test = retention(n=100, bound=Fraction(95, 100), baseline_total=Fraction(70), integral=True)
        assert test.fail_total == -3  # 67 of 70 are .957, 66 are .943
        partial = retention(n=100, bound=Fraction(95, 100), baseline_total=Fraction(705, 10), integral=False)
        assert partial.fail_total == Fraction(-3525, 1000)

    def test_an_absolute_floor_is_a_floor_of_the_candidate(self) -> None:
        test = absolute(n=40, least=Fraction(1, 2), baseline_total=Fraction(25), integral=True)
        assert test.fail_total == -5

    def test_population_retention_looks_at_the_candidate_minus_r_times_the_baseline(self) -> None:
        test = population_retention(n=40, bound=Fraction(9, 10), baseline_mean=0.7)
        assert (test.mean, test.scope) == (0.0, Scope.POPULATION)
        assert test.gap == pytest.approx(0.07)

    def test_population_drop_keeps_the_bound_unrounded(self) -> None:
        assert drop(scope=Scope.POPULATION, n=164, bound=Fraction(3, 100), integral=True).mean == -0.03


class TestBadInput:
    @pytest.mark.parametrize("value", [math.nan, 1.5, -1.0000001, math.inf])
    def test_a_difference_that_is_none(self, value: float) -> None:
        test = drop(scope=Scope.BENCHMARK, n=3, bound=Fraction(3, 100), integral=False)
        with pytest.raises(ValueError, match=r"at item 1, expected a number in \[-1, 1\]"):
            advance(start(), test, np.array([0.0, value]))

    def test_half_an_item(self) -> None:
        with pytest.raises(ValueError, match="at item 0, expected -1, 0 or 1"):
            advance(start(), at_most_drop(3), np.array([0.5]))

    def test_more_items_than_the_sample(self) -> None:
        with pytest.raises(ValueError, match="found 4 items, expected at most the 3"):
            advance(advance(start(), at_most_drop(3), np.zeros(2)), at_most_drop(3), np.zeros(2))

    def test_a_table_of_differences(self) -> None:
        with pytest.raises(ValueError, match="one number an item"):
            advance(start(), at_most_drop(4), np.zeros((2, 2)))

    def test_no_items(self) -> None:
        with pytest.raises(ValueError, match="0 items"):
            at_most_drop(0)
        with pytest.raises(ValueError, match="found no items"):
            interval(test=at_most_drop(3), differences=np.zeros(0), low_confidence=0.95, high_confidence=0.95)

    @pytest.mark.parametrize("baseline_total", [Fraction(0), Fraction(-1), Fraction(11)])
    def test_nothing_to_retain(self, baseline_total: Fraction) -> None:
        with pytest.raises(ValueError, match="nothing to retain"):
            retention(n=10, bound=Fraction(9, 10), baseline_total=baseline_total, integral=True)

    def test_bounds_and_baselines_that_are_none(self) -> None:
        with pytest.raises(ValueError, match="baseline mean of 0"):
            population_retention(n=10, bound=Fraction(9, 10), baseline_mean=0)
        with pytest.raises(ValueError, match="retention bound of 2"):
            population_retention(n=10, bound=Fraction(2), baseline_mean=0.5)
        with pytest.raises(ValueError, match="baseline total of 11"):
            absolute(n=10, least=Fraction(1, 2), baseline_total=Fraction(11), integral=True)

    @pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
    def test_no_error_probability(self, alpha: float) -> None:
        with pytest.raises(ValueError, match="error probability"):
            verdict(start(), at_most_drop(3), pass_alpha=ALPHA, fail_alpha=alpha)

    def test_a_wealth_of_another_test(self) -> None:
        with pytest.raises(ValueError, match="at most the 3 of the test"):
            p_fail(advance(start(), at_most_drop(4), np.zeros(4)), at_most_drop(3))


class TestCorners:
    def test_nothing_seen_decides_nothing(self) -> None:
        hopeless = absolute(n=10, least=Fraction(2), baseline_total=Fraction(5), integral=True)
        assert decide(hopeless, np.zeros(0)) is None
        assert p_fail(start(), hopeless) == 1
        assert decide(hopeless, np.zeros(1)) == "fail"

    @pytest.mark.parametrize(("d", "expected"), [(-1.0, "fail"), (0.0, "pass"), (1.0, "pass")])
    @pytest.mark.parametrize("integral", [True, False])
    def test_a_sample_of_one(self, d: float, expected: str, integral: bool) -> None:
        test = drop(scope=Scope.BENCHMARK, n=1, bound=Fraction(3, 100), integral=integral)
        assert decide(test, np.array([d])) == expected
        assert p_fail(advance(start(), test, np.array([d])), test) == (0 if d < 0 else 1)

    @pytest.mark.parametrize(("d", "expected"), [(-1.0, "fail"), (1.0, "pass")])
    @pytest.mark.parametrize("scope", Scope)
    def test_all_lost_and_all_gained(self, d: float, expected: str, scope: Scope) -> None:
        test = drop(scope=scope, n=2000, bound=Fraction(3, 100), integral=True)
        for t in (40, 2000):
            assert decide(test, np.full(t, d)) == expected

    @pytest.mark.parametrize("lost", [0, 1])
    def test_a_bound_of_zero(self, lost: int) -> None:
        differences = World(n=300, lost=lost, gained=0).differences[::-1]
        test = at_most_drop(300, Fraction(0))
        assert decide(test, differences[:200]) is None
        assert decide(test, differences) == ("fail" if lost else "pass")

    def test_no_room_left_on_either_side(self) -> None:
        """Where the null mean is −1 or 1 the next item decides; nothing is divided by the zero room."""
        test = at_most_drop(100)  # the total may be −3, not −4
        assert decide(test, np.full(3, -1.0)) is None
        kept = np.concatenate([np.full(3, -1.0), np.zeros(97)])
        assert decide(test, kept) == "pass"
        steep = np.repeat([-1.0, 1.0, 0.0], [50, 44, 3])  # −6: only three gains in a row can save it
        assert advance(start(), test, steep).fail_certain is False
        assert decide(test, np.append(steep, np.full(3, 1.0))) == "pass"
        assert advance(start(), test, np.append(steep, 0.0)).fail_certain is True

    def test_one_item_says_only_what_is_impossible_now(self) -> None:
        found = interval(test=at_most_drop(10), differences=np.zeros(1), low_confidence=0.95, high_confidence=0.95)
        assert (found.low, found.estimate, found.high) == (-0.9, 0, 0.9)

    @pytest.mark.parametrize(
        ("low", "high", "estimate", "expected"),
        [
            (-0.2, 0.1, 0.0, (-0.2, 0.1)),
            (0.02, 0.01, 0.0, (0.01, 0.02)),  # both keep the bound of −.03
            (-0.1, -0.2, 0.0, (-0.2, -0.1)),  # both break it
            (0.01, -0.05, -0.03, (-0.03, 0.01)),
            (0.01, -0.05, -0.04, (-0.05, math.nextafter(-0.03, -1))),
        ],
    )
    def test_limits_that_contradict_each_other(
        self, low: float, high: float, estimate: float, expected: tuple[float, float]
    ) -> None:
        assert ordered(test=at_most_drop(100), low=low, high=high, estimate=estimate) == expected

    def test_the_full_run_outranks_a_wealth_that_was_wrong(self) -> None:
        test = at_most_drop(500)
        misleading = np.concatenate([np.zeros(450), np.full(50, -1.0)])
        assert decide(test, misleading[:450]) == "pass"
        assert decide(test, misleading) == "fail"
        assert p_fail(advance(start(), test, misleading), test) == 0
        found = interval(test=test, differences=misleading, low_confidence=0.95, high_confidence=0.95)
        assert found.low == found.estimate == found.high == -0.1

    def test_both_sides_struck_and_the_mean_decides(self) -> None:
        test = drop(scope=Scope.POPULATION, n=3000, bound=Fraction(3, 100), integral=True)
        differences = np.concatenate([np.zeros(500), np.full(200, -1.0)])
        found = advance(start(), test, differences)
        assert min(found.max_pass, found.max_fail) > math.log(1 / ALPHA)
        assert decide(test, differences) == "fail"
        limits = interval(test=test, differences=differences, low_confidence=0.95, high_confidence=0.95)
        assert limits.low < limits.high < -0.03

    def test_a18_partial_credit_passes_above_the_exact_bound(self) -> None:
        test = drop(scope=Scope.BENCHMARK, n=164, bound=Fraction(3, 100), integral=False)
        assert decide(test, np.repeat([-0.5, 0.0], [9, 155])) == "pass"  # −4.5 of −4.92
        assert decide(test, np.repeat([-0.5, 0.0], [10, 154])) == "fail"

    @pytest.mark.parametrize("piece", [0.1, 0.3, 1 / 3, 0.7])
    def test_a_tie_of_fractions_that_floats_cannot_hold_keeps_the_bound(self, piece: float) -> None:
        exact = Fraction(piece).limit_denominator(10)
        test = drop(scope=Scope.BENCHMARK, n=1000, bound=30 * exact / 1000, integral=False)
        tie = np.concatenate([np.full(30, -piece), np.zeros(970)])
        assert decide(test, tie) == "pass"
        assert interval(test=test, differences=tie, low_confidence=0.95, high_confidence=0.95).low >= test.mean
        assert decide(test, np.concatenate([np.full(30, -piece), [-1e-9], np.zeros(969)])) == "fail"


class TestErrorRates:
    """A1, bounded: the worst cases, a hair beyond the bound and exactly at it."""

    @pytest.mark.parametrize("flips", [0.035, 0.06, 0.10])
    @pytest.mark.parametrize("n", [164, 500, 1319, 2800])
    def test_one_item_decides(self, n: int, flips: float) -> None:
        rng, test = np.random.default_rng([n, int(1000 * flips)]), at_most_drop(n)
        smallest = int(test.fail_total)
        beyond = repeat(test, world(n=n, total=smallest - 1, flips=flips).differences, runs=RUNS, rng=rng)
        assert rate(beyond.passed) <= TOO_OFTEN
        within = repeat(test, world(n=n, total=smallest, flips=flips).differences, runs=RUNS, rng=rng)
        assert rate(~within.passed) <= TOO_OFTEN

    def test_retention_and_partial_credit_at_the_bound(self) -> None:
        rng = np.random.default_rng(8)
        test = retention(n=500, bound=Fraction(96, 100), baseline_total=Fraction(350), integral=True)
        beyond = repeat(test, world(n=500, total=-15, flips=0.05).differences, runs=RUNS, rng=rng)
        assert rate(beyond.passed) <= TOO_OFTEN
        partial = drop(scope=Scope.BENCHMARK, n=500, bound=Fraction(3, 100), integral=False)
        halves = world(n=500, total=-31, flips=0.2).differences / 2
        assert rate(repeat(partial, halves, runs=RUNS, rng=rng).passed) <= TOO_OFTEN

    @pytest.mark.parametrize("lost_share", [0.03, 0.05])
    def test_population_scope_at_the_bound(self, lost_share: float) -> None:
        rng = np.random.default_rng(9)
        test = drop(scope=Scope.POPULATION, n=600, bound=Fraction(3, 100), integral=True)
        shares = [lost_share, 1.03 - 2 * lost_share, lost_share - 0.03]
        found = [decide(test, rng.choice([-1.0, 0.0, 1.0], p=shares, size=600)) for _ in range(RUNS)]
        assert rate([f == "pass" for f in found]) <= TOO_OFTEN
        assert rate([f == "fail" for f in found]) <= TOO_OFTEN

    def test_a6_both_limits_hold_on_the_whole_path(self) -> None:
        rng = np.random.default_rng(10)
        for n, total in ((164, 0), (164, -16), (500, -15)):
            differences = world(n=n, total=total, flips=0.14).differences
            hits = [covers(at_most_drop(n), rng.permutation(differences)) for _ in range(200)]
            assert rate(hits) >= 0.9


class TestCosts:
    """A2 and A3, bounded: what the gate needs in clear cases, within 10 % of the table of statistics.md §2."""

    @pytest.mark.parametrize(("n", "target", "most"), [(1319, 385, 420), (2800, 441, 490), (14042, 539, 600)])
    def test_lossless(self, n: int, target: int, most: int) -> None:
        differences = with_drop(n=n, drop_pp=0, flips=0.06).differences
        found = repeat(at_most_drop(n), differences, runs=RUNS, rng=np.random.default_rng(n))
        assert found.items.mean() <= min(most, 1.1 * target)
        assert rate(found.passed) >= 0.99

    @pytest.mark.parametrize("n", [1319, 2800, 14042])
    def test_a_drop_of_ten_points(self, n: int) -> None:
        differences = with_drop(n=n, drop_pp=10, flips=0.14).differences
        found = repeat(at_most_drop(n), differences, runs=RUNS, rng=np.random.default_rng(n))
        assert found.items.mean() <= 1.1 * 232
        assert rate(~found.passed) >= 0.99

    def test_looking_after_blocks_of_32_costs_half_a_block(self) -> None:
        differences = with_drop(n=2800, drop_pp=0, flips=0.06).differences
        found = repeat(at_most_drop(2800), differences, runs=RUNS, rng=np.random.default_rng(1))
        assert 12 <= found.in_blocks(32).mean() - found.items.mean() <= 20

    def test_a_million_items_in_flat_memory(self) -> None:
        peaks = []
        for n in (200_000, 1_000_000):
            differences = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], p=[0.03, 0.94, 0.03], size=n)
            test = at_most_drop(n)
            tracemalloc.start()
            advance(start(), test, differences)
            reaches(test, differences, side="fail", null=float(n), alpha=1e-300)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] <= 1.1 * peaks[0]
        assert peaks[1] < 4_000_000


class TestResuming:
    def resumed(self, wealth: Wealth) -> Wealth:
        read: dict[str, Any] = json.loads(json.dumps(asdict(wealth)))
        return Wealth(**read | {"log_pass": tuple(read["log_pass"]), "log_fail": tuple(read["log_fail"])})

    @pytest.mark.parametrize("integral", [True, False])
    def test_a14_a_state_that_went_through_json_ends_at_the_same_bytes(self, integral: bool) -> None:
        rng = np.random.default_rng(6)
        test = drop(scope=Scope.BENCHMARK, n=1000, bound=Fraction(1, 100), integral=integral)
        differences = rng.integers(-1, 2, 900).astype(np.float64) if integral else rng.uniform(-1, 1, 900)
        whole = advance(start(), test, differences)
        stopped = self.resumed(start())
        for part in np.split(differences, [1, 32, 500, 501]):
            stopped = self.resumed(advance(stopped, test, part))
        assert json.dumps(asdict(stopped)) == json.dumps(asdict(whole))

    def test_the_paths_are_what_the_maxima_are_of(self) -> None:
        differences = np.random.default_rng(7).permutation(with_drop(n=9000, drop_pp=2, flips=0.1).differences)
        found, (up, down) = advance(start(), at_most_drop(9000), differences), paths(at_most_drop(9000), differences)
        assert (found.max_pass, found.max_fail) == (max(0.0, up.max()), max(0.0, down.max()))


class TestPrediction:
    """The control variate: any prediction is valid, a good one saves items."""

    @pytest.mark.parametrize("kind", ["good", "useless", "inverted"])
    def test_no_prediction_breaks_the_error_rate(self, kind: str) -> None:
        rng, n = np.random.default_rng(11), 300
        drawn = latent(n=n, noise=0.5, rng=rng)
        predicted = {
            "good": drawn.predicted(Foresight.HISTORY),
            "useless": rng.uniform(0, 1, n),
            "inverted": 1 - drawn.predicted(Foresight.MARGINS),
        }[kind]
        total = int((drawn.candidate - drawn.baseline).sum())
        for bound, wrong in ((Fraction(-total - 1, n), "pass"), (Fraction(-total, n), "fail")):
            plain = drop(scope=Scope.BENCHMARK, n=n, bound=bound, integral=True)
            test = control_variate.adjusted(plain, baseline=drawn.baseline, predicted=predicted)
            residuals = drawn.candidate - predicted
            found = repeat(test, residuals, runs=RUNS, rng=rng)
            assert rate(found.passed == (wrong == "pass")) <= TOO_OFTEN

    def test_a_good_prediction_saves_items(self) -> None:
        rng, n = np.random.default_rng(12), 1500
        used: dict[Foresight, list[int]] = {kind: [] for kind in Foresight}
        for _ in range(60):
            drawn, order = latent(n=n, noise=0.2, rng=rng), rng.permutation(n)
            for kind, items in used.items():
                predicted = drawn.predicted(kind)
                test = control_variate.adjusted(at_most_drop(n), baseline=drawn.baseline, predicted=predicted)
                items.append(decided(test, (drawn.candidate - predicted)[order])[0])
        assert np.mean(used[Foresight.MARGINS]) < 0.93 * np.mean(used[Foresight.NONE])
        assert np.mean(used[Foresight.HISTORY]) < 0.86 * np.mean(used[Foresight.NONE])

    def test_limits_of_residuals_are_taken_back_to_differences(self) -> None:
        rng, n = np.random.default_rng(13), 400
        drawn = latent(n=n, noise=0.3, rng=rng)
        predicted = drawn.predicted(Foresight.MARGINS)
        test = control_variate.adjusted(at_most_drop(n), baseline=drawn.baseline, predicted=predicted)
        residuals = drawn.candidate - predicted
        found = interval(test=test, differences=residuals, low_confidence=0.95, high_confidence=0.95)
        back = control_variate.shift(baseline=drawn.baseline, predicted=predicted)
        assert found.low + back == pytest.approx((drawn.candidate - drawn.baseline).mean(), abs=1e-12)
        assert test.mean + back == pytest.approx(at_most_drop(n).mean, abs=1e-12)

    def test_what_cannot_be_adjusted(self) -> None:
        zeros = np.zeros(3)
        population = drop(scope=Scope.POPULATION, n=3, bound=Fraction(3, 100), integral=True)
        with pytest.raises(ValueError, match="expected benchmark"):
            control_variate.adjusted(population, baseline=zeros, predicted=zeros)
        with pytest.raises(ValueError, match="expected 3 of each"):
            control_variate.adjusted(at_most_drop(3), baseline=zeros, predicted=np.zeros(2))
        for bad in (1.1, -0.1, math.nan):
            with pytest.raises(ValueError, match=r"outside 0\.\.1"):
                control_variate.adjusted(at_most_drop(3), baseline=zeros, predicted=np.full(3, bad))
