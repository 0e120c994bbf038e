"""HTTP to one OpenAI-compatible server: requests at once, time-outs, retries, and who is to blame for a failure.

Knows neither prompts nor scores.  The key goes into the Authorization header and nowhere else; redirects are not
followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp

from gate.errors import CouldNotMeasure, UsageError

CONCURRENCY, TIMEOUT_SECONDS, RETRIES = 8, 120, 4
"""Defaults of the policy's `engines.openai`."""

MAX_REPLY_BYTES = 256 * 2**20
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
"""Before the first retry, and doubled before each further one.  A Retry-After may ask for as long as the time-out."""

_SHOWN_CHARACTERS = 300
_BUSY_OR_BROKEN = frozenset({408, 425, 429})
_PULSE_SECONDS, _PULSE_CPU_SECONDS = 0.5, 0.005

T = TypeVar("T")
Body = Mapping[str, Any]
Reply = dict[str, Any]


class RequestFailed(RuntimeError):
    """This one request was not answered as asked; the server answers others."""


class _TryAgain(RequestFailed):
    """An attempt failed in a way that may pass.  `after_seconds` is what the server asked for."""

    def __init__(self, message: str, after_seconds: float = 0.0) -> None:
        self.after_seconds = after_seconds
        super().__init__(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where the server is and how it is asked: `engines.openai` of the policy, checked and completed."""

    url: str
    model: str | None
    key: str | None = field(repr=False)
    concurrency: int
    timeout_seconds: float
    retries: int


def address(engine: Mapping[str, Any]) -> Address:
    """Raises UsageError for settings that no request could repair."""
    url = engine.get("url")
    if url is None:
        raise UsageError(
            "the openai backend needs the address of a running server: write `engines: {openai: {url: "
            "http://localhost:8000/v1}}` into the policy, under `checkpoints:` where each has its own server"
        )
    if not _is_plain(url):
        raise UsageError(
            f"found engines.openai.url {_without_login(url)!r}, expected http:// or https://, a host and a path such "
            "as /v1, without a login: the key belongs into the environment variable that `api_key_env` names"
        )
    name = engine.get("api_key_env")
    key = os.environ.get(name) if name else None
    if name and not key:
        raise UsageError(f"found no value in the environment variable {name!r} (engines.openai.api_key_env): set it")
    return Address(
        url=url.rstrip("/"),
        model=engine.get("model"),
        key=key,
        concurrency=engine.get("concurrency", CONCURRENCY),
        timeout_seconds=engine.get("timeout_seconds", TIMEOUT_SECONDS),
        retries=engine.get("retries", RETRIES),
    )


class Client:
    """Asks `completions` for many bodies at once and returns what was read from the replies, in their order."""

    def __init__(self, server: Address) -> None:
        self.server = server
        self.proven: Body | None = None
        """A small request that was answered once: it tells whether the server or a request is to blame."""

        self._jitter = random.Random()  # of its own: the stages seed the process-wide generator
        self._kept: dict[str, Reply | RequestFailed] = {}

    def ask(self, bodies: Sequence[Body], read: Sequence[Callable[[Reply], T]]) -> list[T]:
        """What `read[i]` makes of the reply to `bodies[i]`.

        When some requests of a batch fail, the stages ask for each of its items alone: the replies are kept until
        another batch is asked for, so that nothing is sent twice.

        Raises:
            RequestFailed: the first failure, after every request was answered or given up.
            CouldNotMeasure: the server is gone, or takes no request from us.
        """
        names = [json.dumps(body, sort_keys=True) for body in bodies]
        if not set(names) <= self._kept.keys():
            alike = dict(zip(names, bodies, strict=True))
            self._kept = dict(zip(alike, self.run(self._answers(list(alike.values()))), strict=True))
        results: list[T | RequestFailed] = [_read(self._kept[name], r) for name, r in zip(names, read, strict=True)]
        for result in results:
            if isinstance(result, RequestFailed):
                raise RequestFailed(str(result))
        self._kept = self._kept if len(self._kept) > len(names) else {}
        return [result for result in results if not isinstance(result, RequestFailed)]

    def get(self, url: str) -> Any:
        """The JSON behind an address of the server.  Raises RequestFailed, CouldNotMeasure."""
        return self.run(self._one(lambda session: self._attempt(session.get(url, allow_redirects=False))))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        with _awake():
            return asyncio.run(work)

    def session(self, *, connections: int) -> aiohttp.ClientSession:
        """For `async with`.  Every attempt ends with the time-out, whatever the server does."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=self.server.timeout_seconds),
            headers={"Authorization": f"Bearer {self.server.key}"} if self.server.key else {},
        )

    def post(self, session: aiohttp.ClientSession, body: Body) -> Any:
        """The request for one completion, to be entered with `async with`."""
        return session.post(f"{self.server.url}/completions", json=body, allow_redirects=False)

    async def _answers(self, bodies: Sequence[Body]) -> list[Reply | RequestFailed]:
        turn = asyncio.Semaphore(self.server.concurrency)
        async with self.session(connections=self.server.concurrency) as session:

            async def answer(body: Body) -> Reply | RequestFailed:
                async with turn:
                    try:
                        return await self._persistent(session, lambda: self._attempt(self.post(session, body)))
                    except RequestFailed as failure:
                        return failure

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(answer(body)) for body in bodies]
            except ExceptionGroup as several:  # the others were cancelled
                first = several.exceptions[0]
                raise first from first.__cause__
            return [task.result() for task in tasks]

    async def _one(self, attempt: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, T]]) -> T:
        async with self.session(connections=1) as session:
            return await self._persistent(session, lambda: attempt(session))

    async def _persistent(self, session: aiohttp.ClientSession, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of an attempt, or of a later one."""
        for n in range(self.server.retries + 1):
            try:
                return await attempt()
            except _TryAgain as problem:
                last = problem
            if n < self.server.retries:
                pause = min(FIRST_PAUSE_SECONDS * 2**n, LONGEST_PAUSE_SECONDS) * self._jitter.uniform(0.5, 1.5)
                await asyncio.sleep(max(pause, min(last.after_seconds, self.server.timeout_seconds)))
        found = f"{last} (asked {self.server.retries + 1} times)"
        if self.proven is None:
            raise CouldNotMeasure(f"the server at {self.server.url} is of no use: {found}")
        try:
            await self._attempt(self.post(session, self.proven))
        except RequestFailed as problem:
            raise CouldNotMeasure(
                f"the server at {self.server.url} is gone or broken: {found}, and a request that it answered before: "
                f"{problem}"
            ) from problem
        raise RequestFailed(f"{found}; the server answers other requests")

    async def _attempt(self, asked: Any) -> Any:
        """One exchange: the JSON of a reply.  Raises _TryAgain, RequestFailed, CouldNotMeasure."""
        try:
            async with asked as response:
                content = await self.content(response)
        except TimeoutError as problem:
            raise _TryAgain(f"no complete answer within {self.server.timeout_seconds:g} s") from problem
        except (aiohttp.ClientError, OSError) as problem:
            raise _TryAgain(f"the connection failed: {self.safe(_said(problem))}") from problem
        try:
            return json.loads(content)
        except ValueError as problem:
            raise _TryAgain(f"the answer is not JSON: {self.safe(content.decode(errors='replace'))!r}") from problem

    async def content(self, response: aiohttp.ClientResponse) -> bytes:
        """The body of a good answer; raises what another status means."""
        parts = bytearray()
        async for part in response.content.iter_any():
            parts += part
            if len(parts) > MAX_REPLY_BYTES:
                raise RequestFailed(f"the answer is larger than {MAX_REPLY_BYTES} bytes")
        if response.status != 200:
            raise self.refusal(response, bytes(parts))
        return bytes(parts)

    def refusal(self, response: aiohttp.ClientResponse, content: bytes) -> Exception:
        status = response.status
        said = f"HTTP {status}: {self.safe(_message(content)) or response.reason or 'no message'}"
        where = str(response.url.with_query(None))
        if status >= 500 or status in _BUSY_OR_BROKEN:
            return _TryAgain(said, _retry_after_seconds(response.headers.get("Retry-After")))
        if status in (401, 403):
            return CouldNotMeasure(
                f"the server refuses us at {where} ({said}): name the environment variable that holds its key in "
                "engines.openai.api_key_env"
            )
        if status in (404, 405) or status < 400:
            target = f" and sends us to {self.safe(response.headers.get('Location', ''))!r}" if status < 400 else ""
            return CouldNotMeasure(
                f"found no OpenAI-compatible endpoint at {where} ({said}){target}: engines.openai.url should be the "
                "address before /completions, most often ending with /v1"
            )
        return RequestFailed(f"the server refuses the request ({said})")

    def safe(self, text: str) -> str:
        """One short line of what the server said, without our key."""
        line = " ".join(text.split())
        if self.server.key:
            line = line.replace(self.server.key, "[key]")
        return line[:_SHOWN_CHARACTERS]


def _read(reply: Reply | RequestFailed, read: Callable[[Reply], T]) -> T | RequestFailed:
    if isinstance(reply, RequestFailed):
        return reply
    try:
        return read(reply)
    except RequestFailed as failure:
        return failure


def _said(problem: Exception) -> str:
    return str(problem).replace(" ssl:default", "") or type(problem).__name__  # aiohttp says so of plain HTTP too


def _message(content: bytes) -> str:
    """What an error reply says, in the forms that servers use."""
    text = content.decode(errors="replace")
    try:
        data = json.loads(text)
    except ValueError:
        return text
    for name in ("error", "message", "detail"):
        if isinstance(data, dict) and name in data:
            data = data[name]
    return data if isinstance(data, str) else json.dumps(data)


def _retry_after_seconds(header: str | None) -> float:
    """Seconds, or a date; 0 for none or nonsense."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_place = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False
    return has_place and not (parts.username or parts.password or parts.query or parts.fragment)


def _without_login(url: str) -> str:
    return url.rpartition("@")[2] if "@" in url else url


@contextmanager
def _awake() -> Iterator[None]:
    """Use about 1 % of a CPU while waiting for the server.

    The gate ends a worker that uses no CPU and reports no progress for some minutes, since it looks hung; this one
    waits, and for no longer than its own time-outs.
    """
    done = threading.Event()

    def pulse() -> None:
        block = bytes(2**16)  # large enough that the interpreter is not locked meanwhile
        while not done.wait(_PULSE_SECONDS):
            begun = time.thread_time()
            while time.thread_time() - begun < _PULSE_CPU_SECONDS:
                hashlib.sha256(block)

    thread = threading.Thread(target=pulse, name="waits for the server", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
