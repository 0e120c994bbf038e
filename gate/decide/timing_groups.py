"""What a timing rule covers: batches (with their lengths) or serving loads, and why one of them has no times.

Pure.  A batch size, pair of lengths or load that could not run is never left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gate.errors import CouldNotMeasure
from gate.records import Measurement, Metric, Rule

BATCH, LOAD = "batch=", "load="
OF_LOADS = "goodput_requests_per_second"
"""The one metric that covers every load where its rule names none."""


def groups(rule: Rule, metric: Metric, measurements: Sequence[Measurement]) -> tuple[str | None, ...]:
    """The groups that a rule covers, of all that any role measured or failed.

    Without `load`: the shapes, narrowed by `batch` and `lengths`.

    Raises:
        CouldNotMeasure: the metric was not observed at all, or not for what the rule names.
    """
    observed: set[str | None] = set()
    failed: set[str | None] = set()
    for measurement in measurements:
        observed |= {o.group for o in measurement.observations if o.metric == metric.observed}
        tails = (f.item_id.rpartition("/")[2] for f in measurement.failures)
        failed |= {tail for tail in tails if tail.startswith((BATCH, LOAD))}
    known = observed | failed
    if not known:
        raise CouldNotMeasure(
            f"{metric.name}: nothing was measured by either role; does this device and backend report it?"
        )
    found = [group for group in known if _covers(rule, metric, group)]
    if not found:
        there = ", ".join(sorted(group or "all at once" for group in known))
        raise CouldNotMeasure(f"{metric.name} was not measured for {_asked(rule, metric)}, but for {there}")
    return tuple(sorted(found, key=_place))


def _covers(rule: Rule, metric: Metric, group: str | None) -> bool:
    if rule.load is not None:
        return group == f"{LOAD}{rule.load}"
    if metric.name == OF_LOADS:
        return (group or "").startswith(LOAD)
    if group is None:
        return rule.batch is None and rule.lengths is None
    if not group.startswith(BATCH):
        return False
    batch, _, lengths = group.removeprefix(BATCH).partition(",")
    return (rule.batch is None or batch == str(rule.batch)) and (
        rule.lengths is None or not lengths or lengths == rule.lengths
    )


def _asked(rule: Rule, metric: Metric) -> str:
    named = {"load": rule.load, "batch": rule.batch, "lengths": rule.lengths}
    said = " and ".join(f"{key} {value}" for key, value in named.items() if value is not None)
    return said or ("any load" if metric.name == OF_LOADS else "any batch size")


def _place(group: str | None) -> tuple[bool, tuple[int, ...], str]:
    """Shapes before loads, small before large."""
    name = group or ""
    numbers = name.removeprefix(BATCH).replace("+", ",").split(",")
    return name.startswith(LOAD), tuple(int(n) for n in numbers if n.isdecimal()), name


def why_failed(group: str | None, measurements: Sequence[Measurement]) -> str | None:
    """Why a group has no times in some of its blocks, in a sentence without its end; None where nothing failed."""
    said = []
    for measurement in measurements:
        kinds = Counter(f.kind for f in measurement.failures)
        for kind, times in kinds.most_common():
            message = next(f.message for f in measurement.failures if f.kind == kind).strip().partition("\n")[0]
            what = _KINDS.get(kind, f"failed ({kind})")
            said.append(f"the {measurement.role} {what} in {times} of {measurement.n_expected} blocks ({message})")
    where = "" if group is None else f"{_named(group)}: "
    return where + "; ".join(said) if said else None


_KINDS = {
    "out_of_memory": "ran out of memory",
    "too_long": "has no room for so many tokens",
    "not_served": "serves no such load",
    "no_tokens": "wrote no token",
}
"""Kind of failure → what happened; its message says the rest."""


def _named(group: str) -> str:
    """`batch 8 at 1024+64`, `load open:4`."""
    return group.replace("=", " ").replace(",", " at ")
