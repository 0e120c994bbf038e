"""Corrections for many tests: R's p.adjust, hand calculation, and how often any of several true hypotheses falls."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest

from gate.stats.multiplicity import benjamini_hochberg, e_bh, e_holm, holm, holm_adjusted, p_from_e, simes


class TestHolmAdjusted:
    @pytest.mark.parametrize(
        ("p_values", "expected"),
        [
            ((0.01, 0.04, 0.03, 0.005), (0.03, 0.06, 0.06, 0.02)),
            ((0.2, 0.02, 0.2), (0.4, 0.06, 0.4)),
            ((0.6, 0.7), (1.0, 1.0)),
            ((), ()),
        ],
    )
    def test_against_r(self, p_values: tuple[float, ...], expected: tuple[float, ...]) -> None:
        """R: p.adjust(p, method = "holm")."""
        assert holm_adjusted(p_values) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("level", [0.005, 0.02, 0.05, 0.2])
    def test_is_the_level_at_which_holm_rejects(self, level: float) -> None:
        p_values = (0.01, 0.04, 0.003, 0.005, 0.2, 0.0)
        assert holm(p_values, level) == tuple(p <= level for p in holm_adjusted(p_values))


class TestSimes:
    def test_by_hand(self) -> None:
        # sorted .005 .01 .03 .04 .2: 5·.005, 5/2·.01, 5/3·.03, 5/4·.04, .2
        assert simes((0.01, 0.04, 0.03, 0.005, 0.2)) == pytest.approx(0.025)
        assert simes((0.04, 0.04, 0.04)) == pytest.approx(0.04)
        assert simes((0.3,)) == 0.3

    def test_rejects_when_benjamini_hochberg_rejects_any(self) -> None:
        rng = np.random.default_rng(5)
        for p_values in rng.uniform(size=(300, 6)) ** 2:
            assert (simes(p_values.tolist()) <= 0.05) == any(benjamini_hochberg(p_values.tolist(), 0.05))


class TestEValues:
    def test_calibration(self) -> None:
        assert [p_from_e(e) for e in (0.0, 0.5, 1.0, 20.0, math.inf)] == [1.0, 1.0, 1.0, 0.05, 0.0]

    def test_e_holm_by_hand(self) -> None:
        # 60 ≥ 3/.05; then 40 ≥ 2/.05; then 19 < 1/.05
        assert e_holm((19.0, 60.0, 40.0), 0.05) == (False, True, True)
        assert e_holm((19.0, 59.0, 40.0), 0.05) == (False, False, False)
        assert e_holm((), 0.05) == ()

    def test_e_bh_by_hand(self) -> None:
        """Wang and Ramdas 2022, section 2: reject the k largest, k the most with e₍ₖ₎ ≥ K/(kα)."""
        # K/α = 40: first needs 40, second 20, third 13.3, fourth 10
        assert e_bh((39.0, 15.0, 21.0, 1.0), 0.1) == (True, True, True, False)
        assert e_bh((39.0, 13.0, 19.0, 9.0), 0.1) == (False, False, False, False)
        assert e_bh((10.0, 10.0, 10.0, 10.0), 0.1) == (True, True, True, True)

    @pytest.mark.parametrize("shared", [0.0, 0.9])
    def test_false_alarms_of_running_wealth(self, shared: float) -> None:
        """Five fair games watched for 300 rounds, dependent or not: e-Holm on the largest wealth errs ≤ α for any."""
        rng = np.random.default_rng(57)
        runs, rules, rounds, level = 4000, 5, 300, 0.05
        wealth, most = np.zeros((runs, rules)), np.zeros((runs, rules))
        for _ in range(rounds):
            common = rng.random((runs, 1)) < shared
            coin = np.where(common, rng.random((runs, 1)), rng.random((runs, rules))) < 0.5
            wealth += np.log(np.where(coin, 1.3, 0.7))
            most = np.maximum(most, wealth)
        alarms = sum(any(e_holm(row, level)) for row in np.exp(most).tolist())
        assert 0 < alarms / runs <= level + 3 * math.sqrt(level * (1 - level) / runs)
        if shared == 0.0:  # without the correction, about one run in six has a false alarm
            assert (most >= math.log(1 / level)).any(axis=1).mean() > 0.12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: holm((0.5, math.nan), 0.05), "found p-values [nan]"),
        (lambda: holm_adjusted((0.5, 1.5)), "found p-values [1.5]"),
        (lambda: benjamini_hochberg((-0.1, 0.5), 0.05), "found p-values [-0.1]"),
        (lambda: simes(()), "found no p-value"),
        (lambda: e_holm((2.0, -1.0), 0.05), "an e-value of -1.0"),
        (lambda: e_bh((math.nan,), 0.05), "an e-value of nan"),
    ],
)
def test_what_is_no_evidence_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
