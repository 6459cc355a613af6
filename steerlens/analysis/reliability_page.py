"""The page of a reliability: how many prompts go the wrong way, every prompt in one figure, tables, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from steerlens.reports.page import Headline, Page

if TYPE_CHECKING:
    import plotly.graph_objects as go


def reliability_page(
    summary: pd.DataFrame,
    prompts: pd.DataFrame,
    paraphrases: pd.DataFrame,
    settings: Mapping[str, Any],
    *,
    figure: go.Figure,
    measure: str,
    notes: Sequence[str] = (),
    command: str | None = None,
) -> Page:
    """How reliably a vector steers, prompt by prompt: parts of a `Reliability`.

    Args:
        command: what to type to get the same again.
    """
    headlines = []
    first = summary["direction"].iloc[0]
    for row in summary[summary["direction"] == first].to_dict("records"):
        limits = f"{row['wrong_low']:.0%} to {row['wrong_high']:.0%} of all such prompts"
        headlines.append(Headline(f"wrong way, {row['split']}", f"{row['wrong']:.0%} of {row['prompts']}", limits))
        headlines.append(
            Headline(
                f"slope, {row['split']}",
                f"{row['slope']:+.3g} ± {row['sd']:.2g}",
                f"of {measure} per unit of coefficient, mean and spread over prompts; "
                f"{row['turning']:.0%} of the prompts turn back",
            )
        )
    tables = {"In all, with 95 % intervals": summary}
    if len(paraphrases):
        tables["Spread of each prompt's slope over paraphrases of the pair"] = paraphrases
    tables["Every prompt, the most wrongly steered first"] = prompts[prompts["direction"] == first].sort_values(
        "slope", ignore_index=True
    )
    return Page(
        title=f"Reliability: {settings['what']} on {settings['model']}",
        subtitle="; ".join([f"{measure}, layer {settings['layer']}", *notes]),
        headlines=headlines,
        figures={"What steering changes for each prompt, and the slopes of all prompts in order.": figure},
        tables=tables,
        settings=settings,
        command=command,
    )
