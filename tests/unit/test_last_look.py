"""Planning a cap: what one look at a part of a benchmark can show, against the judge's own tests."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from gate.decide import last_look
from gate.decide.judge import judge
from gate.records import Status
from gate.stats import exact_finite, tango
from tests.sequence_factory import ONE_RULE, of_differences, rule


@pytest.mark.parametrize(("n", "population", "room"), [(64, 320, 16), (64, 320, 9), (160, 320, 9), (32, 40, 1)])
def test_items_without_a_flip_prove_what_the_urn_allows(n: int, population: int, room: int) -> None:
    none_shows = stats.hypergeom.pmf(0, population, room + 1, n)
    assert last_look.can_pass(n=n, population=population, room=Fraction(room), alpha=0.025) == (none_shows <= 0.025)


@pytest.mark.parametrize(("population", "room"), [(320, 16), (320, 9), (1319, 39), (14042, 140), (100, 1)])
def test_the_fewest_items_are_where_it_begins_to_hold(population: int, room: int) -> None:
    fewest = last_look.fewest_items(population=population, room=Fraction(room), alpha=0.025)
    below, at = (
        last_look.can_pass(n=n, population=population, room=Fraction(room), alpha=0.025) for n in (fewest - 1, fewest)
    )
    assert (below, at) == (False, True)


@pytest.mark.parametrize(("cap", "n", "points"), [(64, 320, 5), (128, 320, 3), (200, 1319, 3), (64, 320, 3)])
def test_a_candidate_without_a_flip_passes_where_the_plan_says_it_can(cap: int, n: int, points: int) -> None:
    found = judge(rule(f"max_drop {points}pp", max_items=cap), *of_differences([0] * n), ONE_RULE)
    possible = last_look.can_pass(n=cap, population=n, room=Fraction(points * n, 100), alpha=0.025)
    assert (found.status is Status.PASS) == possible


@pytest.mark.parametrize(("n", "population", "room"), [(64, 200, Fraction(10)), (450, 1319, Fraction(3957, 100))])
def test_odds_are_the_share_of_draws_that_the_judge_would_pass(n: int, population: int, room: Fraction) -> None:
    flips, runs = 0.06, 400
    rng, passed, known = np.random.default_rng(3), 0, dict[tuple[int, int], bool]()
    for _ in range(runs):
        changed = int(rng.binomial(n, flips))
        lost = int(rng.binomial(changed, 0.5))
        table = lost, changed - lost
        if table not in known:
            seen = {"lost": lost, "gained": changed - lost, "n": n, "population": population, "confidence": 0.975}
            limits = exact_finite.interval(**seen) if n <= exact_finite.LARGEST_N else tango.interval(**seen)  # type: ignore[arg-type]
            known[table] = limits.low >= -float(room / population)
        passed += known[table]
    odds = last_look.lossless_pass(n=n, population=population, flip_rate=flips, room=room, alpha=0.025)
    assert 0.05 < odds < 0.99
    assert passed / runs == pytest.approx(odds, abs=4 * (odds * (1 - odds) / runs) ** 0.5)


def test_odds_grow_with_the_cap() -> None:
    odds = [
        last_look.lossless_pass(n=n, population=320, flip_rate=0.06, room=Fraction(16), alpha=0.025)
        for n in (32, 64, 128, 256)
    ]
    assert 0 < odds[0] < 0.15  # by answers gained; without a flip it cannot pass
    assert all(later > earlier for earlier, later in pairwise(odds))
