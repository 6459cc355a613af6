"""The page of a search: what was found, what it is worth on held-out prompts, and how the search got there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from steerlens.figures import completions_side_by_side
from steerlens.measures.metrics import Metric
from steerlens.reports.all_completions import AllCompletions
from steerlens.reports.page import Completions, Headline, Page
from steerlens.runs.confirmation_page import number_beside, together
from steerlens.runs.confirming import Confirmation
from steerlens.runs.search_space import Candidate

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ROLES = {"steered": "on topic and fluent", "unsteered": "unsteered", "random": "random vector of equal norm"}


def search_page(
    frame: pd.DataFrame,
    candidates: pd.DataFrame,
    front: pd.DataFrame,
    completions: pd.DataFrame,
    confirmed: Confirmation | None,
    best: Candidate,
    goal: Metric,
    settings: Mapping[str, Any],
    *,
    figure: go.Figure,
    title: str,
    note: str = "",
    command: str | None = None,
) -> Page:
    """What a search found, and how: parts of a `Search`.

    Args:
        command: what to type to reproduce it.
    """
    one = best.injection
    verdict = "not confirmed" if confirmed is None else confirmed.verdict
    where = f"{one.placement}, {best.strength}, coefficient {one.vector.coeff:.3g}; {verdict}"
    headlines = [Headline("best setting", f"layer {one.vector.layer}", where)]
    shown = completions.assign(condition=completions["candidate"].fillna(-1).astype(int))
    every = shown if confirmed is None else together(shown, "search", confirmed)
    chosen = candidates.loc[candidates["label"] == best.label, "candidate"].iloc[0]
    shown = shown[shown["condition"].isin([-1, chosen])]
    tables: dict[str, pd.DataFrame] = {}
    if confirmed is not None:
        for _, row in confirmed.table.iterrows():
            limits = f"{row['success_low']:.1%} to {row['success_high']:.1%}; {row['effect']:.1%} on topic"
            headlines.append(Headline(_ROLES.get(row["role"], row["role"]), f"{row['success']:.1%}", limits))
        shown = confirmed.frame[confirmed.frame["role"].isin(["unsteered", "steered"])]
        told = ["role", "n", "effect", "success", "success_low", "success_high", "surprise", "fluent", "repetition"]
        caption = f"The best setting and its controls on {confirmed.settings['confirmed on']}; 95 % intervals"
        tables[caption] = confirmed.table.set_index("condition")[told].rename(index=number_beside)
    names = ["layer", "placement", "operation", "strength", "coeff", "n", "effect", "success", "surprise", "direction"]
    tables["The front: settings that no other beats in effect and surprise"] = front.set_index("candidate")[
        [*names, "knee"]
    ].rename_axis("condition")
    sampled = candidates.sort_values("success", ascending=False, ignore_index=True)
    tables["Every setting that was sampled; those with few completions say little"] = sampled.set_index("candidate")[
        [*names, "kl", "shift"]
    ].rename_axis("condition")
    spent = int(frame["spent"].iloc[-1])
    return Page(
        title=f"Search: {title}",
        subtitle="; ".join(filter(None, [f"{len(candidates)} settings, {spent:,} sampled tokens", note])),
        headlines=headlines,
        figures={"How the search got there, and effect against damage of what it tried.": figure},
        tables=tables,
        completions=[Completions(completions_side_by_side(shown, goal, n=6))],
        every=AllCompletions(frame=every, metric=goal, numbers=["surprise", goal.column], first=int(chosen)),
        settings=settings,
        command=command,
    )
