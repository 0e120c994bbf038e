"""Local lm-eval tasks whose parts lie anywhere: no stale baseline, and broken ones are found before they cost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gate.records import Status
from tests.e2e.world import World, make_world

RULE = "capability.sums.exact_match.max_drop"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def split_task(world: World) -> Path:
    """Move the task's body into a file outside `include_path`; returns that file."""
    task, shared = world.root / "tasks" / "sums.yaml", world.root / "shared.yaml"
    shared.write_text(task.read_text(encoding="utf-8").replace("task: sums\n", ""), encoding="utf-8")
    task.write_text("include: ../shared.yaml\ntask: sums\n", encoding="utf-8")
    return shared


def test_a_looser_metric_in_an_included_file_is_not_compared_with_the_strict_baseline(world: World) -> None:
    """Half of the baseline's answers end in a full stop; once that is forgiven, the candidate has lost 30 %."""
    rows = [json.loads(line) for line in (world.root / "tasks" / "sums.jsonl").read_text().splitlines()]
    dotted = {r["input"]: r["expected"] + ("." if i % 2 else "") for i, r in enumerate(rows)}
    partly = {r["input"]: r["expected"] if i % 10 < 7 else "wrong" for i, r in enumerate(rows)}
    world.checkpoint("baseline", seed=1, error_rate=0, answers=dotted)
    world.checkpoint("candidate", seed=2, error_rate=0, answers=partly)
    shared = split_task(world)
    policy = world.policy(["capability"])
    assert world.run(policy) == 0
    assert world.finding(RULE).baseline == pytest.approx(0.5)
    edit(shared, "higher_is_better: true", "higher_is_better: true, ignore_punctuation: true")
    assert world.run(policy, out="after") == 1
    assert world.record("after").stages[0].baseline_from == "measured"
    assert world.finding(RULE, "after").baseline == 1.0


def change_data(world: World) -> Path:
    (world.root / "data").mkdir()
    shutil.move(world.root / "tasks" / "sums.jsonl", world.root / "data" / "sums.jsonl")
    edit(world.root / "tasks" / "sums.yaml", "test: sums.jsonl", "test: ../data/sums.jsonl")
    return world.root / "data" / "sums.jsonl"


def change_module(world: World) -> Path:
    shared = split_task(world)
    edit(shared, "metric_list", "process_docs: !function sum_docs.all_of\nmetric_list")
    module = world.root / "sum_docs.py"
    module.write_text("def all_of(docs):\n    return docs\n")
    return module


@pytest.mark.parametrize("lay_out", [change_data, change_module])
def test_a_file_outside_the_include_path_is_part_of_the_key(world: World, lay_out: Callable[[World], Path]) -> None:
    outside = lay_out(world)
    policy = world.policy(["capability"])
    assert world.run(policy) == 0
    assert world.run(policy, out="same") == 0
    assert world.record("same").stages[0].baseline_from == "store"
    with outside.open("a") as file:
        file.write("\n")
    assert world.run(policy, out="changed") == 0
    assert world.record("changed").stages[0].baseline_from == "measured"


def test_a_project_that_moves_as_a_whole_keeps_its_baselines(world: World, tmp_path: Path) -> None:
    split_task(world)
    assert world.run(world.policy(["capability"])) == 0
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in [p for p in world.root.iterdir() if p.name not in ("elsewhere", "out")]:
        shutil.move(path, moved / path.name)
    world = World(moved)
    assert world.run(moved / "policy.yaml") == 0
    assert world.record().stages[0].baseline_from == "store"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("sums.jsonl", "", "", "sums.jsonl:97: not JSON"),
        ("sums.yaml", "{{input}}", "{{ nope.x }}", "'nope' is undefined"),
        ("sums.yaml", "test_split: test", "test_split: valid", "no split 'valid'"),
    ],
)
def test_a_broken_local_task_in_a_late_stage_is_found_before_anything_is_measured(
    world: World, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, message: str
) -> None:
    path = world.root / "tasks" / file
    if old:
        edit(path, old, new)
    else:
        path.write_text(path.read_text() + '{"input": broken\n')
    assert world.run(world.policy(["sanity", "capability", "fraud"])) == 2
    err = capsys.readouterr().err
    assert message in err
    assert str(path) in err
    assert list((world.root / "store").rglob("measurement.parquet")) == []


def test_data_that_breaks_during_the_run_loses_its_stage_only(world: World) -> None:
    """The second stage's data set is gone as soon as the first stage is measured, which stays in the record."""
    (world.root / "tasks" / "vanishing.py").write_text(
        "import pathlib\n"
        "def all_of(docs):\n"
        "    if list(pathlib.Path(__file__).parents[1].glob('store/*/*/measurement.parquet')):\n"
        "        raise ValueError('the data set is gone')\n"
        "    return docs\n"
    )
    edit(world.root / "tasks" / "sums.yaml", "metric_list", "process_docs: !function vanishing.all_of\nmetric_list")
    assert world.run(world.policy(["fraud", "capability"])) == 4
    assert [(s.name, s.status) for s in world.record().stages] == [("fraud", Status.PASS), ("capability", Status.ERROR)]
    assert "the data set is gone" in (world.finding(RULE).reason or "")
