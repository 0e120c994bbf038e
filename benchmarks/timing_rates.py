"""How often the gate's timing rules raise an alarm on runs that are resampled from measured pairs of blocks.

Pure.  A run takes consecutive pairs of the same two processes, as a run of the gate does; runs that overlap share pairs
and are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from benchmarks.timing_pairs import Pair
from gate.decide.conditions import disturbance, of_blocks
from gate.decide.judge import judge
from gate.decide.terms import gate_wide
from gate.decide.timing import unconfirmed
from gate.metrics import DESCRIBED, PROFILE
from gate.records import BoundKind, Estimand, Measurement, Observation, Role, Rule, Status, merge
from gate.stats import log_ratio, wilson

Run = tuple[int, ...]
"""Places of its pairs, ascending."""

TERMS = gate_wide(0.95, 1, None)
_BLOCK_VALUES = frozenset(m.observed for m in PROFILE.values() if m.estimand is Estimand.TIMING)
_DECIDED = (Status.PASS, Status.INCONCLUSIVE, Status.REGRESSION)


class Watch(Enum):
    """What is made of the machine's state during a block."""

    GATE = "as the gate does: disturbed pairs measured again, then judged with what disturbed them"
    NOT_REPEATED = "disturbed pairs not measured again"
    BLIND = "the machine not looked at"


# --- runs ----------------------------------------------------------------------------------------------------------


def runs(sessions: Sequence[int], disturbed: Sequence[bool], length: int, repeats: int) -> list[Run]:
    """From each pair on, the run of `length` pairs of its session, where there are so many.

    A disturbed pair is passed over and the next one takes its place, `repeats` times in a run; then it is kept.

    Args:
        sessions, disturbed: of each pair, in the order in which they were measured.
    """
    found = []
    for start in range(len(sessions)):
        run: list[int] = []
        left = repeats
        for at in range(start, len(sessions)):
            if sessions[at] != sessions[start] or len(run) == length:
                break
            if disturbed[at] and left > 0:
                left -= 1
                continue
            run.append(at)
        if len(run) == length:
            found.append(tuple(run))
    return found


def apart(found: Sequence[Run]) -> list[Run]:
    """Of runs in ascending order, those that share no pair: the first, and each next one that is free."""
    kept: list[Run] = []
    for run in found:
        if not kept or run[0] > kept[-1][-1]:
            kept.append(run)
    return kept


def second(run: Run, found: Sequence[Run], sessions: Sequence[int]) -> Run | None:
    """The run that confirms it: of the next session (fresh processes), about as far into it; None without another."""
    mine = sessions[run[0]]
    others = list(dict.fromkeys(s for s in (sessions[r[0]] for r in found) if s != mine))
    if not others:
        return None
    following = next((s for s in others if s > mine), others[0])
    place = sum(r[0] < run[0] for r in found if sessions[r[0]] == mine)
    there = [r for r in found if sessions[r[0]] == following]
    return there[min(place, len(there) - 1)]


# --- what the gate says of them ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """Of one run: whether its first measurement was red, and the status after the second."""

    red: bool
    status: Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Counts over `runs` runs: `red` of them at first, and each status in the end."""

    runs: int
    red: int
    statuses: Mapping[Status, int]

    @property
    def confirmed(self) -> int:
        return self.statuses.get(Status.REGRESSION, 0)


def counted(found: Sequence[Said]) -> Rates:
    statuses = {status: sum(s.status is status for s in found) for status in _DECIDED}
    return Rates(runs=len(found), red=sum(s.red for s in found), statuses=statuses)


def judged(
    rule: Rule, pairs: Sequence[Pair], found: Sequence[Run], watch: Watch, among: Sequence[Run] | None = None
) -> list[Said]:
    """What the gate says of each of the runs; what is red at first is confirmed by one `among` those, default: these.

    Raises:
        ValueError: it cannot judge these pairs.
    """
    sessions = [p.session for p in pairs]
    lean = [_lean(p, watched=watch is not Watch.BLIND) for p in pairs]
    result = []
    for run in found:
        other = second(run, found if among is None else among, sessions)
        result.append(_said(rule, [lean[i] for i in run], [] if other is None else [lean[i] for i in other]))
    return result


def _said(rule: Rule, first: Sequence[Pair], again: Sequence[Pair]) -> Said:
    baseline, candidate = (joined(role, first, ()) for role in Role)
    red = bool(unconfirmed((rule,), baseline, candidate, TERMS))
    if red:
        baseline, candidate = (joined(role, first, again) for role in Role)
    found = judge(rule, baseline, candidate, TERMS)
    if found.status not in _DECIDED:
        raise ValueError(f"{rule.id}: {found.status}: {found.reason}")
    return Said(red=red, status=found.status)


def _lean(pair: Pair, *, watched: bool) -> Pair:
    """The pair's block values, and if `watched` what the machine was like; without single times."""
    kept = _BLOCK_VALUES | DESCRIBED.keys() if watched else _BLOCK_VALUES

    def only(measurement: Measurement) -> Measurement:
        found = tuple(o for o in measurement.observations if is_block(o) and o.metric in kept)
        return replace(measurement, observations=found)

    return replace(pair, baseline=only(pair.baseline), candidate=only(pair.candidate))


