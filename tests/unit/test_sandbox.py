"""The sandbox: programs end as they should, attacks never pass, our own failures are not the program's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from gate.errors import CouldNotMeasure
from gate.sandbox import LIMITS, Limits, Sandbox, SandboxError, find, proof, run, tools
from gate.sandbox.limits import View, view
from gate.sandbox.proof import proven
from gate.sandbox.tools import Tool

SOLUTION = "def double(x):\n    return 2 * x\n"
TESTS = "assert double(2) == 4\n"


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return find(replace(LIMITS, idle_factor=2))
    except CouldNotMeasure as problem:
        pytest.skip(str(problem))


def passes(sandbox: Sandbox, program: str) -> bool:
    return sandbox.passes(f"{program}\n{TESTS}", cpu_seconds=1).to_its_end


@pytest.mark.parametrize(
    "program",
    [
        SOLUTION,
        f"import math, re, collections, typing\n{SOLUTION}",
        f"import sys\nprint('passed', file=sys.stderr)\nprint('x' * 100_000)\n{SOLUTION}",
        f"open('mine', 'w').write('kept'); assert open('mine').read() == 'kept'\n{SOLUTION}",
        f"import threading\nt = threading.Thread(target=print); t.start(); t.join()\n{SOLUTION}",
        f"if __name__ == '__main__':\n    raise ValueError  # code_eval runs programs under no such name\n{SOLUTION}",
        f"# é \U0001f600\n{SOLUTION}",
    ],
)
def test_right_programs_pass(sandbox: Sandbox, program: str) -> None:
    assert passes(sandbox, program)


@pytest.mark.parametrize(
    "program",
    [
        "def double(x):\n    return x\n",
        "def double(x):\n    return x +\n",
        "",
        "\0",
        f"# \udc80\n{SOLUTION}",  # Python reads no such text
        "while True:\n    pass\n",
        "def double(x):\n    return double(x)\n",
        "def double(x):\n    return bytearray(1 << 40)\n",
        "held = []\nwhile True:\n    held.append(bytearray(1 << 24))\n",
        "import ctypes\nctypes.string_at(0)\n",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    ],
    ids=[
        "wrong",
        "syntax",
        "nothing",
        "nul",
        "surrogate",
        "loop",
        "recursion",
        "memory",
        "hoard",
        "segfault",
        "suicide",
    ],
)
def test_wrong_programs_do_not_pass_and_are_the_programs_own_fault(sandbox: Sandbox, program: str) -> None:
    assert not passes(sandbox, program)


def test_sets_are_in_the_same_order_every_time(sandbox: Sandbox) -> None:
    """A score must not depend on the hash seed of a process."""
    program = f"assert hash('a') == {hash_of_a()}\n"
    assert sandbox.run(program, cpu_seconds=1).to_its_end


def hash_of_a() -> int:
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    return int(subprocess.run([sys.executable, "-c", "print(hash('a'))"], env=env, capture_output=True).stdout)


STANDARD = str(Path(json.__file__).parents[1])
THIEF = """
import os, sys
frame = sys._getframe(1)
os.write(frame.f_locals['report'], frame.f_locals['secret'])
os._exit(0)
"""
JUMPER = """
import sys
def trace(frame, event, argument):
    last = frame.f_code.co_code and max(line for _, _, line in frame.f_code.co_lines() if line)
    if event == 'line':
        frame.f_lineno = last
    return trace
def failing():
    frame = sys._getframe(2)
    frame.f_trace = trace
    sys.settrace(trace)
