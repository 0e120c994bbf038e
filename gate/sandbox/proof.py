"""Finds a sandbox that isolates on this machine: every tool has to prove it before a model's program is run.

Runs programs of its own only.  Never settles for less isolation.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gate.errors import CouldNotMeasure
from gate.sandbox.limits import LIMITS, SCRATCH, Limits, View, view
from gate.sandbox.run import Sandbox, SandboxError
from gate.sandbox.tools import Tool, available

_ADVICE = (
    "the code that a model writes is never run without one. Install bubblewrap (or setpriv, unshare and prlimit of "
    "util-linux) and allow user namespaces: `sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu `sysctl "
    "kernel.apparmor_restrict_unprivileged_userns=0`, in Docker `--security-opt seccomp=unconfined --security-opt "
    "apparmor=unconfined --cap-add SYS_ADMIN`; or take the task out of the policy"
)

_PROBE = """\
import os, signal, socket

def refused(attempt, *arguments):
    try:
        attempt(*arguments)
    except (OSError, MemoryError):
        return True
    return False

assert refused(socket.create_connection, ("127.0.0.1", {port}), 2), "it reached the network"
assert refused(os.listdir, {canary_folder!r}), "it saw a file outside"
assert refused(open, {canary!r}), "it read a file outside"
for place in ("/", "/dev", "/usr", "/tmp", {prefix!r}, os.path.dirname(os.__file__)):
    assert refused(open, place + "/quantgate-probe", "w"), f"it wrote to {{place}}"
assert set(os.environ) <= set({allowed!r}), "it saw the environment"
assert refused(os.chroot, "/"), "it has privileges"
assert refused(os.kill, 1, signal.SIGKILL) or os.getpid() != 1, "it could end its keeper"
assert os.getcwd() == {scratch!r}
with open("kept", "w") as file:
    assert file.write("x") == 1
assert refused(bytearray, {memory_bytes} + 1), "it had more memory than allowed"

def written(name):
    done, chunk = 0, bytes(1 << 20)
    with open(name, "wb", buffering=0) as file:
        while done < {too_much}:
            try:
                done += file.write(chunk)
            except OSError:
                break
    return done

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
assert written("big") <= {file_bytes}, "it wrote too large a file"
assert sum(written(f"big{{k}}") for k in range(16)) <= {scratch_bytes}, "it filled the disk"

children = []
try:
    while len(children) < 4 * {processes}:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError:
    pass
assert len(children) < {processes}, "it started too many processes"
"""

_STAYS = "import os, time\nif os.fork() == 0:\n    while True:\n        time.sleep(1)\nwhile True:\n    pass\n"


def find(limits: Limits = LIMITS) -> Sandbox:
    """The first tool that proves its isolation.

    Raises:
        CouldNotMeasure: there is none; says what to install or to allow.
    """
    seen = view()
    found: list[str] = []
    for tool in available():
        try:
            return proven(tool, limits, seen)
        except SandboxError as problem:
            found.append(f"{tool.name}: {problem}")
    tried = "; ".join(dict.fromkeys(found)) or "neither bubblewrap nor unshare with setpriv and prlimit is installed"
    raise CouldNotMeasure(f"found no sandbox that works here ({tried}), expected one: {_ADVICE}")


def proven(tool: Tool, limits: Limits, seen: View) -> Sandbox:
    """The sandbox of a tool.  Raises SandboxError unless it runs what is harmless and holds what is not."""
    sandbox = Sandbox(tool=tool, limits=limits, view=seen)
    _expect(sandbox, "import math\nassert math.sqrt(4) == 2\n", to_its_end=True, otherwise="it runs no program")
    _expect(sandbox, "import os\nos._exit(0)\n", to_its_end=False, otherwise="it takes an early exit for the end")
    with _listening() as server, tempfile.TemporaryDirectory(prefix="quantgate-canary-") as folder:
        canary = Path(folder) / "canary"
        canary.write_text("alive", encoding="ascii")
        _expect(sandbox, _probe(limits, seen, server, canary), to_its_end=True, otherwise="it does not isolate")
        if canary.read_text(encoding="ascii") != "alive":
            raise SandboxError("it does not isolate: a file outside was changed")
        with contextlib.suppress(BlockingIOError):
            server.accept()
            raise SandboxError("it does not isolate: a connection arrived")
    _expect(sandbox, _STAYS, to_its_end=False, otherwise="it lets a program run for ever", cpu_seconds=1)
    return sandbox


def _expect(sandbox: Sandbox, program: str, *, to_its_end: bool, otherwise: str, cpu_seconds: int = 3) -> None:
    ended = sandbox.run(program, cpu_seconds=cpu_seconds)
    if ended.to_its_end is not to_its_end:
        raise SandboxError(f"{otherwise}: {ended.said}")


def _probe(limits: Limits, seen: View, server: socket.socket, canary: Path) -> str:
    from gate.sandbox.limits import environment

    more_than_asked = ("PWD", "OLDPWD", "SHLVL", "_", "SCRATCH", "LC_CTYPE")  # what a shell and Python add
    return _PROBE.format(
        port=server.getsockname()[1],
        canary=str(canary),
        canary_folder=str(canary.parent),
        prefix=seen.folders[0],
        allowed=sorted({*environment(), *more_than_asked}),
        scratch=SCRATCH,
        memory_bytes=limits.memory_bytes,
        file_bytes=limits.file_bytes,
        scratch_bytes=limits.scratch_bytes,
        too_much=2 * limits.scratch_bytes,
        processes=limits.processes,
    )


@contextlib.contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
