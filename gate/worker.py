"""The measuring child: opens one model, serves the gate's requests, streams what the stages yield.

Decides nothing and writes nothing to stdout: it talks through two file descriptors of its own.
Started by `launch` as `python -m gate.worker READ_FD WRITE_FD HEARTBEAT_SECONDS DIE_WITH_PARENT NETWORK DEVICE`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from gate import __version__, checkpoint, policy, wire
from gate.backends import Backend, Checkpoint
from gate.confinement import confine, die_with_parent
from gate.errors import BudgetExceeded, CouldNotMeasure
from gate.frames import PROTOCOL, Frame, FrameError, Sender, Unpacker
from gate.records import Measurement, Role
from gate.stages import Context

PROGRESS_SECONDS = 0.2
"""Progress is reported at most this often."""

_READ_BYTES = 1 << 16
_SETTINGS: TypeAdapter[policy.Stage] = TypeAdapter(Annotated[policy.Stage, Field(discriminator="kind")])
_OUT_OF_MEMORY_TEXTS = (
    *("out of memory", "can't allocate memory", "not enough memory"),
    *("alloc_failed", "allocation_failed"),
)

_DEVICE_LOST_TEXTS = (
    "gpu is lost",
    "fallen off the bus",
    "unspecified launch failure",
    "cuda error: unknown error",
    "no cuda-capable device",
    "uncorrectable ecc error",
    "busy or unavailable",
)
"""What CUDA and NVML say of a device that was there before; lower case."""


class Busy:
    """While entered, a thread tells the gate every few seconds that this process lives and how much CPU it used.

    Native code that hangs with the interpreter lock held silences it, which is how the gate notices.
    """

    def __init__(self, sender: Sender, seconds: float) -> None:
        self._sender = sender
        self._seconds = seconds
        self._working = threading.Event()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def __enter__(self) -> None:
        self._working.set()

    def __exit__(self, *_: object) -> None:
        self._working.clear()

    def _beat(self) -> None:
        with contextlib.suppress(OSError):  # the gate is gone: `_requests` ends this process
            while True:
                self._working.wait()
                _, _, children_user, children_system, _ = os.times()
                used = time.process_time() + children_user + children_system
                self._sender.send({"op": "heartbeat", "cpu_seconds": used})
                time.sleep(self._seconds)


class Server:
    """Carries out one request at a time with the model it holds; measurements under way wait for the next one."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._backend: Backend | None = None
        self._streams: dict[int, Stream] = {}

    def answer(self, request: Frame) -> Any:
        """The result of one request, as plain data."""
        match request["op"]:
            case "check":
                files = _stage_module(request).check(_settings(request["stage"]), Path(request["base"]))
                return [str(path) for path in files]
            case "fetch":
                return _stage_module(request).fetch(_settings(request["stage"]), Path(request["base"]))
            case "fetch_checkpoint":
                return _fetched(request)
            case "open":
                return self._open(request)
            case "begin":
                self._streams[request["stream"]] = self._begun(request)
                return None
            case "advance":
                return self._advance(self._streams[request["stream"]], request["deadline_seconds"])
            case "end":
                stream = self._streams.pop(request["stream"], None)
                return None if stream is None else stream.parts.close()
            case "memory":
                return dict(self._opened().memory_bytes())
            case unknown:
                raise FrameError(f"unknown request {unknown!r}")

    def _open(self, request: Frame) -> dict[str, Any]:
        if self._backend is None:
            module, attribute = request["backend"].split(":")
            open_backend: Callable[[Checkpoint, str], Backend] = getattr(import_module(module), attribute)
            self._backend = open_backend(Checkpoint(**request["checkpoint"]), request["device"])
        return asdict(self._backend.info)

    def _opened(self) -> Backend:
        if self._backend is None:
            raise FrameError("a measurement was requested before the model was opened")
        return self._backend

    def _begun(self, request: Frame) -> Stream:
        progress = Progress(self._sender)
        fields = dict(request["context"])
        context = Context(
            role=Role(fields.pop("role")),
            base=Path(fields.pop("base")),
            artifacts=Path(fields.pop("artifacts")),
            progress=progress,
            **fields,
        )
        backend, settings = self._opened(), _settings(request["stage"])
        if (why := backend.info.unserved.get(settings.kind)) is not None:
            raise CouldNotMeasure(f"the {backend.info.name} backend cannot serve a {settings.kind} stage here: {why}")
        parts = _stage_module(request).measure(backend, settings, context)
        return Stream(parts=parts, progress=progress)

    def _advance(self, stream: Stream, deadline_seconds: float | None) -> bool:
        """Measure and send the next part; False when there is none."""
        stream.progress.allow(deadline_seconds)
        part = next(stream.parts, None)
        if part is None:
            if not stream.any_part:
                raise CouldNotMeasure("the stage yielded no measurement: there was nothing to measure")
            return False
        if not isinstance(part, Measurement):
            raise TypeError(f"the stage yielded {type(part).__name__}, expected Measurement")
        for data in wire.encoded(part):
            self._sender.send({"op": "part", "measurement": data})
        stream.any_part = True
        return True


