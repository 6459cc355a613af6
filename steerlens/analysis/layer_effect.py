"""`layer_effect`: what a vector does to chosen next tokens at every layer at once, without sampling a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch

from steerlens.analysis.injected import injected_norms, injected_rows
from steerlens.analysis.named_tokens import Pieces, Words, named_tokens
from steerlens.analysis.set_effects import MEASURES, over_prompts, set_effects
from steerlens.analysis.strengths import coefficients
from steerlens.arguments import choice, seed_number, shown
from steerlens.errors import SteerlensError
from steerlens.measures.summaries import best_condition, subject
from steerlens.models import HookedModel, for_one_thread, require_model
from steerlens.models.run_settings import run_settings
from steerlens.showing import Shown
from steerlens.steering import Condition, Injection, Placement, PromptPair, SteeringVector
from steerlens.steering.extraction.activations import resid_pre
from steerlens.steering.layer_vectors import layer_vectors
from steerlens.steering.prompts import Prompt, PromptLike, read_prompts
from steerlens.steering.random_vectors import Control, random_like
from steerlens.steering.strengths import Strength, read_coeffs

if TYPE_CHECKING:
    import plotly.graph_objects as go

_NORMS = {"vector_norm": "residual stream units", "resid_norm": "residual stream units", "norm_ratio": "ratio"}
_KEYS = ("condition", "label", "role", "layer", "coeff", "placement")


@dataclass(frozen=True, eq=False, repr=False)
class LayerEffect(Shown):
    """The effect of a vector layer by layer, on the token after each prompt.

    Attributes:
        frame: one row per condition × prompt. Columns: condition, label, role ("unsteered", "steered", "random"),
            layer, coeff, (strength, if one was asked for,) placement, prompt, prompt_index; shift, effectiveness,
            disruption, two_way, kl (nats), prob_base, prob_steered (see `MEASURES`); vector_norm, resid_norm,
            norm_ratio: means over the positions where the vector is not zero, of its norm, of the unsteered residual
            stream's norm there, of their ratio.
        settings: everything needed to repeat it, as plain data.
    """

    frame: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per condition × measure, averaged over the prompts.

        Columns: condition, label, role, layer, coeff, placement, (strength,) metric, kind (its unit), observations,
        mean, low, high (95 % Student-t; NaN with one prompt).
        """
        keys = [*_KEYS, "strength"] if "strength" in self.frame else _KEYS
        return over_prompts(self.frame, keys, {**MEASURES, **_NORMS})

    def best(self, measure: str = "effectiveness") -> pd.Series:
        """The summary row of the steered condition with the largest mean of `measure`."""
        self._check(measure)
        return best_condition(self.summary[self.summary["metric"] == measure])

    def plot(self, measure: str = "effectiveness", *, mark_layer: int | None = None) -> go.Figure:
        """`measure` against the layer, one line per coefficient, random vectors of equal norm dotted."""
        from steerlens.analysis.effect_page import effect_figure

        self._check(measure)
        return effect_figure(self.summary, measure, self.settings.get("wanted", []), mark_layer=mark_layer)

    def plot_damage(self) -> go.Figure:
        """Effectiveness against disruption, one point per condition, the Pareto front joined."""
        from steerlens.analysis.effect_page import damage_figure

        return damage_figure(self.summary)

    def report(self, path: str | Path, *, command: str | None = None) -> Path:
        """One self-contained HTML page with figures, table and settings; returns its path.

        Raises:
            SteerlensError: the place cannot be written (checked before anything is drawn).
        """
        from steerlens.analysis.effect_page import effect_page
        from steerlens.reports.writing import write_page

        return write_page(path, lambda: effect_page(self.summary, self.settings, command=command))

    def _told(self) -> tuple[str, Mapping[str, object]]:
        best = self.best()
        where = f"layer {best['layer']}, coefficient {best['coeff']:g}"
        return f"{subject(self.settings)} on {self.settings.get('model', 'a model')}", {
            "conditions": self.frame["condition"].nunique(),
            "prompts": self.frame["prompt_index"].nunique(),
            "largest effectiveness": f"{best['mean']:.3g} nats at {where}",
        }

    def _check(self, measure: str) -> None:
        if not isinstance(measure, str) or measure not in {*MEASURES, *_NORMS}:
            raise SteerlensError(f"no measure {shown(measure)}; use one of {', '.join([*MEASURES, *_NORMS])}")


