"""The lm_eval stage on a scripted model: resolving, sampling, pairing keys, failures, metric declarations."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from gate.backends import Backend, Checkpoint
from gate.backends.fake import open_backend as open_fake
from gate.errors import CouldNotMeasure, DataError, ExitCode
from gate.policy import LmEvalStage
from gate.records import Direction, Estimand, Measurement, Role, merge
from gate.stages import Context, harness_data
from gate.stages.epochs import pass_at_k
from gate.stages.lm_eval import check, measure

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

ACC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
QUIZ: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": ["yes", "no"],
    "doc_to_target": "gold",
    "metric_list": [ACC],
}
OPEN: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{gold}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


class ScriptedLM:
    """An lm-eval model whose answers are functions of the request."""

    def __init__(
        self,
        likes: Callable[[str, str], float] = lambda context, continuation: float(len(continuation)),
        says: Callable[[str], str] = lambda context: "0",
    ) -> None:
        self.likes = likes
        self.says = says
        self.seen: list[Any] = []

    def tok_encode(self, text: str) -> list[int]:
        return list(text.encode())

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        self.seen += requests
        return [(self.likes(*r.args), True) for r in requests]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        self.seen += requests
        return [self.says(r.args[0]) for r in requests]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        return [self.likes("", r.args[0]) for r in requests]

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


class ScriptedBackend:
    def __init__(self, lm: ScriptedLM) -> None:
        self.lm = lm
        self.info = SimpleNamespace(context_length=100)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def harness(self) -> Any:
        return self.lm


@pytest.fixture(autouse=True)
def _no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def rows(n: int, salt: str = "") -> list[dict[str, Any]]:
    return [{"question": f"question {salt}{i}", "gold": i % 2} for i in range(n)]


def write(folder: Path, name: str, data: list[dict[str, Any]], config: dict[str, Any]) -> None:
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    (tasks / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data))
    common = {"task": name, "dataset_path": "json", "test_split": "test"}
    files = {"dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}}}
    (tasks / f"{name}.yaml").write_text(yaml.safe_dump({**common, **files, **config}))


def settings(task: str, *, include_path: str | None = "tasks", **more: Any) -> LmEvalStage:
    rules = [{"metric": "acc", "max_drop": "3pp"}]
    tasks = [{"task": task, "rules": rules, **more}]
    stage = {"kind": "lm_eval", "name": "capability", "include_path": include_path, "tasks": tasks}
    return LmEvalStage.model_validate(stage)


def run(folder: Path, lm: ScriptedLM, task: str, **more: Any) -> Measurement:
    backend: Backend = ScriptedBackend(lm)  # type: ignore[assignment]
    return run_on(folder, backend, task, **more)


def parts(folder: Path, lm: ScriptedLM, task: str, *, seed: str, **more: Any) -> Iterator[Measurement]:
    backend: Backend = ScriptedBackend(lm)  # type: ignore[assignment]
    return measure(backend, settings(task, **more), context_of(folder, Role.BASELINE, seed))


def run_on(
    folder: Path, backend: Backend, task: str, *, role: Role = Role.BASELINE, seed: str = "seed", **more: Any
) -> Measurement:
    return merge(list(measure(backend, settings(task, **more), context_of(folder, role, seed))))


def context_of(folder: Path, role: Role, seed: str) -> Context:
    return Context(
        role=role,
        base=folder,
        settings_digest="digest",
        sample_seed=seed,
        order_seed=seed,
        artifacts=folder,
        block=None,
        progress=lambda done, total, label: None,
    )


def values(measurement: Measurement, metric: str) -> list[float]:
    return [o.value for o in measurement.observations if o.metric == metric]


def test_items_metrics_and_answers(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(40), QUIZ)
    lm = ScriptedLM(likes=lambda context, continuation: 1.0 if continuation == " yes" else 0.0)
    measurement = run(tmp_path, lm, "quiz")
    assert measurement.n_expected == 40
    assert sorted(values(measurement, "acc")) == [0.0] * 20 + [1.0] * 20
    (metric,) = measurement.metrics
    assert (metric.name, metric.observed, metric.unit) == ("acc", "acc", "rate")
    assert (metric.direction, metric.estimand) == (Direction.HIGHER_IS_BETTER, Estimand.ITEM_MEAN)
    assert all(re.fullmatch(r"quiz/[0-9a-f]{16}/[0-9a-f]{16}", o.item_id) for o in measurement.observations)
    assert {(o.cluster, o.group) for o in measurement.observations} == {(None, None)}
    answer = next(a for a in measurement.answers if a.prompt == "question 3")
    assert (answer.output, answer.target) == ("yes", "no")


def test_the_working_directory_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "quiz", rows(3), QUIZ)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(tmp_path, ScriptedLM(), "quiz").n_expected == 3


def test_the_sample_is_seeded_the_same_for_both_roles_and_not_the_first_n(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(200), QUIZ)

    def prompts(**more: Any) -> list[str]:
        measurement = run(tmp_path, ScriptedLM(), "quiz", sample="20%", **more)
        assert measurement.n_expected == 40
        assert "40 items sampled from 200" in measurement.notes
        return [a.prompt for a in measurement.answers]

    baseline = prompts(role=Role.BASELINE)
    assert prompts(role=Role.CANDIDATE) == baseline
    assert prompts(seed="another") != baseline
    assert len(set(baseline) & {f"question {i}" for i in range(40)}) < 20


def test_a_groups_sample_is_one_permutation_over_all_its_subjects(tmp_path: Path) -> None:
    write(tmp_path, "large", rows(180, "l"), QUIZ)
    write(tmp_path, "small", rows(20, "s"), QUIZ)
    group = {"group": "subjects", "task": ["large", "small"]}
    (tmp_path / "tasks" / "subjects.yaml").write_text(yaml.safe_dump(group))
    counts = []
    for seed in "abcdef":
        measurement = run(tmp_path, ScriptedLM(), "subjects", sample=40, seed=seed)
        assert measurement.source == "subjects"
        clusters = [o.cluster for o in measurement.observations]
        assert clusters == [o.group for o in measurement.observations]
        assert set(clusters) <= {"large", "small"}
        counts.append(clusters.count("small"))
    assert len(set(counts)) > 1, "quotas would draw the same number each time"
    assert 10 < sum(counts) < 40  # 4 of 40 expected each time, 24 in all; about 3.5 sd


def test_repeated_documents_are_items_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, "quiz", [*rows(2), *rows(2)], QUIZ)
    ids = {o.item_id for o in run(tmp_path, ScriptedLM(), "quiz").observations}
    assert len(ids) == 4
    assert sorted(i.partition("#")[2] for i in ids) == ["", "", "1", "1"]


def test_the_item_id_covers_the_prompt(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(3), QUIZ)
    before = {o.item_id for o in run(tmp_path, ScriptedLM(), "quiz").observations}
    write(tmp_path, "quiz", rows(3), {**QUIZ, "doc_to_text": "Q: {{question}}"})
    after = {o.item_id for o in run(tmp_path, ScriptedLM(), "quiz").observations}
    assert not before & after
    assert {i.split("/")[1] for i in before} == {i.split("/")[1] for i in after}


def test_few_shot_examples_depend_on_the_document_alone(tmp_path: Path) -> None:
    config = {
        **QUIZ,
        "fewshot_split": "train",
        "dataset_kwargs": {"data_files": {"test": "quiz.jsonl", "train": "examples.jsonl"}},
    }
    write(tmp_path, "quiz", rows(30), config)
    (tmp_path / "tasks" / "examples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows(50, "e")))

    def prompts(**more: Any) -> dict[str, str]:
        answers = run(tmp_path, ScriptedLM(), "quiz", fewshot=2, **more).answers
        return {a.prompt.rpartition("question ")[2]: a.prompt for a in answers}

    every = prompts()
    assert len({prompt.rpartition("question")[0] for prompt in every.values()}) > 20
    sampled = prompts(sample=10, seed="other")
    assert len(sampled) == 10
    assert sampled == {name: every[name] for name in sampled}
    first = prompts(fewshot_sampler="first_n")
    assert {prompt.rpartition("question")[0] for prompt in first.values()} == {"question e0 yes\n\nquestion e1 no\n\n"}


def test_a_sandbox_failure_is_not_a_wrong_answer(tmp_path: Path) -> None:
    code = """
