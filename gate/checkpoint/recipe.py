"""What is on record about how a checkpoint was calibrated: llm-compressor's recipe.yaml, and the quantizer's settings.

Reads for people; nothing is decided by it, and no tag of the YAML is executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

NAME = "recipe.yaml"
_MAX_BYTES = 2**20
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


class _Plain(yaml.SafeLoader):
    """Python tags become the plain value they wrap."""


def _untagged(loader: _Plain, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        found = loader.construct_sequence(node, deep=True)
        return found[0] if len(found) == 1 else found
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_Plain.add_multi_constructor("tag:yaml.org,2002:python/", _untagged)


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
    return ", ".join(f"{name} {str(value).lower() if isinstance(value, bool) else value}" for name, value in said)


def _modifiers(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES)
        stages = yaml.load(raw, Loader=_Plain)
    except (OSError, yaml.YAMLError, ValueError, TypeError, RecursionError):
        return
    for stage in stages.values() if isinstance(stages, dict) else ():
        for group in stage.values() if isinstance(stage, dict) else ():
            for name, settings in group.items() if isinstance(group, dict) else ():
                if isinstance(settings, dict):
                    yield str(name), settings
