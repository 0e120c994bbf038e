"""Sections of `summary.md` on who else had a say: the waivers of a run, and a pull request that changes its own bar.

Pure: str from records, escaped for Markdown.  The sentences come first: where there is no room, tables are cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from gate.records import PolicyChange, RunRecord
from gate.reports import escape, fitting, governance
from gate.reports.sentence import TITLES

_NAME, _SAID = 160, 300  # characters of an id or a name, and of a reason or a rule


def waivers(record: RunRecord, budget_bytes: int) -> str:
    """Which rules are waived, by whom, until when and why; empty without any."""
    if not record.waivers:
        return ""
    cells = [(_code(w.rule), _said(w.owner), w.expires, _said(w.reason)) for w in record.waivers]
    table = _table(("rule", "owner", "until", "reason"), cells, budget_bytes, "waiver")
    return "\n".join(["### Waivers", "", governance.about_waivers(record), *table])


def bar(change: PolicyChange | None, budget_bytes: int) -> str:
    """What the pull request does to the policy that judges it; empty where it does nothing, or nobody looked."""
    if change is None:
        return ""
    paths = fitting.lines([f"- {_code(path)}" for path in change.paths], budget_bytes // 5, "file", "in run.json")
    rules = [(r.kind, _code(r.rule), _rule(r.was), _rule(r.now)) for r in governance.rules(change)]
    moves = [(_code(m.run_id), _said(m.candidate), TITLES[m.was], TITLES[m.now]) for m in governance.moves(change)]
    notes = [f"- {_said(note)}" for note in change.notes]
    parts = [
        f"### {governance.BAR}",
        "",
        _said(governance.judged_by(change), 400),
        f"Its policy: {_said(governance.about_rules(change))}. {_said(governance.about_moves(change))}",
        *_table(("", "rule", "was", "now"), rules, budget_bytes * 2 // 5, "rule"),
        *_table(("run", "candidate", "was", "now"), moves, budget_bytes * 3 // 10, "run"),
        *(["", *paths] if paths else []),
        *(["", *fitting.lines(notes, budget_bytes // 10, "note")] if notes else []),
    ]
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], budget_bytes: int, noun: str) -> list[str]:
    if not rows:
        return []
    written = fitting.lines([f"| {' | '.join(row)} |" for row in rows], budget_bytes, noun)
    return ["", f"| {' | '.join(header)} |", "|" + "---|" * len(header), *written]


def _rule(text: str | None) -> str:
    return "none" if text is None else _said(text)


def _code(text: str) -> str:
    return escape.code(escape.line(text, _NAME))


def _said(text: str, limit: int = _SAID) -> str:
    return escape.markdown(escape.line(text, limit))