def score(doc, results):
    if doc["question"].endswith("3"):
        raise TimeoutError("the sandbox did not start")
    return {"acc": 1.0}
"""
    config = {**OPEN, "metric_list": [ACC]}
    write(tmp_path, "code", rows(60), config)
    path = tmp_path / "tasks" / "code.yaml"
    path.write_text(path.read_text() + "process_results: !function scoring.score\n")
    (tmp_path / "tasks" / "scoring.py").write_text(code)
    measurement = run(tmp_path, ScriptedLM(), "code")
    assert [f.kind for f in measurement.failures] == ["scoring_error"] * 6
    assert {f.message for f in measurement.failures} == {"TimeoutError: the sandbox did not start"}
    assert values(measurement, "acc") == [1.0] * 54
    lost = {f.item_id for f in measurement.failures}
    assert not lost & {o.item_id for o in measurement.observations}


def test_a_request_that_the_model_cannot_serve_loses_its_item_only(tmp_path: Path) -> None:
    def likes(context: str, continuation: str) -> float:
        if context == "question 5":
            raise RuntimeError("CUDA out of memory")
        return math.nan if context == "question 6" else 0.0

    write(tmp_path, "quiz", rows(40), QUIZ)
    measurement = run(tmp_path, ScriptedLM(likes=likes), "quiz")
    assert sorted(f.kind for f in measurement.failures) == ["model_error", "not_a_number"]
    assert len(measurement.observations) == 38


def test_a_prompt_that_cannot_be_rendered_loses_its_item_only(tmp_path: Path) -> None:
    config = {**QUIZ, "doc_to_text": "{{question}}{% if question == 'question 2' %}{{ 1 // 0 }}{% endif %}"}
    write(tmp_path, "quiz", rows(5), config)
    measurement = run(tmp_path, ScriptedLM(), "quiz")
    assert [(f.kind, f.message.split(":")[0]) for f in measurement.failures] == [("prompt_error", "ZeroDivisionError")]
    assert len(measurement.observations) == 4


def test_a_model_that_answers_nothing_is_an_error(tmp_path: Path) -> None:
    def likes(context: str, continuation: str) -> float:
        raise RuntimeError("no kernel image")

    write(tmp_path, "quiz", rows(5), QUIZ)
    with pytest.raises(CouldNotMeasure, match=r"none of the first 5 items could be measured.*no kernel image"):
        run(tmp_path, ScriptedLM(likes=likes), "quiz")


def test_filters_name_their_metrics(tmp_path: Path) -> None:
    filters = [
        {"name": "strict-match", "filter": [{"function": "take_first"}]},
        {
            "name": "flexible",
            "filter": [{"function": "regex", "regex_pattern": r"(\d)"}, {"function": "take_first"}],
        },
    ]
    write(tmp_path, "open", rows(4), {**OPEN, "filter_list": filters})
    measurement = run(tmp_path, ScriptedLM(says=lambda context: "it is 1"), "open")
    assert [m.name for m in measurement.metrics] == ["exact_match,flexible", "exact_match,strict-match"]
    assert sorted(values(measurement, "exact_match,flexible")) == [0, 0, 1, 1]
    assert sorted(values(measurement, "exact_match,strict-match")) == [0, 0, 0, 0]


def test_the_length_of_written_answers_is_counted_in_tokens(tmp_path: Path) -> None:
    write(tmp_path, "open", rows(4), OPEN)
    write(tmp_path, "quiz", rows(4), QUIZ)
    lm = ScriptedLM(says=lambda context: "0" if context.endswith("3") else "twelve bytes")
    lengths = values(run(tmp_path, lm, "open"), "output_tokens")
    assert sorted(lengths) == [1.0, 12.0, 12.0, 12.0]  # the tokenizer of these tests makes a token of a byte
    assert values(run(tmp_path, lm, "quiz"), "output_tokens") == []


def test_the_length_of_an_item_is_the_mean_over_its_answers(tmp_path: Path) -> None:
    write(tmp_path, "open", rows(2), {**OPEN, "repeats": 2})
    said = iter(["a", "bbb"] * 2)
    measurement = run(tmp_path, ScriptedLM(says=lambda context: next(said)), "open")
    assert values(measurement, "output_tokens") == [2.0, 2.0]


def test_metrics_that_are_no_item_means_are_left_out_with_a_note(tmp_path: Path) -> None:
    metrics = [{"metric": "bleu"}, {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    write(tmp_path, "open", rows(4), {**OPEN, "metric_list": metrics})
    measurement = run(tmp_path, ScriptedLM(), "open")
    assert [m.name for m in measurement.metrics] == ["exact_match"]
    note = "metric 'bleu' is not reported: it is aggregated by bleu, which is not a mean over items"
    assert note in measurement.notes
    assert {o.metric for o in measurement.observations} == {"exact_match", "output_tokens"}


def test_perplexity_is_a_mean_nll_per_word(tmp_path: Path) -> None:
    config = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    }
    write(tmp_path, "prose", [{"question": "one two three", "gold": 0}, {"question": "one", "gold": 1}], config)
    measurement = run(tmp_path, ScriptedLM(likes=lambda context, text: -6.0 * len(text.split())), "prose")
    assert {(o.value, o.weight) for o in measurement.observations} == {(6.0, 3.0), (6.0, 1.0)}
    (metric,) = measurement.metrics
    assert (metric.name, metric.estimand, metric.direction) == (
        "word_perplexity",
        Estimand.PERPLEXITY,
        Direction.LOWER_IS_BETTER,
    )


def test_max_new_tokens_and_chat(tmp_path: Path) -> None:
    write(tmp_path, "open", rows(2), OPEN)
    lm = ScriptedLM()
    run(tmp_path, lm, "open", max_new_tokens=3, chat=True)
    assert {r.args[1]["max_gen_toks"] for r in lm.seen} == {3}
    assert {r.args[0] for r in lm.seen} == {"<user>question 0<assistant>", "<user>question 1<assistant>"}


# ---- prompts that do not fit the context

LONG = [{"question": f"{'x' * 120} {k}", "gold": 0} for k in range(3)]
CUT = "3 of 60 prompts do not fit the 100 tokens of context (the longest needs 125, answer included) and are cut"


@pytest.mark.parametrize("allowed", [3, "5%"])
@pytest.mark.parametrize("role", Role)
def test_prompts_that_are_cut_are_counted(tmp_path: Path, allowed: int | str, role: Role) -> None:
    write(tmp_path, "quiz", [*rows(57), *LONG], QUIZ)
    measurement = run(tmp_path, ScriptedLM(), "quiz", max_truncated=allowed, role=role)
    assert f"{CUT} on the left" in measurement.notes
    assert len(measurement.observations) == 60


@pytest.mark.parametrize("allowed", [0, 2, "4.9%"])
@pytest.mark.parametrize("role", Role)
def test_more_of_them_than_allowed_are_an_error_before_anything_is_scored(
    tmp_path: Path, allowed: int | str, role: Role
) -> None:
    write(tmp_path, "quiz", [*rows(57), *LONG], QUIZ)
    lm = ScriptedLM()
    with pytest.raises(CouldNotMeasure) as caught:
        run(tmp_path, lm, "quiz", max_truncated=allowed, role=role)
    assert str(caught.value) == (
        f"task 'quiz': {CUT} on the left, and max_truncated allows {allowed}. Lower `fewshot`, give the model a longer "
        "context (`max_model_len` under `engines`), choose a task with shorter prompts, or set `max_truncated`"
    )
    assert lm.seen == []


def test_they_are_counted_whatever_the_order_of_the_items(tmp_path: Path) -> None:
    """The first part of a measurement says so already, however few of its own prompts are cut."""
    write(tmp_path, "quiz", [*rows(157), *LONG], QUIZ)
    for seed in "abc":
        first = next(parts(tmp_path, ScriptedLM(), "quiz", seed=seed, max_truncated=3))
        assert "3 of 160 prompts do not fit the 100 tokens" in " ".join(first.notes)


def test_the_answer_needs_room_too(tmp_path: Path) -> None:
    write(tmp_path, "open", [{"question": "x" * 92, "gold": 0}, {"question": "x" * 93, "gold": 0}], OPEN)
    with pytest.raises(CouldNotMeasure, match=r"1 of 2 prompts .* needs 101, .* Lower `fewshot` or `max_new_tokens`,"):
        run(tmp_path, ScriptedLM(), "open")
    assert len(values(run(tmp_path, ScriptedLM(), "open", max_new_tokens=7), "exact_match")) == 2
    unlimited = {**OPEN, "generation_kwargs": {"until": ["\n"]}}
    write(tmp_path, "open", rows(2), unlimited)
    with pytest.raises(CouldNotMeasure, match=r"the longest needs 266"):  # 256 is what lm-eval's models then take
        run(tmp_path, ScriptedLM(), "open")


def test_a_continuation_may_end_one_token_after_the_context(tmp_path: Path) -> None:
    """Its last token is predicted and never read."""
    write(tmp_path, "quiz", [{"question": "x" * 97, "gold": 0}, {"question": "x" * 98, "gold": 0}], QUIZ)
    with pytest.raises(CouldNotMeasure, match=r"1 of 2 prompts .* needs 101"):
        run(tmp_path, ScriptedLM(), "quiz")


class StartingLM(ScriptedLM):
    """Begins every text with a token of its own, as most tokenizers do."""

    def tok_encode(self, text: str) -> list[int]:
        return [0, *super().tok_encode(text)]


@pytest.mark.parametrize(("config", "length"), [(QUIZ, 97), (OPEN, 92)])
def test_the_token_that_starts_a_text_takes_room_too(tmp_path: Path, config: dict[str, Any], length: int) -> None:
    write(
        tmp_path, "quiz", [{"question": "x" * (length - 1), "gold": 0}, {"question": "x" * length, "gold": 0}], config
    )
    assert len({o.item_id for o in run(tmp_path, ScriptedLM(), "quiz").observations}) == 2
    with pytest.raises(CouldNotMeasure, match=r"1 of 2 prompts .* needs 101"):
        run(tmp_path, StartingLM(), "quiz")


def test_examples_from_the_evaluated_split_are_pointed_out(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(4), QUIZ)
    notes = run(tmp_path, ScriptedLM(), "quiz", fewshot=1).notes
    assert "quiz: the few-shot examples come from the evaluated split and may contain the item itself" in notes


# ---- sampled decoding


class DyingLM(ScriptedLM):
    """Cannot write an answer that begins with the third question from its second epoch on."""

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        seen = {r.args[0] for r in self.seen}
        if any(r.args[0] == "question 3" and r.args[0] in seen for r in requests):
            raise RuntimeError("no memory")
        return super().generate_until(requests)


FIXED = """
from pathlib import Path
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

