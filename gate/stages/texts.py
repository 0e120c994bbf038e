"""The documents of a corpus as they will be scored: cut, tokenised, laid out in windows and planned looks.

Measures nothing.

A document starts with BOS if the tokenizer has one; the first token of that sequence is never scored, every other
one exactly once.  Contexts never cross documents.  Units are documents or, with `cluster: block`, blocks of them.
With `looks`, the unit at look T over G documents is the first ⌈T/G⌉ scored tokens of each (statistics.md §4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gate.backends import Backend, Window
from gate.errors import CouldNotMeasure
from gate.policy import Corpus
from gate.stages import Context
from gate.stages import corpus as corpora
from gate.stages.windows import Span, blocks, spans, tokens_per_document

_DEFAULT_DOCUMENTS = 64  # spread of a cut by tokens: statistics.md §4 recommends at least 64 documents


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A size, in tokens, at which the evidence may be looked at; None where there is only one look, at everything.

    `n_first` is how many leading scored tokens each document contributes (all it has if it is shorter).
    """

    size: int | None
    n_first: int | None

    @property
    def group(self) -> str | None:
        return None if self.size is None else f"look={self.size}"

    def name(self, key: str) -> str:
        """What belongs to this look is called after it."""
        return key if self.group is None else f"{key}/{self.group}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What is observed as one value: scored tokens of a text."""

    item_id: str
    cluster: str
    tokens: slice


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Consecutive scored tokens of a text that one look adds, under the name that distributions are stored by."""

    key: str
    tokens: NDArray[np.int32]
    spans: tuple[Span, ...]

    @property
    def n_scored(self) -> int:
        return sum(span.n_scored for span in self.spans)

    def windows(self) -> Iterator[Window]:
        for span in self.spans:
            yield Window(tokens=tuple(self.tokens[span.begin : span.end].tolist()), n_scored=span.n_scored)


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A document: `tokens[0]` is context only, `block_tokens` cuts the scored tokens into units."""

    key: str
    digest: str
    tokens: NDArray[np.int32]
    spans: tuple[Span, ...]
    block_tokens: int | None

    def n_scored(self, look: Look | None) -> int:
        """Scored tokens up to and with a look; none before the first."""
        if look is None:
            return 0
        whole = max(len(self.tokens) - 1, 0)
        return whole if look.n_first is None else min(look.n_first, whole)

    def units(self, look: Look) -> tuple[Unit, ...]:
        """What is observed at a look: everything up to it."""
        n_scored = self.n_scored(look)
        if self.block_tokens is None:
            return (Unit(item_id=look.name(self.key), cluster=self.digest, tokens=slice(0, n_scored)),)
        return tuple(
            Unit(item_id=look.name(f"{self.key}/block{k}"), cluster=f"{self.digest}/block{k}", tokens=cut)
            for k, cut in enumerate(blocks(n_scored, self.block_tokens))
        )

    def piece(self, before: Look | None, look: Look) -> Piece:
        """The tokens that `look` adds to `before`, each with the context that it has in the whole text."""
        begin, end = self.n_scored(before) + 1, self.n_scored(look) + 1
        added = []
        for span in self.spans:
            first, last = max(span.end - span.n_scored, begin), min(span.end, end)
            if first < last:
                added.append(replace(span, end=last, n_scored=last - first))
        return Piece(key=look.name(self.key), tokens=self.tokens, spans=tuple(added))


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to score, in seeded order, look after look, and remarks on how it was cut."""

    texts: tuple[Text, ...]
    looks: tuple[Look, ...]
    notes: tuple[str, ...]


def plan(backend: Backend, corpus: Corpus, context: Context) -> Plan:
    """Draw, cut and tokenise the documents.

    Raises:
        DataError: the corpus is missing or broken.
        CouldNotMeasure: it is empty, or nothing in it can be scored.
    """
    documents = corpora.read(corpus, context.base)
    whole = corpus.max_tokens is None and corpus.looks is None
    limit = corpus.documents or (len(documents) if whole else _DEFAULT_DOCUMENTS)
    drawn = corpora.draw(documents, limit, context.sample_seed)
    notes = []
    if limit < len(documents):
        notes.append(f"{limit} of {len(documents)} documents, drawn by the seed")
    if corpus.documents is not None and corpus.documents > len(documents):
        notes.append(f"the corpus has {len(documents)} documents, fewer than the {corpus.documents} asked for")
    looks = _looks(corpus, len(drawn))
    n_first = None
    if corpus.max_tokens is not None:
        n_first = tokens_per_document(corpus.max_tokens, len(drawn))
        notes.append(f"the first {n_first} tokens of each document")
    elif looks[-1].n_first is not None:
        firsts = ", ".join(str(look.n_first) for look in looks)
        notes.append(f"planned looks at the first {firsts} scored tokens of each document")
        n_first = looks[-1].n_first + (backend.bos() is None)  # without BOS the first token is context only
    window = min(corpus.window, backend.info.context_length)
    if window < corpus.window:
        notes.append(f"window {corpus.window} is longer than the model's context: scored with {window} tokens")
    if corpus.cluster == "block":
        notes.append(
            f"units are blocks of {corpus.block_tokens} tokens: blocks of one document are taken as independent, "
            "which makes intervals too narrow if they are not"
        )
    texts = [_text(backend, corpus, document, n_first, window) for document in drawn]
    scorable = [text for text in texts if len(text.tokens) > 1]
    if not scorable:
        cut = "" if corpus.max_tokens is None else f" at max_tokens {corpus.max_tokens!r}"
        raise CouldNotMeasure(
            f"corpus {corpus.name!r}: none of {len(texts)} documents has a token that can be scored{cut}; "
            f"expected at least two tokens (BOS counts): {'raise max_tokens' if cut else 'use longer documents'}"
        )
    if len(scorable) < len(texts):
        notes.append(f"documents left out since no token of them can be scored: {len(texts) - len(scorable)}")
    n_scored = sum(text.n_scored(looks[-1]) for text in scorable)
    if corpus.max_tokens is not None and n_scored < 0.9 * corpus.max_tokens:
        notes.append(f"the corpus is too short: {n_scored} tokens can be scored of max_tokens {corpus.max_tokens}")
    kept, remarks = _kept(scorable, looks)
    return Plan(texts=tuple(scorable), looks=kept, notes=(*notes, *remarks))


def _looks(corpus: Corpus, n_documents: int) -> tuple[Look, ...]:
    if corpus.looks is None:
        return (Look(size=None, n_first=None),)
    return tuple(Look(size=size, n_first=tokens_per_document(size, n_documents)) for size in corpus.looks)


def _kept(texts: Sequence[Text], looks: Sequence[Look]) -> tuple[tuple[Look, ...], list[str]]:
    """The looks that add a token to the one before, and what is said of looks that lack some or all of theirs."""
    kept: list[Look] = []
    notes: list[str] = []
    n_before = 0
    for look in looks:
        n_scored = sum(text.n_scored(look) for text in texts)
        if look.size is not None and n_scored < look.size:
            notes.append(f"the corpus is too short for look {look.size}: {n_scored} tokens can be scored")
        if n_scored > n_before:
            kept.append(look)
        else:
            notes.append(f"look {look.size} is left out: it adds no token to look {kept[-1].size}")
        n_before = n_scored
    return tuple(kept), notes


def _text(backend: Backend, corpus: Corpus, document: corpora.Document, n_first: int | None, window: int) -> Text:
    bos = backend.bos()
    ids = backend.encode(document.text)[:n_first]
    tokens = np.array(ids if bos is None else [bos, *ids], dtype=np.int32)
    stride = min(corpus.stride, window)
    # Roles that tokenize differently or see other contexts must not pair: their item ids differ by this digest.
    layout = hashlib.sha256(f"{window}/{stride}/".encode() + tokens.astype("<i4").tobytes()).hexdigest()[:8]
    return Text(
        key=f"{corpus.name}/{document.key}/{layout}",
        digest=document.digest,
        tokens=tokens,
        spans=tuple(spans(len(tokens), window=window, stride=stride)),
        block_tokens=corpus.block_tokens if corpus.cluster == "block" else None,
    )
