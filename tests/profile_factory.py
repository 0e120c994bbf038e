"""Profile measurements made by hand, with the names that the stage gives them: no model, no clock.

`gpu` is an 8 B model in BF16 against W4A16 on one GPU, `cpu` a small one on a CPU, where W4A16 is slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from gate import metrics
from gate.decide.performance import describe
from gate.policy import Policy, ProfileStage
from gate.records import (
    CheckpointRef,
    Environment,
    Finding,
    ItemFailure,
    Measurement,
    Observation,
    Performance,
    Quality,
    Quantization,
    Role,
)

BLOCKS = 8
GIB = 2**30


def observation(metric: str, item_id: str, value: float, group: str | None = None) -> Observation:
    return Observation(metric=metric, item_id=item_id, value=value, weight=1.0, cluster=None, group=group)


def measurement(
    role: Role, observations: Iterable[Observation], failures: Iterable[ItemFailure] = (), *, blocks: int = BLOCKS
) -> Measurement:
    return Measurement(
        stage="serving",
        source="serving",
        role=role,
        settings_digest="d" * 64,
        n_expected=blocks,
        n_available=blocks,
        n_reached=blocks,
        planned_tokens=0,
        chance=None,
        metrics=tuple(metrics.PROFILE.values()),
        observations=tuple(observations),
        failures=tuple(failures),
        answers=(),
        seconds=1.0,
        notes=(),
    )


def blocks(metric: str, group: str | None, *values: float) -> list[Observation]:
    """One value a block."""
    return [observation(metric, f"block/{k}", value, group) for k, value in enumerate(values)]


def scalars(**values: float) -> list[Observation]:
    """Of one reading each."""
    return [observation(name, "run/0", value) for name, value in values.items()]


def stage(**settings: Any) -> ProfileStage:
    rules = [{"metric": "decode_tokens_per_second", "min_retained": "95%"}]
    return ProfileStage.model_validate({"kind": "profile", "name": "serving", "rules": rules} | settings)


def policy(profile: ProfileStage, **settings: Any) -> Policy:
    return Policy.model_validate({"version": 1, "stages": [profile.model_dump(exclude_unset=True)]} | settings)


def spread(middle: float, sigma: float, n: int) -> list[float]:
    """`n` values around `middle`, as a lognormal has them."""
    normal = NormalDist(0.0, sigma)
    return [middle * 2.718281828459045 ** normal.inv_cdf((i + 0.5) / n) for i in range(n)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """A shape: median times in seconds, and joules a token where something counts them."""

    group: str
    batch_size: int
    ttft_seconds: float
    tpot_seconds: float
    joules: float | None = None


def shape(profile: ProfileStage, pace: Pace, *, runs: int = 4) -> list[Observation]:
    """What the stage observes of a shape: block values, and all single times."""
    new, prompt = profile.new_tokens, profile.prompt_tokens
    wobble = spread(1.0, 0.012, BLOCKS)
    ttft = spread(pace.ttft_seconds, 0.05, BLOCKS * runs)
    tpot = spread(pace.tpot_seconds, 0.04, BLOCKS * runs * (new - 1))
    tpot[-1] *= 1.6  # a straggler
    seen = []
    for k in range(BLOCKS):
        first, step = pace.ttft_seconds * wobble[k], pace.tpot_seconds * wobble[k]
        whole = first + step * (new - 1)
        values = {
            "ttft_p50_seconds": first,
            "tpot_p50_seconds": step,
            "e2e_p50_seconds": whole,
            "prefill_tokens_per_second": pace.batch_size * prompt / first,
            "decode_tokens_per_second": pace.batch_size / step,
            "output_tokens_per_second": pace.batch_size * new / whole,
            "requests_per_second": pace.batch_size / whole,
        }
        if pace.joules is not None:
            values["joules_per_output_token"] = pace.joules
        seen += [observation(name, f"block/{k}", value, pace.group) for name, value in values.items()]
        for r in range(runs):
            run, own = f"block/{k}/run/{r}", ttft[k + r * BLOCKS]
            steps = tpot[k + r * BLOCKS :: BLOCKS * runs]
            seen.append(observation("ttft_sample_seconds", run, own, pace.group))
            seen.append(observation("e2e_sample_seconds", run, own + sum(steps), pace.group))
            seen += [observation("tpot_sample_seconds", f"{run}/step/{s}", t, pace.group) for s, t in enumerate(steps)]
    return seen


def load(name: str, *, requests_per_second: float, e2e_seconds: float, lag: float = 0.3) -> list[Observation]:
    """A serving load; an open one falls behind by `lag` on average, now more and now less."""
    group = f"load={name}"
    seen = []
    for k in range(BLOCKS):
        values = {
            "output_tokens_per_second": requests_per_second * 21,
            "requests_per_second": requests_per_second,
            "goodput_requests_per_second": requests_per_second * 0.9,
            "offered_requests_per_second": requests_per_second * (1.4 if lag > 1 else 1.0),
            "ttft_p50_seconds": e2e_seconds / 5,
            "tpot_p50_seconds": e2e_seconds / 26,
            "e2e_p50_seconds": e2e_seconds,
        }
        if name.startswith("open:"):
            values["load_lag"] = lag * (1.5 if k % 2 else 0.5)
        seen += [observation(metric, f"block/{k}", value, group) for metric, value in values.items()]
        for i, whole in enumerate(spread(e2e_seconds, 0.2, 32)):
            for metric, value in (("ttft", whole / 5), ("tpot", whole / 26), ("e2e", whole)):
                seen.append(observation(f"{metric}_sample_seconds", f"block/{k}/request/{i}", value, group))
    return seen


def refs(*, parameters: int, baseline_bytes: int, candidate_bytes: int) -> dict[Role, CheckpointRef]:
    def one(role: Role, weight_bytes: int, quantization: Quantization | None) -> CheckpointRef:
        digest = ("c" if role is Role.CANDIDATE else "b") * 64
        return CheckpointRef(
            role=role,
            uri="models/llama-8b" + ("-w4a16" if quantization else ""),
            revision=None,
            digest=digest,
            tensor_digest=digest,
            effective_digest=digest,
            tokenizer_digest="e" * 64,
            weight_bytes=weight_bytes,
            quantization=quantization,
            architecture="LlamaForCausalLM",
            n_parameters=parameters,
        )

    w4a16 = Quantization(method="compressed-tensors", bits=4, group_size=128, scheme="W4A16")
    return {
        Role.BASELINE: one(Role.BASELINE, baseline_bytes, None),
        Role.CANDIDATE: one(Role.CANDIDATE, candidate_bytes, w4a16),
    }


GPU = Environment(
    platform="Linux-6.1-x86_64",
    python="3.11.9",
    device="cuda",
    device_names=("NVIDIA Example 80GB",),
    driver="570.86",
    memory_bytes=80 * GIB,
    packages={"torch": "2.13.0", "vllm": "0.32.0"},
    git_commit=None,
    fingerprint="f" * 64,
)
CPU = replace(GPU, device="cpu", device_names=("Example CPU, 2 cores",), driver=None, memory_bytes=8 * GIB)

GPU_STAGE = stage(
    batch_sizes=[1, 8, 32],
    prompt_tokens=512,
    new_tokens=64,
    context_tokens=8192,
    memory_budget="48GiB",
    serving={"loads": [{"concurrency": 4}, {"concurrency": 16}, {"rate": 12}]},
)
CPU_STAGE = stage(batch_sizes=[1, 8], prompt_tokens=128, new_tokens=32)

_GPU_CONDITIONS = {"gpu_clock_share": 0.97, "gpu_temperature_celsius": 61.0, "gpu_power_watts": 402.0, "cpu_load": 0.03}
_CPU_CONDITIONS = {"cpu_clock_hertz": 2.6e9, "cpu_wait_share": 0.01, "cpu_load": 0.02}


def conditions(values: Mapping[str, float]) -> list[Observation]:
    drift = [1.0, 0.99, 0.995, 1.0, 1.01, 1.005, 1.0, 1.0]
    return [
        observation(name, f"block/{k}", value * drift[k] if value > 1 else value)
        for k in range(BLOCKS)
        for name, value in values.items()
    ]


def gpu(*, findings: Iterable[Finding] = (), quality: Quality | None = None, **settings: Any) -> Performance:
    """W4A16 of an 8 B model: faster at batch 1, slower to prefill, a third of the weights; one load saturates."""
    device = {"copy_bytes_per_second": 2.6e12, "matmul_flops_per_second": 6.5e14, "gpu_compute_capability": 9.0}
    both = {
        "kv_bytes_per_token": 131072.0,
        "flops_per_token": 1.5e10,
        "memory_budget_bytes": 80.0 * GIB,
        "kv_cache_bytes": 34359738368.0,
    } | device
    baseline = [
        *shape(GPU_STAGE, Pace(group="batch=1", batch_size=1, ttft_seconds=0.0212, tpot_seconds=0.0081, joules=3.9)),
        *shape(GPU_STAGE, Pace(group="batch=8", batch_size=8, ttft_seconds=0.121, tpot_seconds=0.0089, joules=0.61)),
        *shape(GPU_STAGE, Pace(group="batch=32", batch_size=32, ttft_seconds=0.46, tpot_seconds=0.0118, joules=0.24)),
        *load("closed:4", requests_per_second=5.1, e2e_seconds=0.78),
        *load("closed:16", requests_per_second=12.9, e2e_seconds=1.24),
        *load("open:12", requests_per_second=11.2, e2e_seconds=2.9, lag=2.4),
        *scalars(
            weights_bytes=16.06e9, weights_read_bytes=15.0e9, activation_peak_bytes=133593750, max_batch_at_context=28
        ),
        *scalars(
            vram_peak_bytes=22.4e9, vram_reserved_bytes=24.1e9, vram_process_bytes=24.9e9, load_rss_peak_bytes=17e9
        ),
        *scalars(vram_context_bytes=0.5e9, vram_unused_bytes=1.2e9, **both),
        *conditions(_GPU_CONDITIONS),
    ]
    candidate = [
        *shape(GPU_STAGE, Pace(group="batch=1", batch_size=1, ttft_seconds=0.0251, tpot_seconds=0.0041, joules=2.2)),
        *shape(GPU_STAGE, Pace(group="batch=8", batch_size=8, ttft_seconds=0.147, tpot_seconds=0.0055, joules=0.45)),
        *load("closed:4", requests_per_second=8.2, e2e_seconds=0.48),
        *load("closed:16", requests_per_second=14.8, e2e_seconds=1.07),
        *load("open:12", requests_per_second=11.9, e2e_seconds=1.3),
        *scalars(
            weights_bytes=5.73e9, weights_read_bytes=4.7e9, activation_peak_bytes=36914062, max_batch_at_context=36
        ),
        *scalars(
            vram_peak_bytes=12.2e9, vram_reserved_bytes=13.9e9, vram_process_bytes=14.6e9, load_rss_peak_bytes=7e9
        ),
        *scalars(vram_context_bytes=0.5e9, vram_unused_bytes=1.1e9, **both),
        *conditions(_GPU_CONDITIONS),
        observation("repeated", "block/3", 1.0),
    ]
    lost = [
        ItemFailure(item_id=f"block/{k}/batch=32", kind="out_of_memory", message="CUDA out of memory")
        for k in range(BLOCKS)
    ]
    return describe(
        GPU_STAGE,
        measurement(Role.BASELINE, baseline),
        measurement(Role.CANDIDATE, candidate, lost),
        policy=policy(GPU_STAGE, **settings),
        quality=quality,
        environment=GPU,
        refs=refs(parameters=8_030_000_000, baseline_bytes=16_060_000_000, candidate_bytes=5_730_000_000),
        findings=tuple(findings),
    )


def cpu(*, findings: Iterable[Finding] = (), quality: Quality | None = None) -> Performance:
    """W4A16 of a 50 M model: a quarter of the bytes, and slower, since every step dequantizes first."""
    device = {"copy_bytes_per_second": 2.1e10, "matmul_flops_per_second": 2.4e11}
    flags = {"cpu_has_avx512_vnni": 1.0, "cpu_has_amx_int8": 0.0, "cpu_has_avx512_bf16": 0.0, "cpu_has_avx2": 1.0}
    both = (
        {
            "kv_bytes_per_token": 24576.0,
            "flops_per_token": 8.5e7,
            "memory_budget_bytes": 8.0 * GIB,
            "kv_cache_bytes": 31457280.0,
        }
        | device
        | flags
    )
    baseline = [
        *shape(CPU_STAGE, Pace(group="batch=1", batch_size=1, ttft_seconds=0.071, tpot_seconds=0.0124)),
        *shape(CPU_STAGE, Pace(group="batch=8", batch_size=8, ttft_seconds=0.49, tpot_seconds=0.0201)),
        *scalars(weights_bytes=101e6, weights_read_bytes=85e6, activation_peak_bytes=41e6, max_batch_at_context=1900),
        *scalars(rss_peak_bytes=690e6, load_rss_peak_bytes=730e6, **both),
        *conditions(_CPU_CONDITIONS),
    ]
    candidate = [
        *shape(CPU_STAGE, Pace(group="batch=1", batch_size=1, ttft_seconds=0.083, tpot_seconds=0.0172)),
        *shape(CPU_STAGE, Pace(group="batch=8", batch_size=8, ttft_seconds=0.52, tpot_seconds=0.0252)),
        *scalars(weights_bytes=38e6, weights_read_bytes=26e6, activation_peak_bytes=44e6, max_batch_at_context=1930),
        *scalars(rss_peak_bytes=640e6, load_rss_peak_bytes=650e6, **both),
        *conditions(_CPU_CONDITIONS),
    ]
    return describe(
        CPU_STAGE,
        measurement(Role.BASELINE, baseline),
        measurement(Role.CANDIDATE, candidate),
        policy=policy(CPU_STAGE),
        quality=quality,
        environment=CPU,
        refs=refs(parameters=50_500_000, baseline_bytes=101_000_000, candidate_bytes=38_000_000),
        findings=tuple(findings),
    )
