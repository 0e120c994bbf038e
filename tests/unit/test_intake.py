"""Which pairs may be compared: the same model, the same tokens, and a candidate that is really quantized."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gate import checkpoint, intake
from gate.checkpoint import ResolvedCheckpoint
from gate.errors import CheckpointError, Refused, UsageError
from gate.records import Role
from tests.checkpoint_factory import (
    PACKED_W4,
    filled,
    full_precision,
    gguf,
    packed_w4,
    resolved,
    tokenizer_json,
    write_checkpoint,
)

WORLD = Path(__file__).parents[2] / "gate" / "demo" / "world"


@pytest.fixture
def baseline(tmp_path: Path) -> ResolvedCheckpoint:
    return resolved(write_checkpoint(tmp_path / "baseline"))


@pytest.fixture
def candidate(tmp_path: Path) -> ResolvedCheckpoint:
    return resolved(write_checkpoint(tmp_path / "candidate", packed_w4(), quantization=PACKED_W4))


def compare(
    baseline: ResolvedCheckpoint, candidate: ResolvedCheckpoint, *, allow_identical: bool = False
) -> tuple[str, ...]:
    cache = baseline.path.parent / "cache"
    return intake.compare(
        checkpoint.describe(baseline, Role.BASELINE, cache=cache),
        checkpoint.describe(candidate, Role.CANDIDATE, cache=cache),
        baseline_at=baseline,
        candidate_at=candidate,
        allow_identical=allow_identical,
    )


def test_a_quantized_version_of_the_baseline_is_fine(
    baseline: ResolvedCheckpoint, candidate: ResolvedCheckpoint
) -> None:
    # of its three matrices, the embedding and the head stay in full precision, as usual for a model this small
    assert compare(baseline, candidate) == ("only 1 of 3 weight matrices are quantized",)


class TestIdentical:
    def test_the_baseline_itself_is_a_mistake(self, baseline: ResolvedCheckpoint) -> None:
        with pytest.raises(UsageError, match=r"'baseline' is the baseline itself.*--allow-identical"):
            compare(baseline, baseline)

    def test_unless_it_is_asked_for(self, baseline: ResolvedCheckpoint) -> None:
        (remark,) = compare(baseline, baseline, allow_identical=True)
        assert "A/A" in remark

    def test_a_copy_in_another_folder_is_the_same_mistake(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is the baseline itself"):
            compare(baseline, resolved(write_checkpoint(tmp_path / "copy")))

    def test_the_same_files_quantized_on_load_are_a_candidate(self, baseline: ResolvedCheckpoint) -> None:
        nf4 = resolved(baseline.path, load={"method": "bitsandbytes-nf4"})
        assert compare(baseline, nf4) == ("quantized when it is loaded, as bitsandbytes-nf4: its files are not",)

    def test_a_fake_against_another_fake(self, tmp_path: Path) -> None:
        fakes = []
        for seed in (0, 1):
            folder = tmp_path / f"fake{seed}"
            folder.mkdir()
            (folder / "fake.json").write_text(json.dumps({"kind": "fake", "seed": seed}))
            fakes.append(resolved(folder))
        assert compare(fakes[0], fakes[1]) == ()
        with pytest.raises(UsageError):
            compare(fakes[0], fakes[0])

    def test_a_fake_against_a_real_model(self, tmp_path: Path, baseline: ResolvedCheckpoint) -> None:
        (tmp_path / "fake").mkdir()
        (tmp_path / "fake" / "fake.json").write_text('{"kind": "fake"}')
        with pytest.raises(CheckpointError, match="the candidate is a fake, the baseline a LlamaForCausalLM"):
            compare(baseline, resolved(tmp_path / "fake"))


class TestNotQuantized:
    """Hole 9: an export in which nothing was quantized passes every accuracy test."""

    def test_an_export_of_the_baselines_own_tensors(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        exported = write_checkpoint(tmp_path / "exported")
        (exported / "recipe.yaml").write_text("ignore: ['re:.*']")
        with pytest.raises(Refused) as raised:
            compare(baseline, resolved(exported))
        assert str(raised.value) == (
            "the candidate 'exported' is not quantized: it declares no quantization, 0 of 3 weight matrices are "
            "quantized (stored as F32), and its weights take 100% of the baseline's bytes; they are the baseline's, "
            "bit for bit: check the export's targets and ignore list"
        )

    def test_a_cast_is_no_quantization(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        cast = resolved(write_checkpoint(tmp_path / "cast", full_precision(dtype="BF16")))
        with pytest.raises(Refused, match=r"0 of 3 .*\(stored as BF16\), and its weights take [67]\d% of"):
            compare(baseline, cast)

    def test_a_cast_on_load_is_no_quantization(self, baseline: ResolvedCheckpoint) -> None:
        with pytest.raises(Refused, match="declares no quantization, 0 of 3 weight matrices"):
            compare(baseline, resolved(baseline.path, dtype="bfloat16"))

    def test_a_declaration_alone_does_not_help(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        liar = resolved(write_checkpoint(tmp_path / "liar", full_precision(2), quantization=PACKED_W4))
        with pytest.raises(Refused, match="declares compressed-tensors, but 0 of 3 weight matrices are quantized"):
            compare(baseline, liar)

    def test_integers_without_a_declaration(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        tensors = {**full_precision(), "model.layers.0.mlp.up.weight": filled("I8", (8, 8), 2)}
        with pytest.raises(Refused, match=r"declares no quantization, but 1 of its 3 .* stored as F32, I8"):
            compare(baseline, resolved(write_checkpoint(tmp_path / "undeclared", tensors)))

    def test_a_quantized_cache_alone_is_said(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        tensors = {**full_precision(), "model.layers.0.self_attn.k_scale": filled("F32", (1,), 1)}
        config = {"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme": {"num_bits": 8}}
        folder = write_checkpoint(tmp_path / "cache-only", tensors, quantization=config)
        (remark,) = compare(baseline, resolved(folder))
        assert remark == "only the key/value cache is quantized: all weights are stored in full precision"


class TestNotTheSameModel:
    def test_another_architecture(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        other = write_checkpoint(
            tmp_path / "other", packed_w4(), quantization=PACKED_W4, architecture="Qwen3ForCausalLM"
        )
        with pytest.raises(CheckpointError, match="is a Qwen3ForCausalLM, the baseline a LlamaForCausalLM"):
            compare(baseline, resolved(other))

    def test_another_number_of_parameters(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        tensors = packed_w4()
        tensors |= {n.replace("layers.0", "layers.1"): t for n, t in tensors.items() if ".up.weight_" in n}
        other = resolved(write_checkpoint(tmp_path / "other", tensors, quantization=PACKED_W4))
        with pytest.raises(CheckpointError, match=r"192 parameters besides its output head, the baseline 128"):
            compare(baseline, other)

    def test_a_tied_head_may_be_left_out(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        tensors = packed_w4()
        del tensors["lm_head.weight"]
        tied = resolved(write_checkpoint(tmp_path / "tied", tensors, quantization=PACKED_W4))
        assert compare(baseline, tied) == ()

    def test_unknown_packings_are_not_counted(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        tensors = {**full_precision(), "model.layers.0.mlp.up.weight": filled("U8", (1, 3), 2)}
        folder = write_checkpoint(tmp_path / "other", tensors, quantization={"quant_method": "aqlm", "nbits": 4})
        assert compare(baseline, resolved(folder))[0] == (
            "parameters were not counted: how aqlm packs them is not known here "
            "(model.layers.0.mlp.up holds U8 in 'weight')"
        )

    def test_a_baseline_of_unknown_packing_is_not_counted_either(self, tmp_path: Path) -> None:
        tensors = {**full_precision(), "model.layers.0.mlp.up.weight": filled("U8", (1, 3), 2)}
        ours = write_checkpoint(tmp_path / "ours", tensors, quantization={"quant_method": "aqlm"})
        theirs = write_checkpoint(tmp_path / "theirs", packed_w4(), quantization=PACKED_W4)
        assert "how aqlm packs them" in compare(resolved(ours), resolved(theirs))[0]


class TestGguf:
    def test_a_gguf_file_is_compared_by_its_tensors(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        full, q8 = 0, 8
        tensors = {
            "token_embd.weight": ((8, 6), full, 192),
            "blk.0.ffn_up.weight": ((32, 2), q8, 68),
            "blk.0.ffn_up.bias": ((8,), full, 32),
            "output_norm.weight": ((8,), full, 32),
        }
        for name, kind in (("quantized", q8), ("plain", full)):
            (tmp_path / name).mkdir()
            tensors["blk.0.ffn_up.weight"] = ((32, 2), kind, 68 if kind == q8 else 256)
            (tmp_path / name / "m-Q8_0.gguf").write_bytes(gguf(tensors))
        load = {"gguf_file": "m-Q8_0.gguf"}
        assert compare(baseline, resolved(tmp_path / "quantized", load=load)) == (
            "the tokenizer inside the GGUF file was not compared with the other",
            "a GGUF file names its architecture in its own way: it was not compared",
        )
        with pytest.raises(Refused, match=r"declares Q8_0, but 0 of 2 weight matrices are quantized \(stored as F32\)"):
            compare(baseline, resolved(tmp_path / "plain", load=load))
        (tmp_path / "plain" / "m-Q8_0.gguf").rename(tmp_path / "plain" / "m-F32.gguf")
        with pytest.raises(Refused, match=r"declares gguf, but 0 of 2 weight matrices are quantized \(stored as F32\)"):
            compare(baseline, resolved(tmp_path / "plain", load={"gguf_file": "m-F32.gguf"}))


class TestTokenizers:
    def refused(self, baseline: ResolvedCheckpoint, tmp_path: Path, **changes: Any) -> str:
        other = write_checkpoint(tmp_path / "other", packed_w4(), quantization=PACKED_W4, **changes)
        with pytest.raises(CheckpointError, match="the candidate's tokenizer is not the baseline's") as raised:
            compare(baseline, resolved(other))
        return str(raised.value)

    def test_the_first_different_tokens_are_named(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        model = tokenizer_json()["model"]
        vocabulary = {"<s>": 0, "a": 1, "B": 2, "c": 3, "ab": 5, "bc": 4, "abc": 6}
        message = self.refused(baseline, tmp_path, tokenizer=tokenizer_json(model=model | {"vocab": vocabulary}))
        assert "it has 7 tokens instead of 6; id 2 is 'B' instead of 'b'; id 4 is 'bc' instead of 'ab'" in message

    def test_merges_and_steps_are_named(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        changed = tokenizer_json(normalizer={"type": "NFC"})
        changed["model"]["merges"].reverse()
        message = self.refused(baseline, tmp_path, tokenizer=changed)
        assert "its merges differs; its normalizer differs" in message

    def test_special_tokens_are_named(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        message = self.refused(baseline, tmp_path, tokenizer_config={"bos_token": None})
        assert "bos_token is None instead of '<s>'" in message

    def test_other_kinds_of_files_cannot_be_compared(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        other = write_checkpoint(tmp_path / "other", packed_w4(), quantization=PACKED_W4)
        (other / "tokenizer.json").unlink()
        (other / "tokenizer.model").write_bytes(b"sentencepiece")
        with pytest.raises(CheckpointError, match="different kinds of files"):
            compare(baseline, resolved(other))

    def test_padding_and_chat_template_are_remarks(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        other = write_checkpoint(
            tmp_path / "other",
            packed_w4(),
            quantization=PACKED_W4,
            tokenizer_config={"bos_token": "<s>", "pad_token": "<s>"},
        )
        (other / "chat_template.jinja").write_text("{{ messages }}")
        assert compare(baseline, resolved(other))[:2] == (
            "the candidate's pad_token is '<s>', the baseline's None",
            "the candidate's chat template differs from the baseline's: only the candidate has one",
        )


@pytest.mark.parametrize(
    "folder",
    sorted(p for p in (WORLD / "candidates").glob("*") if (p / "model.safetensors").is_file()),
    ids=lambda p: p.name,
)
def test_the_demo_candidates_are_what_their_names_say(folder: Path, tmp_path: Path) -> None:
    """Real exports of llmcompressor and bitsandbytes, counted to the last parameter."""
    ours, theirs = resolved(WORLD / "baseline"), resolved(folder)
    cache = tmp_path / "cache"
    first = checkpoint.describe(ours, Role.BASELINE, cache=cache)
    second = checkpoint.describe(theirs, Role.CANDIDATE, cache=cache)
    assert second.n_parameters == first.n_parameters
    if "unquantized" in folder.name:
        with pytest.raises(Refused, match="is not quantized"):
            intake.compare(first, second, baseline_at=ours, candidate_at=theirs, allow_identical=False)
        return
    assert intake.compare(first, second, baseline_at=ours, candidate_at=theirs, allow_identical=False) == ()
    assert second.quantization is not None
    assert second.quantization.bits is not None
    assert second.weight_bytes < first.weight_bytes * (second.quantization.bits + 8) / 32
