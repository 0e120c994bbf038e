"""The perplexity stage: sliding-window NLL per document, and divergence from the baseline where logits are available.

Measures, never judges.  Sums token NLLs and divides by the number of scored tokens; it never averages window losses
(a library's `loss` is the mean over *shifted* labels, so window means weigh tokens unequally).

A document starts with BOS if the tokenizer has one; the first token of that sequence is never scored, every other
one exactly once.  Contexts never cross documents.  Units are documents or, with `cluster: block`, blocks of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from gate.backends import Backend, OutOfMemory, Window, WindowScores
from gate.errors import ArtifactError, CouldNotMeasure
from gate.metrics import PERPLEXITY
from gate.policy import Corpus, PerplexityStage
from gate.records import ItemFailure, Measurement, Observation, Role
from gate.stages import Context, distributions, divergence
from gate.stages import corpus as corpora
from gate.stages.windows import Span, blocks, spans, tokens_per_document

_DEFAULT_DOCUMENTS = 64  # spread of a max_tokens cut: statistics.md §4 recommends at least 64 documents
_PART_DOCUMENTS = 32

_NLL, _KL, _AGREEMENT, _DELTA_P = "nll_nats", "kl_nats", "top1_agreement", "delta_p"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Text:
    """A document as it will be scored: `tokens[0]` is context only, `units` cut the scored tokens."""

    key: str
    tokens: NDArray[np.int32]
    spans: tuple[Span, ...]
    units: tuple[tuple[str, str, slice], ...]

    @property
    def n_scored(self) -> int:
        return len(self.tokens) - 1

    def windows(self) -> Iterator[Window]:
        for span in self.spans:
            yield Window(tokens=tuple(self.tokens[span.begin : span.end].tolist()), n_scored=span.n_scored)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Divergence:
    """What this role does with distributions: the baseline writes them, the candidate compares with them."""

    top_k: int
    writer: distributions.Writer | None
    reader: distributions.Reader | None
    note: str | None


def check(settings: PerplexityStage, base: Path) -> tuple[Path, ...]:
    """Read every corpus; its files.  Raises DataError for a broken or missing one, CouldNotMeasure for an empty one."""
    for corpus in settings.corpora:
        corpora.read(corpus, base)
    return tuple(base / corpus.path for corpus in settings.corpora if corpus.path is not None)


def fetch(settings: PerplexityStage, base: Path) -> list[str]:
    """Download the corpora without a path.  Raises DataError for an unknown one, CouldNotMeasure."""
    return [f"corpus {c.name}: {corpora.fetch(c.name)} documents" for c in settings.corpora if c.path is None]


def measure(backend: Backend, settings: PerplexityStage, context: Context) -> Iterator[Measurement]:
    """Score the one corpus of `settings`, a few documents at a time.

    The baseline reports NLL and writes its distributions to `context.artifacts`; the candidate reads them and reports
    KL (a lower bound), top-1 agreement and Δp too.  Without them it reports NLL alone and notes why.

    Raises:
        DataError: the corpus is missing or broken.
        CouldNotMeasure: it is empty, nothing in it can be scored, or a window does not fit in memory.
    """
    (corpus,) = settings.corpora
    started = perf_counter()
    texts, notes = _plan(backend, corpus, context)
    n_expected = sum(len(text.units) for text in texts)
    with ExitStack() as stack:
        divergent = _divergence(backend, settings, context, stack)
        if divergent.note is not None:
            notes.append(divergent.note)
        metrics = tuple(PERPLEXITY.values()) if divergent.reader is not None else (PERPLEXITY["perplexity"],)
        kl_nats: list[NDArray[np.float64]] = []
        for begin in range(0, len(texts), _PART_DOCUMENTS):
            batch = texts[begin : begin + _PART_DOCUMENTS]
            observations: list[Observation] = []
            failures: list[ItemFailure] = []
            for done, (text, values) in enumerate(_scored(backend, batch, divergent), start=begin + 1):
                for item_id, cluster, unit in text.units:
                    cut = {name: tokens[unit] for name, tokens in values.items()}
                    if all(np.isfinite(tokens).all() for tokens in cut.values()):
                        observations += _observations(item_id, cluster, cut)
                        kl_nats += [cut[_KL]] if _KL in cut else []
                    else:
                        failures.append(_not_finite(item_id, cut))
                context.progress(done, len(texts), corpus.name)
            if begin + _PART_DOCUMENTS >= len(texts):
                observations += _tail_percentiles(kl_nats)
                if divergent.writer is not None:
                    divergent.writer.finish()
            yield Measurement(
                stage=settings.name,
                source=corpus.name,
                role=context.role,
                settings_digest=context.settings_digest,
                n_expected=n_expected,
                metrics=metrics,
                observations=tuple(observations),
                failures=tuple(failures),
                answers=(),
                seconds=perf_counter() - started,
                notes=tuple(notes),
            )
            started = perf_counter()


def _plan(backend: Backend, corpus: Corpus, context: Context) -> tuple[list[_Text], list[str]]:
    """The documents to score, in seeded order, and remarks on how they were cut."""
    documents = corpora.read(corpus, context.base)
    limit = corpus.documents
    if limit is None:
        limit = len(documents) if corpus.max_tokens is None else _DEFAULT_DOCUMENTS
    drawn = corpora.draw(documents, limit, context.sample_seed)
    notes = []
    if limit < len(documents):
        notes.append(f"{limit} of {len(documents)} documents, drawn by the seed")
    if corpus.documents is not None and corpus.documents > len(documents):
        notes.append(f"the corpus has {len(documents)} documents, fewer than the {corpus.documents} asked for")
    n_first = None if corpus.max_tokens is None else tokens_per_document(corpus.max_tokens, len(drawn))
    if n_first is not None:
        notes.append(f"the first {n_first} tokens of each document")
    window = min(corpus.window, backend.info.context_length)
    if window < corpus.window:
        notes.append(f"window {corpus.window} is longer than the model's context: scored with {window} tokens")
    if corpus.cluster == "block":
        notes.append(
            f"units are blocks of {corpus.block_tokens} tokens: blocks of one document are taken as independent, "
            "which makes intervals too narrow if they are not"
        )
    texts = [_text(backend, corpus, document, n_first, window) for document in drawn]
    scorable = [text for text in texts if text.n_scored > 0]
    if not scorable:
        raise CouldNotMeasure(
            f"corpus {corpus.name!r}: none of {len(texts)} documents has a token that can be scored at "
            f"max_tokens {corpus.max_tokens!r}; expected at least two tokens (BOS counts): raise max_tokens"
        )
    if len(scorable) < len(texts):
        notes.append(f"documents left out since no token of them can be scored: {len(texts) - len(scorable)}")
    n_scored = sum(text.n_scored for text in scorable)
    if corpus.max_tokens is not None and n_scored < 0.9 * corpus.max_tokens:
        notes.append(f"the corpus is too short: {n_scored} tokens can be scored of max_tokens {corpus.max_tokens}")
    return scorable, notes


def _text(backend: Backend, corpus: Corpus, document: corpora.Document, n_first: int | None, window: int) -> _Text:
    bos = backend.bos()
    ids = backend.encode(document.text)[:n_first]
    tokens = np.array(ids if bos is None else [bos, *ids], dtype=np.int32)
    stride = min(corpus.stride, window)
    # Roles that tokenize differently or see other contexts must not pair: their item ids differ by this digest.
    layout = hashlib.sha256(f"{window}/{stride}/".encode() + tokens.astype("<i4").tobytes()).hexdigest()[:8]
    key = f"{corpus.name}/{document.key}/{layout}"
    n_scored = max(len(tokens) - 1, 0)
    if corpus.cluster == "document":
        units: tuple[tuple[str, str, slice], ...] = ((key, document.digest, slice(0, n_scored)),)
    else:
        cuts = enumerate(blocks(n_scored, corpus.block_tokens))
        units = tuple((f"{key}/block{k}", f"{document.digest}/block{k}", cut) for k, cut in cuts)
    return _Text(key=key, tokens=tokens, spans=tuple(spans(len(tokens), window=window, stride=stride)), units=units)


def _divergence(backend: Backend, settings: PerplexityStage, context: Context, stack: ExitStack) -> _Divergence:
    """Open the writer or the reader of distributions, or say why there is none."""
    if settings.top_k == 0:
        return _Divergence(top_k=0, writer=None, reader=None, note=None)
    if not backend.info.has_logits:
        note = f"perplexity only: the {backend.info.name} backend gives no logits"
        return _Divergence(top_k=0, writer=None, reader=None, note=note)
    # one folder may serve several sources
    name = hashlib.sha256(f"{settings.name}/{settings.corpora[0].name}/{context.settings_digest}".encode()).hexdigest()
    folder = context.artifacts / f"distributions-{name[:16]}"
    if context.role is Role.BASELINE:
        top_k = min(settings.top_k, backend.info.vocabulary_size)
        writer = distributions.Writer(folder, k=top_k, settings_digest=context.settings_digest)
        return _Divergence(top_k=top_k, writer=stack.enter_context(writer), reader=None, note=None)
    try:
        reader = distributions.read(folder, settings_digest=context.settings_digest)
    except ArtifactError as error:
        return _Divergence(top_k=0, writer=None, reader=None, note=f"perplexity only: {error}")
    if reader.max_id >= backend.info.vocabulary_size:
        note = (
            f"perplexity only: the baseline's distributions name token {reader.max_id}, "
            f"beyond the candidate's vocabulary of {backend.info.vocabulary_size}"
        )
        return _Divergence(top_k=0, writer=None, reader=None, note=note)
    note = f"KL is a lower bound, from the baseline's {reader.k} most likely tokens and the mass of the others"
    return _Divergence(top_k=1, writer=None, reader=reader, note=note)


def _scored(
    backend: Backend, texts: Sequence[_Text], divergent: _Divergence
) -> Iterator[tuple[_Text, Mapping[str, NDArray[np.float64]]]]:
    """Each text with its values per scored token, by observed quantity."""
    windows = [window for text in texts for window in text.windows()]
    stored = [None if divergent.reader is None else divergent.reader.unit(t.key, t.n_scored) for t in texts]
    at_ids = None
    if divergent.reader is not None:
        # an absent text still needs ids, one row per token, for its windows' place in the list
        zeros = np.zeros((max(t.n_scored for t in texts), divergent.reader.k), dtype=np.int32)
        at_ids = [
            (zeros[: span.n_scored] if rows is None else _rows(rows, span)["ids"])
            for text, rows in zip(texts, stored, strict=True)
            for span in text.spans
        ]
    try:
        scores = backend.score(windows, top_k=divergent.top_k, at_ids=at_ids)
        for text, rows in zip(texts, stored, strict=True):
            parts: list[Mapping[str, NDArray[np.float64]]] = []
            for span, score in zip(text.spans, islice(scores, len(text.spans)), strict=True):
                parts.append(_token_values(score, None if rows is None else _rows(rows, span)))
                if divergent.writer is not None and score.top_ids is not None and score.top_logprobs is not None:
                    divergent.writer.append(score.top_ids, score.top_logprobs, -score.nll_nats)
            values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            if len(values[_NLL]) != text.n_scored:
                found = f"{len(values[_NLL])} scores for the {text.n_scored} tokens of {text.key}"
                raise CouldNotMeasure(f"the {backend.info.name} backend returned {found}, expected one for each")
            if divergent.writer is not None and np.isfinite(values[_NLL]).all():
                divergent.writer.close_unit(text.key, text.n_scored)
            yield text, values
    except OutOfMemory as error:
        longest = max(len(window.tokens) for window in windows)
        raise CouldNotMeasure(
            f"out of memory while scoring windows of up to {longest} tokens ({error}); use a smaller window or top_k"
        ) from error


def _rows(rows: NDArray[np.void], span: Span) -> NDArray[np.void]:
    """Stored rows of the tokens that a span scores; row 0 is the text's second token."""
    return rows[span.end - span.n_scored - 1 : span.end - 1]


