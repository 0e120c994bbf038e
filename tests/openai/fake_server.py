"""An OpenAI-compatible completions server in a thread of the test, as capable or as broken as a test wants it.

Scores are hashes of the tokens, so that a test can compute what a right client must find.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny"
STRANGE = frozenset({"top_k", "min_p", "repetition_penalty"})
"""Settings that are not in OpenAI's own interface."""

Body = dict[str, Any]
Encode = Callable[[str], list[int]]


def logprob(tokens: list[int], i: int) -> float:
    """Of token i of a prompt given those before it."""
    return -1.0 - _hashed(tokens[: i + 1]) / 1000


def is_greedy(tokens: list[int], i: int) -> bool:
    return _hashed(tokens[: i + 1]) % 4 != 0


def _hashed(tokens: list[int]) -> int:
    return int.from_bytes(hashlib.sha256(repr(tokens).encode()).digest()[:4]) % 3000


@dataclass
class Fake:
    """What the server can do, what goes wrong with it, and what it saw.

    Attributes:
        encode: its tokenizer, with the start token that it puts before text.
        fault: given a completions body and how often that body came before: None, or what to do instead.
            A number is an HTTP status, a dict changes the reply, a callable handles the request itself.
    """

    encode: Encode
    models: tuple[Mapping[str, Any], ...] = ({"id": MODEL, "owned_by": "fake", "max_model_len": 256},)
    takes_ids: bool = True
    echoes: bool = True
    streams: bool = True
    heeds_seeds: bool = True
    strange: bool = True
    says_usage: bool = True
    key: str | None = None
    delay_seconds: float = 0.0
    step_seconds: float = 0.001
    fault: Callable[[Body, int], Any] = lambda body, n: None
    bodies: list[Body] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _seen: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _now: int = 0
    _sampled: int = 0

    def forget(self) -> None:
        self.bodies.clear()
        self.headers.clear()
        self.most_at_once = 0

    def reply(self, body: Body) -> tuple[int, Any]:
        prompt = body["prompt"]
        if isinstance(prompt, list) and not self.takes_ids:
            return 422, {"detail": "prompt: expected a string"}
        if not self.strange and STRANGE & body.keys():
            return 400, {"error": {"message": f"unknown argument {sorted(STRANGE & body.keys())[0]}"}}
        tokens = prompt if isinstance(prompt, list) else self.encode(prompt)
        limit = self.models[0].get("max_model_len") or 10**6
        if len(tokens) + body["max_tokens"] > limit:
            return 400, {"error": {"message": f"maximum context length is {limit} tokens"}}
        choice: Body = {"index": 0, "finish_reason": "length", "logprobs": None, "text": self._text(body, tokens)}
        n_new = body["max_tokens"]
        for stop in body.get("stop", ()):
            if stop in choice["text"]:
                choice |= {"text": choice["text"].split(stop)[0], "finish_reason": "stop"}
                n_new = 2
        if body.get("echo") and body.get("logprobs") is not None and self.echoes:
            choice["logprobs"] = {
                "token_logprobs": [None, *(logprob(tokens, i) for i in range(1, len(tokens))), -0.5],
                "top_logprobs": [None, *(_top(tokens, i) for i in range(1, len(tokens))), {"x": -0.5}],
            }
        usage = {"prompt_tokens": len(tokens), "completion_tokens": n_new, "total_tokens": len(tokens) + n_new}
        return 200, {"model": body["model"], "choices": [choice], **({"usage": usage} if self.says_usage else {})}

    def _text(self, body: Body, tokens: list[int]) -> str:
        """A word per token: greedy ones come from the prompt, sampled ones from the seed as well."""
        salt: tuple[Any, ...] = ()
        if body.get("temperature", 1.0) > 0:
            self._sampled += 1
            salt = (body.get("seed"),) if self.heeds_seeds else (self._sampled,)
        digest = hashlib.sha256(repr((tokens, salt)).encode()).hexdigest()
        return "".join(f" w{digest[k % 60 : k % 60 + 3]}" for k in range(body["max_tokens"]))


def _top(tokens: list[int], i: int) -> dict[str, float]:
    """A greedy token is its own most likely one, alone in the table."""
    own = logprob(tokens, i)
    return {"own": own} if is_greedy(tokens, i) else {"own": own, "better": own / 2}


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """Run it on a free port of the loopback interface; `fake.url` says where."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            fake.headers.append(dict(self.headers))
            if self._is_stranger():
                return self.send(401, {"error": {"message": f"wrong key {self.headers.get('Authorization')}"}})
            if self.path == "/v1/models":
                return self.send(200, {"object": "list", "data": list(fake.models)})
            if self.path == "/version":
                return self.send(200, {"version": "1.2"})
            return self.send(404, {"detail": "Not Found"})

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            fake.headers.append(dict(self.headers))
            if self._is_stranger():
                return self.send(401, {"error": {"message": f"wrong key {self.headers.get('Authorization')}"}})
            if self.path != "/v1/completions":
                return self.send(404, {"detail": "Not Found"})
            body = json.loads(raw)
            name = json.dumps(body, sort_keys=True)
            with fake._lock:
                fake.bodies.append(body)
                n_before, fake._seen[name] = fake._seen[name], fake._seen[name] + 1
                fake._now += 1
                fake.most_at_once = max(fake.most_at_once, fake._now)
            try:
                time.sleep(fake.delay_seconds)
                return self._complete(body, fake.fault(body, n_before))
            finally:
                with fake._lock:
                    fake._now -= 1

        def _complete(self, body: Body, fault: Any) -> None:
            if callable(fault):
                fault(self)
                return None
            if isinstance(fault, int):
                return self.send(fault, {"error": {"message": "fault"}})
            status, reply = fake.reply(body)
            if status == 200 and body.get("stream"):
                return self._stream(body, reply) if fake.streams else self.send(400, {"error": "no streaming"})
            return self.send(status, {**reply, **(fault or {})})

        def _stream(self, body: Body, reply: Body) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            options = body.get("stream_options", {})
            for k in range(body["max_tokens"]):
                chunk: Body = {"model": body["model"], "choices": [{"index": 0, "text": f" w{k}"}]}
                if options.get("continuous_usage_stats") and fake.says_usage:
                    chunk["usage"] = {**reply["usage"], "completion_tokens": k + 1}
                self.event(chunk)
                time.sleep(fake.step_seconds)
            self.event({"model": body["model"], "choices": [], "usage": reply.get("usage")})
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True

        def event(self, chunk: Body) -> None:
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            self.wfile.flush()

        def _is_stranger(self) -> bool:
            return fake.key is not None and self.headers.get("Authorization") != f"Bearer {fake.key}"

        def send(self, status: int, data: Any, **headers: str) -> None:
            content = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:  # clients that hang up are part of the tests
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
