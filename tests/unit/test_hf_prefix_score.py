"""Prompts that share what they have in common score as lm-eval's HFLM scores them one by one, whatever the model."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from gate.backends import OutOfMemory
from gate.backends.hf_harness import QuietHFLM
from gate.backends.hf_prefix_check import open_scorer
from gate.backends.hf_prefix_score import RequestScorer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CONTEXT = 256
PLENTY = 2**40
SIZES: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.4,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
WORDS = "the bank moved coins from one green ledger to another red vault before noon on some quiet day – café".split()

Pairs = list[tuple[str, str]]
Model = Callable[[], Any]


def gpt2() -> Any:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=384, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, initializer_range=0.4)
    )


MODELS: dict[str, Model] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama-eager": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="eager")),
    "gpt2": gpt2,
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "mistral-window-96": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=96)),
    "gemma2-window-80": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, head_dim=8, sliding_window=80, attn_implementation="eager")
    ),
    "mistral-window-32": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=32)),
    "mamba": lambda: FalconMambaForCausalLM(
        FalconMambaConfig(vocab_size=384, hidden_size=32, num_hidden_layers=2, state_size=4, initializer_range=0.4)
    ),
}
NOTES = {
    "mistral-window-96": "prompts of more than 96 tokens are computed in full",
    "gemma2-window-80": "prompts of more than 80 tokens are computed in full",
    "mistral-window-32": "attends to 32 tokens at most",
    "mamba": "share nothing and are computed in full, which is slower: FalconMambaForCausalLM takes no past_key_values",
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sentence(seed: int, n: int = 6) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=n))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    raw = Tokenizer(models.BPE(unk_token=None))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([sentence(i) for i in range(200)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def build(name: str) -> Any:
    torch.manual_seed(7)
    return MODELS[name]().eval()


def few_shot(subject: int, question: int, *, shots: int = 3) -> str:
    """A prompt as lm-eval renders them: all subjects begin alike, all questions of one share its examples."""
    examples = "".join(f"Q: {sentence(100 * subject + i)}\nA: {sentence(i, 2)}\n\n" for i in range(shots))
    return f"Questions about subject {subject}.\n\n{examples}Q: {sentence(1000 * subject + question, 8)}\nA:"


def quiz(questions: Sequence[tuple[int, int]], **settings: int) -> Pairs:
    """Four choices a question: one token, another, several, and one that another begins with."""
    choices = [" a", " the", f" {sentence(3, 5)}", " the bank"]
    return [(few_shot(s, q, **settings), choice) for s, q in questions for choice in choices]


ODD: Pairs = [
    ("", "the bank"),
    ("", "the"),
    ("the", " bank"),
    ("the bank ", "moved"),  # lm-eval moves the space into the continuation
    ("the bank mo", "ved coins from one"),  # the whole merges otherwise than its parts
    ("caf", "é before noon on"),
    ("a – b 🙂", "🙂 c"),
    ("the bank", " moved coins from one green ledger"),
    ("the bank", " moved coins from one green ledger"),  # twice
    (sentence(5, 400), " the vault"),  # longer than the context
    (sentence(5, 400) + " and", " the vault"),
    (sentence(6, 300), " " + sentence(9, 40)),
]
QUESTIONS = [(s, q) for s in range(3) for q in range(4)]


def instances(pairs: Pairs) -> list[Instance]:
    return [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)]


def theirs(model: Any, tokenizer: Any, pairs: Pairs, batch_size: int = 1) -> list[tuple[float, bool]]:
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=CONTEXT)
    found: list[tuple[float, bool]] = lm.loglikelihood(instances(pairs), disable_tqdm=True)
    return found


class Ours:
    """The harness over a scorer, block by block."""

    def __init__(
        self, model: Any, tokenizer: Any, *, budget_bytes: int = PLENTY, batch_size: int | None = None
    ) -> None:
        self.scorer, self.notes = open_scorer(model, CONTEXT, batch_size=batch_size, budget_bytes=budget_bytes)
        self.lm = QuietHFLM(model, tokenizer, CONTEXT, self.scorer, batch_size=batch_size)
        self.scorer.computed_tokens = 0

    def __call__(self, pairs: Pairs, block: int = 32) -> list[tuple[float, bool]]:
        return [
            answer
            for at in range(0, len(pairs), block)
            for answer in self.lm.loglikelihood(instances(pairs[at : at + block]))
        ]


def assert_equal(found: Sequence[tuple[float, bool]], expected: Sequence[tuple[float, bool]]) -> None:
    assert len(found) == len(expected)
    for (ours, our_greedy), (value, greedy) in zip(found, expected, strict=True):
        assert abs(ours - value) <= 1e-4 + 1e-6 * abs(value)
        assert our_greedy == greedy


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_hflm(name: str, tokenizer: Any) -> None:
    model = build(name)
    pairs = [*quiz(QUESTIONS, shots=2), *ODD]
    random.Random(0).shuffle(pairs)
    expected = theirs(model, tokenizer, pairs)
    ours = Ours(model, tokenizer)
    assert_equal(ours(pairs), expected)
    assert_equal(ours(pairs), expected)  # again, from what is held
    if name in NOTES:
        (note,) = ours.notes
        assert NOTES[name] in note
    else:
        assert ours.notes == ()
        assert ours.scorer.shared_tokens == CONTEXT


def test_one_text_parted_in_two_places_is_two_questions(tokenizer: Any) -> None:
    """lm-eval 0.4.13 reads the wrong positions when both are in one call, so it is asked one by one."""
    model = build("llama")
    pairs = [("the bank", " moved coins from one green ledger"), ("the bank moved coins", " from one green ledger")]
    expected = [theirs(model, tokenizer, [pair])[0] for pair in pairs]
    assert_equal(Ours(model, tokenizer)(pairs), expected)


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_the_greedy_continuation_is_known(name: str) -> None:
    model = build(name)
    scorer, _ = open_scorer(model, CONTEXT, batch_size=None, budget_bytes=PLENTY)
    context = list(range(3, 60))
    with torch.no_grad():
        greedy: list[int] = []
        for _ in range(3):
            greedy.append(int(model(torch.tensor([context + greedy])).logits[0, -1].argmax()))
    other = [*greedy[:2], greedy[2] + 1]
    pairs = [(context, greedy), (context, greedy[:1]), (context, other), (context, other[::-1])]
    assert [is_greedy for _, is_greedy in scorer.score(pairs, share=True)] == [True, True, False, False]


def fewest_tokens(ours: Ours, pairs: Pairs) -> int:
    """The fewest tokens that can be computed: every distinct beginning once."""
    inputs = {tuple((context + rest)[:-1]) for context, rest in (ours.lm._encode_pair(*pair) for pair in pairs)}
    return len({tokens[:n] for tokens in inputs for n in range(1, len(tokens) + 1)})


def test_what_is_shared_is_computed_once_across_blocks(tokenizer: Any) -> None:
    ours = Ours(build("llama"), tokenizer)
    questions = [(s, q) for s in range(3) for q in range(24)]
    random.Random(1).shuffle(questions)
    pairs = quiz(questions, shots=6)
    ours(pairs, block=32)
    fewest = fewest_tokens(ours, pairs)
    # more, by padding and by examples that a block had one question of, which the next one found to be shared
    assert fewest <= ours.scorer.computed_tokens <= 1.5 * fewest
    assert sum(fewest_tokens(ours, [pair]) for pair in pairs) > 15 * fewest
    before = ours.scorer.computed_tokens
    ours(pairs[:4])
    assert ours.scorer.computed_tokens - before < 40  # a question and its choices; the examples are held


def test_examples_met_once_are_held_for_the_next_question(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gate.backends.hf_prefix.LONG_TOKENS", 100)
    ours = Ours(build("llama"), tokenizer)
    first, second = (quiz([(1, q)], shots=9) for q in (0, 1))
    ours(first)
    before = ours.scorer.computed_tokens
    assert before > 150
    assert_equal(ours(second), theirs(ours.lm.model, tokenizer, second))
    assert ours.scorer.computed_tokens - before < 60


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_small_budget_is_kept_to_and_changes_no_score(tokenizer: Any, share: float) -> None:
    model = build("llama")
    pairs = quiz([(s, q) for q in range(4) for s in range(4)])
    expected = theirs(model, tokenizer, pairs)
    plenty = Ours(model, tokenizer)
    plenty(pairs)
    budget = int(share * plenty.scorer.store.held_bytes)
    ours = Ours(model, tokenizer, budget_bytes=budget)
    for at in range(0, len(pairs), 8):
        assert_equal(ours(pairs[at : at + 8]), expected[at : at + 8])
        assert ours.scorer.store.held_bytes <= budget
    assert (ours.scorer.store.held_bytes > 0) == (share > 0)
    assert ours.scorer.computed_tokens > plenty.scorer.computed_tokens
    said = "prompts share nothing and are computed in full: `prefix_cache` is 0, or no memory is free"
    assert ours.notes == ((said,) if share == 0 else ())


class Limited:
    """A forward pass that runs out of memory above so many rows, tokens or kept keys and values; counts its calls."""

    def __init__(self, model: Any, *, tokens: int) -> None:
        self.failed = 0
        self._forward = model.forward
        self._tokens = tokens

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        ids = kwargs["input_ids"]
        mask = kwargs.get("attention_mask")
        if max(ids.numel(), 0 if mask is None else len(ids) * mask.shape[-1]) > self._tokens:
            self.failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return self._forward(*args, **kwargs)


@pytest.mark.parametrize("tokens", [400, 200, 130])
def test_short_memory_makes_batches_smaller_and_changes_no_score(tokenizer: Any, tokens: int) -> None:
    model = build("llama")
    pairs = quiz(QUESTIONS)
    expected = theirs(model, tokenizer, pairs)
    ours = Ours(model, tokenizer)
    limited = Limited(model, tokens=tokens)
    object.__setattr__(model, "forward", limited)
    assert_equal(ours(pairs, block=48), expected)
    assert limited.failed > 0
    failed = limited.failed
    assert_equal(ours(pairs, block=48), expected)
    assert limited.failed - failed <= failed


def test_no_memory_at_all_is_said(tokenizer: Any) -> None:
    model = build("llama")
    ours = Ours(model, tokenizer)
    object.__setattr__(model, "forward", Limited(model, tokens=10))
    with pytest.raises(OutOfMemory, match="batch size 1"):
        ours(quiz([(0, 0)]))


def in_8_bits(model: Any) -> Any:
    """The model with the inputs of its linear layers rounded to 8 bits, token by token, as W8A8 does."""

    def rounded(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        step = inputs[0].abs().amax(dim=-1, keepdim=True).clamp_min(1e-6) / 127
        return ((inputs[0] / step).round() * step,)

    for layer in model.model.layers:
        for module in layer.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(rounded)
    return model


def test_activations_in_8_bits_share_within_their_noise(tokenizer: Any) -> None:
    model = in_8_bits(build("llama"))
    ours = Ours(model, tokenizer)
    assert ours.notes == ()
    pairs = quiz(QUESTIONS, shots=2)
    expected, found = theirs(model, tokenizer, pairs), ours(pairs)
    size = sum(abs(total) for total, _ in expected)
    assert 0 < sum(abs(a - b) for (a, _), (b, _) in zip(expected, found, strict=True)) < 1e-2 * size


def test_activations_in_8_bits_do_not_hide_a_mistake(tokenizer: Any) -> None:
    assert "in a trial" in Ours(careless(in_8_bits(build("llama"))), tokenizer).notes[0]


def careless(model: Any) -> Any:
    """The model, which does not look at the mask any more."""
    forward = model.forward

    @functools.wraps(forward)
    def blind(*args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get("attention_mask")
        return forward(*args, **kwargs if mask is None else {**kwargs, "attention_mask": torch.ones_like(mask)})

    object.__setattr__(model, "forward", blind)
    return model


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_a_batch_size_is_kept_to(tokenizer: Any, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    pairs = quiz(QUESTIONS[:5], shots=2)
    expected = theirs(model, tokenizer, pairs)
    ours = Ours(model, tokenizer, batch_size=batch_size)
    sizes: list[int] = []
    scores = RequestScorer._scores

    def watched(self: RequestScorer, planned: Any) -> Any:
        sizes.append(sum(len(members) for _, members in planned))
        return scores(self, planned)

    monkeypatch.setattr(RequestScorer, "_scores", watched)
    assert_equal(ours(pairs), expected)
    assert max(sizes) == min(batch_size, len(pairs))


def test_a_model_that_gets_trees_wrong_is_found_out(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One that does not look at the mask: without a trial its scores would be off without a word."""
    model = careless(build("llama"))
    ours = Ours(model, tokenizer)
    (note,) = ours.notes
    assert "in a trial, log-likelihoods differed from a plain pass by" in note
    assert note in caplog.text
    pairs = quiz(QUESTIONS[:3])
    assert_equal(ours(pairs), theirs(model, tokenizer, pairs))


def test_a_model_that_fails_on_trees_is_found_out(tokenizer: Any) -> None:
    model = build("llama")
    model.config._attn_implementation = "flash_attention_2"
    assert "attention 'flash_attention_2' takes no mask for trees" in Ours(model, tokenizer).notes[0]


def test_bfloat16_differs_no_more_than_hflm_does_from_itself(tokenizer: Any) -> None:
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(**{**SIZES, "initializer_range": 0.1})).eval().bfloat16()
    pairs = quiz(QUESTIONS)
    alone, together = theirs(model, tokenizer, pairs), theirs(model, tokenizer, pairs, batch_size=5)
    ours = Ours(model, tokenizer)
    assert ours.notes == ()
    noise = max(abs(a - b) for (a, _), (b, _) in zip(alone, together, strict=True))
    found = max(abs(a - b) for (a, _), (b, _) in zip(alone, ours(pairs), strict=True))
    assert found <= max(2 * noise, 0.25), (found, noise)
