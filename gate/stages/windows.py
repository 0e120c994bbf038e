"""Sliding windows: which tokens go into the model together and which of them are scored.

Pure arithmetic on token counts: no tokenizer, no model, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Tokens [begin, end) of a sequence, of which the last `n_scored` are scored."""

    begin: int
    end: int
    n_scored: int


def spans(n_tokens: int, *, window: int, stride: int) -> Iterator[Span]:
    """Windows that score every token of a sequence but the first exactly once.

    The first window scores all its tokens but the first; each later one starts `stride` tokens further and
    scores only the tokens that are new, the last one what is left.  A scored token needs at least one token
    before it in its window, so a stride equal to the window advances by window - 1.

    Raises:
        ValueError: a window that cannot score anything, or a stride that would leave tokens unscored.
    """
    if window < 2 or not 1 <= stride <= window:
        raise ValueError(f"found window {window!r}, stride {stride!r}; expected window >= 2, 1 <= stride <= window")
    advance = min(stride, window - 1)
    begin, scored_to = 0, 1
    while scored_to < n_tokens:
        end = min(begin + window, n_tokens)
        yield Span(begin=begin, end=end, n_scored=end - scored_to)
        begin, scored_to = begin + advance, end


def tokens_per_document(max_tokens: int, n_documents: int) -> int:
    """How many leading tokens of each document spread `max_tokens` over the documents (rounded up)."""
    return -(-max_tokens // n_documents)


def blocks(n_scored: int, block_tokens: int) -> Iterator[slice]:
    """Consecutive slices of `block_tokens` scored tokens; the last one may be shorter."""
    for begin in range(0, n_scored, block_tokens):
        yield slice(begin, min(begin + block_tokens, n_scored))
