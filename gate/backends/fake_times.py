"""The fake model's clock, which is nobody's: how long batches and requests take by its settings, and who watches.

Virtual: nothing here waits.  Deterministic for the settings and the seeds given.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from gate.backends import Arrival, OutOfMemory, Served, Timing
from gate.backends.fake_settings import FakeSettings
from gate.backends.fake_text import hashed_unit
from gate.errors import CouldNotMeasure


class Clock:
    """Counts the batches that were timed, so that no two take the same."""

    def __init__(self, settings: FakeSettings) -> None:
        self._settings = settings
        self._timed = 0
        self._watched = 0

    def batch(self, *, batch_size: int, prompt_tokens: int, new_tokens: int, seed: int) -> Timing:
        """Raises OutOfMemory above `fits_batch`."""
        s = self._settings
        self._check_fits(batch_size)
        slower = self._slower()
        self._timed += 1
        noise = [1 + s.timing_noise * (2 * hashed_unit(s.seed, seed, self._timed, i) - 1) for i in range(new_tokens)]
        joules = None if s.joules_per_token is None else s.joules_per_token * batch_size * new_tokens
        return Timing(
            batch_size=batch_size,
            prompt_tokens=prompt_tokens,
            ttft_seconds=slower * noise[0] * batch_size * prompt_tokens / s.prefill_tokens_per_second,
            step_seconds=tuple(slower * x * batch_size / s.decode_tokens_per_second for x in noise[1:]),
            energy_joules=joules,
        )

    def load(self, arrivals: Sequence[Arrival], *, concurrency: int | None, seed: int) -> list[Served]:
        """Requests are taken up one after the other, `serves_requests_per_second` at most, and then run side by side.

        So an open loop with a higher rate falls behind, and below it a request takes what its tokens take.

        Raises:
            CouldNotMeasure: the settings say nothing of serving.
            OutOfMemory: the concurrency is above `fits_batch`.
        """
        s = self._settings
        if s.serves_requests_per_second is None:
            raise CouldNotMeasure("the fake model serves no load: give serves_requests_per_second in its fake.json")
        self._check_fits(concurrency or 1)
        self._timed += 1
        slower = self._slower()
        free_seconds = 0.0
        under_way: list[float] = []  # when each request under way will be done, of a closed loop
        served = []
        for i, arrival in enumerate(arrivals):
            due_seconds = arrival.at_seconds
            if concurrency is not None:
                due_seconds = heapq.heappop(under_way) if len(under_way) == concurrency else 0.0
            begun_seconds = max(due_seconds, free_seconds)
            free_seconds = begun_seconds + slower / s.serves_requests_per_second
            noise = 1 + s.timing_noise * (2 * hashed_unit(s.seed, seed, self._timed, i) - 1)
            first_seconds = begun_seconds + slower * noise * arrival.prompt_tokens / s.prefill_tokens_per_second
            last_seconds = first_seconds + slower * noise * (arrival.new_tokens - 1) / s.decode_tokens_per_second
            if concurrency is not None:
                heapq.heappush(under_way, last_seconds)
            served.append(
                Served(
                    due_seconds=due_seconds,
                    first_token_seconds=first_seconds,
                    last_token_seconds=last_seconds,
                    prompt_tokens=arrival.prompt_tokens,
                    new_tokens=arrival.new_tokens,
                )
            )
        return served

    def watch(self) -> Watch:
        """What the machine is like during the next block: the next of the scripted `conditions`, the last for ever."""
        script = self._settings.conditions
        found = script[min(self._watched, len(script) - 1)]
        self._watched += 1
        return Watch(found)

    def _slower(self) -> float:
        s = self._settings
        return s.slow_down if s.slow_after <= self._timed < s.slow_until else 1.0

    def _check_fits(self, batch_size: int) -> None:
        fits = self._settings.fits_batch
        if fits is not None and batch_size > fits:
            raise OutOfMemory(f"out of memory at batch size {batch_size}: {fits} fit")


class Watch:
    """Stands in for `gate.machine.conditions.Watch` where the times are not this machine's."""

    def __init__(self, found: Mapping[str, float]) -> None:
        self._found = found

    def start(self) -> None:
        """Nothing to look at."""

    def finish(self) -> dict[str, float]:
        return dict(self._found)
