"""Planned looks: which are complete, what one of them says, and that no other look is possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.decide import looks
from gate.errors import CouldNotMeasure
from gate.metrics import PERPLEXITY
from gate.records import ItemFailure, Measurement, Observation, Role, Status, merge
from tests.decide_factory import BASELINE, CANDIDATE, judged, measurement, observation, rule

NLL = PERPLEXITY["perplexity"]
SIZES = (1000, 4000, 16000)


def _document(k: int, size: int, value: float) -> Observation:
    return observation(
        NLL,
        f"notes/{k:04d}/look={size}",
        value,
        weight=math.ceil(size / 64),
        cluster=f"document {k}",
        group=f"look={size}",
    )


def grown(
    role: Role = BASELINE,
    *,
    sizes: Sequence[int] = SIZES,
    documents: int = 64,
    nats: float = 0.0,
    missing: int = 0,
    **changes: Any,
) -> Measurement:
    """Every document at every look; the last look lacks `missing` of them."""
    found = [
        _document(k, size, 2 + math.sin(k) / 5 + nats + 0.02 * math.cos(7 * k + size))
        for size in sizes
        for k in range(documents - (missing if size == sizes[-1] else 0))
    ]
    return measurement(role, found, documents, metric=NLL, also=tuple(PERPLEXITY.values())[1:], **changes)


class TestWhichLooks:
    def test_all_that_were_measured_are_complete(self) -> None:
        assert looks.looks(grown()) == looks.planned(grown()) == SIZES

    def test_a_look_of_which_one_document_is_missing_is_not_complete(self) -> None:
        partial = grown(missing=1)
        assert looks.planned(partial) == SIZES
        assert looks.looks(partial) == SIZES[:2]

    def test_a_failure_completes_a_look_and_belongs_to_that_look_alone(self) -> None:
        failed = ItemFailure(item_id="notes/0063/look=16000", kind="not_finite", message="found NaN")
        found = grown(missing=1, failures=(failed,))
        assert looks.looks(found) == SIZES
        assert looks.at(found, 4000).failures == ()
        assert looks.at(found, 16000).failures == (replace(failed, item_id="notes/0063"),)
        assert looks.planned(looks.at(found, 16000)) == (), "a look by itself has no looks"

    def test_a_percentile_of_the_whole_is_no_document(self) -> None:
        percentile = observation(PERPLEXITY["kl_p99_nats"], "run/0/look=16000", 0.1, group="look=16000")
        partial = grown(missing=1)
        with_it = replace(partial, observations=(*partial.observations, percentile))
        assert looks.looks(with_it) == SIZES[:2]

    def test_a_document_without_divergence_counts(self) -> None:
        some = tuple(
            observation(PERPLEXITY["kl_mean_nats"], f"notes/{k:04d}/look={size}", 0.01, group=f"look={size}")
            for size in SIZES
            for k in range(10)
        )
        assert looks.looks(replace(grown(), observations=(*grown().observations, *some))) == SIZES

    def test_sizes_are_numbers_not_words(self) -> None:
        assert looks.looks(grown(sizes=(900, 1000))) == (900, 1000)

    @pytest.mark.parametrize("group", [None, "anatomy", "batch=8", "look=", "look=many", "1000"])
    def test_what_was_not_planned_to_grow_has_no_looks(self, group: str | None) -> None:
        flat = measurement(BASELINE, [observation(NLL, "notes/0", 2.0, group=group)], 1, metric=NLL)
        assert looks.planned(flat) == looks.looks(flat) == ()

    @given(st.permutations(range(24)))
    def test_the_order_of_observations_is_nothing(self, order: list[int]) -> None:
        found = grown(documents=8)
        shuffled = replace(found, observations=tuple(found.observations[i] for i in order))
        assert looks.looks(shuffled) == looks.looks(found)
        assert sorted(o.item_id for o in looks.at(shuffled, 4000).observations) == [f"notes/{k:04d}" for k in range(8)]

    def test_parts_of_a_measurement_grow_look_by_look(self) -> None:
        whole = grown(documents=40)
        parts = [replace(whole, observations=whole.observations[i : i + 20]) for i in range(0, 120, 20)]
        reached = [looks.looks(merge(parts[: i + 1])) for i in range(6)]
        assert reached == [(), (1000,), (1000,), (1000, 4000), (1000, 4000), SIZES]


class TestOneLook:
    def test_it_is_judged_like_a_measurement_of_its_own(self) -> None:
        of = rule("max_increase 5%", metric="perplexity")
        baseline, candidate = grown(), grown(CANDIDATE, nats=0.02)
        found = judged(of, (looks.at(baseline, 4000), looks.at(candidate, 4000)))
        assert found.status is Status.PASS
        assert found.counts["tokens"] == 64 * 63
        assert found.counts["G"] == found.counts["N"] == found.n_paired == 64
        plain_b, plain_c = (grown(role, sizes=(4000,), nats=n) for role, n in ((BASELINE, 0.0), (CANDIDATE, 0.02)))
        b, c = (
            replace(m, observations=tuple(replace(o, group=None, item_id=str(o.cluster)) for o in m.observations))
            for m in (plain_b, plain_c)
        )
        assert judged(of, (b, c)) == found

    def test_it_has_no_groups_and_nothing_of_other_looks(self) -> None:
        found = looks.at(grown(), 4000)
        assert {o.group for o in found.observations} == {None}
        assert len(found.observations) == found.n_expected == 64
        assert {o.item_id for o in found.observations} == {f"notes/{k:04d}" for k in range(64)}
        assert {o.weight for o in found.observations} == {63.0}

    @pytest.mark.parametrize(("documents", "expected"), [(7, Status.ERROR), (8, Status.PASS)])
    def test_fewer_than_8_documents_decide_nothing_at_any_look(self, documents: int, expected: Status) -> None:
        of = rule("max_increase 9%", metric="perplexity")
        baseline, candidate = grown(documents=documents), grown(CANDIDATE, documents=documents)
        for size in SIZES:
            found = judged(of, (looks.at(baseline, size), looks.at(candidate, size)))
            assert found.status is expected
            assert (f"found {documents} documents, expected at least 8" in found.reason) is (documents == 7)

    def test_a_document_lost_at_this_look_is_lost_and_at_another_is_not(self) -> None:
        of = rule("max_increase 5%", metric="perplexity")
        failed = ItemFailure(item_id="notes/0063/look=16000", kind="not_finite", message="found NaN")
        candidate = grown(CANDIDATE, missing=1, failures=(failed,))
        assert judged(of, (looks.at(grown(), 4000), looks.at(candidate, 4000))).status is Status.PASS
        found = judged(of, (looks.at(grown(), 16000), looks.at(candidate, 16000)))
        assert found.status is Status.ERROR
        assert "1 of 64 items could not be measured (candidate not_finite: 1)" in found.reason

    @pytest.mark.parametrize("size", [2000, 16000])
    def test_a_look_that_is_not_complete_cannot_be_had(self, size: int) -> None:
        with pytest.raises(CouldNotMeasure, match=f"found complete looks at 1000, 4000, expected one at {size}"):
            looks.at(grown(missing=1), size)


class TestTheBudgetOfErrors:
    @pytest.mark.parametrize(("n_looks", "expected"), [(1, 0.95), (2, 0.975), (4, 0.9875), (8, 0.99375)])
    def test_level(self, n_looks: int, expected: float) -> None:
        assert looks.level(0.95, n_looks) == pytest.approx(expected, abs=1e-15)

    @given(st.floats(0.51, 0.999), st.integers(1, 8))
    def test_the_looks_together_err_as_often_as_one(self, confidence: float, n_looks: int) -> None:
        level = looks.level(confidence, n_looks)
        assert confidence <= level < 1
        assert n_looks * (1 - level) == pytest.approx(1 - confidence, rel=1e-9)

    def test_no_look_has_no_level(self) -> None:
        with pytest.raises(ValueError, match="found 0 planned looks, expected at least 1"):
            looks.level(0.95, 0)


class TestNoOtherLook:
    """A9: a method that is valid at one n raises at a second look; so does a look that was not planned."""

    @pytest.mark.parametrize("found", [(), (1000,), (1000, 4000), SIZES])
    def test_planned_looks_in_their_order(self, found: tuple[int, ...]) -> None:
        looks.check(found, SIZES)

    @pytest.mark.parametrize("found", [(500,), (1000, 2000), (4000,), (1000, 16000), (4000, 1000), (*SIZES, 64000)])
    def test_unplanned_or_skipped(self, found: tuple[int, ...]) -> None:
        with pytest.raises(CouldNotMeasure, match=r"expected the first of those planned \(1000, 4000, 16000\)"):
            looks.check(found, SIZES)

    @pytest.mark.parametrize("found", [(500,), (500, 1000), (1000, 1000), (1000, 2000)])
    def test_a_second_look_with_a_fixed_n_method(self, found: tuple[int, ...]) -> None:
        looks.check((1000,), (1000,))
        with pytest.raises(CouldNotMeasure, match=r"expected the first of those planned \(1000\)"):
            looks.check(found, (1000,))

    def test_nothing_planned_allows_no_look(self) -> None:
        with pytest.raises(CouldNotMeasure, match=r"found looks at 1000, expected the first of those planned \(none\)"):
            looks.check((1000,), ())

    def test_a_partial_unplanned_look_of_a_candidate_is_seen(self) -> None:
        candidate = grown(CANDIDATE, sizes=(1000, 2000), missing=3)
        looks.check(looks.looks(candidate), looks.planned(grown()))
        with pytest.raises(CouldNotMeasure, match="found looks at 1000, 2000"):
            looks.check(looks.planned(candidate), looks.planned(grown()))
