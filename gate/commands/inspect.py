"""`gate inspect`: what a checkpoint is, from its headers, and whether it may be evaluated or compared.

Parses arguments and prints; what is found and decided lives in `gate.inspection` and `gate.intake`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from gate.checkpoint import ResolvedCheckpoint
    from gate.checkpoint.scheme import Declaration
    from gate.inspection import Inspection, Outcome
    from gate.policy_file import LoadedPolicy

_WIDE = 100
_LABEL = 13
_MAX_ROWS = 40
_SHOWN_NAMES = 6
_SHOWN_TEXT = 300


def inspect(
    checkpoint: Annotated[str, typer.Argument(help="Folder, GGUF file, hub id@revision or a policy name.")],
    baseline: Annotated[str | None, typer.Option(help="Say too whether gate run would compare it with this.")] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", "-p", help="For names, load settings and engines of checkpoints.")
    ] = None,
    format: Annotated[Literal["text", "json"], typer.Option("--format", "-f", help="For people or programs.")] = "text",
    verify: Annotated[
        bool, typer.Option(help="Read every byte too: digests, and NaN in scales and weights; takes minutes.")
    ] = False,
    backend: Annotated[str, typer.Option(help="Whose engine settings of the policy count.")] = "hf",
    allow_identical: Annotated[bool, typer.Option(help="Compare a checkpoint with itself (A/A).")] = False,
) -> None:
    """Say what a checkpoint is: how it was quantized, what was left alone, what it takes on disk and in memory.

    gate inspect ./llama-w4a16                  in seconds, whatever its size

    gate inspect ./llama-w4a16 --baseline ./llama      would gate run compare the two?

    Reads headers and configurations, never the weights unless told to --verify.  No model is loaded, no code is run.

    Columns: weights is the share of all parameters; bits counts scales and zero points too.

    Exits 0 when gate run would accept it, 4 when something is missing or it is not the same model, 5 when it is unsafe
    or not what it declares, 2 when it is the baseline itself.
    """
    from gate import inspection
    from gate.errors import GateError

    try:
        seen, outcome, other = _looked(checkpoint, baseline, policy, backend, verify, allow_identical)
    except GateError as problem:
        if format == "json":
            typer.echo(json.dumps(inspection.failure(checkpoint, baseline, problem), indent=1))
        raise
    if format == "json":
        typer.echo(json.dumps(inspection.document(seen, outcome, other), indent=1))
    else:
        from rich.console import Console

        show(Console() if sys.stdout.isatty() else Console(width=120), seen, outcome, other)
    raise typer.Exit(0 if outcome.problem is None else int(outcome.problem.exit_code))


def _looked(
    checkpoint: str, baseline: str | None, policy: Path | None, backend: str, verify: bool, allow_identical: bool
) -> tuple[Inspection, Outcome, Inspection | None]:
    """The checkpoint, what is to be said of it, and the baseline.  Raises GateError where there is nothing to show."""
    from gate import inspection
    from gate.policy_file import load_policy
    from gate.records import Role

    loaded = load_policy(policy) if policy is not None else None

    def found(ref: str) -> Inspection:
        return inspection.look(_resolved(ref, loaded, backend))

    seen, outcome = inspection.checked(found(checkpoint), role=Role.CANDIDATE, verify=verify)
    other = None
    if baseline is not None:
        other, alone = inspection.checked(found(baseline), role=Role.BASELINE, verify=verify)
        if alone.problem is not None:
            raise alone.problem
        if outcome.problem is None:
            outcome = inspection.compared(other, seen, allow_identical=allow_identical)
    return seen, outcome, other


def _resolved(ref: str, loaded: LoadedPolicy | None, backend: str) -> ResolvedCheckpoint:
    """A checkpoint on this machine; one GGUF file stands for the folder it lies in."""
    from dataclasses import replace

    from gate import checkpoint
    from gate.engines import Engines

    path = Path(ref)
    is_file = path.suffix == ".gguf" and path.is_file()
    at = checkpoint.resolve(
        str(path.parent.resolve()) if is_file else ref,
        policy_checkpoints=loaded.policy.checkpoints if loaded else {},
        base=loaded.base if loaded else Path(),
        offline=True,
        backend=backend,
        engines=loaded.policy.engines if loaded else Engines(),
    )
    return replace(at, uri=ref, load={"gguf_file": path.name}) if is_file else at


def show(console: Console, seen: Inspection, outcome: Outcome, baseline: Inspection | None) -> None:
    """The whole page."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from gate import inspection
    from gate.reports import escape

    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    facts.add_column(style="bold", no_wrap=True, min_width=_LABEL)
    facts.add_column(overflow="fold")
    for label, text in _facts(seen):
        facts.add_row(label, Text(escape.line(text, _SHOWN_TEXT)))
    console.print(facts)
    if seen.rows:
        console.print(Padding(_modules(seen, wide=console.width >= _WIDE), (1, 0)))
    for remark in inspection.remarks(seen, outcome):
        console.print(Text(f"note: {escape.line(remark, 2 * _SHOWN_TEXT)}", style="yellow"), soft_wrap=True)
    console.print(_verdict(outcome, baseline), soft_wrap=True)


