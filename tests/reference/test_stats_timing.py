"""A13 of statistics.md: how often the paired t errs on timing blocks, what drift does to bad orders, how many pairs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from gate.stats import log_ratio, order_statistics, replicates
from gate.stats.interleaving import balanced
from gate.stats.log_ratio import BetweenProcesses, satterthwaite

ABBA, AAABBB = "ABBA" * 4, "A" * 8 + "B" * 8


class TestInterleaving:
    @pytest.mark.parametrize("order", ["ABBA", "ABBAABBA", "BAAB", "ABBAAB", "ABBAABBAAB", "BAABABBA"])
    def test_balanced(self, order: str) -> None:
        assert balanced(order)

    @pytest.mark.parametrize(
        "order", ["", "A", "AB", "AABB", "AAAABBBB", "ABABABAB", "ABBAB", "AAAA", "ABBAABABAB", "ABCA", "ABBABBAA"]
    )
    def test_not_balanced(self, order: str) -> None:
        assert not balanced(order)

    def test_roles_may_be_any_names(self) -> None:
        assert balanced(["baseline", "candidate", "candidate", "baseline"])

    def test_a_constant_drift_cancels_exactly_when_balanced(self) -> None:
        for order, cancels in (("ABBAABBA", True), ("ABABABAB", False), ("AABBAABB", False)):
            positions = {role: [i for i, r in enumerate(order) if r == role] for role in "AB"}
            assert balanced(order) == cancels == (sum(positions["A"]) == sum(positions["B"]))


def verdicts(order: Sequence[str], *, ratio: float, drift: float, spread: float, runs: int) -> tuple[float, float]:
    """Shares of runs with the limits all within, and all beyond, a bound of ratio 1.05; blocks paired by rank.

    `drift` is the change of the logarithm over the whole session, `spread` the sd of one block.
    """
    rng = np.random.default_rng(13)
    logs = rng.normal(0, spread, (runs, len(order))) + drift * np.linspace(0, 1, len(order))
    candidate = np.array([r == "B" for r in order])
    logs += np.log(ratio) * candidate
    a, b = np.exp(logs[:, ~candidate]), np.exp(logs[:, candidate])
    passes = fails = 0
    for baseline, measured in zip(a.tolist(), b.tolist(), strict=True):
        found = log_ratio.interval(baseline=baseline, candidate=measured, confidence=0.95)
        passes += found.high <= 1.05
        fails += found.low > 1.05
    return passes / runs, fails / runs


class TestPairedT:
    @pytest.mark.parametrize("drift", [0.0, 0.03])
    @pytest.mark.parametrize("spread", [0.005, 0.02])
    def test_at_the_margin_with_eight_pairs(self, drift: float, spread: float) -> None:
        passes, fails = verdicts(ABBA, ratio=1.05, drift=drift, spread=spread, runs=5000)
        assert passes <= 0.08
        assert fails <= 0.08
        if drift == 0:
            assert min(passes, fails) >= 0.03  # and it does decide

    def test_blocks_in_a_row_fail_an_equal_candidate_under_drift(self) -> None:
        _, false_fails = verdicts(AAABBB, ratio=1.0, drift=0.14, spread=0.01, runs=400)
        assert false_fails > 0.6
        assert not balanced(AAABBB)
        passes, false_fails = verdicts(ABBA, ratio=1.0, drift=0.14, spread=0.01, runs=400)
        assert false_fails == 0
        assert passes > 0.95


class TestBetweenProcesses:
    SLEEP = (
        (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0),
        (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4),
    )
    """Student's sleep data (R: datasets::sleep)."""

    def test_degrees_of_freedom_as_r_prints_them(self) -> None:
        """R: t.test(extra ~ group, data = sleep): t = -1.8608, df = 17.776, p-value = 0.07939."""
        parts = [(float(np.var(group, ddof=1)) / len(group), len(group) - 1.0) for group in self.SLEEP]
        freedom = satterthwaite(parts)
        assert freedom == pytest.approx(17.776, abs=5e-4)
        difference = np.mean(self.SLEEP[0]) - np.mean(self.SLEEP[1])
        score = difference / math.sqrt(sum(v for v, _ in parts))
        assert score == pytest.approx(-1.8608, abs=5e-5)
        assert 2 * stats.t.cdf(score, freedom) == pytest.approx(0.07939, abs=5e-6)

    def test_one_part_has_its_own_and_nothing_has_the_fewest(self) -> None:
        assert satterthwaite([(0.3, 7)]) == 7
        assert satterthwaite([(0.3, 7), (0.0, 4)]) == 7
        assert satterthwaite([(0.0, 7), (0.0, 4)]) == 4
        assert satterthwaite([(0.5, 7), (0.5, 7)]) == pytest.approx(14)

    def test_by_hand(self) -> None:
        baseline, candidate = [10.0, 11.0, 10.5, 10.2], [10.4, 11.1, 10.9, 10.3]
        logs = np.log(np.array(candidate) / np.array(baseline))
        within, between = logs.var(ddof=1) / 4, 0.01**2
        freedom = (within + between) ** 2 / (within**2 / 3 + between**2 / 4)
        found = log_ratio.interval(
            baseline=baseline, candidate=candidate, confidence=0.95, between=BetweenProcesses(sd_log=0.01, pairs=5)
        )
        half = stats.t.ppf(0.95, freedom) * math.sqrt(within + between)
        assert (found.low, found.high) == pytest.approx((np.exp(logs.mean() - half), np.exp(logs.mean() + half)))
        assert found.degrees_of_freedom == pytest.approx(freedom)
        assert found.standard_error_log == pytest.approx(math.sqrt(within + between))

    def test_a_process_alone_has_half_of_the_variance_of_two(self) -> None:
        values, between = [10.0, 11.0, 10.5, 10.2], BetweenProcesses(sd_log=0.03, pairs=5)
        found = log_ratio.geometric_mean(values=values, confidence=0.95, between=between)
        assert found.standard_error_log**2 == pytest.approx(np.log(values).var(ddof=1) / 4 + 0.03**2 / 2)

    def test_without_it_nothing_changes(self) -> None:
        arguments = {"baseline": [1.0, 1.1, 0.9], "candidate": [1.2, 1.1, 1.0], "confidence": 0.95}
        plain = log_ratio.interval(**arguments)  # type: ignore[arg-type]
        logs = np.log([1.2, 1.0, 1.0 / 0.9])
        half = stats.t.ppf(0.95, 2) * logs.std(ddof=1) / math.sqrt(3)
        assert (plain.low, plain.high) == pytest.approx((np.exp(logs.mean() - half), np.exp(logs.mean() + half)))
        assert plain.degrees_of_freedom == 2

    @pytest.mark.parametrize(("sd", "pairs"), [(0.01, 1), (-0.01, 5), (math.inf, 5), (math.nan, 5)])
    def test_refused(self, sd: float, pairs: int) -> None:
        with pytest.raises(ValueError, match="expected at least 0 from at least 2 pairs"):
            BetweenProcesses(sd_log=sd, pairs=pairs)


