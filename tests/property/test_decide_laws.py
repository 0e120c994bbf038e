"""Laws of judging and combining: what must never depend on what, and what may only move one way."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist, fmean

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gate.decide import items, timing
from gate.decide.combine import combine, stage_status
from gate.decide.estimate import p_value
from gate.decide.judge import judge
from gate.decide.pairing import pair
from gate.records import Bound, BoundKind, Finding, Measurement, Role, Rule, Scope, Severity, StageResult, Status
from gate.stats import tango, wald
from tests.decide_factory import (
    ACCURACY,
    BASELINE,
    CANDIDATE,
    CONFIDENCE,
    TERMS,
    bound,
    finding,
    lost,
    pair_of,
    rule,
    scored,
    stage,
)
from tests.timing_factory import SHAPE, described, of_speed, timed

HARMLESS_FIRST = (Status.PASS, Status.INCONCLUSIVE, Status.REGRESSION)
TEXTS = st.sampled_from(["max_drop 1pp", "max_drop 5pp", "max_drop 20pp", "min_retained 80%", "min_retained 97%"])
ABSOLUTE = st.sampled_from(["min 0.3", "min 0.9"])
BINARY = st.sampled_from([0.0, 1.0])
REAL = st.one_of(BINARY, st.floats(0, 1))


def two_roles(values: st.SearchStrategy[float], most: int = 60) -> st.SearchStrategy[list[tuple[float, float]]]:
    return st.lists(st.tuples(values, values), min_size=1, max_size=most).filter(lambda v: sum(b for b, _ in v) > 0.01)


def can_fail(values: list[tuple[float, float]], text: str) -> bool:
    """Some candidate could break the bound: a baseline that is too bad for that is an ERROR."""
    kind, _ = text.split()
    return kind != "max_drop" or fmean(b for b, _ in values) > bound(text).value


def measured(values: list[tuple[float, float]]) -> tuple[Measurement, Measurement]:
    clusters = [f"subject {i % 5}" for i in range(len(values))]
    return (
        scored(BASELINE, [b for b, _ in values], clusters=clusters),
        scored(CANDIDATE, [c for _, c in values], clusters=clusters),
    )


def without_items(measurement: Measurement, gone: set[int]) -> Measurement:
    kept = tuple(o for i, o in enumerate(measurement.observations) if i not in gone)
    return replace(measurement, observations=kept)


@settings(max_examples=60, deadline=None)
@given(values=two_roles(REAL, 25), text=st.one_of(TEXTS, ABSOLUTE), scope=st.sampled_from(Scope), data=st.data())
def test_the_order_of_observations_is_irrelevant(
    values: list[tuple[float, float]], text: str, scope: Scope, data: st.DataObject
) -> None:
    baseline, candidate = measured(values)
    shuffled = data.draw(st.permutations(candidate.observations))
    of = rule(text, scope=scope)
    found = judge(of, baseline, candidate, TERMS)
    assert judge(of, baseline, replace(candidate, observations=tuple(shuffled)), TERMS) == found


@settings(max_examples=60, deadline=None)
@given(values=two_roles(REAL, 25), text=st.one_of(TEXTS, ABSOLUTE), scope=st.sampled_from(Scope))
def test_every_decided_finding_has_a_proper_interval(
    values: list[tuple[float, float]], text: str, scope: Scope
) -> None:
    assume(can_fail(values, text))
    found = judge(rule(text, scope=scope), *measured(values), TERMS)
    assert found.status in HARMLESS_FIRST
    assert found.interval is not None
    assert found.estimate is not None
    assert found.interval.low <= found.estimate <= found.interval.high
    if found.interval.scope is Scope.BENCHMARK:
        # all items are there: the interval is exact, on the scores of this very benchmark
        assert (found.interval.valid, found.status) != ("fixed_n", Status.INCONCLUSIVE)
        assert found.interval.high - found.interval.low < 1e-6
    else:
        assert found.interval.low < found.interval.high
        assert found.interval.valid == "fixed_n"
    assert found.n_needed is None or found.n_needed > found.n_paired


@settings(max_examples=80, deadline=None)
@given(values=two_roles(BINARY), text=st.one_of(TEXTS, ABSOLUTE), data=st.data())
def test_a_better_candidate_is_never_judged_worse(
    values: list[tuple[float, float]], text: str, data: st.DataObject
) -> None:
    wrong = [i for i, (_, c) in enumerate(values) if c == 0]
    assume(wrong and can_fail(values, text))
    mended = data.draw(st.sampled_from(wrong))
    better = [(b, 1.0 if i == mended else c) for i, (b, c) in enumerate(values)]
    before = judge(rule(text), *measured(values), TERMS).status
    after = judge(rule(text), *measured(better), TERMS).status
    assert HARMLESS_FIRST.index(after) <= HARMLESS_FIRST.index(before)


@settings(max_examples=60, deadline=None)
@given(
    values=two_roles(REAL, 25),
    kind=st.sampled_from([BoundKind.MAX_DROP, BoundKind.MIN_RETAINED, BoundKind.MIN, BoundKind.MAX]),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_looser_bound_is_never_harder_to_keep(
    values: list[tuple[float, float]], kind: BoundKind, ends: tuple[float, float]
) -> None:
    tight, loose = sorted(ends, reverse=kind in (BoundKind.MIN, BoundKind.MIN_RETAINED))
    # so loose that nothing could break it is another matter: an ERROR
    assume(loose < {BoundKind.MAX_DROP: fmean(b for b, _ in values) - 1e-9, BoundKind.MAX: 1}.get(kind, math.inf))
    assume(loose > 0 or kind is not BoundKind.MIN)
    statuses = []
    for value in (tight, loose):
        of = replace(rule("max_drop 1pp"), bound=Bound(kind=kind, value=value, text=f"{value}"))
        statuses.append(HARMLESS_FIRST.index(judge(of, *measured(values), TERMS).status))
    assert statuses[1] <= statuses[0]


@settings(max_examples=60, deadline=None)
@given(values=two_roles(REAL, 25))
def test_swapping_the_roles_mirrors_the_drop(values: list[tuple[float, float]]) -> None:
    assume(min(fmean(side) for side in zip(*values, strict=True)) > 0.051)  # neither role is too bad for the bound
    swapped = [(c, b) for b, c in values]
    one, other = (judge(rule("max_drop 5pp"), *measured(v), TERMS) for v in (values, swapped))
    assert one.estimate is not None
    assert other.estimate == pytest.approx(-one.estimate, abs=1e-12)
    assert one.interval is not None
    assert other.interval is not None
    # Only the failing side of 0/1 items is widened (by Wald), so the score limits are compared.
    assert other.interval.low <= -one.interval.high + 1e-9
    assert one.interval.low <= -other.interval.high + 1e-9


@settings(max_examples=100, deadline=None)
@given(values=two_roles(BINARY, 40), text=TEXTS, data=st.data())
def test_losing_items_never_moves_anything_to_pass(
    values: list[tuple[float, float]], text: str, data: st.DataObject
) -> None:
    """Items vanish from either side, and the rule allows it: a PASS or a REGRESSION was one before."""
    baseline, candidate = measured(values)
    indices = st.sets(st.integers(0, len(values) - 1), max_size=len(values) - 1)
    fewer_b, fewer_c = without_items(baseline, data.draw(indices)), without_items(candidate, data.draw(indices))
    whole = judge(rule(text), baseline, candidate, TERMS)
    rest = judge(rule(text, max_lost=lost(len(values))), fewer_b, fewer_c, TERMS)
    if rest.status in (Status.PASS, Status.REGRESSION):
        assert rest.status is whole.status
    if rest.n_lost:
        assert judge(rule(text), fewer_b, fewer_c, TERMS).status is Status.ERROR


@settings(max_examples=60, deadline=None)
@given(
    both=st.integers(0, 200), b=st.integers(0, 40), c=st.integers(0, 40), d=st.integers(0, 50), drop=st.floats(0, 0.2)
)
def test_the_p_value_of_a_drop_is_the_larger_of_tangos_and_walds(
    both: int, b: int, c: int, d: int, drop: float
) -> None:
    n = both + b + c + d
    assume(n > 0 and b + c > 0 and (both + b) / n > drop)
    of = replace(rule("max_drop 1pp"), bound=Bound(kind=BoundKind.MAX_DROP, value=drop, text="drawn"))
    estimate = items.estimate(of, pair(*pair_of(both, b, c, d), ACCURACY), CONFIDENCE)
    normal = NormalDist()
    by_tango = normal.cdf(tango.z_score(lost=b, gained=c, n=n, difference=-drop)) / (0.95 if n < 400 else 1)
    spread = wald.interval(lost=b, gained=c, n=n, confidence=normal.cdf(1))
    error = spread.high - spread.estimate if spread.high < 1 else None
    assume(error is not None and error > 0)
    by_wald = normal.cdf(((c - b) / n + drop) / error) if error else 1.0
    expected = max(by_tango, by_wald)
    found = p_value(estimate.limits, of.bound, at_most=0.4)
    if expected < 0.39:
        assert found == pytest.approx(max(expected, 1e-6), rel=0.021)
    elif expected > 0.41:
        assert found == 1.0


RULES = [rule("max_drop 3pp", id=f"rule {i}", stage=f"stage {i}") for i in range(3)]
STATUSES = st.sampled_from([Status.PASS, Status.REGRESSION, Status.INCONCLUSIVE, Status.ERROR])


@settings(max_examples=100)
@given(statuses=st.lists(STATUSES, min_size=1, max_size=3), advice=STATUSES, restricted=st.booleans())
def test_an_advisory_rule_changes_nothing(statuses: list[Status], advice: Status, restricted: bool) -> None:
    extra = rule("max_drop 9pp", id="advice", stage="stage 0", severity=Severity.ADVISORY)
    planned = tuple(RULES[: len(statuses)])

    def stages(*more: Finding) -> tuple[StageResult, ...]:
        found = [[finding(r, s)] for r, s in zip(planned, statuses, strict=True)]
        found[0] += more
        return tuple(stage(r.stage, stage_status(f), f) for r, f in zip(planned, found, strict=True))

    plain, advised = stages(), stages(finding(extra, advice))
    assert [s.status for s in plain] == [s.status for s in advised]
    decision = combine(planned, plain, restricted)
    assert combine((*planned, extra), advised, restricted) == decision


@settings(max_examples=100)
@given(statuses=st.lists(st.one_of(STATUSES, st.none()), min_size=1, max_size=3), restricted=st.booleans())
def test_a_pass_needs_a_pass_of_every_blocking_rule(statuses: list[Status | None], restricted: bool) -> None:
    """None stands for a finding that is missing."""
    planned: tuple[Rule, ...] = tuple(RULES[: len(statuses)])
    stages = tuple(
        stage(r.stage, Status.PASS, [] if s is None else [finding(r, s)])
        for r, s in zip(planned, statuses, strict=True)
    )
    decision = combine(planned, stages, restricted)
    all_pass = all(s is Status.PASS for s in statuses)
    assert (decision.status is Status.PASS) == (all_pass and not restricted)
    assert decision.deciding


@settings(max_examples=40, deadline=None)
@given(text=st.sampled_from(["max_drop 3pp", "min_retained 97%"]), n=st.integers(1, 300), role=st.sampled_from(Role))
def test_an_item_that_no_role_measured_is_never_evidence(text: str, n: int, role: Role) -> None:
    baseline, candidate = pair_of(n, 0, 0, 0)
    missing = replace(baseline if role is BASELINE else candidate, n_expected=n + 1, n_reached=n + 1)
    other = replace(candidate if role is BASELINE else baseline, n_expected=n + 1, n_reached=n + 1)
    roles = (missing, other) if role is BASELINE else (other, missing)
    found = judge(rule(text), *roles, TERMS)
    assert (found.status, found.n_lost) == (Status.ERROR, 1)
    assert bound(text).text in text


SPEEDS = st.lists(st.floats(80, 120), min_size=8, max_size=8)
TIMED_TEXTS = st.sampled_from(["min_retained 95%", "min_speedup 1.1", "min 100", "max 100"])
PLANS = st.sampled_from([(8,), (4, 8), (3, 5, 8)])


def side(role: Role, first: list[float], again: list[float] | None, plan: tuple[int, ...]) -> Measurement:
    return timed(role, {SHAPE: first}, None if again is None else {SHAPE: again}, planned=plan)


@settings(max_examples=80, deadline=None)
@given(blocks=st.lists(SPEEDS, min_size=4, max_size=4), text=TIMED_TEXTS, plan=PLANS)
def test_a_timing_rule_is_red_exactly_where_both_measurements_are(
    blocks: list[list[float]], text: str, plan: tuple[int, ...]
) -> None:
    of, (b, c, again_b, again_c) = of_speed(text), blocks
    pair = side(BASELINE, b, again_b, plan), side(CANDIDATE, c, again_c, plan)
    first = side(BASELINE, b, None, plan), side(CANDIDATE, c, None, plan)
    second = side(BASELINE, again_b, None, plan), side(CANDIDATE, again_c, None, plan)
    red = [bool(timing.unconfirmed([of], *alone, TERMS)) for alone in (first, second)]
    found = judge(of, *pair, TERMS)
    assert (found.status is Status.REGRESSION) == all(red)
    if not red[0]:
        assert found == judge(of, *first, TERMS)  # a second measurement made for another rule changes nothing
    if found.status is Status.INCONCLUSIVE:
        assert found.p_value is None
    assert judge(of, *first, TERMS).status is not Status.REGRESSION


@settings(max_examples=60, deadline=None)
@given(b=SPEEDS, c=SPEEDS, plan=PLANS, reached=st.integers(1, 8), text=TIMED_TEXTS)
def test_only_planned_numbers_of_pairs_decide(
    b: list[float], c: list[float], plan: tuple[int, ...], reached: int, text: str
) -> None:
    of = of_speed(text)
    found = judge(of, side(BASELINE, b[:reached], None, plan), side(CANDIDATE, c[:reached], None, plan), TERMS)
    looks = [size for size in plan if size <= reached]
    if not looks:
        assert found.status in (Status.INCONCLUSIVE, Status.ERROR)
    else:
        assert found.n_paired in looks
        planned = judge(
            of, side(BASELINE, b[: looks[-1]], None, plan), side(CANDIDATE, c[: looks[-1]], None, plan), TERMS
        )
        assert found == planned  # what lies behind the last look is not looked at


@settings(max_examples=60, deadline=None)
@given(b=SPEEDS, c=SPEEDS, sd=st.floats(0, 0.2), processes=st.integers(2, 12), text=TIMED_TEXTS)
def test_spread_between_processes_never_makes_surer(
    b: list[float], c: list[float], sd: float, processes: int, text: str
) -> None:
    noise = described(
        "between_process_log_sd", "calibrated/decode_tokens_per_second", sd, group=SHAPE, weight=processes
    )
    baseline, candidate = side(BASELINE, b, None, (8,)), side(CANDIDATE, c, None, (8,))
    before = judge(of_speed(text), baseline, candidate, TERMS)
    after = judge(of_speed(text), replace(baseline, observations=(*baseline.observations, noise)), candidate, TERMS)
    assert before.interval is not None
    assert after.interval is not None
    assert after.interval.low <= before.interval.low
    assert after.interval.high >= before.interval.high
    assert after.estimate == before.estimate


@settings(max_examples=40, deadline=None)
@given(blocks=st.lists(SPEEDS, min_size=4, max_size=4), data=st.data())
def test_the_order_of_blocks_in_a_record_is_irrelevant(blocks: list[list[float]], data: st.DataObject) -> None:
    pair = side(BASELINE, blocks[0], blocks[2], (4, 8)), side(CANDIDATE, blocks[1], blocks[3], (4, 8))
    shuffled = [replace(m, observations=tuple(data.draw(st.permutations(m.observations)))) for m in pair]
    assert judge(of_speed(), shuffled[0], shuffled[1], TERMS) == judge(of_speed(), *pair, TERMS)
