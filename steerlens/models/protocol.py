"""What the package needs of a model, and the stamp by which a vector recognises the model it came from."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from steerlens.arguments import flag, shown, text, whole_number
from steerlens.errors import SteerlensError

# Sixteen embedding entries tell two sets of weights apart; more would only cost time.
_SKETCH_ROWS, _SKETCH_COLUMNS = 4, 4
# Half precision moves an entry by at most 2^-8 of its size; other weights differ by their own size.
_SKETCH_TOLERANCE = 2e-2
# Centred rows average to rounding error (under 4e-3 of their spread even in bfloat16); raw rows do not, at any width.
_CENTRED_TOLERANCE = 4e-3


@runtime_checkable
class HookedModel(Protocol):
    """A TransformerLens model: `HookedTransformer` (3.x) or `TransformerBridge` (3.x and 4.x).

    Only what both share is listed; the few things that differ live in `steerlens.models.running`.
    """

    cfg: Any
    tokenizer: Any

    @property
    def hook_dict(self) -> Mapping[str, Any]: ...

    def to_tokens(self, input: Any, prepend_bos: bool | None = ...) -> Tensor: ...

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


def is_bridge(model: HookedModel) -> bool:
    """True for a TransformerBridge, False for a HookedTransformer, decided without importing TransformerLens."""
    return any(cls.__name__ == "TransformerBridge" for cls in type(model).__mro__)


def require_model(model: object) -> HookedModel:
    """The model itself, if TransformerLens made it and it sits on one device.

    Raises:
        SteerlensError: anything else, HookedTransformers spread over several devices included (their device routing
            is faulty upstream, TransformerLens issues 837 and 968, so steered results could not be trusted).
    """
    names = {cls.__name__ for cls in type(model).__mro__}
    if not names & {"HookedTransformer", "TransformerBridge"}:
        raise SteerlensError(
            f"expected a HookedTransformer or TransformerBridge, got {type(model).__name__}; "
            "load it with steerlens.load_model(...)"
        )
    if "HookedTransformer" in names and getattr(model.cfg, "n_devices", 1) > 1:  # type: ignore[attr-defined]
        raise SteerlensError(
            f"this HookedTransformer is spread over {model.cfg.n_devices} devices, where TransformerLens "  # type: ignore[attr-defined]
            "mixes devices up; load it on one device, or load it as a bridge with a device_map"
        )
    _check_whole(model, hooked="HookedTransformer" in names)
    return model  # type: ignore[return-value]


def _check_whole(model: Any, *, hooked: bool) -> None:
    """Nothing, if the model still is what its configuration says, which is plain attributes that anyone may edit."""
    blocks = getattr(model, "blocks", None)
    if blocks is not None and len(blocks) != model.cfg.n_layers:
        raise SteerlensError(
            f"the model has {len(blocks)} layers but its cfg.n_layers says {model.cfg.n_layers}; set it back, or load "
            "the model anew"
        )
    embedding = getattr(getattr(model, "embed", None), "W_E", None) if hooked else None
    if embedding is not None and embedding.dtype != model.cfg.dtype:
        given, said = (str(one).removeprefix("torch.") for one in (embedding.dtype, model.cfg.dtype))
        raise SteerlensError(
            f"the model's weights are {given} but its cfg.dtype says {said}, so it cannot run; load it with "
            f"load_model(..., dtype={given!r}) instead of converting it"
        )


@dataclass(frozen=True)
class ModelStamp:
    """The identity of a set of weights in a residual basis: enough to refuse a vector of another model.

    Attributes:
        name: the model's name as TransformerLens has it (for messages; not compared).
        n_layers, d_model, d_vocab: sizes.
        folded: layer-norm weights were folded into the next linear maps.
        centred: the weights that write to the residual stream were centred (changes the residual stream itself).
        sketch: sixteen entries of the token embedding.
    """

    name: str
    n_layers: int
    d_model: int
    d_vocab: int
    folded: bool
    centred: bool
    sketch: tuple[float, ...]

    def __post_init__(self) -> None:
        text("a model's name", self.name)
        for field in ("n_layers", "d_model", "d_vocab"):
            object.__setattr__(self, field, whole_number(f"a model's {field}", getattr(self, field), least=1))
        for field in ("folded", "centred"):
            object.__setattr__(self, field, flag(f"a model's {field}", getattr(self, field)))
        if not isinstance(self.sketch, tuple) or not all(isinstance(x, int | float) for x in self.sketch):
            raise SteerlensError(f"a model's sketch must be numbers, got {shown(self.sketch)}")

    def difference(self, other: ModelStamp) -> str | None:
        """Why vectors of `self` do not belong on `other`, in words, or None if they do."""
        for field in ("n_layers", "d_model", "d_vocab"):
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                return f"{field} is {theirs} where the vector's model has {mine}"
        for field, words in (("folded", "layer-norm folding"), ("centred", "centring of writing weights")):
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                return (
                    f"the weight processing differs ({words}: vector's model {_yes(mine)}, this model {_yes(theirs)}); "
                    "load both with the same processing= setting"
                )
        scale = max((abs(x) for x in self.sketch), default=0.0)
        # Written so that NaN and infinity are like nothing, themselves included.
        alike = len(self.sketch) == len(other.sketch) and all(
            abs(a - b) <= _SKETCH_TOLERANCE * scale < math.inf for a, b in zip(self.sketch, other.sketch, strict=True)
        )
        if not alike:
            return "the weights differ"
        return None


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


@torch.no_grad()
def stamp(model: HookedModel) -> ModelStamp:
    """The stamp of `model`, read from a few rows of its weights (microseconds; nothing is cached or can be stale)."""
    cfg = model.cfg
    embedding: Tensor = model.W_E  # type: ignore[attr-defined]
    rows = torch.linspace(0, embedding.shape[0] - 1, 64, device=embedding.device).long()
    sample = embedding.detach()[rows].float()
    spread = sample.std(-1).clamp_min(1e-12)
    centred = bool((sample.mean(-1).abs() / spread).max() < _CENTRED_TOLERANCE)
    picked_rows = torch.linspace(0, 63, _SKETCH_ROWS, device=sample.device).long()
    picked_columns = torch.linspace(0, sample.shape[1] - 1, _SKETCH_COLUMNS, device=sample.device).long()
    sketch = sample[picked_rows][:, picked_columns].flatten().tolist()
    return ModelStamp(
        name=str(cfg.model_name),
        n_layers=int(cfg.n_layers),
        d_model=int(cfg.d_model),
        d_vocab=int(embedding.shape[0]),
        folded=_is_folded(model),
        centred=centred,
        sketch=tuple(round(x, 8) for x in sketch),
    )


def _is_folded(model: HookedModel) -> bool:
    if not is_bridge(model):
        return str(model.cfg.normalization_type).endswith("Pre")
    # A bridge keeps its normalisation layers; folding leaves them with unit weights.
    if not getattr(model, "compatibility_mode", False):
        return False
    norm = getattr(model.blocks[0], "ln1", None)  # type: ignore[attr-defined]
    weight = getattr(norm, "weight", None)
    return weight is None or bool((weight == 1).all())


def transformer_lens_is_loaded() -> bool:
    """Whether this process has imported TransformerLens already (it takes seconds)."""
    return "transformer_lens" in sys.modules
