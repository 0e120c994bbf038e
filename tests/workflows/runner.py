"""A runner for our composite action: executes `run` steps with bash as GitHub's would, and records `uses` steps.

Knows what our files use and nothing else; an action or an expression that it does not know is an error.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.workflows.expressions import condition, interpolate, shown

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / ".github" / "actions" / "gate"


@dataclass
class Step:
    """What became of one step."""

    name: str
    outcome: str
    outputs: dict[str, str]
    env: dict[str, str]
    log: str
    code: int


@dataclass
class Ended:
    """What became of the action.  `artifacts` are copies of what was uploaded, by name; `saved` keys of caches."""

    steps: list[Step]
    outputs: dict[str, str]
    artifacts: dict[str, Path]
    saved: dict[str, str]
    summary: str

    @property
    def code(self) -> int:
        """Exit code of the last step, which is how the action ends."""
        return self.steps[-1].code

    @property
    def failed(self) -> bool:
        return any(step.outcome == "failure" for step in self.steps)

    @property
    def log(self) -> str:
        return "".join(step.log for step in self.steps)

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def did(self, name: str) -> bool:
        return self.step(name).outcome not in ("skipped",)


@dataclass
class Runner:
    """A machine with a workspace.  `path` stands in front of PATH; `cached` is the key that restoring finds."""

    workspace: Path
    temp: Path
    github: dict[str, Any]
    event: dict[str, Any]
    path: list[Path] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    cached: str = ""

    def run(self, inputs: Mapping[str, str]) -> Ended:
        """The action with these inputs; an input that it does not have is an error."""
        action = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))
        unknown = inputs.keys() - action["inputs"].keys()
        assert not unknown, f"no such input: {unknown}"
        missing = {n for n, i in action["inputs"].items() if i.get("required")} - inputs.keys()
        assert not missing, f"required: {missing}"
        contexts = self._contexts()
        contexts["inputs"] = {
            name: inputs.get(name, interpolate(str(given.get("default", "")), contexts))
            for name, given in action["inputs"].items()
        }
        ended = Ended([], {}, {}, {}, "")
        for step in action["runs"]["steps"]:
            ended.steps.append(self._step(step, contexts, ended))
        ended.outputs = {n: interpolate(o["value"], contexts) for n, o in action["outputs"].items()}
        return ended

    def _contexts(self) -> dict[str, Any]:
        return {
            "github": {**self.github, "event": self.event},
            "runner": {"os": "Linux", "arch": "X64", "temp": str(self.temp)},
            "steps": {},
        }

    def _step(self, step: Mapping[str, Any], contexts: dict[str, Any], ended: Ended) -> Step:
        name = step["name"]
        failed = any(
            done.outcome == "failure" and not contexts["steps"][done.name].get("forgiven") for done in ended.steps
        )
        if condition(step.get("if"), contexts, failed=failed):
            env = {n: interpolate(str(v), contexts) for n, v in step.get("env", {}).items()}
            if "run" in step:
                done = self._bash(name, step["run"], env, ended)
            else:
                with_ = {n: interpolate(str(v), contexts) for n, v in step.get("with", {}).items()}
                done = self._uses(name, step["uses"], with_, ended)
        else:
            done = Step(name, "skipped", {}, {}, "", 0)
        known = {"outputs": done.outputs, "outcome": done.outcome, "forgiven": step.get("continue-on-error", False)}
        contexts["steps"][name] = known
        if "id" in step:
            contexts["steps"][step["id"]] = known
        return done

    def _bash(self, name: str, script: str, env: dict[str, str], ended: Ended) -> Step:
        assert "${{" not in script, "an expression in a script"
        files = self.temp / "_runner_file_commands"
        files.mkdir(parents=True, exist_ok=True)
        written = {n: files / n.lower() for n in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH", "GITHUB_ENV")}
        for file in written.values():
            file.write_text("", encoding="utf-8")
        payload = self.temp / "event.json"
        payload.write_text(json.dumps(self.event), encoding="utf-8")
        (script_file := self.temp / "step.sh").write_text(script, encoding="utf-8")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script_file)],
            cwd=self.workspace,
            env={
                **self._variables(),
                **{n: str(f) for n, f in written.items()},
                "GITHUB_EVENT_PATH": str(payload),
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=240,
            check=False,
        )
        self.path[:0] = [Path(line) for line in written["GITHUB_PATH"].read_text(encoding="utf-8").splitlines()]
        assert not written["GITHUB_ENV"].read_text(encoding="utf-8"), "no step sets variables for the caller's steps"
        ended.summary += written["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
        outputs = read_outputs(written["GITHUB_OUTPUT"].read_text(encoding="utf-8"))
        log = done.stdout.decode("utf-8", "surrogateescape")
        return Step(name, "failure" if done.returncode else "success", outputs, env, log, done.returncode)

    def _variables(self) -> dict[str, str]:
        kept = {n: os.environ[n] for n in ("HOME", "LANG", "LC_ALL", "TMPDIR") if n in os.environ}
        return {
            **kept,
            "PATH": os.pathsep.join([*map(str, self.path), "/usr/local/bin:/usr/bin:/bin"]),
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(ACTION),
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(self.temp),
            "RUNNER_OS": "Linux",
            "RUNNER_ARCH": "X64",
            **{f"GITHUB_{n.upper()}": shown(v) for n, v in self.github.items() if n != "token"},
            **self.environ,
        }

    def _uses(self, name: str, uses: str, with_: dict[str, str], ended: Ended) -> Step:
        outputs: dict[str, str] = {}
        match uses.partition("@")[0]:
            case "actions/cache/restore":
                outputs["cache-matched-key"] = self.cached
            case "actions/cache/save":
                assert Path(with_["path"]).is_dir()
                ended.saved[with_["key"]] = with_["path"]
            case "actions/upload-artifact":
                copy = self.temp / "_artifacts" / with_["name"]
                shutil.copytree(with_["path"], copy)
                ended.artifacts[with_["name"]] = copy
            case other:
                raise AssertionError(f"no such action is known: {other}")
        return Step(name, "success", outputs, with_, "", 0)


def read_outputs(text: str) -> dict[str, str]:
    """What was written to GITHUB_OUTPUT, as the runner reads it: `name=value` or `name<<END` … `END`.

    Raises:
        AssertionError: a line is neither; GitHub fails the step then.
    """
    found: dict[str, str] = {}
    lines = iter(text.replace("\r\n", "\n").split("\n"))
    for line in lines:
        name, sign, rest = line.partition("<<")
        if sign and "=" not in name:
            value = []
            for inner in lines:
                if inner == rest:
                    break
                value.append(inner)
            else:
                raise AssertionError(f"no end {rest!r}")
            found[name] = "\n".join(value)
        elif line:
            name, sign, rest = line.partition("=")
            assert sign, f"not an output: {line!r}"
            found[name] = rest
    return found
