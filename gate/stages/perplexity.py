"""The perplexity stage: sliding-window NLL per document, and divergence from the baseline where logits are available.

Measures, never judges.  Sums token NLLs and divides by the number of scored tokens; it never averages window losses
(a library's `loss` is the mean over *shifted* labels, so window means weigh tokens unequally).

What is scored, and in which order, is planned in `texts`.  With planned looks every value is cumulative: at look T a
document is observed over all its tokens up to T, each of which was scored once, at the first look that reaches it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from gate import units
from gate.backends import Backend, OutOfMemory, WindowScores
from gate.errors import ArtifactError, CouldNotMeasure
from gate.metrics import PERPLEXITY
from gate.policy import PerplexityStage
from gate.records import ItemFailure, Measurement, Observation, Role
from gate.stages import Context, distributions, divergence, texts
from gate.stages import corpus as corpora
from gate.stages.texts import Look, Piece, Unit
from gate.stages.windows import Span

_PART_DOCUMENTS = 32

_NLL, _KL, _AGREEMENT, _DELTA_P = "nll_nats", "kl_nats", "top1_agreement", "delta_p"

Values = Mapping[str, NDArray[np.float64]]
"""Observed quantity → its value at each scored token."""


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
    """Score the one corpus of `settings`, look after look and a few documents at a time.

    The baseline reports NLL and writes its distributions to `context.artifacts`; the candidate reads them and reports
    KL (a lower bound), top-1 agreement and Δp too.  Without them it reports NLL alone and notes why.

    With planned looks, what belongs to look T has the group `look=T`, and its item ids end with `/look=T`; documents
    count as reached at the first look.

    Raises:
        DataError: the corpus is missing or broken.
        CouldNotMeasure: it is empty, nothing in it can be scored, or a window does not fit in memory.
    """
    (corpus,) = settings.corpora
    started = perf_counter()
    plan = texts.plan(backend, corpus, context)
    notes = list(plan.notes)
    first, last = plan.looks[0], plan.looks[-1]
    n_expected = sum(len(text.units(first)) for text in plan.texts)
    with ExitStack() as stack:
        divergent = _divergence(backend, settings, context, stack, sum(text.n_scored(last) for text in plan.texts))
        if divergent.note is not None:
            notes.append(divergent.note)
        metrics = tuple(PERPLEXITY.values()) if divergent.reader is not None else (PERPLEXITY["perplexity"],)
        known: dict[str, Values] = {}
        for n_looks, (before, look) in enumerate(pairwise((None, *plan.looks))):
            assert look is not None  # only `before` may be
            kl_nats: list[NDArray[np.float64]] = []
            for begin in range(0, len(plan.texts), _PART_DOCUMENTS):
                batch = plan.texts[begin : begin + _PART_DOCUMENTS]
                pieces = [text.piece(before, look) for text in batch]
                observations: list[Observation] = []
                failures: list[ItemFailure] = []
                done = n_looks * len(plan.texts) + begin
                for text, added in zip(batch, _scored(backend, pieces, divergent), strict=True):
                    values = _joined(known.get(text.key), added)
                    if look is not last:
                        known[text.key] = values
                    for unit in text.units(look):
                        cut = {name: tokens[unit.tokens] for name, tokens in values.items()}
                        if all(np.isfinite(tokens).all() for tokens in cut.values()):
                            observations += _observations(unit, look, cut)
                            kl_nats += [cut[_KL]] if _KL in cut else []
                        else:
                            failures.append(_not_finite(unit.item_id, cut))
                    done += 1
                    context.progress(done, len(plan.looks) * len(plan.texts), corpus.name)
                if begin + _PART_DOCUMENTS >= len(plan.texts):
                    observations += _tail_percentiles(kl_nats, look)
                    if look is last and divergent.writer is not None:
                        divergent.writer.finish()
                yield Measurement(
                    stage=settings.name,
                    source=corpus.name,
                    role=context.role,
                    settings_digest=context.settings_digest,
                    n_expected=n_expected,
                    n_available=n_expected,
                    n_reached=sum(len(text.units(look)) for text in batch) if look is first else 0,
                    planned_tokens=sum(piece.n_scored for piece in pieces),
                    chance=None,
                    metrics=metrics,
                    observations=tuple(observations),
                    failures=tuple(failures),
                    answers=(),
                    seconds=perf_counter() - started,
                    notes=tuple(notes),
                )
                started = perf_counter()


def _divergence(
    backend: Backend, settings: PerplexityStage, context: Context, stack: ExitStack, n_tokens: int
) -> _Divergence:
    """Open the writer or the reader of the distributions of `n_tokens`, or say why there is none."""
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
        kept: str | None = None
        if settings.max_store is not None:
            fitting = distributions.largest_k(units.size_bytes(settings.max_store), n_tokens)
            if fitting < top_k:
                kept = f"max_store {settings.max_store}: {fitting} of {top_k} log-probabilities a token kept"
                top_k = fitting
        if top_k < 1:
            note = f"perplexity only: max_store {settings.max_store} has no room for {n_tokens:,} tokens' distributions"
            return _Divergence(top_k=0, writer=None, reader=None, note=note)
        writer = distributions.Writer(folder, k=top_k, settings_digest=context.settings_digest)
        return _Divergence(top_k=top_k, writer=stack.enter_context(writer), reader=None, note=kept)
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
    note = (
        f"KL is a lower bound, from the baseline's {reader.k} most likely tokens and the mass of the others, "
        f"kept in float32 ({len(reader.rows) * reader.rows.dtype.itemsize / 2**20:,.1f} MiB)"
    )
    return _Divergence(top_k=1, writer=None, reader=reader, note=note)


def _scored(backend: Backend, pieces: Sequence[Piece], divergent: _Divergence) -> Iterator[Values | None]:
    """Each piece's values per scored token; None for a piece without any."""
    windows = [window for piece in pieces for window in piece.windows()]
    stored = [None if divergent.reader is None else divergent.reader.unit(p.key, p.n_scored) for p in pieces]
    at_ids = None
    if divergent.reader is not None:
        # an absent piece still needs ids, one row per token, for its windows' place in the list
        zeros = np.zeros((max(p.n_scored for p in pieces), divergent.reader.k), dtype=np.int32)
        at_ids = [
            (zeros[: span.n_scored] if rows is None else rows["ids"][cut])
            for piece, rows in zip(pieces, stored, strict=True)
            for span, cut in _cuts(piece)
        ]
    try:
        scores = backend.score(windows, top_k=divergent.top_k, at_ids=at_ids)
        for piece, rows in zip(pieces, stored, strict=True):
            parts: list[Values] = []
            for (_, cut), score in zip(_cuts(piece), islice(scores, len(piece.spans)), strict=True):
                parts.append(_token_values(score, None if rows is None else rows[cut]))
                if divergent.writer is not None and score.top_ids is not None and score.top_logprobs is not None:
                    divergent.writer.append(score.top_ids, score.top_logprobs, -score.nll_nats)
            if not parts:
                yield None
                continue
            values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            if len(values[_NLL]) != piece.n_scored:
                found = f"{len(values[_NLL])} scores for the {piece.n_scored} tokens of {piece.key}"
                raise CouldNotMeasure(f"the {backend.info.name} backend returned {found}, expected one for each")
            if divergent.writer is not None and np.isfinite(values[_NLL]).all():
                divergent.writer.close_unit(piece.key, piece.n_scored)
            yield values
    except OutOfMemory as error:
        longest = max(len(window.tokens) for window in windows)
        raise CouldNotMeasure(
            f"out of memory while scoring windows of up to {longest} tokens ({error}); use a smaller window or top_k"
        ) from error


