"""Two models whose timing blocks are scripts, in place of `evidence.Collector`: what is asked of them, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from gate import metrics
from gate.errors import BudgetExceeded
from gate.evidence import Block, Progress, SecondsLeft
from gate.policy import Policy, ProfileStage
from gate.records import ItemFailure, Measurement, Observation, Role

A, B = Role.BASELINE, Role.CANDIDATE
DECODE = metrics.PROFILE["decode_tokens_per_second"]
RSS = metrics.PROFILE["rss_peak"]
NOISE = (0.001, -0.002, 0.0015, -0.0005, 0.002, -0.001, 0.0005, -0.0015, 0.001, -0.001)
"""Relative, of the candidate's blocks: what a machine does by itself."""

Speed = Callable[[Role, int, bool], float]
"""(role, number of the block, of the second measurement?) → tokens per second."""


def steady(role: Role, number: int, again: bool) -> float:
    return 100.0 if role is A else 100.0 * (1 + NOISE[number])


def slower(share: float) -> Speed:
    return lambda role, number, again: steady(role, number, again) * (1 - share if role is B else 1)


def observation(metric: str, item_id: str, value: float, group: str | None = None) -> Observation:
    return Observation(metric=metric, item_id=item_id, value=value, weight=1.0, cluster=None, group=group)


@dataclass
class Side:
    role: Role
    log: list[str]
    device: str
    cannot_open: Callable[[], Exception | None] = lambda: None
    known: Any = None
    is_open: bool = False
    starts: int = 0
    ref: Any = field(default_factory=lambda: type("Ref", (), {"weight_bytes": 1000})())

    def opened(self) -> None:
        if not self.is_open:
            problem = self.cannot_open()
            if problem is not None:
                raise problem
            self.log.append(f"open {self.role}")
            self.starts += 1
            self.is_open, self.known = True, type("Info", (), {"device": self.device})()

    def drop(self) -> None:
        if self.is_open:
            self.log.append(f"drop {self.role}")
        self.is_open = False


class Machine:
    """Stands for `evidence.Collector`: two models whose blocks are as fast as `speed` says."""

    def __init__(self, speed: Speed = steady, *, device: str = "cpu", batches: Sequence[int] = (1,)) -> None:
        self.speed, self.batches = speed, batches
        self.log: list[str] = []
        self.baseline, self.candidate = Side(A, self.log, device), Side(B, self.log, device)
        self.disturbed: list[float] = []
        """The share of each block's time that it waited for a CPU, in the order of the blocks; 0 after the last."""
        self.raises: Callable[[Block], Exception | None] = lambda block: None
        self.out_of_memory: Callable[[Role, int], bool] = lambda role, batch: False
        self.shown: list[tuple[int, int, str]] = []

    def side(self, role: Role) -> Side:
        return self.baseline if role is A else self.candidate

    def drop_workers(self) -> None:
        self.baseline.drop()
        self.candidate.drop()

    def progress(self, done: int, total: int, label: str) -> None:
        self.shown.append((done, total, label))

    def block(
        self, settings: ProfileStage, block: Block, scratch: Path, seconds_left: SecondsLeft, progress: Progress
    ) -> Measurement:
        left = seconds_left()
        if left is not None and left <= 0:
            raise BudgetExceeded("the time budget was used up")
        self.side(block.role).opened()
        if (problem := self.raises(block)) is not None:
            raise problem
        item = f"{'again' if block.again else 'block'}/{block.number}"
        self.log.append(f"{block.role} {item}")
        progress(1, 2, f"{item}, batch=1, {block.role}")
        failed = [b for b in self.batches if self.out_of_memory(block.role, b)]
        fine = [b for b in self.batches if b not in failed]
        value = self.speed(block.role, block.number, block.again)
        waited = self.disturbed.pop(0) if self.disturbed else 0.0
        scalars = [] if block.again else [observation("rss_peak_bytes", f"run/{block.number}", 5e6)]
        first = block.number == 0 and not block.again
        looks = [observation("look_pairs", f"look/{i}", n) for i, n in enumerate(settings.planned_pairs)]
        return Measurement(
            stage=settings.name,
            source=settings.name,
            role=block.role,
            settings_digest="d",
            n_expected=settings.planned_pairs[-1],
            n_available=settings.planned_pairs[-1],
            n_reached=0 if block.again else 1,
            planned_tokens=0,
            chance=None,
            metrics=(DECODE,) if block.again else (DECODE, RSS),
            observations=(
                *(observation(DECODE.observed, item, value, f"batch={b}") for b in fine),
                observation("cpu_wait_share", item, waited),
                *scalars,
                *(looks if first else ()),
            ),
            failures=tuple(
                ItemFailure(item_id=f"{item}/batch={b}", kind="out_of_memory", message="no room") for b in failed
            ),
            answers=(),
            seconds=1.0,
            notes=(),
        )

    @property
    def order(self) -> list[str]:
        """The blocks that were measured: `A0`, `B0`, …; of the second measurement `A0'`."""
        names = {A: "A", B: "B"}
        done = [line.split() for line in self.log if line.split()[0] in names]
        return [
            names[Role(role)] + item.partition("/")[2] + ("'" if item.startswith("again") else "")
            for role, item in done
        ]


RETAIN = {"metric": "decode_tokens_per_second", "min_retained": "95%"}


def stage_of(*rules: dict[str, Any], **settings: Any) -> ProfileStage:
    document = {"kind": "profile", "name": "serving", "rules": list(rules) or [RETAIN], **settings}
    (stage,) = Policy.model_validate({"version": 1, "stages": [document]}).stages
    return cast(ProfileStage, stage)
