"""What a rule on a corpus can see before anything is run: perplexity and divergence over documents, look after look.

Pure: no I/O, no model, no data.  Judges no checkpoint; a number that is not known stays None.
"""

from __future__ import annotations

import math
from dataclasses import replace

from gate.decide import power
from gate.decide.outlook import Look, Outlook, chance_of, written
from gate.policy import Corpus
from gate.records import BoundKind, Rule
from gate.stats.document_ratio import ENOUGH_UNITS, MIN_UNITS
from gate.task_catalog import CORPORA

SPREAD_OVER = 64
"""Documents that max_tokens and looks are spread over where the policy does not say (default of the stage)."""
TYPICAL_INCREASE = 0.028
"""Perplexity increase of a usual 4-bit checkpoint (docs/statistics.md, perplexity)."""


def over_documents(rule: Rule, corpus: Corpus, counted: int | None, confidence: float) -> Outlook:
    """Perplexity and divergence over the documents of a corpus; `counted` is None for data not there yet."""
    documents, per_document = CORPORA.get(corpus.name, (None, None)) if corpus.path is None else (None, None)
    available = documents if counted is None else counted
    if available is None:
        says = f"Documents not counted yet: {ENOUGH_UNITS} are enough, below {MIN_UNITS} nothing is decided."
        return Outlook(unit="documents", available=None, n=None, says=says)
    sizes = tuple(corpus.looks or (() if corpus.max_tokens is None else (corpus.max_tokens,)))
    n = min(corpus.documents or (SPREAD_OVER if sizes else available), available)
    if corpus.cluster == "block":
        says = f"Judged over blocks of {corpus.block_tokens:,} tokens."
        return Outlook(unit="documents", available=available, n=n, says=says)
    if n < MIN_UNITS:
        problem = f"found {n} documents in {corpus.name}, expected at least {MIN_UNITS}: use a longer corpus"
        return Outlook(unit="documents", available=available, n=n, says="", problem=problem)
    few = f"{corpus.name} has {n} documents: intervals are wide below {ENOUGH_UNITS}."
    warnings: tuple[str, ...] = (few,) if n < ENOUGH_UNITS else ()
    there = n * per_document if per_document else math.inf
    tokens = [min(size, there) for size in sizes or (there,)]
    plain = Outlook(
        unit="documents",
        available=available,
        n=n,
        says="",
        tokens=None if math.isinf(tokens[-1]) else n * _through(tokens[-1] / n, corpus),
        warnings=warnings,
    )
    if rule.bound.kind is not BoundKind.MAX_INCREASE or plain.tokens is None:
        return plain
    level = 1 - (1 - confidence) / len(tokens)
    smallest = power.smallest_increase(documents=n, tokens=tokens[-1], confidence=level)
    odds = _passes(rule, n, tokens[-1], level, 0.0)
    over = f"{tokens[-1]:,.0f} tokens of {n:,} documents"
    if smallest > rule.bound.value:
        warnings = (
            *warnings,
            f"{corpus.name}: {over} cannot rule out less than {smallest:.1%}; with {written(rule)} a lossless "
            f"candidate would pass only {chance_of(odds)} of the time. Raise "
            f"{'the last look' if corpus.looks else 'max_tokens'} or documents, or loosen the bound.",
        )
    says = f"Sees an increase of {smallest:.1%} or more over {over}; a lossless candidate passes {chance_of(odds)}"
    says += " of the time."
    looks = tuple(
        Look(
            tokens=round(size),
            lossless=_passes(rule, n, size, level, 0.0),
            typical=_passes(rule, n, size, level, TYPICAL_INCREASE),
        )
        for size in tokens
    )
    return replace(
        plain,
        smallest=smallest,
        odds=odds,
        says=says,
        looks=looks if len(looks) > 1 else (),
        warnings=warnings,
    )


def _through(per_document: float, corpus: Corpus) -> float:
    """Tokens of a document that go through the model: later windows read their context again."""
    beyond = per_document - corpus.window
    return per_document if beyond <= 0 else corpus.window * (1 + math.ceil(beyond / corpus.stride))


def _passes(rule: Rule, documents: int, tokens: float, level: float, increase: float) -> float:
    """Probability of a PASS over these tokens when perplexity truly rises by `increase`."""
    error = power.perplexity_error_nats(documents=documents, tokens=tokens)
    room = math.log1p(rule.bound.value) - math.log1p(increase)
    return power.normal_cdf(room / error - power.student(level, documents - 1))
