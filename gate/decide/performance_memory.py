"""Memory taken apart: what each role must hold at the policy's context and largest batch, and the peaks as measured.

Pure.  The key/value cache and the activations of `parts` are what that context and batch take, not what the short runs
of the stage filled; the same arithmetic gives `max_batch_at_context` (gate/stages/profile_memory.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from gate import units
from gate.decide.performance_values import Values
from gate.policy import ProfileStage
from gate.records import Memory, Role

_PEAKS = {
    "rss": "rss_peak_bytes",
    "vram": "vram_peak_bytes",
    "vram_reserved": "vram_reserved_bytes",
    "vram_process": "vram_process_bytes",
    "loading_rss": "load_rss_peak_bytes",
    "loading_vram": "load_vram_peak_bytes",
    "activations": "activation_peak_bytes",
}


def memory(stage: ProfileStage, roles: Mapping[Role, Values]) -> list[Memory]:
    """One for each role of which anything is known."""
    found = (_memory(stage, role, values) for role, values in roles.items())
    return [one for one in found if one.parts or one.peaks]


def _memory(stage: ProfileStage, role: Role, values: Values) -> Memory:
    observed_context = values.middle("context_tokens")
    if observed_context is None:
        context_tokens = stage.context_tokens or stage.longest_tokens
    else:
        context_tokens = round(observed_context)
    batch_size = max(stage.batch_sizes)
    budget = values.largest("memory_budget_bytes")
    if stage.memory_budget is not None:
        budget = units.size_bytes(stage.memory_budget)
    reserved, unused = values.largest("reserved_kv_bytes"), values.largest("vram_unused_bytes")
    is_engine = reserved is not None
    parts = {
        "weights": values.largest("weights_bytes"),
        "activations": _activations(stage, values, None if is_engine else context_tokens * batch_size),
        "kv_cache": values.largest("kv_cache_bytes"),
        "context": values.largest("vram_context_bytes"),
        "unused": None if is_engine else unused,
    }
    peaks = {name: values.largest(seen) for name, seen in _PEAKS.items()} | {"idle": unused if is_engine else None}
    fits = values.readings("max_batch_at_context")
    return Memory(
        role=role,
        parts={name: size for name, size in parts.items() if size is not None},
        peaks={name: size for name, size in peaks.items() if size is not None},
        kv_bytes_per_token=values.largest("kv_bytes_per_token"),
        context_tokens=context_tokens,
        batch_size=batch_size,
        budget_bytes=budget,
        max_batch_at_context=round(min(fits)) if fits else None,
        reserved_kv_bytes=reserved,
    )


def _activations(stage: ProfileStage, values: Values, tokens: int | None) -> int | None:
    """Their peak in the largest batch that ran, in proportion to the tokens held; as measured where `tokens` is None.

    An engine bounds the tokens of a step, so that its activations do not grow with the batch.  None where no batch ran.
    """
    measured = values.largest("activation_peak_bytes")
    if measured is None or tokens is None:
        return measured
    ran = [
        shape.batch_size * (shape.prompt_tokens + shape.new_tokens)
        for shape in stage.shapes
        if values.blocks("output_tokens_per_second", stage.group(shape))
    ]
    return -(-measured * tokens // max(ran)) if ran else None
