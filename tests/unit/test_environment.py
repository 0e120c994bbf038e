"""Where a run takes place, and what of it can change a score."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest

from gate import environment
from gate.environment import default_device, fingerprint, snapshot

PLACE: dict[str, Any] = {
    "device": "cuda",
    "device_names": ("NVIDIA H200",),
    "driver": "580.1",
    "packages": {"torch": "2.13.0", "transformers": "5.23.0", "pyarrow": "26.0.1"},
    "machine": "x86_64",
}
SMI = "#!/bin/sh\necho 'NVIDIA H200, 580.82.07'\necho 'NVIDIA H200, 580.82.07'\n"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("GITHUB_SHA", raising=False)
    return folder


def install(programs: Path, name: str, script: str) -> None:
    (programs / name).write_text(script)
    (programs / name).chmod(0o755)


class TestFingerprint:
    @pytest.mark.parametrize(
        "change",
        [
            {"device": "cpu"},
            {"device_names": ("NVIDIA L4",)},
            {"driver": "581.0"},
            {"machine": "aarch64"},
            {"packages": {"torch": "2.14.0", "transformers": "5.23.0"}},
            {"packages": {"torch": "2.13.0", "transformers": "5.23.0", "compressed-tensors": "0.20"}},
        ],
        ids=str,
    )
    def test_what_can_change_a_score_counts(self, change: dict[str, Any]) -> None:
        assert fingerprint(**PLACE | change) != fingerprint(**PLACE)

    @pytest.mark.parametrize(
        "change",
        [
            {"device": "cuda:1"},
            {"device_names": ("NVIDIA H200", "NVIDIA H200")},
            {"packages": PLACE["packages"] | {"pyarrow": "27.0", "quantgate": "9"}},
        ],
        ids=str,
    )
    def test_the_rest_does_not(self, change: dict[str, Any]) -> None:
        assert fingerprint(**PLACE | change) == fingerprint(**PLACE)


class TestSnapshot:
    def test_this_machine(self) -> None:
        found = snapshot("cpu")
        assert found.device == "cpu"
        assert found.memory_bytes == psutil.virtual_memory().total
        assert found.packages["torch"] == metadata.version("torch")
        assert "vllm" not in found.packages
        assert found.device_names[0]
        assert found.driver is None
        assert snapshot("cpu") == found

    def test_torch_is_not_imported(self) -> None:
        code = (
            "import sys; from gate import environment; environment.snapshot('cpu'); environment.default_device()\n"
            "print(sorted(set(sys.modules) & {'torch', 'transformers', 'numpy', 'scipy'}))"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

    def test_gpus_are_what_the_driver_says(self, programs: Path) -> None:
        install(programs, "nvidia-smi", SMI)
        found = snapshot("cuda")
        assert found.device_names == ("NVIDIA H200", "NVIDIA H200")
        assert found.driver == "580.82.07"
        assert default_device() == "cuda"
        assert snapshot("cpu").driver is None

    @pytest.mark.parametrize("script", [None, "#!/bin/sh\necho 'no devices were found'\n", "#!/bin/sh\nexit 9\n"])
    def test_no_gpu(self, programs: Path, script: str | None) -> None:
        if script:
            install(programs, "nvidia-smi", script)
        assert default_device() == "cpu"

    def test_a_hanging_driver_is_not_waited_for(self, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environment, "_QUERY_SECONDS", 0.2)
        install(programs, "nvidia-smi", "#!/bin/sh\nexec /bin/sleep 60\n")
        assert default_device() == "cpu"

    def test_the_commit(self, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert snapshot("cpu").git_commit is None
        install(programs, "git", "#!/bin/sh\necho fatal >&2\nexit 128\n")
        assert snapshot("cpu").git_commit is None
        install(programs, "git", "#!/bin/sh\necho 0123abcd\n")
        assert snapshot("cpu").git_commit == "0123abcd"
        monkeypatch.setenv("GITHUB_SHA", "feedbeef")
        assert snapshot("cpu").git_commit == "feedbeef"
