"""Every action of another repository is pinned as .github/PINS.md says, and that table says how each was checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.workflows.files import ALL, GITHUB, load, steps, uses

ROW = re.compile(r"^\| (\S+)(?: \(([a-z, ]+)\))? \| (v[\d.]+) \| `([0-9a-f]{40})` \| (.+) \|$", re.M)
OURS = "./.quantgate/.github/actions/gate"


def table() -> dict[str, tuple[str, str]]:
    """Action → (hash, tag)."""
    found = {}
    for action, parts, tag, commit, evidence in ROW.findall((GITHUB / "PINS.md").read_text(encoding="utf-8")):
        assert len(re.findall(r"\d{10,}", evidence)) >= 5, f"{action}: fewer than five files corroborate it"
        for part in parts.split(", ") if parts else [""]:
            found[f"{action}/{part}".rstrip("/")] = (commit, tag)
    return found


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.name)
def test_every_action_is_pinned_as_the_table_says(path: Path) -> None:
    pinned = table()

    for what, comment in uses(path):
        if what == OURS:
            continue
        action, _, commit = what.partition("@")
        assert (commit, comment) == pinned[action], action


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.name)
def test_no_uses_is_missed_by_the_pattern(path: Path) -> None:
    written = [step["uses"] for _, step in steps(path) if "uses" in step]
    written += [job["uses"] for job in load(path).get("jobs", {}).values() if "uses" in job]

    assert [what for what, _ in uses(path)] == written


def test_the_table_has_nothing_that_is_not_used() -> None:
    used = {what.partition("@")[0] for path in ALL for what, _ in uses(path)} - {OURS}

    assert table().keys() == used
