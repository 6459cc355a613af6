"""Originals: the Hugging Face model that a TransformerLens model is made from, wherever it comes from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steerlens.errors import SteerlensError
from steerlens.models import adapters
from steerlens.models.checkpoints import read_checkpoint
from steerlens.models.quantized import packed
from steerlens.models.weight_sketch import WeightSketch, sketch_weights


@dataclass(frozen=True)
class Original:
    """A Hugging Face model and what goes with it.

    Attributes:
        take: gives the model, evaluated on the CPU and ours to change; another one at every call, since a conversion
            rewrites the weights of the one it is given.
        tokenizer: as it was given or found beside the weights.
        name: what to call it.
        as_it_is: why its weights cannot be processed, cast or moved ("its weights are in 4 bits"), or None. Such a
            model becomes an unprocessed bridge around the very weights.
        sketch: of its weights, by which vectors know it whatever it becomes.
    """

    take: Callable[[], Any]
    tokenizer: Any
    name: str
    as_it_is: str | None = None
    sketch: WeightSketch | None = None


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
        model, tokenizer, name = read_checkpoint(source, tokenizer, dtype=torch.float32)
        first, as_it_is, sketch = [model], packed(model), sketch_weights(model.named_parameters())
        del model  # who takes it holds it, so that a conversion can free what it has read

        def take() -> Any:
            return first.pop() if first else read_checkpoint(source, tokenizer, dtype=torch.float32)[0]

        return Original(take, tokenizer, name, as_it_is, sketch)
    raise SteerlensError(
        f"cannot load a model from a {type(source).__name__}; "
        'give "demo", a Hugging Face name, a directory, or a model object'
    )


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
    if adapters.is_adapted(source):
        adapters.check_mergeable(source)
        sketch = sketch_weights(adapters.merged(source).named_parameters())
        return Original(lambda: adapters.merged(source), tokenizer, adapters.adapted_name(source), sketch=sketch)
    name = str(getattr(source.config, "name_or_path", "") or "live")
    sketch = sketch_weights(source.named_parameters())
    return Original(lambda: copy.deepcopy(source), tokenizer, name, packed(source), sketch)


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
    first = [adapters.read_adapter(folder, below.take())]  # now, so that what does not fit is told now

    def take() -> Any:
        return first.pop() if first else adapters.read_adapter(folder, below.take())

    sketch = sketch_weights(first[0].named_parameters())
    return Original(take, below.tokenizer, f"{below.name} + {folder.name}", sketch=sketch)
