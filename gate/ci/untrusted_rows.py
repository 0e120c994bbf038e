"""Parquet files of an untrusted artifact → measurements, through a child that may fail, hang or be taken over.

What the child says is data as well: it is checked like a file, and limited in size and time.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gate import wire
from gate.child import environment, printable
from gate.errors import ArtifactError
from gate.frames import Frame, FrameError, Unpacker
from gate.records import Measurement, merge

MAX_SAID_BYTES = 512 * 2**20
WAIT_SECONDS = 900.0
_READ_BYTES = 1 << 20
_MAX_COUNT = 10**9


def read(files: Sequence[Path], *, wait_seconds: float = WAIT_SECONDS) -> list[Measurement]:
    """The measurements of these files, in their order.

    Raises:
        ArtifactError: a file is not what a run writes, or the child did not come to its end.
    """
    found: list[Measurement] = []
    parts: list[Measurement] = []
    for frame in _frames([str(f.absolute()) for f in files], wait_seconds):
        try:
            match frame:
                case {"op": "part", "measurement": dict(data)}:
                    parts.append(_checked(wire.decoded(data)))
                case {"op": "end"}:
                    found.append(merge(parts))
                    parts = []
                case {"op": "done"} if not parts:
                    return found
                case {"op": "error", "message": str(said)}:
                    raise ArtifactError(f"its observations cannot be read: {printable(said)}")
                case _:
                    raise ArtifactError("its observations cannot be read: their reader said something else")
        except (AttributeError, LookupError, TypeError, ValueError) as problem:
            raise ArtifactError(f"its observations are not those of a run: {printable(str(problem))}") from problem
    raise ArtifactError("its observations cannot be read: their reader ended early (too large, or damaged)")


def _checked(one: Measurement) -> Measurement:
    """The same.  Raises ValueError: a number or a text that no run writes."""
    counts = (one.n_expected, one.n_available, one.n_reached, one.planned_tokens)
    if not all(type(n) is int and 0 <= n <= _MAX_COUNT for n in counts):
        raise ValueError(f"counts {counts!r}, expected whole numbers from 0")
    if one.chance is not None and not 0 <= one.chance <= 1:
        raise ValueError(f"chance {one.chance!r}, expected a rate")
    if not (math.isfinite(one.seconds) and one.seconds >= 0):
        raise ValueError(f"seconds {one.seconds!r}, expected a time")
    texts = [one.stage, one.source, one.settings_digest, *one.notes]
    texts += [text for m in one.metrics for text in (m.name, m.observed, m.unit)]
    texts += [text for o in one.observations for text in (o.metric, o.item_id, o.cluster or "", o.group or "")]
    texts += [text for f in one.failures for text in (f.item_id, f.kind, f.message)]
    texts += [text for a in one.answers for text in (a.item_id, a.group or "", a.prompt, a.output, a.target)]
    if not all(type(text) is str for text in texts):
        raise ValueError("a name or a text is missing")
    return one


def _frames(names: Sequence[str], wait_seconds: float) -> Iterator[Frame]:
    """What the child says, until it ends.  Raises ArtifactError: too much, too slow, or no frames."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "gate.ci.reader", *names],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(os.environ, keep=(), device="cpu"),
        start_new_session=True,
    )
    assert process.stdout is not None
    pipe, unpacker, said_bytes = process.stdout.fileno(), Unpacker(), 0
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    until = time.monotonic() + wait_seconds
    try:
        while True:
            if not poller.poll(max(0.0, until - time.monotonic()) * 1000):
                raise ArtifactError(f"its observations were not read within {wait_seconds:g} s")
            data = os.read(pipe, _READ_BYTES)
            if not data:
                return
            said_bytes += len(data)
            if said_bytes > MAX_SAID_BYTES:
                raise ArtifactError(f"its observations hold more than {MAX_SAID_BYTES:,} bytes")
            try:
                yield from unpacker.feed(data)
            except FrameError as problem:
                raise ArtifactError("its observations cannot be read: their reader said no frames") from problem
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
