"""The HTML page of a sweep: headline, figures, completions, table, settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from steerlens.figures import completions_side_by_side, layer_coefficient_heatmap, layer_sweep
from steerlens.reports.page import Headline, check_report_path, write_report

if TYPE_CHECKING:
    from steerlens.runs.sweep import Sweep


def write_sweep_report(sweep: Sweep, path: str | Path, *, command: str | None = None) -> Path:
    """The path of one self-contained page about `sweep`; written whole or not at all.

    Raises:
        SteerlensError: the place cannot be written (checked before anything is drawn).
    """
    check_report_path(path)
    metric = sweep.metrics[0]
    best, base = sweep.best(), sweep.baseline()
    rows = sweep.summary[sweep.summary["metric"] == metric.name]
    control = rows[(rows["role"] == "random") & (rows["layer"] == best["layer"]) & (rows["coeff"] == best["coeff"])]
    headlines = [
        Headline("best layer", f"{best['layer']}", f"coefficient {best['coeff']:g}"),
        Headline("steered", number(best), interval(best)),
        Headline("unsteered", number(base), interval(base)),
    ]
    if len(control):
        headlines.append(Headline("random vector of equal norm", number(control.iloc[0]), interval(control.iloc[0])))
    figures = {"": layer_sweep(sweep.summary)}
    if rows["coeff"].nunique() > 2:  # the baseline counts as coefficient 0
        figures["Layer and coefficient together."] = layer_coefficient_heatmap(rows)
    return write_report(
        path,
        title=f"{sweep.settings['what']} on {sweep.settings['model']}",
        subtitle=f"{metric.name}: {sweep.settings['n']} completions per condition and prompt, 95 % intervals",
        headlines=headlines,
        figures=figures,
        tables={"Every condition": rows.drop(columns=["condition", "metric", "kind"])},
        completions_html=side_by_side(sweep).html,
        settings=sweep.settings,
        command=command,
    )


def side_by_side(sweep: Sweep, *, n: int = 6):  # type: ignore[no-untyped-def]
    """Unsteered completions beside those of the best steered condition (the first `n`, not the best)."""
    best, base = sweep.best(), sweep.baseline()
    shown = sweep.frame[sweep.frame["condition"].isin([base["condition"], best["condition"]])].copy()
    steered = shown["condition"] == best["condition"]
    shown.loc[steered, "label"] = f"{best['label']}, layer {best['layer']}"
    return completions_side_by_side(shown, sweep.metrics[0], n=n)


def number(row) -> str:  # type: ignore[no-untyped-def]
    """The mean of a summary row as people read it."""
    return f"{row['mean']:.1%}" if row["kind"] == "share" else f"{row['mean']:.3g}"


def interval(row) -> str:  # type: ignore[no-untyped-def]
    """The 95 % interval of a summary row as people read it."""
    if row["kind"] == "share":
        return f"{row['low']:.1%} to {row['high']:.1%}"
    return f"{row['low']:.3g} to {row['high']:.3g}"
