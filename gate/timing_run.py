"""The timing of a run: pairs of blocks side by side up to a look that decides, and a second time where a rule is red.

Decides only what is measured next; whether it is enough, red or disturbed is said by the pure `decide`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gate import metrics
from gate.decide import conditions
from gate.decide.terms import Terms
from gate.decide.timing import settled, unconfirmed
from gate.errors import BudgetExceeded, CouldNotMeasure, DataError, WorkerError
from gate.evidence import Block, Collector, SecondsLeft, with_scalar
from gate.policy import ProfileStage
from gate.records import Measurement, Observation, Role, Rule, merge
from gate.stages.profile import block_order
from gate.stats.interleaving import balanced

RELOADED = "the two models do not fit together: each was loaded anew for its blocks"
"""From the first pair on; where it is from a later one, that is added."""

NO_ROOM = frozenset({"out_of_memory", "killed"})
"""Kinds of WorkerError that another model in memory explains; `killed` is what the kernel does when memory runs out."""

_LEAST_PAIRS = 2  # fewer have no spread
_LEAST_REPEATS = 2  # in all
_MOST_REPEATS = 2  # of one pair: what lasts must not use up what the next pair may need
_OTHER = {Role.BASELINE: Role.CANDIDATE, Role.CANDIDATE: Role.BASELINE}

Pair = Mapping[Role, Measurement]
"""One block of each role, measured next to each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """What was measured, first and second measurement together.

    Attributes:
        problem: why measuring ended before all was settled and confirmed; None where it did not.
        left_open: ids of the rules that it may have left undecided.
    """

    baseline: Measurement
    candidate: Measurement
    problem: CouldNotMeasure | DataError | None
    left_open: frozenset[str]


def timed(
    collector: Collector,
    settings: ProfileStage,
    rules: Sequence[Rule],
    terms: Terms,
    seconds_left: SecondsLeft,
    *,
    stop_early: bool,
    noise: Sequence[Observation] = (),
) -> Timed:
    """Time both checkpoints side by side, and confirm in fresh processes what turns a rule red.  There is no third.

    The first is in fresh processes too: a worker that served another stage would report that stage's peak of memory,
    and its own limit would not count the other model.  What the second measurement runs into costs nothing of the
    first.  A worker that breaks costs what was measured since the last look that could have ended the measurement.

    Args:
        stop_early: stop at the first planned look at which every governing rule is decided.
        noise: between processes, as `gate calibrate` found it (`decide.noise.observed`).

    Raises:
        BudgetExceeded: there was no time for two pairs of blocks.
        CouldNotMeasure, DataError: the first measurement broke; nothing of it is judged.
        WorkerError: it broke before the first planned look, or all looks were to be taken.
    """

    def joined(*series: _Series, notes: Sequence[str] = ()) -> tuple[Measurement, Measurement]:
        baseline, candidate = (_joined(collector, role, series, notes) for role in Role)
        return replace(baseline, observations=(*baseline.observations, *noise)), candidate

    def until_decided(*series: _Series) -> None:
        for look in settings.planned_pairs:
            series[-1].extend(look)
            if stop_early and settled(rules, *joined(*series), terms):
                return

    with tempfile.TemporaryDirectory(prefix="quantgate-") as scratch:
        first = _Series(collector, settings, Path(scratch), seconds_left)
        try:
            collector.drop_workers()
            until_decided(first)
        except BudgetExceeded as late:
            if first.pairs < _LEAST_PAIRS:
                raise
            return _ended(joined(first), late, rules)
        except WorkerError as broken:
            # without looks that may end it, what passed so far would hide that a worker broke
            if not stop_early or first.pairs < max(_LEAST_PAIRS, settings.planned_pairs[0]):
                raise
            collector.drop_workers()
            said = f"the measurement ended before pair {first.pairs + 1} was there: {broken}"
            return _ended(joined(first, notes=[said]), broken, rules)
        red = unconfirmed(rules, *joined(first), terms)
        if not red:
            return _ended(joined(first), None, ())
        names = ", ".join(dict.fromkeys(rule.metric for rule in red))
        second = _Series(
            collector,
            settings,
            Path(scratch),
            seconds_left,
            again=True,
            purpose=f"confirming {names}: ",
            like=first,
        )
        problem: CouldNotMeasure | DataError | None = None
        said = f"{names}: red at first, so all was timed a second time, in fresh processes"
        try:
            collector.drop_workers()
            until_decided(first, second)
        except (CouldNotMeasure, DataError) as found:
            problem = found
            said = f"the second measurement, which was to confirm {names}, did not end: {problem}"
        if isinstance(problem, WorkerError):
            collector.drop_workers()
        of = [first, second] if second.pairs else [first]
        return _ended(joined(*of, notes=[said]), problem, red)


