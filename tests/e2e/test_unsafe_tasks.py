"""HumanEval in a whole run: right programs pass, wrong ones fail, attacks are wrong answers and harm nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gate.artifact import read_observations
from gate.errors import CouldNotMeasure
from gate.records import Measurement, Role, Status
from gate.sandbox import find
from tests import code_tasks
from tests.e2e.world import World

N_PROBLEMS = 32
METRIC = "pass@1,create_test"
RULE = f"code.local_humaneval.{METRIC}.max_drop"

ATTACK = """\
    return 0
import os, signal, sys
frame = sys._getframe(1)
for fd in range(3, 64):
    try:
        os.write(fd, frame.f_locals['secret'])
    except OSError:
        continue
sys.stdout.write('passed')
os.kill(os.getppid(), signal.SIGKILL)
os._exit(0)
"""


def stage(**task: Any) -> dict[str, Any]:
    rules = [{"metric": METRIC, "max_drop": "20pp"}]
    return {
        "kind": "lm_eval",
        "name": "code",
        "include_path": "tasks",
        "tasks": [{"task": "local_humaneval", "unsafe_code": True, "rules": rules, **task}],
    }


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    problems = code_tasks.write_humaneval(tmp_path, N_PROBLEMS)
    answers = {p["prompt"]: p["canonical_solution"] for p in problems}
    world.checkpoint("baseline", seed=1, answers=answers, error_rate=0.0)
    world.checkpoint("candidate", seed=2, answers=answers, error_rate=0.0)
    world.checkpoint("hostile", seed=2, answers=answers, error_rate=0.5, mistake=ATTACK)
    return world


@pytest.fixture
def _sandboxed() -> None:
    try:
        find()
    except CouldNotMeasure as problem:
        pytest.skip(str(problem))


@pytest.mark.usefixtures("_sandboxed")
def test_right_wrong_and_hostile_programs(world: World) -> None:
    policy = world.policy([stage()])
    assert world.run(policy) == 0
    finding = world.finding(RULE)
    assert (finding.status, finding.baseline, finding.candidate) == (Status.PASS, 1.0, 1.0)
    for role, measurement in measured(world, "out").items():
        assert "the model's code ran in a sandbox (" in " ".join(measurement.notes), role

    assert world.run(policy, candidate=world.root / "hostile", out="hostile-out") == 1
    finding = world.finding(RULE, "hostile-out")
    assert (finding.status, finding.n_lost) == (Status.REGRESSION, 0)
    candidate = measured(world, "hostile-out")[Role.CANDIDATE]
    attacks = {a.item_id for a in candidate.answers if "os.kill" in a.output}
    assert 4 < len(attacks) < len(candidate.answers)
    assert {o.item_id: o.value for o in candidate.observations if o.metric != "output_tokens"} == {
        a.item_id: 0.0 if a.item_id in attacks else 1.0 for a in candidate.answers
    }


def measured(world: World, out: str) -> dict[Role, Measurement]:
    found = read_observations(world.root / out / "observations" / "code.parquet")
    return {m.role: m for m in found}


def test_without_a_sandbox_it_is_an_error_that_says_what_to_install(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing was executed: both checkpoints answer with a program that leaves a file behind."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert shutil.which("unshare") is None
    assert world.run(world.policy([stage()])) == 4
    reason = world.finding(RULE).reason or ""
    assert "found no sandbox that works here (neither bubblewrap nor unshare with setpriv and prlimit" in reason
    assert "the code that a model writes is never run without one. Install bubblewrap" in reason


def test_it_must_be_asked_for(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run(world.policy([stage(unsafe_code=False)])) == 2
    assert "executes the code that the model wrote: set `unsafe_code: true`" in capsys.readouterr().err
