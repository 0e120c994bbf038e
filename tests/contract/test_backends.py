"""One suite that every backend passes: fake and hf here, vllm in its own environment, openai against a server.

The model is a tiny random Llama with a head size that vLLM's CPU kernels have; the fake has a script of its own.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gate.backends import BACKENDS, Arrival, Backend, Checkpoint, Window
from gate.errors import CouldNotMeasure
from tests.contract import tiny_llama

TEXT = tiny_llama.TEXT
OPENAI_URL, OPENAI_CHECKPOINT = "QUANTGATE_OPENAI_URL", "QUANTGATE_OPENAI_CHECKPOINT"
"""Environment variables: a running server, and the folder of the checkpoint that it serves."""


def checkpoint(folder: Path, **engine: Any) -> Checkpoint:
    return Checkpoint(path=str(folder), load={}, dtype="float32", tokenizer=None, engine=engine)


def fake(folder: Path) -> Checkpoint:
    settings = {
        "kind": "fake",
        "nll_noise": 0.1,
        "serves_requests_per_second": 100,
        "context_length": tiny_llama.CONTEXT_LENGTH,
        "answers": {"Q1": "one\ntwo", "Q2": "x" * 40},
    }
    (folder / "fake.json").write_text(json.dumps(settings))
    return checkpoint(folder)


def hf(folder: Path) -> Checkpoint:
    return checkpoint(tiny_llama.save(folder))


def vllm(folder: Path) -> Checkpoint:
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed for this interpreter: run `make test-vllm`")
    return checkpoint(tiny_llama.save(folder), cpu_kv_cache="64MiB")


def openai(folder: Path) -> Checkpoint:
    if OPENAI_URL not in os.environ:
        pytest.skip(f"no server is named: set {OPENAI_URL} and {OPENAI_CHECKPOINT}")
    return checkpoint(Path(os.environ[OPENAI_CHECKPOINT]), url=os.environ[OPENAI_URL])


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A backend under test, and what may differ from the others.

    Attributes:
        prepare: writes a checkpoint into a folder and says how to open it; skips where it cannot be.
        lost_context: tokens of the checkpoint's context that it cannot read.
        starts: how often a rolling log-likelihood begins with the start token.  lm-eval puts one before each text, and
            the tokenizer of a real model adds another, which is scored too.
        gives_logits: it scores with `top_k` and `at_ids`.
        has_memory: the model's memory and device are its own.
        serves: it answers requests as they come, not batch by batch.
    """

    prepare: Callable[[Path], Checkpoint]
    lost_context: int = 0
    starts: int = 2
    gives_logits: bool = True
    has_memory: bool = True
    serves: bool = True
    marks: list[pytest.MarkDecorator] = field(default_factory=list)


KINDS = {
    "fake": Kind(prepare=fake, starts=1),
    "hf": Kind(prepare=hf, serves=False),
    # vLLM writes at least one token, and reads the last token that is scored
    "vllm": Kind(prepare=vllm, lost_context=2, marks=[pytest.mark.vllm]),
    "openai": Kind(prepare=openai, lost_context=2, gives_logits=False, has_memory=False, serves=False),
}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=KINDS[name].marks) for name in sorted(BACKENDS)])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def backend(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    settings = KINDS[kind].prepare(tmp_path_factory.mktemp(kind))
    module, attribute = BACKENDS[kind].split(":")
    with pytest.MonkeyPatch.context() as environment, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that it imports
        environment.setenv("QUANTGATE_THREADS", "1")
        opened: Backend = getattr(import_module(module), attribute)(settings, "cpu")
    return opened


@pytest.fixture
def logits(backend: Backend, kind: str) -> None:
    """For tests of what follows from logits."""
    assert backend.info.has_logits == KINDS[kind].gives_logits
    if not KINDS[kind].gives_logits:
        pytest.skip(f"the {kind} backend gives no logits")


def windows(backend: Backend, lengths: list[tuple[int, int]]) -> list[Window]:
    """Windows of (length, n_scored) cut from the text at different places."""
    start = backend.bos()
    assert start is not None
    ids = backend.encode(TEXT * 4)
    return [Window(tokens=(start, *ids[i : i + length - 1]), n_scored=n) for i, (length, n) in enumerate(lengths)]


def test_info_is_filled_in(backend: Backend, kind: str) -> None:
    info = backend.info
    assert info.name == kind
    assert info.context_length == tiny_llama.CONTEXT_LENGTH - KINDS[kind].lost_context
    assert info.vocabulary_size > max(backend.encode(TEXT))
    assert info.n_parameters > 0
    assert info.load_seconds > 0
    assert info.dtype == "float32"


def test_encode_adds_no_special_tokens_and_is_stable(backend: Backend) -> None:
    ids = backend.encode(TEXT)
    assert backend.bos() not in ids
    assert ids == backend.encode(TEXT)
    assert backend.encode("") == []


def test_chat_shows_every_message_and_asks_for_an_answer(backend: Backend) -> None:
    text = backend.chat([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}])
    assert text.index("be brief") < text.index("hello") < text.index("assistant")


