"""Log-likelihoods of continuations, every shared stretch of their contexts computed once: few-shot examples, question.

Scores token ids as they come; encoding and cutting to the context length are lm-eval's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch

from gate.backends import OutOfMemory
from gate.backends.hf_memory import Batches, is_out_of_memory, release
from gate.backends.hf_prefix import WORTH_TOKENS, Node, PrefixStore, common, size_bytes
from gate.backends.hf_prefix_rows import Batch, HeldCache, Row, pack
from gate.backends.hf_score import logits_of_last, rope_limits, token_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a context and of its continuation, both not empty."""

TOKENS_PER_ROW = {"cpu": 512, "cuda": 1024}
TOKENS_PER_BATCH = {"cpu": 512, "cuda": 16384}
MAX_SEQUENCES = 256

_MOST_PADDING = 0.25
"""Share of a row of a batch, above a few tokens."""

_LITTLE_PAST = 8
"""A sequence that is so many times longer than what is held of its beginning runs without it, and without a mask."""


@dataclass(eq=False, slots=True)
class Input:
    """A distinct token sequence (without its last token, which is only predicted) and the requests that it answers."""

    tokens: NDArray[np.int32]
    is_cut: bool
    """Its beginning is missing, and so begins like no other."""
    requests: list[tuple[int, NDArray[np.int64]]] = field(default_factory=list)
    """(request, its continuation)."""
    context: Node | None = None
    """Where the tokens before the first position that is read end; None: not shared with anything."""

    @property
    def n_read(self) -> int:
        return max(len(continuation) for _, continuation in self.requests)

    def held(self) -> list[Node]:
        """The first nodes of the context whose keys and values are at hand."""
        nodes = [] if self.context is None else self.context.path()
        return nodes[: next((i for i, node in enumerate(nodes) if node.kv is None), len(nodes))]


