"""A serving load in one timing block: which requests come when, and what the answers say of it.

Measures, never compares.  The plan is a function of its seed, the figures of what was served; no clock is read here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from gate.backends import Arrival, Served
from gate.policy_profile import Load
from gate.stages.profile_warm_up import WarmedUp, WarmUp, warm_up

Lengths = tuple[int, int]
"""Tokens of the prompt and of the answer."""

Serve = Callable[[int, Sequence[Arrival], int | None], Sequence[Served]]
"""(number of the run, requests, how many are under way together or None for an open loop) → answers, in order.

The measured run is number 0, warm-ups are −1, −2, …
"""

SHORT = 5
"""A load whose requests come for less than so many times what one takes alone is too short to be steady."""

_TICK_SECONDS = 1e-9
"""Requests that all come at once come within this: their lag is finite, and huge."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The measured run of a load, how the warm-up before it ended, and what that showed of unhurried requests.

    Attributes:
        alone_seconds: for each kind of request, the shortest time that its answer took with nothing else to do.
    """

    served: tuple[Served, ...]
    alone_seconds: Mapping[Lengths, float]
    warmed_up: WarmedUp


class Unanswered(RuntimeError):
    """Some requests got no token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What a load came to.

    Attributes:
        values: block values by observed name; `load_lag` of open loops only, as a closed one is offered what it takes.
        samples: single times in seconds by observed name, one per request in the order of arrival (None: an answer of
            one token has no time per later token).
        too_short: requests came for so short a time that no steady state could be reached (`SHORT`).
    """

    values: Mapping[str, float]
    samples: Mapping[str, tuple[float | None, ...]]
    too_short: bool


def answered(serve: Serve, load: Load, mix: Sequence[Lengths], *, seed: int, warm_up_plan: WarmUp) -> Answered:
    """Warm up with one request of each kind, one after the other, until steady; then run the load.

    Raises:
        Unanswered: answers are missing or empty.
    """
    alone_seconds: dict[Lengths, float] = {}

    def whole(number: int, arrivals: Sequence[Arrival], concurrency: int | None) -> Sequence[Served]:
        served = serve(number, arrivals, concurrency)
        if len(served) != len(arrivals) or any(s.new_tokens < 1 for s in served):
            tokens = sum(s.new_tokens for s in served)
            raise Unanswered(
                f"found {len(served)} answers with {tokens} tokens in all, expected {len(arrivals)}, none of them empty"
            )
        return served

    def one_by_one(number: int) -> tuple[float, float]:
        kinds = dict.fromkeys(mix)
        served = whole(-1 - number, [Arrival(at_seconds=0.0, prompt_tokens=p, new_tokens=n) for p, n in kinds], 1)
        for kind, s in zip(kinds, served, strict=True):
            alone_seconds[kind] = min(_e2e_seconds(s), alone_seconds.get(kind, math.inf))
        return math.fsum(map(_ttft_seconds, served)), math.fsum(map(_e2e_seconds, served))

    warmed_up = warm_up(one_by_one, warm_up_plan)
    served = whole(0, plan(load, mix, seed), load.concurrency)
    return Answered(served=tuple(served), alone_seconds=alone_seconds, warmed_up=warmed_up)


def plan(load: Load, mix: Sequence[Lengths], seed: int) -> tuple[Arrival, ...]:
    """The requests of one block: lengths drawn evenly from the mix; an open loop's times are a Poisson process's.

    Arrivals of a closed loop all say 0 seconds, which nobody looks at.
    """
    rng = np.random.default_rng(seed)
    kinds = rng.integers(len(mix), size=load.requests)
    at_seconds = np.zeros(load.requests)
    if load.rate is not None:
        at_seconds = np.cumsum(rng.exponential(1 / load.rate, size=load.requests))
    return tuple(
        Arrival(at_seconds=float(at), prompt_tokens=mix[kind][0], new_tokens=mix[kind][1])
        for at, kind in zip(at_seconds, kinds, strict=True)
    )


def figures(
    load: Load, served: Sequence[Served], objectives: tuple[float, float], alone_seconds: Mapping[Lengths, float]
) -> Figures:
    """Block values and single times of one load.

    Throughput counts from the start of the load to its last token, so a closed loop's end, where fewer and fewer are
    under way, is in it; what is offered, from the start to the last request.  A request is good when its first token
    and, on average, each later one kept the objectives.

    Args:
        objectives: most seconds to the first token, and for each later one, of a good request.
        alone_seconds: for each kind of request, what its answer takes when nothing else is served.

    `served` is not empty.
    """
    seconds = max(s.last_token_seconds for s in served)
    ttft, e2e = list(map(_ttft_seconds, served)), list(map(_e2e_seconds, served))
    tpot = list(map(_tpot_seconds, served))
    most_first, most_later = objectives
    good = sum(f <= most_first and (later is None or later <= most_later) for f, later in zip(ttft, tpot, strict=True))
    values = {
        "requests_per_second": len(served) / seconds,
        "output_tokens_per_second": sum(s.new_tokens for s in served) / seconds,
        "goodput_requests_per_second": good / seconds,
    }
    too_short = False
    if load.rate is not None:
        came_seconds = max(s.due_seconds for s in served)
        too_short = came_seconds < SHORT * max(alone_seconds.values())
        values["load_lag"] = lag(served, alone_seconds)
        if came_seconds > 0:
            values["offered_requests_per_second"] = len(served) / came_seconds
    samples: dict[str, tuple[float | None, ...]] = {"ttft": tuple(ttft), "tpot": tuple(tpot), "e2e": tuple(e2e)}
    for name, times in samples.items():
        if known := [t for t in times if t is not None]:
            values[f"{name}_p50_seconds"] = median(known)
    return Figures(
        values=values,
        samples={f"{name}_sample_seconds": times for name, times in samples.items()},
        too_short=too_short,
    )


def lag(served: Sequence[Served], alone_seconds: Mapping[Lengths, float]) -> float:
    """How late the last answer of an open loop came, over what the end of so many Poisson arrivals varies by.

    Let n requests come within W seconds of the start, and the last answer come after W + a + x seconds, where a is
    what that answer takes when nothing else is served.  x is the backlog, and x / (W/√n) the lag.  An engine that keeps
    up has a backlog of a few requests, however long the load lasts; one that does not has x ≈ W·(ρ − 1), where ρ is
    offered over possible, give or take W/√n for the randomness of the arrivals.  By chance a single block may be far
    behind; `gate.decide.saturation` looks at all of them.

    The growth of waiting from the first third of the requests to the last says the same of a single queue, but not of
    an engine that serves all of them at once and ever more slowly: there the first wait as long as the last.
    """
    came_seconds = max(s.due_seconds for s in served)
    last = max(served, key=lambda s: s.last_token_seconds)
    alone = alone_seconds[last.prompt_tokens, last.new_tokens]
    behind_seconds = max(0.0, last.last_token_seconds - came_seconds - alone)
    return behind_seconds * math.sqrt(len(served)) / max(came_seconds, _TICK_SECONDS)


def _ttft_seconds(served: Served) -> float:
    return served.first_token_seconds - served.due_seconds


def _e2e_seconds(served: Served) -> float:
    return served.last_token_seconds - served.due_seconds


def _tpot_seconds(served: Served) -> float | None:
    """Of each token after the first, on average; None for an answer of one token."""
    if served.new_tokens < 2:
        return None
    return (served.last_token_seconds - served.first_token_seconds) / (served.new_tokens - 1)
