"""Latency, throughput, energy, cost and the limits of the device, for each shape and load of a profile stage.

Pure.  Describes what was measured; rules on the same numbers are judged elsewhere.

A percentile q is given where its distribution-free one-sided 95 % upper limit exists, which is where the largest of n
samples exceeds it with probability 1 − qⁿ ≥ 95 % [1].

References:
    [1] G. J. Hahn, W. Q. Meeker, Statistical Intervals (1991), section 5.2.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from gate.decide.performance_values import Values, device_rate
from gate.decide.saturation import is_saturated
from gate.metrics import QUANTILES
from gate.policy import Policy, ProfileStage
from gate.policy_profile import Shape
from gate.records import Percentiles, Quality, Role, Speeds

TAIL_MISSED = 0.05
"""How often the samples of a percentile that is given may all lie below it: the usual 95 % confidence."""

BINS = 24
"""Of a histogram: enough to see two humps in a picture of 300 pixels, few enough to keep in a record."""

SECONDS_AN_HOUR = 3600
MILLION = 1_000_000
_NONE = Percentiles(n=0, seconds={}, needed={}, histogram=())


def speeds(stage: ProfileStage, roles: Mapping[Role, Values], policy: Policy, quality: Quality | None) -> list[Speeds]:
    """One for each role and group that was measured: shapes and loads in the policy's order, baseline first."""
    shapes = {stage.group(shape): shape for shape in stage.shapes}
    loads = [] if stage.serving is None else [f"load={load.name}" for load in stage.serving.loads]
    rates = _Rates(roles)
    found = []
    for group in dict.fromkeys((*shapes, *loads)):
        edges = {what: bin_edges(_times(values, what, group) for values in roles.values()) for what in _TIMES}
        for role, values in roles.items():
            one = _speeds(role, group, shapes.get(group), values, edges, rates)
            if one is not None:
                found.append(_priced(one, policy, quality))
    return found


_TIMES = ("ttft", "tpot", "e2e")


class _Rates:
    """What the device can do, once for both roles: the same figure then has the same limit."""

    def __init__(self, roles: Mapping[Role, Values]) -> None:
        self.copy = device_rate(roles.values(), "copy_bytes_per_second")
        self.matmul = device_rate(roles.values(), "matmul_flops_per_second")


def _times(values: Values, what: str, group: str) -> tuple[float, ...]:
    """Single times, ascending; none under a load that was saturated: they grow with the length of the measurement."""
    return () if _saturated(values, group) else values.samples(f"{what}_sample_seconds", group)


def _saturated(values: Values, group: str) -> bool | None:
    """None for shapes and closed loops, which cannot be."""
    lags = tuple(values.blocks("load_lag", group).values())
    return is_saturated(lags) if lags else None


def _speeds(
    role: Role,
    group: str,
    shape: Shape | None,
    values: Values,
    edges: Mapping[str, Sequence[float]],
    rates: _Rates,
) -> Speeds | None:
    output, requests = (values.mean(f"{name}_per_second", group) for name in ("output_tokens", "requests"))
    if output is None or requests is None:
        return None  # this shape did not run: the failures say why
    ttft, tpot, e2e = (percentiles(_times(values, what, group), edges[what]) for what in _TIMES)
    return Speeds(
        role=role,
        group=group,
        batch_size=None if shape is None else shape.batch_size,
        prompt_tokens=None if shape is None else shape.prompt_tokens,
        new_tokens=None if shape is None else shape.new_tokens,
        blocks=len(values.blocks("output_tokens_per_second", group)),
        ttft=ttft,
        tpot=tpot,
        e2e=e2e,
        prefill_tokens_per_second=values.mean("prefill_tokens_per_second", group),
        decode_tokens_per_second=values.mean("decode_tokens_per_second", group),
        output_tokens_per_second=output,
        requests_per_second=requests,
        joules_per_output_token=values.mean("joules_per_output_token", group),
        decode_limit=None if shape is None else _decode_limit(shape, group, values, rates),
        prefill_limit=None if shape is None else _prefill_limit(shape, group, values, rates),
        cost_per_million_output_tokens=None,
        quality_adjusted_cost=None,
        cost_with_quantization=None,
        quality_adjusted_cost_with_quantization=None,
        offered_requests_per_second=_average(values, "offered_requests_per_second", group),
        goodput_requests_per_second=_average(values, "goodput_requests_per_second", group),
        saturated=_saturated(values, group),
    )


