"""`gate compare` on folders that the installed lm-eval wrote and on run folders of this gate; `gate decide`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from lm_eval.api.model import LM
from lm_eval.api.registry import get_metric_aggregation
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from gate import artifact
from gate.cli import main
from gate.finished.lm_eval_metrics import DEFAULT_AGGREGATIONS
from gate.records import Finding, RunRecord, Scope, Status
from tests.e2e.world import World, make_world

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

N = 200
LETTERS = "abc"
MEAN = {"aggregation": "mean", "higher_is_better": True}
TASKS: dict[str, dict[str, Any]] = {
    "quiz": {
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", **MEAN}, {"metric": "acc_norm", **MEAN}],
    },
    "exam": {
        "output_type": "multiple_choice",
        "description": "An exam. ",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", **MEAN}],
    },
    "sums": {
        "output_type": "generate_until",
        "doc_to_text": "question",
        "doc_to_target": "number",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
        "metric_list": [{"metric": "exact_match", **MEAN}],
        "filter_list": [
            {"name": "none", "filter": [{"function": "take_first"}]},
            {
                "name": "number",
                "filter": [{"function": "regex", "regex_pattern": "([0-9]+)"}, {"function": "take_first"}],
            },
        ],
    },
    "ends": {
        "output_type": "loglikelihood",
        "doc_to_text": "question",
        "doc_to_target": "number",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", **MEAN},
        ],
    },
    "prose": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "question",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
    },
}


class Scripted(LM):  # type: ignore[misc]
    """Right on a share of the questions that depends on their text; `seed` picks which."""

    def __init__(self, seed: str, skill: float) -> None:
        super().__init__()
        self.seed = seed
        self.skill = skill

    def _draw(self, text: str) -> float:
        return int(hashlib.sha256(f"{self.seed}{text}".encode()).hexdigest()[:8], 16) / 2**32

    def _knows(self, text: str) -> bool:
        """Models agree on what is hard, up to a tenth of the questions."""
        hard = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
        return 0.9 * hard + 0.1 * self._draw(text) < self.skill

    @staticmethod
    def _number(text: str) -> int:
        return next(int(word) for word in text.split() if word.isdigit())

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        found = []
        for context, continuation in (r.args for r in requests):
            number = self._number(context)
            is_right = continuation.strip() in (LETTERS[number % 3], str(number))
            good = is_right == self._knows(context)
            found.append((-0.5 - self._draw(context) if good else -2.0 - self._draw(context), good))
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return [
            ("" if self._draw(r.args[0]) < 0.7 else "it is ")
            + str(self._number(r.args[0]) + (not self._knows(r.args[0])))
            for r in requests
        ]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        return [-2.0 * len(r.args[0].split()) * (1.4 - self.skill) - self._draw(r.args[0]) for r in requests]


@pytest.fixture(scope="module")
def tasks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "tasks"
    folder.mkdir()
    documents = [
        {"question": f"Question {i} of them", "choices": list(LETTERS), "gold": i % 3, "number": str(i)}
        for i in range(N)
    ]
    documents += documents[3:5]  # repeated documents are items of their own
    for name, config in TASKS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
        common = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**common, "test_split": "test", **config}))
    (folder / "choices.yaml").write_text(yaml.safe_dump({"group": "choices", "task": ["quiz", "exam"]}))
    return folder


def evaluate(tasks_folder: Path, out: Path, seed: str, skill: float, *, name: str, limit: int | None = None) -> Path:
    """What `lm_eval run --output_path --log_samples` does once its arguments are parsed."""
    tracker = EvaluationTracker(output_path=str(out))
    before = Path.cwd()
    os.chdir(tasks_folder)  # lm-eval resolves data files in the working directory
    try:
        results: Any = lm_eval.simple_evaluate(
            model=Scripted(seed, skill),
            model_args={"pretrained": name},
            tasks=["choices", "sums", "ends", "prose"],
            task_manager=TaskManager(include_path=str(tasks_folder), include_defaults=False),
            bootstrap_iters=0,
            log_samples=True,
            limit=limit,
            evaluation_tracker=tracker,
        )
    finally:
        os.chdir(before)
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    assert len(list(out.rglob("samples_*.jsonl"))) == len(TASKS)
    return out


@pytest.fixture(scope="module")
def folders(tasks_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Path]]:
    import datasets.config

    root = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache")
        yield {
            "base": evaluate(tasks_folder, root / "base", "b", 0.85, name="org/base"),
            "good": evaluate(tasks_folder, root / "good", "c", 0.85, name="org/w8a8"),
            "bad": evaluate(tasks_folder, root / "bad", "d", 0.55, name="org/w3"),
            "short": evaluate(tasks_folder, root / "short", "c", 0.85, name="org/short", limit=60),
        }


def policy(folder: Path, tasks: Mapping[str, Sequence[Mapping[str, Any]]], **changes: Any) -> Path:
    stage = {"kind": "lm_eval", "name": "cap", "tasks": [{"task": t, "rules": list(r)} for t, r in tasks.items()]}
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "stages": [stage], **changes}))
    return path


def compare(tmp_path: Path, policy: Path, baseline: Path, candidate: Path, out: str = "out") -> int:
    return main(
        [
            "compare",
            f"--policy={policy}",
            f"--baseline={baseline}",
            f"--candidate={candidate}",
            f"--out={tmp_path / out}",
        ]
    )


def record(folder: Path) -> RunRecord:
    return artifact.loads_record((folder / "run.json").read_bytes())


def findings(folder: Path) -> dict[str, Finding]:
    return {f.rule.id: f for s in record(folder).stages for f in s.findings}


def independent(folders: Mapping[str, Path], candidate: str, task: str, metric: str, selected: str) -> tuple[int, ...]:
    """Lost, gained and all, by document number: nothing of the gate in it."""

    def scores(name: str) -> dict[int, float]:
        (log,) = folders[name].rglob(f"samples_{task}_*.jsonl")
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        return {r["doc_id"]: r[metric] for r in rows if r["filter"] == selected}

    b, c = scores("base"), scores(candidate)
    return sum(b[i] > c[i] for i in b), sum(b[i] < c[i] for i in b), len(b)


ITEM_METRICS = [
    ("quiz", "acc", "none"),
    ("quiz", "acc_norm", "none"),
    ("sums", "exact_match", "none"),
    ("sums", "exact_match", "number"),
    ("ends", "acc", "none"),
]


@pytest.mark.parametrize("candidate", ["good", "bad"])
def test_lost_and_gained_are_those_of_an_independent_script(
    folders: Mapping[str, Path], tmp_path: Path, candidate: str
) -> None:
    names = [(task, metric if f == "none" else f"{metric},{f}") for task, metric, f in ITEM_METRICS]
    rules: dict[str, list[dict[str, Any]]] = {}
    for task, metric in names:
        rules.setdefault(task, []).append({"metric": metric, "max_drop": "10pp"})
    code = compare(tmp_path, policy(tmp_path, rules), folders["base"], folders[candidate])
    found = findings(tmp_path / "out")
    for (task, metric, selected), (_, name) in zip(ITEM_METRICS, names, strict=True):
        counts = found[f"cap.{task}.{name}.max_drop"].counts
        expected = independent(folders, candidate, task, metric, selected)
        assert (counts["b"], counts["c"], counts["n"]) == expected
        assert expected[0] > 0
        assert expected[2] == N + 2
    assert sum(independent(folders, candidate, "sums", "exact_match", "none")) != sum(
        independent(folders, candidate, "sums", "exact_match", "number")
    ), "two filters that score alike would hide that one was taken for the other"
    assert code == (0 if candidate == "good" else 1)


def test_a_group_is_the_sum_of_its_tasks(folders: Mapping[str, Path], tmp_path: Path) -> None:
    rules = {"choices": [{"metric": "acc", "max_drop": "10pp"}, {"metric": "acc", "by": "subject", "max_drop": "20pp"}]}
    assert compare(tmp_path, policy(tmp_path, rules), folders["base"], folders["bad"]) == 1
    whole, by_subject = record(tmp_path / "out").stages[0].findings
    parts = [independent(folders, "bad", task, "acc", "none") for task in ("quiz", "exam")]
    assert (whole.counts["b"], whole.counts["c"], whole.counts["n"]) == tuple(map(sum, zip(*parts, strict=True)))
    assert {m.group for m in by_subject.members} == {"quiz", "exam"}


def test_perplexities_are_those_of_lm_eval(folders: Mapping[str, Path], tmp_path: Path) -> None:
    rules = {
        "ends": [{"metric": "perplexity", "max_increase": "50%"}],
        "prose": [{"metric": m, "max_increase": "500%"} for m in ("word_perplexity", "byte_perplexity")],
    }
    compare(tmp_path, policy(tmp_path, rules), folders["base"], folders["bad"])
    found = findings(tmp_path / "out")
    for side in ("base", "bad"):
        (path,) = folders[side].rglob("results_*.json")
        theirs = json.loads(path.read_text())["results"]
        for task, metric in (("ends", "perplexity"), ("prose", "word_perplexity"), ("prose", "byte_perplexity")):
            ours = found[f"cap.{task}.{metric}.max_increase"]
            value = ours.baseline if side == "base" else ours.candidate
            assert value == pytest.approx(theirs[task][f"{metric},none"], rel=1e-9)


def test_lm_evals_default_aggregations_are_still_these() -> None:
    import lm_eval.api.metrics  # noqa: F401  (registers them)

    for metric, name in DEFAULT_AGGREGATIONS.items():
        assert get_metric_aggregation(metric).__name__.replace("_fn", "") == name.replace("f1", "f1_score"), metric


RULE = [{"metric": "acc", "max_drop": "10pp"}]


@pytest.mark.parametrize(
    ("candidate", "rules", "code"),
    [
        ("good", {"quiz": RULE}, 0),
        ("bad", {"quiz": RULE}, 1),
        ("good", {"quiz": [{"metric": "acc", "max_drop": "0.1pp", "scope": "population"}]}, 3),
        ("good", {"quiz": RULE, "nowhere": RULE}, 4),
        ("good", {"quiz": [{"metric": "f1", "max_drop": "3pp"}]}, 4),
        ("base", {"quiz": RULE}, 2),
    ],
)
def test_exit_codes(folders: Mapping[str, Path], tmp_path: Path, candidate: str, rules: Any, code: int) -> None:
    assert compare(tmp_path, policy(tmp_path, rules), folders["base"], folders[candidate]) == code
    if code == 2:
        assert not (tmp_path / "out" / "run.json").exists()
    else:
        assert record(tmp_path / "out").exit_code == code
        assert {p.name for p in (tmp_path / "out").iterdir()} >= {"junit.xml", "summary.md", "report.html", "log.txt"}


def test_a_limited_evaluation_never_speaks_of_the_benchmark(folders: Mapping[str, Path], tmp_path: Path) -> None:
    rules = {"quiz": [{**RULE[0], "max_lost": "75%"}]}
    compare(tmp_path, policy(tmp_path, rules), folders["base"], folders["short"])
    (found,) = findings(tmp_path / "out").values()
    assert found.rule.scope is Scope.POPULATION
    assert (found.n_paired, found.n_lost) == (60, N + 2 - 60)
    assert found.status is not Status.PASS
    assert "--limit 60: the first 60 of 202" in " ".join(record(tmp_path / "out").stages[0].notes)


def test_one_empty_folder_and_two(folders: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "void").mkdir()
    path = policy(tmp_path, {"quiz": RULE})
    assert compare(tmp_path, path, folders["base"], tmp_path / "empty") == 4
    assert compare(tmp_path, path, tmp_path / "void", tmp_path / "empty") == 4
    assert record(tmp_path / "out").verdict.status is Status.ERROR


def test_the_folders_that_are_read_are_left_alone(folders: Mapping[str, Path], tmp_path: Path) -> None:
    path = policy(tmp_path, {"quiz": RULE})
    before = sorted(p.name for p in folders["base"].rglob("*"))
    for out in (folders["base"], folders["base"] / "new", folders["base"].parent):
        code = main(
            ["compare", f"-p{path}", f"--baseline={folders['base']}", f"--candidate={folders['good']}", f"--out={out}"]
        )
        assert code == 2
    assert sorted(p.name for p in folders["base"].rglob("*")) == before


# -- run folders of this gate -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two runs against one baseline: `good` passes, `bad` regresses in its first stage."""
    world = make_world(tmp_path_factory.mktemp("world"))
    world.checkpoint("broken", seed=3, error_rate=0.5)
    path = world.policy(["capability", "fraud"])
    assert world.run(path, out="good") == 0
    assert world.run(path, out="bad", candidate=world.root / "broken") == 1
    return world


