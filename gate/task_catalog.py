"""Facts about the usual lm-eval tasks and corpora, so that a plan needs no network and no data.

Pure data: items of the evaluated split, what is asked, chance level, about how many tokens an item takes.  Holds no
thresholds and no model's scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

AXES = {
    "knowledge": "mmlu",
    "commonsense": "hellaswag, winogrande",
    "reasoning": "gsm8k, bbh",
    "code": "humaneval, mbpp",
    "instruction following": "ifeval",
    "truthfulness": "truthfulqa_mc2",
    "multilingual": "belebele, mmmlu",
    "long context": "ruler, longbench",
    "your own data": "a domain stage",
}
"""Capability axis → what covers it."""

Kind = Literal["choice", "generate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFacts:
    """`choice` compares log-likelihoods, `generate` writes text; `items` and `chance` are None where they vary.

    `grouped`: the items come in subjects or languages, so answers within one go together.
    """

    axis: str
    kind: Kind
    items: int | None
    chance: float | None
    grouped: bool


_GROUPED = frozenset(
    "mmlu mmlu_pro mmlu_generative bbh minerva_math hendrycks_math belebele mmmlu xwinograd ruler longbench".split()
)


def _table(axis: str, kind: Kind, rows: dict[str, tuple[int | None, float | None]]) -> dict[str, TaskFacts]:
    return {
        name: TaskFacts(axis=axis, kind=kind, items=n, chance=chance, grouped=name in _GROUPED)
        for name, (n, chance) in rows.items()
    }


TASKS: dict[str, TaskFacts] = {
    **_table(
        "knowledge",
        "choice",
        {
            "mmlu": (14042, 0.25),
            "arc_easy": (2376, 0.25),
            "arc_challenge": (1172, 0.25),
            "sciq": (1000, 0.25),
            "openbookqa": (500, 0.25),
            "medqa_4options": (1273, 0.25),
            "medmcqa": (4183, 0.25),
            "gpqa_main_zeroshot": (448, 0.25),
            "gpqa_diamond_zeroshot": (198, 0.25),
        },
    ),
    **_table(
        "knowledge",
        "generate",
        {"mmlu_pro": (12032, 0.1), "mmlu_generative": (14042, 0.0), "triviaqa": (17944, 0.0), "nq_open": (3610, 0.0)},
    ),
    **_table(
        "commonsense",
        "choice",
        {
            "hellaswag": (10042, 0.25),
            "winogrande": (1267, 0.5),
            "piqa": (1838, 0.5),
            "boolq": (3270, 0.5),
            "social_iqa": (1954, 1 / 3),
            "commonsense_qa": (1221, 0.2),
            "swag": (20006, 0.25),
            "copa": (100, 0.5),
            "lambada_openai": (5153, 0.0),
            "lambada_standard": (5153, 0.0),
        },
    ),
    **_table("reasoning", "choice", {"logiqa": (651, 0.25), "mathqa": (2985, 0.2)}),
    **_table(
        "reasoning",
        "generate",
        {
            "gsm8k": (1319, 0.0),
            "gsm8k_cot": (1319, 0.0),
            "gsm8k_platinum": (1209, 0.0),
            "bbh": (6511, None),
            "minerva_math": (5000, 0.0),
            "minerva_math500": (500, 0.0),
            "hendrycks_math": (5000, 0.0),
            "hendrycks_math500": (500, 0.0),
            "aime24": (30, 0.0),
            "aime25": (30, 0.0),
        },
    ),
    **_table(
        "code",
        "generate",
        {
            "humaneval": (164, 0.0),
            "humaneval_instruct": (164, 0.0),
            "humaneval_plus": (164, 0.0),
            "mbpp": (500, 0.0),
            "mbpp_instruct": (500, 0.0),
            "mbpp_plus": (378, 0.0),
        },
    ),
    **_table("instruction following", "generate", {"ifeval": (541, 0.0), "leaderboard_ifeval": (541, 0.0)}),
    **_table("truthfulness", "choice", {"truthfulqa_mc1": (817, None), "truthfulqa_mc2": (817, None)}),
    **_table("truthfulness", "generate", {"truthfulqa_gen": (817, None)}),
    **_table("multilingual", "choice", {"belebele": (None, 0.25), "mmmlu": (None, 0.25), "xwinograd": (None, 0.5)}),
    **_table("long context", "generate", {"ruler": (None, 0.0), "longbench": (None, 0.0)}),
}


class Cost(NamedTuple):
    """About what one item costs, in tokens of a usual tokenizer.

    Plain estimates from the look of the tasks and not measurements: good to a factor of two, enough to tell minutes
    from hours.
    """

    passes: int  # continuations scored, each with the prompt before it; 1 where the answers are single letters
    example: int  # a question with its answer
    fewshot: int  # examples before the question where the policy does not say
    written: int  # what a model usually writes, 0 for multiple choice


COSTS: dict[str, Cost] = {
    "mmlu": Cost(1, 110, 0, 0),
    "arc_easy": Cost(4, 40, 0, 0),
    "arc_challenge": Cost(4, 45, 0, 0),
    "sciq": Cost(4, 130, 0, 0),
    "openbookqa": Cost(4, 25, 0, 0),
    "medqa_4options": Cost(1, 220, 0, 0),
    "medmcqa": Cost(1, 70, 0, 0),
    "gpqa_main_zeroshot": Cost(1, 250, 0, 0),
    "gpqa_diamond_zeroshot": Cost(1, 250, 0, 0),
    "mmlu_pro": Cost(1, 250, 5, 300),
    "mmlu_generative": Cost(1, 110, 0, 5),
    "triviaqa": Cost(1, 25, 0, 10),
    "nq_open": Cost(1, 20, 0, 10),
    "hellaswag": Cost(4, 100, 0, 0),
    "winogrande": Cost(2, 25, 0, 0),
    "piqa": Cost(2, 45, 0, 0),
    "boolq": Cost(1, 150, 0, 0),
    "social_iqa": Cost(3, 35, 0, 0),
    "commonsense_qa": Cost(1, 60, 0, 0),
    "swag": Cost(4, 40, 0, 0),
    "copa": Cost(2, 20, 0, 0),
    "lambada_openai": Cost(1, 90, 0, 0),
    "lambada_standard": Cost(1, 90, 0, 0),
    "logiqa": Cost(4, 180, 0, 0),
    "mathqa": Cost(5, 90, 0, 0),
    "gsm8k": Cost(1, 180, 5, 150),
    "gsm8k_cot": Cost(1, 120, 8, 150),
    "gsm8k_platinum": Cost(1, 180, 5, 150),
    "bbh": Cost(1, 250, 3, 200),
    "minerva_math": Cost(1, 200, 4, 300),
    "minerva_math500": Cost(1, 200, 4, 300),
    "hendrycks_math": Cost(1, 200, 0, 300),
    "hendrycks_math500": Cost(1, 200, 0, 300),
    "aime24": Cost(1, 150, 0, 8000),
    "aime25": Cost(1, 150, 0, 8000),
    "humaneval": Cost(1, 180, 0, 250),
    "humaneval_instruct": Cost(1, 220, 0, 300),
    "humaneval_plus": Cost(1, 180, 0, 250),
    "mbpp": Cost(1, 150, 3, 150),
    "mbpp_instruct": Cost(1, 170, 3, 200),
    "mbpp_plus": Cost(1, 150, 3, 150),
    "ifeval": Cost(1, 60, 0, 500),
    "leaderboard_ifeval": Cost(1, 60, 0, 500),
    "truthfulqa_mc1": Cost(5, 350, 0, 0),
    "truthfulqa_mc2": Cost(7, 350, 0, 0),
    "truthfulqa_gen": Cost(1, 330, 0, 40),
    "belebele": Cost(1, 400, 0, 0),
    "mmmlu": Cost(1, 150, 0, 0),
    "xwinograd": Cost(2, 30, 0, 0),
}
"""What the items of a task cost, where a usual length can be named (not for ruler and longbench)."""

CORPORA: dict[str, tuple[int, int]] = {"wikitext2": (62, 4600), "c4": (45576, 480)}
"""Corpus → (documents of the evaluated split, usual tokens per document)."""


def facts(task: str) -> TaskFacts | None:
    """Facts of a task; of a part such as `mmlu_anatomy`, what its whole says, without a number of items."""
    if task in TASKS:
        return TASKS[task]
    whole = _whole(task)
    if whole is None:
        return None
    of = TASKS[whole]
    return TaskFacts(axis=of.axis, kind=of.kind, items=None, chance=of.chance, grouped=False)


def tokens_per_item(task: str, fewshot: int | None) -> int | None:
    """About how many tokens one item takes, prompt and answer; None for tasks without an estimate.

    `fewshot`: examples in the prompt, None for the task's own number.
    """
    cost = COSTS.get(task if task in TASKS else _whole(task) or "")
    if cost is None:
        return None
    return cost.passes * cost.example * (1 + (cost.fewshot if fewshot is None else fewshot)) + cost.written


def _whole(task: str) -> str | None:
    return max((name for name in TASKS if task.startswith(f"{name}_")), key=len, default=None)
