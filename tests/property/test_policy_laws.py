"""Whatever stands in a policy file: it loads, or every mistake is said in one line with its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gate.decide.plan import plan
from gate.errors import PolicyError
from gate.policy_file import load_policy
from gate.reports.plan_text import WIDTH, render
from gate.template import render_template, template_problem

THRESHOLDS = Path(__file__).parents[2] / "thresholds"
GOOD = [yaml.safe_load(p.read_text(encoding="utf-8")) for p in sorted(THRESHOLDS.glob("*.yaml")) if p.stem != "waivers"]
PLACE = re.compile(r"^policy\.yaml(:\d+:\d+)?: \S.*$")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["5%", "3pp", "1e999%", "-1%", "24GiB", "0s", "acc", "perplexity", "domain", "{input}"]),
)
keys = st.sampled_from(["kind", "rules", "metric", "max", "min_retained", "stages", "judge", "profile", "x", ""])
values = st.recursive(scalars, lambda v: st.lists(v, max_size=2) | st.dictionaries(keys, v, max_size=2), max_leaves=4)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A shipped policy with up to three values replaced, removed, renamed or added."""
    document = yaml.safe_load(yaml.safe_dump(draw(st.sampled_from(GOOD))))
    for _ in range(draw(st.integers(1, 3))):
        at = document
        while isinstance(at, dict | list) and at:
            key = draw(st.sampled_from(list(at) if isinstance(at, dict) else list(range(len(at)))))
            if isinstance(at[key], dict | list) and at[key] and draw(st.integers(0, 4)):
                at = at[key]
                continue
            match draw(st.sampled_from(["replace", "remove", "add", "rename"])):
                case "replace":
                    at[key] = draw(values)
                case "remove":
                    del at[key]
                case "add" if isinstance(at, dict):
                    at[draw(keys)] = draw(values)
                case "rename" if isinstance(at, dict):
                    at[draw(keys)] = at.pop(key)
                case _:
                    at[key] = [at[key], draw(values)]
            break
    return document


def check(text: str, folder: Path) -> None:
    path = folder / "policy.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        loaded = load_policy(path)
    except PolicyError as error:
        for problem in error.problems:
            assert PLACE.match(problem.removeprefix(folder.as_posix() + "/")), problem
        return
    assert loaded.rules
    assert len({rule.id for rule in loaded.rules}) == len(loaded.rules)
    assert all(rule.line for rule in loaded.rules)
    text = render(plan(loaded.policy, loaded.rules, {rule.source: 40 for rule in loaded.rules}))
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("policies")


class TestPolicyFile:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(document=damaged())
    def test_a_damaged_policy_loads_or_says_why(self, folder: Path, document: Any) -> None:
        check(yaml.safe_dump(document, allow_unicode=True), folder)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(text=st.text(st.sampled_from("[]{}:,-&*!|>'\"#%@ \n\tab1?<é\u2028"), max_size=60))
    def test_any_text_loads_or_says_why(self, folder: Path, text: str) -> None:
        check(text, folder)


class TestTemplate:
    @given(template=st.text(st.sampled_from("{}input.[]!: id"), max_size=24), value=st.text(max_size=12))
    def test_a_template_renders_exactly_when_it_has_no_problem(self, template: str, value: str) -> None:
        fields = {"input": value, "id": "i", "category": "c"}
        if template_problem(template) is None:
            assert value in render_template(template, fields)
        else:
            with pytest.raises(ValueError, match="found"):
                render_template(template, fields)
