"""NVML as the gate asks it: what it says, what it does not, and that nothing of it raises."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from gate.machine import inventory
from gate.machine.facts import facts, notes
from gate.machine.gpus import Gpus, open_gpus
from tests.fake_nvml import OF_A_DEVICE, Device, Nvml
from tests.fake_proc import Proc


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A gate (10) with two workers (11, 12), a child of the first (13), and a stranger (99)."""
    tree = Proc(tmp_path)
    tree.process(1, children=(10, 99))
    tree.process(10, parent=1, children=(11, 12))
    tree.process(11, parent=10, children=(13,), name="a (b) c")
    tree.process(12, parent=10)
    tree.process(13, parent=11)
    tree.process(99, parent=1)
    return tmp_path


def installed(monkeypatch: pytest.MonkeyPatch, *devices: Device) -> Nvml:
    nvml = Nvml(*devices)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def opened(monkeypatch: pytest.MonkeyPatch, proc: Path, *devices: Device) -> Gpus:
    installed(monkeypatch, *devices)
    gpus = open_gpus([device.uuid for device in devices], proc=proc)
    assert gpus is not None
    return gpus


def test_sums_and_extremes_over_devices(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    one = Device(energy_mj=1_500, clock=600, reasons=0x04, temperature=50, capability=(9, 0))
    two = Device(uuid="GPU-bbbb", energy_mj=500, clock=1_200, reasons=0x40, power_mw=10_000, persistence=0)
    gpus = opened(monkeypatch, proc, one, two)
    assert gpus.energy_joules() == 2.0
    assert gpus.clock_share() == 0.25
    assert gpus.throttle_reasons() == 0x44
    assert gpus.temperature_celsius() == 50.0
    assert gpus.power_watts() == 100.0
    assert gpus.compute_capability() == 8.9
    assert gpus.persistence() is False


def test_torch_names_devices_without_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, Device(uuid="GPU-aaaa"))
    assert open_gpus(["aaaa"]) is not None
    assert open_gpus(["GPU-aaaa"]) is not None


@pytest.mark.parametrize("asked", ["bbbb", "GPU-bbbb", "MIG-bbbb"])
@pytest.mark.parametrize("known", ["bbbb", "GPU-bbbb", "MIG-bbbb"])
def test_a_part_of_a_gpu_is_found_by_any_form_of_its_uuid(
    monkeypatch: pytest.MonkeyPatch, asked: str, known: str
) -> None:
    installed(monkeypatch, Device(), Device(uuid=known, capability=(9, 0)))
    gpus = open_gpus([asked])
    assert gpus is not None
    assert gpus.compute_capability() == 9.0


