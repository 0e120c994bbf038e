"""One rule, two measurements, one finding: item rules, their boundaries, and what cannot be judged."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from gate.decide.judge import judge
from gate.decide.terms import Terms
from gate.decide.unjudged import could_not_measure, skipped
from gate.metrics import DOMAIN, PROFILE
from gate.records import (
    Direction,
    Estimand,
    Measurement,
    Role,
    Scope,
    Severity,
    Status,
)
from tests.decide_factory import (
    ACCURACY,
    BASELINE,
    CANDIDATE,
    item_metric,
    judged,
    pair_of,
    rule,
    scored,
)


class TestThreeWays:
    """The bound walks across the interval of one and the same evidence: b = 12, c = 8, n = 1000."""

    PAIR = pair_of(880, 12, 8, 100)

    @pytest.mark.parametrize(
        ("points", "expected"),
        [
            ("0pp", Status.INCONCLUSIVE),
            ("0.4pp", Status.INCONCLUSIVE),
            ("1.1pp", Status.INCONCLUSIVE),
            ("1.3pp", Status.PASS),
            ("3pp", Status.PASS),
        ],
    )
    def test_max_drop(self, points: str, expected: Status) -> None:
        found = judged(rule(f"max_drop {points}"), self.PAIR)
        assert found.status is expected
        assert found.interval is not None
        assert (found.interval.high <= found.rule.bound.value) == (expected is Status.PASS)

    def test_the_finding_repeats_its_evidence(self) -> None:
        found = judged(rule("max_drop 3pp"), self.PAIR)
        assert (found.baseline, found.candidate) == (0.892, 0.888)
        assert found.estimate == pytest.approx(0.004)
        assert found.counts == {"a": 880, "b": 12, "c": 8, "n": 1000, "N": 1000}
        assert (found.n_paired, found.n_lost) == (1000, 0)
        assert found.interval is not None
        assert (found.interval.method, found.interval.confidence) == ("tango+wald", 0.95)
        assert (found.interval.scope, found.interval.valid) == (Scope.POPULATION, "fixed_n")
        assert found.detectable == pytest.approx(2.486 * math.sqrt(0.02 / 1000), rel=1e-3)
        assert found.reason == "the drop keeps the bound 3pp over its whole interval (95% sure)"

    @pytest.mark.parametrize("text", ["max_drop 3pp", "min_retained 97%"])
    def test_a_clear_loss(self, text: str) -> None:
        found = judged(rule(text), pair_of(880, 100, 5, 15))
        assert found.status is Status.REGRESSION
        assert "beyond the bound" in found.reason

    def test_failing_needs_tango_and_wald(self) -> None:
        # Two losses of twenty: Tango alone puts the drop above 1.5 pp, Wald does not exclude 0.
        found = judged(rule("max_drop 1.5pp"), pair_of(18, 2, 0, 0))
        assert found.interval is not None
        assert found.interval.low < 0 < found.interval.high
        assert found.status is Status.INCONCLUSIVE

    def test_retention_is_shown_as_the_share_retained(self) -> None:
        found = judged(rule("min_retained 97%"), pair_of(1880, 12, 8, 100))
        assert found.estimate == pytest.approx(1888 / 1892)
        assert found.interval is not None
        assert found.interval.low >= 0.97
        assert found.interval.method == "nam_blackwelder+wald_ratio"
        assert found.status is Status.PASS

    @pytest.mark.parametrize(
        ("text", "right", "expected"),
        [
            ("min 0.9", 92, Status.INCONCLUSIVE),
            ("min 0.9", 98, Status.PASS),
            ("min 0.9", 80, Status.REGRESSION),
            ("max 0.1", 2, Status.PASS),
            ("max 0.1", 20, Status.REGRESSION),
            ("max 0.1", 10, Status.INCONCLUSIVE),
        ],
    )
    def test_absolute_rates_look_at_the_candidate_alone(self, text: str, right: int, expected: Status) -> None:
        candidate = scored(CANDIDATE, [1.0] * right + [0.0] * (100 - right))
        found = judged(rule(text), (None, candidate))
        assert (found.status, found.candidate, found.baseline) == (expected, right / 100, None)
        assert found.interval is not None
        assert found.interval.method == "wilson"

    def test_beside_an_absolute_rule_the_baseline_is_shown(self) -> None:
        pair = scored(BASELINE, [1.0] * 99 + [0.0]), scored(CANDIDATE, [1.0] * 98 + [0.0] * 2)
        assert judged(rule("min 0.9"), pair).baseline == 0.99
        empty = scored(BASELINE, [], n_expected=100)
        found = judged(rule("min 0.9"), (empty, pair[1]))
        assert (found.status, found.baseline) == (Status.PASS, None)

    def test_the_interval_narrows_with_the_confidence(self) -> None:
        wide, narrow = (
            judge(rule("max_drop 3pp"), *self.PAIR, Terms(confidence=c, fail_confidence=c, order_seed=None)).interval
            for c in (0.99, 0.8)
        )
        assert wide is not None
        assert narrow is not None
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_advisory_rules_are_judged_the_same(self) -> None:
        advisory = rule("max_drop 3pp", severity=Severity.ADVISORY)
        assert judged(advisory, pair_of(880, 100, 5, 15)).status is Status.REGRESSION


class TestEdges:
    @pytest.mark.parametrize("text", ["max_drop 3pp", "min_retained 97%", "min 0.9", "max 0.9"])
    def test_one_item_decides_nothing(self, text: str) -> None:
        found = judged(rule(text), pair_of(1, 0, 0, 0))
        assert found.status is Status.INCONCLUSIVE
        assert found.n_paired == 1

    @pytest.mark.parametrize("text", ["max_drop 0pp", "min_retained 100%"])
    def test_a_bound_of_nothing_needs_a_gain(self, text: str) -> None:
        assert judged(rule(text), pair_of(1000, 0, 0, 0)).status is Status.INCONCLUSIVE
        assert judged(rule(text), pair_of(900, 0, 60, 40)).status is Status.PASS
        assert judged(rule(text), pair_of(900, 60, 0, 40)).status is Status.REGRESSION

    @pytest.mark.parametrize(("text", "clean", "dirty"), [("max 0", 0.0, 1.0), ("min 1", 1.0, 0.0)])
    def test_a_perfect_rate_can_be_refuted_but_not_shown(self, text: str, clean: float, dirty: float) -> None:
        spotless = judged(rule(text), (None, scored(CANDIDATE, [clean] * 50)))
        assert spotless.status is Status.INCONCLUSIVE
        assert "no finite sample can show" in spotless.reason
        stained = judged(rule(text), (None, scored(CANDIDATE, [clean] * 49 + [dirty])))
        assert stained.status is Status.REGRESSION

    def test_items_needed_without_a_flip_follow_the_rule_of_three(self) -> None:
        few = judged(rule("max_drop 3pp"), pair_of(50, 0, 0, 0))
        assert few.n_needed is not None
        assert 80 <= few.n_needed <= 95
        assert judged(rule("max_drop 3pp"), pair_of(few.n_needed + 5, 0, 0, 0)).status is Status.PASS

    def test_items_needed_at_the_observed_flip_rate(self) -> None:
        found = judged(rule("max_drop 3pp"), pair_of(150, 6, 5, 3))
        assert found.status is Status.INCONCLUSIVE
        drop, flips = 1 / 164, 11 / 164
        expected = 2.486**2 * flips / (0.03 - drop) ** 2
        assert found.n_needed == pytest.approx(expected, rel=0.01)

    def test_an_estimate_on_the_bound_foresees_nothing(self) -> None:
        found = judged(rule("max_drop 3pp"), pair_of(90, 4, 1, 5))
        assert found.estimate == pytest.approx(0.03)
        assert found.status is Status.INCONCLUSIVE


class TestRealValues:
    METRIC = DOMAIN["rouge_l"]

    def pair(self, baseline: list[float], candidate: list[float]) -> tuple[Measurement, Measurement]:
        return scored(BASELINE, baseline, metric=self.METRIC), scored(CANDIDATE, candidate, metric=self.METRIC)

    def test_no_difference_still_has_the_width_of_tango(self) -> None:
        values = [i / 100 for i in range(100)]
        found = judged(rule("max_drop 3pp", metric="rouge_l"), self.pair(values, values))
        same = judged(rule("max_drop 3pp"), pair_of(100, 0, 0, 0))
        assert found.interval is not None
        assert same.interval is not None
        assert found.interval.high == pytest.approx(same.interval.high, rel=1e-9)
        assert found.interval.method == "bounded+cluster_t"

    def test_a_small_loss_on_many_items(self) -> None:
        baseline = [0.5 + 0.4 * math.sin(i) for i in range(400)]
        candidate = [v - 0.01 * (i % 2) for i, v in enumerate(baseline)]
        assert judged(rule("max_drop 3pp", metric="rouge_l"), self.pair(baseline, candidate)).status is Status.PASS
        assert judged(rule("min_retained 95%", metric="rouge_l"), self.pair(baseline, candidate)).status is Status.PASS
        worse = [max(v - 0.1, 0.0) for v in baseline]
        found = judged(rule("min_retained 95%", metric="rouge_l"), self.pair(baseline, worse))
        assert found.status is Status.REGRESSION

    def test_one_total_loss_in_thirty_is_not_a_pass_at_five_points(self) -> None:
        found = judged(rule("max_drop 5pp", metric="rouge_l"), self.pair([0.9] * 30, [0.9] * 29 + [0.0]))
        assert found.status is Status.INCONCLUSIVE

    def test_a_value_outside_the_unit_interval_is_an_error(self) -> None:
        found = judged(rule("max_drop 3pp", metric="rouge_l"), self.pair([37.2, 40.1], [36.0, 41.0]))
        assert found.status is Status.ERROR
        assert "found the value 37.2 on item 'item 0000', expected 0 to 1" in found.reason


class TestClusters:
    def clustered(self, per_cluster: list[int], size: int) -> tuple[Measurement, Measurement]:
        """Subjects of `size` items, of which the candidate loses so many."""
        subjects = [f"subject {k}" for k in range(len(per_cluster)) for _ in range(size)]
        candidate = [0.0 if i < losses else 1.0 for losses in per_cluster for i in range(size)]
        baseline = scored(BASELINE, [1.0] * len(candidate), clusters=subjects, groups=subjects)
        return baseline, scored(CANDIDATE, candidate, clusters=subjects, groups=subjects)

    def test_population_scope_sees_that_losses_gather_in_one_subject(self) -> None:
        pair = self.clustered([60, 0, 0, 0, 0], 100)
        item_level = judged(rule("max_drop 20pp", scope=Scope.BENCHMARK), pair)
        population = judged(rule("max_drop 20pp"), pair)
        assert item_level.status is Status.PASS
        assert population.status is Status.INCONCLUSIVE
        assert population.counts["G"] == 5
        assert population.detectable is not None
        assert item_level.detectable is not None
        assert population.detectable > 2 * item_level.detectable
        assert population.interval is not None
        assert population.interval.method == "tango+wald+cluster_t"

    def test_equal_subjects_are_never_narrower_than_their_items(self) -> None:
        pair = self.clustered([3, 3, 3, 3], 100)
        item_level = judged(rule("max_drop 20pp"), pair)
        population = judged(rule("max_drop 20pp", scope=Scope.POPULATION), pair)
        assert population.interval is not None
        assert item_level.interval is not None
        assert population.interval.high == item_level.interval.high

    def test_retention_over_clusters(self) -> None:
        found = judged(rule("min_retained 80%", scope=Scope.POPULATION), self.clustered([60, 0, 0, 0, 0], 100))
        assert found.status is Status.INCONCLUSIVE
        assert found.interval is not None
        assert found.interval.method.endswith("cluster_ratio")

    def test_a_single_cluster_is_one_benchmark(self) -> None:
        found = judged(rule("max_drop 20pp", scope=Scope.POPULATION), self.clustered([5], 100))
        assert found.status is Status.PASS
        assert "G" not in found.counts


class TestWhatCannotBeJudged:
    @pytest.mark.parametrize(
        ("missing", "message"),
        [("baseline", "fraud: the baseline was not measured"), ("candidate", "fraud: the candidate was not measured")],
    )
    def test_a_missing_side(self, missing: str, message: str) -> None:
        baseline, candidate = pair_of(10, 0, 0, 0)
        pair = (None, candidate) if missing == "baseline" else (baseline, None)
        found = judged(rule("max_drop 3pp"), pair)
        assert (found.status, found.reason) == (Status.ERROR, message)

    @pytest.mark.parametrize(
        ("field", "value"), [("settings_digest", "e" * 64), ("n_expected", 11), ("role", Role.CANDIDATE)]
    )
    def test_measurements_of_different_things(self, field: str, value: object) -> None:
        baseline, candidate = pair_of(10, 0, 0, 0)
        change: dict[str, Any] = {field: value}
        found = judged(rule("max_drop 3pp"), (replace(baseline, **change), candidate))
        assert found.status is Status.ERROR
        assert "expected" in found.reason or field in found.reason

    def test_a_measurement_of_another_source(self) -> None:
        found = judged(rule("max_drop 3pp", source="mmlu"), pair_of(10, 0, 0, 0))
        assert (found.status, found.reason) == (
            Status.ERROR,
            "found a measurement of fraud/fraud, expected fraud/mmlu",
        )

    def test_a_bound_that_does_not_fit(self) -> None:
        found = judged(rule("max_increase 5%"), pair_of(10, 0, 0, 0))
        assert (found.status, "max_increase does not fit accuracy" in found.reason) == (Status.ERROR, True)

    @pytest.mark.parametrize("text", ["max_drop 3pp", "min_retained 97%"])
    def test_a_bound_that_would_punish_an_improvement(self, text: str) -> None:
        metric = item_metric("empty_rate", Direction.LOWER_IS_BETTER)
        found = judged(rule(text, metric="empty_rate"), pair_of(10, 0, 0, 0, metric=metric))
        assert (found.status, "would punish an improvement" in found.reason) == (Status.ERROR, True)

    def test_throughput_has_no_max_increase(self) -> None:
        metric = PROFILE["decode_tokens_per_second"]
        pair = scored(BASELINE, [1.0] * 8, metric=metric), scored(CANDIDATE, [2.0] * 8, metric=metric)
        found = judged(rule("max_increase 5%", metric="decode_tokens_per_second"), pair)
        assert (found.status, "would punish an improvement" in found.reason) == (Status.ERROR, True)

    def test_roles_that_disagree_on_what_the_metric_is(self) -> None:
        baseline, candidate = pair_of(10, 0, 0, 0)
        other = replace(ACCURACY, estimand=Estimand.MEAN_RATIO)
        found = judged(rule("max_drop 3pp"), (replace(baseline, metrics=(other,)), candidate))
        assert (found.status, "did not report accuracy as the candidate did" in found.reason) == (Status.ERROR, True)

    def test_the_notes_tell_why_a_metric_is_missing(self) -> None:
        _, candidate = pair_of(10, 0, 0, 0)
        noted = replace(candidate, notes=("perplexity only: the openai backend gives no logits",))
        found = judged(rule("max 0.1", metric="kl_mean_nats"), (None, noted))
        assert found.reason.endswith("; perplexity only: the openai backend gives no logits")

    def test_made_findings(self) -> None:
        of = rule("max_drop 3pp")
        broken, passed_over = could_not_measure(of, "the worker died"), skipped(of, "an earlier rule stopped the stage")
        assert (broken.status, broken.reason, broken.interval) == (Status.ERROR, "the worker died", None)
        assert (passed_over.status, passed_over.n_paired) == (Status.SKIPPED, 0)
