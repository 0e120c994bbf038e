"""The run as plain text for a terminal or a CI log, at most 100 columns wide.

Pure: RunRecord → str.  No prompts or answers: a log may leave the machine.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from gate.records import Performance, PolicyChange, RunRecord, Status
from gate.reports import basis, escape, figures, governance, numbers, quality
from gate.reports.rows import Row, rows
from gate.reports.sentence import TITLES, title

WIDTH = 100
_GAP = 2
_INDENT = 4


def render(record: RunRecord) -> str:
    """Verdict, rules worst first, stages, where the details are."""
    ranked = rows(record)
    parts = [
        [f"quantgate {record.gate_version}: {title(record).upper()} (exit code {record.exit_code})"],
        wrapped(record.verdict.sentence, WIDTH),
        _bar(record.policy_change),
        _waivers(record),
        _rules(ranked),
        [] if record.quality is None else wrapped(quality.line(record.quality), WIDTH),
        _stages(record),
        *(_performance(one) for one in record.performance),
        _notes(record),
        _closing(record),
    ]
    return escape.workflow("\n\n".join("\n".join(lines) for lines in parts if lines) + "\n")


def _waivers(record: RunRecord) -> list[str]:
    if not record.waivers:
        return []
    header = ("waived rule", "owner", "until", "reason")
    cells = [(w.rule, w.owner, w.expires, w.reason) for w in record.waivers]
    return [*wrapped(governance.about_waivers(record), WIDTH), *table([header, *cells], flexible=3)]


def _bar(change: PolicyChange | None) -> list[str]:
    if change is None:
        return []
    rules = [(r.kind, r.rule, r.was or "none", r.now or "none") for r in governance.rules(change)]
    moves = [(m.run_id, m.candidate, TITLES[m.was], TITLES[m.now]) for m in governance.moves(change)]
    return [
        f"{governance.BAR}.",
        *wrapped(governance.judged_by(change), WIDTH),
        *wrapped(f"Its policy: {governance.about_rules(change)}. {governance.about_moves(change)}", WIDTH),
        *(table([("", "rule", "was", "now"), *rules], flexible=3) if rules else []),
        *(table([("run", "candidate", "was", "now"), *moves], flexible=1) if moves else []),
        *(line for path in change.paths for line in _listed(path)),
        *(line for note in change.notes for line in _listed(note)),
    ]


def _rules(ranked: Sequence[Row]) -> list[str]:
    if not ranked:
        return []
    header = ("verdict", "rule, worst first", "measured", "interval", "bound", "items")
    cells = [(r.title, r.finding.rule.id, r.estimate, r.interval, r.bound, r.items) for r in ranked]
    return table(
        [header, *cells], flexible=1, below=["", *("; ".join(s for s in (r.settled, r.reach) if s) for r in ranked)]
    )


def _stages(record: RunRecord) -> list[str]:
    if not record.stages:
        return ["no stage ran"]
    header = ("stage", "verdict", "items", "time", "baseline", "remarks")
    cells = []
    for s in record.stages:
        ran = s.status is not Status.SKIPPED
        items = f"{numbers.count(s.items_scored)} of {numbers.count(s.items_available)}" if ran else ""
        remarks = s.skipped_because or basis.remarks(s)
        time = numbers.duration(s.seconds) if ran else ""
        cells.append((s.name, TITLES[s.status], items, time, s.baseline_from if ran else "", remarks))
    return table([header, *cells], flexible=5)


def _performance(one: Performance) -> list[str]:
    cells = figures.compact(one)
    used = [k for k in range(len(figures.COMPACT)) if any(row[k + 1] != numbers.MISSING for row in cells)]
    header = ("shape or load", *(figures.COMPACT[k] for k in used))
    about = f"{figures.title(one)}, stage {one.stage}: baseline → candidate (ratio){figures.doubt(one)}"
    shown = table([header, *((row[0], *(row[k + 1] for k in used)) for row in cells)], flexible=0) if cells else []
    remarks = [line for said in figures.sentences(one) for line in _listed(said)]
    return [*wrapped(about, WIDTH), *shown, *remarks]


def _listed(text: str) -> list[str]:
    first, *rest = wrapped(text, WIDTH - 2)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _notes(record: RunRecord) -> list[str]:
    return [line for note in record.notes for line in wrapped(f"note: {escape.line(note)}", WIDTH)]


def _closing(record: RunRecord) -> list[str]:
    lost = sum(f.kind == "lost" for f in record.flips)
    gained = len(record.flips) - lost
    lines = wrapped(f"run {record.run_id}, {numbers.duration(record.seconds)}, policy {record.policy_source}", WIDTH)
    if record.flips:
        lines += wrapped(f"{lost} lost and {gained} gained answers are kept as examples in report.html", WIDTH)
    return lines


def table(cells: Sequence[Sequence[str]], flexible: int, below: Sequence[str] | None = None) -> list[str]:
    """Left-aligned columns; column `flexible` takes what is left of WIDTH and wraps, like any that is too wide.

    `below` has for every row, the header's included, what is said in a paragraph under it, or an empty text.
    """
    clean = [[escape.line(cell) for cell in row] for row in cells]
    n_columns = len(clean[0])
    widths = [max(_columns(row[i]) for row in clean) for i in range(n_columns)]
    cap = WIDTH // 5
    widths = [w if i == flexible else min(w, cap) for i, w in enumerate(widths)]
    rest = WIDTH - _GAP * (n_columns - 1) - sum(w for i, w in enumerate(widths) if i != flexible)
    widths[flexible] = min(widths[flexible], max(rest, 12))
    lines = []
    for row, more in zip(clean, below or [""] * len(clean), strict=True):
        wraps = [wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for k in range(max(len(w) for w in wraps)):
            parts = [_padded(w[k] if k < len(w) else "", width) for w, width in zip(wraps, widths, strict=True)]
            lines.append((" " * _GAP).join(parts).rstrip())
        if more:
            lines += [f"{'':{_INDENT}}{line}" for line in wrapped(more, WIDTH - _INDENT)]
    rule = (" " * _GAP).join("-" * w for w in widths)
    return [lines[0], rule, *lines[1:]]


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns: broken at spaces, then after dots, then anywhere."""
    lines, current = [], ""
    for word in _pieces(escape.line(text), width):
        if current and _columns(current + word.rstrip()) > width:
            lines.append(current.rstrip())
            current = ""
        current += word
    return [*lines, current.rstrip()]


def _pieces(text: str, width: int) -> list[str]:
    pieces = []
    for word in (w + " " for w in text.split(" ")):
        if _columns(word.rstrip()) <= width:
            pieces.append(word)
            continue
        for part in word.replace(".", ".\0").split("\0"):
            piece = ""
            for character in part:
                if _columns(piece + character.strip()) > width:
                    pieces.append(piece)
                    piece = ""
                piece += character
            pieces.append(piece)
    return pieces


def _columns(text: str) -> int:
    """Terminal columns: wide characters take two, combining and invisible ones none."""
    return sum(
        0
        if unicodedata.combining(c) or unicodedata.category(c) in ("Cf", "Cc")
        else 2
        if unicodedata.east_asian_width(c) in "WF"
        else 1
        for c in text
    )


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))
