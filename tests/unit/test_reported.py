"""Reported p-values: those of the tests they name, and none where the sample is not complete."""

from __future__ import annotations

import pytest

from gate.decide.reported import FlipCounts, flip_counts, mcnemar_p_value, pooled_p_value


def flips(lost: int, gained: int, n: int, n_expected: int | None = None) -> FlipCounts:
    return FlipCounts(lost=lost, gained=gained, n=n, n_expected=n if n_expected is None else n_expected)


def test_counts_are_those_of_the_items_both_were_scored_on() -> None:
    assert flip_counts([1, 1, 0, 0, 1], [1, 0, 1, 0, 1]) == flips(1, 1, 5)
    assert flip_counts([1, 1, 0, 0, 1], [1, 0]) == flips(1, 0, 2, 5)
    assert flip_counts([1, None, 0], [0, 1, None]) == flips(1, 0, 1, 3)


def test_partial_credit_has_no_flips() -> None:
    assert flip_counts([1, 0.5], [1, 1]) is None


def test_mcnemar() -> None:
    # 2·P(Binomial(8, ½) ≤ 1) = 2·9/256
    assert mcnemar_p_value(flips(7, 1, 100)) == pytest.approx(18 / 256)
    assert mcnemar_p_value(flips(1, 7, 100)) == pytest.approx(18 / 256)
    assert mcnemar_p_value(flips(0, 0, 100)) == 1.0


def test_pooled_over_equal_tasks_is_mcnemar_on_the_sums() -> None:
    assert pooled_p_value([flips(4, 0, 50), flips(3, 1, 50)]) == pytest.approx(18 / 256)


def test_tasks_count_the_same() -> None:
    """One item of a small task outweighs what a large one gained: by hand, over the 2·2³ ways to swap the roles."""
    # d = -1/10 + 3/1000; |Σ| is as large in: small ±, large three of the same sign as seen or further out
    assert pooled_p_value([flips(1, 0, 10), flips(0, 3, 1000)]) == pytest.approx(1.0)
    assert pooled_p_value([flips(1, 0, 10), flips(3, 0, 1000)]) == pytest.approx(2 / 16)


@pytest.mark.parametrize("incomplete", [flips(7, 1, 96, 100), flips(0, 0, 0, 100)])
def test_what_was_stopped_or_lost_has_no_p_value(incomplete: FlipCounts) -> None:
    assert mcnemar_p_value(incomplete) is None
    assert pooled_p_value([flips(3, 1, 50), incomplete]) is None


def test_nothing_pooled_is_no_p_value() -> None:
    assert pooled_p_value([]) is None
