"""Findings without evidence: what could not be measured, and what was never reached.

Pure.
"""

from __future__ import annotations

from gate.records import Finding, Rule, Status


def could_not_measure(rule: Rule, reason: str) -> Finding:
    """The ERROR finding of a rule whose evidence never came to be."""
    return error(rule, reason)


def skipped(rule: Rule, reason: str) -> Finding:
    """The SKIPPED finding of a rule that an earlier rule of its stage made pointless to measure."""
    return _finding(rule, Status.SKIPPED, reason, 0, 0)


def error(rule: Rule, reason: str, *, n_paired: int = 0, n_lost: int = 0) -> Finding:
    return _finding(rule, Status.ERROR, reason, n_paired, n_lost)


def _finding(rule: Rule, status: Status, reason: str, n_paired: int, n_lost: int) -> Finding:
    return Finding(
        rule=rule,
        status=status,
        baseline=None,
        candidate=None,
        estimate=None,
        interval=None,
        p_value=None,
        counts={},
        n_paired=n_paired,
        n_lost=n_lost,
        n_needed=None,
        detectable=None,
        members=(),
        reason=reason,
    )
