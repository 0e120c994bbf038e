"""Per-item metrics of the lm_eval stage equal those of lm-eval's own `simple_evaluate` on the same documents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lm_eval
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gate.backends import Checkpoint
from gate.backends.hf import open_backend
from gate.policy import LmEvalStage
from gate.records import Measurement, Role, merge
from gate.stages import Context
from gate.stages.lm_eval import measure

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WORDS = "the bank moved coins from one green ledger to another red vault before noon on some quiet day".split()


def _sentence(i: int) -> str:
    return " ".join(WORDS[(i * 7 + j * 5) % len(WORDS)] for j in range(6))


def _write(folder: Path, name: str, rows: list[dict[str, Any]], config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    common = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl", "train": f"{name}_train.jsonl"}},
        "test_split": "test",
    }
    (folder / f"{name}_train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[:5]))
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(common | config))


MULTIPLE_CHOICE = {
    "output_type": "multiple_choice",
    "fewshot_split": "train",
    "fewshot_config": {"sampler": "first_n"},
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "gold",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}
GENERATE = {
    "output_type": "generate_until",
    "fewshot_split": "train",
    "fewshot_config": {"sampler": "first_n"},
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}],
    "filter_list": [
        {
            "name": "first-vowel",
            "filter": [{"function": "regex", "regex_pattern": "([aeo])"}, {"function": "take_first"}],
        },
        {"name": "none", "filter": [{"function": "take_first"}]},
    ],
}
ROLLING = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
}


@pytest.fixture(scope="module")
def tasks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "tasks"
    choice = [
        {"question": _sentence(i), "choices": [_sentence(i + 1), WORDS[i % 9], "vault"], "gold": i % 3}
        for i in range(40)
    ]
    choice.append(choice[3])  # a duplicate document is an item of its own
    _write(folder, "quiz", choice, MULTIPLE_CHOICE)
    # what an untrained model says is noise: only its first vowel can be right
    _write(folder, "answer", [{"question": _sentence(i), "answer": "aeo"[i % 3]} for i in range(15)], GENERATE)
    _write(folder, "prose", [{"text": f"{_sentence(i)}. {_sentence(i + 3)}."} for i in range(10)], ROLLING)
    (folder / "both.yaml").write_text(yaml.safe_dump({"group": "both", "task": ["quiz", "answer"]}))
    return folder


@pytest.fixture(scope="module")
def lm() -> Iterator[Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    raw = Tokenizer(models.BPE(unk_token=None))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=384, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    raw.train_from_iterator([_sentence(i) for i in range(200)], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    torch.manual_seed(7)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=384,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.5,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    ).eval()
    yield HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=256, device="cpu")
    torch.set_num_threads(threads)


class HarnessBackend:
    """The least that the stage needs of a backend: lm-eval's own wrapper of a model."""

    def __init__(self, lm: Any) -> None:
        self.lm = lm
        self.info = SimpleNamespace(context_length=256)

    def encode(self, text: str) -> list[int]:
        return list(self.lm.tok_encode(text))

    def harness(self) -> Any:
        return self.lm


def stage(tasks_folder: Path, task: str, **settings: Any) -> LmEvalStage:
    return LmEvalStage.model_validate(
        {
            "kind": "lm_eval",
            "name": "capability",
            "include_path": tasks_folder.name,
            "tasks": [{"task": task, "rules": [{"metric": "acc", "max_drop": "3pp"}], **settings}],
        }
    )


def ours(lm: Any, tasks_folder: Path, task: str, **settings: Any) -> Measurement:
    context = Context(
        role=Role.BASELINE,
        base=tasks_folder.parent,
        settings_digest="settings",
        sample_seed="seed",
        order_seed="seed",
        artifacts=tasks_folder.parent,
        block=None,
        progress=lambda done, total, label: None,
    )
    return merge(list(measure(HarnessBackend(lm), stage(tasks_folder, task, **settings), context)))  # type: ignore[arg-type]


