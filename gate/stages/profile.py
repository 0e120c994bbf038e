"""The profile stage: one timing block of one model, and its memory.

Measures, never compares.  The pipeline keeps both models resident and runs the blocks in `block_order`, since drift of
the machine then hits both alike.  One call measures one block of one role: per batch size, runs whose times are thrown
away, then `_RUNS` timed ones, whose median is the block's value (runs inside a block are not independent).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from gate.backends import Backend, OutOfMemory, Timing
from gate.errors import CouldNotMeasure
from gate.metrics import PROFILE
from gate.policy import ProfileStage
from gate.records import Estimand, ItemFailure, Measurement, Observation, Role
from gate.stages import Context

_RUNS = 3
_WARM_UPS_FIRST, _WARM_UPS_LATER = 10, 1  # at most, in block 0 and after it
_SETTLED = 0.05  # warm-up ends when the last three runs agree within this


def check(settings: ProfileStage, base: Path) -> tuple[Path, ...]:
    """Nothing to check without a model: prompts are random tokens."""
    return ()


def fetch(settings: ProfileStage, base: Path) -> list[str]:
    """Nothing to download."""
    return []


def block_order(blocks: int) -> tuple[tuple[Role, ...], ...]:
    """Who is measured first in each block: A B, B A, A B, … (so A B B A in every two blocks)."""
    forth = (Role.BASELINE, Role.CANDIDATE)
    return tuple(forth if block % 2 == 0 else forth[::-1] for block in range(blocks))


def measure(backend: Backend, settings: ProfileStage, context: Context) -> Iterator[Measurement]:
    """Measure block `context.block`: one observation per metric and batch size, group `batch=<b>`.

    A batch size that does not fit in memory becomes an ItemFailure; the others stand.

    Raises:
        ValueError: no block number.
        CouldNotMeasure: prompt and new tokens exceed the model's context.
    """
    if context.block is None:
        raise ValueError("the profile stage measures one block at a time: context.block is None")
    length, longest = settings.prompt_tokens + settings.new_tokens, backend.info.context_length
    if length > longest:
        raise CouldNotMeasure(
            f"prompt_tokens + new_tokens is {length}, expected at most the model's context of {longest} tokens"
        )
    started = perf_counter()
    observations: list[Observation] = []
    failures: list[ItemFailure] = []
    for done, batch_size in enumerate(settings.batch_sizes, start=1):
        try:
            timings = _timings(backend, settings, context, batch_size)
        except OutOfMemory as error:
            item_id = f"block/{context.block}/batch={batch_size}"
            failures.append(ItemFailure(item_id=item_id, kind="out_of_memory", message=str(error)))
        else:
            observations += _timed(context.block, batch_size, timings)
        context.progress(done, len(settings.batch_sizes), f"block {context.block}, batch {batch_size}")
    # a server loaded its model before anybody asked
    loading = {} if backend.info.device == "server" else {"load_seconds": backend.info.load_seconds}
    scalars = {**loading, **backend.memory_bytes()}
    known = {metric.observed for metric in PROFILE.values() if metric.estimand is Estimand.SCALAR}
    observations += [
        Observation(
            metric=name, item_id=f"run/{context.block}", value=float(value), weight=1.0, cluster=None, group=None
        )
        for name, value in scalars.items()
        if name in known
    ]
    yield Measurement(
        stage=settings.name,
        source=settings.name,
        role=context.role,
        settings_digest=context.settings_digest,
        n_expected=settings.blocks,
        n_available=settings.blocks,
        n_reached=1,
        planned_tokens=0,
        chance=None,
        metrics=tuple(m for m in PROFILE.values() if m.estimand is Estimand.TIMING or m.observed in scalars),
        observations=tuple(observations),
        failures=tuple(failures),
        answers=(),
        seconds=perf_counter() - started,
        notes=("measured on CPU",) if backend.info.device.startswith("cpu") else (),
    )


def _timings(backend: Backend, settings: ProfileStage, context: Context, batch_size: int) -> list[Timing]:
    """The timed runs of one block at one batch size, warm-ups thrown away."""

    def run(number: int) -> Timing:
        # every run has its own random prompts, the same for both roles; warm-ups count down from -1
        name = f"{context.sample_seed}/{context.block}/{batch_size}/{number}"
        return backend.timed_batch(
            batch_size=batch_size,
            prompt_tokens=settings.prompt_tokens,
            new_tokens=settings.new_tokens,
            seed=int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]),
        )

    at_most = _WARM_UPS_FIRST if context.block == 0 else _WARM_UPS_LATER
    warm_ups: list[float] = []
    while len(warm_ups) < at_most and not _settled(warm_ups):
        warm_ups.append(median(run(-1 - len(warm_ups)).step_seconds))
    return [run(number) for number in range(_RUNS)]


def _settled(medians: Sequence[float]) -> bool:
    last = medians[-3:]
    return len(last) == 3 and max(last) <= (1 + _SETTLED) * min(last)


def _timed(block: int, batch_size: int, timings: Sequence[Timing]) -> Iterator[Observation]:
    ttft_seconds = [t.ttft_seconds for t in timings]
    step_seconds = [s for t in timings for s in t.step_seconds]
    values = {
        "prefill_tokens_per_second": median(batch_size * t.prompt_tokens / t.ttft_seconds for t in timings),
        "decode_tokens_per_second": median(batch_size * len(t.step_seconds) / sum(t.step_seconds) for t in timings),
        "ttft_p50_seconds": median(ttft_seconds),
        "tpot_p50_seconds": median(step_seconds),
        "ttft_p95_seconds": float(np.quantile(ttft_seconds, 0.95)),
        "tpot_p95_seconds": float(np.quantile(step_seconds, 0.95)),
    }
    for name, value in values.items():
        yield Observation(
            metric=name,
            item_id=f"block/{block}",
            value=value,
            weight=1.0,
            cluster=None,
            group=f"batch={batch_size}",
        )
