"""The policies that ship: they load, match their schema, name real tasks and metrics, and can be decided."""

from __future__ import annotations

import importlib.util
import json
import re
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gate.decide.plan import plan
from gate.policy import LmEvalStage, PerplexityStage, Policy, Task
from gate.policy_file import load_policy, schema
from gate.records import BoundKind, Severity
from gate.reports.plan_text import render
from gate.task_catalog import TASKS

FOLDER = Path(__file__).parents[2] / "thresholds"
OURS = ("default", "strict", "chat")
SHIPPED = sorted(p.stem for p in FOLDER.glob("*.yaml") if p.stem != "waivers")  # which is no policy


def policy(name: str) -> Policy:
    return load_policy(FOLDER / f"{name}.yaml").policy


def tasks(name: str) -> list[Task]:
    return [t for s in policy(name).stages if isinstance(s, LmEvalStage) for t in s.tasks]


def test_all_are_looked_at() -> None:
    assert set(OURS) <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_loads_and_matches_the_schema_that_editors_use(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    if name in OURS:
        assert text.splitlines()[0] == "# yaml-language-server: $schema=./schema.json"
    assert load_policy(path).rules
    validator = jsonschema.Draft202012Validator(json.loads((FOLDER / "schema.json").read_text(encoding="utf-8")))
    assert [e.message for e in validator.iter_errors(yaml.safe_load(text))] == []


def test_the_schema_file_is_what_the_gate_prints() -> None:
    expected = json.dumps(schema(), indent=2, sort_keys=True) + "\n"
    assert (FOLDER / "schema.json").read_text(encoding="utf-8") == expected, "run `make schema`"


@pytest.mark.parametrize(
    "change",
    [
        {"confidense": 0.95},
        {"budget": "20"},
        {"version": 2},
        {"on_inconclusive": "pass"},
        {"stages": []},
        {"stages": [{"kind": "domain", "name": "a", "data": "d", "match": "exact", "rules": []}]},
        {"stages": [{"kind": "profile", "name": "a", "rules": [{"metric": "m", "max_drop": "3%"}]}]},
        {"stages": [{"kind": "perplexty", "name": "a", "rules": [{"metric": "m", "max": 1}]}]},
    ],
)
def test_the_schema_rejects_what_the_gate_rejects(change: dict[str, Any]) -> None:
    good = yaml.safe_load((FOLDER / "default.yaml").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema())
    assert validator.is_valid(good)
    assert not validator.is_valid({**good, **change})


@pytest.mark.parametrize("name", OURS)
def test_every_rule_can_be_decided_and_none_is_weak(name: str) -> None:
    loaded = load_policy(FOLDER / f"{name}.yaml")
    result = plan(loaded.policy, loaded.rules, {})
    assert result.problems == ()
    assert result.warnings == ()
    assert {"knowledge", "commonsense", "reasoning", "code", "your own data"} <= set(result.covered)
    assert result.together is not None
    assert result.together > 0.9
    assert result.load is not None
    assert result.load.lossless < result.load.most / 2
    assert ("instruction following" in result.covered) == (name == "chat")


@pytest.mark.parametrize("name", SHIPPED)
def test_planning_takes_less_than_a_second_of_computing(name: str) -> None:
    begun = time.process_time()
    loaded = load_policy(FOLDER / f"{name}.yaml")
    render(plan(loaded.policy, loaded.rules, {}))
    assert time.process_time() - begun < 1


def test_the_default_holds_the_usual_acceptance_thresholds() -> None:
    loaded = load_policy(FOLDER / "default.yaml")
    bounds = {(r.source, r.metric): (r.bound.kind, r.bound.text, r.severity) for r in loaded.rules}
    blocking = Severity.BLOCKING
    assert bounds[("wikitext2", "perplexity")] == (BoundKind.MAX_INCREASE, "5%", blocking)
    assert bounds[("c4", "perplexity")] == (BoundKind.MAX_INCREASE, "5%", blocking)
    assert bounds[("mmlu", "acc")] == (BoundKind.MIN_RETAINED, "97%", blocking)
    assert bounds[("hellaswag", "acc_norm")] == (BoundKind.MIN_RETAINED, "98%", blocking)
    assert bounds[("arc_challenge", "acc_norm")] == (BoundKind.MIN_RETAINED, "96%", blocking)
    assert bounds[("gsm8k", "exact_match,strict-match")] == (BoundKind.MAX_DROP, "3pp", blocking)
    mmlu = next(t for t in tasks("default") if t.task == "mmlu")
    assert (mmlu.sample, mmlu.fewshot) == ("20%", 5)
    assert loaded.policy.budget == "20min"


def test_strict_is_no_looser_than_default() -> None:
    def harm(name: str) -> dict[tuple[str, str, str], float]:
        rules = load_policy(FOLDER / f"{name}.yaml").rules
        kinds = (BoundKind.MIN_RETAINED, BoundKind.MIN)
        return {
            (r.source, r.metric, r.bound.kind): -r.bound.value if r.bound.kind in kinds else r.bound.value
            for r in rules
            if r.by is None
        }

    default, strict = harm("default"), harm("strict")
    shared = default.keys() & strict.keys()
    assert len(shared) >= 12
    assert [key for key in shared if strict[key] > default[key]] == []
    assert sum(strict[key] < default[key] for key in shared) >= 5


def test_chat_asks_as_a_chat() -> None:
    by_name = {t.task: t for t in tasks("chat")}
    assert by_name["ifeval"].chat
    assert by_name["gsm8k"].chat
    assert any(s.kind == "domain" and s.chat for s in policy("chat").stages)
    assert all(len(s.corpora) >= 2 for s in policy("chat").stages if isinstance(s, PerplexityStage))


# -- lm-eval's own task files -------------------------------------------------------------------------------


class _TaskLoader(yaml.SafeLoader):
    """Reads lm-eval's YAML without running its `!function` references: they become their names."""


_TaskLoader.add_constructor("!function", lambda loader, node: f"!function {node.value}")


@cache
def task_files() -> Mapping[str, Path]:
    """Name of a task or group → the file that defines it."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    found: dict[str, Path] = {}
    for path in sorted((Path(spec.origin).parent / "tasks").rglob("*.yaml")):
        for name in re.findall(r'^"?(?:task|group)"?:\s*"?([\w.+-]+)"?\s*$', path.read_text(encoding="utf-8"), re.M):
            found.setdefault(name, path)
    return found


def definition(path: Path) -> dict[str, Any]:
    """A task file with what it includes."""
    own: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaskLoader)
    included = own.get("include", [])
    merged: dict[str, Any] = {}
    for name in [included] if isinstance(included, str) else included:
        merged |= definition(path.parent / name)
    return merged | own


def tags(task: dict[str, Any]) -> list[str]:
    found = task.get("tag", [])
    return [found] if isinstance(found, str) else list(found)


def leaf(name: str) -> dict[str, Any]:
    """A task's definition; of a group, that of its first task."""
    path = task_files()[name]
    found = definition(path)
    while isinstance(found.get("task"), list):
        first = found["task"][0]
        if isinstance(first, dict):
            found = {**found, **first}
        elif first in task_files():
            return leaf(first)
        else:  # a tag
            return next(d for d in map(definition, sorted(path.parent.rglob("*.yaml"))) if first in tags(d))
    return found


def metrics(task: dict[str, Any]) -> Iterator[str]:
    """Metric names as the gate writes them: `metric` or `metric,filter`."""
    filters = [f["name"] for f in task.get("filter_list", [])]
    for entry in task["metric_list"]:
        name = entry["metric"].rsplit(".", 1)[-1]
        # pass_at_k returns one value per k, named pass@k
        names = [f"pass@{k}" for k in entry["k"]] if name == "pass_at_k" else [name]
        for written in names:
            yield from (f"{written},{f}" for f in filters) if filters else (written,)


@pytest.mark.parametrize("name", SHIPPED)
def test_tasks_and_metrics_are_those_of_lm_eval(name: str) -> None:
    checked = 0
    loaded = policy(name)
    local = {s.name for s in loaded.stages if isinstance(s, LmEvalStage) and s.include_path is not None}
    for stage in loaded.stages:
        if not isinstance(stage, LmEvalStage) or stage.name in local:
            continue
        for task in stage.tasks:
            found = leaf(task.task)
            emitted = list(metrics(found))
            for rule in task.rules:
                assert rule.metric in emitted, f"{task.task}: {rule.metric} is not among {emitted}"
                checked += 1
            assert task.unsafe_code == bool(found.get("unsafe_code", False)), task.task
    assert checked >= 5 or name not in OURS


def test_the_catalog_holds_real_tasks_of_the_kind_it_says() -> None:
    assert [name for name in TASKS if name not in task_files()] == []
    kinds = {"multiple_choice": "choice", "loglikelihood": "choice", "generate_until": "generate"}
    wrong = []
    for name, fact in TASKS.items():
        output = leaf(name).get("output_type")
        if output is not None and kinds[output] != fact.kind:
            wrong.append((name, output))
    assert wrong == []
