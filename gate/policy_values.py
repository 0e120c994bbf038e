"""The values a policy is written with, as pydantic types: `5%`, `3pp`, `24GiB`, names, samples, templates.

Pure.  Checks what was written and keeps it as text; the numbers are derived where they are needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from gate import template as templates
from gate import units


def _written(parse: Callable[[str], float], *, numbers: bool = False, positive: bool = False) -> BeforeValidator:
    """Keeps what the author wrote after checking that it parses; the number is derived when it is needed."""

    def check(value: object) -> object:
        plain = numbers and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        parsed = float(str(value)) if plain else parse(str(value))
        if positive and not parsed > 0:
            raise ValueError(f"found {str(value)!r}, expected more than zero")
        return value

    return BeforeValidator(check)


def _text_schema(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


def _number_or_text_schema(pattern: str, *examples: str | float) -> WithJsonSchema:
    kinds = [{"type": "number"}, {"type": "string", "pattern": pattern}]
    return WithJsonSchema({"anyOf": kinds, "examples": list(examples)})


def _count_or_share(smallest: int) -> BeforeValidator:
    def check(value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool) and value >= smallest:
            return value
        expected = f"a count of at least {smallest} or a percentage up to 100% such as 20%"
        if isinstance(value, str) and re.fullmatch(units.PERCENT_PATTERN, value.strip(), re.ASCII):
            share = units.percent(value)
            if share <= 1 and (share > 0 or smallest == 0):
                return value
        raise ValueError(f"found {value!r}, expected {expected}")

    return BeforeValidator(check)


def _count_or_share_schema(smallest: int) -> WithJsonSchema:
    kinds = [{"type": "integer", "minimum": smallest}, {"type": "string", "pattern": units.PERCENT_PATTERN}]
    return WithJsonSchema({"anyOf": kinds, "examples": ["20%", 500]})


def _pattern(pattern: str, expected: str) -> tuple[AfterValidator, WithJsonSchema]:
    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(f"found {value!r}, expected {expected}")
        return value

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


def _template(value: str) -> str:
    problem = templates.template_problem(value)
    if problem is not None:
        raise ValueError(problem)
    return value


def _number(value: object) -> object:
    """YAML 1.1 hands `1e9` over as text."""
    if isinstance(value, str) and re.fullmatch(units.NUMBER_PATTERN, value.strip(), re.ASCII):
        return float(value)
    return value


def _lengths(value: str) -> str:
    units.lengths(value)
    return value


def _version(value: object) -> object:
    if value != 1 or isinstance(value, bool):
        raise ValueError(f"found {value!r}, expected 1: the version of the policy's format, not of the gate")
    return value


_NAME, _NAME_SCHEMA = _pattern(r"[A-Za-z0-9][A-Za-z0-9_-]*", "letters, digits, _ and -, not starting with - or _")
_ID, _ID_SCHEMA = _pattern(r"[A-Za-z0-9][A-Za-z0-9_.,@-]*", "letters, digits and _ . , @ -")
Name = Annotated[str, _NAME, _NAME_SCHEMA]
RuleId = Annotated[str, _ID, _ID_SCHEMA]
Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(ge=1)]

Number = Annotated[float, BeforeValidator(_number), Field(ge=0)]
PositiveNumber = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Percent = Annotated[str, _written(units.percent), _text_schema(units.PERCENT_PATTERN, "5%", "97%")]
Points = Annotated[str, _written(units.points), _text_schema(units.POINTS_PATTERN, "3pp")]
Speedup = Annotated[
    str | float,
    _written(units.speedup, numbers=True, positive=True),
    _number_or_text_schema(units.SPEEDUP_PATTERN, 1.5, "1.5x"),
]
Quantity = Annotated[
    str | float,
    _written(units.quantity, numbers=True),
    _number_or_text_schema(units.QUANTITY_PATTERN, "24GiB", "200ms", "2%", 0.95),
]
Duration = Annotated[
    str, _written(units.duration_seconds, positive=True), _text_schema(units.DURATION_PATTERN, "90s", "20min")
]
Size = Annotated[str, _written(units.size_bytes, positive=True), _text_schema(units.SIZE_PATTERN, "256MiB", "2GiB")]
Lengths = Annotated[str, AfterValidator(_lengths), _text_schema(units.LENGTHS_PATTERN, "128+32", "1024+64")]
Sample = Annotated[int | str, _count_or_share(1), _count_or_share_schema(1)]
Lost = Annotated[int | str, _count_or_share(0), _count_or_share_schema(0)]


Template = Annotated[str, AfterValidator(_template)]
Version = Annotated[Literal[1], BeforeValidator(_version)]
