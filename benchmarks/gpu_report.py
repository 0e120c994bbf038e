"""The report of `benchmarks/gpu_profile.py`, from run records and what `nvidia-smi` said.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from benchmarks.profile_run import Ran
from gate.records import Memory, Percentiles, Performance, Role

MIB = 2**20


def clocks(found: tuple[float, float]) -> str:
    """CUDA events beside the host's clock around the same work."""
    by_events, by_host = found
    return (
        f"CUDA events counted {by_events:.4f} s of work that took {by_host:.4f} s by the host's clock: a ratio of "
        f"{by_events / by_host:.4f}."
    )


def of_run(title: str, ran: Ran, smi_peak_bytes: int | None) -> str:
    """Every figure of a run's profile stages; `smi_peak_bytes` of both models together."""
    parts = [title, f"{ran.pairs('block')} pairs of blocks and {ran.pairs('again')} to confirm, {ran.seconds:.0f} s."]
    for performance in ran.record.performance:
        parts.append(device(performance))
        for rows in (performance.speeds, performance.fits):
            parts += ["\n".join(table(rows))] if rows else []
        parts += ["\n".join(memory(performance.memory)), peaks(performance.memory, smi_peak_bytes)]
        parts.append("\n".join(f"- {line}" for line in (*performance.conditions, *performance.remarks)))
    rules = [f"- {f.rule.id}: {f.status}: {f.reason}" for stage in ran.record.stages for f in stage.findings]
    return "\n\n".join([*parts, "\n".join(rules)])


def device(performance: Performance) -> str:
    copied, computed = performance.copy_bytes_per_second, performance.matmul_flops_per_second
    return (
        f"{', '.join(performance.device_names)}: "
        f"{'copy bandwidth not known' if copied is None else f'{copied / 1e9:.0f} GB/s copied'}, "
        f"{'matmul rate not known' if computed is None else f'{computed / 1e12:.1f} TFLOP/s'}; "
        f"{performance.repeated_blocks} pairs measured again. `decode_limit` and `prefill_limit` are shares of these."
    )


def table(rows: Sequence[Any]) -> Iterator[str]:
    """A column for each field that any of the records has a value for; of times, the median and the 95th percentile."""
    names = [f.name for f in fields(rows[0]) if any(getattr(row, f.name) is not None for row in rows)]
    yield _row(names)
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield _row([_shown(getattr(row, name)) for name in names])


def memory(found: Sequence[Memory]) -> Iterator[str]:
    """A line per role and kind of memory, in MiB."""
    yield "| role | what | MiB |\n|---|---|---|"
    for one in found:
        for name, size in (*one.parts.items(), *((f"peak: {name}", size) for name, size in one.peaks.items())):
            yield _row((one.role, name, f"{size / MIB:.1f}"))
        if one.max_batch_at_context is not None:
            batch = f"largest batch at {one.context_tokens} tokens"
            yield _row((one.role, batch, f"{one.max_batch_at_context} sequences"))


def peaks(found: Sequence[Memory], smi_peak_bytes: int | None) -> str:
    """What the gate saw of both processes beside what `nvidia-smi` saw of the device."""
    for name in ("vram_process", "vram_reserved", "vram"):
        by_role = {one.role: one.peaks[name] for one in found if name in one.peaks}
        if smi_peak_bytes and set(by_role) == set(Role):
            ours = sum(by_role.values())
            return (
                f"Peak memory: both processes' {name} are {ours / MIB:.0f} MiB, nvidia-smi saw the device use "
                f"{smi_peak_bytes / MIB:.0f} MiB more than before: a ratio of {ours / smi_peak_bytes:.3f}."
            )
    return "Peak memory was not compared: nvidia-smi, or the gate for one of the models, gave no figure."


def used_bytes(lines: Iterable[str]) -> Iterator[int]:
    """Of the lines of `nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits`, which counts MiB."""
    for line in lines:
        if line.strip().isdecimal():
            yield int(line) * MIB


def _shown(value: Any) -> str:
    match value:
        case None:
            return "–"
        case Percentiles():
            known = (f"{name} {1000 * value.seconds[name]:.2f} ms" for name in ("p50", "p95") if name in value.seconds)
            return ", ".join(known) or "–"
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
