"""The quality score in one line, with the warning that belongs to it.

Pure wording: the score decides nothing, and is shown only beside the rows of its tasks.
"""

from __future__ import annotations

from gate.records import Quality, Scope
from gate.reports import escape, numbers

WARNING = "It decides nothing, and an average hides what happens to single tasks: read their rows."
_NAMED = 4


def score(quality: Quality) -> str:
    """`99.12% of the baseline's accuracy kept, the mean of 5 tasks (98.20 to 100.04%, each end 95% sure, …)`."""
    interval = quality.interval
    low, estimate, high = numbers.percents((interval.low, quality.estimate, interval.high))
    exact = interval.low == interval.high
    span = "exact" if exact else f"{low} to {high}%, each end {numbers.confidence(interval.confidence)} sure"
    about = "these tasks' items" if interval.scope is Scope.BENCHMARK else "tasks like these"
    return f"{estimate}% of the baseline's accuracy kept, {_of(quality)} ({span}, for {about})"


def _of(quality: Quality) -> str:
    n = len(quality.sources)
    named = ", ".join(escape.line(s, 60) for s in quality.sources[:_NAMED])
    more = f" and {n - _NAMED} more" if n > _NAMED else ""
    return f"on {named}" if n == 1 else f"the mean of {n} tasks: {named}{more}"


def pooled(quality: Quality) -> str:
    """The pooled test of no change, named as reported only; empty without one."""
    p = quality.pooled_p_value
    return "" if p is None else f"Pooled sign-flip test of no change: p {numbers.p_value(p)}, reported only."


def line(quality: Quality) -> str:
    """All of it as plain text, on one line."""
    return " ".join(part for part in (f"Quality score: {score(quality)}.", WARNING, pooled(quality)) if part)
