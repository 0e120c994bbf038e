"""Which number formats a device computes in, and which it unpacks first: format × GPU generation or CPU.

Pure data and look-ups, each entry with the document it is taken from.  It says what the hardware can do; whether a
kernel does it shows in the time a step takes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gate.records import CheckpointRef, Quantization

FORMATS = ("FP32", "BF16", "FP16", "FP8", "INT8", "INT4", "FP4")
"""What a table shows.  INT4 is of weights alone (W4A16); the others are of weights and activations, unless `format_of`
adds ` weights` to the name."""

NATIVE, DEQUANTIZED, UNKNOWN = "native", "dequantized", "unknown"
WEIGHTS = " weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """`runs`: `native`; `dequantized`, unpacked to a wider type that is then computed in; or `unknown`."""

    runs: str
    why: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """As its maker publishes it: bytes and multiply-adds (two each) per second, in BF16 without sparsity."""

    bytes_per_second: float
    flops_per_second: float
    memory_bytes: int
    source: str


_TABLE_33 = (
    "NVIDIA, CUDA Programming Guide, 5.1 Compute Capabilities, Table 33: Input Data Types Supported by Tensor Core "
    "Acceleration (docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/compute-capabilities.html)"
)
_VOLTA = "NVIDIA, Tesla V100 GPU Architecture (WP-08608-001), Tensor Cores"
_VLLM_INT8 = "vLLM, docs/features/quantization/llm_compressor/int8.md"
_VLLM_FP8 = "vLLM, docs/features/quantization/llm_compressor/fp8.md"
_VLLM_INT4 = "vLLM, docs/features/quantization/README.md, Supported Hardware: AWQ, GPTQ, Marlin"
_VLLM_FP4 = "vLLM, marlin_utils_fp4.py: weight-only FP4 through Marlin where the GPU has no FP4"
_ONEDNN = (
    "oneDNN, doc/programming_model/data_types.md, Hardware Limitations, Intel Architecture Processors: a table by "
    "instruction set, read here for every maker's CPUs that have them"
)
_ONEDNN_INT8 = "oneDNN, Nuances of int8 Computations"
_DEFINITION = "by definition of weight-only quantization"

_AMPERE = frozenset({"BF16", "FP16", "INT8"})
_ADA = _AMPERE | {"FP8"}
_BLACKWELL = _ADA | {"FP4"}
TENSOR_CORES: Mapping[float, frozenset[str]] = MappingProxyType(
    {
        7.0: frozenset({"FP16"}),
        7.5: frozenset({"FP16", "INT8"}),
        **dict.fromkeys((8.0, 8.6, 8.7), _AMPERE),
        **dict.fromkeys((8.9, 9.0), _ADA),
        **dict.fromkeys((10.0, 10.3, 11.0, 12.0, 12.1), _BLACKWELL),
        10.7: _BLACKWELL - {"INT8"},
    }
)
"""Compute capability → formats that its tensor cores take."""

GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        name: Gpu(bytes_per_second=gb * 1e9, flops_per_second=tflops * 1e12, memory_bytes=gib * 2**30, source=source)
        for name, gb, tflops, gib, source in (
            ("L4", 300, 121, 24, "NVIDIA L4 datasheet (242 TFLOPS are with sparsity)"),
            ("L40S", 864, 362, 48, "NVIDIA L40S datasheet"),
            ("A10G", 600, 70, 24, "NVIDIA A10G datasheet"),
            ("A100-SXM4-40GB", 1555, 312, 40, "NVIDIA A100 datasheet"),
            ("A100-SXM4-80GB", 2039, 312, 80, "NVIDIA A100 datasheet"),
            ("H100 80GB HBM3", 3350, 989, 80, "NVIDIA H100 datasheet, SXM"),
            ("H200", 4800, 989, 141, "NVIDIA H200 datasheet, SXM"),
        )
    }
)
"""By the name that the driver gives, `NVIDIA ` and `Tesla ` left out."""


def gpu(name: str) -> tuple[str, Gpu] | None:
    """(its name in `GPUS`, what is published of it); None for one that is not listed."""
    short = re.sub(r"^(NVIDIA|Tesla) ", "", name.strip())
    return (short, GPUS[short]) if short in GPUS else None


def fit(format: str, *, device: str, capability: float | None, cpu_flags: Collection[str]) -> Entry:
    """How a device runs a format.

    Args:
        format: one of `FORMATS`, or another name that `format_of` gives.
        device: `cpu`, `cuda`, `cuda:1`, `server`.
        capability: CUDA compute capability; None where it is not known (and on GPUs of other makers).
        cpu_flags: instruction sets in Linux's names; none where they are not known.
    """
    packed = format.endswith(WEIGHTS) or format == "INT4" or format not in FORMATS
    on_gpu = device.startswith("cuda")
    if not (on_gpu or device.startswith("cpu")):
        return _unknown("the model is served elsewhere, on a device that is not known here")
    if on_gpu and capability is None:
        return _unknown("the GPU's compute capability is not known")
    if on_gpu and capability not in TENSOR_CORES:
        return _unknown(f"compute capability {capability} is not in this gate's table")
    if not on_gpu and not {"avx2", "avx512f"} & set(cpu_flags):
        return _unknown("the CPU's instruction sets are not known, or none that this gate's table has")
    if format == "mixed" or (format not in FORMATS and not _PACKED.fullmatch(format)):
        return _unknown(f"{format}: several formats in one checkpoint, or one that is not in this gate's table")
    if packed:
        return _packed(format, capability if on_gpu else None)
    return _on_gpu(format, capability) if capability is not None and on_gpu else _on_cpu(format, frozenset(cpu_flags))


_PACKED = re.compile(r"(INT|FP)\d+( weights)?|NF4")


def _unknown(why: str) -> Entry:
    return Entry(runs=UNKNOWN, why=why, source="")


def _packed(format: str, capability: float | None) -> Entry:
    why = "only the weights are packed: they are unpacked to the type of the activations before each product"
    if format != "INT4":
        return Entry(runs=DEQUANTIZED, why=why, source=_DEFINITION)
    return Entry(runs=DEQUANTIZED, why=why, source=_ONEDNN if capability is None else _VLLM_INT4)


def _on_gpu(format: str, capability: float) -> Entry:
    cores = _VOLTA if capability == 7.0 else _TABLE_33
    if format == "FP32":
        return Entry(
            runs=NATIVE,
            why="in its ordinary cores; tensor cores round to TF32 first, where that is allowed (from 8.0)",
            source=_TABLE_33,
        )
    if format in TENSOR_CORES[capability]:
        why = f"tensor cores of compute capability {capability:g} take {format}"
        if format == "INT8" and capability >= 10:
            return Entry(
                runs=NATIVE, why=f"{why}, but vLLM has no INT8 kernels for them", source=f"{cores}; {_VLLM_INT8}"
            )
        return Entry(runs=NATIVE, why=why, source=cores)
    if format == "INT8":
        return _unknown(
            f"tensor cores of compute capability {capability:g} take no INT8; whether a kernel uses other integer "
            "instructions or unpacks is up to the engine (vLLM serves no INT8 there)"
        )
    why = f"tensor cores of compute capability {capability:g} take no {format}"
    match format:
        case "FP8" if capability >= 7.5:
            return Entry(
                runs=DEQUANTIZED,
                why=f"{why}: vLLM unpacks the weights to 16 bits (Marlin) and leaves activations alone",
                source=f"{cores}; {_VLLM_FP8}",
            )
        case "FP4" if capability >= 7.5:
            return Entry(
                runs=DEQUANTIZED,
                why=f"{why}: the weights are unpacked to 16 bits, activations are left alone",
                source=f"{cores}; {_VLLM_FP4}",
            )
        case _:
            return Entry(runs=DEQUANTIZED, why=f"{why}: it is computed in a wider type", source=cores)


def _on_cpu(format: str, flags: frozenset[str]) -> Entry:
    def native(*wanted: str) -> Entry | None:
        there = [name for name in wanted if name in flags]
        return Entry(runs=NATIVE, why=f"{' and '.join(there)}", source=_ONEDNN) if there else None

    def wider(why: str) -> Entry:
        return Entry(runs=DEQUANTIZED, why=why, source=_ONEDNN)

    match format:
        case "FP32":
            return Entry(runs=NATIVE, why="every CPU computes in FP32", source=_ONEDNN)
        case "BF16":
            return native("amx_bf16", "avx512_bf16") or wider(
                "neither amx_bf16 nor avx512_bf16: converted to FP32 before it is computed"
            )
        case "FP16":
            return native("amx_fp16") or wider(
                "avx512_fp16 adds up in FP16, so it is converted to FP32 first"
                if "avx512_fp16" in flags
                else "no amx_fp16: converted to FP32 before it is computed"
            )
        case "INT8":
            return native("amx_int8", "avx512_vnni", "avx_vnni") or Entry(
                runs=NATIVE,
                why="integer instructions without VNNI: three for one, and sums of 16 bits that can saturate",
                source=f"{_ONEDNN}; {_ONEDNN_INT8}",
            )
        case _:
            return wider(f"no instruction of this CPU takes {format}: converted before it is computed")


_DTYPES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}


def format_of(ref: CheckpointRef, dtype: str) -> str:
    """What a checkpoint's weights (and activations) are in: one of `FORMATS`; `INT8 weights`, `FP8 weights`,
    `FP4 weights`, `INT3`, `NF4` where only weights are; `mixed`; else what its configuration calls it.

    `dtype` is what it is loaded as (`bfloat16`), which is also the format of what is not quantized.
    """
    plain = _DTYPES.get(dtype.removeprefix("torch."), dtype.upper())
    return plain if ref.quantization is None else _quantized(ref.quantization, plain)


def _quantized(how: Quantization, plain: str) -> str:
    scheme = (how.scheme or "").lower()
    if scheme == "kv cache" or scheme.startswith("activations only"):
        return plain
    if scheme.startswith("mixed"):
        return "mixed"
    if scheme in ("nf4", "fp4") and how.method == "bitsandbytes":
        return "NF4" if scheme == "nf4" else "FP4 weights"
    named = re.match(r"(fp|w)(\d+)a(\d+)", scheme)  # compressed-tensors and modelopt: FP8A8, W4A16
    if named:
        kind, bits, activations = named[1], int(named[2]), int(named[3])
        return _name("FP" if kind == "fp" else "INT", bits, only_weights=activations >= 16)
    if "fp4" in scheme or "fp4" in how.method:  # NVFP4, MXFP4
        return "FP4"
    if "fp8" in scheme or "fp8" in how.method or "float8" in scheme:
        return "FP8 weights" if "weightonly" in scheme else "FP8"
    if how.bits is None:
        return how.method
    if how.bits >= 16:
        return plain
    if how.bits != int(how.bits):
        return f"{how.bits:g} bits"
    both = how.method == "bitsandbytes" or "dynamicactivation" in scheme or scheme == "int8_sq"
    return _name("INT", int(how.bits), only_weights=not both)


def _name(kind: str, bits: int, *, only_weights: bool) -> str:
    name = f"{kind}{bits}"
    return name + WEIGHTS if only_weights and name in ("INT8", "FP8", "FP4") else name
