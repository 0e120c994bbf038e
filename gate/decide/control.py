"""What a first REGRESSION frees: Holm's step-down over all planned blocking rules of a run.

Pure.  Turns an INCONCLUSIVE into a REGRESSION and nothing else; never touches a PASS, and never measures.

Every rule is judged as the first of K is (at α/K, `terms.gate_wide`).  Of those that are left once some were rejected,
the smallest p-value is held against α/(K − rejected), and so on [1].  The p-value of a wealth is 1/its maximum, which
holds however the items were stopped [2].

References:
    [1] S. Holm, Scandinavian Journal of Statistics 6 (1979) 65–70.
    [2] V. Vovk, R. Wang, Annals of Statistics 49 (2021) 1736–1754.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gate.decide.combine import REACHED
from gate.decide.estimate import larger_is_worse
from gate.records import Finding, Rule, Severity, Status


def step_down(findings: Sequence[Finding], planned: Sequence[Rule], confidence: float) -> tuple[Finding, ...]:
    """The findings of all stages, in order, some INCONCLUSIVE ones now a REGRESSION.

    Args:
        findings: of the whole run, judged under `terms.gate_wide(confidence, …)` of the same `planned` rules.
        planned: all rules of the run; the blocking ones count, found or not.

    Raises:
        ValueError: more blocking REGRESSIONs than blocking rules were planned.
    """
    blocking = {r.id for r in planned if r.severity is Severity.BLOCKING}
    ours = [i for i, f in enumerate(findings) if f.rule.id in blocking]
    rejected = sum(findings[i].status is Status.REGRESSION for i in ours)
    if rejected > len(blocking):
        raise ValueError(f"found {rejected} blocking rules that are REGRESSION, expected at most {len(blocking)}")
    found = list(findings)
    if rejected:  # else α/K is what all of them were judged at
        open_ = sorted((p, i) for i in ours if (p := _p_value(findings[i])) is not None)
        for p, i in open_:
            level = (1 - confidence) / (len(blocking) - rejected)
            if p > level:
                break
            found[i] = _regression(findings[i], 1 - level, rejected)
            rejected += 1
    return tuple(found)


def _p_value(finding: Finding) -> float | None:
    """Of one that may still be rejected, else None.

    A fixed-n estimate on whatever was reached is no test, and a guard rail is red by its members.
    """
    interval = finding.interval
    if finding.status is not Status.INCONCLUSIVE or finding.members or interval is None:
        return None
    if REACHED in finding.counts and interval.valid == "fixed_n":
        return None
    return finding.p_value


def _regression(finding: Finding, confidence: float, rejected: int) -> Finding:
    assert finding.interval is not None
    assert finding.estimate is not None
    bound, low, high = finding.rule.bound, finding.interval.low, finding.interval.high
    if larger_is_worse(bound.kind):
        low = max(low, math.nextafter(bound.value, math.inf))
        high = max(low, high)
    else:
        high = min(high, math.nextafter(bound.value, -math.inf))
        low = min(low, high)
    interval = replace(finding.interval, low=low, high=high, fail_confidence=confidence)
    others = "another rule has failed" if rejected == 1 else f"{rejected} other rules have failed"
    return replace(
        finding,
        status=Status.REGRESSION,
        estimate=min(max(finding.estimate, low), high),
        interval=interval,
        n_needed=None,
        reason=(
            f"beyond the bound {bound.text} ({100 * confidence:.4g}% sure, which is enough once {others}: Holm's "
            f"step-down); by itself, {finding.reason}"
        ),
    )
