"""The figure and the page of a logit shift: headline, figures, tables, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from steerlens.errors import SteerlensError
from steerlens.figures import logit_shift_bars, token_position_heatmap
from steerlens.reports.page import Headline, Page

if TYPE_CHECKING:
    import plotly.graph_objects as go

_FIGURES = 4  # conditions that get a figure of their own


def shift_figure(
    frame: pd.DataFrame,
    mean_frame: pd.DataFrame | None,
    settings: Mapping[str, Any],
    *,
    condition: str | None = None,
    prompt: str | None = None,
    position: int | None = None,
) -> go.Figure:
    """Bars of the rises and falls; where every position was asked for and words are followed, a heat map of these."""
    if frame.empty:
        raise SteerlensError("no token moved under any condition, so there is nothing to draw; steer harder")
    prompts = list(frame["prompt"].drop_duplicates())
    followed = frame[frame["followed"]]
    if settings.get("positions") == "all" and len(followed) and position is None:
        return token_position_heatmap(followed, condition=condition, prompt=prompt or prompts[0])
    if prompt is None and mean_frame is not None:
        return logit_shift_bars(mean_frame, top=len(mean_frame), condition=condition)
    return logit_shift_bars(frame, top=len(frame), condition=condition, prompt=prompt or prompts[0], position=position)


def shift_page(
    frame: pd.DataFrame,
    summary: pd.DataFrame,
    mean_frame: pd.DataFrame | None,
    settings: Mapping[str, Any],
    *,
    command: str | None = None,
) -> Page:
    """Which next tokens steering made more and less likely.

    Args:
        frame, summary, mean_frame, settings: those of a `LogitShift`.
        command: what to type to get the same again.
    """
    ends = summary.groupby(["condition", "prompt"], sort=False).tail(1)  # the last position of each prompt
    steered = ends[ends["condition"] > 0]
    base = ends[ends["condition"] == 0].iloc[0]
    if steered["kl"].isna().all() or frame.empty:
        raise SteerlensError(
            "no condition moved a token, or each overflowed the model, so there is nothing to report; use another "
            "coefficient"
        )
    largest = steered.loc[steered["kl"].idxmax()]
    headlines = [
        Headline("largest KL divergence", f"{largest['kl']:.3g} nats", str(largest["label"])),
        Headline("entropy", f"{largest['entropy']:.3g} nats", f"unsteered {largest['entropy_base']:.3g} nats"),
        Headline(
            "likeliest next token",
            repr(largest["top_token"]),
            f"{largest['top_prob']:.1%}, unsteered {base['top_token']!r} at {base['top_prob']:.1%}",
        ),
    ]
    # Labels can be alike (one vector at many layers), so a condition's own rows are drawn by themselves.
    source = frame if mean_frame is None else mean_frame
    numbers = list(source["condition"].drop_duplicates())
    figures = {}
    for number in numbers[:_FIGURES]:
        row = source[source["condition"] == number].iloc[0]
        where = "several layers" if pd.isna(row["layer"]) else f"layer {row['layer']}"
        own = None if mean_frame is None else mean_frame[mean_frame["condition"] == number]
        figures[f"{row['label']}, {where}, placement {row['placement']}."] = shift_figure(
            frame[frame["condition"] == number], own, settings
        )
    prompts = settings["prompts"]
    subtitle = f"“{prompts[0]}”" if len(prompts) == 1 else f"{len(prompts)} prompts"
    if len(numbers) > _FIGURES:
        subtitle += f"; figures of the first {_FIGURES} of {len(numbers)} conditions"
    return Page(
        title=f"Next-token shift on {settings['model']}",
        subtitle=subtitle,
        headlines=headlines,
        figures=figures,
        tables={"Tokens, largest rise first": source.drop(columns=["condition"]), "Every position": summary},
        settings=settings,
        command=command,
    )
