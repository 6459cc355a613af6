"""The HTML page of a layer effect: headline, figures, table, settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from steerlens.reports.page import Headline, check_report_path, write_report

if TYPE_CHECKING:
    from steerlens.analysis.layer_effect import LayerEffect


def write_effect_report(effect: LayerEffect, path: str | Path, *, command: str | None = None) -> Path:
    """The path of one self-contained page about `effect`; written whole or not at all.

    Raises:
        SteerlensError: in one line, if the place cannot be written.
    """
    check_report_path(path)
    best = effect.best()
    rows = effect.summary[effect.summary["condition"] == best["condition"]].set_index("metric")
    wanted = ", ".join(repr(word) for word in effect.settings["wanted"])
    headlines = [
        Headline("best layer", f"{best['layer']}", f"coefficient {best['coeff']:g}"),
        Headline("effectiveness", f"{best['mean']:.3g} nats", _interval(best)),
        Headline("disruption", f"{rows.loc['disruption', 'mean']:.3g} nats", _interval(rows.loc["disruption"])),
        Headline("norm against the residual stream", f"{rows.loc['norm_ratio', 'mean']:.2g}", "where it goes in"),
    ]
    figures = {
        "Change of the log-probability that the next token is one of the wanted.": effect.plot("effectiveness"),
        "What steering changed beside that.": effect.plot("disruption"),
        "Both together.": effect.plot_damage(),
        "Length of the vector against that of the residual stream.": effect.plot("norm_ratio"),
    }
    n = len(effect.settings["prompts"])
    return write_report(
        path,
        title=f"{effect.settings['what']} on {effect.settings['model']}, layer by layer",
        subtitle=f"next tokens wanted: {wanted}; {n} prompt{'s' * (n != 1)}, no sampling",
        headlines=headlines,
        figures=figures,
        tables={"Every condition": effect.summary.drop(columns=["condition"])},
        settings=effect.settings,
        command=command,
    )


def _interval(row) -> str:  # type: ignore[no-untyped-def]
    """The 95 % interval as people read it; nothing for one prompt."""
    return "" if row["low"] != row["low"] else f"{row['low']:.3g} to {row['high']:.3g}"
