"""Exact tests of paired differences: R's published values, brute force, and error rates by enumeration."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, hypergeom, multinomial, multivariate_hypergeom

from gate.stats import exact_finite, exact_unconditional, nam_blackwelder, tango
from gate.stats.finite_population import variance_factor
from gate.stats.quantiles import z
from gate.stats.tango_table import least_gained

Region = NDArray[np.bool_]


def scores(n: int, difference: float) -> dict[tuple[int, int], float]:
    """Tango's Z of every table, one by one."""
    return {
        (b, c): tango.z_score(lost=b, gained=c, n=n, difference=difference)
        for b in range(n + 1)
        for c in range(n + 1 - b)
    }


def where(passes: Callable[[tuple[int, int]], bool], z_scores: dict[tuple[int, int], float], n: int) -> Region:
    """Tables that pass, found by bisection over Z: a larger Z never has a larger p-value."""
    ordered = sorted(z_scores, key=lambda table: z_scores[table])
    low, high = -1, len(ordered)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(ordered[middle]) else (middle, high)
    region = np.zeros((n + 1, n + 1), dtype=np.bool_)
    for b, c in ordered[high:]:
        region[b, c] = True
    return region


class TestExactUnconditional:
    def test_cavo_2012_against_r(self) -> None:
        """R, contingencytables 2.0: McNemar_exact_unconditional_test_paired_2x2(cavo_2012), P = 0.034053.

        R maximises over a 99.99 % interval of the nuisance parameter and adds 1e-4 (Berger and Boos): a little less.
        """
        p = 2 * exact_unconditional.p_value(lost=6, gained=16, n=161, difference=0.0)
        assert p == pytest.approx(0.034053, abs=2e-4)

    @pytest.mark.parametrize(
        ("lost", "gained", "n", "difference"),
        [(1, 7, 21, 0.0), (1, 7, 21, 0.05), (0, 0, 12, -0.2), (4, 2, 15, -0.4), (0, 3, 9, 0.1), (5, 5, 10, -0.1)],
    )
    def test_p_value_by_brute_force(self, lost: int, gained: int, n: int, difference: float) -> None:
        found = exact_unconditional.p_value(lost=lost, gained=gained, n=n, difference=difference)
        z_scores = scores(n, difference)
        extreme = np.array([t for t, s in z_scores.items() if s >= z_scores[lost, gained] - 1e-9])
        tables = np.column_stack([extreme, n - extreme.sum(axis=1)])
        worst = max(
            multinomial.pmf(tables, n, [q, q + difference, max(1 - 2 * q - difference, 0.0)]).sum()
            for q in np.linspace(max(0.0, -difference), (1 - difference) / 2, 2001)
        )
        assert found == pytest.approx(worst, abs=2e-5)
        assert found >= worst - 1e-9

    @pytest.mark.parametrize(
        ("n", "margin", "least"),
        [(10, 0.3, 0.04), (30, 0.1, 0.04), (50, 0.05, 0.035), (100, 0.03, 0.04), (164, 0.03, 0.045)],
    )
    def test_false_pass_rate_by_enumeration(self, n: int, margin: float, least: float) -> None:
        """At the margin, for any flip rate: never more than α; Tango's own limits reach 9.4 % at n = 10."""

        def passes(table: tuple[int, int]) -> bool:
            return exact_unconditional.p_value(lost=table[0], gained=table[1], n=n, difference=-margin) <= 0.05

        region = where(passes, scores(n, -margin), n)
        rates = np.array([self._rate(region, n, q, -margin) for q in np.linspace(margin, (1 + margin) / 2, 600)])
        assert least <= rates.max() <= 0.05 + 1e-6

    @staticmethod
    def _rate(region: Region, n: int, p_lost: float, difference: float) -> float:
        lost = np.arange(n + 1)
        gained = binom.pmf(lost[None, :], n - lost[:, None], min((p_lost + difference) / max(1 - p_lost, 1e-12), 1.0))
        return float(binom.pmf(lost, n, p_lost) @ np.where(region, gained, 0.0).sum(axis=1))

    @pytest.mark.parametrize(("lost", "gained", "n"), [(0, 0, 30), (2, 5, 40), (9, 3, 80), (0, 4, 12), (8, 0, 9)])
    def test_limits_are_where_the_test_turns(self, lost: int, gained: int, n: int) -> None:
        found = exact_unconditional.interval(lost=lost, gained=gained, n=n, confidence=0.95)
        assert found.low < found.estimate
        for difference in np.linspace(-1, found.low, 7)[:-1]:
            p = exact_unconditional.p_value(lost=lost, gained=gained, n=n, difference=float(difference))
            assert p <= 0.05
        inside = found.low + 1e-6
        assert exact_unconditional.p_value(lost=lost, gained=gained, n=n, difference=inside) > 0.05 - 1e-4

    def test_everything_lost(self) -> None:
        found = exact_unconditional.interval(lost=5, gained=0, n=5, confidence=0.95)
        assert found.low == found.estimate == -1.0
        assert -1.0 < found.high < 0.0

    def test_no_flips_is_the_binomial_limit(self) -> None:
        """With no flips the worst case is "every flip is a loss": (1 + low)ⁿ = α."""
        found = exact_unconditional.interval(lost=0, gained=0, n=164, confidence=0.95)
        assert found.low == pytest.approx(0.05 ** (1 / 164) - 1, abs=2e-8)
        assert found.high == -found.low

    @pytest.mark.parametrize("difference", [-0.7, -0.03, 0.0, 0.2])
    @pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 9), (9, 3), (0, 20), (12, 0)])
    def test_the_tables_are_those_of_the_scalar_statistic(self, lost: int, gained: int, difference: float) -> None:
        n = 24
        found = least_gained(lost=lost, gained=gained, n=n, difference=difference)
        z_scores = scores(n, difference)
        seen = z_scores[lost, gained]
        for b in range(n + 1):
            reached = [c for c in range(n + 1 - b) if z_scores[b, c] >= seen - 1e-9 * max(1.0, abs(seen))]
            assert found[b] == (min(reached) if reached else n + 1)
            assert reached == list(range(min(reached), n + 1 - b)) if reached else True


