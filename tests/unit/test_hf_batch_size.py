"""`Checkpoint.batch_size` on the hf backend: it is kept to everywhere, and no result depends on it but for rounding."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gate.backends import Checkpoint, Window
from gate.backends.hf import HFBackend, open_backend
from tests.contract import tiny_llama

PROMPTS = ["the", "the bank", "a clerk wrote", "euros", "debit, credit", "balance", "a savings account"]
GENERATE: dict[str, Any] = {"max_new_tokens": 3, "stop": [], "temperature": 0.0, "seed": 0}
WINDOWS = [Window(tokens=tuple(range(3, 15 + i)), n_scored=4) for i in range(7)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_llama.save(tmp_path_factory.mktemp("llama"))


def load(folder: Path, batch_size: int | None) -> HFBackend:
    return open_backend(
        Checkpoint(path=str(folder), load={}, dtype="float32", tokenizer=None, batch_size=batch_size), "cpu"
    )


class Watched:
    """Notes how many rows each call of the model has."""

    def __init__(self, backend: HFBackend) -> None:
        self.rows: list[int] = []
        self._forward = backend._model.forward
        backend._model.forward = self
        self.__signature__ = inspect.signature(self._forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        ids = args[0] if args else kwargs["input_ids"]
        self.rows.append(len(ids))
        return self._forward(*args, **kwargs)


@pytest.mark.parametrize(("batch_size", "first"), [(None, 7), (1, 1), (3, 3), (500, 7)])
def test_as_many_rows_go_together(folder: Path, batch_size: int | None, first: int) -> None:
    backend = load(folder, batch_size)
    watched = Watched(backend)
    list(backend.score(WINDOWS, top_k=0, at_ids=None))
    assert max(watched.rows) == first
    watched.rows.clear()
    backend.generate(PROMPTS, **GENERATE)
    assert max(watched.rows) == first
    watched.rows.clear()
    backend.loglikelihood([(p, " of") for p in PROMPTS])
    assert max(watched.rows) == first  # too short to share anything


def test_a_batch_size_outweighs_the_tokens_that_usually_go_together(folder: Path) -> None:
    long = [Window(tokens=(3,) * 250, n_scored=4)] * 12  # 2 of them are 500 tokens
    for batch_size, rows in ((None, 2), (12, 12)):
        backend = load(folder, batch_size)
        watched = Watched(backend)
        list(backend.score(long, top_k=0, at_ids=None))
        assert max(watched.rows) == rows


def test_no_result_depends_on_it(folder: Path) -> None:
    usual, other = load(folder, None), load(folder, 2)
    for one, two in zip(
        usual.score(WINDOWS, top_k=0, at_ids=None), other.score(WINDOWS, top_k=0, at_ids=None), strict=True
    ):
        np.testing.assert_allclose(one.nll_nats, two.nll_nats, atol=1e-4)
    assert usual.generate(PROMPTS, **GENERATE) == other.generate(PROMPTS, **GENERATE)
    pairs = [(p, " balance of the account") for p in PROMPTS]
    expected = [x for x, _ in usual.loglikelihood(pairs)]
    assert [x for x, _ in other.loglikelihood(pairs)] == pytest.approx(expected, abs=1e-4)


def test_none_at_all_is_a_mistake(folder: Path) -> None:
    with pytest.raises(ValueError, match="found batch_size 0, expected at least 1"):
        load(folder, 0)
