"""The same vector at the front, in the middle, at the back, at every position; and with part of its dimensions only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch

from steerlens.analysis.named_tokens import Pieces, Words, named_tokens
from steerlens.analysis.set_effects import MEASURES, over_prompts, set_effects
from steerlens.arguments import choice, listed, probability, seed_number, whole_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, for_one_thread, require_model
from steerlens.models.run_settings import run_settings
from steerlens.showing import Shown
from steerlens.steering import Condition, Injection, Placement, SteeringVector, check_vector
from steerlens.steering.prompts import Prompt, PromptLike, read_prompts
from steerlens.steering.tokens import token_strings

if TYPE_CHECKING:
    import plotly.graph_objects as go

Keep = Literal["random", "largest", "first"]
"""Which dimensions stay: drawn at random, those where the vector is largest, or the first ones of the basis."""


@dataclass(frozen=True, eq=False, repr=False)
class PositionEffect(Shown):
    """The effect of one vector under several placements or shares of its dimensions, on the token after each prompt.

    Attributes:
        frame: one row per condition × prompt. Columns: condition, label, layer, coeff, placement, choice (what was
            varied, as text: a placement, or a share of dimensions; "unsteered" for the baseline), share (of the
            dimensions kept), prompt, prompt_index; shift, effectiveness, disruption, two_way, kl (nats), prob_base,
            prob_steered.
        varied: what `choice` names, for axes.
        settings: everything needed to repeat it, as plain data.
    """

    frame: pd.DataFrame
    varied: str
    settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per choice × measure, averaged over the prompts (and draws of random dimensions).

        Columns: choice, share, layer, coeff, metric, kind (its unit), observations, mean, low, high (95 % Student-t;
        NaN with one observation). Draws are averaged within each prompt first, since draws on one prompt are no
        independent observations of prompts; with a single prompt the interval is over draws.
        """
        keys = ["choice", "share", "layer", "coeff"]
        frame = self.frame
        if frame["prompt_index"].nunique() > 1:
            grouped = frame.groupby([*keys, "prompt_index"], sort=False, dropna=False)
            frame = grouped[list(MEASURES)].mean().reset_index()
        return over_prompts(frame, keys, MEASURES)

    def _told(self) -> tuple[str, Mapping[str, object]]:
        rows = self.summary[(self.summary["metric"] == "effectiveness") & (self.summary["choice"] != "unsteered")]
        facts: dict[str, object] = {
            "prompts": self.frame["prompt_index"].nunique(),
            f"{self.varied}s" if self.varied == "placement" else "shares": rows["choice"].nunique(),
        }
        if rows["mean"].notna().any():
            best = rows.loc[rows["mean"].idxmax()]
            facts["largest effectiveness"] = f"{best['mean']:.3g} nats ({self.varied} {best['choice']})"
        wanted = ", ".join(map(repr, self.settings.get("wanted", [])[:4]))
        return f"effect on {wanted} by {self.varied}, on {self.settings.get('model', 'a model')}", facts

    def plot(self, measure: str = "effectiveness") -> go.Figure:
        """`measure` for every choice, with intervals."""
        from steerlens.figures.choices import effect_by_choice

        if measure not in MEASURES:
            raise SteerlensError(f"no measure {measure!r}; use one of {', '.join(MEASURES)}")
        rows = self.summary[self.summary["metric"] == measure]
        title = f"{measure.capitalize()} by {self.varied}"
        return effect_by_choice(rows, choice_title=self.varied, title=title, names=self.settings.get("tokens"))


@for_one_thread
def position_effect(
    model: HookedModel,
    vector: SteeringVector,
    prompts: PromptLike | Sequence[PromptLike],
    wanted: Words,
    *,
    placements: Sequence[Placement] | Literal["every"] = ("front", "mid", "back"),
    pieces: Pieces = "error",
) -> PositionEffect:
    """What the vector does to the wanted next tokens at each placement, against the unsteered model.

    Args:
        wanted: a word or several that together make the set, or token ids.
        placements: names or indices; `"every"` slides the vector along the shortest prompt, index by index.
            (`"all"` and `"last"` take a vector of one position: `vector.at(i)`.)
        pieces: what to do with a word that is several tokens: "error", its "first" piece, or "all".

    Raises:
        SteerlensError: no placements, a placement that does not fit, no wanted token, an empty prompt.
    """
    given, tokens = _start(model, vector, prompts, wanted, pieces)
    chosen: list[Placement]
    if isinstance(placements, str):
        if placements != "every":
            raise SteerlensError(f"placements={placements!r} is unknown; give a list, such as ['front'], or 'every'")
        shortest = min(len(prompt) for prompt in given)
        chosen = list(range(max(shortest - vector.n_positions + 1, 0)))
    else:
        chosen = listed("placements", placements, of="placements")
    if not chosen:
        raise SteerlensError("there are no placements to try; name at least one, or give a prompt the vector fits in")
    conditions = [Condition(), *(Condition((Injection(vector, placement),)) for placement in chosen)]
    named = ["unsteered", *(str(placement) for placement in chosen)]
    frame = set_effects(model, given, conditions, list(tokens))
    return _result(model, frame, named, [1.0] * len(named), "placement", vector, given, tokens, _under(model, given))


