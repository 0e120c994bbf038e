"""Parent side of a measurement: asks the measuring child, and turns every way it can fail into an error.

Imports no model library and loads nothing itself; what the child says comes back as records and errors.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from gate import __version__, resident, wire
from gate.backends import BACKENDS, BackendInfo, Checkpoint
from gate.child import Child, Ended, Outgrown, environment, printable
from gate.errors import BudgetExceeded, GateError, UsageError, WorkerError
from gate.frames import PROTOCOL, Frame, FrameError
from gate.policy import DomainStage, Policy
from gate.records import Measurement, Role, merge
from gate.stages import STAGES

IDLE_FACTOR = 3
"""A child that sends heartbeats but reports no progress and uses no CPU is given this many silences."""

WORK_SECONDS = 3600.0
"""A child that computes without any progress, as one does that loads, is given this long: the end of endless loops.

Time to read 400 GB of weights at 100 MB a second; a chat template or a configuration that never ends takes no longer.
"""

REACHING_OUT = frozenset({"openai"})
"""Backends whose model is elsewhere."""

_IDLE_CPU_SHARE = 0.005
_GRACE_SECONDS = 30.0

Progress = Callable[[int, int, str], None]
OnPart = Callable[[Mapping[str, Any]], None]


def start(
    *,
    backend: str,
    checkpoint: Checkpoint,
    role: Role,
    device: str,
    python: str | None,
    log: Path,
    silence_seconds: float,
    start_seconds: float,
    keep_env: Collection[str] = (),
    online: bool = False,
    network: bool = False,
    work_seconds: float = WORK_SECONDS,
    memory_bytes: int | None = None,
) -> Worker:
    """Start a measuring child and shake hands; its model is not loaded yet.

    Call it from the main thread, or from one that outlives the worker.

    Args:
        python: interpreter to run it with (`gate` must be installed there), or None for this one.
        log: file that its stdout and stderr are appended to.
        silence_seconds: a child that says nothing for so long counts as hung.
        start_seconds: time allowed from the start to the handshake.
        keep_env: environment variables to pass on although their names look like secrets.
        online: let it download, with the user's Hugging Face token: for `Worker.fetch` alone.
        network: let it reach other machines; a backend that has to, and a child that downloads, may without being told.
        work_seconds: a child that computes without any progress for so long counts as hung; downloads report none.
        memory_bytes: a child that takes more is ended; default: what this machine has to give now.

    Raises:
        UsageError: no such backend or interpreter.
        WorkerError: it did not start, or runs another version of the gate.
    """
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}, expected one of: {', '.join(sorted(BACKENDS))}")
    interpreter = python or sys.executable
    child = Child(
        interpreter=interpreter,
        env=environment(os.environ, keep=keep_env, device=device, online=online),
        log=log,
        silence_seconds=silence_seconds,
        network=network or online or backend in REACHING_OUT,
        device=device,
        memory_bytes=resident.available_bytes() if memory_bytes is None else memory_bytes,
    )
    open_request = {"op": "open", "backend": BACKENDS[backend], "checkpoint": asdict(checkpoint), "device": device}
    worker = Worker(
        child=child,
        role=role,
        open_request=open_request,
        silence_seconds=silence_seconds,
        work_seconds=float("inf") if online else work_seconds,
    )
    try:
        worker.shake_hands(interpreter, start_seconds)
    except BaseException:  # Ctrl-C included: nobody else knows of this child yet
        child.kill()
        raise
    return worker


def needs_network(policy: Policy) -> bool:
    """Does a stage ask a server (a judge) while it measures?"""
    return any(isinstance(stage, DomainStage) and stage.judge is not None for stage in policy.stages)


class Stream:
    """A measurement under way in a worker: yields the parts of one measurement, each when asked."""

    def __init__(self, *, call: Callable[..., Any], number: int, doing: str, on_progress: Progress) -> None:
        self._call = call
        self._number = number
        self._doing = doing
        self._on_progress = on_progress

    def advance(self, deadline_seconds: float | None) -> Measurement | None:
        """The next part, None after the last one.

        Raises:
            BudgetExceeded: `deadline_seconds` were not enough for it.
            CouldNotMeasure, DataError, UsageError, Refused: what the stage raised.
            WorkerError: anything else that can happen to a process.
        """
        slices: list[Measurement] = []
        more = self._call(
            {"op": "advance", "stream": self._number, "deadline_seconds": deadline_seconds},
            self._doing,
            deadline_seconds,
            self._on_progress,
            lambda data: slices.append(wire.decoded(data)),
        )
        return merge(slices) if more else None

    def end(self) -> None:
        """Tell the worker that no further part is wanted.  Raises WorkerError."""
        self._call({"op": "end", "stream": self._number}, self._doing)


class Worker:
    """Handle on one measuring child.  After an error it is of further use only while `alive`."""

    def __init__(
        self, *, child: Child, role: Role, open_request: Frame, silence_seconds: float, work_seconds: float
    ) -> None:
        self._child = child
        self._role = role
        self._open_request = open_request
        self._silence_seconds = silence_seconds
        self._work_seconds = work_seconds
        self._streams = 0

    @property
    def alive(self) -> bool:
        """Whether further requests can succeed."""
        return self._child.alive

    @property
    def running(self) -> bool:
        """Whether the process is there at all: it may have been killed while it waited."""
        return self.alive and self._child.running

    @property
    def pid(self) -> int:
        return self._child.pid

    def shake_hands(self, interpreter: str, start_seconds: float) -> None:
        """Wait for the child's greeting.  Raises WorkerError unless it runs this version of the gate."""
        install = f"install quantgate {__version__} for {interpreter!r}"
        try:
            hello = self._child.next_frame(time.monotonic() + start_seconds)
        except Ended:
            raise self._broken("protocol", f"{self._child.epitaph()[1]} before it could be used: {install}") from None
        except FrameError as problem:
            raise self._broken("protocol", f"did not greet as expected ({problem}): {install}") from problem
        if hello is None:
            raise self._hung(f"did not start within {start_seconds:g} s")
        if (hello["op"], hello.get("protocol"), hello.get("gate")) != ("hello", PROTOCOL, __version__):
            found = f"runs quantgate {hello.get('gate')} (protocol {hello.get('protocol')})"
            raise self._broken("protocol", f"{found}, expected {__version__} (protocol {PROTOCOL}): {install}")

    def check(self, stage: Mapping[str, Any], base: Path) -> tuple[Path, ...]:
        """Check a stage without a model; the local files it depends on.  Raises DataError, CouldNotMeasure."""
        request = {"op": "check", "module": STAGES[stage["kind"]], "stage": dict(stage), "base": str(base)}
        files: list[str] = self._call(request, f"while checking stage {stage['name']}")
        return tuple(Path(file) for file in files)

    def fetch(self, stage: Mapping[str, Any], base: Path) -> list[str]:
        """Download what a stage needs: a line per thing at hand.  Raises DataError, CouldNotMeasure, WorkerError."""
        request = {"op": "fetch", "module": STAGES[stage["kind"]], "stage": dict(stage), "base": str(base)}
        lines: list[str] = self._call(request, f"while fetching for stage {stage['name']}")
        return lines

    def fetch_checkpoint(self, reference: str, checkpoints: Mapping[str, Any], base: Path) -> str:
        """Download a checkpoint, its policy's `checkpoints:` table given as plain data; the folder it is in then.

        Raises:
            CheckpointError, UsageError: as `checkpoint.fetch`.
            WorkerError: the worker ended.
        """
        request = {"op": "fetch_checkpoint", "reference": reference, "checkpoints": checkpoints, "base": str(base)}
        folder: str = self._call(request, f"while fetching the checkpoint {reference}")
        return folder

    def open(self) -> BackendInfo:
        """Load the model.  Raises CheckpointError, WorkerError."""
        found = self._call(self._open_request, "while loading the model")
        return BackendInfo(**{**found, "notes": tuple(found["notes"]), "device_uuids": tuple(found["device_uuids"])})

    def begin(self, *, stage: Mapping[str, Any], context: Mapping[str, Any], on_progress: Progress) -> Stream:
        """Start measuring one stage; it goes on only while its stream is asked to, so several can take turns.

        Args:
            stage: its settings, `model_dump(mode="json")`.
            context: the fields of `stages.Context` but `role` and `progress`.

        Raises:
            WorkerError: the worker is gone.
        """
        self._streams += 1
        paths = {name: str(context[name]) for name in ("base", "artifacts")}
        request = {
            "op": "begin",
            "stream": self._streams,
            "module": STAGES[stage["kind"]],
            "stage": dict(stage),
            "context": {**context, **paths, "role": self._role},
        }
        doing = f"in stage {stage['name']}"
        self._call(request, doing)
        return Stream(call=self._call, number=self._streams, doing=doing, on_progress=on_progress)

    def memory(self) -> Mapping[str, int]:
        """Peak memory of the child so far, in bytes."""
        peaks: dict[str, int] = self._call({"op": "memory"}, "while reporting its memory")
        return peaks

    def close(self) -> None:
        """End the child and everything it started; may be called again."""
        self._child.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(
        self,
        request: Frame,
        doing: str,
        deadline_seconds: float | None = None,
        on_progress: Progress | None = None,
        on_part: OnPart | None = None,
    ) -> Any:
        if not self.alive:
            raise self._broken("crashed", f"had already ended {doing}: close it and start another")
        reply: Frame | None = None
        try:
            with contextlib.suppress(BrokenPipeError):  # it is gone: waiting for the reply tells how
                self._child.send(request)
            reply = self._reply(doing, deadline_seconds, on_progress, on_part)
        except Ended:
            kind, how = self._child.epitaph()
            raise self._broken(kind, f"{how} {doing}") from None
        except Outgrown as problem:
            found, limit = (f"{n / 2**30:.1f} GiB" for n in (problem.held_bytes, problem.limit_bytes))
            raise self._broken(
                "out_of_memory",
                f"was ended {doing}: it took {found} of memory, and this machine had {limit} to give when it started",
            ) from None
        except FrameError as problem:
            raise self._broken("protocol", f"broke the protocol {doing}: {problem}") from problem
        finally:
            if reply is None:  # Ctrl-C included: a child whose answer nobody awaits is of no use
                self._child.kill()
        if reply["op"] == "error":
            raise self._error(reply, doing)
        return reply["result"]

    def _reply(
        self, doing: str, deadline_seconds: float | None, on_progress: Progress | None, on_part: OnPart | None
    ) -> Frame:
        """Take frames until the request is answered, watching the clock."""
        begun = worked = reported = beat_at = time.monotonic()
        cpu_seconds: float | None = None
        ends = float("inf")
        if deadline_seconds is not None:  # the child stops by itself at the deadline, if it can
            ends = begun + deadline_seconds + min(_GRACE_SECONDS, self._silence_seconds)
        while True:
            frame = self._child.next_frame(min(time.monotonic() + self._silence_seconds, ends))
            now = time.monotonic()
            if frame is None and now < ends:
                raise self._hung(f"gave no sign of life for {self._silence_seconds:g} s {doing}")
            if frame is not None and frame["op"] in ("done", "error"):
                return frame
            if frame is None or now >= ends:
                self._child.kill()
                raise BudgetExceeded(
                    f"the {self._role} worker was ended {doing}: the time budget left was {deadline_seconds:.0f} s"
                )
            match frame["op"]:
                case "progress" if on_progress is not None:
                    worked = reported = now
                    on_progress(frame["done"], frame["total"], frame["label"])
                case "part" if on_part is not None:
                    worked = reported = now
                    try:
                        on_part(frame["measurement"])
                    except (KeyError, TypeError, ValueError) as problem:
                        raise FrameError(f"a measurement cannot be read: {problem!r}") from problem
                case "heartbeat":
                    if cpu_seconds is None or frame["cpu_seconds"] - cpu_seconds > _IDLE_CPU_SHARE * (now - beat_at):
                        worked = now
                    beat_at, cpu_seconds = now, frame["cpu_seconds"]
                    if now - worked > IDLE_FACTOR * self._silence_seconds:
                        raise self._hung(f"did no work for {now - worked:.0f} s {doing}")
                    if now - reported > self._work_seconds:
                        raise self._hung(f"computed for {now - reported:.0f} s without any progress {doing}")
                case unexpected:
                    raise FrameError(f"unexpected {unexpected!r} frame")

    def _error(self, reply: Frame, doing: str) -> GateError:
        crossing = wire.CROSSING.get(reply["class"])
        if crossing is not None:
            return crossing(printable(reply["message"]))
        said = printable(reply["message"]).strip() or "no message"
        message = f"the {self._role} worker failed {doing}: {reply['class']}: {said}"
        if reply["kind"] == "device_lost":
            message = (
                f"the {self._role} worker lost its device {doing} ({reply['class']}: {said.splitlines()[0]}): the GPU "
                "failed or was taken away; look at nvidia-smi and the kernel's log (Xid), then run again"
            )
        return WorkerError(message, kind=reply["kind"], stderr_tail=self._child.tail())

    def _hung(self, what: str) -> WorkerError:
        self._child.show_stacks()
        return self._broken("hung", f"{what} and was killed; its log ends with where it stood")

    def _broken(self, kind: str, what: str) -> WorkerError:
        self._child.kill()
        return WorkerError(f"the {self._role} worker {what}", kind=kind, stderr_tail=self._child.tail())