class Fixed(ConfigurableTask):
    def __init__(self, config=None):
        own = load_yaml(Path(__file__).parent / "inner.yaml")
        own["dataset_kwargs"]["data_files"]["test"] = str(Path(__file__).parent / "inner.jsonl")
        super().__init__(config=own)

    def construct_requests(self, doc, ctx, **kwargs):
        kwargs = {k: v for k, v in kwargs.items() if k == "metadata"}
        arguments = (ctx, {"until": [], "max_gen_toks": 8})
        return [Instance(request_type="generate_until", doc=doc, arguments=arguments, idx=0, **kwargs)]
"""


def tossing() -> ScriptedLM:
    """Answers by the generator that lm-eval's models sample from."""
    return ScriptedLM(says=lambda context: str(int(torch.rand(()) < 0.5)))


SAMPLED: dict[str, Any] = {"temperature": 0.8, "epochs": {"baseline": 8, "candidate": 2}}


def test_epochs_are_averaged_and_repeatable(tmp_path: Path) -> None:
    write(tmp_path, "open", rows(60), OPEN)
    lm = tossing()
    first = run(tmp_path, lm, "open", **SAMPLED, pass_at=2)
    torch.manual_seed(1)
    assert run(tmp_path, lm, "open", **SAMPLED, pass_at=2).observations == first.observations
    means, passes = values(first, "exact_match"), values(first, "pass_at_k by exact_match")
    assert len(means) == len(passes) == 60
    assert {round(v * 8, 9) for v in means} <= set(range(9))
    assert len(set(means)) > 4
    assert math.fsum(means) / 60 == pytest.approx(0.5, abs=0.1)  # of 480 answers, sd 0.023
    assert passes == [pass_at_k(answers=8, right=round(8 * v), k=2) for v in means]
    assert {m.name: m.observed for m in first.metrics} == {
        "exact_match": "exact_match",
        "pass_at_k": "pass_at_k by exact_match",
    }
    assert {(r.args[1]["do_sample"], r.args[1]["temperature"]) for r in lm.seen} == {(True, 0.8)}
    assert "sampled at temperature 0.8, 8 epochs" in first.notes
    assert "pass_at_k: the chance that one of 2 answers is right by 'exact_match'" in first.notes
    assert not [n for n in first.notes if "greedy" in n]
    assert first.planned_tokens == 8 * run(tmp_path, lm, "open", temperature=0.8).planned_tokens
    assert len(first.answers) == first.n_reached == 60
    candidate = run(tmp_path, lm, "open", role=Role.CANDIDATE, **SAMPLED)
    assert set(values(candidate, "exact_match")) == {0.0, 0.5, 1.0}