def _cuts(piece: Piece) -> Iterator[tuple[Span, slice]]:
    """Each window with its place among the piece's stored rows, one for each scored token."""
    at = 0
    for span in piece.spans:
        yield span, slice(at, at + span.n_scored)
        at += span.n_scored


def _joined(known: Values | None, added: Values | None) -> Values:
    """Values up to a look; a quantity that any piece lacks is not known of the whole."""
    if known is None or added is None:
        return known or added or {}
    return {name: np.concatenate([known[name], added[name]]) for name in known if name in added}


def _token_values(score: WindowScores, rows: NDArray[np.void] | None) -> Values:
    nll_nats = score.nll_nats.astype(np.float64)
    if rows is None or score.top_ids is None or score.at_logprobs is None:
        return {_NLL: nll_nats}
    return {
        _NLL: nll_nats,
        _KL: divergence.kl_lower_bound_nats(rows["logprobs"], rows["tail"], score.at_logprobs),
        _AGREEMENT: divergence.top1_agreement(rows["ids"], rows["logprobs"], score.top_ids[:, 0]),
        _DELTA_P: divergence.delta_p(rows["true_logprob"], nll_nats),
    }


def _observations(unit: Unit, look: Look, values: Values) -> Iterator[Observation]:
    for name, tokens in values.items():
        yield Observation(
            metric=name,
            item_id=unit.item_id,
            value=math.fsum(tokens) / len(tokens),
            weight=float(len(tokens)),
            cluster=unit.cluster,
            group=look.group,
        )


def _not_finite(item_id: str, values: Values) -> ItemFailure:
    counts = {name: int((~np.isfinite(tokens)).sum()) for name, tokens in values.items()}
    found = ", ".join(f"{name} of {count} tokens" for name, count in counts.items() if count)
    return ItemFailure(item_id=item_id, kind="not_finite", message=f"found NaN or infinity in {found}")


def _tail_percentiles(kl_nats: Sequence[NDArray[np.float64]], look: Look) -> Iterator[Observation]:
    """99th and 99.9th percentile of the tokens' KL, over all units, at a look."""
    if not kl_nats:
        return
    tokens = np.concatenate(kl_nats)
    for name, share in (("kl_p99_nats", 0.99), ("kl_p999_nats", 0.999)):
        value = float(np.quantile(tokens, share))
        yield Observation(
            metric=name, item_id=look.name("run/0"), value=value, weight=1.0, cluster=None, group=look.group
        )
