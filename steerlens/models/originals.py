"""Originals: the Hugging Face model that a TransformerLens model is made from, wherever it comes from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steerlens.errors import SteerlensError
from steerlens.models.checkpoints import read_checkpoint


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
    """

    take: Callable[[], Any]
    tokenizer: Any
    name: str
    as_it_is: str | None = None


def find_original(source: Any, tokenizer: Any) -> Original:
    """The original behind a model object, a directory or a name.

    Raises:
        SteerlensError: none to be had (see `load_model`).
    """
    if isinstance(source, torch.nn.Module) and hasattr(source, "config"):
        return _live(source, tokenizer)
    if isinstance(source, str | Path):
        model, tokenizer, name = read_checkpoint(source, tokenizer, dtype=torch.float32)
        first = [model]
        del model  # who takes it holds it, so that a conversion can free what it has read

        def take() -> Any:
            return first.pop() if first else read_checkpoint(source, tokenizer, dtype=torch.float32)[0]

        return Original(take, tokenizer, name)
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
    name = str(getattr(source.config, "name_or_path", "") or "live")
    return Original(lambda: copy.deepcopy(source), tokenizer, name)
