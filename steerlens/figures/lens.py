"""Figure of the lens: followed tokens read out of the residual stream at every layer, steered and unsteered."""

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.errors import SteerlensError
from steerlens.figures import theme
from steerlens.figures.columns import choose, identity, name_conditions, one_each, require, steered


def layer_lens(
    frame: pd.DataFrame,
    *,
    condition: str | None = None,
    difference: bool = False,
    title: str | None = None,
) -> go.Figure:
    """Figure of followed tokens read out after every layer (logit lens): steered solid, unsteered dashed.

    `frame`, one row per condition, lens_layer and token: label (str), layer (where the vector goes in, NA for the
    baseline), coeff, lens_layer (int: the residual stream at the INPUT of that layer is read; the number of layers
    means the final output), token (str), logprob (nats, of the lens read-out); optional token_id, prompt, position.
    Baseline rows are rows like any other. `condition` picks one steered label. `difference=True` draws steered minus
    unsteered. A dotted vertical line marks the layer of the injection. NaN is a gap. Raises SteerlensError for missing
    columns, 0 rows, no baseline, no steered condition or several, or two rows for one point.
    """
    name = "layer_lens"
    data = name_conditions(
        require(frame, name, text=["label", "token"], numbers=["coeff", "lens_layer"], gaps=["layer", "logprob"])
    )
    mask = steered(data)
    base, own = data[~mask], data[mask]
    if base.empty or own.empty:
        lacking = "the baseline" if base.empty else "a steered condition"
        raise SteerlensError(f"{name}: the frame lacks {lacking}; give both")
    own = choose(own, name, "label", condition, argument="condition")
    for part in (base, own):
        one_each(part.assign(token_id=identity(part)), name, ["token_id", "lens_layer"])
    both = own.assign(identity=identity(own)).merge(
        base.assign(identity=identity(base))[["identity", "lens_layer", "logprob"]],
        on=["identity", "lens_layer"],
        suffixes=("", "_base"),
    )
    if both.empty:
        raise SteerlensError(
            f"{name}: baseline and condition share no token at any layer; follow the same tokens in both"
        )
    both["shift"] = both["logprob"] - both["logprob_base"]
    layers = sorted(int(layer) for layer in both["lens_layer"].unique())
    figure = theme.new_figure(title or "Followed tokens through the layers", own["label"].iloc[0], height=460)
    tokens = both.drop_duplicates("identity")[["identity", "token"]]
    small = len(layers) > 40
    for index, (colour, (one, token)) in enumerate(
        zip(theme.line_colours(len(tokens)), tokens.itertuples(index=False), strict=True)
    ):
        rows = both[both["identity"] == one].sort_values("lens_layer")
        hover = [_lens_hover(row) for row in rows.itertuples()]
        shared: dict[str, Any] = {
            "x": rows["lens_layer"],
            "legendgroup": f"token {index}",
            "hovertext": hover,
            "hovertemplate": "%{hovertext}<extra></extra>",
        }
        marker = {"symbol": theme.SYMBOLS[index % len(theme.SYMBOLS)], "size": 4 if small else 7, "color": colour}
        figure.add_trace(
            go.Scatter(
                y=rows["shift"] if difference else rows["logprob"],
                mode="lines+markers",
                line={"color": colour, "width": 2.5},
                marker=marker,
                name=theme.token_label(token),
                **shared,
            )
        )
        if not difference:
            figure.add_trace(
                go.Scatter(
                    y=rows["logprob_base"],
                    mode="lines",
                    line={"color": colour, "width": 1.75, "dash": "dash"},
                    showlegend=False,
                    **shared,
                )
            )
    if not difference:  # the two line styles, named once
        for text, dash in (("steered", "solid"), ("unsteered", "dash")):
            style = {"color": theme.INK, "width": 2, "dash": dash}
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", line=style, name=text))
    for layer in sorted(own["layer"].dropna().unique()):
        figure.add_vline(
            x=layer,
            line={"color": theme.INK, "width": 1.5, "dash": "dot"},
            annotation={"text": f"vector added at layer {layer:.0f}", "yanchor": "bottom", "y": 0},
        )
    figure.update_xaxes(title_text="layer whose input is read out", **theme.layer_ticks(layers))
    if layers[-1] - layers[0] <= 26:
        figure.update_xaxes(tickmode="array", tickvals=layers)
    unit = "change of log-probability (nats)" if difference else "log-probability (nats)"
    figure.update_yaxes(title_text=unit, zeroline=difference)
    if not difference:
        _show_later_layers(figure, both)
    return figure


def _show_later_layers(figure: go.Figure, both: pd.DataFrame) -> None:
    """Cut off the first layers' readings where they alone would stretch the axis: the embedding is no prediction yet.

    What is cut is a few layers far below the others, and the subtitle says so.
    """
    lowest = both.groupby("lens_layer")[["logprob", "logprob_base"]].min().min(axis=1).sort_index()
    highest = float(both[["logprob", "logprob_base"]].to_numpy().max())
    later = lowest.iloc[max(1, len(lowest) // 10) :]
    floor = float(later.min()) if len(later) else math.nan
    if not lowest.min() < highest - 1.4 * (highest - floor):
        return
    pad = 0.06 * (highest - floor)
    cut = [int(layer) for layer in lowest.index[lowest < floor - pad]]
    figure.update_yaxes(range=[floor - pad, highest + pad])
    where = f"layers {', '.join(map(str, cut))} are" if len(cut) > 1 else f"layer {cut[0]} is"
    before = figure.layout.title.subtitle.text
    figure.update_layout(
        title_subtitle_text=f"{before}; {where} below the frame (down to {theme.number(lowest.min())})"
    )


def _lens_hover(row: Any) -> str:
    return "<br>".join(
        [
            f"<b>{theme.token_label(row.token)}</b> read at the input of layer {int(row.lens_layer)}",
            f"steered {theme.number(row.logprob)} nats ({theme.percent(float(np.exp(row.logprob)))})",
            f"unsteered {theme.number(row.logprob_base)} nats ({theme.percent(float(np.exp(row.logprob_base)))})",
            f"difference <b>{theme.number(row.shift)} nats</b>",
        ]
    )
