"""A timed batch and a serving load on one vLLM engine, by the engine's own times of each request's tokens.

Prompts are random and never from the prefix cache, answers have exact lengths.  Nothing here is averaged.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from vllm.sampling_params import RequestOutputKind

from gate.backends import Arrival, OutOfMemory, Served, Timing
from gate.backends.vllm_engine import Engine, sampling
from gate.errors import CouldNotMeasure

_CLOCK = time.monotonic
"""The clock of vLLM's own times, which are those of its core: it runs in this process."""


def timed_batch(engine: Engine, *, batch_size: int, prompt_tokens: int, new_tokens: int, seed: int) -> Timing:
    """Greedy decoding that no end of sequence stops, of requests that come together.

    The first token's time is vLLM's own: until its core had the first token of the last sequence.  A later step is over
    when the engine's loop hands out every sequence's next token.

    Raises:
        OutOfMemory: not all can run together.
        CouldNotMeasure: no token came, or vLLM's times are not of its clock.
    """
    lengths = [prompt_tokens + new_tokens] * batch_size
    what = f"{batch_size} sequences of {prompt_tokens + new_tokens} tokens"
    _check_room(engine, lengths, what)
    prompts = _prompts(engine, [prompt_tokens] * batch_size, seed)
    params = _exactly(new_tokens, RequestOutputKind.DELTA)
    written = {str(number): 0 for number in range(batch_size)}
    metrics: dict[str, Any] = {}
    engine.memory.serve()
    joules = _joules(engine)
    begun = _CLOCK()
    marks = [begun]
    for outputs in engine.steps(prompts, params):
        now = _CLOCK()
        for output in outputs:
            written[output.request_id] += len(output.outputs[0].token_ids)
            metrics[output.request_id] = output.metrics
        # a step that brings two tokens at once, as speculative decoding does, ends two of ours
        marks += [now] * (min(written.values()) + 1 - len(marks))
    joules_after = _joules(engine)
    _check_uninterrupted(metrics.values(), what)
    if len(marks) != new_tokens + 1:
        raise CouldNotMeasure(_wrote(len(marks) - 1, new_tokens, what))
    first = max(own.first_token_ts for own in metrics.values())
    if not begun < first <= marks[1]:
        raise CouldNotMeasure(
            f"vLLM says that a first token came {first - begun:.6f} s after the batch was handed in, expected a time "
            f"after 0 and up to {marks[1] - begun:.6f} s, when its engine handed it out: see constraints-vllm.txt for "
            "a version whose times can be used"
        )
    engine.memory.held(lengths)
    engine.memory.timed(batch_size, prompt_tokens)
    return Timing(
        batch_size=batch_size,
        prompt_tokens=prompt_tokens,
        ttft_seconds=first - begun,
        step_seconds=tuple(after - before for before, after in pairwise(marks[1:])),
        energy_joules=None if joules is None or joules_after is None else joules_after - joules,
    )


def serve(engine: Engine, arrivals: Sequence[Arrival], *, concurrency: int | None, seed: int) -> list[Served]:
    """As `Backend.serve`.

    A request is handed in at the first step of the engine that begins after it is due.  What it waits for until then,
    and in the engine's own queue, counts: times are from `due_seconds`.
    """
    lengths = [arrival.prompt_tokens + arrival.new_tokens for arrival in arrivals]
    together = sorted(lengths, reverse=True)[: concurrency or 1]
    _check_room(engine, together, f"{len(together)} requests of up to {max(lengths, default=0)} tokens")
    prompts = _prompts(engine, [arrival.prompt_tokens for arrival in arrivals], seed)
    params = [_exactly(arrival.new_tokens, RequestOutputKind.FINAL_ONLY) for arrival in arrivals]
    waiting = deque(sorted(range(len(arrivals)), key=lambda i: arrivals[i].at_seconds))
    due: dict[int, float] = {}
    found: dict[int, Any] = {}
    engine.memory.serve()
    with engine.emptied_on_failure():
        begun, epoch = _CLOCK(), time.time()
        while waiting or engine.n_under_way:
            now = _CLOCK() - begun
            while waiting and _is_next(arrivals[waiting[0]], now, engine.n_under_way, concurrency):
                number = waiting.popleft()
                due[number] = arrivals[number].at_seconds if concurrency is None else _CLOCK() - begun
                engine.add(str(number), prompts[number], params[number], arrived=epoch + due[number])
            if not engine.n_under_way:
                time.sleep(arrivals[waiting[0]].at_seconds - now)
                continue
            for output in engine.step():
                _check_uninterrupted([output.metrics], "a request of a load")
                found[int(output.request_id)] = output.metrics
    served = [_served(arrivals[i], due[i], found[i], begun) for i in range(len(arrivals))]
    engine.memory.held(_most_together(lengths, [found[i] for i in range(len(arrivals))], engine))
    return served


