"""The quality score: exact where it must be, honest however the items stop, silent where there is nothing to say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.decide.quality import BETS_SIZED_FOR, SourceScores, quality
from gate.errors import CouldNotMeasure
from gate.records import Quality, Scope
from gate.stats import betting, cluster, confidence_sequence, nam_blackwelder
from gate.stats.pooled_permutation import TaskFlips, by_tasks
from gate.stats.quantiles import small_sample

CONFIDENCE = 0.95


def source(
    baseline: Sequence[float | None],
    candidate: Sequence[float | None],
    name: str = "sums",
    clusters: Sequence[str] | None = None,
) -> SourceScores:
    return SourceScores(source=name, baseline=baseline, candidate=candidate, clusters=clusters)


def counted(both: int, lost: int, gained: int, neither: int, name: str = "sums") -> SourceScores:
    baseline = [1.0] * (both + lost) + [0.0] * (gained + neither)
    return source(baseline, [1.0] * both + [0.0] * lost + [1.0] * gained + [0.0] * neither, name)


def scored(*sources: SourceScores) -> Quality:
    found = quality(sources, CONFIDENCE)
    assert found is not None
    return found


def nam(both: int, lost: int, gained: int, n: int) -> tuple[float, float, float]:
    level = small_sample(CONFIDENCE, n)
    found = nam_blackwelder.interval(both=both, lost=lost, gained=gained, n=n, confidence=level)
    return found.low, found.estimate, found.high


def test_nothing_to_speak_of_is_no_score() -> None:
    assert quality([], CONFIDENCE) is None


class TestComplete:
    def test_one_source_is_its_retention(self) -> None:
        found = scored(counted(90, 12, 8, 54))
        low, estimate, high = nam(90, 12, 8, 164)
        assert found.estimate == pytest.approx(98 / 102)
        assert (found.interval.low, found.estimate, found.interval.high) == pytest.approx((low, estimate, high))
        assert (found.interval.valid, found.interval.scope) == ("fixed_n", Scope.POPULATION)
        assert (found.interval.confidence, found.interval.fail_confidence) == (CONFIDENCE, CONFIDENCE)

    def test_several_are_averaged_and_their_distances_add_as_squares(self) -> None:
        found = scored(counted(90, 12, 8, 54, "a"), counted(300, 5, 9, 186, "b"))
        (low_a, a, high_a), (low_b, b, high_b) = nam(90, 12, 8, 164), nam(300, 5, 9, 500)
        assert found.sources == ("a", "b")
        assert found.estimate == pytest.approx((a + b) / 2)
        assert found.interval.low == pytest.approx((a + b) / 2 - math.hypot(a - low_a, b - low_b) / 2)
        assert found.interval.high == pytest.approx((a + b) / 2 + math.hypot(high_a - a, high_b - b) / 2)

    def test_sources_count_the_same_whatever_their_size(self) -> None:
        small, large = counted(8, 2, 0, 0), counted(10_000, 0, 0, 0)
        assert scored(small, large).estimate == pytest.approx((0.8 + 1.0) / 2)

    def test_no_flips_leave_a_width(self) -> None:
        found = scored(counted(50, 0, 0, 50), counted(80, 0, 0, 20))
        assert found.estimate == 1.0
        assert found.interval.low < 0.98
        assert found.interval.high > 1.02

    def test_the_pooled_test_stands_beside_it(self) -> None:
        found = scored(counted(90, 12, 3, 59), counted(300, 9, 1, 190))
        tasks = [TaskFlips(lost=12, gained=3, n=164), TaskFlips(lost=9, gained=1, n=500)]
        assert found.pooled_p_value == by_tasks(tasks=tasks).p_two_sided

    def test_partial_credit(self) -> None:
        generator = np.random.default_rng(5)
        baseline = generator.uniform(0.4, 1, 200)
        candidate = np.clip(baseline - 0.02 + generator.normal(0, 0.05, 200), 0, 1)
        found = scored(source(baseline.tolist(), candidate.tolist()))
        assert found.estimate == pytest.approx(candidate.sum() / baseline.sum())
        assert found.interval.low < found.estimate < found.interval.high
        assert found.pooled_p_value is None

    def test_one_item_of_partial_credit_says_next_to_nothing(self) -> None:
        found = scored(source([0.5], [0.4]))
        assert found.estimate == pytest.approx(0.8)
        assert found.interval.low < 0.3
        assert found.interval.high > 1.3

    def test_items_that_stand_or_fall_together_widen_it(self) -> None:
        n, per_cluster = 200, 20
        baseline = [1.0] * n
        candidate = [0.0 if i < 2 * per_cluster else 1.0 for i in range(n)]  # two of ten subjects are lost whole
        clusters = [f"subject {i // per_cluster}" for i in range(n)]
        apart, together = scored(source(baseline, candidate)), scored(source(baseline, candidate, clusters=clusters))
        robust = cluster.retention(baseline=baseline, candidate=candidate, clusters=clusters, confidence=CONFIDENCE)
        assert together.estimate == apart.estimate
        assert together.interval.low == pytest.approx(robust.low)
        assert together.interval.low < apart.interval.low - 0.05

    def test_either_limit_errs_as_often_as_it_says(self) -> None:
        generator, misses, repetitions = np.random.default_rng(7), np.zeros(2), 500
        sizes, lost, gained, right = (60, 164, 400), (0.06, 0.04, 0.05), (0.05, 0.01, 0.03), (0.8, 0.6, 0.7)
        truth = sum((r - x + g) / r for x, g, r in zip(lost, gained, right, strict=True)) / 3
        for _ in range(repetitions):
            drawn = [
                generator.multinomial(n, (r - x, x, g, 1 - r - g))
                for n, x, g, r in zip(sizes, lost, gained, right, strict=True)
            ]
            interval = scored(*(counted(int(a), int(b), int(c), int(d)) for a, b, c, d in drawn)).interval
            misses += (interval.low > truth, interval.high < truth)
        assert (misses / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)).all()
        assert (misses > 0).all()  # not merely wide


class TestStopped:
    def test_the_union_bound_over_all_sources(self) -> None:
        generator = np.random.default_rng(3)
        baseline = generator.integers(0, 2, 500).astype(float)
        candidate = np.where(generator.random(500) < 0.05, 1 - baseline, baseline)
        found = scored(
            source(baseline.tolist(), candidate[:160].tolist(), "a"),
            source(baseline.tolist(), candidate.tolist(), "b"),  # complete: its share is known
        )
        level = 1 - 0.05 / 2
        sequence = confidence_sequence.interval(
            test=betting.drop(scope=Scope.BENCHMARK, n=500, bound=BETS_SIZED_FOR, integral=True),
            differences=(candidate - baseline)[:160],
            low_confidence=level,
            high_confidence=level,
        )
        total, exact = baseline.sum(), candidate.sum() / baseline.sum()
        assert found.interval.low == pytest.approx((1 + 500 * sequence.low / total + exact) / 2)
        assert found.interval.high == pytest.approx((1 + 500 * sequence.high / total + exact) / 2)
        assert found.estimate == pytest.approx((1 + 500 * sequence.estimate / total + exact) / 2)
        assert (found.interval.valid, found.interval.scope) == ("anytime", Scope.BENCHMARK)

    def test_it_has_no_p_value(self) -> None:
        assert scored(source([1.0] * 100, [1.0] * 32)).pooled_p_value is None

    def test_it_holds_at_the_worst_moment_to_stop(self) -> None:
        """Every source is stopped where it looks worst, which no stopping rule could do: fixed n would not survive."""
        generator, repetitions, n, blocks = np.random.default_rng(11), 150, 320, range(32, 320, 32)
        too_high = fixed_too_high = 0
        for _ in range(repetitions):
            stopped, cut, truth = [], [], 0.0
            for name in "ab":
                baseline = (generator.random(n) < 0.7).astype(float)
                candidate = np.where(generator.random(n) < 0.1, 1 - baseline, baseline)
                means = np.cumsum(candidate - baseline) / np.arange(1, n + 1)
                t = min(blocks, key=lambda at: means[at - 1])
                truth += candidate.sum() / baseline.sum() / 2
                stopped.append(source(baseline.tolist(), candidate[:t].tolist(), name))
                cut.append(source(baseline[:t].tolist(), candidate[:t].tolist(), name))
            too_high += scored(*stopped).interval.high < truth
            fixed_too_high += scored(*cut).interval.high < truth
        assert too_high / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)
        assert fixed_too_high / repetitions > 2 * 0.05

    def test_partial_credit_stops_too(self) -> None:
        baseline = [0.5, 1.0, 0.75, 0.25] * 100
        found = scored(source(baseline, [b - 0.05 for b in baseline[:200]]))
        assert found.estimate == pytest.approx(1 - 0.05 * 400 / sum(baseline))
        assert found.interval.low < found.estimate < found.interval.high < 1.0

    @given(reached=st.integers(1, 10), seed=st.integers(0, 50))
    def test_the_truth_that_is_certain_is_never_outside(self, reached: int, seed: int) -> None:
        """Whatever the rest turns out to be, the estimate is between the limits and they are ordered."""
        generator = np.random.default_rng(seed)
        baseline = np.append(generator.integers(0, 2, 9), 1).astype(float)
        candidate = generator.integers(0, 2, reached).astype(float)
        found = scored(source(baseline.tolist(), candidate.tolist()))
        assert found.interval.low <= found.estimate <= found.interval.high
        assert found.interval.low < found.interval.high


class TestLostItems:
    @pytest.mark.parametrize("reached", [100, 64])
    def test_a_lost_item_takes_both_extremes(self, reached: int) -> None:
        baseline: list[float | None] = [1.0, 0.0] * 50
        candidate: Sequence[float | None] = ([1.0, 0.0] * 50)[:reached]
        holed = [None, None, *candidate[2:]]
        found = scored(source(baseline, holed))
        worst, best = (
            scored(source(baseline, [0.0, 0.0, *candidate[2:]])),
            scored(source(baseline, [1.0, 1.0, *candidate[2:]])),
        )
        assert found.interval.low == worst.interval.low < scored(source(baseline, candidate)).interval.low
        assert found.interval.high == best.interval.high > scored(source(baseline, candidate)).interval.high
        assert found.pooled_p_value is None

    def test_so_does_one_that_the_baseline_lost(self) -> None:
        candidate = [1.0] * 20
        found = scored(source([None, *[1.0] * 19], candidate))
        assert found.interval.high == scored(source([0.0, *[1.0] * 19], candidate)).interval.high
        assert found.interval.low == scored(source([1.0] * 20, candidate)).interval.low


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ([source([0.0] * 9, [0.0] * 9)], "sums: the baseline scored 0 on its 9 items"),
        ([counted(9, 0, 0, 0, "fine"), source([0.0] * 9, [1.0], "zero")], "zero: the baseline scored 0"),
        ([source([None, 0.0], [1.0, 1.0])], "the baseline scored 0"),
        ([source([1.0], [])], "no item that both roles were scored on"),
        ([source([], [])], "no item that both roles were scored on"),
        ([source([None, 1.0], [1.0])], "no item that both roles were scored on"),
        ([source([1.0], [1.5])], "found the score 1.5, expected 0 to 1"),
        ([source([1.0], [math.nan])], "found the score nan"),
        ([source([1.0], [1.0, 1.0])], "found 1 scores of the baseline, 2 of the candidate"),
        ([source([1.0, 1.0], [1.0], clusters=["one"])], "1 clusters"),
    ],
)
def test_what_cannot_be_scored_is_said(sources: list[SourceScores], said: str) -> None:
    with pytest.raises(CouldNotMeasure, match=said):
        quality(sources, CONFIDENCE)
