"""The layers of docs/design: higher imports lower, never sideways or up; heavy libraries stay where they belong."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GATE = ROOT / "gate"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"cli"}),
    frozenset({"commands"}),
    frozenset({"ci", "sharing"}),
    frozenset({"console", "demo", "outputs", "preflight", "publish"}),
    frozenset({"finished"}),
    frozenset({"fetching", "pipeline"}),
    frozenset({"stage_run"}),
    frozenset({"evidence"}),
    frozenset({"launch", "worker", "store", "reports"}),
    frozenset({"stages"}),
    frozenset({"backends", "checkpoint", "environment"}),
    frozenset({"decide"}),
    frozenset({"stats", "policy", "artifact"}),
    frozenset({"records"}),
    frozenset({"errors"}),
)
"""Top to bottom.  A module that is not named here takes the place of its `HOME`."""

HOME = {
    "baselines": "pipeline",
    "calibration": "pipeline",
    "child": "launch",
    "confinement": "worker",
    "document": "policy",
    "engines": "policy",
    "formats": "records",
    "frames": "records",
    "hardware": "records",
    "hub": "checkpoint",
    "inspection": "checkpoint",
    "intake": "checkpoint",
    "machine": "records",
    "metrics": "records",
    "noise_floor": "evidence",
    "order": "records",
    "policy_file": "policy",
    "policy_mistakes": "policy",
    "policy_problems": "policy",
    "policy_profile": "policy",
    "policy_rule": "policy",
    "policy_values": "policy",
    "promotion": "finished",
    "replay": "finished",
    "request": "pipeline",
    "resident": "launch",
    "sandbox": "environment",
    "task_catalog": "records",
    "template": "records",
    "terminal": "records",
    "timing_run": "stage_run",
    "units": "records",
    "verdict": "stage_run",
    "waivers": "policy",
    "wire": "records",
}

HEAVY = frozenset({"torch", "transformers", "vllm", "lm_eval", "datasets", "llmcompressor"})
MAY_BE_HEAVY = frozenset({"backends", "stages", "demo"})
PURE = frozenset({"decide", "stats", "records", "metrics", "units", "policy", "reports"})
IMPURE_MODULES = frozenset({"os", "time", "datetime", "random", "subprocess", "socket", "shutil", "tempfile"})


def modules() -> list[Path]:
    return sorted(p for p in GATE.rglob("*.py") if "world" not in p.parts)


def unit(path: Path) -> str:
    """The top-level name under `gate` that a file belongs to."""
    first = path.relative_to(GATE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted module, is it at module level) for every import of a file; TYPE_CHECKING blocks are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                names = [f"{child.module}.{a.name}" for a in child.names] if child.module == "gate" else [child.module]
                found.extend((name, top) for name in names)
            visit(child, top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(tree, True)
    return found


def layer(name: str) -> int:
    home = HOME.get(name, name)
    for depth, names in enumerate(LAYERS):
        if home in names:
            return depth
    raise AssertionError(f"gate/{name} is in no layer: add it to LAYERS or HOME in this test")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(GATE)))
def test_imports_go_down(path: Path) -> None:
    mine = unit(path)
    if mine == "__init__":
        return
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[0] != "gate" or len(parts) < 2 or parts[1].startswith("__"):
            continue
        theirs = parts[1]
        same = theirs == mine or HOME.get(theirs, theirs) == HOME.get(mine, mine)
        assert same or layer(theirs) > layer(mine), f"{path.relative_to(ROOT)} imports gate.{theirs}: not below it"


NEVER = {
    "stages": {"decide", "stats", "reports"},  # they measure, and must not know how it is judged
    "backends": {"decide", "stats", "reports", "stages"},
    "reports": {"decide", "stats"},  # they print a verdict, and must not be able to make one
}


@pytest.mark.parametrize("path", [p for p in modules() if unit(p) in NEVER], ids=lambda p: str(p.relative_to(GATE)))
def test_who_measures_or_prints_does_not_judge(path: Path) -> None:
    theirs = {name.split(".")[1] for name, _ in imports(path) if name.startswith("gate.")}
    found = theirs & NEVER[unit(path)]
    allowed = {"decide"} if path.name == "plan_text.py" else set()  # renders the plan, which lives in decide
    assert not found - allowed, f"{path.relative_to(ROOT)} imports {sorted(found)}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(GATE)))
def test_no_relative_imports(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level], f"{path} imports relatively"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(GATE)))
def test_heavy_libraries_stay_in_the_worker(path: Path) -> None:
    if unit(path) in MAY_BE_HEAVY:
        return
    found = {name.split(".")[0] for name, _ in imports(path)} & HEAVY
    assert not found, f"{path.relative_to(ROOT)} imports {sorted(found)}: only backends, stages and demo may"


@pytest.mark.parametrize("path", [p for p in modules() if unit(p) in PURE], ids=lambda p: str(p.relative_to(GATE)))
def test_pure_modules_touch_no_world(path: Path) -> None:
    found = {name.split(".")[0] for name, _ in imports(path)} & IMPURE_MODULES
    assert not found, f"{path.relative_to(ROOT)} is pure but imports {sorted(found)}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(GATE)))
def test_modules_stay_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines: it wants a second noun"
