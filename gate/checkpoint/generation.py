"""Where a checkpoint ends its answers and how it asks to be sampled, and in words how two checkpoints differ in it.

Reads generation_config.json; generates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate.checkpoint.config_facts import text_model
from gate.checkpoint.weights import read_json

NAME = "generation_config.json"
_SAMPLING = tuple(
    "do_sample temperature top_p top_k min_p typical_p num_beams repetition_penalty no_repeat_ngram_size "
    "forced_bos_token_id forced_eos_token_id suppress_tokens max_new_tokens max_length".split()
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """`ends` are the ids of the tokens that end an answer; `sampling` what differs from greedy decoding."""

    ends: frozenset[int]
    sampling: Mapping[str, Any]


def read(folder: Path, config: Mapping[str, Any]) -> Generation:
    """From generation_config.json, else from config.json.  Raises CheckpointError where it cannot be read."""
    own = read_json(folder / NAME) if (folder / NAME).is_file() else {}
    ends = own.get("eos_token_id", text_model(config).get("eos_token_id"))
    listed = ends if isinstance(ends, list) else [ends]
    return Generation(
        ends=frozenset(e for e in listed if type(e) is int),
        sampling={name: own[name] for name in _SAMPLING if own.get(name) is not None},
    )


def differences(baseline: Generation, candidate: Generation) -> tuple[str, ...]:
    """Remarks; the end of answers comes first."""
    remarks = []
    if baseline.ends != candidate.ends:
        remarks.append(
            f"the candidate ends its answers at other tokens: eos_token_id is {_ids(candidate)} instead of "
            f"{_ids(baseline)} ({NAME}): generated answers may end elsewhere, whatever its weights are"
        )
    changed = [
        f"{name} is {candidate.sampling.get(name)!r} instead of {baseline.sampling.get(name)!r}"
        for name in _SAMPLING
        if baseline.sampling.get(name) != candidate.sampling.get(name)
    ]
    if changed:
        remarks.append(f"{NAME}: {'; '.join(changed)}: the gate decodes as the policy says, a server may not")
    return tuple(remarks)


def _ids(found: Generation) -> str:
    return str(sorted(found.ends)) if found.ends else "not set"