@pytest.mark.usefixtures("logits")
def test_score_has_the_shapes_asked_for_and_keeps_the_order(backend: Backend) -> None:
    asked = windows(backend, [(9, 8), (2, 1), (30, 5), (17, 16), (3, 1)])
    together = list(backend.score(asked, top_k=4, at_ids=None))
    assert [len(s.nll_nats) for s in together] == [8, 1, 5, 16, 1]
    for window, scores in zip(asked, together, strict=True):
        (alone,) = backend.score([window], top_k=4, at_ids=None)
        np.testing.assert_allclose(scores.nll_nats, alone.nll_nats, atol=1e-4)
        assert scores.top_ids is not None
        assert scores.top_ids.shape == (window.n_scored, 4)
        assert scores.nll_nats.dtype == np.float64
        assert scores.at_logprobs is None


def test_scores_without_top_k_have_none(backend: Backend) -> None:
    (scores,) = backend.score(windows(backend, [(5, 2)]), top_k=0, at_ids=None)
    assert scores.top_ids is None
    assert scores.top_logprobs is None


def test_scoring_more_of_a_window_does_not_change_its_end(backend: Backend) -> None:
    few, many = backend.score(
        [Window(tokens=w.tokens, n_scored=n) for w in windows(backend, [(20, 3)]) for n in (3, 19)],
        top_k=0,
        at_ids=None,
    )
    np.testing.assert_allclose(few.nll_nats, many.nll_nats[-3:], atol=1e-5)


@pytest.mark.usefixtures("logits")
def test_top_k_is_sorted_and_agrees_with_the_nll(backend: Backend) -> None:
    everything = backend.info.vocabulary_size
    asked = windows(backend, [(12, 11), (7, 3)])
    for window, scores in zip(asked, backend.score(asked, top_k=everything, at_ids=None), strict=True):
        assert scores.top_ids is not None
        assert scores.top_logprobs is not None
        assert (np.diff(scores.top_logprobs, axis=1) <= 0).all()
        np.testing.assert_allclose(np.exp(scores.top_logprobs.astype(np.float64)).sum(axis=1), 1.0, atol=1e-4)
        for i, token in enumerate(window.tokens[-window.n_scored :]):
            place = int(np.flatnonzero(scores.top_ids[i] == token)[0])
            assert scores.top_logprobs[i, place] == pytest.approx(-scores.nll_nats[i], abs=1e-4)


@pytest.mark.usefixtures("logits")
def test_at_ids_are_the_same_log_probabilities(backend: Backend) -> None:
    asked = windows(backend, [(12, 11), (7, 3), (2, 1)])
    top = list(backend.score(asked, top_k=6, at_ids=None))
    ids = [s.top_ids for s in top if s.top_ids is not None]
    again = list(backend.score(asked, top_k=0, at_ids=ids))
    assert len(again) == 3
    for first, second in zip(top, again, strict=True):
        assert first.top_logprobs is not None
        assert second.at_logprobs is not None
        np.testing.assert_allclose(first.top_logprobs, second.at_logprobs, atol=1e-4)


def test_score_and_loglikelihood_agree(backend: Backend) -> None:
    context, continuation = "the bank moved twelve", " euros to a savings account"
    start = backend.bos()
    assert start is not None
    n = len(backend.encode(context + continuation)) - len(backend.encode(context))
    window = Window(tokens=(start, *backend.encode(context + continuation)), n_scored=n)
    (scores,) = backend.score([window], top_k=0, at_ids=None)
    ((total, greedy),) = backend.loglikelihood([(context, continuation)])
    assert total == pytest.approx(-scores.nll_nats.sum(), abs=1e-3)
    assert total < 0
    assert greedy is False