def _token_values(score: WindowScores, rows: NDArray[np.void] | None) -> Mapping[str, NDArray[np.float64]]:
    nll_nats = score.nll_nats.astype(np.float64)
    if rows is None or score.top_ids is None or score.at_logprobs is None:
        return {_NLL: nll_nats}
    return {
        _NLL: nll_nats,
        _KL: divergence.kl_lower_bound_nats(rows["logprobs"], rows["tail"], score.at_logprobs),
        _AGREEMENT: (score.top_ids[:, 0] == rows["ids"][:, 0]).astype(np.float64),
        _DELTA_P: divergence.delta_p(rows["true_logprob"], nll_nats),
    }


def _observations(item_id: str, cluster: str, values: Mapping[str, NDArray[np.float64]]) -> Iterator[Observation]:
    for name, tokens in values.items():
        yield Observation(
            metric=name,
            item_id=item_id,
            value=math.fsum(tokens) / len(tokens),
            weight=float(len(tokens)),
            cluster=cluster,
            group=None,
        )


def _not_finite(item_id: str, values: Mapping[str, NDArray[np.float64]]) -> ItemFailure:
    counts = {name: int((~np.isfinite(tokens)).sum()) for name, tokens in values.items()}
    found = ", ".join(f"{name} of {count} tokens" for name, count in counts.items() if count)
    return ItemFailure(item_id=item_id, kind="not_finite", message=f"found NaN or infinity in {found}")


def _tail_percentiles(kl_nats: Sequence[NDArray[np.float64]]) -> Iterator[Observation]:
    """99th and 99.9th percentile of the tokens' KL, over all units."""
    if not kl_nats:
        return
    tokens = np.concatenate(kl_nats)
    for name, share in (("kl_p99_nats", 0.99), ("kl_p999_nats", 0.999)):
        value = float(np.quantile(tokens, share))
        yield Observation(metric=name, item_id="run/0", value=value, weight=1.0, cluster=None, group=None)
