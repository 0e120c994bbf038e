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
    ("rss_peak", "rss_peak_bytes", "B", LOWER, Estimand.SCALAR),
    ("vram_peak", "vram_peak_bytes", "B", LOWER, Estimand.SCALAR),
    ("vram_reserved", "vram_reserved_bytes", "B", LOWER, Estimand.SCALAR),
    ("vram_process", "vram_process_bytes", "B", LOWER, Estimand.SCALAR),
    ("prefill_tokens_per_second", "prefill_tokens_per_second", "tok/s", HIGHER, Estimand.TIMING),
    ("decode_tokens_per_second", "decode_tokens_per_second", "tok/s", HIGHER, Estimand.TIMING),
    ("ttft_p50_seconds", "ttft_p50_seconds", "s", LOWER, Estimand.TIMING),
    ("tpot_p50_seconds", "tpot_p50_seconds", "s", LOWER, Estimand.TIMING),
    ("ttft_p95_seconds", "ttft_p95_seconds", "s", LOWER, Estimand.TIMING),
    ("tpot_p95_seconds", "tpot_p95_seconds", "s", LOWER, Estimand.TIMING),
)

BY_KIND = {"perplexity": PERPLEXITY, "domain": DOMAIN, "profile": PROFILE}

# Percentiles of latency and of KL have no interval that holds with few blocks: reported, never blocking.
ADVISORY_ONLY = frozenset({"kl_p99_nats", "kl_p999_nats", "ttft_p95_seconds", "tpot_p95_seconds"})

BOUNDS: dict[Estimand, frozenset[BoundKind]] = {
    Estimand.ITEM_MEAN: frozenset({BoundKind.MAX_DROP, BoundKind.MIN_RETAINED, BoundKind.MAX, BoundKind.MIN}),
    Estimand.PERPLEXITY: frozenset({BoundKind.MAX_INCREASE, BoundKind.MAX}),
    Estimand.TOKEN_MEAN: frozenset({BoundKind.MAX, BoundKind.MIN}),
    Estimand.MEAN_RATIO: frozenset({BoundKind.MAX, BoundKind.MIN}),
    Estimand.CORPUS: frozenset({BoundKind.MAX_DROP, BoundKind.MIN_RETAINED, BoundKind.MAX, BoundKind.MIN}),
    Estimand.TIMING: frozenset(
        {BoundKind.MIN_RETAINED, BoundKind.MIN_SPEEDUP, BoundKind.MAX_INCREASE, BoundKind.MAX, BoundKind.MIN}
    ),
    Estimand.SCALAR: frozenset({BoundKind.MAX, BoundKind.MIN, BoundKind.MAX_INCREASE, BoundKind.MIN_RETAINED}),
}
"""Which bounds make sense for which estimand; the policy rejects the others at load."""
