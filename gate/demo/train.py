"""Train the demo world's tokenizer and baseline: `python -m gate.demo.train --out gate/demo/world`.

Writes `<out>/baseline` (Hugging Face format, fp32 safetensors) and `<out>/data` (the evaluation files). One thread,
fixed seeds; nothing is downloaded and no evaluation text is trained on.
"""

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gate.demo.corpus import Kind, Split, training_document
from gate.demo.evaldata import check_disjoint, evaluation_set, write_evaluation_set
from gate.demo.measure import measure
from gate.demo.words import AMOUNTS, LAST_HOUR

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
MAX_POSITIONS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides the baseline's weights."""

    seed: int = 1
    vocabulary: int = 1024
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384
    context_tokens: int = 192
    batch_rows: int = 16
    training_tokens: int = 9_300_000
    peak_learning_rate: float = 2e-3
    warmup_steps: int = 100
    decay_fraction: float = 0.4
    embedding_std: float = 0.3
    question_weight: float = 0.2
    answer_weight: float = 3.0
    shares: tuple[tuple[Kind, float], ...] = (
        (Kind.PROSE, 0.46),
        (Kind.LEDGER, 0.12),
        (Kind.ARITHMETIC, 0.04),
        (Kind.QUESTION, 0.38),
    )


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which every amount and hour is one token.

    Raises RuntimeError if a number was split: with split numbers the model does not learn to add in this budget.
    """
    numbers = [f" {number}" for number in sorted({*AMOUNTS, *range(LAST_HOUR + 1)})]

    def with_numbers() -> Iterator[str]:
        yield from texts
        for number in numbers:
            yield number * 10_000

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        with_numbers(),
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    split = [number for number in numbers if len(bpe.encode(number).ids) != 1]
    if split:
        raise RuntimeError(f"found {split[:5]!r} split into pieces, expected one token each: raise the vocabulary")
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def draw_documents(recipe: Recipe, tokens_of: dict[Kind, float], seed: int) -> list[tuple[str, str]]:
    """Shuffled training documents as (prompt, answer), in the recipe's shares of tokens."""
    rng = random.Random(seed)
    documents = []
    for kind, share in recipe.shares:
        count = round(share * recipe.training_tokens / tokens_of[kind])
        documents += [training_document(rng, kind) for _ in range(count)]
    rng.shuffle(documents)
    return documents


def pack(
    documents: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and loss weights, both [rows, context + 1]; a row starts with a document and cuts its last one."""
    bpe = tokenizer.backend_tokenizer
    prompts = bpe.encode_batch([prompt for prompt, _ in documents], add_special_tokens=False)
    answers = bpe.encode_batch([answer for _, answer in documents], add_special_tokens=False)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    width = recipe.context_tokens + 1
    rows: list[list[int]] = []
    row_weights: list[list[float]] = []
    ids: list[int] = []
    weights: list[float] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        answer_weight = recipe.answer_weight if prompt.ids else 1.0
        ids += [bos, *prompt.ids, *answer.ids, eos]
        weights += [0.0] + [recipe.question_weight] * len(prompt.ids)
        weights += [answer_weight] * (len(answer.ids) + 1)
        if len(ids) >= width:
            rows.append(ids[:width])
            row_weights.append(weights[:width])
            ids, weights = [], []
    return torch.tensor(rows), torch.tensor(row_weights)


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained fp32 Llama of the recipe's size, with wide embeddings."""
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=False,
        dtype="float32",
        **special,
    )
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=recipe.embedding_std)
    model.generation_config = GenerationConfig(**special)
    return model


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, a plateau, then linear decay to zero over the last part; accuracy climbs during the decay."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    cool = min(1.0, (steps - step) / (recipe.decay_fraction * steps))
    return recipe.peak_learning_rate * min(warm, cool)


def fit(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor, recipe: Recipe) -> None:
    """One pass over the rows in order."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    steps = len(ids) // recipe.batch_rows
    started = time.monotonic()
    model.train()
    for step in range(steps):
        rows = slice(step * recipe.batch_rows, (step + 1) * recipe.batch_rows)
        batch, weight = ids[rows], weights[rows, 1:].reshape(-1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, recipe)
        logits = model(batch[:, :-1], use_cache=False).logits
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].reshape(-1), reduction="none")
        loss = (nll * weight).sum() / weight.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            print(f"step {step + 1}/{steps} loss {loss.item():.4f} {seconds:.0f} s", flush=True)
    model.eval()


def train(out: Path, recipe: Recipe) -> None:
    """Write the evaluation files, then train and write the baseline."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    report = evaluation_set(Split.REPORT)
    write_evaluation_set(report, out / "data")

    rng = random.Random(recipe.seed)
    samples = {kind: ["".join(training_document(rng, kind)) for _ in range(4000)] for kind, _ in recipe.shares}
    tokenizer = train_tokenizer((text for texts in samples.values() for text in texts), recipe.vocabulary)
    tokens_of = {
        kind: sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts[:500]) / 500
        for kind, texts in samples.items()
    }
    print({kind.value: round(tokens, 1) for kind, tokens in tokens_of.items()}, flush=True)
    documents = draw_documents(recipe, tokens_of, recipe.seed + 1)
    for held_out in (report, evaluation_set(Split.SEARCH)):
        check_disjoint(held_out, (prompt + answer for prompt, answer in documents))
    ids, weights = pack(documents, tokenizer, recipe)
    model = build_model(recipe, tokenizer)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {ids.numel()} tokens", flush=True)
    fit(model, ids, weights, recipe)

    baseline = out / "baseline"
    model.save_pretrained(baseline)
    tokenizer.save_pretrained(baseline)
    print(measure(model, tokenizer, report), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder to write baseline/ and data/ into")
    parser.add_argument("--tokens", type=int, default=Recipe().training_tokens, help="training tokens")
    arguments = parser.parse_args()
    train(arguments.out, Recipe(training_tokens=arguments.tokens))


if __name__ == "__main__":
    main()
