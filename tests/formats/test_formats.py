"""Each quantized format on the hf backend: made by its own tool, loaded, in effect, scored; or refused with a sentence.

The formats of other environments are in `test_formats_elsewhere`, those of vLLM in `test_formats_vllm`.
"""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gate import formats
from gate.backends import Checkpoint, Window
from gate.backends.hf import HFBackend, open_backend
from gate.backends.hf_formats import n_packed
from gate.demo import bundle
from gate.errors import CheckpointError
from tests.formats import cells, makers
from tests.formats.cells import Outcome
from tests.formats.conftest import Settle
from tests.formats.identity import accepted
from tests.vllm.fp8_checkpoint import save_fp8

N_LINEAR = 28
"""Layers of the demo model that are quantized: all but its output head."""

MOST_NATS = 0.1
"""What no format may move the mean log-likelihood of a token by; 4 bits move the demo model's by up to 0.04."""


def load(path: Path, **changes: Any) -> HFBackend:
    settings: dict[str, Any] = {
        "path": str(path),
        "load": {},
        "dtype": "auto",
        "tokenizer": str(bundle.world() / "baseline"),
    }
    return open_backend(Checkpoint(**{**settings, **changes}), "cpu")


def nll(backend: HFBackend) -> Any:
    """NLL of every token of a text, [n_tokens], in nats."""
    start = backend.bos()
    assert start is not None
    ids = [i for text in makers.prose(4) for i in (start, *backend.encode(text))]
    (scores,) = backend.score([Window(tokens=tuple(ids[:200]), n_scored=199)], top_k=0, at_ids=None)
    return scores.nll_nats


@pytest.fixture(scope="module")
def exact(baseline: Path) -> Any:
    return nll(load(baseline, dtype="float32"))


def assert_near(backend: HFBackend, exact: Any) -> None:
    """Its scores are the full-precision model's, and not quite."""
    found = nll(backend)
    assert np.isfinite(found).all()
    assert 1e-5 < np.abs(found - exact).mean() < MOST_NATS
    assert abs(found.mean() - exact.mean()) < MOST_NATS / 2


def weights(backend: HFBackend) -> Counter[str]:
    """How many layers hold their weights in what."""
    found = (type(m.weight).__name__ + ":" + str(m.weight.dtype) for m in backend._model.modules() if is_linear(m))
    return Counter(found)


def is_linear(module: torch.nn.Module) -> bool:
    return "Linear" in type(module).__name__ and hasattr(module, "weight")


def test_full_precision_in_three_dtypes(baseline: Path, zoo: Path, exact: Any, settle: Settle) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        folder = makers.rounded(baseline, zoo / dtype, getattr(torch, dtype))
        own, asked = load(folder), load(baseline, dtype=dtype)
        assert own.info.dtype == asked.info.dtype == dtype
        assert own.info.notes == asked.info.notes == ()
        np.testing.assert_allclose(nll(own), nll(asked), atol=1e-4)
        if dtype != "float32":
            assert_near(own, exact)
    settle("full", "hf", Outcome.TESTED, "")


@pytest.mark.parametrize(
    ("scheme", "held"), [("nf4", "Params4bit:torch.uint8"), ("int8", "Int8Params:torch.int8")], ids=["nf4", "int8"]
)
def test_bitsandbytes(scheme: str, held: str, baseline: Path, zoo: Path, exact: Any, settle: Settle) -> None:
    folder = makers.bitsandbytes(baseline, zoo / f"bitsandbytes-{scheme}", scheme)
    assert accepted(folder, cache=zoo / "cache").scheme == scheme
    saved = load(folder)
    while_loading = load(baseline, load={"method": f"bitsandbytes-{scheme}"})
    for backend in (saved, while_loading):
        assert weights(backend)[held] == N_LINEAR
        assert n_packed(backend._model) == N_LINEAR
        assert backend.info.notes == ()
        assert_near(backend, exact)
    np.testing.assert_allclose(nll(saved), nll(while_loading), atol=1e-3)
    settle(f"bitsandbytes-{scheme}", "hf", Outcome.TESTED, "")
    settle(f"load-bitsandbytes-{scheme}", "hf", Outcome.TESTED, "")


@pytest.mark.parametrize(
    ("scheme", "held"),
    [("int8", "Int8Tensor"), ("int4", "IntxUnpackedToInt8Tensor"), ("fp8", "Float8Tensor")],
    ids=["int8", "int4", "fp8"],
)
def test_torchao_saved(scheme: str, held: str, baseline: Path, zoo: Path, exact: Any, settle: Settle) -> None:
    folder = makers.torchao(baseline, zoo / f"torchao-{scheme}", scheme)
    assert accepted(folder, cache=zoo / "cache").method == "torchao"
    backend = load(folder)
    assert weights(backend)[f"{held}:torch.float32"] == N_LINEAR
    assert_near(backend, exact)
    settle(f"torchao-{scheme}", "hf", Outcome.TESTED, "")


