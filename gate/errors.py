"""Every way the gate can end other than with a verdict: one class per cause, one exit code per class.

Messages say what was found, what was expected and what to do.  Nothing here prints or exits.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class ExitCode(IntEnum):
    """Process exit codes; a verdict maps to one of them, and so does every exception below."""

    PASS = 0
    REGRESSION = 1
    USAGE = 2
    INCONCLUSIVE = 3
    ERROR = 4
    REFUSED = 5
    INTERNAL = 70
    INTERRUPTED = 130


class GateError(Exception):
    """Base of everything the gate raises on purpose."""

    exit_code: ExitCode = ExitCode.INTERNAL


class UsageError(GateError):
    """The request cannot be carried out as written; nothing was run."""

    exit_code = ExitCode.USAGE


class PolicyError(UsageError):
    """The policy, or another file that governs a run, is invalid: every mistake, each with its place in the file."""

    def __init__(self, source: str, problems: tuple[str, ...], noun: str = "policy") -> None:
        if not problems:
            raise ValueError("a PolicyError needs at least one problem")
        self.source = source
        self.problems = problems
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__(f"{source}: {count} in the {noun}\n" + "\n".join(f"  {p}" for p in problems))


class DataError(UsageError):
    """An evaluation file, a corpus or a task is missing or malformed."""


class NotFetched(DataError):
    """Data that would have to be downloaded is not on this machine."""


class CouldNotMeasure(GateError):
    """A measurement was asked for and did not happen: never a pass, never a regression."""

    exit_code = ExitCode.ERROR


class BudgetExceeded(CouldNotMeasure):
    """A measurement was stopped because its time budget ran out; the worker may still be usable."""


class CheckpointError(CouldNotMeasure):
    """A checkpoint is there but cannot be used: truncated, shard missing, tokenizer mismatch."""


class WorkerError(CouldNotMeasure):
    """The measuring child crashed, hung, ran out of memory or broke the protocol."""

    def __init__(self, message: str, *, kind: str, stderr_tail: str) -> None:
        self.kind = kind
        self.stderr_tail = stderr_tail
        super().__init__(message)


class ArtifactError(CouldNotMeasure):
    """A stored record or measurement cannot be read back as what it claims to be."""


class Refused(GateError):
    """The checkpoint is unsafe or is not what it claims to be."""

    exit_code = ExitCode.REFUSED
