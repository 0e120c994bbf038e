"""Runs one program in the sandbox and says how it ended: to its end, in any other way, or never because of us.

The three never mix: whatever goes wrong before the program's first line is a `SandboxError`, all after it is its own.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import IO

from gate.sandbox.limits import Limits, View
from gate.sandbox.tools import Tool

START_SECONDS = 60.0
"""Time allowed from the start to the program's first line: a busy machine is no reason to give up."""

_READY = b"ready\n"
_MAX_REPORT_BYTES = 4096
_CONTROL = "\nassert False\n"


class SandboxError(Exception):
    """The sandbox failed, not the program: nothing is known of the program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a program ended.  `said` is for people; where the program is hostile, so is the text."""

    to_its_end: bool
    said: str


class Sandbox:
    """Programs run one by one, each in a sandbox of its own.  Safe to use from several threads."""

    def __init__(self, *, tool: Tool, limits: Limits, view: View) -> None:
        self.name = tool.name
        self.limits = limits
        self._tool = tool
        self._view = view
        self._text = resources.files("gate.sandbox").joinpath("program.py").read_text(encoding="utf-8")

    def passes(self, program: str, *, cpu_seconds: int) -> Ended:
        """Run a program that ends in its own tests.

        A program shares its process with its tests and could send the report itself.  So one that reached its end
        runs again with a test that cannot be passed: where that is reported as passed too, the report is worth nothing.

        Raises:
            SandboxError: the sandbox could not be started or was ended by the machine.
        """
        ended = self.run(program, cpu_seconds=cpu_seconds)
        if ended.to_its_end and self.run(program + _CONTROL, cpu_seconds=cpu_seconds).to_its_end:
            return Ended(to_its_end=False, said="it reports success whatever its tests say")
        return ended

    def run(self, program: str, *, cpu_seconds: int) -> Ended:
        """Run a program; it came to its end if no exception, exit, signal or limit kept its last line from being run.

        Raises:
            SandboxError: the sandbox could not be started or was ended by the machine.
        """
        limits = replace(self.limits, cpu_seconds=cpu_seconds)
        command = [*self._tool.command(limits, self._view), *self._interpreter()]
        secret = secrets.token_hex(32).encode()
        kills = _kernel_oom_kills()
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaints:
            given.write(secret + b"\n" + program.encode("utf-8", "surrogatepass"))
            given.seek(0)
            report = _reported(command, given, complaints, limits.wall_seconds)
        if report == secret:
            return Ended(to_its_end=True, said="passed")
        if kills != _kernel_oom_kills():
            raise SandboxError("the machine ran out of memory while the program was running")
        return Ended(to_its_end=False, said=report.decode("utf-8", "replace") or "it ended itself or hit a limit")

    def _interpreter(self) -> list[str]:
        return [sys.executable, "-s", "-P", "-B", "-c", self._text]


def _reported(command: Sequence[str], given: IO[bytes], complaints: IO[bytes], wall_seconds: float) -> bytes:
    """What came over the pipe after the first line.  Raises SandboxError without that line."""
    try:
        process = subprocess.Popen(
            command, stdin=given, stdout=subprocess.PIPE, stderr=complaints, start_new_session=True, cwd="/"
        )
    except OSError as problem:
        raise SandboxError(f"{command[0]} cannot be started: {problem.strerror}") from problem
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    try:
        begun = _read(pipe, b"", len(_READY), time.monotonic() + START_SECONDS)
        if not begun.startswith(_READY):
            complaints.seek(0)
            said = " ".join(complaints.read(_MAX_REPORT_BYTES).decode("utf-8", "replace").split())
            raise SandboxError(f"the sandbox did not start: {said or 'no message'}")
        return _read(pipe, begun[len(_READY) :], _MAX_REPORT_BYTES, time.monotonic() + wall_seconds)
    finally:
        process.kill()  # and with it everything inside
        process.wait()
        process.stdout.close()


def _read(pipe: int, text: bytes, enough: int, until: float) -> bytes:
    """What is written to a pipe until its end, until there is enough, or until the time has come."""
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    while len(text) < enough and (left := until - time.monotonic()) > 0:
        if poller.poll(left * 1000):
            more = os.read(pipe, enough)
            if not more:
                break
            text += more
    return text


def _kernel_oom_kills() -> str | None:
    """The machine's own count of processes that it killed for memory; a limit on one process is not counted."""
    try:
        counters = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^oom_kill (\d+)$", counters, re.MULTILINE)
    return found[1] if found else None
