"""The fake model does what its `fake.json` says: tests elsewhere lean on that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gate.backends import Backend, Checkpoint, OutOfMemory, Window
from gate.backends.fake import open_backend
from gate.errors import CheckpointError

QUESTIONS = {f"question {i:03d}?": f"answer {i}" for i in range(400)}


def fake(folder: Path, device: str = "cpu", **settings: Any) -> Backend:
    folder.mkdir(exist_ok=True)
    (folder / "fake.json").write_text(json.dumps({"kind": "fake", **settings}))
    return open_backend(Checkpoint(path=str(folder), load={}, dtype="auto", tokenizer=None), device)


def generate(backend: Backend, prompts: list[str]) -> list[str]:
    return [g.text for g in backend.generate(prompts, max_new_tokens=99, stop=["\n"], temperature=0.0, seed=0)]


def wrong(backend: Backend) -> set[str]:
    texts = generate(backend, [f"Example: question 001?\nanswer 1\n\n{q}\n" for q in QUESTIONS])
    return {q for q, text in zip(QUESTIONS, texts, strict=True) if text != QUESTIONS[q]}


def test_known_questions_are_answered_but_for_the_error_rate(tmp_path: Path) -> None:
    assert wrong(fake(tmp_path / "a", answers=QUESTIONS)) == set()
    some = wrong(fake(tmp_path / "b", answers=QUESTIONS, error_rate=0.1))
    more = wrong(fake(tmp_path / "c", answers=QUESTIONS, error_rate=0.2))
    others = wrong(fake(tmp_path / "d", answers=QUESTIONS, error_rate=0.1, seed=1))
    assert 20 <= len(some) <= 60
    assert some < more
    assert len(some & others) < min(len(some), len(others))


def test_choices_are_ranked_as_questions_are_answered(tmp_path: Path) -> None:
    backend = fake(tmp_path, answers=QUESTIONS, error_rate=0.1)
    choices = [" no", " a rather longer wrong choice", " maybe"]
    lost = set()
    for question, answer in QUESTIONS.items():
        scores = [x for x, _ in backend.loglikelihood([(question, c) for c in [f" {answer}", *choices]])]
        if max(scores) != scores[0]:
            lost.add(question)
    assert lost == wrong(backend)


def test_answers_can_come_from_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(
        '{"id": 1, "input": "Who?", "expected": "me"}\n\n{"input": "N?", "expected": 3}\n'
    )
    assert generate(fake(tmp_path, answers="data.jsonl"), ["Who?", "N?"]) == ["me", "3"]


def test_perplexity_has_the_level_the_shift_and_the_noise_asked_for(tmp_path: Path) -> None:
    def nll(**settings: Any) -> np.ndarray[Any, Any]:
        backend = fake(tmp_path / "x", **settings)
        tokens = backend.encode("The quick brown fox jumps over the lazy dog. " * 20 + "Pack my box with jugs." * 20)
        (scores,) = backend.score([Window(tokens=(0, *tokens), n_scored=len(tokens))], top_k=0, at_ids=None)
        return scores.nll_nats

    base = nll(nll_nats=2.0)
    assert base.mean() == pytest.approx(2.0, abs=0.3)
    assert (base == nll(nll_nats=2.0, seed=5)).all()
    np.testing.assert_allclose(nll(nll_nats=2.0, nll_shift=0.1) - base, 0.1)
    noisy = nll(nll_nats=2.0, nll_noise=0.3, seed=5) - base
    assert 0.1 < noisy.std() < 0.3
    assert np.abs(noisy).max() <= 0.3


def test_the_same_text_scores_the_same_in_another_window(tmp_path: Path) -> None:
    backend = fake(tmp_path)
    tokens = tuple(backend.encode("the same text, wherever the window begins"))
    long, short = backend.score(
        [Window(tokens=tokens, n_scored=10), Window(tokens=tokens[20:], n_scored=10)], top_k=5, at_ids=None
    )
    assert (long.nll_nats == short.nll_nats).all()
    assert long.top_ids is not None
    assert short.top_ids is not None
    assert (long.top_ids == short.top_ids).all()


def test_without_logits_there_is_no_top_k(tmp_path: Path) -> None:
    (scores,) = fake(tmp_path, has_logits=False).score([Window(tokens=(0, 9), n_scored=1)], top_k=5, at_ids=None)
    assert scores.top_ids is None
    assert len(scores.nll_nats) == 1


def test_speed_and_memory_are_as_set(tmp_path: Path) -> None:
    backend = fake(
        tmp_path, "cuda", decode_tokens_per_second=100, prefill_tokens_per_second=1000, timing_noise=0.01, vram_bytes=7
    )
    timing = backend.timed_batch(batch_size=2, prompt_tokens=50, new_tokens=9, seed=0)
    assert timing.ttft_seconds == pytest.approx(0.1, rel=0.01)
    assert timing.step_seconds == pytest.approx([0.02] * 8, rel=0.01)
    assert timing != backend.timed_batch(batch_size=2, prompt_tokens=50, new_tokens=9, seed=0)
    assert backend.memory_bytes() == {"rss_peak_bytes": 100_000_000, "vram_peak_bytes": 7, "vram_reserved_bytes": 7}


@pytest.mark.parametrize(
    ("action", "error"), [("raise", RuntimeError), ("memory_error", MemoryError), ("out_of_memory", OutOfMemory)]
)
def test_faults_strike_their_operation_when_due(tmp_path: Path, action: str, error: type[Exception]) -> None:
    backend = fake(tmp_path, faults=[{"op": "generate", "after": 2, "action": action}])
    assert len(generate(backend, ["a", "b"])) == 2
    backend.loglikelihood([("a", "b")])
    with pytest.raises(error):
        generate(backend, ["c"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"fake\.json is missing"),
        ("{", "Invalid JSON"),
        ('{"kind": "fake", "eror_rate": 0.1}', "eror_rate: Extra inputs are not permitted"),
        ('{"kind": "fake", "error_rate": 2}', "error_rate: Input should be less than or equal to 1"),
        ('{"kind": "fake", "answers": "nowhere.jsonl"}', r"answers .*nowhere\.jsonl: FileNotFoundError"),
    ],
)
def test_a_wrong_fake_json_is_explained(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "fake.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        open_backend(Checkpoint(path=str(tmp_path), load={}, dtype="auto", tokenizer=None), "cpu")