failing()
"""
ATTACKS = {
    "prints_a_result": "print('ready'); print('passed'); print(1.0)",
    "exits": "import os; os._exit(0)",
    "system_exit": "raise SystemExit(0)",
    "sys_exit": "import sys; sys.exit()",
    "kills_its_parent": "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
    "kills_everybody": "import os, signal; os.kill(-1, signal.SIGKILL)",
    "stops_everybody": "import os, signal; os.kill(-1, signal.SIGSTOP)",
    "writes_to_every_descriptor": (
        "import os\nfor fd in range(256):\n    try:\n        os.write(fd, b'ready\\n' + b'0' * 64)\n"
        "    except OSError:\n        pass\nos._exit(0)"
    ),
    "floods_every_descriptor": (
        "import os\nwhile True:\n    for fd in range(3, 64):\n        try:\n            os.write(fd, b'0' * 65536)\n"
        "        except OSError:\n            pass"
    ),
    "closes_everything": "import os; os.closerange(0, 256)",
    "steals_the_secret": THIEF,
    "jumps_over_the_tests": JUMPER,
    "patches_the_scorer": (
        "import builtins, os, sys, __main__\nbuiltins.exec = lambda *_: None\nbuiltins.AssertionError = None\n"
        "__main__.main = os.write = os.dup = print\nraise ValueError"
    ),
    "patches_the_report": (
        "import os, sys\nframe = sys._getframe(1)\nwrite = os.write\n"
        "os.write = lambda fd, said: write(fd, frame.f_locals['secret'])\nraise ValueError"
    ),
    "exits_at_exit": "import atexit, os; atexit.register(os._exit, 0); raise SystemExit",
    "swallows_by_a_hook": "import sys; sys.excepthook = lambda *_: None; raise ValueError",
    "leaves_daemons": (
        "import os, sys, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)  # quantgate-daemon'])\n"
        "    os._exit(0)\ntime.sleep(0.3)\nos._exit(0)"
    ),
    "fork_bomb": "import os, time\nwhile 1:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(60)",
    "fills_the_disk": (
        "import itertools\nfor k in itertools.count():\n    with open(str(k), 'wb') as file:\n"
        "        file.write(bytes(1 << 23))"
    ),
    "deletes_files": (
        f"import os, shutil\nshutil.rmtree({STANDARD!r} + '/json', ignore_errors=True)\nos.remove(os.__file__)"
    ),
    "reads_proc": "open('/proc/1/environ').read(); open('/proc/self/mem', 'rb').read()",
    "mounts": "import ctypes, os\nassert ctypes.CDLL(None).mount(b'x', b'/sandbox-scratch', b'tmpfs', 0, 0) == 0",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_never_passes(sandbox: Sandbox, attack: str) -> None:
    """Each is followed by tests that cannot pass: no function of that name is there."""
    assert not passes(sandbox, attack)
    assert not processes_with("quantgate-daemon")
    assert Path(json.__file__).is_file()
    assert passes(sandbox, SOLUTION), "the next program is not affected"


def test_a_forged_report_is_found_out(sandbox: Sandbox) -> None:
    """One run alone would believe it."""
    assert sandbox.run(f"{THIEF}\n{TESTS}", cpu_seconds=1).to_its_end
    ended = sandbox.passes(f"{THIEF}\n{TESTS}", cpu_seconds=1)
    assert (ended.to_its_end, ended.said) == (False, "it reports success whatever its tests say")


def processes_with(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if text.encode() in line and b"import itertools" not in line:
            found.append(str(path))
    return found


def test_nothing_outside_is_within_reach(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a folder, a secret in the environment, a listening socket: the program reports on each by failing."""
    (tmp_path / "secret").write_text("s3cret")
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        for reach in (
            f"open({str(tmp_path / 'secret')!r}).read()",
            f"open({str(tmp_path / 'new')!r}, 'w')",
            f"import os; os.listdir({str(tmp_path)!r})",
            f"import os; os.listdir({str(Path.home() / '.cache')!r})",
            f"import os; os.listdir({str(Path(__file__).parent)!r})",
            "import os; os.environ['HF_TOKEN']",
            f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)",
        ):
            assert not sandbox.run(reach, cpu_seconds=1).to_its_end, reach
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


ORPHAN = """
from gate.sandbox import find
# put together here, so that only the program itself has the whole word in its command line
stays = "import time; time.sleep(600)  # quantgate-" + "orphan"
find().run(f"import os, sys; os.execv(sys.executable, [sys.executable, '-c', {stays!r}])", cpu_seconds=3)
"""


def test_a_killed_worker_leaves_nothing_behind(sandbox: Sandbox) -> None:
    worker = subprocess.Popen([sys.executable, "-c", ORPHAN], cwd=Path(__file__).parents[2])
    try:
        assert until(lambda: processes_with("quantgate-orphan"))
    finally:
        worker.kill()
        worker.wait()
    assert until(lambda: not processes_with("quantgate-orphan"))


