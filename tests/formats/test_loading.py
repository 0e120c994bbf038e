"""How the hf backend loads: placement, attention, precision, remote code, and every way in which loading fails."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gate import formats, launch
from gate.backends import Checkpoint
from gate.backends.hf_formats import Format, check, in_effect
from gate.backends.hf_load import _check_fed, _placement, _real, devices
from gate.errors import CheckpointError, PolicyError, WorkerError
from gate.policy_file import load_policy
from gate.records import Role
from tests.contract import tiny_llama
from tests.formats.test_formats import load, nll


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_llama.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "copy")


# -- engine settings


@pytest.mark.parametrize(
    "engine", [{"device_map": "auto"}, {"device_map": "balanced_low_0"}, {"attention": "eager"}, {"attention": "sdpa"}]
)
def test_placement_and_attention_change_no_score(baseline: Path, engine: dict[str, Any]) -> None:
    plain, other = load(baseline), load(baseline, engine=engine)
    assert other._model.config._attn_implementation == engine.get("attention", "sdpa")
    np.testing.assert_allclose(nll(plain), nll(other), atol=1e-4)
    assert devices(other._model) == (torch.device("cpu"),)
    assert other.info.notes == ()


def test_attention_that_is_not_installed_is_said(tiny: Path) -> None:
    with pytest.raises(CheckpointError, match=r"needs a package that is not installed: FlashAttention2 "):
        load(tiny, tokenizer=None, engine={"attention": "flash_attention_2"})


def test_parts_left_on_the_cpu_are_a_note() -> None:
    spread = SimpleNamespace(hf_device_map={"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": "cpu"})
    (note,) = _placement(spread)
    assert note.startswith("device_map left 1 of 3 parts of the model on the CPU or the disk, first model.layers.1")
    assert list(_placement(SimpleNamespace(hf_device_map={"": "cpu"}))) == []


def test_an_embedding_that_is_elsewhere_is_an_error() -> None:
    def spread(first: str, embedding: str) -> Any:
        weight = SimpleNamespace(device=torch.device(embedding))
        return SimpleNamespace(device=torch.device(first), get_input_embeddings=lambda: SimpleNamespace(weight=weight))

    _check_fed(spread("cuda:0", "cuda:0"))
    for first, embedding in (("meta", "meta"), ("cuda:0", "cuda:1")):
        with pytest.raises(CheckpointError, match=f"put the embedding on {embedding} .* first weights on {first}"):
            _check_fed(spread(first, embedding))


def test_a_loader_that_changes_the_precision_is_a_note(baseline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "transformers.quantizers.quantizer_torchao.TorchAoHfQuantizer.update_dtype", lambda *_: torch.bfloat16
    )
    backend = load(baseline, load={"method": "torchao-int8"}, dtype="float32")
    assert backend.info.dtype == "bfloat16"
    assert "dtype float32 was asked for, and the loader of this format allows bfloat16 here" in backend.info.notes


def test_hqq_on_several_devices_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gate.backends.hf_formats.find_spec", lambda name: name)
    with pytest.raises(CheckpointError, match="hqq-4 quantizes a model on one device: remove `device_map`"):
        load(tiny, load={"method": "hqq-4"}, engine={"device_map": "auto"})


# -- code in the checkpoint


def with_own_code(folder: Path) -> None:
    """A model class in a file of the checkpoint, which leaves a mark when it is imported."""
    canary = folder / "ran"
    code = f"""
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({str(canary)!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""
    (folder / "own.py").write_text(code)
    path = folder / "config.json"
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **own, "architectures": ["OwnModel"]}))


def test_code_of_a_checkpoint_runs_only_when_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    with_own_code(folder)
    with pytest.raises(CheckpointError, match="custom code"):
        load(folder, tokenizer=None)
    assert not (folder / "ran").exists()
    backend = load(folder, tokenizer=None, trust_remote_code=True)
    assert type(backend._model).__name__ == "OwnModel"
    assert (folder / "ran").exists()


# -- what `load` may say, before anything is run


