"""Folder → CheckpointRef: what a checkpoint is, by content.

Reads files and headers; never loads a model and never imports torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate.checkpoint import (
    base_model,
    generation,
    gguf_header,
    gguf_tensors,
    modules,
    quantization,
    recipe,
    tokenizer,
    weights,
)
from gate.checkpoint.base_model import BaseModel
from gate.checkpoint.contradictions import contradictions, misnamed
from gate.checkpoint.digests import FileDigest, default_cache, file_digest
from gate.checkpoint.folder import regular_files
from gate.checkpoint.generation import Generation
from gate.checkpoint.modules import Module
from gate.checkpoint.quantization import Contents
from gate.checkpoint.reference import ResolvedCheckpoint
from gate.checkpoint.safetensors_header import Tensor
from gate.checkpoint.scheme import Declaration
from gate.checkpoint.strict_json import shown
from gate.errors import CheckpointError, Refused
from gate.records import CheckpointRef, Quantization, Role

FAKE = "fake.json"
"""A folder with this file holds no model: it scripts the `fake` backend."""

_ELSEWHERE = {
    "hf_quant_config.json": "modelopt",
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
}
"""Where exporters declare a quantization when config.json does not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspected:
    """What the files say without hashing them; of a fake checkpoint, most of it is empty or None.

    Attributes:
        declaration: how it says it was quantized; None without a declaration, and for GGUF files.
        findings: where the tensors contradict the declaration; a run refuses a checkpoint that has any.
        modules: what is stored, module by module.
        config: config.json, empty for GGUF files.
        generation: None for GGUF files, which keep such settings inside.
        base: what it says it was made from.
        calibration: what is on record about how it was calibrated.
    """

    quantization: Quantization | None
    declaration: Declaration | None
    findings: tuple[str, ...]
    architecture: str
    weight_bytes: int
    tensors: tuple[tuple[Path, Tensor], ...]
    modules: tuple[Module, ...]
    contents: Contents | None
    config: Mapping[str, Any]
    tokenizer: tokenizer.Tokenizer | None
    generation: Generation | None
    base: BaseModel
    calibration: tuple[str, ...]


def describe(resolved: ResolvedCheckpoint, role: Role, *, cache: Path | None = None) -> CheckpointRef:
    """Hash and describe a checkpoint.  `cache` is where digests are remembered (`digests.default_cache()`).

    Raises:
        CheckpointError: something is missing, truncated or unreadable.
        Refused: the files are unsafe or lie about themselves, or hold numbers that are none.
    """
    folder = resolved.path
    files = tuple(regular_files(folder))
    inspected = inspect(resolved)
    check_declaration(resolved.uri, inspected)
    memory = cache or default_cache()
    held: dict[Path, list[Tensor]] = {}
    for path, tensor in inspected.tensors:
        held.setdefault(path, []).append(tensor)
    digests = {path: file_digest(path, held.get(path, ()), memory) for path in files}
    _check_numbers(digests)
    digest = _digest_of_lines(f"{digests[p].sha256}  {p.relative_to(folder).as_posix()}" for p in files)
    if "gguf_file" in resolved.load:  # whose settings and tokenizer decide as much as its tensors
        tensor_digest = digests[folder / str(resolved.load["gguf_file"])].sha256
    elif held:
        tensor_digest = _tensor_digest([digests[p] for p in held])
    else:
        tensor_digest = digest
    scoring = resolved.engine.scoring()
    engine = {"engine": scoring} if scoring else {}  # digests of before there were engines stay what they were
    load = tokenizer.canonical({"load": dict(resolved.load), "dtype": resolved.dtype, **engine})
    return CheckpointRef(
        role=role,
        uri=resolved.uri,
        revision=resolved.revision,
        digest=digest,
        tensor_digest=tensor_digest,
        effective_digest=hashlib.sha256(tensor_digest.encode() + b"\n" + load).hexdigest(),
        tokenizer_digest=_tokenizer_digest(inspected, folder, tensor_digest),
        weight_bytes=inspected.weight_bytes,
        quantization=inspected.quantization,
        architecture=inspected.architecture,
        n_parameters=inspected.contents.n_parameters if inspected.contents else _fake_parameters(folder),
    )


def inspect(resolved: ResolvedCheckpoint) -> Inspected:
    """Everything that configuration files and headers tell, whatever they contradict.

    Raises:
        CheckpointError: something is missing, truncated or unreadable.
        Refused: a header or a configuration that no honest exporter writes.
    """
    folder = resolved.path
    if (folder / FAKE).is_file():
        return _fake(folder)
    if "gguf_file" in resolved.load:
        return _gguf(resolved, folder / str(resolved.load["gguf_file"]))
    config = weights.read_json(folder / "config.json")
    named = config.get("architectures") or [config.get("model_type")]
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise CheckpointError(f"{folder / 'config.json'} names no architecture, expected `architectures: [...]`")
    files = weights.files(folder)
    tensors = weights.tensors(files)
    with_declaration = _with_declaration(folder, config)
    said = quantization.declaration(with_declaration)
    stored = quantization.declared(with_declaration, {})
    if said and resolved.load.get("method"):
        raise CheckpointError(
            f"{folder} is already quantized ({said.method}), and the policy's `load` asks for "
            f"{resolved.load['method']!r}: remove one of them"
        )
    found = modules.modules((t for _, t in tensors), modules.notes(tensors), stored.bits if stored else None)
    counts = modules.contents(found, (t for _, t in tensors))
    return Inspected(
        quantization=quantization.declared(with_declaration, resolved.load),
        declaration=said,
        findings=contradictions(said, found, counts) if said else (),
        architecture=named[0],
        weight_bytes=sum(p.stat().st_size for p in files),
        tensors=tensors,
        modules=found,
        contents=counts,
        config=config,
        tokenizer=tokenizer.read(Path(resolved.tokenizer) if resolved.tokenizer else folder),
        generation=generation.read(folder, config),
        base=base_model.read(folder, with_declaration),
        calibration=recipe.read(folder, with_declaration),
    )


