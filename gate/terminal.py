"""Standard output that may go away, and that a CI job may obey: neither must change an exit code or a job.

Prints nothing itself.  What is made harmless, and how, is for `gate.reports.escape` to say.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping
from typing import BinaryIO

_ENDS = re.compile(r"[\r\n]")
_OPEN = re.compile(r"(?:\s|\x1b(?:\[[0-9;]*m?)?)*:?")
_SEEN_CHARACTERS = 8
"""How much of a line can be the beginning of a command that may stand anywhere in it."""


class Patient(io.TextIOWrapper):
    """Text output that goes nowhere once it cannot be written: whoever listened has left, and the run goes on.

    `harmless` makes text harmless for whoever obeys it; it must only insert, and never before the text's own beginning.
    It sees each piece after what the line began with: a command that comes in two pieces is one all the same.
    """

    harmless: Callable[[str], str] | None = None
    _begun = ""

    def write(self, text: str, /) -> int:
        """Write, harmless.  The number of characters is that of `text`, as callers expect."""
        return self._written(text if self.harmless is None else self._made_harmless(self.harmless, text), len(text))

    def command(self, text: str) -> None:
        """Write one line that is meant to be obeyed; `text` holds no line break."""
        begin = "\n" if self._begun else ""
        self._begun = ""
        self._written(f"{begin}{text}\n", 0)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._give_up()

    def _made_harmless(self, harmless: Callable[[str], str], text: str) -> str:
        begun = self._begun
        *_, line = _ENDS.split(begun + text)
        self._begun = line if _OPEN.fullmatch(line) else "x" + line[-_SEEN_CHARACTERS:]
        return harmless(begun + text)[len(harmless(begun)) :]

    def _written(self, text: str, count: int) -> int:
        try:
            super().write(text)
        except OSError:
            self._give_up()
        return count

    def _give_up(self) -> None:
        """What is buffered, and all that follows, is swallowed."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self.fileno())
        finally:
            os.close(nowhere)


def patient(stream: object, harmless: Callable[[str], str] | None = None) -> Patient | None:
    """A patient stream in the place of a standard one; None where there is nothing to replace (tests, IDLE).

    A job's log is UTF-8: in it a poor encoding gives way, since libraries write around a stream that has one.
    """
    if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, Patient):
        return None
    encoding, lines = stream.encoding, stream.line_buffering
    buffer: BinaryIO = stream.detach()
    made = Patient(
        buffer,
        encoding=encoding if harmless is None else "utf-8",
        errors="backslashreplace",
        line_buffering=lines,
    )
    made.harmless = harmless
    return made


def obeyed(environment: Mapping[str, str]) -> bool:
    """Does this process run in a CI job that takes commands from its output (GitHub and its kin, Azure Pipelines)?"""
    return bool(environment.get("GITHUB_ACTIONS") or environment.get("TF_BUILD"))


def install(harmless: Callable[[str], str]) -> None:
    """Make standard output and standard error patient, and in a CI job that obeys them `harmless`.

    What goes into a file is nobody's command, and may be data.
    """
    acting = obeyed(os.environ)
    sys.stdout = patient(sys.stdout, harmless if acting and not _is_file(sys.stdout) else None) or sys.stdout
    sys.stderr = patient(sys.stderr, harmless if acting and not _is_file(sys.stderr) else None) or sys.stderr


def _is_file(stream: object) -> bool:
    try:
        return isinstance(stream, io.TextIOWrapper) and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def command(text: str) -> None:
    """A line on standard output that the CI job is meant to obey (a `::warning::`); `text` is escaped for that."""
    if isinstance(sys.stdout, Patient):
        sys.stdout.command(text)
    else:
        sys.stdout.write(f"{text}\n")
