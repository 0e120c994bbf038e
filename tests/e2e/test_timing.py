"""The profile stage from the command line to the folder it leaves: confirmation, looks, disturbance, room and noise.

Real workers whose clock is a script, so that every figure is known.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from gate import launch
from gate.artifact import read_observations
from gate.backends import BackendInfo
from gate.cli import main
from gate.errors import WorkerError
from gate.records import Measurement, Role, Status
from gate.timing_run import RELOADED
from tests.e2e.test_calibrate import run as calibrate
from tests.e2e.world import STAGES, World, make_world

RETAINED = "serving.decode_tokens_per_second.min_retained"
RULES: list[dict[str, Any]] = [
    {"metric": "rss_peak", "max": "24GiB"},
    {"metric": "decode_tokens_per_second", "min_retained": "90%"},
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def stage(**changes: Any) -> dict[str, Any]:
    return {**STAGES["serving"], "rules": RULES, **changes}


def looks(*planned: int) -> dict[str, Any]:
    return {k: v for k, v in stage(looks=list(planned)).items() if k != "blocks"}


def measured(world: World, out: str = "out") -> dict[Role, Measurement]:
    return {m.role: m for m in read_observations(world.root / out / "observations" / "serving.parquet")}


def blocks(one: Measurement, metric: str = "decode_tokens_per_second") -> set[str]:
    return {o.item_id for o in one.observations if o.metric == metric}


def decided_again(world: World, policy: Path) -> None:
    """`gate decide` on the run's folder finds what the run found."""
    code = world.record().exit_code
    assert main(["decide", str(world.root / "out"), "-p", str(policy), "--out", str(world.root / "again")]) == code
    then, now = world.record(), world.record("again")
    for before, after in zip(then.stages, now.stages, strict=True):
        for one, other in zip(before.findings, after.findings, strict=True):
            assert (one.status, one.interval, one.counts) == (other.status, other.interval, other.counts)
    assert now.performance == then.performance
    assert now.output_lengths == then.output_lengths


def test_a_slow_candidate_is_a_regression_once_a_second_measurement_confirms_it(world: World) -> None:
    policy = world.policy([stage()])
    slow = world.checkpoint("slow", seed=2, decode_tokens_per_second=700.0)
    assert world.run(policy, candidate=slow) == 1
    finding = world.finding(RETAINED)
    assert finding.status is Status.REGRESSION
    assert finding.estimate == pytest.approx(0.7, abs=0.02)
    assert finding.counts["confirmed"] == 1
    for one in measured(world).values():
        assert blocks(one) == {f"{which}/{k}" for which in ("block", "again") for k in range(4)}
        assert one.n_reached == 4
    (result,) = world.record().stages
    assert (result.items_scored, result.items_available) == (4, 4)
    assert any("red at first, so all was timed a second time" in note for note in result.notes)
    (figures,) = world.record().performance
    assert dict(figures.confirmed) == {RETAINED: True}
    said = json.loads((world.root / "out" / "run.json").read_text())
    assert said["performance"][0]["stage"] == "serving"
    assert {f.stem for f in (world.root / "out").iterdir()} >= {"report", "summary", "junit", "run"}
    decided_again(world, policy)


def test_a_candidate_that_is_slow_once_is_no_regression(world: World) -> None:
    mark = world.root / "slow-once"
    mark.touch()
    once = world.checkpoint("once", seed=2, slow_down=1.5, slow_once=str(mark))
    policy = world.policy([stage()])
    assert world.run(policy, candidate=once) == 3
    finding = world.finding(RETAINED)
    assert finding.status is Status.INCONCLUSIVE
    assert finding.counts["confirmed"] == 0
    assert "red once and not confirmed" in finding.reason
    decided_again(world, policy)


def test_a_checkpoint_against_itself_passes_at_the_first_look(world: World) -> None:
    policy = world.policy([looks(3, 6)])
    assert world.run(policy, "--allow-identical", candidate=world.root / "baseline") == 0
    (result,) = world.record().stages
    assert (result.items_scored, result.items_available) == (3, 6)
    assert world.finding(RETAINED).counts["look"] == 1
    assert measured(world)[Role.CANDIDATE].n_reached == 3
    decided_again(world, policy)


