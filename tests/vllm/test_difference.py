"""How far the log-likelihoods of the hf and the vllm backend differ, item by item, on the same checkpoints.

Prints what it finds; docs/vllm.md quotes it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gate.demo.bundle import world
from tests.vllm.engines import demo, described, needs_vllm, quietly, vllm_backend
from tests.vllm.fp8_checkpoint import save_fp8

pytestmark = [pytest.mark.vllm, needs_vllm]

QUESTIONS = 100
LINES = 60


@pytest.fixture(scope="module")
def fp8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_fp8(demo("baseline"), tmp_path_factory.mktemp("fp8") / "fp8")


@cache
def items() -> list[tuple[str, str]]:
    """Choices of the demo's cloze task, of a few tokens each, and lines of prose, of some tens."""
    data = world() / "data"
    rows = [json.loads(line) for line in (data / "tasks" / "bank_cloze.jsonl").read_text().splitlines()[:QUESTIONS]]
    prose = [line for line in (data / "prose.txt").read_text().splitlines() if len(line) > 200][:LINES]
    choices = [(row["query"], f" {choice}") for row in rows for choice in row["choices"]]
    return [*choices, *[(line[:20], line[20:200]) for line in prose]]


def totals(backend: Any) -> NDArray[np.float64]:
    return np.array([total for total, _ in backend.loglikelihood(items())])


@cache
def by_hf(folder: Path, dtype: str) -> NDArray[np.float64]:
    from gate.backends.hf import open_backend

    return totals(quietly(open_backend, described(folder, dtype)))


def shown(what: str, difference: NDArray[np.float64]) -> None:
    print(f"\n{what}: max {difference.max():.2g}, mean {difference.mean():.2g} nats over {len(difference)} items")


def test_in_float32_they_are_the_same() -> None:
    expected = by_hf(demo("baseline"), "float32")
    difference = np.abs(totals(vllm_backend(demo("baseline"), "float32")) - expected)
    shown("baseline float32, vllm against hf", difference)
    # the tolerance that the hf backend has against lm-eval's own HFLM
    assert (difference <= 1e-4 + 1e-6 * np.abs(expected)).all()


@pytest.mark.parametrize("name", ["baseline", "w4a16-gptq-prose", "w8a8", "fp8"])
def test_in_bfloat16_they_differ_as_much_as_precisions_do(name: str, fp8: Path) -> None:
    """Two engines round at other places.  How much that may move an item, transformers says itself: float32 against
    bfloat16, with the same quantized weights.  Quantized activations amplify it, in both alike."""
    folder = fp8 if name == "fp8" else demo(name)
    rounding = np.abs(by_hf(folder, "bfloat16") - by_hf(folder, "float32"))
    difference = np.abs(totals(vllm_backend(folder, "bfloat16")) - by_hf(folder, "bfloat16"))
    shown(f"{name} bfloat16, vllm against hf", difference)
    shown(f"{name} hf, bfloat16 against float32", rounding)
    assert difference.mean() <= 1.5 * rounding.mean()
    assert difference.max() <= 3 * rounding.max()
    assert difference.mean() > 0  # two engines, not one compared with itself


def test_of_fp8_in_float32_most_items_are_the_same(fp8: Path) -> None:
    """Activations on the edge between two FP8 numbers fall to either side, which moves few items, and those far."""
    difference = np.abs(totals(vllm_backend(fp8, "float32")) - by_hf(fp8, "float32"))
    shown("fp8 float32, vllm against hf", difference)
    assert np.median(difference) <= 1e-3
    assert difference.mean() <= 0.2 * np.abs(by_hf(fp8, "bfloat16") - by_hf(fp8, "float32")).mean()
