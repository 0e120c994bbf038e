"""What the worker gets to see of a checkpoint, and what the reader is told of the rest."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gate.checkpoint import folder as folders
from gate.checkpoint import strict_json, view
from gate.checkpoint.view import View
from gate.errors import CheckpointError, CouldNotMeasure, Refused, WorkerError
from gate.records import Role
from tests.checkpoint_factory import full_precision, gguf, resolved, safetensors, write_checkpoint

AUTO_MAP = {"AutoModelForCausalLM": "modeling.LlamaForCausalLM"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model")


Build = Callable[..., View]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def made(folder: Path, **changes: Any) -> View:
        return view.build(resolved(folder, **changes), tmp_path / "view", backend="hf")

    return made


def names(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir())


def change(folder: Path, name: str, **changes: Any) -> None:
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))


class TestContents:
    def test_weights_are_linked_and_small_files_are_copies_of_what_was_checked(self, model: Path, build: Build) -> None:
        (model / "README.md").write_text("for people")
        seen = build(model).checkpoint.path
        assert names(seen) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        assert (seen / "model.safetensors").readlink() == (model / "model.safetensors").resolve()
        for name in ("config.json", "tokenizer.json"):
            assert not (seen / name).is_symlink()
            assert (seen / name).read_bytes() == (model / name).read_bytes()
            assert (seen / name).stat().st_mode & 0o777 == 0o444

    def test_shards_and_their_index(self, tmp_path: Path, build: Build) -> None:
        held = tuple(full_precision())
        shards = {"sub/a.safetensors": held[:2], "b.safetensors": held[2:]}
        (tmp_path / "model" / "sub").mkdir(parents=True)
        made = build(write_checkpoint(tmp_path / "model", shards=shards))
        weights = ["b.safetensors", "model.safetensors.index.json", "sub/a.safetensors"]
        assert [n for n in names(made.checkpoint.path) if "safetensors" in n] == weights
        assert made.left_out == ()

    def test_the_rest_is_left_out_and_named(self, model: Path, build: Build) -> None:
        for name in ("pytorch_model.bin", "modeling.py", "x.onnx", "notes.md", "LICENSE", ".gitattributes", "a.yaml"):
            (model / name).write_bytes(b"")
        (model / "old").mkdir()
        (model / "old" / "model.safetensors").write_bytes(b"")
        change(model, "config.json", auto_map=AUTO_MAP)
        made = build(model)
        left = ("auto_map of config.json", "modeling.py", "old/model.safetensors", "pytorch_model.bin", "x.onnx")
        assert made.left_out == left
        assert "auto_map" not in json.loads((made.checkpoint.path / "config.json").read_text())
        (remark,) = made.remarks(Role.CANDIDATE)
        assert remark == f"not loaded with the candidate, because nothing needs it: {', '.join(left)}"

    def test_many_are_counted(self, model: Path, build: Build) -> None:
        for number in range(40):
            (model / f"pytorch_model-{number:05d}.bin").write_bytes(b"")
        (remark,) = build(model).remarks(Role.BASELINE)
        assert remark.endswith("pytorch_model-00009.bin and 30 more")

    def test_a_gguf_file_alone(self, model: Path, build: Build) -> None:
        for name in ("m-Q8_0.gguf", "m-Q4_0.gguf"):
            (model / name).write_bytes(gguf({"output_norm.weight": ((64,), 0, 256)}))
        made = build(model, load={"gguf_file": "m-Q8_0.gguf"})
        assert [n for n in names(made.checkpoint.path) if n.startswith("m")] == ["m-Q8_0.gguf"]
        assert made.left_out == ("m-Q4_0.gguf", "model.safetensors")

    def test_a_tokenizer_from_elsewhere_is_viewed_too(self, model: Path, build: Build, tmp_path: Path) -> None:
        other = write_checkpoint(tmp_path / "other")
        change(other, "tokenizer_config.json", auto_map={"AutoTokenizer": ["t.T", None]})
        (other / "t.py").write_text("")
        made = build(model, tokenizer=str(other))
        assert made.checkpoint.tokenizer is not None
        assert names(Path(made.checkpoint.tokenizer)) == ["config.json", "tokenizer.json", "tokenizer_config.json"]
        assert made.left_out == ("auto_map of tokenizer_config.json",)
        (other / "tokenizer.json").unlink()
        (other / "tokenizer.json").symlink_to("/etc/passwd")
        with pytest.raises(Refused, match="link out of the checkpoint"):
            view.build(resolved(model, tokenizer=str(other)), tmp_path / "again", backend="hf")

    def test_a_fake_checkpoint_is_loaded_from_where_it_lies(self, tmp_path: Path) -> None:
        made = view.build(resolved(tmp_path), tmp_path / "view", backend="fake")
        assert made.checkpoint.path == tmp_path
        assert not (tmp_path / "view").exists()


class TestCode:
    def test_it_is_in_the_view_where_the_policy_asks_for_it(self, model: Path, build: Build) -> None:
        (model / "modeling.py").write_text("x = 1")
        (model / "parts").mkdir()
        (model / "parts" / "attention.py").write_text("y = 2")
        change(model, "config.json", auto_map=AUTO_MAP, architectures=["MyModel"])
        made = build(model, trust_remote_code=True)
        assert made.code == ("modeling.py", "parts/attention.py")
        assert {*made.code} <= {*names(made.checkpoint.path)}
        assert (made.checkpoint.path / "config.json").read_bytes() == (model / "config.json").read_bytes()
        (remark,) = made.remarks(Role.CANDIDATE)
        assert "trust_remote_code: the candidate's own code is run, as the policy asks (modeling.py, parts" in remark

    def test_trust_without_code_is_told(self, model: Path, build: Build) -> None:
        (remark,) = build(model, trust_remote_code=True).remarks(Role.BASELINE)
        assert "(it has none)" in remark

    def test_code_from_another_repository_is_in_no_digest(self, model: Path, build: Build) -> None:
        change(model, "config.json", auto_map={"AutoConfig": "org/other--configuration.C"})
        with pytest.raises(Refused, match="auto_map takes code from another repository"):
            build(model, trust_remote_code=True)

    def test_every_auto_map_goes(self, model: Path, build: Build) -> None:
        change(model, "config.json", text_config={"auto_map": AUTO_MAP, "kept": 1}, auto_map=AUTO_MAP)
        change(model, "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "t.T"]})
        made = build(model)
        for name in names(made.checkpoint.path):
            assert name.endswith(".safetensors") or "auto_map" not in (made.checkpoint.path / name).read_text()
        assert json.loads((made.checkpoint.path / "config.json").read_text())["text_config"] == {"kept": 1}

    @pytest.mark.parametrize(
        ("architecture", "kind"),
        [
            ("Phi3ForCausalLM", "phi3"),
            ("GPTNeoXForCausalLM", "gpt_neox"),
            ("DeepseekV3ForCausalLM", "deepseek_v3"),
            ("Gemma3ForCausalLM", "gemma3_text"),
            ("GPT2LMHeadModel", "gpt2"),
            ("OPTForCausalLM", "opt"),
        ],
    )
    def test_an_architecture_of_that_name_may_do_without(
        self, model: Path, build: Build, architecture: str, kind: str
    ) -> None:
        change(model, "config.json", auto_map=AUTO_MAP, architectures=[architecture], model_type=kind)
        assert build(model).left_out == ("auto_map of config.json",)


class TestReferences:
    @pytest.mark.parametrize("key", ["_name_or_path", "name_or_path", "special_tokens_map_file"])
    def test_paths_that_loaders_replace_are_dropped(self, model: Path, build: Build, key: str) -> None:
        change(model, "tokenizer_config.json", **{key: "/home/somebody/model"})
        change(model, "config.json", text_config={key: "/home/somebody/model"})
        made = build(model)
        assert "somebody" not in (made.checkpoint.path / "tokenizer_config.json").read_text()
        assert "somebody" not in (made.checkpoint.path / "config.json").read_text()

    @pytest.mark.parametrize(
        "value", ["/etc/passwd", "../x", "a/../../x", "~/x", "C:\\x", ".git/config", "a\nb", "x" * 1000, ["ok", "../x"]]
    )
    def test_paths_that_lead_away_are_refused(self, model: Path, build: Build, value: Any) -> None:
        change(model, "tokenizer_config.json", nested={"deep": [{"vocab_file": value}]})
        with pytest.raises(Refused, match="expected names inside the checkpoint's folder"):
            build(model)

    @pytest.mark.parametrize(
        ("name", "key"),
        [
            ("tokenizer_config.json", "tokenizer_file"),
            ("tokenizer_config.json", "vocab_file"),
            ("quantize_config.json", "model_name_or_path"),
        ],
    )
    def test_paths_of_the_exporters_machine_are_left_out_and_named(
        self, model: Path, build: Build, name: str, key: str
    ) -> None:
        (model / name).write_text(json.dumps({key: "/root/.cache/x/y.json", "bits": 4}))
        made = build(model)
        assert made.left_out == (f"{key} of {name}",)
        assert json.loads((made.checkpoint.path / name).read_text()) == {"bits": 4}

    def test_an_adapter_beside_a_whole_model_is_left_out(self, model: Path, build: Build) -> None:
        (model / "adapter_config.json").write_text('{"base_model_name_or_path": "/data/llama"}')
        (model / "adapter_model.safetensors").write_bytes(b"")
        made = build(model)
        assert made.left_out == ("adapter_config.json", "adapter_model.safetensors")
        assert not (made.checkpoint.path / "adapter_config.json").exists()

    @pytest.mark.parametrize(
        "config",
        [
            {"_attn_implementation": {"": "evil/kernel"}},
            {"text_config": {"attn_implementation": {"deep": [["evil/kernel"]]}}},
            {"layers": [[{"experts_implementation": "evil/kernel"}]]},
        ],
        ids=str,
    )
    def test_kernels_from_elsewhere_are_refused_at_any_depth(
        self, model: Path, build: Build, config: dict[str, Any]
    ) -> None:
        change(model, "config.json", **config)
        with pytest.raises(Refused, match="is 'evil/kernel', code from another place"):
            build(model)

    @pytest.mark.parametrize("name", ["tiktoken.model", "tekken.json", "qwen.tiktoken"])
    def test_tokenizers_of_other_libraries_are_loaded(self, model: Path, build: Build, name: str) -> None:
        (model / name).write_text("{}")
        made = build(model)
        assert (made.checkpoint.path / name).read_text() == "{}"
        assert made.left_out == ()

    def test_honest_values_are_not(self, model: Path, build: Build) -> None:
        change(model, "tokenizer_config.json", tokenizer_file=None, chat_template="{{ '/etc/../x' }}", x_dir="sub")
        change(model, "config.json", attn_implementation="sdpa", model_path="org/model")
        build(model)


class TestLinks:
    def test_the_hub_cache_keeps_its_files_elsewhere(self, tmp_path: Path, build: Build) -> None:
        repository = tmp_path / "hub" / "models--org--model"
        snapshot = write_checkpoint(repository / "snapshots" / "abc")
        (repository / "blobs").mkdir()
        for file in list(snapshot.iterdir()):
            blob = repository / "blobs" / f"blob-of-{file.name}"
            file.rename(blob)
            file.symlink_to(os.path.relpath(blob, snapshot))
        seen = build(snapshot).checkpoint.path
        assert (seen / "model.safetensors").readlink() == repository / "blobs" / "blob-of-model.safetensors"
        outside = tmp_path / "hub" / "models--org--other"
        outside.mkdir()
        (outside / "x").write_bytes(b"{}")
        (snapshot / "generation_config.json").symlink_to(outside / "x")
        with pytest.raises(Refused, match="link out of the checkpoint"):
            list(folders.regular_files(snapshot))

    def test_a_name_like_the_cache_declares_nothing(self, tmp_path: Path) -> None:
        inside = write_checkpoint(tmp_path / "models--a" / "revisions" / "abc")
        assert folders.declared_root(inside) == inside

    def test_links_within_the_folder_are_the_checkpoints_own(self, model: Path, build: Build) -> None:
        (model / "tokenizer.json").rename(model / "kept.json")
        (model / "tokenizer.json").symlink_to("kept.json")
        os.link(model / "config.json", model / "copy-of-config.json")
        assert build(model).left_out == ("copy-of-config.json", "kept.json")

    def test_a_second_name_elsewhere_is_refused_with_what_to_do(self, model: Path) -> None:
        os.link(model / "config.json", model.parent / "elsewhere.json")
        with pytest.raises(Refused, match=r"config\.json is a hard link.*cp config\.json x && mv x config\.json"):
            list(folders.regular_files(model))

    def test_too_many_files(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folders, "MAX_FILES", 3)
        with pytest.raises(Refused, match="more than 3 files"):
            list(folders.regular_files(model))

    def test_a_pipe_that_appears_while_we_look_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(Refused, match="is a pipe, expected a file"):
            folders.read_bytes(tmp_path / "pipe", limit_bytes=10)


class TestExplained:
    def test_nobody_hears_of_the_views_folder(self, model: Path, build: Build, tmp_path: Path) -> None:
        made = build(model, tokenizer=str(write_checkpoint(tmp_path / "other")))
        said = f"{made.checkpoint.path}/x and {made.checkpoint.tokenizer} cannot be loaded"
        for problem in (CheckpointError(said), WorkerError(said, kind="failed", stderr_tail="tail")):
            told = made.explained(problem)
            assert type(told) is type(problem)
            assert str(told) == f"{model}/x and {tmp_path / 'other'} cannot be loaded"

    def test_code_that_may_be_missing_is_refused(self, model: Path, build: Build) -> None:
        change(model, "config.json", auto_map=AUTO_MAP)
        made = build(model)
        told = made.explained(CheckpointError("not known"))
        assert type(told) is Refused
        assert re.search(r"not known; auto_map of config\.json was left out.*`trust_remote_code: true`", str(told))
        assert type(made.explained(CouldNotMeasure("hung"))) is CouldNotMeasure


class TestSizes:
    def written(self, model: Path, **config: Any) -> Path:
        change(model, "config.json", **config)
        return model

    @pytest.mark.parametrize(
        "config",
        [
            {},
            {"hidden_size": 8, "vocab_size": 6, "num_hidden_layers": 1},
            {"hidden_size": 8, "vocab_size": 5},  # more rows are padding, or tokens of images
            {"text_config": {"hidden_size": 8, "vocab_size": 6}, "vision_config": {"hidden_size": 10**9}},
            {"hidden_size": 16, "word_embed_proj_dim": 8},
            {"num_experts": 0, "intermediate_size": [8, 16], "n_inner": None},
            {"quantization_config": None, "num_hidden_layers": 1, "max_position_embeddings": 10**9},
        ],
    )
    def test_sizes_that_agree(self, model: Path, build: Build, config: dict[str, Any]) -> None:
        build(self.written(model, **config))

    def test_layers_beyond_those_that_are_promised_may_be_there(self, model: Path, build: Build) -> None:
        tensors = full_precision()
        tensors["model.layers.1.extra.weight"] = tensors["model.layers.0.mlp.up.weight"]
        (model / "model.safetensors").write_bytes(safetensors(tensors))
        build(self.written(model, num_hidden_layers=1))

    @pytest.mark.parametrize("value", [True, 1.5, "8", [8, -1], {}])
    def test_sizes_that_are_none(self, model: Path, build: Build, value: Any) -> None:
        with pytest.raises(CheckpointError, match=r"promises head_dim .*, expected a whole number"):
            build(self.written(model, head_dim=value))


class TestJson:
    @pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", '{"a": [1, -Infinity]}'])
    def test_numbers_that_json_does_not_have(self, text: str) -> None:
        with pytest.raises(Refused, match=r"x holds .*, expected finite numbers"):
            strict_json.parse(text.encode(), "x")

    def test_depth(self) -> None:
        allowed = b"[" * strict_json.MAX_DEPTH + b"]" * strict_json.MAX_DEPTH
        assert strict_json.parse(allowed, "x")
        with pytest.raises(Refused, match="nested deeper"):
            strict_json.parse(b"[" + allowed + b"]", "x")

    def test_what_is_plain_comes_back(self) -> None:
        document = {"a": [1, 2.5, "é\u2028", None, True], "b": {"a": 10**30}}
        assert strict_json.parse(json.dumps(document).encode(), "x") == document
        assert strict_json.parse(json.dumps(document, ensure_ascii=False).encode(), "x") == document
