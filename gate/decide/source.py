"""All rules of one source (a corpus, a task, a data set): when measuring may stop, and what they find by then.

Pure.  Rules that block govern: a source is measured until every one of them is settled.  Where none blocks, all of them
govern.  Guard rails over groups never prolong anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import replace

from gate.decide import looks, sequential, stoppable
from gate.decide.combine import REACHED
from gate.decide.judge import check_guessing, judge
from gate.decide.lineup import check_range, lineup
from gate.decide.terms import Terms
from gate.errors import CouldNotMeasure
from gate.order import place
from gate.records import Finding, Measurement, Metric, Role, Rule, Severity, Status, merge


def governing(rules: Sequence[Rule]) -> list[Rule]:
    """The rules that measuring goes on for; none where guard rails are all that blocks: they see every item.

    Advisory rules govern only where nothing blocks, so that adding one changes nothing.
    """
    blocking = [r for r in rules if r.severity is Severity.BLOCKING]
    return [r for r in blocking or rules if r.by is None]


def findings(
    rules: Sequence[Rule],
    baseline: Measurement | None,
    candidate: Measurement,
    terms: Terms,
    *,
    stop_early: bool,
    waived: Set[str] = frozenset(),
) -> list[Finding]:
    """What the measurements say of every rule, in order.

    A guard rail on a source that ended before its governing rules were settled was cut short, and says so; so was one
    on a source of which every item was to be measured, and was not: without `stop_early`, or as a governing rule failed
    that is `waived`.
    """
    found = [judge(rule, baseline, candidate, terms) for rule in rules]
    chosen = {r.id for r in governing(rules)}
    short = any(REACHED in f.counts for f in found if f.rule.id in chosen)
    excused = any(f.status is Status.REGRESSION and f.rule.id in chosen & waived for f in found)
    short = short or (candidate.n_reached < candidate.n_expected and not (chosen and stop_early and not excused))
    return [_cut_short(f, candidate) if short and f.rule.by is not None else f for f in found]


def _cut_short(finding: Finding, candidate: Measurement) -> Finding:
    if finding.status is not Status.INCONCLUSIVE:
        return finding
    counts = {**finding.counts, "N": candidate.n_expected, REACHED: candidate.n_reached}
    return replace(finding, counts=counts)


class Tracker:
    """Follows the candidate's parts of one source as they come; rules that are `waived` may fail and stop nothing."""

    def __init__(
        self, rules: Sequence[Rule], baseline: Measurement, terms: Terms, *, waived: Set[str] = frozenset()
    ) -> None:
        self._rules = governing(rules)
        self._waived = waived
        self._guarded = any(r.by is not None and r.severity is Severity.BLOCKING for r in rules)
        self._baseline = baseline
        self._terms = terms
        self._parts: list[Measurement] = []
        self._looks = 0
        self._waits = not self._rules or bool(looks.planned(baseline))
        self._followed: list[_Followed] = []
        self._red = False
        metrics = {m.name: m for m in baseline.metrics}
        for rule in () if self._waits else self._rules:
            metric = metrics.get(rule.metric)
            if metric is None or not stoppable.applies(rule, metric, baseline, terms):
                self._waits = True  # it needs every item
                continue
            try:
                check_guessing(rule, baseline, metric)
                self._followed.append(_Followed(rule, metric, baseline, terms.of(rule)))
            except CouldNotMeasure:  # nothing to wait for: the finding will say why
                self._red |= rule.severity is Severity.BLOCKING

    @property
    def measurement(self) -> Measurement | None:
        """What the candidate yielded so far."""
        return merge(self._parts) if self._parts else None

    @property
    def settled(self) -> bool:
        """Whether no further part can change what the governing rules find.

        A waived rule that fails, which it may do within a few items, does not end what guard rails beside it see.
        """
        if self._guarded and any(f.walk.settled == "fail" and f.rule.id in self._waived for f in self._followed):
            return False
        return not self._waits and all(f.walk.settled is not None for f in self._followed)

    @property
    def failing(self) -> bool:
        """Whether a blocking rule is known to fail without being `waived`, or to be an error."""
        failed = [f for f in self._followed if f.blocks and f.walk.settled in ("fail", "lost")]
        return self._red or any(f.walk.settled == "lost" or f.rule.id not in self._waived for f in failed)

    def feed(self, part: Measurement) -> None:
        """The next part."""
        self._parts.append(part)
        for followed in list(self._followed):
            try:
                followed.feed(part)
            except CouldNotMeasure:
                self._followed.remove(followed)
                self._give_up(followed.rule)
        if looks.planned(self._baseline):
            self._look()

    def _give_up(self, rule: Rule) -> None:
        """The parts do not fit the baseline: an error already, or to be judged with all of them at hand."""
        if judge(rule, self._baseline, merge(self._parts), self._terms).status is not Status.ERROR:
            self._waits = True
        elif rule.severity is Severity.BLOCKING:
            self._red = True

    def _look(self) -> None:
        whole = merge(self._parts)
        complete = len(looks.looks(whole))
        if complete > self._looks and self._rules:
            self._looks = complete
            statuses = {judge(r, self._baseline, whole, self._terms).status for r in self._rules}
            self._waits = Status.INCONCLUSIVE in statuses


