"""Facts about the usual lm-eval tasks and corpora, so that a plan needs no network and no data.

Pure data: items of the evaluated split, what is asked, chance level.  Holds no thresholds and no model's scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    """`choice` compares log-likelihoods, `generate` writes text; `items` and `chance` are None where they vary."""

    axis: str
    kind: Kind
    items: int | None
    chance: float | None


def _table(axis: str, kind: Kind, rows: dict[str, tuple[int | None, float | None]]) -> dict[str, TaskFacts]:
    return {name: TaskFacts(axis=axis, kind=kind, items=n, chance=chance) for name, (n, chance) in rows.items()}


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

CORPORA: dict[str, tuple[int, int]] = {"wikitext2": (62, 4600), "c4": (45576, 480)}
"""Corpus → (documents of the evaluated split, usual tokens per document)."""


def facts(task: str) -> TaskFacts | None:
    """Facts of a task; of a part such as `mmlu_anatomy`, what its whole says, without a number of items."""
    if task in TASKS:
        return TASKS[task]
    wholes = [name for name in TASKS if task.startswith(f"{name}_")]
    if not wholes:
        return None
    whole = TASKS[max(wholes, key=len)]
    return TaskFacts(axis=whole.axis, kind=whole.kind, items=None, chance=whole.chance)
