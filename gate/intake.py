"""May these two be compared at all: same architecture, same tokenizer, and really quantized?

Looks at files and headers only; measures nothing and loads no model.
"""

from __future__ import annotations

from gate.checkpoint import Inspected, ResolvedCheckpoint, inspect, tokenizer
from gate.checkpoint.quantization import COUNTED_METHODS, Contents
from gate.errors import CheckpointError, Refused, UsageError
from gate.records import CheckpointRef

PARAMETER_TOLERANCE = 0.02
"""Relative difference of parameter counts that padding and packing explain; output heads are left out of both."""


def compare(
    baseline: CheckpointRef,
    candidate: CheckpointRef,
    *,
    baseline_at: ResolvedCheckpoint,
    candidate_at: ResolvedCheckpoint,
    allow_identical: bool,
) -> tuple[str, ...]:
    """Remarks for the reader, or an exception that says why no comparison is possible.

    Raises:
        UsageError: both are the same checkpoint, loaded the same way, and that was not asked for (A/A).
        CheckpointError: another architecture, tokenizer or number of parameters: not a version of this baseline.
        Refused: nothing in the candidate is quantized, whatever it declares.
    """
    identical = candidate.effective_digest == baseline.effective_digest
    if identical and not allow_identical and candidate.digest == baseline.digest:
        raise UsageError(
            f"--candidate {candidate.uri!r} is the baseline itself (digest {candidate.digest[:12]}…, loaded the same "
            "way): name another checkpoint, or pass --allow-identical to compare it with itself (A/A)"
        )
    gguf = "gguf_file" in candidate_at.load or "gguf_file" in baseline_at.load  # has its own names for architectures
    if candidate.architecture != baseline.architecture and not gguf:
        raise CheckpointError(
            f"the candidate is a {candidate.architecture}, the baseline a {baseline.architecture}: "
            "expected a quantized version of the same model"
        )
    ours, theirs = inspect(baseline_at), inspect(candidate_at)
    remarks = list(_same_tokenizer(ours, theirs))
    if gguf:
        remarks.append("a GGUF file names its architecture in its own way: it was not compared")
    if identical and allow_identical:
        return (*remarks, "the candidate's tensors and load settings are the baseline's: an A/A comparison")
    if candidate_at.load.get("method"):
        return (*remarks, f"quantized when it is loaded, as {candidate_at.load['method']}: its files are not")
    if ours.contents is None or theirs.contents is None:
        return tuple(remarks)  # a script for the fake backend has no weights to look at
    ratio = candidate.weight_bytes / baseline.weight_bytes
    remarks += _really_quantized(candidate, theirs.contents, ratio, identical)
    remarks += _same_size((baseline, candidate), ours.contents, theirs.contents)
    return tuple(remarks)


def _same_tokenizer(ours: Inspected, theirs: Inspected) -> tuple[str, ...]:
    """Remarks on tokenizers that are the same where it counts; raises CheckpointError where they are not."""
    if ours.tokenizer is None or theirs.tokenizer is None:
        inside = ours.contents is not None or theirs.contents is not None
        return ("the tokenizer inside the GGUF file was not compared with the other",) if inside else ()
    deciding, remarks = tokenizer.differences(ours.tokenizer, theirs.tokenizer)
    if deciding:
        raise CheckpointError(
            f"the candidate's tokenizer is not the baseline's: {'; '.join(deciding)}. Scores over different tokens "
            "cannot be compared: copy the baseline's tokenizer files, or quantize the same model"
        )
    return remarks


def _really_quantized(candidate: CheckpointRef, shown: Contents, ratio: float, same_tensors: bool) -> list[str]:
    """Raises Refused when nothing is quantized; else remarks on how much is."""
    declares = candidate.quantization
    evidence = (
        f"0 of {shown.n_matrices} weight matrices are quantized (stored as {_dtypes(shown)}), "
        f"and its weights take {ratio:.0%} of the baseline's bytes"
    )
    if same_tensors:
        evidence += "; they are the baseline's, bit for bit"
    advice = "check the export's targets and ignore list"
    if declares is None and shown.n_quantized == 0:
        raise Refused(
            f"the candidate {candidate.uri!r} is not quantized: it declares no quantization, {evidence}: {advice}"
        )
    if declares is None:
        raise Refused(
            f"the candidate {candidate.uri!r} declares no quantization, but {shown.n_quantized} of its "
            f"{shown.n_matrices} weight matrices are stored as {_dtypes(shown)}: a loader would take the codes for "
            "weights; export it again with its quantization_config"
        )
    if shown.n_quantized == 0:
        if shown.kv_cache_scales:
            return ["only the key/value cache is quantized: all weights are stored in full precision"]
        raise Refused(f"the candidate {candidate.uri!r} declares {declares.method}, but {evidence}: {advice}")
    if 2 * shown.n_quantized < shown.n_matrices:
        return [f"only {shown.n_quantized} of {shown.n_matrices} weight matrices are quantized"]
    return []


def _same_size(both: tuple[CheckpointRef, CheckpointRef], ours: Contents, theirs: Contents) -> list[str]:
    """Raises CheckpointError when the parameters of the two cannot belong to one model."""
    unknown = {q.method for ref in both if (q := ref.quantization)} - COUNTED_METHODS
    if unknown:
        return [f"parameters were not counted: how {unknown.pop()} packs them is not known here"]
    expected, found = ours.n_parameters - ours.n_head, theirs.n_parameters - theirs.n_head
    if abs(found - expected) > PARAMETER_TOLERANCE * expected:
        raise CheckpointError(
            f"the candidate has {found:,} parameters besides its output head, the baseline {expected:,}: "
            "expected a quantized version of the same model"
        )
    return []


def _dtypes(shown: Contents) -> str:
    return ", ".join(shown.dtypes)
