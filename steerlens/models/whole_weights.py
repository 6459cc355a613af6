"""`read_weights`: a model with every weight that its files hold, and none that they do not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from steerlens.errors import SteerlensError
from steerlens.models.stored_dtype import stored_dtype


def read_weights(place: str | Path, **options: Any) -> Any:
    """A causal language model with every weight as the files at `place` (a directory or a name) have it.

    Args:
        options: for Hugging Face's `from_pretrained`. A `dtype` of None is that of the files where it is one for all
            weights and the model is large: they are mapped then, not copied. Else it is float32.

    Raises:
        SteerlensError: weights that are missing, too many, or of another size than the configuration says. Hugging
            Face draws the missing ones at random and goes on. (Tied weights, stored once, are not missing.)
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as hf_logging

    where = {"local_files_only": True} if options.get("local_files_only") else {}
    if "dtype" in options and options["dtype"] is None:
        options["dtype"] = stored_dtype(place, **where)
    if getattr(AutoConfig.from_pretrained(place, **where), "quantization_config", None) is not None:
        options["dtype"] = "auto"  # packed weights stay as they are, and what stands between them goes with them
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # a table of what does not fit, which becomes the error below
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            place, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    finally:
        hf_logging.set_verbosity(verbosity)
    wrong = [
        *_listed("is missing", "are missing", found["missing_keys"]),
        *_listed("has", "have", (key for key, *_ in found["mismatched_keys"]), " another size than the configuration"),
        *_listed("is not one of its weights", "are not among its weights", found["unexpected_keys"]),
    ]
    if wrong:
        raise SteerlensError(
            f"the weights at {place} do not fit a {type(model).__name__} of their config.json: {'; '.join(wrong)}; "
            "give the whole checkpoint of a language model"
        )
    return model


def _listed(one: str, many: str, keys: Iterable[str], rest: str = "") -> list[str]:
    """A phrase that names the first few keys, if there are any."""
    names = sorted(keys)
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{', '.join(names[:3])}{more} {one if len(names) == 1 else many}{rest}"]
