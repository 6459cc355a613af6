"""Any Hugging Face causal model that TransformerLens 3.x can convert, as a HookedTransformer, without a hub."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from steerlens.errors import SteerlensError, first_line
from steerlens.models.context import own_context


def hooked_transformer(hf_model: Any, tokenizer: Any, *, name: str, processing: bool) -> Any:
    """A HookedTransformer with the weights of `hf_model` (float32, CPU).

    Raises:
        SteerlensError: an architecture without a conversion, or weights that do not fit it.
    """
    cfg = configuration(hf_model, processing=processing)
    state = converted(hf_model, cfg)
    model = empty_hooked_transformer(hf_model, cfg, tokenizer, name=name)
    with _weights_go_straight_to_their_module(model):
        model.load_and_process_state_dict(state, **what_is_processed(cfg, processing=processing))
    return model


def configuration(hf_model: Any, *, processing: bool) -> Any:
    """What TransformerLens makes of the configuration of `hf_model`.

    `HookedTransformer.from_pretrained` asks the hub for the configuration of the *name*, ignores that of the model
    in hand, and guesses the architecture from substrings of the name. TransformerLens' own reader does the right
    thing with a directory that holds the configuration and whose name says nothing, so it is given one.

    Raises:
        SteerlensError: an architecture without a conversion.
    """
    from transformer_lens import loading_from_pretrained as reader

    config = json.loads(hf_model.config.to_json_string(use_diff=False))
    config["architectures"] = [type(hf_model).__name__]
    if "n_positions" in config:
        config.setdefault("n_ctx", config["n_positions"])  # GPT-2 files of newer transformers lack it
    with tempfile.TemporaryDirectory(prefix="cfg_") as folder, _reasons():
        (Path(folder) / "config.json").write_text(json.dumps(config))
        return reader.get_pretrained_model_config(folder, fold_ln=processing, device="cpu", dtype=torch.float32)


def converted(hf_model: Any, cfg: Any) -> dict[str, Any]:
    """The weights of `hf_model` by TransformerLens' names for them.

    Raises:
        SteerlensError: weights that do not fit the conversion.
    """
    from transformer_lens import loading_from_pretrained as reader

    with tempfile.TemporaryDirectory(prefix="cfg_") as folder, _reasons():
        state: dict[str, Any] = reader.get_pretrained_state_dict(folder, cfg, hf_model, dtype=torch.float32)
        return state


def empty_hooked_transformer(hf_model: Any, cfg: Any, tokenizer: Any, *, name: str) -> Any:
    """A HookedTransformer that waits for its weights (float32, CPU)."""
    from transformer_lens import HookedTransformer

    if cfg.positional_embedding_type != "standard":  # where there is no table of positions, theirs may be a mere cap
        cfg.n_ctx = own_context(hf_model.config) or cfg.n_ctx
    cfg.model_name, cfg.tokenizer_name = name, None
    return HookedTransformer(cfg, tokenizer, move_to_device=False)


def what_is_processed(cfg: Any, *, processing: bool) -> dict[str, bool]:
    """Of which kinds of processing TransformerLens is asked for which."""
    layer_norm = str(cfg.normalization_type).startswith("LN")
    return {
        "fold_ln": processing,
        "center_writing_weights": processing and layer_norm,  # RMS norm is not blind to the mean
        "center_unembed": processing,
        "fold_value_biases": processing,
        "refactor_factored_attn_matrices": False,
    }


@contextmanager
def _reasons() -> Iterator[None]:
    """What TransformerLens' reader stops with, told as an error of ours."""
    try:
        yield
    except (NotImplementedError, ValueError, AttributeError, KeyError) as error:
        raise SteerlensError(f"it cannot be converted ({first_line(error)})") from None


@contextmanager
def _weights_go_straight_to_their_module(model: Any) -> Iterator[None]:
    """TransformerLens loads one weight at a time, and PyTorch walks all modules for each: half of all loading."""

    def load(state: Mapping[str, torch.Tensor], strict: bool = True, assign: bool = False) -> None:
        for name, value in state.items():
            path, _, last = name.rpartition(".")
            with suppress(AttributeError):  # a weight that this model has no place for, as with strict=False
                model.get_submodule(path).load_state_dict({last: value}, strict=False, assign=assign)

    model.load_state_dict = load
    try:
        yield
    finally:
        del model.load_state_dict