def _is_next(arrival: Arrival, now: float, n_under_way: int, concurrency: int | None) -> bool:
    return arrival.at_seconds <= now if concurrency is None else n_under_way < concurrency


def _served(arrival: Arrival, due: float, metrics: Any, begun: float) -> Served:
    if metrics.num_generation_tokens != arrival.new_tokens:
        raise CouldNotMeasure(_wrote(metrics.num_generation_tokens, arrival.new_tokens, "a request of a load"))
    return Served(
        due_seconds=due,
        first_token_seconds=metrics.first_token_ts - begun,
        last_token_seconds=metrics.last_token_ts - begun,
        prompt_tokens=arrival.prompt_tokens,
        new_tokens=arrival.new_tokens,
    )


def _most_together(lengths: Sequence[int], metrics: Sequence[Any], engine: Engine) -> list[int]:
    """Lengths of the requests that ran together when most of the key/value cache was theirs."""
    spans = [(own.scheduled_ts, own.last_token_ts, n) for own, n in zip(metrics, lengths, strict=True)]
    moments = ([n for begin, end, n in spans if begin <= at <= end] for at, _, _ in spans)
    return max(moments, key=engine.memory.rounded, default=[])


def _check_room(engine: Engine, lengths: Sequence[int], what: str) -> None:
    if len(lengths) > engine.max_sequences:
        raise OutOfMemory(
            f"vLLM runs at most {engine.max_sequences} sequences at once, expected {len(lengths)}: raise "
            "max_num_seqs in `engines: {vllm: …}`"
        )
    if not engine.memory.cache_holds(lengths):
        raise OutOfMemory(
            f"vLLM's key/value cache does not hold {what}: raise gpu_memory_utilization (on a CPU: cpu_kv_cache) in "
            "`engines: {vllm: …}`"
        )


def _check_uninterrupted(metrics: Iterable[Any], what: str) -> None:
    if any(own.num_preemptions for own in metrics):
        raise OutOfMemory(
            f"vLLM interrupted {what} because its key/value cache was full: raise gpu_memory_utilization (on a CPU: "
            "cpu_kv_cache) in `engines: {vllm: …}`"
        )


def _wrote(found: int, expected: int, what: str) -> str:
    if found <= 0:
        return f"vLLM wrote no token for {what}, expected {expected} each: there is nothing to time"
    return f"vLLM wrote {found} tokens for {what}, expected {expected} each: its times are not of that length"


def _prompts(engine: Engine, lengths: Sequence[int], seed: int) -> list[list[int]]:
    draw = random.Random(seed)
    vocabulary = range(engine.vocabulary_size)
    return [draw.choices(vocabulary, k=length) for length in lengths]


def _exactly(new_tokens: int, kind: RequestOutputKind) -> Any:
    return sampling(
        temperature=0.0,
        max_tokens=new_tokens,
        ignore_eos=True,
        detokenize=False,
        skip_reading_prefix_cache=True,
        output_kind=kind,
    )


def _joules(engine: Engine) -> float | None:
    return None if engine.memory.gpus is None else engine.memory.gpus.energy_joules()
