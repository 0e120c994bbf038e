"""May these two be compared at all: the same model, the same tokens, and a candidate that is really quantized?

Looks at files and headers only; measures nothing and loads no model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gate.checkpoint import Inspected, ResolvedCheckpoint, base_model, config_facts, generation, inspect, tokenizer
from gate.checkpoint.config_facts import text_model
from gate.checkpoint.contradictions import left_alone
from gate.checkpoint.identity import check_declaration
from gate.checkpoint.modules import Module
from gate.checkpoint.quantization import Contents
from gate.errors import CheckpointError, Refused, UsageError
from gate.records import CheckpointRef

PARAMETER_TOLERANCE = 0.02
"""Relative difference of parameter counts that padding and packing explain; output heads are left out of both."""

SIZE_RATIO_LIMIT = 0.95
"""A candidate that takes more of the baseline's bytes is hardly quantized.  With weights of full precision counted in
the baseline's width, 8-bit weights on a tenth of a 16-bit model save 5 %; no recipe in use does so little."""

_FURTHER_TOKENS = re.compile(r"(?:^|\.)mtp(?:[._]|$)")
_LAYER = re.compile(r"(?:^|\.)(?:layers|blk)\.(\d{1,9})\.")
_OTHER_TOWERS = re.compile("vision|visual|audio|image|speech")

