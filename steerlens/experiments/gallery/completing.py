"""`Prepared`: an example made ready for a model, its completions, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch

from steerlens.engine.generation import generate
from steerlens.engine.sampling_settings import Sampling
from steerlens.errors import SteerlensError
from steerlens.experiments.gallery.examples import Addition, Example
from steerlens.experiments.shared.depth import same_depth
from steerlens.measures.metrics import word_count
from steerlens.models import HookedModel, end_ids, stamp
from steerlens.steering import Condition, Injection, Steering, SteeringVector, actadd
from steerlens.steering.extraction.activations import resid_pre
from steerlens.steering.prompts import prompt_ids
from steerlens.steering.random_vectors import Control, random_like


@dataclass(frozen=True, eq=False)
class Prepared:
    """An example on a model: its vectors at the layers that are steered here.

    Attributes:
        coeff_scale: what the vectors have been multiplied by besides the example's own coefficients.
    """

    model: HookedModel
    example: Example
    layers: tuple[int, ...]
    vectors: tuple[SteeringVector, ...]
    coeff_scale: float

    @staticmethod
    def of(model: HookedModel, example: Example, *, scale_layers: bool, coeff_scale: float) -> Prepared:
        """The example's vectors, extracted; layers at the same relative depth, or as the post numbers them."""
        layers = [same_depth(model, one.layer) if scale_layers else one.layer for one in example.additions]
        pairs = zip(example.additions, layers, strict=True)
        vectors = [coeff_scale * addition_vector(model, one, layer) for one, layer in pairs]
        return Prepared(model, example, tuple(layers), tuple(vectors), coeff_scale)

    @property
    def misfit(self) -> str | None:
        """Why the example cannot be run; None if it can."""
        span = max(vector.n_positions for vector in self.vectors)
        length = len(prompt_ids(self.model, self.example.prompt))
        return None if span <= length else f"its vector spans {span} positions, but the prompt has {length} tokens"

    def depends(self, sampling: Sampling, control: Control) -> dict[str, Any]:
        """What its completions depend on beside the model, as plain data for a ledger."""
        return {
            "prompt": self.example.prompt,
            "additions": [asdict(one) for one in self.example.additions],
            "layers": list(self.layers),
            "coeff_scale": self.coeff_scale,
            "control": control,
            "ends": sorted(end_ids(self.model)),
            **asdict(sampling),
        }

    def complete(self, sampling: Sampling, control: Control, batch_size: int | None) -> list[dict[str, Any]]:
        """Completions unsteered, steered and, for `control="random"`, with random vectors; rows as plain data."""
        conditions = [Condition(), _together(self.vectors)]
        if control == "random":
            # Two vectors at one layer must not be given one direction.
            noise = [random_like(vector, seed=sampling.seed + 1000 * i) for i, vector in enumerate(self.vectors)]
            conditions.append(_together(noise))
        frame = generate(
            self.model,
            self.example.prompt,
            list[Steering](conditions),
            sampling=sampling,
            batch_size=batch_size,
            progress=False,
        )
        frame["role"] = frame["condition"].map({0: "unsteered", 1: "steered", 2: "random"})
        return frame[["role", "sample", "completion", "n_tokens"]].to_dict("records")

    def table(self, rows: pd.DataFrame, best_of: int) -> pd.DataFrame:
        """The rows of `complete` with what the example is, their scores, and which one the rule picks."""
        example = self.example
        score = word_count(*example.words, literal=True)(rows["completion"]).astype(int)
        first = pd.Series(score)[(rows["sample"] < best_of).to_numpy()]
        picked = [group.idxmax() for _, group in first.groupby(rows.loc[first.index, "role"])]  # the first of equals
        columns = {
            "number": example.number,
            "example": example.name,
            "verdict": example.verdict,
            "prompt": example.prompt,
            "addition": " + ".join(map(str, example.additions)),
            "post_layers": ", ".join(str(one.layer) for one in example.additions),
            "layers": ", ".join(map(str, self.layers)),
            "coeff": ", ".join(f"{self.coeff_scale * one.coeff:g}" for one in example.additions),
        }
        table = rows.assign(score=score, best=rows.index.isin(picked))
        for position, (column, value) in enumerate(columns.items()):
            table.insert(position, column, value)
        return table


@torch.no_grad()
def addition_vector(model: HookedModel, addition: Addition, layer: int) -> SteeringVector:
    """coeff × (h(positive) − h(negative)) at a layer; without a negative, the activations of the positive alone."""
    if addition.negative is not None:
        return addition.coeff * actadd(model, addition.positive, addition.negative, layer=layer)
    if not 0 <= layer < model.cfg.n_layers:
        raise SteerlensError(f"layer {layer} is out of range; use 0 to {model.cfg.n_layers - 1}")
    ids = torch.tensor([prompt_ids(model, addition.positive)], device=model.cfg.device)
    values = resid_pre(model, ids, [layer])[layer][0]
    source = {"method": "activations", "prompt": addition.positive, "tokens": ids[0].tolist()}
    return addition.coeff * SteeringVector(values, layer, stamp(model), label=addition.positive, source=source)


def _together(vectors: Sequence[SteeringVector]) -> Condition:
    return Condition(tuple(Injection(vector) for vector in vectors))
