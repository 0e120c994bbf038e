"""One shape (batch size and lengths) in one timing block: warm-up, measured runs, and what they come to.

Measures, never compares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from gate.backends import Timing
from gate.stages.profile_warm_up import WarmedUp, WarmUp, warm_up

STEP_SAMPLES = 200_000
"""Single times of decoding steps that are kept of one role's stage, all shapes and blocks together, and …"""

LEAST_STEP_SAMPLES = 32
"""… how many of each run at least, even if that makes more."""


class NoTokens(RuntimeError):
    """A batch was answered with no token after the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """The measured runs of one shape, in order, and how the warm-up before them ended."""

    timings: tuple[Timing, ...]
    warmed_up: WarmedUp


def runs(timed: Callable[[int], Timing], *, count: int, warm_up_plan: WarmUp) -> Runs:
    """`count` measured runs after warming up; `timed` is called with 0, 1, … for them, with −1, −2, … before.

    Raises:
        NoTokens: a run wrote nothing to time.
    """

    def whole(number: int) -> Timing:
        timing = timed(number)
        if not timing.step_seconds:
            raise NoTokens(
                "no token came after the first, expected one for each decoding step: does this checkpoint generate at "
                "all (`gate inspect`)?"
            )
        return timing

    def warming(number: int) -> tuple[float, float]:
        timing = whole(-1 - number)
        return timing.ttft_seconds, _e2e_seconds(timing)

    warmed_up = warm_up(warming, warm_up_plan)
    return Runs(timings=tuple(whole(number) for number in range(count)), warmed_up=warmed_up)


def values(timings: Sequence[Timing]) -> dict[str, float]:
    """Block values by observed name: medians over runs (of steps for TPOT), so that one disturbed run moves none.

    Energy alone is a sum over a sum: the counter moves too seldom for a single short run.
    """
    found = {
        "prefill_tokens_per_second": median(t.batch_size * t.prompt_tokens / t.ttft_seconds for t in timings),
        "decode_tokens_per_second": median(
            t.batch_size * len(t.step_seconds) / math.fsum(t.step_seconds) for t in timings
        ),
        "output_tokens_per_second": median(t.batch_size * _new_tokens(t) / _e2e_seconds(t) for t in timings),
        "requests_per_second": median(t.batch_size / _e2e_seconds(t) for t in timings),
        "ttft_p50_seconds": median(t.ttft_seconds for t in timings),
        "tpot_p50_seconds": median(s for t in timings for s in t.step_seconds),
        "e2e_p50_seconds": median(map(_e2e_seconds, timings)),
    }
    joules = [t.energy_joules for t in timings if t.energy_joules is not None]
    if len(joules) == len(timings) and sum(joules) > 0:
        tokens = sum(t.batch_size * _new_tokens(t) for t in timings)
        found["joules_per_output_token"] = math.fsum(joules) / tokens
    return found


def samples(timings: Sequence[Timing], steps_a_run: int) -> Iterator[tuple[str, str, float]]:
    """(observed name, item within the block, seconds) of single times; of steps at most `steps_a_run`, evenly."""
    for run, timing in enumerate(timings):
        yield "ttft_sample_seconds", f"run/{run}", timing.ttft_seconds
        yield "e2e_sample_seconds", f"run/{run}", _e2e_seconds(timing)
        for step in evenly(len(timing.step_seconds), steps_a_run):
            yield "tpot_sample_seconds", f"run/{run}/step/{step}", timing.step_seconds[step]


def steps_kept(n_runs: int) -> int:
    """Steps of each run that are kept when a stage has so many measured runs (shapes × blocks × runs a block)."""
    return max(LEAST_STEP_SAMPLES, STEP_SAMPLES // n_runs)


def evenly(n: int, most: int) -> tuple[int, ...]:
    """Indices of at most `most` of `n` things: the middles of as many equal stretches, ascending."""
    if n <= most:
        return tuple(range(n))
    return tuple((2 * i + 1) * n // (2 * most) for i in range(most))


def _e2e_seconds(timing: Timing) -> float:
    return timing.ttft_seconds + math.fsum(timing.step_seconds)


def _new_tokens(timing: Timing) -> int:
    return 1 + len(timing.step_seconds)
