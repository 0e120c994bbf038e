"""A rule whose candidate ran out of time: judged on the items it reached, and never decided by them.

Pure.  The items come in a seeded order, so those reached are a sample; the clock that ended it is no evidence.
"""

from __future__ import annotations

from dataclasses import replace

from gate.decide.combine import REACHED
from gate.decide.judge import could_not_measure, judge
from gate.records import Finding, Measurement, Rule, Status


def out_of_time(
    rule: Rule, baseline: Measurement, reached: Measurement | None, confidence: float, reason: str
) -> Finding:
    """INCONCLUSIVE with what the items reached so far say, or ERROR when that is nothing."""
    if reached is None:
        return could_not_measure(rule, f"{reason}; nothing was measured by then")
    ids = {o.item_id for o in reached.observations} | {f.item_id for f in reached.failures}
    beside = replace(
        baseline,
        n_expected=len(ids),
        observations=tuple(o for o in baseline.observations if o.item_id in ids),
        failures=tuple(f for f in baseline.failures if f.item_id in ids),
    )
    finding = judge(rule, beside, replace(reached, n_expected=len(ids)), confidence)
    share = f"{len(ids)} of {reached.n_expected} items were reached, which decides nothing"
    told = f"{reason}: {share}; so far, {finding.reason}"
    if finding.estimate is not None:  # `combine` must see that not everything planned was asked
        finding = replace(finding, counts={**finding.counts, "N": reached.n_expected, REACHED: len(ids)})
    if finding.status in (Status.PASS, Status.REGRESSION):
        return replace(finding, status=Status.INCONCLUSIVE, reason=told)
    return replace(finding, reason=told)
