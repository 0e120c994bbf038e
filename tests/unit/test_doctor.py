"""`gate doctor`: on this machine, on one where everything is missing, and what follows from what is found."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gate import hardware
from gate.cli import main
from gate.commands import checkup
from gate.commands.checkup import Checkup, Cpu, Fits, Interpreter, Place
from gate.commands.checkup_limits import limits, prevents
from gate.commands.doctor import document, show
from gate.machine.inventory import Card, Nvml

CARD = Card(
    uuid="GPU-a",
    name="NVIDIA L40S",
    memory_bytes=48 * 2**30,
    compute_capability=8.9,
    persistence=True,
    counts_energy=True,
)

GOOD = Checkup(
    platform="Linux-6.8",
    container=None,
    gpu_names=("NVIDIA L40S",),
    driver="580.1",
    nvml=Nvml(driver="580.1", cuda="13.0", cards=(CARD,)),
    cpu=Cpu(
        name="AMD EPYC",
        usable=16,
        limit=None,
        flags=frozenset({"avx2", "avx512f"}),
        governors=("performance",),
        virtual=True,
        counts_waiting=True,
    ),
    memory_bytes=128 * 2**30,
    available_bytes=100 * 2**30,
    memory_limit_bytes=None,
    interpreter=Interpreter(
        path="/v/bin/python",
        python="3.11.7",
        packages={"quantgate": "0.1", "torch": "2.13.0", "transformers": "5.23", "vllm": "0.32", "nvidia-ml-py": "13"},
        modules=frozenset(),
        problem=None,
    ),
    settings={},
    places=(Place(what="output of gate run", path="/w", free_bytes=10**12, writable=True),),
    sandbox="bubblewrap",
    sandbox_problem=None,
    loadable={"gptq": None},
    fits=(
        Fits(
            device="NVIDIA L40S",
            entries={f: hardware.fit(f, device="cuda", capability=8.9, cpu_flags=()) for f in hardware.FORMATS},
        ),
        Fits(
            device="AMD EPYC",
            entries={f: hardware.fit(f, device="cpu", capability=None, cpu_flags=("avx2",)) for f in hardware.FORMATS},
        ),
    ),
)


def of_cpu(**changes: Any) -> Checkup:
    return replace(GOOD, cpu=replace(GOOD.cpu, **changes))


def of_card(**changes: Any) -> Checkup:
    return replace(GOOD, nvml=Nvml(driver=None, cuda=None, cards=(replace(CARD, **changes),)))


def of_interpreter(packages: dict[str, str], problem: str | None = None) -> Checkup:
    return replace(GOOD, interpreter=replace(GOOD.interpreter, packages=packages, problem=problem))


PACKAGES = dict(GOOD.interpreter.packages)


class TestLimits:
    def test_none_on_a_machine_that_has_all(self) -> None:
        assert list(limits(GOOD)) == []
        assert list(prevents(GOOD)) == []

    @pytest.mark.parametrize(
        ("found", "words"),
        [
            (replace(GOOD, gpu_names=(), nvml=None, cpu=replace(GOOD.cpu, virtual=False)), "is a CPU figure"),
            (of_interpreter(PACKAGES | {"torch": "2.13.0+cpu"}), "a build for CPUs: --backend hf will not use the GPU"),
            (replace(GOOD, nvml=None), "NVML does not answer"),
            (replace(GOOD, container="Docker"), "docker run --pid=host"),
            (of_card(persistence=False), "nvidia-smi -pm 1"),
            (of_card(counts_energy=False), "no joules per token"),
            (of_interpreter({n: v for n, v in PACKAGES.items() if n != "vllm"}), "name one that has it with --python"),
            (of_interpreter({n: v for n, v in PACKAGES.items() if n != "torch"}), "--backend hf needs torch"),
            (of_cpu(limit=2.5), "16 threads for 2.5 CPUs"),
            (replace(of_cpu(limit=0.5), settings={"QUANTGATE_THREADS": "2"}), "Set QUANTGATE_THREADS=1."),
            (replace(GOOD, settings={"QUANTGATE_THREADS": "two"}), "'two', expected a number of threads"),
            (of_cpu(counts_waiting=False), "blocks that others disturb are not noticed"),
            (of_cpu(governors=("powersave", "schedutil")), "CPU governor powersave and schedutil"),
            (replace(GOOD, sandbox=None, sandbox_problem="no tool"), "(humaneval, mbpp) cannot be run: no tool."),
            (replace(GOOD, settings={"HF_HUB_OFFLINE": "1"}), "HF_HUB_OFFLINE set: `gate fetch` downloads nothing"),
            (
                replace(GOOD, places=(Place(what="store", path="/s", free_bytes=10**9, writable=True),)),
                "953.67 MiB free at /s",
            ),
            (
                replace(GOOD, places=(Place(what="store", path="/s", free_bytes=None, writable=False),)),
                "/s cannot be written",
            ),
            (replace(GOOD, loadable={"awq": "awq needs gptqmodel", "gptq": None}), "cannot load these here: awq."),
        ],
    )
    def test_each_has_a_sentence_of_its_own(self, found: Checkup, words: str) -> None:
        (sentence,) = limits(found)
        assert words in sentence

    def test_threads_within_the_limit_are_fine(self) -> None:
        assert list(limits(replace(of_cpu(limit=2.5), settings={"QUANTGATE_THREADS": "2"}))) == []
        assert list(limits(replace(GOOD, settings={"HF_HUB_OFFLINE": "0"}))) == []

    def test_without_nvidia_ml_py(self) -> None:
        packages = {n: v for n, v in PACKAGES.items() if n != "nvidia-ml-py"}
        (sentence,) = limits(replace(of_interpreter(packages), nvml=None))
        assert sentence.startswith("nvidia-ml-py is not installed: no energy")

    @pytest.mark.parametrize(
        ("found", "words"),
        [
            (of_interpreter({}, problem="No such file"), "does not start (No such file)"),
            (of_interpreter({"torch": "2.13"}), "gate is not installed for /v/bin/python"),
            (of_interpreter({"quantgate": "0.1"}), "neither torch nor vLLM"),
        ],
    )
    def test_what_prevents_any_run(self, found: Checkup, words: str) -> None:
        (sentence,) = prevents(found)
        assert words in sentence


class TestShown:
    @pytest.mark.parametrize("width", [80, 120])
    def test_fits_a_terminal(self, width: int) -> None:
        text = io.StringIO()
        show(Console(file=text, width=width), replace(GOOD, container="Docker"), ("what will fail " * 20,), ("none",))
        lines = text.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert any(line.startswith("FP4") and " dequantized " in line for line in lines)
        assert any(line.startswith("INT4 weights ") for line in lines)
        for title in ("How NVIDIA L40S runs", "How AMD EPYC runs", "What will not work here", "No run can start"):
            assert any(line.startswith(title) for line in lines), title

    def test_each_source_is_listed_once(self) -> None:
        text = io.StringIO()
        show(Console(file=text, width=1000), GOOD, (), ())
        shown = text.getvalue()
        sources = {s for fits in GOOD.fits for e in fits.entries.values() for s in e.source.split("; ")}
        assert all(shown.count(source) == 1 for source in sources)
        assert len(sources) == sum(line.startswith("[") for line in shown.splitlines())

    def test_hostile_names_cannot_command_a_terminal(self) -> None:
        text = io.StringIO()
        show(Console(file=text, width=100), replace(GOOD, platform="\x1b[2Jx", container="[red]y"), (), ())
        assert "\x1b" not in text.getvalue()
        assert "[red]y" in text.getvalue()

    def test_for_machines(self) -> None:
        plain = json.loads(json.dumps(document(GOOD, ("a",), ())))
        assert (plain["version"], plain["will_not_work"], plain["prevents_any_run"]) == (1, ["a"], [])
        assert plain["cpu"]["flags"] == ["avx2", "avx512f"]
        assert plain["fits"][0]["entries"]["FP8"]["runs"] == "native"
        assert plain["nvml"]["cards"][0]["compute_capability"] == 8.9


def ran(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gate", "doctor", *arguments], capture_output=True, text=True, timeout=120, env=env
    )


class TestCommand:
    def test_on_this_machine(self) -> None:
        code = (
            "import sys; from gate.cli import main; status = main(['doctor', '-f', 'json']);"
            "print([m for m in ('torch', 'transformers', 'vllm', 'lm_eval') if m in sys.modules]); sys.exit(status)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said, _, heavy = done.stdout.strip().rpartition("\n")
        assert heavy == "[]"
        found = json.loads(said)
        assert found["interpreter"]["packages"]["quantgate"]
        assert found["interpreter"]["packages"]["torch"]
        assert found["cpu"]["usable"] >= 1
        assert found["fits"][-1]["device"] == found["cpu"]["name"]
        assert found["prevents_any_run"] == []

    def test_where_everything_is_missing(self, tmp_path: Path) -> None:
        (tmp_path / "pynvml.py").write_text("raise ImportError('no NVML here')\n")
        env = {"PATH": str(tmp_path), "PYTHONPATH": str(tmp_path), "HOME": "/nonexistent/home", "COLUMNS": "80"}
        done = ran(env=env)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert "every figure of speed and memory is a CPU figure" in done.stdout
        assert "cannot be run: found no sandbox that works here" in done.stdout

    def test_an_interpreter_that_is_not_there(self, tmp_path: Path) -> None:
        done = ran("--python", str(tmp_path / "python"))
        assert done.returncode == 2
        assert "does not start (No such file or directory)" in " ".join(done.stdout.split())


class TestInterpreter:
    @pytest.fixture
    def script(self, tmp_path: Path) -> Callable[[str], str]:
        def written(text: str) -> str:
            path = tmp_path / "python"
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
            return str(path)

        return written

    def test_without_gate(self, script: Callable[[str], str]) -> None:
        seen = checkup.interpreter(script(f'exec {sys.executable} -I -S "$@"'))
        assert (seen.problem, seen.packages, seen.modules) == (None, {}, frozenset())
        assert seen.python is not None

    @pytest.mark.parametrize(
        ("text", "problem"),
        [("echo 'cannot find libpython' >&2; exit 3", "cannot find libpython"), ("exit 3", "exit status 3")],
    )
    def test_that_fails(self, script: Callable[[str], str], text: str, problem: str) -> None:
        assert checkup.interpreter(script(text)).problem == problem

    @pytest.mark.parametrize("text", ["echo hello", "true", "echo '[1]'", "echo '{}'"])
    def test_that_says_something_else(self, script: Callable[[str], str], text: str) -> None:
        assert checkup.interpreter(script(text)).problem is not None


def test_a_gpu_that_nvml_shows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.fake_nvml import Device
    from tests.fake_nvml import Nvml as FakeNvml

    monkeypatch.setitem(
        sys.modules, "pynvml", FakeNvml(Device(), Device(uuid="GPU-b", name="NVIDIA A10G", capability=(8, 6)))
    )
    monkeypatch.setattr(checkup, "_sandbox", lambda: ("bubblewrap", None))
    monkeypatch.setitem(os.environ, "HF_DATASETS_OFFLINE", "1")
    assert main(["doctor", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [f["device"] for f in found["fits"]][:2] == ["NVIDIA L40S", "NVIDIA A10G"]
    assert [f["entries"]["FP8"]["runs"] for f in found["fits"]][:2] == ["native", "dequantized"]
    assert found["settings"]["HF_DATASETS_OFFLINE"] == "1"
    # the older of the two decides what can be loaded wherever a run lands
    assert "8.6" in found["loadable"]["fp8"]


@pytest.mark.parametrize(
    ("answer", "runs"),
    [("echo 8.6; echo 9.0", ["dequantized", "native"]), ("echo '[N/A]'", ["unknown"] * 2), ("exit 2", ["unknown"] * 2)],
)
def test_without_nvml_the_driver_says_what_a_gpu_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, runs: list[str]
) -> None:
    smi = tmp_path / "nvidia-smi"
    names = "echo 'NVIDIA A10G, 580.1'; echo 'NVIDIA H100, 580.1'"
    smi.write_text(f"#!/bin/sh\ncase $1 in *compute_cap*) {answer};; *) {names};; esac\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("gate.machine.inventory.nvml", lambda: None)
    monkeypatch.setattr(checkup, "_sandbox", lambda: ("bubblewrap", None))
    found = checkup.examine(python=None, store=None)
    assert [f.device for f in found.fits][:2] == ["NVIDIA A10G", "NVIDIA H100"]
    assert [f.entries["FP8"].runs for f in found.fits][:2] == runs
    assert ("8.6" in (found.loadable["fp8"] or "")) == (runs[0] == "dequantized")
