"""The openai backend against a server that does what it should, or says that it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.api.instance import Instance

from gate.backends import Arrival, Checkpoint, Window
from gate.backends.openai import OpenaiBackend, open_backend
from gate.backends.openai_client import RequestFailed
from gate.errors import CheckpointError, CouldNotMeasure, UsageError
from tests.contract import tiny_llama
from tests.openai.fake_server import Fake, is_greedy, logprob, serving

PROMPTS = ["the bank", "debit, credit, balance.\nand the clerk wrote", "a", "Q1", "Q2", "twelve euros to"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def encode(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).encode


@pytest.fixture
def fake(encode: Any) -> Iterator[Fake]:
    with serving(Fake(encode=encode)) as running:
        yield running


def opened(fake: Fake, folder: Path, **engine: Any) -> OpenaiBackend:
    backend = open_backend(checkpoint(folder, url=fake.url, **engine), "cpu")
    fake.forget()
    return backend


def checkpoint(folder: Path, **engine: Any) -> Checkpoint:
    return Checkpoint(path=str(folder), load={}, dtype="float32", tokenizer=None, engine={"retries": 0, **engine})


def instance(kind: str, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def test_what_the_server_can_do_is_found_out(fake: Fake, folder: Path) -> None:
    info = opened(fake, folder).info
    assert info.name == "openai"
    assert info.context_length == 254  # one token is generated after those that are scored
    assert info.unserved == {}
    assert info.packages["server"] == "fake 1.2"
    assert not info.has_logits
    assert info.n_parameters > 1000
    (note,) = info.notes
    assert fake.url in note
    assert "'tiny'" in note


def test_windows_are_scored_in_order_whatever_the_concurrency(fake: Fake, folder: Path) -> None:
    fake.delay_seconds = 0.01
    backend = opened(fake, folder, concurrency=3)
    ids = np.random.default_rng(0).integers(320, size=400).tolist()
    lengths = [(9, 8), (2, 1), (30, 5), (17, 16), (3, 1), (254, 253)] * 15
    windows = [Window(tokens=tuple(ids[k : k + n]), n_scored=scored) for k, (n, scored) in enumerate(lengths)]
    found = list(backend.score(windows, top_k=0, at_ids=None))
    for window, scores in zip(windows, found, strict=True):
        tokens = list(window.tokens)
        right = [-logprob(tokens, i) for i in range(len(tokens) - window.n_scored, len(tokens))]
        np.testing.assert_array_equal(scores.nll_nats, right)
        assert scores.nll_nats.dtype == np.float64
        assert (scores.top_ids, scores.top_logprobs, scores.at_logprobs) == (None, None, None)
    assert fake.most_at_once == 3
    assert len(fake.bodies) == len(windows)
    assert all(body["prompt"] in [list(w.tokens) for w in windows] for body in fake.bodies)


def test_a_log_likelihood_is_that_of_the_continuation(fake: Fake, folder: Path) -> None:
    backend = opened(fake, folder)
    pairs = [("the bank", " moved"), ("the clerk ", "wrote it down"), ("", "a balance"), ("a", " balance of euros")]
    tokens = [[0, *backend.encode(context + continuation)] for context, continuation in pairs]
    for (context, _), ids, (total, greedy) in zip(pairs, tokens, backend.loglikelihood(pairs), strict=True):
        n_context = 1 + len(backend.encode(context.rstrip()))
        scored = range(n_context, len(ids))
        assert total == pytest.approx(sum(logprob(ids, i) for i in scored), abs=1e-9)
        assert greedy == all(is_greedy(ids, i) for i in scored)
    assert sorted(body["prompt"] for body in fake.bodies) == sorted(tokens)
    assert {greedy for _, greedy in backend.loglikelihood([("a", w) for w in " b c d e f g h i j".split()])} == {
        True,
        False,
    }


def test_nothing_asked_nothing_sent(fake: Fake, folder: Path) -> None:
    backend = opened(fake, folder)
    assert list(backend.score([], top_k=0, at_ids=None)) == []
    assert backend.loglikelihood([]) == []
    assert backend.generate([], max_new_tokens=4, stop=[], temperature=0.0, seed=0) == []
    assert fake.bodies == []


def test_generations_come_in_order_with_their_length_and_end(fake: Fake, folder: Path) -> None:
    backend = opened(fake, folder)
    together = backend.generate(PROMPTS, max_new_tokens=12, stop=[], temperature=0.0, seed=0)
    assert [backend.generate([p], max_new_tokens=12, stop=[], temperature=0.0, seed=0)[0] for p in PROMPTS] == together
    assert len({g.text for g in together}) == len(PROMPTS)
    assert {(g.n_tokens, g.finish) for g in together} == {(12, "length")}
    stop = together[0].text[5:9]
    (stopped,) = backend.generate(PROMPTS[:1], max_new_tokens=12, stop=["", stop], temperature=0.0, seed=0)
    assert stopped.text == together[0].text.split(stop)[0]
    assert (stopped.finish, stopped.n_tokens) == ("stop", 2)
    assert fake.bodies[-1]["stop"] == [stop]


def test_prompts_and_settings_are_those_of_the_other_backends(fake: Fake, folder: Path, encode: Any) -> None:
    backend = opened(fake, folder)
    chat = backend.chat([{"role": "user", "content": "hello"}])
    backend.generate(["the bank", chat], max_new_tokens=3, stop=[], temperature=0.0, seed=5)
    sent = {tuple(body.pop("prompt")): body for body in fake.bodies}
    assert set(sent) == {tuple(encode("the bank")), tuple(encode(chat, add_special_tokens=False))}
    plain = {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    plain |= {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    expected = {"model": "tiny", "max_tokens": 3, "temperature": 0.0, **plain}
    assert all(body == expected for body in sent.values())


def test_sampling_has_a_seed_of_its_own_for_each_prompt(fake: Fake, folder: Path) -> None:
    backend = opened(fake, folder)

    def sample(seed: int) -> list[str]:
        asked = ["the bank", "the bank", "a clerk"]
        return [g.text for g in backend.generate(asked, max_new_tokens=12, stop=[], temperature=1.0, seed=seed)]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert len(set(sample(1))) == 3
    assert all(0 <= body["seed"] < 2**31 for body in fake.bodies)


def test_a_prompt_that_does_not_fit_is_not_sent(fake: Fake, folder: Path) -> None:
    backend = opened(fake, folder)
    with pytest.raises(ValueError, match=r"context length of 254"):
        backend.generate([tiny_llama.TEXT * 40], max_new_tokens=16, stop=[], temperature=0.0, seed=0)
    assert fake.bodies == []


def test_a_timed_batch_has_one_time_per_token(fake: Fake, folder: Path) -> None:
    backend = opened(fake, folder)
    fake.step_seconds = 0.1
    for batch_size in (1, 3):
        fake.forget()
        found = backend.timed_batch(batch_size=batch_size, prompt_tokens=16, new_tokens=5, seed=0)
        assert (found.batch_size, found.prompt_tokens) == (batch_size, 16)
        assert found.ttft_seconds > 0
        assert len(found.step_seconds) == 4
        assert min(found.step_seconds) > 0
        assert len({tuple(body["prompt"]) for body in fake.bodies}) == batch_size
        assert {len(body["prompt"]) for body in fake.bodies} == {16}
        assert fake.most_at_once == batch_size
    again = [tuple(body["prompt"]) for body in fake.bodies]
    backend.timed_batch(batch_size=3, prompt_tokens=16, new_tokens=5, seed=0)
    assert sorted(tuple(body["prompt"]) for body in fake.bodies[3:]) == sorted(again)


def test_memory_and_device_are_the_servers(fake: Fake, folder: Path) -> None:
    backend = opened(fake, folder)
    assert backend.memory_bytes() == {}
    assert set(asdict(backend.footprint()).values()) == {None}
    assert backend.rates() is None
    assert backend.info.device_uuids == ()


@pytest.mark.parametrize("concurrency", [None, 2])
def test_no_load_is_put_on_a_server(fake: Fake, folder: Path, concurrency: int | None) -> None:
    backend = opened(fake, folder)
    asked = len(fake.bodies)
    arrivals = [Arrival(at_seconds=0.0, prompt_tokens=8, new_tokens=2)] * 4
    with pytest.raises(CouldNotMeasure, match=r"does not put a serving load on a server.*--backend vllm"):
        backend.serve(arrivals, concurrency=concurrency, seed=0)
    assert len(fake.bodies) == asked


def test_the_harness_gives_the_same_answers(fake: Fake, folder: Path, encode: Any) -> None:
    backend = opened(fake, folder)
    lm = backend.harness()
    pairs = [("the bank", " moved"), ("the clerk wrote", " it down")]
    assert lm.loglikelihood([instance("loglikelihood", *p) for p in pairs]) == backend.loglikelihood(pairs)
    (text,) = lm.generate_until([instance("generate_until", "Q1", {"until": ["w7"], "max_gen_toks": 8})])
    (own,) = backend.generate(["Q1"], max_new_tokens=8, stop=["w7"], temperature=0.0, seed=0)
    assert text == own.text
    (total,) = lm.loglikelihood_rolling([instance("loglikelihood_rolling", tiny_llama.TEXT)])
    ids = [0, *encode(tiny_llama.TEXT)]  # lm-eval puts a start token before the tokenizer's own, as with HFLM
    assert total == pytest.approx(sum(logprob(ids, i) for i in range(1, len(ids))))
    assert lm.apply_chat_template([{"role": "user", "content": "x"}]) == "<s>[user]x[assistant]"
    assert lm.apply_chat_template([{"role": "user", "content": "x"}], add_generation_prompt=False) == "<s>[user]x"


def test_the_harness_cuts_on_the_left_as_lm_eval_does(fake: Fake, folder: Path) -> None:
    backend = opened(fake, folder)
    lm, long = backend.harness(), tiny_llama.TEXT * 12
    ids = [0, *backend.encode(long + " moved")]
    assert len(ids) > 256
    lm.loglikelihood([instance("loglikelihood", long, " moved")])
    assert fake.bodies[-1]["prompt"] == ids[-255:]
    lm.generate_until([instance("generate_until", long, {"until": [], "max_gen_toks": 20})])
    assert fake.bodies[-1]["prompt"] == [0, *backend.encode(long)][-234:]
    with pytest.raises(ValueError, match="the context"):
        lm.generate_until([instance("generate_until", "a", {"until": [], "max_gen_toks": 254})])
    with pytest.raises(ValueError, match="tokens of context"):
        lm.loglikelihood([instance("loglikelihood", "a", long)])


def test_generation_settings_of_tasks_are_sent_or_refused(fake: Fake, folder: Path) -> None:
    lm = opened(fake, folder).harness()
    settings = {"until": "\n", "do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 0.9, "num_beams": 1}
    settings["max_gen_toks"] = 3
    lm.generate_until([instance("generate_until", "a", settings)] * 2)
    first, second = fake.bodies
    assert (first["temperature"], first["top_k"], first["top_p"], first["stop"]) == (0.7, -1, 0.9, ["\n"])
    assert first["seed"] != second["seed"]
    assert first["max_tokens"] == 3
    with pytest.raises(ValueError, match="'num_beams' \\(4\\) cannot be sent"):
        lm.generate_until([instance("generate_until", "a", {"until": [], "max_gen_toks": 3, "num_beams": 4})])


def test_a_server_for_text_only_serves_generation_alone(encode: Any, folder: Path) -> None:
    with serving(Fake(encode=encode, takes_ids=False)) as fake:
        backend = opened(fake, folder)
        assert set(backend.info.unserved) == {"perplexity", "profile"}
        assert "its prompts must be text" in backend.info.unserved["perplexity"]
        assert "multiple choice and other given continuations cannot be scored" in backend.info.notes[1]
        assert backend.info.context_length == 256
        chat = backend.chat([{"role": "user", "content": "hello"}])
        found = backend.generate(["the bank", chat], max_new_tokens=4, stop=[], temperature=0.0, seed=0)
        assert len(found) == 2
        assert sorted(body["prompt"] for body in fake.bodies) == ["[user]hello[assistant]", "the bank"]
        with pytest.raises(CouldNotMeasure, match="cannot score multiple choice"):
            backend.loglikelihood([("a", " b")])
        with pytest.raises(CouldNotMeasure, match="only generate"):
            backend.harness().loglikelihood_rolling([instance("loglikelihood_rolling", "a b")])
        lm, settings = backend.harness(), {"until": [], "max_gen_toks": 2}
        assert lm.generate_until([instance("generate_until", "a", settings)])
        with pytest.raises(ValueError, match="cannot be cut for a server whose prompts are text"):
            lm.generate_until([instance("generate_until", tiny_llama.TEXT * 12, settings)])


def test_a_server_that_adds_no_start_token_gets_it_as_text(encode: Any, folder: Path) -> None:
    def bare(text: str) -> list[int]:
        ids: list[int] = encode(text, add_special_tokens=False)
        return ids

    with serving(Fake(encode=bare, takes_ids=False)) as fake:
        opened(fake, folder).generate(["the bank"], max_new_tokens=4, stop=[], temperature=0.0, seed=0)
        assert fake.bodies[0]["prompt"] == "<s>the bank"


def test_without_echo_no_log_probabilities_but_text_and_times(encode: Any, folder: Path) -> None:
    with serving(Fake(encode=encode, echoes=False)) as fake:
        backend = opened(fake, folder)
        assert set(backend.info.unserved) == {"perplexity"}
        fake.step_seconds = 0.1
        backend.timed_batch(batch_size=1, prompt_tokens=4, new_tokens=3, seed=0)
        with pytest.raises(CouldNotMeasure, match="cannot score multiple choice"):
            backend.loglikelihood([("a", " b")])


def test_without_streaming_no_times(encode: Any, folder: Path) -> None:
    with serving(Fake(encode=encode, streams=False)) as fake:
        backend = opened(fake, folder)
        assert set(backend.info.unserved) == {"profile"}
        assert "no streaming" in backend.info.unserved["profile"]


def test_what_a_server_does_not_take_is_noted_and_never_dropped(encode: Any, folder: Path) -> None:
    with serving(Fake(encode=encode, strange=False, heeds_seeds=False)) as fake:
        backend = opened(fake, folder)
        assert "takes no min_p, repetition_penalty, top_k" in backend.info.notes[1]
        assert "does not repeat a sampled text" in backend.info.notes[2]
        backend.generate(["a"], max_new_tokens=2, stop=[], temperature=0.0, seed=0)
        settings = {"until": [], "do_sample": True, "temperature": 1.0, "max_gen_toks": 3, "top_k": 0}
        backend.harness().generate_until([instance("generate_until", "a", settings)])
        assert "top_k" not in fake.bodies[-1]
        settings["top_k"] = 40
        with pytest.raises(ValueError, match="does not take the decoding setting 'top_k'"):
            backend.harness().generate_until([instance("generate_until", "a", settings)])


def test_another_tokenizer_is_another_checkpoint(folder: Path) -> None:
    with (
        serving(Fake(encode=lambda text: list(text.encode()))) as fake,
        pytest.raises(CheckpointError, match="does not serve this checkpoint: it reads three sample texts as"),
    ):
        opened(fake, folder)


TWO = ({"id": "one"}, {"id": "two", "max_model_len": 100})


@pytest.mark.parametrize(
    ("models", "engine", "error", "says"),
    [
        ((), {}, CouldNotMeasure, "lists no model"),
        (TWO, {}, UsageError, "serves the models 'one', 'two': name one in engines.openai.model"),
        (TWO, {"model": "three"}, CheckpointError, "serves the models 'one', 'two', expected 'three'"),
    ],
)
def test_the_model_is_named_or_the_only_one(
    encode: Any, folder: Path, models: Any, engine: Any, error: type[Exception], says: str
) -> None:
    with serving(Fake(encode=encode, models=models)) as fake, pytest.raises(error, match=says):
        opened(fake, folder, **engine)


def test_one_of_several_models_can_be_named(encode: Any, folder: Path) -> None:
    with serving(Fake(encode=encode, models=TWO)) as fake:
        backend = opened(fake, folder, model="two")
        assert backend.info.context_length == 98
        backend.generate(["a"], max_new_tokens=2, stop=[], temperature=0.0, seed=0)
        assert fake.bodies[0]["model"] == "two"


def test_the_only_model_may_answer_by_another_name(fake: Fake, folder: Path) -> None:
    fake.fault = lambda body, n: {"model": "/models/tiny"}
    backend = opened(fake, folder)
    assert backend.info.unserved == {}
    assert backend.generate(["a"], max_new_tokens=2, stop=[], temperature=0.0, seed=0)
    with pytest.raises(
        CheckpointError, match=r"asked for the model 'tiny', the server at .* answered with '/models/tiny'"
    ):
        opened(fake, folder, model="tiny")


def test_a_server_that_does_not_count_tokens_is_refused(encode: Any, folder: Path) -> None:
    with (
        serving(Fake(encode=encode, says_usage=False)) as fake,
        pytest.raises(CouldNotMeasure, match=r"usage\.prompt_tokens = None"),
    ):
        opened(fake, folder)


def test_the_context_of_a_server_that_does_not_say(encode: Any, folder: Path) -> None:
    with serving(Fake(encode=encode, models=({"id": "tiny"},))) as fake:
        assert opened(fake, folder).info.context_length == tiny_llama.CONTEXT_LENGTH - 2


def test_load_settings_are_the_servers_affair(fake: Fake, folder: Path) -> None:
    loading = Checkpoint(
        path=str(folder), load={"method": "bitsandbytes-nf4"}, dtype="auto", tokenizer=None, engine={"url": fake.url}
    )
    with pytest.raises(CheckpointError, match="'method', which a running server cannot be given"):
        open_backend(loading, "cpu")


def test_a_folder_without_a_tokenizer(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        opened(fake, tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        opened(fake, tmp_path / "absent")


def test_a_failed_request_is_told_from_a_server_that_is_gone(fake: Fake, folder: Path) -> None:
    backend = opened(fake, folder)
    fake.fault = lambda body, n: 400 if body["max_tokens"] == 7 else None
    with pytest.raises(RequestFailed, match="the server refuses the request \\(HTTP 400: fault\\)"):
        backend.generate(["a", "b"], max_new_tokens=7, stop=[], temperature=0.0, seed=0)