class TestOrderStatistics:
    @pytest.mark.parametrize(
        ("share", "confidence", "fewest"),
        # Meeker, Hahn & Escobar: 1 - p^n >= confidence; 22, 29, 59, 299 are the classic sample sizes
        [(0.9, 0.9, 22), (0.9, 0.95, 29), (0.95, 0.95, 59), (0.99, 0.95, 299), (0.999, 0.95, 2995), (0.5, 0.95, 5)],
    )
    def test_fewest_times(self, share: float, confidence: float, fewest: int) -> None:
        assert order_statistics.needed(share=share, confidence=confidence) == fewest
        assert order_statistics.ranks(n=fewest, share=share, confidence=confidence)[1] == fewest
        with pytest.raises(ValueError, match=f"expected at least {fewest}"):
            order_statistics.ranks(n=fewest - 1, share=share, confidence=confidence)

    def test_the_median_of_ten(self) -> None:
        """The second smallest and the second largest of ten: 97.85 % between them (the sign test's interval)."""
        assert order_statistics.ranks(n=10, share=0.5, confidence=0.975) == (2, 9)
        assert 1 - 2 * stats.binom.cdf(1, 10, 0.5) == pytest.approx(0.9785, abs=5e-5)

    @pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
    @pytest.mark.parametrize("n", [300, 301, 512, 1000, 4000])
    @pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
    def test_ranks_by_brute_force(self, share: float, n: int, confidence: float) -> None:
        if n < order_statistics.needed(share=share, confidence=confidence):
            return
        ranks = np.arange(1, n + 1)
        upper = ranks[stats.binom.cdf(ranks - 1, n, share) >= confidence][0]
        lower = ranks[stats.binom.sf(ranks - 1, n, share) >= confidence][-1]
        assert order_statistics.ranks(n=n, share=share, confidence=confidence) == (lower, upper)

    def test_limits_are_times_that_were_seen(self) -> None:
        times = np.random.default_rng(3).permutation(np.arange(1, 1001)).tolist()
        found = order_statistics.value(times=times, share=0.9, confidence=0.95)
        assert (found.lower, found.upper) == (found.low, found.high)
        assert found.estimate == 900 == np.quantile(times, 0.9, method="inverted_cdf")
        assert found.low < 900 < found.high

    def test_it_covers_whatever_the_times_look_like(self) -> None:
        rng = np.random.default_rng(31)
        runs, missed = 2000, [0, 0]
        truth = float(np.exp(stats.norm.ppf(0.95)))
        for times in np.exp(rng.standard_normal((runs, 200))).tolist():
            found = order_statistics.value(times=times, share=0.95, confidence=0.95)
            missed[0] += truth < found.low
            missed[1] += truth > found.high
        assert max(missed) / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
        assert min(missed) / runs > 0.02  # and it is not merely wide

    def test_a_ratio_splits_the_error(self) -> None:
        rng = np.random.default_rng(32)
        b, c = np.exp(rng.standard_normal((2, 500))).tolist()
        found = order_statistics.ratio(baseline=b, candidate=c, share=0.95, confidence=0.95)
        sides = [order_statistics.value(times=t, share=0.95, confidence=0.975) for t in (b, c)]
        assert found.low == sides[1].low / sides[0].high
        assert found.high == sides[1].high / sides[0].low
        assert found.estimate == sides[1].estimate / sides[0].estimate

    def test_a_ratio_errs_less_than_it_says(self) -> None:
        rng = np.random.default_rng(33)
        runs, missed = 1000, [0, 0]
        for b, c in np.exp(rng.standard_normal((runs, 2, 200))).tolist():
            found = order_statistics.ratio(baseline=b, candidate=c, share=0.9, confidence=0.95)
            missed[0] += found.low > 1
            missed[1] += found.high < 1
        assert max(missed) / runs <= 0.03

    def test_equal_times_keep_a_width(self) -> None:
        found = order_statistics.value(times=[0.2] * 100, share=0.9, confidence=0.95)
        assert (found.low, found.high) == pytest.approx((0.1998, 0.2002))

    @pytest.mark.parametrize("times", [[], [0.0] * 100])
    def test_refused(self, times: list[float]) -> None:
        with pytest.raises(ValueError, match="expected at least 1 and every one positive"):
            order_statistics.value(times=times, share=0.9, confidence=0.95)