class TestExactFinite:
    @pytest.mark.parametrize(
        ("lost", "gained", "n", "population", "total"),
        [(0, 0, 6, 12, -2), (1, 2, 6, 12, -1), (2, 1, 5, 14, 0), (0, 3, 7, 10, 1), (3, 0, 8, 11, -4)],
    )
    def test_p_value_by_brute_force(self, lost: int, gained: int, n: int, population: int, total: int) -> None:
        z_scores = scores(n, total / population)
        extreme = [t for t, s in z_scores.items() if s >= z_scores[lost, gained] - 1e-9]
        worst = 0.0
        for in_urn in range(max(0, -total), (population - total) // 2 + 1):
            urn = [in_urn, in_urn + total, population - 2 * in_urn - total]
            worst = max(worst, sum(float(multivariate_hypergeom.pmf([b, c, n - b - c], urn, n)) for b, c in extreme))
        found = exact_finite.p_value(lost=lost, gained=gained, n=n, population=population, total=total)
        assert found == pytest.approx(worst, rel=1e-9)

    @pytest.mark.parametrize(("n", "population", "margin"), [(82, 164, 0.03), (120, 164, 0.03), (140, 164, 0.01)])
    @pytest.mark.parametrize("alpha", [0.05, 0.025])
    def test_false_pass_rate_by_enumeration(self, n: int, population: int, margin: float, alpha: float) -> None:
        """One item beyond the margin, any number of flips: never more than α, where Tango's factor reaches 2–3 α."""
        total = math.ceil(-margin * population) - 1
        z_scores = scores(n, total / population)

        def passes(table: tuple[int, int]) -> bool:
            counts = {"lost": table[0], "gained": table[1], "n": n, "population": population}
            return exact_finite.p_value(**counts, total=total) <= alpha

        root = math.sqrt(variance_factor(n=n, population=population))
        approximate = where(lambda table: z_scores[table] / root >= z(1 - alpha), z_scores, n)
        exact_rate = self._worst_rate(where(passes, z_scores, n), n, population, total)
        assert exact_rate <= alpha + 1e-9
        assert self._worst_rate(approximate, n, population, total) > 1.2 * alpha

    @staticmethod
    def _worst_rate(region: Region, n: int, population: int, total: int) -> float:
        lost, worst = np.arange(n + 1), 0.0
        for gained_in_urn in range((population + total) // 2 + 1):
            lost_in_urn = gained_in_urn - total
            given = hypergeom.pmf(
                lost[None, :], population - lost_in_urn, gained_in_urn, np.maximum(n - lost[:, None], 0)
            )
            weight = hypergeom.pmf(lost, population, lost_in_urn, n)
            worst = max(worst, float(weight @ np.where(region, np.nan_to_num(given), 0.0).sum(axis=1)))
        return worst

    def test_zero_flips(self) -> None:
        """Half is seen, without flips: the limit is the most losses K that one misses with more than 2.5 %."""
        found = exact_finite.interval(lost=0, gained=0, n=82, population=164, confidence=0.975)
        missed = [math.comb(164 - k, 82) / math.comb(164, 82) for k in range(10)]
        assert round(found.low * 164) == -max(k for k, p in enumerate(missed) if p > 0.025)

    def test_many_urns_agree_with_all_urns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        counts = {"lost": 4, "gained": 6, "n": 60, "population": 1500, "total": -46}
        quick = exact_finite.p_value(**counts)
        monkeypatch.setattr(exact_finite, "_ALL", 10**6)
        assert quick == pytest.approx(exact_finite.p_value(**counts), rel=1e-6)

    def test_a_large_population_is_the_unconditional_test(self) -> None:
        finite = exact_finite.p_value(lost=3, gained=9, n=50, population=100_000, total=-3000)
        infinite = exact_unconditional.p_value(lost=3, gained=9, n=50, difference=-0.03)
        assert finite == pytest.approx(infinite, rel=2e-3)

    def test_what_the_seen_items_settle(self) -> None:
        counts = {"lost": 5, "gained": 1, "n": 10, "population": 12}
        assert exact_finite.p_value(**counts, total=-7) == 0.0  # at least −6 is certain
        assert exact_finite.p_value(**counts, total=-2) == 1.0  # at most −2 is certain


class TestFinitePopulation:
    def test_factor(self) -> None:
        assert variance_factor(n=82, population=164) == pytest.approx(82 / 163)
        assert variance_factor(n=1, population=2) == 1.0
        assert variance_factor(n=164, population=None) == 1.0

    @pytest.mark.parametrize(("lost", "gained"), [(0, 0), (9, 3), (3, 9)])
    def test_tango_z_grows_by_the_root_of_the_factor(self, lost: int, gained: int) -> None:
        whole = tango.z_score(lost=lost, gained=gained, n=82, difference=-0.03)
        found = tango.z_score(lost=lost, gained=gained, n=82, difference=-0.03, population=164)
        assert found == pytest.approx(whole / math.sqrt(82 / 163), rel=1e-12)

    def test_tango_limits(self) -> None:
        found = tango.interval(lost=9, gained=3, n=82, confidence=0.95, population=164)
        for limit, sign in ((found.low, 1), (found.high, -1)):
            at = tango.z_score(lost=9, gained=3, n=82, difference=limit, population=164)
            assert at == pytest.approx(sign * z(0.95), abs=1e-6)
        whole = tango.interval(lost=9, gained=3, n=82, confidence=0.95)
        assert whole.low < found.low < found.high < whole.high

    def test_nam_blackwelder_limits(self) -> None:
        counts = {"both": 50, "lost": 6, "gained": 4, "n": 82}
        found = nam_blackwelder.interval(**counts, confidence=0.95, population=164)
        for limit, sign in ((found.low, 1), (found.high, -1)):
            assert nam_blackwelder.z_score(**counts, ratio=limit, population=164) == pytest.approx(
                sign * z(0.95), abs=1e-6
            )
        whole = nam_blackwelder.interval(**counts, confidence=0.95)
        assert whole.low < found.low < found.high < whole.high

    def test_half_of_a_large_benchmark_at_the_margin(self) -> None:
        """At n = 700 of 1,400 and 6 % flips the approximation with the factor is right: between 4 and 5.5 %."""
        n, population, total = 700, 1400, -43
        rng = np.random.default_rng(1400)
        lost, gained = 63, 20
        draws = rng.multivariate_hypergeometric([lost, gained, population - lost - gained], n, size=20_000)
        tables, times = np.unique(draws[:, :2], axis=0, return_counts=True)
        passes = sum(
            int(k)
            for (b, c), k in zip(tables.tolist(), times, strict=True)
            if tango.z_score(lost=b, gained=c, n=n, difference=total / population, population=population) >= z(0.95)
        )
        assert 0.04 <= passes / 20_000 <= 0.055


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact_unconditional.p_value(lost=1, gained=1, n=201, difference=0.0), "found 201 pairs"),
        (lambda: exact_unconditional.p_value(lost=1, gained=1, n=20, difference=1.5), "difference of 1.5"),
        (lambda: exact_unconditional.interval(lost=11, gained=10, n=20, confidence=0.95), "found 11 lost"),
        (lambda: exact_finite.p_value(lost=1, gained=1, n=401, population=900, total=0), "found 401 pairs"),
        (
            lambda: exact_finite.p_value(lost=1, gained=1, n=20, population=20, total=0),
            "20 items of a population of 20",
        ),
        (lambda: exact_finite.interval(lost=-1, gained=1, n=20, population=30, confidence=0.95), "found -1 lost"),
        (lambda: tango.interval(lost=1, gained=1, n=9, confidence=0.95, population=9), "9 items of a population of 9"),
        (
            lambda: nam_blackwelder.interval(both=3, lost=1, gained=1, n=9, confidence=0.95, population=8),
            "9 items of a population of 8",
        ),
    ],
)
def test_what_cannot_be_tested_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_every_p_value_falls_as_more_is_gained() -> None:
    for b, c in itertools.product(range(4), range(6)):
        more = exact_unconditional.p_value(lost=b, gained=c + 1, n=20, difference=-0.1)
        assert more <= exact_unconditional.p_value(lost=b, gained=c, n=20, difference=-0.1)


class TestNoWidthLost:
    def test_all_but_one_seen_without_flips(self) -> None:
        """One loss among 100 is missed by the 99 seen with probability 1 %: only a total of 0 is left, kept apart."""
        assert exact_finite.p_value(lost=0, gained=0, n=99, population=100, total=-1) == pytest.approx(0.01)
        found = exact_finite.interval(lost=0, gained=0, n=99, population=100, confidence=0.95)
        assert (found.low, found.estimate, found.high) == (-0.01, 0.0, 0.01)
