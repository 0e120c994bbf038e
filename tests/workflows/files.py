"""Our workflow files as data: every job, every step, every `uses`.

Reads; the tests judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.workflows.runner import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
ALL = [*WORKFLOWS, *ACTIONS]
SCRIPTS = sorted((GITHUB / "actions").glob("*/*.sh"))
USES = re.compile(r"^\s*(?:- )?uses: (\S+)(?: # (\S+))?$", re.M)


def load(path: Path) -> Any:
    """The file; the key `on`, which YAML 1.1 takes for a boolean, keeps its name."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {("on" if key is True else key): value for key, value in document.items()}


def jobs(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from load(path).get("jobs", {}).items()


def steps(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(job, step) of a workflow or a composite action."""
    document = load(path)
    for name, job in document.get("jobs", {}).items():
        for step in job.get("steps", ()):
            yield name, step
    for step in document.get("runs", {}).get("steps", ()):
        yield "action", step


def uses(path: Path) -> list[tuple[str, str]]:
    """(what, comment) of every `uses`, as written."""
    return [(found[1], found[2] or "") for found in USES.finditer(path.read_text(encoding="utf-8"))]
