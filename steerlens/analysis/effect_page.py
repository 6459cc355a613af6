"""The figures and the page of a layer effect: headline, figures, table, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from steerlens.figures import effect_against_damage, layer_sweep
from steerlens.measures.summaries import best_condition, interval, subject
from steerlens.reports.page import Headline, Page

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TITLES = {
    "shift": "Shift of the wanted tokens",
    "effectiveness": "Effectiveness",
    "disruption": "Disruption of everything but the wanted tokens",
    "kl": "KL(steered ‖ unsteered)",
    "prob_steered": "Probability of the wanted tokens",
}
# The unsteered model has no vector.
_OF_VECTORS = ("vector_norm", "resid_norm", "norm_ratio")


def effect_figure(
    summary: pd.DataFrame, measure: str, wanted: list[str], *, mark_layer: int | None = None
) -> go.Figure:
    """`measure` against the layer, one line per coefficient, random vectors of equal norm dotted."""
    rows = summary[summary["metric"] == measure]
    if measure in _OF_VECTORS:
        rows = rows[rows["role"] != "unsteered"]
    words = ", ".join(repr(word) for word in wanted[:4])
    title = f"{_TITLES.get(measure, measure)}: {words}" if measure in _TITLES else None
    # Only of these is the largest one what anybody looks for.
    sought = measure in ("shift", "effectiveness", "prob_steered")
    return layer_sweep(rows, mark_layer=mark_layer, mark_best=sought, title=title)


def damage_figure(summary: pd.DataFrame) -> go.Figure:
    """Effectiveness against disruption, one point per condition, the Pareto front joined."""
    keys = ["condition", "label", "role", "layer", "coeff", "placement"]
    wide = summary[summary["metric"].isin(["effectiveness", "disruption"])]
    wide = wide.set_index([*keys, "metric"])[["mean", "low", "high"]].unstack("metric")
    points = pd.DataFrame(
        {
            name + end: wide[statistic, name]
            for name in ("effectiveness", "disruption")
            for end, statistic in (("", "mean"), ("_low", "low"), ("_high", "high"))
        }
    ).reset_index()
    return effect_against_damage(
        points,
        effect="effectiveness",
        damage="disruption",
        effect_title="effectiveness (nats)",
        damage_title="disruption (nats)",
        title="Effectiveness against disruption",
    )


def effect_page(summary: pd.DataFrame, settings: Mapping[str, Any], *, command: str | None = None) -> Page:
    """What a vector does to the wanted next tokens, layer by layer.

    Args:
        summary, settings: those of a `LayerEffect`.
        command: what to type to get the same again.
    """
    best = best_condition(summary[summary["metric"] == "effectiveness"])
    rows = summary[summary["condition"] == best["condition"]].set_index("metric")
    words = list(settings["wanted"])
    headlines = [
        Headline("best layer", f"{best['layer']}", f"coefficient {best['coeff']:g}"),
        Headline("effectiveness", f"{best['mean']:.3g} nats", interval(best)),
        Headline("disruption", f"{rows.loc['disruption', 'mean']:.3g} nats", interval(rows.loc["disruption"])),
        Headline("norm relative to the residual stream", f"{rows.loc['norm_ratio', 'mean']:.2g}", "where it is added"),
    ]
    captions = {
        "effectiveness": "Effectiveness: how much the log-probability of the wanted next tokens rose, taken together.",
        "disruption": "Disruption: how far steering moved the distribution over all other tokens (KL divergence).",
        "norm_ratio": "Norm of the vector, relative to that of the residual stream at the same positions.",
    }
    figures = {caption: effect_figure(summary, measure, words) for measure, caption in captions.items()}
    figures["Effectiveness against disruption; up and to the left is better."] = damage_figure(summary)
    n = len(settings["prompts"])
    return Page(
        title=f"{subject(settings)} on {settings['model']}, layer by layer",
        subtitle=f"next tokens wanted: {', '.join(map(repr, words))}; {n} prompt{'s' * (n != 1)}, no sampling",
        headlines=headlines,
        figures=figures,
        tables={"Every condition": summary.drop(columns=["condition"])},
        settings=settings,
        command=command,
    )
