"""Seeded generator of the demo world's texts: prose, ledgers, arithmetic, and fraud-pattern questions.

Pure: no I/O and no clock; every function draws from the generator it is given.

Two rules keep evaluation apart from training. A question belongs to exactly one `Split`, decided by a hash of its
parameters (not of its wording), so no training question has the numbers of an evaluation question. And each fact of
the world has one phrasing that prose never uses: only the cloze test asks in that phrasing.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from gate.demo.words import (
    AMOUNT_MAX,
    AMOUNTS,
    BRANCH_TOWNS,
    FACTS,
    FILLERS,
    LAST_HOUR,
    PEOPLE,
    RELATIONS,
    SLOTS,
    TOWNS,
    TRIP_HOURS,
    held_out_phrasing,
    stable_hash,
)

PROMPT_TEMPLATE = "Question: {input}\nAnswer:"


class Split(StrEnum):
    """Who may see a question: the training run, the search over candidates, or the final report."""

    TRAIN = "train"
    SEARCH = "search"
    REPORT = "report"


class Kind(StrEnum):
    """The kinds of training document."""

    PROSE = "prose"
    LEDGER = "ledger"
    ARITHMETIC = "arithmetic"
    QUESTION = "question"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One fraud-pattern question; `expected` is the working and the answer, one line."""

    category: str
    parameters: tuple[str | int, ...]
    input: str
    expected: str

    @property
    def split(self) -> Split:
        match stable_hash(self.category, *self.parameters) % 8:
            case 0:
                return Split.REPORT
            case 1:
                return Split.SEARCH
            case _:
                return Split.TRAIN


@dataclass(frozen=True, kw_only=True, slots=True)
class Cloze:
    """One general-knowledge item: complete the sentence with one of four words."""

    relation: str
    query: str
    choices: tuple[str, str, str, str]
    gold: int


def prose_document(rng: random.Random) -> str:
    """One paragraph about two towns and two people: about half facts of the world, half small talk."""
    towns, people = rng.sample(TOWNS, 2), rng.sample(PEOPLE, 2)
    facts = [(relation, s) for relation in RELATIONS for s in towns + people if s in relation.subjects]
    rng.shuffle(facts)
    sentences = []
    for _ in range(rng.randint(12, 15)):
        if rng.random() < 0.5:
            relation, subject = facts.pop()
            allowed = [i for i in range(3) if i != held_out_phrasing(relation, subject)]
            phrasing = relation.phrasings[rng.choice(allowed)]
            sentences.append(phrasing.format(e=subject, v=FACTS[relation.name, subject]))
        else:
            sentences.append(_filler(rng, towns, people))
    return " ".join(sentences)


def _filler(rng: random.Random, towns: list[str], people: list[str]) -> str:
    named = {"p": people[0], "q": people[1], "t": rng.choice(towns)}

    def fill(slot: re.Match[str]) -> str:
        name = slot.group(1)
        return named[name] if name in named else rng.choice(SLOTS[name])

    return re.sub(r"\{(\w+)\}", fill, rng.choice(FILLERS))


def ledger_document(rng: random.Random) -> str:
    """One account's ledger: an opening line, then entries that each show the new balance."""
    balance = rng.choice(AMOUNTS)
    lines = [f"Ledger of {rng.choice(PEOPLE)} at {rng.choice(BRANCH_TOWNS)} : opening {balance}"]
    for _ in range(rng.randint(5, 8)):
        deposits = [amount for amount in AMOUNTS if balance + amount <= AMOUNT_MAX]
        payments = [amount for amount in AMOUNTS if amount < balance]
        if deposits and (not payments or rng.random() < 0.5):
            amount = rng.choice(deposits)
            lines.append(f"deposit {amount} : {balance} + {amount} = {balance + amount}")
            balance += amount
        else:
            amount = rng.choice(payments)
            lines.append(f"payment {amount} : {balance} - {amount} = {balance - amount}")
            balance -= amount
    return "\n".join(lines)


def arithmetic_document(rng: random.Random) -> str:
    """A few lines of sums and differences of amounts."""
    lines = []
    for _ in range(rng.randint(3, 6)):
        a, b = sorted(rng.sample(AMOUNTS, 2))
        lines.append(f"Sum : {b - a} + {a} = {b}" if rng.random() < 0.5 else f"Difference : {b} - {a} = {b - a}")
    return "\n".join(lines)


