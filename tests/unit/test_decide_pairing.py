"""Pairing by content: nothing is dropped in silence, duplicates count, order is nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gate.decide.pairing import LostItems, alone, check_lost, lost_text, pair
from gate.errors import CouldNotMeasure
from tests.decide_factory import (
    ACCURACY,
    BASELINE,
    CANDIDATE,
    failure,
    item_metric,
    judged,
    lost,
    measurement,
    observation,
    pair_of,
    rule,
    scored,
)


def test_every_item_expected_is_paired_one_sided_or_unseen() -> None:
    baseline = scored(BASELINE, {"a": 1.0, "b": 1.0, "c": 0.0}, n_expected=5)
    candidate = scored(CANDIDATE, {"c": 1.0, "a": 0.0, "d": 1.0}, n_expected=5)
    pairs = pair(baseline, candidate, ACCURACY)
    assert [(p.item_id, p.baseline, p.candidate) for p in pairs.paired] == [("a", 1.0, 0.0), ("c", 0.0, 1.0)]
    assert [(i.item_id, i.baseline, i.candidate) for i in pairs.one_sided] == [("b", 1.0, None), ("d", None, 1.0)]
    assert (pairs.n_lost, pairs.n_unseen) == (3, 1)


def test_other_metrics_of_the_same_items_are_left_alone() -> None:
    other = item_metric("empty")
    baseline = measurement(BASELINE, [observation(ACCURACY, "a", 1.0), observation(other, "a", 0.0)], 1)
    candidate = measurement(CANDIDATE, [observation(other, "a", 1.0), observation(ACCURACY, "a", 0.0)], 1)
    (only,) = pair(baseline, candidate, ACCURACY).paired
    assert (only.baseline, only.candidate) == (1.0, 0.0)


class TestDuplicates:
    def test_each_occurrence_counts(self) -> None:
        found = [observation(ACCURACY, "same", v) for v in (1.0, 1.0)]
        other = [observation(ACCURACY, "same", v) for v in (1.0, 1.0)]
        pairs = pair(measurement(BASELINE, found, 2), measurement(CANDIDATE, other, 2), ACCURACY)
        assert len(pairs.paired) == 2
        assert pairs.n_lost == 0

    def test_doubt_about_who_belongs_to_whom_widens_the_interval(self) -> None:
        found = [observation(ACCURACY, "same", v) for v in (0.0, 1.0)]
        pairs = pair(measurement(BASELINE, found, 2), measurement(CANDIDATE, found[::-1], 2), ACCURACY)
        assert sorted((p.baseline, p.candidate) for p in pairs.paired) == [(0.0, 1.0), (1.0, 0.0)]

    def test_an_occurrence_that_is_missing_is_lost(self) -> None:
        found = [observation(ACCURACY, "same", 1.0)] * 3
        pairs = pair(measurement(BASELINE, found, 3), measurement(CANDIDATE, found[:2], 3), ACCURACY)
        assert (len(pairs.paired), pairs.n_lost, len(pairs.one_sided)) == (2, 1, 1)


class TestLost:
    def test_kinds_are_counted_by_role_and_three_items_named(self) -> None:
        baseline = scored(BASELINE, [1.0] * 10)
        failures = [failure("x", "timeout"), failure("y", "sandbox"), failure("z", "sandbox")]
        candidate = scored(CANDIDATE, [1.0] * 5, n_expected=10, failures=failures)
        pairs = pair(baseline, candidate, ACCURACY)
        assert lost_text(pairs) == (
            "5 of 10 items could not be measured (candidate sandbox: 2, candidate timeout: 1), "
            "for instance 'item 0005', 'item 0006', 'item 0007'"
        )

    def test_items_that_failed_on_both_sides_are_named_too(self) -> None:
        pair_ = tuple(scored(r, [1.0], n_expected=2, failures=[failure("bad")]) for r in (BASELINE, CANDIDATE))
        pairs = pair(pair_[0], pair_[1], ACCURACY)
        assert pairs.n_unseen == 1
        assert lost_text(pairs).endswith("(baseline timeout: 1, candidate timeout: 1), for instance 'bad'")

    @pytest.mark.parametrize(("allowed", "raises"), [(4, True), (5, False), (6, False)])
    def test_the_limit(self, allowed: int, raises: bool) -> None:
        pairs = pair(scored(BASELINE, [1.0] * 10), scored(CANDIDATE, [1.0] * 5, n_expected=10), ACCURACY)
        if not raises:
            check_lost(pairs, lost(allowed))
            return
        with pytest.raises(LostItems, match="max_lost allows 4") as caught:
            check_lost(pairs, lost(allowed))
        assert (caught.value.n_paired, caught.value.n_lost) == (5, 5)

    def test_nothing_paired_is_never_tolerated(self) -> None:
        pairs = pair(scored(BASELINE, [1.0] * 3), scored(CANDIDATE, [], n_expected=3), ACCURACY)
        with pytest.raises(LostItems, match="nothing was paired"):
            check_lost(pairs, lost(3))


def test_roles_must_not_be_swapped_in_silence() -> None:
    baseline, candidate = pair_of(3, 0, 0, 0)
    with pytest.raises(CouldNotMeasure, match="found roles candidate and baseline"):
        pair(candidate, baseline, ACCURACY)


def test_unequal_weights_mean_other_tokens() -> None:
    baseline = scored(BASELINE, [1.0], weights=[200.0])
    with pytest.raises(CouldNotMeasure, match="weight 200 for the baseline and 199 for the candidate"):
        pair(baseline, scored(CANDIDATE, [1.0], weights=[199.0]), ACCURACY)


def test_the_candidate_alone() -> None:
    pairs = alone(scored(CANDIDATE, {"b": 0.5, "a": 1.0}, n_expected=3), ACCURACY)
    assert [(p.item_id, p.candidate) for p in pairs.paired] == [("a", 1.0), ("b", 0.5)]
    assert pairs.n_lost == 1


def test_a_finding_does_not_depend_on_the_order_of_observations() -> None:
    baseline, candidate = pair_of(80, 6, 3, 11)
    rotated = replace(candidate, observations=candidate.observations[37:] + candidate.observations[:37])
    of = rule("max_drop 3pp")
    assert judged(of, (baseline, rotated)) == judged(of, (baseline, candidate))
