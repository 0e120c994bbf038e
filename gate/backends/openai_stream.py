"""Times of single tokens, as a client sees them: a batch of streamed completions.

What is timed includes the network and the server's queue.  A failed request is not repeated: it would be another one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import aiohttp

from gate.backends.openai_client import Body, Client, RequestFailed
from gate.errors import CouldNotMeasure

TOGETHER_SECONDS = 1e-4
"""No model writes tokens of one sequence faster: what is read within this time was held back somewhere."""

ATTEMPTS = 3

Event = tuple[float, bytes]
"""When it was read, in seconds, and the data of a server-sent event."""


class HeldBack(CouldNotMeasure):
    """The tokens of a sequence did not come one by one."""


def timed(client: Client, bodies: Sequence[Body], *, new_tokens: int) -> list[float]:
    """Seconds from the start until *every* sequence had its first, second, … token.

    A batch whose tokens were held back is no timing: it is thrown away and asked for again, a few times.

    Raises:
        CouldNotMeasure: a sequence ended early, its tokens came in lumps each time, or the server failed.
    """
    for attempt in range(1, ATTEMPTS + 1):
        begun, streams = client.run(_streamed(client, bodies))
        try:
            each = [arrivals(events, new_tokens) for events in streams]
        except HeldBack:
            if attempt == ATTEMPTS:
                raise
        else:
            return [max(at) - begun for at in zip(*each, strict=True)]
    raise AssertionError("unreachable: the last attempt returns or raises")


def check(client: Client, body: Body, *, new_tokens: int) -> None:
    """Raises CouldNotMeasure unless the server streams exactly so many tokens and counts them."""
    _, (events,) = client.run(_streamed(client, [body]))
    _lumps(events, new_tokens)


async def _streamed(client: Client, bodies: Sequence[Body]) -> tuple[float, list[list[Event]]]:
    """When the requests were sent, and what came when."""
    async with client.session(connections=len(bodies)) as session:

        async def connect() -> None:
            async with session.get(f"{client.server.url}/models", allow_redirects=False) as response:
                await response.read()

        async def stream(body: Body) -> list[Event]:
            events: list[Event] = []
            async with client.post(session, body) as response:
                if response.status != 200:
                    await client.content(response)
                async for line in response.content:
                    if line.startswith(b"data:"):
                        events.append((time.perf_counter(), line[5:].strip()))
            return events

        try:
            await asyncio.gather(*(connect() for _ in bodies))  # no timing should include a handshake
            begun = time.perf_counter()
            return begun, await asyncio.gather(*(stream(body) for body in bodies))
        except TimeoutError as problem:
            limit = f"{client.server.timeout_seconds:g} s"
            raise CouldNotMeasure(f"a streamed completion did not end within {limit}") from problem
        except (aiohttp.ClientError, OSError, ValueError, RequestFailed) as problem:
            raise CouldNotMeasure(f"a streamed completion failed: {client.safe(str(problem))}") from problem


def arrivals(events: Sequence[Event], new_tokens: int) -> list[float]:
    """When each token came: those of a lump are spread over the time since the lump before.

    Raises:
        HeldBack: most came together with the first.
        CouldNotMeasure: there are not `new_tokens` tokens, or the server failed.
    """
    lumps = _lumps(events, new_tokens)
    first, n_first = lumps[0]
    if 2 * n_first > new_tokens:
        raise HeldBack(
            f"{n_first} of {new_tokens} streamed tokens came together with the first, {ATTEMPTS} times: the server or "
            "a proxy holds them back, or a machine is too busy to pass them on, so single tokens cannot be timed"
        )
    times = [first] * n_first
    for (before, n_before), (at, n) in pairwise(lumps):
        times += [before + (at - before) * (k + 1) / (n - n_before) for k in range(n - n_before)]
    return times


def _lumps(events: Sequence[Event], new_tokens: int) -> list[tuple[float, int]]:
    """(time, tokens so far) of what came together.  Raises CouldNotMeasure."""
    lumps: list[tuple[float, int]] = []
    for at, data in events:
        so_far = lumps[-1][1] if lumps else 0
        n = so_far if data == b"[DONE]" else _tokens_so_far(data, so_far)
        if lumps and n > so_far and at - lumps[-1][0] < TOGETHER_SECONDS:
            lumps[-1] = (lumps[-1][0], n)
        elif n > so_far:
            lumps.append((at, n))
    total = lumps[-1][1] if lumps else 0
    if total != new_tokens:
        raise CouldNotMeasure(
            f"a streamed completion had {total} tokens, expected exactly {new_tokens}: the server does not heed "
            "ignore_eos, or does not say how many tokens a chunk holds"
        )
    return lumps


def _tokens_so_far(data: bytes, before: int) -> int:
    """From the usage of a chunk where it has one, else a chunk with text is a token."""
    try:
        chunk: Any = json.loads(data)
    except ValueError as problem:
        raise CouldNotMeasure(f"a streamed chunk is not JSON: {data[:200]!r}") from problem
    if not isinstance(chunk, dict) or "error" in chunk:
        raise CouldNotMeasure(f"a streamed completion failed: {data.decode(errors='replace')[:200]}")
    choices, usage = chunk.get("choices"), chunk.get("usage")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return before  # a summary at the end
    so_far = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if isinstance(so_far, int):
        return max(before, so_far)
    return before + 1 if choices[0].get("text") else before
