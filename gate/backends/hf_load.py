"""A checkpoint folder → a transformers model and tokenizer, or one clear sentence why not.

Loads safetensors and GGUF only, touches no network, runs code from the folder only where the policy asks for it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from gate.backends import Checkpoint, hf_formats
from gate.backends.hf_formats import Format
from gate.backends.hf_memory import is_out_of_memory
from gate.errors import CheckpointError, CouldNotMeasure
from gate.formats import load_problems

_SHOWN_KEYS = 3
_SHOWN_CHARACTERS = 300
_ERROR = re.compile(r"[\w.]*(?:Error|Exception|Interrupt): ")
_NO_MEMORY = "cannot allocate memory"
_RAISED = (SafetensorError, ImportError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
_LIBRARIES = ("bitsandbytes", "autoround", "torchao", "torch.utils._pytree")
"""They log a line per layer, or for every kernel that this machine has not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A model ready to run; `notes` say what differs from what was asked for (`BackendInfo.notes`)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    notes: tuple[str, ...]


def load(checkpoint: Checkpoint, device: str) -> Loaded:
    """Load a checkpoint onto `device`, or over several where its engine has a `device_map`.

    Raises:
        CheckpointError: missing, truncated, incomplete, or of a kind that this environment cannot load.
        torch.OutOfMemoryError, MemoryError: the device or the machine has too little memory for it.
    """
    disable_progress_bar()
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(logging.ERROR)
    for folder in (checkpoint.path, checkpoint.tokenizer):
        if folder is not None and not Path(folder).is_dir():
            raise CheckpointError(f"{folder!r} is not a folder, expected a downloaded checkpoint: run `gate fetch`")
    if "gguf_file" not in checkpoint.load and not (Path(checkpoint.path) / "config.json").is_file():
        raise CheckpointError(f"{checkpoint.path} has no config.json: download or export it again")
    for _, message in load_problems(checkpoint.load):
        raise CheckpointError(message)
    with _explained(checkpoint.path):
        config, found = _format(checkpoint, device)
    with _explained(f"the tokenizer in {checkpoint.tokenizer or checkpoint.path}"):
        tokenizer = _tokenizer(checkpoint)
    with _explained(checkpoint.path):
        model, notes = _model(checkpoint, config, found, device)
    return Loaded(model=model, tokenizer=tokenizer, notes=notes)


def check_device(device: str) -> None:
    """Raises CouldNotMeasure when this torch cannot reach `device` (`cpu`, `cuda`, `cuda:1`)."""
    wanted = torch.device(device)
    if wanted.type != "cuda":
        return
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        raise CouldNotMeasure(
            f"this torch is a CPU build ({torch.__version__}), expected one with CUDA for --device {device}: install "
            "one (https://pytorch.org/get-started/locally), or use --device cpu"
        )
    count = torch.cuda.device_count()
    if count <= (wanted.index or 0):
        found = "no CUDA device" if count == 0 else "only cuda:0" if count == 1 else f"only cuda:0 to cuda:{count - 1}"
        raise CouldNotMeasure(
            f"torch {torch.__version__} finds {found}, expected {device}: see `nvidia-smi` and CUDA_VISIBLE_DEVICES, "
            "or use another --device"
        )


def devices(model: PreTrainedModel) -> tuple[torch.device, ...]:
    """Every device that holds weights of the model; the first is where it takes its token ids."""
    others = {p.device for p in model.parameters() if p.device.type != "meta"} - {model.device}
    return (model.device, *sorted(others, key=str))


def _here(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"local_files_only": True, "trust_remote_code": checkpoint.trust_remote_code}


def _tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    folder = checkpoint.tokenizer or checkpoint.path
    gguf_file = None if checkpoint.tokenizer else checkpoint.load.get("gguf_file")
    return AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file, **_here(checkpoint))


def _format(checkpoint: Checkpoint, device: str) -> tuple[Any, Format]:
    """The model's configuration and how it is quantized; raises CheckpointError for what cannot be loaded here."""
    gguf_file = checkpoint.load.get("gguf_file")
    if gguf_file is not None:
        found = Format(method="gguf", on_load=None, weights=False)  # always unpacked
        hf_formats.check(found, device)  # first: its configuration is inside the file
        return AutoConfig.from_pretrained(checkpoint.path, gguf_file=gguf_file, **_here(checkpoint)), found
    config = AutoConfig.from_pretrained(checkpoint.path, **_here(checkpoint))
    found = hf_formats.declared(config, checkpoint.load.get("method"))
    hf_formats.check(found, device)
    if found.on_load == "hqq-4" and "device_map" in checkpoint.engine:
        raise CheckpointError("hqq-4 quantizes a model on one device: remove `device_map`, or use torchao-int4")
    return config, found


