"""What the machine was like during a block, and which of it disturbs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gate.decide.conditions import (
    MAX_CPUS_OF_OTHERS,
    MAX_STEAL_SHARE,
    MAX_WAIT_SHARE,
    THROTTLED,
    crowded,
    disturbance,
    of_blocks,
)
from gate.machine.conditions import Watch
from gate.machine.gpus import Gpus
from gate.metrics import DESCRIBED
from gate.records import Measurement, Observation, Role
from tests.fake_nvml import OF_A_DEVICE, Device, Nvml
from tests.fake_proc import Proc


def measured(*observations: tuple[str, str, float]) -> Measurement:
    return Measurement(
        stage="serving",
        source="serving",
        role=Role.BASELINE,
        settings_digest="d",
        n_expected=8,
        n_available=8,
        n_reached=1,
        planned_tokens=0,
        chance=None,
        metrics=(),
        observations=tuple(
            Observation(metric=metric, item_id=item, value=value, weight=1.0, cluster=None, group=None)
            for metric, item, value in observations
        ),
        failures=(),
        answers=(),
        seconds=1.0,
        notes=(),
    )


class TestWatch:
    """A worker (11) of a gate (10), whose other worker (12) computes on the GPU as well."""

    @pytest.fixture
    def proc(self, tmp_path: Path) -> Proc:
        proc = Proc(tmp_path)
        proc.process(10, parent=1, children=(11, 12))
        proc.process(11, parent=10, threads={11: (0, 0)})
        proc.process(12, parent=10, threads={12: (0, 0)})
        proc.cpus(busy=0, idle=0)
        return proc

    def test_on_a_cpu(self, proc: Proc) -> None:
        watch = Watch("cpu", [], pid=11, proc=proc.root, sys=proc.root)
        watch.start()
        proc.process(11, parent=10, ticks=(60, 0, 0, 0))
        proc.process(
            12, parent=10, ticks=(20, 0, 0, 0), threads={12: (0, 10**15)}
        )  # the other role's waits are its own
        proc.cpus(busy=100, idle=100)
        proc.info("cpu MHz : 2000.0\n")
        found = watch.finish()
        assert found["cpu_load"] == pytest.approx(0.1)  # 20 of 200: the other worker is no stranger
        assert found["cpu_clock_hertz"] == pytest.approx(2e9)
        assert found["cpu_count"] == 1.0
        assert found["cpu_wait_share"] == 0.0
        assert found["cpu_steal_share"] == 0.0
        assert found.keys() <= DESCRIBED.keys()

    def test_on_a_gpu(self, proc: Proc) -> None:
        device = Device(temperature=80, reasons=0x04, processes=[(11, 1), (12, 1), (77, 1)])
        asked: list[list[str]] = []

        def gpus(uuids: object) -> Gpus:
            asked.append(list(uuids))  # type: ignore[call-overload]
            return Gpus(Nvml(device), [device], proc=proc.root)

        watch = Watch("cuda:0", ["GPU-aaaa"], pid=11, proc=proc.root, sys=proc.root, gpus=gpus)
        watch.start()
        device.temperature, device.reasons, device.clock, device.processes = 70, 0x40, 1_800, [(11, 1)]
        found = watch.finish()
        assert asked == [["GPU-aaaa"]]
        assert found["gpu_temperature_celsius"] == 80.0  # the worse of before and after
        assert found["gpu_throttle_reasons"] == float(0x44)
        assert found["gpu_foreign_processes"] == 1.0
        assert found["gpu_clock_share"] == 0.75  # after it: an idle GPU clocks down before
        assert found["gpu_power_watts"] == 90.0
        assert found.keys() <= DESCRIBED.keys()

    def test_a_gpu_that_disappears_leaves_what_was_seen(self, proc: Proc) -> None:
        device = Device(processes=[(11, 1)])
        nvml = Nvml(device)
        watch = Watch(
            "cuda", ["x"], pid=11, proc=proc.root, sys=proc.root, gpus=lambda _: Gpus(nvml, [device], proc=proc.root)
        )
        watch.start()
        nvml.failing = set(OF_A_DEVICE)
        assert watch.finish()["gpu_temperature_celsius"] == 40.0
        watch.start()
        assert not any(name.startswith("gpu_") for name in watch.finish())

    def test_nothing_is_known_elsewhere(self, tmp_path: Path) -> None:
        watch = Watch("cuda", ["x"], pid=11, proc=tmp_path, sys=tmp_path, gpus=lambda _: None)
        watch.start()
        assert watch.finish() == {}

    def test_finish_without_start(self) -> None:
        watch = Watch("cpu", [])
        watch.start()
        found = watch.finish()
        assert all(math.isfinite(value) for value in found.values())
        with pytest.raises(ValueError, match="without start"):
            watch.finish()


class TestOfBlocks:
    def test_only_conditions_of_blocks(self) -> None:
        found = of_blocks(
            measured(
                ("cpu_wait_share", "block/0", 0.2),
                ("gpu_temperature_celsius", "block/0", 60.0),
                ("cpu_load", "again/1", 0.1),
                ("cpu_has_avx2", "run/0", 1.0),
                ("gpu_compute_capability", "run/0", 8.9),
                ("look_pairs", "look/0", 8.0),
                ("repeated", "block/0", 1.0),
                ("ttft_p50_seconds", "block/2", 0.1),
            )
        )
        assert found == {
            "block/0": {"cpu_wait_share": 0.2, "gpu_temperature_celsius": 60.0},
            "again/1": {"cpu_load": 0.1},
        }


class TestDisturbance:
    def test_a_quiet_machine_is_not_disturbed(self) -> None:
        assert disturbance({}) is None
        quiet = {"cpu_wait_share": 0.002, "cpu_steal_share": 0.0, "cpu_load": 0.03, "cpu_clock_hertz": 2.6e9}
        assert disturbance(quiet) is None
        at_work = {
            "gpu_clock_share": 0.5,
            "gpu_temperature_celsius": 84.0,
            "gpu_power_watts": 72.0,
            "gpu_throttle_reasons": float(0x01 | 0x02 | 0x04 | 0x10 | 0x100),
            "gpu_foreign_processes": 0.0,
        }
        assert disturbance(at_work) is None

    def test_a_steady_load_on_other_cpus_is_none(self) -> None:
        assert disturbance({"cpu_wait_share": 0.01, "cpu_load": 0.95}) is None

    @pytest.mark.parametrize(
        ("name", "limit", "words"),
        [
            ("cpu_wait_share", MAX_WAIT_SHARE, "waited 11% of the time for a CPU"),
            ("cpu_steal_share", MAX_STEAL_SHARE, "took 11% of its CPU time"),
        ],
    )
    def test_beyond_a_threshold(self, name: str, limit: float, words: str) -> None:
        assert disturbance({name: limit}) is None
        said = disturbance({name: limit + 0.01})
        assert said is not None
        assert words in said

    def test_it_says_who_took_the_cpus_where_it_is_known(self) -> None:
        assert disturbance({"cpu_wait_share": 0.4, "cpu_load": 0.5}) == (
            "the timed threads waited 40% of the time for a CPU (other processes used 50% of the CPUs)"
        )

    @pytest.mark.parametrize(("load", "cpus"), [(0.0, 2.0), (0.05, 2.0), (0.001, 64.0)])
    def test_threads_that_wait_for_each_other_are_not_disturbed(self, load: float, cpus: float) -> None:
        own = {"cpu_wait_share": 0.5, "cpu_load": load, "cpu_count": cpus}
        assert crowded(own)
        assert disturbance(own) is None
        assert disturbance({**own, "gpu_foreign_processes": 1.0}) == "1 other process computed on the GPU"

    @pytest.mark.parametrize(
        "of",
        [
            {
                "cpu_load": 1 / 64,
                "cpu_count": 64.0,
            },  # one busy process makes one of 64 threads wait for half of the time
            {"cpu_load": 0.06, "cpu_count": 2.0},
            {"cpu_load": 0.0},
            {"cpu_count": 2.0},
        ],
    )
    def test_others_that_ran_long_enough_may_be_waited_for(self, of: dict[str, float]) -> None:
        seen = {"cpu_wait_share": 0.5, **of}
        assert not crowded(seen)
        assert "waited 50% of the time for a CPU" in (disturbance(seen) or "")

    def test_who_does_not_wait_is_not_crowded(self) -> None:
        assert not crowded({"cpu_wait_share": MAX_WAIT_SHARE, "cpu_load": 0.0, "cpu_count": 2.0})

    @pytest.mark.parametrize("bit", [0x08, 0x20, 0x40, 0x80])
    def test_each_slowdown_of_the_hardware(self, bit: int) -> None:
        assert disturbance({"gpu_throttle_reasons": float(bit | 0x05)}) == THROTTLED[bit]

    def test_a_stranger_on_the_gpu(self) -> None:
        assert disturbance({"gpu_foreign_processes": 1.0}) == "1 other process computed on the GPU"
        assert disturbance({"gpu_foreign_processes": 2.0, "gpu_throttle_reasons": 128.0}) == (
            "2 other processes computed on the GPU; the power supply made the GPU slow down"
        )


def test_the_thresholds_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert f"without a CPU for more than {MAX_WAIT_SHARE:.0%} of the block" in text
    assert f"other processes kept more than {MAX_CPUS_OF_OTHERS:g} CPUs busy" in text
    assert f"took more than {MAX_STEAL_SHARE:.0%} of the CPU time" in text
    assert [bit for bit, name in enumerate(_BITS) if f"{name}Slowdown" in text] == [
        bit for bit in range(8) if 1 << bit in THROTTLED
    ]


_BITS = ("GpuIdle", "ApplicationsClocks", "SwPowerCap", "Hw", "SyncBoost", "SwThermal", "HwThermal", "HwPowerBrake")
"""Of `nvmlClocksEventReason…`, from the lowest."""
