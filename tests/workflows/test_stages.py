"""Whole flows, with the real gate, the scripts of the workflows and a mock of GitHub: what a reader sees in the end.

The jobs besides the measuring one have a `gate` without torch and what belongs to it, as they install it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.world import make_world
from tests.github import job as jobs
from tests.github.server import GITHUB_TOKEN, GitHubMock
from tests.workflows import tools_only
from tests.workflows.expressions import interpolate
from tests.workflows.repository import Repository, make_repository
from tests.workflows.runner import ACTION, ROOT, Ended, Runner, read_outputs
from tests.workflows.test_rules import second_stage_mode

NAMES = '["good","bad"]'


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    root = tmp_path_factory.mktemp("world")
    make_world(root).policy(["fraud"])
    files = {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}
    good = files.pop("candidate/fake.json")
    bad = json.dumps({**json.loads(good), "error_rate": 0.5, "seed": 3}).encode()
    return make_repository(
        tmp_path_factory.mktemp("origin") / "r", files, {"good/fake.json": good, "bad/fake.json": bad}
    )


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `gate` has nothing but the short list."""
    folder = tmp_path_factory.mktemp("tools")
    script = f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -P -m tests.workflows.tools_only "$@"\n'
    (folder / "gate").write_text(script, encoding="utf-8")
    (folder / "gate").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory, repository: Repository) -> Path:
    """What the measuring jobs of a pull request uploaded, as actions/download-artifact merges it."""
    merged = tmp_path_factory.mktemp("artifacts")
    for name, code in (("good", 0), ("bad", 1)):
        ended = _measure(tmp_path_factory.mktemp(name), repository, name)
        assert ended.code == code, ended.log
        (uploaded,) = ended.artifacts.values()
        shutil.copytree(uploaded, merged, dirs_exist_ok=True)
    return merged


def _measure(folder: Path, repository: Repository, candidate: str, github: GitHubMock | None = None) -> Ended:
    context, payload = repository.event("pull_request")
    temp, gate = folder / "temp", folder / "bin"
    temp.mkdir()
    gate.mkdir()
    (gate / "gate").symlink_to(Path(sys.executable).with_name("gate"))
    environ = {"HOME": str(folder), "QUANTGATE_THREADS": "1"}
    inputs = {"publish": "false"}
    if github is not None:
        context.update(api_url=github.public_url, repository=github.repository)
        payload["repository"]["full_name"] = github.repository
        payload["pull_request"]["head"]["repo"]["full_name"] = github.repository
        inputs = {"publish": "true", "github-token": GITHUB_TOKEN}
    workspace = repository.checkout(folder / "workspace", context["sha"])
    runner = Runner(workspace, temp, context, payload, path=[gate], environ=environ)
    known = {
        "baseline": "baseline",
        "policy": "policy.yaml",
        "backend": "fake",
        "device": "cpu",
        "arguments": "--offline",
    }
    return runner.run({**known, "candidate": candidate, "name": candidate, **inputs})