def test_the_fake_model_samples_too(tmp_path: Path) -> None:
    write(tmp_path, "open", rows(60), OPEN)
    answers = {r["question"]: str(r["gold"]) for r in rows(60)}
    (tmp_path / "fake.json").write_text(json.dumps({"kind": "fake", "answers": answers, "error_rate": 0.5}))
    backend = open_fake(Checkpoint(path=str(tmp_path), load={}, dtype="auto", tokenizer=None), "cpu")
    found = [run_on(tmp_path, backend, "open", **SAMPLED) for _ in range(2)]
    assert found[0].observations == found[1].observations
    assert len(set(values(found[0], "exact_match"))) > 4


def test_an_item_that_fails_in_one_epoch_is_lost(tmp_path: Path) -> None:
    write(tmp_path, "open", rows(5), OPEN)
    measurement = run(tmp_path, DyingLM(), "open", temperature=1.0, epochs=3)
    (failure,) = measurement.failures
    assert (failure.kind, failure.message) == ("model_error", "epoch 2 of 3: RuntimeError: no memory")
    assert len(values(measurement, "exact_match")) == 4


def test_pass_at_k_needs_a_metric_that_is_right_or_wrong(tmp_path: Path) -> None:
    code = "def score(doc, results):\n    return {'acc': 0.5}\n"
    write(tmp_path, "graded", rows(4), {**OPEN, "metric_list": [ACC]})
    path = tmp_path / "tasks" / "graded.yaml"
    path.write_text(path.read_text() + "process_results: !function graded_scoring.score\n")
    (tmp_path / "tasks" / "graded_scoring.py").write_text(code)
    measurement = run(tmp_path, ScriptedLM(), "graded", temperature=1.0, epochs=2, pass_at=2)
    assert [m.name for m in measurement.metrics] == ["acc"]
    said = "metric 'pass_at_k' is not reported: no metric of the task is 0 or 1 on every answer"
    assert said in measurement.notes


