"""Waiver file → waivers; every mistake is reported at once, each with its place.

Reads one file.  Decides nothing: which waivers count for a run is `decide.waiver`'s to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ValidationError

from gate.document import Document
from gate.policy import Location
from gate.policy_file import read_document, rejected
from gate.policy_mistakes import Mistake, translated
from gate.policy_problems import did_you_mean
from gate.policy_rule import Strict
from gate.records import Waiver

NOUN = "waiver file"
SHOWN = 80
"""How much of a wrong value a message repeats."""


def _line(limit: int) -> AfterValidator:
    """One line that a title can hold: what is not printed cannot hide in it."""

    def check(value: str) -> str:
        odd = next((c for c in value if not c.isprintable()), None)
        if odd is not None:
            found = "a line break" if odd in "\r\n" else f"the character U+{ord(odd):04X}"
            raise ValueError(f"found {found}, expected one line of printable text")
        if not value.strip():
            raise ValueError("found nothing, expected text that is not empty")
        if len(value) > limit:
            raise ValueError(f"found {len(value):,} characters, expected at most {limit}")
        return value

    return AfterValidator(check)


def _digest(value: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", value) is None:
        raise ValueError(f"found {value[:SHOWN]!r}, expected the checkpoint's SHA-256: 64 of 0-9 and a-f (lower case)")
    return value


def _day(value: str) -> str:
    try:
        # fromisoformat alone reads weeks and days of the year too
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value) is not None and date.fromisoformat(value):
            return value
    except ValueError:
        pass
    raise ValueError(f"found {value[:SHOWN]!r}, expected a day of the calendar such as 2026-12-31")


def _version(value: object) -> object:
    if value != 1 or isinstance(value, bool):
        raise ValueError(f"found {str(value)[:SHOWN]!r}, expected 1: the version of the file's format")
    return value


class WaiverSettings(Strict):
    """One waiver as it is written."""

    rule: Annotated[str, _line(300)]
    checkpoint: Annotated[str, AfterValidator(_digest)]
    owner: Annotated[str, _line(100)]
    reason: Annotated[str, _line(300)]
    expires: Annotated[str, AfterValidator(_day)]


class WaiverFile(Strict):
    """The whole file."""

    version: Annotated[Literal[1], BeforeValidator(_version)]
    waivers: list[WaiverSettings]


def load_waivers(path: Path) -> tuple[Waiver, ...]:
    """Read and check a waiver file; an empty list is fine.

    Raises:
        PolicyError: with one line per mistake, each with its place, in the order of the file.
    """
    _, document = read_document(path, noun=NOUN, keys="`version` and `waivers`")
    mistakes: list[Mistake] = [(place, at, message) for at, place, message in document.problems]
    known = {(place, at) for place, at, _ in mistakes}
    mistakes += _twice(document)
    written: list[WaiverSettings] = []
    try:
        written = WaiverFile.model_validate(document.data).waivers
    except ValidationError as error:
        mistakes += [m for m in translated(error, document, _unknown_key) if (m[0], m[1]) not in known]
    if mistakes:
        raise rejected(path.as_posix(), mistakes, noun=NOUN)
    return tuple(Waiver(**one.model_dump()) for one in written)


def _twice(document: Document) -> Iterator[Mistake]:
    """Two waivers of one rule and checkpoint: which of the two owners would answer for it?"""
    entries = document.data.get("waivers")
    first: dict[tuple[str, str], Location] = {}
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        of = (entry.get("rule"), entry.get("checkpoint")) if isinstance(entry, dict) else (None, None)
        if not (isinstance(of[0], str) and isinstance(of[1], str)):
            continue  # said otherwise
        at: Location = ("waivers", index)
        if of in first:
            line = document.values[first[of]].line
            message = f"a second waiver of this rule for this checkpoint, first given on line {line}: remove one"
            yield document.values[at], at, message
        first.setdefault((of[0], of[1]), at)


def _unknown_key(at: Location, data: Any) -> str:
    fields = list((WaiverFile if len(at) == 1 else WaiverSettings).model_fields)
    key = str(at[-1])
    return f"unknown key {key!r}{did_you_mean(key, fields) or ', expected one of ' + ', '.join(fields)}"
