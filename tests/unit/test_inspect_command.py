"""`gate inspect`: what a release manager reads, what a program reads, and what it costs."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.sparse_inspect import sparse_llama
from gate import inspection
from gate.cli import main
from gate.commands.inspect import show
from gate.records import Role
from tests.checkpoint_factory import filled, gguf, resolved
from tests.layout_factory import INT4, LAYOUTS, N_PARAMETERS, model, packed, plain, write_llama

WORLD = Path(__file__).parents[2] / "gate" / "demo" / "world"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `base` and `w4a16` to be in."""
    write_llama(tmp_path / "base")
    folder = write_llama(tmp_path / "w4a16", packed(), declared=INT4)
    (folder / "README.md").write_text("---\nbase_model: bank/base\n---\n")
    (folder / "recipe.yaml").write_text("s: {m: {GPTQModifier: {dampening_frac: 0.01}}}")
    (folder / "pytorch_model.bin").write_bytes(b"a duplicate")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["inspect", *arguments])
    return code, capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out = run(capsys, *arguments, "--format", "json")
    return code, json.loads(out)


class TestText:
    def test_a_page(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, out = run(capsys, "w4a16", "--baseline", "base")
        assert code == 0
        lines = [line.rstrip() for line in out.splitlines()]
        for expected in (
            "architecture   LlamaForCausalLM, 329,856 parameters",
            "quantization   compressed-tensors, W4A16 group (pack-quantized)",
            "               4-bit int, one scale per group 128, symmetric, activations not quantized, for Linear",
            "quantized      14 of 16 weight matrices, 99% of all weights",
            "left alone     lm_head",
            "KV cache       not quantized",
            "calibration    GPTQModifier: dampening_frac 0.01",
            "made from      base (README.md)",
            "not loaded     pytorch_model.bin",
            "OK  comparable with base",
        ):
            assert expected in lines
        assert re.search(r"\nmodel\.layers\.\*\.mlp\.down_proj\s+× 2\s+20%  4-bit, group 128\s+4\.13\s+33\.0 KiB", out)

    @pytest.mark.parametrize("width", [80, 100, 120, 200])
    def test_it_fits_the_terminal(self, world: Path, width: int) -> None:
        seen, outcome = inspection.checked(inspection.look(resolved(world / "w4a16")), role=Role.CANDIDATE, verify=True)
        screen = io.StringIO()
        show(Console(file=screen, width=width), seen, outcome, None)
        lines = screen.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        (row,) = [line for line in lines if line.startswith("model.layers.*.self_attn.q_proj")]
        assert ("10%" in row) == (width >= 100)
        assert re.search(r"× 2 .*4-bit, group 128\s+4\.13\s+16\.5 KiB", row)

    def test_what_strangers_write_is_text(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        declared = INT4 | {"ignore": ["\x1b[31mred\x1b[0m", "[bold]loud[/bold]"]}
        write_llama(world / "loud", packed(), declared=declared)
        _, out = run(capsys, "loud")
        assert "\x1b" not in out
        assert "red, [bold]loud[/bold]" in out

    def test_help_teaches(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out = run(capsys, "--help")
        assert code == 0
        for words in ("--baseline", "--verify", "never the weights", "Exits 0", "hub id@revision"):
            assert words in " ".join(out.split())


class TestVerdicts:
    def test_full_precision_alone_is_fine(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, out = run(capsys, "base")
        assert code == 0
        assert "quantization   none declared" in out
        assert "OK  nothing speaks against evaluating it" in out

    def test_full_precision_against_a_baseline_is_refused(
        self, world: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tensors = {n: ("F16", s, b) for n, (_, s, b) in model().items()}
        write_llama(world / "cast", tensors=tensors)
        code, out = run(capsys, "cast", "--baseline", "base")
        assert code == 5
        assert "REFUSED  the candidate 'cast' is not quantized" in out

    def test_a_contradiction_is_shown_with_its_layers(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_llama(world / "liar", packed(8), declared=INT4)
        code, out = run(capsys, "liar")
        assert code == 5
        assert "8-bit, group 128" in out
        assert "REFUSED  the checkpoint 'liar' is not what it says: it declares 4-bit weights" in out

    def test_another_model(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_llama(world / "other", packed(), declared=INT4, config={"rms_norm_eps": 1.0})
        code, out = run(capsys, "other", "--baseline", "base")
        assert code == 4
        assert "ERROR  the candidate's config.json describes another model" in out

    @pytest.mark.parametrize("more", [(), ("--verify",)], ids=["headers", "hashed"])
    def test_the_baseline_itself(self, world: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]) -> None:
        code, out = run(capsys, "base", "--baseline", "base", *more)
        assert code == 2
        assert "USAGE  --candidate 'base' is the baseline itself" in out
        code, out = run(capsys, "base", "--baseline", "base", "--allow-identical", *more)
        assert code == 0
        assert "an A/A comparison" in out

    def test_a_baseline_that_cannot_be_used(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_llama(world / "broken", packed(8), declared=INT4)
        assert main(["inspect", "w4a16", "--baseline", "broken"]) == 5
        assert "gate: the checkpoint 'broken' is not what it says" in capsys.readouterr().err

    def test_an_unsafe_folder(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (world / "w4a16" / "secret").symlink_to("/etc/hostname")
        assert main(["inspect", "w4a16"]) == 5
        assert "secret is a link out of the checkpoint" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["README.md", "recipe.yaml", "tokenizer.model"])
    def test_a_pipe_is_not_opened(self, world: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
        (world / "w4a16" / name).unlink(missing_ok=True)
        os.mkfifo(world / "w4a16" / name)
        assert main(["inspect", "w4a16"]) == 5
        assert f"{name} is neither a file nor a folder but a pipe" in capsys.readouterr().err

    def test_a_file_of_gigabytes_is_not_read(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (world / "w4a16" / "tokenizer.model").touch()
        os.truncate(world / "w4a16" / "tokenizer.model", 20 * 2**30)  # sparse: it takes no room
        assert main(["inspect", "w4a16"]) == 5
        assert "tokenizer.model is larger than 52428800 bytes" in capsys.readouterr().err

    def test_a_name_commands_no_build_server(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_llama(world / "loud", tensors=model() | {"m\n::error::hi.weight": filled("F32", (2, 2), 1)})
        assert main(["inspect", "loud"]) == 5
        assert not [line for line in capsys.readouterr().err.splitlines() if line.startswith("::")]

    def test_a_missing_folder(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["inspect", "./nowhere"]) == 4
        assert "there is no folder './nowhere'" in capsys.readouterr().err


class TestVerify:
    def test_digests(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, found = document(capsys, "w4a16", "--verify")
        assert code == 0
        assert re.fullmatch(r"[0-9a-f]{64}", found["digests"]["tensor_digest"])
        assert document(capsys, "w4a16")[1]["digests"] is None

    @pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight_scale", "model.norm.weight"])
    def test_a_number_that_is_none(self, world: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
        tensors = model(packed())
        dtype, shape, raw = tensors[name]
        tensors[name] = dtype, shape, raw[:-2] + b"\xc0\x7f"  # NaN in bfloat16
        write_llama(world / "nan", tensors=tensors, declared=INT4)
        assert run(capsys, "nan")[0] == 0  # the headers do not show it
        code, out = run(capsys, "nan", "--verify")
        assert code == 5
        assert f"tensor '{name}' holds 1 values that are NaN or infinite" in out


class TestJson:
    def test_its_keys(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, found = document(capsys, "w4a16", "--baseline", "base")
        assert code == found["exit_code"] == 0
        assert found["accepted"] is True
        assert found["problem"] is None
        assert found["n_parameters"] == N_PARAMETERS
        assert found["quantization"] == {
            "method": "compressed-tensors",
            "bits": 4.0,
            "group_size": 128,
            "scheme": "W4A16 group (pack-quantized)",
        }
        assert (found["n_quantized"], found["n_matrices"]) == (14, 16)
        assert found["bits_per_weight"] == pytest.approx(4.2, abs=0.1)
        assert found["made_from"] == [{"place": "README.md", "name": "bank/base"}]
        assert found["left_out"] == ["pytorch_model.bin"]
        (down,) = [m for m in found["modules"] if m["pattern"] == "model.layers.*.mlp.down_proj"]
        assert (down["n_modules"], down["n_weights"], down["quantized"]) == (2, 2 * 128 * 256, True)
        assert sum(m["n_weights"] for m in found["modules"]) == found["n_parameters"]

    @pytest.mark.parametrize("others", [("w4a16", "--baseline", "nowhere"), ("nowhere",)], ids=["baseline", "alone"])
    def test_a_problem_without_a_checkpoint_is_one_too(
        self, world: Path, capsys: pytest.CaptureFixture[str], others: tuple[str, ...]
    ) -> None:
        (world / "nowhere").mkdir()
        code, found = document(capsys, *others)
        assert (code, found["exit_code"], found["accepted"]) == (4, 4, False)
        assert "config.json is missing" in found["problem"]
        assert (found["checkpoint"], found["baseline"]) == (others[0], others[2] if others[1:] else None)

    def test_a_refusal_is_in_it(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_llama(world / "liar", packed(8), declared=INT4)
        code, found = document(capsys, "liar")
        assert code == found["exit_code"] == 5
        assert found["accepted"] is False
        assert found["findings"][0] in found["problem"]


class TestPolicy:
    POLICY = """
version: 1
checkpoints:
  nf4: {path: base, load: {method: bitsandbytes-nf4}}
  half: {path: w4a16, dtype: float16}
engines: {vllm: {kv_cache_dtype: fp8}}
stages:
  - {kind: profile, name: serving, rules: [{metric: vram_peak, max: 24GiB}]}
"""

    @pytest.fixture(autouse=True)
    def _policy(self, world: Path) -> None:
        (world / "policy.yaml").write_text(self.POLICY)

    def test_quantized_when_it_is_loaded(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, found = document(capsys, "nf4", "--baseline", "base", "-p", "policy.yaml")
        assert code == 0
        assert found["quantization"]["scheme"] == "nf4"
        assert found["memory"]["on_load_bits"] == 4.5
        assert found["memory"]["loaded"] < found["memory"]["unpacked"] / 3
        assert found["remarks"] == ["quantized when it is loaded, as bitsandbytes-nf4: its files are not"]

    def test_the_cache_that_an_engine_quantizes(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert document(capsys, "w4a16", "-p", "policy.yaml", "--backend", "vllm")[1]["kv_cache"] == (
            "fp8 (asked of the engine)"
        )
        assert document(capsys, "w4a16", "-p", "policy.yaml")[1]["kv_cache"] is None


def test_a_gguf_file_by_its_own_name(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (world / "files").mkdir()
    (world / "files" / "m-Q8_0.gguf").write_bytes(gguf({"blk.0.ffn_up.weight": ((256, 2), 8, 544)}))
    code, out = run(capsys, "files/m-Q8_0.gguf", "--verify")
    assert code == 0
    assert "quantization   gguf, Q8_0" in out
    assert re.search(r"blk\.0\.ffn_up\s+× 1\s+100%\s+Q8_0\s+8\.50", out)


def test_a_fake_checkpoint_says_what_it_is(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (world / "fake").mkdir()
    (world / "fake" / "fake.json").write_text('{"kind": "fake"}')
    code, out = run(capsys, "fake")
    assert code == 0
    assert "architecture   fake" in out


@pytest.mark.parametrize("name", sorted(p.name for p in (WORLD / "candidates").iterdir() if p.is_dir()))
def test_the_demo_candidates(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = document(capsys, str(WORLD / "candidates" / name), "--baseline", str(WORLD / "baseline"))
    assert code == (5 if name == "unquantized-export" else 0)
    assert found["n_parameters"] == 1_115_264
    assert found["n_quantized"] == (0 if name == "unquantized-export" else 28)


@pytest.mark.parametrize(
    ("folder", "load", "loaded"),
    [
        ("baseline", {}, 4_461_056),
        ("baseline", {"method": "bitsandbytes-nf4"}, 1_532_416),
        ("baseline", {"method": "bitsandbytes-int8"}, 1_927_680),
        ("candidates/w4a16-gptq-prose", {}, 1_506_240),
        ("candidates/w8a8", {}, 1_927_680),
        ("candidates/nf4", {}, 1_532_416),
    ],
)
def test_expected_memory_is_what_was_measured(folder: str, load: dict[str, str], loaded: int) -> None:
    """Bytes of all parameters, scales and buffers after loading, transformers 5.23 with bitsandbytes 0.50.2."""
    found = inspection.look(resolved(WORLD / folder, load=load)).memory
    assert found is not None
    assert found.loaded == pytest.approx(loaded, rel=0.003)  # saved NF4 comes with its code books


class TestSeventyBillionParameters:
    """Headers are real, the 141 and 40 GB of tensors are holes; the seconds are in benchmarks/sparse_inspect.py."""

    MOST_BYTES = 96 * 2**20

    def test_no_tensor_is_read(self, tmp_path: Path) -> None:
        counters = Path("/proc/self/io")
        if not counters.is_file():
            pytest.skip("this system does not count the bytes that a process reads")
        base = sparse_llama(tmp_path / "bf16", packed=False, shards=30)
        w4a16 = sparse_llama(tmp_path / "w4a16", packed=True, shards=15)

        def bytes_read() -> int:
            return int(counters.read_text().split("rchar:")[1].split()[0])

        before = bytes_read()
        ours, alone = inspection.checked(inspection.look(resolved(base)), role=Role.BASELINE, verify=False)
        theirs, _ = inspection.checked(inspection.look(resolved(w4a16)), role=Role.CANDIDATE, verify=False)
        outcome = inspection.compared(ours, theirs, allow_identical=False)
        assert bytes_read() - before < self.MOST_BYTES
        assert alone.problem is None
        assert outcome.problem is None
        assert ours.found.contents is not None
        assert theirs.found.contents is not None
        assert ours.found.contents.n_parameters == theirs.found.contents.n_parameters == 70_553_706_496
        assert theirs.found.contents.n_quantized == 560
        assert ours.found.weight_bytes > 141e9
        assert inspection.bits_per_weight(theirs.found) == pytest.approx(4.48, abs=0.01)
        assert theirs.memory is not None
        assert theirs.memory.loaded == pytest.approx(39.5e9, rel=0.01)
        assert theirs.memory.unpacked == pytest.approx(141.1e9, rel=0.01)


def test_it_imports_no_model_library(world: Path) -> None:
    code = (
        "import sys; from gate.cli import main; main(['inspect', 'w4a16', '--baseline', 'base']);"
        "print(sorted(set(sys.modules) & {'torch', 'transformers', 'scipy', 'numpy', 'pyarrow', 'huggingface_hub'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=world)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_layout_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, (name, chosen) in enumerate(LAYOUTS.items()):
        folder = write_llama(tmp_path / str(i), chosen.linear, declared=chosen.declared)
        code, out = run(capsys, str(folder))
        assert (name, code) == (name, 0)
        assert chosen.stored in out


def test_a_layer_that_was_left_alone_has_its_own_line(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = {f"model.layers.1.mlp.{kind}": plain for kind in ("down_proj", "up_proj")}
    write_llama(world / "mixed", packed(), declared=INT4, others=others)
    _, out = run(capsys, "mixed")
    assert re.search(r"model\.layers\.0\.mlp\.down_proj\s+× 1 .*4-bit, group 128", out)
    assert re.search(r"model\.layers\.1\.mlp\.down_proj\s+× 1 .*BF16", out)
    assert "note: declared as quantized, but stored in full precision: model.layers.1.mlp.down_proj" in out


def test_a_head_and_embedding_in_integers_are_counted(tmp_path: Path) -> None:
    tensors = model(packed())
    tensors["lm_head.weight"] = filled("I8", (6, 128), 1)
    tensors["lm_head.weight_scale"] = filled("BF16", (6, 1), 1)
    seen = inspection.look(resolved(write_llama(tmp_path / "model", tensors=tensors, declared=INT4)))
    (head,) = [r for r in seen.rows if r.pattern == "lm_head"]
    assert (head.stored, head.quantized) == ("8-bit int, channel", True)
