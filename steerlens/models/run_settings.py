"""What a result says of the model and the machine it was computed with."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

from steerlens import __version__
from steerlens.models.fingerprint import fingerprint, user_hooks
from steerlens.models.model_stamp import stamp
from steerlens.models.proof import proof_of
from steerlens.models.protocol import HookedModel
from steerlens.models.sources import source_of


def run_settings(model: HookedModel) -> dict[str, Any]:
    """Model, device and versions, as plain data.

    A model with the user's own hooks on it has no fingerprint (None): the names of the hook points stand beside it.
    """
    weights = next(iter(model.parameters()))  # type: ignore[attr-defined]
    hooked = user_hooks(model)
    source = source_of(model)
    return {
        "model": stamp(model).name,
        **({"loaded from": source} if source and source != stamp(model).name else {}),
        "model class": type(model).__name__,
        "model fingerprint": None if hooked else fingerprint(model),
        **({"hooks of the user": hooked} if hooked else {}),
        "model proof": str(proof_of(model) or "none"),
        "device": str(weights.device),
        "dtype": str(weights.dtype).removeprefix("torch."),
        "steerlens": __version__,
        "transformer-lens": version("transformer-lens"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
