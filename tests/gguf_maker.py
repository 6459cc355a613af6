"""Small GGUF files, written with the `gguf` package alone, as llama.cpp's own converters write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize

SPECIAL = ["<unk>", "<s>", "</s>"]
MERGES = ["h e", "l l", "Ġ t", "Ġt he", "he ll", "hell o", "Ġ w", "Ġw e"]


def byte_symbols() -> list[str]:
    """The 256 letters that byte-level BPE writes bytes with."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


TOKENS = [*SPECIAL, *byte_symbols(), *(merge.replace(" ", "") for merge in MERGES)]


def tiny(architecture: str, **changes: Any) -> Any:
    """A random Hugging Face model with the vocabulary of `TOKENS`, its norms and biases included."""
    import transformers as hf

    size = {"vocab_size": len(TOKENS), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    rotary = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
    }
    config = {
        "llama": lambda: hf.LlamaConfig(**{**size, **rotary, **changes}),
        "qwen2": lambda: hf.Qwen2Config(**{**size, **rotary, **changes}),
        "gpt2": lambda: hf.GPT2Config(**{**size, "n_embd": 64, "n_layer": 2, "n_head": 4, **changes}),
    }[architecture]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, weight in model.named_parameters():
            around = 1.0 if weight.ndim == 1 and name.endswith("weight") else 0.0
            weight.data.normal_(around, 0.25)
    return model.eval().requires_grad_(False)


def write_gguf(
    path: Path,
    model: Any,
    *,
    quantised: bool = False,
    pre: str = "gpt-2",
    extra: dict[str, Any] | None = None,
    also: dict[str, Any] | None = None,
    leave_out: str = "",
) -> None:
    """Write the model to `path`; with `quantised`, its matrices are rounded to Q8_0, in `model` too.

    Args:
        pre: the file's word for how texts are cut.
        extra: numbers or texts under names that begin with the architecture's.
        also: tensors that belong to no model.
        leave_out: a tensor that is not written.
    """
    kind, config = model.config.model_type, model.config
    writer = gguf.GGUFWriter(path, kind)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if kind == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_vocab_size(config.vocab_size)
    for name, value in (extra or {}).items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"{kind}.{name}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    for add, token in (
        (writer.add_unk_token_id, 0),
        (writer.add_bos_token_id, 1),
        (writer.add_eos_token_id, 2),
        (writer.add_pad_token_id, 2),
    ):
        add(token)
    writer.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(
        next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kind), config.num_hidden_layers
    )
    for name, weight in model.named_parameters():
        stem, _, suffix = name.rpartition(".")
        target = f"{names.get_name(stem)}.{suffix}"
        values = _as_llama_cpp_has_it(name, weight.detach().numpy(), config)
        if quantised and values.ndim == 2 and values.shape[1] % 32 == 0:
            packed = quantize(values, gguf.GGMLQuantizationType.Q8_0)
            weight.data.copy_(
                torch.from_numpy(_back(name, dequantize(packed, gguf.GGMLQuantizationType.Q8_0).copy(), config))
            )
            if target != leave_out:
                writer.add_tensor(target, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        elif target != leave_out:
            writer.add_tensor(target, np.ascontiguousarray(values))
    for name, values in (also or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _heads(name: str, config: Any) -> int:
    """How many heads a matrix has whose rows llama.cpp keeps in another order, else 0."""
    if config.model_type != "llama":
        return 0
    return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2], 0)


def _is_transposed(name: str, config: Any) -> bool:
    return config.model_type == "gpt2" and ".c_" in name and name.endswith("weight")


def _as_llama_cpp_has_it(name: str, values: np.ndarray, config: Any) -> np.ndarray:
    if heads := _heads(name, config):
        return values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    return values.T if _is_transposed(name, config) else values


def _back(name: str, values: np.ndarray, config: Any) -> np.ndarray:
    if heads := _heads(name, config):
        return values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    return values.T if _is_transposed(name, config) else values
