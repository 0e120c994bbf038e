"""A16: four planned looks at documents whose tokens depend on each other err on each side as often as they say.

Data: 64 documents.  The NLL difference of a token is the bound plus an effect of its document, plus a stationary
AR(1) over blocks of 16 tokens, plus its own noise (a block's sum is drawn as one normal).  Spreads are those of a
4-bit checkpoint (statistics.md §4): 0.27 nats a token, design effect 3 to 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from gate.decide.estimate import decide
from gate.decide.looks import level
from gate.records import Bound, BoundKind, Status
from gate.stats import document_ratio

BOUND = Bound(kind=BoundKind.MAX_INCREASE, value=math.log(1.05), text="5%")
"""The rule on the scale of the mean log ratio."""

DOCUMENTS, BLOCK = 64, 16
LOOKS = (1, 4, 16, 63)
"""Blocks of each document at 1k, 4k, 16k and 64k tokens."""

TOKEN_SD_NATS, DOCUMENT_SD_NATS, DRIFT_SD_NATS = 0.27, 0.016, 0.025
CARRY = 0.8
"""Correlation of the drift of neighbouring blocks."""


def _block_sums(rng: np.random.Generator, runs: int, documents: int, *, skewed: bool) -> NDArray[np.float64]:
    """[runs, documents, blocks]: sums of d over blocks of 16 tokens; the mean of d is exactly the bound."""
    shape = (runs, documents, LOOKS[-1])
    # skewed: a few documents are hit much harder than the others
    spread = rng.gamma(1.0, 1.0, shape[:2]) - 1.0 if skewed else rng.standard_normal(shape[:2])
    effect = DOCUMENT_SD_NATS * spread
    innovation = math.sqrt(1 - CARRY**2)
    shocks = DRIFT_SD_NATS * innovation * rng.standard_normal(shape)
    shocks[..., 0] /= innovation  # starts stationary
    drift = lfilter([1.0], [1.0, -CARRY], shocks, axis=-1)
    noise = math.sqrt(BLOCK) * TOKEN_SD_NATS * rng.standard_normal(shape)
    return np.asarray(BLOCK * (BOUND.value + effect[..., None] + drift) + noise)


def _lengths(rng: np.random.Generator, runs: int, documents: int) -> NDArray[np.int64]:
    """[runs, documents]: blocks that a document has; a quarter of them are too short for the last looks."""
    short = rng.integers(2, LOOKS[-1], (runs, documents))
    return np.where(rng.random((runs, documents)) < 0.25, short, LOOKS[-1])


def _design_effect(sums: NDArray[np.float64], blocks: int) -> float:
    """Variance of the mean over `blocks` blocks of a document over that of as many independent tokens."""
    per_token = sums[..., :blocks].sum(axis=-1) / (blocks * BLOCK)
    return float(per_token.var() * blocks * BLOCK / (TOKEN_SD_NATS**2 + DOCUMENT_SD_NATS**2 + DRIFT_SD_NATS**2))


def _first_decision(
    totals: NDArray[np.float64], tokens: NDArray[np.int64], confidence: float, names: Sequence[int]
) -> Status:
    """`totals` and `tokens`: [looks, documents].  The verdict of the first look that decides."""
    for total, weights in zip(totals, tokens, strict=True):
        found = document_ratio.interval(
            values=(total / weights).tolist(),
            weights=weights.tolist(),
            documents=names,
            confidence=confidence,
            least_half_width=1e-9,
        )
        status = decide((found.low, found.high), BOUND)
        if status is not Status.INCONCLUSIVE:
            return status
    return Status.INCONCLUSIVE


def _errors(
    *, runs: int, documents: int, looks: Sequence[int], confidence: float, skewed: bool, seed: int
) -> dict[str, float]:
    """Shares of the runs that end in PASS and in REGRESSION, with the truth at the bound: either is an error.

    (At the bound a PASS is no error in law, but the limit of one.)
    """
    rng = np.random.default_rng(seed)
    counts = {Status.PASS: 0, Status.REGRESSION: 0, Status.INCONCLUSIVE: 0}
    names = range(documents)
    for begin in range(0, runs, 250):
        part = min(250, runs - begin)
        sums = _block_sums(rng, part, documents, skewed=skewed)
        lengths = _lengths(rng, part, documents)
        blocks = np.minimum(np.array(looks)[None, :, None], lengths[:, None, :])  # [runs, looks, documents]
        reached = np.cumsum(sums, axis=-1)[
            np.arange(part)[:, None, None], np.arange(documents)[None, None, :], blocks - 1
        ]
        for totals, cuts in zip(reached, blocks, strict=True):
            counts[_first_decision(totals, cuts * BLOCK, confidence, names)] += 1
    return {status.value: count / runs for status, count in counts.items()}


def test_the_data_depend_within_documents_as_real_ones_do() -> None:
    sums = _block_sums(np.random.default_rng(0), 200, DOCUMENTS, skewed=False)
    assert 2.5 < _design_effect(sums, 16) < 4
    assert 5 < _design_effect(sums, 63) < 7
    assert float(sums.mean() / BLOCK) == pytest.approx(BOUND.value, abs=1e-3)


@pytest.mark.parametrize("skewed", [False, True])
def test_four_planned_looks_err_no_more_than_one(skewed: bool) -> None:
    found = _errors(
        runs=1500, documents=DOCUMENTS, looks=LOOKS, confidence=level(0.95, len(LOOKS)), skewed=skewed, seed=16
    )
    assert found["PASS"] <= 0.065
    assert found["REGRESSION"] <= 0.065
    assert found["PASS"] + found["REGRESSION"] > 0.03, "the looks must be able to decide, or this shows nothing"


def test_without_the_split_the_same_looks_err_too_often() -> None:
    found = _errors(runs=500, documents=DOCUMENTS, looks=LOOKS, confidence=0.95, skewed=False, seed=17)
    assert found["PASS"] > 0.08
    assert found["REGRESSION"] > 0.08


def test_free_looks_from_few_documents_are_worse() -> None:
    free = (1, 2, 4, 8, 16, 32, 63)
    found = _errors(runs=500, documents=8, looks=free, confidence=0.95, skewed=False, seed=18)
    assert found["PASS"] > 0.12


@pytest.mark.parametrize("skewed", [False, True])
def test_planned_looks_at_full_size(skewed: bool) -> None:
    found = _errors(
        runs=6_000, documents=DOCUMENTS, looks=LOOKS, confidence=level(0.95, len(LOOKS)), skewed=skewed, seed=19
    )
    print(f"A16, skewed {skewed}: {found}")
    assert max(found["PASS"], found["REGRESSION"]) <= 0.065