@pytest.mark.parametrize(
    ("settings", "place", "message"),
    [
        (
            "{method: bitsandbytes-nf5}",
            "method",
            r"expected one of: bitsandbytes-nf4, .*did you mean 'bitsandbytes-nf4",
        ),
        ("{methid: torchao-int8}", "methid", "unknown load setting 'methid', expected `method` or `gguf_file`"),
        ("{method: hqq-4, bits: 4}", "bits", "unknown load setting 'bits'"),
        ("{gguf_file: model.bin}", "gguf_file", "found 'model.bin', expected the name of a .gguf file"),
        ("{gguf_file: m.gguf, method: hqq-4}", "method", "a GGUF file holds quantized weights already"),
    ],
)
def test_the_policy_is_wrong_before_a_model_is_loaded(settings: str, place: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        f"version: 1\ncheckpoints:\n  small:\n    path: ./model\n    load: {settings}\n"
        "stages:\n  - {kind: perplexity, name: p, corpora: [{name: c, path: c.txt}], "
        "rules: [{metric: perplexity, max_increase: 5%}]}\n"
    )
    with pytest.raises(PolicyError, match=rf"policy.yaml:5:\d+: checkpoints.small.load.{place}: .*{message}"):
        load_policy(path)


def test_every_load_method_is_made_by_the_backend(tiny: Path) -> None:
    """A method that is only listed would raise ValueError."""
    for method in formats.LOAD_METHODS:
        needs = formats.LOAD_METHODS[method].packages
        here = all(find_spec(package) for package in needs)
        with nullcontext() if here else pytest.raises(CheckpointError, match=f"^{method} needs "):
            load(tiny, tokenizer=None, load={"method": method})


# -- what needs which device


@pytest.mark.parametrize(
    ("cuda", "sentence"),
    [
        (None, "fp8 needs a CUDA device of compute capability 8.9 or higher, and this run is on a CPU; without it "),
        ((8, 0), "fp8 needs a CUDA device of compute capability 8.9 or higher, and this run is on one of 8.0; "),
        ((8, 9), None),
        ((10, 0), None),
    ],
)
def test_a_device_that_is_too_old_is_told_from_none(cuda: formats.Capability | None, sentence: str | None) -> None:
    found = formats.obstacle("fp8", installed=lambda _: True, cuda=cuda)
    assert found is None if sentence is None else found is not None and found.startswith(sentence)


def test_packages_without_an_extra_are_named_for_pip() -> None:
    found = formats.obstacle("mxfp4", installed=lambda _: False, cuda=(9, 0))
    assert found is not None
    assert found.endswith("pip install 'triton' 'kernels'")
    assert formats.obstacle("never heard of", installed=lambda _: False, cuda=None) is None


def test_a_cuda_device_is_asked_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (8, 0))
    with pytest.raises(CheckpointError, match=r"this run is on one of 8\.0"):
        check(Format(method="fp8", on_load=None, weights=True), "cuda")
    with pytest.raises(CheckpointError, match="this run is on a CPU"):
        check(Format(method="fp8", on_load=None, weights=True), "cpu")


# -- weights that are not what the checkpoint says


def test_a_declared_quantization_that_no_layer_has_is_an_error(tiny: Path) -> None:
    """What transformers unpacks without being asked to: it would run as if it had not been quantized."""
    model = load(tiny, tokenizer=None)._model
    with pytest.raises(CheckpointError, match="fp8 is declared, and no layer holds quantized weights after loading"):
        list(in_effect(model, Format(method="fp8", on_load=None, weights=True)))


def test_a_layout_that_is_not_known_here_is_a_note(tiny: Path) -> None:
    model = load(tiny, tokenizer=None)._model
    (note,) = in_effect(model, Format(method="mxfp4", on_load=None, weights=True))
    assert note.startswith("mxfp4: whether its layers hold quantized weights was not checked")


