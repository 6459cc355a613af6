"""What a run leaves behind: the model directory, its held-out losses and sample texts."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from tqdm.auto import tqdm

from .corpus import END_OF_TEXT, Corpus
from .network import Network, Shape, from_hugging_face, to_hugging_face

SAMPLE_PROMPTS = (
    "I went up to my friend and said",
    "This film is",
    "The wedding was",
    '"Dear me!" said',
    "Once upon a time",
)


def save_model(weights: dict[str, Tensor], shape: Shape, tokenizer: Tokenizer, directory: Path) -> None:
    """A directory that `GPT2LMHeadModel` and `AutoTokenizer` load offline, with the weights in float16.

    Every file is written in full beside its place and then moved there, so a reader never meets half a file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": shape.vocab_size,
        "n_positions": shape.n_ctx,
        "n_ctx": shape.n_ctx,
        "n_embd": shape.n_embd,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "n_inner": None,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "torch_dtype": "float16",
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.n_ctx,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
    }
    half = {name: value.detach().cpu().to(torch.float16) for name, value in to_hugging_face(weights, shape).items()}
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        partial = Path(scratch)
        save_file(half, partial / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(str(partial / "tokenizer.json"))
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (partial / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")
        for path in partial.iterdir():
            path.chmod(0o644)
            os.replace(path, directory / path.name)


def load_model(directory: Path) -> tuple[dict[str, Tensor], Shape, Tokenizer]:
    """Weights (float32, our names), shape and tokenizer of an exported directory."""
    config = json.loads((directory / "config.json").read_text())
    shape = Shape(config["n_layer"], config["n_embd"], config["n_positions"], config["vocab_size"])
    stored = {name: value.float() for name, value in load_file(directory / "model.safetensors").items()}
    return from_hugging_face(stored, shape), shape, Tokenizer.from_file(str(directory / "tokenizer.json"))


def held_out_windows(documents: list[np.ndarray], length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets [window length] that cover every held-out token once; unused targets are -1.

    A document is cut into windows that do not overlap, and each begins afresh with token 0: a plain, slightly
    pessimistic measure, because the first tokens of a window have little context.
    """
    pieces = [document[i : i + length] for document in documents for i in range(0, len(document), length)]
    inputs = np.zeros((len(pieces), length), dtype=np.int64)
    targets = np.full((len(pieces), length), -1, dtype=np.int64)
    for row, piece in enumerate(pieces):
        inputs[row, 1 : len(piece)] = piece[:-1]
        targets[row, : len(piece)] = piece
    return torch.from_numpy(inputs), torch.from_numpy(targets)


@torch.no_grad()
def held_out_losses(directory: Path, corpus: Corpus, device: str, exact: bool = True) -> dict[str, dict[str, float]]:
    """Loss of the exported model on the held-out sets, in nats per token and nats per byte of UTF-8.

    `exact` computes in float32; otherwise in bfloat16, which is several times quicker on recent CPUs.
    """
    weights, shape, _ = load_model(directory)
    network = Network(shape)
    network.load_state_dict(weights)
    network = network.to(device, torch.float32 if exact else torch.bfloat16).eval()
    results = {}
    for name, documents in corpus.held_out.items():
        inputs, targets = held_out_windows(documents, shape.n_ctx)
        nats = 0.0
        pairs = list(zip(inputs.split(16), targets.split(16), strict=True))
        for rows, answers in tqdm(pairs, desc=f"held-out {name}", mininterval=5):
            logits = (network(rows.to(device)) @ network.wte.weight.t()).float()
            nats += float(
                torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), answers.to(device).flatten(), ignore_index=-1, reduction="sum"
                )
            )
        tokens = int((targets >= 0).sum())
        results[name] = {
            "documents": len(documents),
            "tokens": tokens,
            "bytes": corpus.held_out_bytes[name],
            "nats_per_token": round(nats / tokens, 4),
            "nats_per_byte": round(nats / corpus.held_out_bytes[name], 4),
        }
    return results


def sample_texts(directory: Path, seed: int) -> list[str]:
    """One continuation of 60 tokens for each sample prompt (temperature 0.8, top-p 0.9)."""
    from transformers import AutoTokenizer, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    model = GPT2LMHeadModel.from_pretrained(str(directory), dtype=torch.float32).eval()
    torch.manual_seed(seed)
    texts = []
    for prompt in SAMPLE_PROMPTS:
        tokens = torch.tensor([[0, *tokenizer(prompt, add_special_tokens=False).input_ids]])
        out = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=min(60, model.config.n_positions - tokens.shape[1]),
            do_sample=True,
            temperature=0.8,
            top_p=0.9,
            top_k=0,
            pad_token_id=0,
        )
        texts.append(tokenizer.decode(out[0, 1:], skip_special_tokens=True))
    return texts
