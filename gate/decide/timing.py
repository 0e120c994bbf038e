"""What the loop that measures timing asks while it goes: is this enough, and which rules need a second measurement.

Pure.  What is found in the end is `judge.judge`'s to say, from the same groups and looks.
"""

from __future__ import annotations

from collections.abc import Sequence

from gate.decide.judge import metric_of
from gate.decide.source import governing
from gate.decide.terms import Terms
from gate.decide.timing_judge import by_group
from gate.decide.timing_looks import Judged
from gate.errors import CouldNotMeasure
from gate.records import Estimand, Measurement, Rule


def unconfirmed(rules: Sequence[Rule], baseline: Measurement, candidate: Measurement, terms: Terms) -> tuple[Rule, ...]:
    """The timing rules that the first measurement finds red, blocking or advisory, where no second one has begun."""
    return tuple(
        rule
        for rule in rules
        if any(one.red and not one.confirming for one in _judged(rule, baseline, candidate, terms))
    )


def settled(rules: Sequence[Rule], baseline: Measurement, candidate: Measurement, terms: Terms) -> bool:
    """Whether no further pair of blocks of the measurement under way can change what it is asked.

    Asked at a planned number of pairs.  While the first measurement goes on, all of them count, and red is settled:
    the second one comes later.  During the second, what it is made for counts: every rule that was red, advice too.
    """
    governs = governing(rules)
    found = [(rule, one) for rule in rules for one in _judged(rule, baseline, candidate, terms)]
    return not any(one.is_open for rule, one in found if (one.red if one.confirming else rule in governs))


def _judged(rule: Rule, baseline: Measurement, candidate: Measurement, terms: Terms) -> list[Judged]:
    """Nothing for rules on bytes, and for those that cannot be judged: no block will mend them."""
    try:
        metric = metric_of(rule, candidate)
        if metric.estimand not in (Estimand.TIMING, Estimand.QUANTILE):
            return []
        return by_group(rule, baseline, candidate, metric, terms.of(rule))
    except CouldNotMeasure:
        return []
