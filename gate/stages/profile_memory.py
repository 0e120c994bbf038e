"""What a loaded model takes, as the numbers of one block: sizes, peaks, and the batch that would fit a budget.

Pure: arithmetic on what a backend says.  What is not known is left out, never counted as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gate import units
from gate.backends import Footprint
from gate.policy import ProfileStage


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Values by observed name, and remarks for the reader."""

    values: Mapping[str, float]
    notes: tuple[str, ...]


def sizes(
    settings: ProfileStage,
    footprint: Footprint,
    peaks: Mapping[str, int],
    *,
    largest_tokens: int | None,
    context_length: int,
    is_cuda: bool,
) -> Sizes:
    """Scalars and facts of one block.

    Args:
        peaks: `Backend.memory_bytes`.
        largest_tokens: of all sequences of the largest batch that ran, prompts and answers; None when none did.
        context_length: tokens that the model can read.
    """
    context_tokens = settings.context_tokens or settings.longest_tokens
    budget = footprint.device_memory_bytes
    if settings.memory_budget is not None:
        budget = units.size_bytes(settings.memory_budget)
    values: dict[str, float | None] = {
        **peaks,
        "weights_bytes": footprint.weights_bytes,
        "weights_read_bytes": footprint.weights_read_bytes,
        "kv_bytes_per_token": footprint.kv_bytes_per_token,
        "flops_per_token": footprint.flops_per_token,
        "reserved_kv_bytes": footprint.kv_cache_reserved_bytes,
        "context_tokens": context_tokens,
        "memory_budget_bytes": budget,
    }
    notes: list[str] = []
    if context_tokens > context_length:
        notes.append(
            f"context_tokens is {context_tokens}, more than the model's context of {context_length}: the key/value "
            "cache and the largest batch at that context are not given"
        )
    else:
        if footprint.kv_bytes_per_token is not None:
            values["kv_cache_bytes"] = footprint.kv_bytes_per_token * context_tokens * max(settings.batch_sizes)
        fits = _fitting(footprint, peaks, budget, context_tokens, largest_tokens)
        if fits is not None and is_cuda and "vram_context_bytes" not in peaks:
            notes.append("max_batch_at_context leaves out the CUDA context, whose size NVML does not show")
        if fits is None and settings.memory_budget is None and footprint.kv_cache_tokens is not None:
            fits = _engines_own(footprint, footprint.kv_cache_tokens, context_tokens)
            values["memory_budget_bytes"] = _engines_share_bytes(footprint)
            notes.append(_engines_own_text(footprint))
        values["max_batch_at_context"] = fits
    return Sizes(values={name: float(v) for name, v in values.items() if v is not None}, notes=tuple(notes))


def _engines_own(footprint: Footprint, kv_cache_tokens: int, context_tokens: int) -> int:
    """Sequences of `context_tokens` that an engine's key/value cache and its scheduler hold together."""
    fits = kv_cache_tokens // _in_blocks(footprint, context_tokens)
    return fits if footprint.max_sequences is None else min(fits, footprint.max_sequences)


def _engines_share_bytes(footprint: Footprint) -> float | None:
    """The budget that goes with the engine's own count; None where it is not a share of a known device."""
    if footprint.device_memory_bytes is None or footprint.device_share is None:
        return None
    return footprint.device_memory_bytes * footprint.device_share


def _engines_own_text(footprint: Footprint) -> str:
    given = "" if footprint.device_share is None else f", which was given {footprint.device_share:.0%} of the device"
    return (
        "max_batch_at_context is as many as the engine's key/value cache of "
        f"{footprint.kv_cache_tokens:,} tokens holds here{given} because two models are resident: what fits into the "
        "whole device cannot be calculated, since a part of it is not known"
    )


def _in_blocks(footprint: Footprint, tokens: int) -> int:
    """What a sequence takes of the cache: an engine gives it whole blocks."""
    block = footprint.kv_block_tokens or 1
    return -(-tokens // block) * block


def _fitting(
    footprint: Footprint, peaks: Mapping[str, int], budget: int | None, context_tokens: int, largest_tokens: int | None
) -> int | None:
    """Sequences that fit into the budget by calculation; None where a part of it is not known.

    n = ⌊(budget − weights − context) / (context_tokens · (kv_bytes_per_token + activations / largest_tokens))⌋

    `context` is what the CUDA context takes (nothing on a CPU), `activations` their peak in the largest batch that was
    timed: they grow with the tokens that a batch holds.  An engine that plans its steps (`max_sequences`) bounds them
    by the tokens of a step instead:
    n = min(max_sequences, ⌊(budget − weights − context − activations) / (context_tokens · kv_bytes_per_token)⌋),
    with `context_tokens` in whole blocks of its cache.
    """
    weights, kv, activations = footprint.weights_bytes, footprint.kv_bytes_per_token, peaks.get("activation_peak_bytes")
    if budget is None or weights is None or not kv or activations is None:
        return None
    free = budget - weights - peaks.get("vram_context_bytes", 0)
    if footprint.max_sequences is not None:
        fits = (free - activations) // (_in_blocks(footprint, context_tokens) * kv)
        return max(0, min(footprint.max_sequences, fits))
    if largest_tokens is None:
        return None
    return max(0, free * largest_tokens // (context_tokens * (kv * largest_tokens + activations)))
