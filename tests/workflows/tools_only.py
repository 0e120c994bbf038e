"""`gate`, as in an environment that has .github/actions/gate/tools.txt and nothing else: other imports fail.

For `SCOPE=tools` of install.sh; knows what is installed here only to take it away.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement

TOOLS = Path(__file__).resolve().parents[2] / ".github" / "actions" / "gate" / "tools.txt"


def listed() -> set[str]:
    lines = (line.split("#")[0].strip() for line in TOOLS.read_text(encoding="utf-8").splitlines())
    return {_plain(line) for line in lines if line}


def needed(names: set[str]) -> set[str]:
    """These distributions and all that they require, as far as they are installed."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        parsed = [Requirement(text) for text in requires]
        left += [_plain(r.name) for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).casefold()


class Elsewhere(MetaPathFinder):
    """Finds nothing of what is not there, loudly."""

    def __init__(self) -> None:
        allowed = needed(listed()) | {"quantgate"}
        owners = importlib.metadata.packages_distributions()
        self.missing = {m for m, dists in owners.items() if not {_plain(d) for d in dists} & allowed}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in self.missing:
            raise ModuleNotFoundError(f"{fullname} is not in {TOOLS.name}", name=fullname)
        return None


if __name__ == "__main__":
    sys.meta_path.insert(0, Elsewhere())
    from gate.cli import main

    sys.exit(main(sys.argv[1:]))
