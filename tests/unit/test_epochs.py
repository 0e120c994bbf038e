"""Sampled decoding: seeds, means over epochs, pass@k, what a policy may ask, and a real model at temperature 1."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gate.backends import Backend, Checkpoint
from gate.backends.fake import open_backend as open_fake
from gate.backends.hf import open_backend as open_hf
from gate.errors import PolicyError
from gate.policy import DomainStage, Epochs, Policy, Task
from gate.policy_file import load_policy, schema
from gate.policy_problems import rule_problems
from gate.records import Measurement, Observation, Role, merge
from gate.stages import Context
from gate.stages.domain import measure
from gate.stages.epochs import ask_repeatedly, averaged, decoding_note, pass_at_k, seed
from gate.stages.isolation import MAX_MESSAGE, Failed
from tests.contract import tiny_llama


def observed(value: float, *, item: str = "i", metric: str = "correct", weight: float = 1.0) -> Observation:
    return Observation(metric=metric, item_id=item, value=value, weight=weight, cluster=None, group="g")


# ---- one value for each item


@given(st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(data: st.DataObject) -> None:
    rights = data.draw(st.lists(st.booleans(), min_size=1, max_size=9))
    k = data.draw(st.integers(1, len(rights)))
    subsets = [any(subset) for subset in combinations(rights, k)]
    found = pass_at_k(answers=len(rights), right=sum(rights), k=k)
    assert found == pytest.approx(sum(subsets) / len(subsets), abs=1e-15)
    assert (found == 0) == (not any(rights))
    if k == 1:
        assert found == sum(rights) / len(rights)


def test_pass_at_k_of_the_papers_own_sizes() -> None:
    # the product form that the paper gives for numpy, 1 − prod(1 − k / arange(n − c + 1, n + 1))
    product = math.prod(1 - 100 / i for i in range(200 - 5 + 1, 200 + 1))
    assert pass_at_k(answers=200, right=5, k=100) == pytest.approx(1 - product, rel=1e-12)
    assert pass_at_k(answers=200, right=101, k=100) == 1.0


@pytest.mark.parametrize(("answers", "right", "k"), [(2, 1, 3), (2, 3, 1), (2, -1, 1), (2, 1, 0)])
def test_pass_at_k_of_nonsense(answers: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"found {right} right of {answers} answers and k = {k}"):
        pass_at_k(answers=answers, right=right, k=k)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_mean_over_epochs_stays_between_its_values(values: list[float]) -> None:
    (found,) = averaged(map(observed, values), epochs=len(values))
    assert min(values) - 1e-12 <= found.value <= min(1.0, max(values) + 1e-12)
    assert (found.item_id, found.metric, found.group, found.weight) == ("i", "correct", "g", 1.0)


def test_averages_are_by_metric_and_item_and_need_every_epoch() -> None:
    first = [observed(1.0, item="a"), observed(0.0, item="b"), observed(3.0, item="a", metric="output_tokens")]
    second = [observed(0.0, item="a"), observed(5.0, item="a", metric="output_tokens")]
    found = {(o.metric, o.item_id): o.value for o in averaged([*first, *second], epochs=2)}
    assert found == {("correct", "a"): 0.5, ("output_tokens", "a"): 4.0}
    assert averaged(first, epochs=1) == first
    (weighted,) = averaged([observed(1.0, weight=3.0), observed(2.0, weight=1.0)], epochs=2)
    assert (weighted.value, weighted.weight) == (1.25, 2.0)


def test_an_item_that_failed_is_not_asked_again() -> None:
    asked: list[tuple[int, list[str]]] = []

    def ask(epoch: int, items: Sequence[str]) -> list[str | Failed]:
        asked.append((epoch, list(items)))
        bad = Failed(kind="model_error", message="RuntimeError: " + "x" * MAX_MESSAGE)
        return [bad if (item, epoch) in {("b", 1), ("c", 0)} else f"{item}{epoch}" for item in items]

    a, b, c = ask_repeatedly(ask, ["a", "b", "c"], epochs=3)
    assert a == ["a0", "a1", "a2"]
    assert isinstance(b, Failed)
    assert b.kind == "model_error"
    assert b.message.startswith("epoch 2 of 3: RuntimeError: xxx")
    assert len(b.message) == MAX_MESSAGE
    assert isinstance(c, Failed)
    assert c.message.startswith("epoch 1 of 3: ")
    assert asked == [(0, ["a", "b", "c"]), (1, ["a", "b"]), (2, ["a"])]


def test_one_epoch_is_not_numbered_and_nothing_left_is_not_asked() -> None:
    bad = Failed(kind="k", message="why")
    assert ask_repeatedly(lambda epoch, items: [bad], ["a"], epochs=1) == [bad]
    calls: list[int] = []

    def ask(epoch: int, items: Sequence[str]) -> list[str | Failed]:
        calls.append(epoch)
        return [bad for _ in items]

    ask_repeatedly(ask, ["a"], epochs=5)
    assert calls == [0]


def test_seeds_differ_by_epoch_items_and_sample_and_are_repeatable() -> None:
    seeds = [seed(s, items, e) for s in ("s", "t") for items in (["a"], ["b"], ["a", "b"], ["ab"]) for e in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert seed("s", ["a"], 3) == seed("s", ["a"], 3)
    assert all(0 <= s < 2**32 for s in seeds)


def test_the_note_names_the_decoding() -> None:
    greedy = "greedy decoding (temperature 0): differences in the distribution of answers stay unseen"
    assert decoding_note(temperature=0.0, epochs=1) == greedy
    assert decoding_note(temperature=0.8, epochs=1) == "sampled at temperature 0.8, 1 epoch"
    assert decoding_note(temperature=1.0, epochs=16) == "sampled at temperature 1, 16 epochs"


# ---- what a policy may ask

STAGE = {
    "kind": "domain",
    "name": "own",
    "data": "own.jsonl",
    "match": "exact",
    "rules": [{"metric": "accuracy", "max_drop": "3pp"}],
}


def as_task(decoding: dict[str, Any], rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": "lm_eval", "name": "capability", "tasks": [{"task": "gsm8k", "rules": rules, **decoding}]}


def problems(stage: dict[str, Any]) -> list[tuple[str, str]]:
    policy = Policy.model_validate({"version": 1, "stages": [stage]})
    return [(".".join(map(str, at)), message) for at, message in rule_problems(policy)]


def test_one_count_is_for_both_roles() -> None:
    stage = DomainStage.model_validate({**STAGE, "temperature": 1, "epochs": 4})
    assert stage.epochs == Epochs(baseline=4, candidate=4)
    other = DomainStage.model_validate({**STAGE, "temperature": 0.7, "epochs": {"baseline": 16, "candidate": 1}})
    assert (other.epochs.of(Role.BASELINE), other.epochs.of(Role.CANDIDATE), other.epochs.fewest) == (16, 1, 1)
    assert DomainStage.model_validate(other.model_dump(mode="json")) == other
    plain = Task.model_validate({"task": "t", "rules": [{"metric": "acc", "max_drop": "3pp"}]})
    assert (plain.temperature, plain.epochs, plain.pass_at) == (0.0, Epochs(baseline=1, candidate=1), None)


@pytest.mark.parametrize(
    "epochs",
    [
        0,
        -1,
        True,
        1.0,
        "4",
        [4],
        None,
        {},
        {"baseline": 4},
        {"baseline": 4, "candidate": 0},
        {"baseline": 4, "candidat": 1},
        {"baseline": 4, "candidate": 1, "more": 1},
        {"baseline": True, "candidate": 1},
    ],
)
def test_epochs_that_are_refused(epochs: object) -> None:
    with pytest.raises(ValidationError, match=r"expected a count from 1, or \{baseline: count, candidate: count\}"):
        DomainStage.model_validate({**STAGE, "temperature": 1.0, "epochs": epochs})
    validator = jsonschema.Draft202012Validator(schema())
    good = {"version": 1, "stages": [{**STAGE, "temperature": 1.0, "epochs": 2}]}
    assert validator.is_valid(good)
    # JSON Schema takes 1.0 for an integer
    assert validator.is_valid({"version": 1, "stages": [{**STAGE, "epochs": epochs}]}) == (type(epochs) is float)


@pytest.mark.parametrize("temperature", [-0.1, "1", True, math.inf, math.nan])
def test_temperatures_that_are_refused(temperature: object) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        DomainStage.model_validate({**STAGE, "temperature": temperature})


def test_a_mistake_in_epochs_has_its_line(tmp_path: Path) -> None:
    stage = {**STAGE, "temperature": 1.0, "epochs": {"baseline": 4, "candidat": 1}}
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "stages": [stage]}, sort_keys=False))
    with pytest.raises(
        PolicyError, match=r"policy\.yaml:\d+:\d+: stages\[0\]\.epochs: found .*'candidat': 1}, expected"
    ):
        load_policy(path)


GREEDY = "greedy decoding writes the same answer each time: set temperature above 0, or remove epochs"
CHOICE = "match: choice compares log-likelihoods and writes no answer: remove "


@pytest.mark.parametrize(
    ("decoding", "at", "message"),
    [
        ({"epochs": 4}, "epochs", GREEDY),
        ({"epochs": {"baseline": 16, "candidate": 1}}, "epochs", GREEDY),
        (
            {"temperature": 1.0, "epochs": {"baseline": 16, "candidate": 2}, "pass_at": 4},
            "pass_at",
            "found 4, expected at most the epochs of both roles, which is 2",
        ),
    ],
)
def test_decoding_that_contradicts_itself(decoding: dict[str, Any], at: str, message: str) -> None:
    rules: list[dict[str, Any]] = [{"metric": "accuracy", "max_drop": "3pp"}]
    assert problems({**STAGE, **decoding}) == [(f"stages.0.{at}", message)]
    assert problems(as_task(decoding, rules)) == [(f"stages.0.tasks.0.{at}", message)]


def test_a_rule_on_pass_at_k_needs_k() -> None:
    rules = [{"metric": "pass_at_k", "max_drop": "3pp"}]
    said = "pass_at_k needs `pass_at`, the number of answers of which one must be right"
    assert problems({**STAGE, "rules": rules}) == [("stages.0.rules.0.metric", said)]
    assert problems(as_task({}, rules)) == [("stages.0.tasks.0.rules.0.metric", said)]
    sampled = {"temperature": 0.8, "epochs": 4, "pass_at": 2}
    assert problems({**STAGE, **sampled, "rules": rules}) == []
    assert problems(as_task(sampled, rules)) == []


def test_choices_are_not_sampled() -> None:
    found = problems({**STAGE, "match": "choice", "temperature": 1.0, "epochs": 2, "pass_at": 2})
    assert found == [(f"stages.0.{key}", CHOICE + key) for key in ("temperature", "epochs", "pass_at")]


# ---- models that sample


def run(
    folder: Path, backend: Backend, n: int, *, role: Role = Role.BASELINE, order: str = "o", **more: Any
) -> Measurement:
    rows = [{"id": f"q{i}", "input": f"question {i}:", "expected": f"<{i}>", "category": "c"} for i in range(n)]
    (folder / "own.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    context = Context(
        role=role,
        base=folder,
        settings_digest="digest",
        sample_seed="seed",
        order_seed=order,
        artifacts=folder,
        block=None,
        progress=lambda done, total, label: None,
    )
    return merge(list(measure(backend, DomainStage.model_validate({**STAGE, **more}), context)))


def values(measurement: Measurement, metric: str) -> dict[str, float]:
    return {o.item_id: o.value for o in measurement.observations if o.metric == metric}


@pytest.fixture
def fake(tmp_path: Path) -> Backend:
    """Right on 70% of the answers that it samples."""
    answers = {f"question {i}:": f"<{i}>" for i in range(200)}
    (tmp_path / "fake.json").write_text(json.dumps({"kind": "fake", "answers": answers, "error_rate": 0.3}))
    return open_fake(Checkpoint(path=str(tmp_path), load={}, dtype="auto", tokenizer=None), "cpu")


def test_every_item_has_the_mean_of_its_epochs(tmp_path: Path, fake: Backend) -> None:
    epochs = {"baseline": 8, "candidate": 2}
    measurement = run(tmp_path, fake, 200, temperature=1.0, epochs=epochs, pass_at=2)
    correct, passes = values(measurement, "correct"), values(measurement, "pass_at_k")
    assert len(correct) == len(passes) == 200
    assert {round(v * 8, 9) for v in correct.values()} <= set(range(9))
    assert len(set(correct.values())) > 4, "epochs with the same seed would all be alike"
    # 1,600 independent answers, sd 0.0115
    assert math.fsum(correct.values()) / 200 == pytest.approx(0.7, abs=0.05)
    assert math.fsum(passes.values()) / 200 == pytest.approx(1 - 0.3**2, abs=0.05)
    for item_id, value in correct.items():
        assert passes[item_id] == pass_at_k(answers=8, right=round(8 * value), k=2)
    assert measurement.n_expected == measurement.n_reached == len(measurement.answers) == 200
    assert measurement.planned_tokens == 8 * run(tmp_path, fake, 200).planned_tokens
    assert "sampled at temperature 1, 8 epochs" in measurement.notes
    candidate = run(tmp_path, fake, 200, role=Role.CANDIDATE, temperature=1.0, epochs=epochs, pass_at=2)
    assert set(values(candidate, "correct").values()) == {0.0, 0.5, 1.0}
    assert "sampled at temperature 1, 2 epochs" in candidate.notes


def test_greedy_answers_are_named_and_stay_what_they_were(tmp_path: Path, fake: Backend) -> None:
    first, again = run(tmp_path, fake, 60), run(tmp_path, fake, 60, order="another")
    assert set(values(first, "correct").values()) == {0.0, 1.0}
    assert values(first, "correct") == values(again, "correct")
    assert [n for n in first.notes if "greedy" in n] == [decoding_note(temperature=0.0, epochs=1)]
    assert "pass_at_k" not in {m.name for m in first.metrics}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tiny_llama.save(tmp_path_factory.mktemp("llama"))
    yield open_hf(Checkpoint(path=str(folder), load={}, dtype="float32", tokenizer=None), "cpu")
    torch.set_num_threads(threads)


def test_a_real_model_samples_anew_in_every_epoch_and_the_same_again(tmp_path: Path, llama: Backend) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, "epochs": 3, "max_new_tokens": 8, "text_metrics": ["chrf"]}
    first = run(tmp_path, llama, 40, **settings)
    torch.manual_seed(99)
    assert run(tmp_path, llama, 40, **settings).observations == first.observations
    chrf = values(first, "chrf")
    assert "all" in chrf
    lengths = values(first, "output_tokens")
    assert len(lengths) == 40
    single = run(tmp_path, llama, 40, **{**settings, "epochs": 1})
    assert [a.output for a in single.answers] == [a.output for a in first.answers]  # the first epoch is the same
    assert values(single, "chrf")["all"] != chrf["all"]  # the others are not
    greedy = run(tmp_path, llama, 40, max_new_tokens=8)
    assert sum(g.output != s.output for g, s in zip(greedy.answers, first.answers, strict=True)) > 30