def test_a_run_compared_with_itself_says_what_it_said(world: World, tmp_path: Path) -> None:
    path = world.policy(["capability", "fraud"])
    for name, code in (("good", 0), ("bad", 1)):
        assert compare(tmp_path, path, world.root / name, world.root / name, out=name) == code
        then, now = findings(world.root / name), findings(tmp_path / name)
        assert {i: (f.status, f.estimate, f.counts) for i, f in now.items()} == {
            i: (f.status, f.estimate, f.counts) for i, f in then.items()
        }


def test_the_baseline_of_one_run_and_the_candidate_of_another(world: World, tmp_path: Path) -> None:
    path = world.policy(["capability", "fraud"])
    assert compare(tmp_path, path, world.root / "good", world.root / "bad") == 1
    assert findings(tmp_path / "out")["capability.sums.exact_match.max_drop"].status is Status.REGRESSION
    said = record(tmp_path / "out")
    assert said.candidate == record(world.root / "bad").candidate
    assert [s.status for s in said.stages] == [Status.REGRESSION, Status.SKIPPED]


def test_a_run_and_an_lm_eval_folder_are_not_mixed(
    world: World, folders: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(tmp_path, world.policy(["capability"]), folders["base"], world.root / "good") == 2
    assert "two of one kind" in capsys.readouterr().err


def test_decide_shows_which_verdicts_move(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in (world.root / "bad").rglob("*") if p.is_file()}
    loose = world.policy(["capability"]).read_text().replace("10pp", "70pp")
    (world.root / "loose.yaml").write_text(loose)
    args = ["decide", str(world.root / "bad"), f"--policy={world.root / 'loose.yaml'}"]
    assert main(args) == 0
    shown = capsys.readouterr().out
    assert "capability.sums.exact_match.max_drop  regression  pass  moved" in shown
    assert "verdict: regression (exit code 1) → pass (exit code 0)" in shown
    assert {p: p.read_bytes() for p in (world.root / "bad").rglob("*") if p.is_file()} == before
    assert main([*args, f"--out={tmp_path / 'new'}"]) == 0
    assert record(tmp_path / "new").verdict.status is Status.PASS
    assert main([*args, f"--out={world.root / 'bad'}"]) == 2


def test_the_same_policy_moves_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for name, code in (("good", 0), ("bad", 1)):
        assert main(["decide", str(world.root / name), f"-p{world.policy(['capability', 'fraud'])}"]) == code
        assert "moved" not in capsys.readouterr().out.replace("0 of", "").replace("rules moved", "")


def test_decide_without_a_run_is_a_usage_error(tmp_path: Path, world: World) -> None:
    assert main(["decide", str(tmp_path), f"-p{world.policy(['capability'])}"]) == 2