def test_greedy_is_named_where_the_model_writes(tmp_path: Path) -> None:
    write(tmp_path, "open", rows(40), OPEN)
    write(tmp_path, "quiz", rows(40), QUIZ)
    greedy = "greedy decoding (temperature 0): differences in the distribution of answers stay unseen"
    assert run(tmp_path, ScriptedLM(), "open").notes == (greedy,)
    assert run(tmp_path, ScriptedLM(), "quiz").notes == ()


def test_a_task_that_samples_by_itself_is_not_called_greedy_and_is_repeatable(tmp_path: Path) -> None:
    own = {**OPEN["generation_kwargs"], "do_sample": True, "temperature": 0.2, "top_p": 0.95}
    write(tmp_path, "open", rows(40), {**OPEN, "generation_kwargs": own})
    lm = tossing()
    first = run(tmp_path, lm, "open")
    assert first.notes == ("sampled at temperature 0.2, 1 epoch",)
    assert run(tmp_path, lm, "open").observations == first.observations
    assert {r.args[1]["temperature"] for r in lm.seen} == {0.2}
    lm.seen.clear()
    run(tmp_path, lm, "open", temperature=0.9)
    assert {(r.args[1]["temperature"], r.args[1]["top_p"]) for r in lm.seen} == {(0.9, 0.95)}


