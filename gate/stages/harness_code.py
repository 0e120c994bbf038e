"""Tasks that execute what the model wrote: `evaluate`'s metric `code_eval`, with every program in the gate's sandbox.

Executes nothing in this process, and takes no code from the hub: `evaluate.load("code_eval")` finds this one.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from gate import sandbox
from gate.errors import CouldNotMeasure
from gate.sandbox import SandboxError
from gate.stages.epochs import pass_at_k

_NAMES = ("code_eval", "evaluate-metric/code_eval")


class CodeEval:
    """`compute` has the arguments and the results of the metric of that name, version 2022.03.

    A program passes when it runs to its end: no exception, no exit, no limit reached.  `failure` says what went wrong
    with the sandbox itself since it was last cleared, whatever a task made of the exception.
    """

    def __init__(self) -> None:
        self.failure: str | None = None

    def compute(
        self,
        *,
        predictions: Sequence[Sequence[str]],
        references: Sequence[str],
        k: Sequence[int] = (1, 10, 100),
        num_workers: int = 4,
        timeout: float = sandbox.LIMITS.cpu_seconds,
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, Any]]]]]:
        """(`pass@k` for each k that all tasks have enough candidates for, what became of every candidate).

        Args:
            predictions: the candidate programs of each task.
            references: the tests of each task, appended to each of its candidates.
            timeout: seconds of CPU time for a program.

        Raises:
            CouldNotMeasure: there is no sandbox on this machine.
            SandboxError: a program could not be run.
        """
        jobs = [
            (task, number, f"{candidate}\n{tests}")
            for task, (candidates, tests) in enumerate(zip(predictions, references, strict=True))
            for number, candidate in enumerate(candidates)
        ]
        results: dict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        with ThreadPoolExecutor(max_workers=max(1, min(num_workers, os.cpu_count() or 1))) as pool:
            ended = pool.map(lambda job: self._run(job[2], timeout), jobs)
            for (task, number, _), end in zip(jobs, ended, strict=True):
                row = {"task_id": task, "passed": end.to_its_end, "result": end.said, "completion_id": number}
                results[task].append((number, row))
        counts = [(len(rows), sum(row["passed"] for _, row in rows)) for rows in results.values()]
        rates = {
            f"pass@{n}": sum(pass_at_k(answers=total, right=right, k=n) for total, right in counts) / len(counts)
            for n in k
            if counts and all(total >= n for total, _ in counts)
        }
        return rates, results

    def passes(self, program: str, timeout: float = sandbox.LIMITS.cpu_seconds) -> bool:
        """Whether one program, tests included, runs to its end."""
        return self._run(program, timeout).to_its_end

    def _run(self, program: str, timeout: float) -> sandbox.Ended:
        try:
            return proven_sandbox().passes(program, cpu_seconds=max(1, round(timeout)))
        except (SandboxError, CouldNotMeasure) as problem:
            self.failure = str(problem)
            raise


CODE_EVAL = CodeEval()

_RUNS_BY_ITSELF = {"lm_eval.tasks.cruxeval.utils": {"check_correctness": CODE_EVAL.passes}}
"""Modules of lm-eval with a `code_eval` of their own: what to put in the place of which function."""


@functools.cache
def proven_sandbox() -> sandbox.Sandbox:
    """The sandbox of this machine, which proved itself once in this process.  Raises CouldNotMeasure without one."""
    return sandbox.find()


def describe() -> str:
    """The sandbox in words, for the notes of a measurement."""
    limits = sandbox.LIMITS
    return (
        f"the model's code ran in a sandbox ({proven_sandbox().name}: no network, no privileges, "
        f"{limits.cpu_seconds} s of CPU time, {limits.memory_bytes // 1024**2} MiB of memory)"
    )


def may_execute(configs: Mapping[str, Any]) -> bool:
    """Whether a task says in its YAML that it executes code."""
    return any(config.get("unsafe_code") for config, _ in configs.values())


def install() -> None:
    """Let `evaluate.load("code_eval")` find ours; everything else of `evaluate` stays what it is.

    `evaluate` itself takes seconds to import (it imports all of transformers), so it is not until somebody needs more.
    """
    os.environ.pop("HF_ALLOW_CODE_EVAL", None)  # whatever else may want to execute code here
    present = sys.modules.get("evaluate")
    if present is None:
        sys.modules["evaluate"] = _Evaluate()
    elif not isinstance(present, _Evaluate):
        _patch(present)


class _Evaluate(ModuleType):
    """Stands in for the package until somebody needs more of it than `code_eval`."""

    def __init__(self) -> None:
        super().__init__("evaluate")
        self.__spec__ = importlib.util.find_spec("evaluate") or ModuleSpec("evaluate", None)
        self.__path__ = list(self.__spec__.submodule_search_locations or ())

    def load(self, path: str, *arguments: Any, **settings: Any) -> Any:
        return CODE_EVAL if path in _NAMES else self._whole().load(path, *arguments, **settings)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._whole(), name)

    def _whole(self) -> Any:
        if sys.modules.get("evaluate") is self:
            del sys.modules["evaluate"]
        whole = importlib.import_module("evaluate")
        _patch(whole)
        return whole


def _patch(package: Any) -> None:
    if getattr(package.load, "finds_ours", False):
        return
    theirs = package.load

    @functools.wraps(theirs)
    def load(path: str, *arguments: Any, **settings: Any) -> Any:
        return CODE_EVAL if path in _NAMES else theirs(path, *arguments, **settings)

    load.finds_ours = True  # type: ignore[attr-defined]
    package.load = load


def executes(task: Any) -> bool:
    """Whether a task that is built scores by running programs, all of which go to the sandbox from now on."""
    found = False
    for module in _modules(task):
        replaced = _RUNS_BY_ITSELF.get(str(module.get("__name__")), {})
        module.update(replaced)
        found = found or bool(replaced) or any(_is_ours(value) for value in module.values())
    return found or any(map(_is_ours, getattr(task, "_metric_fn_list", {}).values()))


def _is_ours(value: Any) -> bool:
    return value is CODE_EVAL or getattr(value, "__self__", None) is CODE_EVAL


def _modules(task: Any) -> Iterator[dict[str, Any]]:
    """The namespaces of all functions in the task's config, and of its own class."""
    own = type(task)
    if not own.__module__.startswith("lm_eval.api."):
        yield vars(sys.modules[own.__module__]) if own.__module__ in sys.modules else own.__init__.__globals__
    for function in _functions(vars(task.config) if hasattr(task, "config") else {}):
        yield function.__globals__


def _functions(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for member in value.values():
            yield from _functions(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _functions(member)
    elif isinstance(value, functools.partial):
        yield from _functions(value.func)
    elif hasattr(value, "__globals__"):
        yield value
    elif hasattr(value, "__dataclass_fields__"):
        yield from _functions({name: getattr(value, name) for name in value.__dataclass_fields__})
