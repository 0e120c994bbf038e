"""From what the user wrote (`--candidate REF`) to a local folder and how to load it.

`resolve` never downloads; `fetch` is the only function here that may use the network.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gate.engines import Engine, Engines
from gate.errors import CheckpointError, UsageError
from gate.hub import download_errors, reason
from gate.policy import CheckpointSettings

ALLOWED_PATTERNS = (
    *("*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt"),
    *("recipe.yaml", "README.md"),  # how it was calibrated, and what it was made from
)
"""What is taken from a hub repository besides weights."""

WEIGHTS = "*.safetensors"
"""The weights, where the policy does not name a GGUF file."""

CODE = "*.py"
"""Where the policy says `trust_remote_code: true`."""

IGNORED_PATTERNS = ("onnx/*", "original/*")
FETCH_ADVICE = "`gate fetch` with the same arguments"
_NO_ENGINES = Engines()
_AS_IT_IS = Engine()
Hub = Callable[[str, str | None, tuple[str, ...]], Path]
"""(hub id, revision, patterns of weights and code) → local folder."""

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB_ID = re.compile(rf"(?P<id>(?:{_SEGMENT}/)?{_SEGMENT})(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedCheckpoint:
    """A checkpoint on this machine.

    Attributes:
        path: its folder.
        load: load-time settings from the policy's `checkpoints:` table, or empty.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        tokenizer: folder of the tokenizer if it is not the checkpoint's own.
        uri: what the user wrote, without the revision.
        revision: commit of a hub checkpoint, else None.
        engine: how the backend runs it.
        trust_remote_code: the policy asks for its own code to be run.
    """

    path: Path
    load: Mapping[str, Any]
    dtype: str
    tokenizer: str | None
    uri: str
    revision: str | None
    engine: Engine = _AS_IT_IS
    trust_remote_code: bool = False


def resolve(
    ref: str,
    *,
    policy_checkpoints: Mapping[str, CheckpointSettings],
    base: Path,
    offline: bool,
    backend: str = "hf",
    engines: Engines = _NO_ENGINES,
    advice: str = FETCH_ADVICE,
) -> ResolvedCheckpoint:
    """Find a checkpoint: a name from the policy, a local folder, or a hub id in the local cache.

    `base` is the folder that paths in the policy are relative to; `offline` only shapes the advice;
    `engines` are the policy's settings for all checkpoints; `advice` is the command that would download it.

    Raises:
        CheckpointError: the folder is missing, or the hub checkpoint is not in the cache.
        UsageError: `ref` is neither a known name, nor a folder, nor a hub id.
    """
    found = _resolve(ref, policy_checkpoints, base, partial(_cached, offline=offline, advice=advice))
    settings = policy_checkpoints.get(ref)
    if settings is None:
        return replace(found, engine=engines.of(backend, _NO_ENGINES))
    return replace(found, engine=engines.of(backend, settings.engines), trust_remote_code=settings.trust_remote_code)


def fetch(ref: str, *, policy_checkpoints: Mapping[str, CheckpointSettings], base: Path) -> ResolvedCheckpoint:
    """Like `resolve`, but download a hub checkpoint (safetensors, configuration, tokenizer) if it is not there yet.

    Raises:
        CheckpointError: as `resolve`; or the download failed.
        UsageError: as `resolve`.
    """
    return _resolve(ref, policy_checkpoints, base, _downloaded)


def is_local(ref: str, *, policy_checkpoints: Mapping[str, CheckpointSettings], base: Path) -> bool:
    """Whether it and its tokenizer are folders: nothing of the hub is named.  Raises as `resolve` does for those."""
    asked: list[str] = []

    def hub(identifier: str, revision: str | None, more: tuple[str, ...]) -> Path:
        asked.append(identifier)
        return base

    _resolve(ref, policy_checkpoints, base, hub)
    return not asked


def _cached(identifier: str, revision: str | None, more: tuple[str, ...], *, offline: bool, advice: str) -> Path:
    """The folder of a hub checkpoint in the local cache."""
    from huggingface_hub.errors import HFValidationError

    where = "on a machine with a network, and bring its cache here" if offline else "first"
    advice = f"run {advice} {where}"
    try:
        return _snapshot(identifier, revision, more, local_files_only=True)
    except (OSError, HFValidationError) as problem:
        if hasattr(problem, "snapshot_path"):  # IncompleteSnapshotError, which older versions do not have
            raise CheckpointError(f"{identifier!r} was downloaded in part ({problem}): {advice}") from problem
        name = f"{identifier}@{revision}" if revision else identifier
        raise CheckpointError(
            f"found no folder {name!r} and no such checkpoint in the local Hugging Face cache: "
            f"{advice}, or correct the path"
        ) from problem


def _downloaded(identifier: str, revision: str | None, more: tuple[str, ...]) -> Path:
    """The folder of a hub checkpoint, downloaded into the local cache as far as it is not there."""
    from huggingface_hub.errors import HFValidationError

    try:
        return _snapshot(identifier, revision, more, local_files_only=False)
    except download_errors(HFValidationError) as problem:
        raise CheckpointError(
            f"could not download {identifier!r} ({reason(problem)}): "
            "check the name, the revision, the network and HF_TOKEN"
        ) from problem


def _snapshot(identifier: str, revision: str | None, more: tuple[str, ...], *, local_files_only: bool) -> Path:
    # The patterns must be the same when looking up: without them, what was left out counts as missing.
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            identifier,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=[*ALLOWED_PATTERNS, *more],
            ignore_patterns=list(IGNORED_PATTERNS),
        )
    )


def _resolve(
    ref: str,
    policy_checkpoints: Mapping[str, CheckpointSettings],
    base: Path,
    hub: Hub,
) -> ResolvedCheckpoint:
    settings = policy_checkpoints.get(ref)
    if settings is None:
        path, revision = _locate(ref, Path(), partial(_with, hub, (WEIGHTS,)), tuple(policy_checkpoints))
        return ResolvedCheckpoint(
            path=path, load={}, dtype="auto", tokenizer=None, uri=_without_revision(ref, revision), revision=revision
        )
    weights = str(settings.load.get("gguf_file") or WEIGHTS)
    more = (weights, CODE) if settings.trust_remote_code else (weights,)
    path, revision = _locate(settings.path, base, partial(_with, hub, more), ())
    tokenizer = settings.tokenizer
    if tokenizer is not None:
        tokenizer = str(_locate(tokenizer, base, partial(_with, hub, ()), ())[0])
    return ResolvedCheckpoint(
        path=path, load=dict(settings.load), dtype=settings.dtype, tokenizer=tokenizer, uri=ref, revision=revision
    )


def _with(hub: Hub, more: tuple[str, ...], identifier: str, revision: str | None) -> Path:
    return hub(identifier, revision, more)


def _locate(
    text: str, base: Path, hub: Callable[[str, str | None], Path], names: tuple[str, ...]
) -> tuple[Path, str | None]:
    """(folder, hub revision or None) of a path or hub id."""
    folder = base / os.path.expanduser(text)  # noqa: PTH111  (pathlib's raises for a user who does not exist)
    if text and folder.is_dir():
        return folder.resolve(), None
    if text and folder.exists():
        raise UsageError(f"{text!r} is a file, expected the checkpoint's folder")
    hub_id = _HUB_ID.fullmatch(text)
    if text.startswith((".", "/", "~")) or text.endswith("/") or (text.count("/") > 1 and "@" not in text):
        raise CheckpointError(f"there is no folder {text!r} (looked at {folder.resolve()}): correct the path")
    if hub_id is None or ("/" not in text and names):
        near = difflib.get_close_matches(text, names, n=3)
        advice = (
            f"did you mean {' or '.join(map(repr, near))}?"
            if near
            else f"the policy names {', '.join(names) or 'none'}"
        )
        raise UsageError(
            f"found {text!r}, expected a name from the policy's checkpoints table, a folder, or a hub id "
            f"such as org/model@revision; {advice}"
        )
    path = hub(hub_id["id"], hub_id["revision"])
    return path, path.name


def _without_revision(ref: str, revision: str | None) -> str:
    return ref if revision is None else ref.partition("@")[0]
