"""Serving loads: Poisson arrivals, goodput by hand, and how far answers fall behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from gate.backends import Arrival, Served
from gate.decide.saturation import is_saturated
from gate.policy_profile import Load
from gate.stages.profile_load import Unanswered, answered, figures, lag, plan
from gate.stages.profile_warm_up import FIRST, LATER

MIX = ((32, 16), (128, 32), (256, 16))
OBJECTIVES = (1.0, 0.1)


def open_loop(rate: float, requests: int) -> Load:
    return Load(concurrency=None, rate=rate, requests=requests)


def closed_loop(concurrency: int, requests: int) -> Load:
    return Load(concurrency=concurrency, rate=None, requests=requests)


def request(due: float, first: float, last: float, new_tokens: int = 5) -> Served:
    return Served(
        due_seconds=due,
        first_token_seconds=first,
        last_token_seconds=last,
        prompt_tokens=8,
        new_tokens=new_tokens,
    )


class TestPlan:
    def test_arrivals_are_a_poisson_process_of_the_rate(self) -> None:
        """Gaps are exponential: mean 1/rate, standard deviation the same, 1 − 1/e of them below the mean."""
        arrivals = plan(open_loop(4.0, 20_000), MIX, seed=1)
        times = np.array([a.at_seconds for a in arrivals])
        gaps = np.diff(times, prepend=0.0)
        assert (gaps > 0).all()
        assert gaps.mean() == pytest.approx(0.25, rel=0.03)
        assert gaps.std() == pytest.approx(0.25, rel=0.03)
        assert (gaps < 0.25).mean() == pytest.approx(1 - np.exp(-1), abs=0.015)
        counts = np.bincount(times.astype(int))[:-1]
        assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.1), "numbers in equal times are Poisson"

    def test_lengths_are_drawn_evenly_from_the_mix(self) -> None:
        drawn = Counter((a.prompt_tokens, a.new_tokens) for a in plan(open_loop(1.0, 6000), MIX, seed=2))
        assert set(drawn) == set(MIX)
        assert all(count == pytest.approx(2000, abs=150) for count in drawn.values())

    def test_the_seed_is_all_that_it_depends_on(self) -> None:
        assert plan(open_loop(4.0, 32), MIX, seed=3) == plan(open_loop(4.0, 32), MIX, seed=3)
        assert plan(open_loop(4.0, 32), MIX, seed=3) != plan(open_loop(4.0, 32), MIX, seed=4)

    def test_a_closed_loop_has_lengths_and_no_times(self) -> None:
        arrivals = plan(closed_loop(8, 32), MIX, seed=3)
        assert {a.at_seconds for a in arrivals} == {0.0}
        assert len({(a.prompt_tokens, a.new_tokens) for a in arrivals}) == 3


class TestFigures:
    def test_goodput_counts_requests_that_kept_both_objectives(self) -> None:
        served = [
            request(0.0, 0.5, 0.9),  # TTFT .5, TPOT .1: just good
            request(1.0, 2.1, 2.2),  # TTFT 1.1: not good
            request(2.0, 2.2, 3.0),  # TPOT .2: not good
            request(3.0, 3.5, 4.0, new_tokens=1),  # no later token: good
        ]
        found = figures(closed_loop(2, 8), served, OBJECTIVES, {(8, 5): 0.5, (8, 1): 0.5})
        assert found.values == pytest.approx(
            {
                "requests_per_second": 4 / 4.0,
                "output_tokens_per_second": 16 / 4.0,
                "goodput_requests_per_second": 2 / 4.0,
                "ttft_p50_seconds": 0.5,
                "tpot_p50_seconds": 0.1,
                "e2e_p50_seconds": 1.0,
            }
        )
        assert found.samples["ttft_sample_seconds"] == pytest.approx((0.5, 1.1, 0.2, 0.5))
        assert found.samples["e2e_sample_seconds"] == pytest.approx((0.9, 1.2, 1.0, 1.0))
        assert found.samples["tpot_sample_seconds"][:3] == pytest.approx((0.1, 0.025, 0.2))
        assert found.samples["tpot_sample_seconds"][3] is None
        assert "load_lag" not in found.values

    def test_waiting_counts_from_when_a_request_was_due_and_throughput_from_the_start(self) -> None:
        found = figures(open_loop(1.0, 8), [request(2.0, 3.0, 4.0)] * 8, OBJECTIVES, {(8, 5): 2.0})
        assert found.values["e2e_p50_seconds"] == 2.0
        assert found.values["requests_per_second"] == 8 / 4.0
        assert found.values["offered_requests_per_second"] == 8 / 2.0

    def test_a_short_load_is_named(self) -> None:
        quick = [request(0.1 * i, 0.1 * i + 0.2, 0.1 * i + 0.3) for i in range(8)]
        assert figures(open_loop(10.0, 8), quick, OBJECTIVES, {(8, 5): 0.3}).too_short
        assert not figures(open_loop(10.0, 8), quick, OBJECTIVES, {(8, 5): 0.1}).too_short
        assert not figures(closed_loop(2, 8), quick, OBJECTIVES, {(8, 5): 0.3}).too_short


class TestLag:
    """How often loads are called saturated from it: test_decide_saturation.py."""

    def test_it_is_what_the_last_answer_took_beyond_its_own_time_over_what_arrivals_vary_by(self) -> None:
        served = [request(float(i), i + 0.5, i + 1.0) for i in range(16)]
        assert lag(served, {(8, 5): 1.0}) == 0.0
        late = [*served[:-1], request(15.0, 19.0, 20.0)]
        # 4 s behind; requests came for 15 s, whose end varies by 15/√16
        assert lag(late, {(8, 5): 1.0}) == pytest.approx(4.0 / (15 / 4))
        assert lag(late, {(8, 5): 5.0}) == 0.0

    @pytest.mark.parametrize(("load", "least", "most"), [(0.4, 0.0, 0.01), (0.6, 0.0, 0.01), (1.5, 0.99, 1.0)])
    def test_an_engine_that_serves_all_at_once_is_told_apart(self, load: float, least: float, most: float) -> None:
        """Processor sharing: with k under way each gets 1/(1 + .3 k) of a second's work done, so 3.33/s is possible."""
        rng = np.random.default_rng(7)
        called = 0
        for _ in range(30):
            blocks = [np.cumsum(rng.exponential(0.3 / load, 48)) for _ in range(4)]
            called += is_saturated([lag(_all_at_once(due, 0.3), {(8, 5): 1.3}) for due in blocks])
        assert least <= called / 30 <= most

    def test_latencies_are_recorded_however_far_behind_the_answers_are(self) -> None:
        due = np.cumsum(np.full(32, 0.5))  # the first after half a second
        found = figures(open_loop(2.0, 32), _one_after_the_other(due), OBJECTIVES, {(8, 5): 1.0})
        assert found.values["load_lag"] == pytest.approx(15.5 / (16 / np.sqrt(32)))
        assert found.values["e2e_p50_seconds"] == pytest.approx(1 + 15.5 / 2)
        assert len(found.samples["e2e_sample_seconds"]) == 32
        assert found.values["offered_requests_per_second"] == pytest.approx(2.0)
        assert found.values["requests_per_second"] == pytest.approx(32 / 32.5)

    def test_requests_that_all_come_at_once_have_a_huge_lag(self) -> None:
        found = figures(open_loop(1e9, 8), _one_after_the_other(np.zeros(8)), OBJECTIVES, {(8, 5): 1.0})
        assert 1e6 < found.values["load_lag"] < np.inf
        assert "offered_requests_per_second" not in found.values, "no time passed between them"


