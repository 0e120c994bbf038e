"""Matchers: tables that walk across the boundary between right and wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from gate.policy import DomainStage
from gate.stages import matchers
from gate.stages.domain_data import Expected, Item


def settings(match: str, **more: Any) -> DomainStage:
    base = {"kind": "domain", "name": "fraud", "data": "d.jsonl", "match": match}
    return DomainStage.model_validate({**base, "rules": [{"metric": "accuracy", "max_drop": "3pp"}], **more})


def item(expected: Expected, choices: tuple[str, ...] | None = None) -> Item:
    return Item(id="1", input="?", expected=expected, category="c", choices=choices)


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("yes", "yes", True),
        ("  yes\n", "yes", True),
        ("Yes", "yes", False),
        ("yes.", "yes", False),
        ("yes", " yes ", True),
        ("no", ("yes", "no"), True),
        ("42", 42, True),
        ("42.0", 42, False),
        ("", "yes", False),
    ],
)
def test_exact(answer: str, expected: Expected, right: bool) -> None:
    assert matchers.is_right(settings("exact"), item(expected), answer) is right


@pytest.mark.parametrize(
    ("answer", "wanted", "right"),
    [
        ("The answer is Paris.", "paris", True),
        ("Parisian", "Paris", False),
        ("unParis", "Paris", False),
        ("it is fraud_case", "fraud", False),
        ("(fraud)", "fraud", True),
        ("non-fraud", "fraud", True),
        ("STRASSE", "straße", True),
        ("cafe\u0301 noir", "café", True),
        ("cafe\u0301", "cafe", False),
        ("कमी", "कम", False),
        ("costs $5 today", "$5", True),
        ("costs US$5", "$5", True),
        ("costs $55", "$5", False),
        ("I like C++.", "C++", True),
        ("3.5", "3", False),
        ("3.5", "5", False),
        ("3.", "3", True),
        ("3, 4", "3", True),
        ("1,2,3", "2", True),
        ("1,500", "500", False),
        ("1,500", "1", False),
        ("1,500", "1,500", True),
        ("13", "3", False),
        ("我住在北京市", "北京", True),
        ("第3章", "3", True),
        ("서울에 산다", "서울", True),
        ("New York", "new york", True),
        ("New  York", "new york", False),
        ("no, then cat and cats", "cats", True),
        ("", "x", False),
    ],
)
def test_contains_on_word_boundaries(answer: str, wanted: str, right: bool) -> None:
    assert matchers.contains(answer, wanted) is right


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", "42"),
        ("so 3 + 4 = 7.", "7"),
        ("1,234.5", "1234.5"),
        ("1,234,567", "1234567"),
        ("−3", "-3"),
        ("-3", "-3"),
        ("x = -5", "-5"),
        ("(3,-5)", "-5"),
        ("10-5", "5"),
        ("10–20", "20"),
        ("5 - 3", "3"),
        ("COVID-19", "19"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("$ 1,000.50", "1000.50"),
        ("12%", "12"),
        (".5", "0.5"),
        ("1e-3", "0.001"),
        ("5kg", "5"),
        ("٣", "3"),
        ("abc123", None),
        ("seven", None),
        ("", None),
        ("- . ,", None),
    ],
)
def test_the_last_number_of_a_text(text: str, value: str | None) -> None:
    assert matchers.number(text) == (None if value is None else Decimal(value))


@pytest.mark.parametrize(
    ("answer", "expected", "tolerance", "right"),
    [
        ("42", 42, 0.0, True),
        ("42.0", 42, 0.0, True),
        ("42.0001", 42, 0.0, False),
        ("1.1", 1, 0.1, True),  # in binary floats the difference is more than .1
        ("1.1000001", 1, 0.1, False),
        ("0.9", 1, 0.1, True),
        ("0.8999999", 1, 0.1, False),
        ("not 5 but 6", 6, 0.0, True),
        ("about 1,300", "1,300", 0.0, True),
        ("no idea", 6, 1e9, False),
    ],
)
def test_numeric_with_tolerance(answer: str, expected: Expected, tolerance: float, right: bool) -> None:
    assert matchers.is_right(settings("numeric", tolerance=tolerance), item(expected), answer) is right


@pytest.mark.parametrize(
    ("answer", "expected", "fields", "right"),
    [
        ('{"a": 1}', {"a": 1}, None, True),
        ('Sure: ```json\n{"a": 1.0, "extra": 2}\n```', {"a": 1}, None, True),
        ('{"a": true}', {"a": 1}, None, False),
        ('{"a": "1"}', {"a": 1}, None, False),
        ('{"a": 1}', {"a": 1, "b": 2}, None, False),
        ('{"a": 1}', {"a": 1, "b": 2}, ["a"], True),
        ('{"b": 2}', {"a": None}, None, False),
        ('{"a": null}', {"a": None}, None, True),
        ('{"a": [1, {"b": 2}]}', {"a": [1, {"b": 2}]}, None, True),
        ('{"a": [1, {"b": 3}]}', {"a": [1, {"b": 2}]}, None, False),
        ('{"a": 2} {"a": 1}', {"a": 1}, None, False),
        ('{broken {"a": 1}', {"a": 1}, None, True),
        ('{"a": NaN}', {"a": 1}, None, False),
        ("[1]", {"a": 1}, None, False),
        ("{" * 20_000, {"a": 1}, None, False),
        ("", {"a": 1}, None, False),
    ],
)
def test_json_fields(answer: str, expected: Mapping[str, Any], fields: list[str] | None, right: bool) -> None:
    assert matchers.is_right(settings("json", json_fields=fields), item(expected), answer) is right


@pytest.mark.parametrize(
    ("answer", "pattern", "right"),
    [("total: 12 EUR", r"\b12\b", True), ("total: 120", r"\b12\b", False), ("A\nB", r"(?m)^B$", True)],
)
def test_regex(answer: str, pattern: str, right: bool) -> None:
    assert matchers.is_right(settings("regex"), item(pattern), answer) is right


def test_a_catastrophic_pattern_is_stopped_and_is_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matchers, "REGEX_SECONDS", 0.2)
    started = time.perf_counter()
    with pytest.raises(matchers.MatchTimeout, match=r"did not finish within 0\.2 s"):
        matchers.matches(r"(a|aa)+$", "a" * 60 + "!")
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("match", "expected", "choices", "complaint"),
    [
        ("exact", {"a": 1}, None, "found an object as expected"),
        ("contains", " ", None, "found an empty text"),
        ("contains", ("x", ""), None, "found an empty text"),
        ("regex", "(", None, "does not compile"),
        ("regex", 5, None, "not a text"),
        ("numeric", "seven", None, "expected a number"),
        ("numeric", ("1", "2"), None, "expected a number"),
        ("choice", "a", None, "found no choices"),
        ("choice", "c", ("a", "b"), "expected one of the choices"),
        ("json", "text", None, "not an object"),
        ("json", {}, None, "not an object"),
    ],
)
def test_items_that_do_not_fit_the_match(
    match: str, expected: Expected, choices: tuple[str, ...] | None, complaint: str
) -> None:
    problem = matchers.problem(settings(match), item(expected, choices))
    assert problem is not None
    assert complaint in problem


@pytest.mark.parametrize(
    ("match", "expected", "choices"),
    [
        ("exact", "a", None),
        ("contains", 5, None),
        ("regex", "a+", None),
        ("numeric", "1,000", None),
        ("numeric", -0.5, None),
        ("choice", "a", ("a", "b")),
        ("json", {"a": 1}, None),
    ],
)
def test_items_that_fit(match: str, expected: Expected, choices: tuple[str, ...] | None) -> None:
    assert matchers.problem(settings(match), item(expected, choices)) is None


def test_a_json_field_that_no_item_expects() -> None:
    problem = matchers.problem(settings("json", json_fields=["b"]), item({"a": 1}))
    assert problem == "found no 'b' in expected, expected every field of json_fields"