def _model(checkpoint: Checkpoint, config: Any, found: Format, device: str) -> tuple[PreTrainedModel, tuple[str, ...]]:
    attention = checkpoint.engine.get("attention")
    with _reported() as lines:
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                checkpoint.path,
                dtype=checkpoint.dtype,
                device_map=checkpoint.engine.get("device_map") or {"": device},
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported below, with names
                output_loading_info=True,
                gguf_file=checkpoint.load.get("gguf_file"),
                **({"attn_implementation": attention} if attention else {}),
                **hf_formats.settings(found, checkpoint.dtype, config),
                **_here(checkpoint),
            )
        except RuntimeError as problem:
            raise _real(problem, lines) from problem
    _check_complete(checkpoint.path, report)
    if found.name is None and (strays := hf_formats.undeclared(set(report["unexpected_keys"]))):
        raise CheckpointError(
            f"{checkpoint.path} holds {strays[0]} and {len(strays) - 1} more tensors of a quantized model, and its "
            "config.json declares no quantization: export it again with its quantization_config"
        )
    hf_formats.quantize_loaded(model, found, device)
    model = model.eval()
    _check_fed(model)
    notes = [*_class_used(model, config), *_placement(model), *_precision(model, checkpoint.dtype)]
    if attention is not None and (used := model.config._attn_implementation) != attention:
        raise CheckpointError(f"attention {attention!r} was asked for, and {checkpoint.path} runs with {used!r}")
    notes += hf_formats.in_effect(model, found)
    return model, tuple(notes)


def _check_fed(model: PreTrainedModel) -> None:
    """Everything that feeds the model goes by `model.device`, which is where its first weights are."""
    embedding = model.get_input_embeddings().weight.device
    if model.device.type == "meta" or embedding != model.device:
        raise CheckpointError(
            f"device_map put the embedding on {embedding} and the model's first weights on {model.device} (meta: kept "
            "outside the devices), expected one device for both: choose another device_map, or free memory on it"
        )


def _class_used(model: PreTrainedModel, config: Any) -> Iterator[str]:
    """transformers chooses by `model_type` and does not ask what the checkpoint calls itself."""
    named, used = next(iter(config.architectures or ()), None), type(model).__name__
    if named is not None and named.lower() != used.lower():
        yield f"config.json names the architecture {named!r}, and it was loaded as {used}: its own code was not used"


def _placement(model: PreTrainedModel) -> Iterator[str]:
    placed = {name: str(place) for name, place in (getattr(model, "hf_device_map", None) or {}).items()}
    beside = sorted(name for name, place in placed.items() if place in ("cpu", "disk"))
    if beside and len(beside) < len(placed):
        yield (
            f"device_map left {len(beside)} of {len(placed)} parts of the model on the CPU or the disk, first "
            f"{beside[0]}: scores are the same, speed is not that of a model on GPUs alone"
        )


def _precision(model: PreTrainedModel, asked: str) -> Iterator[str]:
    used = str(model.dtype).removeprefix("torch.")
    if asked not in ("auto", used):
        yield f"dtype {asked} was asked for, and the loader of this format allows {used} here"


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
    except _RAISED as problem:
        if is_out_of_memory(problem):
            raise
        if _NO_MEMORY in str(problem).lower():  # a file that could not be mapped
            raise MemoryError(f"{what} does not fit into memory: {_said(problem)}") from problem
        raise CheckpointError(_explanation(what, problem)) from problem


def _explanation(what: str, problem: Exception) -> str:
    match problem:
        case SafetensorError():
            damaged = ", ".join(damaged_shards(Path(what))) or "a weight file"
            return f"{what}: {damaged} is truncated or damaged ({problem}); download it again"
        case ImportError():
            return (
                f"{what} needs a package that is not installed: {_said(problem)}; "
                "for most quantized checkpoints: pip install 'quantgate[quantized]'"
            )
        case RuntimeError():
            return f"{what} cannot be loaded: {_said(problem)}"
        case _:
            return f"{what} cannot be loaded: {type(problem).__name__}: {_said(problem)}"


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += record.getMessage().splitlines()


@contextmanager
def _reported() -> Iterator[list[str]]:
    """What transformers logs meanwhile: an error in a conversion is said there and nowhere else."""
    handler = _Lines()
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)


def _real(problem: RuntimeError, lines: Iterable[str]) -> RuntimeError:
    """The error behind "issues during automatic conversion", which hides running out of memory as well."""
    if "automatic conversion" not in str(problem):
        return problem
    said = [line.strip() for line in lines if _ERROR.match(line.strip())]
    short = next((line for line in said if is_out_of_memory(RuntimeError(line))), None)
    if short is not None:
        return torch.OutOfMemoryError(short)
    return RuntimeError(said[0] if said else str(problem))


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
