"""A checkpoint folder → a transformers model and tokenizer, or one clear sentence why not.

Loads safetensors and GGUF only, runs no code from the folder, touches no network.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING
from transformers.utils.logging import disable_progress_bar

from gate.backends import Checkpoint
from gate.backends.hf_memory import is_out_of_memory
from gate.errors import CheckpointError

LOAD_METHODS = ("bitsandbytes-nf4", "bitsandbytes-int8")
_LOCAL = {"local_files_only": True, "trust_remote_code": False}
_SHOWN_KEYS = 3
_SHOWN_CHARACTERS = 300


def load(checkpoint: Checkpoint, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Raises CheckpointError: missing, truncated, incomplete, or of a kind that this environment cannot load."""
    disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # one line per layer and forward pass on a CPU
    for folder in (checkpoint.path, checkpoint.tokenizer):
        if folder is not None and not Path(folder).is_dir():
            raise CheckpointError(f"{folder!r} is not a folder, expected a downloaded checkpoint: run `gate fetch`")
    if "gguf_file" not in checkpoint.load and not (Path(checkpoint.path) / "config.json").is_file():
        raise CheckpointError(f"{checkpoint.path} has no config.json: download or export it again")
    with _explained(f"the tokenizer in {checkpoint.tokenizer or checkpoint.path}"):
        tokenizer = _tokenizer(checkpoint)
    with _explained(checkpoint.path):
        return _model(checkpoint, device), tokenizer


def _tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    folder = checkpoint.tokenizer or checkpoint.path
    gguf_file = None if checkpoint.tokenizer else checkpoint.load.get("gguf_file")
    return AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file, **_LOCAL)


def _model(checkpoint: Checkpoint, device: str) -> PreTrainedModel:
    settings = dict(checkpoint.load)
    method = settings.pop("method", None)
    gguf_file = settings.pop("gguf_file", None)
    if settings:
        raise CheckpointError(f"unknown load setting {sorted(settings)[0]!r}, expected `method` or `gguf_file`")
    config = AutoConfig.from_pretrained(checkpoint.path, gguf_file=gguf_file, **_LOCAL)
    declared = getattr(config, "quantization_config", None)
    _check_quantization(declared, method)
    model, report = AutoModelForCausalLM.from_pretrained(
        checkpoint.path,
        dtype=checkpoint.dtype,
        device_map={"": device},
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # reported below, with names
        output_loading_info=True,
        **({"quantization_config": _on_load(method, checkpoint.dtype, config)} if method else {}),
        gguf_file=gguf_file,
        **_LOCAL,
    )
    if declared is not None and getattr(model, "hf_quantizer", None) is None:
        raise CheckpointError(f"transformers ignored the quantization that {checkpoint.path} declares: {declared!r}")
    _check_complete(checkpoint.path, report)
    return model.eval()


def _check_quantization(declared: Any, method: str | None) -> None:
    """transformers loads what it does not know as if it were not quantized: refuse that here."""
    if declared is not None:
        data = declared if isinstance(declared, Mapping) else declared.to_dict()
        found = data.get("quant_method")
        if method is not None:
            raise CheckpointError(
                f"the checkpoint is already quantized ({found}), and `load` asks for {method}: remove one of them"
            )
        known = {*AUTO_QUANTIZATION_CONFIG_MAPPING, "bitsandbytes"}
        if found not in known:
            raise CheckpointError(
                f"unknown quantization method {found!r} in config.json, expected one that this transformers knows: "
                f"{', '.join(sorted(known))}"
            )
    if method is not None and method not in LOAD_METHODS:
        raise CheckpointError(f"unknown load method {method!r}, expected one of: {', '.join(LOAD_METHODS)}")


def _on_load(method: str, dtype: str, config: Any) -> BitsAndBytesConfig:
    if method == "bitsandbytes-int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    own = getattr(config, "dtype", None) if dtype == "auto" else getattr(torch, dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=own or torch.bfloat16
    )


def _check_complete(path: str, report: Mapping[str, Iterable[Any]]) -> None:
    """transformers fills in random numbers for weights that it did not find: an error here."""
    for problem, keys in (
        ("has no weights for", report["missing_keys"]),
        ("has weights of the wrong size for", report["mismatched_keys"]),
    ):
        names = sorted(k if isinstance(k, str) else k[0] for k in keys)
        if names:
            more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
            raise CheckpointError(
                f"{path} {problem} {', '.join(names[:_SHOWN_KEYS])}{more}: "
                "it does not belong to its config.json or is incomplete; download or export it again"
            )
    if errors := list(report["error_msgs"]):
        raise CheckpointError(f"{path} cannot be loaded: {errors[0]}")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what transformers and safetensors raise into CheckpointError; out-of-memory passes through."""
    try:
        yield
    except SafetensorError as problem:
        damaged = ", ".join(damaged_shards(Path(what))) or "a weight file"
        raise CheckpointError(f"{what}: {damaged} is truncated or damaged ({problem}); download it again") from problem
    except ImportError as problem:
        raise CheckpointError(
            f"{what} needs a package that is not installed: {_said(problem)}; "
            "for most quantized checkpoints: pip install 'quantgate[quantized]'"
        ) from problem
    except (OSError, ValueError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as problem:
        raise CheckpointError(f"{what} cannot be loaded: {type(problem).__name__}: {_said(problem)}") from problem
    except RuntimeError as problem:
        if is_out_of_memory(problem):
            raise
        raise CheckpointError(f"{what} cannot be loaded: {_said(problem)}") from problem


def damaged_shards(folder: Path) -> list[str]:
    """Names of the safetensors files that cannot be opened."""
    damaged = []
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError):
            damaged.append(file.name)
    return damaged


def _said(problem: Exception) -> str:
    return " ".join(str(problem).split())[:_SHOWN_CHARACTERS] or "no message"
