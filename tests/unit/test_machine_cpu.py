"""The CPUs between two looks, from a /proc of made-up processes and from this machine's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gate.machine import cpu, inventory
from gate.machine.cpu import Look, between, counted, look
from gate.machine.facts import facts
from gate.machine.processes import belongs, family, parent
from gate.metrics import CPU_FLAGS
from tests.fake_proc import Proc

MS = 1_000_000


def looked(seconds: float, **of: object) -> Look:
    usual: dict[str, object] = {
        "waited_ns": {},
        "busy_ticks": None,
        "stolen_ticks": None,
        "all_ticks": None,
        "own_ticks": 0,
    }
    return Look(seconds=seconds, **{**usual, **of})  # type: ignore[arg-type]


class TestFamily:
    def test_of_a_tree(self, tmp_path: Path) -> None:
        proc = Proc(tmp_path)
        proc.process(5, parent=1, children=(6, 7))
        proc.process(6, parent=5, children=(8,), name="evil) S 99 (")
        proc.process(7, parent=5)
        proc.process(8, parent=6)
        assert sorted(family(5, tmp_path)) == [5, 6, 7, 8]
        assert (parent(6, tmp_path), parent(8, tmp_path), parent(404, tmp_path)) == (5, 6, None)
        assert belongs(8, 5, tmp_path)
        assert belongs(8, 8, tmp_path)
        assert not belongs(5, 8, tmp_path)
        assert not belongs(404, 5, tmp_path)

    @pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
    def test_of_this_process(self) -> None:
        assert parent(os.getpid()) == os.getppid()
        assert os.getpid() in set(family(os.getpid()))
        assert belongs(os.getpid(), os.getppid())


class TestWaiting:
    def test_of_the_thread_that_waited_longest(self) -> None:
        before = looked(10.0, waited_ns={(1, 1): 5 * MS, (1, 2): 0})
        after = looked(12.0, waited_ns={(1, 1): 105 * MS, (1, 2): 300 * MS})
        assert between(before, after) == {"cpu_wait_share": pytest.approx(0.15)}

    def test_threads_and_children_come_and_go(self) -> None:
        before = looked(0.0, waited_ns={(1, 1): 0, (1, 2): 900 * MS, (1, 4): 800 * MS})
        # thread 2 ended, thread 3 is new, number 4 was given to a new one, process 9 was started
        after = looked(1.0, waited_ns={(1, 1): 10 * MS, (1, 3): 20 * MS, (1, 4): 30 * MS, (9, 9): 40 * MS})
        assert between(before, after) == {"cpu_wait_share": pytest.approx(0.04)}

    def test_a_thread_that_mostly_sleeps_delays_nobody(self) -> None:
        before, after = looked(0.0, waited_ns={(1, 1): 0}), looked(1.0, waited_ns={(1, 1): 2 * MS})
        assert between(before, after) == {"cpu_wait_share": pytest.approx(0.002)}

    def test_is_read_of_a_process_and_its_children(self, tmp_path: Path) -> None:
        proc = Proc(tmp_path)
        proc.process(4, parent=1, children=(5, 6), threads={4: (1, 1_000 * MS)})
        proc.process(5, parent=4, children=(7,), threads={5: (1, 0), 50: (1, 2 * MS)})
        proc.process(6, parent=4, threads={6: (1, 700 * MS)})
        proc.process(7, parent=5, threads={7: (1, 3 * MS)})
        found = look(5, 4, proc=tmp_path)
        assert found.waited_ns == {(5, 5): 0, (5, 50): 2 * MS, (7, 7): 3 * MS}

    def test_nothing_is_known_without_schedstat(self, tmp_path: Path) -> None:
        assert look(5, 4, proc=tmp_path).waited_ns == {}
        assert between(looked(0.0), looked(1.0)) == {}


class TestTicks:
    def test_of_others_and_of_a_hypervisor(self, tmp_path: Path) -> None:
        proc = Proc(tmp_path)
        proc.process(4, children=(5,), ticks=(10, 0, 0, 0))
        proc.process(5, parent=4, ticks=(50, 10, 0, 0))
        proc.cpus(busy=1_000, idle=9_000, stolen=100)
        before = look(5, 4, proc=tmp_path)
        proc.process(5, parent=4, ticks=(120, 20, 0, 0))  # 80 of ours
        proc.cpus(busy=1_180, idle=9_200, stolen=120)
        found = between(before, look(5, 4, proc=tmp_path))
        assert found["cpu_steal_share"] == pytest.approx(20 / 200)  # idle time is no excuse
        assert found["cpu_load"] == pytest.approx(100 / 400)

    def test_a_child_that_ended_stays_ours(self, tmp_path: Path) -> None:
        proc = Proc(tmp_path)
        proc.process(4, children=(5,))
        proc.process(5, parent=4, ticks=(100, 0, 0, 0))
        proc.cpus(busy=0, idle=0)
        before = look(4, 4, proc=tmp_path)
        for name in ("stat", "task/5/children", "task/5/schedstat"):
            (tmp_path / "5" / name).unlink()
        proc.process(4, ticks=(0, 0, 150, 0))  # it waited for it: 100 from before, 50 since
        proc.cpus(busy=50, idle=50)
        assert between(before, look(4, 4, proc=tmp_path))["cpu_load"] == 0.0

    def test_a_block_of_few_ticks_says_nothing(self) -> None:
        before = looked(0.0, busy_ticks=0, stolen_ticks=0, all_ticks=0)
        assert between(before, looked(0.2, busy_ticks=20, stolen_ticks=5, all_ticks=40)) == {}
        assert between(before, looked(0.2, busy_ticks=20, stolen_ticks=5, all_ticks=60)) == {
            "cpu_load": pytest.approx(1 / 3)
        }

    def test_counters_that_step_back_are_no_time(self) -> None:
        before = looked(0.0, busy_ticks=100, stolen_ticks=50, all_ticks=500, own_ticks=90)
        after = looked(1.0, busy_ticks=180, stolen_ticks=49, all_ticks=700, own_ticks=10)
        assert between(before, after) == {"cpu_steal_share": 0.0, "cpu_load": pytest.approx(0.4)}

    def test_cpus_are_counted(self, tmp_path: Path) -> None:
        assert counted(proc=tmp_path) is None
        (tmp_path / "stat").write_text("cpu  2 0 0 4\ncpu0 1 0 0 2\ncpu3 1 0 0 2\nintr 5\ncpufreq 1\n")
        assert counted(proc=tmp_path) == 2

    @pytest.mark.parametrize("content", ["", "cpu 1 2\n", "intr 5\n"])
    def test_a_stat_that_says_nothing(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "stat").write_text(content)
        assert look(5, 4, proc=tmp_path).all_ticks is None


class TestFacts:
    def test_clock(self, tmp_path: Path) -> None:
        proc = Proc(tmp_path)
        assert cpu.clock_hertz(proc=tmp_path, sys=tmp_path) is None
        proc.info("processor : 0\ncpu MHz\t\t: 800.0\ncpu MHz\t\t: 2596.144\n")
        assert cpu.clock_hertz(proc=tmp_path, sys=tmp_path) == pytest.approx(2.596144e9)
        for number, kilohertz in enumerate(("1200000", "3400000", "<unknown>")):
            (tmp_path / "cpufreq" / f"policy{number}").mkdir(parents=True)
            (tmp_path / "cpufreq" / f"policy{number}" / "scaling_cur_freq").write_text(kilohertz + "\n")
        assert cpu.clock_hertz(proc=tmp_path, sys=tmp_path) == pytest.approx(3.4e9)

    def test_instruction_sets(self, tmp_path: Path) -> None:
        assert facts("cpu", [], proc=tmp_path) == {}
        Proc(tmp_path).info("flags\t\t: fpu avx2 avx512f avx512_vnni hypervisor\n")
        found = facts("cpu", [], proc=tmp_path)
        assert set(found) == {f"cpu_has_{flag}" for flag in CPU_FLAGS}
        assert {name for name, value in found.items() if value == 1.0} == {
            "cpu_has_avx2",
            "cpu_has_avx512f",
            "cpu_has_avx512_vnni",
        }
        assert facts("server", [], proc=tmp_path) == {}
        assert inventory.is_virtual(proc=tmp_path)

    def test_limits_of_a_container(self, tmp_path: Path) -> None:
        assert (inventory.cpu_limit(cgroup=tmp_path), inventory.memory_limit_bytes(cgroup=tmp_path)) == (None, None)
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
        (tmp_path / "memory").mkdir()
        (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
        assert (inventory.cpu_limit(cgroup=tmp_path), inventory.memory_limit_bytes(cgroup=tmp_path)) == (None, None)
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
        assert inventory.cpu_limit(cgroup=tmp_path) == 1.5
        (tmp_path / "cpu.max").write_text("max 100000\n")
        (tmp_path / "memory.max").write_text("4096\n")
        assert inventory.cpu_limit(cgroup=tmp_path) is None
        (tmp_path / "cpu.max").write_text("250000 100000\n")
        assert inventory.cpu_limit(cgroup=tmp_path) == 2.5
        assert inventory.memory_limit_bytes(cgroup=tmp_path) == 4096

    def test_container(self, tmp_path: Path) -> None:
        assert inventory.container({}, root=tmp_path, proc=tmp_path) is None
        assert inventory.container({"KUBERNETES_SERVICE_HOST": "1"}, root=tmp_path, proc=tmp_path) == "Kubernetes"
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "cgroup").write_text("0::/kubepods/burstable/x\n")
        assert inventory.container({}, root=tmp_path, proc=tmp_path) == "kubepods"
        (tmp_path / ".dockerenv").touch()
        assert inventory.container({}, root=tmp_path, proc=tmp_path) == "Docker"


@pytest.mark.skipif(not inventory.counts_waiting(), reason="this kernel does not count waiting")
def test_a_thread_that_competes_for_its_cpu_is_seen_to_wait() -> None:
    """The kernel's own counters: a busy thread of this process and a busy process, both bound to one CPU."""
    only = min(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, {{{only}}})\nos.write(1, b'.')\nwhile 1: pass"
    rival = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert rival.stdout is not None
    assert rival.stdout.read(1) == b".", "it is busy from here on"

    looked_at = threading.Event()

    def busy() -> None:
        os.sched_setaffinity(0, {only})  # of this thread
        while not looked_at.is_set():
            hashlib.sha256(bytes(1_000_000))  # without the interpreter's lock, which `look` needs

    thread = threading.Thread(target=busy)
    before = look(os.getpid(), os.getpid())
    try:
        thread.start()
        time.sleep(0.3)
        latest = look(os.getpid(), os.getpid())
    finally:
        looked_at.set()
        thread.join()
        rival.kill()
        rival.wait()
        rival.stdout.close()
    own = {key: ns for key, ns in latest.waited_ns.items() if key[0] == os.getpid()}
    assert between(before, replace(latest, waited_ns=own))["cpu_wait_share"] > 0.1
