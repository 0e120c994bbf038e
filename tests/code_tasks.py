"""Local tasks like HumanEval and MBPP: lm-eval's own YAML and metrics on a few problems from files.

Prompts, right and wrong completions; no hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval.tasks
import yaml

BUNDLED = Path(lm_eval.tasks.__file__).parent


def humaneval_problems(n: int) -> list[dict[str, Any]]:
    """`add_k(x)` adds k; the completion is the function's body."""
    return [
        {
            "task_id": f"Local/{k}",
            "prompt": f'def add_{k}(x: int) -> int:\n    """Add {k} to x."""\n',
            "canonical_solution": f"    return x + {k}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {1 + k}\n    assert candidate(-{k}) == 0\n",
            "entry_point": f"add_{k}",
        }
        for k in range(2, n + 2)
    ]


def mbpp_problems(n: int) -> list[dict[str, Any]]:
    return [
        {
            "task_id": k,
            "text": f"Write a function to multiply by {k}.",
            "code": f"def times_{k}(x):\n  return {k} * x",
            "test_list": [f"assert times_{k}({x}) == {k * x}" for x in (1, 2, 5)],
        }
        for k in range(2, n + 2)
    ]


def write(folder: Path, name: str, rows: list[dict[str, Any]], config: dict[str, Any], include: str | None) -> None:
    """A task in `folder`/tasks; `include` is a YAML of lm-eval that it changes."""
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    (tasks / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    document = {
        **({"include": str(BUNDLED / include)} if include else {}),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        **config,
    }
    (tasks / f"{name}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")


def write_humaneval(folder: Path, n: int, **config: Any) -> list[dict[str, Any]]:
    """The task `local_humaneval` and its problems."""
    problems = humaneval_problems(n)
    write(folder, "local_humaneval", problems, config, "humaneval/humaneval.yaml")
    return problems
