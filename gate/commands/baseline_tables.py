"""What `gate baseline` shows: tables of at most 80 columns, or JSON for scripts.

Renders; reads and decides nothing.  Names in a shared store are other people's text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from gate.reports import escape

if TYPE_CHECKING:
    from gate.baselines import Kept
    from gate.promotion import Replacement, Replayed
    from gate.store import Entry
    from gate.store.log import Line
    from gate.store.pruning import Pruned
    from gate.store.verification import Checked

WIDTH = 80
_GAP = 2
_KEY = 8
"""Characters of a key that are shown: enough to name one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A table, and the same as plain data.  `flexible`: columns that are cut where there is no room."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    flexible: frozenset[int]
    right: frozenset[int]
    data: Any


def show(shown: Shown, format: str) -> None:
    """Print it in one of the formats."""
    if format == "json":
        typer.echo(json.dumps(shown.data, indent=1, sort_keys=True))
    elif shown.rows:
        typer.echo("\n".join(lines(shown)))


def lines(shown: Shown) -> list[str]:
    """The table as text, no line wider than WIDTH."""
    cells = [tuple(map(escape.line, row)) for row in (shown.heads, *shown.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(shown.heads))]
    while sum(widths) + _GAP * (len(widths) - 1) > WIDTH:
        widest = max(shown.flexible, key=lambda i: widths[i])
        widths[widest] -= 1
    made = []
    for row in cells:
        fitted = [escape.line(cell, width) for cell, width in zip(row, widths, strict=True)]
        padded = [
            c.rjust(w) if i in shown.right else c.ljust(w) for i, (c, w) in enumerate(zip(fitted, widths, strict=True))
        ]
        made.append((" " * _GAP).join(padded).rstrip())
    return [escape.workflow(line) for line in made]


def of_entries(entries: Sequence[Entry]) -> Shown:
    return Shown(
        heads=("key", "checkpoint", "stage/source", "items", "measured", "size", "backend", "signed"),
        rows=tuple(_row(entry) for entry in entries),
        flexible=frozenset({1, 2}),
        right=frozenset({3, 5}),
        data=[_data(entry) for entry in entries],
    )


def summary(place: str, entries: Sequence[Entry]) -> str:
    """The line below the table."""
    size = sum(e.manifest.n_bytes for e in entries if e.manifest is not None)
    broken = sum(e.problem is not None for e in entries)
    said = f"; {broken} that no run will use: see gate baseline verify" if broken else ""
    return f"{len(entries)} entries, {size_text(size)}, in {escape.line(place)}{said}"


def of_measured(kept: Sequence[Kept]) -> Shown:
    def key(one: Kept) -> str:
        return "" if one.again is None or one.again.proposal is None else one.again.proposal.key

    return Shown(
        heads=("stage/source", "result", "items", "seconds", "proposal"),
        rows=tuple(
            (_source(k.stage, k.source), k.result, f"{k.items:,}", f"{k.seconds:.1f}", key(k)[:_KEY]) for k in kept
        ),
        flexible=frozenset({0}),
        right=frozenset({2, 3}),
        data=[
            {
                "stage": k.stage,
                "source": k.source,
                "result": k.result,
                "items": k.items,
                "seconds": k.seconds,
                "proposal": key(k) or None,
                "problem": k.problem,
            }
            for k in kept
        ],
    )


def of_checked(checked: Sequence[Checked]) -> Shown:
    def what(one: Checked) -> str:
        if one.entry is None:
            return one.name
        kind = "proposal" if one.entry.generation is None else f"generation {one.entry.generation}"
        return f"{one.entry.key[:_KEY]} {kind}{'' if one.counts or one.entry.generation is None else ', superseded'}"

    return Shown(
        heads=("what", "signature", "found"),
        rows=tuple((what(c), c.signature or "", c.problem or "whole") for c in checked),
        flexible=frozenset({0, 2}),
        right=frozenset(),
        data=[
            {
                "name": c.name,
                "key": None if c.entry is None else c.entry.key,
                "counts": c.counts,
                "signature": c.signature,
                "problem": c.problem,
            }
            for c in checked
        ],
    )


def of_doomed(pruned: Pruned) -> Shown:
    return Shown(
        heads=("key", "stage/source", "measured", "size", "why"),
        rows=tuple((r[0], r[2], r[4], r[5], d.why) for d in pruned.doomed for r in (_row(d.entry),)),
        flexible=frozenset({1, 4}),
        right=frozenset({3}),
        data={
            "dropped": [{**_data(d.entry), "why": d.why} for d in pruned.doomed],
            "in_use": [e.name for e in pruned.in_use],
            "leftovers": list(pruned.leftovers),
            "kept_bytes": pruned.kept_bytes,
        },
    )