def theirs(lm: Any, tasks_folder: Path, task: str, fewshot: int | None) -> Mapping[str, Any]:
    manager = TaskManager(include_path=str(tasks_folder), include_defaults=False)
    results: Mapping[str, Any] = lm_eval.simple_evaluate(
        model=lm, tasks=[task], task_manager=manager, num_fewshot=fewshot, bootstrap_iters=0, log_samples=True
    )
    return results


Values = Counter[tuple[str, str, str, float, float]]


def their_values(results: Mapping[str, Any]) -> Values:
    """(task, document hash, metric, value, weight), as often as it occurs."""
    values: Values = Counter()
    for task, samples in results["samples"].items():
        for sample in samples:
            for name in sample["metrics"]:
                metric = name if sample["filter"] == "none" else f"{name},{sample['filter']}"
                raw = sample[name]
                value, weight = (-raw[0] / raw[1], raw[1]) if isinstance(raw, tuple) else (float(raw), 1.0)
                values[task, sample["doc_hash"][:16], metric, value, float(weight)] += 1
    return values


def our_values(measurement: Measurement) -> Values:
    """What the task defines; the length of answers is no metric of lm-eval's."""
    return Counter(
        (o.item_id.split("/")[0], o.item_id.split("/")[1], o.metric, o.value, o.weight)
        for o in measurement.observations
        if o.metric != "output_tokens"
    )


@pytest.fixture(autouse=True)
def _relative_paths_of_lm_eval(tasks_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)


@pytest.mark.parametrize(
    ("task", "fewshot"), [("quiz", 0), ("quiz", 3), ("answer", 0), ("answer", 3), ("prose", 0), ("both", 2)]
)
def test_every_value_equals_lm_evals_own(
    lm: Any, tasks_folder: Path, task: str, fewshot: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurement = ours(lm, tasks_folder, task, fewshot=fewshot, fewshot_sampler="first_n")
    monkeypatch.chdir(tasks_folder)  # lm-eval itself resolves data files in the working directory
    results = theirs(lm, tasks_folder, task, fewshot)
    expected = their_values(results)
    for key in [key for key in expected if key[2] == "bits_per_byte"]:
        del expected[key]  # log2 of byte_perplexity: not an exponential, left out with a note
    assert our_values(measurement) == expected
    right = [o.value for o in measurement.observations if o.metric in ("acc", "exact_match,first-vowel")]
    assert task == "prose" or set(right) == {0.0, 1.0}, "the comparison means little when all items score the same"
    assert measurement.failures == ()
    assert measurement.n_expected == sum(n["effective"] for n in results["n-samples"].values())
    assert len({o.item_id for o in measurement.observations}) == measurement.n_expected


@pytest.mark.parametrize("task", ["both", "prose"])
def test_the_transformers_backend_scores_alike(lm: Any, tasks_folder: Path, task: str, tmp_path: Path) -> None:
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    checkpoint = Checkpoint(path=str(tmp_path / "model"), load={}, dtype="float32", tokenizer=None)
    real = open_backend(checkpoint, "cpu").harness()

    expected, found = (sorted(our_values(ours(one, tasks_folder, task)).elements()) for one in (lm, real))
    assert [value[:3] for value in found] == [value[:3] for value in expected]
    # the order of additions is another one, which moves the last digits of a float32
    assert [value[3] for value in found] == pytest.approx([value[3] for value in expected], abs=1e-4)


def test_a_real_model_samples_anew_in_every_epoch_and_the_same_again(
    lm: Any, tasks_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_vowels(epochs: int) -> list[float]:
        found = ours(lm, tasks_folder, "answer", temperature=1.0, epochs=epochs)
        return [o.value for o in found.observations if o.metric == "exact_match,first-vowel"]

    once, often = first_vowels(1), first_vowels(6)
    assert set(once) == {0.0, 1.0}
    assert set(often) - {0.0, 1.0}, "epochs that repeat the same answer would have no values between"
    torch.manual_seed(99)
    assert first_vowels(6) == often
