"""Is an answer right?  Exact, contains on word boundaries, regex, numeric, JSON fields; one rule per kind.

Pure.  A wrong answer is False; a comparison that could not be carried out raises `MatchTimeout`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, assert_never

import regex  # type: ignore[import-untyped]

from gate.policy import DomainStage
from gate.stages.domain_data import Item

REGEX_SECONDS = 2.0
"""A pattern that needs longer on one answer is catastrophic: the item is lost, the run goes on."""

_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]])[-−–])?(?:[$€£¥₹]\s?)?(?P<inner>(?<=[$€£¥₹])[-−–])?"
    r"(?<![A-Za-z_.\d])(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?P<exponent>[eE][+-]?\d{1,3}(?!\d))?"
)
_SCRIPTS_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR")


class MatchTimeout(Exception):
    """The item's pattern did not finish on the answer in time."""


def problem(settings: DomainStage, item: Item) -> str | None:
    """What makes an item unfit for the stage's kind of match, or None."""
    expected = item.expected
    match settings.match:
        case "exact" | "contains":
            if isinstance(expected, Mapping):
                return f"found an object as expected, expected a text or a list of texts (match: {settings.match})"
            if any(not text.strip() for text in texts(item)):
                return f"found an empty text as expected: every answer or none would match (match: {settings.match})"
        case "regex":
            if not isinstance(expected, str) or not expected:
                return "found expected that is not a text, expected a pattern (match: regex)"
            try:
                regex.compile(expected)
            except regex.error as error:
                return f"found the pattern {expected!r}, which does not compile: {error}"
        case "numeric":
            if isinstance(expected, tuple | Mapping) or number(_plain(expected)) is None:
                return f"found expected = {expected!r}, expected a number (match: numeric)"
        case "choice":
            if item.choices is None:
                return "found no choices, expected a list of them (match: choice)"
            if expected not in item.choices:
                return f"found expected = {expected!r}, expected one of the choices {list(item.choices)!r}"
        case "json":
            if not isinstance(expected, Mapping) or not expected:
                return "found expected that is not an object with fields (match: json)"
            missing = [name for name in settings.json_fields or () if name not in expected]
            if missing:
                return f"found no {missing[0]!r} in expected, expected every field of json_fields"
        case _:
            assert_never(settings.match)
    return None


def is_right(settings: DomainStage, item: Item, answer: str) -> bool:
    """Whether the answer is right, for every kind of match but `choice`.

    Raises:
        MatchTimeout: the pattern ran for too long.
    """
    match settings.match:
        case "exact":
            return answer.strip() in {text.strip() for text in texts(item)}
        case "contains":
            return any(contains(answer, text) for text in texts(item))
        case "regex":
            return matches(str(item.expected), answer)
        case "numeric":
            return is_close(answer, _plain(item.expected), settings.tolerance)
        case "json":
            assert isinstance(item.expected, Mapping)  # `problem` has seen to it
            return has_fields(answer, item.expected, settings.json_fields)
        case "choice":
            raise ValueError("choices are scored by log-likelihood: there is no answer to look at")
        case _:
            assert_never(settings.match)


def texts(item: Item) -> tuple[str, ...]:
    """The acceptable answers of an item as texts."""
    return item.expected if isinstance(item.expected, tuple) else (_plain(item.expected),)


def _plain(expected: object) -> str:
    return (
        expected if isinstance(expected, str) else json.dumps(expected, ensure_ascii=False, sort_keys=True, default=str)
    )


def contains(answer: str, wanted: str) -> bool:
    """Whether `wanted` stands in `answer` as whole words, whatever the case.

    A boundary is asked for only where `wanted` begins or ends with a letter or digit.  Combining marks belong
    to their letter, `3.5` and `1,500` are one word each, and scripts that write no spaces need no boundary.
    """
    text, needle = (unicodedata.normalize("NFC", s).casefold() for s in (answer, wanted.strip()))
    start = text.find(needle)
    while needle and start >= 0:
        if _is_boundary(text, start, before=True) and _is_boundary(text, start + len(needle), before=False):
            return True
        start = text.find(needle, start + 1)
    return False


def _is_boundary(text: str, at: int, *, before: bool) -> bool:
    """Whether a word may begin (`before`) or end at position `at`."""
    if at in (0, len(text)):
        return True
    outside, inside = (text[at - 1], text[at]) if before else (text[at], text[at - 1])
    if not _is_word(inside):
        return True
    if _is_word(outside):
        return any(unicodedata.name(c, "").startswith(_SCRIPTS_WITHOUT_SPACES) for c in (outside, inside))
    if not (inside.isdigit() and outside in ".,"):
        return True
    # a decimal point or a thousands separator with digits on both sides is inside a number
    left, right = (text[: at - 1], text[at:]) if before else (text[:at], text[at + 1 :])
    pattern = r"\d" if outside == "." else r"\d{3}(?!\d)"
    return not (left[-1:].isdigit() and re.match(pattern, right))


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")


def matches(pattern: str, answer: str) -> bool:
    """Whether the pattern is found anywhere in the answer.  Raises MatchTimeout."""
    try:
        return regex.search(pattern, answer, timeout=REGEX_SECONDS) is not None
    except TimeoutError as error:
        raise MatchTimeout(f"the pattern {pattern!r} did not finish within {REGEX_SECONDS} s on the answer") from error


def number(text: str) -> Decimal | None:
    """The last number in a text: `1,234.5`, `−3`, `-$5`, `12%` (as 12), `1e-3`; None when there is none."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    last = found[-1]
    value = Decimal(last["digits"].replace(",", "") + (last["exponent"] or ""))
    return -value if last["sign"] or last["inner"] else value


def is_close(answer: str, expected: str, tolerance: float) -> bool:
    """Whether the answer's last number differs from the expected one by at most the tolerance (decimal arithmetic)."""
    found, wanted = number(answer), number(expected)
    return found is not None and wanted is not None and abs(found - wanted) <= Decimal(str(tolerance))


def first_object(answer: str) -> dict[str, Any] | None:
    """The first JSON object in a text, or None."""
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    start = answer.find("{")
    while start >= 0:
        try:
            value, _ = decoder.raw_decode(answer, start)
        except (ValueError, RecursionError):
            start = answer.find("{", start + 1)
        else:
            return dict(value)
    return None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def has_fields(answer: str, expected: Mapping[str, Any], fields: Sequence[str] | None) -> bool:
    """Whether the answer's first JSON object equals `expected` in the fields (all that are expected by default)."""
    found = first_object(answer)
    names = fields or list(expected)
    return found is not None and all(name in found and same(found[name], expected[name]) for name in names)


def same(a: Any, b: Any) -> bool:
    """Equality of JSON values: 1 equals 1.0, but true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
