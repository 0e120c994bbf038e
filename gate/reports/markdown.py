"""`summary.md`: the run for a pull request or a job summary, at most 60 KB, most important rows first.

Pure: RunRecord → str.  It leaves the machine, so it holds prompts and answers only if the policy shares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gate.records import CheckpointRef, Flip, Performance, RunRecord, Status
from gate.reports import basis, escape, figures, numbers, quality
from gate.reports.rows import Row, rows
from gate.reports.sentence import TITLES

MAX_BYTES = 60_000
_RULES_BYTES, _STAGES_BYTES, _NOTES_BYTES = 30_000, 8_000, 3_000  # shares of it; flips get what is left
_FIGURES_BYTES, _MAX_PERFORMANCES = 2_500, 2  # of each table and each list of remarks; profile stages shown
_MAX_FLIPS = 20
_REASON_CHARACTERS, _PROMPT_CHARACTERS, _ANSWER_CHARACTERS = 300, 600, 300

_GENERAL = (
    "*Sees in general*: the verdicts on these rows are about the benchmark's own items; for tasks like these, "
    "a smaller loss cannot be told from none."
)

SYMBOLS = {
    Status.PASS: "✅",
    Status.REGRESSION: "❌",
    Status.INCONCLUSIVE: "❓",
    Status.ERROR: "⚠️",
    Status.REFUSED: "⛔",
    Status.SKIPPED: "➖",
}


def render(record: RunRecord) -> str:
    """The summary.

    Raises:
        ValueError: it could not be kept within MAX_BYTES.
    """
    sections = [_head(record), _rules(record), _stages(record), *_performances(record)]
    sections += [_notes(record), _reproduce(record)]
    text = _joined(sections)
    flips = _flips(record, MAX_BYTES - _size(text))
    text = _joined([*sections[:2], flips, *sections[2:]])
    if _size(text) > MAX_BYTES:
        raise ValueError(f"summary.md has {_size(text)} bytes, expected at most {MAX_BYTES}")
    return text


def _joined(sections: Iterable[str]) -> str:
    return escape.workflow("\n\n".join(s for s in sections if s) + "\n")


def _size(text: str) -> int:
    return len(escape.workflow(text).encode())


def _fitting(lines: Sequence[str], budget_bytes: int, noun: str) -> list[str]:
    """As many lines from the front as fit, and how many do not."""
    kept, used = 0, 0
    for one in lines:
        used += _size(one) + 1
        if used > budget_bytes:
            break
        kept += 1
    left = len(lines) - kept
    return [*lines[:kept], *([f"\n… and {numbers.count(left, noun)} more in report.html."] if left else [])]


def _head(record: RunRecord) -> str:
    status = record.verdict.status
    lines = [
        f"## {SYMBOLS[status]} quantgate: {TITLES[status]}",
        "",
        f"**{escape.markdown(escape.line(record.verdict.sentence, 1500))}**",
    ]
    if record.candidate is not None and record.baseline is not None:
        lines += [
            "",
            f"Candidate {_checkpoint(record.candidate)} against baseline {_checkpoint(record.baseline)}.",
        ]
    return "\n".join(lines)


def _checkpoint(ref: CheckpointRef) -> str:
    kind = ref.quantization.method if ref.quantization else "not quantized"
    scheme = f" {ref.quantization.scheme}" if ref.quantization and ref.quantization.scheme else ""
    details = escape.markdown(escape.line(f"{kind}{scheme}, {numbers.size(ref.weight_bytes)}", 120))
    return f"{escape.code(escape.line(ref.uri, 200))} ({details})"


def _rules(record: RunRecord) -> str:
    ranked = rows(record)
    if not ranked:
        return "No rule was judged."
    general = any(r.reach and r.detectable for r in ranked)
    lines = [_rule_line(r, general) for r in ranked]
    header = [
        "| | rule | baseline → candidate | measured | interval | bound | items |" + " sees in general |" * general,
        "|---|---|---|---|---|---|---|" + "---|" * general,
    ]
    reasons = [
        f"- {escape.code(r.finding.rule.id)}: {_reason(r)}" for r in ranked if r.finding.status is not Status.PASS
    ]
    why = ["", "**Why**", "", *_fitting(reasons[:20], _RULES_BYTES // 4, "rule")] if reasons else []
    explained = ["", _GENERAL] if general else []
    score = [] if record.quality is None else ["", escape.markdown(quality.line(record.quality))]
    return "\n".join(["### Rules", "", *header, *_fitting(lines, _RULES_BYTES, "rule"), *explained, *score, *why])


def _rule_line(one: Row, general: bool) -> str:
    """`general`: with the column of the smallest loss seen for tasks like these."""
    cells = [one.change, one.measured, one.interval, one.bound, _items(one)]
    cells += [one.detectable if one.reach else ""] if general else []
    title = f"{SYMBOLS[one.finding.status]} {one.title}"
    name = escape.code(escape.line(one.finding.rule.id, 160))
    return f"| {title} | {name} | {' | '.join(escape.markdown(c) for c in cells)} |"


def _items(one: Row) -> str:
    available = basis.sampled_from(one.finding, one.stage)
    return one.items if available is None else f"{one.items} sampled from {numbers.count(available)}"


def _reason(one: Row) -> str:
    said = escape.markdown(escape.line(one.finding.reason.partition("\n")[0], _REASON_CHARACTERS))
    if one.needs:
        said += f"; {escape.markdown(one.needs)}"
    red = [m for m in one.members if m.status is not Status.PASS][:5]
    groups = ", ".join(f"{m.group} ({TITLES[m.status]}, {m.measured})" for m in red)
    return said + (f"; worst groups: {escape.markdown(escape.line(groups, _REASON_CHARACTERS))}" if groups else "")


def _stages(record: RunRecord) -> str:
    if not record.stages:
        return "No stage ran."
    lines = []
    for s in record.stages:
        ran = s.status is not Status.SKIPPED
        items = f"{numbers.count(s.items_scored)} of {numbers.count(s.items_available)}" if ran else ""
        remarks = f"not run: {s.skipped_because}" if s.skipped_because else basis.remarks(s)
        cells = [
            f"{SYMBOLS[s.status]} {TITLES[s.status]}",
            f"{escape.markdown(s.name)} ({escape.markdown(s.kind)})",
            items,
            numbers.duration(s.seconds) if ran else "",
            escape.markdown(s.baseline_from) if ran else "",
            escape.markdown(escape.line(remarks, _REASON_CHARACTERS)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    header = ["| | stage | items | time | baseline | remarks |", "|---|---|---|---|---|---|"]
    return "\n".join(["### Stages", "", *header, *_fitting(lines, _STAGES_BYTES, "stage")])


def _performances(record: RunRecord) -> list[str]:
    left = len(record.performance) - _MAX_PERFORMANCES
    shown = [_performance(one) for one in record.performance[:_MAX_PERFORMANCES]]
    return [*shown, *([f"… and {numbers.count(left, 'profile stage')} more in report.html."] if left > 0 else [])]


def _performance(one: Performance) -> str:
    cells = figures.compact(one)
    used = [k for k in range(len(figures.COMPACT)) if any(row[k + 1] != numbers.MISSING for row in cells)]
    header = ["shape or load", *(figures.COMPACT[k] for k in used)]
    rows = [
        f"| {' | '.join(escape.markdown(cell) for cell in (row[0], *(row[k + 1] for k in used)))} |" for row in cells
    ]
    table = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    table = ["", *table, *_fitting(rows, _FIGURES_BYTES, "shape")] if rows else []
    said = [f"- {escape.markdown(escape.line(text, _REASON_CHARACTERS))}" for text in figures.sentences(one)]
    remarks = ["", *_fitting(said, _FIGURES_BYTES, "remark")] if said else []
    about = f"{escape.markdown(escape.line(one.stage, 80))}: baseline → candidate (ratio){figures.doubt(one)}"
    return "\n".join([f"### {figures.title(one)}", "", about, *table, *remarks])


def _notes(record: RunRecord) -> str:
    notes = [f"- {escape.markdown(escape.line(note, _REASON_CHARACTERS))}" for note in record.notes]
    return "\n".join(["### Notes", "", *_fitting(notes, _NOTES_BYTES, "note")]) if notes else ""


def _reproduce(record: RunRecord) -> str:
    environment = record.environment
    digests = [(ref.role, ref.digest) for ref in (record.candidate, record.baseline) if ref is not None]
    commit = environment.git_commit
    facts = [
        f"run {escape.code(record.run_id)} of {numbers.moment(record.created_at)}, "
        f"{numbers.duration(record.seconds)}, quantgate {escape.markdown(record.gate_version)}",
        f"policy {escape.code(escape.line(record.policy_source, 200))}, SHA-256 {escape.code(record.policy_digest)}",
        *(f"{role} SHA-256 {escape.code(digest)}" for role, digest in digests),
        f"{escape.markdown(escape.line(environment.device, 80))}, python {escape.markdown(environment.python)}, "
        f"environment {escape.code(environment.fingerprint)}" + (f", commit {escape.code(commit)}" if commit else ""),
    ]
    return "\n".join(["<details><summary>Reproduce</summary>", "", *(f"- {f}" for f in facts), "", "</details>"])


def _flips(record: RunRecord, budget_bytes: int) -> str:
    """Examples that flipped: nothing, ids or texts, as `share_examples` says (nothing when it says nothing)."""
    share = record.policy.get("share_examples", "none")
    if not record.flips or share not in ("ids", "full"):
        return ""
    lost_first = sorted(record.flips, key=lambda f: f.kind != "lost")[:_MAX_FLIPS]
    lines = [_flip_text(f) if share == "full" else _flip_id(f) for f in lost_first]
    title = f"Examples that flipped ({len(lines)} of {numbers.count(len(record.flips))})"
    frame = [f"<details><summary>{title}</summary>", "", "", "</details>"]
    room = budget_bytes - sum(_size(f) + 1 for f in frame) - 100
    return "\n".join([*frame[:2], *_fitting(lines, room, "example"), *frame[2:]])


def _flip_id(flip: Flip) -> str:
    group = f" ({escape.markdown(escape.line(flip.group, 80))})" if flip.group else ""
    source = escape.markdown(escape.line(flip.source, 80))
    return f"- {escape.markdown(flip.kind)} on {source}{group}: {escape.code(escape.line(flip.item_id, 160))}"


def _flip_text(flip: Flip) -> str:
    answers = (("expected", flip.target), ("baseline", flip.baseline_output), ("candidate", flip.candidate_output))
    blocks = [f"{name}\n{escape.fenced(text, _ANSWER_CHARACTERS)}" for name, text in answers]
    return "\n".join([_flip_id(flip), "", escape.fenced(flip.prompt, _PROMPT_CHARACTERS), "", *blocks, ""])