class RequestScorer:
    """Scores of pairs of token ids; keeps prefixes from call to call.

    Attributes:
        shared_tokens: up to this length sequences share what they have in common; 0: they never do.
        even_tokens: longer sequences have other positions (longrope), so no batch has both kinds.
        computed_tokens: sent through the model so far, padding included.
    """

    def __init__(
        self, model: PreTrainedModel, context_length: int, *, batch_size: int | None, budget_bytes: int
    ) -> None:
        """With a `batch_size`, so many sequences at once; else as many as `TOKENS_PER_BATCH` holds."""
        self.shared_tokens = 0
        self.even_tokens = min((context_length, *rope_limits(model.config)))
        self.computed_tokens = 0
        self.store = PrefixStore(budget_bytes)
        self._model = model
        self._context_length = context_length
        self._n_layers: int = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", 0)
        self._bytes_per_token = 0
        kind = model.device.type
        self._tokens_per_row = TOKENS_PER_ROW.get(kind, 512)
        self._tokens_per_batch = None if batch_size else TOKENS_PER_BATCH.get(kind, 512)
        self._batches = Batches(batch_size or MAX_SEQUENCES)
        # eager attention adds its mask to the logits; the others take booleans
        self._additive = model.dtype if model.config._attn_implementation == "eager" else None

    def score(self, pairs: Sequence[Pair], *, share: bool) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, is it the greedy one) of each continuation given its context, in order.

        What does not fit the context length is cut on the left, as lm-eval does.  Raises OutOfMemory.

        Args:
            share: contexts may have beginnings in common, with each other or with those of other calls.
        """
        self.store.forget()
        inputs = self._distinct(pairs)
        for one in inputs:
            if share and not one.is_cut and one.n_read < len(one.tokens) <= self.shared_tokens:
                one.context = self.store.add(one.tokens[: len(one.tokens) - one.n_read])
        answers: dict[int, tuple[float, bool]] = {}
        for some, wanted in self._portions(inputs):
            self._hold(wanted)
            self._answer(some, answers)
        return [answers[i] for i in range(len(pairs))]

    def _distinct(self, pairs: Sequence[Pair]) -> list[Input]:
        """In an order that brings together what begins alike."""
        found: dict[tuple[int, ...], Input] = {}
        for i, (context, continuation) in enumerate(pairs):
            whole = [*context, *continuation][:-1]
            tokens = tuple(whole[-self._context_length :])
            if tokens not in found:
                found[tokens] = Input(np.array(tokens, np.int32), len(tokens) < len(whole))
            found[tokens].requests.append((i, np.array(continuation, np.int64)))
        return [found[tokens] for tokens in sorted(found)]

    def _portions(self, inputs: Sequence[Input]) -> Iterator[tuple[list[Input], list[Node]]]:
        """Inputs whose prefixes fit into the budget together, and those prefixes, shortest first."""
        some: list[Input] = []
        wanted: dict[Node, None] = {}
        total_bytes = 0
        for one in inputs:
            nodes = [] if one.context is None else one.context.path()
            while nodes and not nodes[-1].is_worth_keeping:
                nodes.pop()
            if self._size_bytes(nodes) > self.store.budget_bytes:
                nodes = []
            more_bytes = self._size_bytes(node for node in nodes if node not in wanted)
            if total_bytes + more_bytes > self.store.budget_bytes:
                yield some, list(wanted)
                some, wanted, total_bytes = [], {}, 0
                more_bytes = self._size_bytes(nodes)
            some.append(one)
            wanted |= dict.fromkeys(nodes)
            total_bytes += more_bytes
        yield some, list(wanted)

    def _size_bytes(self, nodes: Iterable[Node]) -> int:
        return sum(len(node.tokens) for node in nodes) * self._bytes_per_token

    def _hold(self, wanted: Sequence[Node]) -> None:
        """Compute the keys and values of nodes; without memory for them, go without."""
        self.store.tick()
        self.store.touch(wanted)
        if not self.store.make_room(self._size_bytes(node for node in wanted if node.kv is None)):
            return
        while ready := [n for n in wanted if n.kv is None and all(p.kv is not None for p in n.path()[:-1])]:
            ready.sort(key=lambda n: (n.start > 0, -len(n.tokens)))
            longest = len(ready[0].tokens)
            batch = [n for n in ready[: self._fitting(longest)] if (n.start > 0) == (ready[0].start > 0)]
            try:
                self._batches.attempt(partial(self._compute, batch), len(batch))
            except OutOfMemory:
                self._retreat()
                return

    def _fitting(self, longest: int) -> int:
        """How many rows of `longest` tokens go together while memory lasts."""
        size = self._batches.size
        return size if self._tokens_per_batch is None else max(1, min(size, self._tokens_per_batch // longest))

    def _retreat(self) -> None:
        """Memory is short: give what is held back, and hold less from now on."""
        self.store.clear()
        self.store.budget_bytes //= 2

    def _compute(self, nodes: Sequence[Node]) -> bool:
        paths = [node.path() for node in nodes]
        rows = [pack(path[:-1], [np.concatenate([n.tokens for n in path])], [1]) for path in paths]
        _, cache = self._forward(Batch(rows), 1, keep_new=True)
        for i, node in enumerate(nodes):
            kv = cache.new(i)
            self._bytes_per_token = size_bytes(kv) // len(node.tokens)
            self.store.put(node, kv)
        return True

    def _answer(self, inputs: Sequence[Input], answers: dict[int, tuple[float, bool]]) -> None:
        left = list(inputs)
        while left:
            for batch in self._planned(left):
                found = self._attempt(batch)
                if found is None:
                    break
                answers.update(found)
            left = [one for one in left if one.requests[0][0] not in answers]

    def _attempt(self, batch: list[tuple[Row, list[Input]]]) -> dict[int, tuple[float, bool]] | None:
        """Scores of a batch; None when it ran out of memory and there is now more of it, or less in a batch.

        What is held goes first.  Raises OutOfMemory.
        """
        if self.store.held_bytes:
            try:
                return self._scores(batch)
            except (RuntimeError, MemoryError) as problem:
                if not is_out_of_memory(problem):
                    raise
            self._retreat()
            release()
            return None
        return self._batches.attempt(partial(self._scores, batch), sum(len(members) for _, members in batch))

    def _planned(self, inputs: Sequence[Input]) -> list[list[tuple[Row, list[Input]]]]:
        """Batches of rows, each with the inputs that it answers."""
        rows = list(self._rows(inputs))

        def kind(row: tuple[Row, list[Input]]) -> tuple[bool, bool]:
            return row[0].sees is None, row[0].sees is None and len(row[0].tokens) > self.even_tokens

        rows.sort(key=lambda row: (kind(row), -len(row[0].tokens)))
        batches: list[list[tuple[Row, list[Input]]]] = []
        for _, alike in groupby(rows, key=kind):
            batch: list[tuple[Row, list[Input]]] = []
            n_sequences = past = 0
            for row, members in alike:
                longest = len(batch[0][0].tokens) if batch else 0
                if batch and (
                    n_sequences + len(members) > self._batches.size
                    or len(batch) >= self._fitting(longest)
                    or longest - len(row.tokens) > max(WORTH_TOKENS, _MOST_PADDING * longest)
                    or max(past, row.past_tokens) + longest > self._context_length
                ):
                    batches.append(batch)
                    batch, n_sequences, past = [], 0, 0
                batch.append((row, members))
                past = max(past, row.past_tokens)
                n_sequences += len(members)
            batches.append(batch)
        return batches

    def _rows(self, inputs: Sequence[Input]) -> Iterator[tuple[Row, list[Input]]]:
        """Neighbours on the same held prefix share a row while it is short; choices of one context always do."""
        members: list[Input] = []
        past: list[Node] = []
        n_tokens = 0
        for one in inputs:
            held = one.held()
            skip = held[-1].end if held else 0
            n_new = len(one.tokens) - (max(skip, common(members[-1].tokens, one.tokens)) if members else skip)
            if members:
                is_family = one.context is not None and one.context is members[-1].context
                is_neighbour = bool(held) and held == past and n_tokens + n_new <= self._tokens_per_row
                # some models have masks of the context's length and no longer ones
                is_too_wide = skip + n_tokens + n_new > self._context_length
                if len(members) >= self._batches.size or is_too_wide or not (is_family or is_neighbour):
                    yield self._row(past, members), members
                    members, n_tokens, n_new = [], 0, len(one.tokens) - skip
            past = held
            members = [*members, one]
            n_tokens += n_new
        yield self._row(past, members), members

    def _row(self, past: Sequence[Node], members: Sequence[Input]) -> Row:
        if len(members) == 1 and past and past[-1].end * _LITTLE_PAST < len(members[0].tokens):
            past = ()
        return pack(past, [one.tokens for one in members], [one.n_read for one in members])

    def _scores(self, planned: Sequence[tuple[Row, list[Input]]]) -> dict[int, tuple[float, bool]]:
        batch = Batch([row for row, _ in planned])
        logits, _ = self._forward(batch, batch.longest - batch.first_read, keep_new=False)
        missing = batch.longest - logits.shape[1]
        wanted = [
            (request, np.full(len(continuation), i), places[-len(continuation) :] + shift - missing, continuation)
            for i, ((row, members), shift) in enumerate(zip(planned, batch.shifts, strict=True))
            for one, places in zip(members, row.reads, strict=True)
            for request, continuation in one.requests
        ]
        which, places, targets = (np.concatenate([w[k] for w in wanted]) for k in (1, 2, 3))
        logprobs, greedy = token_scores(logits, which, places, targets)
        ends = np.cumsum([len(w[3]) for w in wanted])[:-1]
        parts = zip(wanted, np.split(logprobs, ends), np.split(greedy, ends), strict=True)
        return {w[0]: (float(some.sum()), bool(all_greedy.all())) for w, some, all_greedy in parts}

    @torch.inference_mode()
    def _forward(self, batch: Batch, keep: int, *, keep_new: bool) -> tuple[torch.Tensor, HeldCache]:
        """Logits of at least the last `keep` places: [rows, places, vocabulary]."""
        inputs = batch.inputs(self._model.device, self._additive)
        self.computed_tokens += inputs["input_ids"].numel()
        cache = HeldCache(batch, self._n_layers, keep_new=keep_new)
        is_cached = keep_new or not batch.is_plain
        if is_cached:
            inputs["past_key_values"] = cache
        return self._model(**inputs, use_cache=is_cached, **logits_of_last(self._model, keep)).logits, cache
