"""Planning: reference numbers of docs/statistics.md, what is refused, what is warned of, what is not covered."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from scipy import stats

from gate.decide import power
from gate.decide.plan import Plan, plan
from gate.policy import Policy, planned_rules
from gate.reports.plan_text import WIDTH, render
from gate.stats import tango, wilson
from gate.stats.quantiles import small_sample
from gate.task_catalog import AXES, TASKS, facts


def planned(*stages: dict[str, Any], sizes: dict[str, int] | None = None, **settings: Any) -> Plan:
    policy = Policy.model_validate({"version": 1, "stages": list(stages), **settings})
    return plan(policy, planned_rules(policy, {}), sizes or {})


def lm_eval(task: str, sample: object = None, **rule: Any) -> dict[str, Any]:
    settings = {"task": task, "sample": sample, "rules": [{"metric": "acc", **rule}]}
    return {"kind": "lm_eval", "name": f"on-{task}", "tasks": [settings]}


def domain(**rule: Any) -> dict[str, Any]:
    return {"kind": "domain", "name": "fraud", "data": "d", "match": "exact", "rules": [{"metric": "accuracy", **rule}]}


def perplexity(corpus: dict[str, Any], **rule: Any) -> dict[str, Any]:
    rules = [{"metric": "perplexity", "max_increase": "5%", **rule}]
    return {"kind": "perplexity", "name": "sanity", "corpora": [corpus], "rules": rules}


# -- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "by_flip_rate_pp"),
    [
        (164, (2.8, 3.9, 4.8, 6.1)),
        (500, (1.6, 2.2, 2.7, 3.5)),
        (1319, (1.0, 1.4, 1.7, 2.2)),
        (14042, (0.30, 0.42, 0.51, 0.66)),
    ],
)
def test_smallest_drop_reproduces_the_published_table(n: int, by_flip_rate_pp: tuple[float, ...]) -> None:
    printed = 0.0051 if n == 14042 else 0.055  # half a unit of the last digit printed there
    found = [power.smallest_drop(n=n, flip_rate=f, confidence=0.95) * 100 for f in (0.02, 0.04, 0.06, 0.10)]
    assert found == pytest.approx(list(by_flip_rate_pp), abs=printed)


def test_a_lossless_candidate_passes_humaneval_at_3pp_44_percent_of_the_time() -> None:
    assert power.lossless_pass(n=164, flip_rate=0.06, drop=0.03, confidence=0.95) == pytest.approx(0.44, abs=0.005)


def test_lossless_pass_is_the_full_enumeration() -> None:
    n, f, drop = 40, 0.1, 0.12
    critical = stats.norm.ppf(0.95)
    total = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            if tango.z_score(lost=b, gained=c, n=n, difference=-drop) >= critical:
                total += stats.multinomial.pmf([b, c, n - b - c], n, [f / 2, f / 2, 1 - f])
    assert 0.2 < total < 0.9
    assert power.lossless_pass(n=n, flip_rate=f, drop=drop, confidence=0.95) == pytest.approx(total, abs=1e-6)


def test_lossless_pass_at_large_n_joins_the_normal_curve() -> None:
    n, f, drop = 14042, 0.06, 0.005
    expected = stats.norm.cdf(drop / (f / n) ** 0.5 - stats.norm.ppf(0.95))
    assert power.lossless_pass(n=n, flip_rate=f, drop=drop, confidence=0.95) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("drop", [0.005, 0.01, 0.03, 0.1])
def test_items_needed_is_the_inverse_of_smallest_drop(drop: float) -> None:
    n = power.items_needed(drop=drop, flip_rate=0.06, confidence=0.95)
    assert power.smallest_drop(n=n, flip_rate=0.06, confidence=0.95) <= drop
    assert power.smallest_drop(n=n - 1, flip_rate=0.06, confidence=0.95) > drop


@pytest.mark.parametrize("drop", [0.001, 0.0067, 0.0068, 0.0069, 0.01, 0.03, 0.2])
def test_items_to_pass_is_where_the_interval_without_flips_fits(drop: float) -> None:
    n = power.items_to_pass(drop=drop, confidence=0.95)
    assert n is not None
    assert power.reach(n=n, level=small_sample(0.95, n)) <= drop
    assert n == 1 or power.reach(n=n - 1, level=small_sample(0.95, n - 1)) > drop


def test_without_flips_the_reach_is_tangos() -> None:
    reach = power.reach(n=1319, level=0.95)
    assert reach == pytest.approx(-tango.interval(lost=0, gained=0, n=1319, confidence=0.95).low, abs=1e-9)
    assert reach == pytest.approx(1 - wilson.interval(successes=1319, n=1319, confidence=0.95).low, abs=1e-9)
    assert power.items_to_pass(drop=0.0, confidence=0.95) is None


@pytest.mark.parametrize("df", [3, 7, 15, 61])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.975])
def test_student_quantiles(df: int, confidence: float) -> None:
    assert power.student(confidence, df) == pytest.approx(stats.t.ppf(confidence, df), abs=0.02 if df == 3 else 0.001)


def test_a_thousand_tokens_pass_one_percent_and_hesitate_at_a_typical_four_bit() -> None:
    error = power.perplexity_error_nats(documents=16, tokens=1000)
    t = power.student(0.95, 15)
    one_percent, four_bit = (power.normal_cdf((0.04879 - d) / error - t) for d in (0.00995, 0.0276))
    assert one_percent == pytest.approx(0.95, abs=0.03)
    assert 0.5 < four_bit < 0.8


# -- rules --------------------------------------------------------------------------------------------------


def test_warns_for_humaneval_at_3pp_and_not_for_all_of_mmlu_at_1pp() -> None:
    weak = planned(lm_eval("humaneval", max_drop="3pp", scope="population"))
    assert weak.warnings == (
        "humaneval (164 items): at 10% flips the smallest drop it can rule out is 6.1 pp; with max_drop: 3pp a "
        "lossless candidate would pass only 30% of the time. Choose a bound of at least 7pp, or more items of "
        "the same kind (about 687).",
    )
    strong = planned(lm_eval("mmlu", max_drop="1pp", scope="population"), lm_eval("gsm8k", max_drop="3pp"))
    assert strong.warnings == ()
    outlook = strong.rows[0].outlook
    assert (outlook.available, outlook.n) == (14042, 14042)
    assert outlook.smallest == pytest.approx(0.0051, abs=5e-5)
    assert outlook.odds is not None
    assert outlook.odds > 0.99


def test_a_sample_that_is_too_small_is_told_how_large_it_must_be() -> None:
    (warning,) = planned(lm_eval("gsm8k", sample="20%", max_drop="3pp")).warnings
    assert warning.startswith("gsm8k (264 items): at 10% flips the smallest drop it can rule out is 4.8 pp;")
    assert warning.endswith("or a larger sample (687 items are needed, 1,319 are there).")


def test_a_rule_that_cannot_pass_is_refused_with_a_way_out() -> None:
    (problem,) = planned(domain(max_drop="1pp", id="small"), sizes={"fraud": 50}).problems
    assert problem == (
        "small: max_drop: 1pp cannot pass with 50 items: even with not one answer changed, a drop of 5.3 pp cannot be "
        "ruled out; use at least 276 items, or a looser bound (max_drop: 5.3 pp is the tightest)"
    )
    assert planned(domain(max_drop="1pp"), sizes={"fraud": 276}).problems == ()
    assert len(planned(domain(max_drop="1pp"), sizes={"fraud": 275}).problems) == 1


def test_the_refused_and_the_accepted_bound_agree_with_the_estimator() -> None:
    low = tango.interval(lost=0, gained=0, n=275, confidence=0.9525).low
    assert low < -0.01
    assert tango.interval(lost=0, gained=0, n=276, confidence=0.9525).low >= -0.01


def test_no_drop_at_all_can_never_be_proven() -> None:
    (problem,) = planned(lm_eval("mmlu", max_drop="0pp")).problems
    assert "no number of items is enough" in problem


def test_an_advisory_rule_that_cannot_pass_is_a_warning() -> None:
    stages = (domain(max_drop="1pp", severity="advisory"), lm_eval("gsm8k", max_drop="3pp"))
    result = planned(*stages, sizes={"fraud": 50})
    assert result.problems == ()
    assert "max_drop: 1pp cannot pass with 50 items" in result.warnings[0]


def test_retention_is_refused_only_if_even_a_perfect_baseline_could_not_pass() -> None:
    assert len(planned(domain(min_retained="99%"), sizes={"fraud": 200}).problems) == 1
    assert planned(domain(min_retained="99%"), sizes={"fraud": 300}).problems == ()


def test_retention_warns_in_its_own_words() -> None:
    (warning,) = planned(domain(min_retained="97%"), sizes={"fraud": 1000}).warnings
    assert "with min_retained: 97% a lossless candidate would pass only" in warning
    assert "Choose a bound of at most 95%, or more items of the same kind (about 1,909)." in warning


@pytest.mark.parametrize(
    ("bound", "n", "problem"),
    [
        ({"min": 0.9}, 20, "min: 0.9 cannot pass with 20 items, even if every item is right: use at least 25 items"),
        ({"max": "2%"}, 100, "max: 2% cannot pass with 100 items, even if it never happens: use at least 133 items"),
        ({"min": 1}, 1000, "min: 1: no number of items proves it, expected a bound above 0 and below 1"),
        ({"min": 0.9}, 25, None),
        ({"max": "2%"}, 133, None),
    ],
)
def test_absolute_rates(bound: dict[str, Any], n: int, problem: str | None) -> None:
    found = planned(domain(**bound), sizes={"fraud": n}).problems
    assert [p.split(": ", 1)[1] for p in found] == ([problem] if problem else [])


def test_the_score_from_which_an_absolute_rule_passes_is_wilsons() -> None:
    (row,) = planned(domain(min="80%"), sizes={"fraud": 1000}).rows
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
    assert result.rows[1].outlook.says == "Items not counted yet; it takes about 687."
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
    assert (size.outlook.unit, size.outlook.n, size.outlook.spread) == ("runs", 1, None)


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


def test_rendered_for_a_terminal() -> None:
    text = render(
        planned(
            perplexity({"name": "c4", "documents": 128, "max_tokens": 64000}),
            lm_eval("humaneval", max_drop="3pp"),
            lm_eval("mmlu", sample="20%", min_retained="97%"),
            domain(max_drop="1pp"),
            sizes={"fraud": 50},
        )
    )
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH == 100
    assert lines[0] == "What this policy can decide (95% confidence on each side of each rule)"
    assert "  mmlu: acc min_retained 97% · 2,808 of 14,042 items" in lines
    assert "      Sees a drop of 1.1 pp or more; a lossless candidate passes 99% of the time." in lines
    assert lines.index("Weak") < lines.index("Impossible: the policy will not be run") < lines.index("Capabilities")
    assert "  tested, can stop a release: knowledge, code, your own data" in lines
    assert any(line.startswith("  NOT tested: commonsense (add hellaswag, winogrande), reasoning") for line in lines)


def test_a_plan_costs_no_heavy_import() -> None:
    code = (
        "import sys, gate.decide.plan, gate.reports.plan_text, gate.policy_file;"
        "print([m for m in ('scipy', 'torch', 'transformers', 'lm_eval', 'datasets', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
