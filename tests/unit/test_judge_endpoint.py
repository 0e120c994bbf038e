"""The optional LLM judge, against a local HTTP server: both orders, agreement, failures that cost nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gate.backends import Generation
from gate.errors import DataError
from gate.policy import Judge
from gate.stages import judge_endpoint
from gate.stages.domain_data import Item
from gate.stages.domain_scores import Outcome
from gate.stages.judge_endpoint import JudgeFailed, Opinion, opinion, verify
from gate.stages.jury import Jury

Reply = Callable[[dict[str, Any]], tuple[int, Any]]


class Endpoint:
    """A server that answers by the function set on it and keeps what it was sent."""

    def __init__(self) -> None:
        self.reply: Reply = lambda body: (200, scores(5, 5))
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []
        self.url = ""


def scores(first: object, second: object) -> dict[str, Any]:
    return {"choices": [{"message": {"content": f"Well: {json.dumps({'first': first, 'second': second})}"}}]}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server calls
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append((self.path, self.headers.get("Authorization"), body))
            status, reply = state.reply(body)
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(judge_endpoint, "RETRY_SECONDS", (0.0, 0.0))
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def judge(endpoint: Endpoint) -> Judge:
    return Judge(url=endpoint.url, model="judge-1", rubric="Correct and short.")


def ask(endpoint: Endpoint) -> Opinion:
    return opinion(judge(endpoint), "secret", question="2+2?", reference="4", answer="four")


def by_content(table: dict[str, float]) -> Reply:
    """A judge that scores texts by what they are, wherever they stand."""

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        user = body["messages"][1]["content"]
        first, second = (user.split(f"<<<{k}>>>\n")[1].split("\n<<<end>>>")[0] for k in "12")
        return 200, scores(table[first], table[second])

    return reply


def test_both_orders_are_asked_and_averaged(endpoint: Endpoint) -> None:
    endpoint.reply = by_content({"4": 9, "four": 6})
    assert ask(endpoint) == Opinion(score=0.6, agreed=True)
    paths = {path for path, _, _ in endpoint.requests}
    assert paths == {"/v1/chat/completions"}
    assert {key for _, key, _ in endpoint.requests} == {"Bearer secret"}
    users = [body["messages"][1]["content"] for _, _, body in endpoint.requests]
    assert len(users) == 2
    assert users[0].index("<<<1>>>\n4\n") < users[0].index("<<<2>>>\nfour\n")
    assert users[1].index("<<<1>>>\nfour\n") < users[1].index("<<<2>>>\n4\n")
    assert all(body["temperature"] == 0 and body["model"] == "judge-1" for _, _, body in endpoint.requests)
    assert all(body["messages"][0]["content"].startswith("Correct and short.") for _, _, body in endpoint.requests)


def test_a_judge_that_prefers_the_first_place_disagrees_with_itself(endpoint: Endpoint) -> None:
    endpoint.reply = lambda body: (200, scores(9, 5))
    assert ask(endpoint) == Opinion(score=0.7, agreed=False)


def test_a_tie_in_both_orders_is_agreement(endpoint: Endpoint) -> None:
    endpoint.reply = lambda body: (200, scores(10, 10))
    assert ask(endpoint) == Opinion(score=1.0, agreed=True)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((401, {}), "HTTP 401"),
        ((500, {}), "HTTP 500"),
        ((200, b"<html>"), "not JSON"),
        ((200, {"error": "x"}), "without choices"),
        ((200, scores("good", 5)), "found first = 'good'"),
        ((200, scores(11, 5)), "found first = 11"),
        ((200, scores(True, 5)), "found first = True"),
        ((200, {"choices": [{"message": {"content": "no numbers"}}]}), "found first = None"),
    ],
)
def test_replies_that_are_no_opinion(endpoint: Endpoint, reply: tuple[int, Any], said: str) -> None:
    endpoint.reply = lambda body: reply
    with pytest.raises(JudgeFailed, match=said):
        ask(endpoint)


def test_a_busy_endpoint_is_asked_again(endpoint: Endpoint) -> None:
    statuses = iter([429, 503, 200, 200])
    endpoint.reply = lambda body: (next(statuses), scores(5, 5))
    assert ask(endpoint).score == 0.5
    assert len(endpoint.requests) == 4


def test_a_refused_request_is_not_repeated(endpoint: Endpoint) -> None:
    endpoint.reply = lambda body: (400, {})
    with pytest.raises(JudgeFailed):
        ask(endpoint)
    assert len(endpoint.requests) == 1


def test_settings_that_cannot_work() -> None:
    with pytest.raises(DataError, match=r"found judge\.url 'file:///etc/passwd'"):
        verify(Judge(url="file:///etc/passwd", model="m", rubric="r"), None)
    keyed = Judge(url="https://judge.example", model="m", rubric="r", api_key_env="JUDGE_KEY")
    with pytest.raises(DataError, match="found no value in the environment variable 'JUDGE_KEY'"):
        verify(keyed, None)
    verify(keyed, "key")


def outcomes(n: int) -> list[Outcome]:
    return [
        Outcome(
            item=Item(id=str(i), input=f"Q{i}", expected=f"R{i}", category="c", choices=None),
            item_id=f"s/{i}/h",
            position=i,
            prompt=f"Q{i}",
            output=f"A{i}",
            is_right=True,
            generation=Generation(text=f"A{i}", n_tokens=1, finish="stop"),
        )
        for i in range(n)
    ]


def test_the_jurys_failures_are_notes_not_lost_items(endpoint: Endpoint) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        return (400, {}) if "A1" in body["messages"][1]["content"] else (200, scores(8, 8))

    endpoint.reply = reply
    jury = Jury(judge(endpoint), None)
    heard = jury.hear(outcomes(3))
    assert [(o.metric, o.item_id, o.value) for o in heard] == [
        ("judge_score", "s/0/h", 0.8),
        ("judge_agreement", "s/0/h", 1.0),
        ("judge_score", "s/2/h", 0.8),
        ("judge_agreement", "s/2/h", 1.0),
    ]
    assert list(jury.notes()) == [
        "judge: no usable scores for 1 answers, first JudgeFailed: the endpoint answered HTTP 400"
    ]


def test_an_endpoint_that_is_down_is_not_waited_for_again(endpoint: Endpoint) -> None:
    endpoint.reply = lambda body: (500, {})
    jury = Jury(judge(endpoint), None)
    assert jury.hear(outcomes(2)) == []
    asked = len(endpoint.requests)
    assert asked == 6  # two answers, three attempts each
    assert jury.hear(outcomes(2)) == []
    assert len(endpoint.requests) == asked
    assert "not asked again" in next(jury.notes())


def test_no_judge_no_opinions() -> None:
    jury = Jury(None, None)
    assert jury.hear(outcomes(2)) == []
    assert list(jury.notes()) == []