def check_declaration(uri: str, inspected: Inspected) -> None:
    """Raises Refused: the tensors contradict what the checkpoint declares."""
    if inspected.findings:
        raise Refused(
            f"the checkpoint {uri!r} is not what it says: {'; '.join(inspected.findings)}: "
            "check the export's targets and ignore list, and export it again"
        )


def _gguf(resolved: ResolvedCheckpoint, file: Path) -> Inspected:
    """A GGUF file carries its own configuration and tokenizer; only files beside it can be compared with others."""
    if not file.is_file() or file.parent != resolved.path:
        raise CheckpointError(f"found no {file.name!r} in {resolved.path}, expected the GGUF file that `load` names")
    header = gguf_header.read(file)
    listed = gguf_tensors.read(file)
    found = gguf_tensors.modules(listed.tensors)
    beside = Path(resolved.tokenizer) if resolved.tokenizer else resolved.path
    scheme = file.stem.rpartition("-")[2]
    return Inspected(
        quantization=Quantization(method="gguf", bits=None, group_size=None, scheme=scheme),
        declaration=None,
        findings=misnamed(scheme, found),
        architecture=header.architecture,
        weight_bytes=file.stat().st_size,
        tensors=tuple((file, t) for t in listed.tensors),
        modules=found,
        contents=header.contents,
        config={},
        tokenizer=tokenizer.read(beside) if (beside / "tokenizer.json").is_file() else None,
        generation=None,
        base=BaseModel(names=tuple((file.name, name) for name in gguf_tensors.base_names(listed.settings)), digests=()),
        calibration=(),
    )


def _fake(folder: Path) -> Inspected:
    return Inspected(
        quantization=_fake_quantization(weights.read_json(folder / FAKE)),
        declaration=None,
        findings=(),
        architecture="fake",
        weight_bytes=(folder / FAKE).stat().st_size,
        tensors=(),
        modules=(),
        contents=None,
        config={},
        tokenizer=None,
        generation=None,
        base=BaseModel(names=(), digests=()),
        calibration=(),
    )


def _check_numbers(digests: Mapping[Path, FileDigest]) -> None:
    """Raises Refused: a scale or a weight is NaN or infinite, and every score made from it would mean nothing."""
    found = [(path, name, count) for path, digest in digests.items() for name, count in digest.not_finite]
    if found:
        path, name, count = found[0]
        others = f", and so do {len(found) - 1} more tensors" if len(found) > 1 else ""
        raise Refused(
            f"{path}: tensor {shown(name)} holds {count:,} values that are NaN or infinite{others}: "
            "quantize and export it again"
        )


def _with_declaration(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration, with a quantization that is declared in a file of its own."""
    if config.get("quantization_config") or config.get("compression_config"):
        return config
    for name, method in _ELSEWHERE.items():
        if (folder / name).is_file():
            return {**config, "quantization_config": {"quant_method": method, **weights.read_json(folder / name)}}
    return config


def _tensor_digest(digests: list[FileDigest]) -> str:
    """Over names, dtypes, shapes and bytes of all tensors; the same however they are spread over files."""
    rows = sorted(row for digest in digests for row in digest.tensors)
    return _digest_of_lines(
        f"{sha256}  {dtype} {'x'.join(map(str, shape))} {name}" for name, dtype, shape, sha256 in rows
    )


def _digest_of_lines(lines: Any) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode("utf-8", "surrogatepass")).hexdigest()


def _fake_quantization(script: Mapping[str, Any]) -> Quantization | None:
    found = script.get("quantization")
    if not found:
        return None
    return Quantization(
        method=str(found["method"]),
        bits=found.get("bits"),
        group_size=found.get("group_size"),
        scheme=found.get("scheme"),
    )


def _fake_parameters(folder: Path) -> int:
    return int(weights.read_json(folder / FAKE).get("n_parameters", 1))


def _tokenizer_digest(inspected: Inspected, folder: Path, tensor_digest: str) -> str:
    if inspected.tokenizer is not None:
        return inspected.tokenizer.digest
    if inspected.contents is not None:
        return tensor_digest  # inside the GGUF file
    script = weights.read_json(folder / FAKE)
    return hashlib.sha256(tokenizer.canonical(script.get("tokenizer"))).hexdigest()
