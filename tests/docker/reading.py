"""The container files, read: instructions of the Dockerfile, services of the compose file, versions of the constraints.

Builds nothing: no container engine runs where these tests do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
COMPOSE = DOCKER / "compose.yaml"
INSTALL = DOCKER / "install.sh"

_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    word: str
    text: str


def instructions(path: Path = DOCKERFILE) -> list[Instruction]:
    """In order, continuation lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        Instruction(word=word.upper(), text=" ".join(text.split()))
        for word, _, text in (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    ]


def defaults() -> dict[str, str]:
    """The build arguments that have a default."""
    pairs = (i.text.partition("=") for i in instructions() if i.word == "ARG")
    return {name: value for name, sign, value in pairs if sign}


def services() -> dict[str, Any]:
    found = yaml.safe_load(COMPOSE.read_text())["services"]
    assert isinstance(found, dict)
    return found


def pins(path: Path) -> dict[str, str]:
    """Name (as PEP 503 writes it) → version."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            pin = _PIN.fullmatch(line.strip())
            assert pin, f"{path.name}: {line!r} is no exact version"
            found[re.sub(r"[-_.]+", "-", pin[1]).lower()] = pin[2]
    return found
