"""A checkpoint folder → one vLLM engine inside this process, or one clear sentence why not.

Runs code from the checkpoint only where the policy asks for it; touches no network.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import safe_open

from gate import units
from gate.backends import Checkpoint, OutOfMemory
from gate.backends.hf_memory import is_out_of_memory
from gate.errors import CheckpointError, CouldNotMeasure

GPU_MEMORY_UTILIZATION = 0.45
"""Of each GPU, unless the policy says otherwise: baseline and candidate are resident together (vLLM's own is 0.92)."""

CPU_KV_CACHE = "1GiB"
"""Unless the policy says otherwise; vLLM's own is nearly all memory of the machine."""

_METHODS = {"bitsandbytes-nf4": "bitsandbytes"}
"""`load: {method: …}` → vLLM's `quantization`: what it can do to a full-precision checkpoint while it loads it."""

_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    # 4-bit weights with 16-bit activations, on every processor: where it can, vLLM would round activations to 8 bits
    "VLLM_CPU_INT4_W4A8": "0",
}
"""Set unless the user has."""

_NO_ROOM = ("available memory", "free memory on device", "kv cache is needed", "no available memory")
"""What vLLM says where its weights or its key/value cache do not fit; lower case."""

_LOAD_ERRORS = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What vLLM raises for checkpoints and settings that it does not support."""

_SHOWN_CHARACTERS = 400


def prepare(device: str) -> None:
    """Import vLLM the way the gate needs it.  Raises CouldNotMeasure: it is not here, or built for another device."""
    if find_spec("vllm") is None:
        raise CouldNotMeasure(
            f"vLLM is not installed for {sys.executable!r}: run `make vllm-env` and use --python .venv-vllm/bin/python"
        )
    # the engine's loop in this process: its memory and its failures are then ours; GPUs beyond one get children
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    threads = os.environ.get("QUANTGATE_THREADS")
    if threads:
        os.environ["OMP_NUM_THREADS"] = threads  # vLLM goes by this one
        torch.set_num_threads(int(threads))
    if device == "cpu":
        from torch._dynamo import config

        config.disable = True  # vLLM compiles helpers even when it is told not to compile the model
    try:
        # here, so that the time to load is that of the checkpoint alone
        import vllm.entrypoints.llm  # noqa: F401
        from vllm.platforms import current_platform
    except (ImportError, OSError, RuntimeError) as problem:
        raise CouldNotMeasure(
            f"vLLM cannot be imported by {sys.executable!r} ({said(problem)}): `make vllm-env` makes an environment "
            "where it can, without the packages that break it"
        ) from problem
    if current_platform.device_type != device.partition(":")[0]:
        raise CouldNotMeasure(
            f"the installed vLLM runs on {current_platform.device_type or 'no device here'!r}, expected {device!r}: "
            "use another --device, or --python with an interpreter whose vLLM is built for it"
        )


def load(checkpoint: Checkpoint, device: str) -> Any:
    """The `vllm.LLM`, after `prepare`.

    Raises:
        CheckpointError: it is missing, or of a kind that this vLLM cannot load.
        OutOfMemory: its weights or its key/value cache do not fit.
    """
    from vllm import LLM

    for folder in (checkpoint.path, checkpoint.tokenizer):
        if folder is not None and not Path(folder).is_dir():
            raise CheckpointError(f"{folder!r} is not a folder, expected a downloaded checkpoint: run `gate fetch`")
    with explained(checkpoint.path):
        return LLM(**settings(checkpoint, device))


def settings(checkpoint: Checkpoint, device: str) -> dict[str, Any]:
    """The arguments of `vllm.LLM`.  Raises CheckpointError for load settings that it cannot carry out."""
    engine = dict(checkpoint.engine)
    on_cpu = device == "cpu"
    kv_cache = engine.pop("cpu_kv_cache", CPU_KV_CACHE)
    arguments = {
        "model": checkpoint.path,
        "tokenizer": checkpoint.tokenizer or checkpoint.path,
        "dtype": checkpoint.dtype,
        "trust_remote_code": checkpoint.trust_remote_code,
        "seed": 0,
        "max_logprobs": -1,  # as many as a stage asks for
        "disable_log_stats": False,  # tells which requests were interrupted
        "enable_prefix_caching": engine.pop("prefix_caching", True),
        # nothing to compile: a compiler may not be there, and CPU checkpoints are small
        **({"enforce_eager": True, "kv_cache_memory_bytes": int(units.quantity(str(kv_cache)))} if on_cpu else {}),
        **({} if on_cpu else {"gpu_memory_utilization": GPU_MEMORY_UTILIZATION}),
        **_on_load(checkpoint, engine.get("quantization")),
    }
    return {**arguments, **engine}


def _on_load(checkpoint: Checkpoint, quantization: str | None) -> dict[str, Any]:
    """What `load` asks for, as arguments of `vllm.LLM`."""
    asked = dict(checkpoint.load)
    method, gguf_file = asked.pop("method", None), asked.pop("gguf_file", None)
    if asked:
        raise CheckpointError(f"unknown load setting {sorted(asked)[0]!r}, expected `method` or `gguf_file`")
    arguments: dict[str, Any] = {}
    if gguf_file is not None:
        _require("gguf", f"load the GGUF file {gguf_file!r}")
        arguments = {"model": str(Path(checkpoint.path) / gguf_file), "hf_config_path": checkpoint.path}
    if method is not None:
        if method not in _METHODS:
            raise CheckpointError(
                f"vLLM cannot quantize with {method!r} while it loads, expected one of: {', '.join(_METHODS)}; "
                "for its own methods set `engines: {vllm: {quantization: …}}`, for others use --backend hf"
            )
        if quantization is not None:
            raise CheckpointError(f"found load method {method!r} and quantization {quantization!r}: remove one of them")
        _require(_METHODS[method], f"quantize with {method!r} while it loads")
        arguments["quantization"] = _METHODS[method]
    return arguments


def _require(quantization: str, what: str) -> None:
    from vllm import __version__
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    if quantization not in QUANTIZATION_METHODS:
        raise CheckpointError(
            f"vLLM {__version__} cannot {what}: it knows no quantization {quantization!r} without a plugin that adds "
            "it; install one, or use --backend hf"
        )


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what vLLM raises into CheckpointError or OutOfMemory; our own errors pass through."""
    from vllm.exceptions import VLLMError

    try:
        yield
    except (CouldNotMeasure, OutOfMemory):
        raise
    except (*_LOAD_ERRORS, VLLMError) as problem:
        text = said(problem)
        if is_out_of_memory(problem) or any(hint in text.lower() for hint in _NO_ROOM):
            raise OutOfMemory(
                f"{path} does not fit: {text}; in `engines: {{vllm: …}}` lower max_model_len, or raise "
                "gpu_memory_utilization (on a CPU: cpu_kv_cache)"
            ) from problem
        hint = "; try another dtype, or --backend hf" if isinstance(problem, NotImplementedError) else ""
        raise CheckpointError(f"vLLM cannot run {path}: {text}{hint}") from problem


def said(problem: BaseException) -> str:
    """What went wrong, on one line; of a pydantic error the first mistake without its frame."""
    if isinstance(problem, ValidationError):
        text = problem.errors()[0]["msg"].removeprefix("Value error, ")
    else:
        text = f"{type(problem).__name__}: {problem}"
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def stored_numbers(folder: str) -> int:
    """How many numbers the safetensors files hold; packed weights count once per stored number."""
    count = 0
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            count += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return count
