"""The seeded sample of a data set: which items are asked, in which order, in which blocks.

Pure: the order follows from the seed and the items' own content.  Never the first N of a file, never a quota
per subject: one permutation over everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

from gate import units
from gate.errors import CouldNotMeasure
from gate.order import BLOCK_ITEMS

T = TypeVar("T")

BYTES_PER_TOKEN = 4
"""Of usual text and tokenizers; schedules follow this estimate and not a tokenizer, which costs time."""


def digest(*parts: str) -> str:
    """Hex SHA-256 over the parts, kept apart so that ("ab", "c") and ("a", "bc") differ."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def draw(keys: Sequence[str], *, seed: str, sample: str | int | None) -> list[int]:
    """Indices of the sampled items, in the seeded order.

    Args:
        keys: one key per item, made of its content; equal keys keep their order of appearance.
        seed: what the permutation derives from.
        sample: `20%`, a count (more than there are means all) or None for all.

    Raises:
        CouldNotMeasure: the sample is empty.
    """
    available = len(keys)
    if isinstance(sample, str):
        size = min(available, round(units.percent(sample) * available))
    else:
        size = available if sample is None else min(available, sample)
    if size < 1:
        asked = "all" if sample is None else repr(sample)
        raise CouldNotMeasure(f"found an empty sample ({asked} of {available} items), expected at least one item")
    return sorted(range(available), key=lambda i: (digest(seed, keys[i]), i))[:size]


def token_estimate(*texts: str) -> int:
    """About how many tokens the texts have together."""
    return -(-sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) // BYTES_PER_TOKEN)


def blocks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in runs of `BLOCK_ITEMS`."""
    for start in range(0, len(items), BLOCK_ITEMS):
        yield items[start : start + BLOCK_ITEMS]
