"""What a stored measurement is known by: a digest of everything that can change it, and of nothing that cannot.

Reads the files that a stage depends on; decides nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gate.errors import DataError
from gate.store.seal import digest

REQUIRED = frozenset(
    {"digest", "effective_digest", "stage", "source", "settings_digest", "sample_seed", "backend", "environment"}
)
"""Without one of these, two different measurements could share a key."""

CALIBRATION_REQUIRED = frozenset(
    {"effective_digest", "stage", "source", "settings", "backend", "device", "environment"}
)
"""Noise is that of one model on one machine, asked one thing in one way."""

NEVER_STORED = "profile"
"""Timing holds for the minute in which it was taken: both sides are timed side by side, in every run."""

_IGNORED_SETTINGS = frozenset({"name", "budget"})


def measurement_key(parts: Mapping[str, str]) -> str:
    """Hex SHA-256 over everything that can change the measurement.

    Raises:
        ValueError: a part is missing, or it is a timing.
    """
    missing = sorted(name for name in REQUIRED if not parts.get(name))
    if missing:
        raise ValueError(f"a store key needs {', '.join(missing)}: without it, measurements would be mixed up")
    if parts["stage"] == NEVER_STORED:
        raise ValueError("found a profile stage, expected one that scores: timings are never stored")
    return digest(dict(parts))


def calibration_key(parts: Mapping[str, str]) -> str:
    """Hex SHA-256 over everything that noise depends on.  Raises ValueError if a part is missing."""
    missing = sorted(name for name in CALIBRATION_REQUIRED if not parts.get(name))
    if missing:
        raise ValueError(f"a calibration's key needs {', '.join(missing)}: without it, noise would be mixed up")
    return digest(dict(parts))


def stage_digest(settings: Mapping[str, Any], files: Sequence[Path], version: int, base: Path) -> str:
    """Hex SHA-256 of what a stage measures.

    Args:
        settings: the single-source settings as plain data; names, budgets and rules do not count.
        files: every local file that the scores depend on, in an order that does not depend on the machine.
        version: of the stage's way of scoring.
        base: files below it count with their place, others with their name: a project may move as a whole.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        contents = [(_place(path, base), sha256(path)) for path in files]
    except OSError as problem:
        raise DataError(f"cannot read {problem.filename!r}, which a stage depends on: {problem.strerror}") from problem
    measured = {name: value for name, value in settings.items() if name not in _IGNORED_SETTINGS}
    return digest({"settings": _without_rules(measured), "files": contents, "version": version})


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file.  Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(path: Path, base: Path) -> str:
    """The path from `base` as written, or else with links followed; the name of a file that is not below it."""
    for file, folder in ((path, base), (path.resolve(), base.resolve())):
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
    return path.name


def _without_rules(value: Any) -> Any:
    """Plain data without any `rules`, at whatever depth (a task carries its own)."""
    if isinstance(value, Mapping):
        return {k: _without_rules(v) for k, v in value.items() if k != "rules"}
    if isinstance(value, list | tuple):
        return [_without_rules(v) for v in value]
    return value