def test_loglikelihood_keeps_the_order(backend: Backend) -> None:
    pairs = [
        ("the bank", " moved"),
        ("the clerk wrote it down:", " credit"),
        ("a", " balance of twelve euros"),
        ("the", " a"),
    ]
    alone = [backend.loglikelihood([p])[0][0] for p in pairs]
    assert len({round(x, 6) for x in alone}) == 4
    assert [x for x, _ in backend.loglikelihood(pairs)] == pytest.approx(alone, abs=1e-4)
    assert backend.loglikelihood(pairs)[1][0] == pytest.approx(backend.loglikelihood(pairs[::-1])[2][0], abs=1e-4)


def test_nothing_asked_nothing_answered(backend: Backend) -> None:
    assert list(backend.score([], top_k=3, at_ids=None)) == []
    assert backend.loglikelihood([]) == []
    assert backend.generate([], max_new_tokens=4, stop=[], temperature=0.0, seed=0) == []


def test_generate_keeps_the_order_whatever_the_batch(backend: Backend) -> None:
    prompts = ["the bank", "debit, credit, balance.\nand the clerk wrote", "a", "Q1", "Q2", "twelve euros to"]
    together = backend.generate(prompts, max_new_tokens=12, stop=[], temperature=0.0, seed=0)
    alone = [backend.generate([p], max_new_tokens=12, stop=[], temperature=0.0, seed=0)[0] for p in prompts]
    assert together == alone
    assert len({g.text for g in together}) == len(prompts)


def test_generation_has_a_length_and_a_reason_to_end(backend: Backend) -> None:
    (generation,) = backend.generate(["Q2"], max_new_tokens=12, stop=[], temperature=0.0, seed=0)
    assert generation.finish == "length"
    assert generation.n_tokens == 12


def test_stop_strings_end_the_text_and_are_cut_off(backend: Backend) -> None:
    prompts = ["Q1", "Q2", "the bank"]
    plain = backend.generate(prompts, max_new_tokens=24, stop=[], temperature=0.0, seed=0)
    stop = plain[0].text[3:5]
    assert len(stop) == 2
    stopped = backend.generate(prompts, max_new_tokens=24, stop=["", "never said", stop], temperature=0.0, seed=0)
    assert stopped[0].finish == "stop"
    assert stopped[0].n_tokens < plain[0].n_tokens
    for before, after in zip(plain, stopped, strict=True):
        assert after.text == before.text.split(stop)[0]


