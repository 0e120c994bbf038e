"""Who listens to standard output, and for how long, changes no exit code and loses no record."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gate.records import Status
from tests.e2e.world import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.mark.parametrize("listener", ["| head -c 1 >/dev/null", ">/dev/full", "2>&1 | true"])
def test_a_reader_that_leaves_costs_no_verdict(world: World, listener: str) -> None:
    command = (
        f"set -o pipefail; {sys.executable} -m gate run --policy={world.policy(['fraud'])} "
        f"--baseline={world.root / 'baseline'} --candidate={world.root / 'candidate'} --backend=fake --device=cpu "
        f"--store={world.root / 'store'} --out={world.root / 'out'} {listener}"
    )
    ended = subprocess.run(["bash", "-c", command], check=False, capture_output=True, timeout=120)
    assert ended.returncode == 0
    assert world.record().verdict.status is Status.PASS


def test_a_poor_encoding_is_no_bug(world: World) -> None:
    arguments = ["plan", f"--policy={world.policy(['fraud'])}"]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [sys.executable, "-m", "gate", *arguments], check=False, capture_output=True, env=environment, timeout=60
    )
    assert ended.returncode == 0
    assert b"lossless" in ended.stdout
