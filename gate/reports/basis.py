"""What a finding rests on: how many items of how many, how sure it is, and what it does not say.

Pure wording: never judges, and every number comes from the finding through `numbers`.
"""

from __future__ import annotations

import re

from gate.metrics import PROFILE
from gate.records import BoundKind, Estimand, Finding, Rule, Scope, StageResult, Status
from gate.reports import numbers

_LARGER_IS_WORSE = (BoundKind.MAX_DROP, BoundKind.MAX_INCREASE, BoundKind.MAX)
_ON_CPU = "measured on CPU"  # a note of the profile stage
_MANY = 1000  # findings of one stage: more are no policy's, and are not searched for each of them
_READ = ("exact", "exact_ratio")  # intervals that span readings, and are no statement of confidence
_DECIDED = (Status.PASS, Status.REGRESSION)
_SAMPLED = re.compile(r"([\d,]+) items sampled from ([\d,]+)")
_REACHED = "reached"  # in the counts of a finding whose items were not all asked, and that decides nothing for it


def expected(finding: Finding) -> int:
    """Items that all of it would be; those paired and lost where the finding knows no other number.

    A guard rail counts the items of its worst group, so it knows one only when it was cut short.
    """
    found = finding.n_paired + finding.n_lost
    knows = finding.rule.by is None or _REACHED in finding.counts
    return max(int(finding.counts.get("N", found)), found) if knows else found


def items(finding: Finding) -> str:
    """`2,000`, `160 of 1,319`, `1,995, 5 lost`."""
    whole = expected(finding)
    asked = finding.n_paired + finding.n_lost
    part = f" of {numbers.count(whole)}" if finding.n_paired and asked < whole else ""
    lost = f", {numbers.count(finding.n_lost)} lost" if finding.n_lost else ""
    return numbers.count(finding.n_paired) + part + lost


def sampled_from(finding: Finding, stage: StageResult) -> int | None:
    """The number of items that this finding's were drawn from, where a note of its stage tells it without doubt."""
    n = expected(finding)
    if not stage.notes or len(stage.findings) > _MANY:
        return None
    sizes = {f.rule.source: expected(f) for f in stage.findings if f.rule.by is None}
    if list(sizes.values()).count(n) > 1:
        return None  # two sources of this size: whose sample the note speaks of is not known
    drawn = {
        _number(found[2])
        for note in stage.notes
        if (found := _SAMPLED.fullmatch(note)) is not None and _number(found[1]) == n
    }
    return drawn.pop() if len(drawn) == 1 else None


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def timed_on_cpu(rule: Rule, stage: StageResult) -> bool:
    """Is this a time or a rate of a CPU?  Such figures say so wherever they stand."""
    metric = PROFILE.get(rule.metric) if stage.kind == "profile" else None
    timed = metric is not None and metric.estimand in (Estimand.TIMING, Estimand.QUANTILE)
    return timed and _ON_CPU in stage.notes


def settled(finding: Finding, stage: StageResult | None) -> str:
    """`settled by the first 160 of 1,319 items`; empty where nothing is decided, or all had to be measured anyway."""
    interval = finding.interval
    if interval is None or finding.status not in _DECIDED or finding.rule.by is not None:
        return ""
    if interval.valid == "planned_looks" and {"look", "looks"} <= finding.counts.keys():
        return f"settled at look {finding.counts['look']:.0f} of {finding.counts['looks']:.0f}"
    if interval.valid != "anytime":
        return ""
    asked, whole = finding.n_paired + finding.n_lost, expected(finding)
    available = sampled_from(finding, stage) if stage is not None else None
    of = numbers.count(whole, "item")
    if available is not None:
        of += f" sampled from {numbers.count(available)}"
    if asked < whole:
        at_cap = "+" in interval.method  # a method besides the bets: the one last look
        return (
            f"{'decided at the last look, after' if at_cap else 'settled by the first'} {numbers.count(asked)} of {of}"
        )
    return f"counted over all {of}" if interval.scope is Scope.BENCHMARK else ""


def reach(finding: Finding, stage: StageResult) -> str:
    """How far a benchmark-scope verdict reaches: the full benchmark, and not how much further; else empty."""
    interval = finding.interval
    if interval is None or interval.scope is not Scope.BENCHMARK:
        return ""
    said = []
    if finding.status in _DECIDED:
        whole = finding.n_paired + finding.n_lost >= expected(finding)
        sure = interval.confidence if finding.status is Status.PASS else interval.fail_confidence
        full = "the full benchmark says so" if sampled_from(finding, stage) is None else "the full sample says so"
        said.append(full if whole else f"{numbers.confidence(sure)} sure that {full}")
    resolved = numbers.printed(finding, stage.kind).detectable
    if resolved is not None:
        retained = finding.rule.bound.kind is BoundKind.MIN_RETAINED
        missed = f"losing less than {resolved} of the score" if retained else f"drops below {resolved}"
        said.append(f"for tasks like these, {missed} cannot be told from none")
    return "; ".join(said)


def sure(finding: Finding) -> str:
    """How sure the interval is: `98.33% sure that it breaks the bound`, or of both ends where nothing is decided.

    Where both ends hold with the same confidence, `each end 95% sure`.
    """
    if finding.interval is None:
        return ""
    if finding.interval.method in _READ:
        return "as read"
    passing, failing = _levels(finding)
    at = _at_looks(finding)
    if passing == failing:
        return f"each end {passing} sure{at}"
    match finding.status:
        case Status.PASS:
            return f"{passing} sure{at} that it keeps the bound"
        case Status.REGRESSION:
            return f"{failing} sure{at} that it breaks the bound"
    low, high = (failing, passing) if finding.rule.bound.kind in _LARGER_IS_WORSE else (passing, failing)
    return f"low end {low} and high end {high} sure{at}"


def levels(finding: Finding) -> str:
    """How sure either verdict is: `95% sure if it keeps the bound, 98.33% if it breaks it`."""
    if finding.interval is None:
        return ""
    if numbers.counted(finding):
        return "counted, nothing left open"
    if finding.interval.method in _READ:
        return "as read"
    passing, failing = _levels(finding)
    if passing == failing:
        return sure(finding)
    return f"{passing} sure if it keeps the bound, {failing} if it breaks it{_at_looks(finding)}"


def _levels(finding: Finding) -> tuple[str, str]:
    assert finding.interval is not None
    return numbers.confidence(finding.interval.confidence), numbers.confidence(finding.interval.fail_confidence)


def _at_looks(finding: Finding) -> str:
    looks = finding.counts.get("looks")
    return f" at each of {looks:.0f} looks" if looks is not None else ""


def stopped_early(stage: StageResult) -> str:
    """`stopped early: 160 of 320 items were enough`; empty where all were asked, or where items were lost instead."""
    if stage.status not in _DECIDED or stage.items_scored >= stage.items_available:
        return ""
    early = [f for f in stage.findings if f.status in _DECIDED and f.n_paired + f.n_lost < expected(f)]
    if not early:
        return ""
    asked = f"{numbers.count(stage.items_scored)} of {numbers.count(stage.items_available, 'item')}"
    return f"stopped early: {asked} were enough"


def remarks(stage: StageResult) -> str:
    """What there is to remark about a stage that ran, each thing once."""
    early = stopped_early(stage)
    return "; ".join(dict.fromkeys([*([early] if early else []), *(note.rstrip(".") for note in stage.notes)]))
