"""Originals: the Hugging Face model that a TransformerLens model is made from, wherever it comes from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from steerlens.errors import SteerlensError
from steerlens.models import adapters
from steerlens.models.checkpoints import read_checkpoint
from steerlens.models.naming import directory_name, live_name
from steerlens.models.quantized import packed
from steerlens.models.stored_dtype import LARGE
from steerlens.models.weight_sketch import WeightSketch, sketch_weights

Way = tuple[bool, bool]
"""What becomes of a model: whether a bridge, and whether its weights are processed."""


@dataclass(frozen=True)
class Original:
    """A Hugging Face model and what goes with it.

    Attributes:
        take: gives the model, evaluated on the CPU and ours to change; another one at every call, since a conversion
            rewrites the weights of the one it is given. In a dtype at least as exact as the one that it is asked for;
            None is the dtype of the files.
        kind: the model's class.
        tokenizer: as it was given or found beside the weights.
        name: what to call it.
        as_it_is: why its weights cannot be processed, cast or moved ("its weights are in 4 bits"), or None. Such a
            model becomes an unprocessed bridge around the very weights.
        sketch: of its weights, by which vectors know it whatever it becomes.
        in_pieces: whether it is so large that it is better converted piece by piece.
    """

    take: Callable[[torch.dtype | None], Any]
    kind: str
    tokenizer: Any
    name: str
    as_it_is: str | None = None
    sketch: WeightSketch | None = None
    in_pieces: bool = False


def find_original(source: Any, tokenizer: Any, *, base: Any = None) -> Original:
    """The original behind a model object, a directory or a name.

    Args:
        base: the model that an adapter directory goes with; by default the one that it names.

    Raises:
        SteerlensError: none to be had (see `load_model`).
    """
    if adapters.is_adapter(source):
        return _adapted(Path(source), tokenizer, base)
    if base is not None:
        raise SteerlensError(
            "base= goes with the directory of an adapter (adapter_config.json), which the source is not; leave it out"
        )
    if isinstance(source, torch.nn.Module) and hasattr(source, "config"):
        return _live(source, tokenizer)
    if isinstance(source, str | Path):
        return _stored(source, tokenizer)
    raise SteerlensError(
        f"cannot load a model from a {type(source).__name__}; "
        'give "demo", a Hugging Face name, a directory, or a model object'
    )


def _stored(source: str | Path, tokenizer: Any) -> Original:
    """A model in files."""
    model, tokenizer, name = read_checkpoint(source, tokenizer, dtype=None)
    return _original(model, tokenizer, name, again=lambda dtype: read_checkpoint(source, tokenizer, dtype=dtype)[0])


def _original(model: Any, tokenizer: Any, name: str, *, again: Callable[[torch.dtype | None], Any]) -> Original:
    """The original that `model` is the first copy of; `again` makes others."""
    kind, as_it_is, sketch = type(model).__name__, packed(model), sketch_weights(model.named_parameters())
    in_half = as_it_is is None and not sketch.exact
    if in_half:  # what the files hold was read without rounding
        sketch = replace(sketch, exact=True)
    size = sum(weight.numel() for weight in model.parameters())
    first = [model]  # who takes it holds it, so that a conversion can free what it has read
    del model

    def take(dtype: torch.dtype | None = None) -> Any:
        if first and (dtype is None or not in_half):
            return first.pop()
        first.clear()
        return again(dtype)

    return Original(take, kind, tokenizer, name, as_it_is, sketch, in_pieces=as_it_is is None and size >= LARGE)


def _live(source: Any, tokenizer: Any) -> Original:
    """A model object of the caller's, which stays as it is: every conversion gets a copy."""
    if tokenizer is None:
        raise SteerlensError(
            f"a {type(source).__name__} object came without a tokenizer; "
            "call load_model(model, tokenizer=AutoTokenizer.from_pretrained(...))"
        )
    if len(devices := set((getattr(source, "hf_device_map", None) or {}).values())) > 1:
        raise SteerlensError(
            f"this {type(source).__name__} is spread over {len(devices)} devices and cannot be copied; "
            "give its name or directory and device_map"
        )
    name, reason = live_name(source), packed(source)
    weights = source
    if adapted := adapters.is_adapted(source):
        adapters.check_mergeable(source)
        name, reason, weights = adapters.adapted_name(source), None, adapters.merged(source)

    def take(dtype: torch.dtype | None = None) -> Any:
        return adapters.merged(source) if adapted else copy.deepcopy(source)

    size = sum(weight.numel() for weight in weights.parameters())
    sketch, in_pieces = sketch_weights(weights.named_parameters()), reason is None and size >= LARGE
    return Original(take, type(weights).__name__, tokenizer, name, reason, sketch, in_pieces)


def _adapted(folder: Path, tokenizer: Any, base: Any) -> Original:
    """An adapter's directory, merged into its base."""
    if tokenizer is None and (folder / "tokenizer_config.json").is_file():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
    named = base if base is not None else adapters.base_of(folder)
    try:
        below = find_original(named, tokenizer)
    except SteerlensError as error:
        hint = "" if base is not None else "; give another with base="
        raise SteerlensError(f"the base of the adapter in {folder} cannot be loaded: {error}{hint}") from None

    def read(dtype: torch.dtype | None = None) -> Any:
        return adapters.read_adapter(folder, below.take(torch.float32))

    # Read now, so that what does not fit is told now.
    return _original(read(), below.tokenizer, f"{below.name} + {directory_name(folder)}", again=read)
