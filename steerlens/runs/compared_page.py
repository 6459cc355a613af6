"""The page of a comparison: methods side by side, their differences, completions, settings."""

from __future__ import annotations

from typing import Any

import pandas as pd

from steerlens.figures import completions_side_by_side, effect_against_damage
from steerlens.reports.all_completions import AllCompletions
from steerlens.reports.page import Completions, Headline, Page


def compared_page(comparison: Any, *, command: str | None = None) -> Page:
    """What a `Comparison` found."""
    table, settings, goal = comparison.frame, comparison.settings, comparison.goal
    tiles = []
    for row in table[table["setting"] != "equal damage"].to_dict("records"):
        note = f"{row['success_low']:.0%} to {row['success_high']:.0%}"
        name = f"{row['method']}, {row['setting']}" if row["setting"] else row["method"] or "unsteered"
        tiles.append(Headline(name, f"{row['success']:.0%}", "; ".join(filter(None, [note, row["verdict"]]))))
    told = f"chosen on {settings['chosen on']}; confirmed on {settings['confirmed on']}"
    names = table["method"].where(table["setting"] == "", table["method"] + ", " + table["setting"])
    drawn = table.assign(label=names.where(table["role"] != "unsteered", "unsteered"))
    trade = effect_against_damage(
        drawn, effect="success", damage="surprise", damage_title="surprise (nats per token)", title="Success and damage"
    )
    shown = comparison.completions[comparison.completions["role"] != "random"]
    shown = shown[shown["setting"] != "equal damage"].assign(
        label=lambda rows: rows["method"].where(rows["role"] != "unsteered", "unsteered")
    )
    labels = list(shown["label"].drop_duplicates())
    tables = {"Methods": table.set_index("condition").drop(columns="label")}
    if len(comparison.pairs):
        tables["Differences"] = comparison.pairs
    return Page(
        title=f"{goal.name}: methods compared ({settings['what']})",
        subtitle="; ".join([told, *comparison.notes]),
        headlines=tiles,
        figures={f"Success of each method, {told}.": comparison.plot(), "What it cost.": trade},
        tables=tables,
        completions=[Completions(completions_side_by_side(shown.drop(columns="condition"), goal, labels=labels, n=3))],
        every=AllCompletions(
            frame=comparison.completions,
            metric=goal,
            numbers=["surprise", goal.column],
            first=int(shown.loc[shown["role"] != "unsteered", "condition"].iloc[0]),
            names=_names(comparison.completions),
        ),
        settings=settings,
        command=command,
    )


def _names(completions: pd.DataFrame) -> dict[int, str]:
    """Conditions by method and setting; the unsteered one keeps its label."""
    each = completions.drop_duplicates("condition")
    each = each[each["role"] != "unsteered"]
    return {
        int(row.condition): ", ".join(filter(None, [row.method, row.setting, row.role if row.role == "random" else ""]))
        for row in each.itertuples()
    }
