"""The pure parts of the timing benchmarks: resampling, rates, simpler gates, tables, and the planted sleep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks import gpu_profile, gpu_report, timing_naive, timing_report
from benchmarks.marked import rewrite, rewritten
from benchmarks.profile_minutes import LIMIT_SECONDS, Row, report, stages
from benchmarks.slowed import Sleep
from benchmarks.timing_pairs import CONDITIONS, STAGE, Pair, decoded, encoded, policy
from benchmarks.timing_rates import Watch, apart, counted, disturbances, interval, joined, judged, kept, runs, second
from gate.metrics import DESCRIBED, PROFILE
from gate.records import Measurement, Memory, Observation, Percentiles, Role, Rule, Status

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
DECODE, TTFT = "decode_tokens_per_second", "ttft_p50_seconds"
BATCH = "batch=8"
QUIET, BUSY = 0.0, 0.9
_, RULES = policy(8)


def rule(metric: str, bound: str) -> Rule:
    (found,) = (r for r in RULES if (r.metric, r.batch, r.bound.text) == (metric, 8, bound))
    return found


def measurement(role: Role, number: int, speed: float, wait_share: float, steps: Sequence[float]) -> Measurement:
    """Block `number` of a role: its tokens per second for both batch sizes, and the rest that follows from them."""

    def seen(metric: str, item_id: str, value: float, group: str | None) -> Observation:
        return Observation(metric=metric, item_id=item_id, value=value, weight=1.0, cluster=None, group=group)

    block = f"block/{number}"
    observations = [seen("cpu_wait_share", block, wait_share, None), seen("look_pairs", "look/0", 8.0, None)]
    for group in timing_report.GROUPS:
        observations += [seen(DECODE, block, speed, group), seen(TTFT, block, 1 / speed, group)]
        for i, seconds in enumerate(steps or [0.99 / speed, 1 / speed, 1.01 / speed]):
            observations.append(seen(timing_naive.STEPS, f"{block}/run/0/step/{i}", seconds, group))
    return Measurement(
        stage=STAGE,
        source=STAGE,
        role=role,
        settings_digest="0" * 64,
        n_expected=8,
        n_available=8,
        n_reached=1,
        planned_tokens=0,
        chance=None,
        metrics=(*PROFILE.values(), DESCRIBED["cpu_wait_share"]),
        observations=tuple(observations),
        failures=(),
        answers=(),
        seconds=1.0,
        notes=(),
    )


def pairs(
    ratios: Sequence[float],
    *,
    sessions: Sequence[int] | None = None,
    busy: Sequence[int] = (),
    condition: str = "A/A",
    speeds: Mapping[int, float] | None = None,
    steps: Sequence[float] = (),
) -> list[Pair]:
    """A pair for each ratio of candidate over baseline; `busy` ones waited for a CPU."""
    found = []
    for at, ratio in enumerate(ratios):
        speed, wait = (speeds or {}).get(at, 100.0), BUSY if at in busy else QUIET
        found.append(
            Pair(
                condition=condition,
                session=sessions[at] if sessions else 0,
                number=at,
                baseline=measurement(Role.BASELINE, at, speed, QUIET, steps),
                candidate=measurement(Role.CANDIDATE, at, speed * ratio, wait, [s / ratio for s in steps]),
            )
        )
    return found


def noisy(ratio: float, count: int) -> list[float]:
    return [ratio * (1.002 if i % 2 else 0.998) for i in range(count)]


class TestRuns:
    def test_starts_everywhere_in_a_session_and_never_crosses_into_the_next(self) -> None:
        assert runs([0, 0, 0, 1, 1], [False] * 5, 2, 0) == [(0, 1), (1, 2), (3, 4)]

    def test_the_next_pair_takes_the_place_of_a_disturbed_one(self) -> None:
        assert runs([0] * 4, [False, True, False, False], 2, 1) == [(0, 2), (2, 3), (2, 3)]

    def test_what_stays_disturbed_is_kept_once_the_repeats_are_used_up(self) -> None:
        assert (0, 3) in runs([0] * 4, [False, True, True, True], 2, 2)

    def test_a_session_that_is_disturbed_throughout_is_no_exception(self) -> None:
        assert runs([0] * 5, [True] * 5, 3, 2) == [(2, 3, 4)]

    def test_without_repeats_nothing_is_passed_over(self) -> None:
        assert runs([0] * 3, [True, True, True], 2, 0) == [(0, 1), (1, 2)]

    def test_a_session_that_is_too_short_gives_none(self) -> None:
        assert runs([0, 0, 1, 1], [False] * 4, 3, 0) == []

    def test_runs_apart_share_no_pair(self) -> None:
        assert apart([(0, 1, 2), (1, 2, 3), (2, 3, 5), (4, 5, 6)]) == [(0, 1, 2), (4, 5, 6)]


class TestSecond:
    SESSIONS = (0, 0, 0, 1, 1, 1, 2, 2, 2)
    FOUND = ((0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8))

    def test_is_of_the_next_session_and_as_far_into_it(self) -> None:
        assert second((1, 2), self.FOUND, self.SESSIONS) == (4, 5)

    def test_the_last_session_is_confirmed_by_the_first(self) -> None:
        assert second((6, 7), self.FOUND, self.SESSIONS) == (0, 1)

    def test_a_session_with_fewer_runs_gives_its_last(self) -> None:
        assert second((1, 2), [(0, 1), (1, 2), (3, 4)], self.SESSIONS) == (3, 4)

    def test_the_same_processes_confirm_nothing(self) -> None:
        assert second((0, 1), [(0, 1), (1, 2)], self.SESSIONS) is None


class TestJoined:
    def test_blocks_are_numbered_anew_and_the_second_measurement_apart(self) -> None:
        found = pairs(noisy(1.0, 6))
        whole = joined(Role.CANDIDATE, found[2:4], found[4:6])
        # single steps of a block keep the block's own name only in what was measured
        assert {o.item_id for o in whole.observations} == {"block/0", "block/1", "again/0", "again/1"}
        assert (whole.n_expected, whole.n_reached) == (2, 2)

    def test_values_stay_with_their_block(self) -> None:
        found = pairs([1.0, 0.9, 0.8])
        whole = joined(Role.CANDIDATE, found[1:3], ())
        speeds = {o.item_id: o.value for o in whole.observations if (o.metric, o.group) == (DECODE, BATCH)}
        assert speeds == {"block/0": pytest.approx(90.0), "block/1": pytest.approx(80.0)}


class TestJudged:
    def test_the_same_speed_passes(self) -> None:
        found = pairs(noisy(1.0, 8))
        (said,) = judged(rule(DECODE, "95%"), found, [tuple(range(8))], Watch.GATE)
        assert (said.red, said.status) == (False, Status.PASS)

    def test_a_slowdown_in_both_measurements_is_a_regression(self) -> None:
        found = pairs(noisy(0.9, 16), sessions=[0] * 8 + [1] * 8)
        said = judged(rule(DECODE, "95%"), found, [tuple(range(8)), tuple(range(8, 16))], Watch.GATE)
        assert [(s.red, s.status) for s in said] == [(True, Status.REGRESSION)] * 2

    def test_a_slowdown_of_one_pair_of_processes_is_not_confirmed(self) -> None:
        found = pairs(noisy(0.9, 8) + noisy(1.0, 8), sessions=[0] * 8 + [1] * 8)
        first, other = judged(rule(DECODE, "95%"), found, [tuple(range(8)), tuple(range(8, 16))], Watch.GATE)
        assert (first.red, first.status) == (True, Status.INCONCLUSIVE)
        assert (other.red, other.status) == (False, Status.PASS)

    def test_red_without_a_second_measurement_is_inconclusive(self) -> None:
        (said,) = judged(rule(DECODE, "95%"), pairs(noisy(0.9, 8)), [tuple(range(8))], Watch.GATE)
        assert (said.red, said.status) == (True, Status.INCONCLUSIVE)

    def test_runs_apart_may_be_confirmed_by_a_run_that_is_none_of_them(self) -> None:
        found = pairs(noisy(0.9, 16), sessions=[0] * 8 + [1] * 8)
        (said,) = judged(
            rule(DECODE, "95%"), found, [tuple(range(8))], Watch.GATE, among=[tuple(range(8)), tuple(range(8, 16))]
        )
        assert said.status is Status.REGRESSION

    def test_a_run_that_stayed_disturbed_decides_nothing_unless_nobody_looks(self) -> None:
        found = pairs(noisy(1.0, 8), busy=[3])
        run = [tuple(range(8))]
        (watched,) = judged(rule(DECODE, "95%"), found, run, Watch.NOT_REPEATED)
        (blind,) = judged(rule(DECODE, "95%"), found, run, Watch.BLIND)
        assert (watched.status, blind.status) == (Status.INCONCLUSIVE, Status.PASS)

    def test_latency_is_judged_the_other_way_round(self) -> None:
        found = pairs(noisy(0.8, 16), sessions=[0] * 8 + [1] * 8)
        (said,) = judged(rule(TTFT, "10%"), found, [tuple(range(8))], Watch.GATE, among=[tuple(range(8, 16))])
        assert said.status is Status.REGRESSION

    def test_blocks_that_cannot_be_judged_are_an_error_and_no_rate(self) -> None:
        found = pairs(noisy(1.0, 8))
        without = replace(found[0], candidate=replace(found[0].candidate, observations=()))
        with pytest.raises(ValueError, match="ERROR"):
            judged(rule(DECODE, "95%"), [without, *found[1:]], [tuple(range(8))], Watch.BLIND)


class TestRates:
    def test_counts_and_intervals(self) -> None:
        found = pairs(noisy(0.9, 8) + noisy(1.0, 8), sessions=[0] * 8 + [1] * 8)
        counts = counted(judged(rule(DECODE, "95%"), found, [tuple(range(8)), tuple(range(8, 16))], Watch.GATE))
        assert (counts.runs, counts.red, counts.confirmed) == (2, 1, 0)
        assert counts.statuses == {Status.PASS: 1, Status.INCONCLUSIVE: 1, Status.REGRESSION: 0}

    def test_wilson_s_interval_of_none_of_ten(self) -> None:
        low, high = interval(0, 10)  # z²/(n + z²) with z = 1.96
        assert low == 0
        assert high == pytest.approx(0.2775, abs=1e-4)

    @pytest.mark.parametrize(
        ("metric", "bound", "condition", "expected"),
        [
            (DECODE, "95%", "A/A", "kept"),
            (DECODE, "100%", "A/A", "exactly met"),
            (DECODE, "95%", "5% slower", "kept"),  # 1/1.05 is 95.2 %
            (DECODE, "97%", "5% slower", "broken"),
            (DECODE, "95%", "10% slower", "broken"),
            (TTFT, "10%", "5% slower", "kept"),
            (TTFT, "10%", "10% slower", "exactly met"),
        ],
    )
    def test_whether_a_bound_is_kept(self, metric: str, bound: str, condition: str, expected: str) -> None:
        assert kept(rule(metric, bound), CONDITIONS[condition]) == expected

    def test_disturbances_of_either_role(self) -> None:
        quiet, busy = pairs([1.0, 1.0], busy=[1])
        assert disturbances(quiet) == []
        assert len(disturbances(busy)) == 1
        assert "waited" in disturbances(busy)[0]


class TestSimplerGates:
    def test_one_pair_alarms_below_the_tolerance(self) -> None:
        assert timing_naive.one_pair(pairs([0.94, 0.96, 1.2]), BATCH, 8) == [True, False, False]

    def test_one_after_the_other_takes_drift_for_a_difference(self) -> None:
        slowing = {i: 100.0 - 3 * i for i in range(8)}
        assert timing_naive.one_after_the_other(pairs([1.0] * 8, speeds=slowing), BATCH, 4) == [True]
        assert timing_naive.one_after_the_other(pairs([1.0] * 8), BATCH, 4) == [False]

    def test_single_steps_make_a_small_shift_of_one_process_significant(self) -> None:
        steps = [0.010, 0.0101, 0.0099, 0.01005, 0.00995] * 4
        found = pairs([0.99] * 8, steps=steps)
        assert timing_naive.t_of_steps(found, BATCH, 8) == [True]
        assert timing_naive.t_of_steps(pairs([1.0] * 8, steps=steps), BATCH, 8) == [False]

    def test_pairs_without_single_steps_are_refused(self) -> None:
        found = pairs([1.0] * 2)
        bare = [replace(p, candidate=replace(p.candidate, observations=())) for p in found]
        with pytest.raises(ValueError, match="single steps"):
            timing_naive.t_of_steps(bare, BATCH, 2)


ABOUT = {
    "cpus": 2,
    "other_process": True,
    "settings": {"batch_sizes": [1, 8], "prompt_tokens": 64, "new_tokens": 16},
    "runs_a_block": 4,
    "packages": {"torch": "2"},
}


class TestReport:
    def test_says_what_was_found_in_rows(self) -> None:
        sessions = [0] * 16 + [1] * 16
        found = [
            *pairs(noisy(1.0, 32), sessions=sessions),
            *pairs(noisy(1 / 1.1, 32), sessions=sessions, condition="10% slower"),
        ]
        text = timing_report.report(ABOUT, found, RULES)
        assert (
            "| A/A | decode_tokens_per_second, batch 8, min_retained 95% | kept | 18 | 100% | 0% | 0% | 0% | 4 "
            "| 0 of 4 (0% to 49%) | 0 of 4 (0% to 49%) |"
        ) in text
        assert (
            "| 10% slower | decode_tokens_per_second, batch 8, min_retained 95% | broken | 18 | 0% | 0% | 100% " in text
        )
        assert "5% slower |" not in text.replace("10% slower", "")
        assert "CPU figures. 2 cores, of which another process keeps one of them busy; 32 pairs" in text

    def test_false_alarms_of_two_copies_come_first(self) -> None:
        found = pairs(noisy(0.9, 16) + noisy(1.0, 16), sessions=[0] * 16 + [1] * 16)
        said = timing_report.headline({"A/A": found}, RULES)
        # 9 runs of each session; what one pair of processes shows is not confirmed by the other
        assert "of 18 A/A runs of 8 pairs (4 that share no pair), 9 (50.0%) were red at first and 0 (0.0%)" in said

    def test_noise_of_pairs_and_of_processes(self) -> None:
        sessions = [s for s in range(4) for _ in range(8)]
        apart_by = [1.0, 1.1, 1.0, 1.1]
        found = pairs([apart_by[s] * n for s, n in zip(sessions, noisy(1.0, 32), strict=True)], sessions=sessions)
        of_pairs, of_processes = timing_report.noise(found, BATCH)
        assert of_pairs == pytest.approx(0.002 * (8 / 7) ** 0.5, rel=1e-3)
        assert of_processes == pytest.approx(0.5 * 0.0953 * (4 / 3) ** 0.5, rel=1e-2)  # half of log 1.1 up and down

    def test_every_row_of_a_table_has_as_many_cells_as_its_header(self) -> None:
        found = pairs(noisy(1.0, 32), sessions=[0] * 16 + [1] * 16, busy=[1, 2])
        widths: list[int] = []
        for line in timing_report.report(ABOUT, found, RULES).splitlines():
            if line.startswith("|"):
                widths.append(line.count("|"))
            else:
                assert len(set(widths)) <= 1
                widths = []

    def test_sessions_that_are_too_short_for_a_run_are_said_to_be(self) -> None:
        text = timing_report.report(ABOUT, pairs(noisy(1.0, 8), sessions=[0] * 4 + [1] * 4), RULES)
        assert "no such run" in text

    def test_minutes_say_whether_the_limit_is_kept(self) -> None:
        row = Row(
            settings="demo policy",
            candidate="w8a8",
            pairs=5,
            repeated=1,
            confirming=0,
            stage_seconds=LIMIT_SECONDS,
            run_seconds=LIMIT_SECONDS + 5,
        )
        assert "is kept" in report([row], 2)
        assert "| demo policy | w8a8 | 5 | 1 | 0 | 180 | 185 |" in report([row], 2)
        assert "is broken" in report([replace(row, stage_seconds=LIMIT_SECONDS + 1)], 2)

    def test_the_default_policy_s_stage_is_timed_with_its_own_settings(self) -> None:
        found = stages()
        assert found["default policy"]["batch_sizes"] == [1, 8]
        assert {r["metric"] for r in found["default policy"]["rules"]} == {DECODE}


class TestMarked:
    DOCUMENT = "before\n<!-- x:begin -->\nold\n<!-- x:end -->\nafter\n"

    def test_only_the_block_changes(self) -> None:
        new = rewritten(self.DOCUMENT, "x", "\nnew\n")
        assert new == "before\n<!-- x:begin -->\nnew\n<!-- x:end -->\nafter\n"
        assert rewritten(new, "x", "new") == new

    @pytest.mark.parametrize("document", ["", "<!-- x:end --><!-- x:begin -->", DOCUMENT + DOCUMENT])
    def test_marks_that_are_missing_are_named(self, document: str) -> None:
        with pytest.raises(ValueError, match="x:begin"):
            rewritten(document, "x", "new")

    def test_every_block_that_a_benchmark_writes_is_in_the_document(self, tmp_path: Path) -> None:
        copy = tmp_path / "benchmarks.md"
        copy.write_text(DOCUMENT.read_text(encoding="utf-8"), encoding="utf-8")
        for name in ("timing_aa", "profile_minutes", "vllm_bench", "gpu_profile"):
            rewrite(copy, name, f"figures of {name}")
            assert f"figures of {name}\n<!-- {name}:end -->" in copy.read_text(encoding="utf-8")


class TestGpuReport:
    def memory(self, role: Role, **peaks: int) -> Memory:
        return Memory(
            role=role,
            parts={"weights": 10 * gpu_report.MIB},
            peaks=peaks,
            kv_bytes_per_token=None,
            context_tokens=160,
            batch_size=8,
            budget_bytes=None,
            max_batch_at_context=7,
            reserved_kv_bytes=None,
        )

    def test_peaks_of_both_processes_are_compared_with_the_device_s(self) -> None:
        found = [self.memory(role, vram_process=300 * gpu_report.MIB, vram=1) for role in Role]
        said = gpu_report.peaks(found, 625 * gpu_report.MIB)
        assert "vram_process are 600 MiB" in said
        assert "ratio of 0.960" in said

    def test_where_nvml_sees_no_process_the_allocator_s_figure_is_compared(self) -> None:
        found = [self.memory(role, vram_reserved=100 * gpu_report.MIB) for role in Role]
        assert "vram_reserved are 200 MiB" in gpu_report.peaks(found, 400 * gpu_report.MIB)

    @pytest.mark.parametrize("smi", [None, 400])
    def test_without_both_figures_nothing_is_compared(self, smi: int | None) -> None:
        both = [self.memory(role, vram=100) for role in Role]
        assert "not compared" in gpu_report.peaks(both[:1] if smi else both, smi)

    def test_memory_is_listed_in_mib(self) -> None:
        lines = list(gpu_report.memory([self.memory(Role.BASELINE, vram=3 * gpu_report.MIB)]))
        assert lines[1:] == [
            "| baseline | weights | 10.0 |",
            "| baseline | peak: vram | 3.0 |",
            "| baseline | largest batch at 160 tokens | 7 sequences |",
        ]

    def test_lines_of_nvidia_smi_that_are_no_number_are_passed_over(self) -> None:
        assert list(gpu_report.used_bytes(["512\n", "[N/A]\n", "\n", "1024\n"])) == [
            512 * gpu_report.MIB,
            1024 * gpu_report.MIB,
        ]

    def test_columns_that_nothing_is_known_of_are_left_out(self) -> None:
        times = Percentiles(n=20, seconds={"p50": 0.0125}, needed={"p95": 60}, histogram=())
        header, _, row = gpu_report.table([Seen(role=Role.BASELINE, ttft=times, cost=None)])
        assert (header, row) == ("| role | ttft |", "| baseline | p50 12.50 ms |")

    def test_clocks_as_a_ratio(self) -> None:
        assert "ratio of 0.9900" in gpu_report.clocks((0.99, 1.0))

    def test_a_machine_without_a_gpu_ends_with_one_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gate.environment.default_device", lambda: "cpu")
        monkeypatch.setattr("sys.argv", ["gpu_profile.py"])
        with pytest.raises(SystemExit, match="found no NVIDIA GPU"):
            gpu_profile.main()


@dataclass(frozen=True)
class Seen:
    role: Role
    ttft: Percentiles
    cost: float | None


class TestPairsFile:
    def test_a_pair_comes_back_as_it_was(self) -> None:
        (pair,) = pairs([0.97])
        assert decoded(encoded(pair)) == pair


class FakeClock:
    """Time that passes only in forward passes and sleeps; a sleep lasts `late` longer than asked for."""

    def __init__(self, late: float) -> None:
        self.now = 0.0
        self.late = late
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds + self.late


class TestSleep:
    def test_sleeps_its_share_of_each_step_and_none_of_the_time_between_batches(self) -> None:
        clock = FakeClock(late=0.0)
        sleep = Sleep(0.05, clock=clock, sleep=clock.sleep)
        for idle, begins, seconds in ((0.0, True, 1.0), (1.0, False, 2.0), (50.0, True, 1.0)):
            clock.now += idle
            sleep.before(begins=begins)
            clock.now += seconds
            sleep.after()
        assert clock.slept == pytest.approx([0.05, 0.15, 0.05])  # what comes between two steps is part of the second

    def test_what_a_sleep_was_too_long_is_taken_off_the_next(self) -> None:
        clock = FakeClock(late=0.02)
        sleep = Sleep(0.1, clock=clock, sleep=clock.sleep)
        for step in range(100):
            sleep.before(begins=step == 0)
            clock.now += 0.1
            sleep.after()
        assert clock.now == pytest.approx(100 * 0.1 * 1.1, abs=0.03)
        assert len(clock.slept) < 100