class TestReplicates:
    @pytest.mark.parametrize("spread", [0.005, 0.01, 0.02, 0.03, 0.05, 0.1])
    @pytest.mark.parametrize("ratio", [1.05, 0.95])
    def test_is_the_fewest_that_the_formula_allows(self, spread: float, ratio: float) -> None:
        found = replicates.needed(spread_log=spread, ratio=ratio, confidence=0.95, power=0.8)

        def wanted(pairs: int) -> float:
            quantiles = stats.t.ppf(0.95, pairs - 1) + stats.t.ppf(0.8, pairs - 1)
            return float(quantiles**2 * spread**2 / math.log(ratio) ** 2)

        assert found == next(pairs for pairs in range(2, 1000) if pairs >= wanted(pairs))

    def test_table(self) -> None:
        found = [replicates.needed(spread_log=s, ratio=1.05, confidence=0.95, power=0.8) for s in (0, 0.02, 0.03, 0.05)]
        assert found == [2, 3, 5, 9]
        assert replicates.needed(spread_log=10.0, ratio=1.05, confidence=0.95, power=0.8) is None

    def test_delivers_the_power_it_promises(self) -> None:
        pairs = replicates.needed(spread_log=0.04, ratio=1.05, confidence=0.95, power=0.8)
        assert pairs is not None
        rng = np.random.default_rng(80)
        runs = 3000
        logs = rng.normal(0, 0.04, (runs, pairs))
        half = stats.t.ppf(0.95, pairs - 1) * logs.std(axis=1, ddof=1) / math.sqrt(pairs)
        assert 0.78 <= (logs.mean(axis=1) + half <= math.log(1.05)).mean() <= 0.9

    def test_half_width_and_refusal(self) -> None:
        # t(.95, 7) = 1.8946: s = 4 % leaves 2.7 %, s = 3.5 % leaves 2.3 %
        half = replicates.half_width_log(spread_log=0.04, pairs=8, confidence=0.95)
        assert half == pytest.approx(1.8946 * 0.04 / math.sqrt(8), rel=1e-4)
        assert replicates.too_noisy(spread_log=0.04, pairs=8, ratio=1.05, confidence=0.95)
        assert not replicates.too_noisy(spread_log=0.035, pairs=8, ratio=0.95, confidence=0.95)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: replicates.needed(spread_log=0.1, ratio=1.0, confidence=0.95, power=0.8), "ratio of 1.0"),
        (lambda: replicates.needed(spread_log=-0.1, ratio=1.1, confidence=0.95, power=0.8), "found spread -0.1"),
        (lambda: replicates.needed(spread_log=math.nan, ratio=1.1, confidence=0.95, power=0.8), "found spread nan"),
        (lambda: replicates.needed(spread_log=0.1, ratio=1.1, confidence=0.95, power=0.4), "power 0.4"),
        (lambda: replicates.half_width_log(spread_log=0.1, pairs=1, confidence=0.95), "found 1 pairs"),
        (lambda: replicates.too_noisy(spread_log=0.1, pairs=8, ratio=0.0, confidence=0.95), "ratio of 0.0"),
    ],
)
def test_what_cannot_be_planned_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
