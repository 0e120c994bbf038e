"""GitHub's limits: whatever the text, what is sent fits, is valid, is closed, and says what is missing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gate.publish import limits
from tests.records_factory import HOSTILE

anything = st.text(st.characters(codec=None), max_size=200) | st.text(max_size=3).map(lambda s: s * 3000)
lines = st.lists(
    st.sampled_from(
        [
            "```",
            "````text",
            "~~~",
            "~~~~",
            "   ```",
            "`a` ```",
            "``` a`b",
            "<details><summary>x</summary>",
            "</details>",
            "<details open>",
            "",
            "text",
            "| a | b |",
            "🙂" * 40,
            "x" * 399,
        ]
    ),
    max_size=60,
).map("\n".join)
github = MarkdownIt("commonmark").enable(["table"])
MEGABYTES_10 = 10 * 2**20


@given(anything, st.integers(1, 300))
def test_one_line(text: str, limit: int) -> None:
    cut = limits.one_line(text, limit)
    assert len(cut.encode("utf-16-le")) // 2 <= limit
    assert "\n" not in cut
    assert all(ord(c) <= 0xFFFF for c in cut)
    cut.encode()
    assert limits.one_line(cut, limit) == cut


@given(anything, st.integers(400, 3000))
def test_plain(text: str, limit: int) -> None:
    cut = limits.plain(text, limit)
    assert len(cut.encode()) <= limit
    assert limits.plain(cut, limit) == cut


@given(anything | lines, st.integers(400, 3000))
def test_markdown(text: str, limit: int) -> None:
    cut = limits.markdown(text, limit)
    assert len(cut.encode()) <= limit
    assert limits.markdown(cut, limit) == cut


@given(lines, st.integers(400, 1500))
def test_nothing_is_open_behind_cut_markdown(text: str, limit: int) -> None:
    tokens = github.parse(limits.markdown(text, limit) + "\n\nsentinel\n")
    assert [t.content for t in tokens if t.type == "inline"][-1:] == ["sentinel"]
    assert tokens[-1].type == "paragraph_close"
    html = "".join(t.content for t in tokens if t.type == "html_block")
    depth = 0
    for tag in re.finditer(r"<(/?)details", html):
        depth = max(depth + (-1 if tag[1] else 1), 0)
    assert depth == 0


@given(lines, st.integers(400, 1500))
def test_only_whole_lines_are_kept_from_the_front(text: str, limit: int) -> None:
    cut = limits.markdown(text, limit)
    kept = cut.partition("\n… ")[0].splitlines() if "bytes more do not fit here" in cut else text.splitlines()
    while kept and kept[-1] in ("", "```", "````", "~~~", "~~~~", "</details>"):
        kept.pop()
    assert text.splitlines()[: len(kept)] == kept


def test_what_fits_is_left_alone() -> None:
    text = "# a\n\n```text\n@x\n```\n<details><summary>b</summary>\n\nc 🙂\n\n</details>\n"
    assert limits.markdown(text, 400) == text
    assert limits.plain("a\nb", 400) == "a\nb"


def test_what_is_open_is_closed_in_order() -> None:
    text = "<details>\n<details>\n\n````text\n" + "row\n" * 500
    cut = limits.markdown(text, 600)
    assert re.search(r"row\n````\n\n</details>\n\n</details>\n\n… [\d,]+ bytes more", cut)


@pytest.mark.parametrize("size", [600, 601, 602, 603])
def test_a_character_is_never_split(size: int) -> None:
    cut = limits.plain("🙂" * 1000, size)
    kept, _, remark = cut.partition("…")
    assert set(kept) == {"🙂"}
    assert remark == f" [{4000 - len(kept.encode()):,} bytes more]"


@pytest.mark.parametrize("unit", ["x", "🙂", "row\n", "`", "\x1b[", "<details>\n", "\ud800", HOSTILE])
def test_long_texts(unit: str) -> None:
    size = MEGABYTES_10 if unit is HOSTILE else MEGABYTES_10 // 10
    text = unit * (size // len(unit))
    assert len(limits.title(text)) <= 255
    assert len(limits.plain(text, limits.ANNOTATION_BYTES).encode()) <= limits.ANNOTATION_BYTES
    assert len(limits.markdown(text, limits.OUTPUT_BYTES).encode()) <= limits.OUTPUT_BYTES


def test_characters_that_checks_refuse() -> None:
    assert limits.bmp("a🙂b✅") == "a\ufffdb✅"
    assert limits.title(" a\n🙂 \ud800\x1b[31mb ") == "a \ufffd b"
    assert limits.description("x" * 141) == "x" * 139 + "…"
    assert limits.description("x" * 140) == "x" * 140


def test_a_limit_without_room_for_its_remark_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least"):
        limits.markdown("x", 100)
