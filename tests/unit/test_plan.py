"""Planning: what each rule needs, what is refused, what is warned of, what is not covered, how it is told."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from gate import preflight
from gate.decide import power
from gate.decide.plan import Known, Plan, plan
from gate.decide.speed import Speed
from gate.errors import PolicyError, UsageError
from gate.policy import Policy, planned_rules
from gate.policy_file import load_policy
from gate.reports.plan_text import WIDTH, render
from gate.stats import tango, wilson
from gate.task_catalog import AXES, COSTS, TASKS, facts, tokens_per_item


def planned(
    *stages: dict[str, Any], sizes: dict[str, int] | None = None, known: Known | None = None, **settings: Any
) -> Plan:
    policy = Policy.model_validate({"version": 1, "stages": list(stages), **settings})
    return plan(policy, planned_rules(policy, {}), sizes or {}, known)


def lm_eval(task: str, sample: object = None, **rule: Any) -> dict[str, Any]:
    settings = {"task": task, "sample": sample, "rules": [{"metric": "acc", **rule}]}
    return {"kind": "lm_eval", "name": f"on-{task}", "tasks": [settings]}


def domain(**rule: Any) -> dict[str, Any]:
    return {"kind": "domain", "name": "fraud", "data": "d", "match": "exact", "rules": [{"metric": "accuracy", **rule}]}


def perplexity(corpus: dict[str, Any], **rule: Any) -> dict[str, Any]:
    rules = [{"metric": "perplexity", "max_increase": "5%", **rule}]
    return {"kind": "perplexity", "name": "sanity", "corpora": [corpus], "rules": rules}


def floors(**rates: float) -> dict[tuple[str, str], float]:
    """Of `lm_eval` tasks."""
    return {(f"on-{task}", task): rate for task, rate in rates.items()}


# -- population scope ---------------------------------------------------------------------------------------


def test_warns_for_humaneval_at_3pp_and_not_for_all_of_mmlu_at_1pp() -> None:
    of_programs = lm_eval("humaneval", max_drop="3pp", scope="population")
    # 44 % at exactly 95 %; the judge tests below 400 items at 0.95 α
    assert planned(of_programs, known=Known(flip_rates={"humaneval": 0.06})).warnings == (
        "humaneval (164 items): at 6% flips the smallest drop it can rule out is 4.8 pp; with 3pp a lossless candidate "
        "would pass only 41% of the time in population scope. Choose scope: benchmark, a bound of at least 5pp, more "
        "items of the same kind (about 413), or k epochs (several sampled answers to each item).",
    )
    (unmeasured,) = planned(of_programs).warnings
    assert "at 10% flips the smallest drop it can rule out is 6.1 pp" in unmeasured
    strong = planned(lm_eval("mmlu", max_drop="1pp", scope="population"), lm_eval("gsm8k", max_drop="3pp"))
    assert strong.warnings == ()
    outlook = strong.rows[0].outlook
    assert (outlook.available, outlook.n) == (14042, 14042)
    assert outlook.smallest == pytest.approx(0.0051, abs=5e-5)
    assert outlook.odds is not None
    assert outlook.odds > 0.99


def test_population_scope_runs_all_items_where_it_cannot_stop_early() -> None:
    def needed(task: str, **rule: Any) -> tuple[int, int | None]:
        (row,) = planned(lm_eval(task, **rule), lm_eval("gsm8k", max_drop="9pp")).rows[:1]
        assert row.outlook.expected is not None
        return row.outlook.expected.lossless, row.outlook.n

    assert needed("mmlu", max_drop="3pp", scope="population") == (14042, 14042)  # subjects are clusters
    assert needed("gsm8k", max_drop="2pp", scope="population") == (1319, 1319)  # power below .9
    early, n = needed("hellaswag", max_drop="3pp", scope="population")
    assert n == 10042
    assert early < n
    assert early > needed("hellaswag", max_drop="3pp")[0]  # half of α, and no end of the benchmark in sight


def test_a_sample_that_is_too_small_is_told_how_large_it_must_be() -> None:
    (warning,) = planned(lm_eval("gsm8k", sample="20%", max_drop="3pp", scope="population")).warnings
    assert warning.startswith("gsm8k (264 items): at 10% flips the smallest drop it can rule out is 4.8 pp;")
    assert "a larger sample (687 items are needed, 1,319 are there)" in warning


def test_a_rule_that_cannot_pass_is_refused_with_a_way_out() -> None:
    strict = domain(max_drop="1pp", id="small", scope="population")
    (problem,) = planned(strict, sizes={"fraud": 50}).problems
    assert problem == (
        "small: max_drop: 1pp cannot pass with 50 items in population scope: even with not one answer changed, a drop "
        "of 5.3 pp cannot be ruled out; use at least 276 items, scope: benchmark, or a looser bound (max_drop: 5.3 pp "
        "is the tightest)"
    )
    assert planned(strict, sizes={"fraud": 276}).problems == ()
    assert len(planned(strict, sizes={"fraud": 275}).problems) == 1


def test_the_refused_and_the_accepted_bound_agree_with_the_estimator() -> None:
    low = tango.interval(lost=0, gained=0, n=275, confidence=0.9525).low
    assert low < -0.01
    assert tango.interval(lost=0, gained=0, n=276, confidence=0.9525).low >= -0.01


@pytest.mark.parametrize("scope", ["benchmark", "population"])
@pytest.mark.parametrize("bound", [{"max_drop": "0pp"}, {"min_retained": "100%"}])
def test_no_drop_at_all_can_never_be_passed(scope: str, bound: dict[str, str]) -> None:
    (problem,) = planned(lm_eval("mmlu", scope=scope, **bound)).problems
    wording = "leaves no room for a single item" if scope == "benchmark" else "no number of items proves it"
    assert wording in problem


def test_an_advisory_rule_that_cannot_pass_is_a_warning() -> None:
    stages = (domain(max_drop="1pp", severity="advisory"), lm_eval("gsm8k", max_drop="3pp"))
    result = planned(*stages, sizes={"fraud": 50})
    assert result.problems == ()
    assert "max_drop: 1pp is finer than one item of 50" in result.warnings[0]


def test_retention_is_refused_only_if_even_a_perfect_baseline_could_not_pass() -> None:
    rule = domain(min_retained="99%", scope="population")
    assert len(planned(rule, sizes={"fraud": 200}).problems) == 1
    assert planned(rule, sizes={"fraud": 300}).problems == ()


def test_retention_warns_in_its_own_words() -> None:
    (warning,) = planned(domain(min_retained="97%", scope="population"), sizes={"fraud": 1000}).warnings
    assert "with 97% retained a lossless candidate would pass only" in warning
    assert "a bound of at most 95%, more items of the same kind (about 1,909)" in warning


# -- benchmark scope ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "most"),  # the largest number of items at which the bound is finer than one of them
    [
        ({"max_drop": "1pp"}, 99),
        ({"max_drop": "2.9pp"}, 34),
        ({"min_retained": "99%"}, 99),
        ({"min_retained": "98.5%"}, 66),
        ({"max": "2%"}, 49),
        ({"min": 0.9}, 9),
    ],
)
def test_a_bound_finer_than_one_item_is_refused(bound: dict[str, Any], most: int) -> None:
    (problem,) = planned(domain(**bound), sizes={"fraud": most}).problems
    assert f"is finer than one item of {most}" in problem
    assert f"use at least {most + 1} items, or a looser bound" in problem
    assert planned(domain(**bound), sizes={"fraud": most + 1}).problems == ()


@pytest.mark.parametrize("bound", [{"max_drop": "50pp"}, {"min_retained": "1%"}, {"min": 0.5}, {"max": "99%"}])
def test_a_single_item_is_refused_whatever_the_bound(bound: dict[str, Any]) -> None:
    assert len(planned(domain(**bound), sizes={"fraud": 1}).problems) == 1


def test_a_benchmark_verdict_is_expected_long_before_the_last_item() -> None:
    (row,) = planned(lm_eval("mmlu", sample="20%", max_drop="3pp")).rows
    needed = row.outlook.expected
    assert needed is not None
    assert needed.lossless == 448  # 438 in whole blocks of 32
    assert needed.lossless == needed.twice < needed.half < 2808
    assert row.outlook.odds == pytest.approx(1, abs=1e-6)


def test_a_regression_takes_more_items_the_more_rules_share_its_error() -> None:
    rules = [lm_eval("mmlu", max_drop="3pp"), lm_eval("gsm8k", max_drop="3pp"), lm_eval("winogrande", max_drop="3pp")]
    alone, among = planned(rules[0]).rows[0].outlook.expected, planned(*rules).rows[0].outlook.expected
    assert alone is not None
    assert among is not None
    assert among.lossless == alone.lossless
    assert among.twice > alone.twice
    advisory = planned(*rules[:2], lm_eval("winogrande", max_drop="3pp", severity="advisory"))
    assert advisory.n_blocking == 2
    assert advisory.rows[2].outlook.expected == planned(rules[2]).rows[0].outlook.expected


def test_luck_over_the_full_run_is_warned_of() -> None:
    (warning,) = planned(lm_eval("humaneval", max_drop="1pp")).warnings
    assert warning.startswith(
        "humaneval (164 items): at 10% flips the full run itself puts a lossless candidate beyond max_drop: 1pp in"
    )
    assert "Choose a bound of at least 2pp, or more items of the same kind (about 709)." in warning
    assert planned(lm_eval("humaneval", max_drop="2pp")).warnings == ()


def test_retention_too_fine_for_a_usual_baseline_is_warned_of() -> None:
    result = planned(domain(min_retained="99%"), sizes={"fraud": 120})
    assert result.problems == ()
    assert "a baseline that gets 60% right leaves no room for a single item" in result.warnings[0]
    assert result.rows[0].outlook.odds == 0


def test_absolute_rules_count_items() -> None:
    at_most, at_least = planned(
        {**domain(metric="empty_rate", max="2%")},
        {**domain(min="80%"), "name": "second"},
        sizes={"fraud": 149, "second": 149},
    ).rows
    assert at_most.outlook.says == "Passes with at most 2 of 149, over all of them."
    assert at_least.outlook.says == "Passes with at least 120 of 149, over all of them."
    assert Fraction(119, 149) < Fraction(8, 10) < Fraction(120, 149)


def test_a_bound_wider_than_what_is_above_chance_is_warned_of() -> None:
    (warning, _) = planned(lm_eval("winogrande", max_drop="10pp")).warnings
    assert warning.startswith("winogrande: guessing gets 50% right, so with max_drop: 10pp a baseline that gets 60.0%")
    result = planned(lm_eval("winogrande", max_drop="3pp"), lm_eval("gsm8k", max_drop="3pp"))
    assert result.warnings == ()
    assert any("winogrande 53.0% (max_drop: 3pp)." in note for note in result.notes)


# -- caps ---------------------------------------------------------------------------------------------------


def test_a_cap_at_which_nothing_can_pass_is_refused() -> None:
    (problem,) = planned(domain(max_drop="5pp", max_items=32), sizes={"fraud": 320}).problems
    assert problem == (
        "fraud.accuracy.max_drop: max_drop: 5pp cannot pass with max_items: 32 of 320 items: even with not one answer "
        "changed among them, the others could hide 17 lost ones; use max_items: 61 or more, leave it out, or loosen "
        "the bound"
    )
    assert len(planned(domain(max_drop="5pp", max_items=60), sizes={"fraud": 320}).problems) == 1
    for enough in (61, 320, 5000):
        assert planned(domain(max_drop="5pp", max_items=enough), sizes={"fraud": 320}).problems == ()


@pytest.mark.parametrize("bound", [{"min_retained": "95%"}, {"min": 0.95}, {"max": "5%"}])
def test_other_rules_are_refused_at_the_same_cap(bound: dict[str, Any]) -> None:
    assert len(planned(domain(**bound, max_items=60), sizes={"fraud": 320}).problems) == 1
    assert planned(domain(**bound, max_items=61), sizes={"fraud": 320}).problems == ()


def test_a_cap_in_population_scope() -> None:
    def problems(cap: int) -> tuple[str, ...]:
        return planned(lm_eval("hellaswag", max_drop="3pp", scope="population", max_items=cap)).problems

    (problem,) = problems(126)
    assert "max_drop: 3pp cannot pass with max_items: 126 in population scope" in problem
    assert "a drop of 3.0 pp cannot be ruled out; use max_items: 127 or more" in problem
    level = 1 - 0.95 * 0.025
    assert tango.interval(lost=0, gained=0, n=126, confidence=level).low < -0.03
    assert tango.interval(lost=0, gained=0, n=127, confidence=level).low >= -0.03
    assert problems(127) == ()


def test_a_cap_lowers_odds_and_cost() -> None:
    whole, capped = (planned(domain(max_drop="5pp", **cap), sizes={"fraud": 320}) for cap in ({}, {"max_items": 96}))
    free, held = whole.rows[0].outlook, capped.rows[0].outlook
    assert (free.cap, free.most, held.cap, held.most) == (None, 320, 96, 96)
    assert free.odds is not None
    assert held.odds is not None
    assert held.odds < 0.8 < free.odds
    assert held.expected is not None
    assert max(held.expected.lossless, held.expected.half, held.expected.twice) <= 96
    assert capped.load is not None
    assert capped.load.most == 96
    assert whole.warnings == ()
    assert capped.warnings[0].startswith("fraud: with max_items: 96 of 320 items a lossless candidate passes max_drop")
    (row,) = (line.split() for line in render(capped).splitlines() if line.startswith("  accuracy"))
    assert row[:3] == ["accuracy", "benchmark", "96"]
    assert "of 320" in render(capped)


def test_a_cap_counts_nothing_where_all_items_are_needed() -> None:
    capped = planned(lm_eval("mmlu", max_drop="3pp", scope="population", max_items=64))  # subjects are clusters
    assert capped.problems == ()
    assert capped.rows[0].outlook.most == 14042


# -- what is known from earlier runs ------------------------------------------------------------------------


def test_a_bound_inside_the_measured_noise_floor_is_refused() -> None:
    rules = (lm_eval("gsm8k", max_drop="1pp"), lm_eval("mmlu", max_drop="1pp"))
    noisy = planned(*rules, known=Known(floors=floors(gsm8k=0.03, mmlu=0.001)))
    (problem,) = noisy.problems
    assert "max_drop: 1pp lies inside the noise floor of gsm8k: against itself the baseline changed 3.0% of" in problem
    assert "1,319 items cannot tell a drop below 1.2 pp" in problem  # 2.486·√(.03/1319)
    assert planned(*rules, known=Known(floors=floors(gsm8k=0.02, mmlu=0.001))).problems == ()


def test_without_a_calibration_there_is_one_note_for_the_whole_policy() -> None:
    rules = (lm_eval("gsm8k", max_drop="3pp"), lm_eval("mmlu", max_drop="3pp"))
    for known, expected in ((None, ["The noise floor has"]), (floors(mmlu=0.0), ["The noise floor of gsm8k has"])):
        notes = [n for n in planned(*rules, known=Known(floors=known)).notes if "noise floor" in n]
        assert [n[: len(e)] for n, e in zip(notes, expected, strict=True)] == expected
    complete = planned(*rules, known=Known(floors=floors(mmlu=0.0, gsm8k=0.001)))
    assert not any("noise floor" in note for note in complete.notes)


def test_one_task_in_two_stages_has_a_floor_in_each() -> None:
    first, second = lm_eval("gsm8k", max_drop="1pp"), {**lm_eval("gsm8k", max_drop="1pp"), "name": "again"}
    (problem,) = planned(first, second, known=Known(floors={("again", "gsm8k"): 0.03})).problems
    assert problem.startswith("again.gsm8k.acc.max_drop: ")


def test_answers_flip_at_least_as_often_as_the_baseline_against_itself() -> None:
    rule = lm_eval("gsm8k", max_drop="9pp")
    assert planned(rule, known=Known(floors=floors(gsm8k=0.2))).rows[0].outlook.flip_rate == 0.2
    assert planned(rule, known=Known(floors=floors(gsm8k=0.01))).rows[0].outlook.flip_rate == 0.10
    sampled = {"kind": "lm_eval", "name": "s", "tasks": [{**rule["tasks"][0], "temperature": 0.7}]}
    assert planned(sampled).rows[0].outlook.flip_rate == 0.28


def test_minutes_follow_the_given_speed() -> None:
    rules = (lm_eval("gsm8k", max_drop="3pp"), lm_eval("mmlu", sample="20%", max_drop="3pp"))
    silent = planned(*rules)
    assert silent.load is not None
    assert silent.load.minutes is None
    assert [row.minutes for row in silent.rows] == [None, None]
    by_items = planned(*rules, known=Known(speed=Speed(items_per_second=5, tokens_per_second=None)))
    assert by_items.load is not None
    assert by_items.load.minutes == pytest.approx(by_items.load.lossless / 300)
    assert by_items.load.most_minutes == pytest.approx((1319 + 2808) / 300)
    by_tokens = planned(*rules, known=Known(speed=Speed(items_per_second=None, tokens_per_second=1000)))
    expected = by_tokens.rows[0].outlook.expected
    assert expected is not None
    assert tokens_per_item("gsm8k", None) == 180 * 6 + 150
    assert by_tokens.rows[0].minutes == pytest.approx(expected.lossless * 1230 / 60_000)


def test_minutes_beyond_the_budget_are_warned_of() -> None:
    slow = Known(speed=Speed(items_per_second=0.2, tokens_per_second=None))
    (warning,) = planned(lm_eval("gsm8k", max_drop="3pp"), known=slow, budget="20min").warnings
    assert "more than the budget of 20min" in warning
    assert planned(lm_eval("gsm8k", max_drop="3pp"), known=slow, budget="2h").warnings == ()


@pytest.mark.parametrize(("items", "tokens"), [(1.0, 1.0), (0.0, None), (None, -1.0)])
def test_a_speed_that_means_nothing(items: float | None, tokens: float | None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of the two, above 0"):
        Speed(items_per_second=items, tokens_per_second=tokens)
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nstages: [{kind: profile, name: a, rules: [{metric: vram_peak, max: 1GiB}]}]\n")
    with pytest.raises(UsageError, match="above 0"):
        preflight.planned(load_policy(path), items_per_second=items, tokens_per_second=tokens)


def test_preflight_counts_the_local_items_and_what_they_cost(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(
        "".join(f'{{"id": "{i}", "input": "{"x" * 40}", "expected": "y", "category": "c"}}\n' for i in range(20))
    )
    (tmp_path / "p.yaml").write_text(
        "version: 1\nstages: [{kind: domain, name: a, data: d.jsonl, match: exact, max_new_tokens: 7,\n"
        "  rules: [{metric: accuracy, max_drop: 10pp}]}]\n"
    )
    loaded = load_policy(tmp_path / "p.yaml")
    (row,) = preflight.planned(loaded, tokens_per_second=1.0).rows
    assert row.outlook.n == 20
    assert row.most_minutes == pytest.approx(20 * (10 + 2 + 7) / 60)  # 40 letters, `{input}`, the answer's limit
    preflight.refuse_hopeless(loaded)
    with pytest.raises(PolicyError, match="inside the noise floor of a"):
        preflight.refuse_hopeless(loaded, floors={("a", "a"): 0.5})


# -- rules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "n", "problem"),
    [
        (
            {"min": 0.9},
            20,
            "min: 0.9 cannot pass with 20 items in population scope, even if every item is right: use at least 25 "
            "items, or scope: benchmark",
        ),
        (
            {"max": "2%"},
            100,
            "max: 2% cannot pass with 100 items in population scope, even if it never happens: use at least 133 items, "
            "or scope: benchmark",
        ),
        ({"min": 1}, 1000, "min: 1: no number of items proves it, expected a bound above 0 and below 1"),
        ({"min": 0.9}, 25, None),
        ({"max": "2%"}, 133, None),
    ],
)
def test_absolute_rates(bound: dict[str, Any], n: int, problem: str | None) -> None:
    found = planned(domain(**bound, scope="population"), sizes={"fraud": n}).problems
    assert [p.split(": ", 1)[1] for p in found] == ([problem] if problem else [])


def test_the_score_from_which_an_absolute_rule_passes_is_wilsons() -> None:
    (row,) = planned(domain(min="80%", scope="population"), sizes={"fraud": 1000}).rows
    assert row.outlook.says == "Passes from a measured 82.1% on, fails below 77.9%."
    assert wilson.interval(successes=821, n=1000, confidence=0.95).low >= 0.8
    assert wilson.interval(successes=820, n=1000, confidence=0.95).low < 0.8


def test_an_empty_sample() -> None:
    (problem,) = planned(lm_eval("humaneval", sample="0.1%", max_drop="9pp")).problems
    assert problem.endswith("found a sample of 0 of 164 items, expected at least 1")


def test_unknown_sizes_are_no_reason_to_refuse() -> None:
    result = planned(domain(max_drop="0.1pp"), lm_eval("our_own_task", max_drop="3pp"))
    assert result.problems == ()
    assert [row.outlook.n for row in result.rows] == [None, None]
    says = "Items not counted yet: from 79 on a lossless candidate passes in at least 80% of cases."
    assert result.rows[1].outlook.says == says
    assert result.notes[0] == "fraud: its items are not counted, since d is not there or has broken lines."
    assert result.notes[1].startswith("our_own_task: how many items it has is known once lm-eval has loaded it")
    assert result.load is None
    assert result.together is None


def test_counted_data_wins_over_the_catalog() -> None:
    assert planned(lm_eval("mmlu", max_drop="3pp"), sizes={"mmlu": 1000}).rows[0].outlook.n == 1000


@pytest.mark.parametrize(("documents", "problems", "warnings"), [(7, 1, 0), (8, 0, 1), (29, 0, 1), (30, 0, 0)])
def test_documents(documents: int, problems: int, warnings: int) -> None:
    result = planned(perplexity({"name": "notes", "path": "n.txt"}), sizes={"notes": documents})
    assert (len(result.problems), len(result.warnings)) == (problems, warnings)


def test_too_few_tokens_for_the_bound() -> None:
    (warning,) = planned(perplexity({"name": "wikitext2", "max_tokens": 500}, max_increase="2%")).warnings
    assert "wikitext2: 500 tokens of 62 documents cannot rule out less than 3.2%" in warning
    assert planned(perplexity({"name": "wikitext2", "max_tokens": 64000})).warnings == ()


def test_timing_says_how_quiet_the_machine_must_be() -> None:
    rules = [{"metric": "decode_tokens_per_second", "min_retained": "95%"}, {"metric": "disk_bytes", "max": "1GiB"}]
    stage = {"kind": "profile", "name": "serving", "blocks": 8, "rules": rules}
    timing, size = planned(stage).rows
    t = stats.t.ppf(0.95, 7) + stats.t.ppf(0.8, 7)
    assert timing.outlook.spread == pytest.approx(0.0512933 * 8**0.5 / t, rel=1e-3)
    assert timing.outlook.says == (
        "8 pairs of timing blocks: decidable while they differ by no more than 5.2% (sd). Red only when a second, "
        "fresh measurement says the same."
    )
    assert (size.outlook.unit, size.outlook.n, size.outlook.spread) == ("runs", 1, None)


def test_looks_at_timing_share_the_error() -> None:
    rules = [{"metric": "decode_tokens_per_second", "min_retained": "95%"}, {"metric": "ttft_p50_seconds", "max": "1s"}]
    stage = {"kind": "profile", "name": "serving", "looks": [5, 10], "rules": rules}
    compared, absolute = planned(stage).rows
    t = stats.t.ppf(0.975, 9) + stats.t.ppf(0.8, 9)
    assert compared.outlook.spread == pytest.approx(0.0512933 * 10**0.5 / t, rel=1e-3)
    assert compared.outlook.says.startswith("Looks after 5 and 10 pairs of timing blocks: decidable at the last look")
    assert absolute.outlook.spread is None
    assert absolute.outlook.says.startswith(
        "Looks after 5 and 10 pairs of timing blocks, baseline and candidate in turn"
    )


@pytest.mark.parametrize(
    ("rule", "there", "needed"),
    [
        ({"metric": "ttft_p90_seconds", "max": "1s"}, 8 * 4, 29),  # four runs a block
        ({"metric": "tpot_p99_seconds", "max": "1s"}, 8 * 4 * 15, 299),  # 15 steps of the shorter answers
        ({"metric": "tpot_p99_seconds", "max": "1s", "lengths": "32+128"}, 8 * 4 * 127, 299),
        ({"metric": "e2e_p90_seconds", "max_increase": "10%"}, 8 * 4, 36),  # half of the error for each role
        ({"metric": "e2e_p95_seconds", "max": "1s", "load": "open:4"}, 8 * 40, 59),
    ],
)
def test_a_percentile_says_how_many_single_times_it_has_and_needs(rule: Any, there: int, needed: int) -> None:
    stage = {
        "kind": "profile",
        "name": "serving",
        "lengths": ["32+16", "32+128"],
        "serving": {"loads": [{"rate": 4, "requests": 40}]},
        "rules": [{"severity": "advisory", **rule}, {"metric": "vram_peak", "max": "1GiB"}],
    }
    result = planned(stage)
    outlook = result.rows[0].outlook
    assert (outlook.unit, outlook.available, outlook.needed) == ("single times", there, needed)
    assert (outlook.problem is not None) == (there < needed)
    assert any("raise blocks" in warning for warning in result.warnings) == (there < needed)
    assert result.problems == ()


# -- the whole ----------------------------------------------------------------------------------------------


def test_axes_covered_only_advised_and_missing() -> None:
    result = planned(
        lm_eval("mmlu", max_drop="3pp"),
        lm_eval("gsm8k", max_drop="3pp"),
        lm_eval("ifeval", max_drop="9pp", severity="advisory"),
        domain(max_drop="3pp"),
    )
    assert result.covered == ("knowledge", "reasoning", "your own data")
    assert result.only_advisory == ("instruction following",)
    assert result.uncovered == ("commonsense", "code", "truthfulness", "multilingual", "long context")


def test_gating_on_multiple_choice_alone_is_named_as_the_mistake_it_is() -> None:
    (warning,) = planned(lm_eval("mmlu", max_drop="3pp"), lm_eval("hellaswag", max_drop="3pp")).warnings
    assert warning.startswith("Every blocking benchmark is multiple choice.")
    assert planned(lm_eval("mmlu", max_drop="3pp"), lm_eval("gsm8k", max_drop="3pp")).warnings == ()
    assert planned(domain(max_drop="5pp"), sizes={"fraud": 1000}).warnings == ()


def test_odds_of_all_rules_together() -> None:
    result = planned(lm_eval("gsm8k", max_drop="3pp"), lm_eval("winogrande", min_retained="97%"))
    first, second = (row.outlook.odds for row in result.rows)
    assert first is not None
    assert second is not None
    assert result.together == pytest.approx(first * second)


def test_the_catalog_speaks_of_parts_and_of_known_axes() -> None:
    part = facts("mmlu_anatomy")
    assert part is not None
    assert (part.axis, part.kind, part.items) == ("knowledge", "choice", None)
    assert facts("mmlu_pro_law") == facts("mmlu_pro_math")
    assert facts("gsm9k") is None
    assert {fact.axis for fact in TASKS.values()} == set(AXES) - {"your own data"}


def test_what_an_item_costs() -> None:
    assert set(COSTS) <= set(TASKS)
    assert set(TASKS) - set(COSTS) == {"ruler", "longbench"}
    assert all((TASKS[name].kind == "generate") == (cost.written > 0) for name, cost in COSTS.items())
    assert tokens_per_item("mmlu", 5) == 660 == tokens_per_item("mmlu_anatomy", 5)
    assert tokens_per_item("hellaswag", None) == 400
    assert tokens_per_item("gsm9k", None) is None


def looks(*sizes: int, **rule: Any) -> Plan:
    return planned(perplexity({"name": "c4", "documents": 64, "looks": list(sizes)}, **rule))


def test_odds_at_each_planned_look() -> None:
    outlook = looks(1000, 4000, 16000).rows[0].outlook
    assert [look.tokens for look in outlook.looks] == [1000, 4000, 16000]
    lossless, typical = ([getattr(k, who) for k in outlook.looks] for who in ("lossless", "typical"))
    assert lossless == sorted(lossless)
    assert typical == sorted(typical)
    assert all(a > b for a, b in zip(lossless, typical, strict=True))
    assert outlook.odds == lossless[-1]
    # at α/3: ln 1.05 over the error of 1,000 tokens, less Student's t
    error = power.perplexity_error_nats(documents=64, tokens=1000)
    expected = stats.norm.cdf(0.048790 / error - stats.t.ppf(1 - 0.05 / 3, 63))
    assert lossless[0] == pytest.approx(expected, abs=1e-3)
    assert looks(16000).rows[0].outlook.looks == ()


def test_a_last_look_that_is_too_small_is_warned_of() -> None:
    (warning,) = looks(200, 500, max_increase="2%").warnings
    assert "c4: 500 tokens of 64 documents cannot rule out less than" in warning
    assert "Raise the last look or documents" in warning


def test_long_documents_are_read_again_window_by_window() -> None:
    corpus = {"name": "c4", "documents": 10, "window": 100, "stride": 40}
    (row,) = planned(perplexity(corpus), known=Known(speed=Speed(items_per_second=None, tokens_per_second=100))).rows
    assert row.outlook.tokens == 10 * 100 * (1 + 10)  # 480 tokens: 100, then 380 in steps of 40
    assert row.minutes == pytest.approx(11_000 / 100 / 60)


def test_rendered_for_a_terminal() -> None:
    text = render(
        planned(
            perplexity({"name": "c4", "documents": 128, "looks": [1000, 4000]}),
            lm_eval("humaneval", max_drop="3pp", scope="population"),
            lm_eval("mmlu", sample="20%", min_retained="97%"),
            domain(max_drop="1pp"),
            sizes={"fraud": 50},
        )
    )
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH == 100
    assert "4 blocking rules share that" in text.replace("\n  ", " ")
    row = next(i for i, line in enumerate(lines) if line.startswith("  mmlu acc "))
    assert lines[row].split() == ["mmlu", "acc", "benchmark", "2,808", "1,024", "2,176", "1,312", "1.1", "pp", ">99%"]
    assert lines[row + 1].split() == ["min_retained", "97%", "of", "14,042"]
    assert any(line.split()[:4] == ["passes", "by", "then:", "lossless"] for line in lines)
    assert "`--items-per-second 5` or `--tokens-per-second 20000`" in text.replace("\n  ", " ")
    titles = ("Weak", "Impossible: the policy will not be run", "Not known yet", "Capabilities", "How to read this")
    places = [lines.index(title) for title in titles]
    assert places == sorted(places)
    assert "  tested, can stop a release: knowledge, code, your own data" in lines
    assert any(line.startswith("  NOT tested: commonsense (add hellaswag, winogrande), reasoning") for line in lines)
    for word in ("lossless", "benchmark", "population", "items needed", "assumed", "intervals"):
        assert any(line.startswith(f"  {word:<13}") for line in lines), word


def test_minutes_have_a_column_of_their_own() -> None:
    speed = Speed(items_per_second=2, tokens_per_second=None)
    text = render(planned(lm_eval("gsm8k", max_drop="3pp"), known=Known(speed=speed)))
    heading, row = (next(line for line in text.splitlines() if line.startswith(s)) for s in ("  rule", "  gsm8k"))
    assert heading.endswith("minutes")
    assert row.split()[-1] == "4.8"  # 576 items
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "4.8 minutes at the given speed, 11 if it takes them all" in text.replace("\n  ", " ")


def test_a_plan_costs_no_heavy_import() -> None:
    code = (
        "import sys, gate.decide.plan, gate.reports.plan_text, gate.policy_file, gate.preflight;"
        "print([m for m in ('scipy', 'torch', 'transformers', 'lm_eval', 'datasets', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
