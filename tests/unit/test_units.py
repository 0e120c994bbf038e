"""Units of the policy: every spelling that is allowed, and a message for those that are not."""

from __future__ import annotations

import re

import pytest

from gate import units


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.percent, "5%", 0.05),
        (units.percent, "97 %", 0.97),
        (units.points, "3pp", 0.03),
        (units.points, "0.5 pp", 0.005),
        (units.speedup, "1.5x", 1.5),
        (units.speedup, "2", 2.0),
        (units.duration_seconds, "90s", 90.0),
        (units.duration_seconds, "20min", 1200.0),
        (units.duration_seconds, "1.5h", 5400.0),
        (units.size_bytes, "2GiB", 2 * 2**30),
        (units.size_bytes, "0B", 0),
        (units.quantity, "24GiB", 24 * 2**30),
        (units.quantity, "1.5KB", 1500.0),
        (units.quantity, "200ms", 0.2),
        (units.quantity, "2%", 0.02),
        (units.quantity, "0.95", 0.95),
        (units.quantity, "0", 0.0),
        (units.quantity, "1e-3", 0.001),
        (units.quantity, "0B", 0.0),
    ],
)
def test_parses(parse: object, text: str, value: float) -> None:
    assert callable(parse)
    assert parse(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (units.percent, "5", "a percentage such as 5%"),
        (units.percent, "-5%", "a percentage such as 5%"),
        (units.percent, "5pp", "a percentage such as 5%"),
        (units.percent, "٥%", "a percentage such as 5%"),
        (units.percent, "1e999%", "a percentage such as 5%"),
        (units.points, "3%", "percentage points such as 3pp"),
        (units.points, "", "percentage points such as 3pp"),
        (units.speedup, "50%", "a speed-up such as 1.5 or 1.5x"),
        (units.duration_seconds, "20", "a duration such as 90s, 20min or 1h"),
        (units.duration_seconds, "20 minutes", "a duration such as 90s, 20min or 1h"),
        (units.size_bytes, "2", "a size such as 256MiB or 2GiB"),
        (units.size_bytes, "2s", "a size such as 256MiB or 2GiB"),
        (units.quantity, "24GiBs", "a number, optionally with %, a byte unit (24GiB) or a time unit (200ms)"),
        (units.quantity, "nan", "a number, optionally with %, a byte unit (24GiB) or a time unit (200ms)"),
    ],
)
def test_says_what_was_found_and_expected(parse: object, text: str, expected: str) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match=re.escape(f"found {text!r}, expected {expected}")):
        parse(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("24GiB", "bytes"),
        ("0.5 MB", "bytes"),
        ("200ms", "seconds"),
        ("2%", "share"),
        ("0.95", "number"),
        ("1e-3", "number"),
    ],
)
def test_dimension(text: str, kind: str) -> None:
    assert units.dimension(text) == kind


@pytest.mark.parametrize(
    ("pattern", "parse"),
    [
        (units.PERCENT_PATTERN, units.percent),
        (units.POINTS_PATTERN, units.points),
        (units.SPEEDUP_PATTERN, units.speedup),
        (units.DURATION_PATTERN, units.duration_seconds),
        (units.SIZE_PATTERN, units.size_bytes),
        (units.QUANTITY_PATTERN, units.quantity),
    ],
)
def test_the_schema_pattern_accepts_what_the_parser_accepts(pattern: str, parse: object) -> None:
    assert callable(parse)
    for text in ("5%", "5 %", "3pp", "1.5x", "1.5", "90s", "20 min", "24GiB", "200ms", "x", "5.%", "-1", "%"):
        try:
            parse(text)
        except ValueError:
            parsed = False
        else:
            parsed = True
        assert (re.fullmatch(pattern, text) is not None) == parsed, text
