"""The openai backend against servers that fail: each failure ends in a clear error of one item, or of the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gate.backends import Checkpoint, Generation, Window
from gate.backends import openai_client as client_module
from gate.backends.openai import OpenaiBackend, open_backend
from gate.backends.openai_client import Client, RequestFailed, address
from gate.backends.openai_stream import arrivals
from gate.errors import CouldNotMeasure, UsageError
from gate.launch import _IDLE_CPU_SHARE
from gate.stages.isolation import Failed, each
from tests.contract import tiny_llama
from tests.openai.fake_server import Body, Fake, serving

BAD = 5
"""`max_tokens` of the request that a fault strikes: the probes' differ."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def encode(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).encode


@pytest.fixture
def fake(encode: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_SECONDS", 0.001)
    with serving(Fake(encode=encode)) as running:
        yield running


def opened(fake: Fake, folder: Path, **engine: Any) -> OpenaiBackend:
    settings = {"url": fake.url, "retries": 2, **engine}
    backend = open_backend(
        Checkpoint(path=str(folder), load={}, dtype="float32", tokenizer=None, engine=settings), "cpu"
    )
    fake.forget()
    return backend


def ask(backend: OpenaiBackend, prompts: list[str], max_new_tokens: int = BAD) -> list[Generation]:
    return backend.generate(prompts, max_new_tokens=max_new_tokens, stop=[], temperature=0.0, seed=0)


def strikes(what: Any, *, times: int = 10**6, prompt: list[int] | None = None) -> Callable[[Body, int], Any]:
    """A fault of the first `times` requests of `BAD` tokens, or of those with one prompt."""

    def fault(body: Body, n_before: int) -> Any:
        meant = body["max_tokens"] == BAD and prompt in (None, body["prompt"])
        return what if meant and n_before < times else None

    return fault


def hang(handler: Any) -> None:
    time.sleep(1.2)


def close_half_way(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def close_at_once(handler: Any) -> None:
    handler.close_connection = True
    handler.connection.close()


def trickle(handler: Any) -> None:
    """Never quiet for long, never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(120):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.01)


PASSING = [
    (500, "HTTP 500: fault"),
    (503, "HTTP 503: fault"),
    (429, "HTTP 429: fault"),
    (close_half_way, "the connection failed"),
    (close_at_once, "the connection failed"),
    (lambda handler: handler.send(200, b"<html>"), "the answer is not JSON: '<html>'"),
    (hang, "no complete answer within 0.5 s"),
    (trickle, "no complete answer within 0.5 s"),
]
"""Faults that may pass, and what is said of them."""


def patience(what: Any) -> float:
    """Short where the time-out is what is tested, long on a busy machine."""
    return 0.5 if what in (hang, trickle) else 30


@pytest.mark.parametrize(("what", "says"), PASSING)
def test_a_failure_that_passes_changes_nothing(fake: Fake, folder: Path, what: Any, says: str) -> None:
    backend = opened(fake, folder, timeout_seconds=patience(what))
    right = ask(backend, ["a", "b"])
    fake.forget()
    fake._seen.clear()
    fake.fault = strikes(what, times=2, prompt=[0, *backend.encode("b")])
    assert ask(backend, ["a", "b"]) == right
    assert len(fake.bodies) == 4


@pytest.mark.parametrize(("what", "says"), PASSING)
def test_a_failure_of_one_item_stays_its_own(fake: Fake, folder: Path, what: Any, says: str) -> None:
    backend = opened(fake, folder, timeout_seconds=patience(what))
    right = ask(backend, ["a", "c"])
    fake.forget()
    fake.fault = strikes(what, prompt=[0, *backend.encode("b")])
    first, failure, last = each(lambda items: ask(backend, list(items)), ["a", "b", "c"])
    assert [first, last] == right
    assert isinstance(failure, Failed)
    assert says in failure.message
    assert "(asked 3 times); the server answers other requests" in failure.message
    assert len([b for b in fake.bodies if b["max_tokens"] == BAD]) == 5  # nobody is asked again item by item


@pytest.mark.parametrize(("what", "says"), PASSING)
def test_a_server_that_answers_nobody_is_gone(fake: Fake, folder: Path, what: Any, says: str) -> None:
    backend = opened(fake, folder, timeout_seconds=patience(what))
    fake.fault = lambda body, n: what
    with pytest.raises(CouldNotMeasure, match="is gone or broken") as failure:
        ask(backend, ["a", "b"])
    assert says in str(failure.value)
    assert fake.url in str(failure.value)


def test_a_server_that_was_stopped_is_gone(encode: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_SECONDS", 0.001)
    with serving(Fake(encode=encode)) as fake:
        backend = opened(fake, folder)
    with pytest.raises(CouldNotMeasure, match="is gone or broken: the connection failed"):
        ask(backend, ["a"])
    with pytest.raises(CouldNotMeasure, match="a streamed completion failed"):
        backend.timed_batch(batch_size=2, prompt_tokens=4, new_tokens=3, seed=0)
    with pytest.raises(CouldNotMeasure, match="is of no use: the connection failed"):
        opened(fake, folder)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_is_not_repeated(fake: Fake, folder: Path, status: int) -> None:
    backend = opened(fake, folder)
    fake.fault = strikes(status)
    with pytest.raises(RequestFailed, match=f"refuses the request \\(HTTP {status}: fault\\)"):
        ask(backend, ["a"])
    assert len(fake.bodies) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"choices": []}, "found 0 choices, expected 1"),
        ({"choices": [{"text": "a"}, {"text": "b"}]}, "found 2 choices, expected 1"),
        ({"choices": None}, "found the reply"),
        ({"model": "other"}, "the model 'other' answered, expected 'tiny'"),
        ({"usage": {"prompt_tokens": 1, "completion_tokens": 5}}, "read 1 tokens of prompt, expected the 2"),
        ({"usage": None}, r"usage\.prompt_tokens = None"),
        ({"usage": {"prompt_tokens": 2, "completion_tokens": -1}}, r"usage\.completion_tokens = -1"),
        ({"choices": [{"text": None, "finish_reason": "stop"}]}, "found the text None"),
        ({"choices": [{"text": "x", "finish_reason": "abort"}]}, "ended by 'abort'"),
        ({"choices": [{"text": "x"}]}, "ended by None"),
    ],
)
def test_a_reply_that_is_not_what_was_asked_for(fake: Fake, folder: Path, change: Body, says: str) -> None:
    backend = opened(fake, folder)
    fake.fault = strikes(change)
    with pytest.raises(RequestFailed, match=says):
        ask(backend, ["a"])
    assert len(fake.bodies) == 1


def echoed(values: list[Any], tops: list[Any]) -> Body:
    return {"choices": [{"logprobs": {"token_logprobs": values, "top_logprobs": tops}}]}


@pytest.mark.parametrize(
    ("value", "found"),
    [(None, np.nan), (float("nan"), np.nan), (-9999.0, -np.inf), (float("-inf"), -np.inf), (-2, -2.0), (1e-7, 1e-7)],
)
def test_a_log_probability_that_is_missing_is_not_a_number(fake: Fake, folder: Path, value: Any, found: float) -> None:
    backend = opened(fake, folder)
    fake.fault = lambda body, n: echoed([None, -1.0, value, -3.0], [None, {"x": -1.0}, {"x": value}, {"x": -1.0}])
    (scores,) = backend.score([Window(tokens=(0, 7, 8), n_scored=2)], top_k=0, at_ids=None)
    np.testing.assert_array_equal(-scores.nll_nats, [-1.0, found])
    ((total, _),) = backend.continuations([([0, 7, 8], 2)])
    np.testing.assert_equal(total, -1.0 + found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (echoed([None, -1.0], [None, {"x": -1.0}]), "found 2 log-probabilities and 2 tables .* each of 3 tokens"),
        (echoed([None, -1.0, -1.0], [None]), "found 3 log-probabilities and 1 tables"),
        (echoed([None, -1.0, 0.5], [None, {"x": -1.0}, {"x": -1.0}]), "found the log-probability 0.5"),
        (echoed([None, -1.0, "-1"], [None, {"x": -1.0}, {"x": -1.0}]), "found the log-probability '-1'"),
        (echoed([None, -1.0, -1.0], [None, {"x": -1.0}, {}]), "found the top log-probabilities {}"),
        ({"choices": [{"logprobs": None}]}, "found no log-probabilities"),
    ],
)
def test_log_probabilities_that_cannot_be_right(fake: Fake, folder: Path, change: Body, says: str) -> None:
    backend = opened(fake, folder)
    fake.fault = lambda body, n: change
    with pytest.raises(RequestFailed, match=says):
        backend.continuations([([0, 7, 8], 2)])
    with pytest.raises(CouldNotMeasure, match=says):
        list(backend.score([Window(tokens=(0, 7, 8), n_scored=2)], top_k=0, at_ids=None))


def test_a_retry_waits_as_long_as_it_is_asked_to(fake: Fake, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    backend = opened(fake, folder, timeout_seconds=20, retries=4)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(client_module, "FIRST_PAUSE_SECONDS", 0.5)
    fake.fault = strikes(lambda handler: handler.send(429, {}, Retry_After="7"), times=1)
    ask(backend, ["a"])
    fake.fault = strikes(lambda handler: handler.send(503, {}, Retry_After="3600"), times=1)
    ask(backend, ["b"])
    fake.fault = strikes(lambda handler: handler.send(503, {}, Retry_After="soon"), times=4)
    ask(backend, ["c"])
    assert waited[:2] == [7.0, 20]
    for pause, base in zip(waited[2:], [0.5, 1.0, 2.0, 4.0], strict=True):
        assert 0.5 * base <= pause <= 1.5 * base


def test_a_date_to_retry_after() -> None:
    read = client_module._retry_after_seconds
    assert read("Fri, 01 Jan 2100 00:00:00 GMT") > 10**9
    assert [read(x) for x in (None, "-3", "nan", "Fri, 01 Jan 2010 00:00:00 GMT", "soon", "2.5")] == [
        0,
        0,
        0,
        0,
        0,
        2.5,
    ]


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SERVER_KEY", "sk-very-secret")
    return "sk-very-secret"


def test_the_key_is_sent_and_never_said(
    fake: Fake, folder: Path, secret: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    fake.key = secret
    backend = opened(fake, folder, api_key_env="SERVER_KEY")
    ask(backend, ["a"])
    assert {h["Authorization"] for h in fake.headers} == {f"Bearer {secret}"}
    fake.key = "another"  # the fake's message repeats the header
    with pytest.raises(CouldNotMeasure, match=r"refuses us at .* wrong key Bearer \[key\]") as failure:
        ask(backend, ["b"])
    assert "engines.openai.api_key_env" in str(failure.value)
    assert secret not in repr(backend._client.server) + str(backend.info) + str(failure.value) + caplog.text
    assert secret not in "".join(capfd.readouterr())


def test_a_redirect_is_not_followed(fake: Fake, folder: Path, encode: Any, secret: str) -> None:
    with serving(Fake(encode=encode)) as elsewhere:
        backend = opened(fake, folder, api_key_env="SERVER_KEY")
        fake.fault = lambda body, n: lambda handler: handler.send(307, {}, Location=f"{elsewhere.url}/completions")
        with pytest.raises(CouldNotMeasure, match=r"HTTP 307.*sends us to"):
            ask(backend, ["a"])
        assert elsewhere.headers == []


def test_a_wrong_path_says_what_the_address_should_be(fake: Fake, folder: Path) -> None:
    with pytest.raises(CouldNotMeasure, match=r"no OpenAI-compatible endpoint at .*/models .* ending with /v1"):
        opened(fake, folder, url=fake.url.removesuffix("/v1"))


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ({}, r"write `engines: \{openai: \{url: http://localhost:8000/v1\}\}` into the policy"),
        ({"url": "ftp://host/v1"}, "found engines.openai.url 'ftp://host/v1', expected http:// or https://"),
        ({"url": "file:///etc/passwd"}, "expected http:// or https://"),
        ({"url": "localhost:8000"}, "expected http:// or https://"),
        ({"url": "http://host:port/v1"}, "expected http:// or https://"),
        ({"url": "http://user:hidden@host/v1"}, "found engines.openai.url 'host/v1'"),
        ({"url": "http://host/v1?key=hidden"}, "expected http:// or https://"),
        ({"url": "http://host/v1", "api_key_env": "NO_SUCH_KEY"}, "no value in the environment variable 'NO_SUCH_KEY'"),
    ],
)
def test_settings_that_no_request_could_repair(engine: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as failure:
        address(engine)
    assert "user:hidden" not in str(failure.value)


def test_waiting_for_a_slow_server_does_not_look_like_a_hang(encode: Any) -> None:
    with serving(Fake(encode=encode, delay_seconds=1.6)) as fake:
        client = Client(address({"url": fake.url}))
        begun, used = time.monotonic(), time.process_time()
        client.ask([{"model": "tiny", "prompt": [1], "max_tokens": 1}], [lambda reply: reply])
        assert time.process_time() - used > 2 * _IDLE_CPU_SHARE * (time.monotonic() - begun)


def test_an_answer_without_end_is_cut(fake: Fake, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = opened(fake, folder)
    monkeypatch.setattr(client_module, "MAX_REPLY_BYTES", 10_000)
    fake.fault = strikes(lambda handler: handler.send(200, b" " * 20_000))
    with pytest.raises(RequestFailed, match="larger than 10000 bytes"):
        ask(backend, ["a"])


def chunk(text: str, so_far: int | None = None) -> Body:
    usage = {} if so_far is None else {"usage": {"completion_tokens": so_far}}
    return {"choices": [{"text": text}], **usage}


END: Body = {"choices": [], "usage": {"completion_tokens": 4}}
DONE = b"[DONE]"


def came(*events: tuple[float, Any]) -> list[tuple[float, bytes]]:
    return [(at, data if isinstance(data, bytes) else json.dumps(data).encode()) for at, data in events]


@pytest.mark.parametrize(
    "events",
    [
        [(1.0, chunk("a", 1)), (2.0, chunk("b", 2)), (3.0, chunk("", 3)), (4.0, chunk("d", 4)), (4.0, END)],
        [(1.0, chunk("a")), (2.0, chunk("b")), (3.0, chunk("c")), (4.0, chunk("d")), (4.1, chunk("")), (4.2, END)],
        [(1.0, chunk("a", 1)), (4.0, chunk("bcd", 4)), (4.0, END), (4.0, DONE)],
        [(1.0, chunk("a", 1)), (4.0, chunk("b", 2)), (4.00001, chunk("c", 3)), (4.00002, chunk("d", 4)), (5.0, END)],
    ],
)
def test_tokens_that_come_together_share_their_time(events: Any) -> None:
    assert arrivals(came(*events), 4) == pytest.approx([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([(1.0, chunk("a", 1)), (2.0, chunk("b", 2)), (3.0, END)], "had 2 tokens, expected exactly 4"),
        ([(n, chunk("a", n)) for n in (1, 2, 3, 4, 5)], "had 5 tokens, expected exactly 4"),
        ([(1.0, chunk("abcd")), (2.0, chunk("")), (2.0, END)], "had 1 tokens, expected exactly 4"),
        ([(1.0, chunk("abcd", 4)), (2.0, END)], "4 of 4 streamed tokens came together with the first"),
        ([(1 + n / 10**6, chunk("a", n)) for n in (1, 2, 3)] + [(2, chunk("d", 4))], "3 of 4 streamed tokens"),
        ([(1.0, chunk("a", 1)), (2.0, {"error": {"message": "engine died"}})], "engine died"),
        ([(1.0, b"{")], "not JSON"),
        ([(1.0, END)], "had 0 tokens"),
        ([], "had 0 tokens"),
    ],
)
def test_a_stream_that_cannot_be_timed(events: Any, says: str) -> None:
    with pytest.raises(CouldNotMeasure, match=says):
        arrivals(came(*events), 4)


@pytest.mark.parametrize(("lumps", "served"), [(2, True), (3, False)])
def test_a_batch_that_was_held_back_is_timed_again(fake: Fake, folder: Path, lumps: int, served: bool) -> None:
    backend = opened(fake, folder)

    def held_back(handler: Any) -> None:
        handler.send(200, b"".join(b"data: " + json.dumps(chunk("a", n)).encode() + b"\n\n" for n in (1, 2, 3)))

    fake.step_seconds = 0.1
    fake.fault = lambda body, n: held_back if n < lumps else None
    with contextlib.nullcontext() if served else pytest.raises(CouldNotMeasure, match="3 of 3 streamed tokens"):
        backend.timed_batch(batch_size=1, prompt_tokens=4, new_tokens=3, seed=0)
    assert len(fake.bodies) == min(lumps + 1, 3)


@pytest.mark.parametrize(
    ("what", "says"), [(500, "HTTP 500"), (401, "refuses us"), (400, "HTTP 400"), (hang, "did not end within 0.5 s")]
)
def test_timing_is_not_repeated(fake: Fake, folder: Path, what: Any, says: str) -> None:
    backend = opened(fake, folder, timeout_seconds=patience(what))
    fake.fault = lambda body, n: what
    with pytest.raises(CouldNotMeasure, match=says):
        backend.timed_batch(batch_size=1, prompt_tokens=4, new_tokens=4, seed=0)
    assert len(fake.bodies) == 1
