"""`gate doctor`: what this machine offers to a run, how it runs number formats, and what will not work here.

Parses arguments and prints; what is found and what follows lives in `checkup` and `checkup_limits`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gate.errors import ExitCode

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gate.commands.checkup import Checkup, Fits

_LABEL = 12
_VERSION = 1


def doctor(
    python: Annotated[str | None, typer.Option(help="Interpreter of the workers, as gate run would use it.")] = None,
    store: Annotated[str | None, typer.Option(help="Baseline store: folder or URL; default: the user's cache.")] = None,
    format: Annotated[
        Literal["text", "json"], typer.Option("--format", "-f", help="text, or json for scripts.")
    ] = "text",
) -> None:
    """Say what this machine offers: devices, number formats, versions, limits, and what will not work here and why.

    gate doctor                                   before the first run on a machine

    gate doctor --python .venv-vllm/bin/python    the same for another interpreter

    Loads no model and downloads nothing. Takes some seconds: the sandbox for model-written code has to prove itself.

    Exits 0, whatever will not work; 2 only when no run could start at all: the workers' interpreter is broken, or
    has no gate, or neither torch nor vLLM.
    """
    from gate.commands import checkup, checkup_limits

    found = checkup.examine(python=python, store=store)
    limits, prevents = tuple(checkup_limits.limits(found)), tuple(checkup_limits.prevents(found))
    if format == "json":
        typer.echo(json.dumps(document(found, limits, prevents), indent=1))
    else:
        from rich.console import Console

        show(Console() if sys.stdout.isatty() else Console(width=100), found, limits, prevents)
    raise typer.Exit(ExitCode.USAGE if prevents else ExitCode.PASS)


def document(found: Checkup, limits: tuple[str, ...], prevents: tuple[str, ...]) -> dict[str, Any]:
    """For machines; sets become sorted lists."""
    plain = asdict(found)
    plain["cpu"]["flags"] = None if found.cpu.flags is None else sorted(found.cpu.flags)
    plain["interpreter"]["modules"] = sorted(found.interpreter.modules)
    return {"version": _VERSION, **plain, "will_not_work": list(limits), "prevents_any_run": list(prevents)}


def show(console: Console, found: Checkup, limits: tuple[str, ...], prevents: tuple[str, ...]) -> None:
    """The whole page."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from gate.reports import escape

    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    facts.add_column(style="bold", no_wrap=True, min_width=_LABEL)
    facts.add_column(overflow="fold")
    for label, text in _facts(found):
        facts.add_row(label, Text(escape.line(text)))
    console.print(facts)
    sources: dict[str, int] = {}
    for fits in found.fits:
        console.print(Padding(Text(f"How {escape.line(fits.device)} runs", style="bold"), (1, 0, 0, 0)))
        console.print(_formats(fits, sources))
    for source, number in sources.items():
        console.print(Text(f"[{number}] {source}", style="dim"))
    for title, sentences, style in (
        ("What will not work here", limits, "yellow"),
        ("No run can start", prevents, "red"),
    ):
        if sentences:
            console.print(Padding(Text(title, style=f"bold {style}"), (1, 0, 0, 0)))
        for sentence in sentences:
            listed = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
            listed.add_row("-", Text(escape.line(sentence)))
            console.print(listed)


def _facts(found: Checkup) -> Iterator[tuple[str, str]]:
    from gate.reports import numbers

    yield "system", found.platform + (f", in {found.container}" if found.container else "")
    yield from _gpu_facts(found)
    here = found.cpu
    limit = "" if here.limit is None else f", limited to {here.limit:g}"
    yield "CPU", f"{here.name}, {numbers.count(here.usable, 'CPU')} usable{limit}"
    yield "", f"threads: {_threads(found)}"
    from gate.metrics import CPU_FLAGS

    known = [flag for flag in CPU_FLAGS if flag in (here.flags or ())]
    yield "", f"instruction sets: {', '.join(known) or ('none of note' if here.flags else 'not known')}"
    yield "", f"clocks: {'governor ' + ' and '.join(here.governors) if here.governors else 'not set by this system'}"
    if found.memory_bytes is not None and found.available_bytes is not None:
        more = "" if found.memory_limit_bytes is None else f", limited to {numbers.size(found.memory_limit_bytes)}"
        yield "memory", f"{numbers.size(found.memory_bytes)}, {numbers.size(found.available_bytes)} available{more}"
    for i, place in enumerate(found.places):
        free = "free space not known" if place.free_bytes is None else f"{numbers.size(place.free_bytes)} free"
        yield "" if i else "disk", f"{place.what}: {free}, {place.path}"
    seen = found.interpreter
    yield "workers", seen.path + (f", Python {seen.python}" if seen.python else "")
    if seen.packages:
        yield "", ", ".join(f"{name} {version}" for name, version in seen.packages.items())
    yield "settings", ", ".join(f"{name}={value}" for name, value in found.settings.items()) or "none of the gate's"
    yield "sandbox", found.sandbox or "none that works"


def _gpu_facts(found: Checkup) -> Iterator[tuple[str, str]]:
    from gate.reports import numbers

    if not found.gpu_names:
        yield "GPU", "none of NVIDIA's"
        return
    yield (
        "driver",
        f"{found.driver or 'not known'}"
        + (f", CUDA up to {found.nvml.cuda}" if found.nvml is not None and found.nvml.cuda else ""),
    )
    if found.nvml is None:
        yield "GPU", ", ".join(found.gpu_names)
    for i, card in enumerate(found.nvml.cards if found.nvml is not None else ()):
        parts = [
            card.name,
            numbers.size(card.memory_bytes) if card.memory_bytes is not None else None,
            None if card.compute_capability is None else f"compute capability {card.compute_capability:.1f}",
            {True: "persistence on", False: "persistence off", None: None}[card.persistence],
            "counts energy" if card.counts_energy else "counts no energy",
        ]
        yield "" if i else "GPU", ", ".join(p for p in parts if p)


def _threads(found: Checkup) -> str:
    said = found.settings.get("QUANTGATE_THREADS")
    return f"{said} (QUANTGATE_THREADS)" if said else "as many as torch takes; QUANTGATE_THREADS sets them"


def _formats(fits: Fits, sources: dict[str, int]) -> Table:
    """`sources` gets a number for each that is new."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, entry in fits.entries.items():
        named = entry.source.split("; ") if entry.source else []
        mark = "".join(f" [{sources.setdefault(source, len(sources) + 1)}]" for source in named)
        style = {"native": "green", "dequantized": "yellow"}.get(entry.runs, "dim")
        shown = "INT4 weights" if name == "INT4" else name
        table.add_row(Text(shown), Text(entry.runs, style=style), Text(entry.why + mark))
    return table
