"""The values every layer exchanges: measurements, rules, findings, verdicts, the run record.

Pure: frozen data and invariants.  No I/O, no clock, no randomness, no judgement with a default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

ARTIFACT_VERSION = 1


class Status(StrEnum):
    """What can be said of a rule, a stage or a run."""

    PASS = "PASS"
    REGRESSION = "REGRESSION"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"
    REFUSED = "REFUSED"
    SKIPPED = "SKIPPED"


class Role(StrEnum):
    BASELINE = "baseline"
    CANDIDATE = "candidate"


class Severity(StrEnum):
    BLOCKING = "blocking"
    ADVISORY = "advisory"


class Scope(StrEnum):
    """`benchmark`: what the full run over all N items would say.  `population`: tasks like these."""

    BENCHMARK = "benchmark"
    POPULATION = "population"


class BoundKind(StrEnum):
    MAX_INCREASE = "max_increase"
    MAX_DROP = "max_drop"
    MIN_RETAINED = "min_retained"
    MIN_SPEEDUP = "min_speedup"
    MAX = "max"
    MIN = "min"


class Estimand(StrEnum):
    """What is estimated from a metric's observations; it selects the estimators that apply."""

    ITEM_MEAN = "item_mean"  # mean over items of a value in [0, 1], paired by item
    PERPLEXITY = "perplexity"  # exp of the token-weighted mean NLL, paired by document
    TOKEN_MEAN = "token_mean"  # token-weighted mean of a candidate-only quantity (KL, agreement)
    MEAN_RATIO = "mean_ratio"  # candidate mean over baseline mean of a positive quantity
    CORPUS = "corpus"  # a corpus-level score with its delete-group values (macro-F1, BLEU)
    TIMING = "timing"  # positive durations or rates in interleaved blocks
    SCALAR = "scalar"  # one number that is (nearly) deterministic: bytes, seconds to load


