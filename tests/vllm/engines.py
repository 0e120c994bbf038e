"""Backends opened for the tests in this folder, each once in a process.

Skips where vLLM is not installed for the interpreter that runs the tests.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gate.backends import Checkpoint
from gate.demo.bundle import world

needs_vllm = pytest.mark.skipif(
    find_spec("vllm") is None, reason="vLLM is not installed for this interpreter: run `make test-vllm`"
)


def demo(name: str) -> Path:
    """The folder of a demo checkpoint: `baseline` or a candidate."""
    return world() / name if name == "baseline" else world() / "candidates" / name


def described(folder: Path, dtype: str, **engine: Any) -> Checkpoint:
    engine = {"cpu_kv_cache": "64MiB", **engine}
    return Checkpoint(path=str(folder), load={}, dtype=dtype, tokenizer=None, engine=engine)


@cache
def vllm_backend(folder: Path, dtype: str) -> Any:
    from gate.backends.vllm import open_backend

    return quietly(open_backend, described(folder, dtype))


def quietly(open_backend: Any, checkpoint: Checkpoint) -> Any:
    """Open it on one thread, without the warnings of the libraries that it imports."""
    with pytest.MonkeyPatch.context() as environment, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        environment.setenv("QUANTGATE_THREADS", "1")
        return open_backend(checkpoint, "cpu")
