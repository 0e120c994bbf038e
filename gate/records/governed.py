"""Who else has a say besides the measurements: waivers of red rules, and changes of the policy in a pull request.

Pure: frozen data and invariants; no judgement has a default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gate.records.words import Status

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiver:
    """Somebody answers for one red rule of one checkpoint until a day (ISO date, the last on which it holds).

    `checkpoint` is the hex SHA-256 that the record shows for it.  A waiver changes exit codes and titles, no status.
    """

    rule: str
    checkpoint: str
    owner: str
    reason: str
    expires: str

    def __post_init__(self) -> None:
        if not _DAY.fullmatch(self.expires):
            raise ValueError(f"found expiry {self.expires!r}, expected a day such as 2026-12-31")
        for name in ("rule", "checkpoint", "owner", "reason"):
            if not getattr(self, name).strip():
                raise ValueError(f"a waiver without {name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleChange:
    """What a pull request does to one rule: `added`, `removed`, `loosened`, `tightened` or `changed`.

    `was` and `now` are the rule as a line of text; None where there is none.
    """

    rule: str
    kind: str
    was: str | None
    now: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """A stored run under the policy of the base branch and under that of the pull request."""

    run_id: str
    candidate: str
    was: Status
    now: Status


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyChange:
    """The pull request changes what judges it.  The run was judged by the base branch's policy all the same.

    Attributes:
        base_commit: where policy, tasks and prompts were taken from.
        paths: files of the policy, the tasks and the prompts that the pull request changes, relative to the repository.
        rules: what it does to the rules; empty where only tasks or data changed.
        moves: verdicts of stored runs that would be others.
        replayed: how many stored runs were judged again.
        notes: what could not be replayed, and why.
    """

    base_commit: str
    paths: tuple[str, ...]
    rules: tuple[RuleChange, ...]
    moves: tuple[Move, ...]
    replayed: int
    notes: tuple[str, ...]
