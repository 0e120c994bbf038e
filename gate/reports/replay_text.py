"""Two verdicts on one run as plain text: which rules moved under another policy.

Pure: two RunRecords → str.  Judges nothing.
"""

from __future__ import annotations

from gate.records import Finding, RunRecord, Status
from gate.reports import escape, governance
from gate.reports.numbers import MISSING
from gate.reports.sentence import TITLES, title
from gate.reports.text import WIDTH, table, wrapped

_MOVED = "moved"


def render(before: RunRecord, after: RunRecord) -> str:
    """A row per rule of either policy (then, now, whether it moved), both verdicts, and why rules have none now."""
    then, now = _findings(before), _findings(after)
    cells = [("rule", "then", "now", "")]
    for rule in dict.fromkeys((*now, *then)):
        old = _title(before, then.get(rule))
        new = _title(after, now.get(rule)) if rule in now else "not asked"
        cells.append((rule, old, new, "" if _status(then.get(rule)) is _status(now.get(rule)) else _MOVED))
    moved = sum(row[-1] == _MOVED for row in cells)
    ends = [f"{title(r)} (exit code {r.exit_code})" for r in (before, after)]
    closing = [
        f"verdict: {ends[0]} → {ends[1]}" if ends[0] != ends[1] else f"verdict: {ends[1]}, as before",
        f"{moved} of {len(cells) - 1} rules moved; policy then: {before.policy_source}, now: {after.policy_source}",
    ]
    why = [
        f"{f.rule.id}: {f.reason.partition(chr(10))[0]}"
        for s in after.stages
        for f in s.findings
        if f.status is Status.ERROR
    ]
    said = [line for text in (*closing, *why, after.verdict.sentence) for line in wrapped(text, WIDTH)]
    return escape.workflow("\n".join([*table(cells, flexible=0), "", *said]) + "\n")


def _findings(record: RunRecord) -> dict[str, Finding]:
    return {f.rule.id: f for s in record.stages for f in s.findings}


def _status(finding: Finding | None) -> Status | None:
    return None if finding is None else finding.status


def _title(record: RunRecord, finding: Finding | None) -> str:
    if finding is None:
        return MISSING
    waived = " (waived)" if governance.waiver_of(record, finding) else ""
    return TITLES[finding.status] + waived
