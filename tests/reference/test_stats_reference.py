"""Published numbers (statistics.md §1), scipy, and brute force, against our estimators."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.stats import binom, binomtest

from gate.stats import (
    bounded,
    cluster,
    document_ratio,
    jackknife,
    log_ratio,
    mean_ratio,
    nam_blackwelder,
    tango,
    wald,
    wilson,
)
from gate.stats.multiplicity import benjamini_hochberg, holm
from gate.stats.quantiles import small_sample, t, z

TWO_SIDED_95 = 0.975


class TestPublished:
    def test_tango_as_printed(self) -> None:
        result = tango.interval(lost=40, gained=20, n=160, confidence=TWO_SIDED_95)
        assert (result.estimate, result.low, result.high) == pytest.approx((-0.125, -0.21806, -0.03086), abs=5e-6)

    def test_bentur_data(self) -> None:
        # a, b, c, d = 1, 1, 7, 12: the difference is (c − b)/n
        score = tango.interval(lost=1, gained=7, n=21, confidence=TWO_SIDED_95)
        assert (score.low, score.high) == pytest.approx((0.026, 0.517), abs=5e-4)

    def test_bentur_data_newcombe_and_bonett_price_agree_with_tango_to_their_difference(self) -> None:
        assert _newcombe(1, 1, 7, 12) == pytest.approx((0.026, 0.507), abs=5e-4)
        assert _bonett_price(1, 1, 7, 12) == pytest.approx((0.013, 0.508), abs=5e-4)

    def test_cavo_data(self) -> None:
        """R, contingencytables: cells 59, 6, 16, 80; Tango (-0.1240, -0.0054), Wald (-0.1184, -0.0058),
        Newcombe (-0.1186, -0.0046), Bonett-Price (-0.1195, -0.0032)."""
        counts = {"lost": 16, "gained": 6, "n": 161}
        score, crude = (
            tango.interval(**counts, confidence=TWO_SIDED_95),
            wald.interval(**counts, confidence=TWO_SIDED_95),
        )
        assert (score.low, score.high) == pytest.approx((-0.1240, -0.0054), abs=5e-5)
        assert (crude.low, crude.high) == pytest.approx((-0.1184, -0.0058), abs=5e-5)
        assert _newcombe(59, 16, 6, 80) == pytest.approx((-0.1186, -0.0046), abs=5e-5)
        assert _bonett_price(59, 16, 6, 80) == pytest.approx((-0.1195, -0.0032), abs=5e-5)

    @pytest.mark.parametrize(("lost", "gained", "expected"), [(3, 9, 2.8117148), (9, 3, -0.3195892)])
    def test_tango_z(self, lost: int, gained: int, expected: float) -> None:
        assert tango.z_score(lost=lost, gained=gained, n=164, difference=-0.03) == pytest.approx(expected, abs=5e-8)

    def test_nam_z(self) -> None:
        found = nam_blackwelder.z_score(both=90, lost=12, gained=8, n=164, ratio=0.96)
        assert found == pytest.approx(0.0182506, abs=5e-8)

    def test_zero_flips_leave_162_points_of_doubt_at_humaneval(self) -> None:
        result = tango.interval(lost=0, gained=0, n=164, confidence=0.95)
        assert 100 * result.low == pytest.approx(-1.62, abs=5e-3)
        square = z(0.95) ** 2
        assert result.low == pytest.approx(-square / (164 + square), rel=1e-12)
        assert result.high == pytest.approx(-result.low, rel=1e-12)

    @pytest.mark.parametrize(
        ("n", "flips", "points"),
        [(164, 0.02, 2.8), (164, 0.06, 4.8), (164, 0.1, 6.1), (500, 0.06, 2.7), (1319, 0.06, 1.7), (14042, 0.1, 0.66)],
    )
    def test_smallest_resolvable_drop(self, n: int, flips: float, points: float) -> None:
        factor = z(0.95) + z(0.8)
        assert factor == pytest.approx(2.486, abs=5e-4)
        assert 100 * factor * math.sqrt(flips / n) == pytest.approx(points, abs=0.06 if points > 1 else 0.006)


class TestTangoByBruteForce:
    @pytest.mark.parametrize("difference", [-0.4, -0.03, 0.0, 0.05, 0.3])
    @pytest.mark.parametrize(("lost", "gained", "n"), [(3, 9, 164), (9, 3, 50), (0, 4, 30), (5, 0, 30), (7, 7, 20)])
    def test_z_with_the_likelihood_maximised_numerically(
        self, lost: int, gained: int, n: int, difference: float
    ) -> None:
        """Z from its definition: the variance at the constrained maximum of the trinomial likelihood."""

        def minus_log_likelihood(p_lost: float) -> float:
            p_gained = p_lost + difference
            terms = ((lost, p_lost), (gained, p_gained), (n - lost - gained, 1 - p_lost - p_gained))
            return -sum(k * math.log(max(p, 1e-300)) for k, p in terms if k)

        least, most = max(0.0, -difference), (1 - difference) / 2
        q = optimize.minimize_scalar(minus_log_likelihood, bounds=(least, most), options={"xatol": 1e-13}).x
        expected = (gained - lost - n * difference) / math.sqrt(n * (2 * q + difference - difference**2))
        found = tango.z_score(lost=lost, gained=gained, n=n, difference=difference)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)

    @pytest.mark.parametrize(("lost", "gained", "n"), [(3, 9, 164), (9, 3, 50), (1, 0, 10), (0, 12, 40)])
    def test_limits_are_where_z_crosses_the_quantile(self, lost: int, gained: int, n: int) -> None:
        result = tango.interval(lost=lost, gained=gained, n=n, confidence=0.95)
        for limit, sign in ((result.low, 1), (result.high, -1)):
            at = tango.z_score(lost=lost, gained=gained, n=n, difference=limit)
            assert at == pytest.approx(sign * 1.6448536, abs=1e-6)

    def test_everything_lost(self) -> None:
        result = tango.interval(lost=5, gained=0, n=5, confidence=0.95)
        square = z(0.95) ** 2
        assert result.low == result.estimate == -1.0
        assert result.high == pytest.approx(-(5 - square) / (5 + square), rel=1e-9)


class TestNamByBruteForce:
    @pytest.mark.parametrize("ratio", [0.5, 0.9, 0.96, 1.0, 1.2])
    @pytest.mark.parametrize(("a", "b", "c", "n"), [(90, 12, 8, 164), (20, 0, 3, 40), (10, 4, 0, 40), (5, 1, 2, 8)])
    def test_z_with_the_likelihood_maximised_numerically(self, a: int, b: int, c: int, n: int, ratio: float) -> None:
        """The four cells maximised under p(candidate) = r·p(baseline), by brute force over two of them."""
        d = n - a - b - c

        def cells(q: tuple[float, float]) -> tuple[float, float, float, float]:
            only_baseline, both = q
            only_candidate = ratio * (both + only_baseline) - both
            return both, only_baseline, only_candidate, 1 - both - only_baseline - only_candidate

        def minus_log_likelihood(q: tuple[float, float]) -> float:
            probabilities = cells(q)
            if min(probabilities) < -1e-9:
                return 1e6
            return -sum(k * math.log(max(p, 1e-12)) for k, p in zip((a, b, c, d), probabilities, strict=True) if k)

        starts = [(x, y) for x in (0.01, 0.1, 0.3) for y in (0.05, 0.2, 0.5)]
        options = {"xatol": 1e-11, "fatol": 1e-12, "maxiter": 4000, "maxfev": 8000}
        fits = [optimize.minimize(minus_log_likelihood, s, method="Nelder-Mead", options=options) for s in starts]
        _, only_baseline, only_candidate, _ = cells(tuple(min(fits, key=lambda f: float(f.fun)).x))
        expected = ((a + c) - ratio * (a + b)) / n / math.sqrt(ratio * (only_baseline + only_candidate) / n)
        found = nam_blackwelder.z_score(both=a, lost=b, gained=c, n=n, ratio=ratio)
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-5)

    def test_zero_flips(self) -> None:
        result = nam_blackwelder.interval(both=98, lost=0, gained=0, n=164, confidence=0.95)
        square = z(0.95) ** 2
        assert (result.low, result.high) == pytest.approx((98 / (98 + square), 1 + square / 98), rel=1e-9)

    def test_ratio_one_is_the_mcnemar_score(self) -> None:
        found = nam_blackwelder.z_score(both=90, lost=12, gained=8, n=164, ratio=1.0)
        assert found == pytest.approx((8 - 12) / math.sqrt(8 + 12), rel=1e-9)

    def test_nothing_right_in_the_candidate(self) -> None:
        result = nam_blackwelder.interval(both=0, lost=3, gained=0, n=30, confidence=0.95)
        assert result.low == result.estimate == 0.0
        assert 0.3 < result.high < 1.0


class TestWilson:
    @pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 7), (29, 30), (30, 30), (812, 1000)])
    def test_against_scipy(self, successes: int, n: int) -> None:
        expected = binomtest(successes, n).proportion_ci(confidence_level=0.9, method="wilson")
        found = wilson.interval(successes=successes, n=n, confidence=0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


class TestBounded:
    """The score test for real values is Tango, Nam–Blackwelder and Wilson when the values are 0 and 1."""

    @pytest.mark.parametrize(("lost", "gained", "same"), [(40, 20, 100), (3, 0, 47), (0, 0, 164), (1, 6, 3), (0, 5, 0)])
    def test_is_tango(self, lost: int, gained: int, same: int) -> None:
        n = lost + gained + same
        values = [-1.0] * lost + [1.0] * gained + [0.0] * same
        found = bounded.mean(values=values, smallest=-1, largest=1, confidence=0.95)
        expected = tango.interval(lost=lost, gained=gained, n=n, confidence=0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)

    @pytest.mark.parametrize(("both", "lost", "gained", "neither"), [(90, 12, 8, 54), (20, 0, 0, 3), (6, 4, 0, 2)])
    def test_is_nam_blackwelder(self, both: int, lost: int, gained: int, neither: int) -> None:
        baseline = [1.0] * (both + lost) + [0.0] * (gained + neither)
        candidate = [1.0] * both + [0.0] * lost + [1.0] * gained + [0.0] * neither
        found = bounded.retention(baseline=baseline, candidate=candidate, confidence=0.95)
        n = len(baseline)
        expected = nam_blackwelder.interval(both=both, lost=lost, gained=gained, n=n, confidence=0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-8)

    @pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 20), (20, 20)])
    def test_is_wilson(self, successes: int, n: int) -> None:
        values = [1.0] * successes + [0.0] * (n - successes)
        found = bounded.mean(values=values, smallest=0, largest=1, confidence=0.95)
        expected = wilson.interval(successes=successes, n=n, confidence=0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)

    def test_is_nearly_t_when_values_are_many_and_spread(self) -> None:
        values = [math.sin(i) / 2 for i in range(2000)]
        found = bounded.mean(values=values, smallest=-1, largest=1, confidence=0.95)
        low, high = stats.t.interval(0.9, 1999, loc=np.mean(values), scale=stats.sem(values))
        assert (found.low, found.high) == pytest.approx((low, high), abs=2e-4)


class TestAgainstScipy:
    def test_cluster_mean_of_single_items_is_student(self) -> None:
        values = [0.1, -0.3, 0.2, 0.0, 0.4, -0.1]
        found = cluster.mean(values=values, clusters=range(6), confidence=0.95)
        low, high = stats.t.interval(0.9, 5, loc=np.mean(values), scale=stats.sem(values))
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)

    def test_cluster_mean_as_the_formula_says(self) -> None:
        values, clusters = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0], ["a", "a", "b", "b", "c", "c"]
        mean = 4 / 6
        sums = [1 - 2 * mean, 2 - 2 * mean, 1 - 2 * mean]
        expected = math.sqrt(sum(s * s for s in sums) * 3 / 2) / 6
        found = cluster.mean(values=values, clusters=clusters, confidence=0.95)
        assert found.standard_error == pytest.approx(expected, rel=1e-12)
        assert found.high - found.estimate == pytest.approx(stats.t.ppf(0.95, 2) * expected, rel=1e-12)

    def test_log_ratio_is_a_paired_t_test_on_logs(self) -> None:
        baseline, candidate = [10.0, 11.0, 10.5, 9.9], [9.8, 10.6, 10.6, 9.5]
        logs = np.log(np.array(candidate) / np.array(baseline))
        expected = stats.ttest_1samp(logs, 0).confidence_interval(0.9)
        found = log_ratio.interval(baseline=baseline, candidate=candidate, confidence=0.95)
        assert (found.low, found.high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)), rel=1e-12)

    def test_document_ratio_of_equal_documents_is_student(self) -> None:
        values = [0.01 * i for i in range(10)]
        found = document_ratio.interval(
            values=values, weights=[256.0] * 10, documents=range(10), confidence=0.95, least_half_width=1e-9
        )
        low, high = stats.t.interval(0.9, 9, loc=np.mean(values), scale=stats.sem(values))
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)

    def test_document_ratio_weighs_by_tokens(self) -> None:
        found = document_ratio.interval(
            values=[1.0] * 8 + [3.0],
            weights=[100.0] * 8 + [400.0],
            documents=range(9),
            confidence=0.95,
            least_half_width=1e-9,
        )
        assert found.estimate == pytest.approx((800 + 1200) / 1200)
        residuals = [100 * (1 - found.estimate)] * 8 + [400 * (3 - found.estimate)]
        assert found.standard_error == pytest.approx(math.sqrt(sum(r * r for r in residuals) * 9 / 8) / 1200)

    def test_jackknife_of_a_mean_over_equal_groups_is_student(self) -> None:
        groups = [0.8, 0.9, 0.7, 0.85, 0.75]
        deleted = [(sum(groups) - g) / 4 for g in groups]
        found = jackknife.interval(full=0.8, deleted=deleted, confidence=0.95, least_half_width=1e-9)
        assert found.standard_error == pytest.approx(stats.sem(groups), rel=1e-12)
        assert found.high == pytest.approx(0.8 + stats.t.ppf(0.95, 4) * stats.sem(groups), rel=1e-12)

    def test_mean_ratio_is_the_textbook_ratio_estimator(self) -> None:
        baseline, candidate = [10.0, 20.0, 30.0, 25.0] * 100, [11.0, 19.0, 33.0, 24.0] * 100
        ratio = sum(candidate) / sum(baseline)
        residuals = np.array(candidate) - ratio * np.array(baseline)
        expected = math.sqrt(residuals.var(ddof=1) / 400) / np.mean(baseline)
        found = mean_ratio.interval(baseline=baseline, candidate=candidate, confidence=0.95)
        assert found.estimate == pytest.approx(ratio)
        assert found.standard_error == pytest.approx(expected, rel=1e-9)

    def test_wald_ratio_is_where_the_wald_test_of_c_minus_rb_turns(self) -> None:
        found = wald.retention(both=90, lost=12, gained=8, n=164, confidence=0.95)
        values = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [90, 12, 8, 54], axis=0)
        for limit, sign in ((found.low, 1), (found.high, -1)):
            e = values[:, 1] - limit * values[:, 0]
            assert e.mean() / (e.std() / math.sqrt(164)) == pytest.approx(sign * z(0.95), rel=1e-9)

    def test_quantiles(self) -> None:
        assert t(0.95, 7) == pytest.approx(stats.t.ppf(0.95, 7), rel=1e-12)
        assert z(0.95) == pytest.approx(stats.norm.ppf(0.95), rel=1e-12)


class TestMultiplicity:
    P_VALUES = (0.01, 0.04, 0.03, 0.005, 0.2)

    def test_holm_by_hand(self) -> None:
        # 0.005 ≤ 0.05/5, 0.01 ≤ 0.05/4, then 0.03 > 0.05/3 stops it
        assert holm(self.P_VALUES, 0.05) == (True, False, False, True, False)

    @pytest.mark.parametrize("level", [0.01, 0.05, 0.1, 0.3])
    def test_benjamini_hochberg_against_scipy(self, level: float) -> None:
        adjusted = stats.false_discovery_control(self.P_VALUES, method="bh")
        assert benjamini_hochberg(self.P_VALUES, level) == tuple(bool(p <= level) for p in adjusted)

    def test_nothing_to_reject(self) -> None:
        assert holm((), 0.05) == ()
        assert benjamini_hochberg((), 0.1) == ()


class TestErrorRates:
    """A7, A8 of statistics.md for fixed n: how often a candidate at the margin is decided wrongly, exactly."""

    @pytest.mark.parametrize("n", [100, 164, 300, 500])
    @pytest.mark.parametrize("margin", [0.01, 0.03, 0.05, 0.1])
    def test_pure_losses_at_the_margin_pass_rarely(self, n: int, margin: float) -> None:
        """Every flip is a loss: no score interval has a harder case.  Enumerated, not simulated."""
        level = small_sample(0.95, n)
        most = 0
        while -tango.interval(lost=most, gained=0, n=n, confidence=level).low <= margin:
            most += 1
        assert binom.cdf(most - 1, n, margin) <= 0.065

    @pytest.mark.parametrize(("n", "flips"), [(164, 0.06), (164, 0.1), (500, 0.06), (1319, 0.035)])
    def test_simulated_error_rates_at_the_margin(self, n: int, flips: float) -> None:
        rng = np.random.default_rng(20261120)
        margin, runs = 0.03, 4000
        draws = rng.multinomial(n, [(flips + margin) / 2, (flips - margin) / 2, 1 - flips], size=runs)
        judged: dict[tuple[int, int], tuple[bool, bool]] = {}
        passes = fails = 0
        for b, c, _ in draws.tolist():
            if (b, c) not in judged:
                score = tango.interval(lost=b, gained=c, n=n, confidence=small_sample(0.95, n))
                crude = wald.interval(lost=b, gained=c, n=n, confidence=0.95)
                judged[b, c] = (-score.low <= margin, -max(score.high, crude.high) > margin)
            passed, failed = judged[b, c]
            passes, fails = passes + passed, fails + failed
        assert passes / runs <= 0.065
        assert fails / runs <= 0.065
        assert passes / runs >= 0.02  # and it is no interval that simply never decides

    def test_a_model_against_itself_rarely_fails(self) -> None:
        """A12: the same model twice, 6 % noisy flips, and a bound of no drop at all."""
        rng = np.random.default_rng(12)
        n, runs = 500, 500
        fails = 0
        for b, c, _ in rng.multinomial(n, [0.03, 0.03, 0.94], size=runs).tolist():
            score = tango.interval(lost=b, gained=c, n=n, confidence=0.95)
            crude = wald.interval(lost=b, gained=c, n=n, confidence=0.95)
            fails += -max(score.high, crude.high) > 0
        assert fails / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)

    @pytest.mark.parametrize(("ratio", "right"), [(0.97, 0.95), (0.97, 0.5), (0.9, 0.3)])
    def test_retention_at_the_margin(self, ratio: float, right: float) -> None:
        rng = np.random.default_rng(21)
        n, runs, gain, level = 300, 3000, 0.02, small_sample(0.95, 300)
        lost = (1 - ratio) * right + gain
        draws = rng.multinomial(n, [right - lost, lost, gain, 1 - right - gain], size=runs)
        judged: dict[tuple[int, int, int], tuple[bool, bool]] = {}
        passes = fails = 0
        for a, b, c, _ in draws.tolist():
            if (a, b, c) not in judged:
                counts = {"both": a, "lost": b, "gained": c, "n": n}
                score = nam_blackwelder.z_score(**counts, ratio=ratio)
                beyond = score < -z(level) and wald.retention(**counts, confidence=0.95).high < ratio
                judged[a, b, c] = (score >= z(level), beyond)
            passed, failed = judged[a, b, c]
            passes, fails = passes + passed, fails + failed
        assert 0.03 <= passes / runs <= 0.065
        assert fails / runs <= 0.065

    @pytest.mark.parametrize(
        ("n", "margin", "size"), [(30, 0.01, 0.8), (50, 0.03, 0.5), (164, 0.03, 0.5), (300, 0.05, 0.2)]
    )
    def test_partial_losses_at_the_margin_pass_rarely(self, n: int, margin: float, size: float) -> None:
        """Each item loses `size` with probability margin/size.  Enumerated over how many did."""

        def drops(lost: int) -> list[float]:
            return [size] * lost + [0.0] * (n - lost)

        level = small_sample(0.95, n)
        most = 0
        while bounded.mean(values=drops(most), smallest=-1, largest=1, confidence=level).high <= margin:
            most += 1
        assert binom.cdf(most - 1, n, margin / size) <= 0.055

    def test_a_t_interval_alone_would_pass_two_thirds_of_them(self) -> None:
        n, margin, size = 30, 0.01, 0.8
        most = 0
        while (
            cluster.mean(values=[size] * most + [0.0] * (n - most), clusters=range(n), confidence=0.95).high <= margin
        ):
            most += 1
        assert binom.cdf(most - 1, n, margin / size) == pytest.approx(0.686, abs=0.001)


class TestDocuments:
    """A11: documents are the units; tokens taken as independent undercover."""

    def test_coverage_with_64_dependent_documents(self) -> None:
        rng = np.random.default_rng(11)
        runs, documents, tokens, level = 1500, 64, 64, TWO_SIDED_95
        covered = covered_iid = 0
        for _ in range(runs):
            means = rng.normal(0, 0.05, documents)  # design effect 1 + 64·(.05/.2)² ≈ 5
            values = means + rng.normal(0, 0.2 / math.sqrt(tokens), documents)
            found = document_ratio.interval(
                values=values.tolist(),
                weights=[float(tokens)] * documents,
                documents=range(documents),
                confidence=level,
                least_half_width=1e-9,
            )
            covered += found.low <= 0 <= found.high
            half = z(level) * 0.2 / math.sqrt(documents * tokens)
            covered_iid += abs(found.estimate) <= half
        assert 0.93 <= covered / runs <= 0.97
        assert covered_iid / runs <= 0.88

    def test_refuses_seven_documents(self) -> None:
        with pytest.raises(ValueError, match="found 7 documents, expected at least 8"):
            document_ratio.interval(
                values=[0.0] * 14, weights=[1.0] * 14, documents=[*range(7)] * 2, confidence=0.95, least_half_width=1e-9
            )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tango.interval(lost=3, gained=3, n=5, confidence=0.95), "found 3 lost and 3 gained of 5 pairs"),
        (lambda: tango.interval(lost=0, gained=0, n=0, confidence=0.95), "of 0 pairs"),
        (lambda: nam_blackwelder.interval(both=0, lost=0, gained=2, n=5, confidence=0.95), "right on no item"),
        (lambda: wald.retention(both=0, lost=0, gained=2, n=5, confidence=0.95), "right on no item"),
        (lambda: wilson.interval(successes=4, n=3, confidence=0.95), "found 4 of 3"),
        (lambda: bounded.mean(values=[0.5, 1.5], smallest=0, largest=1, confidence=0.95), "all in [0, 1]"),
        (lambda: bounded.retention(baseline=[0.0], candidate=[1.0], confidence=0.95), "something to retain"),
        (lambda: cluster.mean(values=[1.0, 0.0], clusters=["a", "a"], confidence=0.95), "found 1 clusters"),
        (lambda: mean_ratio.interval(baseline=[1.0], candidate=[1.0], confidence=0.95), "at least 2"),
        (lambda: mean_ratio.interval(baseline=[0.0, 0.0], candidate=[1.0, 1.0], confidence=0.95), "baseline is 0"),
        (lambda: log_ratio.interval(baseline=[1.0, 0.0], candidate=[1.0, 1.0], confidence=0.95), "value positive"),
        (
            lambda: jackknife.interval(full=0.5, deleted=[0.5], confidence=0.95, least_half_width=0.1),
            "found 1 delete-group scores",
        ),
    ],
)
def test_what_cannot_be_estimated_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def _newcombe(a: int, b: int, c: int, d: int) -> tuple[float, float]:
    """Newcombe 1998 (17:2635), method 10, for (c − b)/n."""
    n = a + b + c + d
    second, first = (
        wilson.interval(successes=a + b, n=n, confidence=TWO_SIDED_95),
        wilson.interval(successes=a + c, n=n, confidence=TWO_SIDED_95),
    )
    product = (a + b) * (c + d) * (a + c) * (b + d)
    surplus = a * d - b * c
    phi = (max(surplus - n / 2, 0.0) if surplus > 0 else surplus) / math.sqrt(product)
    d1, u1 = first.estimate - first.low, first.high - first.estimate
    d2, u2 = second.estimate - second.low, second.high - second.estimate
    estimate = first.estimate - second.estimate
    low = estimate - math.sqrt(d1**2 - 2 * phi * d1 * u2 + u2**2)
    return low, estimate + math.sqrt(u1**2 - 2 * phi * u1 * d2 + d2**2)


def _bonett_price(a: int, b: int, c: int, d: int) -> tuple[float, float]:
    """Bonett and Price 2012: add one to each discordant cell, Wald on n + 2."""
    n = a + b + c + d
    p_b, p_c = (b + 1) / (n + 2), (c + 1) / (n + 2)
    half = z(TWO_SIDED_95) * math.sqrt((p_b + p_c - (p_c - p_b) ** 2) / (n + 2))
    return p_c - p_b - half, p_c - p_b + half


def test_bounded_limits_at_a_confidence_of_one_half() -> None:
    """The p-value search looks there; rounding decides the sign of the slope at the estimate."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        values = rng.choice([-2 / 3, -1 / 3, -1 / 6, 0.0, 1 / 6, 1 / 2], size=600)
        found = bounded.mean(values=values.tolist(), smallest=-1, largest=1, confidence=0.5)
        assert found.low <= found.estimate <= found.high
