"""What transformers needs to load each quantized format: packages, an extra, a device; and what is then different.

Facts only: imports no model library and asks the machine nothing; whoever loads says what is installed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Capability = tuple[int, int]
"""CUDA compute capability, such as (8, 9)."""

_ANY_CUDA: Capability = (0, 0)
_SERVE = "a serving engine has its own loader for it: use --backend vllm"


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What one format takes.

    Attributes:
        packages: import name → what pip calls it.
        extra: quantgate's extra that installs them, or None.
        cuda: lowest compute capability of the CUDA device that it needs, or None where a CPU will do.
        otherwise: what transformers would do without that device: the reason not to let it.
        unable: why no machine loads it through transformers, and what to do instead; or None.
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    extra: str | None = None
    cuda: Capability | None = None
    otherwise: str = ""
    unable: str | None = None


_BITSANDBYTES = Needs(packages={"bitsandbytes": "bitsandbytes"}, extra="quantized")
_TORCHAO = Needs(packages={"torchao": "torchao"}, extra="quantized")
_GPTQMODEL = Needs(packages={"gptqmodel": "gptqmodel", "optimum": "optimum"}, extra="gptq")
_FP8 = Needs(
    cuda=(8, 9),
    otherwise="transformers would unpack its weights to bfloat16 and leave activations unrounded, which is not what "
    "will be served (a compressed-tensors FP8 checkpoint runs on a CPU)",
)

LOAD_METHODS: Mapping[str, Needs] = {
    "bitsandbytes-nf4": _BITSANDBYTES,
    "bitsandbytes-int8": _BITSANDBYTES,
    "torchao-int8": _TORCHAO,
    "torchao-int4": _TORCHAO,
    "hqq-4": Needs(packages={"hqq": "hqq"}, extra="hqq"),
}
"""`load.method`: a full-precision checkpoint is quantized while it is loaded."""

LOAD_SETTINGS = ("method", "gguf_file")
"""What `load` may say."""

SAVED: Mapping[str, Needs] = {
    "auto-round": Needs(packages={"auto_round": "auto-round"}, extra="quantized"),
    "aqlm": Needs(packages={"aqlm": "aqlm[gpu,cpu]"}),
    "awq": _GPTQMODEL,
    "bitsandbytes": _BITSANDBYTES,
    "compressed-tensors": Needs(packages={"compressed_tensors": "compressed-tensors"}, extra="quantized"),
    "eetq": Needs(packages={"kernels": "kernels"}, cuda=_ANY_CUDA),
    "fbgemm_fp8": Needs(packages={"fbgemm_gpu": "fbgemm-gpu-genai"}, cuda=(9, 0)),
    "fp8": _FP8,
    "gguf": Needs(packages={"gguf": "gguf"}, extra="quantized"),
    "gptq": _GPTQMODEL,
    "higgs": Needs(packages={"flute": "flute-kernel"}, cuda=_ANY_CUDA),
    "hqq": Needs(
        unable="transformers 5 has no reader for saved HQQ weights: quantize the full-precision checkpoint when it is "
        "loaded, with `load: {method: hqq-4}`"
    ),
    "modelopt": Needs(unable=f"transformers does not know NVIDIA ModelOpt's layout; {_SERVE}"),
    "modelopt_fp4": Needs(unable=f"transformers does not know NVIDIA ModelOpt's layout; {_SERVE}"),
    "mxfp4": Needs(
        packages={"triton": "triton", "kernels": "kernels"},
        cuda=(7, 5),
        otherwise="transformers would unpack its weights to bfloat16",
    ),
    "mxfp8": _FP8,
    "nvfp4": Needs(
        unable="transformers 5 has no reader for what it saves as NVFP4: export it in compressed-tensors' layout, with "
        "llmcompressor"
    ),
    "quanto": Needs(
        unable="transformers 5 neither saves nor reads optimum-quanto weights: quantize the full-precision checkpoint "
        "when it is loaded, with `load: {method: torchao-int8}`"
    ),
    "quark": Needs(packages={"quark": "amd-quark"}),
    "spqr": Needs(packages={"spqr_quant": "spqr_quant[gpu]"}, cuda=_ANY_CUDA),
    "torchao": _TORCHAO,
    "vptq": Needs(packages={"vptq": "vptq"}, cuda=_ANY_CUDA),
}
"""`quant_method` of a saved checkpoint; formats that are not here are left to what transformers says of them."""


def load_problems(load: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(setting, what is wrong with it) for a `load` table."""
    for name in load:
        if name not in LOAD_SETTINGS:
            yield name, f"unknown load setting {name!r}, expected {' or '.join(f'`{s}`' for s in LOAD_SETTINGS)}"
    method, gguf_file = load.get("method"), load.get("gguf_file")
    if method is not None and method not in LOAD_METHODS:
        near = difflib.get_close_matches(str(method), LOAD_METHODS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        yield "method", f"unknown load method {method!r}, expected one of: {', '.join(LOAD_METHODS)}{hint}"
    if gguf_file is not None and not (isinstance(gguf_file, str) and gguf_file.endswith(".gguf")):
        yield "gguf_file", f"found {gguf_file!r}, expected the name of a .gguf file in the checkpoint's folder"
    if method is not None and gguf_file is not None:
        yield "method", "a GGUF file holds quantized weights already: remove `method` or `gguf_file`"


def obstacle(method: str, *, installed: Callable[[str], bool], cuda: Capability | None) -> str | None:
    """The sentence that says why this format cannot be loaded here and what to do, or None where nothing is known.

    Args:
        method: a `quant_method`, or a `load.method`.
        installed: is a package of this import name there?
        cuda: compute capability of the device that is asked for; None for a CPU.
    """
    needs = LOAD_METHODS.get(method) or SAVED.get(method)
    if needs is None:
        return None
    if needs.unable is not None:
        return f"{method}: {needs.unable}"
    if needs.cuda is not None and (cuda is None or cuda < needs.cuda):
        least = "" if needs.cuda == _ANY_CUDA else f" of compute capability {_dotted(needs.cuda)} or higher"
        found = "a CPU" if cuda is None else f"one of {_dotted(cuda)}"
        why = f"; without it {needs.otherwise}" if needs.otherwise else ""
        return f"{method} needs a CUDA device{least}, and this run is on {found}{why}"
    missing = [name for name in needs.packages if not installed(name)]
    if missing:
        names = " and ".join(missing)
        pip = f"'quantgate[{needs.extra}]'" if needs.extra else " ".join(repr(needs.packages[m]) for m in missing)
        return f"{method} needs {names}, not installed for the interpreter that runs the model: pip install {pip}"
    return None


def _dotted(capability: Capability) -> str:
    return ".".join(map(str, capability))
