"""Every layout that a quantizer writes: unpacked, counted, described, and held against its declaration."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gate import checkpoint, inspection, intake
from gate.checkpoint import (
    Inspected,
    ResolvedCheckpoint,
    gguf_header,
    gguf_tensors,
    layout,
    modules,
    quantization,
    scheme,
)
from gate.checkpoint.contradictions import left_alone
from gate.checkpoint.safetensors_header import BITS, Tensor
from gate.errors import CheckpointError, GateError, Refused, UsageError
from gate.records import Role
from tests.checkpoint_factory import filled, gguf, resolved
from tests.layout_factory import (
    INT4,
    LAYOUTS,
    N_PARAMETERS,
    Layout,
    Linear,
    awq,
    compressed,
    eight_bit,
    gptq,
    hqq,
    int8,
    marlin_24,
    model,
    nf4,
    packed,
    plain,
    shape,
    sparse_24,
    torchao,
    weights,
    write_llama,
)

DOWN = "model.layers.0.mlp.down_proj"


def inspected(folder: Path) -> Inspected:
    return checkpoint.inspect(resolved(folder))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> ResolvedCheckpoint:
    return resolved(write_llama(tmp_path_factory.mktemp("plain") / "baseline"))


def compare(baseline: ResolvedCheckpoint, folder: Path) -> tuple[str, ...]:
    theirs, cache = resolved(folder), folder.parent / "cache"
    return intake.compare(
        checkpoint.describe(baseline, Role.BASELINE, cache=cache),
        checkpoint.describe(theirs, Role.CANDIDATE, cache=cache),
        baseline_at=baseline,
        candidate_at=theirs,
        allow_identical=False,
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_understood(tmp_path: Path, baseline: ResolvedCheckpoint, name: str) -> None:
    chosen: Layout = LAYOUTS[name]
    folder = write_llama(tmp_path / "model", chosen.linear, declared=chosen.declared)
    found = inspected(folder)
    assert found.contents is not None
    assert found.contents.n_parameters == N_PARAMETERS
    assert (found.contents.n_quantized, found.contents.n_matrices) == (14, 16)
    assert found.findings == ()
    assert all(m.exact for m in found.modules)
    assert compare(baseline, folder) == ()
    rows = {r.pattern: r for r in inspection.look(resolved(folder)).rows}
    down = rows["model.layers.*.mlp.down_proj"]
    assert (down.n_modules, down.stored) == (2, chosen.stored)
    inner = [r for r in rows.values() if r.quantized]
    bits = 8 * sum(r.n_bytes for r in inner) / sum(r.n_weights for r in inner)
    assert bits == pytest.approx(chosen.bits_per_weight, rel=0.03)
    declared = found.declaration
    assert declared is not None
    if "held in bytes" not in name:
        (said,) = declared.schemes
        assert said.bits == float(chosen.stored.split("-")[0])


CONTRADICTED: dict[str, tuple[Linear, dict[str, Any], str]] = {
    "4 bits declared, bytes stored": (
        eight_bit("I8", lambda n_out, _: (n_out, 1)),
        INT4,
        r"declares pack-quantized \(packed integers in `weight_packed`\), but 14 modules hold I8 in `weight`: "
        r"model\.layers\.\{0-1\}\.mlp\.down_proj, .*and 4 more",
    ),
    "4 bits declared, 8 bits packed": (packed(8), INT4, "declares 4-bit weights, but 14 modules hold 8 bits"),
    "4 bits declared, nothing stored": (plain, INT4, r"declares compressed-tensors, but 0 of 16 .*\(stored as BF16\)"),
    "groups of 128 declared, of 32 stored": (
        packed(4, 32),
        INT4,
        "declares a scale per group 128, but 14 modules hold one per group 32",
    ),
    "groups declared, channels stored": (
        packed(4, None),
        compressed("pack-quantized", weights(4, "int", "group", 32)),
        "declares a scale per group 32, but 14 modules hold one per channel",
    ),
    "asymmetric without zero points": (
        packed(4, 32),
        compressed("pack-quantized", weights(4, "int", "group", 32, symmetric=False)),
        "declares asymmetric weights, but 14 modules hold I32 without zero points",
    ),
    "floats declared, integers stored": (
        eight_bit("I8", lambda n_out, _: (n_out, 1)),
        compressed("float-quantized", weights(8, "float", "channel")),
        r"declares float-quantized \(8-bit floats\), but 14 modules hold I8",
    ),
    "bitsandbytes in 4 bits without its state": (
        int8,
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "declares bitsandbytes in 4 bits, but 14 modules hold I8 without a quant_state",
    ),
    "codes without scales": (
        lambda name, n_out, n_in: {f"{name}.weight": filled("I8", (n_out, n_in), 1)},
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        "declares bitsandbytes, but 14 modules hold I8 codes without a scale",
    ),
    "gptq in 4 bits declared, 8 stored": (
        gptq(8),
        {"quant_method": "gptq", "bits": 4, "group_size": 32},
        "declares 4-bit weights, but 14 modules hold 8 bits",
    ),
    "gptq groups": (
        gptq(4, 64),
        {"quant_method": "gptq", "bits": 4, "group_size": 32},
        "declares a scale per group 32, but 14 modules hold one per group 64",
    ),
    "awq declared, int8 stored": (
        eight_bit("I8", lambda n_out, _: (n_out, 1)),
        {"quant_method": "awq", "bits": 4, "group_size": 32},
        r"declares awq \(packed integers in `qweight`\), but 14 modules hold I8 in `weight`",
    ),
    "hqq in 2 bits declared, 4 stored": (
        hqq,
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 2, "group_size": 64}}},
        "declares 2-bit weights, but 14 modules hold 4 bits",
    ),
    "fp8 declared, int8 stored": (
        eight_bit("I8", lambda n_out, _: (n_out, 1)),
        {"quant_method": "fp8"},
        r"declares fp8 \(8-bit floats\), but 14 modules hold I8",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTED)
def test_a_declaration_that_the_tensors_contradict_is_refused(
    tmp_path: Path, baseline: ResolvedCheckpoint, name: str
) -> None:
    linear, declared, message = CONTRADICTED[name]
    folder = write_llama(tmp_path / "liar", linear, declared=declared)
    assert inspected(folder).findings != ()  # inspecting shows it, a run ends with it
    with pytest.raises(Refused, match=f"'liar' is not what it says: .*it {message}"):
        compare(baseline, folder)


@pytest.mark.parametrize(
    ("linear", "declared"),
    [
        pytest.param(packed(4, 256), compressed("pack-quantized", weights(4, "int", "group", 256)), id="short rows"),
        pytest.param(torchao("I8", 32), LAYOUTS["torchao int4 held in bytes"].declared, id="torchao keeps bytes"),
        pytest.param(nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True}, id="fp4 by default"),
        pytest.param(awq, {"quant_method": "auto-round", "bits": 4, "group_size": 32}, id="auto-round as AWQ"),
    ],
)
def test_what_only_looks_like_a_contradiction(tmp_path: Path, linear: Linear, declared: dict[str, Any]) -> None:
    assert inspected(write_llama(tmp_path / "model", linear, declared=declared)).findings == ()


class TestMixed:
    def test_two_groups_of_modules(self, tmp_path: Path) -> None:
        declared = compressed("pack-quantized", weights(4, "int", "group", 32))
        group = {"targets": ["re:.*self_attn.*"], "weights": weights(8, "int", "channel"), "input_activations": None}
        declared["config_groups"]["group_1"] = group
        others = {f"model.layers.{i}.self_attn.{k}_proj": packed(8, None) for i in range(2) for k in "qkvo"}
        folder = write_llama(tmp_path / "model", packed(4, 32), declared=declared, others=others)
        found = inspected(folder)
        assert found.findings == ()
        assert found.quantization is not None
        assert (found.quantization.bits, found.quantization.scheme) == (None, "mixed (pack-quantized)")
        rows = {r.pattern: r.stored for r in inspection.look(resolved(folder)).rows}
        assert rows["model.layers.*.self_attn.q_proj"] == "8-bit, channel"
        assert rows["model.layers.*.mlp.up_proj"] == "4-bit, group 32"

    def test_modules_with_settings_of_their_own_are_believed(self, tmp_path: Path) -> None:
        declared = LAYOUTS["auto-round"].declared | {"extra_config": {DOWN: {"bits": 8}}}
        folder = write_llama(tmp_path / "model", gptq(index=False), declared=declared, others={DOWN: gptq(8)})
        found = inspected(folder)
        assert found.findings == ()
        assert found.declaration is not None
        assert found.declaration.exceptions == 1
        stored = {r.pattern: r.stored for r in inspection.look(resolved(folder)).rows}
        assert stored["model.layers.0.mlp.down_proj"] == "8-bit, group 32"
        assert stored["model.layers.1.mlp.down_proj"] == "4-bit, group 32"

    def test_layers_that_nothing_explains_are_named(self, tmp_path: Path, baseline: ResolvedCheckpoint) -> None:
        folder = write_llama(tmp_path / "model", packed(), declared=INT4, others={DOWN: plain})
        sentence = "declared as quantized, but stored in full precision: model.layers.0.mlp.down_proj"
        assert sentence in compare(baseline, folder)
        found = inspected(folder)
        assert found.declaration is not None
        ignored = INT4 | {"ignore": ["lm_head", DOWN]}
        explained = inspected(write_llama(tmp_path / "explained", packed(), declared=ignored, others={DOWN: plain}))
        assert explained.declaration is not None
        assert left_alone(explained.declaration, explained.modules) is None


class TestHardlyQuantized:
    def test_one_small_layer_is_no_quantization(self, tmp_path: Path, baseline: ResolvedCheckpoint) -> None:
        name = "model.layers.0.self_attn.k_proj"
        declared = compressed("int-quantized", weights(8, "int", "channel"), ignore=["re:.*"])
        one = eight_bit("I8", lambda n_out, _: (n_out, 1))
        folder = write_llama(tmp_path / "model", plain, declared=declared, others={name: one})
        with pytest.raises(Refused, match=r"hardly quantized: .*1 of 16 weight matrices are \(5\.0% of all weights\)"):
            compare(baseline, folder)

    def test_a_cast_of_the_rest_does_not_hide_it(self, tmp_path: Path) -> None:
        """From float32 to bfloat16 the files shrink to half, whatever was quantized."""
        wide = {n: ("F32", s, b * 2) for n, (_, s, b) in model().items()}
        ours = resolved(write_llama(tmp_path / "ours", tensors=wide, config={"dtype": "float32"}))
        declared = compressed("int-quantized", weights(8, "int", "channel"), ignore=["re:.*"])
        others = {"model.layers.0.self_attn.k_proj": eight_bit("I8", lambda n_out, _: (n_out, 1))}
        folder = write_llama(tmp_path / "model", plain, declared=declared, others=others)
        with pytest.raises(Refused, match=r"hardly quantized: .*take 9\d\.\d% of the baseline's bytes"):
            compare(ours, folder)

    def test_wider_floats_beside_it_do_not_count_against_it(self, tmp_path: Path, baseline: ResolvedCheckpoint) -> None:
        tensors = model(eight_bit("I8", lambda n_out, _: (n_out, 1)))
        wide = {
            n: ("F32", s, b * 2) if d == "BF16" and "scale" not in n else (d, s, b) for n, (d, s, b) in tensors.items()
        }
        declared = compressed("int-quantized", weights(8, "int", "channel"))
        assert compare(baseline, write_llama(tmp_path / "model", tensors=wide, declared=declared)) == ()

    def test_the_limit(self) -> None:
        ours = inspected_modules(plain, {})
        assert intake.size_ratio(ours, ours) == 1.0
        quantized = inspected_modules(packed(), {})
        ratio = intake.size_ratio(ours, quantized)
        assert ratio is not None
        assert ratio < 0.3
        assert intake.size_ratio(quantized, quantized) is None  # the baseline is quantized itself


def inspected_modules(linear: Linear, others: dict[str, Linear]) -> tuple[modules.Module, ...]:
    stored = model(linear, others)
    tensors = [Tensor(name=n, dtype=d, shape=s, begin=0, end=len(b)) for n, (d, s, b) in stored.items()]
    return modules.modules(tensors, {n: b for n, (_, _, b) in stored.items() if n.endswith("_shape")}, 4.0)


class TestSameTensorsTwice:
    def test_quantized_tensors_under_another_readme_are_the_baseline(self, tmp_path: Path) -> None:
        ours = write_llama(tmp_path / "ours", packed(), declared=INT4)
        theirs = write_llama(tmp_path / "theirs", packed(), declared=INT4)
        (theirs / "README.md").write_text("new words")
        with pytest.raises(UsageError, match=r"'theirs' has the tensors, the configuration.*--allow-identical"):
            compare(resolved(ours), theirs)

    def test_another_declaration_of_the_same_tensors_is_a_candidate(self, tmp_path: Path) -> None:
        ours = write_llama(tmp_path / "ours", packed(), declared=INT4)
        cache = {"num_bits": 8, "type": "float", "dynamic": False, "strategy": "tensor"}
        theirs = write_llama(tmp_path / "theirs", packed(), declared=INT4 | {"kv_cache_scheme": cache})
        assert compare(resolved(ours), theirs) == ()


class TestRanges:
    @pytest.mark.parametrize(
        ("layers", "expected"),
        [
            ((0, 1), "model.layers.*.mlp.down_proj"),
            ((0,), "model.layers.0.mlp.down_proj"),
            ((1,), "model.layers.1.mlp.down_proj"),
        ],
    )
    def test_layers_are_written_once(self, layers: tuple[int, ...], expected: str) -> None:
        found = inspected_modules(plain, {f"model.layers.{i}.mlp.down_proj": packed() for i in layers})
        (row,) = [r for r in layout.rows(found, frozenset()) if r.quantized]
        assert row.pattern == expected

    @pytest.mark.parametrize(
        ("numbers", "expected"),
        [([3], "3"), ([0, 1, 2], "{0-2}"), ([0, 1, 5, 6, 7, 9], "{0-1,5-7,9}"), ([0, 79], "{0,79}")],
    )
    def test_ranges(self, numbers: list[int], expected: str) -> None:
        assert layout._ranges(numbers) == expected

    def test_embeddings_first_heads_last_vectors_together(self) -> None:
        found = layout.rows(inspected_modules(plain, {}), frozenset())
        assert [r.pattern for r in (found[0], found[-2], found[-1])] == [
            "model.embed_tokens",
            "lm_head",
            layout.VECTORS,
        ]
        assert sum(r.n_weights for r in found) == N_PARAMETERS


DECLARED: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    ("torchao", {"quant_type": "int4_weight_only"}, (4.0, "int", None)),
    (
        "torchao",
        {"quant_type": {"default": {"_type": "Int8DynamicActivationInt4WeightConfig", "_data": {"group_size": 32}}}},
        (4.0, "int", "group 32"),
    ),
    (
        "torchao",
        {"quant_type": {"default": {"_type": "Float8WeightOnlyConfig", "_data": {}}}},
        (8.0, "float", None),
    ),
    ("hqq", {"quant_config": {"self_attn.q_proj": {"nbits": 4, "group_size": 64}}}, (4.0, "int", "group 64")),
    ("modelopt", {"quantization": {"quant_algo": "W4A16_AWQ", "group_size": 128}}, (4.0, "int", "group 128")),
    ("modelopt", {"quant_algo": "FP8"}, (8.0, "float", None)),
    ("mxfp4", {}, (4.0, "float", "group 32")),
    ("quanto", {"weights": "int4"}, (4.0, "int", None)),
]


@pytest.mark.parametrize(("method", "found", "expected"), DECLARED, ids=lambda v: str(v)[:50])
def test_declarations_of_other_methods(method: str, found: dict[str, Any], expected: tuple[Any, ...]) -> None:
    (said,) = scheme.read(method, found).schemes
    assert (said.bits, said.number, said.granularity) == expected


@pytest.mark.parametrize(
    ("declared", "name"),
    [
        (LAYOUTS["torchao int8"].declared, "Int8WeightOnly"),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "int8_weight_only"),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4"}}, "NVFP4"),
    ],
)
def test_what_people_call_it(declared: dict[str, Any], name: str) -> None:
    found = quantization.declared({"quantization_config": declared}, {})
    assert found is not None
    assert found.scheme == name


def test_experts_in_mxfp4() -> None:
    """As gpt-oss stores them: 16 bytes of codes and one byte of scale for every 32 weights."""
    name = "model.layers.0.mlp.experts.gate_up_proj"
    stored = {
        f"{name}_blocks": ("U8", (4, 64, 3, 16)),
        f"{name}_scales": ("U8", (4, 64, 3)),
        f"{name}_bias": ("BF16", (4, 64)),
    }
    tensors = [
        Tensor(name=n, dtype=d, shape=s, begin=0, end=math.prod(s) * BITS[d] // 8) for n, (d, s) in stored.items()
    ]
    experts, bias = modules.modules(tensors, {}, 4.0)
    assert (experts.name, experts.shape, experts.n_weights) == (name, (4, 64, 96), 4 * 64 * 96)
    assert (experts.granularity, experts.quantized, experts.exact) == ("group 32", True, True)
    assert (bias.name, bias.bits) == (f"{name}_bias", None)


def test_the_cache_and_the_activations_in_words() -> None:
    fp8 = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}
    token = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}
    declared = compressed("int-quantized", weights(8, "int", "channel", actorder="static"), kv_cache_scheme=fp8)
    declared["config_groups"]["group_0"]["input_activations"] = token
    said = scheme.read("compressed-tensors", declared)
    assert said.kv_cache == "8-bit float per tensor, static"
    assert (said.schemes[0].activations, said.schemes[0].order) == ("8-bit int per token, dynamic", "static")
    assert scheme.read("modelopt", {"quantization": {"kv_cache_quant_algo": "FP8"}}).kv_cache == "FP8"


@pytest.mark.parametrize(
    "declared",
    [
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": "four"}}},
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "X", "_data": {"granularity": {}}}}},
        {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": "x"}}}},
        {"quant_method": "gptq", "bits": 4, "group_size": "many"},
    ],
    ids=lambda d: d["quant_method"],
)  # fmt: skip
def test_malformed_declarations_are_errors(tmp_path: Path, declared: dict[str, Any]) -> None:
    folder = write_llama(tmp_path / "model", gptq(), declared=declared)
    with pytest.raises(CheckpointError, match=f"quantization_config of {declared['quant_method']} is malformed"):
        inspected(folder)


def test_whatever_is_declared_there_is_an_answer_or_a_sentence() -> None:
    """Strangers write config.json: any value in any place, for every method."""
    random = Random(4)
    values = [None, True, 0, -1, 1.5, "", "x", [], ["a"], {}, {"a": 1}, {"_type": 3}, 10**30]
    answers, sentences = 0, []
    for _ in range(400):
        declared = copy.deepcopy(random.choice(list(LAYOUTS.values())).declared)
        places = list(_places(declared))
        inner, key = random.choice(places)
        inner[key] = random.choice(values)
        try:
            quantization.declared({"quantization_config": declared}, {})
            answers += 1
        except (CheckpointError, Refused) as problem:
            sentences.append(str(problem))
    assert answers > 100
    assert sentences
    assert all("config.json" in s and "quant" in s for s in sentences)


def _places(found: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for key, value in found.items():
        yield found, key
        if isinstance(value, dict):
            yield from _places(value)


class TestGguf:
    def write(self, folder: Path, name: str, kind: int, n_bytes: int) -> ResolvedCheckpoint:
        folder.mkdir()
        tensors = {
            "token_embd.weight": ((256, 4), 1, 2048),
            "blk.0.ffn_up.weight": ((256, 2), kind, n_bytes),
            "blk.1.ffn_up.weight": ((256, 2), kind, n_bytes),
            "output_norm.weight": ((256,), 0, 1024),
        }
        (folder / name).write_bytes(gguf(tensors))
        return resolved(folder, load={"gguf_file": name})

    def test_types_by_tensor(self, tmp_path: Path) -> None:
        seen = inspection.look(self.write(tmp_path / "model", "bank-Q4_K_M.gguf", 12, 288))
        rows = {r.pattern: (r.n_modules, r.stored, round(r.bits_per_weight, 2)) for r in seen.rows}
        assert rows["blk.*.ffn_up"] == (2, "Q4_K", 4.5)
        assert rows["token_embd"] == (1, "F16", 16.0)
        assert seen.found.findings == ()
        assert seen.memory is not None
        assert seen.memory.loaded == 2 * 288 + 2048 + 1024

    def test_a_name_that_promises_less_than_is_stored(self, tmp_path: Path) -> None:
        at = self.write(tmp_path / "model", "bank-Q4_K_M.gguf", 8, 544)
        with pytest.raises(Refused, match=r"its name declares Q4_K_M, but its quantized weights take 8\.5 bits"):
            checkpoint.describe(at, Role.CANDIDATE, cache=tmp_path / "cache")

    def test_full_precision_says_so(self, tmp_path: Path) -> None:
        assert checkpoint.inspect(self.write(tmp_path / "model", "bank-F16.gguf", 1, 1024)).findings == ()

    def test_a_scale_that_is_no_number_is_refused(self, tmp_path: Path) -> None:
        at = self.write(tmp_path / "model", "bank-Q4_K_M.gguf", 12, 288)
        (_, up), *_ = [t for t in checkpoint.inspect(at).tensors if t[1].name == "blk.1.ffn_up.weight"]
        with (at.path / "bank-Q4_K_M.gguf").open("r+b") as file:
            file.seek(up.begin + 144 + 2)
            file.write(b"\x00\x7c")  # infinity, as the minimum of the second block
        with pytest.raises(Refused, match=r"'blk\.1\.ffn_up\.weight' holds 1 values that are NaN or infinite"):
            checkpoint.describe(at, Role.CANDIDATE, cache=tmp_path / "cache")


def test_noted_shapes_are_read_from_the_file_alone(tmp_path: Path) -> None:
    """A state that is not JSON, or a shape that is none, leaves the counting to the bytes."""
    tensors = model(nf4)
    name = f"{DOWN}.weight.quant_state.bitsandbytes__nf4"
    for state in (b"not json", b"[]", json.dumps({"shape": [-1, 2], "blocksize": "x"}).encode()):
        tensors[name] = ("U8", (len(state),), state)
        found = inspected(
            write_llama(tmp_path / str(len(state)), tensors=tensors, declared=LAYOUTS["bitsandbytes nf4"].declared)
        )
        assert found.contents is not None
        assert found.contents.n_parameters == N_PARAMETERS


@pytest.mark.parametrize("part", ["9" * 5000, "²", "٣", "*", "-1", ""])
def test_no_name_stops_the_table(tmp_path: Path, part: str) -> None:
    """Digits that are no layer are part of a name; `*` is what stands for a layer's number."""
    found = inspected(write_llama(tmp_path / "odd", tensors=model())).modules
    odd = [replace(m, name=m.name.replace(".0.", f".{part}.")) for m in found]
    rows = layout.rows([*found, *odd], frozenset())
    assert sum(r.n_modules for r in rows) == 2 * len(found)
    assert layout.names_of(odd)


