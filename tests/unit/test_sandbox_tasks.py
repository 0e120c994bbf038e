"""HumanEval, MBPP and their like in the lm_eval stage: asked for, scored as the task says, in the sandbox alone."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gate import sandbox
from gate.errors import CouldNotMeasure, DataError
from gate.sandbox import Ended, SandboxError
from gate.stages import harness_code
from gate.stages.harness_code import CODE_EVAL
from gate.stages.lm_eval import check
from tests import code_tasks
from tests.unit.test_lm_eval_stage import ACC, OPEN, ScriptedLM, rows, run, settings, values
from tests.unit.test_lm_eval_stage import write as write_task

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def _sandboxed() -> None:
    try:
        harness_code.proven_sandbox()
    except CouldNotMeasure as problem:
        pytest.skip(str(problem))


class StandIn:
    """Instead of a sandbox: programs end as a function of their text says."""

    name = "stand-in"

    def __init__(self, ends: Callable[[str], bool | SandboxError] = lambda program: True) -> None:
        self.ends = ends
        self.programs: list[tuple[str, int]] = []

    def passes(self, program: str, *, cpu_seconds: int) -> Ended:
        self.programs.append((program, cpu_seconds))
        end = self.ends(program)
        if isinstance(end, SandboxError):
            raise end
        return Ended(to_its_end=end, said="passed" if end else "AssertionError: ")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    found = StandIn()
    monkeypatch.setattr(harness_code, "proven_sandbox", lambda: found)
    return found


def long_context(lm: ScriptedLM) -> Any:
    from types import SimpleNamespace

    from tests.unit.test_lm_eval_stage import ScriptedBackend

    backend = ScriptedBackend(lm)
    backend.info = SimpleNamespace(context_length=4096)
    return backend


def measured(folder: Path, lm: ScriptedLM, task: str, **more: Any) -> Any:
    from tests.unit.test_lm_eval_stage import run_on

    return run_on(folder, long_context(lm), task, unsafe_code=True, **more)


@pytest.mark.usefixtures("_sandboxed")
def test_humaneval_as_lm_eval_defines_it(tmp_path: Path) -> None:
    problems = code_tasks.write_humaneval(tmp_path, 6)
    solutions = {p["prompt"]: p["canonical_solution"] for p in problems}
    wrong = {problems[1]["prompt"]: "    return x\n", problems[4]["prompt"]: "    import os; os._exit(0)\n"}
    lm = ScriptedLM(says=lambda prompt: {**solutions, **wrong}[prompt])
    check(settings("local_humaneval", unsafe_code=True), tmp_path)
    measurement = measured(tmp_path, lm, "local_humaneval")
    assert sorted(values(measurement, "pass@1,create_test")) == [0, 0, 1, 1, 1, 1]
    assert measurement.failures == ()
    failed = {o.item_id for o in measurement.observations if o.value == 0}
    assert {a.prompt for a in measurement.answers if a.item_id in failed} == set(wrong)
    (note,) = [n for n in measurement.notes if "sandbox" in n]
    assert note.startswith(f"the model's code ran in a sandbox ({harness_code.proven_sandbox().name}: no network, ")
    assert "HF_ALLOW_CODE_EVAL" not in os.environ


@pytest.mark.usefixtures("_sandboxed")
def test_mbpp_as_lm_eval_defines_it(tmp_path: Path) -> None:
    problems = code_tasks.mbpp_problems(5)
    code_tasks.write(tmp_path, "local_mbpp", problems, {}, "mbpp/mbpp.yaml")

    def says(prompt: str) -> str:
        (problem,) = [p for p in problems if prompt.rpartition("here is your task: ")[2].startswith(p["text"])]
        return str(problem["code"]) if problem["task_id"] != 3 else "def times_3(x):\n  return 9\n"

    measurement = measured(tmp_path, ScriptedLM(says=says), "local_mbpp")
    assert sorted(values(measurement, "pass_at_1")) == [0, 1, 1, 1, 1]


def test_what_is_executed_is_what_lm_eval_builds(tmp_path: Path, stand_in: StandIn) -> None:
    """prompt + completion + tests, for three seconds, as `code_eval` does; the smoke test of the task's module too."""
    (problem,) = code_tasks.write_humaneval(tmp_path, 1)
    measured(tmp_path, ScriptedLM(says=lambda prompt: "    return 7\n"), "local_humaneval")
    program = f"{problem['prompt']}    return 7\n\n{problem['test']}\ncheck(add_2)"
    assert stand_in.programs[-1] == (program, 3)


