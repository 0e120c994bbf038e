"""`gate calibrate` from the command line, on the fake backend with real worker processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from gate import checkpoint, environment, launch
from gate.commands.calibrate import calibrate
from gate.errors import CouldNotMeasure, UsageError
from gate.noise_floor import Place, load_floors, missing
from gate.policy_file import load_policy
from gate.records import Role
from gate.store import Store
from tests.e2e.world import World, make_world

command = typer.Typer()
command.command()(calibrate)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def run(world: World, policy: Path, *extra: str) -> None:
    """Raises what the command raises; `gate.cli.main` turns it into an exit code."""
    command(
        [
            f"--policy={policy}",
            f"--baseline={world.root / 'baseline'}",
            "--backend=fake",
            "--device=cpu",
            f"--out={world.root / 'calibration'}",
            f"--store={world.root / 'store'}",
            *extra,
        ],
        standalone_mode=False,
    )


def written(world: World) -> dict[str, dict[str, Any]]:
    data = json.loads((world.root / "calibration" / "calibration.json").read_text(encoding="utf-8"))
    return {s["source"]: s for s in data["sources"]}


def place(world: World, policy: Path) -> Place:
    resolved = checkpoint.resolve(str(world.root / "baseline"), policy_checkpoints={}, base=policy.parent, offline=True)
    return Place(
        effective_digest=checkpoint.describe(resolved, Role.BASELINE).effective_digest,
        backend="fake",
        device="cpu",
        environment=environment.snapshot("cpu").fingerprint,
        base=policy.parent,
    )


def statuses(sources: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {r["id"]: r["status"] for s in sources for r in s["rules"]}


def test_a_deterministic_model_has_no_noise(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    policy = world.policy(["sanity", "fraud", "serving"])
    run(world, policy, "--processes=0")
    found = written(world)
    assert list(found) == ["prose", "fraud"]  # no process, no timing
    assert {n["flip_rate"] for n in found["fraud"]["noise"]} == {0.0}
    assert found["prose"]["noise"][0]["token_sd_nats"] == 0.0
    assert set(statuses(list(found.values())).values()) == {"PASS"}
    assert "No rule finds a regression in the baseline itself" in capsys.readouterr().out


def test_noise_is_measured_and_kept_for_plan_and_judge(world: World) -> None:
    world.checkpoint("baseline", seed=1, jitter=0.02)
    policy = world.policy(["sanity", "capability", "fraud"])
    run(world, policy)
    (accuracy,) = (n for n in written(world)["fraud"]["noise"] if n["metric"] == "accuracy")
    assert accuracy["n"] == 320
    assert 0.005 < accuracy["flip_rate"] < 0.05
    loaded, store = load_policy(policy), Store(world.root / "store")
    floors = load_floors(store, place(world, policy), loaded.policy.stages, loaded.rules)
    assert floors["fraud", "fraud"] == accuracy["flip_rate"]
    assert floors.keys() == {("capability", "sums"), ("fraud", "fraud")}
    assert missing(store, place(world, policy), loaded.policy.stages, loaded.rules) == ()


def test_another_batch_size_finds_other_noise_and_the_stored_baseline_is_used(world: World) -> None:
    world.checkpoint("baseline", seed=1, jitter=0.02)
    policy = world.policy(["fraud"])
    run(world, policy)
    first, entries = written(world)["fraud"]["noise"], Store(world.root / "store").list()
    run(world, policy, "--batch-size=7")
    assert written(world)["fraud"]["noise"] != first
    assert [e.created_at for e in Store(world.root / "store").list()] == [e.created_at for e in entries]


def test_a_baseline_that_regresses_against_itself_could_not_be_measured(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.checkpoint("baseline", seed=1, jitter=0.3)
    policy = world.policy(["fraud"])
    with pytest.raises(CouldNotMeasure, match="the baseline is a REGRESSION against itself under fraud") as no:
        run(world, policy)
    assert no.value.exit_code == 4
    assert "max_drop 5pp: REGRESSION" in " ".join(capsys.readouterr().out.split())
    loaded = load_policy(policy)
    floors = load_floors(Store(world.root / "store"), place(world, policy), loaded.policy.stages, loaded.rules)
    assert 0.2 < floors["fraud", "fraud"] < 0.4  # what is known is kept: plan can refuse the bound


def test_a_worker_that_dies_is_said_and_the_other_sources_go_on(world: World) -> None:
    world.checkpoint("baseline", seed=1, faults=[{"op": "score", "action": "sigkill"}])
    with pytest.raises(CouldNotMeasure, match=r"prose could not be measured twice: .*worker") as no:
        run(world, world.policy(["sanity", "fraud"]))
    assert no.value.exit_code == 4
    assert written(world)["fraud"]["noise"][0]["metric"] == "accuracy"


@pytest.mark.parametrize(
    ("extra", "said"),
    [(["--backend=nope"], "unknown backend 'nope'"), (["--device=tpu"], "unknown device 'tpu'")],
)
def test_what_cannot_be_carried_out_is_refused_first(world: World, extra: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(world, world.policy(["fraud"]), *extra)


def test_a_policy_of_timing_alone_has_nothing_to_calibrate_without_processes(world: World) -> None:
    with pytest.raises(UsageError, match="found only profile stages"):
        run(world, world.policy(["serving"]), "--processes=0")


def test_two_processes_are_too_few_to_say_how_much_they_differ(world: World) -> None:
    with pytest.raises(UsageError, match=r"found --processes 2, expected 0 .* or at least 3"):
        run(world, world.policy(["serving"]), "--processes=2")


def test_timing_is_calibrated_with_the_rest_and_both_sides_are_alike(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, int | None]] = []
    start = launch.start

    def counted(**request: Any) -> launch.Worker:
        started.append((request["role"], request["checkpoint"].batch_size))
        return start(**request)

    monkeypatch.setattr(launch, "start", counted)
    run(world, world.policy(["serving", "fraud"]), "--processes=3")
    found = written(world)
    assert list(found) == ["serving", "fraud"]
    assert {n["processes"] for n in found["serving"]["noise"]} == {3}
    assert statuses([found["serving"]]) == {"serving.decode_tokens_per_second.min_retained": "PASS"}
    checked, timed, scored = started[:1], started[1:7], started[7:]
    assert checked == [("candidate", None)]  # its limit of memory does not count the other model, so it times nothing
    assert sorted(timed) == [("baseline", None)] * 3 + [("candidate", None)] * 3
    assert sorted(scored) == [("baseline", None), ("candidate", 4)]
