"""What the zoo's builders share: an honest checkpoint to spoil, the register of spoilt ones, and things that bite.

Builds files only; loads nothing.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checkpoint_factory import HIDDEN, VOCABULARY, full_precision, safetensors, write_checkpoint

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": VOCABULARY,
}
SHARDS = {
    "model-00001-of-00002.safetensors": ("model.embed_tokens.weight", "model.norm.weight"),
    "model-00002-of-00002.safetensors": (
        "model.layers.0.mlp.up.weight",
        "model.layers.0.mlp.up.bias",
        "lm_head.weight",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Animal:
    """A spoilt checkpoint.

    Attributes:
        spoil: (folder of an honest checkpoint, file that nobody may create).
        exit_code: of `gate run`.
        said: words of its verdict that no other animal's has; ` ~ ` stands for what may be between them.
        load: of the policy's checkpoints table.
    """

    spoil: Callable[[Path, Path], object]
    exit_code: int
    said: str
    load: Mapping[str, Any] = field(default_factory=dict)

    def heard(self, text: str) -> bool:
        """Is this what the animal makes the gate say?"""
        return all(words in text for words in self.said.split(" ~ "))


ZOO: dict[str, Animal] = {}
"""By name; filled by the modules beside this one."""

Spoil = Callable[[Path, Path], object]


def refused(said: str, **more: Any) -> Callable[[Spoil], Spoil]:
    return _animal(5, said, **more)


def unusable(said: str, **more: Any) -> Callable[[Spoil], Spoil]:
    return _animal(4, said, **more)


def _animal(exit_code: int, said: str, **more: Any) -> Callable[[Spoil], Spoil]:
    def register(spoil: Spoil) -> Spoil:
        name = spoil.__name__
        assert name not in ZOO
        ZOO[name] = Animal(spoil=spoil, exit_code=exit_code, said=said, **more)
        return spoil

    return register


def honest(folder: Path) -> Path:
    """A small checkpoint without fault."""
    write_checkpoint(folder)
    return with_config(folder)


def sharded(folder: Path) -> Path:
    """The same in two shards."""
    (folder / "model.safetensors").unlink()
    write_checkpoint(folder, shards=SHARDS)
    return with_config(folder)


def with_config(folder: Path, **changes: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    return folder


def with_index(folder: Path, name: str) -> None:
    """Shards whose index says that the first tensor is in `name`."""
    sharded(folder)
    index = folder / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    document["weight_map"]["model.embed_tokens.weight"] = name
    index.write_text(json.dumps(document))


def with_weights(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)


def changed(folder: Path, name: str, **changes: Any) -> None:
    """Keys of a JSON file replaced."""
    document = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(document | changes))


def pickled(canary: Path) -> bytes:
    """A pickle that creates the canary when it is loaded."""
    return pickle.dumps(_Bite(str(canary)))


def code(canary: Path) -> str:
    """A module that creates the canary when it is imported."""
    return f"open({str(canary)!r}, 'w').close()\n"


class _Bite:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


__all__ = [
    "CONFIG",
    "SHARDS",
    "ZOO",
    "changed",
    "code",
    "full_precision",
    "honest",
    "pickled",
    "refused",
    "safetensors",
    "sharded",
    "unusable",
    "with_config",
    "with_index",
    "with_weights",
]