def test_several_samples_of_a_problem(tmp_path: Path, stand_in: StandIn) -> None:
    """HumanEval with repeats: the unbiased pass@k of Chen et al. (2021)."""
    answers = iter(["right", "wrong", "wrong", "right"])
    stand_in.ends = lambda program: "right" in program
    problems = code_tasks.humaneval_problems(1)
    code_tasks.write(tmp_path, "local_64", problems, {"repeats": 4}, "humaneval/humaneval_64.yaml")
    measurement = measured(tmp_path, ScriptedLM(says=lambda prompt: next(answers)), "local_64")
    assert [(o.metric, o.value) for o in measurement.observations if o.metric != "output_tokens"] == [
        ("pass@2,create_test", 1 - 1 / 6)
    ]


def test_pass_at_k_numbers() -> None:
    """`k` beyond the candidates of a task is left out; several tasks are averaged."""
    stand_in = StandIn(lambda program: program.startswith("right"))
    metric = harness_code.CodeEval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness_code, "proven_sandbox", lambda: stand_in)
        rates, results = metric.compute(
            predictions=[["right", "wrong", "wrong"], ["wrong", "wrong"]], references=["tests 1", "tests 2"]
        )
        assert rates == {"pass@1": pytest.approx((1 / 3 + 0) / 2)}
        assert [[row["passed"] for _, row in results[task]] for task in (0, 1)] == [[True, False, False], [False] * 2]
        assert {p for p, _ in stand_in.programs} == {f"{a}\ntests {t}" for t in (1, 2) for a in ("right", "wrong")} - {
            "right\ntests 2"
        }
        assert metric.compute(predictions=[], references=[]) == ({}, {})


# ---- a sandbox that fails is not a wrong answer


def test_a_sandbox_failure_loses_the_item(tmp_path: Path, stand_in: StandIn) -> None:
    """Six of twenty: nothing is scored for them, and the fourteen others keep their values."""
    problems = code_tasks.write_humaneval(tmp_path, 20)
    lost = {p["entry_point"] for p in problems[::4]} | {problems[1]["entry_point"]}

    def ends(program: str) -> bool | SandboxError:
        return SandboxError("no space left") if any(f"check({name})" in program for name in lost) else True

    stand_in.ends = ends
    measurement = measured(tmp_path, ScriptedLM(), "local_humaneval")
    assert [(f.kind, f.message) for f in measurement.failures] == [("sandbox_error", "no space left")] * 6
    assert values(measurement, "pass@1,create_test") == [1.0] * 14
    assert not {f.item_id for f in measurement.failures} & {o.item_id for o in measurement.observations}


def test_a_task_that_takes_every_exception_for_a_wrong_answer(tmp_path: Path, stand_in: StandIn) -> None:
    """CRUXEval does; it has a `code_eval` of its own, which goes to the sandbox as well."""
    problems = [{"code": f"def f(x):\n    return x + {k}", "input": "1", "output": f"{1 + k}"} for k in range(4)]
    code_tasks.write(tmp_path, "local_crux", problems, {}, "cruxeval/cruxeval_output.yaml")

    def ends(program: str) -> bool | SandboxError:
        return SandboxError("no space left") if "x + 2" in program else "x + 1" in program

    stand_in.ends = ends
    measurement = measured(tmp_path, ScriptedLM(says=lambda prompt: "2"), "local_crux")
    assert [(f.kind, f.message) for f in measurement.failures] == [("sandbox_error", "no space left")]
    assert sorted(o.value for o in measurement.observations if o.metric != "output_tokens") == [0, 0, 1]
    assert "def f(x):\n    return x + 1\nassert f(1)==2" in {p for p, _ in stand_in.programs}


def test_without_a_sandbox_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness_code, "proven_sandbox", sandbox.find)
    monkeypatch.setattr("shutil.which", lambda name: None)
    code_tasks.write_humaneval(tmp_path, 2)
    for attempt in (
        lambda: check(settings("local_humaneval", unsafe_code=True), tmp_path),
        lambda: check(settings("humaneval", include_path=None, unsafe_code=True), tmp_path),
        lambda: measured(tmp_path, ScriptedLM(), "local_humaneval"),
    ):
        with pytest.raises(CouldNotMeasure, match=r"found no sandbox that works here .* Install bubblewrap"):
            attempt()


# ---- code execution must be asked for, whatever way it comes in

CODE = {**OPEN, "metric_list": [ACC]}
BY_CODE_EVAL = """
import evaluate
metric = evaluate.load("code_eval")
def score(doc, results):
    return {"acc": metric.compute(predictions=[results], references=["assert True"], k=[1])[0]["pass@1"]}
"""
BY_FUNCTION = BY_CODE_EVAL.replace('import evaluate\nmetric = evaluate.load("code_eval")', "from {} import metric")
BY_ITSELF = "def score(doc, results):\n    exec(results[0], {})\n    return {'acc': 1.0}\n"
CLASS = """
import sys
from pathlib import Path
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

class Marked(ConfigurableTask):
    UNSAFE_CODE = True
    def __init__(self, config=None):
        own = load_yaml(Path(__file__).parent / "inner.yaml")
        own["dataset_kwargs"]["data_files"]["test"] = str(Path(__file__).parent / "inner.jsonl")
        super().__init__(config=own)
"""


