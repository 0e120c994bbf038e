"""The fake's `jitter`: what an A/A run has to find."""

from __future__ import annotations

import json
from pathlib import Path

from gate.backends import Checkpoint
from gate.backends.fake import open_backend

QUESTIONS = {f"question {i:03d}?": f"answer {i}" for i in range(400)}


def wrong(folder: Path, batch_size: int | None, **settings: float) -> set[str]:
    (folder / "fake.json").write_text(json.dumps({"kind": "fake", "answers": QUESTIONS, **settings}))
    backend = open_backend(
        Checkpoint(path=str(folder), load={}, dtype="auto", tokenizer=None, batch_size=batch_size), "cpu"
    )
    texts = backend.generate(list(QUESTIONS), max_new_tokens=99, stop=[], temperature=0.0, seed=0)
    return {q for q, found in zip(QUESTIONS, texts, strict=True) if found.text != QUESTIONS[q]}


def test_other_batch_sizes_flip_a_share_of_the_answers(tmp_path: Path) -> None:
    own = wrong(tmp_path, None, error_rate=0.3, jitter=0.1)
    assert own == wrong(tmp_path, None, error_rate=0.3)
    four, seven = (wrong(tmp_path, size, error_rate=0.3, jitter=0.1) for size in (4, 7))
    for other in (four, seven):
        assert 20 <= len(own ^ other) <= 60
        assert own - other  # some that it had wrong are right now
        assert other - own
    assert own ^ four != own ^ seven


def test_without_jitter_the_batch_size_changes_nothing(tmp_path: Path) -> None:
    assert wrong(tmp_path, 4, error_rate=0.3) == wrong(tmp_path, None, error_rate=0.3)
