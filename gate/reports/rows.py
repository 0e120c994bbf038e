"""One finding as the cells and the story that every report prints.

Pure: RunRecord → text cells, unescaped; each format escapes them in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass

from gate.records import BoundKind, Finding, Member, RunRecord, Severity, StageResult, Status, Waiver
from gate.reports import allowance, basis, escape, governance, numbers
from gate.reports.numbers import MISSING
from gate.reports.sentence import TITLES, describe, scale, subject, take, unit

_LIMIT_SIGNS = {
    BoundKind.MAX_DROP: "drop ≤ ",
    BoundKind.MAX_INCREASE: "increase ≤ ",
    BoundKind.MIN_RETAINED: "retained ≥ ",
    BoundKind.MIN_SPEEDUP: "speed-up ≥ ",
    BoundKind.MAX: "≤ ",
    BoundKind.MIN: "≥ ",
}
_COUNT_WORDS = {
    "n": "items",
    "N": "expected",
    "reached": "asked",
    "b": "lost",
    "c": "gained",
    "a": "both right",
    "d": "both wrong",
    "G": "clusters",
    "R": "pairs of blocks",
    "second_R": "pairs of blocks in the second measurement",
    "second_estimate": "second estimate",
    "second_low": "from",
    "second_high": "to",
    "disturbed": "disturbed",
    "samples": "single times",
    "process_pairs": "pairs of processes",
    "between_process_log_sd": "sd between processes (log)",
    "hodges_lehmann_ratio": "Hodges-Lehmann ratio",
    "groups": "groups left out in turn",
    "flip_rate": "flips",
    "baseline_total": "baseline total",
    "candidate_total": "candidate total",
    "mean_squared_difference": "mean squared difference",
    "mean": "mean log-ratio",
    "standard_error": "standard error",
}
_SIGNIFICANT = (
    "mean",
    "standard_error",
    "mean_squared_difference",
    "second_estimate",
    "second_low",
    "second_high",
    "between_process_log_sd",
    "hodges_lehmann_ratio",
)
_ELSEWHERE = ("mcnemar_p", "look", "looks", "confirmed")  # said in words of their own


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberRow:
    group: str
    status: Status
    change: str
    measured: str
    interval: str
    items: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """`estimate`, `interval` and `bound` are on one scale; `used` is the same on the axis common to all rules.

    `scale` names that scale (`drop`, …); `needs` is what it takes to decide, empty unless inconclusive; `settled` says
    by how many items it was decided, and `reach` how far a verdict on a benchmark reaches beyond it.  `waiver` is the
    one that covers a red finding; its title says so, and nothing else about it changes.
    """

    finding: Finding
    stage: StageResult
    waiver: Waiver | None
    title: str
    subject: str
    change: str
    scale: str
    estimate: str
    interval: str
    bound: str
    items: str
    sentence: str
    settled: str
    reach: str
    needs: str
    detectable: str
    method: str
    counts: str
    p_value: str
    mcnemar: str
    members: tuple[MemberRow, ...]
    used: allowance.Used | None

    @property
    def advisory(self) -> bool:
        return self.finding.rule.severity is Severity.ADVISORY

    @property
    def measured(self) -> str:
        """`drop 11.50 pp`."""
        return f"{self.scale} {self.estimate}".strip() if self.estimate != MISSING else MISSING


def row(stage: StageResult, finding: Finding, waiver: Waiver | None = None) -> Row:
    shown = numbers.printed(finding, stage.kind)
    advisory = finding.rule.severity is Severity.ADVISORY
    beside = ["waived"] * (waiver is not None) + ["advisory"] * advisory
    return Row(
        finding=finding,
        stage=stage,
        waiver=waiver,
        title=TITLES[finding.status] + (f" ({', '.join(beside)})" if beside else ""),
        subject=subject(finding.rule, stage.kind, stage),
        change=shown.change,
        scale=scale(finding.rule.bound.kind),
        estimate=shown.estimate or MISSING,
        interval=shown.interval,
        bound=_LIMIT_SIGNS[finding.rule.bound.kind] + shown.bound,
        items=basis.items(finding),
        sentence=describe(finding, stage.kind, stage),
        settled=basis.settled(finding, stage),
        reach=basis.reach(finding, stage),
        needs=take(finding, stage.kind) if finding.status is Status.INCONCLUSIVE else "",
        detectable=shown.detectable or "",
        method=_method(finding),
        counts=_counts(finding, stage.kind),
        p_value=_p_value(finding),
        mcnemar=_mcnemar(finding),
        members=tuple(_member_row(finding, m, stage.kind) for m in finding.members),
        used=allowance.used(finding),
    )


def rows(record: RunRecord) -> tuple[Row, ...]:
    """All findings of the run, worst first."""
    return tuple(
        row(stage, finding, governance.waiver_of(record, finding)) for stage, finding in allowance.ranked(record)
    )


def deciding_rule(record: RunRecord) -> str:
    """The first deciding rule with its estimate and interval against its bound, or the reason there is none."""
    findings = {f.rule.id: (f, s.kind) for s in record.stages for f in s.findings}
    for identifier in record.verdict.deciding:
        if identifier in findings:
            shown = numbers.printed(*findings[identifier])
            return f"{identifier}: {shown.estimate or MISSING} ({shown.interval}), bound {shown.bound}"
    said = record.verdict.sentence
    if record.candidate is not None:
        said = said.replace(record.candidate.uri, record.candidate.uri.rstrip("/").rpartition("/")[2])
    return escape.line(said, 120)


def story(one: Row) -> str:
    """Everything there is to say about a finding, in lines of plain text."""
    finding = one.finding
    facts = {
        "rule": f"{finding.rule.id} ({finding.rule.severity}, scope {finding.rule.scope})",
        "bound": f"{one.bound} (policy: {finding.rule.bound.kind}: {finding.rule.bound.text})",
        "values": "" if one.change == MISSING else f"{one.change} (baseline → candidate)",
        "measured": "" if one.estimate == MISSING else one.measured,
        "interval": "" if one.interval == MISSING else one.interval,
        "method": one.method,
        "items": one.items,
        "counts": one.counts,
        "p-value": one.p_value,
        "McNemar": one.mcnemar,
        "reach": one.reach,
        "resolvable": "" if one.reach else one.detectable,
        "needed": "" if finding.n_needed is None else numbers.count(finding.n_needed, unit(one.stage.kind)),
        "reason": finding.reason,
        "waiver": "" if one.waiver is None else governance.waived(one.waiver),
    }
    lines = [f"{name + ':':<11} {said}" for name, said in facts.items() if said]
    lines += [
        f"{'group:':<11} {escape.line(m.group, 120)}: {TITLES[m.status]}, {m.measured}, {m.interval}"
        for m in one.members[:5]
    ]
    if len(one.members) > 5:
        lines.append(f"{'':<11} and {numbers.count(len(one.members) - 5, 'more group')}")
    return "\n".join([f"{one.title.upper()}: {one.sentence}", *lines])


def _counts(finding: Finding, kind: str) -> str:
    """What was counted: integers as they are, rates as percent."""
    said = []
    for key, value in finding.counts.items():
        if key in _ELSEWHERE:
            continue
        word = "documents" if key == "G" and kind == "perplexity" else _COUNT_WORDS.get(key, key)
        shown = numbers.count(value)
        if key == "flip_rate":
            shown = f"{numbers.percents([value])[0]}%"
        elif key in _SIGNIFICANT:
            shown = numbers.significant(value)
        said.append(f"{word} {shown}")
    if {"look", "looks"} <= finding.counts.keys():
        said.append(f"look {finding.counts['look']:.0f} of {finding.counts['looks']:.0f} planned")
    return ", ".join(said)


def _p_value(finding: Finding) -> str:
    if finding.p_value is None:
        return ""
    certain = ", certain" if finding.p_value == 0 else ""
    return f"{numbers.p_value(finding.p_value)}{certain} (of: the bound is kept; a small one speaks for a regression)"


def _mcnemar(finding: Finding) -> str:
    """The exact test of no change, which holds at a fixed number of items only."""
    p = finding.counts.get("mcnemar_p")
    if p is None:
        return ""
    if finding.n_paired < basis.expected(finding):
        return "no p-value: it holds only where all items were measured"
    return f"p {numbers.p_value(p)} (exact, of: nothing changed; reported only, it knows no bound)"


def _method(finding: Finding) -> str:
    interval = finding.interval
    if interval is None:
        return ""
    looking = interval.valid.replace("_", " ")
    return f"{interval.method}, {basis.levels(finding)}, {interval.scope} scope, {looking}"


def _as_finding(finding: Finding, member: Member) -> Finding:
    """The member in the shape of its rule's finding, so that the same code prints it."""
    return Finding(
        rule=finding.rule,
        status=Status.SKIPPED,  # the status is printed from the member; here only numbers matter
        baseline=member.baseline,
        candidate=member.candidate,
        estimate=member.estimate,
        interval=member.interval,
        p_value=None,
        counts={},
        n_paired=member.n_paired,
        n_lost=0,
        n_needed=None,
        detectable=None,
        members=(),
        reason="group",
    )


def _member_row(finding: Finding, member: Member, kind: str) -> MemberRow:
    shown = numbers.printed(_as_finding(finding, member), kind)
    name = scale(finding.rule.bound.kind)
    return MemberRow(
        group=member.group,
        status=member.status,
        change=shown.change,
        measured=MISSING if shown.estimate is None else f"{name} {shown.estimate}".strip(),
        interval=shown.interval,
        items=numbers.count(member.n_paired),
    )
