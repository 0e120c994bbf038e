"""Laws of the sequential judge: what must never depend on what, and what may only move one way."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gate.decide import control, source
from gate.decide.estimate import decide
from gate.decide.judge import judge
from gate.decide.source import Tracker
from gate.metrics import DOMAIN
from gate.records import Bound, BoundKind, Finding, Measurement, Rule, Scope, Severity, Status
from gate.stats.multiplicity import holm
from tests.decide_factory import finding
from tests.sequence_factory import FINISHED, ONE_RULE, failed, ids, part, roles, rule, some_lost, terms

ORDER = (Status.PASS, Status.INCONCLUSIVE, Status.REGRESSION)
TEXTS = st.sampled_from(["max_drop 3pp", "max_drop 10pp", "max_drop 20pp", "min_retained 80%", "min 0.5", "max 0.9"])
BINARY = st.sampled_from([0.0, 1.0])
FEW_FLIPS = st.one_of(
    st.sampled_from([(1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (0.0, 0.0)]),
    st.tuples(BINARY, BINARY),
)
FRACTIONS = st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 0.75, 1.0]))


def pairs(
    values: st.SearchStrategy[tuple[float, float]], least: int = 1, most: int = 150
) -> st.SearchStrategy[list[tuple[float, float]]]:
    return st.lists(values, min_size=least, max_size=most)


def measured(values: list[tuple[float, float]], reached: int | None = None) -> tuple[Measurement, Measurement]:
    return roles([b for b, _ in values], [c for _, c in values], reached=reached)


def judgeable(of: Rule, values: list[tuple[float, float]]) -> bool:
    """Room for at least one item of harm, and a baseline that could fail."""
    n, right = len(values), sum(b for b, _ in values)
    value = of.bound.value
    match of.bound.kind:
        case BoundKind.MAX_DROP:
            return value * n >= 1 and right / n > value + 1e-9
        case BoundKind.MIN_RETAINED:
            return (1 - value) * right >= 1
        case BoundKind.MIN:
            return (1 - value) * n >= 1
        case _:
            return value * n >= 1


def exact(of: Rule, values: list[tuple[float, float]]) -> Status:
    """A5 by itself, in integers of thousandths."""
    n, b, c = len(values), sum(round(b) for b, _ in values), sum(round(c) for _, c in values)
    m = round(1000 * of.bound.value)
    keeps = {
        BoundKind.MAX_DROP: 1000 * (b - c) <= m * n,
        BoundKind.MIN_RETAINED: 1000 * c >= m * b,
        BoundKind.MIN: 1000 * c >= m * n,
        BoundKind.MAX: 1000 * c <= m * n,
    }[of.bound.kind]
    return Status.PASS if keeps else Status.REGRESSION


@settings(max_examples=150)
@given(values=pairs(FEW_FLIPS), text=TEXTS)
def test_a5_after_all_items_the_verdict_is_the_integer_rule(values: list[tuple[float, float]], text: str) -> None:
    of = rule(text)
    assume(judgeable(of, values))
    found = judge(of, *measured(values), FINISHED)
    assert found.status is exact(of, values)
    assert found.counts["n"] == len(values)


@settings(max_examples=60)
@given(values=pairs(FEW_FLIPS, most=100), text=TEXTS, reached=st.integers(1, 100), data=st.data())
def test_neither_order_of_records_nor_parts_matter(
    values: list[tuple[float, float]], text: str, reached: int, data: st.DataObject
) -> None:
    of = rule(text)
    asked = min(reached, len(values))
    baseline, candidate = measured(values, asked)
    found = judge(of, baseline, candidate, ONE_RULE)
    b, c = (replace(m, observations=tuple(data.draw(st.permutations(m.observations)))) for m in (baseline, candidate))
    assert judge(of, b, c, ONE_RULE) == found
    tracker = Tracker([of], baseline, ONE_RULE)
    at = 0
    while at < asked and not (at and tracker.settled):
        end = min(at + data.draw(st.integers(1, 64)), asked)
        tracker.feed(part(candidate, at, end))
        at = end
    if tracker.settled:
        assert found.status is not Status.INCONCLUSIVE
        assert tracker.measurement is not None
        assert judge(of, baseline, tracker.measurement, ONE_RULE) == found
        assert judge(of, *measured(values), ONE_RULE) == found
        assert tracker.failing == (found.status in (Status.REGRESSION, Status.ERROR))


@settings(max_examples=80)
@given(values=pairs(st.one_of(FEW_FLIPS, FRACTIONS)), text=TEXTS, reached=st.integers(1, 150))
def test_a6_pass_iff_the_whole_interval_keeps_the_bound(
    values: list[tuple[float, float]], text: str, reached: int
) -> None:
    of = rule(text)
    assume(judgeable(of, values))
    found = judge(of, *measured(values, min(reached, len(values))), ONE_RULE)
    assert found.interval is not None
    assert found.estimate is not None
    assert decide((found.interval.low, found.interval.high), of.bound) is found.status
    assert found.interval.low <= found.estimate <= found.interval.high
    assert found.p_value is not None
    assert (found.status is Status.REGRESSION) <= (found.p_value <= 0.05)


@settings(max_examples=100)
@given(values=pairs(st.one_of(FEW_FLIPS, FRACTIONS)), text=TEXTS, data=st.data())
def test_a_better_candidate_is_never_judged_worse_on_all_items(
    values: list[tuple[float, float]], text: str, data: st.DataObject
) -> None:
    of = rule(text)
    assume(judgeable(of, values) and any(c < 1 for _, c in values))
    mended = data.draw(st.sampled_from([i for i, (_, c) in enumerate(values) if c < 1]))
    better = [(b, 1.0 if i == mended else c) for i, (b, c) in enumerate(values)]
    before, after = (ORDER.index(judge(of, *measured(v), FINISHED).status) for v in (values, better))
    assert after >= before if of.bound.kind is BoundKind.MAX else after <= before


@settings(max_examples=80)
@given(
    candidate=st.lists(BINARY, min_size=40, max_size=150),
    kept=st.floats(0.03, 0.2),
    reached=st.integers(1, 150),
    data=st.data(),
)
def test_a_better_candidate_is_never_judged_worse_on_a_prefix_of_equal_spread(
    candidate: list[float], kept: float, reached: int, data: st.DataObject
) -> None:
    """Bets depend on the squares of the differences; where those stay (here all are ¼), wealth follows the scores."""
    mended = data.draw(st.integers(0, len(candidate) - 1))
    better = [1.0 if i == mended else c for i, c in enumerate(candidate)]
    metric = DOMAIN["rouge_l"]
    of = replace(rule("max_drop 3pp", metric="rouge_l"), bound=Bound(kind=BoundKind.MAX_DROP, value=kept, text="drawn"))
    before, after = (
        judge(of, *roles([0.5] * len(c), c, metric=metric, reached=min(reached, len(c))), ONE_RULE).status
        for c in (candidate, better)
    )
    if Status.ERROR not in (before, after):
        assert ORDER.index(after) <= ORDER.index(before)


@settings(max_examples=100)
@given(
    values=pairs(st.one_of(FEW_FLIPS, FRACTIONS), least=20),
    kind=st.sampled_from([BoundKind.MAX_DROP, BoundKind.MIN_RETAINED, BoundKind.MIN, BoundKind.MAX]),
    ends=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
)
def test_a_looser_bound_is_never_harder_to_keep_on_all_items(
    values: list[tuple[float, float]], kind: BoundKind, ends: tuple[float, float]
) -> None:
    tight, loose = sorted(ends, reverse=kind in (BoundKind.MIN, BoundKind.MIN_RETAINED))
    of = [replace(rule("max_drop 1pp"), bound=Bound(kind=kind, value=v, text=f"{v}")) for v in (tight, loose)]
    assume(all(judgeable(r, values) for r in of))
    statuses = [ORDER.index(judge(r, *measured(values), FINISHED).status) for r in of]
    assert statuses[1] <= statuses[0]


@settings(max_examples=80)
@given(values=pairs(FEW_FLIPS, least=20), text=st.sampled_from(["max_drop 5pp", "max_drop 10pp"]))
def test_swapping_the_roles_mirrors_the_drop_on_all_items(values: list[tuple[float, float]], text: str) -> None:
    of = rule(text)
    swapped = [(c, b) for b, c in values]
    assume(judgeable(of, values) and judgeable(of, swapped))
    one, other = (judge(of, *measured(v), FINISHED) for v in (values, swapped))
    assert one.estimate is not None
    assert other.estimate is not None
    assert math.isclose(one.estimate, -other.estimate, abs_tol=1e-9)
    assert (one.counts["b"], one.counts["c"]) == (other.counts["c"], other.counts["b"])
    assert Status.PASS in (one.status, other.status)  # both cannot be worse


def without(values: Measurement, gone: set[int], *, told: bool) -> Measurement:
    names = {ids(values.n_expected)[i] for i in gone}
    failures = tuple(failed(i) for i in sorted(names)) if told else ()
    return replace(
        values, observations=tuple(o for o in values.observations if o.item_id not in names), failures=failures
    )


@settings(max_examples=150)
@given(
    values=pairs(FEW_FLIPS, least=10, most=130),
    text=TEXTS,
    told=st.tuples(st.booleans(), st.booleans()),
    reached=st.integers(1, 130),
    on=st.sampled_from([ONE_RULE, FINISHED]),
    data=st.data(),
)
def test_losing_one_item_never_moves_anything_to_a_verdict(
    values: list[tuple[float, float]],
    text: str,
    told: tuple[bool, bool],
    reached: int,
    on: object,
    data: st.DataObject,
) -> None:
    """On either side, told or silent, at any look: the lost item's two values are the two processes that must agree."""
    of = rule(text, max_lost=some_lost(1))
    assume(judgeable(of, values))
    shared = FINISHED if on is FINISHED else ONE_RULE
    asked = len(values) if shared is FINISHED else min(reached, len(values))
    baseline, candidate = measured(values, asked)
    which = {data.draw(st.integers(0, asked - 1))}
    of_baseline = data.draw(st.booleans())
    if of_baseline:
        baseline_less, candidate_less = without(baseline, which, told=told[0]), candidate
    else:
        baseline_less, candidate_less = baseline, without(candidate, which, told=told[1])
    before = judge(of, baseline, candidate, shared).status
    after = judge(of, baseline_less, candidate_less, shared)
    if after.status in (Status.PASS, Status.REGRESSION):
        assert after.status is before
    strict = judge(replace(of, max_lost=some_lost(0)), baseline_less, candidate_less, shared)
    assert strict.status is Status.ERROR or strict.n_lost == 0


