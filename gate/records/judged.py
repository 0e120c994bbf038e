"""What is judged: bounds, rules, intervals, findings, flips and the result of a stage.

Pure: frozen data and invariants; no judgement has a default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gate.records.words import BoundKind, Scope, Severity, Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """An acceptance threshold.  `value` is a rate (5% → 0.05, 3pp → 0.03), bytes, seconds or a ratio."""

    kind: BoundKind
    value: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MaxLost:
    """How many items may be lost: a count or a share of the items expected (exactly one is given)."""

    count: int | None
    share: float | None

    def __post_init__(self) -> None:
        if (self.count is None) == (self.share is None):
            raise ValueError("max_lost is a count or a share, not both and not neither")

    def allowed(self, n_expected: int) -> int:
        """Number of items that may be lost out of `n_expected`."""
        return self.count if self.count is not None else math.floor((self.share or 0.0) * n_expected)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One planned rule on one source.  `line` is where it stands in the policy file (1-based).

    `by`, `batch`, `lengths` (`1024+64`) and `load` (`closed:8`) select what of the source is judged; None: all of it.
    """

    id: str
    stage: str
    source: str
    metric: str
    bound: Bound
    by: str | None
    batch: int | None
    severity: Severity
    scope: Scope
    max_items: int | None
    max_lost: MaxLost
    line: int | None
    lengths: str | None = None
    load: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A two-sided interval, each side of which holds with a confidence of its own; finite and ordered.

    `confidence` is that of the side which must keep the bound for a PASS, `fail_confidence` (at least as high: it is
    corrected for the number of rules) that of the side which must lie beyond it for a REGRESSION.  `valid` says under
    which looking it holds: `fixed_n`, `planned_looks` or `anytime`.
    """

    low: float
    high: float
    confidence: float
    fail_confidence: float
    method: str
    scope: Scope
    valid: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"interval ({self.low!r}, {self.high!r}) is not finite and ordered")
        for confidence in (self.confidence, self.fail_confidence):
            if not 0.5 < confidence < 1:
                raise ValueError(f"confidence {confidence!r} is not in (0.5, 1)")
        if self.valid not in ("fixed_n", "planned_looks", "anytime"):
            raise ValueError(f"unknown validity {self.valid!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One group (subject, category) of a guard-rail rule."""

    group: str
    baseline: float | None
    candidate: float | None
    estimate: float | None
    interval: Interval | None
    n_paired: int
    status: Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was found about one rule.

    `estimate` and `interval` are on the scale of the bound as written: the drop (baseline − candidate)
    for `max_drop`, the relative increase for `max_increase`, the ratio retained for `min_retained`, the
    speed-up for `min_speedup`, the candidate's value for `max` and `min`.  `counts` holds the
    sufficient statistics (`b` lost, `c` gained, `n` paired, `N` expected, or their equal).  `p_value` is how
    compatible the evidence is with the bound being kept: small speaks for a REGRESSION, 0 is certain.
    A decided finding (PASS, REGRESSION, INCONCLUSIVE) always has its numbers and its interval.
    """

    rule: Rule
    status: Status
    baseline: float | None
    candidate: float | None
    estimate: float | None
    interval: Interval | None
    p_value: float | None
    counts: Mapping[str, float]
    n_paired: int
    n_lost: int
    n_needed: int | None
    detectable: float | None
    members: tuple[Member, ...]
    reason: str

    def __post_init__(self) -> None:
        if self.status in (Status.PASS, Status.REGRESSION, Status.INCONCLUSIVE) and (
            self.candidate is None or self.estimate is None or self.interval is None or self.n_paired < 1
        ):
            raise ValueError(f"finding {self.rule.id!r} is {self.status} without estimate, interval and pairs")
        if not self.reason:
            raise ValueError(f"finding {self.rule.id!r} has no reason")


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """An item on which exactly one of the two was right (`lost`: only the baseline)."""

    stage: str
    source: str
    metric: str
    item_id: str
    kind: str
    group: str | None
    prompt: str
    target: str
    baseline_output: str
    candidate_output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """`baseline_from` is `store`, `measured` or `none`; `skipped_because` is set exactly when SKIPPED."""

    kind: str
    name: str
    status: Status
    findings: tuple[Finding, ...]
    seconds: float
    items_scored: int
    items_available: int
    baseline_from: str
    skipped_because: str | None
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        if (self.status is Status.SKIPPED) != (self.skipped_because is not None):
            raise ValueError(f"stage {self.name!r}: skipped_because must be given exactly when it is SKIPPED")
