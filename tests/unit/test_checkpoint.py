"""What a checkpoint is, found out from its files alone."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gate import checkpoint
from gate.checkpoint import digests, modules, quantization, safetensors_header
from gate.checkpoint.digests import default_cache, file_digest
from gate.checkpoint.reference import ALLOWED_PATTERNS, WEIGHTS
from gate.errors import CheckpointError, GateError, Refused, UsageError
from gate.policy import CheckpointSettings
from gate.records import CheckpointRef, Quantization, Role
from tests.checkpoint_factory import (
    PACKED_W4,
    Tensors,
    filled,
    full_precision,
    gguf,
    packed_w4,
    resolved,
    safetensors,
    tokenizer_json,
    with_header,
    write_checkpoint,
)
from tests.layout_factory import Linear, awq, eight_bit, gptq, write_llama

SHARDS = {
    "model-00001-of-00002.safetensors": ("model.embed_tokens.weight", "model.norm.weight"),
    "model-00002-of-00002.safetensors": (
        "lm_head.weight",
        "model.layers.0.mlp.up.weight",
        "model.layers.0.mlp.up.bias",
    ),
}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def describe(cache: Path) -> Callable[..., CheckpointRef]:
    def describing(folder: Path, **changes: Any) -> CheckpointRef:
        return checkpoint.describe(resolved(folder, **changes), Role.BASELINE, cache=cache)

    return describing


Describe = Callable[..., CheckpointRef]


class TestIdentity:
    def test_every_field_of_a_plain_checkpoint(self, tmp_path: Path, describe: Describe) -> None:
        folder = write_checkpoint(tmp_path / "model")
        found = describe(folder, uri="bank", revision="abc")
        lines = "".join(
            f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
            for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
        )
        assert found.digest == hashlib.sha256("".join(sorted(lines.splitlines(keepends=True))).encode()).hexdigest()
        assert (found.role, found.uri, found.revision) == (Role.BASELINE, "bank", "abc")
        assert found.weight_bytes == (folder / "model.safetensors").stat().st_size
        assert found.n_parameters == 176
        assert found.architecture == "LlamaForCausalLM"
        assert found.quantization is None

    def test_a_readme_changes_the_digest_but_not_the_tensors(self, tmp_path: Path, describe: Describe) -> None:
        folder = write_checkpoint(tmp_path / "model")
        before = describe(folder)
        (folder / "README.md").write_text("new words")
        after = describe(folder)
        assert after.digest != before.digest
        assert after.tensor_digest == before.tensor_digest
        assert after.effective_digest == before.effective_digest

    def test_version_control_and_download_caches_do_not_count(self, tmp_path: Path, describe: Describe) -> None:
        folder = write_checkpoint(tmp_path / "model")
        before = describe(folder)
        for name in (".git/HEAD", ".cache/huggingface/download/x.metadata"):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text("x")
        assert describe(folder) == before

    def test_sharding_does_not_change_the_tensor_digest(self, tmp_path: Path, describe: Describe) -> None:
        whole = describe(write_checkpoint(tmp_path / "whole"))
        sharded = describe(write_checkpoint(tmp_path / "sharded", shards=SHARDS))
        assert sharded.tensor_digest == whole.tensor_digest
        assert sharded.digest != whole.digest
        assert sharded.n_parameters == whole.n_parameters

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"model.norm.weight": filled("F32", (8,), 6)}, id="bytes"),
            pytest.param({"model.norm.weight": filled("I32", (8,), 5)}, id="dtype"),
            pytest.param({"model.norm.weight": filled("F32", (2, 4), 5)}, id="shape"),
        ],
    )
    def test_the_tensor_digest_covers_bytes_dtypes_and_shapes(
        self, tmp_path: Path, describe: Describe, change: Tensors
    ) -> None:
        before = describe(write_checkpoint(tmp_path / "one"))
        after = describe(write_checkpoint(tmp_path / "two", {**full_precision(), **change}))
        assert after.tensor_digest != before.tensor_digest

    def test_swapped_tensor_names_change_the_tensor_digest(self, tmp_path: Path, describe: Describe) -> None:
        tensors = full_precision()
        one, two = "model.norm.weight", "model.layers.0.mlp.up.bias"
        swapped = {**tensors, one: tensors[two], two: tensors[one]}
        before = describe(write_checkpoint(tmp_path / "one", tensors))
        assert describe(write_checkpoint(tmp_path / "two", swapped)).tensor_digest != before.tensor_digest

    def test_load_settings_make_another_checkpoint_of_the_same_files(self, tmp_path: Path, describe: Describe) -> None:
        folder = write_checkpoint(tmp_path / "model")
        plain, cast = describe(folder), describe(folder, dtype="bfloat16")
        nf4 = describe(folder, load={"method": "bitsandbytes-nf4"})
        assert len({plain.effective_digest, cast.effective_digest, nf4.effective_digest}) == 3
        assert plain.tensor_digest == cast.tensor_digest == nf4.tensor_digest
        assert nf4.quantization == Quantization(method="bitsandbytes", bits=4.0, group_size=None, scheme="nf4")

    def test_quantizing_twice_is_an_error(self, tmp_path: Path, describe: Describe) -> None:
        folder = write_checkpoint(tmp_path / "model", packed_w4(), quantization=PACKED_W4)
        with pytest.raises(CheckpointError, match=r"already quantized \(compressed-tensors\).*'bitsandbytes-nf4'"):
            describe(folder, load={"method": "bitsandbytes-nf4"})

    def test_a_fake_checkpoint_is_described_without_weights(self, tmp_path: Path, describe: Describe) -> None:
        folder = tmp_path / "fake"
        folder.mkdir()
        script = {"kind": "fake", "n_parameters": 1000, "quantization": {"method": "fake", "bits": 4}}
        (folder / "fake.json").write_text(json.dumps(script))
        found = describe(folder)
        assert (found.architecture, found.n_parameters) == ("fake", 1000)
        assert found.quantization == Quantization(method="fake", bits=4, group_size=None, scheme=None)
        (folder / "fake.json").write_text(json.dumps(script | {"seed": 1}))
        changed = describe(folder)
        assert changed.effective_digest != found.effective_digest
        assert changed.tokenizer_digest == found.tokenizer_digest

    def test_nothing_heavy_is_imported(self, tmp_path: Path) -> None:
        folder = write_checkpoint(tmp_path / "model")
        code = f"""
