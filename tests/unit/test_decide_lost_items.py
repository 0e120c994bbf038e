"""Items that could not be measured: counted, named, bounded, and never taken for right or wrong."""

from __future__ import annotations

from gate.metrics import PERPLEXITY
from gate.records import (
    MaxLost,
    Status,
)
from tests.decide_factory import (
    BASELINE,
    CANDIDATE,
    failure,
    judged,
    lost,
    pair_of,
    rule,
    scored,
)


class TestLostItems:
    def test_within_max_lost_a_pass_must_survive_the_worst(self) -> None:
        baseline = scored(BASELINE, [1.0] * 200)
        candidate = scored(CANDIDATE, [1.0] * 195, n_expected=200, failures=[failure(f"x{i}") for i in range(5)])
        found = judged(rule("max_drop 3pp", max_lost=lost(5)), (baseline, candidate))
        assert (found.status, found.n_lost, found.n_paired) == (Status.INCONCLUSIVE, 5, 195)
        assert "5 of 200 items could not be measured (candidate timeout: 5)" in found.reason
        worst = judged(rule("max_drop 3pp"), pair_of(195, 5, 0, 0)).interval
        assert found.interval is not None
        assert worst is not None
        assert found.interval.high == worst.high
        assert judged(rule("max_drop 6pp", max_lost=lost(5)), (baseline, candidate)).status is Status.PASS

    def test_a_baseline_that_may_be_too_bad_to_drop_is_no_pass(self) -> None:
        # 35 of the 100 measured are right; with the lost ones perhaps 35 of 200: no room for a drop of 20 pp
        baseline = scored(BASELINE, [1.0] * 35 + [0.0] * 65, n_expected=200)
        candidate = scored(CANDIDATE, [1.0] * 35 + [0.0] * 65, n_expected=200)
        found = judged(rule("max_drop 20pp", max_lost=lost(100)), (baseline, candidate))
        assert found.status is Status.ERROR
        assert "the baseline scores 17.5% and a drop of 20 pp is allowed" in found.reason

    def test_a_regression_must_survive_the_best(self) -> None:
        baseline = scored(BASELINE, [1.0] * 100)
        candidate = scored(CANDIDATE, [1.0] * 78 + [0.0] * 12, n_expected=100)
        strict = judged(rule("max_drop 8pp", max_lost=lost(10)), (baseline, candidate))
        assert strict.status is Status.INCONCLUSIVE
        paired_only = judged(rule("max_drop 8pp"), pair_of(78, 12, 0, 0))
        assert paired_only.interval is not None
        assert strict.interval is not None
        assert strict.interval.low < paired_only.interval.low

    def test_a_lost_baseline_item_takes_both_values(self) -> None:
        baseline = scored(BASELINE, {f"i{k:03d}": 1.0 for k in range(98)}, n_expected=100)
        candidate = scored(CANDIDATE, {f"i{k:03d}": 1.0 for k in range(100)})
        found = judged(rule("max_drop 3pp", max_lost=lost(2)), (baseline, candidate))
        # Known: the candidate has the two right.  Whatever the baseline was, nothing was lost there.
        right, wrong = (
            judged(rule("max_drop 3pp"), pair_of(100, 0, 0, 0)),
            judged(rule("max_drop 3pp"), pair_of(98, 0, 2, 0)),
        )
        assert found.interval is not None
        assert right.interval is not None
        assert wrong.interval is not None
        paired = judged(rule("max_drop 3pp"), pair_of(98, 0, 0, 0)).interval
        assert paired is not None
        assert found.interval.low == wrong.interval.low
        assert found.interval.high == max(right.interval.high, paired.high)

    def test_a_share_may_be_lost(self) -> None:
        share = MaxLost(count=None, share=0.02)
        baseline, candidate = scored(BASELINE, [1.0] * 200), scored(CANDIDATE, [1.0] * 196, n_expected=200)
        assert judged(rule("max_drop 10pp", max_lost=share), (baseline, candidate)).status is Status.PASS
        fewer = scored(CANDIDATE, [1.0] * 195, n_expected=200)
        assert judged(rule("max_drop 10pp", max_lost=share), (baseline, fewer)).status is Status.ERROR

    def test_other_prompts_do_not_pair(self) -> None:
        baseline = scored(BASELINE, {f"doc {i} prompt A": 1.0 for i in range(10)})
        candidate = scored(CANDIDATE, {f"doc {i} prompt B": 1.0 for i in range(10)})
        found = judged(rule("max_drop 3pp", max_lost=lost(10)), (baseline, candidate))
        assert found.status is Status.ERROR
        assert "the two were not asked the same items" in found.reason

    def test_candidate_rules_do_not_care_what_the_baseline_lost(self) -> None:
        baseline = scored(BASELINE, [], n_expected=100, failures=[failure(f"item {i:04d}") for i in range(100)])
        found = judged(rule("min 0.5"), (baseline, scored(CANDIDATE, [1.0] * 100)))
        assert found.status is Status.PASS

    def test_more_items_than_expected(self) -> None:
        found = judged(rule("min 0.5"), (None, scored(CANDIDATE, [1.0] * 5, n_expected=4)))
        assert (found.status, "found 5 items of accuracy, expected 4" in found.reason) == (Status.ERROR, True)

    def test_documents_that_were_lost_forbid_a_conclusion(self) -> None:
        metric = PERPLEXITY["perplexity"]
        baseline = scored(BASELINE, [2.0] * 20, metric=metric)
        candidate = scored(CANDIDATE, [2.0] * 19, metric=metric, n_expected=20)
        found = judged(rule("max_increase 5%", metric="perplexity", max_lost=lost(1)), (baseline, candidate))
        assert found.status is Status.INCONCLUSIVE
        assert "could hold any value" in found.reason
