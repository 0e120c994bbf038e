"""Guard rails: one rule over many groups (subjects, categories), red only by evidence.

Pure.  "Any group down more than the bound" would fail most lossless candidates, and "every group's limit within
the bound" would never pass; so a group is red only if its margin test survives the correction for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gate.decide.estimate import NOUN, decide, margin
from gate.decide.pairing import Item, Pair, Pairs, check_lost
from gate.decide.terms import Terms
from gate.errors import CouldNotMeasure
from gate.records import Interval, MaxLost, Member, Rule, Status
from gate.stats.multiplicity import benjamini_hochberg, holm, holm_adjusted, simes

HOLM_UP_TO = 20
FALSE_DISCOVERY_RATE = 0.10
_NAMED = 5
ANY_NUMBER = MaxLost(count=10**12, share=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One group's numbers on the scale of the bound, and the p-value of "it keeps the bound"."""

    baseline: float | None
    candidate: float
    value: float
    interval: Interval
    p_value: float
    counts: Mapping[str, float]
    n_paired: int
    detectable: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """The members, worst first, the worst one's evidence, and what is said of them all.

    ERROR says that lost items left nothing to judge in a group.  `p_value` is that of "every group keeps the bound".
    """

    status: Status
    members: tuple[Member, ...]
    worst: Judged
    p_value: float
    reason: str


def family(rule: Rule, pairs: Pairs, judged_of: Callable[[str], Judged], terms: Terms) -> Family:
    """Judge every group by itself and all of them together.

    REGRESSION if a member is beyond the bound after Holm (Benjamini–Hochberg at 10 % above 20 members) and the family
    as a whole is at the gate-wide level, PASS if the interval of every member keeps the bound, ERROR if lost items are
    why a group cannot be judged, else INCONCLUSIVE: no evidence, and which groups say nothing (too few items, a
    baseline that could not fail).

    Raises:
        CouldNotMeasure: no item carries a group, too many were lost, or no group can be judged.
    """
    check_lost(pairs, rule.max_lost)
    # A group that one role lost altogether is still a group: it cannot be judged, and says so.
    labels = {p.group for p in pairs.paired} | {i.group for i in pairs.one_sided}
    groups = sorted(g for g in labels if g is not None)
    if not groups:
        raise CouldNotMeasure(
            f"{pairs.metric.name}: no item carries a {rule.by}, so there is nothing to look at by {rule.by}"
        )
    judged: dict[str, Judged] = {}
    unjudged: dict[str, str] = {}
    for group in groups:
        try:
            judged[group] = judged_of(group)
        except CouldNotMeasure as problem:
            unjudged[group] = str(problem)
    if not judged:
        raise CouldNotMeasure(f"no {rule.by} can be judged; {next(iter(unjudged.values()))}")
    p_values = [e.p_value for e in judged.values()]
    if len(judged) <= HOLM_UP_TO:
        red, correction = holm(p_values, 1 - terms.fail_confidence), "Holm's correction"
        p_value = min(holm_adjusted(p_values))
    else:
        red, correction = benjamini_hochberg(p_values, FALSE_DISCOVERY_RATE), "Benjamini and Hochberg's correction"
        p_value = simes(p_values)
        if p_value > 1 - terms.fail_confidence:
            red = (False,) * len(p_values)
    members = []
    for (group, e), is_red in zip(judged.items(), red, strict=True):
        alone = decide((e.interval.low, e.interval.high), rule.bound)
        status = Status.REGRESSION if is_red else Status.PASS if alone is Status.PASS else Status.INCONCLUSIVE
        members.append(
            Member(
                group=group,
                baseline=e.baseline,
                candidate=e.candidate,
                estimate=e.value,
                interval=e.interval,
                n_paired=e.n_paired,
                status=status,
            )
        )
    members.sort(key=lambda m: _worst_first(m, judged[m.group], rule))
    broken = [_unjudged(group, pairs) for group in unjudged]
    everyone = (*members, *broken)
    lost = [g for g in unjudged if any(i.group == g for i in pairs.one_sided)]
    status = _together(everyone, bool(lost))
    return Family(
        status=status,
        members=everyone,
        worst=judged[members[0].group],
        p_value=p_value,
        reason=_reason(rule, status, members, unjudged, lost, correction),
    )


def only(pairs: Pairs, group: str) -> Pairs:
    """The group's items.  Items that neither role measured may belong to any group, so each group gets them."""
    paired: tuple[Pair, ...] = tuple(p for p in pairs.paired if p.group == group)
    one_sided: tuple[Item, ...] = tuple(i for i in pairs.one_sided if i.group == group)
    return replace(pairs, paired=paired, one_sided=one_sided, n_expected=len(paired) + len(one_sided) + pairs.n_unseen)


def _unjudged(group: str, pairs: Pairs) -> Member:
    """A group without a verdict, with the scores there are."""
    here = [p for p in pairs.paired if p.group == group]
    return Member(
        group=group,
        baseline=math.fsum(p.baseline for p in here) / len(here) if here else None,
        candidate=math.fsum(p.candidate for p in here) / len(here) if here else None,
        estimate=None,
        interval=None,
        n_paired=len(here),
        status=Status.ERROR,
    )


def _worst_first(member: Member, e: Judged, rule: Rule) -> tuple[bool, float, str]:
    limits = (e.value, e.value) if member.interval is None else (member.interval.low, member.interval.high)
    return member.status is not Status.REGRESSION, -margin(e.value, limits, rule.bound), member.group


def _together(members: Sequence[Member], lost: bool) -> Status:
    statuses = {m.status for m in members}
    if Status.REGRESSION in statuses:
        return Status.REGRESSION
    if lost:
        return Status.ERROR
    return Status.PASS if statuses == {Status.PASS} else Status.INCONCLUSIVE


def _reason(
    rule: Rule,
    status: Status,
    judged: Sequence[Member],
    unjudged: Mapping[str, str],
    lost: Sequence[str],
    correction: str,
) -> str:
    """Names without numbers: those are in the members, and reports print them all alike."""
    noun, bound, n = NOUN[rule.bound.kind], rule.bound.text, len(judged)
    worst = f"; worst: {', '.join(m.group for m in judged[:_NAMED])}"
    aside = _cannot_be_judged(unjudged, lost, n + len(unjudged))
    if status is Status.REGRESSION:
        red = sum(m.status is Status.REGRESSION for m in judged)
        return f"guard rail: {red} of {n} groups beyond the bound {bound} after {correction}{worst}{aside}"
    if status is Status.PASS:
        return f"guard rail: the {noun} of every one of {n} groups keeps the bound {bound}{worst}"
    said = f"no evidence, after {correction}, that the {noun} is beyond {bound} in any of {n} groups"
    return f"guard rail: {said}{aside}{worst}"


def _cannot_be_judged(unjudged: Mapping[str, str], lost: Sequence[str], n: int) -> str:
    """Which groups have no verdict, those with lost items first, and why the first has none."""
    if not unjudged:
        return ""
    named = [*lost, *(g for g in unjudged if g not in lost)]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    why = f"{len(lost)} for lost items; " if lost else ""
    return (
        f"; {len(named)} of {n} groups cannot be judged: {', '.join(named[:_NAMED])}{more} "
        f"({why}{named[0]}: {unjudged[named[0]]})"
    )
