"""The only place that makes untrusted text safe to print: names, prompts, answers, error messages.

Pure: str → str.  Everything here keeps what a person reads and takes away what a program would obey.
"""

from __future__ import annotations

import re

_ANSI = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, hyperlinks
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # the other string sequences
    r"|\x1b[ -/]*[0-~]"  # two-character escapes
)
# everything that XML 1.0 cannot hold, and the C1 controls and DEL, which it can but nobody wants
_INVALID = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NON_CHARACTERS = re.compile(
    "[\ufdd0-\ufdef" + "".join(chr(p << 16 | e) for p in range(1, 17) for e in (0xFFFE, 0xFFFF)) + "]"
)
# overrides and isolates reorder what a reader sees; marks such as U+200F are part of honest text
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_BREAK = "\u200b"  # zero width space: splits a token that a machine looks for, invisible to people

# a runner takes lines that end in a line feed or a carriage return, cuts blanks off their ends, and may strip colours
_COMMAND = re.compile(r"(?:^|(?<=[\r\n]))(?:\s|\x1b\[[0-9;]*m)*:(?=:)")
_LOGGING_COMMAND = re.compile(r"##(?:vso)?(?=\[)")  # of Azure Pipelines and GitHub's first version: anywhere in a line

_MARKDOWN = re.compile(r"[\\`*_\[\]|~$]")
_MARKDOWN_START = re.compile(r"^(?:[-+#=:]|\d+(?=[.)]))")  # what only a line's start makes a list, heading or rule
_URL = re.compile(r"(?i)(://|\bwww(?=\.)|\bmailto(?=:))")


def clean(text: str) -> str:
    """Text of any origin made valid for XML, HTML, JSON and terminals; line breaks become `\\n`.

    Terminal sequences and invalid characters go away; characters that reorder text become U+FFFD.
    """
    text = _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _BIDI.sub("\ufffd", _NON_CHARACTERS.sub("", _INVALID.sub("", text)))


def line(text: str, limit: int | None = None) -> str:
    """Cleaned and on one line; cut to `limit` characters with an ellipsis."""
    if limit is not None:
        text = text[: 64 * limit + 4096]  # of megabytes of text the rest is not worth cleaning
    text = " ".join(clean(text).split())
    return text if limit is None or len(text) <= limit else text[: max(limit - 1, 0)].rstrip() + "…"


def block(text: str, limit: int | None = None) -> str:
    """Cleaned, with its line breaks; cut to `limit` characters, saying how much is missing."""
    text = clean(text)
    return text if limit is None or len(text) <= limit else f"{text[:limit]}… [{len(text) - limit} characters more]"


def markdown(text: str) -> str:
    """One line of literal text inside GitHub Markdown, tables included.

    Nothing in it formats, links, mentions, refers to an issue or becomes HTML.
    """
    text = line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _MARKDOWN.sub(lambda m: "\\" + m[0], text)
    text = _MARKDOWN_START.sub(lambda m: m[0] + "\\" if m[0].isdigit() else "\\" + m[0], text)
    # GitHub links mentions, issues and addresses in the rendered text, where a backslash is gone already
    text = _URL.sub(lambda m: m[0][:-2] + _BREAK + m[0][-2:] if m[0].endswith("//") else m[0] + _BREAK, text)
    text = re.sub(r"@(?=\w)", "@" + _BREAK, text)
    text = re.sub(r"#(?=\d)", "#" + _BREAK, text)
    return re.sub(r"(?i)\bgh(?=-\d)", lambda m: m[0] + _BREAK, text)


def code(text: str) -> str:
    """One line as a Markdown code span, safe in a table cell."""
    text = line(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def fenced(text: str, limit: int | None = None) -> str:
    """Several lines as a Markdown code block whose fence the text cannot close."""
    text = block(text, limit)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def workflow(text: str) -> str:
    """A whole report that may reach the log of a CI job: no line of it is a `::workflow command::`.

    Only inserts, within what a command begins with, so that text may come in pieces (see `gate.terminal`).
    """
    text = _COMMAND.sub(lambda found: f"{found[0]}{_BREAK}", text)
    return _LOGGING_COMMAND.sub(lambda found: f"{found[0]}{_BREAK}", text)


def command(level: str, message: str, title: str = "") -> str:
    """A workflow command that is meant: `::warning title=…::message`, in one line that ends it."""
    named = f" title={_data(line(title)).replace(':', '%3A').replace(',', '%2C')}" if title else ""
    return f"::{level}{named}::{_data(block(message).strip())}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