@settings(max_examples=80)
@given(values=pairs(FEW_FLIPS, least=10, most=130), text=TEXTS, data=st.data())
def test_losing_items_never_moves_anything_to_a_verdict_on_all_items(
    values: list[tuple[float, float]], text: str, data: st.DataObject
) -> None:
    of = rule(text, max_lost=some_lost(len(values)))
    assume(judgeable(of, values))
    some = st.sets(st.integers(0, len(values) - 1), max_size=len(values) // 2)
    baseline, candidate = measured(values)
    gone = [data.draw(some) for _ in range(2)]
    after = judge(of, without(baseline, gone[0], told=True), without(candidate, gone[1], told=False), FINISHED).status
    if after in (Status.PASS, Status.REGRESSION):
        assert after is judge(of, baseline, candidate, FINISHED).status


@settings(max_examples=60)
@given(values=pairs(FEW_FLIPS, least=30, most=100), data=st.data())
def test_an_item_that_was_scored_twice_never_helps(values: list[tuple[float, float]], data: st.DataObject) -> None:
    of = rule("max_drop 10pp")
    assume(judgeable(of, values))
    baseline, candidate = measured(values)
    again = data.draw(st.sampled_from(candidate.observations))
    doubled = replace(candidate, observations=(*candidate.observations, again))
    for on in (ONE_RULE, FINISHED):
        assert judge(of, baseline, doubled, on).status is Status.ERROR


@settings(max_examples=40)
@given(values=pairs(FEW_FLIPS, least=40, most=150), text=TEXTS, n_blocking=st.integers(1, 8))
def test_an_advisory_rule_changes_no_other_finding(
    values: list[tuple[float, float]], text: str, n_blocking: int
) -> None:
    of, on = rule("max_drop 10pp"), terms(n_blocking)
    advice = rule(text, id="advice", severity=Severity.ADVISORY)
    pair = measured(values)
    assert (
        source.findings([of, advice], *pair, on, stop_early=True)[0]
        == (source.findings([of], *pair, on, stop_early=True)[0])
    )
    assert source.governing([of, advice]) == [of]
    plain, advised = Tracker([of], pair[0], on), Tracker([advice, of], pair[0], on)
    for begin in range(0, len(values), 32):
        block = part(pair[1], begin, min(begin + 32, len(values)))
        plain.feed(block)
        advised.feed(block)
        assert (plain.settled, plain.failing) == (advised.settled, advised.failing)


PLANNED = tuple(rule("max_drop 3pp", id=f"r{i}") for i in range(6))
STATUSES = st.sampled_from([Status.PASS, Status.INCONCLUSIVE, Status.ERROR])


@settings(max_examples=200)
@given(
    drawn=st.lists(st.tuples(STATUSES, st.floats(0, 1).map(lambda x: x**4)), min_size=1, max_size=6),
    unfound=st.integers(0, 3),
)
def test_step_down_is_holms(drawn: list[tuple[Status, float]], unfound: int) -> None:
    """Beside what each rule was judged at (α/K), exactly Holm's rejections among those that may be rejected."""
    planned = [*PLANNED[: len(drawn)], *(rule("max_drop 3pp", id=f"gone{k}") for k in range(unfound))]
    found: list[Finding] = []
    for of, (status, p) in zip(PLANNED, drawn, strict=False):
        red = status is Status.INCONCLUSIVE and p <= 0.05 / len(planned)
        one = finding(of, Status.REGRESSION if red else status)
        found.append(replace(one, p_value=None if status is Status.ERROR else p))
    after = control.step_down(found, planned, 0.95)
    testable = [p if status is Status.INCONCLUSIVE else 1.0 for status, p in drawn] + [1.0] * unfound
    rejected = holm(testable, 0.05)
    for one, was, red in zip(after, found, rejected, strict=False):
        assert (one.status is Status.REGRESSION) == red
        assert red or one is was
    assert [f.rule.id for f in after] == [f.rule.id for f in found]
    assert control.step_down(after, planned, 0.95) == after


def test_scopes_are_what_the_tests_assume() -> None:
    assert rule("max_drop 3pp").scope is Scope.BENCHMARK
