"""Planned looks at growing evidence: which are complete, what one of them says, and at which confidence.

Pure.  Judges nothing, and never makes a look out of what happens to be there: the plan is the baseline's.

A method that is valid for one n may be looked at once, at that n.  K sizes fixed beforehand may be looked at one
after the other, each side of each at confidence 1 − α/K (Bonferroni [1]); any other look is an error.

References:
    [1] C. Jennison, B. W. Turnbull, Group Sequential Methods with Applications to Clinical Trials (2000), ch. 1.
    [2] statistics.md §4: seven free looks from 8 documents pass a bad model 20 % of the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from gate.errors import CouldNotMeasure
from gate.records import Estimand, Measurement

LOOK = "look="
"""What the group of an observation at look T starts with: `look=T`, T in tokens."""


def planned(measurement: Measurement) -> tuple[int, ...]:
    """Sizes of the looks that anything belongs to, ascending; none where nothing is planned to grow.

    Of the baseline, which is measured at all of them, this is the plan.
    """
    return tuple(sorted(_units(measurement)))


def looks(measurement: Measurement) -> tuple[int, ...]:
    """Sizes of the looks at which every expected unit was observed or failed, ascending."""
    units = _units(measurement)
    return tuple(size for size in sorted(units) if len(units[size]) >= measurement.n_expected)


def check(found: Sequence[int], plan: Sequence[int]) -> None:
    """Raise unless `found` are the first looks of the `plan`; that of a method for a fixed n is the one look (n,).

    Raises:
        CouldNotMeasure: a look that was not planned, or one that was skipped.
    """
    if tuple(found) != tuple(plan[: len(found)]):
        raise CouldNotMeasure(
            f"found looks at {_listed(found)}, expected the first of those planned ({_listed(plan)}): every other look "
            "adds a chance to err; measure both with the same policy and data"
        )


def at(measurement: Measurement, size: int) -> Measurement:
    """One complete look by itself, as if nothing had been planned to grow: no groups, no `/look=T` in any id.

    Raises:
        CouldNotMeasure: there is no such look, or it is not complete.
    """
    if size not in looks(measurement):
        raise CouldNotMeasure(
            f"{measurement.source}: found complete looks at {_listed(looks(measurement))}, expected one at {size}"
        )
    group = f"{LOOK}{size}"
    end = f"/{group}"
    return replace(
        measurement,
        observations=tuple(
            replace(o, group=None, item_id=o.item_id.removesuffix(end))
            for o in measurement.observations
            if o.group == group
        ),
        failures=tuple(
            replace(f, item_id=f.item_id.removesuffix(end)) for f in measurement.failures if f.item_id.endswith(end)
        ),
    )


def level(confidence: float, n_looks: int) -> float:
    """Confidence of one side at each of `n_looks` planned looks, for `confidence` over all of them.

    Raises:
        ValueError: no look.
    """
    if n_looks < 1:
        raise ValueError(f"found {n_looks} planned looks, expected at least 1")
    return 1 - (1 - confidence) / n_looks


def _units(measurement: Measurement) -> dict[int, set[str]]:
    """Look → ids of the units that it has observed or lost."""
    of_the_whole = {m.observed for m in measurement.metrics if m.estimand is Estimand.SCALAR}
    found: dict[int, set[str]] = defaultdict(set)
    for observation in measurement.observations:
        size = _size(observation.group or "")
        if size is not None and observation.metric not in of_the_whole:
            found[size].add(observation.item_id)
    for failure in measurement.failures:
        size = _size(failure.item_id.rpartition("/")[2])
        if size is not None:
            found[size].add(failure.item_id)
    return found


def _size(group: str) -> int | None:
    number = group.removeprefix(LOOK)
    return int(number) if number != group and number.isdecimal() else None


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes)) or "none"
