"""Spoilt configurations and tokenizers: JSON that parsers choke on, paths that lead away, sizes that do not agree."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

from tests.checkpoint_factory import PACKED_W4, packed_w4, safetensors
from tests.zoo.cage import CONFIG, changed, code, refused, unusable, with_config

HIGH = 10**12


def write(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


# -- JSON that is none, or that readers disagree on


@unusable("config.json is missing")
def no_configuration(folder: Path, canary: Path) -> None:
    (folder / "config.json").unlink()


@unusable("config.json is not readable JSON")
def configuration_cut_off(folder: Path, canary: Path) -> None:
    write(folder, "config.json", json.dumps(CONFIG).encode()[:-9])


@unusable("config.json holds a list, expected a JSON object")
def configuration_is_a_list(folder: Path, canary: Path) -> None:
    write(folder, "config.json", b"[]")


@refused("config.json is larger than 52428800 bytes")
def configuration_of_gigabytes(folder: Path, canary: Path) -> None:
    os.truncate(folder / "config.json", 4 * 2**30)  # sparse: it takes no room


@refused("tokenizer.json is larger than 52428800 bytes")
def tokenizer_of_gigabytes(folder: Path, canary: Path) -> None:
    os.truncate(folder / "tokenizer.json", 4 * 2**30)


@refused("generation_config.json is nested deeper than 64 levels")
def nesting_bomb(folder: Path, canary: Path) -> None:
    write(folder, "generation_config.json", b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}")


@refused("tokenizer_config.json is nested deeper than 64 levels")
def nesting_just_below_what_python_takes(folder: Path, canary: Path) -> None:
    write(folder, "tokenizer_config.json", b'{"a":' + b"[" * 500 + b"]" * 500 + b"}")


@refused("config.json names 'vocab_size' twice in one object")
def key_twice(folder: Path, canary: Path) -> None:
    write(folder, "config.json", json.dumps(CONFIG).encode()[:-1] + b', "vocab_size": 7}')


@refused("config.json holds 'NaN', expected finite numbers")
def not_a_number(folder: Path, canary: Path) -> None:
    with_config(folder, rms_norm_eps=float("nan"))


@refused("config.json holds '1e999', expected finite numbers")
def number_that_overflows(folder: Path, canary: Path) -> None:
    write(folder, "config.json", json.dumps(CONFIG).encode()[:-1] + b', "rope_theta": 1e999}')


@refused("candidate/config.json holds a number with thousands of digits")
def number_of_five_thousand_digits(folder: Path, canary: Path) -> None:
    write(folder, "config.json", json.dumps(CONFIG).encode()[:-1] + b', "rope_theta": ' + b"9" * 5000 + b"}")


@unusable("config.json is not text in UTF-8")
def configuration_in_utf_16(folder: Path, canary: Path) -> None:
    write(folder, "config.json", json.dumps(CONFIG).encode("utf-16"))


@unusable("begins with a byte order mark")
def configuration_with_a_byte_order_mark(folder: Path, canary: Path) -> None:
    write(folder, "config.json", b"\xef\xbb\xbf" + json.dumps(CONFIG).encode())


@refused("chat_template.jinja is larger than 1048576 bytes")
def chat_template_of_megabytes(folder: Path, canary: Path) -> None:
    write(folder, "chat_template.jinja", b"{{ 1 }}" * 300_000)


# -- paths that lead away, and code


@refused("'tokenizer_file' is '/etc/passwd'")
def tokenizer_in_etc(folder: Path, canary: Path) -> None:
    changed(folder, "tokenizer_config.json", nested={"tokenizer_file": "/etc/passwd"})


@refused("'vocab_file' is '../../secrets.txt'")
def vocabulary_above_the_folder(folder: Path, canary: Path) -> None:
    changed(folder, "tokenizer_config.json", nested={"vocab_file": "../../secrets.txt"})


@refused(r"'chat_template_file' is '\\\\server\\share'")
def template_on_a_server(folder: Path, canary: Path) -> None:
    changed(folder, "tokenizer_config.json", nested={"chat_template_file": "\\\\server\\share"})


@refused("'base_model_name_or_path' is '/home/me/the-baseline'")
def base_model_in_another_folder(folder: Path, canary: Path) -> None:
    with_config(folder, base_model_name_or_path="/home/me/the-baseline")


@refused("'attn_implementation' is 'someone/kernels', code from another place")
def kernel_from_the_hub(folder: Path, canary: Path) -> None:
    with_config(folder, attn_implementation="someone/kernels")


@refused("has speculators_config: loaders put the model that it drafts for in its place")
def draft_that_names_the_baseline(folder: Path, canary: Path) -> None:
    with_config(folder, speculators_config={"verifier": {"name_or_path": "org/baseline"}})


@refused("has its own code for 'MyModelForCausalLM', which is not the 'llama' that model_type names")
def code_for_an_architecture_of_its_own(folder: Path, canary: Path) -> None:
    (folder / "modeling.py").write_text(code(canary))
    with_config(
        folder, architectures=["MyModelForCausalLM"], auto_map={"AutoModelForCausalLM": "modeling.MyModelForCausalLM"}
    )


@unusable("holds fake.json, a script for the fake backend")
def script_of_the_fake_backend(folder: Path, canary: Path) -> None:
    write(folder, "fake.json", b'{"kind": "fake"}')


# -- sizes


@unusable("names no architecture")
def no_architecture(folder: Path, canary: Path) -> None:
    write(folder, "config.json", b"{}")


@unusable("the candidate is a MistralForCausalLM, the baseline a LlamaForCausalLM")
def another_architecture(folder: Path, canary: Path) -> None:
    with_config(folder, architectures=["MistralForCausalLM"], model_type="mistral")


@refused("promises hidden_size 16, and the embedding 'model.embed_tokens.weight' is 6x8")
def wrong_width(folder: Path, canary: Path) -> None:
    with_config(folder, hidden_size=16)


@refused("promises vocab_size 7, and the embedding")
def wrong_vocabulary(folder: Path, canary: Path) -> None:
    with_config(folder, vocab_size=7)


@refused(f"promises vocab_size {HIGH}, and all tensors together have 5632 bits")
def vocabulary_of_a_trillion(folder: Path, canary: Path) -> None:
    with_config(folder, vocab_size=HIGH)


@refused(f"promises intermediate_size {HIGH}, and all tensors")
def terabytes_in_the_middle(folder: Path, canary: Path) -> None:
    with_config(folder, intermediate_size=HIGH)


@refused("promises 1000 layers, and the tensors hold 1 of them")
def a_thousand_layers(folder: Path, canary: Path) -> None:
    with_config(folder, num_hidden_layers=1000)


@unusable("promises num_attention_heads -2, expected a whole number")
def negative_heads(folder: Path, canary: Path) -> None:
    with_config(folder, num_attention_heads=-2)


@unusable("promises hidden_size '8', expected a whole number")
def width_in_words(folder: Path, canary: Path) -> None:
    with_config(folder, hidden_size="8")


# -- quantization


@refused("quant_method 'magic', which no loader knows")
def unknown_quantization(folder: Path, canary: Path) -> None:
    with_config(folder, quantization_config={"quant_method": "magic"})


@refused("declares gptq")
def quantized_in_name_only(folder: Path, canary: Path) -> None:
    with_config(folder, quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})


@unusable("quantization_config of gptq is malformed")
def quantization_that_cannot_be_read(folder: Path, canary: Path) -> None:
    with_config(folder, quantization_config={"quant_method": "gptq", "bits": "four"})


@refused("weight_scale ~ NaN")
def scales_that_are_no_numbers(folder: Path, canary: Path) -> None:
    tensors = packed_w4()
    dtype, shape, content = tensors["model.layers.0.mlp.up.weight_scale"]
    tensors["model.layers.0.mlp.up.weight_scale"] = dtype, shape, struct.pack("<f", float("nan")) + content[4:]
    write(folder, "model.safetensors", safetensors(tensors))
    with_config(folder, quantization_config=PACKED_W4)


# -- tokenizers


@unusable("has no tokenizer: expected tokenizer.json")
def no_tokenizer(folder: Path, canary: Path) -> None:
    (folder / "tokenizer.json").unlink()


@unusable("is no tokenizer")
def tokenizer_without_a_model(folder: Path, canary: Path) -> None:
    write(folder, "tokenizer.json", b'{"version": "1.0"}')


@unusable("the candidate's tokenizer is not the baseline's")
def another_tokenizer(folder: Path, canary: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    document["model"]["vocab"] = {token[::-1]: number for token, number in document["model"]["vocab"].items()}
    write(folder, "tokenizer.json", json.dumps(document).encode())


@unusable("weights of 'nan' bits, expected 1 to 64")
def bits_that_are_no_number(folder: Path, canary: Path) -> None:
    with_config(folder, quantization_config={"quant_method": "awq", "bits": "nan"})


@unusable(f"weights of {10**100}")
def bits_beyond_every_float(folder: Path, canary: Path) -> None:
    weights = {"num_bits": 10**400, "type": "int"}
    declared = {
        "quant_method": "compressed-tensors",
        "config_groups": {"g": {"targets": ["Linear"], "weights": weights}},
    }
    with_config(folder, quantization_config=declared)
