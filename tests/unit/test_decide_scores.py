"""Length ratios and corpus scores."""

from __future__ import annotations

import math

import pytest

from gate.metrics import DOMAIN
from gate.records import (
    Measurement,
    Role,
    Status,
)
from tests.decide_factory import (
    ACCURACY,
    BASELINE,
    CANDIDATE,
    judged,
    lost,
    measurement,
    observation,
    rule,
    scored,
)


class TestRatiosAndScores:
    LENGTHS = DOMAIN["length_ratio"]

    def lengths(self, baseline: list[float], candidate: list[float]) -> tuple[Measurement, Measurement]:
        return scored(BASELINE, baseline, metric=self.LENGTHS), scored(CANDIDATE, candidate, metric=self.LENGTHS)

    def test_length_ratio(self) -> None:
        base = [20.0 + 5 * math.sin(i) for i in range(300)]
        longer = [1.2 * v for v in base]
        assert judged(rule("max 1.1", metric="length_ratio"), self.lengths(base, longer)).status is Status.REGRESSION
        same = judged(rule("max 1.1", metric="length_ratio"), self.lengths(base, base))
        assert same.status is Status.PASS
        assert same.interval is not None
        assert same.interval.low < 1 < same.interval.high
        assert judged(rule("min 0.9", metric="length_ratio"), self.lengths(base, base)).status is Status.PASS

    @pytest.mark.parametrize("baseline", [[5.0], [0.0, 0.0]])
    def test_nothing_to_compare_lengths_with(self, baseline: list[float]) -> None:
        found = judged(rule("max 1.1", metric="length_ratio"), self.lengths(baseline, baseline))
        assert found.status is Status.ERROR
        assert "a baseline above 0" in found.reason

    def corpus(self, role: Role, full: float, deleted: list[float], n: int = 200) -> Measurement:
        metric = DOMAIN["macro_f1"]
        values = [observation(metric, "all", full)]
        values += [observation(metric, f"without/{k}", v) for k, v in enumerate(deleted)]
        items = [observation(ACCURACY, f"item {i}", 1.0) for i in range(n)]
        return measurement(role, [*values, *items], 200, metric=metric, also=[ACCURACY])

    def test_macro_f1_by_delete_groups(self) -> None:
        baseline = self.corpus(BASELINE, 0.9, [0.9 + 0.002 * math.sin(k) for k in range(20)])
        candidate = self.corpus(CANDIDATE, 0.88, [0.88 + 0.003 * math.cos(k) for k in range(20)])
        found = judged(rule("max_drop 8pp", metric="macro_f1"), (baseline, candidate))
        assert found.status is Status.PASS
        assert found.estimate == pytest.approx(0.02)
        assert (found.n_paired, found.counts["groups"]) == (200, 20)
        assert judged(rule("max_drop 1pp", metric="macro_f1"), (baseline, candidate)).status is Status.INCONCLUSIVE
        retained = judged(rule("min_retained 90%", metric="macro_f1"), (baseline, candidate))
        assert retained.status is Status.PASS
        assert retained.estimate == pytest.approx(0.88 / 0.9)
        absolute = judged(rule("min 0.7", metric="macro_f1"), (None, candidate))
        assert absolute.status is Status.PASS

    def test_an_unchanged_score_is_not_certain(self) -> None:
        same = [0.9] * 20
        pair = self.corpus(BASELINE, 0.9, same), self.corpus(CANDIDATE, 0.9, same)
        found = judged(rule("max_drop 1pp", metric="macro_f1"), pair)
        assert found.status is Status.INCONCLUSIVE
        assert found.interval is not None
        square = 1.6448536**2
        assert found.interval.high == pytest.approx(square / (200 + square), rel=1e-6)

    def test_lost_items_of_a_score(self) -> None:
        baseline = self.corpus(BASELINE, 0.9, [0.9] * 20)
        candidate = self.corpus(CANDIDATE, 0.9, [0.9] * 20, n=190)
        found = judged(rule("max_drop 9pp", metric="macro_f1"), (baseline, candidate))
        assert (found.status, found.n_lost) == (Status.ERROR, 10)
        tolerated = judged(rule("max_drop 9pp", metric="macro_f1", max_lost=lost(10)), (baseline, candidate))
        assert tolerated.status is Status.INCONCLUSIVE
        assert "could have moved macro_f1 anywhere" in tolerated.reason

    @pytest.mark.parametrize(
        ("full", "deleted", "message"),
        [(0.9, [0.9], "1 delete-group scores"), (90.0, [90.0] * 20, "found the score 90.0, expected 0 to 1")],
    )
    def test_broken_scores(self, full: float, deleted: list[float], message: str) -> None:
        pair = self.corpus(BASELINE, full, deleted), self.corpus(CANDIDATE, full, deleted)
        found = judged(rule("max_drop 1pp", metric="macro_f1"), pair)
        assert found.status is Status.ERROR
        assert message in found.reason

    def test_different_groups_do_not_compare(self) -> None:
        pair = self.corpus(BASELINE, 0.9, [0.9] * 20), self.corpus(CANDIDATE, 0.9, [0.9] * 10)
        assert "left out different groups" in judged(rule("max_drop 1pp", metric="macro_f1"), pair).reason

    def test_a_score_of_zero_retains_nothing(self) -> None:
        pair = self.corpus(BASELINE, 0.0, [0.0] * 20), self.corpus(CANDIDATE, 0.5, [0.5] * 20)
        found = judged(rule("min_retained 90%", metric="macro_f1"), pair)
        assert (found.status, "nothing to retain" in found.reason) == (Status.ERROR, True)
