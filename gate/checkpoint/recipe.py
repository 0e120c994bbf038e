"""What is on record about how a checkpoint was calibrated: llm-compressor's recipe.yaml, and the quantizer's settings.

Reads for people; nothing is decided by it, and a recipe that cannot be read says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gate.checkpoint import plain_yaml

NAME = "recipe.yaml"
_MAX_BYTES = 2**18
"""Recipes have a few kilobytes; reading YAML takes seconds per megabyte."""

_SHOWN = (
    "scheme", "smoothing_strength", "dampening_frac", "actorder", "block_size", "duo_scaling", "observer",
    "algorithm", "iters", "nsamples", "num_calibration_samples", "seqlen", "max_seq_length", "dataset", "rotations",
    "transform_type",
)  # fmt: skip
_DECLARED = (
    "desc_act", "damp_percent", "true_sequential", "static_groups", "mse", "iters", "nsamples", "seqlen", "dataset",
    "lr", "bnb_4bit_use_double_quant", "packing_format", "checkpoint_format", "autoround_version", "provider",
)  # fmt: skip
_MAX_FACTS = 8
_BOOLEANS = frozenset({"True", "False"})


def read(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Facts such as `SmoothQuantModifier: smoothing_strength 0.8`; empty where nothing is recorded."""
    facts = [f"{name}: {_settings(found, _SHOWN)}".removesuffix(": ") for name, found in _modifiers(folder / NAME)]
    declared = config.get("quantization_config")
    if isinstance(declared, dict):
        said = _settings(declared, _DECLARED)
        facts += [f"{declared.get('quant_method')}: {said}"] if said else []
        if declared.get("transform_config"):
            facts.append("weights are rotated when they are loaded (transform_config)")
    return tuple(facts[:_MAX_FACTS])


def _settings(found: Mapping[str, Any], names: tuple[str, ...]) -> str:
    said = [(n, found[n]) for n in names if isinstance(found.get(n), str | int | float | bool)]
    return ", ".join(f"{name} {str(value).lower() if str(value) in _BOOLEANS else value}" for name, value in said)


def _modifiers(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    raw = plain_yaml.beginning(path, _MAX_BYTES + 1)
    stages = plain_yaml.parse(raw) if len(raw) <= _MAX_BYTES else None
    for stage in stages.values() if isinstance(stages, dict) else ():
        for group in stage.values() if isinstance(stage, dict) else ():
            for name, settings in group.items() if isinstance(group, dict) else ():
                if isinstance(settings, dict):
                    yield str(name), settings
