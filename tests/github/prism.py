"""Prism between the gate and the mock of GitHub: every request and every answer against GitHub's own description.

Never changes a call: what does not fit is passed on all the same, and collected from Prism's log.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from tests.github import openapi
from tests.github.exchange import Answering, Server
from tests.github.server import GitHubMock

NODE_MODULES = Path(os.environ.get("QUANTGATE_NODE_MODULES", Path(__file__).parent / "node_modules"))
_COMMAND = NODE_MODULES / "@stoplight" / "prism-cli" / "dist" / "index.js"
_LISTENING = re.compile(r"Prism is listening on (http://\S+)")
_CALL = re.compile(r"\[HTTP SERVER\] (\w+) (\S+) .*Request received")
_VIOLATION = re.compile(r"Violation: +(.*)|Request terminated with error: +(.*)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PATIENCE_SECONDS = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """A call, or the answer to it, that GitHub's description does not allow."""

    method: str
    path: str
    said: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}: {self.said}"


class Upstream:
    """What Prism stands before: one mock after another, at one address."""

    prefix = ""

    def __init__(self) -> None:
        self.current: GitHubMock | None = None
        self._server = Server(("127.0.0.1", 0), cast("Answering", self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __getattr__(self, name: str) -> Any:
        """All that the server asks for is the present mock's."""
        assert self.current is not None, "a call came while no mock was here"
        return getattr(self.current, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prism:
    """A running Prism.  `url` is what the gate calls instead of the mock."""

    url: str
    log: Path
    upstream: Upstream

    @contextmanager
    def before(self, mock: GitHubMock) -> Iterator[GitHubMock]:
        """Calls go to this mock, and its answers name Prism's address, so that further pages come through it too."""
        self.upstream.current = mock
        mock.public_url = self.url
        try:
            yield mock
        finally:
            self.upstream.current = None

    def violations(self) -> tuple[Violation, ...]:
        """All until now, in order.

        Prism writes its log a moment after it has answered, so it is given a last call of our own to write down.
        """
        self._mark()
        found: list[Violation] = []
        method = path = ""
        for line in _lines(self.log):
            if call := _CALL.search(line):
                method, path = call[1].upper(), call[2]
            elif (violation := _VIOLATION.search(line)) and not path.startswith("/mark-"):
                found.append(Violation(method=method, path=path, said=(violation[1] or violation[2]).strip()))
        return tuple(found)

    def _mark(self) -> None:
        """A call that Prism writes down and does not pass on, as no GET with a body is."""
        mark = f"/mark-{time.monotonic_ns()}"
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=_PATIENCE_SECONDS)
        connection.request("GET", mark, body=b"{}", headers={"Content-Type": "application/json"})
        connection.getresponse().read()
        connection.close()
        _wait(lambda: any(mark in line for line in _lines(self.log)), f"Prism's log says nothing of {mark}")


@contextmanager
def running(folder: Path) -> Iterator[Prism]:
    """Prism with the description cut from the npm package; description and log are kept in `folder`."""
    description, log = folder / "github.json", folder / "prism.log"
    description.write_text(json.dumps(openapi.subset(openapi.load(NODE_MODULES))), encoding="utf-8")
    upstream = Upstream()
    command: list[str | Path] = ["node", _COMMAND, "proxy", description, upstream.url, "--port", "0"]
    upstream.start()
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            _wait(lambda: process.poll() is not None or bool(_url(log)), "Prism did not start")
            assert _url(log), f"Prism ended with {process.returncode}: {log.read_text(encoding='utf-8')[-2000:]}"
            yield Prism(url=_url(log), log=log, upstream=upstream)
        finally:
            process.terminate()
            upstream.stop()


def _url(log: Path) -> str:
    found = _LISTENING.search("\n".join(_lines(log)))
    return found[1] if found else ""


def _lines(log: Path) -> list[str]:
    return _COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace")).splitlines()


def _wait(done: Callable[[], bool], complaint: str) -> None:
    """For another process, on a machine that may be busy."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < end, complaint
        time.sleep(0.02)
