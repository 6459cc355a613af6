"""What an explorer shows, as plain data and plotly figures: numbers in, pictures out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from steerlens.analysis.layer_effect import LayerEffect
from steerlens.analysis.logit_shift import LogitShift
from steerlens.explorer.contrasts import METHODS, SETS
from steerlens.explorer.numbers import Numbers, TokenChange
from steerlens.explorer.settings import MEASURES, ORDERS, PLACES
from steerlens.explorer.view import View
from steerlens.figures import theme
from steerlens.measures import metrics
from steerlens.models import HookedModel
from steerlens.steering import Injection

if TYPE_CHECKING:
    import pandas as pd

_HEIGHT = 460
# Three figures stand side by side: no room at their right.
_BELOW = {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.2, "yanchor": "top"}


def nothing() -> go.Figure:
    """The figure before there is one."""
    return theme.new_figure()


def options(model: HookedModel, names: Sequence[str], coeffs: tuple[float, float], *, chats: bool) -> dict[str, Any]:
    """What can be chosen."""
    return {
        "models": list(names),
        "methods": METHODS,
        "contrasts": list(SETS),
        "places": list(PLACES),
        "orders": ORDERS,
        "measures": MEASURES,
        "n_layers": int(model.cfg.n_layers),
        "coeffs": list(coeffs),
        "chats": chats,
    }


def fields(numbers: Numbers, view: View) -> dict[str, list[list[str]]]:
    """The tokens of what is typed, so that a leading space can be seen: a list for each text in the field."""
    texts: dict[str, list[str]] = {"prompt": [view.prompt], "words": list(view.wanted)}
    if view.pair:
        texts |= {"positive": [view.pair.positive], "negative": [view.pair.negative]}
    return {
        name: [[theme.visible_token(token) for token in numbers.tokens(text)[:60]] for text in some if text]
        for name, some in texts.items()
    }


def shift_figure(shift: LogitShift) -> go.Figure:
    """The bars of the next tokens that moved most."""
    figure = shift.plot().update_layout(height=_HEIGHT, title_text="Next tokens that moved most", margin_r=90)
    return figure.update_layout(title_subtitle_text="", margin_t=60)


def effect_figure(effect: LayerEffect, view: View) -> go.Figure:
    """The measure against the layer."""
    title = f"{MEASURES[view.measure].capitalize()}, by layer"
    return effect.plot(view.measure).update_layout(height=_HEIGHT, title_text=title, legend=_BELOW, margin_b=110)


def damage_figure(effect: LayerEffect) -> go.Figure:
    """What each layer achieves against what it breaks."""
    told = "up and left is better; open: random, ring: chosen layer"
    return effect.plot_damage().update_layout(height=_HEIGHT, showlegend=False, title_subtitle_text=told)


def mark_layer(by_layer: go.Figure, damage: go.Figure, effect: LayerEffect, layer: int) -> None:
    """Mark the chosen layer in both figures, in place of the one before."""
    others = [shape for shape in by_layer.layout.shapes if shape.name != "chosen layer"]
    line = {"color": theme.INK, "width": 2, "dash": "dot"}
    mark = {"type": "line", "name": "chosen layer", "x0": layer, "x1": layer, "y0": 0, "y1": 1, "line": line}
    by_layer.layout.shapes = [*others, {**mark, "yref": "paper"}]
    here = _at(effect, layer, "steered")
    damage.data = [trace for trace in damage.data if trace.name != "chosen layer"]
    if here is not None:
        ring = {"symbol": "circle-open", "size": 20, "color": theme.INK, "line": {"width": 2.5}}
        place = {"x": [here["disruption"]], "y": [here["effectiveness"]]}
        damage.add_trace(go.Scatter(**place, mode="markers", marker=ring, name="chosen layer", hoverinfo="skip"))


def tiles(effect: LayerEffect, layer: int) -> list[dict[str, str]]:
    """Effect and damage at the chosen layer, each beside that of a random vector of equal norm."""
    here, control = _at(effect, layer, "steered"), _at(effect, layer, "random")
    if here is None:
        return []

    def nats(name: str) -> dict[str, str]:
        random = f"random vector of equal norm: {theme.number(control[name])}" if control is not None else ""
        return {"label": name, "value": f"{theme.number(here[name])} nats", "note": random}

    told = {
        "label": "probability of the words",
        "value": f"{theme.percent(here['prob_base'])} → {theme.percent(here['prob_steered'])}",
        "note": "unsteered → steered",
    }
    ratio = {
        "label": "vector ÷ residual stream",
        "value": theme.number(here["norm_ratio"]),
        "note": "norms, where it is added",
    }
    effectiveness = nats("effectiveness") | {"hint": "rise of the words' log-probability, taken together"}
    disruption = nats("disruption") | {"hint": "KL divergence of the distribution over all other tokens"}
    return [told, effectiveness, disruption, ratio]


def tokens(changes: Sequence[TokenChange]) -> list[dict[str, Any]]:
    """The tokens of the prompt, each with how much steering changed what comes after it."""
    most = max((change.kl for change in changes if change.kl == change.kl), default=0.0) or 1.0
    return [
        {
            "token": theme.visible_token(change.token),
            "share": max(change.kl / most, 0.0) if change.kl == change.kl else 1.0,
            "kl": f"{theme.number(change.kl)} nats",
            "next": [
                [theme.visible_token(token), theme.percent(before), theme.percent(after)]
                for token, before, after in change.next
            ],
        }
        for change in changes
    ]


def status(shift: LogitShift, injection: Injection, seconds: float) -> list[str]:
    """What was steered how, and what came of it, in short phrases."""
    row = shift.summary.iloc[-1]
    vector = injection.vector
    return [
        f"{vector.title} at layer {vector.layer}, placed at {injection.placement}",
        f"length of the vector {theme.number(vector.norm)}",
        f"KL from unsteered {theme.number(row['kl'])} nats",
        f"entropy {theme.number(row['entropy_base'])} → {theme.number(row['entropy'])} nats",
        f"likeliest next token {theme.visible_token(row['top_token'])} "
        f"{theme.percent(row['top_prob_base'])} → {theme.percent(row['top_prob'])}",
        f"{seconds * 1000:.0f} ms",
    ]


def streams(view: View, pairs: Sequence[tuple[str, str]], *, note: str = "") -> dict[str, Any]:
    """The completions as far as they are written."""
    return {"prompt": prompt_shown(view), "rows": [list(pair) for pair in pairs], "notes": [note, note]}


def completed(view: View, frame: pd.DataFrame) -> dict[str, Any]:
    """The completions, each column with its damage: surprise and repetition."""
    sides = [frame[frame["condition"] == number].sort_values("sample") for number in (0, 1)]
    repeated = metrics.repetition()
    notes = [
        f"surprise {theme.number(side['surprise'].mean())} nats per token, "
        f"repetition {theme.percent(float(repeated(side['completion']).mean()))}, "
        f"{int(side['finished'].sum())} of {len(side)} came to an end"
        for side in sides
    ]
    pairs = list(zip(*(side["completion"] for side in sides), strict=True))
    return streams(view, pairs) | {"notes": notes}


def prompt_shown(view: View) -> str:
    """The prompt as a line above its completions."""
    said = f"system: {view.system}\n" if view.chat and view.system else ""
    return f"{said}user: {view.prompt}" if view.chat else view.prompt


def _at(effect: LayerEffect, layer: int, role: str) -> Any:
    rows = effect.frame[(effect.frame["role"] == role) & (effect.frame["layer"] == layer)]
    return rows.iloc[0] if len(rows) else None
