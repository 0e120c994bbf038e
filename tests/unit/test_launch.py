"""The measuring child in every way it can behave, and what the parent makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gate import launch, stages
from gate.backends import Checkpoint
from gate.child import environment
from gate.errors import BudgetExceeded, CheckpointError, CouldNotMeasure, DataError, Refused, UsageError, WorkerError
from gate.launch import Stream, Worker
from gate.policy import Policy
from gate.records import Measurement, Role, merge
from tests.unit import stub_stage

Start = Callable[..., Worker]


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "fake.json").write_text(json.dumps({"kind": "fake"}))
    return folder


@pytest.fixture
def start(tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts workers whose perplexity stage is the stub."""
    monkeypatch.setitem(stages.STAGES, "perplexity", stub_stage.__name__)
    monkeypatch.setenv("PYTHONPATH", str(Path(stub_stage.__file__).parents[2]))
    started: list[Worker] = []

    def start_worker(**changes: Any) -> Worker:
        arguments: dict[str, Any] = {
            "backend": "fake",
            "checkpoint": Checkpoint(path=str(fake), load={}, dtype="auto", tokenizer=None),
            "role": Role.CANDIDATE,
            "device": "cpu",
            "python": None,
            "log": tmp_path / "logs" / "candidate.log",
            "silence_seconds": 20.0,
            "start_seconds": 30.0,
        }
        worker = launch.start(**{**arguments, **changes})
        started.append(worker)
        return worker

    yield start_worker
    for worker in started:
        worker.close()


def stage(name: str) -> dict[str, Any]:
    return {
        "kind": "perplexity",
        "name": name,
        "corpora": [{"name": "c", "path": "c.txt"}],
        "rules": [{"metric": "perplexity", "max_increase": "5%"}],
    }


def measure(worker: Worker, name: str, tmp_path: Path, **changes: Any) -> list[Measurement]:
    """All parts of a stage, merged by source."""
    parts: dict[str, list[Measurement]] = {}
    stream = begin(worker, name, tmp_path, changes.get("on_progress", lambda *_: None))
    while (part := stream.advance(changes.get("deadline_seconds"))) is not None:
        parts.setdefault(part.source, []).append(part)
    return [merge(p) for p in parts.values()]


def begin(worker: Worker, name: str, tmp_path: Path, on_progress: Callable[..., None] = lambda *_: None) -> Stream:
    context = {
        "base": tmp_path,
        "settings_digest": "d",
        "sample_seed": "ab",
        "order_seed": "cd",
        "artifacts": tmp_path,
        "block": 4,
    }
    return worker.begin(stage=stage(name), context=context, on_progress=on_progress)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_parts_come_back_merged_by_source_and_exact(start: Start, tmp_path: Path) -> None:
    worker = start()
    info = worker.open()
    assert (info.name, info.device, info.n_parameters) == ("fake", "cpu", 1000)
    second, first = measure(worker, "ok", tmp_path)
    assert (second.source, first.source) == ("second", "first")
    assert second.role is Role.CANDIDATE
    assert second.settings_digest == "d"
    assert second.seconds == 0.5
    assert second.notes[:2] == ("block 4", str(tmp_path))
    assert [o.item_id for o in second.observations] == [f"item {i}" for i in range(6)]
    base = second.observations[0].value
    assert [o.value for o in second.observations] == [base + i / 3 for i in range(6)]
    assert second.observations[0].group == "é"
    assert [a.prompt for a in second.answers] == ["a\ud800b"] * 2
    assert [f.message for f in first.failures] == ["too long"] * 2
    assert measure(worker, "ok", tmp_path) == [second, first]
    assert worker.memory()["rss_peak_bytes"] == 100_000_000


def test_a_large_measurement_arrives_whole_and_quickly(start: Start, tmp_path: Path) -> None:
    worker = start()
    worker.open()
    begun = time.process_time()
    measurements = measure(worker, "many", tmp_path)
    assert time.process_time() - begun < 120_000 / 50_000
    assert [len(m.observations) for m in measurements] == [60_000, 60_000]
    assert measurements[0].observations[-1].item_id == "item 59999"


