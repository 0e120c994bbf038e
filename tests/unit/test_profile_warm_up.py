"""When a warm-up ends: what counts as agreeing, what as a trend, and how often noise is taken for one."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from gate.stages.profile_warm_up import FIRST, LATER, WarmedUp, WarmUp, agree, trend, warm_up


def _ends(seconds: list[float], plan: WarmUp = FIRST, first: list[float] | None = None) -> WarmedUp:
    return warm_up(lambda number: ((first or seconds)[number], seconds[number]), plan)


@pytest.mark.parametrize(
    ("seconds", "agrees"),
    [
        ([1.0, 1.05], True),
        ([1.0, 1.2], False),
        ([1.0, 1.0, 1.0, 1.0, 9.0], True),
        ([1.0, 1.0, 1.0, 9.0, 9.0], False),
        ([1.0, 1.04, 0.97, 1.0, 1.02], True),
        ([1.0, 1.0, 1.2], False),
    ],
)
def test_runs_agree_within_five_percent_of_their_median(seconds: list[float], agrees: bool) -> None:
    assert agree(seconds) is agrees


def test_a_trend_is_nearly_all_pairs_in_one_direction() -> None:
    assert trend([5.0, 4.0, 3.0, 2.0, 1.0])
    assert trend([1.0, 2.0, 3.0, 5.0, 4.0]), "one pair of ten against it"
    assert not trend([1.0, 2.0, 5.0, 4.0, 3.0])
    assert not trend([1.004, 1.003, 1.002, 1.001, 1.0]), "within a percent runs are the same"
    assert not trend([2.0, 1.0]), "two runs cannot show one"
    seen = sum(map(trend, permutations([1.0, 2.0, 3.0, 4.0, 5.0])))
    assert seen / 120 == pytest.approx(1 / 12), "what the docstring says of chance"


def test_ends_as_soon_as_the_last_runs_are_steady() -> None:
    assert _ends([1.0] * 5) == WarmedUp(runs=5, became_steady=True)
    # the window holds the last five: 1.5 is the one that may be disturbed, and lies too early to make a trend
    assert _ends([9.0, 4.0, 2.0, 1.5, *[1.0] * 16]) == WarmedUp(runs=8, became_steady=True)
    assert _ends([3.0, 1.0, 1.0], LATER) == WarmedUp(runs=3, became_steady=True)


def test_a_first_token_that_still_gets_faster_keeps_it_warming() -> None:
    first = [0.10, 0.09, 0.08, 0.07, 0.06, *[0.05] * 15]
    found = _ends([1.0] * 20, first=first)
    assert found.became_steady
    assert found.runs > 5


def test_the_cap_ends_it_unsteady() -> None:
    slower_and_slower = [1.1**k for k in range(20)]
    assert _ends(slower_and_slower) == WarmedUp(runs=20, became_steady=False)
    assert _ends([1.0, 2.0] * 3, LATER) == WarmedUp(runs=6, became_steady=False)


def test_noise_is_seldom_taken_for_warming_and_warming_not_for_noise() -> None:
    """Times that vary by 2 % end within a few runs of the fewest; a decay by a third each run is always waited for."""
    rng = np.random.default_rng(0)
    extra_runs, still_slow = [], []
    for _ in range(300):
        noise = 1 + 0.02 * rng.standard_normal(20)
        extra_runs.append(_ends(list(noise)).runs - FIRST.window)
        excess = 3 * 0.67 ** np.arange(21)  # of the true time, by run
        runs = _ends(list(noise * (1 + excess[:20]))).runs
        still_slow.append(excess[runs])
    assert np.mean(extra_runs) < 0.5
    assert np.quantile(still_slow, 0.95) < 0.05