def _verdict(outcome: Outcome, baseline: Inspection | None) -> Text:
    from rich.text import Text

    from gate.errors import Refused, UsageError
    from gate.reports import escape

    problem = outcome.problem
    if problem is None:
        said = "nothing speaks against evaluating it" if baseline is None else f"comparable with {baseline.at.uri}"
        return Text.assemble(("OK", "bold green"), "  ", escape.line(said))
    word = "REFUSED" if isinstance(problem, Refused) else "USAGE" if isinstance(problem, UsageError) else "ERROR"
    return Text.assemble((word, "bold red"), "  ", escape.line(str(problem)), f"  (exit code {int(problem.exit_code)})")


def _facts(seen: Inspection) -> Iterator[tuple[str, str]]:
    from gate import inspection
    from gate.checkpoint import base_model
    from gate.reports import numbers

    found = seen.found
    n_parameters = f", {numbers.count(found.contents.n_parameters)} parameters" if found.contents else ""
    yield "checkpoint", seen.at.uri + (f" @ {seen.at.revision}" if seen.at.revision else "")
    yield "architecture", found.architecture + n_parameters
    declared = found.quantization
    if declared is None:
        yield "quantization", "none declared"
    else:
        yield "quantization", declared.method + (f", {declared.scheme}" if declared.scheme else "")
    for text in _schemes(found.declaration) if found.declaration else ():
        yield "", text
    if found.contents and found.contents.n_matrices:
        n, of, share = found.contents.n_quantized, found.contents.n_matrices, inspection.quantized_share(found)
        yield "quantized", f"{n} of {of} weight matrices, {numbers.share(share)} of all weights"
    if found.declaration and found.declaration.ignored:
        yield "left alone", _few(found.declaration.ignored)
    yield "KV cache", inspection.kv_cache(seen) or "not quantized"
    for i, text in enumerate(found.calibration):
        yield "" if i else "calibration", text
    if found.base.names:
        said = dict.fromkeys(f"{base_model.short(name)} ({place})" for place, name in found.base.names)
        yield "made from", _few(tuple(said))
    bits = inspection.bits_per_weight(found)
    yield "on disk", numbers.size(found.weight_bytes) + (f", {bits:.2f} bits per weight" if bits else "")
    if seen.memory is not None:
        yield "in memory", _memory(seen)
    if seen.code:
        yield "own code", f"is run, as the policy asks: {_few(seen.code)}"
    if seen.left_out:
        yield "not loaded", _few(seen.left_out)
    if seen.ref is not None:
        yield "file digest", seen.ref.digest
        yield "tensor digest", seen.ref.tensor_digest
        yield "numbers", "no NaN and no infinity in scales and weights"


def _memory(seen: Inspection) -> str:
    from gate.reports import numbers

    assert seen.memory is not None
    text = numbers.size(seen.memory.loaded)
    if seen.memory.on_load_bits is not None:
        return f"{text} after it is quantized on loading, at most {numbers.size(seen.memory.unpacked or 0)} before"
    if seen.memory.unpacked is not None:
        text += f" packed, {numbers.size(seen.memory.unpacked)} where a loader unpacks the weights"
    return text + "; activations and KV cache come on top"


def _schemes(declared: Declaration) -> Iterator[str]:
    for scheme in declared.schemes:
        parts = [
            f"{scheme.bits:g}-bit {scheme.number}" if scheme.bits is not None else scheme.number,
            f"one scale per {scheme.granularity}" if scheme.granularity else None,
            {True: "symmetric", False: "asymmetric", None: None}[scheme.symmetric],
            f"activations {scheme.activations}" if scheme.activations else "activations not quantized",
            f"order {scheme.order}" if scheme.order else None,
            f"for {_few(scheme.targets)}" if scheme.targets else None,
        ]
        yield ", ".join(p for p in parts if p)
    if declared.exceptions:
        yield f"{declared.exceptions} modules have settings of their own"


def _modules(seen: Inspection, *, wide: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    from gate.reports import escape, numbers

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("modules", "", "weights", "stored as", "bits", "size"):
        if wide or heading != "weights":
            left = heading in ("modules", "stored as")
            table.add_column(
                heading, justify="left" if left else "right", no_wrap=heading != "modules", overflow="fold"
            )
    total = sum(r.n_weights for r in seen.rows)
    shown = sorted(seen.rows, key=lambda r: -r.n_weights)[:_MAX_ROWS]
    for row in seen.rows:
        if row not in shown:
            continue
        share = numbers.share(row.n_weights / total) if row.n_weights * 200 >= total else "< 1%"
        cells = [
            escape.line(row.pattern, _SHOWN_TEXT),
            f"× {row.n_modules}",
            *([share] if wide else []),
            row.stored,
            f"{row.bits_per_weight:.2f}",
            numbers.size(row.n_bytes),
        ]
        table.add_row(*(Text(c) for c in cells), style="" if row.quantized else "dim")
    if len(shown) < len(seen.rows):
        table.add_row(f"… and {len(seen.rows) - len(shown)} smaller kinds (--format json lists them)")
    return table


def _few(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
