"""Standard output that may go away: a closed pipe, a full disk or a poor encoding must not change an exit code.

Prints nothing itself.
"""

from __future__ import annotations

import io
import os
import sys
from typing import BinaryIO


class Patient(io.TextIOWrapper):
    """Text output that goes nowhere once it cannot be written: whoever listened has left, and the run goes on."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """What is buffered, and all that follows, is swallowed."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self.fileno())
        finally:
            os.close(nowhere)


def patient(stream: object) -> Patient | None:
    """A patient stream in the place of a standard one; None where there is nothing to replace (tests, IDLE)."""
    if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, Patient):
        return None
    encoding, lines = stream.encoding, stream.line_buffering
    buffer: BinaryIO = stream.detach()
    return Patient(buffer, encoding=encoding, errors="backslashreplace", line_buffering=lines)


def install() -> None:
    """Make standard output and standard error patient."""
    sys.stdout = patient(sys.stdout) or sys.stdout
    sys.stderr = patient(sys.stderr) or sys.stderr
