"""How much processes differ: what is estimated, that it is kept for the timing it is of, and how it is measured."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import variance
from typing import Any, cast

import numpy as np
import pytest
import yaml

from gate.calibration import PAIRS, SourceResult, calibrate, failures, timed_by
from gate.commands.calibrate import table
from gate.decide.noise import TimingNoise, observed, timing_noise
from gate.errors import CouldNotMeasure, WorkerError
from gate.evidence import Collector
from gate.metrics import DESCRIBED, PROFILE
from gate.noise_floor import Calibrated, Place, keep, load, load_floors, missing, of_processes, unknown, untimed
from gate.policy_file import LoadedPolicy, load_policy
from gate.records import Measurement, Role, Status
from gate.store import Store
from tests.decide_factory import BASELINE, CANDIDATE, measurement, observation
from tests.timing_machine import RETAIN, Machine, Speed, slower, steady

CONFIDENCE = 0.95
DECODE, TTFT95 = PROFILE["decode_tokens_per_second"], PROFILE["ttft_p95_seconds"]


def blocks(role: Role, values: list[float], group: str = "batch=1") -> Measurement:
    return measurement(
        role, [observation(DECODE, f"block/{k}", v, group=group) for k, v in enumerate(values)], 8, metric=DECODE
    )


def of_ratios(*processes: list[float]) -> list[tuple[Measurement, Measurement]]:
    """A pair of processes for each list of log ratios of its pairs of blocks."""
    return [
        (blocks(BASELINE, [100.0] * len(some)), blocks(CANDIDATE, [100 * math.exp(x) for x in some]))
        for some in processes
    ]


class TestEstimate:
    def test_it_is_what_the_blocks_inside_a_process_do_not_explain(self) -> None:
        logs = [[0.02, 0.03, 0.01], [-0.03, -0.01, -0.02], [0.05, 0.03, 0.04], [0.0, -0.01, 0.01]]
        (found,) = timing_noise(of_ratios(*logs), 8, CONFIDENCE)
        within = sum(map(variance, logs)) / 4
        between = variance([sum(x) / 3 for x in logs]) - within / 3
        assert (found.metric, found.group, found.processes, found.pairs) == (DECODE.observed, "batch=1", 4, 12)
        assert found.within_log_sd == pytest.approx(math.sqrt(within))
        assert found.between_log_sd == pytest.approx(math.sqrt(between))
        assert found.floor == pytest.approx(math.expm1(2.4865 * math.sqrt(between + within / 8)), rel=1e-4)

    def test_processes_that_do_not_differ_have_none(self) -> None:
        """Their means vary less than the blocks inside them explain: the estimate would be negative."""
        logs = [[0.02, -0.02, 0.0], [0.03, -0.03, 0.0], [0.01, -0.01, 0.001]]
        (found,) = timing_noise(of_ratios(*logs), 8, CONFIDENCE)
        assert found.between_log_sd == 0.0
        assert found.floor > 0

    def test_it_is_right_on_average(self) -> None:
        generator = np.random.default_rng(7)
        squares = []
        for _ in range(400):
            logs = [list(generator.normal(generator.normal(0, 0.02), 0.01, 4)) for _ in range(5)]
            (found,) = timing_noise(of_ratios(*logs), 8, CONFIDENCE)
            squares.append(found.between_log_sd**2)
        assert math.sqrt(sum(squares) / len(squares)) == pytest.approx(0.02, rel=0.08)

    def test_every_group_has_its_own_and_single_times_count_by_their_median(self) -> None:
        def timed(role: Role, factor: float) -> Measurement:
            of_blocks = [observation(DECODE, f"block/{k}", 100 * factor, group=g) for k in (0, 1) for g in "ab"]
            single = [
                observation(TTFT95, f"block/{k}/run/{r}", factor * (1 + r), group="a") for k in (0, 1) for r in range(3)
            ]
            again = [observation(DECODE, f"again/{k}", 1.0, group="a") for k in (0, 1)]
            return measurement(role, [*of_blocks, *single, *again], 8, metric=DECODE, also=[TTFT95])

        processes = [(timed(BASELINE, 1.0), timed(CANDIDATE, f)) for f in (1.0, 1.1, 1.2)]
        found = timing_noise(processes, 8, CONFIDENCE)
        assert [(n.metric, n.group) for n in found] == [
            (DECODE.observed, "a"),
            (DECODE.observed, "b"),
            ("ttft_sample_seconds", "a"),
        ]
        expected = math.sqrt(variance([math.log(f) for f in (1.0, 1.1, 1.2)]))
        assert [n.between_log_sd for n in found] == pytest.approx([expected] * 3)

    def test_a_load_that_served_nothing_well_is_left_out(self) -> None:
        zero = [(blocks(BASELINE, [0.0, 0.0]), blocks(CANDIDATE, [0.0, 0.0]))] * 3
        with pytest.raises(CouldNotMeasure, match="found 3 pairs of processes and no metric"):
            timing_noise(zero, 8, CONFIDENCE)

    def test_blocks_that_stayed_disturbed_do_not_count(self) -> None:
        def waited(measured: Measurement, *numbers: int) -> Measurement:
            wait = DESCRIBED["cpu_wait_share"]
            more = tuple(observation(wait, f"block/{k}", 0.6) for k in numbers)
            return replace(measured, observations=(*measured.observations, *more))

        logs = [0.5, 0.02, 0.03], [-0.03, -0.5, -0.01], [0.05, 0.03, 0.4]
        processes = of_ratios(*logs)
        disturbed = [
            (waited(a, *([0] if i == 0 else [])), waited(b, *({1: [1], 2: [2]}.get(i, []))))
            for i, (a, b) in enumerate(processes)
        ]
        quiet = of_ratios([0.02, 0.03], [-0.03, -0.01], [0.05, 0.03])
        assert timing_noise(disturbed, 8, CONFIDENCE)[0] == timing_noise(quiet, 8, CONFIDENCE)[0]
        nothing = [(waited(a, 0, 1, 2), b) for a, b in processes]
        with pytest.raises(CouldNotMeasure, match="calibrate on a quiet machine"):
            timing_noise(nothing, 8, CONFIDENCE)

    def test_two_processes_are_too_few(self) -> None:
        with pytest.raises(CouldNotMeasure, match="found 2 pairs of processes"):
            timing_noise(of_ratios([0.0, 0.1], [0.1, 0.0]), 8, CONFIDENCE)


# -- kept and found again ---------------------------------------------------------------------------------

STAGE: dict[str, Any] = {"kind": "profile", "name": "serving", "rules": [RETAIN], "blocks": 8}
NOISE = TimingNoise(
    metric=DECODE.observed,
    group="batch=1",
    between_log_sd=0.1 + 0.2,
    within_log_sd=0.01,
    processes=5,
    pairs=24,
    floor=0.03,
)


def loaded(folder: Path, *stages: dict[str, Any]) -> LoadedPolicy:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "stages": list(stages) or [STAGE]}))
    return load_policy(path)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(effective_digest="e" * 64, backend="fake", device="cpu", environment="f" * 64, base=tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


class TestKept:
    @pytest.fixture(autouse=True)
    def kept(self, tmp_path: Path, store: Store, place: Place) -> None:
        (stage,) = loaded(tmp_path).policy.stages
        keep(store, place, "serving", stage, Calibrated(batch_size=None, noises=(NOISE,)))

    def test_it_comes_back_as_it_was(self, tmp_path: Path, store: Store, place: Place) -> None:
        found = loaded(tmp_path)
        assert load(store, place, found.policy.stages)["serving", "serving"].noises == (NOISE,)
        assert of_processes(store, place, found.policy.stages) == {"serving": observed([NOISE])}
        assert load_floors(store, place, found.policy.stages, found.rules) == {}
        assert untimed(store, place, found.policy.stages, found.rules) == ()
        assert unknown(store, place, found.policy.stages, found.rules) == ()

    @pytest.mark.parametrize(
        "change",
        [{"blocks": 12}, {"memory_budget": "1GiB"}, {"context_tokens": 4096}, {"budget": "1h"}, {"name": "other"}],
    )
    def test_how_often_it_is_timed_does_not_matter(
        self, tmp_path: Path, store: Store, place: Place, change: dict[str, Any]
    ) -> None:
        found = of_processes(store, place, loaded(tmp_path, {**STAGE, **change}).policy.stages)
        assert len(found) == (0 if "name" in change else 1)  # the source of a profile stage is its name

    @pytest.mark.parametrize("change", [{"batch_sizes": [1]}, {"prompt_tokens": 64}, {"new_tokens": 16}])
    def test_what_is_timed_does(self, tmp_path: Path, store: Store, place: Place, change: dict[str, Any]) -> None:
        found = loaded(tmp_path, {**STAGE, **change})
        assert of_processes(store, place, found.policy.stages) == {}
        assert untimed(store, place, found.policy.stages, found.rules) == ("serving",)
        (said,) = unknown(store, place, found.policy.stages, found.rules)
        assert said.startswith("how much the timing of serving differs between processes was not measured")

    @pytest.mark.parametrize("other", [{"effective_digest": "a" * 64}, {"device": "cuda"}, {"environment": "a" * 64}])
    def test_another_model_or_machine_has_its_own(
        self, tmp_path: Path, store: Store, place: Place, other: dict[str, Any]
    ) -> None:
        assert of_processes(store, replace(place, **other), loaded(tmp_path).policy.stages) == {}

    @pytest.mark.parametrize(
        "rule",
        [
            {"metric": "weights_bytes", "max": "2GiB"},
            {**RETAIN, "severity": "advisory"},
            {"metric": "decode_tokens_per_second", "min": 10},
        ],
    )
    def test_rules_that_compare_no_timing_need_none(
        self, tmp_path: Path, store: Store, place: Place, rule: dict[str, Any]
    ) -> None:
        found = loaded(tmp_path, {**STAGE, "batch_sizes": [4], "rules": [rule, {"metric": "rss_peak", "max": "1GiB"}]})
        assert untimed(store, place, found.policy.stages, found.rules) == ()
        assert missing(store, place, found.policy.stages, found.rules) == ()


# -- the A/A run ------------------------------------------------------------------------------------------


def by_start(*speeds: float) -> Speed:
    """The candidate is as fast as its process: one value after another, a new one whenever its first block comes."""
    left = list(speeds)
    now = [1.0]

    def speed(role: Role, number: int, again: bool) -> float:
        if role is CANDIDATE and number == 0:
            now[0] = left.pop(0)
        return steady(role, number, again) * (now[0] if role is CANDIDATE else 1)

    return speed


class Checked(Machine):
    def check(self, settings: Any) -> None:
        self.log.append("check")


class TestRun:
    def run(
        self, store: Store, place: Place, machine: Checked, *rules: dict[str, Any]
    ) -> tuple[tuple[SourceResult, ...], Checked]:
        beside = Checked()
        beside.baseline.opened()
        found = loaded(place.base, {**STAGE, "rules": list(rules) or [RETAIN]})
        timings = timed_by(cast(Collector, machine), 5, beside=cast(Collector, beside))
        results = calibrate(found, cast(Any, None), timings, store, place, batch_size=4)
        return results, beside

    def test_five_pairs_of_fresh_processes_the_first_as_in_a_run(self, store: Store, place: Place) -> None:
        machine = Checked(by_start(1.0, 1.02, 0.98, 1.01, 0.99))
        (result,), beside = self.run(store, place, machine)
        assert beside.log[-1] == "drop baseline"
        assert machine.log[0] == "check"
        assert machine.log.count("open candidate") == machine.log.count("drop candidate") == 5
        assert len(machine.order) == 2 * (8 + 4 * PAIRS)
        (noise,) = result.noises
        assert isinstance(noise, TimingNoise)
        assert (noise.processes, noise.pairs) == (5, 8 + 4 * PAIRS)
        assert noise.between_log_sd == pytest.approx(math.sqrt(2.5e-4), rel=0.1)
        assert [f.status for f in result.findings] == [Status.PASS]
        assert failures([result]) == ()
        (kept,) = of_processes(store, place, loaded(place.base).policy.stages)["serving"]
        assert (kept.value, kept.weight) == (noise.between_log_sd, 5.0)

    def test_a_process_that_is_slow_by_itself_is_no_regression_once_that_is_known(
        self, store: Store, place: Place
    ) -> None:
        """Twice red by itself: fresh processes confirm one another by accident."""
        machine = Checked(by_start(0.92, 0.92, 1.08, 0.93, 1.07, 1.0))
        (result,), _ = self.run(store, place, machine)
        (finding,) = result.findings
        assert finding.status is Status.INCONCLUSIVE
        assert failures([result]) == ()

    def test_a_measurement_that_is_red_against_itself_is_unreliable(self, store: Store, place: Place) -> None:
        (result,), _ = self.run(store, place, Checked(slower(0.2)))
        (said,) = failures([result])
        assert said.startswith("the baseline is a REGRESSION against itself under serving.decode_tokens_per_second")
        assert said.endswith("use a quieter machine, more blocks or a wider bound")

    def test_a_worker_that_dies_is_a_problem_and_nothing_is_kept(self, store: Store, place: Place) -> None:
        machine = Checked()
        problem = WorkerError("the candidate worker was killed", kind="killed", stderr_tail="")
        machine.raises = lambda block: problem if machine.log.count("open candidate") == 3 else None
        (result,), _ = self.run(store, place, machine)
        assert result.problem == "the candidate worker was killed"
        assert not machine.baseline.is_open
        assert of_processes(store, place, loaded(place.base).policy.stages) == {}

    def test_what_is_shown(self, store: Store, place: Place) -> None:
        machine = Checked(by_start(1.0, 1.02, 0.98, 1.01, 0.99), batches=(1, 8))
        results, _ = self.run(store, place, machine, RETAIN, {"metric": "rss_peak", "max_increase": "5%"})
        rows = list(zip(*(column.cells for column in table(results).columns), strict=True))
        assert [row[1] for row in rows] == [
            "decode_tokens_per_second batch=1",
            "decode_tokens_per_second batch=8",
            "rss_peak",
        ]
        assert rows[0][2] == "5 (24 pairs)"
        assert str(rows[0][3]).startswith("processes differ by 1.")
        assert [row[5] for row in rows] == ["min_retained 95%: PASS"] * 2 + ["max_increase 5%: PASS"]