def test_check_needs_no_model_and_its_errors_keep_their_class(start: Start, tmp_path: Path) -> None:
    worker = start(checkpoint=Checkpoint(path="/nowhere", load={}, dtype="auto", tokenizer=None))
    assert worker.check(stage("fine"), tmp_path) == (tmp_path / "é.txt", Path("/elsewhere"))
    with pytest.raises(DataError, match=f"{tmp_path}: line 3 is broken"):
        worker.check(stage("bad-data"), tmp_path)
    with pytest.raises(CheckpointError, match=r"fake\.json is missing"):
        worker.open()
    assert worker.alive
    worker.check(stage("fine"), tmp_path)


def test_settings_that_the_policy_would_reject_do_not_reach_the_stage(start: Start, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="do not validate") as caught:
        start().check({**stage("ok"), "corpora": []}, tmp_path)
    assert caught.value.kind == "protocol"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("refuse", Refused, "no such door"),
        ("checkpoint", CheckpointError, "half of it is missing"),
        ("nothing", CouldNotMeasure, "nothing to measure"),
    ],
)
def test_errors_of_the_gate_keep_their_class_and_the_worker(
    start: Start, tmp_path: Path, name: str, error: type[Exception], message: str
) -> None:
    worker = start()
    worker.open()
    with pytest.raises(error, match=message) as caught:
        measure(worker, name, tmp_path)
    assert type(caught.value) is error
    assert len(measure(worker, "ok", tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("raise", "failed", "failed in stage raise: ZeroDivisionError: seven by zero"),
        ("memory", "out_of_memory", "failed in stage memory: MemoryError"),
        ("device-memory", "out_of_memory", "tried to allocate 3 GiB"),
        (
            "device-lost",
            "device_lost",
            r"lost its device in stage device-lost \(RuntimeError: CUDA error: unspecified launch failure\): the GPU",
        ),
    ],
)
def test_other_exceptions_carry_their_traceback(
    start: Start, tmp_path: Path, name: str, kind: str, message: str
) -> None:
    worker = start()
    worker.open()
    with pytest.raises(WorkerError, match=message) as caught:
        measure(worker, name, tmp_path)
    assert caught.value.kind == kind
    assert "stub_stage.py" in caught.value.stderr_tail
    assert "the candidate worker" in str(caught.value)
    assert worker.alive


@pytest.mark.parametrize(
    ("name", "kind", "message", "tail"),
    [
        ("exit", "crashed", "exited with status 9 in stage exit", ""),
        ("kill", "killed", r"was killed by SIGKILL \(an out-of-memory kill is the usual cause", ""),
        ("segfault", "crashed", "was killed by SIGSEGV in stage segfault", "Segmentation fault"),
        ("orphan", "crashed", "exited with status 3", ""),
    ],
)
def test_a_dead_worker_is_told_by_its_exit_status(
    start: Start, tmp_path: Path, name: str, kind: str, message: str, tail: str
) -> None:
    worker = start()
    worker.open()
    begun = time.monotonic()
    with pytest.raises(WorkerError, match=message) as caught:
        measure(worker, name, tmp_path)
    assert caught.value.kind == kind
    assert tail in caught.value.stderr_tail
    assert time.monotonic() - begun < 10
    assert not worker.alive
    with pytest.raises(WorkerError, match="had already ended"):
        measure(worker, "ok", tmp_path)


@pytest.mark.parametrize(("name", "message"), [("freeze", "no sign of life for 1 s"), ("hang", "did no work for")])
def test_a_hung_worker_is_killed_and_shows_where_it_hung(start: Start, tmp_path: Path, name: str, message: str) -> None:
    worker = start(silence_seconds=1.0)
    worker.open()
    begun = time.monotonic()
    with pytest.raises(WorkerError, match=message) as caught:
        measure(worker, name, tmp_path)
    assert caught.value.kind == "hung"
    assert "in behave" in caught.value.stderr_tail
    assert time.monotonic() - begun < 10
    assert not is_running(worker.pid)


def test_long_work_without_progress_is_not_a_hang(start: Start, tmp_path: Path) -> None:
    worker = start(silence_seconds=0.5)
    worker.open()
    assert len(measure(worker, "work", tmp_path)) == 2


