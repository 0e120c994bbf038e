"""The domain data reader: every broken line, with its number, in one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gate.errors import CouldNotMeasure, DataError, ExitCode
from gate.stages.domain_data import MAX_LINE_BYTES, Item, read_items

GOOD: dict[str, Any] = {"id": "a", "input": "2+2?", "expected": "4", "category": "sums"}


def fits(item: Item) -> str | None:
    return None


def write(path: Path, *lines: bytes | dict[str, Any]) -> Path:
    path.write_bytes(b"".join((json.dumps(x).encode() if isinstance(x, dict) else x) + b"\n" for x in lines))
    return path


def complaint(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_items(path, fits)
    assert caught.value.exit_code is ExitCode.USAGE
    return str(caught.value)


def test_good_lines_become_items(tmp_path: Path) -> None:
    path = write(
        tmp_path / "d.jsonl",
        GOOD,
        {"id": 7, "input": "ü\n?", "expected": ["x", "y"], "category": "c", "choices": ["x", "z"], "source": "extra"},
        {"id": "c", "input": "?", "expected": {"total": 3}, "category": "c"},
        {"id": "d", "input": "?", "expected": 2.5, "category": "c", "choices": None},
    )
    items = read_items(path, fits)
    assert [(i.id, i.expected, i.choices) for i in items] == [
        ("a", "4", None),
        ("7", ("x", "y"), ("x", "z")),
        ("c", {"total": 3}, None),
        ("d", 2.5, None),
    ]
    assert items[1].input == "ü\n?"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id": "b",', "found invalid JSON at column 12"),
        (b"[1]", "found a list, expected an object"),
        (b"null", "found null, expected an object"),
        (b'{"id": "b", "input": "x"}', "found no 'expected' and no 'category'"),
        (
            b'{"id": "a", "input": "x", "expected": "y", "category": "c"}',
            "found the id 'a' again",
        ),
        (b'{"id": "b", "id": "c", "input": "x", "expected": "y", "category": "c"}', "found the key 'id' twice"),
        (b'{"id": "b", "input": 5, "expected": "y", "category": "c"}', "found input = 5, expected a text"),
        (b'{"id": "", "input": "x", "expected": "y", "category": "c"}', 'found id = ""'),
        (b'{"id": true, "input": "x", "expected": "y", "category": "c"}', "found id = true"),
        (b'{"id": "b", "input": "x", "expected": true, "category": "c"}', "found expected = true"),
        (b'{"id": "b", "input": "x", "expected": null, "category": "c"}', "found expected = null"),
        (b'{"id": "b", "input": "x", "expected": [], "category": "c"}', "found expected = []"),
        (b'{"id": "b", "input": "x", "expected": NaN, "category": "c"}', "found NaN, expected a JSON number"),
        (b'{"id": "b", "input": "x", "expected": "y", "category": null}', "found category = null"),
        (b'{"id": "b", "input": "x", "expected": "y", "category": "c", "choices": ["y"]}', "expected at least two"),
        (b'{"id": "b", "input": "x", "expected": "y", "category": "c", "choices": ["y", "y"]}', "all different"),
        (b'{"id": "b", "input": "x", "expected": "y", "category": "c", "choices": "yn"}', "expected a list of texts"),
        (b'{"id": "b", "input": "\\ud800", "expected": "y", "category": "c"}', "half of a surrogate pair"),
        (b'{"id": "b", "input": "\xff", "expected": "y", "category": "c"}', "found byte 0xff at column 23"),
        (b"", "found an empty line"),
        (b"[" * 100_000, "nested too deeply"),
        (b'"' + b"x" * MAX_LINE_BYTES + b'"', f"found {MAX_LINE_BYTES + 2} bytes"),
    ],
)
def test_each_kind_of_broken_line(tmp_path: Path, line: bytes, said: str) -> None:
    path = write(tmp_path / "d.jsonl", GOOD, line, {**GOOD, "id": "z"})
    message = complaint(path)
    assert message.startswith(f"{path}: 1 broken line\n  line 2: ")
    assert said in message


def test_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert "line 1: found a byte order mark" in complaint(path)


def test_all_broken_lines_are_reported_up_to_twenty(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", *[b"{" for _ in range(23)])
    message = complaint(path)
    assert message.startswith(f"{path}: 23 broken lines")
    assert message.count("\n  line ") == 20
    assert message.endswith("… and 3 more")


def test_what_does_not_fit_the_match_is_a_broken_line_too(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", GOOD, {**GOOD, "id": "b"})
    with pytest.raises(DataError, match="line 2: b is wrong"):
        read_items(path, lambda item: "b is wrong" if item.id == "b" else None)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"  \r\n"])
def test_an_empty_file_is_nothing_to_measure(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.jsonl").write_bytes(content)
    with pytest.raises(CouldNotMeasure, match="is empty: there is nothing to measure") as caught:
        read_items(tmp_path / "d.jsonl", fits)
    assert caught.value.exit_code is ExitCode.ERROR


def test_no_file(tmp_path: Path) -> None:
    assert "found no file" in complaint(tmp_path / "none.jsonl")
    assert "found no file" in complaint(tmp_path)


def test_windows_line_ends_are_fine(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\r\n")
    assert [i.id for i in read_items(tmp_path / "d.jsonl", fits)] == ["a"]
