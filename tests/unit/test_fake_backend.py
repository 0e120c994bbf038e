"""The fake model does what its `fake.json` says: tests elsewhere lean on that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from gate.backends import Arrival, Backend, Checkpoint, OutOfMemory, Window
from gate.backends.fake import FakeBackend, open_backend
from gate.errors import CheckpointError, CouldNotMeasure

QUESTIONS = {f"question {i:03d}?": f"answer {i}" for i in range(400)}


def fake(folder: Path, device: str = "cpu", **settings: Any) -> FakeBackend:
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


def test_speed_is_as_set(tmp_path: Path) -> None:
    backend = fake(tmp_path, decode_tokens_per_second=100, prefill_tokens_per_second=1000, timing_noise=0.01)
    timing = backend.timed_batch(batch_size=2, prompt_tokens=50, new_tokens=9, seed=0)
    assert timing.ttft_seconds == pytest.approx(0.1, rel=0.01)
    assert timing.step_seconds == pytest.approx([0.02] * 8, rel=0.01)
    assert timing.energy_joules is None
    assert timing != backend.timed_batch(batch_size=2, prompt_tokens=50, new_tokens=9, seed=0)


def test_energy_is_as_set(tmp_path: Path) -> None:
    timing = fake(tmp_path, joules_per_token=0.5).timed_batch(batch_size=2, prompt_tokens=50, new_tokens=9, seed=0)
    assert timing.energy_joules == 0.5 * 2 * 9


def test_memory_is_as_set(tmp_path: Path) -> None:
    cpu = {"rss_peak_bytes": 100_000_000, "load_rss_peak_bytes": 100_000_000, "activation_peak_bytes": 5}
    assert fake(tmp_path, activation_peak_bytes=5).memory_bytes() == cpu
    cuda = {"vram_peak_bytes": 7, "vram_reserved_bytes": 7, "load_vram_peak_bytes": 7, "vram_unused_bytes": 0}
    assert fake(tmp_path, "cuda", activation_peak_bytes=5, vram_bytes=7).memory_bytes() == cpu | cuda
    seen = {"vram_context_bytes": 3, "vram_process_bytes": 10}
    backend = fake(tmp_path, "cuda:0", activation_peak_bytes=5, vram_bytes=7, vram_context_bytes=3)
    assert backend.memory_bytes() == cpu | cuda | seen
    own = fake(tmp_path, rss_peak_bytes=None, activation_peak_bytes=None).memory_bytes()
    assert set(own) == {"rss_peak_bytes", "load_rss_peak_bytes"}
    assert own["rss_peak_bytes"] > 10_000_000, "that of this process"


def test_the_footprint_is_as_set(tmp_path: Path) -> None:
    found = fake(tmp_path, n_parameters=10, weights_bytes=40, kv_bytes_per_token=3, kv_cache_tokens=100).footprint()
    assert (found.weights_bytes, found.flops_per_token, found.kv_cache_reserved_bytes) == (40, 20, 300)
    unknown = fake(tmp_path, weights_bytes=None, kv_bytes_per_token=None).footprint()
    assert (unknown.weights_bytes, unknown.kv_bytes_per_token, unknown.kv_cache_reserved_bytes) == (None, None, None)


def test_rates_are_as_set(tmp_path: Path) -> None:
    rates = fake(tmp_path, copy_bytes_per_second=5, matmul_flops_per_second=6).rates()
    assert rates is not None
    assert (rates.copy_bytes_per_second, rates.matmul_flops_per_second) == (5, 6)
    assert fake(tmp_path, copy_bytes_per_second=None).rates() is None


def test_batches_beyond_what_fits_run_out_of_memory(tmp_path: Path) -> None:
    backend = fake(tmp_path, fits_batch=4, serves_requests_per_second=10)
    backend.timed_batch(batch_size=4, prompt_tokens=5, new_tokens=3, seed=0)
    with pytest.raises(OutOfMemory, match="batch size 8: 4 fit"):
        backend.timed_batch(batch_size=8, prompt_tokens=5, new_tokens=3, seed=0)
    with pytest.raises(OutOfMemory):
        backend.serve([Arrival(at_seconds=0.0, prompt_tokens=5, new_tokens=3)], concurrency=5, seed=0)


class TestServing:
    """10 requests a second at most; each takes 0.01 s to its first token and 0.09 s for the other nine."""

    SETTINGS: ClassVar[dict[str, Any]] = {
        "serves_requests_per_second": 10,
        "timing_noise": 0,
        "prefill_tokens_per_second": 1000,
        "decode_tokens_per_second": 100,
    }

    def arrivals(self, *at_seconds: float) -> list[Arrival]:
        return [Arrival(at_seconds=at, prompt_tokens=10, new_tokens=10) for at in at_seconds]

    def test_requests_that_come_slowly_wait_for_nothing(self, tmp_path: Path) -> None:
        served = fake(tmp_path, **self.SETTINGS).serve(self.arrivals(0.0, 0.5, 0.6), concurrency=None, seed=0)
        assert [s.due_seconds for s in served] == [0.0, 0.5, 0.6]
        assert [s.first_token_seconds - s.due_seconds for s in served] == pytest.approx([0.01] * 3)
        assert [s.last_token_seconds - s.due_seconds for s in served] == pytest.approx([0.10] * 3)

    def test_requests_that_come_too_fast_wait_in_a_row(self, tmp_path: Path) -> None:
        served = fake(tmp_path, **self.SETTINGS).serve(self.arrivals(0.0, 0.0, 0.05, 0.1), concurrency=None, seed=0)
        assert [s.first_token_seconds for s in served] == pytest.approx([0.01, 0.11, 0.21, 0.31])
        assert [s.due_seconds for s in served] == [0.0, 0.0, 0.05, 0.1]

    def test_a_closed_loop_sends_the_next_when_one_is_done(self, tmp_path: Path) -> None:
        fast = self.SETTINGS | {"serves_requests_per_second": 1e9}
        served = fake(tmp_path, **fast).serve(self.arrivals(*[9.0] * 5), concurrency=2, seed=0)
        assert [s.due_seconds for s in served] == pytest.approx([0.0, 0.0, 0.1, 0.1, 0.2], abs=1e-6)

    def test_without_a_capacity_no_load_is_served(self, tmp_path: Path) -> None:
        with pytest.raises(CouldNotMeasure, match="serves_requests_per_second"):
            fake(tmp_path).serve(self.arrivals(0.0), concurrency=None, seed=0)


class TestScripts:
    """What e2e tests lean on: a slow stretch, one that only the first process sees, and a disturbed machine."""

    def steps(self, backend: Backend, n: int) -> list[float]:
        runs = [backend.timed_batch(batch_size=1, prompt_tokens=5, new_tokens=2, seed=0) for _ in range(n)]
        return [run.step_seconds[0] for run in runs]

    def test_a_slow_down_lasts_from_batch_to_batch(self, tmp_path: Path) -> None:
        script: dict[str, Any] = {"timing_noise": 0, "decode_tokens_per_second": 1, "slow_down": 3}
        assert self.steps(fake(tmp_path, **script), 3) == [3, 3, 3]
        assert self.steps(fake(tmp_path, **script, slow_after=1, slow_until=3), 4) == [1, 3, 3, 1]

    def test_once_it_is_slow_in_the_process_that_takes_the_file_away(self, tmp_path: Path) -> None:
        mark = tmp_path / "slow"
        mark.touch()
        script: dict[str, Any] = {
            "timing_noise": 0,
            "decode_tokens_per_second": 1,
            "slow_down": 3,
            "slow_once": str(mark),
        }
        assert self.steps(fake(tmp_path / "a", **script), 2) == [3, 3]
        assert not mark.exists()
        assert self.steps(fake(tmp_path / "a", **script), 2) == [1, 1]

    def test_the_machine_is_as_scripted_block_by_block(self, tmp_path: Path) -> None:
        backend = fake(tmp_path, conditions=[{"cpu_wait_share": 0.5}, {}])
        found = []
        for _ in range(3):
            watch = backend.watch()
            watch.start()
            found.append(watch.finish())
        assert found == [{"cpu_wait_share": 0.5}, {}, {}]
        assert fake(tmp_path).watch().finish()["cpu_wait_share"] == 0


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