def test_every_look_is_taken_where_nothing_decides(world: World) -> None:
    close = world.checkpoint("close", seed=2, decode_tokens_per_second=900.0)
    policy = world.policy([looks(3, 5)])
    assert world.run(policy, candidate=close) == 3
    assert blocks(measured(world)[Role.CANDIDATE]) == {f"block/{k}" for k in range(5)}
    assert world.finding(RETAINED).counts["look"] == 2
    decided_again(world, policy)


def test_a_disturbed_pair_is_measured_again_and_a_quiet_one_counts(world: World) -> None:
    quiet, busy = {"cpu_wait_share": 0.0}, {"cpu_wait_share": 0.6, "cpu_load": 0.5}
    once = world.checkpoint("disturbed", seed=2, conditions=[quiet, busy, quiet])
    policy = world.policy([stage()])
    assert world.run(policy, candidate=once) == 0
    for one in measured(world).values():
        assert {o.item_id: o.value for o in one.observations if o.metric == "repeated"} == {"block/1": 1.0}
    assert any(n.startswith("pair 2 was measured again: ") for n in world.record().stages[0].notes)
    assert world.record().performance[0].repeated_blocks == 1
    decided_again(world, policy)


def test_a_machine_that_stays_disturbed_decides_nothing(world: World) -> None:
    busy = world.checkpoint("busy", seed=2, conditions=[{"cpu_wait_share": 0.6}], decode_tokens_per_second=500.0)
    policy = world.policy([stage()])
    assert world.run(policy, candidate=busy) == 3
    timing, memory = world.finding(RETAINED), world.finding("serving.rss_peak.max")
    assert (timing.status, memory.status) == (Status.INCONCLUSIVE, Status.PASS)
    assert "waited 60% of the time" in timing.reason
    assert timing.p_value is None
    assert not any(i.startswith("again/") for i in blocks(measured(world)[Role.CANDIDATE]))
    decided_again(world, policy)


def test_a_size_that_runs_out_of_memory_leaves_the_others_standing(world: World) -> None:
    small = world.checkpoint("small", seed=2, fits_batch=4)
    rules = [{"metric": "decode_tokens_per_second", "min_retained": "90%", "batch": b} for b in (1, 8)]
    policy = world.policy([stage(batch_sizes=[1, 8], rules=rules)])
    assert world.run(policy, candidate=small) == 4
    one, eight = world.record().stages[0].findings
    assert (one.status, eight.status) == (Status.PASS, Status.ERROR)
    assert "the candidate ran out of memory in 4 of 4 blocks" in eight.reason
    assert len(measured(world)[Role.CANDIDATE].failures) == 4
    decided_again(world, policy)


def test_models_that_do_not_fit_together_are_loaded_in_turns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    resident: set[str] = set()
    loaded: list[str] = []
    opening, closing = launch.Worker.open, launch.Worker.close

    def opened(self: launch.Worker) -> BackendInfo:
        if resident - {self._role}:
            raise WorkerError("the candidate worker ran out of memory", kind="out_of_memory", stderr_tail="")
        resident.add(self._role)
        loaded.append(self._role)
        return opening(self)

    def closed(self: launch.Worker) -> None:
        resident.discard(self._role)
        closing(self)

    monkeypatch.setattr(launch.Worker, "open", opened)
    monkeypatch.setattr(launch.Worker, "close", closed)
    policy = world.policy([stage()])
    assert world.run(policy) == 0
    assert loaded == ["baseline", *["baseline", "candidate"] * 2, "baseline"]
    assert all(RELOADED in one.notes for one in measured(world).values())
    assert RELOADED in world.record().stages[0].notes
    decided_again(world, policy)


