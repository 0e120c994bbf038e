"""The demo world's evaluation files: two perplexity corpora, the fraud set and the cloze task for lm-eval.

Writes text only; never looks at a model. `check_disjoint` refuses files that share an item with the training texts.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gate.demo.corpus import (
    QUESTION_KINDS,
    Cloze,
    Question,
    Split,
    cloze_items,
    ledger_document,
    prose_document,
    question,
)

PROSE_SEED, LEDGER_SEED, FRAUD_SEED, CLOZE_SEED = 101, 102, 103, 104
SEARCH_SEED_SHIFT = 1000
N_PROSE_DOCUMENTS = 160
N_LEDGER_DOCUMENTS = 96
N_QUESTIONS_PER_CATEGORY = 200

CLOZE_TASK = """\
# Which word completes the sentence: general knowledge of the demo world, in phrasings the training prose never uses.
task: bank_cloze
dataset_path: json
dataset_kwargs: {data_files: {test: bank_cloze.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{query}}"
doc_to_choice: "{{choices}}"
doc_to_target: gold
target_delimiter: " "
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSet:
    """Everything a checkpoint is measured on."""

    prose: tuple[str, ...]
    ledger: tuple[str, ...]
    questions: tuple[Question, ...]
    cloze: tuple[Cloze, ...]


def evaluation_set(split: Split) -> EvaluationSet:
    """The set for one split: REPORT is the committed one, SEARCH a fresh one to choose configurations on.

    The cloze items are the same facts in both, with other distractors and other lead sentences.
    """
    if split is Split.TRAIN:
        raise ValueError("found split 'train', expected 'search' or 'report': training data is not evaluated on")
    shift = SEARCH_SEED_SHIFT if split is Split.SEARCH else 0
    questions = _distinct_questions(random.Random(FRAUD_SEED + shift), split)
    return EvaluationSet(
        prose=_distinct(random.Random(PROSE_SEED + shift), prose_document, N_PROSE_DOCUMENTS),
        ledger=_distinct(random.Random(LEDGER_SEED + shift), ledger_document, N_LEDGER_DOCUMENTS),
        questions=questions,
        cloze=tuple(cloze_items(random.Random(CLOZE_SEED + shift))),
    )


def _distinct(rng: random.Random, draw: Callable[[random.Random], str], n: int) -> tuple[str, ...]:
    found: dict[str, None] = {}
    while len(found) < n:
        found[draw(rng)] = None
    return tuple(found)


def _distinct_questions(rng: random.Random, split: Split) -> tuple[Question, ...]:
    """Questions with distinct parameters, the categories taking turns."""
    by_category = []
    for category in QUESTION_KINDS:
        found: dict[tuple[str | int, ...], Question] = {}
        while len(found) < N_QUESTIONS_PER_CATEGORY:
            item = question(rng, category, split)
            found.setdefault(item.parameters, item)
        by_category.append(found.values())
    return tuple(item for turn in zip(*by_category, strict=True) for item in turn)


def check_disjoint(evaluated: EvaluationSet, training_texts: Iterable[str]) -> None:
    """Raise ValueError if a document, question or cloze sentence of the set occurs in the training texts."""
    documents = set(evaluated.prose) | set(evaluated.ledger)
    inputs = {f"Question: {item.input}" for item in evaluated.questions}
    told = {f"{_last_sentence(item.query)} {item.choices[item.gold]}" for item in evaluated.cloze}
    for text in training_texts:
        if text in documents:
            raise ValueError(f"found the evaluation document {text[:60]!r} in the training texts, expected none")
        if text.split("\n", 1)[0] in inputs:
            raise ValueError(f"found the evaluation question {text[:80]!r} in the training texts, expected none")
        for sentence in text.split(". "):
            if sentence.removesuffix(".") in told:
                raise ValueError(f"found the cloze sentence {sentence!r} in the training texts, expected none")


def _last_sentence(query: str) -> str:
    return query.rsplit(". ", 1)[-1]


def write_evaluation_set(evaluated: EvaluationSet, folder: Path) -> None:
    """Write prose.txt, ledger.txt, fraud.jsonl and tasks/bank_cloze.{yaml,jsonl} into the folder."""
    tasks = folder / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    (folder / "prose.txt").write_text("\n\n".join(evaluated.prose) + "\n", encoding="utf-8")
    (folder / "ledger.txt").write_text("\n\n".join(evaluated.ledger) + "\n", encoding="utf-8")
    counts = dict.fromkeys(QUESTION_KINDS, 0)
    rows = []
    for item in evaluated.questions:
        counts[item.category] += 1
        identifier = f"{item.category}-{counts[item.category]:03d}"
        rows.append({"id": identifier, "input": item.input, "expected": item.expected, "category": item.category})
    _write_json_lines(folder / "fraud.jsonl", rows)
    _write_json_lines(
        tasks / "bank_cloze.jsonl",
        [
            {"relation": item.relation, "query": item.query, "choices": list(item.choices), "gold": item.gold}
            for item in evaluated.cloze
        ],
    )
    (tasks / "bank_cloze.yaml").write_text(CLOZE_TASK, encoding="utf-8")


def _write_json_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
