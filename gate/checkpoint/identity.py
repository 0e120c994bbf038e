"""Folder → CheckpointRef: what a checkpoint is, by content.

Reads files and headers; never loads a model and never imports torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate.checkpoint import gguf_header, quantization, tokenizer, weights
from gate.checkpoint.digests import FileDigest, default_cache, file_digest
from gate.checkpoint.quantization import Contents
from gate.checkpoint.reference import ResolvedCheckpoint
from gate.checkpoint.safetensors_header import Tensor
from gate.errors import CheckpointError
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
    """What the files say without hashing them; a fake checkpoint has neither tensors nor contents nor tokenizer."""

    quantization: Quantization | None
    architecture: str
    weight_bytes: int
    tensors: tuple[tuple[Path, Tensor], ...]
    contents: Contents | None
    tokenizer: tokenizer.Tokenizer | None


def describe(resolved: ResolvedCheckpoint, role: Role, *, cache: Path | None = None) -> CheckpointRef:
    """Hash and describe a checkpoint.  `cache` is where digests are remembered (`digests.default_cache()`).

    Raises:
        CheckpointError: something is missing, truncated or unreadable.
        Refused: the files are unsafe or lie about themselves.
    """
    folder = resolved.path
    files = tuple(weights.regular_files(folder))
    inspected = inspect(resolved)
    memory = cache or default_cache()
    held: dict[Path, list[Tensor]] = {}
    for path, tensor in inspected.tensors:
        held.setdefault(path, []).append(tensor)
    digests = {path: file_digest(path, held.get(path, ()), memory) for path in files}
    digest = _digest_of_lines(f"{digests[p].sha256}  {p.relative_to(folder).as_posix()}" for p in files)
    if held:
        tensor_digest = _tensor_digest([digests[p] for p in held])
    elif "gguf_file" in resolved.load:
        tensor_digest = digests[folder / str(resolved.load["gguf_file"])].sha256
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
    """Everything that configuration files and headers tell.  Raises as `describe`."""
    folder = resolved.path
    if (folder / FAKE).is_file():
        return Inspected(
            quantization=_fake_quantization(weights.read_json(folder / FAKE)),
            architecture="fake",
            weight_bytes=(folder / FAKE).stat().st_size,
            tensors=(),
            contents=None,
            tokenizer=None,
        )
    if "gguf_file" in resolved.load:
        return _gguf(resolved, folder / str(resolved.load["gguf_file"]))
    config = weights.read_json(folder / "config.json")
    named = config.get("architectures") or [config.get("model_type")]
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise CheckpointError(f"{folder / 'config.json'} names no architecture, expected `architectures: [...]`")
    files = weights.files(folder)
    tensors = weights.tensors(files)
    declaration = _declaration(folder, config)
    stored = quantization.declared(declaration, {})
    if stored and resolved.load.get("method"):
        raise CheckpointError(
            f"{folder} is already quantized ({stored.method}), and the policy's `load` asks for "
            f"{resolved.load['method']!r}: remove one of them"
        )
    shown = quantization.contents(
        (t for _, t in tensors), weights.unpacked_shapes(tensors), stored.bits if stored else None
    )
    return Inspected(
        quantization=quantization.declared(declaration, resolved.load),
        architecture=named[0],
        weight_bytes=sum(p.stat().st_size for p in files),
        tensors=tensors,
        contents=shown,
        tokenizer=tokenizer.read(Path(resolved.tokenizer) if resolved.tokenizer else folder),
    )


def _gguf(resolved: ResolvedCheckpoint, file: Path) -> Inspected:
    """A GGUF file carries its own configuration and tokenizer; only files beside it can be compared with others."""
    if not file.is_file() or file.parent != resolved.path:
        raise CheckpointError(f"found no {file.name!r} in {resolved.path}, expected the GGUF file that `load` names")
    shown = gguf_header.read(file)
    beside = Path(resolved.tokenizer) if resolved.tokenizer else resolved.path
    return Inspected(
        quantization=Quantization(method="gguf", bits=None, group_size=None, scheme=file.stem.rpartition("-")[2]),
        architecture=shown.architecture,
        weight_bytes=file.stat().st_size,
        tensors=(),
        contents=shown.contents,
        tokenizer=tokenizer.read(beside) if (beside / "tokenizer.json").is_file() else None,
    )


def _declaration(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
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
