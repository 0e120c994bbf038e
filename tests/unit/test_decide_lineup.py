"""The order in which a candidate met the items, and what it was asked of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gate.decide.lineup import lineup
from gate.errors import CouldNotMeasure
from tests.decide_factory import ACCURACY, BASELINE, CANDIDATE, measurement, observation
from tests.sequence_factory import SEED, failed, ids, of_differences, roles


def test_items_come_in_the_order_of_the_seed() -> None:
    found = lineup(*of_differences([0] * 50), ACCURACY, SEED)
    assert [e.item_id for e in found.entries] == list(ids(50))
    assert found.reached == found.n == 50
    other = lineup(*of_differences([0] * 50), ACCURACY, "another seed")
    assert [e.item_id for e in other.entries] == list(ids(50, "another seed")) != list(ids(50))
    by_id = lineup(*of_differences([0] * 50), ACCURACY, None)
    assert [e.item_id for e in by_id.entries] == sorted(ids(50))


@pytest.mark.parametrize("reached", [1, 31, 32, 33, 50])
def test_what_was_not_asked_is_not_lost(reached: int) -> None:
    found = lineup(*of_differences([0] * 50, reached=reached), ACCURACY, SEED)
    assert found.reached == reached
    assert not any(e.is_lost for e in found.entries[:reached])


def test_a_gap_before_the_last_answer_is_lost() -> None:
    baseline, candidate = roles([1.0] * 50, [1.0] * 10 + [None] + [1.0] * 39, reached=20)
    found = lineup(baseline, replace(candidate, n_reached=5), ACCURACY, SEED)  # whatever it claims
    assert found.reached == 20
    assert [i for i, e in enumerate(found.entries[:20]) if e.is_lost] == [10]


def test_a_claim_to_have_asked_more_is_believed() -> None:
    baseline, candidate = of_differences([0] * 50, reached=20)
    found = lineup(baseline, replace(candidate, n_reached=25), ACCURACY, SEED)
    assert (found.reached, sum(e.is_lost for e in found.entries[:25])) == (25, 5)


def test_a_failed_prompt_stands_where_its_document_does() -> None:
    baseline, candidate = of_differences([0] * 50, reached=20)
    kept = tuple(o for o in candidate.observations if o.item_id != ids(50)[19])
    broken = replace(candidate, observations=kept, failures=(failed(ids(50)[19]),), n_reached=0)
    found = lineup(baseline, broken, ACCURACY, SEED)
    assert found.reached == 20
    assert found.entries[19].is_lost
    assert found.entries[19].baseline == 1.0
    neither = replace(
        baseline,
        observations=tuple(o for o in baseline.observations if o.item_id != ids(50)[19]),
        failures=(failed(ids(50)[19]),),
    )
    both = lineup(neither, broken, ACCURACY, SEED)
    assert both.n == 50
    assert both.entries[19].baseline is both.entries[19].candidate is None


def test_an_item_that_nobody_names_comes_first() -> None:
    baseline, candidate = of_differences([0] * 50, reached=20)
    sides = [replace(m, n_expected=52) for m in (baseline, candidate)]
    found = lineup(sides[0], sides[1], ACCURACY, SEED)
    assert (found.n, found.reached) == (52, 22)
    assert [e.is_lost for e in found.entries[:3]] == [True, True, False]


def test_other_documents_are_refused() -> None:
    baseline, candidate = of_differences([0] * 50)
    other = tuple(replace(o, item_id=o.item_id.replace("t/", "u/")) for o in candidate.observations)
    with pytest.raises(CouldNotMeasure, match="were not asked the same items"):
        lineup(baseline, replace(candidate, observations=other), ACCURACY, SEED)
    failures = tuple(failed(f"v/{k}/p") for k in range(3))
    with pytest.raises(CouldNotMeasure, match="found 53 items of accuracy, expected 50"):
        lineup(replace(baseline, failures=failures), candidate, ACCURACY, SEED)


def test_repeated_items_are_matched_smallest_with_largest() -> None:
    values = {BASELINE: (0.0, 1.0), CANDIDATE: (1.0, 0.0)}
    for swap in (1, -1):
        sides = [
            measurement(role, [observation(ACCURACY, "t/1/p", v) for v in some[::swap]], 2)
            for role, some in values.items()
        ]
        found = lineup(sides[0], sides[1], ACCURACY, SEED)
        assert [(e.baseline, e.candidate) for e in found.entries] == [(0.0, 1.0), (1.0, 0.0)]


def test_occurrences_have_places_of_their_own() -> None:
    names = ("t/1/p", "t/1/p#1", "t/1/q#2")
    sides = [measurement(role, [observation(ACCURACY, i, 1.0) for i in names], 3) for role in (BASELINE, CANDIDATE)]
    assert {e.item_id for e in lineup(sides[0], sides[1], ACCURACY, SEED).entries} == set(names)


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_a_score_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(CouldNotMeasure, match="expected 0 to 1"):
        lineup(*roles([1.0, 1.0], [1.0, value]), ACCURACY, SEED)
