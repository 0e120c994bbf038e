"""Names, units, directions and estimands of what the stages report.

Pure data beside `records`.  lm-eval's metrics are not listed: their names and directions come from
the tasks, so the stage declares them in its measurement.
"""

from __future__ import annotations

from gate.records import BoundKind, Direction, Estimand, Metric

HIGHER, LOWER = Direction.HIGHER_IS_BETTER, Direction.LOWER_IS_BETTER


def _table(*rows: tuple[str, str, str, Direction, Estimand]) -> dict[str, Metric]:
    return {
        name: Metric(name=name, observed=observed, unit=unit, direction=direction, estimand=estimand)
        for name, observed, unit, direction, estimand in rows
    }


PERPLEXITY = _table(
    # observation values are per-document means over scored tokens, weighted by their number
    ("perplexity", "nll_nats", "", LOWER, Estimand.PERPLEXITY),
    ("kl_mean_nats", "kl_nats", "nats", LOWER, Estimand.TOKEN_MEAN),
    ("top1_agreement", "top1_agreement", "rate", HIGHER, Estimand.TOKEN_MEAN),
    ("delta_p_mean", "delta_p", "probability", HIGHER, Estimand.TOKEN_MEAN),
    ("kl_p99_nats", "kl_p99_nats", "nats", LOWER, Estimand.SCALAR),
    ("kl_p999_nats", "kl_p999_nats", "nats", LOWER, Estimand.SCALAR),
)

DOMAIN = _table(
    ("accuracy", "correct", "rate", HIGHER, Estimand.ITEM_MEAN),
    ("pass_at_k", "pass_at_k", "rate", HIGHER, Estimand.ITEM_MEAN),
    ("macro_f1", "macro_f1", "rate", HIGHER, Estimand.CORPUS),
    ("rouge_l", "rouge_l", "rate", HIGHER, Estimand.ITEM_MEAN),
    ("bleu", "bleu", "rate", HIGHER, Estimand.CORPUS),
    ("chrf", "chrf", "rate", HIGHER, Estimand.CORPUS),
    ("repetition_rate", "repetition", "rate", LOWER, Estimand.ITEM_MEAN),
    ("empty_rate", "empty", "rate", LOWER, Estimand.ITEM_MEAN),
    ("truncated_rate", "truncated", "rate", LOWER, Estimand.ITEM_MEAN),
    ("invalid_json_rate", "invalid_json", "rate", LOWER, Estimand.ITEM_MEAN),
    ("length_ratio", "output_tokens", "ratio", HIGHER, Estimand.MEAN_RATIO),
    ("judge_score", "judge_score", "rate", HIGHER, Estimand.ITEM_MEAN),
    ("judge_agreement", "judge_agreement", "rate", HIGHER, Estimand.ITEM_MEAN),
)

PROFILE = _table(
    ("load_seconds", "load_seconds", "s", LOWER, Estimand.SCALAR),
    ("disk_bytes", "disk_bytes", "B", LOWER, Estimand.SCALAR),
    ("weights_bytes", "weights_bytes", "B", LOWER, Estimand.SCALAR),
    ("kv_bytes_per_token", "kv_bytes_per_token", "B", LOWER, Estimand.SCALAR),
    ("kv_cache_bytes", "kv_cache_bytes", "B", LOWER, Estimand.SCALAR),
    ("activation_peak", "activation_peak_bytes", "B", LOWER, Estimand.SCALAR),
    ("max_batch_at_context", "max_batch_at_context", "seq", HIGHER, Estimand.SCALAR),
    ("rss_peak", "rss_peak_bytes", "B", LOWER, Estimand.SCALAR),
    ("vram_peak", "vram_peak_bytes", "B", LOWER, Estimand.SCALAR),
    ("vram_reserved", "vram_reserved_bytes", "B", LOWER, Estimand.SCALAR),
    ("vram_process", "vram_process_bytes", "B", LOWER, Estimand.SCALAR),
    ("vram_context", "vram_context_bytes", "B", LOWER, Estimand.SCALAR),
    ("vram_unused", "vram_unused_bytes", "B", LOWER, Estimand.SCALAR),
    ("load_rss_peak", "load_rss_peak_bytes", "B", LOWER, Estimand.SCALAR),
    ("load_vram_peak", "load_vram_peak_bytes", "B", LOWER, Estimand.SCALAR),
    # one value a block: of shapes (`batch=8`) and, but for the two phases, of loads (`load=open:4`)
    ("prefill_tokens_per_second", "prefill_tokens_per_second", "tok/s", HIGHER, Estimand.TIMING),
    ("decode_tokens_per_second", "decode_tokens_per_second", "tok/s", HIGHER, Estimand.TIMING),
    ("output_tokens_per_second", "output_tokens_per_second", "tok/s", HIGHER, Estimand.TIMING),
    ("requests_per_second", "requests_per_second", "req/s", HIGHER, Estimand.TIMING),
    ("goodput_requests_per_second", "goodput_requests_per_second", "req/s", HIGHER, Estimand.TIMING),
    ("joules_per_output_token", "joules_per_output_token", "J/tok", LOWER, Estimand.TIMING),
    ("ttft_p50_seconds", "ttft_p50_seconds", "s", LOWER, Estimand.TIMING),
    ("tpot_p50_seconds", "tpot_p50_seconds", "s", LOWER, Estimand.TIMING),
    ("e2e_p50_seconds", "e2e_p50_seconds", "s", LOWER, Estimand.TIMING),
    # all single times of a run: TTFT and end to end one a batch (or request of a load), TPOT one a step (or request)
    *(
        (f"{what}_{percentile}_seconds", f"{what}_sample_seconds", "s", LOWER, Estimand.QUANTILE)
        for what in ("ttft", "tpot", "e2e")
        for percentile in ("p90", "p95", "p99", "p999")
    ),
)

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}