def _balance(rng: random.Random) -> Question:
    a = rng.choice(AMOUNTS[:-1])
    b = rng.choice([x for x in AMOUNTS if a + x <= AMOUNT_MAX])
    c = rng.choice([x for x in AMOUNTS if x < a + b])
    return Question(
        category="balance",
        parameters=(a, b, c),
        input=f"The account of {rng.choice(PEOPLE)} holds {a} crowns. A deposit of {b} arrives and a payment of {c} "
        "leaves. What is the balance?",
        expected=f"{a} + {b} = {a + b} ; {a + b} - {c} = {a + b - c}",
    )


def _travel(rng: random.Random) -> Question:
    start, end = rng.sample(BRANCH_TOWNS, 2)
    trip = TRIP_HOURS[start, end]
    possible = rng.random() < 0.5
    gap = rng.randint(trip, trip + 4) if possible else rng.randint(1, trip - 1)
    first = rng.randint(1, LAST_HOUR - gap)
    return Question(
        category="travel",
        parameters=(start, end, first, first + gap),
        input=f"A card is used in {start} at hour {first} and in {end} at hour {first + gap}. "
        "Could one person carry it?",
        expected=f"gap {gap} ; trip {trip} ; {'yes' if possible else 'no'}",
    )


def _limit(rng: random.Random) -> Question:
    a = rng.choice(AMOUNTS[:-1])
    b = rng.choice([x for x in AMOUNTS if a + x <= AMOUNT_MAX])
    spent = a + b
    over = rng.random() < 0.5
    limits = [x for x in AMOUNTS if (x < spent if over else x >= spent)]
    near = sorted(limits, key=lambda x: abs(x - spent))[:8]
    limit = rng.choice(near if rng.random() < 0.5 else limits)
    return Question(
        category="limit",
        parameters=(limit, a, b),
        input=f"The daily limit of {rng.choice(PEOPLE)} is {limit} crowns. The card pays {a} and then {b}. "
        "Is the limit broken?",
        expected=f"{a} + {b} = {spent} ; limit {limit} ; {'block' if over else 'allow'}",
    )


QUESTION_KINDS: dict[str, Callable[[random.Random], Question]] = {
    "balance": _balance,
    "travel": _travel,
    "limit": _limit,
}


def question(rng: random.Random, category: str, split: Split) -> Question:
    """Draw questions of one category until one belongs to the split."""
    draw = QUESTION_KINDS[category]
    while True:
        candidate = draw(rng)
        if candidate.split is split:
            return candidate


def question_document(item: Question) -> tuple[str, str]:
    """A question as (prompt, answer); the two strings joined are the training document."""
    return PROMPT_TEMPLATE.format(input=item.input), f" {item.expected}\n"


def cloze_items(rng: random.Random) -> Iterator[Cloze]:
    """One item for every fact of the world, in the phrasing that prose never uses for it."""
    for relation in RELATIONS:
        for subject in relation.subjects:
            answer = FACTS[relation.name, subject]
            wrong = rng.sample([value for value in relation.values if value != answer], 3)
            choices = [answer, *wrong]
            rng.shuffle(choices)
            sentence = relation.phrasings[held_out_phrasing(relation, subject)]
            lead = _filler(rng, rng.sample(TOWNS, 2), rng.sample(PEOPLE, 2))
            first, second, third, fourth = choices
            yield Cloze(
                relation=relation.name,
                query=f"{lead} {sentence.format(e=subject, v='').removesuffix(' .')}",
                choices=(first, second, third, fourth),
                gold=choices.index(answer),
            )


def training_document(rng: random.Random, kind: Kind) -> tuple[str, str]:
    """One training document as (prompt, answer); all but questions have an empty prompt."""
    match kind:
        case Kind.PROSE:
            return "", prose_document(rng)
        case Kind.LEDGER:
            return "", ledger_document(rng)
        case Kind.ARITHMETIC:
            return "", arithmetic_document(rng)
        case Kind.QUESTION:
            return question_document(question(rng, rng.choice(tuple(QUESTION_KINDS)), Split.TRAIN))