def _ended(
    measured: tuple[Measurement, Measurement], problem: CouldNotMeasure | DataError | None, left_open: Sequence[Rule]
) -> Timed:
    """`left_open` are the rules that a problem may have left so."""
    baseline, candidate = measured
    open_ = frozenset(rule.id for rule in left_open) if problem is not None else frozenset[str]()
    return Timed(baseline=baseline, candidate=candidate, problem=problem, left_open=open_)


def fresh_pair(
    collector: Collector, settings: ProfileStage, pairs: int, seconds_left: SecondsLeft, *, purpose: str
) -> tuple[Measurement, Measurement]:
    """`pairs` pairs of blocks of two processes that were started for them; `purpose` is for whoever watches.

    Raises:
        CouldNotMeasure, DataError, WorkerError: as `timed`.
    """
    collector.drop_workers()
    with tempfile.TemporaryDirectory(prefix="quantgate-") as scratch:
        series = _Series(collector, settings, Path(scratch), seconds_left, goal=pairs, purpose=f"{purpose}: ")
        series.extend(pairs)
        baseline, candidate = (_joined(collector, role, [series], ()) for role in Role)
        return baseline, candidate


class _Series:
    """One measurement: pairs of blocks in an order that a drift of the machine cannot turn into a difference.

    The baseline's worker is started and loaded before the candidate's is started, so that what this machine has left to
    give is the candidate's limit.  Both stay resident; where the models do not fit together, each is loaded for its
    blocks, of which two follow each other (A, B B, A A, …).
    """

    def __init__(
        self,
        collector: Collector,
        settings: ProfileStage,
        scratch: Path,
        seconds_left: SecondsLeft,
        *,
        goal: int | None = None,
        again: bool = False,
        purpose: str = "",
        like: _Series | None = None,
    ) -> None:
        """`goal` is the most pairs it can come to, by default those planned; `again`: the second, which confirms.

        It loads in turns from the first pair on where `like` did in the end.
        """
        self._collector, self._settings, self._scratch, self._seconds_left = collector, settings, scratch, seconds_left
        self._goal, self._again, self._purpose = goal or settings.planned_pairs[-1], again, purpose
        self._order = block_order(settings.planned_pairs[-1])
        if not balanced([role for pair in self._order for role in pair]):
            raise CouldNotMeasure(
                "the timing blocks were not interleaved (A B B A), so a machine that warms up would look like a "
                "difference between the two checkpoints"
            )
        self._repeats_left = max(_LEAST_REPEATS, settings.planned_pairs[-1] // 2)
        self._measured: list[Pair] = []
        self._notes: list[str] = []
        self._starts: dict[Role, int] = {}  # of those that were loaded, how often their workers had been started then
        self._reloading: bool = like is not None and like._reloading

    @property
    def pairs(self) -> int:
        """Pairs of blocks so far."""
        return len(self._measured)

    def extend(self, pairs: int) -> None:
        """Measure until there are so many pairs.  Raises as `Collector.block`."""
        while self.pairs < pairs:
            number = self.pairs
            pair = self._pair(number)
            if number == 0 and not self._reloading and self._is_squeezed(pair):
                self._take_turns(number)
                pair = self._pair(number)
            repeated = 0
            while repeated < _MOST_REPEATS and self._repeats_left > 0 and (why := _disturbance(pair)) is not None:
                self._repeats_left -= 1
                repeated += 1
                self._notes.append(f"{self._named(number)} was measured again: {why}")
                pair = self._pair(number, "again, ")
            self._measured.append(self._marked(pair, number, repeated) if repeated else pair)

    def blocks(self, role: Role) -> list[Measurement]:
        return [pair[role] for pair in self._measured]

    @property
    def notes(self) -> list[str]:
        return self._notes

    def _take_turns(self, number: int) -> None:
        """Load the models in turns from this pair on; the second measurement does so from its first."""
        self._collector.drop_workers()
        self._reloading = True
        self._notes.append(f"{RELOADED} from {self._named(number)} on" if number or self._again else RELOADED)

    def _is_squeezed(self, pair: Pair) -> bool:
        """Whether a shape that was out of memory on a GPU fits there once the other model is gone."""
        for role, block in pair.items():
            known = self._collector.side(role).known
            failed = _out_of_memory(block)
            if failed and known is not None and known.device.startswith("cuda"):
                self._collector.drop_workers()
                if _out_of_memory(self._block(role, 0)) < failed:
                    return True
                self._starts = {role: self._collector.side(role).starts}
                alone = f"whether what the {role} had no memory for fits by itself, which it does not"
                self._notes.append(f"the processes of {self._named(0)} were ended to see {alone}")
        return False

    def _pair(self, number: int, remark: str = "") -> Pair:
        """Once more, with the models loaded in turns, where a worker has no room beside the other one."""
        if not self._reloading:
            try:
                return self._side_by_side(number, remark)
            except WorkerError as problem:
                if problem.kind not in NO_ROOM or not self._starts:  # it was alone
                    raise
            self._take_turns(number)
        return {role: self._block(role, number, remark) for role in self._order[number]}

    def _side_by_side(self, number: int, remark: str) -> Pair:
        for role in Role:
            self._open(role, number)
        found = {}
        for role in self._order[number]:
            self._open(role, number)
            found[role] = self._block(role, number, remark)
        return found

    def _open(self, role: Role, number: int) -> None:
        """Say so where a worker is replaced that was killed while it waited: the blocks are of several processes."""
        side = self._collector.side(role)
        side.opened()
        if side.starts > self._starts.setdefault(role, side.starts):
            self._starts[role] = side.starts
            self._notes.append(f"the {role}'s worker had to be started again before {self._named(number)}")

    def _named(self, number: int) -> str:
        return f"pair {number + 1}{' of the second measurement' if self._again else ''}"

    def _block(self, role: Role, number: int, remark: str = "") -> Measurement:
        if self._reloading:
            self._collector.side(_OTHER[role]).drop()
        block = Block(role=role, number=number, again=self._again)
        progress = self._progress(number, remark, second=role is not self._order[number][0])
        return self._collector.block(self._settings, block, self._scratch, self._seconds_left, progress)

    def _marked(self, pair: Pair, number: int, repeated: int) -> Pair:
        """The pair with how often it was measured again."""
        item_id = f"{'again' if self._again else 'block'}/{number}"
        mark = Observation(
            metric="repeated", item_id=item_id, value=float(repeated), weight=1.0, cluster=None, group=None
        )
        return {role: replace(block, observations=(*block.observations, mark)) for role, block in pair.items()}

    def _progress(self, number: int, remark: str, *, second: bool) -> Callable[[int, int, str], None]:
        """Of the whole measurement, from what a block says of itself."""
        before = 2 * number + second

        def show(done: int, total: int, label: str) -> None:
            _, _, what = label.partition(", ")  # not the name of the block, which is that of the pair
            where = f"{self._purpose}pair {number + 1} of {self._goal}, {remark}{what or label}"
            self._collector.progress(before * total + done, 2 * self._goal * total, where)

        return show


def _joined(collector: Collector, role: Role, series: Sequence[_Series], notes: Sequence[str]) -> Measurement:
    """One measurement of all blocks of a role, with what is known without a model."""
    parts = [block for one in series for block in one.blocks(role)]
    reported = tuple(dict.fromkeys(metric for part in parts for metric in part.metrics))
    whole = merge([replace(part, metrics=reported) for part in parts])
    said = [note for one in series for note in one.notes]
    whole = replace(whole, notes=tuple(dict.fromkeys((*whole.notes, *said, *notes))))
    return with_scalar(whole, metrics.PROFILE["disk_bytes"], collector.side(role).ref.weight_bytes)


def _disturbance(pair: Pair) -> str | None:
    """What disturbed either block, None if nothing did."""
    of = (block for role in pair for block in conditions.of_blocks(pair[role]).values())
    return next((why for found in of if (why := conditions.disturbance(found)) is not None), None)


def _out_of_memory(block: Measurement) -> int:
    """How many shapes or loads of a block were."""
    return sum(failure.kind == "out_of_memory" for failure in block.failures)
