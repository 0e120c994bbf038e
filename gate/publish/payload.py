"""A payload of GitHub, value by value: of the type and the shape that is expected, or an error that names it.

Pure.  Nothing is converted, nothing is guessed; a value that is wrong is never treated as one that is missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gate.errors import UsageError

_SHA = re.compile(r"[0-9a-fA-F]{40}")
_REPOSITORY = re.compile(r"(?!\.{1,2}/)[A-Za-z0-9_.-]{1,100}/(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,100}")
_REF = re.compile(r"(?!.*\.\.)[^\x00-\x20\x7f-\x9f~^:?*\[\\\ud800-\udfff]{1,255}")
_LOCAL = ("localhost", "127.0.0.1", "::1")
_MAX_NUMBER = 2**63
NOWHERE = "0" * 40
"""The commit of a branch that is not there: before it was made, or after it was deleted."""


class Payload:
    """A JSON object by dotted paths; `None` stands for what is missing or null, also above the last key."""

    def __init__(self, data: Any) -> None:
        if not isinstance(data, Mapping):
            raise UsageError(f"the event's payload is a {type(data).__name__}, expected a JSON object")
        self._data = data

    def get(self, path: str) -> Any:
        value: Any = self._data
        for key in path.split("."):
            if value is None:
                return None
            if not isinstance(value, Mapping):
                raise UsageError(f"the event's {path} lies in a {type(value).__name__}, expected an object")
            value = value.get(key)
        return value

    def needed(self, path: str) -> Any:
        value = self.get(path)
        if value is None:
            raise UsageError(f"the event has no {path}: is this its payload? Say --sha (and --pull) to do without")
        return value

    def sha(self, path: str) -> str:
        return sha(self.needed(path), path)

    def number(self, path: str) -> int:
        return number(self.needed(path), path)

    def ref(self, path: str) -> str | None:
        value = self.get(path)
        return None if value is None else ref(value, path)


def sha(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _SHA.fullmatch(value) or value == NOWHERE:
        raise UsageError(f"{name} is {_shown(value)}, expected the 40 hex digits of a commit")
    return value.lower()


def repository(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _REPOSITORY.fullmatch(value):
        raise UsageError(f"{name} is {_shown(value)}, expected owner/name")
    return value


def ref(value: Any, name: str) -> str:
    """A branch, or a full ref: what git allows as one."""
    if not isinstance(value, str) or not _REF.fullmatch(value):
        raise UsageError(f"{name} is {_shown(value)}, expected the name of a branch or a ref")
    return value


def number(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MAX_NUMBER:
        raise UsageError(f"{name} is {_shown(value)}, expected a whole number above 0")
    return value


def written_number(environ: Mapping[str, str], name: str) -> int | None:
    """A number among the variables of a job; None where it is not set."""
    text = environ.get(name) or ""
    if not text:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,17}", text):
        raise UsageError(f"{name} is {_shown(text)}, expected a whole number above 0")
    return int(text)


def address(value: Any) -> str | None:
    """An address that a reader may be sent to; None for anything else: it is a convenience, and no reason to stop."""
    if not isinstance(value, str) or len(value) > 1000 or not re.fullmatch(r"[!-~]+", value):
        return None
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
    except ValueError:
        return None
    plain = parts.scheme == "http" and host in _LOCAL
    return value if host and parts.username is None and (parts.scheme == "https" or plain) else None


def _shown(value: Any) -> str:
    shown = repr(value[:80]) if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 100 else shown[:100] + "…"
