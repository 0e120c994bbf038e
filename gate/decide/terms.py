"""On what terms a rule is judged: how sure a PASS and a REGRESSION must be, and in which order the items came.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gate.records import Rule, Severity


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """The same for every rule of a run.

    Attributes:
        confidence: of a PASS, for each rule by itself: all of them must hold, so nothing is corrected.
        fail_confidence: of a REGRESSION: corrected for the number of planned blocking rules, any of which may fail.
        order_seed: `gate.order` seed of the items' order; None where measuring could not be stopped early (finished
            results), so that every item expected counts.
    """

    confidence: float
    fail_confidence: float
    order_seed: str | None

    def of(self, rule: Rule) -> Terms:
        """For this rule: an advisory one blocks nothing, so its REGRESSION is not corrected for the others."""
        return replace(self, fail_confidence=self.confidence) if rule.severity is Severity.ADVISORY else self


def gate_wide(confidence: float, n_blocking: int, order_seed: str | None) -> Terms:
    """Terms under which a lossless candidate fails *any* of `n_blocking` rules with probability ≤ 1 − `confidence`.

    Bonferroni's level is Holm's first step; what a first rejection frees is given back by `control.step_down`.
    """
    return Terms(
        confidence=confidence,
        fail_confidence=1 - (1 - confidence) / max(n_blocking, 1),
        order_seed=order_seed,
    )
