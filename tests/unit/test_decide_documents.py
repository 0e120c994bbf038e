"""Perplexity, divergence and agreement: documents are the units."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gate.metrics import PERPLEXITY
from gate.records import (
    Measurement,
    Status,
)
from tests.decide_factory import (
    BASELINE,
    CANDIDATE,
    judged,
    rule,
    scored,
)


class TestPerplexity:
    METRIC = PERPLEXITY["perplexity"]

    def pair(self, increase_nats: float, documents: int = 64, spread: float = 0.02) -> tuple[Measurement, Measurement]:
        base = [2.0 + math.sin(i) / 5 for i in range(documents)]
        worse = [v + increase_nats + spread * math.cos(7 * i) for i, v in enumerate(base)]
        ids = [f"document {i}" for i in range(documents)]
        weights = [200.0 + i for i in range(documents)]
        b = scored(BASELINE, base, metric=self.METRIC, clusters=ids, weights=weights)
        return b, scored(CANDIDATE, worse, metric=self.METRIC, clusters=ids, weights=weights)

    @pytest.mark.parametrize(
        ("nats", "expected"), [(0.03, Status.PASS), (math.log(1.05), Status.INCONCLUSIVE), (0.08, Status.REGRESSION)]
    )
    def test_max_increase(self, nats: float, expected: Status) -> None:
        found = judged(rule("max_increase 5%", metric="perplexity"), self.pair(nats))
        assert found.status is expected
        assert found.estimate == pytest.approx(math.exp(nats) - 1, abs=2e-3)
        assert found.baseline == pytest.approx(math.exp(2.0), rel=0.05)
        assert found.interval is not None
        assert found.interval.method == "document_t"
        assert found.counts["G"] == 64
        assert found.counts["tokens"] == sum(200 + i for i in range(64))

    def test_the_candidates_own_perplexity(self) -> None:
        _, candidate = self.pair(0.0)
        found = judged(rule("max 9", metric="perplexity"), (None, candidate))
        assert found.status is Status.PASS
        assert found.candidate == found.estimate
        assert found.estimate == pytest.approx(math.exp(2.0), rel=0.05)

    def test_identical_models_are_resolved_to_the_numeric_noise_only(self) -> None:
        found = judged(rule("max_increase 5%", metric="perplexity"), self.pair(0.0, spread=0.0))
        assert found.status is Status.PASS
        assert found.interval is not None
        tokens = found.counts["tokens"]
        assert found.interval.high == pytest.approx(math.expm1(1.6449 * 0.03 / math.sqrt(tokens)), rel=1e-3)
        assert found.interval.low < 0

    def test_few_documents_are_refused_and_some_are_a_caution(self) -> None:
        refused = judged(rule("max_increase 5%", metric="perplexity"), self.pair(0.0, documents=7))
        assert refused.status is Status.ERROR
        assert "found 7 documents, expected at least 8" in refused.reason
        rough = judged(rule("max_increase 5%", metric="perplexity"), self.pair(0.0, documents=29))
        assert rough.status is Status.PASS
        assert "only 29 documents" in rough.reason
        assert "only" not in judged(rule("max_increase 5%", metric="perplexity"), self.pair(0.0, documents=30)).reason

    def test_blocks_of_one_document_are_one_unit(self) -> None:
        baseline, candidate = self.pair(0.0, documents=64)
        one = tuple(replace(o, cluster=f"document {i // 16}") for i, o in enumerate(baseline.observations))
        found = judged(rule("max_increase 5%", metric="perplexity"), (replace(baseline, observations=one), candidate))
        assert found.status is Status.ERROR
        assert "found 4 documents" in found.reason

    def test_a_shuffled_corpus_pairs_by_content(self) -> None:
        # A15: the order of documents is nothing
        baseline, candidate = self.pair(0.03)
        shuffled = replace(candidate, observations=tuple(reversed(candidate.observations)))
        straight = judged(rule("max_increase 5%", metric="perplexity"), (baseline, candidate))
        assert judged(rule("max_increase 5%", metric="perplexity"), (baseline, shuffled)) == straight

    def test_another_tokenizer_is_noticed(self) -> None:
        baseline, candidate = self.pair(0.0)
        first, *rest = candidate.observations
        found = judged(
            rule("max_increase 5%", metric="perplexity"),
            (baseline, replace(candidate, observations=(replace(first, weight=190.0), *rest))),
        )
        assert found.status is Status.ERROR
        assert "has weight 200 for the baseline and 190 for the candidate" in found.reason

    def test_an_absurd_perplexity_stays_finite(self) -> None:
        found = judged(rule("max_increase 5%", metric="perplexity"), self.pair(5000.0))
        assert found.status is Status.REGRESSION
        assert found.estimate is not None
        assert math.isfinite(found.estimate)


class TestTokenMeans:
    def candidate(self, name: str, values: list[float]) -> Measurement:
        return scored(CANDIDATE, values, metric=PERPLEXITY[name], weights=[100.0] * len(values))

    def test_divergence_under_a_ceiling(self) -> None:
        kl = [0.02 + 0.005 * math.sin(i) for i in range(40)]
        candidate = self.candidate("kl_mean_nats", kl)
        assert judged(rule("max 0.03", metric="kl_mean_nats"), (None, candidate)).status is Status.PASS
        assert judged(rule("max 0.02", metric="kl_mean_nats"), (None, candidate)).status is Status.INCONCLUSIVE
        assert judged(rule("max 0.015", metric="kl_mean_nats"), (None, candidate)).status is Status.REGRESSION

    def test_full_agreement_is_not_certain(self) -> None:
        found = judged(rule("min 0.9", metric="top1_agreement"), (None, self.candidate("top1_agreement", [1.0] * 40)))
        assert found.status is Status.PASS
        assert found.interval is not None
        assert found.interval.high == 1.0
        square = 1.6448536**2
        assert found.interval.low == pytest.approx(1 - square / (4000 / 6 + square), rel=1e-6)
