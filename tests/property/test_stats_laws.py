"""Laws that every estimator in `stats.METHODS` keeps, on drawn data."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gate.stats import METHODS, Limits
from gate.stats.interleaving import balanced
from gate.stats.log_ratio import BetweenProcesses
from gate.stats.mcnemar import p_values
from gate.stats.multiplicity import benjamini_hochberg, e_bh, e_holm, holm, holm_adjusted, p_from_e, simes
from gate.stats.pooled_permutation import TaskFlips, by_items, by_tasks
from gate.stats.replicates import needed

SECOND_OPINIONS = frozenset({"wald", "wald_ratio", "cluster_t", "cluster_ratio"})
"""Zero width when nothing varies: never used alone (their modules say so)."""

CONFIDENCES = st.sampled_from([0.6, 0.8, 0.9, 0.95, 0.975, 0.99])
UNIT = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
POSITIVE = st.floats(0.01, 100)
WIDTHS = st.floats(1e-6, 0.1)

Arguments = dict[str, Any]


@st.composite
def flips(draw: st.DrawFn, most: int = 400) -> Arguments:
    n = draw(st.integers(1, most))
    lost = draw(st.integers(0, n))
    return {"lost": lost, "gained": draw(st.integers(0, n - lost)), "n": n}


@st.composite
def cells(draw: st.DrawFn) -> Arguments:
    both, lost, gained, neither = (draw(st.integers(0, 100)) for _ in range(4))
    both += both + lost == 0
    return {"both": both, "lost": lost, "gained": gained, "n": both + lost + gained + neither}


@st.composite
def rates(draw: st.DrawFn) -> Arguments:
    n = draw(st.integers(1, 400))
    return {"successes": draw(st.integers(0, n)), "n": n}


def pairs(values: st.SearchStrategy[float], least: int, most: int = 30) -> st.SearchStrategy[Arguments]:
    return st.lists(st.tuples(values, values), min_size=least, max_size=most).map(
        lambda drawn: {"baseline": [b for b, _ in drawn], "candidate": [c for _, c in drawn]}
    )


def something_to_retain(arguments: Arguments) -> bool:
    return math.fsum(arguments["baseline"]) > 0.01


def with_clusters(arguments: Arguments) -> Arguments:
    n = len(next(iter(arguments.values())))
    return arguments | {"clusters": [i % max(2, n // 2) for i in range(n)]}


def documents(drawn: list[tuple[float, float]]) -> Arguments:
    values, weights = [v for v, _ in drawn], [w for _, w in drawn]
    return {"values": values, "weights": weights, "documents": [i % max(8, len(drawn) // 2) for i in range(len(drawn))]}


def deleted_groups(drawn: list[tuple[float, float]]) -> Arguments:
    of_baseline, of_candidate = [b for b, _ in drawn], [c for _, c in drawn]
    full = {"baseline": max(of_baseline[0], 0.05), "candidate": of_candidate[0]}
    return full | {"baseline_deleted": of_baseline, "candidate_deleted": of_candidate}


SHARES = st.sampled_from([0.5, 0.75, 0.9])


def with_processes(arguments: st.SearchStrategy[Arguments]) -> st.SearchStrategy[Arguments]:
    spreads = st.builds(BetweenProcesses, sd_log=st.floats(0, 0.3), pairs=st.integers(2, 12))
    return st.builds(lambda drawn, between: drawn | {"between": between}, arguments, st.one_of(st.none(), spreads))


CASES: dict[str, st.SearchStrategy[Arguments]] = {
    "tango": flips(),
    "wald": flips(),
    "nam_blackwelder": cells(),
    "wald_ratio": cells(),
    "wilson": rates(),
    "bounded": st.lists(st.floats(-1, 1), min_size=1, max_size=30).map(
        lambda v: {"values": v, "smallest": -1, "largest": 1}
    ),
    "bounded_ratio": pairs(UNIT, 1).filter(something_to_retain),
    "cluster_t": st.lists(st.floats(-1, 1), min_size=2, max_size=30).map(lambda v: with_clusters({"values": v})),
    "cluster_ratio": pairs(UNIT, 2).filter(something_to_retain).map(with_clusters),
    "document_t": st.builds(
        lambda drawn, width: documents(drawn) | {"least_half_width": width},
        st.lists(st.tuples(st.floats(-3, 9), st.floats(1, 999)), min_size=8, max_size=40),
        WIDTHS,
    ),
    "mean_ratio": pairs(st.floats(0, 500), 2).filter(something_to_retain),
    "jackknife_t": st.builds(
        lambda full, deleted, width: {"full": full, "deleted": deleted, "least_half_width": width},
        UNIT,
        st.lists(UNIT, min_size=2, max_size=20),
        WIDTHS,
    ),
    "jackknife_ratio": st.builds(
        lambda drawn, width: deleted_groups(drawn) | {"least_half_width": width},
        st.lists(st.tuples(UNIT, UNIT), min_size=2, max_size=20),
        WIDTHS,
    ),
    "exact_unconditional": flips(15),
    "exact_finite": flips(25).flatmap(
        lambda counts: st.integers(counts["n"] + 1, 80).map(lambda population: counts | {"population": population})
    ),
    "log_ratio_t": with_processes(pairs(POSITIVE, 2)),
    "hodges_lehmann": pairs(POSITIVE, 8, 16),
    "log_mean_t": with_processes(st.lists(POSITIVE, min_size=2, max_size=20).map(lambda v: {"values": v})),
    "order_statistics": st.builds(
        lambda times, share: {"times": times, "share": share}, st.lists(POSITIVE, min_size=60, max_size=90), SHARES
    ),
    "order_statistics_ratio": st.builds(lambda sides, share: sides | {"share": share}, pairs(POSITIVE, 60, 90), SHARES),
    "exact": st.builds(
        lambda readings, step, worse: {"readings": readings, "resolution": step, "larger_is_worse": worse},
        st.lists(st.floats(0, 1e12), min_size=1, max_size=5),
        WIDTHS,
        st.booleans(),
    ),
    "exact_ratio": st.builds(
        lambda drawn, step, worse: drawn | {"resolution": step, "larger_is_worse": worse},
        pairs(POSITIVE, 1, 5),
        WIDTHS,
        st.booleans(),
    ),
}


def estimator(name: str) -> Callable[..., Limits]:
    module, attribute = METHODS[name].split(":")
    found: Callable[..., Limits] = getattr(importlib.import_module(module), attribute)
    return found


SEQUENTIAL = {"betting"}
"""Two confidences and an order of the items: its laws are in `test_betting_laws`."""


def test_every_method_has_a_case() -> None:
    assert CASES.keys() | SEQUENTIAL == METHODS.keys()


@pytest.mark.parametrize("name", CASES)
class TestEveryEstimator:
    @settings(max_examples=60, deadline=None)
    @given(data=st.data(), confidence=CONFIDENCES)
    def test_finite_ordered_and_around_the_estimate(self, name: str, data: st.DataObject, confidence: float) -> None:
        found = estimator(name)(**data.draw(CASES[name]), confidence=confidence)
        assert math.isfinite(found.low)
        assert math.isfinite(found.high)
        slack = 1e-9 * max(1.0, abs(found.estimate))
        assert found.low <= found.estimate + slack
        assert found.estimate <= found.high + slack
        assert found.confidence == confidence
        if name not in SECOND_OPINIONS:
            assert found.low < found.high

    @settings(max_examples=30, deadline=None)
    @given(data=st.data())
    def test_more_confidence_is_never_narrower(self, name: str, data: st.DataObject) -> None:
        arguments = data.draw(CASES[name])
        narrow = estimator(name)(**arguments, confidence=0.8)
        wide = estimator(name)(**arguments, confidence=0.99)
        slack = 1e-9 * max(1.0, abs(wide.low), abs(wide.high))
        assert wide.low <= narrow.low + slack
        assert narrow.high <= wide.high + slack

    @settings(max_examples=10, deadline=None)
    @given(data=st.data())
    def test_the_result_is_frozen_and_repeats_its_inputs(self, name: str, data: st.DataObject) -> None:
        arguments = data.draw(CASES[name])
        found: Any = estimator(name)(**arguments, confidence=0.95)
        assert found.__dataclass_params__.frozen
        names = {f.name for f in fields(found)}
        scalars = {k for k, v in arguments.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        # `full` is the jackknife's estimate itself
        assert {"estimate" if k == "full" else k for k in scalars} <= names


@pytest.mark.parametrize("name", ["tango", "exact_finite"])
@settings(max_examples=60, deadline=None)
@given(data=st.data(), confidence=CONFIDENCES)
def test_differences_mirror_when_the_roles_are_swapped(name: str, data: st.DataObject, confidence: float) -> None:
    counts = data.draw(CASES[name])
    found = estimator(name)(**counts, confidence=confidence)
    swapped = estimator(name)(**counts | {"lost": counts["gained"], "gained": counts["lost"]}, confidence=confidence)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(counts=cells(), confidence=CONFIDENCES)
def test_nam_inverts_when_the_roles_are_swapped(counts: Arguments, confidence: float) -> None:
    swapped = counts | {"lost": counts["gained"], "gained": counts["lost"]}
    if counts["both"] + counts["gained"] == 0:
        return
    found, mirrored = (estimator("nam_blackwelder")(**c, confidence=confidence) for c in (counts, swapped))
    assert mirrored.low == pytest.approx(1 / found.high, rel=1e-6)


@pytest.mark.parametrize("name", ["tango", "exact_unconditional", "exact_finite"])
@settings(max_examples=15, deadline=None)
@given(data=st.data(), confidence=CONFIDENCES)
def test_one_more_loss_never_raises_a_limit(name: str, data: st.DataObject, confidence: float) -> None:
    counts = data.draw(CASES[name].filter(lambda drawn: drawn["lost"] + drawn["gained"] < drawn["n"]))
    before = estimator(name)(**counts, confidence=confidence)
    after = estimator(name)(**counts | {"lost": counts["lost"] + 1}, confidence=confidence)
    assert after.low <= before.low + 1e-9
    assert after.high <= before.high + 1e-9


@pytest.mark.parametrize("name", ["tango", "nam_blackwelder"])
@settings(max_examples=60, deadline=None)
@given(data=st.data(), confidence=CONFIDENCES, unseen=st.integers(1, 2000))
def test_a_finite_population_narrows_and_never_to_nothing(
    name: str, data: st.DataObject, confidence: float, unseen: int
) -> None:
    counts = data.draw(CASES[name])
    whole = estimator(name)(**counts, confidence=confidence)
    part = estimator(name)(**counts, confidence=confidence, population=counts["n"] + unseen)
    slack = 1e-9 * max(1.0, abs(whole.high))
    assert whole.low - slack <= part.low < part.high <= whole.high + slack


@settings(max_examples=60, deadline=None)
@given(data=st.data(), confidence=CONFIDENCES)
def test_exact_limits_of_a_finite_population_keep_what_is_certain(data: st.DataObject, confidence: float) -> None:
    counts = data.draw(CASES["exact_finite"])
    found = estimator("exact_finite")(**counts, confidence=confidence)
    surplus, unseen = counts["gained"] - counts["lost"], counts["population"] - counts["n"]
    assert (surplus - unseen) / counts["population"] <= found.low
    assert found.high <= (surplus + unseen) / counts["population"]
    assert found.low * counts["population"] == pytest.approx(round(found.low * counts["population"]), abs=1e-9)


@settings(max_examples=100)
@given(p_values=st.lists(st.floats(0, 1), max_size=30), level=st.floats(0.01, 0.3))
def test_corrections_only_ever_take_away(p_values: list[float], level: float) -> None:
    strict, lenient = holm(p_values, level), benjamini_hochberg(p_values, level)
    for p, family_wise, discovery in zip(p_values, strict, lenient, strict=True):
        assert not discovery or p <= level
        assert not family_wise or discovery
    if strict:
        smallest = min(p_values)
        assert any(strict) == (smallest <= level / len(p_values))


@settings(max_examples=100)
@given(p_values=st.lists(st.floats(0, 1), max_size=20), level=st.floats(0.01, 0.3))
def test_adjusted_p_values_keep_the_order_and_never_shrink(p_values: list[float], level: float) -> None:
    adjusted = holm_adjusted(p_values)
    for p, a in zip(p_values, adjusted, strict=True):
        assert p <= a <= 1 or a == 1
    assert sorted(adjusted) == [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
    if p_values:
        assert min(p_values) <= simes(p_values) <= min(1.0, len(p_values) * min(p_values)) + 1e-12


@settings(max_examples=100)
@given(e_values=st.lists(st.floats(0, 1e6), max_size=20), level=st.floats(0.01, 0.3))
def test_e_values_are_corrected_like_p_values(e_values: list[float], level: float) -> None:
    family_wise, discovery = e_holm(e_values, level), e_bh(e_values, level)
    for e, strict, lenient in zip(e_values, family_wise, discovery, strict=True):
        assert not strict or lenient
        assert not lenient or p_from_e(e) <= level
    more = [2 * e for e in e_values]
    assert all(after or not before for before, after in zip(discovery, e_bh(more, level), strict=True))


@st.composite
def task_flips(draw: st.DrawFn) -> TaskFlips:
    counts = draw(flips(40))
    return TaskFlips(lost=counts["lost"], gained=counts["gained"], n=counts["n"])


@settings(max_examples=40)
@given(tasks=st.lists(task_flips(), min_size=1, max_size=4), data=st.data())
def test_pooled_p_values_mirror_and_forget_the_order(tasks: list[TaskFlips], data: st.DataObject) -> None:
    for pooled in (by_items, by_tasks):
        found = pooled(tasks=tasks)
        mirrored = pooled(tasks=[TaskFlips(lost=t.gained, gained=t.lost, n=t.n) for t in tasks])
        assert (mirrored.p_worse, mirrored.p_better) == pytest.approx((found.p_better, found.p_worse), rel=1e-9)
        shuffled = pooled(tasks=data.draw(st.permutations(tasks)))
        assert shuffled.p_worse == pytest.approx(found.p_worse, rel=1e-6)
        assert found.p_worse + found.p_better >= 1 - 1e-9  # what was seen counts on both sides


@settings(max_examples=100)
@given(lost=st.integers(0, 300), gained=st.integers(0, 300))
def test_mcnemar_is_a_probability_and_falls_with_every_loss(lost: int, gained: int) -> None:
    found, worse = p_values(lost=lost, gained=gained), p_values(lost=lost + 1, gained=gained)
    for p in (found.exact_worse, found.exact_better, found.exact_two_sided, found.mid_worse, found.mid_two_sided):
        assert 0 < p <= 1
    assert worse.exact_worse <= found.exact_worse
    assert worse.mid_worse <= found.mid_worse


@settings(max_examples=60)
@given(spread=st.floats(0, 0.3), more=st.floats(1, 3), ratio=st.sampled_from([0.9, 0.95, 1.02, 1.05, 1.2]))
def test_noisier_machines_need_more_pairs(spread: float, more: float, ratio: float) -> None:
    calm, noisy = (needed(spread_log=s, ratio=ratio, confidence=0.95, power=0.8) for s in (spread, spread * more))
    assert calm is not None or noisy is None
    assert calm is None or noisy is None or 2 <= calm <= noisy


@given(leads=st.lists(st.booleans(), min_size=1, max_size=12))
def test_balanced_orders_have_role_positions_that_nearly_agree(leads: list[bool]) -> None:
    order = [role for lead in leads for role in ("AB" if lead else "BA")]
    lean = sum(i if role == "A" else -i for i, role in enumerate(order))
    assert balanced(order) == (len(leads) >= 2 and abs(lean) <= 1)
    assert balanced(order) == balanced(order[::-1])