def test_every_measurement_starts_in_processes_that_did_nothing_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their peaks of memory would be those of other stages, and their limits would not count the other model."""
    done: list[str] = []
    starting, opening, beginning = launch.Worker.shake_hands, launch.Worker.open, launch.Worker.begin

    def started(self: launch.Worker, *request: Any) -> None:
        done.append(f"start {self._role}")
        starting(self, *request)

    def opened(self: launch.Worker) -> BackendInfo:
        done.append(f"open {self._role}")
        return opening(self)

    def begun(self: launch.Worker, **request: Any) -> launch.Stream:
        done.append(f"{request['stage']['name']} {self._role}")
        return beginning(self, **request)

    monkeypatch.setattr(launch.Worker, "shake_hands", started)
    monkeypatch.setattr(launch.Worker, "open", opened)
    monkeypatch.setattr(launch.Worker, "begin", begun)
    fresh = ["start baseline", "open baseline", "start candidate", "open candidate"]
    assert world.run(world.policy(["sanity", stage(), stage(name="second")])) == 0
    first, second = done.index("serving baseline"), done.index("second baseline")
    assert "sanity baseline" in done[:first]
    assert done[first - 4 : first] == fresh
    assert done[second - 4 : second] == fresh
    assert done[first:].count("start baseline") == 1
    assert not any("started again" in n for r in world.record().stages for n in r.notes)


def test_a_worker_that_is_killed_while_it_waits_is_replaced_and_that_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, waiting = launch.Worker.begin, {}

    def begun(self: launch.Worker, **request: Any) -> launch.Stream:
        waiting[self._role] = self
        if request["context"]["block"] == 2 and self._role is Role.CANDIDATE:
            os.killpg(waiting[Role.BASELINE].pid, signal.SIGKILL)
            waiting[Role.BASELINE]._child._process.wait()
        return begin(self, **request)

    monkeypatch.setattr(launch.Worker, "begin", begun)
    policy = world.policy([stage()])
    assert world.run(policy) == 0
    assert "the baseline's worker had to be started again before pair 4" in world.record().stages[0].notes
    decided_again(world, policy)


def test_a_worker_that_is_killed_beside_the_other_is_tried_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = launch.Stream.advance
    kills: list[launch.Worker] = []
    begin, running = launch.Worker.begin, {}

    def begun(self: launch.Worker, **request: Any) -> launch.Stream:
        stream = begin(self, **request)
        running[stream] = (self, request["context"]["block"])
        return stream

    def advanced(self: launch.Stream, deadline_seconds: float | None) -> Measurement | None:
        worker, block = running[self]
        if block == 1 and not kills:
            kills.append(worker)
            os.killpg(worker.pid, signal.SIGKILL)
        return advance(self, deadline_seconds)

    monkeypatch.setattr(launch.Worker, "begin", begun)
    monkeypatch.setattr(launch.Stream, "advance", advanced)
    policy = world.policy([stage()])
    assert world.run(policy) == 0
    assert f"{RELOADED} from pair 2 on" in world.record().stages[0].notes
    assert blocks(measured(world)[Role.CANDIDATE]) == {f"block/{k}" for k in range(4)}
    decided_again(world, policy)


def test_a_worker_that_breaks_after_a_look_leaves_what_was_found_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = launch.Worker.begin

    def broken(self: launch.Worker, **request: Any) -> launch.Stream:
        if request["context"]["block"] == 4:
            raise WorkerError("the candidate worker failed: a driver error", kind="failed", stderr_tail="")
        return begin(self, **request)

    monkeypatch.setattr(launch.Worker, "begin", broken)
    close = world.checkpoint("close", seed=2, decode_tokens_per_second=900.0)
    policy = world.policy([looks(3, 8)])
    assert world.run(policy, candidate=close) == 3
    finding = world.finding(RETAINED)
    assert finding.status is Status.INCONCLUSIVE
    assert finding.reason.startswith("the candidate worker failed: a driver error: ")
    assert world.finding("serving.rss_peak.max").status is Status.PASS
    assert any("ended before pair 5 was there" in n for n in world.record().stages[0].notes)
    decided_again(world, policy)


@pytest.mark.parametrize("action", ["sigkill", "raise"])
def test_a_worker_that_breaks_while_it_confirms_costs_nothing_of_the_first(
    world: World, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = world.checkpoint("slow", seed=2, decode_tokens_per_second=700.0)
    policy = world.policy([stage()])
    begin = launch.Worker.begin

    def broken(self: launch.Worker, **request: Any) -> launch.Stream:
        if request["context"]["again"] and request["context"]["block"] == 1:
            if action == "raise":
                raise WorkerError("the candidate worker failed: a driver error", kind="failed", stderr_tail="")
            self._child.kill()
        return begin(self, **request)

    monkeypatch.setattr(launch.Worker, "begin", broken)
    assert world.run(policy, candidate=slow) == 3
    finding = world.finding(RETAINED)
    assert finding.status is Status.INCONCLUSIVE
    assert finding.estimate == pytest.approx(0.7, abs=0.02)
    assert "worker" in finding.reason
    assert "second" in finding.reason
    assert world.finding("serving.rss_peak.max").status is Status.PASS
    assert {f"block/{k}" for k in range(4)} <= blocks(measured(world)[Role.CANDIDATE])
    assert any("did not end" in note for note in world.record().stages[0].notes)


def test_a_stage_over_its_time_budget_never_passes_a_timing_rule(world: World) -> None:
    asleep = world.checkpoint("asleep", seed=2, sleep_seconds=0.01)
    policy = world.policy([stage(budget="3s", blocks=40)])
    assert world.run(policy, candidate=asleep) in (3, 4)
    finding = world.finding(RETAINED)
    assert finding.status in (Status.INCONCLUSIVE, Status.ERROR)
    assert "budget" in finding.reason


def test_what_processes_differ_by_is_calibrated_and_widens_the_interval_of_a_run(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = [{"metric": "decode_tokens_per_second", "min_retained": "60%"}]
    policy = world.policy([stage(rules=rules)])
    assert world.run(policy) == 0
    before = world.finding(RETAINED).interval
    assert any("differs between processes was not measured" in n for n in world.record().notes)
    mark = world.root / "slow-once"
    mark.touch()
    world.checkpoint("baseline", seed=1, slow_down=1.1, slow_once=str(mark))
    capsys.readouterr()
    calibrate(world, policy)
    shown = capsys.readouterr().out
    assert "decode_tokens_per_second batch=1" in shown
    assert "processes differ by" in shown
    found = json.loads((world.root / "calibration" / "calibration.json").read_text())["sources"]
    (one, two) = (n for s in found for n in s["noise"] if n["metric"] == "decode_tokens_per_second")
    assert (one["group"], two["group"], one["processes"]) == ("batch=1", "batch=2", 5)
    assert 0.02 < one["between_log_sd"] < 0.1
    assert world.run(policy, out="out") == 0
    after = world.finding(RETAINED).interval
    assert before is not None
    assert after is not None
    assert after.high - after.low > 2 * (before.high - before.low)
    kept = {
        (o.item_id, o.group): (o.value, o.weight)
        for o in measured(world)[Role.BASELINE].observations
        if o.metric == "between_process_log_sd"
    }
    assert kept["calibrated/decode_tokens_per_second", "batch=1"] == (one["between_log_sd"], 5.0)
    assert not any("differs between processes" in n for n in world.record().notes)
    decided_again(world, policy)


def test_compare_judges_the_timing_of_one_run_and_refuses_that_of_two(world: World) -> None:
    policy = world.policy([stage()])
    assert world.run(policy) == 0
    assert world.run(policy, out="other") == 0

    def compared(left: str, right: str) -> int:
        folders = [f"--{role}={world.root / out}" for role, out in (("baseline", left), ("candidate", right))]
        return main(["compare", f"--policy={policy}", *folders, f"--out={world.root / 'compared'}"])

    assert compared("out", "out") == 0
    assert world.record("compared").performance == world.record().performance
    assert compared("out", "other") == 4
    (result,) = world.record("compared").stages
    assert "timings of two runs cannot be compared" in result.findings[0].reason