@pytest.mark.parametrize("method", ["torchao-int8", "torchao-int4"])
def test_torchao_while_loading(method: str, baseline: Path, zoo: Path, exact: Any, settle: Settle) -> None:
    assert accepted(baseline, cache=zoo / "cache", load={"method": method}).bits == float(method[-1])
    backend = load(baseline, load={"method": method})
    assert n_packed(backend._model) == N_LINEAR
    assert any("held in 8 bits each" in note for note in backend.info.notes) == (method == "torchao-int4")
    assert_near(backend, exact)
    settle(f"load-{method}", "hf", Outcome.TESTED, "")


@pytest.mark.parametrize("name", ["w4a16-gptq-prose", "w8a8", "fp8"])
def test_compressed_tensors_that_are_in_the_repository(name: str, baseline: Path, zoo: Path, exact: Any) -> None:
    """Two that llmcompressor made, and one in its layout; the whole way is in `test_formats_elsewhere`."""
    folder = save_fp8(baseline, zoo / "fp8-rounded") if name == "fp8" else bundle.world() / "candidates" / name
    assert accepted(folder, cache=zoo / "cache").method == "compressed-tensors"
    backend = load(folder)
    assert any("unpacks the weights to float32 when they are first run" in note for note in backend.info.notes)
    assert_near(backend, exact)


def test_gguf(baseline: Path, zoo: Path, exact: Any, settle: Settle) -> None:
    shifts = []
    for scheme in ("Q8_0", "Q4_0"):
        name = makers.gguf(baseline, zoo / "gguf", scheme)
        assert accepted(zoo / "gguf", cache=zoo / "cache", load={"gguf_file": name}).method == "gguf"
        backend = load(zoo / "gguf", load={"gguf_file": name})
        assert any("gguf: transformers unpacks the weights to float32" in note for note in backend.info.notes)
        assert n_packed(backend._model) == 0
        assert_near(backend, exact)
        shifts.append(np.abs(nll(backend) - exact).mean())
    assert shifts[0] < shifts[1]
    settle("gguf", "hf", Outcome.TESTED, "always unpacked (a note in the record)")


SENTENCES = {
    "gptq": "gptq needs gptqmodel and optimum, not installed for the interpreter that runs the model: "
    "pip install 'quantgate[gptq]'",
    "awq": "awq needs gptqmodel and optimum, not installed for the interpreter that runs the model: "
    "pip install 'quantgate[gptq]'",
    "fp8": "fp8 needs a CUDA device of compute capability 8.9 or higher, and this run is on a CPU; without it "
    "transformers would unpack its weights to bfloat16 and leave activations unrounded, which is not what will be "
    "served (a compressed-tensors FP8 checkpoint runs on a CPU)",
    "mxfp4": "mxfp4 needs a CUDA device of compute capability 7.5 or higher, and this run is on a CPU; without it "
    "transformers would unpack its weights to bfloat16",
    "hqq": "hqq: transformers 5 has no reader for saved HQQ weights: quantize the full-precision checkpoint when it is "
    "loaded, with `load: {method: hqq-4}`",
    "quanto": "quanto: transformers 5 neither saves nor reads optimum-quanto weights: quantize the full-precision "
    "checkpoint when it is loaded, with `load: {method: torchao-int8}`",
    "nvfp4": "nvfp4: transformers 5 has no reader for what it saves as NVFP4: export it in compressed-tensors' layout, "
    "with llmcompressor",
    "modelopt": "modelopt: transformers does not know NVIDIA ModelOpt's layout; a serving engine has its own loader "
    "for it: use --backend vllm",
}


@pytest.mark.parametrize("method", sorted(SENTENCES))
def test_what_cannot_be_loaded_here_is_refused_with_its_sentence(
    method: str, baseline: Path, zoo: Path, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gate.backends.hf_formats.find_spec", without("gptqmodel", "optimum"))
    folder = makers.declaring(baseline, zoo / f"declares-{method}", quant_method=method, bits=4)
    with pytest.raises(CheckpointError) as refusal:
        load(folder)
    assert str(refusal.value) == SENTENCES[method]
    if formats.SAVED[method].unable is not None:
        settle(method, "hf", Outcome.REFUSED, str(formats.SAVED[method].unable))


def test_hqq_on_load_names_its_extra(baseline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gate.backends.hf_formats.find_spec", without("hqq"))
    with pytest.raises(CheckpointError, match=r"^hqq-4 needs hqq, not installed .*: pip install 'quantgate\[hqq\]'$"):
        load(baseline, load={"method": "hqq-4"})


def without(*names: str) -> Any:
    return lambda name: None if name in names else find_spec(name)


@pytest.mark.parametrize("key", sorted(cells.UNTESTED))
def test_a_cell_that_no_test_here_can_run_has_its_code(key: tuple[str, str]) -> None:
    row, backend = key
    if backend == "hf":
        assert formats.obstacle(row, installed=lambda _: True, cuda=(9, 0)) is None
        assert formats.obstacle(row, installed=lambda _: True, cuda=None) == SENTENCES[row]