@pytest.mark.parametrize("task", ["quiz", "both"])
def test_only_answers_that_are_written_can_be_sampled(tmp_path: Path, task: str) -> None:
    write(tmp_path, "open", rows(2), OPEN)
    write(tmp_path, "quiz", rows(2), QUIZ)
    (tmp_path / "tasks" / "both.yaml").write_text(yaml.safe_dump({"group": "both", "task": ["open", "quiz"]}))
    with pytest.raises(DataError, match=r"found `temperature: 0\.7` for 'quiz', whose output_type is multiple_choice"):
        check(settings(task, temperature=0.7), tmp_path)


def test_a_bundled_task_is_refused_before_its_data_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found `temperature: 1` for 'arc_easy'"):
        check(settings("arc_easy", include_path=None, temperature=1.0), tmp_path)
    check(settings("gsm8k", include_path=None, temperature=1.0, epochs=4), tmp_path)


def test_a_task_whose_code_fixes_its_decoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "fixed.yaml").write_text("task: fixed\nclass: !function fixed_task.Fixed\n")
    (tmp_path / "tasks" / "fixed_task.py").write_text(FIXED)
    write(tmp_path, "inner", rows(2), OPEN)
    assert len(values(run(tmp_path, ScriptedLM(), "fixed"), "exact_match")) == 2
    with pytest.raises(DataError, match=r"'fixed': found temperature 0 in its requests, expected 0\.7: its own code"):
        run(tmp_path, ScriptedLM(), "fixed", temperature=0.7)


# ---- what is refused before a model is loaded


def test_an_unknown_task_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "fraud_quiz", rows(2), QUIZ)
    with pytest.raises(DataError, match=r"found the task 'fraud_quizz'.*did you mean fraud_quiz") as caught:
        check(settings("fraud_quizz"), tmp_path)
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_bundled_task_is_found_without_its_data(tmp_path: Path) -> None:
    check(settings("gsm8k", include_path=None), tmp_path)
    check(settings("mmlu", include_path=None, fewshot=5), tmp_path)


def test_a_data_set_that_is_not_cached_says_run_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(CouldNotMeasure, match="'gsm8k': its data set or metric is not in the local cache, run"):
        run(tmp_path, ScriptedLM(), "gsm8k", include_path=None)


def test_a_missing_data_file(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(2), QUIZ)
    (tmp_path / "tasks" / "quiz.jsonl").unlink()
    with pytest.raises(DataError, match=r"task 'quiz': found no data file '.*quiz\.jsonl'"):
        check(settings("quiz"), tmp_path)


