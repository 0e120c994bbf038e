"""All that files and headers tell of one checkpoint, put together for people and for other programs.

Reads, compares and counts; loads no model and prints nothing.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gate import intake
from gate.checkpoint import Inspected, ResolvedCheckpoint, describe, folder, inspect, layout, memory, view
from gate.checkpoint.contradictions import left_alone
from gate.checkpoint.identity import FAKE, check_declaration
from gate.checkpoint.layout import Row
from gate.checkpoint.memory import WeightMemory
from gate.errors import CheckpointError, GateError, Refused, UsageError
from gate.intake import Side
from gate.records import CheckpointRef, Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """One checkpoint.

    Attributes:
        rows: its modules, on a few lines.
        memory: of the weights once loaded; None for a fake.
        ref: with digests, where every byte was read.
        left_out: what is in the folder and will not be loaded.
        code: files of its own that will be executed, as the policy asks.
        remarks: what a reader should know, in sentences.
    """

    at: ResolvedCheckpoint
    found: Inspected
    rows: tuple[Row, ...]
    memory: WeightMemory | None
    ref: CheckpointRef | None
    left_out: tuple[str, ...]
    code: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """May it be evaluated (alone), or compared (with a baseline)?  `problem` says why not; None means yes."""

    problem: GateError | None
    remarks: tuple[str, ...]


def look(at: ResolvedCheckpoint) -> Inspection:
    """What the headers tell; nothing is hashed.  Raises CheckpointError, Refused as `view.build`, `checkpoint.inspect`.

    As in a run, nothing is read before every file in the folder was found to be one, and small where it has to be.
    """
    backend = "fake" if (at.path / FAKE).is_file() else "hf"
    with tempfile.TemporaryDirectory(prefix="quantgate-view-") as into:
        admitted = view.build(at, Path(into), backend=backend)
    for _ in folder.regular_files(at.path):  # a fake has no view
        pass
    found = inspect(at)
    schemes = found.declaration.schemes if found.declaration else ()
    groups = frozenset((s.bits, s.group_size) for s in schemes if s.group_size is not None)
    on_load = at.load.get("method") or at.engine.scoring().get("quantization")
    missed = left_alone(found.declaration, found.modules) if found.declaration else None
    quantized_later = intake.quantized_on_load(at, None)
    return Inspection(
        at=at,
        found=found,
        rows=layout.rows(found.modules, groups),
        memory=memory.expected(found.modules, found.config, at.dtype, on_load) if found.modules else None,
        ref=None,
        left_out=admitted.left_out,
        code=admitted.code,
        remarks=tuple(r for r in (missed, quantized_later) if r),
    )


def checked(seen: Inspection, *, role: Role, verify: bool, cache: Path | None = None) -> tuple[Inspection, Outcome]:
    """What is checked before a run besides: the declaration, and with `verify` every byte."""
    ref: CheckpointRef | None = None
    problem: GateError | None = None
    try:
        check_declaration(seen.at.uri, seen.found)
        if verify:
            ref = describe(seen.at, role, cache=cache)
    except (CheckpointError, Refused) as found:
        problem = found
    return replace(seen, ref=ref), Outcome(problem=problem, remarks=())


def compared(baseline: Inspection, candidate: Inspection, *, allow_identical: bool) -> Outcome:
    """What `gate run` would say before it measures anything."""
    ours = Side(at=baseline.at, found=baseline.found, ref=baseline.ref)
    theirs = Side(at=candidate.at, found=candidate.found, ref=candidate.ref)
    try:
        remarks = intake.compare_sides(ours, theirs, allow_identical=allow_identical)
    except (CheckpointError, Refused, UsageError) as problem:
        return Outcome(problem=problem, remarks=())
    return Outcome(problem=None, remarks=remarks)


def bits_per_weight(found: Inspected) -> float | None:
    """Effective bits: all bytes of weights, scales and zero points over all parameters."""
    n_weights = sum(m.n_weights for m in found.modules)
    n_bytes = sum(m.weight_bytes + m.side_bytes for m in found.modules)
    return 8 * n_bytes / n_weights if n_weights else None


def quantized_share(found: Inspected) -> float:
    """Of all weights, how many are in quantized modules."""
    n_weights = sum(m.n_weights for m in found.modules)
    return sum(m.n_weights for m in found.modules if m.quantized) / n_weights if n_weights else 0.0


def document(seen: Inspection, outcome: Outcome, baseline: Inspection | None) -> dict[str, Any]:
    """Plain data for `--format json`.  Sizes in bytes; names are those of the Python attributes."""
    found = seen.found
    return {
        "checkpoint": seen.at.uri,
        "revision": seen.at.revision,
        "architecture": found.architecture,
        "n_parameters": found.contents.n_parameters if found.contents else None,
        "quantization": asdict(found.quantization) if found.quantization else None,
        "declaration": asdict(found.declaration) if found.declaration else None,
        "n_quantized": found.contents.n_quantized if found.contents else None,
        "n_matrices": found.contents.n_matrices if found.contents else None,
        "quantized_share": quantized_share(found),
        "bits_per_weight": bits_per_weight(found),
        "weight_bytes": found.weight_bytes,
        "memory": asdict(seen.memory) if seen.memory else None,
        "modules": [{**asdict(row), "bits_per_weight": row.bits_per_weight} for row in seen.rows],
        "kv_cache": kv_cache(seen),
        "calibration": list(found.calibration),
        "made_from": [{"place": place, "name": name} for place, name in found.base.names],
        "findings": list(found.findings),
        "left_out": list(seen.left_out),
        "code": list(seen.code),
        "trust_remote_code": seen.at.trust_remote_code,
        "digests": asdict(seen.ref) if seen.ref else None,
        "remarks": list(remarks(seen, outcome)),
        "baseline": None if baseline is None else baseline.at.uri,
        "accepted": outcome.problem is None,
        "problem": None if outcome.problem is None else str(outcome.problem),
        "exit_code": 0 if outcome.problem is None else int(outcome.problem.exit_code),
    }


def failure(checkpoint: str, baseline: str | None, problem: GateError) -> dict[str, Any]:
    """The same where there is nothing to tell but the problem."""
    return {
        "checkpoint": checkpoint,
        "baseline": baseline,
        "accepted": False,
        "problem": str(problem),
        "exit_code": int(problem.exit_code),
    }


def remarks(seen: Inspection, outcome: Outcome) -> tuple[str, ...]:
    """Each of them once."""
    return tuple(dict.fromkeys((*seen.remarks, *outcome.remarks)))


def kv_cache(seen: Inspection) -> str | None:
    """How keys and values are quantized, by the checkpoint or by the engine; None if they are not."""
    engine = seen.at.engine.scoring().get("kv_cache_dtype")
    if engine and engine != "auto":
        return f"{engine} (asked of the engine)"
    said = seen.found.declaration.kv_cache if seen.found.declaration else None
    scales = seen.found.contents is not None and seen.found.contents.kv_cache_scales
    if said:
        return said + (", with scales" if scales else "" if "dynamic" in said else ", no scales stored")
    return "scales are stored, nothing is declared" if scales else None