def write_code(folder: Path, name: str, module: str, **config: Any) -> None:
    write_task(folder, name, rows(3), {**CODE, **config})
    path = folder / "tasks" / f"{name}.yaml"
    path.write_text(path.read_text() + f"process_results: !function {name}_scoring.score\n")
    (folder / "tasks" / f"{name}_scoring.py").write_text(module)


def test_a_task_that_is_marked(tmp_path: Path, stand_in: StandIn) -> None:
    write_code(tmp_path, "marked", BY_CODE_EVAL, unsafe_code=True)
    with pytest.raises(
        DataError, match="task 'marked' executes the code that the model wrote: set `unsafe_code: true`"
    ):
        check(settings("marked"), tmp_path)
    assert stand_in.programs == []
    check(settings("marked", unsafe_code=True), tmp_path)
    assert values(run(tmp_path, ScriptedLM(), "marked", unsafe_code=True), "acc") == [1.0] * 3
    assert len(stand_in.programs) == 3


def test_a_task_that_is_not_marked_and_uses_code_eval(tmp_path: Path, stand_in: StandIn) -> None:
    write_code(tmp_path, "quiet", BY_CODE_EVAL)
    with pytest.raises(DataError, match="task 'quiet' executes the code that the model wrote"):
        check(settings("quiet"), tmp_path)
    with pytest.raises(DataError, match="task 'quiet' executes the code that the model wrote"):
        run(tmp_path, ScriptedLM(), "quiet")
    assert stand_in.programs == []
    assert len(values(run(tmp_path, ScriptedLM(), "quiet", unsafe_code=True), "acc")) == 3


def test_code_eval_as_a_metric_in_the_yaml(tmp_path: Path, stand_in: StandIn) -> None:
    metric = {"metric": "code_eval", "aggregation": "mean", "higher_is_better": True}
    write_task(tmp_path, "named", rows(3), {**OPEN, "metric_list": [metric]})
    with pytest.raises(DataError, match="task 'named' executes the code that the model wrote"):
        check(settings("named"), tmp_path)
    assert stand_in.programs == []


def test_a_class_that_is_marked(tmp_path: Path, stand_in: StandIn) -> None:
    write_task(tmp_path, "inner", rows(2), OPEN)
    (tmp_path / "tasks" / "marked.yaml").write_text("task: marked\nclass: !function marked_task.Marked\n")
    (tmp_path / "tasks" / "marked_task.py").write_text(CLASS)
    with pytest.raises(DataError, match="task 'marked' executes the code that the model wrote"):
        run(tmp_path, ScriptedLM(), "marked")
    with pytest.raises(DataError, match="task 'marked' is marked `unsafe_code` and does not execute by evaluate's"):
        run(tmp_path, ScriptedLM(), "marked", unsafe_code=True)


def test_a_task_that_executes_by_itself_is_refused(tmp_path: Path, stand_in: StandIn) -> None:
    """The gate could not say whether its score was forged."""
    write_code(tmp_path, "own", BY_ITSELF, unsafe_code=True)
    canary = tmp_path / "canary"
    lm = ScriptedLM(says=lambda prompt: f"open({str(canary)!r}, 'w')")
    for attempt in (
        lambda: check(settings("own", unsafe_code=True), tmp_path),
        lambda: run(tmp_path, lm, "own", unsafe_code=True),
    ):
        with pytest.raises(DataError, match=r'does not execute by evaluate\'s code_eval.*evaluate.load\("code_eval"\)'):
            attempt()
    assert not canary.exists()


# ---- `evaluate` itself


def test_only_code_eval_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "evaluate", raising=False)
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    harness_code.install()
    evaluate = importlib.import_module("evaluate")

    assert "HF_ALLOW_CODE_EVAL" not in os.environ
    assert evaluate.load("code_eval") is CODE_EVAL
    assert type(evaluate).__name__ == "_Evaluate", "the package is not imported for that: it takes seconds"


def test_a_package_that_was_there_before_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import ModuleType

    before = ModuleType("evaluate")
    before.load = lambda path, **settings: (path, settings)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "evaluate", before)
    harness_code.install()
    harness_code.install()
    evaluate = importlib.import_module("evaluate")

    assert evaluate.load("code_eval") is CODE_EVAL
    assert evaluate.load("rouge", seed=1) == ("rouge", {"seed": 1})


def test_everything_else_is_asked_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "evaluate", raising=False)
    (tmp_path / "evaluate.py").write_text("answer = 42\ndef load(path, **settings):\n    return path\n")
    monkeypatch.syspath_prepend(tmp_path)
    harness_code.install()
    evaluate = importlib.import_module("evaluate")

    assert evaluate.load("rouge") == "rouge"
    assert evaluate.answer == 42
    assert sys.modules["evaluate"].load("code_eval") is CODE_EVAL
    with pytest.raises(AttributeError):
        _ = evaluate.nothing
