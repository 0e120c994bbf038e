"""Markdown within a number of bytes: as many lines, and as many sections, as fit, and how many do not.

Pure: str → str.  What is left out is always the last or the least important, and always counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gate.reports import escape, numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a page.  The highest `rank` is left out first; 0 never is."""

    text: str
    rank: int


def size(text: str) -> int:
    """Bytes of a text as it will be written."""
    return len(escape.workflow(text).encode())


def joined(sections: Iterable[Section]) -> str:
    return escape.workflow("\n\n".join(s.text for s in sections if s.text) + "\n")


def lines(found: Sequence[str], budget_bytes: int, noun: str, where: str = "in report.html") -> list[str]:
    """As many lines from the front as fit, and how many do not."""
    kept, used = 0, 0
    for one in found:
        used += size(one) + 1
        if used > budget_bytes:
            break
        kept += 1
    left = len(found) - kept
    return [*found[:kept], *([f"\n… and {numbers.count(left, noun)} more {where}."] if left else [])]


def sections(found: Iterable[Section], max_bytes: int) -> list[Section]:
    """The sections in their order, without the least important ones that are too much.

    Raises:
        ValueError: those that must be there are too large.
    """
    kept = [s for s in found if s.text]
    while size(joined(kept)) > max_bytes:
        least = max(kept, key=lambda s: s.rank, default=None)
        if least is None or least.rank == 0:
            raise ValueError(f"a summary has {size(joined(kept))} bytes, expected at most {max_bytes}")
        kept.remove(least)
    return kept
