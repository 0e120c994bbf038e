"""docs/github.md says what the code does: every message, command, option, input, permission and limit in it exists.

Reads the page and the source; runs nothing but the parsers of the commands.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from gate.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "github.md"
GITHUB = ROOT / ".github"
WORKFLOWS = {name: GITHUB / "workflows" / f"{name}.yml" for name in ("gate", "publish")}


def text() -> str:
    return DOC.read_text()


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text(), re.MULTILINE | re.DOTALL)
    return [block for named, block in fenced if named == language]


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text(), re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def rows(title: str, head: str) -> list[list[str]]:
    """Of the table in that section whose first column is called so."""
    lines = section(title).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {head} |" if head else "| |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert found
    return found


def coded(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# messages


@cache
def said() -> tuple[str, ...]:
    """Every text of the source, with … for what is filled in; scripts as they are."""
    found = [
        path.read_text() for folder in ("actions", "workflows") for path in sorted((GITHUB / folder).rglob("*.sh"))
    ]
    for path in sorted((GITHUB / "actions" / "gate").glob("*.py")):
        found += _strings(path)
    for path in sorted((ROOT / "gate").rglob("*.py")):
        if path.parent.name in {"publish", "ci", "commands", "reports"}:
            found += _strings(path)
    return tuple(found)


def _strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.JoinedStr():
                parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                yield "".join(str(part) for part in parts)
            case ast.Constant(value=str() as value):
                yield value


def messages() -> list[str]:
    return [coded(row[0])[0] for row in rows("When it does not work", "message")]


@pytest.mark.parametrize("message", messages())
def test_every_message_is_one_that_the_code_says(message: str) -> None:
    assert any(message in one for one in said()), f"nothing says {message!r}"


def test_every_message_has_a_cause_and_a_remedy() -> None:
    for row in rows("When it does not work", "message"):
        assert len(row) == 3, row
        assert all(row), row
    assert len(set(messages())) == len(messages())


# commands


def commands() -> list[str]:
    """Every command line of ours in the page: in code spans and in blocks."""
    spans = re.findall(r"`((?:gate|make) [a-z][^`]*)`", text())
    lines = [line.split("  ")[0].strip() for block in blocks("") for line in block.splitlines()]
    return sorted({one for one in [*spans, *lines] if one.startswith(("gate ", "make "))} - {"gate / detect"})


def test_the_page_has_commands() -> None:
    assert "make github-demo" in commands()
    assert len(commands()) > 8


@pytest.mark.parametrize("line", commands())
def test_every_command_and_option_exists(line: str) -> None:
    words = line.split()
    if words[0] == "make":
        assert re.search(rf"^{re.escape(words[1])}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        return
    if words[1] == "serve":
        assert "does not exist yet" in text()
        return
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(command, "commands"):
        assert rest, f"{line!r} names a group of commands"
        assert rest[0] in command.commands, f"{line!r}: no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        if word.startswith("-"):
            assert word.split("=")[0] in known, f"{line!r}: no option {word!r}"


@pytest.mark.parametrize("option", sorted(set(re.findall(r"(?<![\w-])`(--[a-z-]+)", text()))))
def test_options_that_stand_alone_exist_somewhere(option: str) -> None:
    others = {"--ephemeral", "--gpus", "--user"}  # of GitHub's runner, and of docker
    ours = {name for one in _leaves(typer.main.get_command(app)) for p in one.params for name in p.opts}
    assert option in others | ours


def _leaves(command: Any) -> Iterator[Any]:
    """Commands without sub-commands; typer brings its own click, whose classes have no public name."""
    inside = getattr(command, "commands", None)
    if inside is None:
        yield command
    for one in (inside or {}).values():
        yield from _leaves(one)


# workflows


def interface(name: str) -> dict[str, Any]:
    """Inputs and secrets of a reusable workflow."""
    loaded = yaml.safe_load(WORKFLOWS[name].read_text())
    called = loaded[True]["workflow_call"]  # YAML reads `on` as true
    assert isinstance(called, dict)
    return called


def calls() -> list[tuple[str, dict[str, Any]]]:
    """(reusable workflow, job that calls it) of every YAML block."""
    found = []
    for block in blocks("yaml"):
        for job in yaml.safe_load(block)["jobs"].values():
            if "uses" not in job:
                continue
            used = re.fullmatch(r"OWNER/quantgate/\.github/workflows/(\w+)\.yml@COMMIT", job["uses"])
            assert used, job["uses"]
            found.append((used[1], job))
    return found


def test_both_workflows_are_shown() -> None:
    assert [name for name, _ in calls()] == ["gate", "publish"]


@pytest.mark.parametrize(("name", "job"), calls())
def test_a_call_gives_inputs_that_exist_and_all_that_are_required(name: str, job: dict[str, Any]) -> None:
    known = interface(name)["inputs"]
    assert set(job["with"]) <= set(known)
    assert {key for key, value in known.items() if value.get("required")} <= set(job["with"])
    assert set(job.get("secrets", ())) <= set(interface(name).get("secrets", ()))


@pytest.mark.parametrize(("name", "job"), calls())
def test_a_call_gives_the_permissions_that_its_jobs_want(name: str, job: dict[str, Any]) -> None:
    rank = {"none": 0, "read": 1, "write": 2}
    wanted: dict[str, str] = {}
    for one in yaml.safe_load(WORKFLOWS[name].read_text())["jobs"].values():
        for scope, access in one["permissions"].items():
            wanted[scope] = max(access, wanted.get(scope, "none"), key=rank.__getitem__)
    assert job["permissions"] == wanted


def test_the_readme_shows_the_same_workflow() -> None:
    (shown,) = re.findall(r"^```yaml\n(name: .*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    without_remarks = re.sub(r" +#.*", "", blocks("yaml")[0])
    assert shown == without_remarks


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_workflows_are_workflows(number: int, tmp_path: Path) -> None:
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema is not installed: pip install check-jsonschema")
    file = tmp_path / "workflow.yml"
    file.write_text(blocks("yaml")[number])
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_second_workflow_waits_for_the_first() -> None:
    first, step, second = (yaml.safe_load(block) for block in blocks("yaml"))
    assert second[True]["workflow_run"]["workflows"] == [first["name"]] == [step["name"]]
    assert first["permissions"] == step["permissions"] == second["permissions"] == {}


def test_the_single_step_is_the_action() -> None:
    action = yaml.safe_load((GITHUB / "actions" / "gate" / "action.yml").read_text())
    (job,) = yaml.safe_load(blocks("yaml")[1])["jobs"].values()
    checkout, step = job["steps"]
    assert step["uses"] == "OWNER/quantgate/.github/actions/gate@COMMIT"
    assert set(step["with"]) <= set(action["inputs"])
    assert {name for name, one in action["inputs"].items() if one.get("required")} <= set(step["with"])
    assert checkout["uses"] in (GITHUB / "workflows" / "gate.yml").read_text()
    (told,) = re.findall(r"has the outputs (.*?)\. Here", text(), re.DOTALL)
    assert set(coded(told)) == set(action["outputs"])


def test_the_permissions_table_is_that_of_the_workflows() -> None:
    told = [(coded(row[0])[0], *coded(row[1])[0].split(": ")) for row in rows("Permissions", "job")]
    real = [
        (job, scope, access)
        for path in WORKFLOWS.values()
        for job, body in yaml.safe_load(path.read_text())["jobs"].items()
        for scope, access in body["permissions"].items()
    ]
    assert sorted(told) == sorted(real)


def test_every_input_that_the_page_names_exists() -> None:
    action = yaml.safe_load((GITHUB / "actions" / "gate" / "action.yml").read_text())
    known = {name for workflow in WORKFLOWS for name in interface(workflow)["inputs"]} | set(action["inputs"])
    others = {"merge_group", "workflow_run", "fetch-depth", "env", "secrets"}
    others |= {"on_inconclusive", "share_examples", "checkpoints"}  # of the policy
    permissions = {"contents", "checks", "actions", "pull-requests"}
    named = set(re.findall(r"`([a-z][a-z-]+):(?: [^`]*)?`", text())) - permissions
    assert named <= known | others, named - known - others


def test_the_set_up_with_an_app_names_what_the_workflow_takes() -> None:
    told = section("Against people who can push")
    for name in ("publish-environment", "app-id", "only-forks"):
        assert f"`{name}: " in told
        assert name in interface("publish")["inputs"]
    assert "QUANTGATE_APP_KEY" in interface("publish")["secrets"]
    assert "QUANTGATE_APP_KEY: '${{ secrets.QUANTGATE_APP_KEY }}'" in told
    assert "app-id" not in interface("gate")["inputs"], "the page says why"


def test_tokens_are_told_apart_as_the_code_does() -> None:
    from gate.publish.model import TokenKind
    from gate.publish.session import token_kind

    told = {row[0]: row[1] for row in rows("Permissions", "token")}
    for row, check in told.items():
        for prefix in re.findall(r"`(\w+_)…`", row):
            kind = token_kind(f"{prefix}x")
            assert (kind is TokenKind.INSTALLATION) == (check == "yes"), prefix


# numbers


def test_the_limits_are_those_of_the_code() -> None:
    from gate.ci import job
    from gate.publish import candidates, limits, patience

    told = " ".join(cell for row in rows("Limits", "") for cell in row)
    for number in (
        f"{limits.OUTPUT_BYTES:,} bytes each",
        f"{limits.TITLE_CHARACTERS}; {limits.DESCRIPTION_CHARACTERS} characters",
        f"{limits.ANNOTATIONS_PER_REQUEST} in one request",
        f"{limits.COMMENT_BYTES:,} bytes",
        f"{job.MAX_SUMMARY_BYTES // 2**20} MiB",
        f"{candidates.MAX_CANDIDATES} (a matrix",
        f"{candidates.MAX_RUN_BYTES // 2**20} MiB, all together {candidates.MAX_ALL_BYTES // 2**20} MiB",
        f"{patience.DEADLINE_SECONDS:.0f} s and {patience.TRIES} tries",
    ):
        assert number in told, number


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([\w./-]+\.md)\)", text()):
        assert (DOC.parent / link).exists(), link
