"""Figures of a logit shift: which tokens rose and fell, where in the prompt, and at which layer."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.errors import SteerlensError
from steerlens.figures import theme
from steerlens.figures.columns import choose, identity, name_conditions, one_each, require, steered

_LETTER = 0.0112  # the part of the panel's width that a letter beside a bar takes, on a page of middling width
_PANELS = 4  # more than this many conditions side by side leave no room for the bars


def logit_shift_bars(
    frame: pd.DataFrame,
    *,
    top: int = 10,
    condition: str | None = None,
    prompt: str | None = None,
    position: int | None = None,
    title: str | None = None,
) -> go.Figure:
    """Bars of the tokens whose log-probability rose most and fell most, with probabilities before and after.

    `frame`, one row per condition, prompt, position and token: label (str), token (str), logprob_base,
    logprob_steered, shift (= steered - base) in nats, prob_base, prob_steered; optional layer, coeff, prompt,
    position, token_id, kl_part (nats), rank_base, rank_steered (1 is the likeliest) are shown on hover. Draws the
    `top` largest rises and the `top` largest falls that the frame holds. Up to 4 conditions (labels) stand side by
    side, `condition` picks one. One prompt and one position at a time; `position` defaults to the last. Rows of the
    baseline are passed over. Raises SteerlensError for missing columns, 0 rows, NaN in shift or a probability, or a
    choice that is not there.
    """
    name = "logit_shift_bars"
    numbers = ["shift", "prob_base", "prob_steered", "logprob_base", "logprob_steered"]
    data = name_conditions(require(frame, name, text=["label", "token"], numbers=numbers))
    if top < 1:
        raise SteerlensError(f"top = {top}; at least 1 token is needed")
    data = choose(data, name, "prompt", prompt)
    if position is None and "position" in data.columns and data["position"].nunique() > 1:
        position = data["position"].max()
    data = choose(data, name, "position", position)
    data = data[steered(data)]
    if condition is not None:
        data = choose(data, name, "label", condition, argument="condition")
    if data.empty:
        raise SteerlensError(
            f"{name}: only rows of the unsteered baseline are there; a shift needs a steered condition"
        )
    labels = list(data["label"].drop_duplicates())
    if len(labels) > _PANELS:
        raise SteerlensError(
            f"{name} draws up to {_PANELS} conditions but the frame has {len(labels)}; pass condition="
        )
    one_each(data.assign(token_id=identity(data)), name, ["label", "token_id"])
    chosen = {label: _extremes(data[data["label"] == label], top) for label in labels}
    longest = max(len(rows) for rows in chosen.values())
    where = f"after “{theme.shorten(str(data['prompt'].iloc[0]))}”" if "prompt" in data.columns else ""
    heading = title or ("Next-token shift" + (f", {labels[0]}" if len(labels) == 1 else ""))
    figure = theme.new_figure(heading, where, height=190 + 23 * longest)
    figure.set_subplots(
        rows=1,
        cols=len(labels),
        horizontal_spacing=0.4 / len(labels) ** 1.5 if len(labels) > 1 else 0,
        subplot_titles=[theme.escape(theme.shorten(label, 40)) for label in labels] if len(labels) > 1 else None,
    )
    widest = max(float(rows["shift"].abs().max()) for rows in chosen.values()) or 1.0
    for column, label in enumerate(labels, start=1):
        _shift_panel(figure, chosen[label], label, widest, longest, column=column, alone=len(labels) == 1)
    figure.update_layout(bargap=0.28)
    figure.update_yaxes(title_text="next token", row=1, col=1)
    if len(labels) > 1:
        figure.update_layout(margin_t=112)  # the names of the panels stand under the subtitle
    return figure


def _shift_panel(
    figure: go.Figure, rows: pd.DataFrame, label: str, widest: float, longest: int, *, column: int, alone: bool
) -> None:
    """The bars of one condition; `widest` and `longest` are the largest shift and number of tokens of all panels."""
    heights = np.arange(len(rows))[::-1]
    rise = rows["shift"] > 0
    outside = [_before_after(row) for row in rows.itertuples()]
    figure.add_trace(
        go.Bar(
            x=rows["shift"],
            y=heights,
            orientation="h",
            marker={"color": np.where(rise, theme.BLUE, theme.ORANGE_RED), "line": {"width": 0}},
            text=outside if alone else None,
            textposition="outside",
            textfont={"size": 11, "color": theme.INK},
            cliponaxis=False,
            showlegend=False,
            hovertext=[_shift_hover(row, label) for _, row in rows.iterrows()],
            hovertemplate="%{hovertext}<extra></extra>",
        ),
        row=1,
        col=column,
    )
    # Positions with written ticks, not categories: two tokens may look alike, and "1" must not become a number.
    figure.update_yaxes(
        tickvals=heights,
        ticktext=[theme.token_label(token) for token in rows["token"]],
        tickfont={"family": theme.MONO, "size": 12},
        range=[-0.7, longest - 0.3],
        showgrid=False,
        row=1,
        col=column,
    )
    low, high = min(float(rows["shift"].min()), 0.0), max(float(rows["shift"].max()), 0.0)
    written = _LETTER * max(map(len, outside)) if alone else 0
    room = 1 / (1 - min(written * (2 if low < 0 < high else 1), 0.6)) + 0.06
    limits = [room * -widest if low < 0 else -0.04 * widest, room * widest if high > 0 else 0.04 * widest]
    figure.update_xaxes(
        title_text="change of log-probability (nats)",
        range=limits,
        zeroline=True,
        showgrid=True,
        showline=False,
        row=1,
        col=column,
    )


def token_position_heatmap(
    frame: pd.DataFrame,
    *,
    value: str = "shift",
    value_title: str | None = None,
    condition: str | None = None,
    prompt: str | None = None,
    title: str | None = None,
) -> go.Figure:
    """Heat map of a quantity over followed tokens (up) and positions of the prompt (across).

    `frame`, one row per position and token: label (str), token (str), position (int), context (str: the prompt token
    AT that position, after which `token` is predicted) and the column `value`, by default shift in nats; optional
    prompt, token_id, prob_base, prob_steered for hover. `value_title` names the quantity with its unit. A value with
    both signs gets a scale that is neutral at 0. NaN values are empty cells. One condition and one prompt at a time.
    Raises SteerlensError for missing columns, 0 rows, all NaN, or two rows for one cell.
    """
    name = "token_position_heatmap"
    data = name_conditions(require(frame, name, text=["label", "token", "context"], numbers=["position"], gaps=[value]))
    data = choose(choose(data, name, "prompt", prompt), name, "label", condition, argument="condition")
    if data[value].isna().all():
        raise SteerlensError(f"{name}: column {value!r} holds nothing but NaN; there is nothing to draw")
    data["identity"] = identity(data)
    one_each(data, name, ["identity", "position"])
    tokens = data.drop_duplicates("identity").set_index("identity")["token"]
    places = data.drop_duplicates("position").set_index("position")["context"].sort_index()
    grid = data.pivot(index="identity", columns="position", values=value).reindex(index=tokens.index)
    rows = {(row["identity"], row["position"]): row for _, row in data.iterrows()}
    named = value_title or ("change of log-probability (nats)" if value == "shift" else value)
    hover = [
        [_place_hover(rows.get((identity, place)), value, named) for place in grid.columns] for identity in grid.index
    ]
    signed = bool((grid.min(axis=None) < 0) and (grid.max(axis=None) > 0)) or value == "shift"
    heading = title or (f"{_plain_name(named)} along the prompt".capitalize())
    figure = theme.new_figure(heading, data["label"].iloc[0], height=230 + 30 * len(grid))
    figure.add_trace(
        go.Heatmap(
            z=grid.to_numpy(),
            x=np.arange(grid.shape[1]),
            y=np.arange(len(grid))[::-1],
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            hoverongaps=False,
            xgap=2 if grid.shape[1] <= 40 else 0.5,
            ygap=2,
            coloraxis="coloraxis",
        )
    )
    figure.update_layout(
        coloraxis={
            "colorscale": theme.DIVERGING if signed else theme.SEQUENTIAL,
            "cmid": 0 if signed else None,
            "colorbar": {"title": {"text": _in_lines(named, room=60 + 30 * len(grid))}},
        }
    )
    step = max(1, int(np.ceil(grid.shape[1] / 48)))
    shown = np.arange(0, grid.shape[1], step)
    figure.update_xaxes(
        title_text="prompt token after which the next one is predicted",
        tickvals=shown,
        ticktext=[theme.token_label(token, limit=14) for token in places.iloc[shown]],
        tickfont={"family": theme.MONO, "size": 11},
        tickangle=-45 if grid.shape[1] > 6 else 0,
        showline=False,
    )
    figure.update_yaxes(
        title_text="followed token",
        tickvals=np.arange(len(grid))[::-1],
        ticktext=[theme.token_label(token) for token in tokens],
        tickfont={"family": theme.MONO, "size": 12},
        showgrid=False,
    )
    return figure


def _in_lines(text: str, *, room: int) -> str:
    """`text`, escaped, in lines that are at most `room` pixels long where its words allow it."""
    return "<br>".join(map(theme.escape, textwrap.wrap(text, max(room // 8, 12), break_long_words=False)))


def _extremes(rows: pd.DataFrame, top: int) -> pd.DataFrame:
    ordered = rows.sort_values("shift", ascending=False, kind="stable")
    up, down = ordered[ordered["shift"] > 0].head(top), ordered[ordered["shift"] < 0].tail(top)
    chosen = pd.concat([up, down])
    return chosen if len(chosen) else ordered.head(top)


def _before_after(row: Any) -> str:
    before, after = theme.percent(row.prob_base), theme.percent(row.prob_steered)
    return f"both {after}" if before == after else f"{before} → {after}"


def _shift_hover(row: pd.Series, label: str) -> str:
    number = theme.number
    sign = "+" if row["shift"] > 0 else ""
    parts = [
        f"<b>{theme.token_label(row['token'])}</b>" + (f"  id {row['token_id']}" if "token_id" in row else ""),
        theme.escape(label),
        f"shift <b>{sign}{number(row['shift'])} nats</b>",
        f"probability {theme.percent(row['prob_base'])} → {theme.percent(row['prob_steered'])}",
        f"log-probability {number(row['logprob_base'])} → {number(row['logprob_steered'])} nats",
    ]
    if "rank_base" in row and "rank_steered" in row and not pd.isna(row["rank_base"]):
        parts.append(f"rank {int(row['rank_base']):,} → {int(row['rank_steered']):,}")
    if "kl_part" in row and not pd.isna(row["kl_part"]):
        parts.append(f"part of KL {number(row['kl_part'])} nats")
    return "<br>".join(parts)


def _place_hover(row: pd.Series | None, value: str, named: str) -> str:
    if row is None or np.isnan(row[value]):
        return ""
    parts = [
        f"<b>{theme.token_label(row['token'])}</b> after {theme.token_label(row['context'])}",
        f"position {int(row['position'])}",
        f"{theme.escape(_plain_name(named))} <b>{theme.number(row[value])}</b>",
    ]
    if "prob_base" in row and "prob_steered" in row:
        parts.append(f"probability {theme.percent(row['prob_base'])} → {theme.percent(row['prob_steered'])}")
    return "<br>".join(parts)


def _plain_name(named: str) -> str:
    """A quantity's name without its unit in brackets."""
    return named.rsplit(" (", 1)[0]
