"""Untrusted text: nothing obeys it any more, and people can still read it."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from gate.reports import escape
from tests.records_factory import HOSTILE

text = st.text(st.characters(codec=None), max_size=60) | st.text("`|*_[]()<>&#@:/-+=!~$\\\n 1.a\t", max_size=40)
XML = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
github = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def inline(tokens: list[Token]) -> list[Token]:
    return [child for token in tokens for child in (token.children or [])]


@settings(deadline=None)
@given(text)
def test_clean_text_is_valid_everywhere(raw: str) -> None:
    cleaned = escape.clean(raw)
    assert XML.fullmatch(cleaned)
    assert "\x1b" not in cleaned
    assert "\r" not in cleaned
    assert escape.clean(cleaned) == cleaned
    cleaned.encode()


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab"),
        ("\x9b31mred", "red"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("nul\x00 lone\ud800 end\uffff", "nul lone end"),
        ("\u202eevil", "\ufffdevil"),
        ("right\u200fleft e\u0301 日本 🙂", "right\u200fleft e\u0301 日本 🙂"),
        ("tab\tstays\n", "tab\tstays\n"),
    ],
)
def test_clean(raw: str, cleaned: str) -> None:
    assert escape.clean(raw) == cleaned


def test_what_is_cut_is_marked() -> None:
    assert escape.line("one\n two  three", 8) == "one two…"
    assert escape.block("x" * 12, 10) == "x" * 10 + "… [2 characters more]"


@settings(deadline=None)
@given(text)
def test_markdown_renders_as_the_text_itself(raw: str) -> None:
    """One paragraph, no markup, and with the invisible breaks taken out the characters that went in."""
    source = escape.markdown(raw)
    expected = escape.line(raw)
    if not expected:
        assert source == ""
        return
    tokens = github.parse(source)
    assert [t.type for t in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert {t.type for t in inline(tokens)} <= {"text", "text_special"}
    shown = "".join(t.content for t in inline(tokens))
    assert shown.replace("\u200b", "") == " ".join(expected.replace("\u200b", "").split())


@settings(deadline=None)
@given(text)
def test_markdown_in_a_table_stays_in_its_cell(raw: str) -> None:
    source = f"| a | b |\n|---|---|\n| {escape.markdown(raw)} | {escape.code(raw)} |"
    kinds = [t.type for t in github.parse(source)]
    assert kinds.count("td_open") == 2
    assert kinds.count("tr_open") == 2
    assert not {t.type for t in inline(github.parse(source))} - {"text", "text_special", "code_inline"}


@pytest.mark.parametrize(
    "trigger", ["@octocat", "#12", "GH-12", "https://evil.example", "www.evil.example", "mailto:a"]
)
def test_github_links_nothing(trigger: str) -> None:
    assert trigger not in escape.markdown(f"see {trigger} now")
    assert trigger in escape.markdown(f"see {trigger} now").replace("\u200b", "").replace("\\", "")


@settings(deadline=None)
@given(text)
def test_a_fence_cannot_be_closed_from_inside(raw: str) -> None:
    tokens = github.parse(escape.fenced(raw))
    assert [t.type for t in tokens] == ["fence"]
    assert tokens[0].content.rstrip("\n") == escape.block(raw).rstrip("\n")


@settings(deadline=None)
@given(text)
def test_no_line_is_a_workflow_command(raw: str) -> None:
    for line in escape.workflow(escape.clean(raw)).split("\n"):
        assert not line.strip().startswith("::")
        assert "##[" not in line


def test_hostile_text_stays_readable() -> None:
    cleaned = escape.line(HOSTILE)
    assert cleaned.startswith("red link \ufffdevil\ufffd </failure>]]><script>alert(1)</script>")
    assert not any(unicodedata.category(c) == "Cc" for c in cleaned)
