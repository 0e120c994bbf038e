"""The policy models: what they accept, derive and plan, and the contradictions that are found in them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gate.errors import DataError
from gate.metrics import DOMAIN as DOMAIN_METRICS
from gate.policy import (
    DomainStage,
    LmEvalStage,
    Location,
    PerplexityStage,
    Policy,
    planned_rules,
    sample_size,
    split,
)
from gate.policy_problems import rule_problems
from gate.policy_rule import JUDGE_METRICS, RuleSettings
from gate.records import BoundKind, Severity
from gate.stages.domain_scores import declared

PERPLEXITY = {
    "kind": "perplexity",
    "name": "sanity",
    "corpora": [{"name": "wikitext2"}, {"name": "c4"}],
    "rules": [{"metric": "perplexity", "max_increase": "5%"}],
}
LM_EVAL = {
    "kind": "lm_eval",
    "name": "capability",
    "tasks": [{"task": "gsm8k", "rules": [{"metric": "exact_match,strict-match", "max_drop": "3pp"}]}],
}
DOMAIN = {
    "kind": "domain",
    "name": "fraud",
    "data": "fraud.jsonl",
    "match": "contains",
    "rules": [{"metric": "accuracy", "max_drop": "3pp"}],
}
PROFILE = {"kind": "profile", "name": "serving", "rules": [{"metric": "vram_peak", "max": "24GiB"}]}


def policy(*stages: dict[str, Any], **settings: Any) -> Policy:
    return Policy.model_validate({"version": 1, "stages": list(stages), **settings})


def problems(*stages: dict[str, Any]) -> list[tuple[str, str]]:
    return [(".".join(map(str, at)), message) for at, message in rule_problems(policy(*stages))]


def domain(*rules: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {**DOMAIN, "rules": list(rules) or DOMAIN["rules"], **settings}


def test_the_four_stages_without_contradictions() -> None:
    assert problems(PERPLEXITY, LM_EVAL, DOMAIN, PROFILE) == []


def test_planned_rules_in_order_with_stable_ids() -> None:
    lines: dict[Location, int] = {("stages", 0, "rules", 0): 7, ("stages", 3, "rules", 0): 30}
    rules = planned_rules(policy(PERPLEXITY, LM_EVAL, DOMAIN, PROFILE), lines)
    assert [r.id for r in rules] == [
        "sanity.wikitext2.perplexity.max_increase",
        "sanity.c4.perplexity.max_increase",
        "capability.gsm8k.exact_match,strict-match.max_drop",
        "fraud.accuracy.max_drop",
        "serving.vram_peak.max",
    ]
    assert [r.line for r in rules] == [7, 7, None, None, 30]
    assert [r.bound.value for r in rules] == [0.05, 0.05, 0.03, 0.03, 24 * 2**30]
    assert {r.severity for r in rules} == {Severity.BLOCKING}
    assert rules[0].max_lost.allowed(1000) == 0


def test_a_given_id_stays_and_is_cut_by_corpus() -> None:
    stage = {**PERPLEXITY, "rules": [{"id": "ppl", "metric": "perplexity", "max_increase": "5%"}]}
    assert [r.id for r in planned_rules(policy(stage), {})] == ["ppl.wikitext2", "ppl.c4"]


def test_a_rule_with_a_corpus_covers_that_corpus_only() -> None:
    stage = {**PERPLEXITY, "rules": [{"metric": "perplexity", "max_increase": "5%", "corpus": "c4"}]}
    assert [r.source for r in planned_rules(policy(stage), {})] == ["c4"]


@pytest.mark.parametrize(
    ("bound", "kind", "value", "text"),
    [
        ({"max_increase": "5%"}, BoundKind.MAX_INCREASE, 0.05, "5%"),
        ({"max_drop": "3pp"}, BoundKind.MAX_DROP, 0.03, "3pp"),
        ({"min_retained": "97.5%"}, BoundKind.MIN_RETAINED, 0.975, "97.5%"),
        ({"min_speedup": 1.2}, BoundKind.MIN_SPEEDUP, 1.2, "1.2"),
        ({"min_speedup": "1.2x"}, BoundKind.MIN_SPEEDUP, 1.2, "1.2x"),
        ({"max": "200ms"}, BoundKind.MAX, 0.2, "200ms"),
        ({"max": 0.00001}, BoundKind.MAX, 1e-5, "1e-05"),
        ({"min": -0.02}, BoundKind.MIN, -0.02, "-0.02"),
        ({"min": 1}, BoundKind.MIN, 1.0, "1"),
    ],
)
def test_bounds(bound: dict[str, Any], kind: BoundKind, value: float, text: str) -> None:
    found = RuleSettings.model_validate({"metric": "m", **bound}).bound()
    assert (found.kind, found.text) == (kind, text)
    assert found.value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"metric": "m"}, "found no bound, expected exactly one of"),
        ({"metric": "m", "max": 1, "min": 0}, "found max and min, expected exactly one of"),
        ({"metric": "m", "max_drop": "3%"}, "found '3%', expected percentage points such as 3pp"),
        ({"metric": "m", "max_drop": 3}, "found '3', expected percentage points such as 3pp"),
        ({"metric": "m", "max": True}, "found 'True', expected a number"),
        ({"metric": "m", "max": float("nan")}, "found 'nan', expected a number"),
        ({"metric": "m", "min_speedup": 0}, "found '0', expected more than zero"),
        ({"metric": "m", "max": 1, "max_lost": "101%"}, "found '101%', expected a count of at least 0 or a percentage"),
        ({"metric": "m", "max": 1, "max_lost": -1}, "found -1, expected a count of at least 0 or a percentage"),
        ({"metric": "m", "max": 1, "max_lost": True}, "found True, expected a count of at least 0 or a percentage"),
        ({"metric": "", "max": 1}, "at least 1 character"),
        ({"metric": "m", "max": 1, "batch": True}, "valid integer"),
        ({"metric": "m", "max": 1, "max_items": 31}, "greater than or equal to 32"),
        ({"metric": "m", "max": 1, "id": "a b"}, "found 'a b', expected letters, digits"),
    ],
)
def test_rules_that_are_rejected(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RuleSettings.model_validate(rule)
    assert message in str(caught.value)


def test_what_is_left_out_gets_the_documented_values() -> None:
    loaded = policy(LM_EVAL)
    assert (loaded.confidence, loaded.seed, loaded.on_inconclusive, loaded.share_examples) == (0.95, 0, "fail", "none")
    rule = planned_rules(loaded, {})[0]
    assert (rule.scope, rule.max_items, rule.by) == ("benchmark", None, None)


def test_a_policy_survives_its_own_dump() -> None:
    loaded = policy(PERPLEXITY, LM_EVAL, domain({"metric": "rouge_l", "max_drop": "2pp"}), PROFILE, budget="20min")
    assert Policy.model_validate(loaded.model_dump(mode="json")) == loaded
    assert Policy.model_validate_json(loaded.model_dump_json()) == loaded


def test_split_cuts_a_stage_into_sources() -> None:
    loaded = policy(PERPLEXITY, LM_EVAL, DOMAIN, PROFILE)
    assert [source for stage in loaded.stages for source, _ in split(stage)] == [
        "wikitext2", "c4", "gsm8k", "fraud", "serving",
    ]  # fmt: skip
    first = split(loaded.stages[0])[1][1]
    assert isinstance(first, PerplexityStage)
    assert [c.name for c in first.corpora] == ["c4"]


@pytest.mark.parametrize(
    ("sample", "available", "size"),
    [(None, 14042, 14042), ("20%", 14042, 2808), (500, 14042, 500), (500, 164, 164), ("0.1%", 100, 0), ("100%", 7, 7)],
)
def test_sample_size(sample: int | str | None, available: int, size: int) -> None:
    assert sample_size(sample, available) == size


@pytest.mark.parametrize("sample", [0, "0%", "120%", True, 1.5, "many"])
def test_impossible_samples(sample: object) -> None:
    task = {**LM_EVAL["tasks"][0], "sample": sample}  # type: ignore[dict-item]
    with pytest.raises(ValidationError, match="expected a count of at least 1 or a percentage up to 100%"):
        LmEvalStage.model_validate({**LM_EVAL, "tasks": [task]})


def test_text_metrics_that_rules_name_are_measured() -> None:
    stage = DomainStage.model_validate(
        domain({"metric": "rouge_l", "max_drop": "3pp"}, {"metric": "bleu", "min": 0.2}, text_metrics=["chrf"])
    )
    assert stage.wanted_text_metrics == ("chrf", "rouge_l", "bleu")
    assert stage.text_metrics == ["chrf", "rouge_l", "bleu"]
    assert DomainStage.model_validate(DOMAIN).wanted_text_metrics == ()


def test_the_judge_is_advisory_unless_the_policy_says_otherwise() -> None:
    rules: list[dict[str, Any]] = [
        {"metric": "judge_score", "max_drop": "3pp"},
        {"metric": "judge_score", "min": 0.5, "severity": "blocking"},
    ]
    judge = {"url": "http://localhost/v1", "model": "judge", "rubric": "Is it right?"}
    stage = domain(*rules, {"metric": "accuracy", "max_drop": "3pp"}, judge=judge)
    assert [r.severity for r in planned_rules(policy(stage), {})] == ["advisory", "blocking", "blocking"]
    assert problems(stage) == []


@pytest.mark.parametrize(
    ("stage", "at", "message"),
    [
        (
            {**PERPLEXITY, "rules": [{"metric": "perplexty", "max_increase": "5%"}]},
            "stages.0.rules.0.metric",
            "unknown metric 'perplexty': did you mean 'perplexity'?",
        ),
        (
            {**PERPLEXITY, "rules": [{"metric": "zzz", "max_increase": "5%"}]},
            "stages.0.rules.0.metric",
            "unknown metric 'zzz', expected one of delta_p_mean, kl_mean_nats",
        ),
        (
            {**PERPLEXITY, "rules": [{"metric": "perplexity", "max_drop": "3pp"}]},
            "stages.0.rules.0.max_drop",
            "max_drop does not fit perplexity, expected one of max_increase, max",
        ),
        (
            {**PERPLEXITY, "rules": [{"metric": "perplexity", "max_increase": "5%", "corpus": "c5"}]},
            "stages.0.rules.0.corpus",
            "found 'c5', expected a corpus of this stage: wikitext2, c4",
        ),
        (
            {**PERPLEXITY, "corpora": [{"name": "c4"}, {"name": "c4"}]},
            "stages.0.corpora.1.name",
            "'c4' is used twice, expected unique names",
        ),
        (
            {**PERPLEXITY, "rules": [{"metric": "kl_p99_nats", "max": 0.5}]},
            "stages.0.rules.0.metric",
            "kl_p99_nats is a percentile without a valid interval: set severity: advisory",
        ),
        (
            {**LM_EVAL, "tasks": [*LM_EVAL["tasks"], *LM_EVAL["tasks"]]},
            "stages.0.tasks.1.task",
            "'gsm8k' is used twice, expected unique names",
        ),
        (
            {**LM_EVAL, "tasks": [{"task": "t", "rules": [{"metric": "acc", "max_drop": "3pp", "batch": 8}]}]},
            "stages.0.tasks.0.rules.0.batch",
            "batch is for profile rules only",
        ),
        (
            domain({"metric": "accuracy", "max_drop": "3pp", "corpus": "c4"}),
            "stages.0.rules.0.corpus",
            "corpus is for perplexity rules only",
        ),
        (
            domain({"metric": "accuracy", "max_drop": "100pp"}),
            "stages.0.rules.0.max_drop",
            "found '100pp': this rule can never fail, use a tighter bound",
        ),
        (
            domain({"metric": "empty_rate", "max": "100%"}),
            "stages.0.rules.0.max",
            "found '100%': this rule can never fail, use a tighter bound",
        ),
        (
            domain({"metric": "repetition_rate", "max": 1}),
            "stages.0.rules.0.max",
            "found '1': this rule can never fail, use a tighter bound",
        ),
        (
            domain({"metric": "accuracy", "min": 0}),
            "stages.0.rules.0.min",
            "found '0': this rule can never fail, use a tighter bound",
        ),
        (
            domain({"metric": "accuracy", "min_retained": "0%"}),
            "stages.0.rules.0.min_retained",
            "found '0%': this rule can never fail, use a tighter bound",
        ),
        (
            domain({"metric": "length_ratio", "min": 0}),
            "stages.0.rules.0.min",
            "found '0': this rule can never fail, use a tighter bound",
        ),
        (
            {**PROFILE, "rules": [{"metric": "decode_tokens_per_second", "min": 0}]},
            "stages.0.rules.0.min",
            "found '0': this rule can never fail, use a tighter bound",
        ),
        (
            {**PERPLEXITY, "rules": [{"metric": "top1_agreement", "min": "0%"}]},
            "stages.0.rules.0.min",
            "found '0%': this rule can never fail, use a tighter bound",
        ),
        (
            domain({"metric": "accuracy", "min_retained": "105%"}),
            "stages.0.rules.0.min_retained",
            "found '105%', expected at most 100%",
        ),
        (
            domain({"metric": "accuracy", "min": 95}),
            "stages.0.rules.0.min",
            "found '95', expected a rate such as 0.9 or 90% for accuracy",
        ),
        (
            domain({"metric": "judge_score", "max_drop": "3pp"}, DOMAIN["rules"][0]),  # type: ignore[arg-type]
            "stages.0.rules.0.metric",
            "judge_score needs a `judge:` block",
        ),
        (domain(tolerance=0.5), "stages.0.tolerance", "tolerance is for match: numeric, found match: contains"),
        (domain(json_fields=["a"]), "stages.0.json_fields", "json_fields is for match: json, found match: contains"),
        (
            domain({"metric": "rouge_l", "max_drop": "3pp"}, match="choice"),
            "stages.0.rules.0.metric",
            "rouge_l cannot be measured with match: choice, expected match: exact or contains or numeric",
        ),
        (
            domain(match="choice", text_metrics=["bleu"]),
            "stages.0.text_metrics",
            "bleu cannot be measured with match: choice, expected match: exact or contains or numeric",
        ),
        (
            {**PROFILE, "rules": [{"metric": "vram_peak", "max": 24}]},
            "stages.0.rules.0.max",
            "found '24', expected bytes such as 24GiB for vram_peak",
        ),
        (
            {**PROFILE, "rules": [{"metric": "ttft_p50_seconds", "max": "24GiB"}]},
            "stages.0.rules.0.max",
            "found '24GiB', expected a time such as 200ms for ttft_p50_seconds",
        ),
        (
            {**PROFILE, "rules": [{"metric": "decode_tokens_per_second", "min": "200ms"}]},
            "stages.0.rules.0.min",
            "found '200ms', expected a plain number for decode_tokens_per_second",
        ),
        (
            {**PROFILE, "rules": [{"metric": "decode_tokens_per_second", "batch": 4, "min_retained": "95%"}]},
            "stages.0.rules.0.batch",
            "found 4, expected one of batch_sizes: 1, 8",
        ),
        (
            domain({"metric": "empty_rate", "max_drop": "3pp"}),
            "stages.0.rules.0.max_drop",
            "empty_rate is better when lower: max_drop would punish it, use max",
        ),
        (
            {**PROFILE, "rules": [{"metric": "decode_tokens_per_second", "max_increase": "3%"}]},
            "stages.0.rules.0.max_increase",
            "decode_tokens_per_second is better when higher: max_increase would punish it, use min_retained",
        ),
        (
            {**PROFILE, "rules": [{"metric": "disk_bytes", "max": "1GiB", "by": "category"}]},
            "stages.0.rules.0.by",
            "by is for lm_eval and domain rules only",
        ),
        (
            domain({"metric": "accuracy", "max_drop": "3pp"}, {"metric": "accuracy", "max_drop": "5pp"}),
            "stages.0.rules.1",
            "rule id 'fraud.accuracy.max_drop' is used twice: give one of them another `id:`",
        ),
        (
            domain({"metric": "accuracy", "max_drop": "3pp", "severity": "advisory"}),
            "stages",
            "every rule is advisory: nothing could fail",
        ),
    ],
)
def test_contradictions(stage: dict[str, Any], at: str, message: str) -> None:
    found = problems(stage)
    assert [(place, text[: len(message)]) for place, text in found] == [(at, message)]


def test_stage_names_are_unique() -> None:
    assert problems(DOMAIN, {**PROFILE, "name": "fraud"})[0] == (
        "stages.1.name",
        "'fraud' is used twice, expected unique names: results are kept under them",
    )


def test_groups_advisory_stages_and_negative_bounds_are_fine() -> None:
    by = domain({"metric": "accuracy", "max_drop": "3pp"}, {"metric": "accuracy", "by": "category", "max_drop": "9pp"})
    advisory = {**PROFILE, "rules": [{"metric": "vram_peak", "max": "24GiB", "severity": "advisory"}]}
    delta = {**PERPLEXITY, "rules": [{"metric": "delta_p_mean", "min": -0.02}]}
    assert problems(by, advisory, delta) == []


@pytest.mark.parametrize("match", ["exact", "contains", "regex", "numeric", "choice", "json"])
@pytest.mark.parametrize("metric", sorted(set(DOMAIN_METRICS) - JUDGE_METRICS))
def test_the_policy_and_the_stage_agree_on_what_can_be_measured(metric: str, match: str) -> None:
    stage = domain({"metric": metric, "max": 0.5}, match=match)
    refused_at_load = any("cannot be measured with match" in message for _, message in problems(stage))
    try:
        declared(DomainStage.model_validate(stage))
    except DataError:
        refused_by_stage = True
    else:
        refused_by_stage = False
    assert refused_at_load == refused_by_stage
