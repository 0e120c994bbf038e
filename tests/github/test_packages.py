"""What `make test-github` installs and runs: pinned, from wherever npm is configured, and nothing left out."""

from __future__ import annotations

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_packages_are_pinned_and_the_lock_fits_them() -> None:
    asked = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    locked = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in asked.values())
    assert locked[""]["dependencies"] == asked
    assert {name: locked[f"node_modules/{name}"]["version"] for name in asked} == asked
    assert all(found["integrity"].startswith("sha512-") for path, found in locked.items() if path)


def test_the_lock_names_no_registry() -> None:
    """npm takes them from the registry that it is configured for; the checksums are the same everywhere."""
    locked = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert [path for path, found in locked.items() if "resolved" in found] == []


def test_every_test_that_needs_node_is_run() -> None:
    """`make test-github` names folders, so that it need not collect the whole suite."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [recipe] = re.findall(r"(?m)^test-github:.*\n((?:\t.*\n)+)", makefile)
    run = {tuple(path.split("/")[:2]) for path in re.findall(r"tests/\S+", recipe)}
    marked = {
        path.relative_to(ROOT).parts[:2]
        for path in (ROOT / "tests").rglob("test_*.py")
        if "node_modules" not in path.parts and "mark." + "github" in path.read_text(encoding="utf-8")
    }
    assert {("tests", "github"), ("tests", "junit_consumers")} <= marked <= run
