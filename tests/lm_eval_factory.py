"""lm-eval output folders written by hand, for what a real evaluation would not write on purpose.

The form is that of `EvaluationTracker` in lm-eval 0.4.13; tests/e2e/test_compare.py holds the code to real ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

DATE = "2026-11-20T12-00-00.000001"
Row = dict[str, Any]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def row(index: int, value: Any, *, metric: str = "acc", selected: str = "none", prompt: str = "") -> Row:
    """One line of a multiple-choice log with three choices; document and prompt follow from the index."""
    context = f"{prompt}Q {index}?\nA:"
    return {
        "doc_id": index,
        "doc": {"question": f"Q {index}?"},
        "target": "0",
        "arguments": {f"gen_args_{k}": {"arg_0": context, "arg_1": f" {c}"} for k, c in enumerate(("a", "b", "c"))},
        "resps": [[["-1.0", "False"]], [["-2.0", "False"]], [["-3.0", "False"]]],
        "filtered_resps": [["-1.0", "False"], ["-2.0", "False"], ["-3.0", "False"]],
        "filter": selected,
        "metrics": [metric],
        "doc_hash": digest(f"document {index}"),
        "prompt_hash": digest(context),
        "target_hash": digest("0"),
        metric: value,
    }


def rows(values: Sequence[Any], **changes: Any) -> list[Row]:
    return [row(i, value, **changes) for i, value in enumerate(values)]


def results(tasks: Mapping[str, Sequence[Row]], **changes: Any) -> dict[str, Any]:
    """The results file of an evaluation with these logs; `changes` replace whole sections."""
    scores = {
        task: {"acc,none": sum(float(r["acc"]) for r in log if "acc" in r) / max(len(log), 1)}
        for task, log in tasks.items()
    }
    config = {"output_type": "multiple_choice", "num_fewshot": 0, "metric_list": [{"metric": "acc"}]}
    return {
        "results": scores,
        "group_subtasks": {},
        "configs": {task: {"task": task, **config} for task in tasks},
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {task: {"acc": True} for task in tasks},
        "n-samples": {task: {"original": len(log), "effective": len(log)} for task, log in tasks.items()},
        "config": {"model": "hf", "limit": None, "fewshot_seed": 1234},
        "date": 1.0,
        "lm_eval_version": "0.4.13",
        "model_name": "org/model",
        "chat_template": None,
        "total_evaluation_time_seconds": "10.5",
        **changes,
    }


def write(
    folder: Path,
    tasks: Mapping[str, Sequence[Row]],
    *,
    model: str = "org/model",
    date: str = DATE,
    edit: Callable[[dict[str, Any]], object] = lambda document: None,
    **changes: Any,
) -> Path:
    """Write an evaluation below `folder` and return `folder`; `edit` changes the results file in place."""
    place = folder / model.replace("/", "__")
    place.mkdir(parents=True, exist_ok=True)
    document = results(tasks, **{"model_name": model, **changes})
    edit(document)
    (place / f"results_{date}.json").write_text(json.dumps(document), encoding="utf-8")
    for task, log in tasks.items():
        text = "".join(json.dumps(r) + "\n" for r in log)
        (place / f"samples_{task}_{date}.jsonl").write_text(text, encoding="utf-8")
    return folder


def log_of(folder: Path, task: str) -> Path:
    """The one log of a task in a folder."""
    (path,) = folder.rglob(f"samples_{task}_*.jsonl")
    return path
