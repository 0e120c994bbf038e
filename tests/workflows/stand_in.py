"""Puts a recorded `gate` on the PATH of a test, and reads back how it was called.

Writes files; runs nothing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CANARY = "canary-of-the-test-set"
RECORDER = Path(__file__).with_name("recorder.py")


@dataclass(frozen=True)
class StandIn:
    """A folder with `gate` in it; `calls` lists what it was given so far."""

    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"GATE_SAYS": str(self.folder / "says.json")}

    @property
    def calls(self) -> list[dict[str, Any]]:
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []

    def commands(self) -> list[str]:
        return [call["command"] for call in self.calls]

    def call(self, command: str, *, last: bool = False) -> dict[str, Any]:
        found = [call for call in self.calls if call["command"] == command]
        return found[-1 if last else 0]


def stand_in(folder: Path, *, codes: dict[str, int] | None = None, **says: Any) -> StandIn:
    """`codes` by command (`run`, `ci policy`, `start`, `publish github`, `verify NAME`, …)."""
    folder.mkdir(parents=True)
    known = {"record": True, "waivers": "", "changed": "false", "stores": False, "detected": [], "text": CANARY}
    known["recorded"] = None  # the exit code that run.json says; the run's own
    assert says.keys() <= known.keys()
    document = {**known, **says, "codes": codes or {}, "calls": str(folder / "calls.jsonl")}
    (folder / "says.json").write_text(json.dumps(document), encoding="utf-8")
    gate = folder / "gate"
    gate.write_text(f'#!/bin/sh\nexec {sys.executable} -I {RECORDER} "$@"\n', encoding="utf-8")
    gate.chmod(0o755)
    return StandIn(folder)
