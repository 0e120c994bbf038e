"""`summary.md`: the run for a pull request or a job summary, at most 60 KB, most important rows first.

Pure: RunRecord → str.  It leaves the machine, so it holds prompts and answers only if the policy shares them.
"""

from __future__ import annotations

from gate.records import CheckpointRef, Flip, Performance, RunRecord, Status
from gate.reports import basis, escape, figures, fitting, markdown_governance, numbers, quality
from gate.reports.fitting import Section
from gate.reports.rows import Row, rows
from gate.reports.sentence import PASSED_WITH_WAIVER, TITLES, title
from gate.reports.shared import is_without_texts, level, redacted

MAX_BYTES = 60_000
_RULES_BYTES, _STAGES_BYTES, _NOTES_BYTES = 28_000, 8_000, 3_000  # shares of it; flips get what is left
_BAR_BYTES, _WAIVERS_BYTES, _LEAST_BYTES = 4_000, 2_000, 300  # whatever the room: who waived what is never cut first
_FIGURES_BYTES, _MAX_PERFORMANCES = 2_500, 2  # of each table and each list of remarks; profile stages shown
_SENTENCE_CHARACTERS = 1500
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
WAIVED = "☑️"


def render(record: RunRecord, max_bytes: int = MAX_BYTES) -> str:
    """The summary; with less room its tables are shorter, and what matters least is left out.

    Raises:
        ValueError: not even the verdict fits into `max_bytes`.
    """
    record = redacted(record)
    whole = [
        Section(text=_head(record, max_bytes), rank=0),
        Section(
            text=markdown_governance.bar(record.policy_change, max(_share(_BAR_BYTES, max_bytes), _LEAST_BYTES)), rank=1
        ),
        Section(text=markdown_governance.waivers(record, max(_share(_WAIVERS_BYTES, max_bytes), _LEAST_BYTES)), rank=1),
        Section(text=rules(record, _share(_RULES_BYTES, max_bytes)), rank=2),
        Section(text=_stages(record, _share(_STAGES_BYTES, max_bytes)), rank=3),
        *(Section(text=text, rank=6) for text in _performances(record, _share(_FIGURES_BYTES, max_bytes))),
        Section(text=_notes(record, _share(_NOTES_BYTES, max_bytes)), rank=5),
        Section(text=_reproduce(record), rank=4),
    ]
    kept = fitting.sections(whole, max_bytes)
    flips = _flips(record, max_bytes - fitting.size(fitting.joined(kept)) - 2)
    after = next((i for i, s in enumerate(kept) if s.rank > 2), len(kept))
    return fitting.joined([*kept[:after], Section(text=flips, rank=7), *kept[after:]])


def symbol(record: RunRecord) -> str:
    """What stands for the verdict; a regression that passed with waiver looks neither red nor like a pass."""
    return WAIVED if title(record) == PASSED_WITH_WAIVER else SYMBOLS[record.verdict.status]


def _share(bytes_of_all: int, max_bytes: int) -> int:
    return bytes_of_all * max_bytes // MAX_BYTES


def _head(record: RunRecord, max_bytes: int) -> str:
    lines = [
        f"## {symbol(record)} quantgate: {title(record)}",
        "",
        f"**{escape.markdown(escape.line(record.verdict.sentence, min(_SENTENCE_CHARACTERS, max_bytes // 12)))}**",
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


def rules(record: RunRecord, budget_bytes: int) -> str:
    """The table of the rules, worst first, and why those that did not pass did not."""
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
    why = ["", "**Why**", "", *fitting.lines(reasons[:20], budget_bytes // 4, "rule")] if reasons else []
    explained = ["", _GENERAL] if general else []
    score = [] if record.quality is None else ["", escape.markdown(quality.line(record.quality))]
    return "\n".join(["### Rules", "", *header, *fitting.lines(lines, budget_bytes, "rule"), *explained, *score, *why])


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


def _stages(record: RunRecord, budget_bytes: int) -> str:
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
    return "\n".join(["### Stages", "", *header, *fitting.lines(lines, budget_bytes, "stage")])


def _performances(record: RunRecord, budget_bytes: int) -> list[str]:
    left = len(record.performance) - _MAX_PERFORMANCES
    shown = [_performance(one, budget_bytes) for one in record.performance[:_MAX_PERFORMANCES]]
    return [*shown, *([f"… and {numbers.count(left, 'profile stage')} more in report.html."] if left > 0 else [])]


def _performance(one: Performance, budget_bytes: int) -> str:
    cells = figures.compact(one)
    used = [k for k in range(len(figures.COMPACT)) if any(row[k + 1] != numbers.MISSING for row in cells)]
    header = ["shape or load", *(figures.COMPACT[k] for k in used)]
    rows = [
        f"| {' | '.join(escape.markdown(cell) for cell in (row[0], *(row[k + 1] for k in used)))} |" for row in cells
    ]
    table = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    table = ["", *table, *fitting.lines(rows, budget_bytes, "shape")] if rows else []
    said = [f"- {escape.markdown(escape.line(text, _REASON_CHARACTERS))}" for text in figures.sentences(one)]
    remarks = ["", *fitting.lines(said, budget_bytes, "remark")] if said else []
    about = f"{escape.markdown(escape.line(one.stage, 80))}: baseline → candidate (ratio){figures.doubt(one)}"
    return "\n".join([f"### {figures.title(one)}", "", about, *table, *remarks])


def _notes(record: RunRecord, budget_bytes: int) -> str:
    notes = [f"- {escape.markdown(escape.line(note, _REASON_CHARACTERS))}" for note in record.notes]
    return "\n".join(["### Notes", "", *fitting.lines(notes, budget_bytes, "note")]) if notes else ""


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
    share = level(record.policy)
    if not record.flips or share == "none":
        return ""
    lost_first = sorted(record.flips, key=lambda f: f.kind != "lost")[:_MAX_FLIPS]
    lines = [_flip_text(f) if share == "full" and not is_without_texts(f) else _flip_id(f) for f in lost_first]
    title = f"Examples that flipped ({len(lines)} of {numbers.count(len(record.flips))})"
    frame = [f"<details><summary>{title}</summary>", "", "", "</details>"]
    room = budget_bytes - sum(fitting.size(f) + 1 for f in frame) - 100
    return "\n".join([*frame[:2], *fitting.lines(lines, room, "example"), *frame[2:]]) if room > 0 else ""


def _flip_id(flip: Flip) -> str:
    group = f" ({escape.markdown(escape.line(flip.group, 80))})" if flip.group else ""
    source = escape.markdown(escape.line(flip.source, 80))
    return f"- {escape.markdown(flip.kind)} on {source}{group}: {escape.code(escape.line(flip.item_id, 160))}"


def _flip_text(flip: Flip) -> str:
    answers = (("expected", flip.target), ("baseline", flip.baseline_output), ("candidate", flip.candidate_output))
    blocks = [f"{name}\n{escape.fenced(text, _ANSWER_CHARACTERS)}" for name, text in answers]
    return "\n".join([_flip_id(flip), "", escape.fenced(flip.prompt, _PROMPT_CHARACTERS), "", *blocks, ""])