import sys
from pathlib import Path
from gate import checkpoint, intake
from gate.records import Role
at = checkpoint.resolve({str(folder)!r}, policy_checkpoints={{}}, base=Path(), offline=True)
ref = checkpoint.describe(at, Role.BASELINE, cache=Path({str(tmp_path / "cache")!r}))
intake.compare(ref, ref, baseline_at=at, candidate_at=at, allow_identical=True)
print(sorted(set(sys.modules) & {{"torch", "transformers", "scipy", "pyarrow", "huggingface_hub"}}))
"""
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class TestDigestCache:
    def test_a_settled_file_is_hashed_once_and_a_changed_one_again(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(digests, "_RACY_NS", -1)
        path = tmp_path / "file"
        path.write_bytes(b"one")
        first = file_digest(path, (), cache)
        assert first.sha256 == hashlib.sha256(b"one").hexdigest()
        reads: list[Path] = []
        hash_file = digests._hash

        def counted(path: Path, tensors: Sequence[safetensors_header.Tensor]) -> digests.FileDigest:
            reads.append(path)
            return hash_file(path, tensors)

        monkeypatch.setattr(digests, "_hash", counted)
        assert file_digest(path, (), cache) == first
        assert reads == []
        time.sleep(0.02)
        path.write_bytes(b"two")
        assert file_digest(path, (), cache).sha256 == hashlib.sha256(b"two").hexdigest()
        assert reads == [path]

    def test_a_file_of_a_moment_ago_is_not_remembered(self, tmp_path: Path, cache: Path) -> None:
        path = tmp_path / "file"
        for content in (b"one", b"two", b"six"):  # same size, same inode, perhaps the same tick of the clock
            path.write_bytes(content)
            assert file_digest(path, (), cache).sha256 == hashlib.sha256(content).hexdigest()
        assert not cache.exists()

    def test_tensors_come_back_from_the_cache(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(digests, "_RACY_NS", -1)
        path = tmp_path / "model.safetensors"
        path.write_bytes(safetensors(full_precision()))
        tensors = safetensors_header.read(path)
        first = file_digest(path, tensors, cache)
        assert [t[0] for t in first.tensors] == sorted(full_precision())
        assert file_digest(path, tensors, cache) == first

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"stamp": 1}'])
    def test_a_broken_cache_only_costs_time(
        self, tmp_path: Path, cache: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(digests, "_RACY_NS", -1)
        path = tmp_path / "file"
        path.write_bytes(b"one")
        first = file_digest(path, (), cache)
        (entry,) = cache.iterdir()
        entry.write_bytes(content)
        assert file_digest(path, (), cache) == first

    def test_the_cache_follows_xdg(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert default_cache() == tmp_path / "quantgate" / "digests"


def _values(*numbers: float, code: str = "<f") -> bytes:
    return b"".join(struct.pack(code, n) for n in numbers)


NUMBERS: dict[str, tuple[str, str, bytes, int]] = {
    "float32": ("w.weight", "F32", _values(1, math.nan, -math.inf, 3e38), 2),
    "float64": ("w.weight", "F64", _values(1, math.inf, code="<d"), 1),
    "float16": ("w.scales", "F16", _values(1, 65504, math.inf, math.nan, code="<e"), 2),
    "bfloat16": ("w.weight_scale", "BF16", b"\x80\x3f\xc0\x7f\x80\xff\x7f\x7f", 2),
    "float8 e4m3": ("w.weight", "F8_E4M3", b"\x7e\x7f\xff\x00", 2),
    "float8 e5m2": ("w.weight", "F8_E5M2", b"\x7b\x7c\xfd\x00", 2),
    "float8 without infinities": ("w.weight", "F8_E4M3FNUZ", b"\x80\x7f", 1),
    "MX scales": ("w.weight_scale", "F8_E8M0", b"\xfe\xff", 1),
    "MX scales as bytes": ("w.weight_scale", "U8", b"\xfe\xff", 1),
    "MX scales of experts": ("experts.down_proj_scales", "U8", b"\xff\xff", 2),
    "codes": ("w.weight_packed", "U8", b"\xff\xff", 0),
    "integers": ("w.qweight", "I32", b"\xff" * 8, 0),
    "a mask": ("attn.causal_mask", "F32", _values(-math.inf, 0), 0),
}


class TestNotANumber:
    def digest(self, tmp_path: Path, tensors: Tensors) -> digests.FileDigest:
        path = tmp_path / "model.safetensors"
        path.write_bytes(safetensors(tensors))
        return file_digest(path, safetensors_header.read(path), tmp_path / "cache")

    @pytest.mark.parametrize("name", NUMBERS)
    def test_by_dtype(self, tmp_path: Path, name: str) -> None:
        tensor, dtype, raw, count = NUMBERS[name]
        shape = (len(raw) * 8 // safetensors_header.BITS[dtype],)
        found = self.digest(tmp_path, {tensor: (dtype, shape, raw)})
        assert found.not_finite == (((tensor, count),) if count else ())

    def test_in_every_piece_of_a_long_tensor(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(digests, "_CHUNK_BYTES", 64)
        raw = bytearray(1000)
        for place in (62, 64, 998):
            raw[place : place + 2] = b"\x80\x7f"
        found = self.digest(tmp_path, {"a": filled("F32", (3,), 1), "w": ("BF16", (500,), bytes(raw))})
        assert found.not_finite == (("w", 3),)
        assert found.tensors[1][3] == hashlib.sha256(raw).hexdigest()
        assert found.sha256 == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()

    def test_it_is_remembered(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(digests, "_RACY_NS", -1)
        tensors = {"w": ("F32", (1,), _values(math.nan))}
        first = self.digest(tmp_path, tensors)
        assert first.not_finite == (("w", 1),)
        monkeypatch.setattr(digests, "_hash", lambda *_: pytest.fail("read again"))
        path = tmp_path / "model.safetensors"
        assert file_digest(path, safetensors_header.read(path), tmp_path / "cache") == first

    def test_a_memory_from_before_there_was_a_scan_is_not_believed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(digests, "_RACY_NS", -1)
        tensors = {"w": ("F32", (1,), _values(math.nan))}
        monkeypatch.setattr(digests, "_VERSION", 1)
        self.digest(tmp_path, tensors)
        (entry,) = (tmp_path / "cache").iterdir()
        old = json.loads(entry.read_bytes())
        del old["not_finite"]
        entry.write_text(json.dumps(old))
        monkeypatch.setattr(digests, "_VERSION", 2)
        path = tmp_path / "model.safetensors"
        found = file_digest(path, safetensors_header.read(path), tmp_path / "cache")
        assert found.not_finite == (("w", 1),)

    @pytest.mark.parametrize("role", Role)
    def test_a_run_refuses_it(self, tmp_path: Path, role: Role) -> None:
        tensors = {**full_precision(), "model.norm.weight": ("F32", (8,), _values(*[1.0] * 6, math.nan, math.inf))}
        at = resolved(write_checkpoint(tmp_path / "model", tensors))
        with pytest.raises(Refused, match=r"'model\.norm\.weight' holds 2 values that are NaN or infinite: quantize"):
            checkpoint.describe(at, role, cache=tmp_path / "cache")


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _cut(name: str, n_bytes: int) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, n_bytes)


def _tensor(**changes: Any) -> bytes:
    return with_header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}, bytes(8))


TWO = {"dtype": "F32", "shape": [2]}
BROKEN: dict[str, tuple[Callable[[Path], object], type[GateError], str]] = {
    "no config": (_remove("config.json"), CheckpointError, r"config\.json is missing.*download it again"),
    "config is not JSON": (_write("config.json", b'{"a": '), CheckpointError, "not readable JSON"),
    "config is a list": (_write("config.json", b"[]"), CheckpointError, "holds a list, expected a JSON object"),
    "no architecture": (_write("config.json", b"{}"), CheckpointError, "names no architecture"),
    "no weights": (
        _remove("model.safetensors"),
        CheckpointError,
        "found no weights, expected model.safetensors.*only in another format such as pickles",
    ),
    "truncated tensors": (_cut("model.safetensors", 900), CheckpointError, r"truncated: found 900 bytes.*promises \d+"),
    "truncated header": (_cut("model.safetensors", 100), CheckpointError, "truncated: found 100 bytes"),
    "empty weights": (_cut("model.safetensors", 0), CheckpointError, "has 0 bytes"),
    "git-lfs pointer": (
        _write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n"),
        CheckpointError,
        "git-lfs pointer of 64 bytes.*git lfs pull",
    ),
    "html instead of weights": (_write("model.safetensors", b"<!doctype html>"), Refused, "announces a header of"),
    "no tokenizer": (_remove("tokenizer.json"), CheckpointError, "has no tokenizer: expected tokenizer.json"),
    "broken tokenizer": (_write("tokenizer.json", b"{}"), CheckpointError, "is no tokenizer"),
    "unfinished download": (_write("xyz.incomplete", b""), CheckpointError, r"holds xyz\.incomplete.*`gate fetch`"),
    "dangling link": (lambda f: (f / "a").symlink_to("gone"), CheckpointError, "link to gone, which is not there"),
    "linked folder": (
        lambda f: (f / "sub").symlink_to(f.parent, target_is_directory=True),
        Refused,
        "link to a folder",
    ),
    "pipe": (lambda f: os.mkfifo(f / "pipe"), Refused, "neither a file nor a folder"),
    "trailing bytes": (
        lambda f: (f / "model.safetensors").write_bytes(safetensors(full_precision()) + b"x"),
        Refused,
        "unexplained bytes at the end",
    ),
    "hole": (
        _write("model.safetensors", with_header({"w": TWO | {"data_offsets": [4, 12]}}, bytes(12))),
        Refused,
        "hole or an overlap",
    ),
    "overlap": (
        _write(
            "model.safetensors",
            with_header({"a": TWO | {"data_offsets": [0, 8]}, "b": TWO | {"data_offsets": [4, 12]}}, bytes(12)),
        ),
        Refused,
        "'b' begins at byte .*overlap",
    ),
    "shape against bytes": (_write("model.safetensors", _tensor(shape=[3])), Refused, "do not fit its shape"),
    "negative shape": (_write("model.safetensors", _tensor(shape=[-1, -2])), Refused, "do not fit its shape"),
    "unknown dtype": (_write("model.safetensors", _tensor(dtype="Q2_K")), Refused, "expected a known dtype"),
    "duplicate names": (
        _write("model.safetensors", b"\x0f\0\0\0\0\0\0\0" + b'{"a":{},"a":{}}'),
        Refused,
        "names 'a' twice",
    ),
    "no tensors": (_write("model.safetensors", with_header({}, b"")), CheckpointError, "holds no tensors"),
    "two sets of weights": (
        _write("model.safetensors.index.json", b'{"weight_map": {"a": "b.safetensors"}}'),
        CheckpointError,
        "loaders disagree",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_checkpoints_are_told_apart(tmp_path: Path, describe: Describe, name: str) -> None:
    damage, expected, message = BROKEN[name]
    folder = write_checkpoint(tmp_path / "model")
    damage(folder)
    with pytest.raises(expected, match=f"(?s){message}") as raised:
        describe(folder)
    assert type(raised.value) is expected


@pytest.mark.parametrize(
    ("damage", "expected", "message"),
    [
        (
            _remove("model-00002-of-00002.safetensors"),
            CheckpointError,
            "1 of 2 weight files.*missing, first model-00002",
        ),
        (_remove("model.safetensors.index.json"), CheckpointError, "no model.safetensors.index.json.*incomplete"),
        (_cut("model-00001-of-00002.safetensors", 300), CheckpointError, "00001-of-00002.safetensors is truncated"),
        (
            _write("model.safetensors.index.json", b'{"weight_map": {"w": "../other/model.safetensors"}}'),
            Refused,
            "'../other/model.safetensors', expected safetensors files inside",
        ),
        (
            _write("model.safetensors.index.json", b'{"weight_map": {"w": ".cache/model.safetensors"}}'),
            Refused,
            "inside the checkpoint's folder",
        ),
        (
            _write("model.safetensors.index.json", b'{"weight_map": {"w": "/etc/model.safetensors"}}'),
            Refused,
            "inside the checkpoint's folder",
        ),
        (
            _write("model.safetensors.index.json", b'{"weight_map": {"w": "pytorch_model.bin"}}'),
            Refused,
            "expected safetensors files",
        ),
        (_write("model.safetensors.index.json", b'{"metadata": {}}'), CheckpointError, "no usable weight_map"),
        (
            lambda f: shutil.copy(f / "model-00001-of-00002.safetensors", f / "model-00002-of-00002.safetensors"),
            CheckpointError,
            "does not hold it",
        ),
    ],
)
def test_broken_shards_are_told_apart(
    tmp_path: Path, describe: Describe, damage: Callable[[Path], object], expected: type[GateError], message: str
) -> None:
    folder = write_checkpoint(tmp_path / "model", shards=SHARDS)
    assert describe(folder).n_parameters == 176
    damage(folder)
    with pytest.raises(expected, match=message) as raised:
        describe(folder)
    assert type(raised.value) is expected


class TestUnsafeWeights:
    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
    def test_only_pickles_are_refused(self, tmp_path: Path, describe: Describe, name: str) -> None:
        folder = write_checkpoint(tmp_path / "model")
        (folder / "model.safetensors").rename(folder / name)
        with pytest.raises(Refused, match=f"only as {name}, a pickle that runs code"):
            describe(folder)

    def test_a_pickle_beside_safetensors_is_no_reason_to_refuse(self, tmp_path: Path, describe: Describe) -> None:
        folder = write_checkpoint(tmp_path / "model")
        (folder / "pytorch_model.bin").write_bytes(b"duplicate")
        assert describe(folder).n_parameters == 176

    def test_an_adapter_is_not_a_model(self, tmp_path: Path, describe: Describe) -> None:
        folder = write_checkpoint(tmp_path / "model")
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
        with pytest.raises(CheckpointError, match=r"holds an adapter.*merge it"):
            describe(folder)

    def test_an_unknown_method_is_refused(self, tmp_path: Path, describe: Describe) -> None:
        folder = write_checkpoint(tmp_path / "model", quantization={"quant_method": "magic"})
        with pytest.raises(Refused, match="quant_method 'magic', which no loader knows"):
            describe(folder)


GROUP = PACKED_W4["config_groups"]["group_0"]  # type: ignore[index]
DECLARATIONS: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
    (dict(PACKED_W4), ("compressed-tensors", 4.0, 4, "W4A16 group (pack-quantized)")),
    (
        {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "config_groups": {
                "g": {
                    "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
                    "input_activations": {"num_bits": 8},
                }
            },
        },
        ("compressed-tensors", 8.0, None, "FP8A8 channel (float-quantized)"),
    ),
    (
        {
            "quant_method": "compressed-tensors",
            "format": "mixed-precision",
            "config_groups": {"a": GROUP, "b": {"weights": {"num_bits": 8, "type": "int", "strategy": "channel"}}},
        },
        ("compressed-tensors", None, None, "mixed (mixed-precision)"),
    ),
    ({"quant_method": "gptq", "bits": 4, "group_size": 128}, ("gptq", 4.0, 128, "W4A16")),
    ({"quant_method": "gptq", "bits": 8, "group_size": -1}, ("gptq", 8.0, None, "W8A16")),
    ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, ("awq", 4.0, 64, "W4A16")),
    (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        ("bitsandbytes", 4.0, None, "nf4"),
    ),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, ("bitsandbytes", 8.0, None, "int8")),
    ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ("fp8", 8.0, None, "128x128 blocks")),
    ({"quant_method": "mxfp4"}, ("mxfp4", 4.0, 32, None)),
    ({"quant_method": "torchao", "quant_type": {}}, ("torchao", None, None, None)),
]


@pytest.mark.parametrize(("config", "expected"), DECLARATIONS, ids=lambda v: str(v)[:40])
def test_declared_quantization(config: dict[str, Any], expected: tuple[Any, ...]) -> None:
    method, bits, group_size, scheme = expected
    assert quantization.declared({"quantization_config": config}, {}) == Quantization(
        method=method, bits=bits, group_size=group_size, scheme=scheme
    )


@pytest.mark.parametrize("config", ["gptq", {"quant_method": "gptq", "bits": "four"}])
def test_a_malformed_declaration_is_an_error(config: Any) -> None:
    with pytest.raises(CheckpointError, match="quantization_config"):
        quantization.declared({"quantization_config": config}, {})


@pytest.mark.parametrize(
    ("name", "content", "linear", "expected"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 32}, gptq(), ("gptq", 4.0)),
        ("quant_config.json", {"w_bit": 4}, awq, ("awq", 4.0)),
        (
            "hf_quant_config.json",
            {"quantization": {"quant_algo": "FP8"}},
            eight_bit("F8_E4M3", lambda *_: ()),
            ("modelopt", 8.0),
        ),
    ],
)
def test_a_declaration_may_be_in_its_own_file(
    tmp_path: Path, describe: Describe, name: str, content: dict[str, Any], linear: Linear, expected: tuple[str, float]
) -> None:
    folder = write_llama(tmp_path / "model", linear)
    (folder / name).write_text(json.dumps(content))
    found = describe(folder).quantization
    assert found is not None
    assert (found.method, found.bits) == expected


PACKINGS: dict[str, tuple[Tensors, float | None, int]] = {
    "compressed-tensors, 3 bits, padded": (
        {
            "m.weight_packed": filled("I32", (4, 1), 1),
            "m.weight_shape": ("I64", (2,), (4).to_bytes(8, "little") + (9).to_bytes(8, "little")),
            "m.weight_scale": filled("F32", (4, 1), 1),
            "m.weight_zero_point": filled("I32", (1, 1), 1),
        },
        3.0,
        36,
    ),
    "gptq": (
        {
            "m.qweight": filled("I32", (2, 16), 1),
            "m.qzeros": filled("I32", (1, 2), 1),
            "m.scales": filled("F16", (1, 16), 1),
            "m.g_idx": filled("I32", (16,), 1),
        },
        4.0,
        256,
    ),
    "bitsandbytes nf4, nested": (
        {
            "m.weight": filled("U8", (128, 1), 1),
            "m.weight.absmax": filled("U8", (4,), 1),
            "m.weight.quant_map": filled("F32", (16,), 1),
            "m.weight.nested_absmax": filled("F32", (1,), 1),
            "m.weight.nested_quant_map": filled("F32", (256,), 1),
            "m.weight.quant_state.bitsandbytes__nf4": filled("U8", (79,), 1),
        },
        4.0,
        256,
    ),
    "bitsandbytes nf4, stored as bfloat16": (
        {
            "m.weight": filled("BF16", (64, 1), 1),
            "m.weight.quant_state.bitsandbytes__nf4": filled("U8", (79,), 1),
        },
        4.0,
        256,
    ),
    "bitsandbytes int8": (
        {
            "m.weight": filled("I8", (4, 8), 1),
            "m.SCB": filled("F32", (4,), 1),
            "m.weight_format": filled("U8", (), 0),
        },
        8.0,
        32,
    ),
    "fp8": (
        {"m.weight": filled("F8_E4M3", (4, 8), 1), "m.weight_scale_inv": filled("F32", (1, 1), 1)},
        8.0,
        32,
    ),
    "nvfp4": (
        {
            "m.weight_packed": filled("U8", (4, 4), 1),
            "m.weight_scale": filled("F8_E4M3", (4, 1), 1),
            "m.weight_global_scale": filled("F32", (1,), 1),
        },
        4.0,
        32,
    ),
}


@pytest.mark.parametrize("name", PACKINGS)
def test_packed_weights_are_counted_unpacked(tmp_path: Path, name: str) -> None:
    stored, bits, expected = PACKINGS[name]
    folder = write_checkpoint(tmp_path / "model", stored)
    found = checkpoint.inspect(resolved(folder))
    tensors = [t for _, t in found.tensors]
    held = modules.modules(tensors, modules.notes(found.tensors), bits)
    counted = modules.contents(held, tensors)
    assert counted.n_parameters == expected
    assert counted.n_quantized == counted.n_matrices == 1


class TestGguf:
    TENSORS: ClassVar[dict[str, tuple[tuple[int, ...], int, int]]] = {
        "token_embd.weight": ((64, 4), 8, 272),
        "blk.0.ffn_up.weight": ((256, 2), 12, 288),
        "output_norm.weight": ((64,), 0, 256),
        "output.weight": ((64, 4), 1, 512),
    }

    def write(self, folder: Path, content: bytes) -> Path:
        folder.mkdir()
        (folder / "bank-Q4_K_M.gguf").write_bytes(content)
        return folder

    def test_it_is_described_from_its_own_header(self, tmp_path: Path, describe: Describe) -> None:
        folder = self.write(tmp_path / "model", gguf(self.TENSORS))
        load = {"gguf_file": "bank-Q4_K_M.gguf"}
        found = describe(folder, load=load)
        assert (found.architecture, found.n_parameters) == ("llama", 256 + 512 + 64 + 256)
        assert found.quantization == Quantization(method="gguf", bits=None, group_size=None, scheme="Q4_K_M")
        assert found.weight_bytes == (folder / "bank-Q4_K_M.gguf").stat().st_size
        contents = checkpoint.inspect(resolved(folder, load=load)).contents
        assert contents is not None
        assert (contents.n_quantized, contents.n_matrices, contents.n_head) == (2, 3, 256)
        assert contents.dtypes == {"F32": 1, "F16": 1, "ggml type 8": 1, "ggml type 12": 1}
        (folder / "README.md").write_text("words")
        assert describe(folder, load=load).effective_digest == found.effective_digest

    @pytest.mark.parametrize("size", [3, 10, 60, 200, 1000])
    def test_truncated(self, tmp_path: Path, describe: Describe, size: int) -> None:
        folder = self.write(tmp_path / "model", gguf(self.TENSORS)[:size])
        with pytest.raises(CheckpointError, match=r"truncated|does not begin with GGUF"):
            describe(folder, load={"gguf_file": "bank-Q4_K_M.gguf"})

    @pytest.mark.parametrize("name", ["absent.gguf", "../model.gguf"])
    def test_it_must_be_in_the_folder(self, tmp_path: Path, describe: Describe, name: str) -> None:
        folder = self.write(tmp_path / "model", gguf(self.TENSORS))
        (tmp_path / "model.gguf").write_bytes(gguf(self.TENSORS))
        with pytest.raises(CheckpointError, match="expected the GGUF file that `load` names"):
            describe(folder, load={"gguf_file": name})


class TestTokenizerDigest:
    def test_saved_state_and_spelling_do_not_count(self, tmp_path: Path, describe: Describe) -> None:
        """transformers saves truncation, padding and its own version with a tokenizer that was used."""
        plain = write_checkpoint(tmp_path / "plain")
        saved = tokenizer_json(truncation={"max_length": 3}, padding={"pad_id": 0})
        saved["model"]["merges"] = ["a b", "b c"]
        resaved = write_checkpoint(
            tmp_path / "resaved",
            tokenizer=saved,
            tokenizer_config={"bos_token": {"content": "<s>", "lstrip": False}, "pad_token": "</s>", "is_local": True},
        )
        assert describe(resaved).tokenizer_digest == describe(plain).tokenizer_digest

    @pytest.mark.parametrize(
        "change",
        [
            {"normalizer": {"type": "Lowercase"}},
            {"added_tokens": [{"id": 6, "content": "<new>"}]},
            {"model": tokenizer_json()["model"] | {"merges": [["b", "c"], ["a", "b"]]}},
            {"model": tokenizer_json()["model"] | {"byte_fallback": True}},
        ],
        ids=["normalizer", "added token", "order of merges", "model settings"],
    )
    def test_what_changes_tokens_counts(self, tmp_path: Path, describe: Describe, change: dict[str, Any]) -> None:
        plain = describe(write_checkpoint(tmp_path / "plain"))
        other = describe(write_checkpoint(tmp_path / "other", tokenizer=tokenizer_json(**change)))
        assert other.tokenizer_digest != plain.tokenizer_digest

    def test_a_tokenizer_may_come_from_elsewhere(self, tmp_path: Path, describe: Describe) -> None:
        folder = write_checkpoint(tmp_path / "model")
        own = describe(folder).tokenizer_digest
        (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
        shutil.copy(folder / "tokenizer_config.json", tmp_path / "tokenizer_config.json")
        assert describe(folder, tokenizer=str(tmp_path)).tokenizer_digest == own

    def test_sentencepiece_and_unigram_vocabularies(self, tmp_path: Path, describe: Describe) -> None:
        folder = write_checkpoint(
            tmp_path / "unigram",
            tokenizer=tokenizer_json(model={"type": "Unigram", "vocab": [["<s>", 0.0], ["a", -1.5]]}),
        )
        before = describe(folder).tokenizer_digest
        (folder / "tokenizer.model").write_bytes(b"another file for the same tokenizer")
        assert describe(folder).tokenizer_digest == before
        (folder / "tokenizer.json").unlink()
        alone = describe(folder).tokenizer_digest
        (folder / "tokenizer.model").write_bytes(b"changed")
        assert describe(folder).tokenizer_digest != alone


class TestResolve:
    def resolve(self, ref: str, base: Path, *, offline: bool = False, **names: CheckpointSettings) -> Any:
        return checkpoint.resolve(ref, policy_checkpoints=names, base=base, offline=offline)

    def test_a_name_from_the_policy(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "tok").mkdir()
        settings = CheckpointSettings(
            path="./model", load={"method": "bitsandbytes-nf4"}, dtype="bfloat16", tokenizer="tok"
        )
        found = self.resolve("nf4", tmp_path, nf4=settings)
        assert found.path == (tmp_path / "model").resolve()
        assert (found.load, found.dtype) == ({"method": "bitsandbytes-nf4"}, "bfloat16")
        assert found.tokenizer == str((tmp_path / "tok").resolve())
        assert (found.uri, found.revision) == ("nf4", None)

    def test_a_local_folder_is_relative_to_where_the_user_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here" / "model").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "here")
        found = self.resolve("model", tmp_path / "elsewhere")
        assert found.path == (tmp_path / "here" / "model").resolve()
        assert found.uri == "model"

    @pytest.mark.parametrize("ref", ["./missing", "/missing/model", "a/b/c", "~nobody-here/x"])
    def test_a_missing_folder(self, tmp_path: Path, ref: str) -> None:
        with pytest.raises(CheckpointError, match=f"there is no folder '{ref}'"):
            self.resolve(ref, tmp_path)

    def test_a_missing_folder_named_by_the_policy(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"there is no folder './gone'"):
            self.resolve("nf4", tmp_path, nf4=CheckpointSettings(path="./gone"))

    def test_a_misspelt_name_gets_suggestions(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"found 'nf5'.*did you mean 'nf4'"):
            self.resolve("nf5", tmp_path, nf4=CheckpointSettings(path="x"))

    @pytest.mark.parametrize("ref", ["two words", "", "a//b@c", "org/model@", "a\nb"])
    def test_nonsense_is_a_usage_error(self, tmp_path: Path, ref: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(UsageError, match="expected a name from the policy's checkpoints table"):
            self.resolve(ref, tmp_path)

    def test_a_file_is_not_a_checkpoint(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes(b"")
        with pytest.raises(UsageError, match="is a file, expected the checkpoint's folder"):
            self.resolve(str(tmp_path / "model.safetensors"), tmp_path)

    def cached(self, cache: Path, commit: str) -> Path:
        """A repository in the layout of the Hugging Face cache."""
        root = cache / "models--org--model"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text(commit)
        return write_checkpoint(root / "snapshots" / commit)

    def test_hub_checkpoints_come_from_the_local_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, describe: Describe
    ) -> None:
        import huggingface_hub
        from huggingface_hub import snapshot_download

        commit = "0123456789abcdef0123456789abcdef01234567"
        folder = self.cached(tmp_path / "hub", commit)
        asked: list[dict[str, Any]] = []

        def download(repo: str, **options: Any) -> str:
            asked.append(options)
            return str(snapshot_download(repo, cache_dir=tmp_path / "hub", **options))

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        for ref in ("org/model", f"org/model@{commit}"):
            found = self.resolve(ref, tmp_path)
            assert found.path.resolve() == folder.resolve()
            assert (found.uri, found.revision) == ("org/model", commit)
            assert describe(found.path).n_parameters == 176
        assert all(options["local_files_only"] for options in asked)
        # else everything that `fetch` leaves out would count as missing
        assert all(options["allow_patterns"] == [*ALLOWED_PATTERNS, WEIGHTS] for options in asked)
        with pytest.raises(CheckpointError, match=r"found no folder 'org/other'.*run `gate fetch`.*first"):
            self.resolve("org/other", tmp_path)
        with pytest.raises(CheckpointError, match=r"'org/model@v2'.*on a machine with a network"):
            self.resolve("org/model@v2", tmp_path, offline=True)

    def test_a_partial_download_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub
        from huggingface_hub.errors import IncompleteSnapshotError

        def partial(*_: Any, **__: Any) -> str:
            raise IncompleteSnapshotError("1 file(s) are missing (tokenizer.json)", snapshot_path="x")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", partial)
        with pytest.raises(CheckpointError, match=r"'org/model' was downloaded in part.*tokenizer\.json.*`gate fetch`"):
            self.resolve("org/model", tmp_path)

    def test_fetch_downloads_no_pickles(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import fnmatch

        import huggingface_hub

        folder = write_checkpoint(tmp_path / "hub" / "abc")
        asked: list[dict[str, Any]] = []

        def download(_: str, **options: Any) -> str:
            asked.append(options)
            return str(folder)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        found = checkpoint.fetch("org/model@v1", policy_checkpoints={}, base=tmp_path)
        assert (found.path, found.uri, found.revision) == (folder, "org/model", "abc")
        (options,) = asked
        assert options["revision"] == "v1"
        assert options["local_files_only"] is False
        wanted = {
            name
            for name in (
                "model.safetensors",
                "tokenizer.json",
                "tokenizer.model",
                "merges.txt",
                "pytorch_model.bin",
                "m.py",
                "recipe.yaml",
                "README.md",
                "tiktoken.model",
                "tekken.json",
            )
            if any(fnmatch.fnmatch(name, pattern) for pattern in options["allow_patterns"])
        }
        tokenizers = {"tokenizer.json", "tokenizer.model", "merges.txt", "tiktoken.model", "tekken.json"}
        assert wanted == {"model.safetensors", "recipe.yaml", "README.md"} | tokenizers

    def test_a_failed_download_says_why(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        def failing(*_: Any, **__: Any) -> str:
            raise ConnectionError("no route to host")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", failing)
        with pytest.raises(CheckpointError, match=r"could not download 'org/model'.*no route to host"):
            checkpoint.fetch("org/model", policy_checkpoints={}, base=tmp_path)

    def test_fetching_a_local_folder_downloads_nothing(self, tmp_path: Path) -> None:
        found = checkpoint.fetch(str(write_checkpoint(tmp_path / "model")), policy_checkpoints={}, base=tmp_path)
        assert found.path == (tmp_path / "model").resolve()
