"""The composite action with the real gate, on the `fake` backend: what a job says, uploads and ends with.

No network: nothing is published here.  tests/github has the conversation with GitHub.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.world import make_world
from tests.workflows.repository import Repository, git, make_repository
from tests.workflows.runner import Ended, Runner

CANARY = "canaryq77"
"""In every question of the domain set: no prompt may leave the machine."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """main has the baseline, the policy and its data; the pull request brings two checkpoints."""
    root = tmp_path_factory.mktemp("world")
    world = make_world(root)
    questions = (root / "questions.jsonl").read_text(encoding="utf-8").replace("what is", f"{CANARY} what is")
    (root / "questions.jsonl").write_text(questions, encoding="utf-8")
    world.policy(["sanity", "fraud"])
    files = {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}
    base = {name: data for name, data in files.items() if not name.startswith("candidate/")}
    good = files["candidate/fake.json"]
    settings = {**json.loads(good), "error_rate": 0.5, "seed": 3}
    head = {
        "good/fake.json": good,
        "bad/fake.json": json.dumps(settings).encode(),
        "broken/fake.json": b"{",
    }
    return make_repository(tmp_path_factory.mktemp("origin") / "r", base, head)


def measured(
    tmp_path: Path,
    repository: Repository,
    candidate: str,
    event: str = "pull_request",
    *,
    gate: Path | None = None,
    **inputs: str,
) -> Ended:
    github, payload = repository.event(event)
    temp = tmp_path / "temp"
    temp.mkdir(parents=True)
    workspace = repository.checkout(tmp_path / "workspace", github["sha"])
    runner = Runner(
        workspace,
        temp,
        github,
        payload,
        path=[gate or _gate(tmp_path)],
        environ={"HOME": str(tmp_path), "QUANTGATE_THREADS": "1"},
    )
    return runner.run(
        {
            "baseline": "baseline",
            "candidate": candidate,
            "policy": "policy.yaml",
            "name": candidate,
            "backend": "fake",
            "device": "cpu",
            "publish": "false",
            "arguments": "--offline",
            **inputs,
        }
    )


def _gate(tmp_path: Path) -> Path:
    """A folder with nothing but this environment's gate."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "gate").symlink_to(Path(sys.executable).with_name("gate"))
    return folder


def _uploaded(ended: Ended) -> Iterator[Path]:
    for folder in ended.artifacts.values():
        yield from (f for f in folder.rglob("*") if f.is_file())


def _says_nothing_confidential(ended: Ended) -> None:
    assert CANARY not in ended.summary
    assert CANARY not in "".join(ended.outputs.values())
    assert CANARY not in ended.log
    for file in _uploaded(ended):
        assert CANARY.encode() not in file.read_bytes(), file.name


def test_a_good_candidate(tmp_path: Path, repository: Repository) -> None:
    ended = measured(tmp_path, repository, "good")

    assert ended.code == 0, ended.log
    assert ended.outputs["status"] == "PASS"
    assert ended.outputs["exit-code"] == "0"
    assert ended.outputs["sentence"]
    record = json.loads(Path(ended.outputs["run-json"]).read_text(encoding="utf-8"))
    assert record["verdict"]["sentence"] == ended.outputs["sentence"]
    names = {str(f.relative_to(ended.artifacts["quantgate-run-good"])) for f in _uploaded(ended)}
    assert {"good/run.json", "good/junit.xml", "good/summary.md", "good/report.html"} <= names
    assert "pass" in ended.summary.casefold()
    _says_nothing_confidential(ended)


def test_a_bad_candidate(tmp_path: Path, repository: Repository) -> None:
    ended = measured(tmp_path, repository, "bad")

    assert ended.code == 1
    assert ended.outputs["status"] == "REGRESSION"
    assert ended.outputs["exit-code"] == "1"
    assert "quantgate-run-bad" in ended.artifacts
    local = Path(ended.outputs["run-json"])
    assert CANARY in local.read_text(encoding="utf-8"), "the flips are there to be left out"
    _says_nothing_confidential(ended)


