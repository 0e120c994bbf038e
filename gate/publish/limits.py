"""GitHub's size limits: what is sent fits, counted in the unit in which GitHub counts it.

Pure: str → str.  Cuts between lines or characters, never inside one, and says how much is missing.
"""

from __future__ import annotations

import re

from gate.reports import escape

TITLE_CHARACTERS = 255
OUTPUT_BYTES = 65_535
"""Of a check's `summary` and of its `text`, each."""

ANNOTATION_BYTES = 65_000
"""GitHub says 64 KB, and does not say which."""

ANNOTATIONS_PER_REQUEST = 50
DESCRIPTION_CHARACTERS = 140
"""Of a commit status: a longer one is a 422, and the old status stays."""

COMMENT_BYTES = 65_000
"""GitHub refuses 65,536 characters and more; bytes are never fewer than characters."""

_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_FENCE = re.compile(r"[ ]{0,3}(`{3,}|~{3,})(.*)")
_DETAILS = re.compile(r"(?i)<(/?)details\b[^>]*>")
_REMARK_BYTES = 100  # what the sentence about the missing rest may take


def bmp(text: str) -> str:
    """Without characters above U+FFFF, which checks and statuses refuse; each becomes U+FFFD."""
    return _ASTRAL.sub("\ufffd", text)


def one_line(text: str, limit_characters: int) -> str:
    """Cleaned, on one line, without characters above U+FFFF; so a character is one UTF-16 unit too."""
    return bmp(escape.line(text, limit_characters))


def title(text: str) -> str:
    """The title of a check, an annotation, or a name."""
    return one_line(text, TITLE_CHARACTERS)


def description(text: str) -> str:
    """What a commit status says."""
    return one_line(text, DESCRIPTION_CHARACTERS)


def plain(text: str, max_bytes: int) -> str:
    """Cleaned text of several lines (no Markdown), cut between two characters."""
    text = escape.clean(text)
    data = text.encode()
    if len(data) <= max_bytes:
        return text
    _needs_room(max_bytes)
    kept = data[: max_bytes - _REMARK_BYTES].decode(errors="ignore")
    return f"{kept}… [{len(data) - len(kept.encode()):,} bytes more]"


def markdown(text: str, max_bytes: int) -> str:
    """Escaped Markdown, cut between two lines; a fence or a `<details>` that is open at the end is closed.

    A line is never cut: half of a code span or of a tag would set free what the whole of it holds.
    """
    _needs_room(max_bytes)
    text = escape.clean(text)
    open_now = _Open()
    kept: list[str] = []
    used = 0
    fitting: tuple[int, str] = (0, "")  # lines that leave room for the remark, and what they leave open
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    for one in lines:
        used += len(one.encode())
        if used > max_bytes:
            break
        kept.append(one)
        open_now.read(one)
        closing = open_now.closing()
        if used + len(closing.encode()) + _REMARK_BYTES <= max_bytes:
            fitting = len(kept), closing
    closing = open_now.closing()
    if used + len(closing.encode()) <= max_bytes:
        return text if not closing else _ended(text) + closing
    count, closing = fitting
    left = len("".join(lines[count:]).encode())
    return _ended("".join(lines[:count])) + closing + f"\n… {left:,} bytes more do not fit here: see report.html.\n"


class _Open:
    """What is open at the end of the lines read so far."""

    def __init__(self) -> None:
        self.fence = ""
        self.details = 0

    def read(self, line: str) -> None:
        found = _FENCE.fullmatch(line.rstrip("\n"))
        if self.fence:
            if found and found[1].startswith(self.fence) and not found[2].strip():
                self.fence = ""
        elif found and not (found[1][0] == "`" and "`" in found[2]):
            self.fence = found[1]
        else:
            for tag in _DETAILS.finditer(line):
                self.details = max(self.details + (-1 if tag[1] else 1), 0)

    def closing(self) -> str:
        fence = f"{self.fence}\n" if self.fence else ""
        return fence + "\n</details>\n" * self.details


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _needs_room(max_bytes: int) -> None:
    if max_bytes < 4 * _REMARK_BYTES:
        raise ValueError(f"found a limit of {max_bytes} bytes, expected at least {4 * _REMARK_BYTES}")