def test_an_empty_data_file_is_nothing_to_measure(tmp_path: Path) -> None:
    write(tmp_path, "quiz", [], QUIZ)
    with pytest.raises(CouldNotMeasure, match="is empty: there is nothing to measure"):
        check(settings("quiz"), tmp_path)


def test_a_missing_include_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no folder"):
        check(settings("quiz"), tmp_path)


def test_a_broken_data_file(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(2), QUIZ)
    (tmp_path / "tasks" / "quiz.jsonl").write_text('{"question": \n')
    with pytest.raises(DataError, match=r"task 'quiz' \(.*quiz\.yaml\): .*quiz\.jsonl:1: not JSON \(Expecting value"):
        run(tmp_path, ScriptedLM(), "quiz")


def test_a_broken_line_is_found_by_the_check(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(40), QUIZ)
    path = tmp_path / "tasks" / "quiz.jsonl"
    path.write_text(path.read_text() + '\n{"question": broken\n')
    with pytest.raises(DataError, match=r"quiz\.jsonl:42: not JSON \(Expecting value, column 14\), expected one"):
        check(settings("quiz"), tmp_path)


def test_a_broken_array_is_found_by_the_check(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(2), QUIZ)
    (tmp_path / "tasks" / "quiz.jsonl").write_text('[\n{"question": "a", "gold": 0},\n{"question"}\n]\n')
    with pytest.raises(DataError, match=r"quiz\.jsonl:3: not JSON .*expected an array of objects"):
        check(settings("quiz"), tmp_path)


def test_broken_parquet_is_found_by_the_check(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(2), {**QUIZ, "dataset_path": "parquet"})
    with pytest.raises(DataError, match=r"task 'quiz' \(.*quiz\.yaml\) cannot be built: .*Parquet magic bytes"):
        check(settings("quiz"), tmp_path)


@pytest.mark.parametrize("field", ["doc_to_text", "doc_to_target"])
def test_a_field_that_no_document_has_is_found_by_the_check(tmp_path: Path, field: str) -> None:
    write(tmp_path, "open", rows(2), {**OPEN, field: "{{ nope.x }}"})
    with pytest.raises(DataError, match=r"task 'open' \(.*open\.yaml\).*UndefinedError: 'nope' is undefined"):
        check(settings("open"), tmp_path)


def test_a_few_shot_split_that_is_not_there_is_found_by_the_check(tmp_path: Path) -> None:
    write(tmp_path, "open", rows(2), {**OPEN, "fewshot_split": "train"})
    with pytest.raises(DataError, match=r"task 'open' \(.*open\.yaml\).*'train'"):
        check(settings("open", fewshot=2), tmp_path)


def test_a_split_that_is_not_there_is_found_by_the_check(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(2), {**QUIZ, "test_split": "valid"})
    with pytest.raises(DataError, match=r"its data has no split 'valid', found `test_split: valid`"):
        check(settings("quiz"), tmp_path)


def test_one_document_that_cannot_be_rendered_is_no_broken_task(tmp_path: Path) -> None:
    code = "def text(doc):\n    if doc['question'] == 'question 1':\n        raise ValueError('odd')\n    return 'q'\n"
    write(tmp_path, "quiz", rows(5), {k: v for k, v in QUIZ.items() if k != "doc_to_text"})
    path = tmp_path / "tasks" / "quiz.yaml"
    path.write_text(path.read_text() + "doc_to_text: !function odd_text.text\n")
    (tmp_path / "tasks" / "odd_text.py").write_text(code)
    check(settings("quiz"), tmp_path)


# ---- which files the scores depend on


def files_of(folder: Path, task: str, **more: Any) -> set[str]:
    found = check(settings(task, **more), folder)
    assert all(p.is_file() for p in found)
    assert len(found) == len(set(found))
    return {str(p.relative_to(folder)) if p.is_relative_to(folder) else p.name for p in found}


def test_includes_modules_and_data_outside_the_include_path_count(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(3), QUIZ)
    task = tmp_path / "tasks" / "quiz.yaml"
    for folder in ("shared/deep", "data", "tasks/__pycache__"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "shared" / "base.yaml").write_text(
        task.read_text().replace("task: quiz\n", "").replace("quiz.jsonl", "../data/quiz.jsonl")
        + "include: [deep/more.yaml]\n"
    )
    (tmp_path / "shared" / "deep" / "more.yaml").write_text("process_docs: !function quiz_docs.all_of\n")
    (tmp_path / "shared" / "deep" / "quiz_docs.py").write_text("def all_of(docs):\n    return docs\n")
    (tmp_path / "shared" / "deep" / "neighbour.py").write_text("")
    task.write_text("include: ../shared/base.yaml\ntask: quiz\n")
    (tmp_path / "tasks" / "quiz.jsonl").rename(tmp_path / "data" / "quiz.jsonl")
    (tmp_path / "tasks" / "words.txt").write_text("a module may open it")
    (tmp_path / "tasks" / "__pycache__" / "old.pyc").write_text("")
    assert files_of(tmp_path, "quiz") == {
        "tasks/quiz.yaml",
        "tasks/words.txt",
        "shared/base.yaml",
        "shared/deep/more.yaml",
        "shared/deep/quiz_docs.py",
        "shared/deep/neighbour.py",
        "data/quiz.jsonl",
    }


