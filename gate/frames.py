"""Frames between the gate and its measuring child: a 4-byte length and one JSON object.

Knows nothing of what the frames mean (`wire` does) and starts no process.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from typing import Any

PROTOCOL = 1
"""Raised when a frame changes its meaning; parent and child must agree on it."""

MAX_FRAME_BYTES = 64 * 2**20
_LENGTH = struct.Struct(">I")

Frame = dict[str, Any]


class FrameError(ValueError):
    """The bytes are not frames, or a frame is larger than MAX_FRAME_BYTES."""


def pack(frame: Mapping[str, Any]) -> bytes:
    """The frame as bytes.  Floats keep every digit; NaN and infinity are refused with ValueError."""
    body = json.dumps(frame, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(
            f"a {frame.get('op')!r} frame of {len(body):,} bytes, expected at most {MAX_FRAME_BYTES:,}: "
            "the stage must yield its measurement in smaller parts"
        )
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Turns bytes as they arrive into frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take `data` and yield every frame that is now complete.  Raises FrameError."""
        self._pending += data
        while len(self._pending) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._pending)
            if size > MAX_FRAME_BYTES:
                raise FrameError(f"a frame announces {size:,} bytes, expected at most {MAX_FRAME_BYTES:,}")
            end = _LENGTH.size + size
            if len(self._pending) < end:
                return
            body = bytes(self._pending[_LENGTH.size : end])
            del self._pending[:end]
            yield _decoded(body)


def _decoded(body: bytes) -> Frame:
    try:
        frame = json.loads(body)
    except ValueError as problem:
        raise FrameError(f"a frame is not JSON ({problem}): {body[:80]!r}") from problem
    if not isinstance(frame, dict) or not isinstance(frame.get("op"), str):
        raise FrameError(f"a frame has no `op`: {body[:80]!r}")
    return frame


class Sender:
    """Writes whole frames to a file descriptor, from any thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, frame: Mapping[str, Any]) -> None:
        """Write one frame.  Raises FrameError if it is too large, OSError if the other side is gone."""
        data = memoryview(pack(frame))
        with self._lock:
            while data:
                data = data[os.write(self._fd, data) :]
