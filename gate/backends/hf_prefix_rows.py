"""Token sequences laid out as rows of one forward pass: packed into trees, on top of keys and values held before.

Runs no model.  What a token attends to is in the mask, where it stands is in its position id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from gate.backends.hf_prefix import KeyValues, Node, common

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """One row of a batch.

    Attributes:
        past: nodes whose keys and values come before its tokens, from the first on; empty: none.
        tokens: [n], those whose logits are read last.
        positions: [n], where each stands in its sequence.
        sees: [n, n], which tokens of the row each attends to; None: all up to itself, and there is no past.
        reads: per sequence, the places in the row whose logits are read.
    """

    past: tuple[Node, ...]
    tokens: NDArray[np.int32]
    positions: NDArray[np.int64]
    sees: NDArray[np.bool_] | None
    reads: tuple[NDArray[np.int64], ...]

    @property
    def past_tokens(self) -> int:
        return self.past[-1].end if self.past else 0

    @property
    def first_read(self) -> int:
        return min((int(places[0]) for places in self.reads), default=len(self.tokens) - 1)


def pack(past: Sequence[Node], sequences: Sequence[NDArray[np.int32]], n_read: Sequence[int]) -> Row:
    """Sequences that all begin with `past`, in sorted order: what neighbours share is there once.

    Args:
        n_read: per sequence, how many of its last positions are read; with `past` they come after it.
    """
    skip = past[-1].end if past else 0
    pieces: list[NDArray[np.int32]] = []
    positions: list[NDArray[np.int64]] = []
    branches: list[tuple[int, int]] = []  # (first new place, place of the token before it or -1)
    reads: list[NDArray[np.int64]] = []
    previous, path, n = np.empty(0, np.int32), np.empty(0, np.int64), 0
    for sequence, count in zip(sequences, n_read, strict=True):
        left = sequence[skip:]
        shared = common(previous, left)
        branches.append((n, int(path[shared - 1]) if shared else -1))
        pieces.append(left[shared:])
        positions.append(np.arange(skip + shared, skip + len(left)))
        path = np.concatenate([path[:shared], np.arange(n, n + len(left) - shared)])
        reads.append(path[len(path) - count :])
        previous, n = left, n + len(left) - shared
    tokens = np.concatenate(pieces)
    where = np.concatenate(positions)
    if not past and len(sequences) == 1:
        return Row(past=(), tokens=tokens, positions=where, sees=None, reads=tuple(reads))
    sees = np.zeros((n, n), np.bool_)
    for (first, before), piece in zip(branches, pieces, strict=True):
        end = first + len(piece)
        if before >= 0:
            sees[first:end, :first] = sees[before, :first]
        sees[first:end, first:end] = np.tri(len(piece), dtype=np.bool_)
    is_read = np.zeros(n, np.bool_)
    for places in reads:
        is_read[places] = True
    order = np.argsort(is_read, kind="stable")  # the mask allows any order, and logits are made for the last ones
    place = np.argsort(order)
    return Row(
        past=tuple(past),
        tokens=tokens[order],
        positions=where[order],
        sees=sees[np.ix_(order, order)],
        reads=tuple(place[places] for places in reads),
    )


class Batch:
    """Rows of one forward pass, padded to the longest.

    Without a past or a tree they begin together, and padding comes after, where no token looks.  Else they end
    together: the last places are those whose logits are read.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.longest = max(len(row.tokens) for row in rows)
        self.is_plain = all(row.sees is None for row in rows)
        self.shifts = [0 if self.is_plain else self.longest - len(row.tokens) for row in rows]
        self.first_read = min(row.first_read + shift for row, shift in zip(rows, self.shifts, strict=True))

    def inputs(self, device: torch.device, additive: torch.dtype | None) -> dict[str, Any]:
        """Arguments of the model's forward pass, but for the cache.

        Args:
            additive: type of a mask that is added to the attention's logits; None: a mask of booleans.
        """
        ids = np.zeros((len(self.rows), self.longest), np.int64)
        for i, (row, shift) in enumerate(zip(self.rows, self.shifts, strict=True)):
            ids[i, shift : shift + len(row.tokens)] = row.tokens
        inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids).to(device)}
        if self.is_plain:
            return inputs
        past = max(row.past_tokens for row in self.rows)
        positions = np.zeros_like(ids)
        mask = np.zeros((len(self.rows), 1, self.longest, past + self.longest), np.bool_)
        places = np.arange(self.longest)
        mask[:, 0, places, past + places] = True  # padding sees itself: a softmax over nothing is NaN
        for i, (row, shift) in enumerate(zip(self.rows, self.shifts, strict=True)):
            positions[i, shift:] = row.positions
            mask[i, 0, shift:, : row.past_tokens] = True
            mask[i, 0, shift:, past + shift :] = row.sees
        sees = torch.from_numpy(mask).to(device)
        if additive is not None:
            blocked = torch.full((), torch.finfo(additive).min, dtype=additive, device=device)
            sees = torch.where(sees, torch.zeros((), dtype=additive, device=device), blocked)
        return inputs | {"position_ids": torch.from_numpy(positions).to(device), "attention_mask": sees}


class HeldCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """What the rows' past nodes hold, for one forward pass; transformers' own caches grow even when told not to."""

    def __init__(self, batch: Batch, n_layers: int, *, keep_new: bool) -> None:
        self._batch = batch
        pasts = [[node.kv for node in row.past if node.kv is not None] for row in batch.rows]
        length = max(row.past_tokens for row in batch.rows)
        super().__init__(
            layers=[_HeldLayer([[kv[i] for kv in past] for past in pasts], length, keep_new) for i in range(n_layers)]
        )

    def new(self, row: int) -> KeyValues:
        """Keys and values of a row's tokens, copied out of the batch."""
        first = self._batch.shifts[row]
        at = (slice(row, row + 1), slice(None), slice(first, first + len(self._batch.rows[row].tokens)))
        return [(k[at].clone(), v[at].clone()) for k, v in (layer.new for layer in self.layers)]


class _HeldLayer(CacheLayerMixin):  # type: ignore[misc]
    is_sliding = False

    def __init__(self, pasts: list[list[tuple[torch.Tensor, torch.Tensor]]], length: int, keep_new: bool) -> None:
        super().__init__()
        self.is_initialized = True
        self.new: tuple[torch.Tensor, torch.Tensor] | None = None
        self._pasts = pasts
        self._length = length
        self._keep_new = keep_new

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """There is nothing to prepare."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self._keep_new:
            self.new = (key_states, value_states)
        if not self._length:
            return key_states, value_states
        return self._after_past(key_states, 0), self._after_past(value_states, 1)

    def _after_past(self, states: torch.Tensor, which: int) -> torch.Tensor:
        """`states` behind the pasts, which begin at place 0 and are padded up to the longest."""
        parts = [[pair[which] for pair in past] for past in self._pasts]
        if len(parts) == 1:
            return torch.cat([*parts[0], states], dim=2)
        batch, heads, n, size = states.shape
        together = states.new_zeros(batch, heads, self._length + n, size)
        together[:, :, self._length :] = states
        for row, past in enumerate(parts):
            at = 0
            for part in past:
                together[row, :, at : at + part.shape[2]] = part[0]
                at += part.shape[2]
        return together

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._length + query_length, 0

    def get_seq_length(self) -> int:
        return self._length

    def get_max_length(self) -> int:
        return -1