def test_a_policy_of_the_pull_request_decides_nothing(tmp_path: Path, repository: Repository) -> None:
    """The pull request allows itself everything, in a policy that is not the base branch's."""
    git(repository.root, "checkout", "--quiet", repository.head)
    policy = (repository.root / "policy.yaml").read_text(encoding="utf-8").replace("max_drop: 5pp", "max_drop: 90pp")
    (repository.root / "policy.yaml").write_text(policy, encoding="utf-8")
    git(repository.root, "commit", "--quiet", "--all", "--message=lower the bar")
    head = git(repository.root, "rev-parse", "HEAD")
    lowered = Repository(repository.root, repository.base, head, head)

    ended = measured(tmp_path, lowered, "bad")

    assert ended.code == 1
    assert ended.did("Say what the pull request does to its bar")
    change = json.loads(Path(ended.outputs["run-json"]).read_text(encoding="utf-8"))["policy_change"]
    assert change["paths"] == ["policy.yaml"]
    assert "loosened" in ended.summary
    _says_nothing_confidential(ended)


def test_a_candidate_that_cannot_be_read(tmp_path: Path, repository: Repository) -> None:
    ended = measured(tmp_path, repository, "broken")

    assert ended.code not in (0, 1)
    assert ended.outputs["exit-code"] == str(ended.code)
    assert ended.outputs["status"] == "ERROR"
    assert ended.summary


def test_a_candidate_that_is_not_there(tmp_path: Path, repository: Repository) -> None:
    ended = measured(tmp_path, repository, "nowhere")

    assert ended.code == 4
    assert ended.outputs["status"] == "ERROR"
    assert list(ended.artifacts) == ["quantgate-run-nowhere"]


def test_a_usage_error_has_no_record_and_says_so_all_the_same(tmp_path: Path, repository: Repository) -> None:
    ended = measured(tmp_path, repository, "good", arguments="--no-such-option")

    assert ended.code == 2, ended.log
    assert ended.outputs["exit-code"] == "2"
    assert ended.outputs["status"] == "ERROR"
    assert ended.outputs["run-json"] == ""
    assert ended.artifacts == {}
    assert "ould not measure" in ended.summary


def test_a_gate_that_is_killed_is_not_a_verdict(tmp_path: Path, repository: Repository) -> None:
    folder = tmp_path / "mortal"
    folder.mkdir()
    real = Path(sys.executable).with_name("gate")
    (folder / "gate").write_text(f'#!/bin/sh\n[ "$1" != run ] || kill -KILL $$\nexec {real} "$@"\n', encoding="utf-8")
    (folder / "gate").chmod(0o755)

    ended = measured(tmp_path, repository, "good", gate=folder)

    assert ended.code == 137
    assert ended.outputs["status"] == "ERROR"
    assert ended.artifacts == {}
    assert "137" in ended.outputs["sentence"]
    assert "good" in ended.summary


def test_the_default_branch_stores_what_a_pull_request_then_reads(tmp_path: Path, repository: Repository) -> None:
    ended = measured(tmp_path, repository, "baseline", "push", arguments="--offline\n--allow-identical")

    assert ended.step("Measure and decide").outputs["store-changed"] == "true", ended.log
    assert len(ended.saved) == 1


@pytest.mark.parametrize("candidate", ["--policy=good", "good; touch pwned", "$(touch pwned)", "go\nod"])
def test_a_hostile_candidate_is_a_usage_error_and_nothing_else(
    tmp_path: Path, repository: Repository, candidate: str
) -> None:
    ended = measured(tmp_path, repository, candidate, name="hostile")

    assert ended.code == 2, ended.log
    assert not list(tmp_path.rglob("pwned"))
    assert not [line for line in ended.log.splitlines() if line.startswith("::") and "quantgate::" not in line]
