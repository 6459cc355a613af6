"""The page of a confirmation: verdict, what each condition did, completions side by side."""

from __future__ import annotations

from typing import Any

import pandas as pd

from steerlens.figures import completions_side_by_side
from steerlens.measures.summaries import CONTROLS
from steerlens.reports.all_completions import AllCompletions
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
        every=AllCompletions(
            frame=confirmation.frame,
            metric=confirmation.metric,
            numbers=["surprise", confirmation.metric.column],
            first=int(confirmation.table["condition"].iloc[0]),
        ),
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
    return table.set_index("condition")[names].rename(columns={"difference": "steered leads by"})


def together(frame: pd.DataFrame, part: str, confirmation: Any) -> pd.DataFrame:
    """The completions that a condition was chosen by and those that confirm it, told apart by the column part."""
    again = confirmation.frame.assign(condition=confirmation.frame["condition"].map(number_beside), part="confirmation")
    return pd.concat([frame.assign(part=part), again], ignore_index=True)


def number_beside(condition: int) -> int:
    """The number of a confirmation's condition where those of another run stand beside it, -1 and up."""
    return -2 - condition
