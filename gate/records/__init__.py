"""The values every layer exchanges: measurements, rules, findings, verdicts, the run record.

Pure: frozen data and invariants.  No I/O, no clock, no randomness, no judgement with a default.
"""

from gate.records.governed import (
    Move,
    PolicyChange,
    RuleChange,
    Waiver,
)
from gate.records.judged import (
    Bound,
    Finding,
    Flip,
    Interval,
    MaxLost,
    Member,
    Rule,
    StageResult,
)
from gate.records.measured import (
    Answer,
    ItemFailure,
    Measurement,
    Metric,
    Observation,
    merge,
)
from gate.records.performance import (
    Fit,
    Memory,
    OutputLength,
    Percentiles,
    Performance,
    Speeds,
)
from gate.records.run import (
    ARTIFACT_VERSION,
    MAX_FLIPS,
    CheckpointRef,
    Environment,
    Quality,
    Quantization,
    RunRecord,
    Verdict,
)
from gate.records.words import (
    BoundKind,
    Direction,
    Estimand,
    Role,
    Scope,
    Severity,
    Status,
)

__all__ = [
    "ARTIFACT_VERSION",
    "MAX_FLIPS",
    "Answer",
    "Bound",
    "BoundKind",
    "CheckpointRef",
    "Direction",
    "Environment",
    "Estimand",
    "Finding",
    "Fit",
    "Flip",
    "Interval",
    "ItemFailure",
    "MaxLost",
    "Measurement",
    "Member",
    "Memory",
    "Metric",
    "Move",
    "Observation",
    "OutputLength",
    "Percentiles",
    "Performance",
    "PolicyChange",
    "Quality",
    "Quantization",
    "Role",
    "Rule",
    "RuleChange",
    "RunRecord",
    "Scope",
    "Severity",
    "Speeds",
    "StageResult",
    "Status",
    "Verdict",
    "Waiver",
    "merge",
]
