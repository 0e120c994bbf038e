"""A11 and A16 of statistics.md: perplexity by documents, in planned looks at growing prefixes of every document."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from gate.stats import document_ratio
from gate.stats.quantiles import z

BOUND_NATS = math.log(1.05)
LOOKS = (1_000, 4_000, 16_000, 64_000)
"""Tokens in all; at each look the first ⌈T/G⌉ of every document."""


def prefix_means(
    rng: np.random.Generator, *, documents: int, mean: float, token_sd: float, document_sd: float, shape: str
) -> list[NDArray[np.float64]]:
    """Per-document means of the first tokens at each look: the same document effect in all, tokens accumulating."""
    draws: dict[str, Callable[[], NDArray[np.float64]]] = {
        "normal": lambda: rng.normal(size=documents),
        "heavy": lambda: rng.standard_t(5, documents) * math.sqrt(3 / 5),
        "skewed": lambda: rng.exponential(size=documents) - 1,
    }
    effects = draws[shape]()
    totals, seen, found = np.zeros(documents), 0, []
    for tokens in LOOKS:
        now = math.ceil(tokens / documents)
        totals = totals + rng.normal(0, token_sd * math.sqrt(now - seen), documents)
        seen = now
        found.append(mean + document_sd * effects + totals / now)
    return found


def interval(means: NDArray[np.float64], tokens: int, confidence: float) -> document_ratio.DocumentRatio:
    return document_ratio.interval(
        values=means.tolist(),
        weights=[float(tokens)] * len(means),
        documents=range(len(means)),
        confidence=confidence,
        least_half_width=1e-9,
    )


class TestPlannedLooks:
    @pytest.mark.parametrize(("documents", "shape"), [(64, "normal"), (64, "heavy"), (64, "skewed"), (16, "normal")])
    def test_errors_at_the_bound(self, documents: int, shape: str) -> None:
        """Truth exactly at +5 %: four looks at α/4 each pass, or fail, in at most 6.5 % of the runs."""
        rng = np.random.default_rng(16)
        runs, passes, fails = 3000, 0, 0
        for _ in range(runs):
            # a 4-bit candidate: .27 nats a token, and documents that differ by .02
            looks = prefix_means(
                rng, documents=documents, mean=BOUND_NATS, token_sd=0.27, document_sd=0.02, shape=shape
            )
            found = [interval(m, math.ceil(t / documents), 1 - 0.05 / 4) for m, t in zip(looks, LOOKS, strict=True)]
            passes += any(i.high <= BOUND_NATS for i in found)
            fails += any(i.low > BOUND_NATS for i in found)
        assert passes / runs <= 0.065
        assert fails / runs <= 0.065
        assert (passes + fails) / runs >= 0.03  # and the looks do decide

    def test_free_looks_err_far_more_often(self) -> None:
        """Seven looks at full α, one document more weight each: what "look whenever you like" costs."""
        rng = np.random.default_rng(17)
        runs, sizes = 1500, (8, 12, 16, 24, 32, 48, 64)
        effects = rng.normal(BOUND_NATS, 0.03, (runs, sizes[-1]))
        wrong = np.zeros(runs, dtype=np.bool_)
        for n in sizes:
            seen = effects[:, :n]
            wrong |= np.array([interval(row, 256, 0.95).high <= BOUND_NATS for row in seen])
        assert wrong.mean() > 0.12

    def test_a_lossless_candidate_passes_at_the_planned_looks(self) -> None:
        rng = np.random.default_rng(18)
        runs, passes = 300, 0
        for _ in range(runs):
            looks = prefix_means(rng, documents=64, mean=0.0, token_sd=0.27, document_sd=0.02, shape="normal")
            passes += any(
                interval(m, math.ceil(t / 64), 1 - 0.05 / 4).high <= BOUND_NATS
                for m, t in zip(looks, LOOKS, strict=True)
            )
        assert passes / runs > 0.99


class TestDocumentsAreTheUnit:
    """A11 with whole tokens: the spread is estimated from them, not assumed."""

    @pytest.mark.parametrize("unequal", [False, True])
    def test_coverage_with_64_documents(self, unequal: bool) -> None:
        rng = np.random.default_rng(64)
        runs, documents, level = 2000, 64, 0.975
        covered = covered_iid = 0
        for _ in range(runs):
            tokens = rng.integers(96, 161, documents) if unequal else np.full(documents, 128)
            owner = np.repeat(np.arange(documents), tokens)
            values = rng.normal(0, 0.2, len(owner)) + rng.normal(0, 0.036, documents)[owner]  # design effect 5
            means = np.bincount(owner, values) / tokens
            found = document_ratio.interval(
                values=means.tolist(),
                weights=tokens.astype(float).tolist(),
                documents=range(documents),
                confidence=level,
                least_half_width=1e-9,
            )
            covered += found.low <= 0 <= found.high
            covered_iid += abs(values.mean()) <= z(level) * values.std(ddof=1) / math.sqrt(len(values))
        assert 0.93 <= covered / runs <= 0.97
        assert covered_iid / runs <= 0.88