def test_data_folders_patterns_and_the_data_of_inline_members_count(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "part-1.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows(2, folder)))
    write(tmp_path, "quiz", rows(2), {**QUIZ, "dataset_kwargs": {"data_files": {"test": ["../a/part-*.jsonl"]}}})
    inline = {**QUIZ, "task": "inner", "dataset_path": "json", "test_split": "test"}
    inline["dataset_kwargs"] = {"data_files": {"test": "../b/part-1.jsonl"}}
    (tmp_path / "tasks" / "both.yaml").write_text(yaml.safe_dump({"group": "both", "task": ["quiz", inline]}))
    around = {"tasks/both.yaml", "tasks/quiz.jsonl", "tasks/quiz.yaml"}
    assert files_of(tmp_path, "both") == around | {"a/part-1.jsonl", "b/part-1.jsonl"}
    assert files_of(tmp_path, "quiz") == around | {"a/part-1.jsonl"}


def test_the_files_of_a_bundled_task_are_its_own(tmp_path: Path) -> None:
    assert files_of(tmp_path, "gsm8k", include_path=None) == {"gsm8k.yaml"}
    names = files_of(tmp_path, "arc_challenge", include_path=None)
    assert names == {"arc_challenge.yaml", "arc_easy.yaml"}  # the one includes the other


def test_code_execution_must_be_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "code", rows(2), {**OPEN, "unsafe_code": True})
    with pytest.raises(DataError, match="task 'code' executes the code that the model wrote"):
        check(settings("code"), tmp_path)
    with pytest.raises(DataError, match="task 'humaneval' executes"):
        check(settings("humaneval", include_path=None), tmp_path)


def test_few_shot_for_a_task_that_forbids_it(tmp_path: Path) -> None:
    write(tmp_path, "quiz", rows(2), {**QUIZ, "num_fewshot": 0})
    with pytest.raises(DataError, match="found `fewshot: 5` for 'quiz', which is defined with 0 examples only"):
        check(settings("quiz", fewshot=5), tmp_path)
    check(settings("quiz", fewshot=0), tmp_path)


def test_a_local_group_of_bundled_tasks(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(yaml.safe_dump({"group": "mine", "task": ["arc_easy", "gsm8k"]}))
    check(settings("mine"), tmp_path)


def test_a_group_with_a_member_that_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(yaml.safe_dump({"group": "mine", "task": ["no_such_task"]}))
    with pytest.raises(DataError, match="found the task 'no_such_task' in the group 'mine', expected"):
        check(settings("mine"), tmp_path)


def test_a_task_file_that_lm_eval_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "quiz.yaml").write_text("task: quiz\n  output_type: [\n")
    with pytest.raises(DataError, match=r"not read: .*quiz\.yaml: mapping values are not allowed"):
        check(settings("quiz"), tmp_path)


def test_a_metric_that_appears_late_is_pointed_out(tmp_path: Path) -> None:
    code = """
def score(doc, results):
    score.calls += 1
    return {"acc": 1.0} if score.calls < 40 else {"acc": 1.0, "extra": 1.0}
score.calls = 0
"""
    write(tmp_path, "late", rows(50), {**OPEN, "metric_list": [ACC]})
    path = tmp_path / "tasks" / "late.yaml"
    path.write_text(path.read_text() + "process_results: !function late_scoring.score\n")
    (tmp_path / "tasks" / "late_scoring.py").write_text(code)
    measurement = run(tmp_path, ScriptedLM(), "late")
    assert "metric 'extra' is not reported: it appeared after the first block" in measurement.notes
    assert [m.name for m in measurement.metrics] == ["acc"]


def test_a_folder_of_data_lies_beside_its_yaml_and_a_name_of_the_hub_stays_a_name(tmp_path: Path) -> None:
    """Whatever lies in the working directory: the worker's own is empty."""
    assert harness_data.anchored({"dataset_path": "./quiz"}, tmp_path) == {"dataset_path": str(tmp_path / "quiz")}
    assert harness_data.anchored({"dataset_path": "org/quiz"}, tmp_path) == {"dataset_path": "org/quiz"}
