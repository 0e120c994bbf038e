"""How fast a machine scores items, given by whoever measured it, and the minutes that follow.

Pure.  Measures nothing and assumes nothing: without a speed there are no minutes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """One of the two is given, or neither.

    Attributes:
        items_per_second: benchmark items of any task.
        tokens_per_second: tokens of prompts and answers together, at the batch size of the run.

    Raises:
        ValueError: both are given, or one is not positive.
    """

    items_per_second: float | None
    tokens_per_second: float | None

    def __post_init__(self) -> None:
        given = [value for value in (self.items_per_second, self.tokens_per_second) if value is not None]
        if len(given) > 1 or not all(value > 0 for value in given):
            raise ValueError(
                f"found {self.items_per_second!r} items and {self.tokens_per_second!r} tokens per second, "
                "expected one of the two, above 0"
            )

    def minutes(self, *, items: float, tokens_per_item: float | None) -> float | None:
        """Minutes that `items` take; None where the speed, or what an item costs, is not known."""
        if self.items_per_second is not None:
            return items / self.items_per_second / 60
        if self.tokens_per_second is not None and tokens_per_item is not None:
            return items * tokens_per_item / self.tokens_per_second / 60
        return None


UNKNOWN = Speed(items_per_second=None, tokens_per_second=None)