def declare(folder: Path, **quantization: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": quantization}))


def test_targets_that_match_nothing_are_an_error(folder: Path) -> None:
    weights = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
    declare(
        folder,
        quant_method="compressed-tensors",
        format="int-quantized",
        quantization_status="compressed",
        config_groups={"group_0": {"targets": ["re:.*nothing$"], "weights": weights}},
    )
    with pytest.raises(CheckpointError, match="compressed-tensors is declared, and no layer holds quantized weights"):
        load(folder, tokenizer=None)


def test_a_quantized_cache_alone_is_in_effect(folder: Path) -> None:
    exact = nll(load(folder, tokenizer=None))
    path = folder / "model.safetensors"
    weights = load_file(path)
    for name in [n for n in weights if n.endswith(("k_proj.weight", "v_proj.weight"))]:
        weights[name.replace("_proj.weight", "_scale")] = torch.tensor([12 / 448])
    save_file(weights, path, metadata={"format": "pt"})
    scheme = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
    declare(
        folder,
        quant_method="compressed-tensors",
        format="dense",
        quantization_status="frozen",
        config_groups={},
        kv_cache_scheme=scheme,
    )
    backend = load(folder, tokenizer=None)
    assert backend.info.notes == ()
    assert np.abs(nll(backend) - exact).mean() > 1e-4


def test_scales_without_a_declaration_are_an_error(folder: Path) -> None:
    """transformers drops the scales and takes the codes for weights."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights |= {f"{name}_scale": torch.ones(1) for name in list(weights) if name.endswith("proj.weight")}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"_scale and \d+ more tensors of a quantized model, and its config"):
        load(folder, tokenizer=None)


def sharded(folder: Path) -> Path:
    """The checkpoint in two files with an index, which is returned."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = {name: f"model-0000{1 + (i >= len(names) // 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({n: weights[n] for n in names if files[n] == file}, folder / file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return index


def test_shards_load_and_a_missing_or_cut_one_is_named(folder: Path) -> None:
    sharded(folder)
    assert load(folder, tokenizer=None).info.n_parameters > 0
    second = folder / "model-00002-of-00002.safetensors"
    second.write_bytes(second.read_bytes()[:-64])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is truncated or damaged"):
        load(folder, tokenizer=None)
    second.unlink()
    with pytest.raises(CheckpointError, match=r"cannot be loaded: .*model-00002-of-00002\.safetensors"):
        load(folder, tokenizer=None)


def test_an_index_that_lies_is_an_error(folder: Path) -> None:
    index = sharded(folder)
    data = json.loads(index.read_text())
    first = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps({**data, "weight_map": dict.fromkeys(data["weight_map"], first)}))
    with pytest.raises(CheckpointError, match="has no weights for"):
        load(folder, tokenizer=None)


# -- memory


def test_running_out_of_memory_while_loading_is_not_a_bad_checkpoint(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(problem: BaseException) -> None:
        def raiser(*_: object, **__: object) -> None:
            raise problem

        monkeypatch.setattr("gate.backends.hf_load.AutoModelForCausalLM.from_pretrained", raiser)

    fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB"))
    with pytest.raises(torch.OutOfMemoryError):
        load(tiny, tokenizer=None)
    fail(OSError("Cannot allocate memory (os error 12)"))
    with pytest.raises(MemoryError, match="does not fit into memory"):
        load(tiny, tokenizer=None)


def test_an_error_inside_a_conversion_is_found_in_the_report() -> None:
    outer = RuntimeError("We encountered some issues during automatic conversion of the weights.")
    report = ["Key | Status", "Traceback (most recent call last):", "  ValueError: inner frames are indented too"]
    assert str(_real(outer, [*report, "ValueError: bad packing"])) == "ValueError: inner frames are indented too"
    short = _real(outer, [*report, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"])
    assert isinstance(short, torch.OutOfMemoryError)
    assert _real(outer, []) == outer or str(_real(outer, [])) == str(outer)
    assert _real(RuntimeError("other"), report).args == ("other",)


def test_a_conversion_that_fails_says_why(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("this group size does not divide 64")

    monkeypatch.setattr("transformers.integrations.torchao.TorchAoQuantize._quantize", fail)
    with pytest.raises(CheckpointError, match="cannot be loaded: ValueError: this group size does not divide 64"):
        load(tiny, tokenizer=None, load={"method": "torchao-int8"})


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_model_that_does_not_fit_into_memory_is_a_worker_out_of_memory(tiny: Path, tmp_path: Path) -> None:
    large = shutil.copytree(tiny, tmp_path / "large")
    config = json.loads((large / "config.json").read_text())
    hidden = 16384
    large_config = {**config, "hidden_size": hidden, "intermediate_size": hidden, "num_attention_heads": 8}
    large_config |= {"num_key_value_heads": 8, "head_dim": hidden // 8}
    (large / "config.json").write_text(json.dumps(large_config))
    sparse(large / "model.safetensors", load_file(tiny / "model.safetensors"), hidden)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -v 12000000\nexec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    worker = launch.start(
        backend="hf",
        checkpoint=Checkpoint(path=str(large), load={}, dtype="auto", tokenizer=str(tiny)),
        role=Role.CANDIDATE,
        device="cpu",
        python=str(python),
        log=tmp_path / "log.txt",
        silence_seconds=60.0,
        start_seconds=120.0,
    )
    with worker, pytest.raises(WorkerError) as problem:
        worker.open()
    assert problem.value.kind == "out_of_memory", problem.value


def sparse(path: Path, like: dict[str, torch.Tensor], hidden: int) -> None:
    """A weight file of many GB that takes no space on disk: zeros of the right shapes."""
    header: dict[str, Any] = {}
    at = 0
    for name, weight in like.items():
        vocabulary = [len(weight)] if name in ("model.embed_tokens.weight", "lm_head.weight") else [hidden]
        shape = [*vocabulary, *([hidden] * (weight.dim() - 1))]
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
