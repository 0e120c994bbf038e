"""The profile stage on a model with a scripted clock: block values, single times, what fails alone, block order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from gate.backends import Arrival, Backend, BackendInfo, DeviceRates, Footprint, OutOfMemory, Served, Timing
from gate.decide.saturation import is_saturated
from gate.errors import BudgetExceeded, CouldNotMeasure
from gate.policy import ProfileStage
from gate.records import Estimand, Measurement, Role, merge
from gate.stages import Context, profile, profile_shape

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
FOOTPRINT = Footprint(
    weights_bytes=1000,
    weights_read_bytes=900,
    kv_bytes_per_token=2,
    flops_per_token=2000,
    kv_cache_reserved_bytes=None,
    kv_cache_tokens=None,
    max_sequences=None,
    device_memory_bytes=10_000,
)
BATCH = [
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
    "output_tokens_per_second",
    "requests_per_second",
    "ttft_p50_seconds",
    "tpot_p50_seconds",
    "e2e_p50_seconds",
]


class Watch:
    """A machine that is always the same."""

    def start(self) -> None: ...

    def finish(self) -> dict[str, float]:
        return {"cpu_load": 0.25}


class Scripted:
    """Takes `slow` times longer in its first runs of a batch size; 10 ms a step afterwards, one step of 50 ms.

    A request of a load takes `request_seconds` for its first token and for all others together.
    """

    def __init__(
        self,
        *,
        slow: tuple[float, ...] = (),
        fits: int = 64,
        info: BackendInfo = INFO,
        tokens: bool = True,
        joules: tuple[float, ...] = (),
        request_seconds: float | None = None,
    ) -> None:
        self.info = info
        self._slow = slow
        self._fits = fits
        self._tokens = tokens
        self._joules = joules
        self._request_seconds = request_seconds
        self.seeds: list[tuple[int, int]] = []
        self.served: list[tuple[tuple[Arrival, ...], int | None, int]] = []
        self.asked: list[str] = []

    def watch(self) -> Watch:
        return Watch()

    def timed_batch(self, *, batch_size: int, prompt_tokens: int, new_tokens: int, seed: int) -> Timing:
        if batch_size > self._fits:
            raise OutOfMemory(f"batch {batch_size} needs 99 GiB")
        self.asked.append("timed_batch")
        run = sum(b == batch_size for b, _ in self.seeds)
        self.seeds.append((batch_size, seed))
        factor = self._slow[run] if run < len(self._slow) else 1.0
        steps = [0.010 * factor] * (new_tokens - 1)
        steps[0] = 0.050 * factor
        return Timing(
            batch_size=batch_size,
            prompt_tokens=prompt_tokens,
            ttft_seconds=0.020 * batch_size * factor,
            step_seconds=tuple(steps) if self._tokens else (),
            energy_joules=self._joules[run % len(self._joules)] if self._joules else None,
        )

    def serve(self, arrivals: Sequence[Arrival], *, concurrency: int | None, seed: int) -> list[Served]:
        if self._request_seconds is None:
            raise CouldNotMeasure("serves no load")
        self.served.append((tuple(arrivals), concurrency, seed))
        free = 0.0
        served = []
        for arrival in arrivals:
            due = free if concurrency else arrival.at_seconds
            free = max(due, free) + self._request_seconds
            served.append(
                Served(
                    due_seconds=due,
                    first_token_seconds=free - self._request_seconds / 2,
                    last_token_seconds=free,
                    prompt_tokens=arrival.prompt_tokens,
                    new_tokens=arrival.new_tokens,
                )
            )
        return served

    def memory_bytes(self) -> Mapping[str, int]:
        self.asked.append("memory_bytes")
        return {
            "rss_peak_bytes": 1000,
            "vram_peak_bytes": 600,
            "vram_context_bytes": 200,
            "activation_peak_bytes": 69 * 8,
            "else_bytes": 1,
        }

    def footprint(self) -> Footprint:
        return FOOTPRINT

    def rates(self) -> DeviceRates:
        self.asked.append("rates")
        return DeviceRates(copy_bytes_per_second=3e9, matmul_flops_per_second=4e12)


def _stage(**settings: Any) -> ProfileStage:
    rule = {"metric": "decode_tokens_per_second", "min_retained": "95%"}
    defaults = {"kind": "profile", "name": "serving", "prompt_tokens": 64, "new_tokens": 5, "blocks": 5}
    if "lengths" in settings:
        del defaults["prompt_tokens"], defaults["new_tokens"]
    if "looks" in settings:
        del defaults["blocks"]
    return ProfileStage.model_validate(defaults | {"rules": [rule]} | settings)


def _measure(
    backend: Scripted,
    stage: ProfileStage,
    block: int | None = 0,
    role: Role = Role.BASELINE,
    *,
    again: bool = False,
    progress: list[tuple[int, int, str]] | None = None,
) -> Measurement:
    context = Context(
        role=role,
        base=Path(),
        settings_digest="settings",
        sample_seed="seed",
        order_seed="seed",
        artifacts=Path(),
        block=block,
        again=again,
        progress=lambda *said: None if progress is None else progress.append(said),
    )
    return merge(list(profile.measure(cast(Backend, backend), stage, context)))


def _values(measured: Measurement, group: str | None, item_id: str) -> dict[str, float]:
    return {o.metric: o.value for o in measured.observations if (o.group, o.item_id) == (group, item_id)}


def _singles(measured: Measurement, name: str, group: str) -> dict[str, float]:
    return {o.item_id: o.value for o in measured.observations if (o.metric, o.group) == (name, group)}


class TestShapes:
    def test_a_block_has_the_medians_of_its_runs(self) -> None:
        measured = _measure(Scripted(), _stage(), block=2)
        assert _values(measured, "batch=1", "block/2") == pytest.approx(
            {
                "prefill_tokens_per_second": 64 / 0.020,
                "decode_tokens_per_second": 4 / 0.080,
                "output_tokens_per_second": 5 / 0.100,
                "requests_per_second": 1 / 0.100,
                "ttft_p50_seconds": 0.020,
                "tpot_p50_seconds": 0.010,
                "e2e_p50_seconds": 0.100,
            }
        )
        eight = _values(measured, "batch=8", "block/2")
        assert eight["prefill_tokens_per_second"] == pytest.approx(8 * 64 / 0.160)
        assert eight["decode_tokens_per_second"] == pytest.approx(8 * 4 / 0.080)
        assert eight["output_tokens_per_second"] == pytest.approx(8 * 5 / 0.240)
        assert eight["requests_per_second"] == pytest.approx(8 / 0.240)
        assert (measured.n_expected, measured.n_reached, measured.failures) == (5, 1, ())

    def test_single_times_are_kept_by_run_and_step(self) -> None:
        measured = _measure(Scripted(), _stage(), block=2)
        runs = [f"block/2/run/{r}" for r in range(4)]
        assert _singles(measured, "ttft_sample_seconds", "batch=8") == pytest.approx(dict.fromkeys(runs, 0.160))
        assert _singles(measured, "e2e_sample_seconds", "batch=8") == pytest.approx(dict.fromkeys(runs, 0.240))
        assert _singles(measured, "tpot_sample_seconds", "batch=8") == pytest.approx(
            {f"{run}/step/{s}": 0.050 if s == 0 else 0.010 for run in runs for s in range(4)}
        )

    def test_pairs_of_lengths_are_groups_of_their_own(self) -> None:
        stage = _stage(lengths=["64+5", "16+3"], batch_sizes=[2])
        measured = _measure(Scripted(), stage)
        assert {o.group for o in measured.observations if o.group} == {"batch=2,64+5", "batch=2,16+3"}
        short = _values(measured, "batch=2,16+3", "block/0")
        assert short["prefill_tokens_per_second"] == pytest.approx(2 * 16 / 0.040)
        assert short["decode_tokens_per_second"] == pytest.approx(2 * 2 / 0.060)

    def test_at_least_twenty_runs_of_each_shape_at_the_first_look(self) -> None:
        for settings, runs in (({}, 4), ({"looks": [3, 8]}, 7), ({"blocks": 12}, 4)):
            measured = _measure(Scripted(), _stage(batch_sizes=[1], **settings))
            assert len(_singles(measured, "e2e_sample_seconds", "batch=1")) == runs

    def test_one_slow_run_does_not_move_the_block(self) -> None:
        backend = Scripted(slow=(1.0,) * 6 + (30.0,))  # five warm-ups, then the second of four
        values = _values(_measure(backend, _stage(batch_sizes=[1])), "batch=1", "block/0")
        assert values["decode_tokens_per_second"] == pytest.approx(4 / 0.080)
        assert values["ttft_p50_seconds"] == pytest.approx(0.020)

    def test_energy_is_a_sum_over_a_sum(self) -> None:
        backend = Scripted(joules=(3.0, 0.0, 6.0))  # a counter that moves too seldom for one run
        measured = _measure(backend, _stage(batch_sizes=[2], blocks=10, lengths=["64+5"]))
        # runs 5, 6, 7 and 8 of the script: 6 + 3 + 0 + 6 J for 4 × 2 × 5 tokens
        assert _values(measured, "batch=2", "block/0")["joules_per_output_token"] == pytest.approx(15 / 40)

    def test_energy_that_nothing_counts_is_left_out(self) -> None:
        for backend in (Scripted(), Scripted(joules=(0.0,))):
            values = _values(_measure(backend, _stage(batch_sizes=[1])), "batch=1", "block/0")
            assert sorted(values) == sorted(BATCH)


class TestWarmUp:
    def test_warms_up_until_runs_agree_and_no_such_run_counts(self) -> None:
        steady = Scripted()
        _measure(steady, _stage(batch_sizes=[1]))
        assert len(steady.seeds) == 5 + 4
        cold = Scripted(slow=(9.0, 4.0, 2.0, 1.5))
        measured = _measure(cold, _stage(batch_sizes=[1]))
        assert len(cold.seeds) == 8 + 4, "four of the last five agree, and show no trend"
        assert set(_singles(measured, "ttft_sample_seconds", "batch=1").values()) == {0.020}

    def test_is_capped_and_says_so(self) -> None:
        never = Scripted(slow=tuple(1.2**k for k in range(60, 0, -1)))
        measured = _measure(never, _stage(batch_sizes=[1]))
        assert len(never.seeds) == 20 + 4
        assert "batch=1 did not become steady in 20 warm-up runs: its times may drift" in measured.notes
        assert not any("steady" in note for note in _measure(Scripted(), _stage()).notes)

    def test_is_short_where_this_process_ran_the_shape_before(self) -> None:
        backend = Scripted()
        _measure(backend, _stage(batch_sizes=[1]), block=0)
        for ran, block in enumerate((1, 2), start=1):
            _measure(backend, _stage(batch_sizes=[1]), block=block)
            assert len(backend.seeds) == 9 + ran * (2 + 4)
        reloaded = Scripted()
        _measure(reloaded, _stage(batch_sizes=[1]), block=3)
        assert len(reloaded.seeds) == 5 + 4

    def test_is_long_for_other_lengths_of_the_same_batch_size(self) -> None:
        """Another stage of the same process calls them `batch=1`, too."""
        backend = Scripted()
        _measure(backend, _stage(batch_sizes=[1]))
        _measure(backend, _stage(batch_sizes=[1], prompt_tokens=32))
        assert len(backend.seeds) == 2 * (5 + 4)

    def test_is_long_for_another_mix_of_the_same_load(self) -> None:
        backend = Scripted(request_seconds=0.01)
        loads = {"loads": [{"rate": 2}], "mix": ["8+5"]}
        for mix, warm_ups in ((["8+5"], 5), (["16+3"], 5), (["8+5"], 2)):
            before = len(backend.served)
            _measure(backend, _stage(serving=loads | {"mix": mix}))
            assert len(backend.served) - before == warm_ups + 1


class TestSeeds:
    def test_both_roles_time_the_same_prompts_and_every_run_its_own(self) -> None:
        baseline, candidate = Scripted(), Scripted(slow=(9.0, 4.0, 2.0))
        _measure(baseline, _stage(batch_sizes=[1]))
        _measure(candidate, _stage(batch_sizes=[1]), role=Role.CANDIDATE)
        assert baseline.seeds[-4:] == candidate.seeds[-4:]
        assert len(set(candidate.seeds)) == len(candidate.seeds)
        again = Scripted()
        _measure(again, _stage(batch_sizes=[1]), again=True)
        assert not set(again.seeds) & set(baseline.seeds)

    def test_shapes_are_shuffled_for_each_block_alike_for_both_roles(self) -> None:
        def order(block: int, role: Role) -> list[int]:
            backend = Scripted()
            _measure(backend, _stage(batch_sizes=[1, 2, 4, 8]), block=block, role=role)
            return list(dict.fromkeys(batch for batch, _ in backend.seeds))

        orders = [order(block, Role.BASELINE) for block in range(6)]
        assert orders == [order(block, Role.CANDIDATE) for block in range(6)]
        assert len(set(map(tuple, orders))) > 1
        assert all(sorted(each) == [1, 2, 4, 8] for each in orders)


class TestDescription:
    def test_memory_and_sizes_are_read_once_per_block(self) -> None:
        measured = _measure(Scripted(), _stage(), block=1)
        # 8 sequences of 69 tokens, activations of 8 bytes a token; (10,000 − 1000 − 200) // (69 · (2 + 1))
        assert _values(measured, None, "run/1") == {
            "load_seconds": 1.5,
            "rss_peak_bytes": 1000,
            "vram_peak_bytes": 600,
            "vram_context_bytes": 200,
            "activation_peak_bytes": 69 * 8,
            "weights_bytes": 1000,
            "weights_read_bytes": 900,
            "kv_bytes_per_token": 2,
            "kv_cache_bytes": 2 * 69 * 8,
            "max_batch_at_context": 42,
            "flops_per_token": 2000,
            "context_tokens": 69,
            "memory_budget_bytes": 10_000,
            "computes_in_bfloat16": 1,
        }

    def test_the_backend_knows_the_gpu_where_nvml_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = Scripted(info=replace(INFO, compute_capability=8.6, dtype="float16"))
        found = _values(_measure(backend, _stage(), block=1), None, "run/1")
        assert found["gpu_compute_capability"] == 8.6
        assert [name for name in found if name.startswith("computes_in_")] == ["computes_in_float16"]
        monkeypatch.setattr("gate.machine.facts.facts", lambda device, uuids: {"gpu_compute_capability": 8.0})
        found = _values(_measure(backend, _stage(), block=1), None, "run/1")
        assert found["gpu_compute_capability"] == 8.0, "NVML knows all that hold the model"

    def test_the_device_and_the_looks_are_described_in_the_first_block_alone(self) -> None:
        backend = Scripted()
        measured = _measure(backend, _stage(looks=[3, 6, 9]))
        assert _values(measured, None, "run/0")["copy_bytes_per_second"] == 3e9
        assert _values(measured, None, "run/0")["matmul_flops_per_second"] == 4e12
        looks = {o.item_id: o.value for o in measured.observations if o.metric == "look_pairs"}
        assert looks == {"look/0": 3, "look/1": 6, "look/2": 9}
        assert measured.n_expected == 9
        assert backend.asked[0] == "rates", "what it takes must not be in the peaks of serving"
        later = _measure(backend, _stage(looks=[3, 6, 9]), block=1)
        assert backend.asked.count("rates") == 1
        assert not {"look_pairs", "copy_bytes_per_second"} & {o.metric for o in later.observations}

    def test_the_machine_is_watched_for_the_length_of_the_block(self) -> None:
        measured = _measure(Scripted(), _stage(), block=3)
        assert _values(measured, None, "block/3") == {"cpu_load": 0.25}

    def test_without_a_watch_of_its_own_this_machine_is_watched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[str, Sequence[str]]] = []

        def watch(device: str, uuids: Sequence[str]) -> Watch:
            asked.append((device, uuids))
            return Watch()

        monkeypatch.setattr(profile, "Watch", watch)
        monkeypatch.delattr(Scripted, "watch")
        measured = _measure(Scripted(info=replace(INFO, device_uuids=("GPU-1",))), _stage())
        assert asked == [("cuda", ("GPU-1",))]
        assert _values(measured, None, "block/0") == {"cpu_load": 0.25}

    def test_a_second_measurement_is_timing_alone_and_merges_with_the_first(self) -> None:
        first = _measure(Scripted(), _stage(), block=0)
        backend = Scripted()
        again = _measure(backend, _stage(), block=0, again=True)
        assert {o.item_id.split("/")[0] for o in again.observations} == {"again"}
        assert not {"rates", "memory_bytes"} & set(backend.asked)
        merged = merge([first, again])
        assert (merged.n_reached, merged.n_expected) == (1, 5)
        assert _values(merged, "batch=1", "again/0") == _values(merged, "batch=1", "block/0")

    def test_a_server_has_no_load_time_of_its_own(self) -> None:
        measured = _measure(Scripted(info=replace(INFO, device="server")), _stage(batch_sizes=[1]), block=0)
        assert "load_seconds" not in {o.metric for o in measured.observations}
        assert not {m.name for m in measured.metrics if m.estimand is Estimand.SCALAR}

    def test_cpu_times_are_labelled(self) -> None:
        assert "measured on CPU" in _measure(Scripted(info=replace(INFO, device="cpu")), _stage()).notes
        assert "measured on CPU" not in _measure(Scripted(), _stage()).notes


class TestDeclared:
    @pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "server"])
    def test_every_observation_is_declared_and_all_blocks_declare_the_same(self, device: str) -> None:
        backend = Scripted(info=replace(INFO, device=device), request_seconds=0.1, joules=(1.0,))
        stage = _stage(serving={"loads": [{"rate": 4}], "mix": ["8+4"]})
        blocks = [_measure(backend, stage, block=k, again=again) for again in (False, True) for k in range(3)]
        merged = merge(blocks)  # raises where they differ
        assert {o.metric for o in merged.observations} <= {m.observed for m in merged.metrics}

    def test_a_cpu_declares_nothing_of_gpus_and_the_gate_knows_the_disk(self) -> None:
        cpu = {m.name for m in _measure(Scripted(info=replace(INFO, device="cpu"), joules=(1.0,)), _stage()).metrics}
        cuda = {m.name for m in _measure(Scripted(), _stage()).metrics}
        assert {"vram_peak", "load_vram_peak", "joules_per_output_token", "gpu_power_watts"} <= cuda - cpu
        assert "rss_peak" in cpu & cuda
        assert "disk_bytes" not in cpu | cuda
        assert "goodput_requests_per_second" not in cpu | cuda, "that is of loads"


class TestFailures:
    def test_a_batch_that_does_not_fit_fails_alone(self) -> None:
        measured = _measure(Scripted(fits=1), _stage(), block=2)
        (failure,) = measured.failures
        assert (failure.item_id, failure.kind) == ("block/2/batch=8", "out_of_memory")
        assert failure.message == "batch 8 needs 99 GiB"
        assert sorted(_values(measured, "batch=1", "block/2")) == sorted(BATCH)
        assert not [o for o in measured.observations if o.group == "batch=8"]

    def test_nothing_fits(self) -> None:
        measured = _measure(Scripted(fits=0), _stage())
        assert sorted(f.item_id for f in measured.failures) == ["block/0/batch=1", "block/0/batch=8"]
        assert "max_batch_at_context" not in _values(measured, None, "run/0")
        assert _values(measured, None, "run/0")["weights_bytes"] == 1000

    def test_no_tokens_is_a_failure_of_its_own(self) -> None:
        measured = _measure(Scripted(tokens=False), _stage(batch_sizes=[1]), again=True)
        (failure,) = measured.failures
        assert (failure.item_id, failure.kind) == ("again/0/batch=1", "no_tokens")
        assert failure.message.startswith("no token came after the first")

    def test_lengths_beyond_the_context_fail_alone(self) -> None:
        measured = _measure(Scripted(), _stage(lengths=["64+5", "127+5"], batch_sizes=[2]))
        (failure,) = measured.failures
        assert (failure.item_id, failure.kind) == ("block/0/batch=2,127+5", "too_long")
        assert (
            failure.message == "prompt_tokens + new_tokens is 132, expected at most the model's context of 128 tokens"
        )
        assert sorted(_values(measured, "batch=2,64+5", "block/0")) == sorted(BATCH)

    def test_nothing_is_measured_where_everything_is_beyond_the_context(self) -> None:
        with pytest.raises(CouldNotMeasure, match="is 132, expected at most the model's context of 128 tokens"):
            _measure(Scripted(), _stage(prompt_tokens=127))
        loads = {"loads": [{"rate": 1}], "mix": ["8+4", "200+16"]}
        with pytest.raises(CouldNotMeasure, match="is 216, expected"):
            _measure(Scripted(), _stage(prompt_tokens=127, serving=loads))

    def test_another_error_of_the_backend_is_not_swallowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object, **__: object) -> Timing:
            raise RuntimeError("CUDA error: device lost")

        monkeypatch.setattr(Scripted, "timed_batch", broken)
        with pytest.raises(RuntimeError, match="device lost"):
            _measure(Scripted(), _stage())

    def test_a_block_number_is_required(self) -> None:
        with pytest.raises(ValueError, match=r"context\.block is None"):
            _measure(Scripted(), _stage(), block=None)


class TestLoads:
    LOADS: ClassVar[dict[str, Any]] = {
        "loads": [{"rate": 2, "requests": 9}, {"concurrency": 2, "requests": 8}],
        "mix": ["8+5", "16+3"],
    }

    def test_an_open_load_below_capacity(self) -> None:
        backend = Scripted(request_seconds=0.01)
        measured = _measure(backend, _stage(batch_sizes=[1], serving=self.LOADS), block=1)
        values = _values(measured, "load=open:2", "block/1")
        arrivals = next(a for a, concurrency, _ in backend.served if concurrency is None)
        came = arrivals[-1].at_seconds
        assert values["offered_requests_per_second"] == pytest.approx(9 / came)
        assert values["requests_per_second"] == pytest.approx(9 / (came + 0.01), rel=0.01)
        assert values["goodput_requests_per_second"] == values["requests_per_second"]
        assert values["load_lag"] == pytest.approx(0.0, abs=0.1)
        assert values["ttft_p50_seconds"] == pytest.approx(0.005)
        assert values["e2e_p50_seconds"] == pytest.approx(0.01)
        singles = _singles(measured, "e2e_sample_seconds", "load=open:2")
        assert list(singles) == [f"block/1/request/{i}" for i in range(9)]
        assert measured.failures == ()

    def test_a_load_beyond_capacity_keeps_its_latencies_beside_its_lag(self) -> None:
        measured = _measure(Scripted(request_seconds=5.0), _stage(batch_sizes=[1], serving=self.LOADS), block=1)
        values = _values(measured, "load=open:2", "block/1")
        came = 9 / values["offered_requests_per_second"]
        assert values["load_lag"] == pytest.approx((9 * 5.0 - came) / (came / 3), rel=0.3)
        assert is_saturated([values["load_lag"]])
        assert values["requests_per_second"] == pytest.approx(0.2, rel=0.1)
        assert values["e2e_p50_seconds"] > 10
        assert len(_singles(measured, "e2e_sample_seconds", "load=open:2")) == 9
        assert measured.failures == ()
        closed = _values(measured, "load=closed:2", "block/1")
        assert closed["e2e_p50_seconds"] == pytest.approx(5.0), "a closed loop cannot be offered too much"
        assert "load_lag" not in closed

    def test_time_that_runs_out_ends_the_block_and_is_no_load_that_nobody_serves(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def late(*_: object, **__: object) -> list[Served]:
            raise BudgetExceeded("ran for 60 s, expected at most 60 s")

        monkeypatch.setattr(Scripted, "serve", late)
        with pytest.raises(BudgetExceeded, match="at most 60 s"):
            _measure(Scripted(request_seconds=0.01), _stage(batch_sizes=[1], serving=self.LOADS))

    def test_every_request_is_the_same_for_both_roles_and_another_in_each_block(self) -> None:
        def plans(block: int, role: Role) -> list[tuple[Arrival, ...]]:
            backend = Scripted(request_seconds=0.01)
            _measure(backend, _stage(serving=self.LOADS), block=block, role=role)
            return [arrivals for arrivals, concurrency, _ in backend.served if concurrency != 1]

        assert plans(0, Role.BASELINE) == plans(0, Role.CANDIDATE)
        assert plans(0, Role.BASELINE) != plans(1, Role.BASELINE)
        assert Counter(map(len, plans(0, Role.BASELINE))) == {9: 1, 8: 1}

    def test_a_load_is_warmed_up_by_one_request_of_each_kind_at_a_time(self) -> None:
        backend = Scripted(request_seconds=0.01)
        _measure(backend, _stage(serving={**self.LOADS, "loads": [{"rate": 2}]}))
        *warm_ups, (_, concurrency, _) = backend.served
        assert concurrency is None
        kinds = [[(a.prompt_tokens, a.new_tokens) for a in arrivals] for arrivals, at_once, _ in warm_ups if at_once]
        assert kinds == [[(8, 5), (16, 3)]] * 5
        assert len({seed for _, _, seed in backend.served}) == len(backend.served)

    def test_a_backend_that_serves_no_load_fails_there_alone(self) -> None:
        measured = _measure(Scripted(), _stage(batch_sizes=[1], serving=self.LOADS))
        found = {(f.item_id, f.kind, f.message) for f in measured.failures}
        groups = ("load=open:2", "load=closed:2")
        assert found == {(f"block/0/{group}", "not_served", "serves no load") for group in groups}
        assert sorted(_values(measured, "batch=1", "block/0")) == sorted(BATCH)

    def test_a_mix_beyond_the_context_fails_alone(self) -> None:
        loads = {**self.LOADS, "mix": ["8+5", "125+5"]}
        measured = _measure(Scripted(request_seconds=0.01), _stage(serving=loads))
        assert {f.kind for f in measured.failures} == {"too_long"}
        assert len(measured.failures) == 2

    def test_that_no_load_is_served_at_all_is_said_before_a_mix_is_too_long(self) -> None:
        measured = _measure(Scripted(), _stage(serving={**self.LOADS, "mix": ["8+5", "125+5"]}))
        assert [(f.kind, f.message) for f in measured.failures] == [("not_served", "serves no load")] * 2


def test_progress_ends_with_everything_done() -> None:
    said: list[tuple[int, int, str]] = []
    _measure(Scripted(), _stage(), block=2, progress=said)
    assert [done for done, _, _ in said] == sorted(done for done, _, _ in said)
    assert said[-1] == (2, 2, "block/2")
    assert {label for _, _, label in said} == {"block/2, batch=1", "block/2, batch=8", "block/2"}


def test_steps_are_thinned_evenly_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_shape, "STEP_SAMPLES", 60)
    monkeypatch.setattr(profile_shape, "LEAST_STEP_SAMPLES", 2)
    stage = _stage(batch_sizes=[1], new_tokens=11)  # 5 blocks of 4 runs: 3 of 10 steps each
    measured = _measure(Scripted(), stage)
    kept = _singles(measured, "tpot_sample_seconds", "batch=1")
    assert list(kept)[:3] == [f"block/0/run/0/step/{s}" for s in (1, 5, 8)]
    assert len(kept) == 4 * 3
    assert "batch=1: the single times of 3 of 10 steps of each run are kept, evenly spread" in measured.notes


def test_blocks_of_one_role_merge_into_one_measurement() -> None:
    backend = Scripted()
    merged = merge([_measure(backend, _stage(), block=k) for k in range(5)])
    rates = [o for o in merged.observations if (o.metric, o.group) == ("decode_tokens_per_second", "batch=1")]
    assert [o.item_id for o in rates] == [f"block/{k}" for k in range(5)]
    assert (merged.n_expected, merged.n_reached) == (5, 5)


def test_blocks_run_a_b_b_a() -> None:
    order = [role for pair in profile.block_order(4) for role in pair]
    a, b = Role.BASELINE, Role.CANDIDATE
    assert order == [a, b, b, a, a, b, b, a]
    assert profile.block_order(3) == ((a, b), (b, a), (a, b))
