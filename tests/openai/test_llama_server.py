"""The openai backend against llama.cpp's server as llama-cpp-python packages it: its prompts are text only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from gate.backends import Checkpoint
from gate.backends.hf import open_backend as open_hf
from gate.backends.openai import OpenaiBackend, open_backend
from gate.errors import CouldNotMeasure
from tests.contract import tiny_llama
from tests.openai.processes import started

PYTHON = "QUANTGATE_LLAMA_SERVER_PYTHON"
TO_GGUF = Path(__file__).with_name("to_gguf.py")

pytestmark = pytest.mark.skipif(
    PYTHON not in os.environ,
    reason=f"llama.cpp's server is not here: pip install 'llama-cpp-python[server]' gguf, and set {PYTHON}",
)


def opening(folder: Path, url: str | None = None) -> Checkpoint:
    return Checkpoint(
        path=str(folder), load={}, dtype="float32", tokenizer=None, engine={} if url is None else {"url": url}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny_llama.save(tmp_path_factory.mktemp("tiny"))
    weights = load_file(made / "model.safetensors")
    np.savez(made / "weights.npz", allow_pickle=False, **{name: w.float().numpy() for name, w in weights.items()})
    subprocess.run([os.environ[PYTHON], str(TO_GGUF), str(made)], check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[OpenaiBackend]:
    command = [os.environ[PYTHON], "-m", "llama_cpp.server", "--model", str(folder / "model.gguf")]
    options = [
        "--n_ctx",
        str(tiny_llama.CONTEXT_LENGTH),
        "--n_threads",
        "1",
        "--type_k",
        "0",
        "--type_v",
        "0",
    ]  # keys and values in float32
    with started([*command, *options], {}, folder / "server.log") as server:
        server.wait(60)
        yield open_backend(opening(folder, server.url), "cpu")


def test_it_serves_generation_and_says_what_it_does_not(backend: OpenaiBackend) -> None:
    info = backend.info
    assert set(info.unserved) == {"perplexity", "profile"}
    assert all("its prompts must be text" in why for why in info.unserved.values())
    assert info.context_length == tiny_llama.CONTEXT_LENGTH
    with pytest.raises(CouldNotMeasure, match="cannot score multiple choice"):
        backend.loglikelihood([("the bank", " moved")])


def test_greedy_text_is_that_of_the_same_weights_in_transformers(backend: OpenaiBackend, folder: Path) -> None:
    prompts = ["debit, credit", "a", backend.chat([{"role": "user", "content": "hello"}])]
    ours, right = (
        backend.generate(prompts, max_new_tokens=5, stop=[], temperature=0.0, seed=0)
        for backend in (backend, open_hf(opening(folder), "cpu"))
    )
    # a random model writes bytes that are no characters: llama.cpp leaves them out, transformers marks them
    assert [g.text for g in ours] == [g.text.replace("\ufffd", "") for g in right]
    assert [(g.n_tokens, g.finish) for g in ours] == [(g.n_tokens, g.finish) for g in right]


def test_a_prompt_that_is_too_long_is_refused_by_the_server_too(backend: OpenaiBackend) -> None:
    with pytest.raises(ValueError, match="context length of 256"):
        backend.generate([tiny_llama.TEXT * 12], max_new_tokens=8, stop=[], temperature=0.0, seed=0)
