"""Rules on percentiles of single times: pooled over blocks, limits by order statistics, too few times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gate.decide import timing
from gate.decide.judge import judge
from gate.metrics import PROFILE
from gate.records import Finding, Measurement, Metric, Role, Severity, Status
from gate.stats import order_statistics
from tests.decide_factory import BASELINE, CANDIDATE, TERMS, measurement, observation, rule
from tests.timing_factory import SHAPE, described

P95, P99 = PROFILE["ttft_p95_seconds"], PROFILE["ttft_p99_seconds"]
TPOT = PROFILE["tpot_p99_seconds"]


def times(role: Role, factor: float, *, again: float | None = None, blocks: int = 8, each: int = 100) -> Measurement:
    """`each` times a block, lognormal around 0.2 s times `factor`."""
    rng = np.random.default_rng(1 if role is BASELINE else 2)
    found = [
        observation(P99, f"{series}/{k}/run/{r}", float(t), group=SHAPE)
        for series, scale in (("block", factor), ("again", again))
        if scale is not None
        for k in range(blocks)
        for r, t in enumerate(0.2 * scale * np.exp(0.1 * rng.standard_normal(each)))
    ]
    return measurement(role, found, blocks, metric=P99, also=(P95,))


def advised(text: str, *pair: Measurement, metric: str = P99.name) -> Finding:
    of = rule(text, metric=metric, severity=Severity.ADVISORY)
    baseline, candidate = pair if len(pair) == 2 else (None, pair[0])
    return judge(of, baseline, candidate, TERMS)


def test_an_absolute_bound_by_the_candidates_own_limits() -> None:
    candidate = times(CANDIDATE, 1.0, again=1.0)
    found = advised("max 1s", candidate)
    pooled = [o.value for o in candidate.observations if o.item_id.startswith("block/")]
    by_hand = order_statistics.value(times=pooled, share=0.99, confidence=0.95)
    assert found.status is Status.PASS
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (by_hand.low, by_hand.high)
    assert found.estimate == found.candidate == by_hand.estimate
    assert (found.interval.method, found.counts["samples"], found.n_paired) == ("order_statistics", 800, 8)
    assert "the times of one run are not independent" in found.reason


@pytest.mark.parametrize(
    ("factor", "again", "expected"),
    [(1.0, None, Status.PASS), (1.6, 1.6, Status.REGRESSION), (1.6, 1.0, Status.INCONCLUSIVE)],
)
def test_an_increase_by_both_sides_limits(factor: float, again: float | None, expected: Status) -> None:
    b, c = times(BASELINE, 1.0, again=again and 1.0), times(CANDIDATE, factor, again=again)
    found = advised("max_increase 30%", b, c)
    sides = [[o.value for o in m.observations if o.item_id.startswith("block/")] for m in (b, c)]
    by_hand = order_statistics.ratio(baseline=sides[0], candidate=sides[1], share=0.99, confidence=0.95)
    assert found.status is expected
    assert found.estimate == pytest.approx(by_hand.estimate - 1)
    assert found.interval is not None
    if expected is not Status.INCONCLUSIVE:
        assert (found.interval.low, found.interval.high) == pytest.approx((by_hand.low - 1, by_hand.high - 1))


def test_red_needs_a_second_measurement() -> None:
    of = rule("max 100ms", metric=P99.name, severity=Severity.ADVISORY)
    b, c = times(BASELINE, 1.0), times(CANDIDATE, 1.0)
    assert judge(of, b, c, TERMS).status is Status.INCONCLUSIVE
    assert timing.unconfirmed([of], b, c, TERMS) == (of,)
    twice = times(CANDIDATE, 1.0, again=1.0)
    assert advised("max 100ms", twice).status is Status.REGRESSION
    assert advised("max 100ms", times(CANDIDATE, 1.0, again=0.1)).status is Status.INCONCLUSIVE


@pytest.mark.parametrize(
    ("metric", "text", "each", "said"),
    [
        (
            P99,
            "max 1s",
            37,
            "p99 of ttft needs 299 single times, there are 296: raise blocks, or use a lower percentile",
        ),
        (P99, "max_increase 10%", 40, "p99 of ttft needs 368 single times of each role, there are 320"),
        (P95, "max 1s", 7, "p95 of ttft needs 59 single times, there are 56"),
    ],
)
def test_too_few_times(metric: Metric, text: str, each: int, said: str) -> None:
    name = metric.name
    pair = times(BASELINE, 1.0, each=each), times(CANDIDATE, 1.0, each=each)
    found = advised(text, *pair, metric=name)
    assert (found.status, said in found.reason) == (Status.ERROR, True), found.reason
    enough = times(BASELINE, 1.0, each=each + 10), times(CANDIDATE, 1.0, each=each + 10)
    assert advised(text, *enough, metric=name).status is not Status.ERROR


def test_steps_and_requests_are_single_times_too() -> None:
    for tail in ("run/0/step", "request"):
        group = SHAPE if "step" in tail else "load=open:4"
        found = [
            observation(TPOT, f"block/{k}/{tail}/{i}", 0.01 + 1e-5 * i, group=group)
            for k in range(8)
            for i in range(40)
        ]
        of = rule(
            "max 20ms",
            metric=TPOT.name,
            severity=Severity.ADVISORY,
            load=None if group == SHAPE else "open:4",
        )
        judged = judge(of, None, measurement(CANDIDATE, found, 8, metric=TPOT), TERMS)
        assert (judged.status, judged.counts["samples"]) == (Status.PASS, 320)


def test_a_load_that_was_saturated_has_no_percentile() -> None:
    group = "load=open:4"
    whole = times(CANDIDATE, 1.0)
    seen = [replace(o, group=group) for o in whole.observations]
    seen += [described("load_lag", f"block/{k}", 2.0, group=group) for k in range(8)]
    of = rule("max 1s", metric=P99.name, severity=Severity.ADVISORY, load="open:4")
    found = judge(of, None, replace(whole, observations=tuple(seen)), TERMS)
    assert found.status is Status.ERROR
    assert found.reason.startswith("ttft_p99_seconds: the load open:4 was saturated (the candidate fell behind by 2 ")


def test_only_the_blocks_of_the_look_are_pooled() -> None:
    """Four blocks of a hundred times suffice, and the slow ones behind them do not count."""
    fast, slow = times(CANDIDATE, 1.0), times(CANDIDATE, 3.0)
    mixed = [o for o in fast.observations if int(o.item_id.split("/")[1]) < 4]
    mixed += [o for o in slow.observations if int(o.item_id.split("/")[1]) >= 4]
    plan = [described("look_pairs", f"look/{i}", n) for i, n in enumerate((4, 8))]
    found = advised("max 400ms", replace(fast, observations=(*mixed, *plan)))
    assert (found.status, found.counts["samples"], found.counts["look"]) == (Status.PASS, 400, 1)


def test_too_few_times_at_the_first_look_wait_for_the_next() -> None:
    plan = [described("look_pairs", f"look/{i}", n) for i, n in enumerate((4, 8))]
    of = rule("max 1s", metric=P99.name, severity=Severity.ADVISORY)
    whole = times(CANDIDATE, 1.0, each=60)  # 240 and 480; the level of each look needs 367
    b, c = (replace(m, observations=(*m.observations, *plan)) for m in (times(BASELINE, 1.0, each=60), whole))
    early_b, early_c = (
        replace(m, n_reached=4, observations=tuple(o for o in m.observations if not o.item_id.startswith(LATE)))
        for m in (b, c)
    )
    assert judge(of, early_b, early_c, TERMS).status is Status.ERROR
    assert not timing.settled([of], early_b, early_c, TERMS)
    found = judge(of, b, c, TERMS)
    assert (found.status, found.counts["look"]) == (Status.PASS, 2)
    assert timing.settled([of], b, c, TERMS)


LATE = tuple(f"block/{k}/" for k in range(4, 8))


def test_what_no_time_can_be() -> None:
    candidate = times(CANDIDATE, 1.0)
    zero = replace(candidate.observations[0], value=0.0)
    found = advised("max 1s", replace(candidate, observations=(zero, *candidate.observations[1:])))
    assert (found.status, "found a time of 0 s, expected more than 0" in found.reason) == (Status.ERROR, True)
