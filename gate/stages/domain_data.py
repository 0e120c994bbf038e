"""The team's own test set: JSON Lines of `{id, input, expected, category, choices?}`, read strictly.

Reports every broken line at once.  No model, no torch; never skips or repairs a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate.errors import CouldNotMeasure, DataError

MAX_PROBLEMS = 20
MAX_LINE_BYTES = 1_000_000
FIELDS = "id, input, expected, category and optionally choices"

Expected = str | int | float | tuple[str, ...] | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One question.  `expected`: a text, a number, acceptable texts, or the fields of a JSON answer."""

    id: str
    input: str
    expected: Expected
    category: str
    choices: tuple[str, ...] | None


def read_items(path: Path, problem: Callable[[Item], str | None]) -> list[Item]:
    """All items of the file, in its order.

    Args:
        problem: what is wrong with an item for the way it will be matched, or None.

    Raises:
        DataError: no such file, or broken lines: every one (up to 20) with its number.
        CouldNotMeasure: the file holds no item.
    """
    if not path.is_file():
        raise DataError(f"found no file {str(path)!r}, expected JSON Lines of {{{FIELDS}}}")
    data = path.read_bytes()
    if not data.strip():
        raise CouldNotMeasure(f"{path} is empty: there is nothing to measure, expected at least one line")
    items: list[Item] = []
    problems: list[str] = []
    line_of: dict[str, int] = {}
    for number, line in _lines(data):
        try:
            item = _item(line)
            if item.id in line_of:
                raise ValueError(
                    f"found the id {item.id!r} again, expected unique ids (first on line {line_of[item.id]})"
                )
            line_of[item.id] = number
            if (wrong := problem(item)) is not None:
                raise ValueError(wrong)
        except ValueError as error:
            problems.append(f"  line {number}: {error}")
        else:
            items.append(item)
    if problems:
        count = "1 broken line" if len(problems) == 1 else f"{len(problems)} broken lines"
        shown = problems[:MAX_PROBLEMS]
        more = [f"  … and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        raise DataError("\n".join([f"{path}: {count}", *shown, *more]))
    return items


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    lines = data.split(b"\n")
    if not lines[-1].strip():
        lines.pop()  # the file ends with a newline, as it should
    yield from enumerate(lines, start=1)


def _item(line: bytes) -> Item:
    """Raises ValueError saying what was found and what was expected."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"found {len(line)} bytes, expected at most {MAX_LINE_BYTES}")
    if line.startswith(b"\xef\xbb\xbf"):
        raise ValueError("found a byte order mark, expected UTF-8 without one: save the file again")
    if not line.strip():
        raise ValueError("found an empty line, expected an object")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"found byte 0x{line[error.start]:02x} at column {error.start + 1}, expected UTF-8") from error
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"found invalid JSON at column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("found JSON nested too deeply, expected an object with plain fields") from error
    if not isinstance(value, dict):
        raise ValueError(f"found {_kind(value)}, expected an object with {FIELDS}")
    missing = [name for name in ("id", "input", "expected", "category") if name not in value]
    if missing:
        raise ValueError(f"found no {' and no '.join(map(repr, missing))}, expected the fields {FIELDS}")
    if _has_surrogate(value):
        raise ValueError("found half of a surrogate pair (\\ud800…\\udfff), expected whole characters")
    identifier = value["id"]
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    return Item(
        id=_text("id", identifier),
        input=_text("input", value["input"]),
        expected=_expected(value["expected"]),
        category=_text("category", value["category"]),
        choices=_choices(value.get("choices")),
    )


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"found {name} = {_shown(value)}, expected a text that is not empty")
    return value


def _expected(value: Any) -> Expected:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
        return tuple(value)
    raise ValueError(f"found expected = {_shown(value)}, expected a text, a number, a list of texts or an object")


def _choices(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(entry, str) and entry.strip() for entry in value):
        raise ValueError(f"found choices = {_shown(value)}, expected a list of texts")
    if len(set(value)) < max(2, len(value)):
        raise ValueError(f"found choices = {_shown(value)}, expected at least two, all different")
    return tuple(value)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"found the key {twice!r} twice in one object, expected it once")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"found {name}, expected a JSON number")


def _has_surrogate(value: Any) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in json.dumps(value, ensure_ascii=False))


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a truth value"}
    return kinds.get(type(value), "null")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
