"""What only loading shows: animals that pass every static check, given to a real worker with the hf backend."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from gate import artifact, launch
from gate.backends import Checkpoint
from gate.checkpoint import describe, view
from gate.errors import CheckpointError, GateError, Refused, WorkerError
from gate.evidence import Side
from gate.policy import DomainStage
from gate.records import Role
from tests.checkpoint_factory import filled, resolved, safetensors
from tests.contract import tiny_llama
from tests.zoo.cage import changed, code, pickled
from tests.zoo.test_zoo import POLICY, run

ESCAPE = "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}{{ ''.__class__.__mro__[1].__subclasses__() }}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.save(tmp_path_factory.mktemp("good"))


def start(log: Path) -> launch.Worker:
    return launch.start(
        backend="hf",
        checkpoint=Checkpoint(path="", load={}, dtype="auto", tokenizer=None),
        role=Role.CANDIDATE,
        device="cpu",
        python=None,
        log=log,
        silence_seconds=120.0,
        start_seconds=120.0,
    )


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[launch.Worker]:
    """One process for all: a load that failed leaves it usable, which is part of what is tested."""
    with start(tmp_path_factory.mktemp("log") / "log.txt") as started:
        yield started


@pytest.fixture
def animal(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "candidate"))


def opened(worker: launch.Worker, folder: Path, into: Path) -> Side:
    """Described, admitted and loaded as in a run."""

    def reused(_: Role, checkpoint: Checkpoint) -> launch.Worker:
        worker._open_request["checkpoint"] = asdict(checkpoint)
        return worker

    made = view.build(resolved(folder), into, backend="hf")
    side = Side(Role.CANDIDATE, describe(resolved(folder), Role.CANDIDATE), made, reused)
    side.opened()
    return side


def code_needed(folder: Path, canary: Path) -> None:
    (folder / "modeling.py").write_text(code(canary))
    auto_map = {"AutoConfig": "modeling.MyConfig", "AutoModelForCausalLM": "modeling.MyModelForCausalLM"}
    changed(folder, "config.json", model_type="my", architectures=["MyForCausalLM"], auto_map=auto_map)


def tokenizer_code_needed(folder: Path, canary: Path) -> None:
    (folder / "tokenization.py").write_text(code(canary))
    auto_map = {"AutoTokenizer": ["tokenization.MyTokenizer", None]}
    changed(folder, "tokenizer_config.json", tokenizer_class="MyTokenizer", auto_map=auto_map)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text('{"<s>": 0, "a": 1}')


def table_of_terabytes(folder: Path, canary: Path) -> None:
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 320}
    sizes = {"n_embd": 64, "n_layer": 1, "n_head": 2, "n_positions": 10**12}
    (folder / "config.json").write_text(json.dumps(config | sizes))
    tensors = {"transformer.wte.weight": filled("F32", (320, 64), 1), "transformer.h.0.x": filled("F32", (4,), 1)}
    (folder / "model.safetensors").write_bytes(safetensors(tensors))


def weights_of_another_model(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").write_bytes(
        safetensors({f"model.layers.{n}.x": filled("F32", (640,), 1) for n in range(2)})
    )


def tokenizer_of_an_unknown_kind(folder: Path, canary: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    document["model"]["type"] = "Evil"
    (folder / "tokenizer.json").write_text(json.dumps(document))


def attention_without_heads(folder: Path, canary: Path) -> None:
    changed(folder, "config.json", num_attention_heads=0)


def dtype_that_is_a_function(folder: Path, canary: Path) -> None:
    changed(folder, "config.json", dtype="load", torch_dtype="load")


def generation_settings_of_another_kind(folder: Path, canary: Path) -> None:
    (folder / "generation_config.json").write_text(
        json.dumps({"max_length": "a", "eos_token_id": {"a": 1}, "assistant_model": "../x", "transformers_version": 7})
    )


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (code_needed, Refused, r"auto_map of config\.json was left out: if its architecture needs that code and you"),
        (tokenizer_code_needed, Refused, r"auto_map of tokenizer_config\.json was left out"),
        (table_of_terabytes, WorkerError, "failed while loading the model: .*memory"),
        (weights_of_another_model, CheckpointError, "has no weights for"),
        (tokenizer_of_an_unknown_kind, GateError, "did not match any variant"),
        (attention_without_heads, GateError, "by zero"),
        (dtype_that_is_a_function, GateError, "while loading|cannot be loaded"),
        (generation_settings_of_another_kind, CheckpointError, "cannot be loaded"),
    ],
)
def test_it_is_told_apart_and_the_worker_stays(
    worker: launch.Worker,
    animal: Path,
    tmp_path: Path,
    spoil: Callable[[Path, Path], None],
    error: type[GateError],
    said: str,
) -> None:
    spoil(animal, tmp_path / "canary")
    with pytest.raises(error, match=said) as caught:
        opened(worker, animal, tmp_path / "view")
    assert isinstance(caught.value, CheckpointError | Refused | WorkerError)
    assert str(tmp_path / "view") not in str(caught.value)  # nobody knows that folder
    assert isinstance(caught.value, WorkerError) or str(animal) in str(caught.value)
    assert worker.alive
    assert not (tmp_path / "canary").exists()


def test_the_worker_still_loads_and_a_chat_template_without_end_is_ended(
    worker: launch.Worker, animal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (animal / "chat_template.jinja").write_text(ENDLESS)
    line = {"id": "1", "input": "hello", "expected": "world", "category": "greeting"}
    (tmp_path / "d.jsonl").write_text(json.dumps(line) + "\n")
    rules = [{"metric": "accuracy", "max_drop": "5pp"}]
    settings = {"kind": "domain", "name": "d", "data": "d.jsonl", "match": "exact", "chat": True, "rules": rules}
    stage = DomainStage.model_validate(settings).model_dump(mode="json")
    context = {"base": tmp_path, "settings_digest": "d", "sample_seed": "ab", "order_seed": "cd", "block": None}
    _, info = opened(worker, animal, tmp_path / "view").opened()
    assert info.n_parameters == 123_200
    monkeypatch.setattr(worker, "_work_seconds", 2.0)
    stream = worker.begin(stage=stage, context={**context, "artifacts": tmp_path}, on_progress=lambda *_: None)
    with pytest.raises(WorkerError, match=r"computed for \d+ s without any progress in stage d") as caught:
        stream.advance(None)
    assert caught.value.kind == "hung"
    assert not worker.alive


def leave_behind(folder: Path, canary: Path) -> Path:
    """What many honest repositories carry beside an architecture that transformers has."""
    model = "from transformers import LlamaForCausalLM as Model\nclass LlamaForCausalLM(Model):\n    pass\n"
    (folder / "modeling_llama.py").write_text(code(canary) + model)
    (folder / "pytorch_model.bin").write_bytes(pickled(canary))
    changed(folder, "config.json", auto_map={"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"})
    return folder


def test_leftovers_are_named_and_left_and_code_runs_only_where_the_policy_asks(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))  # where transformers copies code to
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    for name in ("baseline", "candidate"):
        leave_behind(Path(shutil.copytree(good, tmp_path / name)), tmp_path / f"canary of the {name}")
    checkpoints = {"animal": {"path": "./candidate", "trust_remote_code": True}}
    assert run(tmp_path, POLICY | {"checkpoints": checkpoints}) == 0
    assert not (tmp_path / "canary of the baseline").exists()
    assert (tmp_path / "canary of the candidate").exists()
    record = artifact.loads_record((tmp_path / "out" / "run.json").read_bytes())
    left = "not loaded with the baseline, because nothing needs it: auto_map of config.json, modeling_llama.py, pytorch"
    asked = "trust_remote_code: the candidate's own code is run, as the policy asks (modeling_llama.py)"
    assert [note for note in record.notes if note.startswith(left)]
    assert asked in record.notes
    for shown in ("junit.xml", "summary.md", "report.html"):
        text = (tmp_path / "out" / shown).read_text().replace("\\", "").replace("&#39;", "'").replace("&#x27;", "'")
        assert "trust_remote_code: the candidate's own code is run" in text, shown
        assert "pytorch_model.bin" in text, shown
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_chat_template_cannot_leave_its_sandbox(animal: Path, tmp_path: Path) -> None:
    from gate.backends import hf

    (animal / "chat_template.jinja").write_text(ESCAPE.replace("CANARY", str(tmp_path / "canary")))
    made = view.build(resolved(animal), tmp_path / "view", backend="hf")
    backend = hf.open_backend(Checkpoint(path=str(made.checkpoint.path), load={}, dtype="auto", tokenizer=None), "cpu")
    with pytest.raises(Exception, match=r"unsafe|undefined"):
        backend.chat([{"role": "user", "content": "hello"}])
    assert not (tmp_path / "canary").exists()
