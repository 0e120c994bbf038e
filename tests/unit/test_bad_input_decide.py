"""Bad input to the judge: each kind has its status and its sentence, and nothing of it passes.

Every case goes through the seeded order (blocks of 32) and through finished results, where everything counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gate.decide.judge import judge
from gate.decide.terms import Terms
from gate.metrics import DOMAIN
from gate.records import Finding, Measurement, Rule, Scope, Status
from tests.decide_factory import ACCURACY, failure, observation, scored
from tests.sequence_factory import FINISHED, ONE_RULE, failed, ids, of_differences, roles, rule, some_lost

DROP = rule("max_drop 3pp")
Pair = tuple[Measurement, Measurement]


@pytest.fixture(params=[ONE_RULE, FINISHED], ids=["in blocks", "finished"])
def on(request: pytest.FixtureRequest) -> Terms:
    chosen: Terms = request.param
    return chosen


def every(pair: Pair, on: Terms, texts: tuple[str, ...] = ("max_drop 3pp", "min_retained 97%")) -> list[Finding]:
    """Of both relative rules in both scopes."""
    return [judge(rule(text, scope=scope), *pair, on) for text in texts for scope in Scope]


def errors(pair: Pair, on: Terms, sentence: str) -> None:
    for found in every(pair, on):
        assert found.status is Status.ERROR, found.reason
        assert sentence in found.reason
        assert (found.estimate, found.interval, found.p_value) == (None, None, None)


class TestNothing:
    def test_empty(self, on: Terms) -> None:
        errors(roles([], []), on, "")

    def test_no_candidate_values(self, on: Terms) -> None:
        errors(roles([1.0] * 100, [None] * 100), on, "100 items")

    def test_no_baseline_values(self, on: Terms) -> None:
        errors(roles([None] * 100, [1.0] * 100), on, "")

    def test_stopped_before_the_first_item(self) -> None:
        for found in every(of_differences([0] * 2000, reached=0), ONE_RULE):
            assert found.status is Status.ERROR
            assert "no item was measured" in found.reason or "before its first item" in found.reason

    def test_one_role_missing(self, on: Terms) -> None:
        baseline, candidate = of_differences([0] * 10)
        assert "the baseline was not measured" in judge(DROP, None, candidate, on).reason
        assert "the candidate was not measured" in judge(DROP, baseline, None, on).reason


class TestItems:
    def test_fewer_than_planned(self, on: Terms) -> None:
        baseline, candidate = of_differences([0] * 100)
        for gone in (0, 50, 80):
            values = tuple(o for o in candidate.observations if o.item_id != ids(100)[gone])
            found = judge(DROP, baseline, replace(candidate, observations=values), on)
            assert found.status is Status.ERROR
            assert ids(100)[gone] in found.reason
            assert "max_lost allows 0" in found.reason

    def test_beyond_the_evidence_nothing_counts(self) -> None:
        """What comes after the block that settled the rule was computed for others, or not at all."""
        baseline, candidate = of_differences([0] * 100)
        values = tuple(o for o in candidate.observations if o.item_id != ids(100)[99])
        found = judge(DROP, baseline, replace(candidate, observations=values), ONE_RULE)
        assert (found.status, found.counts["n"]) == (Status.PASS, 96)
        assert judge(DROP, baseline, replace(candidate, observations=values), FINISHED).status is Status.ERROR

    def test_only_the_candidate_has_one(self, on: Terms) -> None:
        found = judge(DROP, *roles([*[1.0] * 20, None, *[1.0] * 79], [1.0] * 100), on)
        assert found.status is Status.ERROR
        assert "1 of 100 items could not be measured" in found.reason

    def test_more_than_planned(self, on: Terms) -> None:
        baseline, candidate = of_differences([0] * 100)
        extra = observation(ACCURACY, "t/x/p", 1.0)
        more = replace(candidate, observations=(*candidate.observations, extra))
        errors((baseline, more), on, "were not asked the same items")

    def test_duplicated(self, on: Terms) -> None:
        baseline, candidate = of_differences([0] * 100)
        twice = replace(candidate, observations=(*candidate.observations[:99], candidate.observations[0]))
        found = judge(DROP, baseline, twice, on)
        assert found.status is Status.ERROR  # one is lost, and one is too many
        assert "expected 100 in all" in found.reason

    def test_other_prompts_for_the_same_documents(self, on: Terms) -> None:
        baseline, candidate = of_differences([0] * 100)
        other = tuple(replace(o, item_id=o.item_id.replace("/p", "/q")) for o in candidate.observations)
        errors((baseline, replace(candidate, observations=other)), on, "were not asked the same items")

    def test_one_other_prompt(self, on: Terms) -> None:
        baseline, candidate = of_differences([0] * 100)
        first, *rest = candidate.observations
        other = replace(candidate, observations=(replace(first, item_id=f"{first.item_id}2"), *rest))
        errors((baseline, other), on, "were not asked the same items")

    def test_a_prompt_that_could_not_be_rendered(self, on: Terms) -> None:
        baseline, candidate = of_differences([0] * 100)
        gone = ids(100)[3]
        kept = tuple(o for o in candidate.observations if o.item_id != gone)
        broken = replace(candidate, observations=kept, failures=(failed(gone),))
        assert judge(rule("max_drop 3pp", max_lost=some_lost(1)), baseline, broken, on).status is Status.PASS
        found = judge(DROP, baseline, broken, on)
        assert found.status is Status.ERROR
        assert "candidate template: 1" in found.reason
        neither = replace(
            baseline,
            observations=tuple(o for o in baseline.observations if o.item_id != gone),
            failures=(failed(gone),),
        )
        assert judge(DROP, neither, broken, on).status is Status.ERROR

    def test_a_nan_is_a_failure_and_no_score(self, on: Terms) -> None:
        with pytest.raises(ValueError, match="expected finite"):
            roles([1.0], [float("nan")])
        values: list[float | None] = [1.0] * 100
        values[7] = None
        baseline, candidate = roles([1.0] * 100, values)
        candidate = replace(candidate, failures=(failure(ids(100)[7], "nan"),))
        found = judge(DROP, baseline, candidate, on)
        assert found.status is Status.ERROR
        assert "candidate nan: 1" in found.reason

    @pytest.mark.parametrize("value", [-1.0, -1e-9, 1.0000001, 100.0])
    def test_scores_outside_0_to_1(self, on: Terms, value: float) -> None:
        errors(roles([1.0] * 100, [*[1.0] * 10, value, *[1.0] * 89]), on, "expected 0 to 1 for a mean over items")
        errors(roles([*[1.0] * 10, value, *[1.0] * 89], [1.0] * 100), on, "")


class TestMeasurements:
    def test_a_metric_on_one_side(self, on: Terms) -> None:
        baseline, candidate = of_differences([0] * 100)
        other = replace(baseline, metrics=(DOMAIN["rouge_l"],))
        errors((other, candidate), on, "the baseline did not report accuracy")
        errors((baseline, replace(candidate, metrics=(DOMAIN["rouge_l"],))), on, "did not report 'accuracy'")

    @pytest.mark.parametrize("change", [{"settings_digest": "e" * 64}, {"n_expected": 101}, {"source": "other"}])
    def test_measurements_that_do_not_belong_together(self, on: Terms, change: dict[str, Any]) -> None:
        baseline, candidate = of_differences([0] * 100)
        for found in every((baseline, replace(candidate, **change)), on):
            assert found.status is Status.ERROR
        errors((candidate, baseline), on, "expected baseline and candidate")  # the roles are swapped


class TestBaseline:
    def test_zero(self, on: Terms) -> None:
        for value in (0.0, 1.0):
            pair = roles([0.0] * 100, [value] * 100)
            assert "no candidate could fail" in judge(DROP, *pair, on).reason
            assert "nothing can be retained" in judge(rule("min_retained 97%"), *pair, on).reason
            assert not [f for f in every(pair, on) if f.status is not Status.ERROR]

    def test_at_chance(self, on: Terms) -> None:
        pair = roles([1.0, 0.0, 0.0, 0.0] * 50, [1.0, 0.0, 0.0, 0.0] * 50, chance=0.25)
        errors(pair, on, "near chance no regression can be seen")
        above = roles([1.0, 1.0, 0.0, 0.0] * 50, [1.0, 1.0, 0.0, 0.0] * 50, chance=0.25)
        assert judge(DROP, *above, on).status is Status.PASS

    def test_so_many_lost_that_it_may_be_too_bad_to_drop(self, on: Terms) -> None:
        pair = roles([*[1.0] * 3, *[0.0] * 37, *[None] * 60], [1.0] * 100)
        found = judge(rule("max_drop 5pp", max_lost=some_lost(100)), *pair, on)
        assert found.status is Status.ERROR
        assert "the baseline scores 3%" in found.reason


class TestBounds:
    @pytest.mark.parametrize("text", ["max_drop 0pp", "min_retained 100%"])
    def test_zero_can_never_be_shown(self, on: Terms, text: str) -> None:
        for scope in Scope:
            for n in (1, 2, 100, 3000):
                found = judge(rule(text, scope=scope), *of_differences([0] * n), on)
                assert found.status is Status.INCONCLUSIVE
        assert "give it some room" in judge(rule("min 1"), *of_differences([0] * 100), on).reason
        bad = judge(rule(text), *of_differences([-1] * 30 + [0] * 70), on)
        assert bad.status is Status.REGRESSION

    def test_finer_than_one_item_is_not_passed_by_a_few_without_a_flip(self, on: Terms) -> None:
        for n in (1, 2, 10, 33):
            found = judge(DROP, *of_differences([0] * n), on)
            assert found.status is Status.INCONCLUSIVE, n
        assert "finer than one item" in judge(DROP, *of_differences([0] * 33), on).reason

    @pytest.mark.parametrize(
        "text", ["max_drop 3pp", "max_drop 60pp", "min_retained 97%", "min_retained 10%", "min 0.9", "max 0.5"]
    )
    def test_one_item(self, on: Terms, text: str) -> None:
        for scope in Scope:
            found = judge(rule(text, scope=scope), *of_differences([0]), on)
            assert found.status in (Status.INCONCLUSIVE, Status.ERROR, Status.REGRESSION)

    def test_bounds_that_nothing_breaks(self, on: Terms) -> None:
        for text in ("max 1", "min 0"):
            found = judge(rule(text), *of_differences([0] * 100), on)
            assert found.status is Status.ERROR
            assert "no candidate could fail this rule" in found.reason


class TestClusters:
    OF = rule("max_drop 3pp", scope=Scope.POPULATION)

    def judged(self, clusters: list[str], of: Rule = OF) -> Finding:
        n = len(clusters)
        values = {i: float(k % 20 != 0) for k, i in enumerate(ids(n))}
        again = {i: float(k % 25 != 1) for k, i in enumerate(ids(n))}
        sides = (
            scored(m.role, v, clusters=clusters) for m, v in zip(of_differences([0] * n), (values, again), strict=True)
        )
        baseline, candidate = sides
        return judge(of, baseline, candidate, FINISHED)

    def test_of_size_one_are_no_clusters(self) -> None:
        alone, none = self.judged([f"c{k}" for k in range(400)]), self.judged(["all"] * 400)
        assert replace(alone) == none
        assert "G" not in alone.counts

    def test_real_ones_widen_the_interval(self) -> None:
        tied = self.judged([f"c{k % 10}" for k in range(400)])
        assert tied.counts["G"] == 10
        assert tied.interval is not None
        assert "cluster_t" in tied.interval.method