def test_sampling_repeats_with_its_seed(backend: Backend) -> None:
    def sample(seed: int) -> list[str]:
        prompts = ["the bank", "a clerk"]
        return [g.text for g in backend.generate(prompts, max_new_tokens=12, stop=[], temperature=1.0, seed=seed)]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_a_prompt_that_does_not_fit_is_not_cut_silently(backend: Backend) -> None:
    with pytest.raises(ValueError, match="context length"):
        backend.generate([TEXT * 40], max_new_tokens=16, stop=[], temperature=0.0, seed=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_timed_batch_has_one_time_per_token(backend: Backend, batch_size: int) -> None:
    timing = backend.timed_batch(batch_size=batch_size, prompt_tokens=16, new_tokens=5, seed=0)
    assert (timing.batch_size, timing.prompt_tokens) == (batch_size, 16)
    assert timing.ttft_seconds > 0
    assert len(timing.step_seconds) == 4
    assert min(timing.step_seconds) > 0


def test_memory_has_its_peaks_and_no_gpu_on_a_cpu(backend: Backend, kind: str) -> None:
    backend.timed_batch(batch_size=2, prompt_tokens=16, new_tokens=5, seed=0)
    peaks = backend.memory_bytes()
    if not KINDS[kind].has_memory:
        assert peaks == {}
        return
    assert {"rss_peak_bytes", "load_rss_peak_bytes"} <= set(peaks)
    assert set(peaks) <= {"rss_peak_bytes", "load_rss_peak_bytes", "activation_peak_bytes"}
    assert peaks["rss_peak_bytes"] > 10_000_000
    assert peaks["load_rss_peak_bytes"] > 10_000_000
    assert peaks.get("activation_peak_bytes", 0) < peaks["rss_peak_bytes"]
    assert all(isinstance(value, int) for value in peaks.values())


def test_the_footprint_fits_the_model(backend: Backend, kind: str) -> None:
    """The tiny Llama in float32, four bytes a number."""
    found = backend.footprint()
    assert found == backend.footprint(), "it is a property of the model"
    if not KINDS[kind].has_memory:
        known = (found.weights_bytes, found.kv_bytes_per_token, found.flops_per_token, found.device_memory_bytes)
        assert known == (None, None, None, None)
        return
    assert found.weights_bytes is not None
    assert found.weights_read_bytes is not None
    assert found.kv_bytes_per_token is not None
    assert found.flops_per_token is not None
    assert 0 < found.weights_read_bytes <= found.weights_bytes
    assert found.device_memory_bytes is not None
    assert found.device_memory_bytes > found.weights_bytes
    if kind == "fake":
        return
    assert found.kv_bytes_per_token == 2 * 2 * 2 * 32 * 4, "keys and values, layers, heads, head size, bytes"
    assert found.flops_per_token == 2 * (2 * (4 * 64 * 64 + 3 * 64 * 128)), "two a weight, without the logits"
    parameters_bytes = 4 * backend.info.n_parameters
    assert parameters_bytes <= found.weights_bytes < 1.5 * parameters_bytes, "an engine may hold a matrix packed too"


def test_rates_are_those_of_this_device(backend: Backend, kind: str) -> None:
    rates = backend.rates()
    if not KINDS[kind].has_memory:
        assert rates is None, "a server's device cannot be reached"
        return
    assert rates is not None
    assert 1e8 < rates.copy_bytes_per_second < 1e13
    assert 1e8 < rates.matmul_flops_per_second < 1e15
    assert backend.rates() == rates, "measured once"


@pytest.mark.parametrize("concurrency", [None, 2])
def test_a_load_is_served_whole_and_in_order_or_refused(backend: Backend, kind: str, concurrency: int | None) -> None:
    arrivals = [Arrival(at_seconds=0.05 * i, prompt_tokens=8 + i, new_tokens=3 + i % 2) for i in range(5)]
    if not KINDS[kind].serves:
        with pytest.raises(CouldNotMeasure, match="serve"):
            backend.serve(arrivals, concurrency=concurrency, seed=0)
        with pytest.raises(CouldNotMeasure, match="serve"):
            backend.serve((), concurrency=concurrency, seed=0)
        return
    assert backend.serve((), concurrency=concurrency, seed=0) == []
    served = backend.serve(arrivals, concurrency=concurrency, seed=0)
    lengths = [(s.prompt_tokens, s.new_tokens) for s in served]
    assert lengths == [(a.prompt_tokens, a.new_tokens) for a in arrivals]
    for s in served:
        assert s.due_seconds < s.first_token_seconds < s.last_token_seconds
    if concurrency is None:
        assert [s.due_seconds for s in served] == pytest.approx([a.at_seconds for a in arrivals])
        return
    for s in served:
        others = sum(o.due_seconds < s.due_seconds < o.last_token_seconds for o in served)
        assert others < concurrency


def test_the_harness_gives_the_same_answers(backend: Backend, kind: str) -> None:
    from lm_eval.api.instance import Instance

    lm = backend.harness()
    pairs = [("the bank", " moved"), ("the clerk wrote", " it down")]
    asked = [Instance(request_type="loglikelihood", doc={}, arguments=p, idx=0) for p in pairs]
    assert [x for x, _ in lm.loglikelihood(asked)] == pytest.approx([x for x, _ in backend.loglikelihood(pairs)])
    arguments = ("Q1", {"until": ["\n"], "max_gen_toks": 8, "do_sample": False})
    (text,) = lm.generate_until([Instance(request_type="generate_until", doc={}, arguments=arguments, idx=0)])
    (own,) = backend.generate(["Q1"], max_new_tokens=8, stop=["\n"], temperature=0.0, seed=0)
    assert text == own.text
    rolling = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(TEXT,), idx=0)
    start = backend.bos()
    assert start is not None
    tokens = (*[start] * KINDS[kind].starts, *backend.encode(TEXT))
    (scores,) = backend.score([Window(tokens=tokens, n_scored=len(tokens) - 1)], top_k=0, at_ids=None)
    assert lm.loglikelihood_rolling([rolling])[0] == pytest.approx(-scores.nll_nats.sum(), abs=1e-2)


@pytest.mark.parametrize(("tokens", "n_scored"), [((1,), 1), ((1, 2), 2), ((1, 2), 0), ((), 0)])
def test_a_window_scores_at_least_one_token_given_another(tokens: tuple[int, ...], n_scored: int) -> None:
    with pytest.raises(ValueError, match="prepend bos"):
        Window(tokens=tokens, n_scored=n_scored)
