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
from gate.stats.multiplicity import benjamini_hochberg, holm

SECOND_OPINIONS = frozenset({"wald", "wald_ratio", "cluster_t", "cluster_ratio"})
"""Zero width when nothing varies: never used alone (their modules say so)."""

CONFIDENCES = st.sampled_from([0.6, 0.8, 0.9, 0.95, 0.975, 0.99])
UNIT = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
POSITIVE = st.floats(0.01, 100)
WIDTHS = st.floats(1e-6, 0.1)

Arguments = dict[str, Any]


@st.composite
def flips(draw: st.DrawFn) -> Arguments:
    n = draw(st.integers(1, 400))
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
    "log_ratio_t": pairs(POSITIVE, 2),
    "log_mean_t": st.lists(POSITIVE, min_size=2, max_size=20).map(lambda v: {"values": v}),
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


def test_every_method_has_a_case() -> None:
    assert CASES.keys() == METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
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


@settings(max_examples=80, deadline=None)
@given(counts=flips(), confidence=CONFIDENCES)
def test_tango_mirrors_when_the_roles_are_swapped(counts: Arguments, confidence: float) -> None:
    found = estimator("tango")(**counts, confidence=confidence)
    swapped = estimator("tango")(lost=counts["gained"], gained=counts["lost"], n=counts["n"], confidence=confidence)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(counts=cells(), confidence=CONFIDENCES)
def test_nam_inverts_when_the_roles_are_swapped(counts: Arguments, confidence: float) -> None:
    swapped = counts | {"lost": counts["gained"], "gained": counts["lost"]}
    if counts["both"] + counts["gained"] == 0:
        return
    found, mirrored = (estimator("nam_blackwelder")(**c, confidence=confidence) for c in (counts, swapped))
    assert mirrored.low == pytest.approx(1 / found.high, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(counts=flips(), confidence=CONFIDENCES)
def test_one_more_loss_never_raises_a_limit(counts: Arguments, confidence: float) -> None:
    if counts["lost"] + counts["gained"] == counts["n"]:
        return
    before = estimator("tango")(**counts, confidence=confidence)
    after = estimator("tango")(**counts | {"lost": counts["lost"] + 1}, confidence=confidence)
    assert after.low <= before.low + 1e-12
    assert after.high <= before.high + 1e-12


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