class TestAnswered:
    class Engine:
        def __init__(self, *, empty: bool = False, lost: int = 0) -> None:
            self.calls: list[tuple[int, int, int | None]] = []
            self._empty, self._lost = empty, lost

        def __call__(self, number: int, arrivals: Sequence[Arrival], concurrency: int | None) -> list[Served]:
            self.calls.append((number, len(arrivals), concurrency))
            seconds = {-1: 3.0, -2: 2.0}.get(number, 1.0)
            found = [
                Served(
                    due_seconds=0.0,
                    first_token_seconds=seconds / 2,
                    last_token_seconds=seconds * a.new_tokens / 16,
                    prompt_tokens=a.prompt_tokens,
                    new_tokens=0 if self._empty else a.new_tokens,
                )
                for a in arrivals
            ]
            return found[: len(found) - self._lost]

    def test_warms_up_alone_and_remembers_the_fastest_of_each_kind(self) -> None:
        engine = self.Engine()
        found = answered(engine, closed_loop(4, 8), MIX, seed=5, warm_up_plan=FIRST)
        assert engine.calls[:-1] == [(-1 - i, 3, 1) for i in range(6)]
        assert engine.calls[-1] == (0, 8, 4)
        assert found.warmed_up.became_steady
        assert found.alone_seconds == {(32, 16): 1.0, (128, 32): 2.0, (256, 16): 1.0}
        expected = [(a.prompt_tokens, a.new_tokens) for a in plan(closed_loop(4, 8), MIX, seed=5)]
        assert [(s.prompt_tokens, s.new_tokens) for s in found.served] == expected

    @pytest.mark.parametrize("engine", [Engine(empty=True), Engine(lost=1)])
    def test_an_answer_that_is_missing_or_empty_is_no_answer(self, engine: Engine) -> None:
        with pytest.raises(Unanswered, match="answers with"):
            answered(engine, closed_loop(4, 8), MIX, seed=5, warm_up_plan=LATER)


def _one_after_the_other(due: NDArray[np.float64]) -> list[Served]:
    """One server, one second each."""
    free, served = 0.0, []
    for at in due:
        free = max(float(at), free) + 1.0
        served.append(request(float(at), free - 0.5, free))
    return served


def _all_at_once(due: NDArray[np.float64], slowdown: float) -> list[Served]:
    """All requests under way are served together, each second of work the slower the more there are."""
    left: dict[int, float] = {}
    done: dict[int, float] = {}
    now, coming = 0.0, 0
    while len(done) < len(due):
        speed = 1 / (1 + slowdown * len(left))
        next_done = min(left, key=lambda i: left[i]) if left else None
        at_done = now + left[next_done] / speed if next_done is not None else np.inf
        at_due = float(due[coming]) if coming < len(due) else np.inf
        then = min(at_done, at_due)
        left = {i: work - speed * (then - now) for i, work in left.items()}
        now = then
        if next_done is not None and at_done <= at_due:
            del left[next_done]
            done[next_done] = now
        else:
            left[coming] = 1.0
            coming += 1
    return [request(float(at), done[i], done[i]) for i, at in enumerate(due)]
