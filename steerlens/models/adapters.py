"""Adapters of PEFT (LoRA and the like): merged into a copy of their base, which is a model of its own from then on."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

from steerlens.errors import SteerlensError, first_line
from steerlens.extras import needs
from steerlens.models.checkpoints import directory
from steerlens.models.naming import live_name
from steerlens.models.quantized import packed


def is_adapted(model: Any) -> bool:
    """Whether a live model is one of PEFT's, decided without importing PEFT."""
    return any(cls.__name__ == "PeftModel" for cls in type(model).__mro__)


def is_adapter(source: Any) -> bool:
    """Whether `source` is a directory that holds an adapter and no model."""
    if not isinstance(source, str | Path):
        return False
    path = directory(source)
    return path is not None and (path / "adapter_config.json").is_file() and not (path / "config.json").is_file()


def check_mergeable(model: Any) -> None:
    """Raises SteerlensError if the adapters of a PeftModel cannot be merged into its base.

    Raises:
        SteerlensError: a kind of adapter that changes more than weights (prompt tuning, say), or a base whose packed
            weights would change by the merging.
    """
    settings = model.peft_config[model.active_adapter]
    kind = str(getattr(settings.peft_type, "value", settings.peft_type))
    if not hasattr(model.base_model, "merge_and_unload"):
        raise SteerlensError(
            f"an adapter of the kind {kind} has no weights that could be merged into its base; "
            "give one that has (LoRA, say), or the base alone"
        )
    if reason := packed(model.base_model.model):
        raise SteerlensError(
            f"an adapter cannot be merged into its base without loss, since {reason}; load the base unpacked"
        )


def merged(model: Any) -> Any:
    """A plain Hugging Face model that computes what the PeftModel does; the PeftModel stays as it is.

    Raises:
        SteerlensError: adapters that cannot be merged (see `check_mergeable`), or do not merge to finite numbers.
    """
    check_mergeable(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return copy.deepcopy(model).merge_and_unload(safe_merge=True)
        except (ValueError, RuntimeError, NotImplementedError) as error:
            raise SteerlensError(f"the adapter cannot be merged into its base: {first_line(error)}") from None


def adapted_name(model: Any) -> str:
    """What to call a live PeftModel: its base and its adapters."""
    base = live_name(model)
    active = model.active_adapters if isinstance(model.active_adapters, list) else [model.active_adapter]
    return " + ".join([base, *("adapter" if name == "default" else name for name in active)])


def base_of(folder: Path) -> str:
    """The base that an adapter directory names.

    Raises:
        SteerlensError: a directory that cannot be read, or one that names none.
    """
    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        named = settings["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SteerlensError(f"cannot read {folder / 'adapter_config.json'}: {first_line(error)}") from None
    if not isinstance(named, str) or not named:
        raise SteerlensError(f"the adapter in {folder} names no base model; give it: load_model(…, base=…)")
    return named


def read_adapter(folder: Path, base: Any) -> Any:
    """A plain Hugging Face model: the adapter of a directory merged into `base`, which is ours and changes.

    Raises:
        SteerlensError: an adapter that cannot be read, does not fit the base or cannot be merged.
    """
    (peft,) = needs("peft", extra="peft")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = peft.PeftModel.from_pretrained(base, str(folder), is_trainable=False)
        except Exception as error:  # the reasons are as many as kinds of adapters; each is the user's to read
            raise SteerlensError(f"cannot read an adapter from {folder}: {first_line(error)}") from None
    for warning in caught:
        if "missing adapter keys" in str(warning.message).lower():
            raise SteerlensError(
                f"the adapter in {folder} does not fit its base: {first_line(Exception(str(warning.message)))}"
            )
    return merged(model)