CPU_FLAGS = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "amx_fp16"),
)
"""Instruction sets, in Linux's names, that decide how a CPU runs a number format."""

DTYPES = ("float32", "bfloat16", "float16")
"""What a model computes in besides its quantized weights."""

DESCRIBED = _table(
    *(
        (name, name, unit, LOWER, Estimand.DESCRIPTION)
        for name, unit in (
            # item `look/<i>`: planned numbers of pairs of blocks
            ("look_pairs", ""),
            # item `calibrated/<observed metric>`, group as there: sd of the log ratio between fresh processes, weighed
            # by the number of pairs of processes it was found with
            ("between_process_log_sd", ""),
            # item `run/<block>`: of the device and the model, for the limits
            ("copy_bytes_per_second", "B"),
            ("matmul_flops_per_second", ""),
            ("weights_read_bytes", "B"),
            ("flops_per_token", ""),
            ("context_tokens", ""),
            ("memory_budget_bytes", "B"),
            ("reserved_kv_bytes", "B"),
            *((f"cpu_has_{flag}", "") for flag in CPU_FLAGS),  # 1 or 0
            ("gpu_compute_capability", ""),  # 9.0; the least of the devices that hold the model
            *((f"computes_in_{dtype}", "") for dtype in DTYPES),  # 1 for the one that it is
            # item of the block: what the machine was like while it was measured (gate.decide.conditions reads them)
            ("cpu_wait_share", "rate"),
            ("cpu_steal_share", "rate"),
            ("cpu_load", ""),
            ("cpu_count", ""),  # that `cpu_load` is a share of
            ("cpu_clock_hertz", ""),
            ("gpu_clock_share", "rate"),
            ("gpu_temperature_celsius", ""),
            ("gpu_power_watts", ""),
            ("gpu_throttle_reasons", ""),
            ("gpu_foreign_processes", ""),
            # item of the block, group `load=…`
            ("offered_requests_per_second", "req/s"),
            ("load_lag", ""),  # of open loops, from which gate.decide.saturation says whether one was saturated
            # item of the block: this pair had to be measured so many times more
            ("repeated", ""),
        )
    )
)
"""Numbers that a profile stage records beside its metrics.  No rule can be put on them."""

BY_KIND = {"perplexity": PERPLEXITY, "domain": DOMAIN, "profile": PROFILE}

ADVISORY_ONLY = {
    **dict.fromkeys(("kl_p99_nats", "kl_p999_nats"), "is a percentile without a valid interval"),
    **{
        m.name: "is a percentile, whose interval is wide or missing"
        for m in PROFILE.values()
        if m.estimand is Estimand.QUANTILE
    },
    "load_seconds": "is read once a process, and says nothing of how much it varies",
}
"""Metrics that no blocking rule can be put on, with the reason."""

BOUNDS: dict[Estimand, frozenset[BoundKind]] = {
    Estimand.ITEM_MEAN: frozenset({BoundKind.MAX_DROP, BoundKind.MIN_RETAINED, BoundKind.MAX, BoundKind.MIN}),
    Estimand.PERPLEXITY: frozenset({BoundKind.MAX_INCREASE, BoundKind.MAX}),
    Estimand.TOKEN_MEAN: frozenset({BoundKind.MAX, BoundKind.MIN}),
    Estimand.MEAN_RATIO: frozenset({BoundKind.MAX, BoundKind.MIN}),
    Estimand.CORPUS: frozenset({BoundKind.MAX_DROP, BoundKind.MIN_RETAINED, BoundKind.MAX, BoundKind.MIN}),
    Estimand.TIMING: frozenset(
        {BoundKind.MIN_RETAINED, BoundKind.MIN_SPEEDUP, BoundKind.MAX_INCREASE, BoundKind.MAX, BoundKind.MIN}
    ),
    Estimand.QUANTILE: frozenset({BoundKind.MAX_INCREASE, BoundKind.MAX}),
    Estimand.SCALAR: frozenset({BoundKind.MAX, BoundKind.MIN, BoundKind.MAX_INCREASE, BoundKind.MIN_RETAINED}),
    Estimand.DESCRIPTION: frozenset(),
}
"""Which bounds make sense for which estimand; the policy rejects the others at load."""