def pruned_line(pruned: Pruned, *, dry_run: bool) -> str:
    """The line below the table."""
    verb = "would go" if dry_run else "dropped"
    size = sum(d.entry.manifest.n_bytes for d in pruned.doomed if d.entry.manifest is not None)
    said = f"{len(pruned.doomed)} entries ({size_text(size)}) and {len(pruned.leftovers)} leftovers {verb}"
    if pruned.in_use:
        said += f"; {len(pruned.in_use)} stay because they are in use"
    return f"{said}; {size_text(pruned.kept_bytes)} remain"


def details(entries: Sequence[Entry], log: Sequence[Line], format: str) -> str:
    """Everything about one key."""
    data = {"entries": [_data(e) for e in entries], "log": [line.model_dump(mode="json") for line in log]}
    if format == "json":
        return json.dumps(data, indent=1, sort_keys=True)
    said: list[str] = []
    for entry in entries:
        kind = "proposal" if entry.generation is None else f"generation {entry.generation}"
        said.append(f"{kind} ({entry.name})")
        if entry.problem is not None:
            said.append(f"  not used: {entry.problem}")
        if entry.manifest is not None:
            fields = entry.manifest.model_dump(mode="json", exclude={"version", "generation", "key"})
            said += [f"  {line}" for line in _tree({"signature": entry.signature, **fields})]
    said += [f"log: {line.at} {line.action} by {line.by}: {line.why}" for line in log]
    return escape.workflow("\n".join(escape.clean(line) for line in said))


def replaced(proposals: Sequence[Entry], pairs: Sequence[Replacement]) -> str:
    """What a promotion is about."""
    said = [f"{p.key[:_KEY]} {p.manifest.parts['source']}" for p in proposals if p.manifest is not None]
    changed = []
    for pair in pairs:
        was = {(o.item_id, o.metric, o.group): o.value for o in pair.old.observations}
        now = {(o.item_id, o.metric, o.group): o.value for o in pair.new.observations}
        other = sum(was.get(item) != now.get(item) for item in was.keys() | now.keys())
        changed.append(f"  {pair.new.source}: {other:,} of {len(now):,} scores differ from what is stored")
    return escape.workflow(
        "\n".join([f"to be promoted: {', '.join(map(escape.line, said))}", *map(escape.clean, changed)])
    )


def moved(runs: Sequence[Replayed]) -> str:
    """Which verdicts would say something else, run by run."""
    concerned = [r for r in runs if r.concerned]
    said = []
    for run in concerned:
        name = f"run {run.run_id} ({run.folder.name})"
        if run.problem is not None:
            said.append(f"  {name} cannot be decided again: {run.problem.partition(chr(10))[0]}")
        said += [
            f"  {name}: {m.rule or 'the verdict'} {m.was or 'not asked'} → {m.would_be or 'not asked'}"
            for m in run.moves
        ]
    moving = sum(bool(r.moves) for r in concerned)
    head = f"{moving} of {len(concerned)} runs judged against what is stored would move ({len(runs)} looked at)"
    return escape.workflow("\n".join([head, *map(escape.clean, said)]))


def size_text(n_bytes: int) -> str:
    """`131 MB`."""
    amount = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _row(entry: Entry) -> tuple[str, ...]:
    manifest = entry.manifest
    if manifest is None:
        return entry.key[:_KEY], "cannot be read", "", "", "", "", "", ""
    uri = str(manifest.provenance.get("uri", "")).rstrip("/").rpartition("/")[2]
    return (
        entry.key[:_KEY],
        uri or manifest.parts["effective_digest"][:_KEY],
        _source(manifest.parts.get("stage_name", manifest.parts["stage"]), manifest.parts["source"]),
        f"{manifest.items:,}",
        manifest.created_at[:10],
        size_text(manifest.n_bytes),
        manifest.parts["backend"],
        {"signed": "yes", "unsigned": "no", "no key here": "?"}.get(str(entry.signature), "WRONG"),
    )


def _source(stage: str, source: str) -> str:
    return stage if stage == source else f"{stage}/{source}"


def _data(entry: Entry) -> dict[str, Any]:
    known = {"name": entry.name, "key": entry.key, "signature": entry.signature, "problem": entry.problem}
    return known if entry.manifest is None else {**entry.manifest.model_dump(mode="json"), **known}


def _tree(value: Any, name: str = "") -> list[str]:
    """Plain data as indented lines."""
    if isinstance(value, dict) and value:
        inner = [line for k, v in value.items() for line in _tree(v, str(k))]
        return [f"{name}:", *(f"  {line}" for line in inner)] if name else inner
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [f"{name}: {escape.line(text)}"]
