"""All rules of one source (a corpus, a task, a data set): when measuring may stop, and what they find by then.

Pure.  Rules that block govern: a source is measured until every one of them is settled.  Where none blocks, all of them
govern.  Guard rails over groups never prolong anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from gate.decide import looks, sequential
from gate.decide.combine import REACHED
from gate.decide.judge import judge
from gate.decide.lineup import Entry
from gate.decide.terms import Terms
from gate.decide.walk import Walk
from gate.errors import CouldNotMeasure
from gate.order import place
from gate.records import Finding, Measurement, Metric, Rule, Severity, Status, merge


def governing(rules: Sequence[Rule]) -> list[Rule]:
    """The rules that measuring goes on for."""
    single = [r for r in rules if r.by is None]
    return [r for r in single if r.severity is Severity.BLOCKING] or single


def findings(
    rules: Sequence[Rule], baseline: Measurement | None, candidate: Measurement, terms: Terms
) -> list[Finding]:
    """What the measurements say of every rule, in order.

    A guard rail on a source that ended before its governing rules were settled was cut short, and says so.
    """
    found = [judge(rule, baseline, candidate, terms) for rule in rules]
    chosen = {r.id for r in governing(rules)}
    short = any(REACHED in f.counts for f in found if f.rule.id in chosen)
    return [_cut_short(f, candidate) if short and f.rule.by is not None else f for f in found]


def _cut_short(finding: Finding, candidate: Measurement) -> Finding:
    if finding.status is not Status.INCONCLUSIVE:
        return finding
    counts = {**finding.counts, "N": candidate.n_expected, REACHED: candidate.n_reached}
    return replace(finding, counts=counts)


class Tracker:
    """Follows the candidate's parts of one source as they come."""

    def __init__(self, rules: Sequence[Rule], baseline: Measurement, terms: Terms) -> None:
        self._rules = governing(rules)
        self._baseline = baseline
        self._terms = terms
        self._parts: list[Measurement] = []
        self._looks = 0
        self._waits = not self._rules or bool(looks.planned(baseline))
        self._walks: list[_Followed] = []
        metrics = {m.name: m for m in baseline.metrics}
        for rule in () if self._waits else self._rules:
            metric = metrics.get(rule.metric)
            if metric is None or not sequential.applies(rule, metric, baseline, terms):
                self._waits = True  # it needs every item
                continue
            try:
                self._walks.append(_Followed(rule, metric, baseline, terms))
            except CouldNotMeasure:
                continue  # nothing to wait for: the finding will say why

    @property
    def measurement(self) -> Measurement | None:
        """What the candidate yielded so far."""
        return merge(self._parts) if self._parts else None

    @property
    def settled(self) -> bool:
        """Whether no further part can change what the governing rules find."""
        return not self._waits and all(f.walk.settled is not None for f in self._walks)

    @property
    def failing(self) -> bool:
        """Whether a blocking rule is known to fail, or to be an error."""
        return any(f.walk.settled in ("fail", "lost") and f.blocks for f in self._walks)

    def feed(self, part: Measurement) -> None:
        """The next part."""
        self._parts.append(part)
        for followed in self._walks:
            followed.feed(part)
        if looks.planned(self._baseline):
            self._look()

    def _look(self) -> None:
        whole = merge(self._parts)
        complete = len(looks.looks(whole))
        if complete > self._looks and self._rules:
            self._looks = complete
            statuses = {judge(r, self._baseline, whole, self._terms).status for r in self._rules}
            self._waits = Status.INCONCLUSIVE in statuses


class _Followed:
    """One sequential rule, and the baseline's values by place in the order."""

    def __init__(self, rule: Rule, metric: Metric, baseline: Measurement, terms: Terms) -> None:
        assert terms.order_seed is not None  # nothing is followed where nothing can be stopped
        self._seed = terms.order_seed
        self._observed = metric.observed
        self.blocks = rule.severity is Severity.BLOCKING
        self._known: dict[str, list[float]] = defaultdict(list)
        for o in baseline.observations:
            if o.metric == metric.observed:
                self._known[o.item_id].append(o.value)
        values: list[float | None] = [v for found in self._known.values() for v in found]
        values += [None] * (baseline.n_expected - len(values))
        self.walk = Walk(rule, values, terms)

    def feed(self, part: Measurement) -> None:
        found: dict[str, list[float]] = defaultdict(list)
        for o in part.observations:
            if o.metric == self._observed:
                found[o.item_id].append(o.value)
        ids = sorted({*found, *(f.item_id for f in part.failures)}, key=lambda i: (place(self._seed, i), i))
        block = [entry for item_id in ids for entry in self._entries(item_id, found.get(item_id, []))]
        block += [_entry("", None, None) for _ in range(part.n_reached - len(block))]
        self.walk.feed(block)

    def _entries(self, item_id: str, candidate: list[float]) -> list[Entry]:
        """Of repeated items, the smallest of one role goes with the largest of the other, as in `pairing`."""
        baseline = sorted(self._known.get(item_id, []))
        values = sorted(candidate, reverse=True)
        n = max(len(baseline), len(values), 1)
        return [_entry(item_id, _at(baseline, i), _at(values, i)) for i in range(n)]


def _at(values: Sequence[float], index: int) -> float | None:
    return values[index] if index < len(values) else None


def _entry(item_id: str, baseline: float | None, candidate: float | None) -> Entry:
    return Entry(item_id=item_id, group=None, cluster=None, baseline=baseline, candidate=candidate)