def test_no_gpus_without_uuids_library_driver_or_device(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = installed(monkeypatch, Device())
    assert open_gpus([]) is None
    assert nvml.calls == []
    assert open_gpus(["GPU-aaaa", "GPU-gone"]) is None
    nvml.failing = {"nvmlInit"}
    assert open_gpus(["GPU-aaaa"]) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if it were not installed
    assert open_gpus(["GPU-aaaa"]) is None
    assert inventory.nvml() is None


_ASKED = {
    "energy_joules": "nvmlDeviceGetTotalEnergyConsumption",
    "clock_share": "nvmlDeviceGetMaxClockInfo",
    "temperature_celsius": "nvmlDeviceGetTemperature",
    "power_watts": "nvmlDeviceGetPowerUsage",
    "throttle_reasons": "nvmlDeviceGetCurrentClocksEventReasons",
    "compute_capability": "nvmlDeviceGetCudaComputeCapability",
    "persistence": "nvmlDeviceGetPersistenceMode",
}


@pytest.mark.parametrize(("method", "function"), _ASKED.items())
@pytest.mark.parametrize("how", ["failing", "missing"])
def test_what_fails_or_is_not_there_is_none(
    monkeypatch: pytest.MonkeyPatch, proc: Path, method: str, function: str, how: str
) -> None:
    nvml = installed(monkeypatch, Device(), Device(uuid="GPU-bbbb"))
    gpus = open_gpus(["GPU-aaaa", "GPU-bbbb"], proc=proc)
    assert gpus is not None
    assert getattr(gpus, method)() is not None
    getattr(nvml, how).add(function)
    assert getattr(gpus, method)() is None
    others = [name for name in _ASKED if name != method]
    assert all(getattr(gpus, name)() is not None for name in others)


def test_older_libraries_know_throttle_reasons_by_another_name(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    nvml = installed(monkeypatch, Device(reasons=0x20))
    nvml.missing = {"nvmlDeviceGetCurrentClocksEventReasons"}
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda device: device.reasons  # type: ignore[attr-defined]
    gpus = open_gpus(["GPU-aaaa"], proc=proc)
    assert gpus is not None
    assert gpus.throttle_reasons() == 0x20


def test_memory_is_of_the_process_and_what_it_started(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    one = Device(processes=[(11, 100), (12, 7), (99, 1_000)])
    two = Device(uuid="GPU-bbbb", processes=[(13, 20), (12, None)])
    gpus = opened(monkeypatch, proc, one, two)
    assert gpus.process_bytes(11) == 120
    assert gpus.process_bytes(12) == 7  # MIG and Windows give a process without its memory
    assert gpus.process_bytes(10) == 127
    assert gpus.process_bytes(13) == 20
    assert gpus.process_bytes(50) is None


def test_strangers_are_claimed_only_where_our_own_processes_are_seen(
    monkeypatch: pytest.MonkeyPatch, proc: Path
) -> None:
    device = Device(processes=[(11, 1), (13, 1), (99, 1), (98, 1)])
    gpus = opened(monkeypatch, proc, device)
    assert gpus.foreign_processes(10) == 2
    device.processes = [(11, 1), (12, 1)]
    assert gpus.foreign_processes(10) == 0
    device.processes = [(3001, 1), (3002, 1)]  # numbers of the host, as a container sees them
    assert gpus.foreign_processes(10) is None
    assert gpus.process_bytes(11) is None
    device.processes = []  # a container that sees none
    assert gpus.foreign_processes(10) is None


def test_a_device_that_disappears_leaves_nothing_known(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    nvml = installed(monkeypatch, Device(processes=[(11, 5)]))
    gpus = open_gpus(["GPU-aaaa"], proc=proc)
    assert gpus is not None
    with gpus.peak_of(11) as sampler:
        nvml.failing = set(OF_A_DEVICE)
    assert sampler.peak_bytes == 5  # until it was gone
    assert gpus.foreign_processes(10) is None
    assert gpus.process_bytes(11) is None


def test_the_sampler_sees_a_peak_in_between(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    device = Device(processes=[(11, 100)])
    gpus = opened(monkeypatch, proc, device)
    sampler = gpus.peak_of(11)
    assert sampler.peak_bytes is None
    with sampler:
        device.processes = [(11, 900)]
        until = time.monotonic() + 10
        while sampler.peak_bytes != 900 and time.monotonic() < until:
            time.sleep(0.001)
        device.processes = [(11, 300)]
    assert sampler.peak_bytes == 900


def test_the_sampler_looks_at_both_ends_and_ends_with_its_block(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    device = Device(processes=[(11, 100)])
    gpus = opened(monkeypatch, proc, device)
    with pytest.raises(RuntimeError, match="of the block"), gpus.peak_of(11) as sampler:
        raise RuntimeError("of the block")
    assert sampler.peak_bytes == 100
    assert not sampler._thread.is_alive()
    with gpus.peak_of(50) as unseen:
        pass
    assert unseen.peak_bytes is None


def test_inventory(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = installed(monkeypatch, Device(), Device(uuid="GPU-bbbb", name="NVIDIA H200", capability=(9, 0)))
    found = inventory.nvml()
    assert found is not None
    assert (found.driver, found.cuda) == ("580.1", "13.1")
    assert [(c.name, c.compute_capability, c.counts_energy) for c in found.cards] == [
        ("NVIDIA L40S", 8.9, True),
        ("NVIDIA H200", 9.0, True),
    ]
    nvml.failing = {*OF_A_DEVICE, "nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion"}
    found = inventory.nvml()
    assert found is not None
    assert (found.driver, found.cuda) == (None, None)
    card = found.cards[1]
    assert (card.uuid, card.memory_bytes, card.compute_capability) == ("device 1", None, None)
    nvml.failing = {"nvmlDeviceGetHandleByIndex"}
    assert inventory.nvml() == inventory.Nvml(driver="580.1", cuda="13.1", cards=())


class TestFactsAndNotes:
    def test_of_a_gpu(self, monkeypatch: pytest.MonkeyPatch, proc: Path, tmp_path: Path) -> None:
        nvml = installed(monkeypatch, Device())
        assert facts("cuda:0", ["GPU-aaaa"]) == {"gpu_compute_capability": 8.9}
        nvml.failing = {"nvmlDeviceGetCudaComputeCapability"}
        assert facts("cuda:0", ["GPU-aaaa"]) == {}
        assert facts("cuda", []) == {}

    def test_notes_say_what_is_not_known(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        device = Device(persistence=0)
        nvml = installed(monkeypatch, device)
        nvml.failing = {"nvmlDeviceGetTotalEnergyConsumption"}
        said = notes("cuda", ["GPU-aaaa"], sys=tmp_path)
        assert [line.split(":")[0].split(",")[0] for line in said] == [
            "NVML does not show this process among those on the GPU",
            "NVML counts no energy on this GPU.",
            "Persistence mode is off",
        ]
        monkeypatch.setitem(sys.modules, "pynvml", None)
        (alone,) = notes("cuda", ["GPU-aaaa"], sys=tmp_path)
        assert alone.startswith("NVML could not be asked")
        assert notes("cpu", [], sys=tmp_path) == ()

    def test_the_governor(self, tmp_path: Path) -> None:
        for number, governor in enumerate(("powersave", "powersave")):
            folder = tmp_path / "cpufreq" / f"policy{number}"
            folder.mkdir(parents=True)
            (folder / "scaling_governor").write_text(governor + "\n")
        (note,) = notes("cpu", [], sys=tmp_path)
        assert note.startswith("CPU governor powersave: clocks follow the load.")
        for number in range(2):
            (tmp_path / "cpufreq" / f"policy{number}" / "scaling_governor").write_text("performance\n")
        assert notes("cpu", [], sys=tmp_path) == ("CPU governor performance.",)