_ENGINE_QUANTIZATION = ("quantization", "kv_cache_dtype")
"""Engine settings that quantize when a model is loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two; `ref` is None where nothing was hashed."""

    at: ResolvedCheckpoint
    found: Inspected
    ref: CheckpointRef | None


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
        CheckpointError: another architecture, configuration, tokenizer, number of parameters or declared base model:
            not a version of this baseline.
        Refused: the candidate is not quantized, or not as it declares.
    """
    ours = Side(at=baseline_at, found=inspect(baseline_at), ref=baseline)
    theirs = Side(at=candidate_at, found=inspect(candidate_at), ref=candidate)
    return compare_sides(ours, theirs, allow_identical=allow_identical)


def compare_sides(ours: Side, theirs: Side, *, allow_identical: bool) -> tuple[str, ...]:
    """The same of what was inspected already; without digests, what needs them is said to be unchecked."""
    if not allow_identical:
        _check_not_itself(ours, theirs)
    check_declaration(theirs.at.uri, theirs.found)
    gguf = "gguf_file" in theirs.at.load or "gguf_file" in ours.at.load  # has its own names for architectures
    if theirs.found.architecture != ours.found.architecture and not gguf:
        raise CheckpointError(
            f"the candidate is a {theirs.found.architecture}, the baseline a {ours.found.architecture}: "
            "expected a quantized version of the same model"
        )
    tokens = _same_tokenizer(ours.found, theirs.found)
    settings = () if gguf else _same_configuration(ours.found, theirs.found)
    remarks = [*settings, *tokens]  # the ends of answers first
    remarks += ["a GGUF file names its architecture in its own way: it was not compared"] if gguf else []
    remarks += _made_from(ours, theirs)
    identical = _identical(ours, theirs)
    if identical and allow_identical:
        return (*remarks, "the candidate's tensors and load settings are the baseline's: an A/A comparison")
    if ours.found.contents is None or theirs.found.contents is None:
        return tuple(remarks)  # a script for the fake backend has no weights to look at
    remarks += _same_size(ours.found, theirs.found)
    on_load = quantized_on_load(theirs.at, ours.at)
    if on_load and theirs.found.contents.n_quantized == 0:
        return (*remarks, on_load)
    remarks += _really_quantized(ours, theirs, theirs.found.contents)
    if identical and _same_settings(ours.found, theirs.found):
        raise UsageError(
            f"--candidate {theirs.at.uri!r} has the tensors, the configuration and the load settings of the baseline: "
            "name another checkpoint, or pass --allow-identical to compare them (A/A)"
        )
    return (*remarks, on_load) if on_load else tuple(remarks)


def quantized_on_load(candidate: ResolvedCheckpoint, baseline: ResolvedCheckpoint | None) -> str | None:
    """In words, what loading quantizes in the candidate and not in the baseline; None if nothing."""
    if candidate.load.get("method"):
        return f"quantized when it is loaded, as {candidate.load['method']}: its files are not"
    known = baseline.engine.scoring() if baseline else {}
    chosen = {
        name: value
        for name, value in candidate.engine.scoring().items()
        if name in _ENGINE_QUANTIZATION and value != known.get(name) and value != "auto"
    }
    if not chosen:
        return None
    return "quantized when it is loaded, by the engine: " + ", ".join(f"{n} {v}" for n, v in chosen.items())


def _check_not_itself(ours: Side, theirs: Side) -> None:
    """Raises UsageError: both are one checkpoint, loaded in one way."""
    if ours.ref and theirs.ref:
        same = theirs.ref.effective_digest == ours.ref.effective_digest and theirs.ref.digest == ours.ref.digest
        how = f"digest {theirs.ref.digest[:12]}…, "
    else:
        same = ours.at.path == theirs.at.path and _loading(ours.at) == _loading(theirs.at)
        how = ""
    if same:
        raise UsageError(
            f"--candidate {theirs.at.uri!r} is the baseline itself ({how}loaded the same way): "
            "name another checkpoint, or pass --allow-identical to compare it with itself (A/A)"
        )


def _loading(at: ResolvedCheckpoint) -> tuple[object, ...]:
    return dict(at.load), at.dtype, at.tokenizer, at.engine.scoring()


def _identical(ours: Side, theirs: Side) -> bool:
    """Are tensors and load settings the same, as far as is known?"""
    if ours.ref and theirs.ref:
        return theirs.ref.effective_digest == ours.ref.effective_digest
    return ours.at.path == theirs.at.path and _loading(ours.at) == _loading(theirs.at)


def _same_settings(ours: Inspected, theirs: Inspected) -> bool:
    """Would a loader make the same model of the same tensors?"""
    without = ("transformers_version", "_name_or_path")
    one, two = ({k: v for k, v in found.config.items() if k not in without} for found in (ours, theirs))
    return one == two and ours.generation == theirs.generation


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


def _same_configuration(ours: Inspected, theirs: Inspected) -> tuple[str, ...]:
    """Remarks on configurations of one function; raises CheckpointError where they make two."""
    known = ours.tokenizer.vocabulary if ours.tokenizer else None
    n_tokens = max(known.values(), default=-1) + 1 if known else None
    deciding, remarks = config_facts.differences(ours.config, theirs.config, n_tokens)
    if deciding:
        raise CheckpointError(
            f"the candidate's config.json describes another model than the baseline's: {'; '.join(deciding)}. "
            "Their difference would not be that of quantization: restore the baseline's settings, or name the "
            "checkpoint that was quantized"
        )
    if ours.generation and theirs.generation:
        remarks = (*generation.differences(ours.generation, theirs.generation), *remarks)
    return remarks


def _made_from(ours: Side, theirs: Side) -> list[str]:
    """Remarks on the base model that the candidate names; raises CheckpointError where it declares another's digest."""
    remarks = []
    for place, text in theirs.found.base.digests:
        declared = text.lower().removeprefix("sha256:")
        if not re.fullmatch(r"[0-9a-f]{64}", declared):
            raise CheckpointError(f"{place} is {text[:80]!r}, expected a SHA-256 in 64 hexadecimal digits: correct it")
        if ours.ref is None:
            remarks.append(f"{place} was not held against the baseline: nothing was hashed")
        elif declared not in (ours.ref.digest, ours.ref.tensor_digest):
            raise CheckpointError(
                f"{place} is {declared[:12]}…, and the baseline has {ours.ref.tensor_digest[:12]}… (its tensors) and "
                f"{ours.ref.digest[:12]}… (its files): the candidate was made from another checkpoint; name that one "
                "as the baseline"
            )
    known = base_model.hub_ids(ours.found.base) | ({ours.at.uri} if ours.at.revision else frozenset())
    other = base_model.other_base(theirs.found.base, known)
    return [*remarks, other] if other else remarks


def _really_quantized(ours: Side, theirs: Side, shown: Contents) -> list[str]:
    """Raises Refused when nothing is quantized; else remarks on how much is."""
    declares, uri = theirs.found.quantization, theirs.at.uri
    ratio = theirs.found.weight_bytes / ours.found.weight_bytes
    evidence = (
        f"0 of {shown.n_matrices} weight matrices are quantized (stored as {', '.join(shown.dtypes)}), "
        f"and its weights take {ratio:.0%} of the baseline's bytes"
    )
    if ours.ref and theirs.ref and ours.ref.tensor_digest == theirs.ref.tensor_digest:
        evidence += "; they are the baseline's, bit for bit"
    advice = "check the export's targets and ignore list"
    if declares is None and shown.n_quantized == 0:
        raise Refused(f"the candidate {uri!r} is not quantized: it declares no quantization, {evidence}: {advice}")
    if declares is None:
        raise Refused(
            f"the candidate {uri!r} declares no quantization, but {shown.n_quantized} of its "
            f"{shown.n_matrices} weight matrices are stored as {', '.join(shown.dtypes)}: a loader would take the "
            "codes for weights; export it again with its quantization_config"
        )
    if shown.n_quantized == 0:
        if shown.kv_cache_scales or (theirs.found.declaration and theirs.found.declaration.kv_cache):
            return ["only the key/value cache is quantized: all weights are stored in full precision"]
        raise Refused(f"the candidate {uri!r} declares {declares.method}, but {evidence}: {advice}")
    _check_ratio(ours.found, theirs.found, shown, uri)
    remarks = []
    if 2 * shown.n_quantized < shown.n_matrices:
        remarks.append(f"only {shown.n_quantized} of {shown.n_matrices} weight matrices are quantized")
    missed = left_alone(theirs.found.declaration, theirs.found.modules) if theirs.found.declaration else None
    return [*remarks, missed] if missed else remarks