class _Followed:
    """One sequential rule: its walk along the baseline's items, in the order in which the candidate meets them."""

    def __init__(self, rule: Rule, metric: Metric, baseline: Measurement, terms: Terms) -> None:
        assert terms.order_seed is not None  # nothing is followed where nothing can be stopped
        self.rule, self._metric, self._seed = rule, metric, terms.order_seed
        self.blocks = rule.severity is Severity.BLOCKING
        nothing = replace(baseline, role=Role.CANDIDATE, observations=(), failures=(), n_reached=0)
        self._line = lineup(baseline, nothing, metric, self._seed).entries
        self._at: dict[str, list[int]] = defaultdict(list)
        for i, entry in enumerate(self._line):
            self._at[place(self._seed, entry.item_id)].append(i)
        self._taken = 0
        self._asked = 0
        self.walk = sequential.begin(rule, [e.baseline for e in self._line], terms)

    def feed(self, part: Measurement) -> None:
        """Raises CouldNotMeasure for items that are not the baseline's, come late or have values outside [0, 1]."""
        if self.walk.settled is not None:
            return
        values: dict[int, float] = {}
        reached = {self._position(f.item_id, 0) for f in part.failures}
        for item_id, found in self._values(part).items():
            for k, value in enumerate(found):
                at = self._position(item_id, k)
                if self._line[at].item_id != item_id and self._line[at].baseline is not None:
                    raise CouldNotMeasure(f"{item_id!r} is not what the baseline was asked")
                values[at] = value
        self._asked += part.n_reached
        end = max({*reached, *values}, default=-1) + 1
        end = max(end, self._taken, min(self._asked, len(self._line)))
        entries = [self._line[i]._replace(candidate=values.get(i)) for i in range(self._taken, end)]
        self._taken = end
        self.walk.feed(entries)

    def _values(self, part: Measurement) -> dict[str, list[float]]:
        """Of repeated items, the smallest of one role goes with the largest of the other, as in `pairing`."""
        found: dict[str, list[float]] = defaultdict(list)
        for o in part.observations:
            if o.metric == self._metric.observed:
                check_range(self._metric, o.item_id, o.value)
                found[o.item_id].append(o.value)
        return {item_id: sorted(some, reverse=True) for item_id, some in found.items()}

    def _position(self, item_id: str, k: int) -> int:
        positions = self._at.get(place(self._seed, item_id), [])
        if k >= len(positions) or positions[k] < self._taken:
            raise CouldNotMeasure(f"{item_id!r} is not among the items that come next")
        return positions[k]
