"""Figure of where a shift comes from: the vector's own part and what each later block adds."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import choose, identity, name_conditions, one_each, require, steered

# The name of each part in the legend, and its colour, in the order in which they stand there.
_PARTS = {
    "vector": ("vector", theme.PURPLE),
    "attention": ("attention", theme.BLUE),
    "mlp": ("MLP", theme.ORANGE),
    "other": ("other: rounding, or what<br>else a block adds", theme.BASELINE),
    "rescaling": ("rescaling by the<br>final norm", theme.GREEN),
}
_TOKENS = 4  # tokens that get a panel of their own


def shift_parts_bars(
    frame: pd.DataFrame,
    *,
    condition: str | None = None,
    prompt: str | None = None,
    position: int | None = None,
    title: str | None = None,
) -> go.Figure:
    """Bars of every part's contribution to the shift of up to 4 tokens' logits: a panel per token, a bar per layer.

    `frame`, one row per token and part: label (str), token (str), part ("vector", "attention", "mlp", "rescaling",
    "other"), part_layer (Int64, NA for rescaling), contribution (nats); optional condition, layer, coeff, prompt,
    position, token_id. The parts of a layer are stacked, those that raise the logit above zero and those that lower it
    below; what belongs to no layer stands at the right end. A panel's bars sum to the shift of its token's logit, which
    its heading gives. One condition, prompt and position at a time; `position` defaults to the last. Raises
    SteerlensError for missing columns, 0 rows, or a choice that is not there.
    """
    name = "shift_parts_bars"
    data = require(frame, name, text=["label", "token", "part"], numbers=["contribution"], gaps=["part_layer"])
    data = name_conditions(data)
    data = choose(data[steered(data)], name, "prompt", prompt)
    data = choose(data, name, "label", condition, argument="condition")
    if position is None and "position" in data.columns and data["position"].nunique() > 1:
        position = data["position"].max()
    data = choose(data, name, "position", position)
    data["identity"] = identity(data)
    one_each(data, name, ["identity", "part", "part_layer"])
    tokens = data.drop_duplicates("identity")[["identity", "token"]].head(_TOKENS)
    layers = [int(layer) for layer in data["part_layer"].dropna()] or [0]
    end = max(layers) + 1  # the place of what belongs to no layer
    heading = title or "Where the shift comes from"
    where = str(data["label"].iloc[0])
    if "prompt" in data.columns:
        where += f", after “{theme.shorten(str(data['prompt'].iloc[0]))}”"
    figure = theme.new_figure(heading, where, height=170 + max(150 * len(tokens), 240))
    rows = [data[data["identity"] == one] for one in tokens["identity"]]
    figure.set_subplots(
        rows=len(rows),
        cols=1,
        shared_xaxes=True,
        shared_yaxes="all",
        vertical_spacing=0.24 / len(rows),
        subplot_titles=[f"{theme.token_label(own['token'].iloc[0])} {_signed(_total(own))} nats" for own in rows],
    )
    for number, own in enumerate(rows, start=1):
        for part in [*_PARTS, *sorted(set(own["part"]) - set(_PARTS))]:
            if (own["part"] == part).any():
                figure.add_trace(
                    _bars(own, part, end, legend=part not in _named(rows[: number - 1])), row=number, col=1
                )
    figure.update_layout(barmode="relative", bargap=0.15, margin_t=112)
    figure.update_layout(legend={"title": {"text": "part"}, "traceorder": "normal"})
    step = 1 if end - min(layers) <= 16 else 5 if end - min(layers) <= 60 else 10
    ticks = [layer for layer in range(min(layers), end) if layer % step == 0 and (step == 1 or end - layer > 1)]
    figure.update_xaxes(
        tickvals=[*ticks, end], ticktext=[*map(str, ticks), "end"], range=[min(layers) - 0.6, end + 0.6], tickangle=0
    )
    figure.update_xaxes(title_text="layer of the part", row=len(rows), col=1)
    figure.update_yaxes(zeroline=True, range=_reach(rows, end))  # plotly's own follows the first panel alone
    figure.update_yaxes(title_text="contribution to the logit (nats)", row=(len(rows) + 1) // 2, col=1)
    return figure


def _bars(own: pd.DataFrame, part: str, end: int, *, legend: bool) -> go.Bar:
    """One kind of part of one token, at the layers where it is."""
    rows = own[own["part"] == part]
    named, colour = _PARTS.get(part, (theme.escape(part), theme.SKY))
    total = _total(own)
    return go.Bar(
        x=rows["part_layer"].fillna(end),
        y=rows["contribution"],
        name=named,
        legendgroup=part,
        showlegend=legend,
        marker={"color": colour, "line": {"width": 0}},
        hovertext=[
            f"<b>{theme.token_label(row.token)}</b><br>{_where(row, named)}<br>"
            f"<b>{_signed(row.contribution)} nats</b> of {_signed(total)}"
            for row in rows.itertuples()
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _reach(panels: list[pd.DataFrame], end: int) -> list[float]:
    """The range that holds every stack of every panel, with a margin."""
    stacks = [
        side.groupby(side["part_layer"].fillna(end))["contribution"].sum()
        for own in panels
        for side in (own[own["contribution"] > 0], own[own["contribution"] < 0])
    ]
    heights = [0.0, *(height for stack in stacks for height in stack)]
    margin = 0.06 * (max(heights) - min(heights)) or 1.0
    return [min(heights) - margin, max(heights) + margin]


def _named(panels: list[pd.DataFrame]) -> set[str]:
    """The kinds of parts that the legend has from the panels above."""
    return {str(part) for panel in panels for part in panel["part"]}


def _total(own: pd.DataFrame) -> float:
    """The shift of the logit: the sum of the parts, and 0 where nothing but rounding is left of it."""
    total = float(own["contribution"].sum())
    return total if abs(total) > 1e-6 * float(own["contribution"].abs().sum()) else 0.0


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + theme.number(value)


def _where(row: Any, named: str) -> str:
    plain = named.replace("<br>", " ")
    return plain if row.part_layer != row.part_layer else f"{plain}, layer {row.part_layer:.0f}"
