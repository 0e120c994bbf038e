"""Tests of "nothing changed": p-values that other reports print, for readers who look for them.

Pure.  Never the gate: they know no margin, and "not significant" is no evidence that nothing got worse.

They hold at a fixed number of items.  Where measuring stopped because of what it showed, or items were lost, there is
no p-value; the anytime-valid interval says what is known.

References:
    [1] J. Kübler et al., arXiv 2602.10144: the exact McNemar test on a task, sign flips pooled over tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gate.stats import mcnemar, pooled_permutation


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipCounts:
    """Right or wrong on the `n` items that both roles were scored on, of `n_expected` in the sample.

    `lost` are the items that only the baseline got right, `gained` those that only the candidate did.
    """

    lost: int
    gained: int
    n: int
    n_expected: int

    @property
    def is_complete(self) -> bool:
        return self.n == self.n_expected


def flip_counts(baseline: Sequence[float | None], candidate: Sequence[float | None]) -> FlipCounts | None:
    """Counted from the scores of the whole sample and of its first items; None where a score is not 0 or 1.

    Args:
        baseline: (N,) on all items of the sample; None for an item that was lost.
        candidate: (t,) on the first t ≤ N of them, likewise.
    """
    if any(v not in (0, 1, None) for v in (*baseline, *candidate)):
        return None
    pairs = [
        (b, c) for b, c in zip(baseline, candidate, strict=False) if b is not None and c is not None
    ]  # the candidate's are the first of the baseline's items
    return FlipCounts(
        lost=sum(b > c for b, c in pairs),
        gained=sum(c > b for b, c in pairs),
        n=len(pairs),
        n_expected=len(baseline),
    )


def mcnemar_p_value(counts: FlipCounts) -> float | None:
    """Exact two-sided McNemar p-value of "as many are lost as gained"; None unless the sample is complete.

    Raises:
        ValueError: a negative count.
    """
    return mcnemar.p_values(lost=counts.lost, gained=counts.gained).exact_two_sided if counts.is_complete else None


def pooled_p_value(sources: Sequence[FlipCounts]) -> float | None:
    """Two-sided p-value of "nothing changed on any source": every source's accuracy counts the same.

    Exact, by swapping the roles on every item that flipped; None unless every sample is complete, or without sources.

    Raises:
        ValueError: counts that do not fit.
    """
    if not sources or not all(s.is_complete for s in sources):
        return None
    tasks = [pooled_permutation.TaskFlips(lost=s.lost, gained=s.gained, n=s.n) for s in sources]
    return pooled_permutation.by_tasks(tasks=tasks).p_two_sided
