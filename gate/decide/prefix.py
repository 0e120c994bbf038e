"""A rule that needs all items, whose candidate was stopped before: what the items reached say, deciding nothing.

Pure.  The items come in a seeded order, so those reached are a sample; what ended it, a clock or another rule, is no
evidence.
"""

from __future__ import annotations

from dataclasses import replace

from gate.decide.combine import REACHED
from gate.decide.lineup import document_of
from gate.errors import CouldNotMeasure
from gate.records import Finding, Measurement, Status


def cut(baseline: Measurement | None, reached: Measurement) -> tuple[Measurement | None, Measurement]:
    """Both measurements as if only the items that the candidate reached had been expected.

    Raises:
        CouldNotMeasure: it reached none, or the two were not to be asked the same number of items.
    """
    ids = {o.item_id for o in reached.observations} | {f.item_id for f in reached.failures}
    asked = set(map(document_of, ids))
    n = max(len(asked), reached.n_reached)
    if n < 1:
        raise CouldNotMeasure(f"{reached.source}: the candidate was stopped before its first item")
    if baseline is not None:
        if baseline.n_expected != reached.n_expected:
            raise CouldNotMeasure(
                f"the measurements do not belong together: n_expected is {baseline.n_expected} for the baseline and "
                f"{reached.n_expected} for the candidate; measure both with the same policy and data"
            )
        baseline = replace(
            baseline,
            observations=tuple(o for o in baseline.observations if document_of(o.item_id) in asked),
            failures=tuple(f for f in baseline.failures if document_of(f.item_id) in asked),
            n_expected=n,
            n_reached=n,
        )
    return baseline, replace(reached, n_expected=n, n_reached=n)


def undecided(finding: Finding, reached: Measurement) -> Finding:
    """The finding on the items reached, INCONCLUSIVE at best; `combine` sees that not everything was asked."""
    told = (
        f"{reached.n_reached} of {reached.n_expected} items were reached, which decides nothing for a rule that needs "
        f"all of them; so far, {finding.reason}"
    )
    counts = {**finding.counts, "N": reached.n_expected, REACHED: reached.n_reached}
    if finding.estimate is None:
        return replace(finding, reason=told)
    decided = finding.status in (Status.PASS, Status.REGRESSION)
    return replace(finding, status=Status.INCONCLUSIVE if decided else finding.status, counts=counts, reason=told)
