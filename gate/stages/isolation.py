"""One bad item must not take the others with it: run a batch, and item by item when the batch raises.

Never turns a failure into a wrong answer, and never swallows the failure of everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gate.errors import CouldNotMeasure

T = TypeVar("T")
R = TypeVar("R")

MODEL_ERRORS = (AssertionError, RuntimeError, ValueError)
"""What an engine raises for a request that it cannot serve (too long, out of memory)."""

ITEM_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the code of a task raises on a document that it did not foresee."""

MAX_MESSAGE = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """Why an item has no result."""

    kind: str
    message: str


def failed(kind: str, error: BaseException) -> Failed:
    """The failure as a value: class name and first line of the error."""
    lines = str(error).strip().splitlines() or ["no message"]
    return Failed(kind=kind, message=f"{type(error).__name__}: {lines[0]}"[:MAX_MESSAGE])


def each(call: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | Failed]:
    """Results of `call(items)` in order; when it raises, of `call` on every item alone.

    Raises:
        CouldNotMeasure: the call returned another number of results than it was given items.
    """
    try:
        results = call(items)
    except MODEL_ERRORS as error:
        if len(items) == 1:
            out_of_memory = "OutOfMemory" in type(error).__name__
            return [failed("out_of_memory" if out_of_memory else "model_error", error)]
        return [result for item in items for result in each(call, [item])]
    if len(results) != len(items):
        raise CouldNotMeasure(f"found {len(results)} results for {len(items)} items, expected one for each")
    return list(results)