@for_one_thread
def layer_effect(
    model: HookedModel,
    what: PromptPair | SteeringVector | Mapping[int, SteeringVector] | Sequence[SteeringVector],
    prompts: PromptLike | Sequence[PromptLike],
    wanted: Words,
    *,
    layers: Sequence[int] | Literal["all"] = "all",
    coeffs: Sequence[float | Strength] | float | Strength = (1.0,),
    placement: Placement | None = None,
    pieces: Pieces = "error",
    control: Control = "random",
    seed: int = 0,
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> LayerEffect:
    """How far steering at each layer moves the wanted next tokens, and what it disrupts, against random vectors.

    No sampling: one forward pass holds all layers and coefficients (a layer's rows join at that layer), so this is the
    quick look before a `sweep`. Effectiveness and disruption as the authors of ActAdd define them (see
    `steerlens.analysis.effectiveness`).

    Args:
        what: a PromptPair (vectors of all layers come from one forward pass), or vectors, one per layer.
        prompts: one prompt or several (texts, chats, token ids); several are averaged, with intervals.
        wanted: a word or several that together make the set, or token ids (`" wedding"`: the leading space matters).
        layers: `"all"` or layer numbers.
        coeffs: coefficients, or strengths that compare, as `sl.iso_kl(0.5)`: these are solved for each vector's
            coefficient on the prompts (see `solve_strengths`), and the frame has a column strength.
        pieces: what to do with a word that is several tokens: "error", its "first" piece, or "all".
        control: `"random"` adds, for each condition, a random vector of the same norm at each position; None does not.
        seed: of the random vectors.

    Raises:
        SteerlensError: no wanted token, a word of several tokens, layer out of range, no coefficients, an empty prompt.
    """
    require_model(model)
    given = read_prompts(model, prompts)
    seed = seed_number(seed)
    tokens = named_tokens(model, wanted, pieces=pieces)
    asked = read_coeffs("coeffs", coeffs)
    choice("control", control, ("random", None))
    vectors = layer_vectors(model, what, layers)
    factors = coefficients(model, [Condition((Injection(vector, placement),)) for vector in vectors], given, asked)
    kinds = {"steered": vectors}
    if control is not None:
        kinds["random"] = [random_like(vector, seed=seed) for vector in vectors]
    conditions, roles, names = [Condition()], ["unsteered"], [""]
    for role, kind in kinds.items():
        for one, each in zip(asked, factors, strict=True):
            for factor, vector in zip(each, kind, strict=True):
                conditions.append(Condition((Injection(factor * vector, placement),)))
                roles.append(role)
                names.append(str(one) if isinstance(one, Strength) else f"coefficient {one:g}")
    frame = set_effects(model, given, conditions, list(tokens), batch_size=batch_size, memory_budget=memory_budget)
    frame.insert(2, "role", frame["condition"].map(dict(enumerate(roles))))
    if any(isinstance(one, Strength) for one in asked):
        strength = frame["condition"].map(dict(enumerate(names)))
        frame.insert(frame.columns.get_loc("coeff") + 1, "strength", strength)
    frame = frame.join(_norms(model, given, conditions))
    settings = {
        "what": str(what) if isinstance(what, PromptPair) else [v.title for v in vectors],
        "pad": what.pad if isinstance(what, PromptPair) else None,
        "prompts": [prompt.text for prompt in given],
        "wanted": list(tokens.values()),
        "layers": [v.layer for v in vectors],
        "coeffs": [str(one) if isinstance(one, Strength) else one for one in asked],
        "placement": placement if placement is not None else vectors[0].placement,
        "control": control,
        "seed": seed,
        **run_settings(model),
    }
    return LayerEffect(frame, settings)


@torch.no_grad()
def _norms(model: HookedModel, prompts: Sequence[Prompt], conditions: Sequence[Condition]) -> pd.DataFrame:
    """vector_norm, resid_norm, norm_ratio for every condition × prompt, in that order."""
    layers = sorted({injection.vector.layer for one in conditions for injection in one.injections})
    streams = []
    for prompt in prompts:
        ids = torch.tensor([prompt.ids], device=model.cfg.device)
        mask = torch.ones_like(ids)
        found = resid_pre(model, ids, layers, attention_mask=mask, live_hooks=True)
        streams.append({layer: values[0].norm(dim=-1).cpu() for layer, values in found.items()})
    rows = []
    for condition in conditions:
        for prompt, stream in zip(prompts, streams, strict=True):
            row = dict.fromkeys(_NORMS, float("nan"))
            for injection in condition.injections:
                vector = injection.vector
                if vector.site != "resid_pre" or injection.operation != "add":
                    continue  # no norm of the stream at a block's input to compare with
                here = stream[vector.layer]
                own = injected_norms(injection, injected_rows(model, injection, prompt.ids, prompt.spans))
                pairs = [(norm, float(here[at])) for at, norm in own.items() if norm > 0]
                if pairs:
                    mine, theirs = torch.tensor(pairs).unbind(1)
                    row = {
                        "vector_norm": float(mine.mean()),
                        "resid_norm": float(theirs.mean()),
                        "norm_ratio": float((mine / theirs).mean()),
                    }
            rows.append(row)
    return pd.DataFrame(rows)