@pytest.mark.parametrize("bits", ["nan", "inf", "-inf", 1e-320, 0, -4, 65, True, 10**400, "4 bits", "", [4], "9" * 400])
@pytest.mark.parametrize("group", [False, True])
def test_bits_that_no_weight_has(bits: object, group: bool) -> None:
    weights = {"num_bits": bits, "type": "int", "strategy": "channel"}
    declared = (
        {"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": weights}}}
        if group
        else {"quant_method": "gptq", "bits": bits, "group_size": 128}
    )
    with pytest.raises(CheckpointError, match=r"quantization_config of .* is malformed"):
        quantization.declaration({"quantization_config": declared})


def test_no_byte_of_a_gguf_header_stops_its_reader(tmp_path: Path) -> None:
    random, path = Random(3), tmp_path / "m.gguf"
    honest = gguf({"token_embd.weight": ((64, 4), 8, 272), "output_norm.weight": ((64,), 0, 256)})
    header = len(honest) - 544
    ends = [0, 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(2000):
        raw = bytearray(honest)
        for _ in range(random.randint(1, 3)):
            at = random.randrange(4, header)
            if random.random() < 0.3:
                raw[at : at + 8] = random.choice(ends).to_bytes(8, "little")
            else:
                raw[at] = random.randrange(256)
        path.write_bytes(raw)
        try:
            gguf_header.read(path)
            gguf_tensors.modules(gguf_tensors.read(path).tensors)
            outcomes["read"] += 1
        except GateError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


class TestSparseWeights:
    @pytest.mark.parametrize(
        ("linear", "declared"),
        [
            (marlin_24, compressed("marlin-24", weights(4, "int", "group", 128))),
            (
                sparse_24,
                compressed(
                    "float-quantized",
                    weights(8, "float", "channel"),
                    sparsity_config={"format": "sparse-24-bitmask", "targets": ["Linear"]},
                ),
            ),
        ],
    )
    def test_they_are_quantized_and_not_counted(
        self, baseline: ResolvedCheckpoint, tmp_path: Path, linear: Linear, declared: dict[str, Any]
    ) -> None:
        folder = write_llama(tmp_path / "sparse", linear, declared=declared)
        found = inspected(folder)
        assert found.findings == ()
        assert found.contents is not None
        assert (found.contents.n_quantized, found.contents.n_matrices) == (14, 16)
        assert [m.name for m in found.modules if not m.exact and m.n_scales == 0] == []
        (remark,) = compare(baseline, folder)
        assert remark.startswith("parameters were not counted: how compressed-tensors packs them")


@pytest.mark.parametrize(
    "lengths", [(2**62,) * 64, (2**62, 2**62), (1,) * 9, (0, 4), (-1, -4), (2**40, 2**40)], ids=str
)
def test_a_noted_shape_that_is_none_says_nothing(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    tensors = model(hqq)
    tensors[f"{DOWN}.shape"] = shape(*lengths)
    found = inspected(write_llama(tmp_path / "hqq", tensors=tensors, declared=LAYOUTS["hqq"].declared))
    (down,) = [m for m in found.modules if m.name == DOWN]
    assert not down.exact
