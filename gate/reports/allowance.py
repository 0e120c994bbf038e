"""How much of what a rule allows was used: one axis on which rules of all units can be compared.

Pure arithmetic for ordering and drawing.  Never decides: statuses come from the findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gate.records import BoundKind, Finding, RunRecord, Severity, StageResult, Status

_WORST_FIRST = (
    Status.REFUSED,
    Status.REGRESSION,
    Status.ERROR,
    Status.INCONCLUSIVE,
    Status.SKIPPED,
    Status.PASS,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """Shares of the allowance: 0 is no harm, 1 is the bound, more is too much; `best` ≤ `worst`."""

    best: float
    estimate: float
    worst: float


def _share(kind: BoundKind, bound: float, value: float) -> float:
    """Rises with harm and is 1 exactly at the bound.

    Drops and increases count from zero, retained shares from 100 %, floors on a rate from a perfect 1,
    other floors and speed-ups as bound over value, ceilings as value over bound.
    """
    if value == bound:
        return 1.0
    match kind:
        case BoundKind.MAX_DROP | BoundKind.MAX_INCREASE | BoundKind.MAX:
            return value / bound if bound > 0 else 1 + value - bound
        case BoundKind.MIN_RETAINED:
            return (1 - value) / (1 - bound) if bound < 1 else 1 + bound - value
        case BoundKind.MIN_SPEEDUP | BoundKind.MIN:
            if kind is BoundKind.MIN and 0 <= bound < 1 and value <= 1:
                return (1 - value) / (1 - bound)
            return bound / value if value > 0 < bound else 1 + bound - value


def used(finding: Finding) -> Used | None:
    """What the finding used of its allowance, or None where there is no interval."""
    if finding.interval is None or finding.estimate is None:
        return None
    bound = finding.rule.bound
    ends = [_share(bound.kind, bound.value, v) for v in (finding.interval.low, finding.interval.high)]
    return Used(best=min(ends), worst=max(ends), estimate=_share(bound.kind, bound.value, finding.estimate))


def _key(finding: Finding) -> tuple[bool, bool, int, float, str]:
    share = used(finding)
    return (
        finding.status in (Status.PASS, Status.SKIPPED),
        finding.rule.severity is Severity.ADVISORY,
        _WORST_FIRST.index(finding.status),
        -(share.worst if share else 0.0),
        finding.rule.id,
    )


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """What a reader must see first: what is not a pass, blocking before advisory, most harm first."""
    return sorted(findings, key=_key)


def harm(record: RunRecord) -> float:
    """The largest share of its allowance that a deciding rule used: the worse of two regressions is the larger."""
    shares = [used(f) for s in record.stages for f in s.findings if f.rule.id in record.verdict.deciding]
    return max((share.estimate for share in shares if share is not None), default=0.0)


def ranked(record: RunRecord) -> list[tuple[StageResult, Finding]]:
    """Every finding with its stage: the deciding rules in the verdict's order, then `worst_first`."""
    stages = {f.rule.id: s for s in record.stages for f in s.findings}
    ordered = worst_first([f for s in record.stages for f in s.findings])
    if record.verdict.status is not Status.PASS:
        place = {rule_id: i for i, rule_id in enumerate(record.verdict.deciding)}
        ordered.sort(key=lambda f: place.get(f.rule.id, len(place)))
    return [(stages[f.rule.id], f) for f in ordered]
