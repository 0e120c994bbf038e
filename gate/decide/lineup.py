"""The items in the order in which the candidate met them: who was right, who was lost, and how far it got.

Pure.  Built from content and seed alone, so it does not depend on batches, clocks or the order of the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gate.decide.pairing import Item, Pair, pair
from gate.errors import CouldNotMeasure
from gate.order import place
from gate.records import Measurement, Metric


class Entry(NamedTuple):
    """One item; a value is None where that role did not measure it."""

    item_id: str
    group: str | None
    cluster: str | None
    baseline: float | None
    candidate: float | None

    @property
    def is_lost(self) -> bool:
        return self.baseline is None or self.candidate is None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineup:
    """All `n` items of the sample in order; the candidate was asked the first `reached` of them."""

    metric: Metric
    entries: tuple[Entry, ...]
    reached: int
    causes: tuple[tuple[str, int], ...]

    @property
    def n(self) -> int:
        return len(self.entries)


def lineup(baseline: Measurement, candidate: Measurement, metric: Metric, order_seed: str | None) -> Lineup:
    """Order all items of the sample and see how far the candidate got.

    What the candidate lacks before the last item that it was asked is lost; what comes after it has not been asked.
    An item that neither role names has no place of its own: it is taken for the first, never for one to come.

    Raises:
        CouldNotMeasure: as `pairing.pair`, or a value outside [0, 1].
    """
    pairs = pair(baseline, candidate, metric)
    found: tuple[Pair | Item, ...] = (*pairs.paired, *pairs.one_sided)
    for p in found:
        check_range(metric, p.item_id, p.baseline, p.candidate)

    def order(item_id: str) -> str:
        return item_id if order_seed is None else place(order_seed, item_id)

    # key, then the position as pairing left it: of equal ids, smallest with largest
    keyed = [
        (order(p.item_id), p.item_id, p.group or "", i, Entry(p.item_id, p.group, p.cluster, p.baseline, p.candidate))
        for i, p in enumerate(found)
    ]
    known = {document_of(p.item_id) for p in found}
    failed = {document_of(f.item_id): f.item_id for m in (baseline, candidate) for f in m.failures}
    keyed += [(order(i), i, "", 0, _nobody(i)) for document, i in failed.items() if document not in known]
    keyed.sort(key=lambda k: k[:4])
    if len(keyed) > pairs.n_expected:
        raise CouldNotMeasure(
            f"{candidate.source}: found {len(keyed)} items of {metric.name}, expected {pairs.n_expected}: the two "
            "were not asked the same items; measure both with the same policy, data and tokenizer"
        )
    unseen = pairs.n_expected - len(keyed)
    entries = (*(_nobody(f"unseen {k}") for k in range(unseen)), *(entry for *_, entry in keyed))
    reached = len(entries)
    if order_seed is not None and candidate.n_reached < candidate.n_expected:
        answered = {order(f.item_id) for f in candidate.failures}
        asked = (
            i
            for i, (key, *_, entry) in enumerate(keyed, start=unseen + 1)
            if entry.candidate is not None or key in answered
        )
        reached = max(max(asked, default=0), min(candidate.n_reached, reached))
    return Lineup(metric=metric, entries=entries, reached=reached, causes=pairs.causes)


def document_of(item_id: str) -> str:
    """The item but for its prompt, which is not known where it could not be rendered (as in `order.place`)."""
    document, slash, rest = item_id.rpartition("/")
    return f"{document}#{rest.partition('#')[2]}" if slash else item_id


def check_range(metric: Metric, item_id: str, *values: float | None) -> None:
    """Raises CouldNotMeasure for a value outside [0, 1]."""
    for value in values:
        if value is not None and not 0 <= value <= 1:
            raise CouldNotMeasure(
                f"{metric.name}: found the value {value!r} on item {item_id!r}, expected 0 to 1 for a mean over items: "
                "the stage must report another estimand or rescale"
            )


def lost_text(entries: Sequence[Entry], n: int, causes: Sequence[tuple[str, int]]) -> str:
    """`5 of 200 items could not be measured (candidate timeout: 5), for instance 'a', 'b'`."""
    lost = [e.item_id for e in entries if e.is_lost]
    text = f"{len(lost)} of {n} items could not be measured"
    if causes:
        text += " (" + ", ".join(f"{kind}: {count}" for kind, count in causes) + ")"
    return f"{text}, for instance " + ", ".join(map(repr, lost[:3]))


def _nobody(item_id: str) -> Entry:
    """An item that neither role measured."""
    return Entry(item_id, None, None, None, None)
