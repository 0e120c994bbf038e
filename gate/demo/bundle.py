"""Where the bundled demo lives: its world, its candidates, its policy.

Looks up paths only; imports no model library.
"""

from __future__ import annotations

from pathlib import Path

from gate.errors import UsageError

PACKAGE = Path(__file__).resolve().parent.parent


def world() -> Path:
    """Folder with `baseline/`, `candidates/` and `data/`."""
    return Path(__file__).resolve().parent / "world"


def candidates() -> list[str]:
    """Names of the bundled candidates, sorted."""
    return sorted(p.name for p in (world() / "candidates").iterdir() if (p / "config.json").is_file())


def policy_path() -> Path:
    """`thresholds/demo.yaml` of the checkout, or its copy beside the installed package.

    Raises:
        UsageError: neither is there.
    """
    for folder in ("thresholds", "quantgate_thresholds"):
        path = PACKAGE.parent / folder / "demo.yaml"
        if path.is_file():
            return path
    raise UsageError("found no demo.yaml beside the package, expected an installed wheel or a full checkout")
