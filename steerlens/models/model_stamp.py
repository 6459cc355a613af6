"""The stamp by which a vector recognises the model it came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import flag, shown, text, whole_number
from steerlens.errors import SteerlensError
from steerlens.models.held_weights import once_if_held
from steerlens.models.naming import model_name
from steerlens.models.protocol import HookedModel, is_bridge
from steerlens.models.weight_sketch import WeightSketch, live_and_origin

# Sixteen embedding entries tell two sets of weights apart; more would only cost time.
_SKETCH_ROWS, _SKETCH_COLUMNS = 4, 4
# Half precision moves an entry by at most 2^-8 of its size; other weights differ by their own size.
_SKETCH_TOLERANCE = 2e-2
# Centred rows average to rounding error (under 4e-3 of their spread even in bfloat16); raw rows do not, at any width.
_CENTRED_TOLERANCE = 4e-3


@dataclass(frozen=True)
class ModelStamp:
    """The identity of a set of weights in a residual basis: enough to refuse a vector of another model.

    Attributes:
        name: the model's name as TransformerLens has it (for messages; not compared).
        n_layers, d_model, d_vocab: sizes.
        folded: layer-norm weights were folded into the next linear maps.
        centred: the weights that write to the residual stream were centred (changes the residual stream itself).
        sketch: sixteen entries of the token embedding.
        weights: sketch of all weights as the model runs with them; None in files of version 0.1.
        origin: sketch of the Hugging Face model that it was made from, whatever its class and processing; None where
            that is not known.
    """

    name: str
    n_layers: int
    d_model: int
    d_vocab: int
    folded: bool
    centred: bool
    sketch: tuple[float, ...]
    weights: WeightSketch | None = None
    origin: WeightSketch | None = None

    def __post_init__(self) -> None:
        text("a model's name", self.name)
        for field in ("n_layers", "d_model", "d_vocab"):
            object.__setattr__(self, field, whole_number(f"a model's {field}", getattr(self, field), least=1))
        for field in ("folded", "centred"):
            object.__setattr__(self, field, flag(f"a model's {field}", getattr(self, field)))
        if not isinstance(self.sketch, tuple) or not all(isinstance(x, int | float) for x in self.sketch):
            raise SteerlensError(f"a model's sketch must be numbers, got {shown(self.sketch)}")
        try:
            object.__setattr__(self, "sketch", tuple(map(float, self.sketch)))
        except OverflowError:
            raise SteerlensError(f"a model's sketch holds a number that is too large: {shown(self.sketch)}") from None
        for field in ("weights", "origin"):
            if not isinstance(one := getattr(self, field), WeightSketch | None):
                raise SteerlensError(f"a model's {field} must be a sketch of weights or None, got {shown(one)}")

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> ModelStamp:
        """The stamp that `dataclasses.asdict` made plain data of."""
        plain = {**record, "sketch": tuple(record["sketch"])}
        for name in ("weights", "origin"):
            if (one := plain.get(name)) is not None:
                values = tuple(one["values"])
                if not all(isinstance(value, float) for value in values):
                    raise TypeError(f"the sketch {name!r} holds what is no number")
                plain[name] = WeightSketch(str(one["form"]), bool(one["exact"]), values)
        return ModelStamp(**plain)

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
        if not sketches_agree(self.sketch, other.sketch):
            return "the weights differ"
        # The originals first: they can be compared whatever the class and processing of the two models.
        for mine, theirs in ((self.origin, other.origin), (self.weights, other.weights)):
            differ = mine.differs(theirs) if mine is not None and theirs is not None else None
            if differ is not None:
                return "the weights differ (the embeddings agree: a fine-tune of the same base?)" if differ else None
        return None


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def sketches_agree(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two sketches are of one embedding. NaN and infinity are like nothing, themselves included."""
    scale = max((abs(x) for x in one), default=0.0)
    return len(one) == len(other) and all(
        abs(a - b) <= _SKETCH_TOLERANCE * scale < math.inf for a, b in zip(one, other, strict=True)
    )


def sample_of(embedding: Float[Tensor, "d_vocab d_model"]) -> Float[Tensor, "64 d_model"]:
    """Rows from all over an embedding, in float32."""
    rows = torch.linspace(0, embedding.shape[0] - 1, 64, device=embedding.device).long()
    return embedding.detach()[rows].float()


def sketch_of(sample: Float[Tensor, "64 d_model"]) -> tuple[float, ...]:
    """Sixteen entries of a sample."""
    rows = torch.linspace(0, 63, _SKETCH_ROWS, device=sample.device).long()
    columns = torch.linspace(0, sample.shape[1] - 1, _SKETCH_COLUMNS, device=sample.device).long()
    return tuple(round(x, 8) for x in sample[rows][:, columns].flatten().tolist())


@torch.no_grad()
def stamp(model: HookedModel) -> ModelStamp:
    """The stamp of `model`. Its weights are read whole once, and again when they were changed."""
    return once_if_held(model, "stamp", lambda: _read_stamp(model))


def _read_stamp(model: HookedModel) -> ModelStamp:
    cfg = model.cfg
    embedding: Tensor = model.W_E  # type: ignore[attr-defined]
    sample = sample_of(embedding)
    spread = sample.std(-1).clamp_min(1e-12)
    centred = bool((sample.mean(-1).abs() / spread).max() < _CENTRED_TOLERANCE)
    live, origin = live_and_origin(model)
    return ModelStamp(
        name=model_name(model),
        n_layers=int(cfg.n_layers),
        d_model=int(cfg.d_model),
        d_vocab=int(embedding.shape[0]),
        folded=_is_folded(model),
        centred=centred,
        sketch=sketch_of(sample),
        weights=live,
        origin=origin,
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
