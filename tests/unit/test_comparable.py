"""Two configurations, two ends of an answer, two base models: what makes another model, and what is only said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gate import checkpoint, intake
from gate.checkpoint import ResolvedCheckpoint, base_model, config_facts, recipe
from gate.engines import HfEngine, VllmEngine
from gate.errors import CheckpointError, Refused
from gate.records import Role
from tests.checkpoint_factory import resolved, tokenizer_json
from tests.layout_factory import CONFIG, INT4, model, packed, write_llama

BASE_ENDS = {"eos_token_id": [2, 5], "temperature": 0.6}


@pytest.fixture
def baseline(tmp_path: Path) -> ResolvedCheckpoint:
    return resolved(write_llama(tmp_path / "baseline", generation=BASE_ENDS))


def compare(baseline: ResolvedCheckpoint, candidate: ResolvedCheckpoint) -> tuple[str, ...]:
    cache = baseline.path.parent / "cache"
    return intake.compare(
        checkpoint.describe(baseline, Role.BASELINE, cache=cache),
        checkpoint.describe(candidate, Role.CANDIDATE, cache=cache),
        baseline_at=baseline,
        candidate_at=candidate,
        allow_identical=False,
    )


def candidate(tmp_path: Path, **changes: Any) -> ResolvedCheckpoint:
    options: dict[str, Any] = {"declared": INT4, "generation": BASE_ENDS}
    return resolved(write_llama(tmp_path / "candidate", packed(), **options | changes))


def test_nothing_to_say_of_a_faithful_candidate(baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
    assert compare(baseline, candidate(tmp_path)) == ()


class TestConfiguration:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-05 instead of 1e-06"),
            ({"num_key_value_heads": 2}, "num_key_value_heads is 2 instead of 4"),
            (
                {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
                "rope_theta is 500000.0 instead of 10000.0",
            ),
            (
                {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0}},
                "rope scaling is 'yarn' instead of 'default'",
            ),
            ({"hidden_act": "gelu"}, "hidden_act is 'gelu' instead of 'silu'"),
            ({"tie_word_embeddings": True}, "tie_word_embeddings is true instead of false"),
            ({"vocab_size": 5}, "vocab_size is 5 instead of 6"),
        ],
        ids=lambda v: str(v)[:30],
    )  # fmt: skip
    def test_what_changes_the_function_is_an_error(
        self, baseline: ResolvedCheckpoint, tmp_path: Path, change: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(CheckpointError, match="describes another model than the baseline's") as raised:
            compare(baseline, candidate(tmp_path, config=change))
        assert words in str(raised.value)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"dtype": "float16"}, "config.json asks for float16, the baseline's for bfloat16"),
            ({"max_position_embeddings": 512}, "config.json: max_position_embeddings is 512 instead of 256"),
            (
                {"vocab_size": 8},
                "vocab_size is 8 instead of 6: rows beyond the 6 tokens are padding, but take part in the softmax",
            ),
            ({"sliding_window": 128}, "only the candidate's config.json says sliding_window (128)"),
        ],
    )
    def test_what_does_not_is_said(
        self, baseline: ResolvedCheckpoint, tmp_path: Path, change: dict[str, Any], words: str
    ) -> None:
        assert compare(baseline, candidate(tmp_path, config=change)) == (words,)

    def test_two_versions_of_transformers_write_one_model(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        old = {
            "rope_parameters": None,
            "rope_theta": 10000.0,
            "dtype": None,
            "torch_dtype": "bfloat16",
            "head_dim": None,
            "num_key_value_heads": None,
            "transformers_version": "4.40.0",
            "attention_dropout": 0.1,
            "layer_types": ["full_attention"] * 2,
            "use_sliding_window": False,
        }
        assert compare(baseline, candidate(tmp_path, config=old)) == ()

    def test_a_scaling_that_got_lost(self) -> None:
        """transformers 4 wrote it apart from the base; exporters dropped it."""
        scaled = CONFIG | {
            "rope_parameters": None,
            "rope_theta": 1e4,
            "rope_scaling": {"type": "linear", "factor": 2.0},
        }
        lost = CONFIG | {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": None}
        assert config_facts.differences(scaled, lost, None)[0] == ("rope scaling is 'default' instead of 'linear'",)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ({"type": "mrope", "mrope_section": [2, 3]}, {"rope_type": "default", "mrope_section": [2, 3]}),
            ({"type": "su", "factor": 2.0}, {"rope_type": "longrope", "factor": 2.0}),
        ],
    )
    def test_names_of_old_for_positions(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        ours, theirs = (CONFIG | {"rope_parameters": None, "rope_scaling": s} for s in (old, new))
        assert config_facts.differences(ours, theirs, None) == ((), ())
        yarn = CONFIG | {"rope_parameters": None, "rope_scaling": {"type": "yarn", "factor": 2.0}}
        assert "rope scaling is" in config_facts.differences(ours, yarn, None)[0][0]

    def test_heads_that_are_null_are_all_of_them(self) -> None:
        null = CONFIG | {"num_key_value_heads": None}
        assert config_facts.differences(null, CONFIG, None) == ((), ())
        assert config_facts.differences(null, CONFIG | {"num_key_value_heads": 2}, None)[0] == (
            "num_key_value_heads is 2 instead of 4",
        )

    def test_positions_of_each_kind_of_layer(self) -> None:
        nested = CONFIG | {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {}}}
        other = CONFIG | {"rope_parameters": {"full_attention": {"rope_theta": 1e4}, "sliding_attention": {}}}
        assert config_facts.differences(nested, nested, None) == ((), ())
        assert config_facts.differences(nested, other, None)[0] == ("rotary positions (rope_parameters) differ",)
        deciding, remarks = config_facts.differences(nested, CONFIG, None)
        assert deciding == ()
        assert remarks == ("rotary positions are written in different ways and were not compared",)

    def test_a_language_model_inside_a_multimodal_one(self) -> None:
        ours = {"text_config": CONFIG, "model_type": "x"}
        theirs = {"text_config": CONFIG | {"rms_norm_eps": 1.0}, "model_type": "x"}
        assert config_facts.differences(ours, theirs, None)[0] == ("rms_norm_eps is 1.0 instead of 1e-06",)

    def test_a_head_that_quantization_untied(self) -> None:
        tied = CONFIG | {"tie_word_embeddings": True}
        (remark,) = config_facts.differences(tied, CONFIG, None)[1]
        assert "stores its output head apart" in remark


class TestEndsOfAnswers:
    def test_other_ends_come_first(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        other = candidate(tmp_path, generation={"eos_token_id": 2, "temperature": 0.6}, config={"dtype": "float16"})
        (other.path / "chat_template.jinja").write_text("{{ m }}")
        first, second, _ = compare(baseline, other)
        assert first.startswith("the candidate ends its answers at other tokens: eos_token_id is [2] instead of [2, 5]")
        assert "float16" in second

    def test_a_file_that_was_not_exported(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        """config.json says only one of the two ends."""
        first, second = compare(baseline, candidate(tmp_path, generation=None))
        assert "eos_token_id is [2] instead of [2, 5]" in first
        assert "temperature is None instead of 0.6" in second

    def test_sampling_is_said(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        (remark,) = compare(baseline, candidate(tmp_path, generation=BASE_ENDS | {"repetition_penalty": 1.1}))
        assert remark.startswith("generation_config.json: repetition_penalty is 1.1 instead of None")


class TestBaseModel:
    def digests(self, at: ResolvedCheckpoint) -> tuple[str, str]:
        ref = checkpoint.describe(at, Role.BASELINE, cache=at.path.parent / "cache")
        return ref.digest, ref.tensor_digest

    @pytest.mark.parametrize("which", [0, 1], ids=["files", "tensors"])
    def test_the_digest_it_was_made_from(self, baseline: ResolvedCheckpoint, tmp_path: Path, which: int) -> None:
        declared = INT4 | {"base_model_digest": f"sha256:{self.digests(baseline)[which]}"}
        assert compare(baseline, candidate(tmp_path, declared=declared)) == ()

    def test_another_digest_is_another_model(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        made = candidate(tmp_path, config={"base_model_sha256": "ab" * 32})
        with pytest.raises(
            CheckpointError, match=r"base_model_sha256 in config\.json is abababababab….*made from another"
        ):
            compare(baseline, made)

    def test_in_the_readme_too(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        made = candidate(tmp_path)
        (made.path / "README.md").write_text(f"---\nbase_model_sha256: {'cd' * 32}\n---\n# words\n")
        with pytest.raises(CheckpointError, match=r"base_model_sha256 in README\.md is cdcdcdcdcdcd…"):
            compare(baseline, made)

    def test_what_is_no_digest(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="expected a SHA-256 in 64 hexadecimal digits"):
            compare(baseline, candidate(tmp_path, config={"base_model_digest": "latest"}))

    def test_another_name_is_only_said(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        made = candidate(tmp_path)
        (made.path / "README.md").write_text("---\nbase_model:\n- bank/other-8b\n---\n")
        ours = resolved(baseline.path, uri="bank/base-8b", revision="abc")
        (remark,) = compare(ours, made)
        assert (
            remark == "README.md says that the candidate was made from 'bank/other-8b', the baseline is 'bank/base-8b'"
        )
        (made.path / "README.md").write_text("---\nbase_model: elsewhere/Base-8B\n---\n")  # a mirror
        assert compare(ours, made) == ()

    def test_a_folder_has_no_name_to_compare(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        made = candidate(tmp_path, config={"_name_or_path": "/scratch/someone/base"})
        assert compare(baseline, made) == ()
        assert base_model.short("/scratch/someone/base") == "base"

    @pytest.mark.parametrize(
        "text", ["no front matter", "---\n{broken\n---\n", "---\n- a list\n---\n", "---\nbase_model: 7\n---\n", "---\n"]
    )
    def test_front_matter_for_people_says_nothing(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "README.md").write_text(text)
        assert base_model.read(tmp_path, {}) == base_model.BaseModel(names=(), digests=())


class TestTokenizerRemarks:
    def test_the_first_changed_lines_of_a_template(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        (baseline.path / "chat_template.jinja").write_text("{% for m in messages %}\n<user> {{ m }}\n{% endfor %}")
        made = candidate(tmp_path)
        (made.path / "chat_template.jinja").write_text("{% for m in messages %}\n<human> {{ m }}\n{% endfor %}")
        (remark,) = compare(baseline, made)
        assert remark == (
            "the candidate's chat template differs from the baseline's: - <user> {{ m }}; + <human> {{ m }}"
        )

    def test_a_template_may_lie_in_either_place(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        """transformers 4 kept it in tokenizer_config.json, 5 in a file of its own."""
        (baseline.path / "tokenizer_config.json").write_text(
            json.dumps({"bos_token": "<s>", "chat_template": "{{ m }}"})
        )
        made = candidate(tmp_path)
        (made.path / "chat_template.jinja").write_text("{{ m }}")
        assert compare(baseline, made) == ()

    def test_a_switch_that_adds_tokens_decides(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        for folder, value in ((baseline.path, True), (candidate(tmp_path).path, False)):
            (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "add_bos_token": value}))
        with pytest.raises(CheckpointError, match="add_bos_token is False instead of True"):
            compare(baseline, resolved(tmp_path / "candidate"))

    def test_how_an_added_token_is_matched(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        made = candidate(tmp_path)
        changed = tokenizer_json(added_tokens=[{"id": 0, "content": "<s>", "special": True, "rstrip": True}])
        (made.path / "tokenizer.json").write_text(json.dumps(changed))
        (remark,) = compare(baseline, made)
        assert remark == "the candidate's added token '<s>' is matched otherwise: rstrip is True instead of False"


class TestQuantizedWhenItIsLoaded:
    def test_by_the_engine(self, baseline: ResolvedCheckpoint) -> None:
        fp8 = resolved(baseline.path, engine=VllmEngine(quantization="fp8", tensor_parallel_size=2))
        assert compare(baseline, fp8) == ("quantized when it is loaded, by the engine: quantization fp8",)

    def test_only_the_cache(self, baseline: ResolvedCheckpoint) -> None:
        cache = resolved(baseline.path, engine=VllmEngine(kv_cache_dtype="fp8"))
        assert compare(baseline, cache) == ("quantized when it is loaded, by the engine: kv_cache_dtype fp8",)

    def test_what_both_do_is_no_difference(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        """The policy's settings for all checkpoints quantize the baseline as well."""
        engine = VllmEngine(kv_cache_dtype="fp8")
        ours = resolved(baseline.path, engine=engine)
        other = resolved(write_llama(tmp_path / "copy", generation=BASE_ENDS), engine=engine, dtype="float16")
        with pytest.raises(Refused, match="is not quantized"):
            compare(ours, other)

    def test_another_attention_is_no_quantization(self, baseline: ResolvedCheckpoint) -> None:
        with pytest.raises(Refused, match="is not quantized"):
            compare(baseline, resolved(baseline.path, engine=HfEngine(attention="eager")))

    def test_on_top_of_a_quantized_checkpoint(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        made = candidate(tmp_path)
        cache = resolved(made.path, engine=VllmEngine(kv_cache_dtype="fp8"))
        assert compare(baseline, cache) == ("quantized when it is loaded, by the engine: kv_cache_dtype fp8",)

    def test_the_model_must_still_be_the_baselines(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        tensors = {n: t for n, t in model().items() if "layers.1" not in n}
        half = resolved(write_llama(tmp_path / "half", tensors=tensors, generation=BASE_ENDS), load={"method": "hqq-4"})
        with pytest.raises(CheckpointError, match="parameters besides its output head"):
            compare(baseline, half)


class TestLayersThatDraft:
    """DeepSeek, GLM and others keep layers for speculative decoding, which exporters drop."""

    @pytest.mark.parametrize("prefix", ["model.layers.2.", "mtp.layers.0.", "model.mtp_layers.0."])
    def test_they_are_left_out_of_both_counts(self, tmp_path: Path, prefix: str) -> None:
        tensors = model()
        tensors |= {n.replace("model.layers.1.", prefix): t for n, t in tensors.items()}
        ours = resolved(write_llama(tmp_path / "baseline", tensors=tensors, generation=BASE_ENDS))
        (remark,) = compare(ours, candidate(tmp_path))
        assert remark.startswith("only the baseline has layers that draft further tokens")
        both = model(packed())
        both |= {n.replace("model.layers.1.", prefix): t for n, t in both.items()}
        assert compare(ours, candidate(tmp_path / "both", tensors=both)) == ()

    def test_layers_that_count_do(self, baseline: ResolvedCheckpoint, tmp_path: Path) -> None:
        half = {n: t for n, t in model(packed()).items() if "layers.1" not in n}
        with pytest.raises(CheckpointError, match="parameters besides its output head"):
            compare(baseline, candidate(tmp_path, tensors=half))


class TestRecipe:
    def write(self, folder: Path, text: str) -> tuple[str, ...]:
        (folder / "recipe.yaml").write_text(text)
        return recipe.read(folder, {})

    def test_what_llm_compressor_records(self, tmp_path: Path) -> None:
        found = self.write(
            tmp_path,
            """
default_stage:
  default_modifiers:
    SmoothQuantModifier:
      smoothing_strength: 0.8
      mappings:
      - !!python/tuple
        - ['re:.*q_proj']
        - re:.*input_layernorm
    GPTQModifier:
      scheme: W8A8
      dampening_frac: 0.01
      actorder: !!python/object/apply:compressed_tensors.quantization.quant_args.ActivationOrdering [static]
      block_size: 128
""",
        )
        assert found == (
            "SmoothQuantModifier: smoothing_strength 0.8",
            "GPTQModifier: scheme W8A8, dampening_frac 0.01, actorder static, block_size 128",
        )

    def test_no_tag_is_executed(self, tmp_path: Path) -> None:
        canary = tmp_path / "canary"
        text = f"a:\n  b:\n    X:\n      scheme: !!python/object/apply:os.system ['touch {canary}']\n"
        assert self.write(tmp_path, text) == (f"X: scheme touch {canary}",)
        assert not canary.exists()

    @pytest.mark.parametrize(
        "text", ["", "[1]", "a: [", "a: {b: {c: 1}}", "&a [*a]", "a: !!binary x", "x: " + "[" * 2000]
    )
    def test_what_is_no_recipe_says_nothing(self, tmp_path: Path, text: str) -> None:
        assert self.write(tmp_path, text) == ()

    def test_what_quantizers_declare(self, tmp_path: Path) -> None:
        declared = {"quant_method": "gptq", "bits": 4, "desc_act": False, "damp_percent": 0.01}
        assert recipe.read(tmp_path, {"quantization_config": declared}) == ("gptq: desc_act false, damp_percent 0.01",)
