"""What a timed batch and a serving load say of the engine's own loop: due times, order, room, failures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gate.backends import Arrival, OutOfMemory
from gate.errors import CouldNotMeasure
from tests.vllm.engines import demo, described, needs_vllm, quietly, vllm_backend

pytestmark = [pytest.mark.vllm, needs_vllm]

LENGTHS = [(40, 6), (130, 3), (17, 9), (64, 4), (90, 5), (33, 8), (5, 2), (120, 7), (50, 6), (72, 3)]


@pytest.fixture(scope="module")
def backend() -> Any:
    return vllm_backend(demo("baseline"), "float32")


def load(*, apart: float) -> list[Arrival]:
    return [
        Arrival(at_seconds=i * apart, prompt_tokens=prompt, new_tokens=new) for i, (prompt, new) in enumerate(LENGTHS)
    ]


class Watched:
    """The engine with a note of each request that is handed in and of each step."""

    def __init__(self, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.added: list[tuple[int, float]] = []
        self.under_way: list[tuple[int, int]] = []
        """(requests under way, requests handed in so far) at each step."""
        self.outputs: list[Any] = []
        self.pause_seconds = 0.0
        add, step = engine.add, engine.step

        def watched_add(name: str, *arguments: Any, **named: Any) -> None:
            self.added.append((int(name), time.monotonic()))
            add(name, *arguments, **named)

        def watched_step() -> list[Any]:
            self.under_way.append((engine.n_under_way, len(self.added)))
            time.sleep(self.pause_seconds)
            outputs: list[Any] = step()
            self.outputs += outputs
            return outputs

        monkeypatch.setattr(engine, "add", watched_add)
        monkeypatch.setattr(engine, "step", watched_step)


@pytest.fixture
def watched(backend: Any, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(backend._engine, monkeypatch)


class TestOpenLoop:
    def test_every_request_is_served_when_it_is_due_and_in_order(self, backend: Any, watched: Watched) -> None:
        arrivals = load(apart=0.03)[::-1]  # the last of the list comes first
        begun = time.monotonic()
        served = backend.serve(arrivals, concurrency=None, seed=3)
        assert [(s.prompt_tokens, s.new_tokens) for s in served] == LENGTHS[::-1]
        assert [s.due_seconds for s in served] == [a.at_seconds for a in arrivals]
        assert [number for number, _ in watched.added] == list(range(len(arrivals)))[::-1]
        for number, at in watched.added:
            assert at - begun >= arrivals[number].at_seconds  # never before it is due
        for one in served:
            assert one.due_seconds < one.first_token_seconds < one.last_token_seconds
        assert {o.request_id: o.metrics.num_generation_tokens for o in watched.outputs} == {
            str(i): a.new_tokens for i, a in enumerate(arrivals)
        }

    def test_waiting_for_a_busy_engine_counts(self, backend: Any, watched: Watched) -> None:
        """A closed client would not have asked while it waits: its late question hides the wait."""
        watched.pause_seconds = 0.2
        arrivals = [Arrival(at_seconds=at, prompt_tokens=20, new_tokens=2) for at in (0.0, 0.05, 0.06)]
        served = backend.serve(arrivals, concurrency=None, seed=0)
        assert [s.due_seconds for s in served] == [0.0, 0.05, 0.06]
        begun = watched.added[0][1]
        late = watched.added[1][1] - begun
        assert late >= 0.2  # the first step was under way when it came
        assert served[1].first_token_seconds >= 0.4
        assert served[1].first_token_seconds - served[1].due_seconds >= 0.3

    def test_times_are_those_of_vllms_own_metrics(self, backend: Any, watched: Watched) -> None:
        watched.pause_seconds = 0.1
        served = backend.serve(load(apart=0.01), concurrency=None, seed=0)
        own = {int(o.request_id): o.metrics for o in watched.outputs}
        for number, one in enumerate(served):
            # the wall clock, read a little later in the same step
            waited = one.first_token_seconds - one.due_seconds
            assert own[number].first_token_latency == pytest.approx(waited, abs=watched.pause_seconds / 2)
            decoding = own[number].last_token_ts - own[number].first_token_ts
            assert one.last_token_seconds - one.first_token_seconds == pytest.approx(decoding, abs=1e-9)

    def test_prompts_never_come_from_the_prefix_cache(self, backend: Any, watched: Watched) -> None:
        arrivals = [Arrival(at_seconds=0.0, prompt_tokens=200, new_tokens=2)] * 3
        for _ in range(2):
            backend.serve(arrivals, concurrency=None, seed=5)
        assert [o.num_cached_tokens for o in watched.outputs] == [0] * 6
        assert len({tuple(o.prompt_token_ids) for o in watched.outputs}) == 3  # the seed decides


class TestClosedLoop:
    @pytest.mark.parametrize("concurrency", [1, 3, 50])
    def test_so_many_are_always_under_way(self, backend: Any, watched: Watched, concurrency: int) -> None:
        arrivals = load(apart=1000.0)  # nobody looks at these times
        served = backend.serve(arrivals, concurrency=concurrency, seed=3)
        assert [(s.prompt_tokens, s.new_tokens) for s in served] == LENGTHS
        most = min(concurrency, len(arrivals))
        assert {now for now, so_far in watched.under_way if so_far < len(arrivals)} <= {most}
        assert max(now for now, _ in watched.under_way) == most
        ends = sorted(s.last_token_seconds for s in served)
        dues = sorted(s.due_seconds for s in served)
        for place, due in enumerate(dues[most:]):
            assert due > ends[place]  # each takes the place of one that was answered
        for one in served:
            assert one.due_seconds < one.first_token_seconds < one.last_token_seconds

    def test_nothing_asked_nothing_served(self, backend: Any) -> None:
        assert backend.serve([], concurrency=None, seed=0) == []
        assert backend.serve([], concurrency=4, seed=0) == []


class TestNoRoom:
    @pytest.mark.parametrize(
        ("concurrency", "said"), [(300, "at most 256 sequences at once"), (200, r"does not hold 200 requests")]
    )
    def test_a_closed_loop_that_cannot_be_under_way_is_out_of_memory(
        self, backend: Any, concurrency: int, said: str
    ) -> None:
        arrivals = [Arrival(at_seconds=0.0, prompt_tokens=100, new_tokens=100)] * 320
        with pytest.raises(OutOfMemory, match=said):
            backend.serve(arrivals, concurrency=concurrency, seed=0)

    def test_requests_that_are_interrupted_are_out_of_memory_and_leave_the_engine_empty(self) -> None:
        from gate.backends.vllm import open_backend

        # four blocks of 128 tokens, one of them vLLM's own
        backend = quietly(open_backend, described(demo("baseline"), "float32", cpu_kv_cache="2MiB"))
        arrivals = [Arrival(at_seconds=0.0, prompt_tokens=100, new_tokens=60)] * 3
        with pytest.raises(OutOfMemory, match="interrupted a request of a load"):
            backend.serve(arrivals, concurrency=None, seed=0)
        assert backend._engine.n_under_way == 0
        served = backend.serve(arrivals, concurrency=1, seed=0)
        assert [s.new_tokens for s in served] == [60] * 3

    def test_out_of_memory_in_a_step_leaves_the_engine_empty(
        self, backend: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (before,) = backend.generate(["the bank"], max_new_tokens=8, stop=[], temperature=0.0, seed=0)
        step = backend._engine.llm.llm_engine.step
        calls: list[int] = []

        def fails_later() -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return step()

        monkeypatch.setattr(backend._engine.llm.llm_engine, "step", fails_later)
        with pytest.raises(OutOfMemory, match="out of memory"):
            backend.serve(load(apart=0.0), concurrency=None, seed=0)
        monkeypatch.undo()
        assert backend._engine.n_under_way == 0
        (after,) = backend.generate(["the bank"], max_new_tokens=8, stop=[], temperature=0.0, seed=0)
        assert after == before


class TestTimedBatch:
    def test_vllms_first_token_and_the_engines_loop_agree(self, backend: Any, watched: Watched) -> None:
        """Every step is made long enough that what lies between vLLM's clock and the loop's cannot hide one."""
        watched.pause_seconds = pause = 0.1
        begun = time.monotonic()
        found = backend.timed_batch(batch_size=3, prompt_tokens=150, new_tokens=6, seed=1)
        whole = time.monotonic() - begun
        metrics = {o.request_id: o.metrics for o in watched.outputs}
        assert len(metrics) == 3
        first = max(m.first_token_ts for m in metrics.values())
        last = max(m.last_token_ts for m in metrics.values())
        assert len(found.step_seconds) == 5
        assert pause <= found.ttft_seconds <= first - begun
        assert found.ttft_seconds == pytest.approx(max(m.first_token_latency for m in metrics.values()), abs=pause / 2)
        assert min(found.step_seconds) >= pause
        assert sum(found.step_seconds) == pytest.approx(last - first, abs=pause / 2)
        assert found.ttft_seconds + sum(found.step_seconds) <= whole
        assert found.energy_joules is None  # a CPU has no counter

    def test_no_tokens_have_a_sentence_of_their_own(self, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend._engine, "steps", lambda prompts, params: iter(()))
        with pytest.raises(CouldNotMeasure, match=r"wrote no token for 2 sequences of 9 tokens.*nothing to time"):
            backend.timed_batch(batch_size=2, prompt_tokens=4, new_tokens=5, seed=0)

    def test_fewer_tokens_than_asked_are_not_timed(self, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        steps = backend._engine.steps
        monkeypatch.setattr(backend._engine, "steps", lambda prompts, params: list(steps(prompts, params))[:-1])
        with pytest.raises(CouldNotMeasure, match=r"wrote 4 tokens for 2 sequences of 9 tokens, expected 5 each"):
            backend.timed_batch(batch_size=2, prompt_tokens=4, new_tokens=5, seed=0)

    def test_a_first_token_by_another_clock_is_not_believed(
        self, backend: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = backend._engine.steps

        def by_the_wall_clock(prompts: Any, params: Any) -> Iterator[Any]:
            for outputs in steps(prompts, params):
                for output in outputs:
                    output.metrics.first_token_ts = time.time()
                yield outputs

        monkeypatch.setattr(backend._engine, "steps", by_the_wall_clock)
        with pytest.raises(CouldNotMeasure, match="says that a first token came"):
            backend.timed_batch(batch_size=2, prompt_tokens=4, new_tokens=5, seed=0)
