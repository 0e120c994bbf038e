"""What a timed batch counts, and what it says when tokens do not come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from gate.backends import Arrival, Checkpoint, OutOfMemory
from gate.backends.hf import HFBackend, open_backend
from gate.backends.marks import Marks
from gate.errors import CouldNotMeasure
from tests.contract import tiny_llama

SHAPE: dict[str, int] = {"batch_size": 2, "prompt_tokens": 8, "new_tokens": 5, "seed": 0}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> HFBackend:
    torch.set_num_threads(1)
    folder = tiny_llama.save(tmp_path_factory.mktemp("llama"))
    return open_backend(Checkpoint(path=str(folder), load={}, dtype="auto", tokenizer=None), "cpu")


@pytest.fixture
def asked(backend: HFBackend, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `generate` is called with."""
    calls: list[dict[str, Any]] = []
    generate = backend._model.generate

    def noted(**arguments: Any) -> Any:
        calls.append(arguments)
        return generate(**arguments)

    monkeypatch.setattr(backend._model, "generate", noted)
    return calls


def test_prompts_are_random_by_their_seed(backend: HFBackend, asked: list[dict[str, Any]]) -> None:
    for seed in (1, 1, 2):
        backend.timed_batch(**{**SHAPE, "seed": seed})
    first, again, other = (call["input_ids"] for call in asked)
    assert first.shape == (2, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_sequence_goes_on_to_the_last_token(backend: HFBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a model whose every token is an end, and whose own settings ask for sampling and a short answer."""
    own = backend._model.generation_config
    vocabulary = backend.info.vocabulary_size
    monkeypatch.setattr(own, "eos_token_id", list(range(vocabulary)))
    monkeypatch.setattr(own, "max_new_tokens", 2)
    timing = backend.timed_batch(**{**SHAPE, "new_tokens": 9})
    assert len(timing.step_seconds) == 8
    assert backend._model.generation_config is own


@pytest.mark.parametrize("slow", ["prefill", "decoding"])
def test_each_phase_is_counted_where_it_is_waited_for(backend: HFBackend, slow: str) -> None:
    def delay(_: object, arguments: object, keywords: dict[str, Any]) -> None:
        is_prefill = keywords["input_ids"].shape[1] > 1
        if is_prefill == (slow == "prefill"):
            time.sleep(0.1)

    hook = backend._model.register_forward_pre_hook(delay, with_kwargs=True)
    try:
        timing = backend.timed_batch(**SHAPE)
    finally:
        hook.remove()
    first, later = timing.ttft_seconds, median(timing.step_seconds)
    assert (first >= 0.1) if slow == "prefill" else (min(timing.step_seconds) >= 0.1)
    assert (first > later) == (slow == "prefill")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (0, r"no tokens were generated at batch size 2, 8 \+ 5 tokens: there is no first token to time"),
        (3, r"3 tokens were generated at .*, expected exactly 5"),
    ],
)
def test_too_few_tokens_are_no_timing(
    backend: HFBackend, monkeypatch: pytest.MonkeyPatch, tokens: int, message: str
) -> None:
    def early(*, input_ids: torch.Tensor, streamer: Any, **others: object) -> torch.Tensor:
        streamer.put(input_ids)
        for _ in range(tokens):
            streamer.put(input_ids[:, 0])
        return input_ids

    monkeypatch.setattr(backend._model, "generate", early)
    with pytest.raises(CouldNotMeasure, match=message):
        backend.timed_batch(**SHAPE)


@pytest.mark.parametrize(
    ("said", "expected", "message"),
    [
        ("CUDA error: device-side assert triggered", CouldNotMeasure, r"the device cpu failed at batch size 2, 8 \+ 5"),
        ("CUDA error: unspecified launch failure", CouldNotMeasure, "nvidia-smi"),
        ("CUDA error: an illegal memory access was encountered", CouldNotMeasure, "nvidia-smi"),
        ("CUDA error: invalid configuration argument", RuntimeError, "^CUDA error: invalid configuration argument$"),
        ("CUDA error: no kernel image is available for execution on the device", RuntimeError, "^CUDA error: no kern"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling", OutOfMemory, "out of memory at batch size 2"),
        ("CUDA error: out of memory", OutOfMemory, r"out of memory at batch size 2, 8 \+ 5 tokens"),
        ("size mismatch", RuntimeError, "^size mismatch$"),
    ],
)
def test_a_failure_says_what_failed(
    backend: HFBackend, monkeypatch: pytest.MonkeyPatch, said: str, expected: type[Exception], message: str
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(backend._model, "generate", broken)
    with pytest.raises(expected, match=message) as caught:
        backend.timed_batch(**SHAPE)
    assert type(caught.value) is expected


class Meter:
    """Stands in for `Gpus`: a counter of joules."""

    def __init__(self, *readings: float | None) -> None:
        self._readings: Iterator[float | None] = iter(readings)

    def energy_joules(self) -> float | None:
        return next(self._readings)


@pytest.mark.parametrize(
    ("meter", "expected"),
    [(None, None), (Meter(100.0, 130.5), 30.5), (Meter(None, None), None), (Meter(5.0, None), None)],
)
def test_energy_is_the_difference_of_two_readings(
    backend: HFBackend, monkeypatch: pytest.MonkeyPatch, meter: Meter | None, expected: float | None
) -> None:
    monkeypatch.setattr(backend, "_gpus", meter)
    assert backend.timed_batch(**SHAPE).energy_joules == expected


def test_it_serves_no_load_and_says_who_does(backend: HFBackend) -> None:
    arrival = Arrival(at_seconds=0.0, prompt_tokens=4, new_tokens=4)
    with pytest.raises(CouldNotMeasure, match="use --backend vllm"):
        backend.serve([arrival], concurrency=1, seed=0)


class Event:
    """A CUDA event of a device that stamps 5 ms later each time; its times may be read when it was waited for."""

    log: ClassVar[list[str]] = []
    now_milliseconds = 0.0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: str) -> None:
        Event.now_milliseconds += 5
        Event.log.append(f"record on {stream}")
        self.at = Event.now_milliseconds

    def synchronize(self) -> None:
        Event.log.append(f"wait for {self.at}")

    def elapsed_time(self, later: Event) -> float:
        assert Event.log[-1] == f"wait for {Event.now_milliseconds}"  # that is, for the last
        return later.at - self.at


def test_on_a_gpu_times_are_those_of_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(device: torch.device) -> None:
        Event.log.append(f"idle {device}")

    fake = SimpleNamespace(Event=Event, current_stream=lambda device: f"stream of {device}", synchronize=wait)
    monkeypatch.setattr("gate.backends.marks.torch.cuda", fake)
    marks = Marks(torch.device("cuda:1"))
    for _ in range(3):
        marks.add()
    assert len(marks) == 3
    assert marks.steps_seconds() == pytest.approx((0.005, 0.005))
    assert Event.log == ["idle cuda:1", *["record on stream of cuda:1"] * 3, "wait for 15.0"]
