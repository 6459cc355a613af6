"""`magnitudes`: how long residual streams and vectors are at every layer and position, and how vectors align."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch
from torch import Tensor

from steerlens.arguments import listed
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, for_one_thread, require_model
from steerlens.showing import Shown
from steerlens.steering import PromptPair, SteeringVector, actadd, check_vector
from steerlens.steering.extraction.activations import resid_pre, which_layers
from steerlens.steering.prompts import PromptLike, is_one_prompt, read_prompt
from steerlens.steering.tokens import token_strings

if TYPE_CHECKING:
    import plotly.graph_objects as go

What = PromptPair | SteeringVector | Mapping[int, SteeringVector]


@dataclass(frozen=True, eq=False, repr=False)
class Magnitudes(Shown):
    """Norms by layer and position, and cosines of vectors.

    Attributes:
        frame: one row per series × layer × position. Columns: series (a prompt, or a vector's label), kind ("prompt"
            or "vector"), layer (at its input), position (BOS at 0; of a vector: its row), token (of a prompt; of an
            ActAdd vector the positive prompt's), norm (Euclidean), ratio (vectors: norm over the mean norm of the
            prompts at that layer and position, where a prompt is that long; NaN for prompts and without any).
        cosines: one row per two vectors, each pair once and each with itself. Columns: series_a, layer_a, series_b,
            layer_b, cosine (over all positions, aligned at the front; NaN where a vector is zero).
    """

    frame: pd.DataFrame
    cosines: pd.DataFrame

    def _told(self) -> tuple[str, Mapping[str, object]]:
        kinds = self.frame.groupby("kind")["series"].nunique()
        ratio = self.frame["ratio"].dropna()
        facts: dict[str, object] = {
            "vectors": int(kinds.get("vector", 0)),
            "prompts": int(kinds.get("prompt", 0)),
            "layers": self.frame["layer"].nunique(),
        }
        if len(ratio := ratio[ratio > 0]):
            facts["norm of the vectors / of the prompts"] = f"{ratio.min():.2g} to {ratio.max():.2g}"
        return "norms by layer and position", facts

    def plot(self, value: Literal["norm", "ratio", "cosine"] = "norm", *, mark_layer: int | None = None) -> go.Figure:
        """Norms against the layer, one line per series; the vectors' norms over the prompts' (`"ratio"`); or the
        cosines of the vectors (`"cosine"`).
        """
        from steerlens.figures import cosine_heatmap, norm_growth

        if value == "norm":
            return norm_growth(self.frame, mark_layer=mark_layer)
        if value == "cosine":
            if self.cosines.empty:
                raise SteerlensError("a cosine needs vectors; give magnitudes prompt pairs or vectors")
            return cosine_heatmap(self.cosines)
        if value != "ratio":
            raise SteerlensError(f"value={value!r} is unknown; use 'norm', 'ratio' or 'cosine'")
        rows = self.frame[(self.frame["kind"] == "vector") & self.frame["ratio"].notna()]
        if rows.empty:
            raise SteerlensError("a ratio needs a vector and a prompt to compare it with; give magnitudes both")
        return norm_growth(
            rows,
            value="ratio",
            value_title="norm of the vector / of the prompt",
            mark_layer=mark_layer,
            title="Vectors against prompts, by layer",
        )


@for_one_thread
@torch.no_grad()
def magnitudes(
    model: HookedModel,
    what: What | Sequence[What] = (),
    prompts: PromptLike | Sequence[PromptLike] = (),
    *,
    layers: Sequence[int] | Literal["all"] = "all",
) -> Magnitudes:
    """Norms of vectors and of prompts per layer and position, their ratio, and the cosines between vectors.

    Args:
        what: prompt pairs (their vectors at all `layers` are taken), vectors, or {layer: vector} as `actadd` gives.
        prompts: prompts (texts, chats, token ids) whose residual stream is measured, with what your own hooks on the
            model make of it. Vectors of pairs are taken without them, as `actadd` does.
        layers: `"all"` or layer numbers.

    Raises:
        SteerlensError: nothing to measure, layer out of range, an empty prompt, a vector of another model.
    """
    require_model(model)
    chosen = which_layers(model, None, layers)
    asked = [prompts] if is_one_prompt(prompts) else listed("prompts", prompts, of="prompts")
    measured = [read_prompt(model, prompt) for prompt in asked]  # type: ignore[arg-type]
    if isinstance(what, PromptPair | SteeringVector | Mapping):
        given: list[What] = [what]
    else:
        given = listed("what to measure", what, of="prompt pairs or vectors")
    vectors = [(_series(one), vector) for one in given for vector in _vectors_of(model, one, chosen)]
    if not vectors and not measured:
        raise SteerlensError("there is nothing to measure; give prompt pairs or vectors, prompts, or both")
    rows: list[dict[str, object]] = []
    streams: dict[int, list[list[float]]] = {layer: [] for layer in chosen}
    for prompt in measured:
        ids = list(prompt.ids)
        strings = token_strings(model, ids)
        tokens = torch.tensor([ids], device=model.cfg.device)
        found = resid_pre(model, tokens, chosen, attention_mask=torch.ones_like(tokens), live_hooks=True)
        for layer, values in found.items():
            norms = values[0].norm(dim=-1).tolist()
            streams[layer].append(norms)
            rows.extend(_row(prompt.text, "prompt", layer, at, strings[at], norm) for at, norm in enumerate(norms))
    for series, vector in vectors:
        extracted = vector.source.get("tokens")
        strings = ("",) * vector.n_positions
        if extracted and len(extracted[0]) == vector.n_positions:  # not so for one row of a vector
            strings = token_strings(model, extracted[0])
        for at, norm in enumerate(vector.norms.tolist()):
            there = [norms[at] for norms in streams.get(vector.layer, []) if at < len(norms)]
            ratio = norm / (sum(there) / len(there)) if there else float("nan")
            rows.append(_row(series, "vector", vector.layer, at, strings[at], norm, ratio))
    return Magnitudes(pd.DataFrame(rows), cosines(vectors))


def cosines(vectors: Sequence[tuple[str, SteeringVector]]) -> pd.DataFrame:
    """The cosine of every two vectors, each pair once; columns as `Magnitudes.cosines` says."""
    width = max((vector.n_positions for _, vector in vectors), default=0)
    flat = [
        torch.nn.functional.pad(vector.values.cpu().double(), (0, 0, 0, width - vector.n_positions)).flatten()
        for _, vector in vectors
    ]
    rows = [
        {
            "series_a": vectors[i][0],
            "layer_a": vectors[i][1].layer,
            "series_b": vectors[j][0],
            "layer_b": vectors[j][1].layer,
            "cosine": _cosine(flat[i], flat[j]),
        }
        for i in range(len(vectors))
        for j in range(i, len(vectors))
    ]
    return pd.DataFrame(rows, columns=["series_a", "layer_a", "series_b", "layer_b", "cosine"])


def _cosine(a: Tensor, b: Tensor) -> float:
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 0 else float("nan")


def _row(
    series: str, kind: str, layer: int, position: int, token: str, norm: float, ratio: float = float("nan")
) -> dict[str, object]:
    return {
        "series": series,
        "kind": kind,
        "layer": layer,
        "position": position,
        "token": token,
        "norm": norm,
        "ratio": ratio,
    }


def _series(one: What) -> str:
    if isinstance(one, PromptPair):
        return str(one)
    if isinstance(one, SteeringVector):
        return one.title
    return next((vector.title for vector in one.values()), "")


def _vectors_of(model: HookedModel, one: What, layers: Sequence[int]) -> list[SteeringVector]:
    if isinstance(one, PromptPair):
        return list(actadd(model, one, layers=layers).values())
    vectors = [one] if isinstance(one, SteeringVector) else list(one.values()) if isinstance(one, Mapping) else [one]
    for vector in vectors:
        check_vector(model, vector)
    return [vector for vector in vectors if vector.layer in layers]
