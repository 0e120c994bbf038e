"""Writes a small Llama as GGUF: `python to_gguf.py FOLDER` makes FOLDER/model.gguf of what a test left there.

Runs under the interpreter of llama.cpp's server, which has gguf and numpy but neither torch nor transformers.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np

LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}


def name(ours: str) -> str:
    parts = ours.removeprefix("model.").removesuffix(".weight")
    if not parts.startswith("layers."):
        return TOP[parts] + ".weight"
    _, number, rest = parts.split(".", 2)
    return f"blk.{number}.{LAYER[rest]}.weight"


def rotated(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of queries and keys in the order of llama.cpp's rotary embedding."""
    rows, columns = weight.shape
    return weight.reshape(n_heads, 2, rows // n_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def main(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    model = tokenizer["model"]
    heads = config["num_attention_heads"]
    writer = gguf.GGUFWriter(str(folder / "model.gguf"), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    special = {t["content"] for t in tokenizer["added_tokens"]}
    writer.add_token_list(tokens)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if t in special else kinds.NORMAL for t in tokens])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)
    with np.load(folder / "weights.npz") as weights:
        for ours in weights.files:
            weight = weights[ours]
            if ours.endswith(("q_proj.weight", "k_proj.weight")):
                weight = rotated(weight, heads if "q_proj" in ours else config["num_key_value_heads"])
            writer.add_tensor(name(ours), np.ascontiguousarray(weight, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main(Path(sys.argv[1]))
