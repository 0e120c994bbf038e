"""What the gate makes of a checkpoint before it loads it: the intake must take what honest tools write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gate import checkpoint, intake
from gate.demo import bundle
from gate.policy import CheckpointSettings
from gate.records import Quantization, Role


def accepted(folder: Path, *, cache: Path, load: Mapping[str, Any] | None = None) -> Quantization:
    """The candidate's quantization, once it was described and compared with the demo baseline.

    Raises CheckpointError, Refused, UsageError for what the intake does not take.
    """
    source = str(bundle.world() / "baseline")
    named = {"candidate": CheckpointSettings(path=str(folder), load=dict(load or {}), tokenizer=source)}
    base = Path("/")
    baseline_at = checkpoint.resolve(source, policy_checkpoints=named, base=base, offline=True)
    candidate_at = checkpoint.resolve("candidate", policy_checkpoints=named, base=base, offline=True)
    baseline = checkpoint.describe(baseline_at, Role.BASELINE, cache=cache)
    candidate = checkpoint.describe(candidate_at, Role.CANDIDATE, cache=cache)
    intake.compare(baseline, candidate, baseline_at=baseline_at, candidate_at=candidate_at, allow_identical=False)
    assert candidate.quantization is not None
    return candidate.quantization
