"""A candidate that was stopped early, read back: was it asked the items that the policy's seed puts first?

Pure.  Judges nothing: who chooses the order after the answers are known chooses which answers count, so others are no
near match.
"""

from __future__ import annotations

from collections.abc import Iterator

from gate.order import place
from gate.records import Estimand, Measurement

_OF_NO_ITEM = frozenset({Estimand.CORPUS, Estimand.SCALAR})
"""Metrics whose observations are named after something else than an item."""


def stopped_early(candidate: Measurement) -> bool:
    return candidate.n_reached < candidate.n_expected


def are_first(baseline: Measurement, candidate: Measurement, order_seed: str) -> bool:
    """Whether everything that the candidate was asked comes among the first `n_reached` items of this order.

    Items that neither side names have no place: they would only move the others further back.
    """
    asked = {place(order_seed, item_id) for item_id in set(_items(candidate))}
    known = asked | {place(order_seed, item_id) for item_id in set(_items(baseline))}
    last = max(asked, default="")
    return sum(at <= last for at in known) <= candidate.n_reached


def _items(measurement: Measurement) -> Iterator[str]:
    left_out = {m.observed for m in measurement.metrics if m.estimand in _OF_NO_ITEM}
    yield from (o.item_id for o in measurement.observations if o.metric not in left_out)
    yield from (f.item_id for f in measurement.failures)
