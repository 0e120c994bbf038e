"""A model's modules on a few lines: those that differ only in a layer's number and are stored alike go together.

Pure: names and sums, no I/O.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from gate.checkpoint.modules import Module

_NUMBER = re.compile(r"(?<=\.)[0-9]{1,9}(?=\.|$)")
"""A layer; longer ones, and digits of other scripts, are parts of a name like any other."""

_DIGITS = re.compile("[0-9]{1,9}")
_SHOWN_NAMES = 3
VECTORS = "norms, biases and other vectors"


Group = tuple[float | None, int]
"""(bits per weight, weights under one scale)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Modules of one kind that are stored in one way.

    Attributes:
        pattern: `model.layers.*.mlp.down_proj`, or `model.layers.{0,79}.mlp.down_proj` for some of the layers.
        stored: `4-bit, group 128`, or the dtype of full precision.
        bits_per_weight: with scales and zero points; 0 weights never make a row.
    """

    pattern: str
    n_modules: int
    n_weights: int
    stored: str
    quantized: bool
    n_bytes: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.n_bytes / self.n_weights


def rows(modules: Sequence[Module], groups: frozenset[Group]) -> tuple[Row, ...]:
    """Matrices in the order of the model, then one row of vectors for each dtype.

    `groups` are those declared: a row of a matrix that is no longer than a group looks like a channel.
    """
    every: dict[str, set[str]] = defaultdict(set)
    alike: dict[tuple[str, str], list[Module]] = defaultdict(list)
    vectors: dict[str, list[Module]] = defaultdict(list)
    for module in sorted(modules, key=lambda m: _natural(m.name)):
        if not module.is_matrix:
            vectors[stored_as(module, groups)].append(module)
            continue
        pattern = _NUMBER.sub("*", module.name)
        every[pattern].add(_first_number(module.name))
        alike[pattern, stored_as(module, groups)].append(module)
    order = sorted(alike, key=lambda key: (_part(alike[key][0]), _natural(key[0]), _natural(alike[key][0].name)))
    found = [
        _row(_named(pattern, {_first_number(m.name) for m in held}, every[pattern]), stored, held)
        for pattern, stored in order
        for held in [alike[pattern, stored]]
    ]
    found += [_row(VECTORS, stored, held) for stored, held in vectors.items()]
    return tuple(r for r in found if r.n_weights)


def stored_as(module: Module, groups: frozenset[Group]) -> str:
    """In words; llama.cpp's types speak for themselves."""
    if module.bits is None or module.layout == "ggml":
        return module.dtype
    granularity = module.granularity
    if granularity == "channel" and (module.bits, module.shape[-1]) in groups:
        granularity = f"group {module.shape[-1]}"
    number = " float" if module.dtype.startswith("F8") else " int" if module.dtype == "I8" else ""
    return f"{module.bits:g}-bit{number}" + (f", {granularity}" if granularity else "")


def names_of(modules: Sequence[Module]) -> str:
    """The patterns of some modules, the first few written out: `layers.*.mlp.up_proj and 4 more`."""
    grouped: dict[str, set[str]] = defaultdict(set)
    for module in sorted(modules, key=lambda m: _natural(m.name)):
        grouped[_NUMBER.sub("*", module.name)].add(_first_number(module.name))
    shown = [_named(pattern, numbers, None) for pattern, numbers in grouped.items()]
    more = len(shown) - _SHOWN_NAMES
    return ", ".join(shown[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _part(module: Module) -> int:
    """Embeddings come first and output heads last."""
    return 0 if module.is_embedding else 2 if module.is_head else 1


def _row(pattern: str, stored: str, held: Sequence[Module]) -> Row:
    return Row(
        pattern=pattern,
        n_modules=len(held),
        n_weights=sum(m.n_weights for m in held),
        stored=stored,
        quantized=held[0].quantized,
        n_bytes=sum(m.weight_bytes + m.side_bytes for m in held),
    )


def _first_number(name: str) -> str:
    found = _NUMBER.search(name)
    return found[0] if found else ""


def _named(pattern: str, numbers: set[str], every: set[str] | None) -> str:
    """The pattern, with the layers it stands for unless it stands for all."""
    if "" in numbers or (numbers == every and len(numbers) > 1):
        return pattern
    return pattern.replace("*", _ranges(int(n) for n in numbers), 1)


def _ranges(numbers: Iterable[int]) -> str:
    """`{0-3,79}`, or one number alone."""
    runs = []
    for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        held = [n for _, n in run]
        runs.append(str(held[0]) if len(held) == 1 else f"{held[0]}-{held[-1]}")
    return runs[0] if len(runs) == 1 and "-" not in runs[0] else "{" + ",".join(runs) + "}"


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if _DIGITS.fullmatch(part) else (-1, part) for part in name.split("."))
