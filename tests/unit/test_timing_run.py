"""The loop that times a run: what it measures next, what it measures again, and what it keeps when something breaks.

The models are scripts here, what judges them is real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from gate import timing_run
from gate.decide import combine
from gate.decide.noise import TimingNoise, observed
from gate.decide.terms import gate_wide
from gate.errors import BudgetExceeded, CouldNotMeasure, ExitCode, WorkerError
from gate.evidence import Block, Collector, Progress, SecondsLeft, items_scored
from gate.policy import Policy, ProfileStage, planned_rules
from gate.records import Measurement, Status
from gate.stage_run import StageRun, run_stage
from tests.timing_machine import DECODE, RETAIN, A, B, Machine, slower, stage_of, steady


def run(machine: Machine, stage: ProfileStage, **changes: Any) -> StageRun:
    rules = planned_rules(Policy(version=1, stages=[stage]), {})
    settings: dict[str, Any] = {
        "terms": gate_wide(0.95, len(rules), None),
        "broken": {},
        "stop_early": True,
        "keep_going": False,
        "monotonic": lambda: 0.0,
        "run_seconds_left": lambda: None,
    }
    return run_stage(cast(Collector, machine), stage, rules, **(settings | changes))


def values(measurement: Measurement, metric: str) -> dict[str, float]:
    return {o.item_id: o.value for o in measurement.observations if o.metric == metric}


def crash() -> WorkerError:
    return WorkerError("the candidate worker was lost", kind="crashed", stderr_tail="last words")


def killed() -> WorkerError:
    said = "the candidate worker was killed by SIGKILL (an out-of-memory kill is the usual cause)"
    return WorkerError(said, kind="killed", stderr_tail="")


def no_room() -> WorkerError:
    return WorkerError("the candidate worker was ended: no memory", kind="out_of_memory", stderr_tail="")


class TestOrder:
    def test_blocks_take_turns_and_who_leads_alternates(self) -> None:
        machine = Machine()
        ended = run(machine, stage_of(blocks=4))
        assert machine.order == ["A0", "B0", "B1", "A1", "A2", "B2", "B3", "A3"]
        assert machine.log.count("open baseline") == machine.log.count("open candidate") == 1
        assert ended.result.status is Status.PASS
        assert (ended.result.items_scored, ended.result.items_available) == (4, 4)

    @pytest.mark.parametrize("interleaved", [True, False])
    def test_blocks_that_do_not_alternate_are_flagged(self, interleaved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """A13: all of one role and then all of the other would measure how the machine warms up."""
        order = ((A, A), (A, A), (B, B), (B, B))
        if not interleaved:
            monkeypatch.setattr(timing_run, "block_order", lambda blocks: order)
        machine = Machine()
        (finding,) = run(machine, stage_of(blocks=4)).result.findings
        assert (finding.status is Status.PASS) is interleaved
        assert ("not interleaved" in finding.reason) is not interleaved
        assert bool(machine.log) is interleaved

    def test_what_is_shown_counts_the_whole_measurement(self) -> None:
        machine = Machine()
        run(machine, stage_of(blocks=4))
        assert machine.shown[0] == (1, 16, "pair 1 of 4, batch=1, baseline")
        assert machine.shown[-1] == (15, 16, "pair 4 of 4, batch=1, baseline")
        assert [done for done, _, _ in machine.shown] == [1, 3, 5, 7, 9, 11, 13, 15]

    def test_workers_that_did_something_else_before_are_replaced(self) -> None:
        machine = Machine()
        for side in (machine.candidate, machine.baseline):
            side.opened()
        machine.log.clear()
        ended = run(machine, stage_of(blocks=4))
        assert machine.log[:5] == [
            *("drop baseline", "drop candidate"),
            *("open baseline", "open candidate"),
            "baseline block/0",
        ]
        assert not ended.result.notes


class TestLooks:
    def test_the_first_look_that_decides_ends_it(self) -> None:
        machine = Machine()
        ended = run(machine, stage_of(looks=[4, 8]))
        assert len(machine.order) == 8
        assert ended.result.status is Status.PASS
        assert (ended.result.items_scored, ended.result.items_available) == (4, 8)

    def test_an_open_rule_goes_on_to_the_next_look_and_no_further_than_the_last(self) -> None:
        machine = Machine(slower(0.05))
        ended = run(machine, stage_of(looks=[4, 6, 8]))
        assert len(machine.order) == 16
        assert ended.result.status is Status.INCONCLUSIVE

    def test_all_looks_are_measured_where_nothing_may_stop_early(self) -> None:
        machine = Machine()
        ended = run(machine, stage_of(looks=[4, 8]), stop_early=False)
        assert len(machine.order) == 16
        early = run(Machine(), stage_of(looks=[4, 8]))
        assert ended.result.findings[0].interval == early.result.findings[0].interval

    def test_a_rule_on_memory_alone_needs_the_first_look(self) -> None:
        machine = Machine()
        ended = run(machine, stage_of({"metric": "rss_peak", "max": "1GiB"}, looks=[4, 8]))
        assert (len(machine.order), ended.result.status) == (8, Status.PASS)


class TestConfirmation:
    def test_a_slow_candidate_is_measured_twice_in_fresh_processes(self) -> None:
        machine = Machine(slower(0.2))
        ended = run(machine, stage_of(blocks=4))
        assert machine.order == [
            *("A0", "B0", "B1", "A1", "A2", "B2", "B3", "A3"),
            *("A0'", "B0'", "B1'", "A1'", "A2'", "B2'", "B3'", "A3'"),
        ]
        between = machine.log[machine.log.index("baseline block/3") + 1 : machine.log.index("baseline again/0")]
        assert sorted(between) == ["drop baseline", "drop candidate", "open baseline", "open candidate"]
        (finding,) = ended.result.findings
        assert finding.status is Status.REGRESSION
        assert finding.counts["confirmed"] == 1
        assert "decode_tokens_per_second: red at first" in " ".join(ended.result.notes)
        for measured in ended.measurements:
            found = values(measured, DECODE.observed)
            assert found.keys() == {f"{which}/{k}" for which in ("block", "again") for k in range(4)}
            assert (measured.n_reached, measured.n_expected, items_scored(measured)) == (4, 4, 4)
        assert machine.shown[-1][2].startswith("confirming decode_tokens_per_second: pair 4 of 4")

    def test_slow_in_the_first_measurement_alone_is_no_regression(self) -> None:
        machine = Machine(lambda role, k, again: steady(role, k, again) * (0.8 if role is B and not again else 1))
        ended = run(machine, stage_of(blocks=4))
        (finding,) = ended.result.findings
        assert finding.status is Status.INCONCLUSIVE
        assert finding.p_value is None
        assert finding.counts["confirmed"] == 0
        assert len(machine.order) == 16  # there is no third

    def test_a_good_candidate_is_measured_once(self) -> None:
        machine = Machine()
        run(machine, stage_of(blocks=4))
        assert len(machine.order) == 8

    def test_an_advisory_rule_is_confirmed_too(self) -> None:
        machine = Machine(slower(0.2))
        ended = run(machine, stage_of({**RETAIN, "severity": "advisory"}, blocks=4))
        assert (len(machine.order), ended.result.findings[0].status) == (16, Status.REGRESSION)

    def test_a_red_rule_on_memory_needs_no_second_measurement(self) -> None:
        machine = Machine()
        ended = run(machine, stage_of({"metric": "rss_peak", "max": "1MiB"}, blocks=4))
        assert (len(machine.order), ended.result.status) == (8, Status.REGRESSION)

    @pytest.mark.parametrize(
        ("problem", "drops"), [(crash(), 1), (BudgetExceeded("the time budget was used up"), 0)], ids=["crash", "late"]
    )
    def test_a_second_measurement_that_breaks_costs_nothing_of_the_first(self, problem: Exception, drops: int) -> None:
        machine = Machine(slower(0.2))
        machine.raises = lambda block: problem if block.again and block.number == 2 else None
        rules = RETAIN, {"metric": "rss_peak", "max": "1GiB"}
        ended = run(machine, stage_of(*rules, blocks=4))
        timing, memory = ended.result.findings
        assert (timing.status, memory.status) == (Status.INCONCLUSIVE, Status.PASS)
        assert timing.reason.startswith(str(problem))
        assert timing.estimate == pytest.approx(0.8, abs=0.01)
        assert "second" in timing.reason
        assert str(problem) not in memory.reason
        assert any("was to confirm decode_tokens_per_second, did not end" in note for note in ended.result.notes)
        for measured in ended.measurements:
            assert {f"block/{k}" for k in range(4)} <= values(measured, DECODE.observed).keys()
        after = machine.log[machine.log.index("candidate again/0") :]
        assert after.count("drop baseline") == drops

    def test_between_processes_noise_keeps_a_rule_from_turning_red(self) -> None:
        noise = TimingNoise(
            metric=DECODE.observed,
            group="batch=1",
            between_log_sd=0.2,
            within_log_sd=0.01,
            processes=5,
            pairs=20,
            floor=0.1,
        )
        machine = Machine(slower(0.2))
        ended = run(machine, stage_of(blocks=4), process_noise=observed([noise]))
        (finding,) = ended.result.findings
        assert (finding.status, len(machine.order)) == (Status.INCONCLUSIVE, 8)
        plain = run(Machine(slower(0.2)), stage_of(blocks=4)).result.findings[0]
        assert finding.interval is not None
        assert plain.interval is not None
        assert finding.interval.high - finding.interval.low > 3 * (plain.interval.high - plain.interval.low)
        (kept,) = (o for o in ended.measurements[0].observations if o.metric == "between_process_log_sd")
        assert (kept.item_id, kept.group, kept.value, kept.weight) == (
            "calibrated/decode_tokens_per_second",
            "batch=1",
            0.2,
            5.0,
        )


class TestDisturbance:
    def test_a_disturbed_pair_is_measured_again_in_its_order(self) -> None:
        machine = Machine()
        machine.disturbed = [0.0, 0.0, 0.0, 0.5]  # the fourth block: the baseline's in the second pair
        ended = run(machine, stage_of(blocks=4))
        assert machine.order == ["A0", "B0", "B1", "A1", "B1", "A1", "A2", "B2", "B3", "A3"]
        assert ended.result.status is Status.PASS
        (note,) = ended.result.notes
        assert note.startswith("pair 2 was measured again: ")
        assert [label for _, _, label in machine.shown[4:6]] == [
            "pair 2 of 4, again, batch=1, candidate",
            "pair 2 of 4, again, batch=1, baseline",
        ]
        for measured in ended.measurements:
            assert values(measured, "repeated") == {"block/1": 1.0}
            assert values(measured, "cpu_wait_share") == {f"block/{k}": 0.0 for k in range(4)}
            assert len(values(measured, DECODE.observed)) == 4

    def test_what_stays_disturbed_is_inconclusive_with_its_reason(self) -> None:
        machine = Machine()
        machine.disturbed = [0.5] * 100
        rules = RETAIN, {"metric": "rss_peak", "max": "1GiB"}
        ended = run(machine, stage_of(*rules, blocks=8))
        timing, memory = ended.result.findings
        assert (timing.status, memory.status) == (Status.INCONCLUSIVE, Status.PASS)
        assert timing.p_value is None
        assert "waited 50%" in timing.reason
        assert len(machine.order) == 2 * (8 + 4)  # half of the planned pairs were tried again
        assert values(ended.measurements[0], "repeated") == {"block/0": 2.0, "block/1": 2.0}

    def test_at_least_two_are_tried_again(self) -> None:
        machine = Machine()
        machine.disturbed = [0.5] * 100
        run(machine, stage_of(blocks=3))
        assert len(machine.order) == 2 * (3 + 2)

    def test_the_second_measurement_has_repeats_of_its_own(self) -> None:
        machine = Machine(slower(0.2))
        machine.disturbed = [0.0] * 8 + [0.5]
        ended = run(machine, stage_of(blocks=4))
        assert machine.order[8:12] == ["A0'", "B0'", "A0'", "B0'"]
        assert ended.result.status is Status.REGRESSION
        assert values(ended.measurements[0], "repeated") == {"again/0": 1.0}
        assert any("pair 1 of the second measurement was measured again" in n for n in ended.result.notes)


class TestRoom:
    def test_models_that_do_not_fit_together_are_loaded_in_turns(self) -> None:
        machine = Machine()
        machine.candidate.cannot_open = lambda: no_room() if machine.baseline.is_open else None
        ended = run(machine, stage_of(blocks=4))
        assert machine.order == ["A0", "B0", "B1", "A1", "A2", "B2", "B3", "A3"]
        done = machine.log[machine.log.index("baseline block/0") - 1 :]
        assert done == [
            *("open baseline", "baseline block/0", "drop baseline"),
            *("open candidate", "candidate block/0", "candidate block/1", "drop candidate"),
            *("open baseline", "baseline block/1", "baseline block/2", "drop baseline"),
            *("open candidate", "candidate block/2", "candidate block/3", "drop candidate"),
            *("open baseline", "baseline block/3"),
        ]
        assert ended.result.status is Status.PASS
        assert [n for m in ended.measurements[:1] for n in m.notes] == [timing_run.RELOADED]
        assert all(timing_run.RELOADED in m.notes for m in ended.measurements)

    @pytest.mark.parametrize("problem", [no_room, killed])
    def test_a_worker_that_is_killed_beside_the_other_while_it_loads(self, problem: Callable[[], WorkerError]) -> None:
        machine = Machine()
        machine.candidate.cannot_open = lambda: problem() if machine.baseline.is_open else None
        ended = run(machine, stage_of(blocks=4))
        assert ended.result.status is Status.PASS
        assert ended.result.notes == (timing_run.RELOADED,)

    @pytest.mark.parametrize("problem", [no_room, killed])
    def test_a_worker_that_is_killed_beside_the_other_in_a_later_pair(self, problem: Callable[[], WorkerError]) -> None:
        machine = Machine()
        machine.raises = lambda block: (
            problem() if block.number == 2 and machine.baseline.is_open and machine.candidate.is_open else None
        )
        ended = run(machine, stage_of(blocks=4))
        assert machine.order == ["A0", "B0", "B1", "A1", "A2", "B2", "B3", "A3"]
        assert ended.result.status is Status.PASS
        assert ended.result.notes == (f"{timing_run.RELOADED} from pair 3 on",)
        turns = machine.log[machine.log.index("baseline block/1") + 1 :]
        assert turns == [
            *("drop baseline", "drop candidate", "open baseline", "baseline block/2", "drop baseline"),
            *("open candidate", "candidate block/2", "candidate block/3", "drop candidate"),
            *("open baseline", "baseline block/3"),
        ]

    def test_a_half_measured_pair_is_measured_whole_again_and_only_once(self) -> None:
        machine = Machine()
        machine.raises = lambda block: killed() if block.number == 2 and block.role is B else None
        ended = run(machine, stage_of(blocks=4))
        assert machine.order == ["A0", "B0", "B1", "A1", "A2", "A2"]
        assert ended.result.status is Status.ERROR
        assert "SIGKILL" in ended.result.findings[0].reason

    def test_a_baseline_that_does_not_fit_by_itself_is_not_loaded_again(self) -> None:
        machine, tries = Machine(), []

        def cannot() -> WorkerError:
            tries.append(1)
            return killed()

        machine.baseline.cannot_open = cannot
        ended = run(machine, stage_of(blocks=4))
        assert (ended.result.status, tries) == (Status.ERROR, [1])

    def test_the_second_measurement_says_from_where_on_it_takes_turns(self) -> None:
        machine = Machine(slower(0.2))
        machine.raises = lambda block: (
            killed()
            if block.again and block.number == 1 and machine.baseline.is_open and machine.candidate.is_open
            else None
        )
        ended = run(machine, stage_of(blocks=4))
        assert ended.result.status is Status.REGRESSION
        assert f"{timing_run.RELOADED} from pair 2 of the second measurement on" in ended.result.notes

    def test_the_second_measurement_takes_turns_as_well(self) -> None:
        machine = Machine(slower(0.2))
        machine.candidate.cannot_open = lambda: no_room() if machine.baseline.is_open else None
        ended = run(machine, stage_of(blocks=4))
        assert ended.result.status is Status.REGRESSION
        second = machine.log[machine.log.index("baseline again/0") :]
        assert second.count("drop baseline") == second.count("drop candidate") == 2

    def test_a_candidate_that_does_not_fit_alone_is_an_error(self) -> None:
        machine = Machine()
        machine.candidate.cannot_open = no_room
        ended = run(machine, stage_of(blocks=4))
        assert ended.result.status is Status.ERROR
        assert "no memory" in ended.result.findings[0].reason
        assert machine.order == ["A0"]

    def test_a_worker_that_cannot_be_opened_for_another_reason_is_not_tried_alone(self) -> None:
        machine = Machine()
        machine.candidate.cannot_open = crash
        ended = run(machine, stage_of(blocks=4))
        assert (ended.result.status, machine.order) == (Status.ERROR, [])

    def test_a_size_that_fits_once_the_other_model_is_gone(self) -> None:
        machine = Machine(device="cuda:0", batches=(1, 8))
        machine.out_of_memory = lambda role, batch: (
            batch == 8 and machine.baseline.is_open and machine.candidate.is_open
        )
        ended = run(machine, stage_of(blocks=4))
        assert ended.result.status is Status.PASS
        assert all(timing_run.RELOADED in m.notes for m in ended.measurements)
        assert not any(m.failures for m in ended.measurements)
        assert {o.group for o in ended.measurements[0].observations if o.metric == DECODE.observed} == {
            "batch=1",
            "batch=8",
        }

    @pytest.mark.parametrize(("device", "probes"), [("cuda", 1), ("cpu", 0)])
    def test_a_size_that_never_fits_fails_alone_and_both_stay_resident(self, device: str, probes: int) -> None:
        machine = Machine(device=device, batches=(1, 8))
        machine.out_of_memory = lambda role, batch: batch == 8 and role is B
        rules = [{**RETAIN, "batch": b} for b in (1, 8)]
        ended = run(machine, stage_of(*rules, blocks=4))
        one, eight = ended.result.findings
        assert (one.status, eight.status) == (Status.PASS, Status.ERROR)
        assert machine.order.count("B0") == 1 + probes
        assert not any(timing_run.RELOADED in m.notes for m in ended.measurements)
        assert machine.log.count("open candidate") == 1 + probes
        assert sum("were ended to see" in n for n in ended.result.notes) == probes
        assert not any("started again" in n for n in ended.result.notes)
        baseline, candidate = ended.measurements
        assert len(candidate.failures) == 4
        assert not baseline.failures


class TestIdle:
    """A worker that waits may be killed; the next use replaces it."""

    def test_a_worker_that_was_replaced_is_said(self) -> None:
        machine = Machine()

        def kill_the_other(block: Block) -> None:
            if block.number == 2 and block.role is B:
                machine.baseline.is_open = False

        machine.raises = kill_the_other
        ended = run(machine, stage_of(blocks=4))
        assert ended.result.notes == ("the baseline's worker had to be started again before pair 4",)
        assert ended.result.status is Status.PASS

    def test_a_worker_that_is_killed_while_the_other_loads(self) -> None:
        machine, loads = Machine(), []

        def kill_the_other() -> None:
            loads.append(1)
            machine.baseline.is_open = False

        machine.candidate.cannot_open = kill_the_other
        ended = run(machine, stage_of(blocks=4))
        assert loads == [1]
        assert ended.result.notes == ("the baseline's worker had to be started again before pair 1",)

    def test_a_new_worker_for_each_turn_is_nothing_to_say(self) -> None:
        machine = Machine()
        machine.candidate.cannot_open = lambda: no_room() if machine.baseline.is_open else None
        ended = run(machine, stage_of(blocks=4))
        assert machine.baseline.starts > 2
        assert not any("started again" in note for note in ended.result.notes)


class TestBreaking:
    def test_a_worker_that_breaks_after_a_look_costs_nothing_of_that_look(self) -> None:
        machine = Machine(slower(0.05))
        machine.raises = lambda block: crash() if block.number == 5 else None
        rules = RETAIN, {**RETAIN, "min_retained": "80%"}, {"metric": "rss_peak", "max": "1GiB"}
        stage = stage_of(*rules, looks=[4, 8])
        ended = run(machine, stage)
        late, kept, memory = ended.result.findings
        assert (late.status, kept.status, memory.status) == (Status.INCONCLUSIVE, Status.PASS, Status.PASS)
        assert late.reason.startswith("the candidate worker was lost: at look 1 of 2")
        assert any("ended before pair 6 was there: the candidate worker was lost" in n for n in ended.result.notes)
        assert ended.result.items_scored == 5
        assert not machine.baseline.is_open
        planned = planned_rules(Policy(version=1, stages=[stage]), {})
        verdict = combine.combine(planned, (ended.result,), False)
        assert not verdict.complete  # nobody waives it as mere doubt
        assert combine.exit_code(verdict.status, "warn", complete=verdict.complete) is not ExitCode.PASS

    def test_a_worker_that_breaks_after_a_red_look_makes_no_regression(self) -> None:
        machine = Machine(lambda role, k, again: steady(role, k, again) * (0.85 if role is B else 1))
        machine.raises = lambda block: crash() if block.number == 5 else None
        rules = RETAIN, {**RETAIN, "min_retained": "85%"}
        ended = run(machine, stage_of(*rules, looks=[4, 8]))
        assert [f.status for f in ended.result.findings] == [Status.INCONCLUSIVE] * 2
        assert not any(item.endswith("'") for item in machine.order)

    @pytest.mark.parametrize(("broken", "stop_early"), [(3, True), (5, False)], ids=["early", "all looks"])
    def test_a_worker_that_breaks_where_no_look_could_end_it_is_an_error(self, broken: int, stop_early: bool) -> None:
        machine = Machine()
        machine.raises = lambda block: crash() if block.number == broken else None
        ended = run(machine, stage_of(looks=[4, 8]), stop_early=stop_early)
        assert ended.result.status is Status.ERROR
        assert ended.measurements == ()

    def test_a_worker_that_dies_is_an_error_and_nothing_is_judged(self) -> None:
        machine = Machine()
        machine.raises = lambda block: crash() if block.number == 2 else None
        ended = run(machine, stage_of(RETAIN, {"metric": "rss_peak", "max": "1GiB"}, blocks=4))
        assert [f.status for f in ended.result.findings] == [Status.ERROR] * 2
        assert all("was lost\nthe last lines of its log:\nlast words" in f.reason for f in ended.result.findings)
        assert ended.measurements == ()
        assert not machine.baseline.is_open

    def test_a_device_that_disappears_is_an_error_with_its_sentence(self) -> None:
        machine = Machine()
        gone = WorkerError(
            "the candidate worker failed in stage serving: RuntimeError: CUDA error: unspecified launch failure",
            kind="failed",
            stderr_tail="",
        )
        machine.raises = lambda block: gone if block.number == 3 else None
        (finding,) = run(machine, stage_of(blocks=4)).result.findings
        assert finding.status is Status.ERROR
        assert "unspecified launch failure" in finding.reason

    def test_no_time_for_two_pairs_is_an_error(self) -> None:
        left = iter([1.0] * 3 + [0.0] * 9)
        ended = run(Machine(), stage_of(blocks=4), run_seconds_left=lambda: next(left))
        (finding,) = ended.result.findings
        assert finding.status is Status.ERROR
        assert "time budget" in finding.reason
        assert ended.measurements == ()

    @pytest.mark.parametrize("share", [0.0, 0.2], ids=["good", "slow"])
    def test_no_time_for_the_first_look_decides_nothing(self, share: float) -> None:
        left = iter([1.0] * 6 + [0.0] * 99)
        ended = run(Machine(slower(share)), stage_of(blocks=8), run_seconds_left=lambda: next(left))
        (finding,) = ended.result.findings
        assert finding.status is Status.INCONCLUSIVE
        assert finding.reason.startswith("the time budget was used up: 3 of 8 planned pairs")
        assert (ended.result.items_scored, ended.result.items_available) == (3, 8)

    def test_time_that_ends_after_a_look_keeps_what_it_decided(self) -> None:
        left = iter([1.0] * 12 + [0.0] * 99)
        other = {"metric": "decode_tokens_per_second", "min_retained": "99.9%"}
        ended = run(Machine(), stage_of(RETAIN, other, looks=[4, 8]), run_seconds_left=lambda: next(left))
        kept, late = ended.result.findings
        assert (kept.status, late.status) == (Status.PASS, Status.INCONCLUSIVE)
        assert late.reason.startswith("the time budget was used up: ")
        assert "budget" not in kept.reason

    def test_time_that_ends_before_a_red_rule_is_confirmed_makes_no_regression(self) -> None:
        left = iter([1.0] * 8 + [0.0] * 99)
        ended = run(Machine(slower(0.2)), stage_of(blocks=4), run_seconds_left=lambda: next(left))
        (finding,) = ended.result.findings
        assert finding.status is Status.INCONCLUSIVE
        assert "time budget" in finding.reason


def test_a_fresh_pair_starts_new_processes_and_measures_what_it_is_told() -> None:
    machine = Machine()
    for _ in range(2):
        baseline, candidate = timing_run.fresh_pair(
            cast(Collector, machine), stage_of(blocks=8), 4, lambda: None, purpose="processes 2 of 5"
        )
    assert machine.order == ["A0", "B0", "B1", "A1", "A2", "B2", "B3", "A3"] * 2
    assert machine.log.count("open baseline") == 2
    assert (baseline.n_reached, candidate.n_reached) == (4, 4)
    assert machine.shown[0] == (1, 16, "processes 2 of 5: pair 1 of 4, batch=1, baseline")


class Forgetful(Machine):
    """Cannot say in every block what memory it takes."""

    def block(
        self, settings: ProfileStage, block: Block, scratch: Path, seconds_left: SecondsLeft, progress: Progress
    ) -> Measurement:
        found = super().block(settings, block, scratch, seconds_left, progress)
        return replace(found, metrics=(DECODE,)) if block.number == 1 else found


def test_blocks_that_report_different_metrics_are_one_measurement() -> None:
    ended = run(Forgetful(), stage_of(blocks=4))
    assert ended.result.status is Status.PASS
    assert {m.name for m in ended.measurements[0].metrics} == {"decode_tokens_per_second", "rss_peak", "disk_bytes"}


def test_a_model_that_cannot_be_timed_says_why() -> None:
    machine = Machine()
    machine.raises = lambda block: CouldNotMeasure("prompt_tokens + new_tokens is 160, expected at most 128")
    (finding,) = run(machine, stage_of(blocks=4)).result.findings
    assert (finding.status, finding.reason[:30]) == (Status.ERROR, "prompt_tokens + new_tokens is ")
