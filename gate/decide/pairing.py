"""Which value of the baseline belongs to which value of the candidate, and what is missing on either side.

Pure.  Never intersects in silence: every item expected is paired, one-sided or unseen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from gate.errors import CouldNotMeasure
from gate.records import MaxLost, Measurement, Metric, Observation, Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One item; a value is None where that role did not measure it."""

    item_id: str
    group: str | None
    cluster: str | None
    weight: float
    baseline: float | None
    candidate: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One item that both roles measured."""

    item_id: str
    group: str | None
    cluster: str | None
    weight: float
    baseline: float
    candidate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """All items of one metric on one source, sorted by id.

    `one_sided` are the items that one role alone measured; `n_unseen` of the `n_expected` were measured by
    neither.  `causes` counts, by role and kind, why; `lost_ids` names a few.
    """

    metric: Metric
    n_expected: int
    paired: tuple[Pair, ...]
    one_sided: tuple[Item, ...]
    causes: tuple[tuple[str, int], ...]
    lost_ids: tuple[str, ...]

    @property
    def n_lost(self) -> int:
        """Items expected but not paired."""
        return self.n_expected - len(self.paired)

    @property
    def n_unseen(self) -> int:
        """Items that neither role measured."""
        return self.n_lost - len(self.one_sided)


class LostItems(CouldNotMeasure):
    """More items were lost than the rule allows."""

    def __init__(self, message: str, *, n_paired: int, n_lost: int) -> None:
        super().__init__(message)
        self.n_paired = n_paired
        self.n_lost = n_lost


def pair(baseline: Measurement, candidate: Measurement, metric: Metric) -> Pairs:
    """Pair the two roles' observations of `metric` by item id (and group: batch sizes share ids).

    Duplicates (the same document and prompt twice in a data set) are counted, each occurrence once.  Which
    belongs to which cannot be known, so they are matched smallest with largest: the mean difference does not
    depend on it, and the doubt is never understated.

    Raises:
        CouldNotMeasure: the measurements are not of the same thing, or hold more items than were expected.
    """
    check_same(baseline, candidate)
    left, right = _by_item(baseline, metric), _by_item(candidate, metric)
    paired: list[Pair] = []
    one_sided: list[Item] = []
    for key in sorted(left.keys() | right.keys()):
        ascending = sorted(left.get(key, []), key=lambda o: (o.value, o.weight))
        descending = sorted(right.get(key, []), key=lambda o: (o.value, o.weight), reverse=True)
        for b, c in zip_longest(ascending, descending):
            if b is not None and c is not None:
                paired.append(_pair(b, c))
            else:
                one_sided.append(_one_sided(b, c))
    pairs = Pairs(
        metric=metric,
        n_expected=baseline.n_expected,
        paired=tuple(paired),
        one_sided=tuple(one_sided),
        causes=causes(baseline, candidate),
        lost_ids=_lost_ids(one_sided, baseline, candidate),
    )
    if pairs.n_unseen < 0:
        extra = ", ".join(map(repr, pairs.lost_ids)) or "none"
        raise CouldNotMeasure(
            f"{candidate.source}: found {len(paired)} items of {metric.name} that both measured and {len(one_sided)} "
            f"that one did (for instance {extra}), expected {pairs.n_expected} in all: the two were not asked the same "
            "items; measure both with the same policy, data and tokenizer"
        )
    return pairs


def alone(candidate: Measurement, metric: Metric) -> Pairs:
    """The candidate's observations by themselves, for rules that do not look at the baseline's values.

    `baseline` of every pair repeats the candidate's value; only `candidate` means anything.

    Raises:
        CouldNotMeasure: more items than were expected.
    """
    found = sorted((o for o in candidate.observations if o.metric == metric.observed), key=_content)
    if len(found) > candidate.n_expected:
        raise CouldNotMeasure(
            f"{candidate.source}: found {len(found)} items of {metric.name}, expected {candidate.n_expected}: "
            "measure again"
        )
    return Pairs(
        metric=metric,
        n_expected=candidate.n_expected,
        paired=tuple(_pair(o, o) for o in found),
        one_sided=(),
        causes=causes(candidate),
        lost_ids=_lost_ids((), candidate),
    )


def check_lost(pairs: Pairs, max_lost: MaxLost) -> None:
    """Raise unless there is something to judge and no more items were lost than allowed.

    Raises:
        LostItems: says how many, of which kinds, and names up to three.
    """
    if pairs.n_expected < 1 or not pairs.paired:
        _raise_lost(pairs, "nothing was paired")
    allowed = max_lost.allowed(pairs.n_expected)
    if pairs.n_lost > allowed:
        _raise_lost(pairs, f"max_lost allows {allowed}")


def lost_text(pairs: Pairs) -> str:
    """`5 of 200 items could not be measured (candidate timeout: 5), for instance 'a', 'b'`."""
    text = f"{pairs.n_lost} of {pairs.n_expected} items could not be measured"
    if pairs.causes:
        text += " (" + ", ".join(f"{kind}: {count}" for kind, count in pairs.causes) + ")"
    if pairs.lost_ids:
        text += ", for instance " + ", ".join(map(repr, pairs.lost_ids))
    return text


def causes(*measurements: Measurement) -> tuple[tuple[str, int], ...]:
    """How many items failed, by role and kind, most frequent first."""
    counts = Counter(f"{m.role} {f.kind}" for m in measurements for f in m.failures)
    return tuple(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def _lost_ids(one_sided: Sequence[Item], *measurements: Measurement) -> tuple[str, ...]:
    ids = [i.item_id for i in one_sided] + sorted(f.item_id for m in measurements for f in m.failures)
    return tuple(dict.fromkeys(ids))[:3]


def _raise_lost(pairs: Pairs, allowed: str) -> None:
    raise LostItems(
        f"{pairs.metric.name}: {lost_text(pairs)}, and {allowed}; an item without a value is neither right nor wrong: "
        "mend the measurement and run again",
        n_paired=len(pairs.paired),
        n_lost=pairs.n_lost,
    )


def check_same(baseline: Measurement, candidate: Measurement) -> None:
    """Raises CouldNotMeasure unless both were asked the same."""
    if (baseline.role, candidate.role) != (Role.BASELINE, Role.CANDIDATE):
        raise CouldNotMeasure(f"found roles {baseline.role} and {candidate.role}, expected baseline and candidate")
    for what in ("stage", "source", "settings_digest", "n_expected"):
        b, c = getattr(baseline, what), getattr(candidate, what)
        if b != c:
            raise CouldNotMeasure(
                f"the measurements do not belong together: {what} is {b!r} for the baseline and {c!r} for the "
                "candidate; measure both with the same policy and data"
            )


def _by_item(measurement: Measurement, metric: Metric) -> dict[tuple[str, str], list[Observation]]:
    found: dict[tuple[str, str], list[Observation]] = defaultdict(list)
    for observation in measurement.observations:
        if observation.metric == metric.observed:
            found[observation.item_id, observation.group or ""].append(observation)
    return found


def _content(observation: Observation) -> tuple[str, str, float, float]:
    return observation.item_id, observation.group or "", observation.value, observation.weight


def _pair(baseline: Observation, candidate: Observation) -> Pair:
    if baseline.weight != candidate.weight:
        raise CouldNotMeasure(
            f"item {candidate.item_id!r} has weight {baseline.weight:g} for the baseline and {candidate.weight:g} for "
            "the candidate, expected the same tokens for both: is it the same tokenizer?"
        )
    return Pair(
        item_id=candidate.item_id,
        group=candidate.group,
        cluster=baseline.cluster,
        weight=baseline.weight,
        baseline=baseline.value,
        candidate=candidate.value,
    )


def _one_sided(baseline: Observation | None, candidate: Observation | None) -> Item:
    known = baseline or candidate
    assert known is not None  # a key exists because one of them does
    return Item(
        item_id=known.item_id,
        group=known.group,
        cluster=known.cluster,
        weight=known.weight,
        baseline=None if baseline is None else baseline.value,
        candidate=None if candidate is None else candidate.value,
    )