@for_one_thread
def dimension_effect(
    model: HookedModel,
    vector: SteeringVector,
    prompts: PromptLike | Sequence[PromptLike],
    wanted: Words,
    *,
    shares: Sequence[float] = (0.125, 0.25, 0.5, 0.75, 1.0),
    keep: Keep = "random",
    draws: int = 4,
    placement: Placement | None = None,
    pieces: Pieces = "error",
    seed: int = 0,
) -> PositionEffect:
    """What is left of the vector's effect when only a share of the residual stream's dimensions is steered.

    Args:
        shares: of the dimensions, from 0 to 1.
        keep: which dimensions stay; for `"random"`, `draws` draws each, the same for all prompts.
        wanted, pieces: as for `position_effect`.

    Raises:
        SteerlensError: a share outside 0 to 1, no shares, no wanted token, an empty prompt.
    """
    given, tokens = _start(model, vector, prompts, wanted, pieces)
    shares = [probability("a share of dimensions", one) for one in listed("shares", shares, of="shares of dimensions")]
    if not shares:
        raise SteerlensError("shares is empty; give at least one share of the dimensions, such as 0.5")
    draws = whole_number("draws", draws, least=1, most=10_000)
    seed = seed_number(seed)
    choice("keep", keep, ("random", "largest", "first"))
    conditions, named, kept = [Condition()], ["unsteered"], [0.0]
    for share in shares:
        for draw in range(draws if keep == "random" and 0 < share < 1 else 1):
            masked = partial_dimensions(vector, share, keep=keep, seed=seed + draw)
            conditions.append(Condition((Injection(masked, placement),)))
            named.append(f"{share:.4g}")
            kept.append(float(share))
    frame = set_effects(model, given, conditions, list(tokens))
    extra = {"keep": keep, "draws": draws, "seed": seed}
    return _result(model, frame, named, kept, f"share of dimensions ({keep})", vector, given, tokens, extra)


def partial_dimensions(vector: SteeringVector, share: float, *, keep: Keep = "random", seed: int = 0) -> SteeringVector:
    """The vector with all but a share of its dimensions set to zero, the same dimensions at every position.

    Args:
        share: of d_model, from 0 to 1; the number of dimensions is rounded.
        keep: `"random"` (by `seed`), `"largest"` (by the vector's norm over positions in each dimension), `"first"`.

    Raises:
        SteerlensError: a share outside 0 to 1, an unknown `keep`.
    """
    share = probability("a share of dimensions", share)
    seed = seed_number(seed)
    choice("keep", keep, ("random", "largest", "first"))
    width = vector.values.shape[1]
    count = round(share * width)
    if keep == "random":
        order = torch.randperm(width, generator=torch.Generator("cpu").manual_seed(seed % 2**64))
    elif keep == "largest":
        order = vector.values.norm(dim=0).argsort(descending=True, stable=True).cpu()
    else:
        order = torch.arange(width)
    mask = torch.zeros(width, device=vector.values.device)
    mask[order[:count].to(mask.device)] = 1.0
    source = {"method": "partial", "share": share, "keep": keep, "seed": seed, "of": vector.describe()}
    label = f"{vector.label}, {share:.4g} of dimensions"
    return dataclasses.replace(vector, values=vector.values * mask, label=label, source=source)


def _under(model: HookedModel, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """For figures, the token at each position, as far as all prompts agree."""
    strings = [token_strings(model, prompt.ids) for prompt in prompts]
    together = enumerate(zip(*strings, strict=False))
    return {"tokens": {str(place): tokens[0] for place, tokens in together if len(set(tokens)) == 1}}


def _start(
    model: HookedModel,
    vector: SteeringVector,
    prompts: PromptLike | Sequence[PromptLike],
    wanted: Words,
    pieces: Pieces,
) -> tuple[list[Prompt], dict[int, str]]:
    require_model(model)
    check_vector(model, vector)
    return read_prompts(model, prompts), named_tokens(model, wanted, pieces=pieces)


def _result(
    model: HookedModel,
    frame: pd.DataFrame,
    named: Sequence[str],
    shares: Sequence[float],
    varied: str,
    vector: SteeringVector,
    prompts: Sequence[Prompt],
    tokens: dict[int, str],
    extra: dict[str, Any],
) -> PositionEffect:
    frame.insert(5, "choice", frame["condition"].map(dict(enumerate(named))))
    frame.insert(6, "share", frame["condition"].map(dict(enumerate(shares))))
    settings = {
        "vector": vector.describe(),
        "prompts": [prompt.text for prompt in prompts],
        "wanted": list(tokens.values()),
        "choices": list(dict.fromkeys(named[1:])),
        **extra,
        **run_settings(model),
    }
    return PositionEffect(frame, varied, settings)
