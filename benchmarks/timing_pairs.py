"""Pairs of timing blocks, measured as a run of the gate does: two workers of the hf backend, A B B A, one machine.

Measures and keeps; judges nothing.  A file of pairs is JSON Lines: what was measured and where, then a line per pair.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import slowed
from gate import launch, wire
from gate.backends import BACKENDS, Checkpoint
from gate.demo.bundle import world
from gate.order import sample_seed
from gate.policy import Policy, ProfileStage, planned_rules
from gate.records import Measurement, Role, Rule, merge
from gate.stages.profile import block_order

STAGE = "speed"
CONDITIONS: Mapping[str, float] = {"A/A": 0.0, "5% slower": 0.05, "10% slower": 0.10}
"""Name → by how much longer every step of the candidate lasts."""

RULES: tuple[Mapping[str, Any], ...] = (
    {"metric": "decode_tokens_per_second", "batch": 1, "min_retained": "95%"},
    {"metric": "decode_tokens_per_second", "batch": 8, "min_retained": "95%"},
    {"metric": "decode_tokens_per_second", "batch": 1, "min_retained": "97%"},
    {"metric": "decode_tokens_per_second", "batch": 8, "min_retained": "97%"},
    {"metric": "ttft_p50_seconds", "batch": 1, "max_increase": "10%"},
    {"metric": "ttft_p50_seconds", "batch": 8, "max_increase": "10%"},
    # no room at all: two copies of one checkpoint are exactly at this bound, so its false alarms are the t-test's own
    {"metric": "decode_tokens_per_second", "batch": 1, "min_retained": "100%"},
    {"metric": "decode_tokens_per_second", "batch": 8, "min_retained": "100%"},
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Block `number` of both roles, in worker processes that `session` shares with its other pairs."""

    condition: str
    session: int
    number: int
    baseline: Measurement
    candidate: Measurement

    def of(self, role: Role) -> Measurement:
        return self.baseline if role is Role.BASELINE else self.candidate


def policy(pairs: int) -> tuple[ProfileStage, tuple[Rule, ...]]:
    """The stage that is timed, with the demo policy's lengths, and the rules that are judged."""
    stage = {
        "kind": "profile",
        "name": STAGE,
        "batch_sizes": [1, 8],
        "prompt_tokens": 64,
        "new_tokens": 16,
        "blocks": pairs,
        "rules": [dict(rule) for rule in RULES],
    }
    whole = Policy.model_validate({"version": 1, "stages": [stage]})
    (settings,) = whole.stages
    assert isinstance(settings, ProfileStage)
    return settings, planned_rules(whole, {})


def measure(
    path: Path, *, sessions: int, pairs_a_session: int, load: bool, cpus: int, say: Callable[[str], None]
) -> None:
    """Measure `sessions` × `pairs_a_session` pairs of each condition, the conditions in turn, into `path`."""
    used = limit_to(cpus)
    settings, _ = policy(8)  # as the default policy has it: four batches of each shape in a block
    about = {
        "cpus": used,
        "other_process": load,
        "settings": settings.model_dump(mode="json", exclude={"rules"}),
        "runs_a_block": settings.runs_a_block,
        "python": platform.python_version(),
    }
    with path.open("w", encoding="utf-8") as file, busy_core(load), tempfile.TemporaryDirectory() as folder:
        begun = perf_counter()
        wrote_about = False
        for session in range(sessions):
            for condition, share in CONDITIONS.items():
                with Workers(Path(folder), share) as workers:
                    if not wrote_about:
                        file.write(json.dumps({**about, "packages": workers.packages}) + "\n")
                        wrote_about = True
                    for pair in workers.pairs(settings, condition, session, pairs_a_session):
                        file.write(json.dumps(encoded(pair)) + "\n")
                        file.flush()
                say(f"{condition}, session {session + 1} of {sessions}: {perf_counter() - begun:.0f} s so far")


class Workers:
    """Both roles' measuring children, on copies of the demo's baseline.  Use as a context manager."""

    def __init__(self, folder: Path, share: float) -> None:
        BACKENDS.setdefault(slowed.NAME, slowed.WHERE)
        path = str(world() / "baseline")
        plain = Checkpoint(path=path, load={}, dtype="auto", tokenizer=None)
        slow = replace(plain, engine={slowed.SHARE: share})
        self._folder = folder
        self._started = {
            Role.BASELINE: ("hf", plain),
            Role.CANDIDATE: (slowed.NAME, slow) if share else ("hf", plain),
        }
        self._workers: dict[Role, launch.Worker] = {}
        self.packages: dict[str, str] = {}

    def __enter__(self) -> Workers:
        os.environ["QUANTGATE_THREADS"] = "1"
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
        try:
            for role, (backend, checkpoint) in self._started.items():
                self._workers[role] = launch.start(
                    backend=backend,
                    checkpoint=checkpoint,
                    role=role,
                    device="cpu",
                    python=None,
                    log=self._folder / f"{role}.log",
                    silence_seconds=120.0,
                    start_seconds=120.0,
                )
            for worker in self._workers.values():
                packages = worker.open().packages
                self.packages = {name: packages[name] for name in ("torch", "transformers")}
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def pairs(self, settings: ProfileStage, condition: str, session: int, count: int) -> Iterator[Pair]:
        """`count` pairs of blocks, in the stage's own order."""
        for number, order in enumerate(block_order(count)):
            found = {role: self._block(role, settings, session, number) for role in order}
            yield Pair(
                condition=condition,
                session=session,
                number=number,
                baseline=found[Role.BASELINE],
                candidate=found[Role.CANDIDATE],
            )

    def _block(self, role: Role, settings: ProfileStage, session: int, number: int) -> Measurement:
        seed = sample_seed(session, slowed.NAME)
        stream = self._workers[role].begin(
            stage=settings.model_dump(mode="json"),
            context={
                "base": ".",
                "settings_digest": "0" * 64,
                "sample_seed": seed,
                "order_seed": seed,
                "artifacts": str(self._folder),
                "block": number,
            },
            on_progress=lambda done, total, label: None,
        )
        return merge(list(iter(lambda: stream.advance(None), None)))


def limit_to(cpus: int) -> int:
    """Keep this process and what it starts on the first `cpus` of its CPUs; the number that it may use then."""
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])
    return len(os.sched_getaffinity(0))


@contextmanager
def busy_core(wanted: bool) -> Iterator[None]:
    """While entered, another process computes without end."""
    if not wanted:
        yield
        return
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def encoded(pair: Pair) -> dict[str, Any]:
    """A line of the file."""
    roles = {role.value: list(wire.encoded(pair.of(role))) for role in Role}
    return {"condition": pair.condition, "session": pair.session, "number": pair.number, **roles}


def decoded(line: Mapping[str, Any]) -> Pair:
    roles = {role.value: merge([wire.decoded(part) for part in line[role]]) for role in Role}
    return Pair(condition=line["condition"], session=line["session"], number=line["number"], **roles)


def read(path: Path) -> tuple[Mapping[str, Any], Sequence[Pair]]:
    """What was measured and where, and the pairs in the order in which they were."""
    with path.open(encoding="utf-8") as file:
        about, *lines = (json.loads(line) for line in file)
    return about, [decoded(line) for line in lines]
