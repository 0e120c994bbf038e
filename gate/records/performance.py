"""What a profile stage found besides its findings: latency, throughput, memory, cost and the limits of the device.

Pure: frozen data.  Nothing here decides; rules on the same numbers are findings.  `None` is "does not apply here" or
"not measured", and `Performance.remarks` says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gate.records.words import Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Percentiles:
    """Percentiles of `n` single times, in seconds.

    Attributes:
        seconds: `p50`, `p90`, `p95`, `p99`, `p999`: those that `n` samples support.
        needed: the others, with the number of samples that would support them.
        histogram: (upper edge in seconds, samples up to it and above the edge before), edges ascending.
    """

    n: int
    seconds: Mapping[str, float]
    needed: Mapping[str, int]
    histogram: tuple[tuple[float, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Speeds:
    """One role at one shape or under one load (`group`: `batch=8`, `batch=8,1024+64`, `load=open:4`).

    Rates are geometric means over blocks (goodput and offered: arithmetic, as they may be 0); `requests` are batches
    times their size.  `decode_limit` is the time that reading weights and key/value cache would take at the measured
    copy bandwidth over the time a step took, and `prefill_limit` the same with the measured matmul rate: 1 would be
    all that the device can do.  Costs are in the currency of the policy's price; `offered_requests_per_second` and what
    follows are of loads.  `saturated` is of open loops: where it is true, there are no latencies.
    """

    role: Role
    group: str
    batch_size: int | None
    prompt_tokens: int | None
    new_tokens: int | None
    blocks: int
    ttft: Percentiles
    tpot: Percentiles
    e2e: Percentiles
    prefill_tokens_per_second: float | None
    decode_tokens_per_second: float | None
    output_tokens_per_second: float
    requests_per_second: float
    joules_per_output_token: float | None
    decode_limit: float | None
    prefill_limit: float | None
    cost_per_million_output_tokens: float | None
    quality_adjusted_cost: float | None
    cost_with_quantization: float | None
    quality_adjusted_cost_with_quantization: float | None
    offered_requests_per_second: float | None
    goodput_requests_per_second: float | None
    saturated: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """One role's memory, taken apart; `parts` add up to what the device must hold at `context_tokens` × `batch_size`.

    Attributes:
        parts: bytes of `weights`, `activations`, `kv_cache`, and on a GPU `context` and `unused` (reserved by the
            allocator and not in use).  Activations are their measured peak in proportion to the tokens held, except for
            an engine, which bounds the tokens of a step: there they are as measured, and nothing is `unused`, since
            what an engine sets aside and leaves idle is free for more sequences.
        peaks: bytes as measured: `rss`, `vram`, `vram_reserved`, `vram_process`, `loading_rss`, `loading_vram`,
            `activations` (of the largest batch that ran), and of an engine `idle` (reserved and not in use).
        budget_bytes: that of the policy, else the device's memory.
        reserved_kv_bytes: what an engine set aside for the key/value cache whether it is used or not.
    """

    role: Role
    parts: Mapping[str, int]
    peaks: Mapping[str, int]
    kv_bytes_per_token: int | None
    context_tokens: int
    batch_size: int
    budget_bytes: int | None
    max_batch_at_context: int | None
    reserved_kv_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How this device runs a checkpoint's format: `native`, `dequantized` (before it computes) or `unknown`."""

    role: Role
    format: str
    device: str
    runs: str
    why: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputLength:
    """Tokens per answer on one source, candidate over baseline, with its interval; `outside` the policy's range."""

    stage: str
    source: str
    baseline_tokens: float
    candidate_tokens: float
    ratio: float
    low: float
    high: float
    n: int
    outside: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """One profile stage.

    Attributes:
        device: `cpu`, `cuda` or `server`; figures of a CPU are labelled as such wherever they are shown.
        copy_bytes_per_second, matmul_flops_per_second: what the device was measured to do.
        confirmed: for each timing rule that was red at first, whether a second, fresh measurement found the same.
        repeated_blocks: pairs of blocks that were measured again because something disturbed them.
        disturbed_blocks: blocks of either role that stayed disturbed: times and rates are not to be relied on.
        conditions: what the machine was like, a line each.
        remarks: what a reader should know, a sentence each: what stands out first.
    """

    stage: str
    device: str
    device_names: tuple[str, ...]
    copy_bytes_per_second: float | None
    matmul_flops_per_second: float | None
    speeds: tuple[Speeds, ...]
    memory: tuple[Memory, ...]
    fits: tuple[Fit, ...]
    confirmed: Mapping[str, bool]
    repeated_blocks: int
    disturbed_blocks: int
    conditions: tuple[str, ...]
    remarks: tuple[str, ...]
