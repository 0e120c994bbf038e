"""JSON from a stranger → plain data, or one sentence why not: every parser that follows must read the same thing.

Knows JSON and its traps, nothing of checkpoints.  Opens no file.
"""

from __future__ import annotations

import codecs
import json
import math
from collections import Counter
from typing import Any, NoReturn

from gate.errors import CheckpointError, Refused

MAX_DEPTH = 64
"""Levels of nesting; honest configurations have under ten."""

_SHOWN_CHARACTERS = 120


def parse(raw: bytes, where: str) -> Any:
    """The document in `raw`; `where` begins the message.

    Raises:
        CheckpointError: not JSON, or not in UTF-8.
        Refused: a name twice in one object, NaN, a number or a nesting that other parsers choke on or read otherwise.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise Refused(f"{where} names {shown(twice)} twice in one object, and readers disagree on which one counts")
        return found

    def constant(text: str) -> NoReturn:
        raise Refused(f"{where} holds {shown(text)}, expected finite numbers: JSON has no others")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else constant(text)

    if raw.startswith(codecs.BOM_UTF8):
        raise CheckpointError(f"{where} begins with a byte order mark, expected plain UTF-8: write it without one")
    try:
        document = json.loads(str(raw, "utf-8"), object_pairs_hook=unique, parse_constant=constant, parse_float=finite)
    except RecursionError as problem:
        raise _too_deep(where) from problem
    except UnicodeDecodeError as problem:
        raise CheckpointError(f"{where} is not text in UTF-8 ({problem.reason}): download it again") from problem
    except json.JSONDecodeError as problem:
        raise CheckpointError(f"{where} is not readable JSON ({problem}): download it again") from problem
    except ValueError as problem:  # Python's limit on the digits of an integer
        raise Refused(
            f"{where} holds a number with thousands of digits, expected numbers that mean something"
        ) from problem
    _check_depth(document, where)
    return document


def shown(value: object) -> str:
    """A value from a stranger as part of a message: printable and short."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _check_depth(document: Any, where: str) -> None:
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _too_deep(where)


def _too_deep(where: str) -> Refused:
    return Refused(f"{where} is nested deeper than {MAX_DEPTH} levels, expected a configuration or a tokenizer")