class Direction(StrEnum):
    HIGHER_IS_BETTER = "higher_is_better"
    LOWER_IS_BETTER = "lower_is_better"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A quantity that a stage reports.  `observed` names the observations it is computed from."""

    name: str
    observed: str
    unit: str
    direction: Direction
    estimand: Estimand


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """One value measured on one item.

    `item_id` is made of content (task + document hash + prompt hash), never a row index.
    `weight` is the number of scored tokens where values are per-token means, else 1.
    `cluster` ties statistically dependent items together; `group` is what rules select by
    (subject, category, `batch=8`).
    """

    metric: str
    item_id: str
    value: float
    weight: float
    cluster: str | None
    group: str | None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"observation {self.item_id!r} of {self.metric!r} is {self.value!r}, expected finite")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"observation {self.item_id!r} has weight {self.weight!r}, expected > 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemFailure:
    """An item that could not be measured: neither right nor wrong."""

    item_id: str
    kind: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What an item asked and what the model said; kept for people, never used to decide."""

    item_id: str
    group: str | None
    prompt: str
    output: str
    target: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Everything one role yielded on one source (a corpus, a task, a data set) of one stage.

    Stages yield it in parts (same source, role and `n_expected`); `merge` concatenates them.
    `notes` are remarks for the reader (truncations, fallbacks); they never decide.
    """

    stage: str
    source: str
    role: Role
    settings_digest: str
    n_expected: int
    metrics: tuple[Metric, ...]
    observations: tuple[Observation, ...]
    failures: tuple[ItemFailure, ...]
    answers: tuple[Answer, ...]
    seconds: float
    notes: tuple[str, ...]


def merge(parts: Sequence[Measurement]) -> Measurement:
    """Concatenate the parts of one measurement in the order given.

    Raises:
        ValueError: no parts, or parts that do not belong together.
    """
    if not parts:
        raise ValueError("no parts to merge: nothing was measured")
    first = parts[0]
    for part in parts[1:]:
        same = (part.stage, part.source, part.role, part.settings_digest, part.n_expected, part.metrics)
        if same != (first.stage, first.source, first.role, first.settings_digest, first.n_expected, first.metrics):
            raise ValueError(f"parts of different measurements: {first.stage}/{first.source} and {part.source}")
    return Measurement(
        stage=first.stage,
        source=first.source,
        role=first.role,
        settings_digest=first.settings_digest,
        n_expected=first.n_expected,
        metrics=first.metrics,
        observations=tuple(o for p in parts for o in p.observations),
        failures=tuple(f for p in parts for f in p.failures),
        answers=tuple(a for p in parts for a in p.answers),
        seconds=math.fsum(p.seconds for p in parts),
        notes=tuple(dict.fromkeys(n for p in parts for n in p.notes)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """An acceptance threshold.  `value` is a rate (5% → 0.05, 3pp → 0.03), bytes, seconds or a ratio."""

    kind: BoundKind
    value: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MaxLost:
    """How many items may be lost: a count or a share of the items expected (exactly one is given)."""

    count: int | None
    share: float | None

    def __post_init__(self) -> None:
        if (self.count is None) == (self.share is None):
            raise ValueError("max_lost is a count or a share, not both and not neither")

    def allowed(self, n_expected: int) -> int:
        """Number of items that may be lost out of `n_expected`."""
        return self.count if self.count is not None else math.floor((self.share or 0.0) * n_expected)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One planned rule on one source.  `line` is where it stands in the policy file (1-based)."""

    id: str
    stage: str
    source: str
    metric: str
    bound: Bound
    by: str | None
    batch: int | None
    severity: Severity
    scope: Scope
    max_items: int | None
    max_lost: MaxLost
    line: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A two-sided interval whose *each* side holds with `confidence`; finite and ordered.

    `valid` says under which looking it holds: `fixed_n`, `planned_looks` or `anytime`.
    """

    low: float
    high: float
    confidence: float
    method: str
    scope: Scope
    valid: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"interval ({self.low!r}, {self.high!r}) is not finite and ordered")
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence {self.confidence!r} is not in (0.5, 1)")
        if self.valid not in ("fixed_n", "planned_looks", "anytime"):
            raise ValueError(f"unknown validity {self.valid!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One group (subject, category) of a guard-rail rule."""

    group: str
    baseline: float | None
    candidate: float | None
    estimate: float | None
    interval: Interval | None
    n_paired: int
    status: Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was found about one rule.

    `estimate` and `interval` are on the scale of the bound as written: the drop (baseline − candidate)
    for `max_drop`, the relative increase for `max_increase`, the ratio retained for `min_retained`, the
    speed-up for `min_speedup`, the candidate's value for `max` and `min`.  `counts` holds the
    sufficient statistics (`b` lost, `c` gained, `n` paired, `N` expected, or their equal).
    A decided finding (PASS, REGRESSION, INCONCLUSIVE) always has its numbers and its interval.
    """

    rule: Rule
    status: Status
    baseline: float | None
    candidate: float | None
    estimate: float | None
    interval: Interval | None
    counts: Mapping[str, float]
    n_paired: int
    n_lost: int
    n_needed: int | None
    detectable: float | None
    members: tuple[Member, ...]
    reason: str

    def __post_init__(self) -> None:
        if self.status in (Status.PASS, Status.REGRESSION, Status.INCONCLUSIVE) and (
            self.candidate is None or self.estimate is None or self.interval is None or self.n_paired < 1
        ):
            raise ValueError(f"finding {self.rule.id!r} is {self.status} without estimate, interval and pairs")
        if not self.reason:
            raise ValueError(f"finding {self.rule.id!r} has no reason")


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """An item on which exactly one of the two was right (`lost`: only the baseline)."""

    stage: str
    source: str
    metric: str
    item_id: str
    kind: str
    group: str | None
    prompt: str
    target: str
    baseline_output: str
    candidate_output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """`baseline_from` is `store`, `measured` or `none`; `skipped_because` is set exactly when SKIPPED."""

    kind: str
    name: str
    status: Status
    findings: tuple[Finding, ...]
    seconds: float
    items_scored: int
    items_available: int
    baseline_from: str
    skipped_because: str | None
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        if (self.status is Status.SKIPPED) != (self.skipped_because is not None):
            raise ValueError(f"stage {self.name!r}: skipped_because must be given exactly when it is SKIPPED")


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
class Verdict:
    status: Status
    deciding: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """The whole run.  `policy` is the policy as loaded (plain data); at most 200 flips are kept."""

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
    verdict: Verdict
    exit_code: int
    seconds: float
    notes: tuple[str, ...]