def _average(values: Values, metric: str, group: str) -> float | None:
    """Arithmetic: a block without a single good request is a zero, of which there is no logarithm."""
    found = values.blocks(metric, group)
    return fmean(found.values()) if found else None


def samples_needed(q: float) -> int:
    """Samples from which on percentile `q` has an upper limit: 29 for p90, 59 for p95, 299 for p99, 2995 for p99.9."""
    return math.ceil(math.log(TAIL_MISSED) / math.log(q))


def percentiles(ascending: Sequence[float], edges: Sequence[float]) -> Percentiles:
    """Of single times in seconds, with how many lie in each of the bins that end at `edges`."""
    n = len(ascending)
    if not n:
        return _NONE
    needed = {name: samples_needed(q) for name, q in QUANTILES.items()}
    counted = [0, *(bisect_right(ascending, edge) for edge in edges)]
    return Percentiles(
        n=n,
        seconds={name: float(np.quantile(ascending, q)) for name, q in QUANTILES.items() if n >= needed[name]},
        needed={name: count for name, count in needed.items() if n < count},
        histogram=tuple((edge, counted[k + 1] - counted[k]) for k, edge in enumerate(edges)),
    )


def bin_edges(samples: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """Upper edges of bins of equal width in the logarithm, over all samples of both roles."""
    every = [value for ascending in samples for value in ascending if value > 0]
    if not every:
        return ()
    low, high = min(every), max(every)
    if low == high:
        return (high,)
    return (*(low * (high / low) ** (k / BINS) for k in range(1, BINS)), high)


def _decode_limit(shape: Shape, group: str, values: Values, rates: _Rates) -> float | None:
    """Time to read weights and key/value cache at the copy bandwidth, over the time that a step took.

    Step s of n − 1 reads the cache of prompt + s tokens of each sequence: prompt + n/2 on average.
    """
    read, kv, decode = (
        values.middle("weights_read_bytes"),
        values.middle("kv_bytes_per_token"),
        values.mean("decode_tokens_per_second", group),
    )
    if read is None or kv is None or decode is None or rates.copy is None:
        return None
    context_tokens = shape.prompt_tokens + shape.new_tokens / 2
    step_seconds = shape.batch_size / decode
    return (read + shape.batch_size * kv * context_tokens) / rates.copy / step_seconds


def _prefill_limit(shape: Shape, group: str, values: Values, rates: _Rates) -> float | None:
    """Time that the matrices of all prompts take at the matmul rate, over the TTFT; attention is left out."""
    flops, ttft_seconds = values.middle("flops_per_token"), values.mean("ttft_p50_seconds", group)
    if flops is None or ttft_seconds is None or rates.matmul is None:
        return None
    return flops * shape.batch_size * shape.prompt_tokens / rates.matmul / ttft_seconds


def _priced(one: Speeds, policy: Policy, quality: Quality | None) -> Speeds:
    if policy.price_per_hour is None:
        return one
    cost = policy.price_per_hour / SECONDS_AN_HOUR / one.output_tokens_per_second * MILLION
    adjusted = with_quantization = both = None
    if quality is not None and quality.estimate > 0:
        adjusted = cost / quality.estimate if one.role is Role.CANDIDATE else cost
    if policy.quantization_cost is not None and one.role is Role.CANDIDATE:
        made = policy.quantization_cost
        with_quantization = cost + made.amount / made.output_tokens * MILLION
        if quality is not None and quality.estimate > 0:
            both = with_quantization / quality.estimate
    return replace(
        one,
        cost_per_million_output_tokens=cost,
        quality_adjusted_cost=adjusted,
        cost_with_quantization=with_quantization,
        quality_adjusted_cost_with_quantization=both,
    )
