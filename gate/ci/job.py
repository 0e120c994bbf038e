"""What a step tells the job that it runs in: outputs and the summary, through the files that GitHub names.

Escapes nothing and judges nothing; no value can become another output, whatever it holds.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from gate.errors import UsageError

MAX_SUMMARY_BYTES = 2**20
"""Of one step's summary; GitHub drops a larger one whole."""


def set_outputs(values: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Append to the file that GITHUB_OUTPUT names; nothing outside of Actions.

    Each value stands between delimiters that nobody can guess, so a line of it never ends it.

    Raises:
        UsageError: the file cannot be written.
    """
    blocks = []
    for name, value in values.items():
        delimiter = f"quantgate_{secrets.token_hex(16)}"
        blocks.append(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")
    _append("GITHUB_OUTPUT", "".join(blocks), environ)


def summary_room(environ: Mapping[str, str]) -> int:
    """Bytes that the step's summary still takes; 0 outside of Actions."""
    name = environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return 0
    try:
        used = Path(name).stat().st_size
    except OSError:
        used = 0
    return max(0, MAX_SUMMARY_BYTES - used)


def add_to_summary(text: str, environ: Mapping[str, str]) -> None:
    """Append to the step's summary.  Raises UsageError: the file cannot be written."""
    _append("GITHUB_STEP_SUMMARY", text, environ)


def _append(variable: str, text: str, environ: Mapping[str, str]) -> None:
    name = environ.get(variable)
    if not name:
        return
    try:
        with Path(name).open("ab") as file:
            file.write(text.encode("utf-8", "replace"))
    except OSError as problem:
        raise UsageError(f"the file of {variable} cannot be written: {problem.strerror}") from problem
