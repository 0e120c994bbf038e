"""A timing rule over all the groups it covers: the worst decides, the others are its members.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gate.decide import saturation, timing_blocks
from gate.decide.estimate import margin
from gate.decide.items import ABSOLUTE
from gate.decide.pairing import check_same
from gate.decide.terms import Terms
from gate.decide.timing_blocks import SECOND
from gate.decide.timing_groups import groups
from gate.decide.timing_looks import Asked, Judged, judged
from gate.decide.unjudged import error
from gate.errors import CouldNotMeasure
from gate.records import Finding, Measurement, Member, Metric, Rule, Status

_WORST_FIRST = (Status.ERROR, Status.REGRESSION, Status.INCONCLUSIVE, Status.PASS)


def judge(rule: Rule, baseline: Measurement | None, candidate: Measurement, metric: Metric, terms: Terms) -> Finding:
    """What all groups say together.  Raises as `by_group`."""
    return _worst(by_group(rule, baseline, candidate, metric, terms))


def by_group(
    rule: Rule, baseline: Measurement | None, candidate: Measurement, metric: Metric, terms: Terms
) -> list[Judged]:
    """What each group says, at `terms` as they are for this rule.

    Raises:
        CouldNotMeasure: the rule covers nothing that was measured, or the two measurements do not belong together.
    """
    beside = None if rule.bound.kind in ABSOLUTE else baseline
    if beside is not None:
        if metric not in beside.metrics:
            raise CouldNotMeasure(f"{rule.source}: the baseline did not report {metric.name} as the candidate did")
        check_same(beside, candidate)
    calibrated = None if baseline is None else timing_blocks.about(baseline, metric)
    beside, candidate = None if beside is None else calibrated, timing_blocks.about(candidate, metric)
    measurements = [m for m in (beside, candidate) if m is not None]
    return [
        _judged(
            Asked(
                rule=rule,
                metric=metric,
                group=group,
                baseline=beside,
                candidate=candidate,
                calibrated=calibrated,
                terms=terms,
            )
        )
        for group in groups(rule, metric, measurements)
    ]


def _judged(asked: Asked) -> Judged:
    """Blocks say nothing of latencies under a load that was saturated: more of them will not mend it."""
    why = saturation.no_latency(asked.rule, asked.metric, asked.group, asked.calibrated, asked.candidate)
    if why is None:
        return judged(asked)
    confirming = timing_blocks.reached(SECOND, asked.measurements) > 0
    return Judged(group=asked.group, finding=error(asked.rule, why), red=False, confirming=confirming, is_open=False)


def _worst(found: Sequence[Judged]) -> Finding:
    ranked = sorted(found, key=lambda one: _badness(one.finding))
    worst = ranked[0].finding
    if len(ranked) == 1:
        return worst
    members = tuple(
        Member(
            group=one.group or "",
            baseline=one.finding.baseline,
            candidate=one.finding.candidate,
            estimate=one.finding.estimate,
            interval=one.finding.interval,
            n_paired=one.finding.n_paired,
            status=one.finding.status,
        )
        for one in ranked
    )
    # what could not be measured in one group must not hide what is known of another
    red = (
        ""
        if worst.status is Status.REGRESSION
        else "".join(
            f"; {one.group}: REGRESSION, {one.finding.reason}"
            for one in ranked
            if one.finding.status is Status.REGRESSION
        )
    )
    reason = f"{ranked[0].group}, the worst of {len(ranked)}: {worst.reason}{red}"
    return replace(worst, members=members, reason=reason)


def _badness(finding: Finding) -> tuple[int, float]:
    place = _WORST_FIRST.index(finding.status)
    if finding.estimate is None or finding.interval is None:
        return place, 0.0
    return place, -margin(finding.estimate, (finding.interval.low, finding.interval.high), finding.rule.bound)
