"""A stage for the worker's tests: the name of the stage says how it behaves."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gate import metrics
from gate.backends import Backend, OutOfMemory, Window
from gate.errors import CheckpointError, DataError, Refused
from gate.policy import PerplexityStage
from gate.records import Answer, ItemFailure, Measurement, Observation
from gate.stages import Context

RUBBISH_BYTES = 3_000_000


def check(settings: PerplexityStage, base: Path) -> tuple[Path, ...]:
    if settings.name == "bad-data":
        raise DataError(f"{base}: line 3 is broken")
    return (base / "é.txt", Path("/elsewhere"))


def fetch(settings: PerplexityStage, base: Path) -> list[str]:
    return [str(base), *sorted(os.environ)]


def measure(backend: Backend, settings: PerplexityStage, context: Context) -> Iterator[Measurement]:
    scores = backend.score([Window(tokens=(0, 70, 71), n_scored=2)], top_k=0, at_ids=None)
    nll = [float(x) for s in scores for x in s.nll_nats]
    behave(settings.name, context)
    count = 30_000 if settings.name == "many" else 3
    if settings.name == "nothing":
        return
    for source in ("second", "first"):
        for half in range(2):
            yield part(source, context, nll, range(half * count, (half + 1) * count))
    if settings.name == "late":
        behave("slow", context)


def part(source: str, context: Context, nll: list[float], items: range) -> Measurement:
    return Measurement(
        stage="stub",
        source=source,
        role=context.role,
        settings_digest=context.settings_digest,
        n_expected=2 * len(items),
        n_available=2 * len(items),
        n_reached=len(items),
        planned_tokens=len(items),
        chance=0.25,
        metrics=(metrics.PERPLEXITY["perplexity"],),
        observations=tuple(
            Observation(metric="nll_nats", item_id=f"item {i}", value=nll[0] + i / 3, weight=1, cluster=None, group="é")
            for i in items
        ),
        failures=(ItemFailure(item_id="x", kind="model_error", message="too long"),),
        answers=(Answer(item_id="y", group=None, prompt="a\ud800b", output="", target="t"),),
        seconds=0.25,
        notes=(f"block {context.block}", str(context.artifacts), *sorted(os.environ)),
    )


def confined() -> dict[str, object]:
    """What is left of the network and of privileges."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        loopback = True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, and needs a route
            network = True
        except OSError:
            network = False
    status = Path("/proc/self/status").read_text()
    return {
        "loopback": loopback,
        "network": network,
        "no_new_privileges": "NoNewPrivs:\t1" in status,
        "oom_score": int(Path("/proc/self/oom_score_adj").read_text()),
        "user": os.getuid(),
    }


def behave(name: str, context: Context) -> None:
    match name:
        case "raise":
            raise ZeroDivisionError("seven by zero")
        case "refuse":
            raise Refused("no such door")
        case "checkpoint":
            raise CheckpointError("half of it is missing")
        case "memory":
            raise MemoryError
        case "device-memory":
            raise OutOfMemory("CUDA out of memory, tried to allocate 3 GiB")
        case "device-lost":
            raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronous")
        case "exit":
            sys.exit(9)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "hang":
            time.sleep(3600)
        case "freeze":
            ctypes.PyDLL(None).sleep(3600)
        case "work":
            until = time.monotonic() + 2.5
            while time.monotonic() < until:
                sum(range(10_000))
        case "grow":
            held = []
            while True:
                held.append(b"x" * 10_000_000)
                time.sleep(0.01)
        case "limits":
            limits = {"core": resource.RLIMIT_CORE, "file": resource.RLIMIT_FSIZE, "files": resource.RLIMIT_NOFILE}
            found = {name: resource.getrlimit(kind) for name, kind in limits.items()}
            (context.artifacts / "limits.json").write_text(json.dumps({**found, **confined()}))
        case "noise":
            for stream in (sys.stdout, sys.stderr):
                stream.write("rubbish\n" * (RUBBISH_BYTES // 8))
            os.write(1, b"\x00\x00\x00\x05{rubbish straight to the descriptor}\n")
        case "slow":
            for i in range(1000):
                context.progress(i, 1000, "slowly")
                time.sleep(0.01)
        case "grandchild-grows":
            subprocess.Popen([sys.executable, "-c", "held = b'x' * 600_000_000; import time; time.sleep(3600)"])
            behave("work", context)
            behave("work", context)
        case "stuck-later":
            context.progress(1, 10, "so far")
            behave("stubborn", context)
        case "stubborn":
            until = time.monotonic() + 3600
            while time.monotonic() < until:
                sum(range(10_000))
        case "progress":
            for i in range(500):
                context.progress(i + 1, 500, "counting")
        case "orphan":
            # a forked process holds the reply pipe open while the stage dies
            if os.fork() == 0:
                time.sleep(3600)
            os._exit(3)
        case "grandchild":
            process = subprocess.Popen(["sleep", "3600"])
            (context.artifacts / "pid").write_text(str(process.pid))
        case _:
            pass