def joined(role: Role, first: Sequence[Pair], again: Sequence[Pair]) -> Measurement:
    """One measurement of a role, as a run of the gate has it: `first` as its blocks, `again` as those that confirm."""
    metrics = tuple(dict.fromkeys(m for pair in (*first, *again) for m in pair.of(role).metrics))
    return merge(
        [
            replace(_renamed(pair.of(role), f"{name}/{number}", len(first), reached), metrics=metrics)
            for name, pairs, reached in (("block", first, 1), ("again", again, 0))
            for number, pair in enumerate(pairs)
        ]
    )


def _renamed(measurement: Measurement, item_id: str, expected: int, reached: int) -> Measurement:
    """A lean block under another name."""
    return replace(
        measurement,
        n_expected=expected,
        n_available=expected,
        n_reached=reached,
        observations=tuple(replace(o, item_id=item_id) for o in measurement.observations),
    )


def kept(rule: Rule, slowdown: float) -> str:
    """Whether a candidate keeps the bound when everything takes 1 + `slowdown` times as long."""
    match rule.bound.kind:
        case BoundKind.MIN_RETAINED:
            room = 1 / (1 + slowdown) - rule.bound.value
        case BoundKind.MAX_INCREASE:
            room = rule.bound.value - slowdown
        case other:
            raise ValueError(f"found a {other} rule, expected min_retained or max_increase")
    return "exactly met" if abs(room) < 1e-9 else "kept" if room > 0 else "broken"


def interval(count: int, n: int) -> tuple[float, float]:
    """Wilson's interval for `count` of `n`, 95 % two-sided."""
    found = wilson.interval(successes=count, n=n, confidence=0.975)
    return found.low, found.high


# --- the pairs -----------------------------------------------------------------------------------------------------


def disturbances(pair: Pair) -> list[str]:
    """What disturbed its blocks, a clause each, as the gate sees it."""
    clauses = map(disturbance, conditions_of(pair))
    return [clause for clause in clauses if clause is not None]


def conditions_of(pair: Pair) -> list[dict[str, float]]:
    """What the machine was like during each of its blocks."""
    return [found for role in Role for found in of_blocks(pair.of(role)).values()]


def is_block(observation: Observation) -> bool:
    """Whether it is of a whole block: `block/3`, and neither of a run in it nor of the process."""
    return observation.item_id.startswith("block/") and observation.item_id.count("/") == 1


def value(measurement: Measurement, metric: str, group: str | None) -> float:
    """The block value of a metric.  Raises ValueError unless it is there once."""
    (found,) = (o.value for o in measurement.observations if is_block(o) and (o.metric, o.group) == (metric, group))
    return found


def ratio(pairs: Sequence[Pair], metric: str, group: str) -> log_ratio.LogRatio:
    """Candidate over baseline over all pairs, 95 % two-sided."""
    return log_ratio.interval(
        baseline=[value(p.baseline, metric, group) for p in pairs],
        candidate=[value(p.candidate, metric, group) for p in pairs],
        confidence=0.975,
    )
