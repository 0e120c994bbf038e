"""Saturated loads: how often queues of known capacity are called so, and what rules on them find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gate.backends import Served
from gate.decide import timing
from gate.decide.judge import judge
from gate.decide.saturation import AT_CAPACITY, is_saturated, limit
from gate.metrics import PROFILE
from gate.records import Finding, Measurement, Metric, Role, Severity, Status
from gate.stages.profile_load import lag
from tests.decide_factory import BASELINE, CANDIDATE, TERMS, measurement, observation, rule
from tests.timing_factory import described

LOAD = "load=open:4"
P50, P90 = PROFILE["ttft_p50_seconds"], PROFILE["ttft_p90_seconds"]
GOODPUT, THROUGHPUT = PROFILE["goodput_requests_per_second"], PROFILE["output_tokens_per_second"]
KEEPS_UP = (0.0, 0.1, 1.9, 0.0, 0.6, 2.4, 0.2, 0.0)
"""As of a server at 90 % of its capacity: two of eight blocks are far behind by themselves."""
FALLS_BEHIND = (1.9, 0.6, 1.2, 2.7, 0.9, 1.8, 1.4, 2.2)


def queue(load: float, requests: int, blocks: int, *, servers: int = 1, times: int = 2000) -> NDArray[np.float64]:
    """Lags of so many blocks, so many times over: Poisson arrivals, one second each, offered over possible = `load`."""
    rng = np.random.default_rng(11)
    n = times * blocks
    due = np.cumsum(rng.exponential(1 / (load * servers), (n, requests)), axis=1)
    free, last, rows = np.zeros((n, servers)), np.zeros(n), np.arange(n)
    for i in range(requests):
        first = free.argmin(axis=1)
        done = np.maximum(free[rows, first], due[:, i]) + 1.0
        free[rows, first] = done
        last = np.maximum(last, done)
    came: NDArray[np.float64] = due[:, -1]
    found: NDArray[np.float64] = np.maximum(0.0, last - came - 1.0) * np.sqrt(requests) / came
    return found.reshape(times, blocks)


def called_saturated(lags: NDArray[np.float64]) -> float:
    return float(np.mean([is_saturated(of) for of in lags.tolist()]))


class TestErrorRates:
    @pytest.mark.parametrize(
        ("load", "requests", "blocks", "least", "most"),
        [  # (offered over possible, requests a block, blocks, least and most share that is called saturated)
            (0.7, 32, 8, 0.0, 0.001),
            (0.9, 32, 8, 0.0, 0.03),
            (1.25, 32, 8, 0.97, 1.0),
            (1.5, 32, 8, 0.999, 1.0),
            (0.8, 8, 8, 0.0, 0.04),
            (2.0, 8, 8, 0.99, 1.0),
            (0.9, 32, 3, 0.0, 0.06),
            (1.5, 32, 3, 0.98, 1.0),
            (0.95, 128, 8, 0.0, 0.03),
            (1.25, 128, 8, 0.999, 1.0),
        ],
    )
    def test_of_a_single_server(self, load: float, requests: int, blocks: int, least: float, most: float) -> None:
        assert least <= called_saturated(queue(load, requests, blocks)) <= most

    @pytest.mark.parametrize(("load", "least", "most"), [(0.7, 0.0, 0.001), (0.9, 0.0, 0.01), (1.5, 0.99, 1.0)])
    def test_of_an_engine_that_serves_eight_at_a_time(self, load: float, least: float, most: float) -> None:
        assert least <= called_saturated(queue(load, 32, 8, servers=8, times=1000)) <= most

    def test_a_load_of_just_what_can_be_served_is_what_the_limit_is_made_from(self) -> None:
        lags = queue(1.0, 1000, 1, times=1000)
        assert lags.mean() == pytest.approx(AT_CAPACITY, abs=0.06)
        assert lags.std() == pytest.approx(limit(1) - AT_CAPACITY, abs=0.06)

    def test_the_simulation_has_the_lag_that_the_stage_records(self) -> None:
        rng = np.random.default_rng(11)
        due = np.cumsum(rng.exponential(1 / 1.25, 32))
        free, served = 0.0, []
        for at in due.tolist():
            free = max(free, at) + 1.0
            served.append(
                Served(due_seconds=at, first_token_seconds=free, last_token_seconds=free, prompt_tokens=8, new_tokens=1)
            )
        assert lag(served, {(8, 1): 1.0}) == pytest.approx(queue(1.25, 32, 1, times=1)[0, 0])


def test_more_blocks_need_less() -> None:
    assert limit(1) == pytest.approx(1.4, abs=0.005)
    assert limit(1) > limit(3) > limit(8) > AT_CAPACITY
    assert is_saturated([1.2] * 8)
    assert not is_saturated([1.2])


def test_closed_loops_and_shapes_are_never_saturated() -> None:
    assert not is_saturated([])


def loaded(role: Role, lags: tuple[float, ...], *, factor: float = 1.0, again: bool = False) -> Measurement:
    """Every block of an open load: a rate, a latency and its single times, `factor` times as long, and its lag."""
    found = []
    for series in ("block", "again") if again else ("block",):
        for k, behind in enumerate(lags):
            item, wobble = f"{series}/{k}", 1 + 0.001 * (k % 3)
            found += [
                observation(P50, item, 0.2 * factor * wobble, group=LOAD),
                observation(GOODPUT, item, 3.9 * wobble, group=LOAD),
                observation(THROUGHPUT, item, 39.0 * wobble, group=LOAD),
                described("load_lag", item, behind if series == "block" else 9.0, group=LOAD),
            ]
            found += [observation(P90, f"{item}/request/{i}", 0.2 * factor, group=LOAD) for i in range(32)]
    return measurement(role, found, len(lags), metric=P50, also=(P90, GOODPUT, THROUGHPUT))


def asked(metric: Metric, text: str, baseline: Measurement | None, candidate: Measurement, **changes: Any) -> Finding:
    return judge(rule(text, metric=metric.name, load="open:4", **changes), baseline, candidate, TERMS)


def test_a_load_that_both_keep_up_with_is_judged_whatever_single_blocks_say() -> None:
    b, c = loaded(BASELINE, KEEPS_UP), loaded(CANDIDATE, KEEPS_UP)
    assert asked(P50, "max_increase 10%", b, c).status is Status.PASS
    assert asked(P90, "max_increase 10%", b, c, severity=Severity.ADVISORY).status is Status.PASS


@pytest.mark.parametrize(
    ("baseline", "candidate", "said"),
    [
        (FALLS_BEHIND, KEEPS_UP, "(the baseline fell behind by 1.59 times"),
        (KEEPS_UP, FALLS_BEHIND, "(the candidate fell behind by 1.59 times"),
        (FALLS_BEHIND, FALLS_BEHIND, " and the candidate fell behind by 1.59 times"),
    ],
)
def test_no_latency_is_compared_where_either_was_saturated(
    baseline: tuple[float, ...], candidate: tuple[float, ...], said: str
) -> None:
    b, c = loaded(BASELINE, baseline), loaded(CANDIDATE, candidate, factor=30.0)
    loses_capacity = (baseline, candidate) == (KEEPS_UP, FALLS_BEHIND)
    for metric in (P50, P90):
        severity = Severity.ADVISORY if metric is P90 else Severity.BLOCKING
        found = asked(metric, "max_increase 10%", b, c, severity=severity)
        assert found.status is Status.ERROR
        assert found.reason.startswith(f"{metric.name}: the load open:4 was saturated (")
        assert said in found.reason
        assert "latencies under it grow for as long as it lasts: " in found.reason
        assert ("does not, which is a loss of capacity" in found.reason) is loses_capacity


def test_goodput_and_throughput_are_judged_all_the_same() -> None:
    b, c = loaded(BASELINE, KEEPS_UP), loaded(CANDIDATE, FALLS_BEHIND)
    assert asked(GOODPUT, "min_retained 95%", b, c).status is Status.PASS
    assert asked(THROUGHPUT, "min_retained 95%", b, c).status is Status.PASS


def test_a_rule_about_the_candidate_alone_minds_its_own_load() -> None:
    b = loaded(BASELINE, FALLS_BEHIND)
    assert asked(P50, "max 300ms", b, loaded(CANDIDATE, KEEPS_UP)).status is Status.PASS
    found = asked(P50, "max 300ms", b, loaded(CANDIDATE, FALLS_BEHIND))
    assert (found.status, "loss of capacity" in found.reason) == (Status.ERROR, False)
    found = asked(P50, "max 300ms", None, loaded(CANDIDATE, FALLS_BEHIND))
    assert found.status is Status.ERROR


def test_the_second_measurement_does_not_change_which_load_was_saturated() -> None:
    b, c = loaded(BASELINE, KEEPS_UP, again=True), loaded(CANDIDATE, KEEPS_UP, factor=2.0, again=True)
    assert asked(P50, "max_increase 10%", b, c).status is Status.REGRESSION


def test_nothing_is_measured_again_for_a_load_that_was_saturated() -> None:
    of = rule("max_increase 10%", metric=P50.name, load="open:4")
    b, c = loaded(BASELINE, KEEPS_UP), loaded(CANDIDATE, FALLS_BEHIND, factor=30.0)
    assert timing.unconfirmed([of], b, c, TERMS) == ()
    assert timing.settled([of], b, c, TERMS)
