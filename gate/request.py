"""What `gate run` is asked for, and the outside world that it may use.

Names what is injected; does nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gate.decide.outlook import Floors
from gate.evidence import StartWorker
from gate.policy_file import LoadedPolicy
from gate.records import Environment, StageResult, Waiver
from gate.store import Store


class Reporter(Protocol):
    """Who watches the run; the console is one."""

    def started(self, index: int, total: int, kind: str, name: str) -> None: ...
    def progress(self, done: int, total: int, label: str) -> None: ...
    def finished(self, result: StageResult) -> None: ...
    def note(self, text: str) -> None: ...


class Refuse(Protocol):
    def __call__(self, *, floors: Floors) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to decide.  `stages` restricts the run (never to a PASS); empty means all.

    `refuse_hopeless` raises PolicyError for rules that the baseline's measured noise makes undecidable.  `waivers` are
    all that are on file, whatever their checkpoint and day; `notes` are what the record must say of the request.
    """

    policy: LoadedPolicy
    baseline: str
    candidate: str
    backend: str
    device: str
    stages: tuple[str, ...]
    keep_going: bool
    allow_identical: bool
    offline: bool
    fetch_command: str
    refuse_hopeless: Refuse
    waivers: tuple[Waiver, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The outside world.

    Attributes:
        start_worker: (role, what to load) → a measuring child, its model not loaded yet.
    """

    start_worker: StartWorker
    store: Store
    environment: Environment
    reporter: Reporter
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
