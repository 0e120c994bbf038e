"""A measuring child as a process: its environment, its pipes, its memory, its death, the end of its log.

Knows nothing of requests and measurements; `launch` speaks with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from gate import resident
from gate.errors import UsageError
from gate.frames import Frame, Sender, Unpacker

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
"""Set in every child that measures: `gate fetch` downloads beforehand."""

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Set in every child."""

DOWNLOADING = frozenset(
    {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
)
"""What a child that downloads needs to see although it may hold a secret; names in any case."""

SHARING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Set unless the user has: threads that spin while they wait made small models 15 times slower on busy cores."""

TAIL_BYTES = 4096
END_SECONDS = 5.0
"""How long a child that closes its pipe, or is asked to end, may take to be gone."""

PLACES = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "TRANSFORMERS_CACHE", "HF_TOKEN_PATH"),
    *("PYTHONPATH", "TORCH_HOME", "VLLM_CACHE_ROOT", "XDG_CACHE_HOME", "NLTK_DATA", "TMPDIR", "LD_LIBRARY_PATH"),
)
"""Variables that hold paths: relative ones are meant from here, and the child works elsewhere."""

_OF_THE_JOB = ("GITHUB_", "RUNNER_", "ACTIONS_")
"""A CI job's own variables: what is written to the files that they name is run by the job's later steps."""

_HEARTBEAT_SECONDS = 5.0
_STACKS_SECONDS = 0.5
_WEIGHED_SECONDS = 1.0
_TICK_SECONDS = 0.25
_READ_BYTES = 1 << 20
_SECRET_NAME = re.compile(
    r"(^|_)(TOKENS?|SECRETS?|PASS|PASSWORD|PASSWD|CREDENTIALS?|KEY|AUTH)(_|$)|(TOKEN|SECRET|PASSWORD|APIKEY|_PWD)$|^AWS_"
)
_SECRET_VALUE = re.compile(r"://[^/\s@]*:[^/\s@]+@")


def environment(
    parent: Mapping[str, str], *, keep: Collection[str], device: str, online: bool = False
) -> dict[str, str]:
    """The child's environment: offline, without what looks like a secret (by name, or a URL with a password).

    Args:
        keep: names that are passed on although they look like secrets.
        online: let the child download, as this user.
    """
    kept = {
        name: value
        for name, value in parent.items()
        if name in keep
        or (online and name.upper() in DOWNLOADING)
        or not (
            name.upper().startswith(_OF_THE_JOB) or _SECRET_NAME.search(name.upper()) or _SECRET_VALUE.search(value)
        )
    }
    for name in PLACES:
        if kept.get(name):
            kept[name] = os.pathsep.join(str(Path(part).absolute()) for part in kept[name].split(os.pathsep) if part)
    no_gpu = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return {**SHARING, **kept, **QUIET, **({} if online else OFFLINE), **no_gpu}


class Ended(Exception):
    """The child has ended or closed its pipe: `Child.epitaph` says how."""


class Outgrown(Exception):
    """The child took more memory than it may."""

    def __init__(self, held_bytes: int, limit_bytes: int) -> None:
        self.held_bytes = held_bytes
        self.limit_bytes = limit_bytes
        super().__init__(f"{held_bytes} of {limit_bytes} bytes")


class Child:
    """One process in a session of its own, with a pipe for requests and one for replies.

    It works in an empty folder of its own: libraries take what they find under a name in the working directory, a data
    set, a metric with its code, before what the name means elsewhere, and in a pull request that is anybody's.
    """

    def __init__(
        self,
        *,
        interpreter: str,
        env: Mapping[str, str],
        log: Path,
        silence_seconds: float,
        network: bool,
        device: str,
        memory_bytes: int,
    ) -> None:
        """Start it, with a network or without.  Raises UsageError when the interpreter cannot be run.

        `memory_bytes` is for all its processes together.
        """
        self.log = log
        self._memory_bytes = memory_bytes
        self._weighed_at = 0.0
        self._oom_kills = _kernel_oom_kills()
        self._unpacker = Unpacker()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._place = Path(tempfile.mkdtemp(prefix="quantgate-work-"))
        child_reads, self._requests = os.pipe()
        self._replies, child_writes = os.pipe()
        self.send = Sender(self._requests).send
        try:
            with log.open("ab") as output:
                self._log_start = output.tell()
                self._process = subprocess.Popen(
                    [
                        *(_placed(interpreter), "-P", "-m", "gate.worker", str(child_reads), str(child_writes)),
                        f"{min(_HEARTBEAT_SECONDS, silence_seconds / 4):g}",
                        # Linux reports the death of the *thread* that started it, so only the main one may ask for it
                        "1" if threading.current_thread() is threading.main_thread() else "0",
                        "1" if network else "0",
                        device,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(child_reads, child_writes),
                    env=dict(env),
                    cwd=self._place,
                    start_new_session=True,
                )
        except OSError as problem:
            os.close(self._requests)
            os.close(self._replies)
            shutil.rmtree(self._place, ignore_errors=True)
            raise UsageError(f"cannot run the interpreter {interpreter!r}: {problem.strerror}") from problem
        finally:
            os.close(child_reads)
            os.close(child_writes)
        self.alive = True  # as far as this side knows: requests are answered, or their failure is told

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def next_frame(self, until: float) -> Frame | None:
        """The next frame, or None when the monotonic time `until` passes first.

        Raises:
            Ended, Outgrown: there is no point in waiting on.
            FrameError: what came is no frame.
        """
        for frame in self._unpacker.feed(b""):
            return frame
        poller = select.poll()
        poller.register(self._replies, select.POLLIN)
        while True:
            self._weigh()
            left = until - time.monotonic()
            if poller.poll(max(0.0, min(left, _TICK_SECONDS)) * 1000):
                data = os.read(self._replies, _READ_BYTES)
                if not data:
                    raise Ended
                for frame in self._unpacker.feed(data):
                    return frame
            elif self._process.poll() is not None:  # a process that it forked may hold its pipe open
                raise Ended
            elif left <= 0:
                return None

    def _weigh(self) -> None:
        """Raises Outgrown.  A limit on address space would not do: weights are mapped, and a GPU's driver maps more."""
        if time.monotonic() - self._weighed_at >= _WEIGHED_SECONDS:
            held = resident.held_bytes(self.pid)
            if held > self._memory_bytes:
                raise Outgrown(held, self._memory_bytes)
            self._weighed_at = time.monotonic()

    def epitaph(self) -> tuple[str, str]:
        """(kind, how the child ended) after Ended; kills what is left of it."""
        try:
            status = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return "protocol", "closed its pipe"
        finally:
            self.kill()
        if status >= 0:
            return "crashed", f"exited with status {status}"
        if -status != signal.SIGKILL:
            return "crashed", f"was killed by {signal.Signals(-status).name}"
        reason = "an out-of-memory kill is the usual cause"
        before, after = self._oom_kills, _kernel_oom_kills()
        if before is not None and after is not None and after > before:
            reason += f", and this machine counts {after - before} since the worker started"
        return "killed", f"was killed by SIGKILL ({reason})"

    def show_stacks(self) -> None:
        """Make a hung child write its Python stacks to the log."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STACKS_SECONDS)

    def end(self) -> None:
        """Ask it to end, then kill what is left of it and its descendants.  May be called again."""
        if not self.alive:
            return
        try:
            self.send({"op": "close"})
            self._process.wait(END_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            pass  # already gone, or busy
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to its whole group, reap it, close the pipes.  May be called again."""
        if not self.alive:
            return
        self.alive = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads its own session, so its pid names the group
        self._process.wait()
        os.close(self._requests)
        os.close(self._replies)
        shutil.rmtree(self._place, ignore_errors=True)

    def tail(self) -> str:
        """The end of what it wrote to its log, without the progress bars that were overwritten."""
        with self.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, end - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
        return re.sub(r"[^\n]*\r(?!\n)", "", text).strip()


def _placed(interpreter: str) -> str:
    """A path stays what it is for a process that works elsewhere; a bare name is looked up on the PATH.  Links stay."""
    return os.path.abspath(interpreter) if os.sep in interpreter else interpreter  # noqa: PTH100


def printable(text: str) -> str:
    """What a library said, without what a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _kernel_oom_kills() -> int | None:
    """How many processes this machine's kernel has killed for memory, where it says so."""
    if sys.platform != "linux":
        return None
    counters = Path("/proc/vmstat").read_text(encoding="ascii")
    found = re.search(r"^oom_kill (\d+)$", counters, re.MULTILINE)
    return int(found[1]) if found else None
