"""Quantities as people write them in a policy: `5%`, `3pp`, `24GiB`, `200ms`, `20min`, `1.5x`.

Pure: text → number in base units (rate, bytes, seconds, ratio).  Never guesses a missing unit.
"""

from __future__ import annotations

import math
import re

_NUMBER = r"(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"  # YAML 1.1 hands `1e-3` over as text
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}

# For the JSON Schema, so that editors complain where the parsers below would.
PERCENT_PATTERN = r"^\d+(\.\d+)?\s*%$"
POINTS_PATTERN = r"^\d+(\.\d+)?\s*pp$"
SPEEDUP_PATTERN = r"^\d+(\.\d+)?\s*x?$"
DURATION_PATTERN = r"^\d+(\.\d+)?\s*(ms|s|min|h)$"
NUMBER_PATTERN = r"^\d+(\.\d+)?([eE][+-]?\d+)?$"
LENGTHS_PATTERN = r"^(\d+)\+(\d+)$"
SIZE_PATTERN = r"^\d+(\.\d+)?\s*(B|KB|MB|GB|KiB|MiB|GiB|TiB)$"
QUANTITY_PATTERN = r"^\d+(\.\d+)?([eE][+-]?\d+)?\s*(%|B|KB|MB|GB|KiB|MiB|GiB|TiB|ms|s|min|h)?$"


def _split(text: str, units: str, expected: str) -> tuple[float, str]:
    match = re.fullmatch(rf"{_NUMBER}\s*(?P<unit>{units})", text.strip(), re.ASCII)
    if match is None or math.isinf(float(match["number"])):
        raise ValueError(f"found {text!r}, expected {expected}")
    return float(match["number"]), match["unit"]


def percent(text: str) -> float:
    """`5%` → 0.05."""
    return _split(text, "%", "a percentage such as 5%")[0] / 100


def points(text: str) -> float:
    """`3pp` (percentage points) → 0.03."""
    return _split(text, "pp", "percentage points such as 3pp")[0] / 100


def speedup(text: str) -> float:
    """`1.5x` or `1.5` → 1.5."""
    return _split(text, "x?", "a speed-up such as 1.5 or 1.5x")[0]


def duration_seconds(text: str) -> float:
    """`20min` → 1200."""
    number, unit = _split(text, "|".join(_SECONDS), "a duration such as 90s, 20min or 1h")
    return number * _SECONDS[unit]


def quantity(text: str) -> float:
    """A plain number, a percentage, bytes or a duration, in base units: `24GiB`, `200ms`, `2%`, `0.9`."""
    number, unit = _quantity(text)
    if unit == "%":
        return number / 100
    return number * (_BYTES.get(unit) or _SECONDS.get(unit) or 1.0)


def size_bytes(text: str) -> int:
    """`2GiB` → 2147483648."""
    number, unit = _split(text, "|".join(_BYTES), "a size such as 256MiB or 2GiB")
    return int(number * _BYTES[unit])


def lengths(text: str) -> tuple[int, int]:
    """Prompt tokens and new tokens: `1024+64` → (1024, 64)."""
    found = re.fullmatch(LENGTHS_PATTERN, text.strip(), re.ASCII)
    if found is None or int(found[1]) < 1 or int(found[2]) < 2:
        raise ValueError(f"found {text!r}, expected prompt and new tokens such as 1024+64, at least 1+2")
    return int(found[1]), int(found[2])


def dimension(text: str) -> str:
    """What kind of quantity a text is: `bytes`, `seconds`, `share` (a percentage) or `number`."""
    unit = _quantity(text)[1]
    return "bytes" if unit in _BYTES else "seconds" if unit in _SECONDS else "share" if unit == "%" else "number"


def _quantity(text: str) -> tuple[float, str]:
    units = "|".join(["%", *_BYTES, *_SECONDS, ""])
    return _split(text, units, "a number, optionally with %, a byte unit (24GiB) or a time unit (200ms)")
