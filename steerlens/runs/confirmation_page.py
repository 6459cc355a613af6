"""The page of a confirmation: verdict, what each condition did, completions side by side."""

from __future__ import annotations

from typing import Any

import pandas as pd

from steerlens.figures import completions_side_by_side
from steerlens.measures.summaries import CONTROLS
from steerlens.reports.page import Completions, Headline, Page


def confirmation_page(confirmation: Any, *, command: str | None = None) -> Page:
    """What a `Confirmation` found."""
    settings, row = confirmation.settings, confirmation.row
    told = f"chosen on {settings['chosen on']}; confirmed on {settings['confirmed on']}"
    shown = confirmation.frame[confirmation.frame["role"].isin(["unsteered", "steered", "prompting"])]
    order = {"unsteered": 0, "steered": 1, "prompting": 2}
    shown = shown.sort_values("role", key=lambda role: role.map(order), kind="stable")
    return Page(
        title=f"{settings['condition']}: {confirmation.verdict}",
        subtitle="; ".join([f"{confirmation.metric.name}: {told}", *settings["controls left out"]]),
        headlines=[Headline("verdict", confirmation.verdict, str(row["why"])), *headlines(confirmation)],
        figures={f"Success, {told}.": confirmation.plot()},
        tables={"Every condition": confirmed_columns(confirmation.table)},
        completions=[Completions(completions_side_by_side(shown, confirmation.metric))],
        settings=settings,
        command=command,
    )


def headlines(confirmation: Any) -> list[Headline]:
    """A tile for each condition: its success with its interval."""
    percent = confirmation.metric.kind == "share"
    tiles = []
    for row in confirmation.table.to_dict("records"):
        value, low, high = (
            f"{row[name]:.1%}" if percent else f"{row[name]:.3g}" for name in ("success", "success_low", "success_high")
        )
        tiles.append(Headline(CONTROLS.get(row["role"], row["role"]), value, f"{low} to {high}"))
    return tiles


def confirmed_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of a confirmation that a page shows."""
    names = ["role", "label", "n", "effect", "surprise", "fluent", "success", "success_low", "success_high"]
    names += ["difference", "difference_low", "difference_high", "p"]
    return table[names].rename(columns={"difference": "steered leads by"})
