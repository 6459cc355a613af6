"""The models of the benchmarks: the embedded one, and shapes with random weights."""

from __future__ import annotations

from typing import Any

import torch

import steerlens as sl
from steerlens.models import DEMO_MODEL_PATH

PROMPT = "I went up to my friend and said"
PROMPTS = (
    PROMPT,
    "I hate you because",
    "The best thing about living here is",
    "When the door opened, she saw",
    "He put the letter down and",
    "The film begins with a man who",
    "In the morning they drove to",
    "What I want to tell you is",
    "There was nothing left but",
    "My mother always said that",
)

GPT2 = {"gpt2-small": (12, 768, 12), "gpt2-xl": (48, 1600, 25)}
"""Name → layers, width, heads. With the real 50,257-token vocabulary."""
LLAMA = {"llama-small": (8, 512, 8, 2, 1408, 32000), "llama-8b": (32, 4096, 32, 8, 14336, 128256)}
"""Name → layers, width, heads, key-value heads, width of the MLP, vocabulary."""
NAMES = ("demo", *GPT2, *LLAMA)
GOALS = {"gpt2-xl": "≤ 15 s", "llama-8b": "≤ 60 s"}
"""Seconds of a whole search on an H200: 48 layers × 200 × 40 tokens; 32 layers × 20 coefficients × 10 prompts × 32."""


def plain(name: str) -> Any:
    """The Hugging Face model of a name: the embedded one, or a shape with random weights (seed 0)."""
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if name in GPT2:
        layers, width, heads = GPT2[name]
        return GPT2LMHeadModel(GPT2Config(n_layer=layers, n_embd=width, n_head=heads)).eval()
    if name in LLAMA:
        layers, width, heads, groups, inner, vocabulary = LLAMA[name]
        config = LlamaConfig(
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=heads,
            num_key_value_heads=groups,
            intermediate_size=inner,
            vocab_size=vocabulary,
            max_position_embeddings=2048,
        )
        return LlamaForCausalLM(config).eval()
    return AutoModelForCausalLM.from_pretrained(DEMO_MODEL_PATH if name == "demo" else name).eval()


def hooked(name: str, source: Any, **options: Any) -> Any:
    """`source` as steerlens loads it; shapes get the embedded model's tokenizer (its ids fit every vocabulary)."""
    from transformers import AutoTokenizer

    path = name if name not in NAMES else DEMO_MODEL_PATH
    return sl.load_model(source, tokenizer=AutoTokenizer.from_pretrained(path), **options)
