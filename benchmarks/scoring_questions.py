"""The multiple-choice questions that `scoring` asks: MMLU from a folder, or of random words; as lm-eval words them.

Asks nobody; the order is the gate's.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gate.order import BLOCK_ITEMS, place

SHOTS = 5
LETTERS = "ABCD"

Pair = tuple[str, str]


@dataclass(frozen=True)
class Question:
    text: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Item:
    """One question as lm-eval asks it: a pair of context and continuation per choice."""

    item_id: str
    pairs: tuple[Pair, ...]


Subjects = dict[str, tuple[list[Question], list[Question]]]
"""Name → examples, questions."""


def read(folder: Path, n_subjects: int, n_questions: int) -> Subjects:
    names = sorted(p.name.removesuffix("_test.csv") for p in (folder / "test").glob("*_test.csv"))
    if len(names) < n_subjects:
        raise SystemExit(f"found {len(names)} subjects in {folder / 'test'}, expected at least {n_subjects}")
    names = random.Random(0).sample(names, n_subjects)

    def rows(path: Path) -> list[Question]:
        with path.open(encoding="utf-8", newline="") as file:
            return [Question(q, tuple(c), int(a)) for q, *c, a in list(csv.reader(file))[1:]]

    return {
        name: (
            rows(folder / "dev" / f"{name}_dev.csv")[:SHOTS],
            rows(folder / "test" / f"{name}_test.csv")[:n_questions],
        )
        for name in names
    }


def make(n_subjects: int, n_questions: int) -> Subjects:
    """Questions as long as MMLU's, of words that occur as often as words do."""
    rng = random.Random(0)
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(8000)]
    weights = [1 / (i + 3) for i in range(len(words))]

    def some(low: int, high: int) -> str:
        return " ".join(rng.choices(words, weights, k=rng.randint(low, high)))

    def questions(n: int) -> list[Question]:
        return [
            Question(some(10, 70) + "?", tuple(some(1, 14) for _ in LETTERS), rng.randrange(len(LETTERS)))
            for _ in range(n)
        ]

    return {some(2, 3): (questions(SHOTS), questions(n_questions)) for _ in range(n_subjects)}


def texts(subjects: Subjects) -> str:
    return "\n".join(f"{q.text} {' '.join(q.choices)}" for s in subjects.values() for part in s for q in part)


def by_letter(subjects: Subjects) -> list[Item]:
    def ask(q: Question) -> str:
        return "\n".join([q.text, *(f"{k}. {c}" for k, c in zip(LETTERS, q.choices, strict=True)), "Answer:"])

    return _items(subjects, ask, lambda q: LETTERS)


def by_text(subjects: Subjects) -> list[Item]:
    return _items(subjects, lambda q: f"Question: {q.text}\nAnswer:", lambda q: q.choices)


def _items(
    subjects: Subjects, ask: Callable[[Question], str], choices: Callable[[Question], Sequence[str]]
) -> list[Item]:
    items = []
    for name, (examples, questions) in subjects.items():
        start = f"The following are multiple choice questions (with answers) about {name.replace('_', ' ')}.\n\n"
        start += "".join(f"{ask(q)} {choices(q)[q.answer]}\n\n" for q in examples)
        items += [
            Item(f"{name}/{i:08d}/0", tuple((start + ask(q), f" {choice}") for choice in choices(q)))
            for i, q in enumerate(questions)
        ]
    return items


def blocks_of(items: list[Item]) -> list[list[Item]]:
    ordered = sorted(items, key=lambda item: place("benchmark", item.item_id))
    return [ordered[at : at + BLOCK_ITEMS] for at in range(0, len(ordered), BLOCK_ITEMS)]