def until(happened: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 60
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class TestOurOwnFailures:
    """Nothing is known of the program, so it is neither right nor wrong."""

    CASES: ClassVar[dict[str, tuple[list[str], str]]] = {
        "missing": (["/no/such/tool"], "cannot be started: No such file"),
        "refuses": (["sh", "-c", "echo no space left >&2; exit 1"], "did not start: no space left"),
        "silent": (["sh", "-c", "exit 0"], "did not start: no message"),
        "killed": (["sh", "-c", "kill -9 $$"], "did not start: no message"),
        "talks": (["sh", "-c", "echo passed"], "did not start"),
    }

    @pytest.mark.parametrize(("command", "message"), CASES.values(), ids=CASES.keys())
    def test_it_does_not_start(self, command: list[str], message: str) -> None:
        broken = Sandbox(tool=Tool(name="broken", command=lambda *_: command), limits=LIMITS, view=view())
        with pytest.raises(SandboxError, match=message):
            broken.passes(SOLUTION + TESTS, cpu_seconds=1)

    def test_it_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run, "START_SECONDS", 0.2)
        broken = Sandbox(tool=Tool(name="x", command=lambda *_: ["sleep", "600"]), limits=LIMITS, view=view())
        with pytest.raises(SandboxError, match="did not start"):
            broken.run(SOLUTION, cpu_seconds=1)

    def test_no_place_for_the_scratch_folder(self, sandbox: Sandbox) -> None:
        def command(limits: Limits, seen: View) -> list[str]:
            whole = sandbox._tool.command(limits, seen)
            return [word.replace(str(LIMITS.scratch_bytes), "nonsense") for word in whole]

        broken = Sandbox(tool=Tool(name="x", command=command), limits=LIMITS, view=view())
        with pytest.raises(SandboxError, match="did not start"):
            broken.run(SOLUTION, cpu_seconds=1)

    def test_the_machine_runs_out_of_memory(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        counts = iter("12")
        monkeypatch.setattr(run, "_kernel_oom_kills", lambda: next(counts))
        with pytest.raises(SandboxError, match="the machine ran out of memory"):
            sandbox.run("raise ValueError", cpu_seconds=1)
        counts = iter("11")
        assert not sandbox.run("raise ValueError", cpu_seconds=1).to_its_end

    def test_a_program_that_waits_for_ever_is_its_own_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        impatient = replace(LIMITS, idle_factor=1)
        tool = next(tools.available(), None)
        if tool is None:
            pytest.skip("no sandboxing tool is installed")
        try:
            waiting = Sandbox(tool=tool, limits=impatient, view=view())
            ended = waiting.run("import time\ntime.sleep(600)\n", cpu_seconds=1)
        except SandboxError as problem:
            pytest.skip(str(problem))
        assert (ended.to_its_end, ended.said) == (False, "it ended itself or hit a limit")


class TestProof:
    """A tool that isolates less than it should is not used."""

    def test_no_isolation_at_all(self) -> None:
        bare = Tool(name="bare", command=lambda *_: ["env", "-i", "PATH=/usr/bin:/bin"])
        with pytest.raises(SandboxError, match="it does not isolate: AssertionError: it reached the network"):
            proven(bare, LIMITS, view())

    @pytest.mark.parametrize(
        ("removed", "found"),
        [
            (("--net", "--unshare-net"), "it reached the network"),
            ((f"--as={LIMITS.memory_bytes}",), "it had more memory than allowed"),
            ((f"--fsize={LIMITS.file_bytes}",), "it wrote too large a file"),
            ((f"--nproc={LIMITS.processes}",), "it started too many processes"),
        ],
    )
    def test_one_thing_missing(self, sandbox: Sandbox, removed: tuple[str, ...], found: str) -> None:
        def command(limits: Limits, seen: View) -> list[str]:
            return [word for word in sandbox._tool.command(limits, seen) if word not in removed]

        with pytest.raises(SandboxError, match=f"it does not isolate: AssertionError: {found}"):
            proven(Tool(name="weaker", command=command), LIMITS, view())

    def test_without_any_tool_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.which", lambda name: None)
        with pytest.raises(
            CouldNotMeasure, match=r"no sandbox that works here \(neither bubblewrap.*Install bubblewrap"
        ):
            find()

    def test_every_reason_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(said: str) -> Callable[..., list[str]]:
            return lambda *_: ["sh", "-c", f"echo {said} >&2"]

        names = [Tool(name="one", command=fails("not permitted")), Tool(name="two", command=fails("no space"))]
        monkeypatch.setattr(proof, "available", lambda: iter(names))
        with pytest.raises(
            CouldNotMeasure, match=r"\(one: the sandbox did not start: not permitted; two: .*no space\)"
        ):
            find()
