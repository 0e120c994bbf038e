"""The record of a run: both checkpoints, where it ran, the stages, the verdict.

Pure: frozen data; no judgement has a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gate.records.governed import PolicyChange, Waiver
from gate.records.judged import Flip, Interval, StageResult
from gate.records.performance import OutputLength, Performance
from gate.records.words import Role, Status

ARTIFACT_VERSION = 4
MAX_FLIPS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """What a checkpoint declares about how it was quantized."""

    method: str
    bits: float | None
    group_size: int | None
    scheme: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointRef:
    """Identity of a checkpoint.  Digests are hex SHA-256; `effective_digest` covers the load settings too."""

    role: Role
    uri: str
    revision: str | None
    digest: str
    tensor_digest: str
    effective_digest: str
    tokenizer_digest: str
    weight_bytes: int
    quantization: Quantization | None
    architecture: str
    n_parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Where it ran.  `fingerprint` covers what can change a score: device, driver, library versions."""

    platform: str
    python: str
    device: str
    device_names: tuple[str, ...]
    driver: str | None
    memory_bytes: int
    packages: Mapping[str, str]
    git_commit: str | None
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """The mean over `sources` of the share of the baseline's accuracy that the candidate keeps; it decides nothing.

    An average hides what happens to single tasks, so it is never shown without their rows.  `pooled_p_value` is that
    of the pooled sign-flip test of no change (arXiv 2602.10144), where the items are right or wrong.
    """

    estimate: float
    interval: Interval
    sources: tuple[str, ...]
    pooled_p_value: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    status: Status
    deciding: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """The whole run.  `policy` is the policy as loaded (plain data); at most `MAX_FLIPS` flips are kept.

    `waivers` are those that were applied: with them the exit code of a REGRESSION is 0, and every title says so.
    `policy_change` is what a pull request does to its own bar; None where it does nothing, or where nobody looked.
    """

    artifact_version: int
    run_id: str
    created_at: str
    gate_version: str
    policy_source: str
    policy_digest: str
    policy: Mapping[str, Any]
    baseline: CheckpointRef | None
    candidate: CheckpointRef | None
    environment: Environment
    stages: tuple[StageResult, ...]
    flips: tuple[Flip, ...]
    quality: Quality | None
    performance: tuple[Performance, ...]
    output_lengths: tuple[OutputLength, ...]
    verdict: Verdict
    waivers: tuple[Waiver, ...]
    policy_change: PolicyChange | None
    exit_code: int
    seconds: float
    notes: tuple[str, ...]
