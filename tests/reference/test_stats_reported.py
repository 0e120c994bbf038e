"""Tests that are reported and never the gate: McNemar, pooled permutation, unpaired z; Hodges–Lehmann on timings."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency, wilcoxon

from gate.stats import exact_unconditional, hodges_lehmann, mcnemar, pooled_permutation, two_proportions
from gate.stats.pooled_permutation import TaskFlips


class TestMcNemar:
    @pytest.mark.parametrize(
        ("lost", "gained", "expected"),
        [(121, 59, 4e-6), (70, 59, 0.378688), (80, 59, 0.089452), (30, 60, 0.00206), (10, 30, 0.002221), (10, 10, 1.0)],
    )
    def test_against_statsmodels(self, lost: int, gained: int, expected: float) -> None:
        """statsmodels, stats/tests/test_nonparametric.py, mcnemar(exact=True): six decimals."""
        assert mcnemar.p_values(lost=lost, gained=gained).exact_two_sided == pytest.approx(expected, abs=1e-6)

    def test_bentur_and_cavo_against_r(self) -> None:
        """Fagerland et al. 2013, and R, contingencytables: exact P = 0.052479, mid-P P = 0.034690."""
        cavo = mcnemar.p_values(lost=16, gained=6)
        assert (cavo.exact_two_sided, cavo.mid_two_sided) == pytest.approx((0.052479, 0.034690), abs=5e-7)
        bentur = mcnemar.p_values(lost=1, gained=7)
        assert (bentur.exact_two_sided, bentur.mid_two_sided) == pytest.approx((0.0703125, 0.0390625), rel=1e-12)

    @pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 0), (5, 5), (9, 3), (400, 431)])
    def test_one_sided_against_scipy(self, lost: int, gained: int) -> None:
        found = mcnemar.p_values(lost=lost, gained=gained)
        if lost + gained == 0:
            assert (found.exact_worse, found.exact_better, found.exact_two_sided) == (1.0, 1.0, 1.0)
            return
        flips = lost + gained
        assert found.exact_worse == pytest.approx(binomtest(lost, flips, alternative="greater").pvalue, rel=1e-9)
        assert found.exact_better == pytest.approx(binomtest(lost, flips, alternative="less").pvalue, rel=1e-9)
        assert found.exact_two_sided == pytest.approx(binomtest(lost, flips).pvalue, rel=1e-9)

    @pytest.mark.parametrize(("lost", "gained"), [(9, 3), (3, 9), (6, 6), (0, 4), (60, 80)])
    def test_mid_p_halves_the_observed_table(self, lost: int, gained: int) -> None:
        found = mcnemar.p_values(lost=lost, gained=gained)
        assert found.mid_worse + found.mid_better == pytest.approx(1.0, rel=1e-12)
        assert found.exact_worse - found.mid_worse == pytest.approx(found.exact_better - found.mid_better, rel=1e-9)
        assert found.mid_two_sided <= found.exact_two_sided

    def test_is_silent_about_a_margin(self) -> None:
        """4 of 50 lost and none gained is "not significant", yet no rule of 3 pp may pass on it."""
        assert mcnemar.p_values(lost=4, gained=0).exact_worse > 0.05
        assert exact_unconditional.p_value(lost=4, gained=0, n=50, difference=-0.03) > 0.5

    def test_many_flips(self) -> None:
        found = mcnemar.p_values(lost=7_500, gained=7_000)
        assert found.exact_worse == pytest.approx(binomtest(7_500, 14_500, alternative="greater").pvalue, rel=1e-6)


def every_swap(tasks: list[TaskFlips], by_tasks: bool) -> tuple[float, float]:
    """p_worse and p_better from all sign flips of all discordant items, in exact fractions."""
    weights = [Fraction(1, t.n) if by_tasks else Fraction(1) for t in tasks for _ in range(t.lost + t.gained)]
    signs = [s for t in tasks for s in [-1] * t.lost + [1] * t.gained]
    seen = sum(w * s for w, s in zip(weights, signs, strict=True))
    sums = [
        sum(w * s for w, s in zip(weights, swapped, strict=True))
        for swapped in itertools.product((-1, 1), repeat=len(signs))
    ]
    return sum(x <= seen for x in sums) / len(sums), sum(x >= seen for x in sums) / len(sums)


SMALL = [
    [TaskFlips(lost=3, gained=1, n=20), TaskFlips(lost=2, gained=4, n=30)],
    [TaskFlips(lost=5, gained=0, n=7), TaskFlips(lost=0, gained=2, n=7), TaskFlips(lost=1, gained=1, n=11)],
    [TaskFlips(lost=0, gained=0, n=9), TaskFlips(lost=4, gained=3, n=13)],
    [TaskFlips(lost=2, gained=2, n=10)],
    [TaskFlips(lost=0, gained=0, n=9)],
]


class TestPooledPermutation:
    @pytest.mark.parametrize("tasks", SMALL)
    def test_by_tasks_against_every_swap(self, tasks: list[TaskFlips]) -> None:
        found = pooled_permutation.by_tasks(tasks=tasks)
        assert found.exact
        assert (found.p_worse, found.p_better) == pytest.approx(every_swap(tasks, by_tasks=True), rel=1e-12)

    @pytest.mark.parametrize("tasks", SMALL)
    def test_by_items_against_every_swap(self, tasks: list[TaskFlips]) -> None:
        found = pooled_permutation.by_items(tasks=tasks)
        assert (found.p_worse, found.p_better) == pytest.approx(every_swap(tasks, by_tasks=False), rel=1e-12)

    def test_what_is_pooled(self) -> None:
        tasks = [TaskFlips(lost=10, gained=0, n=100), TaskFlips(lost=0, gained=30, n=1000)]
        assert pooled_permutation.by_items(tasks=tasks).statistic == pytest.approx(20 / 1100)
        assert pooled_permutation.by_tasks(tasks=tasks).statistic == pytest.approx((-0.1 + 0.03) / 2)
        assert (
            pooled_permutation.by_items(tasks=tasks).p_better < 0.05 < pooled_permutation.by_items(tasks=tasks).p_worse
        )
        assert pooled_permutation.by_tasks(tasks=tasks).p_worse < 0.05

    def test_one_task_is_mcnemar(self) -> None:
        expected = mcnemar.p_values(lost=9, gained=3)
        for pooled in (pooled_permutation.by_items, pooled_permutation.by_tasks):
            found = pooled(tasks=[TaskFlips(lost=9, gained=3, n=164)])
            assert (found.p_worse, found.p_better) == pytest.approx((expected.exact_worse, expected.exact_better))

    def test_a_grid_too_coarse_errs_to_the_safe_side_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tasks = [
            TaskFlips(lost=9, gained=4, n=164),
            TaskFlips(lost=30, gained=21, n=541),
            TaskFlips(lost=60, gained=45, n=1319),
        ]
        fine = pooled_permutation.by_tasks(tasks=tasks)
        assert fine.exact
        monkeypatch.setattr(pooled_permutation, "_CELLS", 2**13)
        coarse = pooled_permutation.by_tasks(tasks=tasks)
        assert not coarse.exact
        for found, exact in ((coarse.p_worse, fine.p_worse), (coarse.p_better, fine.p_better)):
            assert exact * (1 - 1e-12) <= found <= exact + 2e-3

    def test_against_drawn_permutations(self) -> None:
        tasks = [
            TaskFlips(lost=60, gained=40, n=1319),
            TaskFlips(lost=9, gained=4, n=164),
            TaskFlips(lost=210, gained=190, n=14042),
            TaskFlips(lost=30, gained=29, n=541),
        ]
        rng = np.random.default_rng(2602)
        runs, total, seen = 200_000, np.zeros(200_000), 0.0
        for t in tasks:
            flips = t.lost + t.gained
            total += (2 * rng.binomial(flips, 0.5, runs) - flips) / t.n
            seen += (t.gained - t.lost) / t.n
        found = pooled_permutation.by_tasks(tasks=tasks)
        assert found.p_worse == pytest.approx(float((total <= seen + 1e-12).mean()), abs=4 * math.sqrt(0.25 / runs))

    def test_false_alarms_when_the_models_can_be_swapped(self) -> None:
        rng = np.random.default_rng(10144)
        runs, alarms = 1000, 0
        for flips_a, flips_b in rng.binomial([164, 500], 0.08, (runs, 2)).tolist():
            gained_a, gained_b = int(rng.binomial(flips_a, 0.5)), int(rng.binomial(flips_b, 0.5))
            tasks = [
                TaskFlips(lost=flips_a - gained_a, gained=gained_a, n=164),
                TaskFlips(lost=flips_b - gained_b, gained=gained_b, n=500),
            ]
            alarms += pooled_permutation.by_tasks(tasks=tasks).p_worse <= 0.05
        assert 0.02 <= alarms / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


class TestTwoProportions:
    @pytest.mark.parametrize(
        ("first", "second", "n", "z", "p", "printed_z"),
        [
            (0.299, 0.262, 164, 0.75, 0.456, 0.82),
            (0.568, 0.521, 1319, 2.42, 0.015, 2.54),
            (0.698, 0.691, 14000, 1.27, 0.204, 0.78),
        ],
    )
    def test_a_public_write_up_recomputed(
        self, first: float, second: float, n: int, z: float, p: float, printed_z: float
    ) -> None:
        """Its own formula does not give the z that it prints."""
        found = two_proportions.z_test(first_rate=first, second_rate=second, n=n)
        assert found.z == pytest.approx(z, abs=0.005)
        assert found.p_two_sided == pytest.approx(p, abs=0.0005)
        assert abs(found.z - printed_z) > 0.05

    def test_is_the_chi_square_test_without_correction(self) -> None:
        found = two_proportions.z_test(first_rate=0.6, second_rate=0.5, n=200)
        expected = chi2_contingency([[120, 80], [100, 100]], correction=False)
        assert found.z**2 == pytest.approx(expected.statistic, rel=1e-9)
        assert found.p_two_sided == pytest.approx(expected.pvalue, rel=1e-9)

    def test_pairing_changes_the_picture(self) -> None:
        """GSM8K 56.8 → 52.1 %: with 10 % flips the paired z is more than twice as large."""
        unpaired = two_proportions.z_test(first_rate=0.568, second_rate=0.521, n=1319).z
        lost, gained = 97, 35  # 62 fewer right of 1,319
        assert (lost - gained) / math.sqrt(lost + gained) > 2 * unpaired


DEPRESSION_BEFORE = (1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30)
DEPRESSION_AFTER = (0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29)


class TestHodgesLehmann:
    def test_depression_data_against_r(self) -> None:
        """R: wilcox.test(x, y, paired = TRUE, conf.int = TRUE): (pseudo)median 0.46, 95 percent 0.010 to 0.786."""
        differences = [x - y for x, y in zip(DEPRESSION_BEFORE, DEPRESSION_AFTER, strict=True)]
        found = hodges_lehmann.shift(differences=differences, confidence=0.975)
        assert (found.estimate, found.low, found.high) == pytest.approx((0.46, 0.010, 0.786), abs=1e-9)

    @pytest.mark.parametrize(("n", "rank"), [(6, 1), (9, 6), (10, 9), (15, 26), (20, 53), (25, 90), (50, 435)])
    def test_critical_rank_against_r(self, n: int, rank: int) -> None:
        """R: qsignrank(0.025, n).  With differences 1, 2, 4, … all Walsh averages are different."""
        differences = [2.0**i for i in range(n)]
        walsh = sorted((a + b) / 2 for i, a in enumerate(differences) for b in differences[: i + 1])
        found = hodges_lehmann.shift(differences=differences, confidence=0.975)
        assert (found.low, found.high) == (walsh[rank - 1], walsh[-rank])

    @pytest.mark.parametrize("pairs", [5, 8, 12])
    def test_limits_are_where_scipy_s_test_turns(self, pairs: int) -> None:
        rng = np.random.default_rng(pairs)
        d = rng.normal(0.3, 1, pairs)
        found = hodges_lehmann.shift(differences=d.tolist(), confidence=0.95)

        def p(centre: float, alternative: str) -> float:
            return float(wilcoxon(d - centre, alternative=alternative, method="exact").pvalue)

        assert p(found.low - 1e-9, "greater") <= 0.05 < p(found.low + 1e-9, "greater")
        assert p(found.high + 1e-9, "less") <= 0.05 < p(found.high - 1e-9, "less")

    def test_ratio_of_timings(self) -> None:
        baseline, candidate = [10.0, 11.0, 10.5, 9.9, 10.2], [9.8, 10.6, 10.6, 9.5, 10.0]
        logs = [math.log(c / b) for b, c in zip(baseline, candidate, strict=True)]
        inner = hodges_lehmann.shift(differences=logs, confidence=0.95)
        found = hodges_lehmann.interval(baseline=baseline, candidate=candidate, confidence=0.95)
        assert found.estimate == pytest.approx(math.exp(inner.estimate))
        assert (found.low, found.high) == pytest.approx((math.exp(inner.low), math.exp(inner.high)))

    def test_one_wild_block_moves_it_little(self) -> None:
        calm = [0.98, 1.01, 1.02, 0.99, 1.0, 1.01, 0.99, 1.0]
        wild = [*calm[:-1], 5.0]
        ones = [1.0] * 8
        moved = hodges_lehmann.interval(baseline=ones, candidate=wild, confidence=0.95).estimate
        assert moved == pytest.approx(1.0, abs=0.02)
        assert math.exp(np.log(wild).mean()) > 1.2  # what the mean of the logs makes of it

    def test_equal_blocks_keep_a_width(self) -> None:
        found = hodges_lehmann.interval(baseline=[2.0] * 6, candidate=[2.0] * 6, confidence=0.95)
        assert (found.low, found.estimate, found.high) == pytest.approx((math.exp(-1e-3), 1.0, math.exp(1e-3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar.p_values(lost=-1, gained=3), "found -1 lost"),
        (lambda: pooled_permutation.by_tasks(tasks=[]), "found 0 tasks"),
        (lambda: pooled_permutation.by_items(tasks=[TaskFlips(lost=3, gained=3, n=5)]), "counts that do not fit"),
        (lambda: two_proportions.z_test(first_rate=1.0, second_rate=1.0, n=5), "both rates are 1"),
        (lambda: two_proportions.z_test(first_rate=1.2, second_rate=1.0, n=5), "found rates 1.2 and 1.0"),
        (lambda: two_proportions.z_test(first_rate=math.nan, second_rate=1.0, n=5), "found rates nan"),
        (lambda: hodges_lehmann.shift(differences=[0.1] * 4, confidence=0.95), "found 4 pairs, expected at least 5"),
        (lambda: hodges_lehmann.shift(differences=[0.1] * 5, confidence=0.96875), "expected at least 6"),
        (lambda: hodges_lehmann.interval(baseline=[1.0] * 5, candidate=[1.0] * 6, confidence=0.9), "5 and 6 blocks"),
        (lambda: hodges_lehmann.interval(baseline=[0.0] * 5, candidate=[1.0] * 5, confidence=0.9), "value positive"),
    ],
)
def test_what_cannot_be_tested_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
