"""The table of formats and devices: what it says, that it is complete, and how checkpoints are named in it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gate.hardware import DEQUANTIZED, FORMATS, GPUS, NATIVE, TENSOR_CORES, UNKNOWN, fit, format_of, gpu
from gate.records import CheckpointRef, Quantization, Role

ICE_LAKE = ("avx2", "avx512f", "avx512_vnni")
SAPPHIRE = (*ICE_LAKE, "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16")


def on_gpu(capability: float | None) -> dict[str, str]:
    return {f: fit(f, device="cuda", capability=capability, cpu_flags=()).runs for f in FORMATS}


def on_cpu(*flags: str) -> dict[str, str]:
    return {f: fit(f, device="cpu", capability=None, cpu_flags=flags).runs for f in FORMATS}


def expected(native: str, unknown: str = "") -> dict[str, str]:
    return {f: NATIVE if f in native.split() else UNKNOWN if f in unknown.split() else DEQUANTIZED for f in FORMATS}


@pytest.mark.parametrize(
    ("capability", "native", "unknown"),
    [
        (7.0, "FP32 FP16", "INT8"),
        (7.5, "FP32 FP16 INT8", ""),
        (8.0, "FP32 FP16 BF16 INT8", ""),
        (8.6, "FP32 FP16 BF16 INT8", ""),
        (8.9, "FP32 FP16 BF16 INT8 FP8", ""),
        (9.0, "FP32 FP16 BF16 INT8 FP8", ""),
        (10.0, "FP32 FP16 BF16 INT8 FP8 FP4", ""),
        (10.3, "FP32 FP16 BF16 INT8 FP8 FP4", ""),
        (10.7, "FP32 FP16 BF16 FP8 FP4", "INT8"),
        (12.0, "FP32 FP16 BF16 INT8 FP8 FP4", ""),
    ],
)
def test_on_gpus(capability: float, native: str, unknown: str) -> None:
    assert on_gpu(capability) == expected(native, unknown)


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        (("avx2",), "FP32 INT8"),
        (ICE_LAKE, "FP32 INT8"),
        ((*ICE_LAKE, "avx512_bf16"), "FP32 INT8 BF16"),
        (SAPPHIRE, "FP32 INT8 BF16"),  # its FP16 instructions add up in FP16
        ((*SAPPHIRE, "amx_fp16"), "FP32 INT8 BF16 FP16"),
    ],
)
def test_on_cpus(flags: tuple[str, ...], native: str) -> None:
    assert on_cpu(*flags) == expected(native)


def test_every_entry_says_why_and_only_the_unknown_has_no_source() -> None:
    devices: list[dict[str, Any]] = [{"device": "cuda:0", "capability": c, "cpu_flags": ()} for c in TENSOR_CORES]
    devices += [{"device": "cpu", "capability": None, "cpu_flags": flags} for flags in (("avx2",), ICE_LAKE, SAPPHIRE)]
    for device in devices:
        for name in (*FORMATS, "INT8 weights", "FP8 weights", "FP4 weights", "NF4", "INT3"):
            entry = fit(name, **device)
            assert entry.why
            assert bool(entry.source) is (entry.runs != UNKNOWN), (name, device)
            if name not in FORMATS or name == "INT4":
                assert entry.runs == DEQUANTIZED


def test_a_cpus_source_holds_for_every_maker() -> None:
    (source,) = {fit(name, device="cpu", capability=None, cpu_flags=("avx2",)).source for name in ("FP32", "BF16")}
    assert "by instruction set" in source
    assert "every maker" in source


def test_newer_generations_lose_no_format_but_int8() -> None:
    capabilities = sorted(TENSOR_CORES)
    for older, newer in pairwise(capabilities):
        assert TENSOR_CORES[older] - TENSOR_CORES[newer] <= {"INT8"}


@pytest.mark.parametrize(
    ("device", "capability", "flags", "why"),
    [
        ("cuda", None, (), "not known"),
        ("cuda", 6.1, (), "6.1 is not in"),
        ("cuda", 13.0, (), "13.0 is not in"),
        ("cpu", None, (), "instruction sets are not known"),
        ("server", None, SAPPHIRE, "served elsewhere"),
    ],
)
def test_what_is_not_known_is_said(device: str, capability: float | None, flags: tuple[str, ...], why: str) -> None:
    for name in FORMATS:
        entry = fit(name, device=device, capability=capability, cpu_flags=flags)
        assert entry.runs == UNKNOWN
        assert why in entry.why


def test_blackwell_int8_is_native_but_not_in_vllm() -> None:
    assert "vLLM has no INT8" in fit("INT8", device="cuda", capability=12.0, cpu_flags=()).why
    assert "vLLM" not in fit("INT8", device="cuda", capability=9.0, cpu_flags=()).why


def ref(quantization: Quantization | None) -> CheckpointRef:
    return CheckpointRef(
        role=Role.CANDIDATE,
        uri="m",
        revision=None,
        digest="d",
        tensor_digest="t",
        effective_digest="e",
        tokenizer_digest="k",
        weight_bytes=1,
        quantization=quantization,
        architecture="Llama",
        n_parameters=1,
    )


@pytest.mark.parametrize(
    ("method", "bits", "scheme", "name"),
    [
        ("compressed-tensors", 4, "W4A16 group (pack-quantized)", "INT4"),
        ("compressed-tensors", 8, "W8A8 channel (int-quantized)", "INT8"),
        ("compressed-tensors", 8, "W8A16 channel (pack-quantized)", "INT8 weights"),
        ("compressed-tensors", 8, "FP8A8 channel (float-quantized)", "FP8"),
        ("compressed-tensors", 8, "FP8A16 channel (float-quantized)", "FP8 weights"),
        ("compressed-tensors", 4, "FP4A4 tensor_group (nvfp4-pack-quantized)", "FP4"),
        ("compressed-tensors", 4, "FP4A16 tensor_group (nvfp4-pack-quantized)", "FP4 weights"),
        ("compressed-tensors", 3, "W3A16 channel (pack-quantized)", "INT3"),
        ("compressed-tensors", None, "mixed (mixed-precision)", "mixed"),
        ("compressed-tensors", None, "activations only (x)", "BF16"),
        ("compressed-tensors", None, "KV cache", "BF16"),
        ("gptq", 4, "W4A16", "INT4"),
        ("awq", 4, "W4A16", "INT4"),
        ("bitsandbytes", 4, "nf4", "NF4"),
        ("bitsandbytes", 4, "fp4", "FP4 weights"),
        ("bitsandbytes", 8, "int8", "INT8"),
        ("torchao", 8, "int8", "INT8 weights"),
        ("torchao", 8, "Int8DynamicActivationInt8Weight", "INT8"),
        ("torchao", 8, "Float8WeightOnly", "FP8 weights"),
        ("torchao", 4, "int4", "INT4"),
        ("hqq", 4, "4", "INT4"),
        ("fp8", 8, "128x128 blocks", "FP8"),
        ("mxfp4", 4, None, "FP4"),
        ("modelopt", 4, "NVFP4", "FP4"),
        ("modelopt", 8, "FP8", "FP8"),
        ("modelopt", 8, "INT8_SQ", "INT8"),
        ("modelopt", 4, "W4A16_AWQ", "INT4"),
        ("quark", None, None, "quark"),
    ],
)
def test_names_of_checkpoints(method: str, bits: float | None, scheme: str | None, name: str) -> None:
    how = Quantization(method=method, bits=bits, group_size=None, scheme=scheme)
    assert format_of(ref(how), "bfloat16") == name
    entry = fit(name, device="cuda", capability=8.9, cpu_flags=())
    assert (entry.runs == UNKNOWN) is (name in ("mixed", "quark"))


@pytest.mark.parametrize(("dtype", "name"), [("float32", "FP32"), ("torch.bfloat16", "BF16"), ("float16", "FP16")])
def test_names_of_what_is_not_quantized(dtype: str, name: str) -> None:
    assert format_of(ref(None), dtype) == name


def test_published_rates() -> None:
    assert gpu("NVIDIA L40S") == ("L40S", GPUS["L40S"])
    assert gpu("NVIDIA A100-SXM4-80GB") is not None
    assert gpu("NVIDIA H200") is not None
    assert gpu("NVIDIA L40") is None
    for name, found in GPUS.items():
        assert found.source, name
        assert 1e11 < found.bytes_per_second < 1e13
        assert 10 < found.flops_per_second / found.bytes_per_second < 1_000, name


def test_the_tables_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    of_gpus = {row[0]: row[1:] for row in rows if row[0][:1].isdecimal()}
    of_cpus = {row[0]: row[1:] for row in rows if row[0].startswith("avx2")}
    capabilities = [(float(c), cells) for names, cells in of_gpus.items() for c in names.split(", ")]
    assert {c for c, _ in capabilities} == set(TENSOR_CORES)
    assert all(cells == list(on_gpu(c).values()) for c, cells in capabilities)
    assert len(of_cpus) == 5
    assert all(cells == list(on_cpu(*names.split()).values()) for names, cells in of_cpus.items())
    heading = [*FORMATS[:5], "INT4 weights", "FP4"]
    assert rows[0][1:] == heading
