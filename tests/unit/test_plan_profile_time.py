"""How long the plan says that a profile stage takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gate.decide.plan import plan
from gate.decide.profile_time import (
    EXAMPLE,
    EXAMPLE_GPU,
    LOAD_BYTES_PER_SECOND,
    STEP_SECONDS,
    WARM_UPS_FIRST,
    WARM_UPS_LATER,
    ProfileTime,
    estimate,
    model,
)
from gate.hardware import GPUS
from gate.policy_file import load_policy
from gate.policy_profile import ProfileStage
from gate.preflight import planned
from gate.reports.plan_text import WIDTH, render
from gate.stages.profile_warm_up import FIRST, LATER

THRESHOLDS = Path(__file__).parents[2] / "thresholds"


def stage(**settings: Any) -> ProfileStage:
    rules = [{"metric": "vram_peak", "max": "24GiB"}]
    return ProfileStage.model_validate({"kind": "profile", "name": "serving", "rules": rules, **settings})


def timed(time: ProfileTime) -> float:
    return time.most_seconds - time.loading_seconds


def test_one_shape_by_hand() -> None:
    """Reading 140 GB at 70 % of 4.8 TB/s takes 42 ms, its half 21 ms, which is less than Python takes."""
    big = model(70e9, 140e9)
    alone = stage(batch_sizes=[1], prompt_tokens=16, new_tokens=11, blocks=4)
    found = estimate(alone, big, "H200")
    runs = 4 * 5 + WARM_UPS_FIRST + 3 * WARM_UPS_LATER
    step = (140e9 + 131_072 / 8e9 * 70e9 * (16 + 5.5)) / (0.7 * 4.8e12)
    half = (70e9 + 131_072 / 8e9 * 70e9 * (16 + 5.5)) / (0.7 * 4.8e12)
    assert step > STEP_SECONDS > half
    reading = 140e9 / (0.7 * 4.8e12)
    assert timed(found) == pytest.approx(runs * (reading + 10 * step + 11 * STEP_SECONDS))
    assert not found.resident
    assert found.loading_seconds == pytest.approx(105 * 5)  # a load more than blocks, half of them of each


def test_both_models_are_loaded_once_where_they_fit_together() -> None:
    found = estimate(stage())
    assert found.resident
    assert found.loading_seconds == sum(EXAMPLE.weight_bytes) / LOAD_BYTES_PER_SECOND
    assert not estimate(stage(), gpu="A10G").resident


def test_more_work_takes_longer() -> None:
    usual = estimate(stage()).most_seconds
    assert estimate(stage(batch_sizes=[1])).most_seconds < usual
    assert estimate(stage(batch_sizes=[1, 8, 64])).most_seconds > usual
    assert estimate(stage(new_tokens=64)).most_seconds > usual
    assert estimate(stage(lengths=["128+32", "1024+32"])).most_seconds > usual
    assert estimate(stage(blocks=12)).most_seconds > usual
    assert estimate(stage(), gpu="L4").most_seconds > usual
    assert estimate(stage(), model(4e9, 8e9), "L4").most_seconds < estimate(stage(), gpu="L4").most_seconds


def test_planned_looks_give_a_range() -> None:
    found = estimate(stage(looks=[4, 8]))
    assert found.pairs == (4, 8)
    assert found.first_seconds < found.most_seconds
    once = estimate(stage(blocks=8))
    assert once.first_seconds == once.most_seconds


def test_loads_count() -> None:
    def more(load: dict[str, Any]) -> float:
        serving = {"loads": [load], "mix": ["32+16"]}
        return estimate(stage(serving=serving)).most_seconds - estimate(stage()).most_seconds

    open_loop, closed = more({"rate": 2, "requests": 64}), more({"concurrency": 8, "requests": 64})
    assert open_loop > 2 * 8 * 32  # 64 requests come in 32 seconds, in 8 blocks of each model
    assert closed < open_loop
    assert more({"concurrency": 64, "requests": 64}) < closed


def test_warm_ups_are_those_of_the_stage() -> None:
    assert (FIRST.window, LATER.window) == (WARM_UPS_FIRST, WARM_UPS_LATER)


def test_the_default_policy_takes_three_minutes_at_most_for_8b_on_a_common_gpu() -> None:
    (profile,) = (s for s in load_policy(THRESHOLDS / "default.yaml").policy.stages if isinstance(s, ProfileStage))
    found = estimate(profile)
    assert GPUS[EXAMPLE_GPU].memory_bytes == 48 * 2**30
    assert EXAMPLE.n_parameters == 8e9
    assert found.most_seconds <= 180


class TestTold:
    def test_a_line_for_each_profile_stage(self) -> None:
        loaded = load_policy(THRESHOLDS / "default.yaml")
        text = render(planned(loaded)).replace("\n      ", " ")
        most = estimate(next(s for s in loaded.policy.stages if isinstance(s, ProfileStage))).most_seconds
        assert f"{most / 60:.1f} minutes for an 8 B model in BF16 and its 8-bit candidate on an L40S (864 GB/s)" in text
        assert text.count("as much again if a red rule has to be confirmed") == 1
        assert "70% of the GPU's published bandwidth, no step" in text

    def test_of_a_checkpoint_and_a_gpu_that_are_known(self) -> None:
        loaded = load_policy(THRESHOLDS / "default.yaml")
        text = render(planned(loaded, model=model(14.8e9, 29.5e9), gpu="L4"))
        assert max(map(len, text.splitlines())) <= WIDTH
        joined = text.replace("\n      ", " ")
        assert "for a baseline of 14.8 B parameters (29.5 GB) and a candidate of half the size on an L4" in joined
        assert "the two may not fit together" in joined

    def test_a_policy_without_a_profile_stage_says_nothing(self) -> None:
        loaded = load_policy(THRESHOLDS / "default.yaml")
        stages = [s for s in loaded.policy.stages if not isinstance(s, ProfileStage)]

        shorter = loaded.policy.model_copy(update={"stages": stages})
        rules = tuple(rule for rule in loaded.rules if rule.stage in {s.name for s in stages})
        found = plan(shorter, rules, {})
        assert found.profile_times == ()
        assert "reckoned" not in render(found)
