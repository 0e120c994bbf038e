"""The profile stage on a model with a scripted clock: block values, warm-ups, memory that runs out, block order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from gate.backends import Backend, BackendInfo, OutOfMemory, Timing
from gate.errors import CouldNotMeasure
from gate.policy import ProfileStage
from gate.records import Measurement, Role, merge
from gate.stages import Context, profile

INFO = BackendInfo(
    name="scripted",
    device="cuda",
    dtype="bfloat16",
    n_parameters=1,
    context_length=128,
    vocabulary_size=10,
    load_seconds=1.5,
    has_logits=True,
    packages={},
    unserved={},
)


class Scripted:
    """Takes `slow` times longer in its first runs of a batch size; 10 ms a step afterwards, one step of 50 ms."""

    def __init__(self, *, slow: tuple[float, ...] = (), fits: int = 64, info: BackendInfo = INFO) -> None:
        self.info = info
        self._slow = slow
        self._fits = fits
        self.seeds: list[tuple[int, int]] = []

    def timed_batch(self, *, batch_size: int, prompt_tokens: int, new_tokens: int, seed: int) -> Timing:
        if batch_size > self._fits:
            raise OutOfMemory(f"batch {batch_size} needs 99 GiB")
        run = sum(b == batch_size for b, _ in self.seeds)
        self.seeds.append((batch_size, seed))
        factor = self._slow[run] if run < len(self._slow) else 1.0
        steps = [0.010 * factor] * (new_tokens - 1)
        steps[0] = 0.050 * factor
        return Timing(
            batch_size=batch_size,
            prompt_tokens=prompt_tokens,
            ttft_seconds=0.020 * batch_size * factor,
            step_seconds=tuple(steps),
        )

    def memory_bytes(self) -> Mapping[str, int]:
        return {"rss_peak_bytes": 1000, "vram_peak_bytes": 600, "something_else_bytes": 1}


def _stage(**settings: Any) -> ProfileStage:
    rule = {"metric": "decode_tokens_per_second", "min_retained": "95%"}
    defaults = {"kind": "profile", "name": "serving", "prompt_tokens": 64, "new_tokens": 5, "blocks": 4}
    return ProfileStage.model_validate(defaults | {"rules": [rule]} | settings)


def _measure(backend: Scripted, stage: ProfileStage, block: int | None = 0, role: Role = Role.BASELINE) -> Measurement:
    context = Context(
        role=role,
        base=Path(),
        settings_digest="settings",
        sample_seed="seed",
        order_seed="seed",
        artifacts=Path(),
        block=block,
        progress=lambda done, total, label: None,
    )
    return merge(list(profile.measure(cast(Backend, backend), stage, context)))


def _values(measured: Measurement, group: str | None) -> dict[str, float]:
    return {o.metric: o.value for o in measured.observations if o.group == group}


def test_a_block_reports_each_metric_per_batch_size() -> None:
    measured = _measure(Scripted(), _stage(), block=2)
    assert _values(measured, "batch=1") == pytest.approx(
        {
            "prefill_tokens_per_second": 64 / 0.020,
            "decode_tokens_per_second": 4 / 0.080,
            "ttft_p50_seconds": 0.020,
            "tpot_p50_seconds": 0.010,
            "ttft_p95_seconds": 0.020,
            "tpot_p95_seconds": 0.050,
        }
    )
    assert _values(measured, "batch=8")["prefill_tokens_per_second"] == pytest.approx(8 * 64 / 0.160)
    assert _values(measured, "batch=8")["decode_tokens_per_second"] == pytest.approx(8 * 4 / 0.080)
    assert {o.item_id for o in measured.observations if o.group} == {"block/2"}
    assert measured.n_expected == 4
    assert measured.failures == ()


def test_load_time_and_known_memory_are_reported_once_per_block() -> None:
    measured = _measure(Scripted(), _stage(), block=1)
    assert _values(measured, None) == {"load_seconds": 1.5, "rss_peak_bytes": 1000.0, "vram_peak_bytes": 600.0}
    assert {o.item_id for o in measured.observations if o.group is None} == {"run/1"}


def test_a_server_has_no_load_time_of_its_own() -> None:
    measured = _measure(Scripted(info=replace(INFO, device="server")), _stage(batch_sizes=[1]), block=0)
    assert "load_seconds" not in {o.metric for o in measured.observations}
    assert "load_seconds" not in {m.observed for m in measured.metrics}


def test_every_declared_metric_is_observed_and_every_observation_declared() -> None:
    measured = _measure(Scripted(), _stage())
    assert {m.observed for m in measured.metrics} == {o.metric for o in measured.observations}


def test_the_first_block_warms_up_until_three_runs_agree() -> None:
    steady = Scripted()
    _measure(steady, _stage(batch_sizes=[1]))
    assert len(steady.seeds) == 3 + 3
    cold = Scripted(slow=(9.0, 4.0, 2.0, 1.04))
    measured = _measure(cold, _stage(batch_sizes=[1]))
    assert len(cold.seeds) == 6 + 3
    assert _values(measured, "batch=1")["tpot_p50_seconds"] == pytest.approx(0.010), "no warm-up run counts"


def test_warm_up_is_capped_and_short_in_later_blocks() -> None:
    never = Scripted(slow=tuple(2.0**k for k in range(20, 0, -1)))
    _measure(never, _stage(batch_sizes=[1]))
    assert len(never.seeds) == 10 + 3
    later = Scripted()
    _measure(later, _stage(batch_sizes=[1]), block=3)
    assert len(later.seeds) == 1 + 3


def test_one_slow_run_does_not_move_the_block() -> None:
    measured = _measure(Scripted(slow=(1.0, 30.0)), _stage(batch_sizes=[1]), block=1)
    assert _values(measured, "batch=1")["decode_tokens_per_second"] == pytest.approx(4 / 0.080)
    assert _values(measured, "batch=1")["ttft_p50_seconds"] == pytest.approx(0.020)


def test_both_roles_time_the_same_prompts_and_every_run_its_own() -> None:
    baseline, candidate = Scripted(), Scripted(slow=(9.0, 4.0, 2.0))
    _measure(baseline, _stage(batch_sizes=[1]))
    _measure(candidate, _stage(batch_sizes=[1]), role=Role.CANDIDATE)
    assert baseline.seeds[-3:] == candidate.seeds[-3:]
    assert len(set(candidate.seeds)) == len(candidate.seeds)


def test_a_batch_that_does_not_fit_fails_alone() -> None:
    measured = _measure(Scripted(fits=1), _stage(), block=2)
    (failure,) = measured.failures
    assert (failure.item_id, failure.kind) == ("block/2/batch=8", "out_of_memory")
    assert failure.message == "batch 8 needs 99 GiB"
    assert len(_values(measured, "batch=1")) == 6
    assert _values(measured, "batch=8") == {}


def test_blocks_of_one_role_merge_into_one_measurement() -> None:
    merged = merge([_measure(Scripted(), _stage(), block=k) for k in range(4)])
    rates = [o for o in merged.observations if (o.metric, o.group) == ("decode_tokens_per_second", "batch=1")]
    assert [o.item_id for o in rates] == [f"block/{k}" for k in range(4)]
    assert merged.n_expected == 4


def test_cpu_times_are_labelled() -> None:
    assert _measure(Scripted(info=replace(INFO, device="cpu")), _stage()).notes == ("measured on CPU",)
    assert _measure(Scripted(), _stage()).notes == ()


def test_a_request_beyond_the_context_is_not_measured() -> None:
    with pytest.raises(CouldNotMeasure, match="is 132, expected at most the model's context of 128 tokens"):
        _measure(Scripted(), _stage(prompt_tokens=127))


def test_a_block_number_is_required() -> None:
    with pytest.raises(ValueError, match=r"context\.block is None"):
        _measure(Scripted(), _stage(), block=None)


def test_blocks_run_a_b_b_a() -> None:
    order = [role for pair in profile.block_order(4) for role in pair]
    a, b = Role.BASELINE, Role.CANDIDATE
    assert order == [a, b, b, a, a, b, b, a]
    assert profile.block_order(3) == ((a, b), (b, a), (a, b))
