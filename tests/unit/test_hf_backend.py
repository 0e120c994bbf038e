"""What is particular to the hf backend: damaged checkpoints, short memory, other people's generation settings."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from gate.backends import Checkpoint, OutOfMemory, Window, hf_memory
from gate.backends.hf import HFBackend, open_backend
from gate.backends.hf_memory import Batches
from gate.errors import CheckpointError, CouldNotMeasure, UsageError
from tests.contract import tiny_llama

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_llama.save(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "copy")


def load(folder: Path, **changes: Any) -> HFBackend:
    settings: dict[str, Any] = {"path": str(folder), "load": {}, "dtype": "auto", "tokenizer": None}
    return open_backend(Checkpoint(**{**settings, **changes}), "cpu")


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})

    return damage


def edit_config(**changes: object) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_weights, r"model\.safetensors is truncated or damaged .*download it again"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), r"model\.safetensors is truncated or damaged"),
        (lambda f: (f / "model.safetensors").unlink(), r"no file named model\.safetensors"),
        (lose_a_shard, r"model-00002-of-00002\.safetensors"),
        (
            edit_weights(lambda w: [w.pop(k) for k in list(w) if "layers.1.mlp" in k]),
            r"has no weights for model\.layers\.1\.mlp\.down_proj\.weight, .*: it does not belong",
        ),
        (edit_weights(lambda w: w.update({"lm_head.weight": torch.zeros(9, 32)})), r"wrong size for lm_head\.weight"),
        (edit_config(quantization_config={"quant_method": "martian"}), "unknown quantization method 'martian'"),
        (edit_config(model_type="nope"), "model type `nope`"),
        (edit_config(model_type="nope", auto_map={"AutoConfig": "x.Y"}), "custom code"),
        (lambda f: (f / "config.json").write_text("{"), "not a valid JSON file"),
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (lambda f: (f / "tokenizer.json").unlink(), r"the tokenizer in .* cannot be loaded: ValueError: Couldn't"),
        (shutil.rmtree, "is not a folder"),
    ],
)
def test_a_damaged_checkpoint_is_explained(folder: Path, damage: Damage, message: str) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_missing_package_names_the_extra_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_config(quantization_config={"quant_method": "compressed-tensors", "config_groups": {}})(folder)
    monkeypatch.setattr(
        "transformers.quantizers.quantizer_compressed_tensors.is_compressed_tensors_available", lambda: False
    )
    with pytest.raises(CheckpointError, match=r"not installed: .*pip install 'quantgate\[quantized\]'"):
        load(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "bitsandbytes-nf5"}, "unknown load method 'bitsandbytes-nf5', expected one of: bitsandbytes-nf4"),
        ({"metod": "bitsandbytes-nf4"}, "unknown load setting 'metod'"),
    ],
)
def test_load_settings_are_checked(original: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(original, load=settings)


@pytest.mark.parametrize("method", ["bitsandbytes-nf4", "bitsandbytes-int8"])
def test_a_checkpoint_can_be_quantized_while_loading(original: Path, method: str) -> None:
    asked = [Window(tokens=tuple(range(3, 60)), n_scored=50)]
    (exact,) = load(original).score(asked, top_k=0, at_ids=None)
    backend = load(original, load={"method": method})
    (rounded,) = backend.score(asked, top_k=0, at_ids=None)
    assert backend._model.is_quantized
    assert 0.001 < np.abs(exact.nll_nats - rounded.nll_nats).mean() < 2


@pytest.mark.parametrize("method", ["bitsandbytes-nf4", "bitsandbytes-int8"])
def test_quantized_prompts_share_what_they_have_in_common(original: Path, method: str) -> None:
    from lm_eval.models.huggingface import HFLM

    backend = load(original, load={"method": method})
    assert backend.info.notes == ()
    examples = tiny_llama.TEXT * 4
    pairs = [
        (f"{examples}the {q} wrote", c) for q in ("bank", "clerk", "savings") for c in (" it", " euros", " a balance")
    ]

    def theirs(batch_size: int) -> NDArray[np.float64]:
        lm = HFLM(pretrained=backend._model, tokenizer=backend._tokenizer, batch_size=batch_size, max_length=256)
        asked = [Instance(request_type="loglikelihood", doc={}, arguments=p, idx=0) for p in pairs]
        return np.array([x for x, _ in lm.loglikelihood(asked, disable_tqdm=True)])

    alone = theirs(1)
    # activations in 8 bits are rounded by what is in the batch, in HFLM as well
    noise = 0.0 if method == "bitsandbytes-nf4" else 4 * np.abs(alone - theirs(9)).max()
    np.testing.assert_allclose([x for x, _ in backend.loglikelihood(pairs)], alone, rtol=1e-6, atol=1e-4 + noise)
    assert backend._requests.computed_tokens < 3 * len(backend.encode(examples))


def test_an_architecture_that_transformers_does_not_have_is_said(folder: Path) -> None:
    assert load(folder).info.notes == ()
    edit_config(architectures=["MyLlama"])(folder)
    (note,) = load(folder).info.notes
    assert note == (
        "config.json names the architecture 'MyLlama', and it was loaded as LlamaForCausalLM: its own code was not used"
    )


def test_memory_for_what_prompts_share_is_a_setting(original: Path) -> None:
    for setting, expected in (("2MiB", 2 * 2**20), (0, 0), ("100kB", None), ("20min", None)):
        engine = {"prefix_cache": setting}
        if expected is None:
            with pytest.raises((UsageError, ValueError), match="found"):
                load(original, engine=engine)
        else:
            assert load(original, engine=engine)._requests.store.budget_bytes == expected
    assert load(original)._requests.store.budget_bytes > 2**20


def test_free_memory_is_what_the_container_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_memory, "_CGROUP", tmp_path)
    cpu = torch.device("cpu")
    machine = hf_memory.free_bytes(cpu)
    assert machine > 2**20
    (tmp_path / "memory.current").write_text("3000\n")
    for limit, expected in (("5000\n", 2000), ("1000\n", 0)):
        (tmp_path / "memory.max").write_text(limit)
        assert hf_memory.free_bytes(cpu) == expected
        assert hf_memory.prefix_budget_bytes("50%", {cpu}) == expected // 2
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 1500\nactive_file 40\n")  # goes when wanted
    assert hf_memory.free_bytes(cpu) == 0
    (tmp_path / "memory.max").write_text("2000\n")
    assert hf_memory.free_bytes(cpu) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert hf_memory.free_bytes(cpu) > machine // 2


def test_a_quantized_checkpoint_is_not_quantized_again(folder: Path) -> None:
    edit_config(quantization_config={"quant_method": "gptq", "bits": 4})(folder)
    with pytest.raises(CheckpointError, match=r"already quantized \(gptq\), and `load` asks for bitsandbytes-nf4"):
        load(folder, load={"method": "bitsandbytes-nf4"})


def test_dtype_and_tokenizer_can_be_chosen(original: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(original, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    backend = load(bare, tokenizer=str(original), dtype="bfloat16")
    assert backend.info.dtype == "bfloat16"
    assert load(original).info.dtype == "float32"
    assert backend.encode("the bank") == load(original).encode("the bank")


def test_threads_follow_the_environment(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_THREADS", "2")
    try:
        load(original)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_scores_equal_a_float64_forward_pass(original: Path) -> None:
    backend = load(original)
    model = load(original)._model.double()
    asked = [Window(tokens=tuple(range(a, a + n)), n_scored=s) for a, n, s in [(3, 40, 20), (9, 12, 11), (50, 90, 1)]]
    for window, scores in zip(asked, backend.score(asked, top_k=0, at_ids=None), strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([window.tokens])).logits[0].log_softmax(-1)
        targets = window.tokens[-window.n_scored :]
        expected = [-float(logprobs[len(window.tokens) - window.n_scored + i - 1, t]) for i, t in enumerate(targets)]
        np.testing.assert_allclose(scores.nll_nats, expected, rtol=1e-4)


def test_a_checkpoint_s_own_penalties_do_not_bend_greedy_decoding(folder: Path, original: Path) -> None:
    path = folder / "generation_config.json"
    own = {"repetition_penalty": 5.0, "do_sample": True, "temperature": 3.0, "no_repeat_ngram_size": 1}
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    asked: dict[str, Any] = {"max_new_tokens": 20, "stop": [], "temperature": 0.0, "seed": 0}
    bent = load(folder)
    assert bent.generate(["the bank"], **asked) == load(original).generate(["the bank"], **asked)
    assert bent._model.generation_config.repetition_penalty == 5.0  # lm-eval still sees the checkpoint's own


def test_a_chat_prompt_gets_one_start_token(original: Path) -> None:
    backend = load(original)
    prompt = backend.chat([{"role": "user", "content": "hello"}])
    assert prompt.startswith("<s>")
    assert backend._generator._encode(prompt).count(backend._tokenizer.bos_token_id) == 1
    assert backend._generator._encode("hello")[0] == backend._tokenizer.bos_token_id


def test_no_chat_template_is_said(original: Path) -> None:
    backend = load(original)
    backend._tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        backend.chat([{"role": "user", "content": "hello"}])


class ShortMemory:
    """Makes a model fail, as CUDA does, whenever a batch has more than `rows`."""

    def __init__(self, backend: HFBackend, rows: int) -> None:
        self.sizes: list[int] = []
        self._forward = backend._model.forward
        self._rows = rows
        backend._model.forward = self
        self.__signature__ = inspect.signature(self._forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        ids = args[0] if args else kwargs["input_ids"]
        self.sizes.append(len(ids))
        if len(ids) > self._rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return self._forward(*args, **kwargs)


def test_short_memory_halves_batches_and_changes_no_result(original: Path) -> None:
    plenty, short = load(original), load(original)
    memory = ShortMemory(short, rows=3)
    asked = [Window(tokens=tuple(range(3, 15 + i)), n_scored=4) for i in range(12)]
    for one, other in zip(
        plenty.score(asked, top_k=0, at_ids=None), short.score(asked, top_k=0, at_ids=None), strict=True
    ):
        np.testing.assert_allclose(one.nll_nats, other.nll_nats, atol=1e-4)
    assert memory.sizes == [12, 6, 3, 3, 3, 3]

    prompts = ["the", "the bank", "a clerk wrote", "euros", "debit, credit"]
    generate: dict[str, Any] = {"max_new_tokens": 3, "stop": [], "temperature": 0.0, "seed": 0}
    assert short.generate(prompts, **generate) == plenty.generate(prompts, **generate)
    pairs = [(p, " balance of the account") for p in prompts]
    expected = plenty.loglikelihood(pairs)
    assert [x for x, _ in short.loglikelihood(pairs)] == pytest.approx([x for x, _ in expected], abs=1e-4)


def test_no_memory_at_all_is_out_of_memory_and_the_backend_lives(original: Path) -> None:
    backend = load(original)
    forward = backend._model.forward
    ShortMemory(backend, rows=0)
    with pytest.raises(OutOfMemory, match="batch size 1"):
        list(backend.score([Window(tokens=(3, 4), n_scored=1)], top_k=0, at_ids=None))
    with pytest.raises(OutOfMemory, match="batch size 1"):
        backend.generate(["the"], max_new_tokens=2, stop=[], temperature=0.0, seed=0)
    with pytest.raises(OutOfMemory, match="batch size 1"):
        backend.loglikelihood([("the", " bank")])
    with pytest.raises(OutOfMemory, match=r"batch size 8, 16 \+ 4 tokens"):
        backend.timed_batch(batch_size=8, prompt_tokens=16, new_tokens=4, seed=0)
    backend._model.forward = forward
    assert len(list(backend.score([Window(tokens=(3, 4), n_scored=1)], top_k=0, at_ids=None))) == 1


def test_timing_finds_the_memory_that_scoring_held(original: Path) -> None:
    backend = load(original)
    backend.loglikelihood([(tiny_llama.TEXT * 4 + start, " bank") for start in ("the bank", "a clerk")])
    assert backend._requests.store.held_bytes > 0
    backend.timed_batch(batch_size=1, prompt_tokens=4, new_tokens=2, seed=0)
    assert backend._requests.store.held_bytes == 0


def test_other_errors_are_not_taken_for_short_memory() -> None:
    def broken(_: object) -> list[int]:
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        list(Batches(4).run([1, 2], broken))


def test_importing_the_backend_table_loads_no_library() -> None:
    code = (
        "import sys, gate.launch; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestDevice:
    def opens(self, folder: Path, device: str) -> None:
        with pytest.raises(CouldNotMeasure) as caught:
            open_backend(Checkpoint(path=str(folder), load={}, dtype="auto", tokenizer=None), device)
        self.said = str(caught.value)

    @pytest.mark.parametrize("device", ["cuda", "cuda:1"])
    def test_a_torch_for_cpus(self, original: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
        self.opens(original, device)
        assert self.said.startswith(
            f"this torch is a CPU build ({torch.__version__}), expected one with CUDA for --device {device}: install"
        )
        assert self.said.endswith("or use --device cpu")

    @pytest.mark.parametrize(
        ("device", "count", "found"),
        [
            ("cuda", 0, "finds no CUDA device, expected cuda:"),
            ("cuda:1", 1, "finds only cuda:0, expected cuda:1:"),
            ("cuda:7", 2, "finds only cuda:0 to cuda:1, expected cuda:7:"),
        ],
    )
    def test_a_gpu_that_is_not_there(
        self, original: Path, monkeypatch: pytest.MonkeyPatch, device: str, count: int, found: str
    ) -> None:
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        self.opens(original, device)
        assert found in self.said
