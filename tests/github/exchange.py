"""One request and its answer over HTTP, and the ways in which that goes wrong: resets, half answers, silence.

Knows nothing of GitHub: what is answered is the business of `server.py`.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from tests.github.objects import Object


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """`after`: the request is carried out before it fails.  Kinds: status, reset, truncated, slow."""

    kind: str
    after: bool = False
    status: int = 0
    body: str = "<html>Unicorn!</html>"
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(kw_only=True, slots=True)
class Call:
    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]
    login: str | None
    fault: Fault | None = None
    status: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Refusal(Exception):
    """An answer that is not what was asked for."""

    def __init__(
        self, status: int, message: str, errors: Iterable[Object] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body: Object = {
            "message": message,
            "documentation_url": "https://docs.github.com/rest",
            "status": str(status),
        }
        if named := list(errors):
            self.body["errors"] = named


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class Answering(Protocol):
    """What stands behind the server.  `lock`: one request is carried out at a time; `released`: stop being slow."""

    prefix: str
    calls: list[Call]
    faults: Callable[[Call], Fault | None]
    lock: threading.RLock
    released: threading.Event
    rate_limit: int
    rate_reset: int

    def answer(self, call: Call) -> Answer: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], mock: Answering) -> None:
        super().__init__(address, _Handler)
        self.mock = mock

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else headers and body, two packets, wait 40 ms for each other
    wbufsize = -1
    server: Server

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _handle(self) -> None:
        mock = self.server.mock
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = None
        path = parts.path[len(mock.prefix) :] if parts.path.startswith(mock.prefix + "/") else "/elsewhere" + parts.path
        call = Call(
            method=self.command,
            path=path,
            query={key: values[-1] for key, values in parse_qs(parts.query).items()},
            body=body,
            headers={key.lower(): value for key, value in self.headers.items()},
            login=None,
        )
        with mock.lock:
            fault = call.fault = mock.faults(call)
            mock.calls.append(call)
            answer = None if fault and not fault.after else self._answer(call)
        if fault is not None:
            self._fail(call, fault, answer)
        elif answer is not None:
            self._send(call, answer)

    def _answer(self, call: Call) -> Answer:
        try:
            return self.server.mock.answer(call)
        except Refusal as refusal:
            return Answer(status=refusal.status, body=refusal.body, headers=refusal.headers)

    def _fail(self, call: Call, fault: Fault, answer: Answer | None) -> None:
        if fault.kind == "status":
            self._send(call, Answer(status=fault.status, body=fault.body, headers=fault.headers))
        elif fault.kind == "slow":
            self.server.mock.released.wait(fault.seconds)
            self._reset()
        elif fault.kind == "truncated":
            self._send(call, answer or Answer(status=200, body={"message": "cut short"}), cut=True)
        else:
            self._reset()

    def _reset(self) -> None:
        """The connection ends with RST: no answer, not even an end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _send(self, call: Call, answer: Answer, *, cut: bool = False) -> None:
        mock, call.status = self.server.mock, answer.status
        payload = b"" if answer.body is None else self._encoded(answer.body)
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(payload)))
        standing = {
            "X-RateLimit-Limit": "1000",
            "X-RateLimit-Remaining": str(max(min(mock.rate_limit, 999), 0)),
            "X-RateLimit-Reset": str(mock.rate_reset),
            "X-RateLimit-Resource": "core",
            "X-GitHub-Request-Id": f"MOCK:{len(mock.calls)}",
        }
        for key, value in {**standing, **answer.headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(payload[: len(payload) // 2] if cut else payload)
        self.wfile.flush()
        self.close_connection = self.close_connection or cut

    @staticmethod
    def _encoded(body: Any) -> bytes:
        return body.encode() if isinstance(body, str) else json.dumps(body).encode()