@pytest.mark.parametrize("name", ["stubborn", "stuck-later"])
def test_work_that_never_ends_is_ended(start: Start, tmp_path: Path, name: str) -> None:
    """A chat template or a configuration can keep Python busy for ever, with every heartbeat in time."""
    worker = start(silence_seconds=0.5, work_seconds=1.0)
    worker.open()
    with pytest.raises(WorkerError, match=f"computed for [12] s without any progress in stage {name}") as caught:
        measure(worker, name, tmp_path)
    assert caught.value.kind == "hung"
    assert "in behave" in caught.value.stderr_tail
    assert not is_running(worker.pid)


def test_progress_is_work_and_has_no_end(start: Start, tmp_path: Path) -> None:
    worker = start(silence_seconds=0.4, work_seconds=0.5)
    worker.open()
    seen: list[int] = []
    with pytest.raises(BudgetExceeded):
        measure(worker, "slow", tmp_path, deadline_seconds=2.0, on_progress=lambda done, *_: seen.append(done))
    assert worker.alive


def test_a_worker_that_takes_too_much_memory_is_ended(start: Start, tmp_path: Path) -> None:
    worker = start(memory_bytes=300 * 2**20)
    worker.open()
    with pytest.raises(WorkerError, match=r"was ended in stage grow: it took 0\.\d GiB of memory") as caught:
        measure(worker, "grow", tmp_path)
    assert caught.value.kind == "out_of_memory"
    assert not is_running(worker.pid)


