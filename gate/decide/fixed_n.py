"""An estimate at a fixed number of items (documents, blocks) → a finding: the interval against the bound.

Pure.
"""

from __future__ import annotations

from gate.decide.estimate import NOUN, Estimate, Span, decide, harm, larger_is_worse, n_needed, p_value
from gate.decide.terms import Terms
from gate.records import Finding, Interval, Rule, Scope, Status

AT_MOST = 0.45
"""P-values are not looked for above this: all of them say "no evidence"."""

_EXACT = frozenset({"exact", "exact_ratio"})
"""Methods whose interval spans the readings, and says nothing of how sure it is."""


def finding(rule: Rule, e: Estimate, terms: Terms) -> Finding:
    """PASS when the whole interval keeps the bound, REGRESSION when none of it does, else INCONCLUSIVE."""
    interval = interval_of(rule, e, terms)
    limits = (interval.low, interval.high)
    status = Status.INCONCLUSIVE if e.undecidable else decide(limits, rule.bound)
    needed = n_needed(e, limits, rule.bound, terms.confidence) if status is Status.INCONCLUSIVE else None
    return Finding(
        rule=rule,
        status=status,
        baseline=e.baseline,
        candidate=e.candidate,
        estimate=e.value,
        interval=interval,
        p_value=None if e.undecidable else p_of(rule, e),
        counts=e.counts,
        n_paired=e.n_paired,
        n_lost=e.n_lost,
        n_needed=needed,
        detectable=e.detectable,
        members=(),
        reason="; ".join((_reason(rule, status, e, terms), *e.cautions)),
    )


def p_of(rule: Rule, e: Estimate) -> float:
    """P-value of "the bound is kept"; 1 where nothing speaks against it."""
    return 1.0 if e.undecidable else p_value(e.limits, rule.bound, at_most=AT_MOST)


def interval_of(rule: Rule, e: Estimate, terms: Terms) -> Interval:
    """The end that must keep the bound for a PASS at `confidence`, the other one at `fail_confidence`."""
    low, high = _sides(rule, e, terms)
    return Interval(
        low=low,
        high=high,
        confidence=terms.confidence,
        fail_confidence=terms.fail_confidence,
        method=e.method,
        scope=Scope.POPULATION,
        valid="fixed_n",
    )


def _sides(rule: Rule, e: Estimate, terms: Terms) -> Span:
    passing, failing = e.limits(terms.confidence), e.limits(terms.fail_confidence)
    return (failing[0], passing[1]) if larger_is_worse(rule.bound.kind) else (passing[0], failing[1])


def _reason(rule: Rule, status: Status, e: Estimate, terms: Terms) -> str:
    noun, bound = NOUN[rule.bound.kind], rule.bound.text
    if e.undecidable:
        return f"nothing can be concluded: {e.undecidable}"
    if status is not Status.INCONCLUSIVE and e.method in _EXACT:
        return f"the {noun} {'keeps' if status is Status.PASS else 'is beyond'} the bound {bound}"
    if status is Status.PASS:
        return f"the {noun} keeps the bound {bound} over its whole interval ({100 * terms.confidence:g}% sure)"
    if status is Status.REGRESSION:
        return (
            f"the {noun} is beyond the bound {bound} over its whole interval ({100 * terms.fail_confidence:.4g}% sure)"
        )
    text = f"the interval of the {noun} holds values on both sides of the bound {bound}"
    if e.best is not None and harm(rule.bound.kind, rule.bound.value) <= harm(rule.bound.kind, e.best):
        return f"{text}; no finite sample can show that a bound of {bound} is kept: give it some room"
    return text