def size_ratio(ours: Sequence[Module], theirs: Sequence[Module]) -> float | None:
    """The candidate's bytes over the baseline's, with weights of full precision counted in the baseline's width.

    A cast from 32 to 16 bits saves half, and is no quantization.  Output heads are left out of both.  None where the
    baseline is quantized itself, or nothing is left to count.
    """
    kept = [m for m in ours if not m.is_head]
    n_weights, n_bytes = sum(m.n_weights for m in kept), sum(m.weight_bytes for m in kept)
    if any(m.quantized for m in kept) or not n_bytes or not n_weights:
        return None
    width_bytes = n_bytes / n_weights
    counted = (
        m.weight_bytes + m.side_bytes if m.quantized else m.n_weights * width_bytes for m in theirs if not m.is_head
    )
    return sum(counted) / n_bytes


def _check_ratio(ours: Inspected, theirs: Inspected, shown: Contents, uri: str) -> None:
    """Raises Refused: so little is quantized that the candidate is the baseline by another name."""
    ratio = size_ratio(*_loaded(ours, theirs))
    if ratio is None or ratio < SIZE_RATIO_LIMIT:
        return
    n_weights = sum(m.n_weights for m in theirs.modules)
    share = sum(m.n_weights for m in theirs.modules if m.quantized) / n_weights
    declares = theirs.quantization.method if theirs.quantization else "nothing"
    raise Refused(
        f"the candidate {uri!r} is hardly quantized: it declares {declares}, but {shown.n_quantized} of "
        f"{shown.n_matrices} weight matrices are ({share:.1%} of all weights), and at equal precision of the others "
        f"its weights take {ratio:.1%} of the baseline's bytes, expected less than {SIZE_RATIO_LIMIT:.0%}: "
        "check the export's targets and ignore list"
    )


def _same_size(ours: Inspected, theirs: Inspected) -> list[str]:
    """Raises CheckpointError when the parameters of the two cannot belong to one model."""
    for found in (theirs, ours):
        unknown = [m for m in found.modules if not m.exact]
        if unknown:
            method = found.quantization.method if found.quantization else "it"
            return [
                f"parameters were not counted: how {method} packs them is not known here "
                f"({unknown[0].name} holds {unknown[0].dtype} in {unknown[0].layout!r})"
            ]
    if ours.contents is None or theirs.contents is None:
        return []
    loaded = _loaded(ours, theirs)
    expected, n_found = (sum(m.n_weights for m in found if not m.is_head) for found in loaded)
    if abs(n_found - expected) > PARAMETER_TOLERANCE * expected:
        raise CheckpointError(
            f"the candidate has {n_found:,} parameters besides its output head, the baseline {expected:,}: "
            "expected a quantized version of the same model"
        )
    dropped, kept = len(ours.modules) - len(loaded[0]), len(theirs.modules) - len(loaded[1])
    if bool(dropped) == bool(kept):
        return []
    who = "baseline" if dropped else "candidate"
    return [f"only the {who} has layers that draft further tokens: they score nothing and were left out of the counts"]


def _loaded(ours: Inspected, theirs: Inspected) -> tuple[list[Module], list[Module]]:
    """Both without the layers that draft further tokens: exporters drop them, and loaders do without."""
    n_layers = text_model(ours.config or theirs.config).get("num_hidden_layers")
    one, two = ([m for m in found.modules if not _drafts(m.name, n_layers)] for found in (ours, theirs))
    return one, two


def _drafts(name: str, n_layers: object) -> bool:
    if _OTHER_TOWERS.search(name):
        return False
    layer = _LAYER.search(name)
    beyond = layer is not None and type(n_layers) is int and int(layer[1]) >= n_layers > 0
    return beyond or _FURTHER_TOKENS.search(name) is not None
