"""Figure of where a shift comes from: the vector's own part and what each later block adds."""

import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme
from steerlens.figures.columns import choose, name_conditions, one_each, require, steered

_NAMES = {"vector": "vector", "attention": "attn", "mlp": "MLP", "rescaling": "rescaling", "other": "other"}
_TOKENS = 4  # tokens that get bars of their own beside each other


def shift_parts_bars(
    frame: pd.DataFrame,
    *,
    condition: str | None = None,
    prompt: str | None = None,
    position: int | None = None,
    title: str | None = None,
) -> go.Figure:
    """Bars of every part's contribution to the shift of up to 4 tokens' logits, in the order of the forward pass.

    `frame`, one row per token and part: label (str), token (str), part ("vector", "attention", "mlp", "rescaling",
    "other"), part_layer (Int64, NA for rescaling), contribution (nats); optional condition, layer, coeff, prompt,
    position, token_id. A token's bars sum to the shift of its logit, which the legend gives. One condition, prompt and
    position at a time; `position` defaults to the last. Raises SteerlensError for missing columns, 0 rows, or a choice
    that is not there.
    """
    name = "shift_parts_bars"
    data = require(frame, name, text=["label", "token", "part"], numbers=["contribution"], gaps=["part_layer"])
    data = name_conditions(data)
    data = choose(data[steered(data)], name, "prompt", prompt)
    data = choose(data, name, "label", condition, argument="condition")
    if position is None and "position" in data.columns and data["position"].nunique() > 1:
        position = data["position"].max()
    data = choose(data, name, "position", position)
    data["identity"] = data["token_id"].map(str) if "token_id" in data.columns else data["token"]
    one_each(data, name, ["identity", "part", "part_layer"])
    order = data.drop_duplicates(["part", "part_layer"])[["part", "part_layer"]].reset_index(drop=True)
    place = {_key(row): i for i, row in enumerate(order.itertuples())}
    tokens = data.drop_duplicates("identity")[["identity", "token"]].head(_TOKENS)
    heading = title or "Where the shift comes from"
    where = str(data["label"].iloc[0])
    if "prompt" in data.columns:
        where += f", after “{theme.shorten(str(data['prompt'].iloc[0]))}”"
    figure = theme.new_figure(heading, where, height=480)
    for colour, (identity, token) in zip(theme.line_colours(len(tokens)), tokens.itertuples(index=False), strict=True):
        rows = data[data["identity"] == identity]
        total = rows["contribution"].sum()
        sign = "+" if total > 0 else ""
        figure.add_trace(
            go.Bar(
                x=[place[_key(row)] for row in rows.itertuples()],
                y=rows["contribution"],
                name=f"{theme.token_label(token)} {sign}{theme.number(total)}",
                marker={"color": colour, "line": {"width": 0}},
                hovertext=[
                    f"<b>{theme.token_label(token)}</b><br>{_written(row, ' of layer ')}<br>"
                    f"<b>{theme.number(row.contribution)} nats</b> of {theme.number(total)}"
                    for row in rows.itertuples()
                ],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    many = len(order) > 40
    figure.update_layout(barmode="group", bargap=0.2, legend={"title": {"text": "shift of the logit (nats)"}})
    figure.update_xaxes(
        title_text="part, in the order of the forward pass",
        tickvals=list(place.values())[:: 4 if many else 1],
        ticktext=[_written(row, " ") for row in order.itertuples()][:: 4 if many else 1],
        tickangle=-45 if len(order) > 8 else 0,
    )
    figure.update_yaxes(title_text="contribution to the logit (nats)", zeroline=True)
    return figure


def _key(row: object) -> tuple[str, float]:
    layer = float(row.part_layer)  # type: ignore[attr-defined]
    return (row.part, -1.0 if layer != layer else layer)  # type: ignore[attr-defined]


def _written(row: object, between: str) -> str:
    part, layer = _key(row)
    named = _NAMES.get(part, part)
    return named if layer < 0 else f"{named}{between}{layer:.0f}"