def test_memory_of_what_it_started_counts(start: Start, tmp_path: Path) -> None:
    worker = start(memory_bytes=300 * 2**20)
    worker.open()
    with pytest.raises(WorkerError, match="was ended in stage grandchild-grows"):
        measure(worker, "grandchild-grows", tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
@pytest.mark.parametrize("network", [True, False])
def test_the_child_is_confined(start: Start, tmp_path: Path, network: bool) -> None:
    worker = start(network=network)
    worker.open()
    measure(worker, "limits", tmp_path)
    found = json.loads((tmp_path / "limits.json").read_text())
    log = (tmp_path / "logs" / "candidate.log").read_text()
    assert found["core"] == [0, 0]
    assert found["file"] == [64 * 2**30] * 2
    assert found["files"][1] <= 2**16
    assert found["no_new_privileges"]
    assert found["loopback"]
    assert (found["oom_score"] == 1000) is ("first to go" not in log)
    assert found["user"] == os.getuid()
    if network:
        assert "network" not in log
    else:
        assert found["network"] is ("it has the network of this machine" in log)  # where it could not be taken away


def test_who_talks_to_a_server_keeps_the_network() -> None:
    domain = {"kind": "domain", "name": "d", "data": "d.jsonl", "match": "exact"}
    rules = [{"metric": "accuracy", "max_drop": "5pp"}]
    judge = {"url": "http://127.0.0.1:1/v1", "model": "m", "rubric": "Is it right?"}
    for extra, expected in (({}, False), ({"judge": judge}, True)):
        document = {"version": 1, "stages": [{**domain, "rules": rules, **extra}]}
        assert launch.needs_network(Policy.model_validate(document)) is expected
    assert "openai" in launch.REACHING_OUT


def test_megabytes_on_stdout_and_stderr_disturb_nothing(start: Start, tmp_path: Path) -> None:
    worker = start()
    worker.open()
    assert measure(worker, "noise", tmp_path) == measure(worker, "ok", tmp_path)
    log = tmp_path / "logs" / "candidate.log"
    assert log.stat().st_size > 2 * stub_stage.RUBBISH_BYTES
    with pytest.raises(WorkerError) as caught:
        measure(worker, "raise", tmp_path)
    assert len(caught.value.stderr_tail) <= 4096


def test_the_deadline_stops_a_stage_and_spares_the_worker(start: Start, tmp_path: Path) -> None:
    worker = start()
    worker.open()
    begun = time.monotonic()
    with pytest.raises(BudgetExceeded, match="budget"):
        measure(worker, "slow", tmp_path, deadline_seconds=0.3)
    assert time.monotonic() - begun < 5
    assert len(measure(worker, "ok", tmp_path)) == 2


def test_what_was_measured_before_the_deadline_is_kept(start: Start, tmp_path: Path) -> None:
    worker = start()
    worker.open()
    stream = begin(worker, "late", tmp_path)
    parts = [stream.advance(0.5) for _ in range(4)]
    assert [(p.source, len(p.observations)) for p in parts if p] == [("second", 3)] * 2 + [("first", 3)] * 2
    with pytest.raises(BudgetExceeded):
        stream.advance(0.5)


def test_streams_take_turns_and_may_be_left(start: Start, tmp_path: Path) -> None:
    worker = start()
    worker.open()
    one, other = begin(worker, "ok", tmp_path), begin(worker, "ok", tmp_path)
    turns = [one.advance(None), other.advance(None), one.advance(None)]
    assert [p.source for p in turns if p] == ["second"] * 3
    one.end()
    assert [p.source for p in iter(lambda: other.advance(None), None)] == ["second", "first", "first"]
    assert other.advance(None) is None
    assert len(measure(worker, "ok", tmp_path)) == 2


def test_a_stage_that_ignores_the_deadline_is_ended(start: Start, tmp_path: Path) -> None:
    worker = start(silence_seconds=1.0)
    worker.open()
    with pytest.raises(BudgetExceeded, match="was ended in stage stubborn"):
        measure(worker, "stubborn", tmp_path, deadline_seconds=0.2)
    assert not worker.alive
    assert not is_running(worker.pid)


def test_progress_is_throttled_and_ends_complete(start: Start, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    worker = start()
    worker.open()
    measure(worker, "progress", tmp_path, on_progress=lambda *report: seen.append(report))
    assert seen[0] == (1, 500, "counting")
    assert seen[-1] == (500, 500, "counting")
    assert len(seen) < 50


def test_ctrl_c_while_waiting_leaves_no_process(start: Start, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    worker = start()
    worker.open()
    with pytest.raises(KeyboardInterrupt):
        measure(worker, "slow", tmp_path, on_progress=interrupt)
    assert not is_running(worker.pid)


def test_closing_ends_what_the_stage_started(start: Start, tmp_path: Path) -> None:
    with start() as worker:
        worker.open()
        measure(worker, "grandchild", tmp_path)
        grandchild = int((tmp_path / "pid").read_text())
        assert is_running(grandchild)
    assert not is_running(worker.pid)
    assert wait_for(lambda: not is_running(grandchild))
    worker.close()


def test_the_worker_does_not_outlive_the_gate(tmp_path: Path, fake: Path) -> None:
    parent = (
        "import os, pathlib, signal, sys\n"
        "from gate import launch\n"
        "from gate.backends import Checkpoint\n"
        "from gate.records import Role\n"
        "worker = launch.start(backend='fake', checkpoint=Checkpoint(path=sys.argv[1], load={}, dtype='auto',\n"
        "    tokenizer=None), role=Role.BASELINE, device='cpu', python=None, log=pathlib.Path(sys.argv[1]) / 'log',\n"
        "    silence_seconds=60, start_seconds=60)\n"
        "sys.stdout.write(str(worker.pid))\n"
        "sys.stdout.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", parent, str(fake)], capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGKILL
    assert wait_for(lambda: not is_running(int(run.stdout)))


def test_the_child_is_offline_and_sees_no_secrets(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ["HF_TOKEN", "GITHUB_TOKEN", "OPENAI_API_KEY", "AWS_PROFILE", "PGPASSWORD", "SSH_AUTH_SOCK", "DB_SECRET"]
    for name in [*secrets, "JUDGE_API_KEY"]:
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("SOME_INDEX", "https://user:hush@example.org/simple")
    monkeypatch.setenv("TOKENS_PER_BATCH_HINT", "kept? no: its name has TOKENS in it")
    monkeypatch.setenv("MONKEY", "kept")
    worker = start(keep_env=["JUDGE_API_KEY"])
    worker.open()
    seen = set(measure(worker, "ok", tmp_path)[0].notes)
    assert not seen & {*secrets, "SOME_INDEX", "TOKENS_PER_BATCH_HINT"}
    assert {"JUDGE_API_KEY", "MONKEY", "PATH", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"} <= seen


def test_the_environment_is_made_of_the_parents() -> None:
    mine = {"OMP_WAIT_POLICY": "ACTIVE", "HF_HUB_OFFLINE": "0", "CUDA_VISIBLE_DEVICES": "1", "hf_token": "hush"}
    on_gpu = environment(mine, keep=(), device="cuda")
    assert (on_gpu["OMP_WAIT_POLICY"], on_gpu["HF_HUB_OFFLINE"], on_gpu["CUDA_VISIBLE_DEVICES"]) == ("ACTIVE", "1", "1")
    assert "hf_token" not in on_gpu
    on_cpu = environment({}, keep=(), device="cpu")
    assert (on_cpu["OMP_WAIT_POLICY"], on_cpu["CUDA_VISIBLE_DEVICES"]) == ("PASSIVE", "")


def interpreter(tmp_path: Path, script: str) -> str:
    """An "interpreter" that runs `script` instead of the worker; $5 is the descriptor it answers on."""
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\nimport os, struct, sys, time\nout = int(sys.argv[5])\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (
            "from gate.frames import pack; os.write(out, pack({'op': 'hello', 'protocol': 1, 'gate': '9.9.9'}))",
            "protocol",
            r"runs quantgate 9\.9\.9 \(protocol 1\), expected .*install quantgate",
        ),
        ("sys.exit('No module named gate')", "protocol", "exited with status 1 before it could be used: install"),
        ("os.write(out, b'Welcome to conda!')", "protocol", "did not greet as expected .*announces"),
        ("""os.write(out, struct.pack(">I", 4) + b"[42]")""", "protocol", "has no `op`"),
        ("time.sleep(60)", "hung", "did not start within 0.5 s"),
    ],
)
def test_an_interpreter_without_this_gate_is_told_so(
    start: Start, tmp_path: Path, script: str, kind: str, message: str
) -> None:
    seconds = 0.5 if kind == "hung" else 20.0
    with pytest.raises(WorkerError, match=message) as caught:
        start(python=interpreter(tmp_path, script), start_seconds=seconds)
    assert caught.value.kind == kind
    assert caught.value.stderr_tail == ("No module named gate" if "No module" in script else caught.value.stderr_tail)


def test_a_worker_that_talks_nonsense_is_ended(start: Start, tmp_path: Path) -> None:
    script = (
        "from gate import __version__\n"
        "from gate.frames import PROTOCOL, pack\n"
        "os.write(out, pack({'op': 'hello', 'protocol': PROTOCOL, 'gate': __version__}) + struct.pack('>I', 2**31))\n"
        "time.sleep(60)"
    )
    worker = start(python=interpreter(tmp_path, script))
    with pytest.raises(
        WorkerError, match="broke the protocol while loading the model: a frame announces 2,147"
    ) as caught:
        worker.open()
    assert caught.value.kind == "protocol"
    assert not worker.alive


def test_what_cannot_be_started_is_a_usage_error(start: Start, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown backend 'hff', expected one of: fake, hf"):
        start(backend="hff")
    with pytest.raises(UsageError, match=r"cannot run the interpreter .*No such file"):
        start(python=str(tmp_path / "nowhere"))


def test_no_file_descriptors_are_lost(start: Start, tmp_path: Path) -> None:
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    with start() as worker:
        worker.open()
    with pytest.raises(UsageError):
        start(python=str(tmp_path / "nowhere"))
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


def test_a_worker_that_was_killed_while_it_waited_is_known_to_be_gone(start: Start, tmp_path: Path) -> None:
    worker = start()
    worker.open()
    assert worker.running
    os.kill(worker.pid, signal.SIGKILL)
    assert wait_for(lambda: not worker.running)
    worker.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_works_in_an_empty_folder_of_its_own(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries prefer a folder of the working directory to a data set or a metric of that name."""
    (tmp_path / "checkout" / "rouge").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "checkout")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.relpath(Path(stub_stage.__file__).parents[2]), ""]))
    worker = start(python=os.path.relpath(sys.executable))
    worker.open()
    place = Path(f"/proc/{worker.pid}/cwd").resolve()
    assert place != Path.cwd()
    assert list(place.iterdir()) == []
    worker.close()
    assert not place.exists()


def test_a_job_s_own_files_are_not_the_child_s_to_write() -> None:
    mine = {"GITHUB_ENV": "/tmp/env", "RUNNER_TEMP": "/tmp", "ACTIONS_CACHE_URL": "http://cache", "HOME": "/home/me"}
    found = environment(mine, keep=(), device="cuda")
    assert mine.keys() & found.keys() == {"HOME"}


def test_relative_places_are_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = environment({"HF_HOME": "cache", "PYTHONPATH": "src:/opt/lib"}, keep=(), device="cpu")
    assert found["HF_HOME"] == str(tmp_path / "cache")
    assert found["PYTHONPATH"] == f"{tmp_path / 'src'}:/opt/lib"
