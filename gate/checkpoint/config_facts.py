"""What config.json says about the function that a model computes, and in words how two models differ in it.

Pure.  Compares what both say: a setting that one of two library versions leaves out is no difference by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DECIDING = tuple(
    "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim n_embd n_layer "
    "n_head n_inner d_model num_layers layer_types sliding_window rms_norm_eps layer_norm_eps layer_norm_epsilon "
    "norm_epsilon hidden_act hidden_activation activation_function attention_bias mlp_bias qkv_bias use_bias "
    "num_experts num_local_experts n_routed_experts n_shared_experts num_experts_per_tok moe_intermediate_size "
    "norm_topk_prob scoring_func routed_scaling_factor partial_rotary_factor rotary_pct position_embedding_type alibi "
    "final_logit_softcapping attn_logit_softcapping query_pre_attn_scalar embedding_multiplier residual_multiplier "
    "attention_multiplier logits_scaling logit_scale scale_emb q_lora_rank kv_lora_rank qk_nope_head_dim "
    "qk_rope_head_dim v_head_dim use_qk_norm".split()
)
"""Two models that differ in one of these compute different functions, whatever their weights."""

_SILENT = frozenset(
    "architectures auto_map model_type transformers_version _name_or_path name_or_path use_cache dtype torch_dtype "
    "bos_token_id eos_token_id pad_token_id initializer_range pretraining_tp quantization_config compression_config "
    "tie_word_embeddings vocab_size rope_theta unsloth_version base_model base_model_sha256 base_model_digest".split()
)
"""Compared elsewhere, or without a part in what a model answers."""

_ROPE_ALIASES = {"mrope": "default", "su": "longrope"}
"""Names of old for kinds of rotary positions; `mrope_section` says the rest."""

_ABSENT = object()


def text_model(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the language model, also where a multimodal configuration keeps them apart."""
    inner = config.get("text_config")
    flat = {**config, **inner} if isinstance(inner, dict) else dict(config)
    heads, hidden = flat.get("num_attention_heads"), flat.get("hidden_size")
    if type(heads) is int and heads > 0:
        if flat.get("num_key_value_heads") is None:
            flat["num_key_value_heads"] = heads
        if type(hidden) is int and hidden % heads == 0 and flat.get("head_dim") is None:
            flat["head_dim"] = hidden // heads
    if flat.get("use_sliding_window") is False:
        flat["sliding_window"] = None
    return flat


def dtype(config: Mapping[str, Any]) -> str | None:
    """In which precision it asks to be loaded, such as `bfloat16`."""
    found = config.get("dtype", config.get("torch_dtype")) or text_model(config).get("dtype")
    return str(found).removeprefix("torch.") if found else None


def differences(
    baseline: Mapping[str, Any], candidate: Mapping[str, Any], n_tokens: int | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(differences that make another model, differences worth a remark), in words.

    `n_tokens` is the size of the vocabulary that both share: rows of the embedding beyond it are padding.
    """
    ours, theirs = text_model(baseline), text_model(candidate)
    deciding, remarks = [], []
    for name in _DECIDING:
        one, two = ours.get(name, _ABSENT), theirs.get(name, _ABSENT)
        if _ABSENT in (one, two):
            said = two if one is _ABSENT else one
            if said not in (_ABSENT, None, False) and name != "layer_types":  # which transformers 4 does not write
                who = "candidate" if one is _ABSENT else "baseline"
                remarks.append(f"only the {who}'s config.json says {name} ({_short(said)})")
        elif one != two:
            deciding.append(f"{name} is {_short(two)} instead of {_short(one)}")
    for found, kind in (_rope(ours, theirs), _vocabulary(ours, theirs, n_tokens), _tied(ours, theirs)):
        (deciding if kind == "deciding" else remarks).extend(found)
    if dtype(baseline) != dtype(candidate) and None not in (dtype(baseline), dtype(candidate)):
        remarks.append(f"config.json asks for {dtype(candidate)}, the baseline's for {dtype(baseline)}")
    for name in sorted((ours.keys() & theirs.keys()) - _SILENT - set(_DECIDING)):
        one, two = ours[name], theirs[name]
        if "dropout" not in name and one != two and _plain(one) and _plain(two):
            remarks.append(f"config.json: {name} is {_short(two)} instead of {_short(one)}")
    return tuple(deciding), tuple(remarks)


def _rope(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[list[str], str]:
    """Rotary positions: base and scaling, as transformers 4 and 5 write them."""
    one, two = _positions(ours), _positions(theirs)
    if one is None and two is None:
        both = ours.get("rope_parameters"), theirs.get("rope_parameters")
        return (["rotary positions (rope_parameters) differ"] if both[0] != both[1] else []), "deciding"
    if one is None or two is None:
        return ["rotary positions are written in different ways and were not compared"], "remark"
    found = []
    kinds = one.pop("rope_type", "default"), two.pop("rope_type", "default")
    if kinds[0] != kinds[1]:
        found.append(f"rope scaling is {kinds[1]!r} instead of {kinds[0]!r}")
    for name in sorted(one.keys() & two.keys()):
        if one[name] != two[name]:
            found.append(f"{name} is {_short(two[name])} instead of {_short(one[name])}")
    return found, "deciding"


def _positions(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """One flat table; None where every kind of layer has its own."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, dict) or any(isinstance(v, dict) for v in found.values()):
        return None
    flat = {k: v for k, v in found.items() if k != "type" and v is not None}
    kind = flat.get("rope_type", found.get("type", "default"))
    flat["rope_type"] = _ROPE_ALIASES.get(kind, kind) if isinstance(kind, str) else kind
    if config.get("rope_theta") is not None:
        flat.setdefault("rope_theta", config["rope_theta"])
    return flat


def _vocabulary(ours: Mapping[str, Any], theirs: Mapping[str, Any], n_tokens: int | None) -> tuple[list[str], str]:
    one, two = ours.get("vocab_size"), theirs.get("vocab_size")
    if one == two or type(one) is not int or type(two) is not int:
        return [], "remark"
    text = f"vocab_size is {two:,} instead of {one:,}"
    if n_tokens is not None and min(one, two) >= n_tokens:
        return [f"{text}: rows beyond the {n_tokens:,} tokens are padding, but take part in the softmax"], "remark"
    return [text], "deciding"


def _tied(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[list[str], str]:
    """A head may be untied to quantize it; one that was trained on its own cannot be replaced by the embedding."""
    one, two = ours.get("tie_word_embeddings"), theirs.get("tie_word_embeddings")
    if one is False and two is True:
        return ["tie_word_embeddings is true instead of false: its output head is the embedding"], "deciding"
    if one is True and two is False:
        return ["the candidate stores its output head apart from the embedding, the baseline ties them"], "remark"
    return [], "remark"


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
