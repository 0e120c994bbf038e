"""Laws of the profile stage: warm-ups end, samples are thinned evenly, no request of a load gets lost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.backends import Served
from gate.policy import ProfileStage
from gate.policy_profile import Load
from gate.stages.profile_load import figures, lag, plan
from gate.stages.profile_names import declared
from gate.stages.profile_shape import LEAST_STEP_SAMPLES, STEP_SAMPLES, evenly, steps_kept
from gate.stages.profile_warm_up import FIRST, LATER, WarmUp, warm_up

SECONDS = st.floats(1e-6, 1e3)
SEEDS = st.integers(0, 2**32 - 1)
LENGTHS = st.tuples(st.integers(1, 4096), st.integers(2, 512))
LOADS = st.builds(
    lambda n, rate, concurrency: Load(requests=n, rate=rate if concurrency is None else None, concurrency=concurrency),
    st.integers(8, 200),
    st.floats(0.01, 1000),
    st.none() | st.integers(1, 64),
)


@st.composite
def answers(draw: st.DrawFn) -> list[Served]:
    found = []
    for _ in range(draw(st.integers(8, 40))):
        due, to_first, to_last = draw(SECONDS), draw(SECONDS), draw(SECONDS)
        new_tokens = draw(st.integers(1, 64))
        found.append(
            Served(
                due_seconds=due,
                first_token_seconds=due + to_first,
                last_token_seconds=due + to_first + (to_last if new_tokens > 1 else 0.0),
                prompt_tokens=8,
                new_tokens=new_tokens,
            )
        )
    return found


class TestWarmUp:
    @given(st.lists(st.tuples(SECONDS, SECONDS), min_size=20, max_size=20), st.sampled_from([FIRST, LATER]))
    def test_it_ends_within_its_limits_and_calls_each_run_once(
        self, times: list[tuple[float, float]], how: WarmUp
    ) -> None:
        called: list[int] = []

        def run(number: int) -> tuple[float, float]:
            called.append(number)
            return times[number]

        found = warm_up(run, how)
        assert called == list(range(found.runs))
        assert how.window <= found.runs <= how.at_most
        assert found.became_steady or found.runs == how.at_most

    @given(SECONDS, st.sampled_from([FIRST, LATER]))
    def test_what_is_always_the_same_is_steady_at_once(self, seconds: float, how: WarmUp) -> None:
        found = warm_up(lambda _: (seconds, seconds), how)
        assert (found.runs, found.became_steady) == (how.window, True)

    @given(st.lists(st.tuples(SECONDS, SECONDS), min_size=20, max_size=20), st.sampled_from([2.0, 1024.0]))
    def test_the_unit_of_time_does_not_matter(self, times: list[tuple[float, float]], factor: float) -> None:
        scaled = [(first * factor, whole * factor) for first, whole in times]
        assert warm_up(lambda n: times[n], FIRST) == warm_up(lambda n: scaled[n], FIRST)


class TestSamples:
    @given(st.integers(0, 5000), st.integers(1, 1000))
    def test_what_is_kept_is_spread_evenly_and_in_order(self, n: int, most: int) -> None:
        kept = evenly(n, most)
        assert len(kept) == min(n, most)
        assert all(0 <= i < n for i in kept)
        gaps = [later - earlier for earlier, later in pairwise(kept)]
        assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)
        if n > most:  # the two ends are as long as half a gap
            assert abs(kept[0] - (n - 1 - kept[-1])) <= 1

    @given(st.integers(1, 10**6))
    def test_a_stage_keeps_no_more_than_it_says(self, n_runs: int) -> None:
        kept = steps_kept(n_runs)
        assert kept >= LEAST_STEP_SAMPLES
        assert kept * n_runs <= max(STEP_SAMPLES, LEAST_STEP_SAMPLES * n_runs)


class TestLoads:
    @given(LOADS, st.lists(LENGTHS, min_size=1, max_size=4), SEEDS)
    def test_a_plan_has_every_request_in_the_order_of_its_time(
        self, load: Load, mix: list[tuple[int, int]], seed: int
    ) -> None:
        arrivals = plan(load, mix, seed)
        assert len(arrivals) == load.requests
        assert all((a.prompt_tokens, a.new_tokens) in mix for a in arrivals)
        times = [a.at_seconds for a in arrivals]
        assert times == sorted(times)
        assert all(at == 0 for at in times) == (load.rate is None)
        assert plan(load, mix, seed) == arrivals

    @given(SEEDS, st.floats(0.1, 100), st.floats(1.5, 10))
    def test_a_higher_rate_brings_the_same_requests_sooner(self, seed: int, rate: float, factor: float) -> None:
        mix = [(8, 4), (16, 2)]
        slow = plan(Load(rate=rate, concurrency=None, requests=16), mix, seed)
        fast = plan(Load(rate=rate * factor, concurrency=None, requests=16), mix, seed)
        assert [(a.prompt_tokens, a.new_tokens) for a in slow] == [(a.prompt_tokens, a.new_tokens) for a in fast]
        assert [a.at_seconds * factor for a in fast] == pytest.approx([a.at_seconds for a in slow])

    @given(answers(), SECONDS, SECONDS)
    def test_goodput_is_at_most_throughput_and_grows_with_the_objectives(
        self, served: list[Served], most_first: float, most_later: float
    ) -> None:
        load = Load(concurrency=4, rate=None, requests=len(served))
        alone = {(s.prompt_tokens, s.new_tokens): 1.0 for s in served}
        strict = figures(load, served, (most_first, most_later), alone).values
        lenient = figures(load, served, (most_first * 2, most_later * 2), alone).values
        assert 0 <= strict["goodput_requests_per_second"] <= lenient["goodput_requests_per_second"]
        assert lenient["goodput_requests_per_second"] <= strict["requests_per_second"] * (1 + 1e-12)

    @given(answers(), st.floats(1.01, 10))
    def test_a_later_last_answer_never_lags_less(self, served: list[Served], factor: float) -> None:
        alone = {(s.prompt_tokens, s.new_tokens): 1.0 for s in served}
        last = max(range(len(served)), key=lambda i: served[i].last_token_seconds)
        s = served[last]
        late = Served(
            due_seconds=s.due_seconds,
            first_token_seconds=s.first_token_seconds,
            last_token_seconds=s.last_token_seconds * factor,
            prompt_tokens=s.prompt_tokens,
            new_tokens=s.new_tokens,
        )
        assert 0 <= lag(served, alone) <= lag([*served[:last], late, *served[last + 1 :]], alone) < float("inf")


@given(st.sampled_from(["cpu", "cuda", "cuda:3", "server"]), st.booleans())
def test_what_is_declared_is_declared_once_and_depends_on_nothing_measured(device: str, serving: bool) -> None:
    given_ = {
        "kind": "profile",
        "name": "x",
        "rules": [{"metric": "rss_peak", "max": "1GiB"}],
        **({"serving": {"loads": [{"rate": 2}]}} if serving else {}),
    }
    found = declared(ProfileStage.model_validate(given_), device)
    assert len({m.name for m in found}) == len(found)
    assert found == declared(ProfileStage.model_validate(given_), device)
    assert any(m.name == "goodput_requests_per_second" for m in found) == serving
    assert any(m.name.startswith("vram_") for m in found) == device.startswith("cuda")
