"""Path patterns as GitHub's workflow filters write them: `*` within a folder, `**` across folders, `!` takes back.

Pure: str → bool.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gate.errors import UsageError

_PART = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether the last pattern that fits the path, or a folder above it, takes it in."""
    above = [path[: m.start()] for m in re.finditer("/", path)]
    verdict = False
    for pattern in patterns:
        if any(_compiled(pattern.removeprefix("!")).fullmatch(place) for place in (path, *above)):
            verdict = not pattern.startswith("!")
    return verdict


def may_reach(folder: str, patterns: Sequence[str]) -> bool:
    """Whether anything below the folder could be taken in; True where it cannot be told."""
    taken_back = [_compiled(p[1:]) for p in patterns if p.startswith("!")]
    if any(p.fullmatch(folder) or p.fullmatch(f"{folder}/any/file") for p in taken_back):
        return False
    return any(_leads(folder.split("/"), p.split("/")) for p in patterns if not p.startswith("!"))


def _leads(folder: Sequence[str], pattern: Sequence[str]) -> bool:
    for part, asked in zip(folder, pattern, strict=False):
        if "**" in asked:
            return True
        if not _compiled(asked).fullmatch(part):
            return False
    return True


def before_wildcards(pattern: str) -> str:
    """The folder (or file) that everything lies in which the pattern could take in; empty: the repository."""
    parts = pattern.split("/")
    wild = next((i for i, part in enumerate(parts) if "*" in part or "?" in part), len(parts))
    return "/".join(part for part in parts[:wild] if part != ".")


def checked(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns, without empty ones.  Raises UsageError: none takes anything in, or one leaves the repository."""
    given = tuple(p.strip().removeprefix("./").rstrip("/") for p in patterns if p.strip())
    for pattern in given:
        if pattern.removeprefix("!").startswith("/") or ".." in pattern.removeprefix("!").split("/"):
            raise UsageError(f"the pattern {pattern[:80]!r} leaves the repository, expected one such as models/**")
    if all(p.startswith("!") for p in given):
        raise UsageError("no pattern takes anything in, expected at least one without `!`, such as models/**")
    return given


def _compiled(pattern: str) -> re.Pattern[str]:
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(wild.get(part) or re.escape(part) for part in _PART.findall(pattern)), re.DOTALL)
