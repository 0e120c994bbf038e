"""The domain stage on a scripted model: what is asked, what is observed, what is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from gate.backends import Backend, Generation
from gate.errors import CouldNotMeasure, DataError
from gate.policy import DomainStage
from gate.records import Measurement, Role, merge
from gate.stages import Context
from gate.stages.domain import check, measure


class Scripted:
    """A backend whose answers are a function of the prompt."""

    def __init__(self, says: Callable[[str], str], likes: Callable[[str, str], float] | None = None) -> None:
        self.says = says
        self.likes = likes
        self.info = SimpleNamespace(context_length=200)
        self.prompts: list[str] = []

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        return f"<user>{messages[0]['content']}<assistant>"

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, **_: Any) -> list[Generation]:
        self.prompts += prompts
        texts = [self.says(p) for p in prompts]
        return [Generation(text=t, n_tokens=len(t.split()), finish="length" if "…" in t else "stop") for t in texts]

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        assert self.likes is not None
        return [(self.likes(context, continuation), False) for context, continuation in requests]


def rows(n: int) -> list[dict[str, Any]]:
    return [
        {"id": f"q{i}", "input": f"{i} plus 1", "expected": str(i + 1), "category": "even" if i % 2 == 0 else "odd"}
        for i in range(n)
    ]


def add_one(prompt: str) -> str:
    return f"it is {int(prompt.split()[0]) + 1}"


def settings(**more: Any) -> DomainStage:
    base = {"kind": "domain", "name": "sums", "data": "sums.jsonl", "match": "contains"}
    return DomainStage.model_validate({**base, "rules": [{"metric": "accuracy", "max_drop": "3pp"}], **more})


def run(
    folder: Path,
    data: list[dict[str, Any]],
    backend: Scripted,
    *,
    role: Role = Role.BASELINE,
    seed: str = "seed",
    **more: Any,
) -> tuple[Measurement, list[Measurement]]:
    (folder / "sums.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data))
    context = Context(
        role=role,
        base=folder,
        settings_digest="digest",
        sample_seed=seed,
        order_seed=seed,
        artifacts=folder,
        block=None,
        progress=lambda done, total, label: None,
    )
    typed: Backend = backend  # type: ignore[assignment]
    parts = list(measure(typed, settings(**more), context))
    return merge(parts), parts


def values(measurement: Measurement, observed: str) -> dict[str, float]:
    return {o.item_id.split("/")[1]: o.value for o in measurement.observations if o.metric == observed}


def test_every_item_is_asked_and_matched(tmp_path: Path) -> None:
    wrong = {3, 8}
    backend = Scripted(lambda p: "no idea" if int(p.split()[0]) in wrong else add_one(p))
    measurement, parts = run(tmp_path, rows(70), backend)
    correct = values(measurement, "correct")
    assert [len(p.answers) for p in parts] == [32, 32, 6]
    assert {p.n_expected for p in parts} == {70}
    assert len(correct) == 70
    assert {item for item, value in correct.items() if value == 0} == {"q3", "q8"}
    assert {o.group for o in measurement.observations} == {"even", "odd"}
    assert measurement.source == measurement.stage == "sums"
    answer = next(a for a in measurement.answers if a.item_id.startswith("sums/q3/"))
    assert (answer.prompt, answer.output, answer.target, answer.group) == ("3 plus 1", "no idea", "4", "odd")
    names = {m.name for m in measurement.metrics}
    assert names == {"accuracy", "repetition_rate", "empty_rate", "truncated_rate", "length_ratio"}
    assert {m.observed for m in measurement.metrics} == {o.metric for o in measurement.observations}


def test_text_signals(tmp_path: Path) -> None:
    said = {"0": "", "1": "2 …", "2": "3 and so on " * 10, "3": "4"}
    measurement, _ = run(tmp_path, rows(4), Scripted(lambda p: said[p.split()[0]]))
    assert values(measurement, "empty") == {"q0": 1, "q1": 0, "q2": 0, "q3": 0}
    assert values(measurement, "truncated") == {"q0": 0, "q1": 1, "q2": 0, "q3": 0}
    assert values(measurement, "repetition") == {"q0": 0, "q1": 0, "q2": 1, "q3": 0}
    assert values(measurement, "output_tokens") == {"q0": 0, "q1": 2, "q2": 40, "q3": 1}


def test_a_failure_is_not_a_wrong_answer(tmp_path: Path) -> None:
    def says(prompt: str) -> str:
        if int(prompt.split()[0]) % 10 == 7:
            raise RuntimeError("CUDA error: something\nand more")
        return add_one(prompt)

    measurement, _ = run(tmp_path, rows(60), Scripted(says))
    assert len(measurement.failures) == 6
    assert {f.kind for f in measurement.failures} == {"model_error"}
    assert {f.message for f in measurement.failures} == {"RuntimeError: CUDA error: something"}
    correct = values(measurement, "correct")
    assert len(correct) == 54
    assert set(correct.values()) == {1.0}
    assert {f.item_id.split("/")[1] for f in measurement.failures} == {f"q{i}" for i in (7, 17, 27, 37, 47, 57)}


def test_a_model_that_answers_nothing_is_an_error(tmp_path: Path) -> None:
    def says(prompt: str) -> str:
        raise RuntimeError("no kernel image")

    with pytest.raises(CouldNotMeasure, match=r"none of the first 5 items .* RuntimeError: no kernel image"):
        run(tmp_path, rows(5), Scripted(says))


def test_a_pattern_that_runs_away_loses_its_item_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gate.stages.matchers.REGEX_SECONDS", 0.1)
    data = rows(3)
    data[1]["expected"] = "(a|aa)+$"
    measurement, _ = run(tmp_path, data, Scripted(lambda p: "1 3 " + "a" * 60 + "!"), match="regex")
    assert [(f.item_id.split("/")[1], f.kind) for f in measurement.failures] == [("q1", "match_timeout")]
    assert values(measurement, "correct") == {"q0": 1.0, "q2": 1.0}


def test_the_sample_is_seeded_and_the_same_for_both_roles(tmp_path: Path) -> None:
    def ids(**more: Any) -> list[str]:
        measurement, _ = run(tmp_path, rows(200), Scripted(add_one), sample=40, **more)
        assert measurement.n_expected == 40
        assert "40 items sampled from 200" in measurement.notes
        return [o.item_id for o in measurement.observations if o.metric == "correct"]

    baseline = ids(role=Role.BASELINE)
    assert ids(role=Role.CANDIDATE) == baseline
    assert ids(seed="another") != baseline
    first_forty = {f"q{i}" for i in range(40)}
    assert len({i.split("/")[1] for i in baseline} & first_forty) < 20


def test_the_item_id_changes_with_prompt_and_expected_answer(tmp_path: Path) -> None:
    def ids(data: list[dict[str, Any]], **more: Any) -> set[str]:
        measurement, _ = run(tmp_path, data, Scripted(lambda p: "x"), **more)
        return {o.item_id for o in measurement.observations}

    data = rows(2)
    before = ids(data)
    assert ids(data) == before
    assert len(ids([{**data[0], "expected": "z"}, data[1]]) & before) == 1
    assert not ids(data, template="Q: {input}") & before


def test_the_template_inserts_text_and_runs_nothing(tmp_path: Path) -> None:
    data = rows(1)
    data[0] |= {"input": "{id.__class__} {0} {category} %s {{x}}", "category": "{input}"}
    backend = Scripted(lambda p: "x")
    run(tmp_path, data, backend, template="{{{input}}} [{category}] {id}")
    assert backend.prompts == ["{{id.__class__} {0} {category} %s {{x}}} [{input}] q0"]


@pytest.mark.parametrize("template", ["{input.__class__}", "{input[0]}", "{input!r}", "{input:>9}", "{0}", "{other}"])
def test_a_template_that_reaches_for_more_is_refused(template: str) -> None:
    with pytest.raises(ValidationError, match=r"in the template, expected only \{input\}, \{id\}, \{category\}"):
        settings(template=template)


def test_chat(tmp_path: Path) -> None:
    backend = Scripted(lambda p: "x")
    run(tmp_path, rows(1), backend, chat=True)
    assert backend.prompts == ["<user>0 plus 1<assistant>"]


def test_chat_without_a_template_says_so(tmp_path: Path) -> None:
    backend = Scripted(lambda p: "x")

    def chat(messages: Sequence[Mapping[str, str]]) -> str:
        raise ValueError("the tokenizer has no chat template")

    backend.chat = chat  # type: ignore[method-assign]
    with pytest.raises(CouldNotMeasure, match="has chat: true, but the tokenizer has no chat template"):
        run(tmp_path, rows(1), backend, chat=True)


def choice_rows() -> list[dict[str, Any]]:
    return [
        {"id": f"c{i}", "input": f"Q{i}", "expected": "yes", "category": "c", "choices": ["no", "yes", "maybe not"]}
        for i in range(3)
    ]


def test_choices_are_scored_by_log_likelihood(tmp_path: Path) -> None:
    table = {" no": -3.0, " yes": -2.0, " maybe not": -2.5}
    seen: list[tuple[str, str]] = []

    def likes(context: str, continuation: str) -> float:
        seen.append((context, continuation))
        if context == "Q2" and continuation == " no":
            return math.nan
        return -1.0 if (context, continuation) == ("Q1", " maybe not") else table[continuation]

    measurement, _ = run(tmp_path, choice_rows(), Scripted(lambda p: "", likes), match="choice")
    assert values(measurement, "correct") == {"c0": 1.0, "c1": 0.0}
    assert [(f.item_id.split("/")[1], f.kind) for f in measurement.failures] == [("c2", "not_a_number")]
    assert {m.name for m in measurement.metrics} == {"accuracy"}
    assert {a.output for a in measurement.answers} == {"yes", "maybe not"}
    assert len(seen) == 9


@pytest.mark.parametrize(("more", "first"), [({"template": "{input}\n"}, "no"), ({"chat": True}, "no"), ({}, " no")])
def test_the_space_before_a_choice(tmp_path: Path, more: dict[str, Any], first: str) -> None:
    seen: list[str] = []

    def likes(context: str, continuation: str) -> float:
        seen.append(continuation)
        return 0.0

    run(tmp_path, choice_rows()[:1], Scripted(lambda p: "", likes), match="choice", **more)
    assert seen[0] == first


class Sampled(Scripted):
    """Says something else in every epoch: the n-th answer to a prompt is `script[prompt][n]`."""

    def __init__(self, script: Mapping[str, Sequence[str]]) -> None:
        super().__init__(self._next)
        self.script = {prompt: iter(answers) for prompt, answers in script.items()}
        self.asked: list[tuple[float, int]] = []

    def _next(self, prompt: str) -> str:
        text = next(self.script[prompt])
        if text == "fails":
            raise RuntimeError("no memory")
        return text

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, **more: Any) -> list[Generation]:
        self.asked.append((more["temperature"], more["seed"]))
        return super().generate(prompts, max_new_tokens=max_new_tokens)


def test_epochs_are_averaged(tmp_path: Path) -> None:
    backend = Sampled({"0 plus 1": ["1", "", "2 …", "1"], "1 plus 1": ["0", "0", "0", "2"]})
    more: dict[str, Any] = {"temperature": 0.7, "epochs": {"baseline": 4, "candidate": 1}, "pass_at": 1}
    measurement, _ = run(tmp_path, rows(2), backend, **more)
    assert values(measurement, "correct") == {"q0": 0.5, "q1": 0.25}
    assert values(measurement, "pass_at_k") == {"q0": 0.5, "q1": 0.25}
    assert values(measurement, "empty") == {"q0": 0.25, "q1": 0}
    assert values(measurement, "truncated") == {"q0": 0.25, "q1": 0}
    assert values(measurement, "output_tokens") == {"q0": 1.0, "q1": 1.0}
    assert {a.prompt: a.output for a in measurement.answers} == {"0 plus 1": "1", "1 plus 1": "0"}
    assert {temperature for temperature, _ in backend.asked} == {0.7}
    assert len({seed for _, seed in backend.asked}) == 4
    assert {m.observed for m in measurement.metrics} == {o.metric for o in measurement.observations}


def test_an_item_that_fails_in_one_epoch_is_lost(tmp_path: Path) -> None:
    backend = Sampled({"0 plus 1": ["1"] * 9, "1 plus 1": ["2", "fails", "fails", "2"]})
    measurement, _ = run(tmp_path, rows(2), backend, temperature=1.0, epochs=3)
    assert values(measurement, "correct") == {"q0": 1.0}
    (failure,) = measurement.failures
    assert failure.item_id.startswith("sums/q1/")
    assert (failure.kind, failure.message) == ("model_error", "epoch 2 of 3: RuntimeError: no memory")


def test_corpus_metrics_are_averaged_over_the_epochs(tmp_path: Path) -> None:
    data = [{**row, "expected": "a" if i % 3 else "b"} for i, row in enumerate(rows(40))]
    inputs = [row["input"] for row in data]
    said = [{prompt: "ab"[(i + i // (4 + e)) % 2] for i, prompt in enumerate(inputs)} for e in range(2)]

    def macro_f1(backend: Scripted, **more: Any) -> dict[str, float]:
        measurement, _ = run(tmp_path, data, backend, text_metrics=["macro_f1"], **more)
        return {o.item_id: o.value for o in measurement.observations if o.metric == "macro_f1"}

    first, second = (macro_f1(Scripted(answers.__getitem__)) for answers in said)
    both = macro_f1(Sampled({p: [said[0][p], said[1][p]] for p in inputs}), temperature=1.0, epochs=2)
    assert first["all"] != second["all"]
    assert both == pytest.approx({name: (first[name] + second[name]) / 2 for name in first}, abs=1e-15)


def test_the_judge_reads_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gate.stages import judge_endpoint
    from gate.stages.isolation import Failed

    def opinions(judge: Any, key: Any, parts: Sequence[tuple[str, str, str]]) -> list[Any]:
        none = Failed(kind="judge_failed", message="no reply")
        return [
            none if answer == "?" else judge_endpoint.Opinion(score=len(answer) / 10, agreed=True)
            for _, _, answer in parts
        ]

    monkeypatch.setattr(judge_endpoint, "opinions", opinions)
    backend = Sampled({"0 plus 1": ["1", "1 2"], "1 plus 1": ["2", "?"]})
    judge = {"url": "http://localhost:1", "model": "m", "rubric": "r"}
    measurement, _ = run(tmp_path, rows(2), backend, temperature=1.0, epochs=2, judge=judge)
    assert values(measurement, "judge_score") == pytest.approx({"q0": 0.2})
    assert values(measurement, "correct") == {"q0": 1.0, "q1": 0.5}
    assert any("no usable scores for 1 answers" in note for note in measurement.notes)


def test_choices_have_no_decoding_to_name(tmp_path: Path) -> None:
    scored, _ = run(tmp_path, choice_rows(), Scripted(lambda p: "", lambda c, t: 0.0), match="choice")
    assert scored.notes == ()
    written, parts = run(tmp_path, rows(70), Scripted(add_one))
    assert [n for n in written.notes if "greedy" in n] == list(parts[0].notes)
    assert len(written.notes) == 1


def test_json_answers(tmp_path: Path) -> None:
    said = {"0": '{"n": 1}', "1": 'so: {"n": 3}', "2": "{n: 3}"}
    data = [{**row, "expected": {"n": i + 1}} for i, row in enumerate(rows(3))]
    measurement, _ = run(tmp_path, data, Scripted(lambda p: said[p.split()[0]]), match="json")
    assert values(measurement, "correct") == {"q0": 1, "q1": 0, "q2": 0}
    assert values(measurement, "invalid_json") == {"q0": 0, "q1": 0, "q2": 1}


def test_text_and_corpus_metrics(tmp_path: Path) -> None:
    labels = ["fraud", "fine"]
    data = [{**row, "expected": labels[i % 2]} for i, row in enumerate(rows(50))]
    # says fraud on everything: half right
    backend = Scripted(lambda p: "this is fraud")
    wanted = ["macro_f1", "rouge_l", "bleu", "chrf"]
    measurement, parts = run(tmp_path, data, backend, text_metrics=wanted)
    groups = [*(f"without/{k}" for k in range(20))]
    for observed in ("macro_f1", "bleu", "chrf"):
        found = {o.item_id: o.value for o in measurement.observations if o.metric == observed}
        assert list(found) == ["all", *groups]
        assert not any(o.metric == observed for o in parts[0].observations)
    macro_f1 = {o.item_id: o.value for o in measurement.observations if o.metric == "macro_f1"}
    assert macro_f1["all"] == pytest.approx((2 / 3 + 0) / 2)
    assert len({round(v, 6) for v in macro_f1.values()}) > 1
    rouge = values(measurement, "rouge_l")
    assert rouge["q0"] == pytest.approx(2 * (1 / 3) / (1 + 1 / 3))
    assert rouge["q1"] == 0.0


def test_delete_groups_are_the_same_for_both_roles_even_when_an_item_is_lost(tmp_path: Path) -> None:
    data = [{**row, "expected": "a" if i % 3 else "b"} for i, row in enumerate(rows(40))]

    def macro_f1(says: Callable[[str], str]) -> dict[str, float]:
        measurement, _ = run(tmp_path, data, Scripted(says), text_metrics=["macro_f1"])
        return {o.item_id: o.value for o in measurement.observations if o.metric == "macro_f1"}

    def failing(prompt: str) -> str:
        if prompt.startswith("5 "):
            raise ValueError("lost")
        return "a" if int(prompt.split()[0]) % 4 else "b"

    whole = macro_f1(lambda p: "a" if int(p.split()[0]) % 4 else "b")
    lossy = macro_f1(failing)
    assert whole.keys() == lossy.keys()
    # the group of the lost item misses it either way: that one value is the same, the others are not
    assert sum(whole[key] == pytest.approx(lossy[key], abs=1e-12) for key in whole) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"match": "choice", "text_metrics": ["bleu"]}, "bleu cannot be measured with match: choice"),
        ({"match": "regex", "text_metrics": ["macro_f1"]}, "macro_f1 cannot be measured with match: regex"),
        (
            {"match": "choice", "rules": [{"metric": "empty_rate", "max": 0.1}]},
            "empty_rate cannot be measured with match: choice",
        ),
        ({"match": "numeric"}, "line 2: found expected = 'x', expected a number"),
        ({"match": "choice"}, "line 1: found no choices"),
    ],
)
def test_check_needs_no_model(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    data = rows(2)
    data[1]["expected"] = "x"
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data))
    with pytest.raises(DataError) as caught:
        check(settings(**more), tmp_path)
    assert said in str(caught.value)


def test_a_prompt_beyond_the_context_is_a_lost_item_and_not_asked(tmp_path: Path) -> None:
    data = rows(2)
    data[0]["input"] = "9 " + "x" * 180
    backend = Scripted(lambda p: "x")
    measurement, _ = run(tmp_path, data, backend, max_new_tokens=32)
    (failure,) = measurement.failures
    assert (failure.kind, failure.item_id.split("/")[1]) == ("too_long", "q0")
    assert "expected at most the model's context length of 200" in failure.message
    assert len(backend.prompts) == 1


def test_choices_beyond_the_context_are_not_cut(tmp_path: Path) -> None:
    data = choice_rows()
    data[1]["choices"] = ["no", "yes", "x" * 198]
    likes = Scripted(lambda p: "", lambda context, continuation: float(continuation == " yes"))
    measurement, _ = run(tmp_path, data, likes, match="choice")
    assert [f.kind for f in measurement.failures] == ["too_long"]
    assert len(values(measurement, "correct")) == len(data) - 1


@pytest.mark.parametrize("worst", [-math.inf, math.nan])
def test_choices_that_are_all_impossible_are_no_answer(tmp_path: Path, worst: float) -> None:
    scored, _ = run(tmp_path, choice_rows()[:2], Scripted(lambda p: "", lambda c, t: worst if "Q1" in c else 0.0),
                    match="choice")  # fmt: skip
    (failure,) = scored.failures
    assert failure.kind == "not_a_number"


def test_the_choice_with_the_most_tokens_counts_not_the_longest_text(tmp_path: Path) -> None:
    data = choice_rows()
    data[0]["choices"] = ["no", "yes", "é" * 97 + "é"]  # 98 characters, 196 tokens
    data[0]["input"] = "x" * 10
    data[0]["choices"].append("y" * 150)
    scored, _ = run(tmp_path, data, Scripted(lambda p: "", lambda c, t: float(t == " yes")), match="choice")
    assert [f.kind for f in scored.failures] == ["too_long"]


def test_progress_counts_items(tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows(40)))
    seen: list[tuple[int, int, str]] = []
    context = Context(
        role=Role.CANDIDATE,
        base=tmp_path,
        settings_digest="d",
        sample_seed="s",
        order_seed="s",
        artifacts=tmp_path,
        block=None,
        progress=lambda *x: seen.append(x),
    )
    list(measure(Scripted(add_one), settings(), context))  # type: ignore[arg-type]
    assert seen == [(32, 40, "sums"), (40, 40, "sums")]
