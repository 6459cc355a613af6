"""The page of a sweep: headline, figures, completions, table, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from steerlens.figures import (
    SideBySide,
    completions_side_by_side,
    effect_against_damage,
    layer_coefficient_heatmap,
    layer_sweep,
)
from steerlens.figures.intervals import axis_title, tick_format
from steerlens.measures.findings import NOTHING, differing
from steerlens.measures.metrics import Metric
from steerlens.measures.summaries import CONTROLS, best_found, control_of, interval, number, subject, unsteered
from steerlens.measures.verdicts import judged
from steerlens.reports.all_completions import AllCompletions
from steerlens.reports.page import Completions, Headline, Page
from steerlens.runs.confirmation_page import confirmed_columns, number_beside, together
from steerlens.runs.confirmation_page import headlines as headlines_of
from steerlens.runs.confirming import Confirmation


def sweep_page(
    frame: pd.DataFrame,
    summary: pd.DataFrame,
    metric: Metric,
    settings: Mapping[str, Any],
    *,
    command: str | None = None,
    confirmed: Confirmation | None = None,
) -> Page:
    """What a sweep found, by `metric`.

    Args:
        frame, summary, settings: those of a `Sweep`.
        command: what to type to reproduce it.
        confirmed: its best condition, measured anew.
    """
    rows = summary[summary["metric"] == metric.name]
    found = differing(frame, metric.column, metric.kind, better=metric.better)
    best, base = best_found(rows, found), unsteered(rows)
    told = judged(frame, metric.column, metric.kind, better=metric.better)
    verdict = "" if told is None else f"; {told.loc[best['condition'], 'verdict']}"
    first = Headline("best layer", f"{best['layer']}", f"coefficient {best['coeff']:g}{verdict}")
    if not found:
        first = Headline("result", NOTHING, no_effect(rows))
    end = "highest" if metric.better == "higher" else "lowest"
    headlines = [
        first,
        Headline("steered" if found else f"{end} of the steered", number(best), interval(best)),
        Headline("unsteered", number(base), interval(base)),
    ]
    for role, name in CONTROLS.items():
        if (control := control_of(rows, best, role)) is not None:
            headlines.append(Headline(name, number(control), interval(control)))
    # Nothing has a surprise if no completion has a token.
    told_by_text = told is not None and bool((told["effect"].notna() & told["surprise"].notna()).any())
    if told is not None and told_by_text:
        one, usual = told.loc[best["condition"]], told.loc[base["condition"]]
        surprise = f"per token; unsteered {usual['surprise']:.2f}. {one['fluent']:.0%} of the completions are fluent"
        headlines.append(Headline("its surprise", f"{one['surprise']:.2f} nats", surprise))
    figures = {"": layer_sweep(summary, mark_best=found, remark="" if found else NOTHING)}
    if rows["coeff"].nunique() > 2 and "strength" not in rows:  # the baseline counts as coefficient 0
        figures["The metric at every layer and coefficient."] = layer_coefficient_heatmap(rows)
    if told is not None and told_by_text:
        caption = "Effect against damage: the mean surprise of the completions to the unsteered model."
        figures[caption] = effect_against_damage(
            told.reset_index(),
            damage="surprise",
            effect_title=axis_title(metric.name, metric.kind),
            damage_title="surprise (nats per token)",
            better=metric.better,
        )
        figures[caption].update_yaxes(**tick_format(metric.kind))
        # Surprise is never negative, though the interval of a mean of few may be.
        figures[caption].update_xaxes(rangemode="nonnegative")
    again = {}
    if confirmed is not None:
        on, value = confirmed.settings["confirmed on"], headlines_of(confirmed)[0]
        headlines.append(Headline("confirmed", confirmed.verdict, f"success {value.value} ({value.note}) on {on}"))
        told_of = f"{confirmed.settings['condition']}: chosen on {confirmed.settings['chosen on']}, confirmed on {on}"
        again = {told_of: confirmed_columns(confirmed.table).rename(index=number_beside)}
    return Page(
        title=f"{subject(settings)} on {settings['model']}",
        subtitle="; ".join(
            [
                f"{metric.name}: {settings['n']} completions per condition and prompt, 95 % intervals",
                *settings.get("controls left out", ()),
            ]
        ),
        headlines=headlines,
        figures=figures,
        tables={**again, "Every condition": _table(rows, found, told)},
        completions=[Completions(best_beside_unsteered(frame, summary, metric))],
        every=AllCompletions(
            frame=frame if confirmed is None else together(frame, "sweep", confirmed),
            metric=metric,
            numbers=["surprise", *_columns(frame, summary)],
            first=int(best["condition"]),
        ),
        settings=settings,
        command=command,
    )


def _columns(frame: pd.DataFrame, summary: pd.DataFrame) -> list[str]:
    """The columns of the metrics."""
    names = summary["metric"].drop_duplicates()
    return [f"{name} (metric)" if f"{name} (metric)" in frame else name for name in names]


def no_effect(rows: pd.DataFrame) -> str:
    """Why no condition is called the best, for one metric's summary rows."""
    tried = int((rows["role"] == "steered").sum())
    against = "unsteered and from its random vector" if (rows["role"] == "random").any() else "unsteered"
    how = "differs from" if not ("better" in rows and (rows["better"] == "lower").all()) else "is lower than"
    return f"no condition {how} {against} (5 % level, corrected for {tried} conditions)"


def _table(rows: pd.DataFrame, found: list[int], told: pd.DataFrame | None) -> pd.DataFrame:
    steered = rows["role"] == "steered"
    effect = rows["condition"].isin(found).map({True: "yes", False: NOTHING}).where(steered, "")
    table = rows.drop(columns=["metric", "kind", "better"], errors="ignore").assign(
        **{"differs from its controls": effect}
    )
    if told is not None:
        shown = told[["surprise", "fluent", "success", "verdict", "why"]]
        table = table.drop(columns="differs from its controls").join(shown, on="condition")
    # A page shows a dozen columns before it scrolls: what tells rows apart and what was found come first.
    first = ["role", "layer", "strength", "coeff", "mean", "low", "high", "differs from its controls", "verdict", "why"]
    order = [name for name in first if name in table] + [name for name in table if name not in first]
    return table.set_index("condition")[[name for name in order if name != "condition"]]


def best_beside_unsteered(frame: pd.DataFrame, summary: pd.DataFrame, metric: Metric, *, n: int = 6) -> SideBySide:
    """Unsteered completions beside those of the best steered condition (the first `n`, not the best)."""
    rows = summary[summary["metric"] == metric.name]
    found = differing(frame, metric.column, metric.kind, better=metric.better)
    best, base = best_found(rows, found), unsteered(rows)
    shown = frame[frame["condition"].isin([base["condition"], best["condition"]])].copy()
    steered = shown["condition"] == best["condition"]
    shown.loc[steered, "label"] = f"{best['label']}, layer {best['layer']}"
    return completions_side_by_side(shown, metric, n=n)
