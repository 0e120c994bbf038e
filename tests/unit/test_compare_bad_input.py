"""Finished lm-eval results that are damaged, incomplete or of different things: none of it may pass."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from gate.errors import DataError, UsageError
from gate.finished.compare import compare
from gate.pipeline import Outcome
from gate.policy_file import load_policy
from gate.records import Finding, Measurement, Role, Scope, Status
from tests.lm_eval_factory import DATE, Row, log_of, row, rows, write
from tests.records_factory import ENVIRONMENT

RULE = {"metric": "acc", "max_drop": "10pp"}
BASE = [1.0] * 160 + [0.0] * 40
GOOD = [0.0] + [1.0] * 159 + [1.0] + [0.0] * 39
BAD = [0.0] * 60 + [1.0] * 100 + [0.0] * 40


def policy(folder: Path, *tasks: dict[str, Any], **changes: Any) -> Path:
    stage = {"kind": "lm_eval", "name": "cap", "tasks": list(tasks) or [{"task": "quiz", "rules": [RULE]}]}
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "stages": [stage], **changes}))
    return path


def decide(folder: Path, baseline: Path, candidate: Path, *tasks: dict[str, Any], **changes: Any) -> Outcome:
    loaded = load_policy(policy(folder, *tasks, **changes))
    return compare(loaded, baseline, candidate, environment=ENVIRONMENT, now=datetime(2026, 11, 20, tzinfo=UTC))


def only(outcome: Outcome) -> Finding:
    ((finding,),) = (s.findings for s in outcome.record.stages)
    return finding


def two(folder: Path, baseline: list[Row], candidate: list[Row], **changes: Any) -> tuple[Path, Path]:
    return (
        write(folder / "base", {"quiz": baseline}, model="org/base"),
        write(folder / "cand", {"quiz": candidate}, model="org/cand", **changes),
    )


def compared(folder: Path, candidate: list[Row], **changes: Any) -> Outcome:
    return decide(folder, *two(folder, rows(BASE), candidate, **changes))


def notes(outcome: Outcome) -> str:
    return " | ".join([*outcome.record.notes, *(n for s in outcome.record.stages for n in s.notes)])


# -- what is in order ---------------------------------------------------------------------------------------


def test_the_counts_are_those_of_the_logs(tmp_path: Path) -> None:
    outcome = compared(tmp_path, rows(GOOD))
    found = only(outcome)
    assert (found.status, outcome.record.exit_code) == (Status.PASS, 0)
    assert {k: found.counts[k] for k in ("b", "c", "n", "N")} == {"b": 1, "c": 1, "n": 200, "N": 200}
    assert found.baseline == found.candidate == 0.8


def test_a_drop_beyond_the_bound_is_a_regression_whose_flips_are_told(tmp_path: Path) -> None:
    outcome = compared(tmp_path, rows(BAD))
    assert (only(outcome).status, outcome.record.exit_code) == (Status.REGRESSION, 1)
    assert {f.kind for f in outcome.record.flips} == {"lost"}
    assert outcome.record.flips[0].target == "a"
    assert "org/base" in notes(outcome)


def test_one_model_in_both_folders_is_noted(tmp_path: Path) -> None:
    def loaded_as(baseline: Any, candidate: Any) -> Outcome:
        def config(arguments: Any) -> dict[str, Any]:
            return {"model": "hf", "model_args": arguments, "limit": None, "fewshot_seed": 1234}

        base = write(tmp_path / "base", {"quiz": rows(BASE)}, config=config(baseline))
        cand = write(tmp_path / "cand", {"quiz": rows(GOOD)}, date="2026-11-22T12-00-00", config=config(candidate))
        return decide(tmp_path, base, cand)

    said = "both folders name the same model (org/model): an A/A comparison, or the wrong folder"
    assert notes(loaded_as("pretrained=m", "pretrained=m")).count(said) == 1
    assert said in notes(loaded_as({"pretrained": "m", "dtype": "auto"}, {"dtype": "auto", "pretrained": "m"}))
    for other in ("pretrained=m,load_in_4bit=True", None):
        assert said not in notes(loaded_as("pretrained=m", other))
    assert said not in notes(loaded_as(None, None))


def test_repeated_documents_are_items_of_their_own(tmp_path: Path) -> None:
    doubled = [[{**r, "doc_hash": log[0]["doc_hash"], "prompt_hash": log[0]["prompt_hash"]} for r in log] for log in (
        rows([1, 0, 1] * 20), rows([1, 0, 0] * 20))]  # fmt: skip
    for log in doubled:
        for r in log:
            r["arguments"] = log[0]["arguments"]
    rule = {**RULE, "scope": "population"}
    outcome = decide(tmp_path, *two(tmp_path, *doubled), {"task": "quiz", "rules": [rule]})
    assert {k: only(outcome).counts[k] for k in ("b", "c", "n")} == {"b": 20, "c": 0, "n": 60}
    ids = {o.item_id for o in outcome.measurements["cap"][0].observations}
    assert sorted(i.rpartition("#")[2] for i in ids if "#" in i)[:2] == ["1", "10"]
    assert len(ids) == 60


@pytest.mark.parametrize("last", [True, False])
def test_all_items_count_wherever_they_stand(tmp_path: Path, last: bool) -> None:
    """A drop of 15 pp in the items whose ids sort last, or first: no look at a part of the items may pass it."""
    ranked = sorted(range(200), key=lambda i: row(i, 1.0)["doc_hash"], reverse=last)
    dropped = set(ranked[:30])
    base, cand = two(tmp_path, rows([1.0] * 200), rows([float(i not in dropped) for i in range(200)]))
    for allowed, status in (("14.5pp", Status.REGRESSION), ("15pp", Status.PASS)):
        task = {"task": "quiz", "rules": [{"metric": "acc", "max_drop": allowed}]}
        found = only(decide(tmp_path, base, cand, task))
        assert (found.status, found.counts["b"], found.counts["n"]) == (status, 30, 200)


def test_chance_is_known_from_the_number_of_choices(tmp_path: Path) -> None:
    measured: list[Measurement] = compared(tmp_path, rows(GOOD)).measurements["cap"]
    assert [m.chance for m in measured] == [pytest.approx(1 / 3)] * 2
    assert [m.role for m in measured] == [Role.BASELINE, Role.CANDIDATE]


# -- folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [("base",), ("cand",), ("base", "cand")])
def test_empty_folders_are_an_error(tmp_path: Path, sides: tuple[str, ...]) -> None:
    two(tmp_path, rows(BASE), rows(GOOD))
    for side in sides:
        shutil.rmtree(tmp_path / side)
        (tmp_path / side).mkdir()
    outcome = decide(tmp_path, tmp_path / "base", tmp_path / "cand")
    assert (outcome.record.verdict.status, outcome.record.exit_code) == (Status.ERROR, 4)
    assert "holds no results" in only(outcome).reason


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    base, _ = two(tmp_path, rows(BASE), rows(GOOD))
    with pytest.raises(UsageError, match="found no folder"):
        decide(tmp_path, base, tmp_path / "nowhere")


def test_the_same_evaluation_on_both_sides_is_refused_also_as_a_copy(tmp_path: Path) -> None:
    base, _ = two(tmp_path, rows(BASE), rows(GOOD))
    shutil.copytree(base, tmp_path / "copy")
    for other in (base, tmp_path / "copy"):
        with pytest.raises(UsageError, match="on both sides"):
            decide(tmp_path, base, other)


def test_several_models_in_a_folder_are_not_chosen_from(tmp_path: Path) -> None:
    base, _ = two(tmp_path, rows(BASE), rows(GOOD))
    write(base, {"quiz": rows(BASE)}, model="org/other")
    with pytest.raises(UsageError, match="several models"):
        decide(tmp_path, base, tmp_path / "cand")


def test_the_newest_evaluation_with_samples_counts_and_says_so(tmp_path: Path) -> None:
    base, cand = two(tmp_path, rows(BASE), rows(BAD))
    write(cand, {"quiz": rows(GOOD)}, model="org/cand", date="2026-11-21T12-00-00.000001")
    outcome = decide(tmp_path, base, cand)
    assert only(outcome).status is Status.PASS
    assert "the newest results are used, 2026-11-21T12-00-00.000001; there are 1 older ones" in notes(outcome)
    for log in cand.rglob("samples_quiz_2026-11-21*"):
        log.unlink()
    outcome = decide(tmp_path, base, cand)
    assert only(outcome).status is Status.REGRESSION
    assert "2026-11-21T12-00-00.000001 have no sample log and were passed over" in notes(outcome)


def test_tasks_evaluated_on_different_days_are_each_found(tmp_path: Path) -> None:
    base, cand = two(tmp_path, rows(BASE), rows(GOOD))
    for folder, model in ((base, "org/base"), (cand, "org/cand")):
        write(folder, {"exam": rows(BASE)}, model=model, date="2026-11-22T12-00-00", lm_eval_version=model)
    outcome = decide(tmp_path, base, cand, *({"task": t, "rules": [RULE]} for t in ("quiz", "exam")))
    assert [f.status for f in outcome.record.stages[0].findings] == [Status.PASS] * 2
    assert "evaluated by different versions of lm-eval" in notes(outcome)


def test_results_without_samples_are_an_error(tmp_path: Path) -> None:
    base, cand = two(tmp_path, rows(BASE), rows(GOOD))
    log_of(cand, "quiz").unlink()
    found = only(decide(tmp_path, base, cand))
    assert found.status is Status.ERROR
    assert "--log_samples" in found.reason


def test_a_task_that_the_folders_lack_is_an_error_beside_one_that_passes(tmp_path: Path) -> None:
    tasks = [{"task": t, "rules": [RULE]} for t in ("quiz", "exam")]
    outcome = decide(tmp_path, *two(tmp_path, rows(BASE), rows(GOOD)), *tasks)
    assert outcome.record.exit_code == 4
    quiz, exam = outcome.record.stages[0].findings
    assert (quiz.status, exam.status) == (Status.PASS, Status.ERROR)
    assert "found no results of 'exam'" in exam.reason
    assert "it has quiz" in exam.reason


# -- rows ---------------------------------------------------------------------------------------------------


def drop_ten(log: list[Row]) -> list[Row]:
    return log[:-10]


def twice(log: list[Row]) -> list[Row]:
    return [*log, log[7]]


def nan(log: list[Row]) -> list[Row]:
    return [{**r, "acc": math.nan} if i == 3 else r for i, r in enumerate(log)]


def beyond_one(log: list[Row]) -> list[Row]:
    return [{**r, "acc": 1.5} if i == 3 else r for i, r in enumerate(log)]


def nan_loglikelihood(log: list[Row]) -> list[Row]:
    return [{**r, "resps": [[["nan", "False"]]] * 3} if i == 3 else r for i, r in enumerate(log)]


def other_metric(log: list[Row]) -> list[Row]:
    return [{**{k: v for k, v in r.items() if k != "acc"}, "metrics": ["f1"], "f1": r["acc"]} for r in log]


def other_prompts(log: list[Row]) -> list[Row]:
    return [{**r, "prompt_hash": "0" * 64} if i < 15 else r for i, r in enumerate(log)]


def other_targets(log: list[Row]) -> list[Row]:
    return [{**r, "target_hash": "0" * 64} for r in log]


def other_choices(log: list[Row]) -> list[Row]:
    return [{**r, "arguments": dict(list(r["arguments"].items())[:2])} for r in log]


def other_documents(log: list[Row]) -> list[Row]:
    return [{**r, "doc_hash": r["doc_hash"][::-1]} for r in log]


def nothing(log: list[Row]) -> list[Row]:
    return []


BROKEN: dict[str, tuple[Callable[[list[Row]], list[Row]], str]] = {
    "fewer rows": (drop_ten, "10 of 200 items could not be measured"),
    "no rows": (nothing, "did not report 'acc'"),
    "a row twice": (twice, "document 7 is there twice with 'acc'"),
    "NaN": (nan, "1 of 200 items could not be measured"),
    "NaN log-likelihood": (nan_loglikelihood, "not_a_number"),
    "beyond 1": (beyond_one, "found the value 1.5 on an item, expected a number from 0 to 1"),
    "another metric": (other_metric, "not report"),
    "other prompts": (other_prompts, "different prompts for the same document, 15 of 200"),
    "other targets": (other_targets, "different targets for the same document, 200 of 200"),
    "other choices": (other_choices, "different choices or generation settings for the same document"),
    "other documents": (other_documents, "expected 200"),
}


@pytest.mark.parametrize("side", [0, 1], ids=["baseline", "candidate"])
@pytest.mark.parametrize("name", BROKEN)
def test_logs_that_do_not_fit_are_an_error_on_either_side(tmp_path: Path, name: str, side: int) -> None:
    damage, message = BROKEN[name]
    logs = [rows(BASE), rows(BASE)]
    folders = two(tmp_path, *logs)
    path = log_of(folders[side], "quiz")
    write(tmp_path / "new", {"quiz": damage(logs[side])})
    path.write_text(log_of(tmp_path / "new", "quiz").read_text())
    outcome = decide(tmp_path, *folders)
    found = only(outcome)
    assert (found.status, outcome.record.exit_code) == (Status.ERROR, 4)
    assert name == "no rows" or message in found.reason


@pytest.mark.parametrize("text", ['{"doc_id": 3, "doc_ha', "[]", '{"doc_id": 3}', "\udcff"])
def test_a_broken_line_names_its_place(tmp_path: Path, text: str) -> None:
    base, cand = two(tmp_path, rows(BASE), rows(GOOD))
    with log_of(cand, "quiz").open("ab") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"samples_quiz_.*\.jsonl:201: ") as problem:
        decide(tmp_path, base, cand)
    assert problem.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"results": 3}', '{"results": {}, "n-samples": [3]}'])
def test_a_broken_results_file_is_named(tmp_path: Path, text: str) -> None:
    base, cand = two(tmp_path, rows(BASE), rows(GOOD))
    (cand / "org__cand" / f"results_{DATE}.json").write_text(text)
    with pytest.raises(DataError, match=f"results_{DATE}.json"):
        decide(tmp_path, base, cand)


def test_a_results_file_without_anything_is_an_error(tmp_path: Path) -> None:
    base, cand = two(tmp_path, rows(BASE), rows(GOOD))
    (cand / "org__cand" / f"results_{DATE}.json").write_text('{"results": {}}')
    assert "it has nothing" in only(decide(tmp_path, base, cand)).reason


def test_a_log_of_another_evaluation_is_found_out_by_the_score(tmp_path: Path) -> None:
    """The results file says 80 %, the log beside it 50 %."""
    base, cand = two(tmp_path, rows(BASE), rows(BASE))
    write(tmp_path / "other", {"quiz": rows([1.0, 0.0] * 100)})
    log_of(cand, "quiz").write_text(log_of(tmp_path / "other", "quiz").read_text())
    found = only(decide(tmp_path, base, cand))
    assert found.status is Status.ERROR
    assert "says acc is 0.8, its samples make 0.5" in found.reason


# -- how many there should be -------------------------------------------------------------------------------


def limited(document: dict[str, Any], *, to: int, of: int = 200) -> None:
    document["n-samples"]["quiz"] = {"original": of, "effective": to}
    document["config"]["limit"] = float(to)


def test_a_limit_is_judged_in_population_scope_only(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"quiz": rows(BASE)}, model="org/base", edit=lambda d: limited(d, to=200, of=900))
    cand = write(tmp_path / "cand", {"quiz": rows(GOOD)}, model="org/cand", edit=lambda d: limited(d, to=200, of=900))
    outcome = decide(tmp_path, base, cand)
    found = only(outcome)
    assert found.rule.scope is Scope.POPULATION
    assert found.interval is not None
    assert found.interval.scope is Scope.POPULATION
    assert "made with --limit 200: the first 200 of 900 documents, which is no random sample" in notes(outcome)


def test_without_a_limit_the_scope_is_that_of_the_policy(tmp_path: Path) -> None:
    found = only(compared(tmp_path, rows(GOOD), edit=lambda d: limited(d, to=200)))
    assert found.rule.scope is Scope.BENCHMARK  # a limit that left nothing out


def test_one_side_with_fewer_items_has_lost_the_others(tmp_path: Path) -> None:
    outcome = compared(tmp_path, rows(GOOD[:60]), edit=lambda d: limited(d, to=60))
    found = only(outcome)
    assert (found.status, found.n_paired, found.n_lost) == (Status.ERROR, 60, 140)
    assert "140 of 200 items could not be measured" in found.reason


@pytest.mark.parametrize("counts", [{}, {"original": 200}, {"original": 10, "effective": 20}, {"effective": "x"}])
def test_the_number_expected_is_never_guessed(tmp_path: Path, counts: dict[str, Any]) -> None:
    outcome = compared(tmp_path, rows(GOOD), edit=lambda d: d["n-samples"].update(quiz=counts))
    assert only(outcome).status is Status.ERROR


def test_nothing_evaluated_is_an_error(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"quiz": []}, model="org/base")
    cand = write(tmp_path / "cand", {"quiz": []}, model="org/cand")
    assert "no document of 'quiz' was evaluated" in only(decide(tmp_path, base, cand)).reason


# -- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["configs"]["quiz"].update(num_fewshot=5), "num_fewshot 0 for the baseline and 5"),
        (lambda d: d["configs"]["quiz"].update(filter_list=[{"name": "x"}]), "filter_list null for the baseline"),
        (lambda d: d["versions"].update(quiz=2.0), "version 1.0 for the baseline and 2.0"),
        (lambda d: d["higher_is_better"].update(quiz={}), "do not say whether higher is better"),
    ],
)
def test_what_was_measured_differently_is_an_error(
    tmp_path: Path, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    found = only(compared(tmp_path, rows(GOOD), edit=edit))
    assert found.status is Status.ERROR
    assert message in found.reason


def test_other_prompts_are_explained_by_the_number_of_examples(tmp_path: Path) -> None:
    found = only(compared(tmp_path, rows(GOOD, prompt="an example. "), edit=lambda d: d["n-shot"].update(quiz=5)))
    assert "different prompts for the same document, 200 of 200 documents" in found.reason
    assert "few-shot examples are 0 for the baseline and 5" in found.reason


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"fewshot": 5}, "made with fewshot 0, this policy asks 5"),
        ({"chat": True}, "made with chat false, this policy asks true"),
        ({"temperature": 0.7, "epochs": 4}, "asks `epochs`"),
    ],
)
def test_what_the_policy_asks_must_be_what_was_measured(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    task = {"task": "quiz", "rules": [RULE], **asked}
    found = only(decide(tmp_path, *two(tmp_path, rows(BASE), rows(GOOD)), task))
    assert found.status is Status.ERROR
    assert message in found.reason


def test_settings_that_the_policy_leaves_open_are_taken_as_they_are(tmp_path: Path) -> None:
    def shots(document: dict[str, Any]) -> None:
        document["n-shot"]["quiz"] = document["configs"]["quiz"]["num_fewshot"] = 5

    base = write(tmp_path / "base", {"quiz": rows(BASE)}, model="org/base", edit=shots)
    cand = write(tmp_path / "cand", {"quiz": rows(GOOD)}, model="org/cand", edit=shots)
    assert only(decide(tmp_path, base, cand)).status is Status.PASS
    task = {"task": "quiz", "rules": [RULE], "sample": "20%"}
    assert "the policy's sample does not apply" in notes(decide(tmp_path, base, cand, task))


# -- groups and other stages --------------------------------------------------------------------------------


def grouped(document: dict[str, Any]) -> None:
    document["group_subtasks"] = {"all": ["some", "exam"], "some": ["quiz"]}


def test_a_group_is_judged_over_its_tasks_with_a_group_each(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"quiz": rows(BASE), "exam": rows(BASE)}, model="org/base", edit=grouped)
    cand = write(tmp_path / "cand", {"quiz": rows(GOOD), "exam": rows(BAD)}, model="org/cand", edit=grouped)
    task = {"task": "all", "rules": [RULE, {"metric": "acc", "by": "subject", "max_drop": "10pp"}]}
    outcome = decide(tmp_path, base, cand, task)
    whole, by_subject = outcome.record.stages[0].findings
    assert {k: whole.counts[k] for k in ("b", "c", "N")} == {"b": 61, "c": 1, "N": 400}
    assert {m.group: m.status for m in by_subject.members} == {"exam": Status.REGRESSION, "quiz": Status.PASS}


def test_a_group_that_lm_eval_averages_by_task_is_not_judged_by_item(tmp_path: Path) -> None:
    """Twenty of 1,020 items are lost altogether: 2 pp of the items, half of the group's own score."""
    few, many = [1] * 20, [1] * 1000

    def by_task(document: dict[str, Any]) -> None:
        grouped(document)
        document["results"]["all"] = {"acc,none": sum(r["acc,none"] for r in document["results"].values()) / 2}

    def by_size(document: dict[str, Any]) -> None:
        grouped(document)
        document["results"]["all"] = {"acc,none": 1000 / 1020 if document["results"]["quiz"]["acc,none"] == 0 else 1.0}

    for edit, status in ((by_task, Status.ERROR), (by_size, Status.PASS)):
        place = tmp_path / edit.__name__
        base = write(place / "base", {"quiz": rows(few), "exam": rows(many)}, model="org/base", edit=edit)
        cand = write(place / "cand", {"quiz": rows([0] * 20), "exam": rows(many)}, model="org/cand", edit=edit)
        finding = only(decide(tmp_path, base, cand, {"task": "all", "rules": [{"metric": "acc", "max_drop": "5pp"}]}))
        assert finding.status is status
        if status is Status.ERROR:
            assert "weight_by_size: false" in finding.reason


