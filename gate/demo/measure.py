"""Measure demo checkpoints: `python -m gate.demo.measure --world gate/demo/world` prints the table of docs/demo.md.

A short independent reference (perplexity on two corpora, exact-match accuracy, cloze accuracy); the gate itself never
uses these numbers.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gate.demo.corpus import PROMPT_TEMPLATE, QUESTION_KINDS, Cloze, Question, Split
from gate.demo.evaldata import EvaluationSet, evaluation_set

WINDOW_TOKENS = 128
STRIDE_TOKENS = 64
BATCH_ROWS = 32
MAX_NEW_TOKENS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One checkpoint's results; accuracies are 0..1, NLL sums are per document."""

    prose_nll_nats: tuple[tuple[float, int], ...]
    ledger_nll_nats: tuple[tuple[float, int], ...]
    accuracy_by_category: dict[str, float]
    cloze_accuracy: float

    @property
    def prose_perplexity(self) -> float:
        return _perplexity(self.prose_nll_nats)

    @property
    def ledger_perplexity(self) -> float:
        return _perplexity(self.ledger_nll_nats)

    @property
    def accuracy(self) -> float:
        return sum(self.accuracy_by_category.values()) / len(self.accuracy_by_category)

    def __str__(self) -> str:
        by_category = ", ".join(f"{name} {value:.4f}" for name, value in self.accuracy_by_category.items())
        return (
            f"prose {self.prose_perplexity:.4f}  ledger {self.ledger_perplexity:.4f}  "
            f"accuracy {self.accuracy:.4f} ({by_category})  cloze {self.cloze_accuracy:.4f}"
        )


def _perplexity(documents: tuple[tuple[float, int], ...]) -> float:
    return math.exp(sum(nats for nats, _ in documents) / sum(tokens for _, tokens in documents))


def measure(model: Any, tokenizer: Any, evaluated: EvaluationSet) -> Measurement:
    """Measure one loaded model on everything in the set."""
    return Measurement(
        prose_nll_nats=tuple(document_nll(model, tokenizer, text) for text in evaluated.prose),
        ledger_nll_nats=tuple(document_nll(model, tokenizer, text) for text in evaluated.ledger),
        accuracy_by_category=accuracy_by_category(model, tokenizer, evaluated.questions),
        cloze_accuracy=cloze_accuracy(model, tokenizer, evaluated.cloze),
    )


@torch.no_grad()
def document_nll(model: Any, tokenizer: Any, text: str) -> tuple[float, int]:
    """Summed NLL in nats and number of scored tokens of one document, in sliding windows."""
    ids = torch.tensor(tokenizer(text)["input_ids"])
    nats, scored = 0.0, 1
    for start in range(0, len(ids), STRIDE_TOKENS):
        window = ids[start : start + WINDOW_TOKENS]
        end = start + len(window)
        new = end - scored
        if new > 0:
            log_probs = model(window[None]).logits[0, -new - 1 : -1].float().log_softmax(-1)
            nats -= log_probs.gather(1, window[-new:, None]).double().sum().item()
            scored = end
        if end == len(ids):
            break
    return nats, len(ids) - 1


@torch.no_grad()
def answers(model: Any, tokenizer: Any, questions: tuple[Question, ...]) -> list[str]:
    """Greedy answers, one line each, in the order of the questions."""
    newline = tokenizer.encode("\n", add_special_tokens=False)[0]
    found = []
    for start in range(0, len(questions), BATCH_ROWS):
        prompts = [PROMPT_TEMPLATE.format(input=q.input) for q in questions[start : start + BATCH_ROWS]]
        batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=[tokenizer.eos_token_id, newline],
        )
        texts = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        found += [text.split("\n", 1)[0].strip() for text in texts]
    return found


def accuracy_by_category(model: Any, tokenizer: Any, questions: tuple[Question, ...]) -> dict[str, float]:
    """Exact-match accuracy of each category."""
    right: dict[str, list[bool]] = {}
    for item, answer in zip(questions, answers(model, tokenizer, questions), strict=True):
        right.setdefault(item.category, []).append(answer == item.expected)
    return {category: sum(hits) / len(hits) for category, hits in right.items()}


@torch.no_grad()
def cloze_accuracy(model: Any, tokenizer: Any, items: tuple[Cloze, ...]) -> float:
    """Share of items whose right word has the highest summed log-likelihood."""
    right = 0
    for item in items:
        context = len(tokenizer(item.query)["input_ids"])
        encoded = [tokenizer(f"{item.query} {choice}")["input_ids"] for choice in item.choices]
        width = max(map(len, encoded))
        rows = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids in encoded])
        log_probs = model(rows).logits[:, context - 1 : -1].float().log_softmax(-1)
        scores = log_probs.gather(2, rows[:, context:, None]).squeeze(2)
        scored = rows[:, context:] != tokenizer.pad_token_id
        right += int((scores * scored).sum(1).argmax().item() == item.gold)
    return right / len(items)


def table_head() -> str:
    columns = ["configuration", "prose ppl", "ledger ppl", "accuracy", *QUESTION_KINDS, "cloze", "MB"]
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def table_row(name: str, found: Measurement, baseline: Measurement, folder: Path) -> str:
    """One Markdown row: perplexities as relative change, accuracies in percent, size in 10^6 bytes."""
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    cells = [
        name,
        f"{found.prose_perplexity / baseline.prose_perplexity - 1:+.2%}",
        f"{found.ledger_perplexity / baseline.ledger_perplexity - 1:+.2%}",
        f"{found.accuracy:.2%}",
        *(f"{found.accuracy_by_category[category]:.1%}" for category in QUESTION_KINDS),
        f"{found.cloze_accuracy:.2%}",
        f"{megabytes:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--world", type=Path, required=True, help="folder that holds baseline/ and candidates/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    evaluated = evaluation_set(Split.REPORT)
    tokenizer = AutoTokenizer.from_pretrained(arguments.world / "baseline")
    folders = [arguments.world / "baseline", *sorted((arguments.world / "candidates").iterdir())]
    baseline: Measurement | None = None
    print(table_head())
    for folder in folders:
        found = measure(AutoModelForCausalLM.from_pretrained(folder), tokenizer, evaluated)
        baseline = baseline or found
        print(table_row(folder.name, found, baseline, folder), flush=True)


if __name__ == "__main__":
    main()