@dataclass(slots=True)
class Stream:
    """A measurement under way: the stage's generator, which works only while it is asked for its next part."""

    parts: Generator[Measurement]
    progress: Progress
    any_part: bool = False


class Progress:
    """What a stage calls with (done, total, label): reports it now and then, and ends an overrun measurement."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._reported = -PROGRESS_SECONDS
        self.allow(None)

    def allow(self, deadline_seconds: float | None) -> None:
        """Give it so much time from now on; None: without end."""
        self._begun = time.monotonic()
        self._deadline_seconds = deadline_seconds

    def __call__(self, done: int, total: int, label: str) -> None:
        now = time.monotonic()
        if done >= total or now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            self._sender.send({"op": "progress", "done": int(done), "total": int(total), "label": label})
        self.check_deadline()

    def check_deadline(self) -> None:
        """Raises BudgetExceeded once the deadline has passed."""
        spent = time.monotonic() - self._begun
        if self._deadline_seconds is not None and spent > self._deadline_seconds:
            left = self._deadline_seconds
            found = f"stopped after {spent:.0f} s: the time budget left was {left:.0f} s"
            if left <= 0:
                found = "the time budget was used up"
            raise BudgetExceeded(f"{found}; raise `budget` or measure fewer items")


def _fetched(request: Frame) -> str:
    """Where a checkpoint lies once it is downloaded; it is not opened."""
    named = {name: policy.CheckpointSettings.model_validate(given) for name, given in request["checkpoints"].items()}
    found = checkpoint.fetch(request["reference"], policy_checkpoints=named, base=Path(request["base"]))
    return str(found.path)


def _stage_module(request: Frame) -> Any:
    return import_module(request["module"])


def _settings(stage: dict[str, Any]) -> policy.Stage:
    try:
        return _SETTINGS.validate_python(stage)
    except ValidationError as problem:
        raise FrameError(f"the stage settings sent by the gate do not validate: {problem}") from problem


def _out_of_memory(error: Exception) -> bool:
    """MemoryError, torch.OutOfMemoryError, backends.OutOfMemory, or a message that says so."""
    names = {c.__name__ for c in type(error).__mro__}
    text = str(error).lower()
    return bool(names & {"MemoryError", "OutOfMemoryError", "OutOfMemory"}) or (
        isinstance(error, RuntimeError) and any(t in text for t in _OUT_OF_MEMORY_TEXTS)
    )


def _device_lost(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _DEVICE_LOST_TEXTS)


def _described(error: Exception) -> dict[str, str]:
    crossing = wire.crossing_name(error)
    if crossing is not None:
        return {"op": "error", "class": crossing, "kind": "", "message": str(error)}
    match error:
        case FrameError():
            kind = "protocol"
        case _ if _out_of_memory(error):
            kind = "out_of_memory"
        case _ if _device_lost(error):
            kind = "device_lost"
        case _:
            kind = "failed"
    message = str(error)[:2000]
    return {"op": "error", "class": type(error).__name__, "kind": kind, "message": message}


def _requests(fd: int, received: queue.SimpleQueue[Frame]) -> None:
    """Pass on requests; when the pipe ends without a `close`, the gate is dead and this whole group goes too."""
    unpacker = Unpacker()
    while data := os.read(fd, _READ_BYTES):
        for frame in unpacker.feed(data):
            received.put(frame)
            if frame["op"] == "close":
                return
    os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Serve requests until told to close; returns the exit status."""
    read_fd, write_fd, heartbeat_seconds = int(arguments[0]), int(arguments[1]), float(arguments[2])
    die, network, device = arguments[3:]
    for line in confine(network=network == "1", device=device):  # before there is a second thread
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
    for fd in (read_fd, write_fd):
        os.set_inheritable(fd, False)  # a process started by a library must not keep our pipes open
    if die == "1":
        die_with_parent(signal.SIGKILL)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # the gate asks a hung worker where it hangs
    sender = Sender(write_fd)
    sender.send({"op": "hello", "protocol": PROTOCOL, "gate": __version__})
    received: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(target=_requests, args=(read_fd, received), name="requests", daemon=True).start()
    server, busy = Server(sender), Busy(sender, heartbeat_seconds)
    while (request := received.get())["op"] != "close":
        with busy:
            try:
                reply = {"op": "done", "result": server.answer(request)}
            except Exception as error:
                traceback.print_exc()
                reply = _described(error)
            sender.send(reply)
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # there is nothing to clean up, and torch's own clean-up takes seconds
