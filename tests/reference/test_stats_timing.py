"""A13 of statistics.md: how often the paired t errs on timing blocks, what drift does to bad orders, how many pairs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from gate.stats import log_ratio, replicates
from gate.stats.interleaving import balanced

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
