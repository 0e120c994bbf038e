"""docs/policy.md: its examples load, its message is real, its lists of metrics are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gate import metrics, policy, policy_profile, units
from gate.engines import Engines
from gate.errors import PolicyError
from gate.policy import Policy
from gate.policy_problems import rule_problems
from gate.policy_rule import RuleSettings, Strict
from gate.records import BoundKind, Estimand

TEXT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.S)]
MODELS = (
    policy.Policy,
    policy.CheckpointSettings,
    policy.PerplexityStage,
    policy.Corpus,
    policy.LmEvalStage,
    policy.Task,
    policy.DomainStage,
    policy.Judge,
    policy.ProfileStage,
    policy_profile.Serving,
    policy_profile.Load,
    policy.QuantizationCost,
    policy.OutputLength,
)
STAGES = [example[0] for example in EXAMPLES if isinstance(example, list) and "kind" in example[0]]


def test_there_is_an_example_of_every_stage() -> None:
    assert [stage["kind"] for stage in STAGES] == ["perplexity", "lm_eval", "domain", "profile"]


def test_the_examples_together_are_a_policy_without_contradictions() -> None:
    (head,) = [example for example in EXAMPLES if isinstance(example, dict)]
    shown = Policy.model_validate({**head, "stages": STAGES})
    assert list(rule_problems(shown)) == []
    assert Policy.model_validate({"version": 1, "stages": STAGES}) == shown.model_copy(
        update={"budget": None, "engines": Engines(), "price_per_hour": None, "quantization_cost": None}
    )


@pytest.mark.parametrize("backend", Engines.model_fields)
def test_the_example_shows_settings_of_every_backend(backend: str) -> None:
    (head,) = [example for example in EXAMPLES if isinstance(example, dict)]
    assert (
        Policy.model_validate({**head, "stages": STAGES}).engines.of(backend, Engines()).given()
        == (head["engines"][backend])
    )


def test_the_single_rule_is_one() -> None:
    (rule,) = [e[0] for e in EXAMPLES if isinstance(e, list) and "kind" not in e[0]]
    assert RuleSettings.model_validate(rule).bound().kind is BoundKind.MAX_DROP


@pytest.mark.parametrize("kind", ["perplexity", "domain", "profile"])
def test_every_metric_is_named(kind: str) -> None:
    listed = [m for m in metrics.BY_KIND[kind].values() if m.estimand is not Estimand.QUANTILE]
    assert [m.name for m in listed if f"`{m.name}`" not in TEXT] == []


def test_the_percentiles_are_named_by_their_parts() -> None:
    for metric in (m for m in metrics.PROFILE.values() if m.estimand is Estimand.QUANTILE):
        what, percentile, _ = metric.name.split("_")
        assert f"`{what}`" in TEXT
        assert f"`_{percentile}_`" in TEXT


def test_every_bound_and_every_key_of_a_rule_is_explained() -> None:
    assert [k for k in RuleSettings.model_fields if k != "metric" and f"`{k}`" not in TEXT] == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_other_key_is_named(model: type[Strict]) -> None:
    assert [key for key in model.model_fields if not re.search(rf"\b{key}\b", TEXT)] == []


def test_every_unit_of_a_quantity_is_read() -> None:
    listed = TEXT[TEXT.index("Units: ") :].partition(".")[0]
    for unit in re.findall(r"\b[A-Za-z]+\b", listed.partition("`x`")[2]):
        assert units.quantity(f"2{unit}") > 0


def test_the_message_has_the_shape_of_a_real_one() -> None:
    shown = re.findall(r"^  (policy\.yaml:.*)$", TEXT, re.M)
    assert len(shown) == 3
    assert str(PolicyError("policy.yaml", tuple(shown))).splitlines() == [
        "policy.yaml: 3 mistakes in the policy",
        *(f"  {line}" for line in shown),
    ]