def script(name: str, folder: Path, tools: Path, environ: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
    output, summary = folder / "output", folder / "summary"
    output.write_text("", encoding="utf-8")
    done = subprocess.run(
        ["bash", str(ACTION / name)],
        cwd=folder,
        env={
            **environ,
            "PATH": f"{tools}:/usr/bin:/bin",
            "HOME": str(folder),
            "PYTHON": sys.executable,
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(summary),
            "RUNNER_TEMP": str(folder),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
        check=False,
    )
    return done.returncode, read_outputs(output.read_text(encoding="utf-8")), done.stdout.decode("utf-8", "replace")


def verified(tmp_path: Path, tools: Path, repository: Repository, artifacts: Path) -> tuple[Path, str]:
    """What job 1 of the second stage hands on."""
    checkout = repository.checkout(tmp_path / "default", repository.base)
    clean = tmp_path / "clean"
    environ = {
        "ARTIFACTS": str(artifacts),
        "CLEAN": str(clean),
        "NAMES": NAMES,
        "POLICY": str(checkout / "policy.yaml"),
        "WAIVERS": str(checkout / "waivers.yaml"),
    }
    code, _, log = script("verify.sh", tmp_path, tools, environ)
    assert code == 0, log
    return clean, log


def published(
    folder: Path, tools: Path, github: GitHubMock, sha: str, runs: Path, *, mode: str = "finish", names: str = NAMES
) -> tuple[str, str]:
    """(code, log) of the job that publishes, in the second stage of a fork's pull request."""
    environ = jobs.workflow_run(github, sha).environment(github, folder)
    settings = {
        "MODE": mode,
        "RUNS": str(runs),
        "NAMES": names,
        "CHECK_NAME": "quantgate",
        "REQUIRED": "true",
        "POLICY_PATH": "policy.yaml",
    }
    code, outputs, log = script("publish.sh", folder, tools, {**environ, **settings})
    assert code == 0, log
    return outputs["code"], log


def test_a_forks_result_is_shown_and_concludes_nothing(
    tmp_path: Path, tools: Path, repository: Repository, artifacts: Path
) -> None:
    clean, _ = verified(tmp_path, tools, repository, artifacts)
    with GitHubMock() as github:
        github.add_pull(7, repository.head, head_repository=jobs.FORK)
        code, log = published(tmp_path, tools, github, repository.head, clean)

        assert code == "0", log
        (check,) = github.checks
        assert check["name"] == "quantgate (unverified)"
        assert check["conclusion"] == "neutral"
        assert check["head_sha"] == repository.head


def test_what_was_measured_after_the_approval_concludes_the_check(
    tmp_path: Path, tools: Path, repository: Repository, artifacts: Path
) -> None:
    with GitHubMock() as github:
        github.add_pull(7, repository.head, head_repository=jobs.FORK)
        code, log = published(tmp_path, tools, github, repository.head, artifacts, mode="measured")

        assert code == "0", log
        found = {check["name"]: check["conclusion"] for check in github.checks}
        assert found["quantgate"] == "failure"
        (comment,) = github.comments
        assert "good" in comment["body"]
        assert "bad" in comment["body"]


def test_a_forged_verdict_is_judged_again(tmp_path: Path, tools: Path, repository: Repository, artifacts: Path) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(artifacts, forged)
    file = forged / "bad" / "run.json"
    text = file.read_text(encoding="utf-8").replace('"REGRESSION"', '"PASS"')
    file.write_text(re.sub(r'"exit_code": ?1\b', '"exit_code": 0', text), encoding="utf-8")

    clean, log = verified(tmp_path, tools, repository, forged)

    if (clean / "bad").exists():
        record = json.loads((clean / "bad" / "run.json").read_text(encoding="utf-8"))
        assert record["verdict"]["status"] == "REGRESSION"
    else:
        assert "bad: the artifact could not be verified" in log
    assert json.loads((clean / "good" / "run.json").read_text(encoding="utf-8"))["verdict"]["status"] == "PASS"


def test_a_fork_that_uploaded_nothing_could_not_be_measured(
    tmp_path: Path, tools: Path, repository: Repository
) -> None:
    (tmp_path / "none").mkdir()
    clean, _ = verified(tmp_path, tools, repository, tmp_path / "none")
    with GitHubMock() as github:
        github.add_pull(7, repository.head, head_repository=jobs.FORK)
        code, log = published(tmp_path, tools, github, repository.head, clean)

        assert code == "0", log
        assert {check["conclusion"] for check in github.checks} == {"neutral"}
        assert all(check["name"] == "quantgate (unverified)" for check in github.checks)
        assert github.comments == [], "there is nothing to read yet"


def test_a_fork_without_a_checkpoint_is_not_blocked(tmp_path: Path, tools: Path, repository: Repository) -> None:
    needs = {"verify": {"result": "success", "outputs": {"count": "0"}}}
    mode = interpolate(second_stage_mode(), {"needs": needs})
    with GitHubMock() as github:
        github.add_pull(7, repository.head, head_repository=jobs.FORK)
        code, log = published(tmp_path, tools, github, repository.head, tmp_path / "clean", mode=mode, names="[]")

        assert code == "0", log
        assert [(check["name"], check["conclusion"]) for check in github.checks] == [("quantgate", "skipped")]


def test_collecting_ends_as_the_worst_candidate(tmp_path: Path, tools: Path, artifacts: Path) -> None:
    _, outputs, log = script("collect.sh", tmp_path, tools, {"RUNS": str(artifacts), "NAMES": NAMES})

    assert (outputs["status"], outputs["exit-code"]) == ("REGRESSION", "1"), log
    summary = (tmp_path / "summary").read_text(encoding="utf-8")
    assert "good" in summary
    assert "bad" in summary


def test_collecting_misses_whoever_did_not_come_back(tmp_path: Path, tools: Path, artifacts: Path) -> None:
    names = '["good","vanished"]'
    (tmp_path / "runs").mkdir()
    shutil.copytree(artifacts / "good", tmp_path / "runs" / "good")

    _, outputs, _ = script("collect.sh", tmp_path, tools, {"RUNS": "runs", "NAMES": names})

    assert (outputs["status"], outputs["exit-code"]) == ("ERROR", "4")


def test_collecting_without_knowing_what_was_expected_is_no_pass(tmp_path: Path, tools: Path, artifacts: Path) -> None:
    code, outputs, _ = script("collect.sh", tmp_path, tools, {"RUNS": str(artifacts), "NAMES": ""})

    assert code == 4
    assert outputs == {}


def test_nothing_to_gate_is_said(tmp_path: Path, tools: Path) -> None:
    code, outputs, _ = script("collect.sh", tmp_path, tools, {"RUNS": "runs", "NAMES": "[]"})

    assert code == 0
    assert outputs["exit-code"] == "0"
    assert outputs["status"] == "SKIPPED"


def test_detection_finds_what_the_pull_request_adds(tmp_path: Path, tools: Path) -> None:
    checkpoint = {"models/w4/config.json": b"{}", "models/w4/model.safetensors": b"x" * 100}
    added = make_repository(tmp_path / "r", {"policy.yaml": b"version: 1\n"}, checkpoint)
    checkout = added.checkout(tmp_path / "workspace", added.merge)
    environ = {
        "BASE": added.base,
        "HEAD": added.head,
        "LIST": "",
        "PATHS": "models/**",
        "POLICY": "policy.yaml",
        "BASELINE": "models/base",
        "EVENT": "pull_request",
        "CHECK_NAME": "quantgate",
    }

    code, outputs, log = script("detect.sh", checkout, tools, environ)

    assert code == 0, log
    assert json.loads(outputs["matrix"]) == {"include": [{"name": "models-w4", "candidate": "models/w4"}]}
    assert json.loads(outputs["names"]) == ["models-w4"]
    assert (outputs["count"], outputs["code-changed"]) == ("1", "false")


@pytest.mark.parametrize(("candidate", "conclusion"), [("good", "success"), ("bad", "failure")])
def test_the_direct_stage_begins_and_concludes_one_check(
    tmp_path: Path, repository: Repository, candidate: str, conclusion: str
) -> None:
    with GitHubMock() as github:
        github.add_pull(7, repository.head)
        ended = _measure(tmp_path, repository, candidate, github)

        assert ended.code == (0 if conclusion == "success" else 1), ended.log
        (check,) = github.checks
        found = (check["name"], check["status"], check["conclusion"])
        assert found == ("quantgate", "completed", conclusion), ended.log
        assert check["head_sha"] == repository.head, "never the merge commit"
        assert len([c for c in github.writes if c.method == "POST" and c.path.endswith("/check-runs")]) == 1
        assert GITHUB_TOKEN not in ended.log
        assert ended.summary.count("quantgate:") == 1, "the summary is written once"


def test_the_short_list_holds_what_the_package_requires_and_nothing_heavy() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {tools_only._plain(re.split(r"[<>=!~ \[;]", text)[0]) for text in project["dependencies"]}

    assert tools_only.listed() <= required
    assert not tools_only.needed(tools_only.listed()) & {"torch", "transformers", "lm-eval", "datasets", "accelerate"}
