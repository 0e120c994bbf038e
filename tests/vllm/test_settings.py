"""What the policy's settings become for vLLM; needs no vLLM, unless marked."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from gate.backends import Checkpoint
from gate.backends.vllm_load import prepare, settings
from gate.engines import VllmEngine
from gate.errors import CheckpointError, CouldNotMeasure
from tests.vllm.engines import needs_vllm

EVERYTHING = VllmEngine(
    tensor_parallel_size=2,
    gpu_memory_utilization=0.3,
    max_model_len=4096,
    kv_cache_dtype="fp8",
    quantization="fp8",
    enforce_eager=False,
    max_num_seqs=64,
    prefix_caching=False,
    cpu_kv_cache="2GiB",
)


def checkpoint(engine: VllmEngine | None = None, **changes: Any) -> Checkpoint:
    known: dict[str, Any] = {"path": "/a/model", "load": {}, "dtype": "auto", "tokenizer": None}
    return Checkpoint(**{**known, "engine": (engine or VllmEngine()).given(), **changes})


def test_every_setting_of_the_policy_reaches_vllm() -> None:
    assert set(EVERYTHING.given()) == set(VllmEngine.model_fields)
    found = settings(checkpoint(EVERYTHING), "cuda")
    renamed = {"enable_prefix_caching": EVERYTHING.prefix_caching}
    same = {k: v for k, v in EVERYTHING.given().items() if k not in ("prefix_caching", "cpu_kv_cache")}
    assert found.items() >= (same | renamed).items()
    assert "cpu_kv_cache" not in found
    assert "kv_cache_memory_bytes" not in found
    assert settings(checkpoint(EVERYTHING), "cpu")["kv_cache_memory_bytes"] == 2 * 2**30


def test_two_models_fit_one_gpu_unless_the_policy_says_otherwise() -> None:
    assert settings(checkpoint(), "cuda")["gpu_memory_utilization"] < 0.5
    assert "enforce_eager" not in settings(checkpoint(), "cuda")


def test_on_a_cpu_memory_is_bounded_and_nothing_is_compiled() -> None:
    found = settings(checkpoint(), "cpu")
    assert found["kv_cache_memory_bytes"] == 2**30
    assert found["enforce_eager"] is True
    assert found["enable_prefix_caching"] is True
    assert "gpu_memory_utilization" not in found


def test_what_the_checkpoint_is_reaches_vllm() -> None:
    found = settings(checkpoint(dtype="float16", tokenizer="/a/tokenizer", trust_remote_code=True), "cuda")
    assert (found["model"], found["tokenizer"]) == ("/a/model", "/a/tokenizer")
    assert (found["dtype"], found["trust_remote_code"]) == ("float16", True)
    assert settings(checkpoint(), "cuda")["trust_remote_code"] is False


def test_load_settings_that_are_not_known_are_refused() -> None:
    with pytest.raises(CheckpointError, match="unknown load setting 'bits'"):
        settings(checkpoint(load={"bits": 4}), "cpu")
    with pytest.raises(CheckpointError, match=r"vLLM cannot quantize with 'bitsandbytes-int8'.*--backend hf"):
        settings(checkpoint(load={"method": "bitsandbytes-int8"}), "cpu")
    with pytest.raises(CheckpointError, match="remove one of them"):
        settings(checkpoint(EVERYTHING, load={"method": "bitsandbytes-nf4"}), "cuda")


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed for this interpreter")
def test_an_interpreter_without_vllm_is_told_what_to_do() -> None:
    with pytest.raises(CouldNotMeasure, match=r"not installed for .*make vllm-env.*--python"):
        prepare("cpu")


@pytest.mark.vllm
@needs_vllm
def test_vllm_knows_every_argument() -> None:
    from dataclasses import fields

    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in fields(EngineArgs)}
    asked = settings(checkpoint(EVERYTHING), "cuda") | settings(checkpoint(EVERYTHING), "cpu")
    assert set(asked) <= known
