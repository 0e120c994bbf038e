"""The profile stage of a policy: shapes, loads, looks, selectors of its rules, prices."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gate import metrics
from gate.policy import Policy, planned_rules
from gate.policy_problems import rule_problems
from gate.policy_profile import MIN_RUNS, Load, ProfileStage, Shape
from gate.records import Estimand

RULE = {"metric": "decode_tokens_per_second", "min_retained": "95%"}
LOADS = {"loads": [{"concurrency": 8}, {"rate": 2.5}]}


def stage(**changes: Any) -> ProfileStage:
    return ProfileStage.model_validate({"kind": "profile", "name": "serving", "rules": [RULE]} | changes)


def policy(*rules: dict[str, Any], top: dict[str, Any] | None = None, **changes: Any) -> Policy:
    settings = {"kind": "profile", "name": "serving", "rules": list(rules) or [RULE]} | changes
    return Policy.model_validate({"version": 1, "stages": [settings]} | (top or {}))


def said(*rules: dict[str, Any], top: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    return [message for _, message in rule_problems(policy(*rules, top=top, **changes))]


def test_shapes_are_every_batch_size_with_every_pair_of_lengths_once() -> None:
    found = stage(batch_sizes=[1, 8, 1], lengths=["128+32", "1024+64", "128+32"])
    assert found.shapes == (Shape(1, 128, 32), Shape(8, 128, 32), Shape(1, 1024, 64), Shape(8, 1024, 64))
    assert found.longest_tokens == 1088
    assert [found.group(s) for s in found.shapes] == [
        "batch=1,128+32",
        "batch=8,128+32",
        "batch=1,1024+64",
        "batch=8,1024+64",
    ]


def test_a_single_pair_of_lengths_needs_no_name() -> None:
    assert [stage().group(s) for s in stage().shapes] == ["batch=1", "batch=8"]


def test_the_load_mix_counts_for_the_longest_sequence() -> None:
    assert stage(serving=LOADS | {"mix": ["2000+100"]}).longest_tokens == 2100


@pytest.mark.parametrize("plan", [{"blocks": 3}, {"blocks": 8}, {"blocks": 40}, {"looks": [4, 12]}])
def test_the_first_look_has_measured_every_shape_often_enough(plan: dict[str, Any]) -> None:
    found = stage(**plan)
    assert found.runs_a_block * found.planned_pairs[0] >= MIN_RUNS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"looks": [5, 5]}, "do not grow"),
        ({"looks": [5, 10], "blocks": 8}, "found looks and blocks"),
        ({"looks": [2, 10]}, "greater than or equal to 3"),
        ({"lengths": ["128+32"], "new_tokens": 16}, "found lengths and prompt_tokens or new_tokens"),
        ({"lengths": ["128"]}, "expected prompt and new tokens such as 1024\\+64"),
        ({"lengths": ["0+32"]}, "at least 1\\+2"),
        ({"lengths": ["128+1"]}, "at least 1\\+2"),
        ({"serving": {"loads": []}}, "at least 1 item"),
        ({"serving": {"loads": [{"rate": 0}]}}, "greater than 0"),
        ({"serving": {"loads": [{"rate": 1.0, "concurrency": 2}]}}, "exactly one of them"),
        ({"serving": {"loads": [{}]}}, "exactly one of them"),
    ],
)
def test_what_contradicts_itself_is_no_stage(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        stage(**changes)


def test_loads_have_the_names_that_rules_use() -> None:
    assert [load.name for load in (Load(concurrency=8), Load(rate=4.0), Load(rate=2.5))] == [
        "closed:8",
        "open:4",
        "open:2.5",
    ]


def test_objectives_are_seconds() -> None:
    assert stage(serving=LOADS | {"max_ttft": "500ms", "max_tpot": "20ms"}).objectives == (0.5, 0.02)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"batch": 4}, "found 4, expected one of batch_sizes: 1, 8"),
        ({"lengths": "64+32"}, "found '64+32', expected one of the lengths: 128+32"),
        ({"load": "closed:9"}, "found 'closed:9', expected one of serving: loads: closed:8, open:2.5"),
        ({"load": "closed:8", "batch": 1}, "found load beside batch or lengths"),
    ],
)
def test_a_rule_selects_what_there_is(rule: dict[str, Any], message: str) -> None:
    (found,) = said(RULE | rule, serving=LOADS)
    assert found.startswith(message)
    assert said(RULE | {"load": "open:2.5"}, RULE | {"batch": 8, "lengths": "128+32"}, serving=LOADS) == []


def test_without_loads_there_is_no_goodput() -> None:
    goodput = {"metric": "goodput_requests_per_second", "min_retained": "95%"}
    assert said(goodput) == ["goodput is that of a load: add `serving: {loads: …}` to the stage"]
    assert said(goodput, serving=LOADS) == []


@pytest.mark.parametrize("key", ["batch", "lengths", "load"])
def test_other_stages_have_no_shapes(key: str) -> None:
    rule = {"metric": "accuracy", "max_drop": "3pp", key: {"batch": 1}.get(key, "1+2")}
    domain = {"kind": "domain", "name": "fraud", "data": "x.jsonl", "match": "exact", "rules": [rule]}
    found = rule_problems(Policy.model_validate({"version": 1, "stages": [domain]}))
    assert [m for _, m in found] == [f"{key} is for profile rules only"]


def test_rules_carry_their_selectors_and_have_ids_of_their_own() -> None:
    rules = planned_rules(policy(RULE | {"batch": 8, "lengths": "128+32"}, RULE | {"load": "open:2.5"}), {})
    assert [(r.batch, r.lengths, r.load) for r in rules] == [(8, "128+32", None), (None, None, "open:2.5")]
    assert [r.id for r in rules] == [
        "serving.decode_tokens_per_second.min_retained.batch8.128-32",
        "serving.decode_tokens_per_second.min_retained.open-2.5",
    ]


def test_percentiles_advise_only() -> None:
    rule = {"metric": "ttft_p99_seconds", "max": "200ms"}
    assert said(rule, RULE) == [
        "ttft_p99_seconds is a percentile, whose interval is wide or missing: set severity: advisory"
    ]
    assert said(rule | {"severity": "advisory"}, RULE) == []


def test_nothing_that_is_described_can_be_judged() -> None:
    assert not metrics.DESCRIBED.keys() & metrics.PROFILE.keys()
    assert {m.estimand for m in metrics.DESCRIBED.values()} == {Estimand.DESCRIPTION}
    assert metrics.BOUNDS[Estimand.DESCRIPTION] == frozenset()


def test_numbers_are_read_as_yaml_hands_them_over() -> None:
    once = {"quantization_cost": {"amount": 12, "output_tokens": "1e9"}, "price_per_hour": "3.5"}
    found = policy(top=once)
    assert found.quantization_cost is not None
    assert (found.quantization_cost.output_tokens, found.price_per_hour) == (1e9, 3.5)
    with pytest.raises(ValidationError, match="valid number"):
        policy(top={"price_per_hour": "cheap"})


def test_a_budget_of_nothing_holds_nothing() -> None:
    with pytest.raises(ValidationError, match="expected more than zero"):
        stage(memory_budget="0GiB")


@pytest.mark.parametrize("price", [0, -1.0])
def test_a_price_is_more_than_nothing(price: float) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        policy(top={"price_per_hour": price})


def test_a_cost_once_needs_a_price_to_be_added_to() -> None:
    once = {"quantization_cost": {"amount": 12, "output_tokens": 1e9}}
    assert said(top=once) == ["found no price_per_hour to add it to, expected both or neither"]
    assert said(top=once | {"price_per_hour": 3.5}) == []


def test_the_range_of_answer_lengths_is_one() -> None:
    assert said(top={"output_length": {"min": "110%", "max": "90%"}}) == [
        "found a min that is not below max, expected a range around 100% such as 90% to 110%"
    ]


@pytest.mark.parametrize("changes", [{}, {"looks": [4, 8]}, {"lengths": ["64+16", "128+32"]}, {"serving": LOADS}])
def test_a_stage_that_was_written_down_is_read_back_the_same(changes: dict[str, Any]) -> None:
    written = stage(**changes)
    assert ProfileStage.model_validate(written.model_dump(mode="json")) == written
