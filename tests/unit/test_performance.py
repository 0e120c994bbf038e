"""The figures of a profile stage, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from gate.backends import Footprint
from gate.decide.performance import describe
from gate.decide.performance_speed import bin_edges, percentiles, samples_needed
from gate.policy import ProfileStage
from gate.records import ItemFailure, Memory, Observation, Performance, Role, Speeds, Status
from gate.stages.profile_memory import sizes
from tests import profile_factory as made
from tests import records_factory as factory

STAGE = made.stage(batch_sizes=[4], prompt_tokens=100, new_tokens=20, blocks=3)
GROUP = "batch=4"


def figures(
    baseline: list[Observation] | None,
    candidate: list[Observation] | None = None,
    *,
    stage: ProfileStage = STAGE,
    quality: float | None = None,
    failures: list[Any] | None = None,
    environment: Any = made.CPU,
    **policy: Any,
) -> Performance:
    return describe(
        stage,
        None if baseline is None else made.measurement(Role.BASELINE, baseline),
        None if candidate is None else made.measurement(Role.CANDIDATE, candidate, failures or ()),
        policy=made.policy(stage, **policy),
        quality=None if quality is None else factory.score(estimate=quality, low=quality, high=quality),
        environment=environment,
        refs=made.refs(parameters=1000, baseline_bytes=2000, candidate_bytes=600),
        findings=(),
    )


def ran(**values: float) -> list[Observation]:
    """A shape that ran, with what else was observed of it in each of two blocks."""
    known = {"output_tokens_per_second": 100.0, "requests_per_second": 5.0, **values}
    return [o for name, value in known.items() for o in made.blocks(name, GROUP, value, value)]


def only(found: Performance, role: Role = Role.BASELINE) -> Speeds:
    (one,) = [s for s in found.speeds if s.role is role]
    return one


def memory(found: Performance, role: Role = Role.BASELINE) -> Memory:
    (one,) = [m for m in found.memory if m.role is role]
    return one


# percentiles


@pytest.mark.parametrize(("q", "n"), [(0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299), (0.999, 2995)])
def test_a_percentile_needs_as_many_samples_as_give_it_an_upper_limit(q: float, n: int) -> None:
    assert samples_needed(q) == n
    assert q**n <= 0.05 < q ** (n - 1)


def test_percentiles_that_the_samples_do_not_support_say_how_many_it_takes() -> None:
    times = [0.001 * k for k in range(1, 59)]  # 1 to 58 ms
    found = percentiles(times, bin_edges([times]))
    assert found.n == 58
    assert found.seconds == pytest.approx({"p50": 0.0295, "p90": 0.0523})
    assert found.needed == {"p95": 59, "p99": 299, "p999": 2995}
    assert "p95" in percentiles([*times, 0.059], bin_edges([times])).seconds


def test_no_samples_are_no_percentiles() -> None:
    found = percentiles((), ())
    assert (found.n, dict(found.seconds), dict(found.needed), found.histogram) == (0, {}, {}, ())


def test_bins_are_shared_even_in_the_logarithm_and_hold_every_sample() -> None:
    baseline, candidate = (0.010, 0.011, 0.020), (0.012, 0.040)
    edges = bin_edges([baseline, candidate])
    assert len(edges) == 24
    assert edges[-1] == 0.040
    assert edges[1] / edges[0] == pytest.approx(4 ** (1 / 24))
    for times in (baseline, candidate):
        histogram = percentiles(times, edges).histogram
        assert [edge for edge, _ in histogram] == list(edges)
        assert sum(count for _, count in histogram) == len(times)
    # 11 ms lies 24·ln(1.1)/ln(4) = 1.65 bins from 10 ms; 20 ms, half way to 40 ms, closes the twelfth bin
    assert [k for k, (_, count) in enumerate(percentiles(baseline, edges).histogram) if count] == [0, 1, 11]


def test_equal_times_are_one_bin() -> None:
    assert percentiles((0.01, 0.01), bin_edges([(0.01, 0.01)])).histogram == ((0.01, 2),)


def test_single_times_are_pooled_over_blocks_without_the_second_measurement() -> None:
    seen = [
        made.observation("ttft_sample_seconds", f"block/{k}/run/{r}", 0.1 + k, GROUP) for k in (0, 1) for r in (0, 1, 2)
    ]
    seen.append(made.observation("ttft_sample_seconds", "again/0/run/0", 99.0, GROUP))
    found = only(figures([*ran(), *seen])).ttft
    assert found.n == 6
    assert found.seconds == {"p50": pytest.approx(0.6)}


# rates, limits, cost


def test_rates_are_geometric_means_over_blocks_of_the_first_measurement() -> None:
    seen = [
        *made.blocks("output_tokens_per_second", GROUP, 100.0, 400.0),
        *made.blocks("requests_per_second", GROUP, 2.0, 8.0),
        *made.blocks("decode_tokens_per_second", GROUP, 50.0, 200.0),
        made.observation("output_tokens_per_second", "again/0", 7.0, GROUP),
    ]
    found = only(figures(seen))
    assert found.output_tokens_per_second == pytest.approx(200.0)
    assert found.requests_per_second == pytest.approx(4.0)
    assert found.decode_tokens_per_second == pytest.approx(100.0)
    assert found.blocks == 2
    assert (found.batch_size, found.prompt_tokens, found.new_tokens) == (4, 100, 20)
    assert found.prefill_tokens_per_second is None
    assert found.joules_per_output_token is None


def test_the_decode_limit_is_the_time_to_read_over_the_time_of_a_step() -> None:
    seen = [
        *ran(decode_tokens_per_second=200.0),
        *made.scalars(weights_read_bytes=8e6, kv_bytes_per_token=1000.0, copy_bytes_per_second=1e9),
    ]
    # a step of 4 tokens takes 20 ms and reads 8 MB + 4 × 110 tokens × 1 kB = 8.44 MB, which takes 8.44 ms
    assert only(figures(seen)).decode_limit == pytest.approx(0.422)


def test_the_prefill_limit_is_the_time_to_multiply_over_the_time_to_the_first_token() -> None:
    seen = [*ran(ttft_p50_seconds=0.5), *made.scalars(flops_per_token=2e6, matmul_flops_per_second=4e9)]
    # 4 × 100 tokens of 2 MFLOP take 0.2 s
    assert only(figures(seen)).prefill_limit == pytest.approx(0.4)


@pytest.mark.parametrize("missing", ["weights_read_bytes", "kv_bytes_per_token", "copy_bytes_per_second"])
def test_a_limit_without_one_of_its_parts_is_not_known(missing: str) -> None:
    known = {"weights_read_bytes": 8e6, "kv_bytes_per_token": 1000.0, "copy_bytes_per_second": 1e9}
    seen = made.scalars(**{name: value for name, value in known.items() if name != missing})
    assert only(figures([*ran(decode_tokens_per_second=200.0), *seen])).decode_limit is None


def test_both_roles_have_the_same_device() -> None:
    def role(copy: float) -> list[Observation]:
        seen = made.scalars(weights_read_bytes=8e6, kv_bytes_per_token=1000.0, copy_bytes_per_second=copy)
        return [*ran(decode_tokens_per_second=200.0), *seen]

    found = figures(role(1e9), role(2e9))
    assert found.copy_bytes_per_second == 2e9
    assert only(found).decode_limit == only(found, Role.CANDIDATE).decode_limit == pytest.approx(0.211)


def test_cost_quality_and_quantization() -> None:
    found = figures(
        ran(), ran(), quality=0.8, price_per_hour=3.6, quantization_cost={"amount": 50, "output_tokens": 10_000_000}
    )
    # 3.60 an hour are 0.001 a second, in which 100 tokens are written: 10 for a million
    baseline, candidate = only(found), only(found, Role.CANDIDATE)
    assert baseline.cost_per_million_output_tokens == pytest.approx(10.0)
    assert baseline.quality_adjusted_cost == pytest.approx(10.0)
    assert baseline.cost_with_quantization is None
    assert candidate.cost_per_million_output_tokens == pytest.approx(10.0)
    assert candidate.quality_adjusted_cost == pytest.approx(12.5)
    assert candidate.cost_with_quantization == pytest.approx(15.0)
    assert candidate.quality_adjusted_cost_with_quantization == pytest.approx(18.75)
    assert baseline.quality_adjusted_cost_with_quantization is None


def test_without_a_price_there_is_no_cost_and_a_remark() -> None:
    found = figures(ran(), ran(), quality=0.8)
    assert only(found).cost_per_million_output_tokens is None
    assert only(found, Role.CANDIDATE).quality_adjusted_cost is None
    assert "The policy gives no price_per_hour, so there is no cost." in found.remarks


def test_without_a_quality_score_cost_is_not_adjusted() -> None:
    found = only(figures(None, ran(), price_per_hour=3.6), Role.CANDIDATE)
    assert found.cost_per_million_output_tokens == pytest.approx(10.0)
    assert found.quality_adjusted_cost is None


# loads


LOADED = made.stage(batch_sizes=[4], blocks=3, serving={"loads": [{"concurrency": 2}, {"rate": 4}]})


def test_latencies_under_a_saturated_load_are_not_given() -> None:
    seen = [*ran(), *made.load("closed:2", requests_per_second=3.0, e2e_seconds=0.5)]
    seen += made.load("open:4", requests_per_second=2.5, e2e_seconds=0.5, lag=2.0)
    by_group = {s.group: s for s in figures(seen, stage=LOADED).speeds}
    assert list(by_group) == ["batch=4", "load=closed:2", "load=open:4"]
    closed, opened = by_group["load=closed:2"], by_group["load=open:4"]
    assert (by_group["batch=4"].saturated, closed.saturated, opened.saturated) == (None, None, True)
    assert closed.ttft.n == closed.e2e.n == 8 * 32
    assert opened.ttft.n == opened.tpot.n == opened.e2e.n == 0
    assert opened.requests_per_second == pytest.approx(2.5)
    assert opened.offered_requests_per_second == pytest.approx(3.5)
    assert opened.goodput_requests_per_second == pytest.approx(2.25)
    assert (closed.batch_size, closed.prompt_tokens, closed.decode_limit) == (None, None, None)
    (said,) = [r for r in figures(seen, stage=LOADED).remarks if "saturated" in r]
    assert said.startswith("Served load open:4 was saturated for the baseline: requests queued up faster")


def test_a_load_that_one_checkpoint_keeps_up_with_is_a_loss_of_capacity() -> None:
    """A mean lag of 0.9 is chance (some blocks are far behind, too), one of 1.2 is not."""
    quick = [*ran(), *made.load("open:4", requests_per_second=3.9, e2e_seconds=0.5, lag=0.9)]
    slow = [*ran(), *made.load("open:4", requests_per_second=2.5, e2e_seconds=2.5, lag=1.2)]
    found = figures(quick, slow, stage=LOADED)
    by_role = {s.role: s for s in found.speeds if s.group == "load=open:4"}
    assert [by_role[role].saturated for role in Role] == [False, True]
    assert [by_role[role].ttft.n for role in Role] == [8 * 32, 0]
    assert any(
        r.startswith("The baseline keeps up with served load open:4 and the candidate does not") for r in found.remarks
    )
    assert not any("keeps up" in r for r in figures(slow, quick, stage=LOADED).remarks)


def test_a_block_without_a_good_request_counts_as_none() -> None:
    group = "load=open:4"
    seen = [
        *made.blocks("output_tokens_per_second", group, 10.0, 10.0),
        *made.blocks("requests_per_second", group, 1.0, 1.0),
        *made.blocks("goodput_requests_per_second", group, 0.0, 1.0),
    ]
    (found,) = figures(seen, stage=LOADED).speeds
    assert found.goodput_requests_per_second == 0.5


# what did not run


def test_a_shape_that_did_not_fit_has_no_figures_and_a_remark() -> None:
    stage = made.stage(batch_sizes=[4, 64], prompt_tokens=100, new_tokens=20, blocks=3)
    lost = [ItemFailure(item_id=f"block/{k}/batch=64", kind="out_of_memory", message="none left") for k in range(3)]
    found = figures(ran(), ran(), stage=stage, failures=lost)
    assert {s.group for s in found.speeds} == {"batch=4"}
    assert found.remarks[0] == "The candidate ran out of memory at batch 64 in 3 blocks: there are no figures for it."


def test_shapes_of_several_lengths_stand_in_the_order_of_the_policy() -> None:
    stage = made.stage(batch_sizes=[2, 1], lengths=["64+8", "128+8"], blocks=3)
    seen = [
        o
        for group in ("batch=1,64+8", "batch=2,128+8", "batch=2,64+8")
        for name in ("output_tokens_per_second", "requests_per_second")
        for o in made.blocks(name, group, 1.0)
    ]
    found = figures(seen, stage=stage)
    assert [(s.group, s.prompt_tokens) for s in found.speeds] == [
        ("batch=2,64+8", 64),
        ("batch=1,64+8", 64),
        ("batch=2,128+8", 128),
    ]


def test_nothing_measured_is_no_figure() -> None:
    found = figures(None, None)
    assert (found.speeds, found.memory) == ((), ())


# memory


def test_memory_is_what_the_context_and_the_largest_batch_take() -> None:
    seen = made.scalars(
        weights_bytes=1000.0,
        activation_peak_bytes=300.0,
        kv_cache_bytes=4800.0,
        kv_bytes_per_token=10.0,
        context_tokens=120.0,
        vram_peak_bytes=2000.0,
        load_vram_peak_bytes=1500.0,
        memory_budget_bytes=9000.0,
        max_batch_at_context=6.0,
    )
    found = memory(figures([*ran(), *seen, made.observation("vram_peak_bytes", "run/1", 2500.0)]))
    assert found.parts == {"weights": 1000, "activations": 300, "kv_cache": 4800}
    assert found.peaks == {"vram": 2500, "loading_vram": 1500, "activations": 300}
    assert (found.kv_bytes_per_token, found.context_tokens, found.batch_size) == (10, 120, 4)
    assert (found.budget_bytes, found.max_batch_at_context, found.reserved_kv_bytes) == (9000, 6, None)


def fitting(context_tokens: int, budget: int, batch_size: int) -> tuple[Memory, int | None]:
    """What a stage reads of a model without an engine, and the largest batch that it calculates."""
    stage = made.stage(
        batch_sizes=[1, batch_size],
        prompt_tokens=100,
        new_tokens=20,
        blocks=3,
        context_tokens=context_tokens,
        memory_budget=f"{budget}B",
    )
    footprint = Footprint(
        weights_bytes=2_000_003,
        weights_read_bytes=None,
        kv_bytes_per_token=1000,
        flops_per_token=None,
        kv_cache_reserved_bytes=None,
        kv_cache_tokens=None,
        max_sequences=None,
        device_memory_bytes=None,
        kv_block_tokens=None,
    )
    read = sizes(
        stage,
        footprint,
        {"activation_peak_bytes": 1_000_007, "vram_context_bytes": 77},
        largest_tokens=batch_size * 120,
        context_length=10_000,
        is_cuda=True,
    )
    seen = [
        *made.blocks("output_tokens_per_second", f"batch={batch_size}", 1.0),
        *made.blocks("requests_per_second", f"batch={batch_size}", 1.0),
        *made.scalars(**read.values),
    ]
    found = memory(figures(seen, stage=stage))
    return found, found.max_batch_at_context


def test_the_parts_fit_exactly_where_the_largest_batch_that_fits_is_no_smaller() -> None:
    found, _ = fitting(1600, 10**9, 8)
    # 1 000 007 bytes for 8 × 120 tokens are 13.33 times as many for 8 × 1600
    assert found.parts["activations"] == 13_333_427
    assert found.peaks["activations"] == 1_000_007
    together = sum(found.parts.values())
    assert fitting(1600, together, 8)[1] == 8
    assert fitting(1600, together - 1, 8)[1] == 7


def test_what_an_engine_sets_aside_and_leaves_idle_need_not_be_held() -> None:
    seen = made.scalars(
        weights_bytes=1000.0,
        activation_peak_bytes=300.0,
        kv_cache_bytes=48000.0,
        vram_unused_bytes=7000.0,
        reserved_kv_bytes=90000.0,
        context_tokens=1200.0,
    )
    found = memory(figures([*ran(), *seen]))
    # and its activations are those of a step, however large the batch
    assert found.parts == {"weights": 1000, "activations": 300, "kv_cache": 48000}
    assert found.peaks == {"activations": 300, "idle": 7000}
    assert found.reserved_kv_bytes == 90000
    alone = memory(figures([*ran(), *(o for o in seen if o.metric != "reserved_kv_bytes")]))
    assert (alone.parts["unused"], alone.parts["activations"]) == (7000, 3000)


def test_activations_are_not_known_where_no_batch_ran() -> None:
    found = memory(figures(made.scalars(weights_bytes=1000.0, activation_peak_bytes=300.0)))
    assert found.parts == {"weights": 1000}


def test_a_largest_batch_of_none_is_named() -> None:
    found = figures(made.scalars(weights_bytes=10.0, memory_budget_bytes=0.0, max_batch_at_context=0.0))
    assert (memory(found).budget_bytes, memory(found).max_batch_at_context) == (0, 0)
    assert any("fits 0 sequences" in r and "into 0 B, fewer" in r for r in found.remarks)


def test_the_budget_of_the_policy_goes_before_that_of_the_device() -> None:
    stage = made.stage(batch_sizes=[4], blocks=3, memory_budget="1KiB", context_tokens=512)
    found = memory(figures(made.scalars(weights_bytes=10.0, memory_budget_bytes=9000.0), stage=stage))
    assert (found.budget_bytes, found.context_tokens) == (1024, 512)


def test_too_small_a_budget_is_named() -> None:
    found = figures(made.scalars(weights_bytes=10.0, context_tokens=120.0, max_batch_at_context=3.0))
    assert any("fits 3 sequences of 120 tokens" in r and "largest batch of 4" in r for r in found.remarks)


# the machine and the rules


def test_conditions_are_ranges_over_the_blocks_of_both_roles() -> None:
    def role(*hertz: float) -> list[Observation]:
        return [made.observation("cpu_clock_hertz", f"block/{k}", value) for k, value in enumerate(hertz)]

    found = figures([*ran(), *role(2.5e9, 2.6e9)], [*ran(), *role(2.4e9, 2.45e9)])
    assert found.conditions == ("CPU clock 2.40 to 2.60 GHz",)


def test_a_pair_that_was_repeated_counts_once_whichever_role_says_so() -> None:
    again = [made.observation("repeated", "block/0", 2.0), made.observation("repeated", "block/2", 1.0)]
    assert figures([*ran(), *again], [*ran(), again[0]]).repeated_blocks == 3


def test_blocks_that_stayed_disturbed_are_named() -> None:
    seen = [made.observation("gpu_foreign_processes", f"block/{k}", float(k < 2)) for k in range(3)]
    (said,) = [r for r in figures([*ran(), *seen]).remarks if "disturbed" in r]
    assert "1 other process computed on the GPU (2×)" in said
    assert figures([*ran(), *seen]).disturbed_blocks == 2
    assert figures(ran()).disturbed_blocks == 0


def test_threads_that_waited_for_each_other_are_remarked() -> None:
    def seen(blocks: int) -> list[Observation]:
        crowd = {"cpu_wait_share": 0.5, "cpu_load": 0.01, "cpu_count": 2.0}
        return [made.observation(name, f"block/{k}", value) for k in range(blocks) for name, value in crowd.items()]

    (said,) = [r for r in figures([*ran(), *seen(3)]).remarks if "waited" in r]
    assert said == (
        "In 3 blocks the timed threads waited for CPUs that no other process used: set QUANTGATE_THREADS to the CPUs "
        "that this job has."
    )
    assert not any("disturbed" in r for r in figures([*ran(), *seen(3)]).remarks)
    assert any(r.startswith("In 1 block the") for r in figures([*ran(), *seen(1)]).remarks)


def test_what_was_confirmed_is_taken_from_the_counts() -> None:
    def found(metric: str, status: Status, counts: dict[str, float]) -> Any:
        return factory.finding(factory.rule("serving", metric), status, counts=counts)

    findings = [
        found("decode_tokens_per_second", Status.REGRESSION, {"confirmed": 1}),
        found("ttft_p50_seconds", Status.INCONCLUSIVE, {"confirmed": 0}),
        found("rss_peak", Status.PASS, {}),
    ]
    measured = made.measurement(Role.CANDIDATE, ran())
    described = describe(
        STAGE,
        None,
        measured,
        policy=made.policy(STAGE),
        quality=None,
        environment=made.CPU,
        refs={},
        findings=findings,
    )
    assert described.confirmed == {
        "serving.decode_tokens_per_second.max_drop": True,
        "serving.ttft_p50_seconds.max_drop": False,
    }
    assert any("ttft_p50_seconds" in r and "did not find it again" in r for r in described.remarks)


def test_each_checkpoint_has_its_format_and_how_the_device_runs_it() -> None:
    found = made.gpu()
    assert [(f.role, f.format, f.runs) for f in found.fits] == [
        (Role.BASELINE, "BF16", "native"),
        (Role.CANDIDATE, "INT4", "dequantized"),
    ]
    assert all(f.source for f in found.fits)


@pytest.mark.parametrize(("dtype", "format"), [("float16", "FP16"), ("bfloat16", "BF16"), ("float32", "FP32")])
def test_the_format_of_full_precision_is_what_it_computes_in(dtype: str, format: str) -> None:
    found = figures([*ran(), *made.scalars(**{f"computes_in_{dtype}": 1.0})], ran())
    assert found.fits[0].format == format


def test_what_it_computes_in_goes_by_the_policy_and_the_size_where_it_was_not_seen() -> None:
    assert figures(ran()).fits[0].format == "BF16"
