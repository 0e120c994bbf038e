"""`gate run --backend openai` with real workers: what the server cannot do is said, what it can is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from gate.cli import main
from tests.contract import tiny_llama
from tests.openai.fake_server import Fake, serving

STAGES: list[dict[str, Any]] = [
    {
        "kind": "perplexity",
        "name": "sanity",
        "corpora": [{"name": "prose", "path": "prose.txt", "window": 32, "stride": 32}],
        "rules": [{"metric": "perplexity", "corpus": "prose", "max_increase": "5%"}],
    },
    {
        "kind": "domain",
        "name": "fraud",
        "data": "questions.jsonl",
        "match": "regex",
        "max_new_tokens": 4,
        "stop": ["\n"],
        "rules": [{"metric": "accuracy", "max_drop": "5pp"}],
    },
]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    tiny_llama.save(tmp_path / "model")
    (tmp_path / "prose.txt").write_text("\n\n".join(f"{i} {tiny_llama.TEXT}" for i in range(12)), encoding="utf-8")
    items = [
        {"id": f"q{i}", "input": f"question {i}", "expected": " w[0-9a-f]{3}", "category": "any"} for i in range(200)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(i) + "\n" for i in items), encoding="utf-8")
    return tmp_path


def run(world: Path, engine: dict[str, Any], *more: str) -> int:
    policy = {"version": 1, "engines": {"openai": engine}, "stages": STAGES}
    (world / "policy.yaml").write_text(yaml.safe_dump(policy), encoding="utf-8")
    folders = [f"--baseline={world / 'model'}", f"--candidate={world / 'model'}", "--allow-identical"]
    places = [f"--out={world / 'out'}", f"--store={world / 'store'}"]
    return main(["run", f"--policy={world / 'policy.yaml'}", *folders, *places, "--backend=openai", "--offline", *more])


def test_without_an_address_one_sentence_says_where_to_write_it(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(world, {}) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "write `engines: {openai: {url: http://localhost:8000/v1}}` into the policy" in last


def test_a_server_without_log_probabilities_serves_the_other_stages(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_KEY", "sk-very-secret")
    encode = AutoTokenizer.from_pretrained(world / "model").encode
    with serving(Fake(encode=encode, echoes=False, key="sk-very-secret")) as fake:
        assert run(world, {"url": fake.url, "api_key_env": "SERVER_KEY"}, "--keep-going") == 4
        asked = [body for body in fake.bodies if body["max_tokens"] == 4]
    record = json.loads((world / "out" / "run.json").read_text())
    sanity, fraud = record["stages"]
    assert (sanity["status"], fraud["status"]) == ("ERROR", "PASS")
    (finding,) = sanity["findings"]
    assert "the openai backend cannot serve a perplexity stage here: it gives no log-probabilities" in finding["reason"]
    assert any("openai backend cannot serve perplexity stages" in note for note in record["notes"])
    assert fraud["items_scored"] > 0
    assert len(asked) == 200 + fraud["items_scored"]  # the baseline whole, the candidate until it was decided
    kept = [p.read_bytes() for p in (world / "out").rglob("*") if p.is_file()]
    assert not any(b"sk-very-secret" in content for content in kept)