def test_a_group_with_other_tasks_on_one_side_is_an_error(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"quiz": rows(BASE), "exam": rows(BASE)}, model="org/base", edit=grouped)
    cand = write(
        tmp_path / "cand",
        {"quiz": rows(GOOD)},
        model="org/cand",
        edit=lambda d: d.update(group_subtasks={"all": ["quiz"]}),
    )
    found = only(decide(tmp_path, base, cand, {"task": "all", "rules": [RULE]}))
    assert found.status is Status.ERROR
    assert "one side alone has exam" in found.reason


DOMAIN = {"kind": "domain", "name": "fraud", "data": "x.jsonl", "match": "exact"}


def test_other_stages_are_skipped_and_the_sentence_says_so(tmp_path: Path) -> None:
    stages = [
        {**DOMAIN, "rules": [{"metric": "accuracy", "max_drop": "3pp"}]},
        {"kind": "lm_eval", "name": "cap", "tasks": [{"task": "quiz", "rules": [RULE]}]},
    ]
    base, cand = two(tmp_path, rows(BASE), rows(GOOD))
    outcome = decide(tmp_path, base, cand, stages=stages)
    fraud, cap = outcome.record.stages
    assert (fraud.status, cap.status, outcome.record.exit_code) == (Status.SKIPPED, Status.PASS, 0)
    assert fraud.skipped_because is not None
    assert outcome.record.verdict.sentence.endswith("Not judged: fraud.")
    with pytest.raises(UsageError, match="no lm_eval stage"):
        decide(tmp_path, base, cand, stages=stages[:1])
