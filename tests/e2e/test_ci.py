"""`gate ci` as a workflow uses it: detect → policy → run → govern → outputs → verify, on a real repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from gate import artifact
from gate.cli import main
from gate.records import Status, Verdict
from tests.ci_factory import Repo, checkpoint, git, ran
from tests.e2e.world import STAGES, make_world

HEAVY = {"torch", "transformers", "scipy", "numpy", "lm_eval", "datasets", "pyarrow"}


@pytest.mark.parametrize("arguments", [("--help",), ("ci", "--help"), ("ci", "verify", "--help")], ids=" ".join)
def test_help_stays_light(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "gate", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert not {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in lines} & HEAVY


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "GITHUB_OUTPUT"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "GITHUB_STEP_SUMMARY"))
    return tmp_path / "GITHUB_OUTPUT"


def outputs(path: Path) -> dict[str, str]:
    """One-line values of GITHUB_OUTPUT, the last of each name."""
    lines = path.read_text().splitlines()
    return {lines[i].partition("<<")[0]: lines[i + 1] for i in range(0, len(lines), 3)}


def test_detect_fills_a_matrix(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = Repo(tmp_path / "repo")
    base = repo.commit({"README.md": "x", **checkpoint("models/old")})
    head = repo.commit({**checkpoint("models/q4"), **dict.fromkeys(checkpoint("models/old"))})
    monkeypatch.chdir(repo.root)
    assert main(["ci", "detect", "--base", base, "--head", head, "--paths", "models/**\n\n!models/base/**\n"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == [{"name": "models-q4", "candidate": "models/q4"}]
    assert told.err == "deleted, nothing to gate: 'models/old'\n"
    assert outputs(output) == {
        "matrix": '{"include":[{"name":"models-q4","candidate":"models/q4"}]}',
        "count": "1",
        "names": '["models-q4"]',
    }
    assert main(["ci", "detect", "--base", head, "--head", head]) == 0
    assert outputs(output) == {"matrix": '{"include":[]}', "count": "0", "names": "[]"}
    assert main(["ci", "detect", "--list", "a=org/model\nmodels/q4"]) == 0
    assert outputs(output)["names"] == '["a","models-q4"]'
    assert main(["ci", "detect"]) == 2
    assert main(["ci", "detect", "--base", base]) == 2


@pytest.mark.parametrize("name", ["models/x\n::error::all is well", "models/\x1b[31m${{ github.token }}", "models/-rf"])
def test_a_hostile_folder_fails_the_job_and_commands_nothing(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    repo = Repo(tmp_path / "repo")
    base = repo.commit({"README.md": "x"})
    head = repo.commit(checkpoint(name))
    monkeypatch.chdir(repo.root)
    assert main(["ci", "detect", "--base", base, "--head", head]) == 2
    told = capsys.readouterr()
    assert "\x1b" not in told.err
    assert not any(line.lstrip().startswith("::") for line in (told.err + told.out).splitlines())
    assert not output.exists()


def test_the_first_policy_has_to_be_merged_first(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = Repo(tmp_path / "repo")
    base = repo.commit({"README.md": "x"})
    head = repo.commit({"policy.yaml": yaml.safe_dump({"version": 1, "stages": [STAGES["fraud"]]})})
    monkeypatch.chdir(repo.root)
    assert main(["ci", "policy", "policy.yaml", "--base", base, "--head", head, "--out", str(tmp_path / "j")]) == 2
    assert "merge the policy first" in capsys.readouterr().err
    assert not output.exists()


def test_a_pull_request_that_lowers_its_bar(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The working tree is the pull request's: an easier policy, easier questions, and a candidate that fails."""
    repo = Repo(tmp_path / "repo")
    world = make_world(repo.root)
    world.checkpoint("baseline", seed=1, error_rate=0.02)
    world.checkpoint("candidate", seed=2, error_rate=0.25)
    world.policy(["fraud"])
    git(repo.root, "add", "-A")
    git(repo.root, "commit", "--quiet", "-m", "the bar")
    base = git(repo.root, "rev-parse", "HEAD")
    lax = {**STAGES["fraud"], "rules": [{"metric": "accuracy", "max_drop": "90pp"}]}
    world.policy([lax])
    (repo.root / "questions.jsonl").write_text(
        '{"id": "q", "input": "a", "expected": "a", "category": "a"}\n', encoding="utf-8"
    )
    git(repo.root, "add", "-A")
    git(repo.root, "commit", "--quiet", "-m", "an easier one")
    head = git(repo.root, "rev-parse", "HEAD")
    monkeypatch.chdir(repo.root)

    judge = tmp_path / "judge"
    assert main(["ci", "policy", "policy.yaml", "--base", base, "--head", head, "--out", str(judge)]) == 0
    told = outputs(output)
    assert (told["policy"], told["waivers"], told["changed"]) == (str(judge / "base" / "policy.yaml"), "", "true")
    # the scripts of the fake models answer the questions of the base branch
    shutil.copy(judge / "base" / "questions.jsonl", repo.root / "questions.jsonl")
    assert world.run(Path(told["policy"])) == 1

    run = repo.root / "out"
    assert main(["ci", "govern", str(run), "--export", str(judge)]) == 0
    record = world.record()
    assert record.verdict.status is Status.REGRESSION
    change = record.policy_change
    assert change is not None
    assert change.base_commit == base
    assert change.paths == ("policy.yaml", "questions.jsonl")
    assert [(c.rule, c.kind) for c in change.rules] == [
        ("fraud.accuracy.max_drop", "loosened"),
        ("fraud.accuracy.max_drop.by_category", "removed"),
    ]
    assert [(m.was, m.now) for m in change.moves] == [(Status.REGRESSION, Status.PASS)]
    assert (run / "observations" / "fraud.parquet").is_file()

    capsys.readouterr()
    assert main(["ci", "outputs", str(run), "--exit-code", "1", "--exit"]) == 1
    told = outputs(output)
    assert (told["status"], told["exit-code"], told["run-json"]) == ("REGRESSION", "1", str(run / "run.json"))
    assert "90pp" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()

    # a second stage takes the same folder as data, and believes none of its claims
    forged = tmp_path / "artifact"
    shutil.copytree(run, forged)
    lie = Verdict(status=Status.PASS, deciding=(), sentence="All is well.")
    (forged / "run.json").write_text(artifact.dumps_record(replace(record, verdict=lie, exit_code=0)))
    clean = tmp_path / "clean"
    arguments = ["ci", "verify", str(forged), "--policy", str(judge / "base" / "policy.yaml"), "--out", str(clean)]
    assert main(arguments) == 0
    verified = artifact.loads_record((clean / "run.json").read_bytes())
    assert (verified.verdict.status, verified.exit_code) == (Status.REGRESSION, 1)
    assert verified.candidate == record.candidate
    assert "the artifact said PASS; its rows say REGRESSION" in capsys.readouterr().out


def test_collecting_a_matrix(tmp_path: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    ran(runs / "quantgate-run-models-q4")
    (runs / "models-q4.yaml").unlink(missing_ok=True)
    assert main(["ci", "outputs", str(runs), "--expect", '["models-q4","models-q8"]', "--exit"]) == 1
    assert outputs(output)["sentence"].startswith("2 of 2 candidates did not pass; models-q4: ")
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "REGRESSION models-q4",
        "ERROR models-q8",
    ]
    assert main(["ci", "outputs", str(runs), "--expect", '["../x"]']) == 2
    assert main(["ci", "outputs", str(tmp_path / "none"), "--expect", "[]", "--exit"]) == 0
    assert outputs(output)["status"] == "SKIPPED"
