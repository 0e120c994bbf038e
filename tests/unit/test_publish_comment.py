"""The sticky comment: its marker holds anything and ends nowhere, and what it was is told once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.publish import comment, limits
from gate.publish.comment import Marker
from gate.publish.model import Publication
from gate.records import RunRecord
from tests import records_factory as factory
from tests.records_factory import HOSTILE
from tests.unit.test_publish_check import NOW, TARGET, UNVERIFIED, published
from tests.unit.test_publish_conclusion import with_waiver

OTHER = "c" * 40
AT = "2026-11-20T12:00:00+00:00"
shas = st.sampled_from([OTHER, "0" * 40, "d" * 40])
markers = st.builds(
    Marker,
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
    | st.sampled_from(["-->", "--!>", "<!--", "&gt;"]),
    sha=shas,
    status=st.sampled_from(list(comment.WORDS)),
    at=st.datetimes().map(lambda d: f"{d.isoformat()}+00:00"),
    was=st.none() | st.tuples(st.sampled_from(list(comment.WORDS)), shas),
)


def at(record: RunRecord, created_at: str, sha: str, **changes: Any) -> Publication:
    return published(replace(record, created_at=created_at), target=replace(TARGET, head_sha=sha), **changes)


@given(markers)
def test_a_marker_comes_back(one: Marker) -> None:
    line = comment.line(one)
    assert comment.parse(line) == one
    assert comment.parse(f"{line}\r\n# text\r\n-->") == one
    assert line.count("-->") == 1
    assert (line.count("<"), line.count(">")) == (1, 1)
    assert "--" not in line[4:-3]
    assert "\n" not in line
    assert line.isascii()


HOSTILE_NAMES = ("-->", "--!>", '"} -->', "<!-- quantgate:sticky v1 {} -->", "\u2028", "\\u003e", "]]>", HOSTILE)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_stays_in_the_marker(name: str) -> None:
    body = comment.body(published(factory.regression(), name=name), None)
    found = comment.parse(body)
    assert found is not None
    assert found.name == comment.own_name(published(factory.regression(), name=name))
    first, _, rest = body.partition("\n")
    assert first.endswith("} -->")
    assert rest.startswith("## ❌ quantgate: regression")


GOOD: dict[str, Any] = {"name": "quantgate", "sha": OTHER, "status": "PASS", "at": AT}


def test_the_marker_of_a_comment() -> None:
    assert comment.parse(line_of(GOOD)) == Marker(name="quantgate", sha=OTHER, status="PASS", at=AT, was=None)


def line_of(data: Any, version: str = "v1") -> str:
    return f"<!-- quantgate:sticky {version} {data if isinstance(data, str) else json.dumps(data)} -->"


@pytest.mark.parametrize(
    "body",
    [
        None,
        7,
        b"bytes",
        "",
        "LGTM",
        f" {line_of(GOOD)}",
        f"> {line_of(GOOD)}",
        f"text\n{line_of(GOOD)}",
        f"{line_of(GOOD)} text",
        line_of(GOOD, "v2"),
        line_of(GOOD, "v10"),
        line_of([GOOD]),
        line_of("{}"),
        line_of("{broken}"),
        line_of("{" * 900 + "}" * 900),
        line_of('{"a":' * 300 + "{}" + "}" * 300),
        line_of({**GOOD, "sha": OTHER[:7]}),
        line_of({**GOOD, "sha": OTHER.upper()}),
        line_of({**GOOD, "sha": 7}),
        line_of({**GOOD, "status": "GREAT"}),
        line_of({**GOOD, "status": None}),
        line_of({**GOOD, "status": ["PASS"]}),
        line_of({**GOOD, "at": "yesterday"}),
        line_of({**GOOD, "at": "2026-11-20T12:00:00"}),
        line_of({**GOOD, "at": 1e400}),
        line_of({**GOOD, "name": {"a": 1}}),
        line_of({**GOOD, "more": 1}),
        line_of({k: v for k, v in GOOD.items() if k != "at"}),
        line_of({**GOOD, "was": None}),
        line_of({**GOOD, "was": ["PASS"]}),
        line_of({**GOOD, "was": ["PASS", "x"]}),
        line_of({**GOOD, "was": ["<b>", OTHER]}),
        line_of({**GOOD, "was": [["PASS"], OTHER]}),
        line_of(json.dumps(GOOD)[:-1] + ', "status": "REGRESSION"}'),
        line_of({**GOOD, "name": "x" * 5_000}),
        line_of({**GOOD, "name": "x" * 10_000_000}),
    ],
)
def test_what_is_not_ours_is_nobodys(body: Any) -> None:
    assert comment.parse(body) is None


@given(st.text(max_size=300) | st.text(max_size=100).map(line_of))
def test_any_text_is_a_marker_or_none(text: str) -> None:
    found = comment.parse(text)
    assert found is None or found.status in comment.WORDS


def test_was_and_is_now() -> None:
    first = at(factory.regression(), "2026-11-20T10:00:00+00:00", OTHER)
    before = comment.parse(comment.body(first, None))
    assert "Was **" not in comment.body(first, None)
    second = at(factory.passing(), "2026-11-20T11:00:00+00:00", "d" * 40)
    body = comment.body(second, before)
    assert body.splitlines()[1] == "Was **regression** at `ccccccc` → now **pass** at `ddddddd`."
    # published again, by a retry or a second job: nothing changes, what it was is kept
    assert comment.body(second, comment.parse(body)) == body
    third = at(factory.passing(), "2026-11-20T12:00:00+00:00", "d" * 40)
    again = comment.body(third, comment.parse(body)).splitlines()[1]
    assert again == "Was **pass** at `ddddddd` → still **pass** at `ddddddd` (measured again)."


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (factory.passing(), "pass"),
        (with_waiver(), "passed with waiver"),
        (factory.error(), "could not measure"),
        (factory.refused(), "refused"),
        (factory.inconclusive(), "inconclusive"),
    ],
)
def test_the_words(record: RunRecord, word: str) -> None:
    previous = Marker(name="quantgate", sha=OTHER, status="REGRESSION", at=AT, was=None)
    assert f"→ now **{word}** at" in comment.body(published(record), previous)
    assert "Was **regression** at `ccccccc`" in comment.body(published(record), previous)


def test_nothing_to_gate_any_more() -> None:
    one = published(nothing_expected=True)
    previous = Marker(name="quantgate", sha=OTHER, status="REGRESSION", at=AT, was=None)
    assert "→ now **nothing to gate** at" in comment.body(one, previous)
    assert "No checkpoint changed: nothing was gated" in comment.body(one, previous)


@pytest.mark.parametrize(
    ("there", "mine", "outdated"),
    [
        ("2026-11-20T12:00:00+00:00", "2026-11-20T11:59:59+00:00", True),
        ("2026-11-20T12:00:00+00:00", "2026-11-20T12:00:00+00:00", False),
        ("2026-11-20T12:00:00+00:00", "2026-11-20T12:00:01+00:00", False),
        ("2026-11-20T12:00:00+02:00", "2026-11-20T11:00:00+00:00", False),
        ("2026-11-20T11:00:00-02:00", "2026-11-20T12:00:00+00:00", True),
        ("9999-12-31T23:59:59-23:59", "2026-11-20T12:00:00+00:00", True),
        ("0001-01-01T00:00:00+23:59", "2026-11-20T12:00:00+00:00", False),
    ],
)
def test_the_newer_one_stays(there: str, mine: str, outdated: bool) -> None:
    previous = comment.parse(line_of({**GOOD, "at": there}))
    assert previous is not None
    assert comment.outdated(at(factory.passing(), mine, OTHER), previous) is outdated


def test_a_forged_time_does_not_hold_the_comment_for_ever() -> None:
    forged = at(factory.passing(), "9999-01-01T00:00:00+00:00", OTHER)
    there = comment.parse(comment.body(forged, None))
    assert there is not None
    assert there.at == NOW.isoformat()
    # and an unverified result has a comment of its own
    claimed = at(factory.passing(), AT, OTHER, trust=UNVERIFIED)
    assert comment.own_name(claimed) != comment.own_name(forged)


def test_a_comment_that_is_not_wanted_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="no comment is wanted"):
        comment.body(published(factory.regression(), comment="never"), None)


@pytest.mark.parametrize("record", [factory.large(), factory.hostile()], ids=["large", "hostile"])
def test_it_fits(record: RunRecord) -> None:
    previous = Marker(name="quantgate", sha=OTHER, status="PASS", at=AT, was=None)
    for n in (1, 40):
        body = comment.body(published(*[record] * n, trust=UNVERIFIED), previous)
        assert len(body.encode()) <= limits.COMMENT_BYTES
        assert len(body) < 65_536
        assert comment.parse(body) is not None
        assert body.rstrip().endswith("</sub>")
    whole = replace(published(record), comment="row 🙂\n" * 100_000)
    assert len(comment.body(whole, previous).encode()) <= limits.COMMENT_BYTES
