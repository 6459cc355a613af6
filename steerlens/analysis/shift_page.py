"""The HTML page of a logit shift: headline, figures, tables, settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from steerlens.reports.page import Headline, check_report_path, write_report

if TYPE_CHECKING:
    from steerlens.analysis.logit_shift import LogitShift

_FIGURES = 4  # conditions that get a figure of their own


def write_shift_report(shift: LogitShift, path: str | Path, *, command: str | None = None) -> Path:
    """The path of one self-contained page about `shift`; written whole or not at all.

    Raises:
        SteerlensError: in one line, if the place cannot be written.
    """
    check_report_path(path)
    ends = shift.summary.groupby(["condition", "prompt"], sort=False).tail(1)  # the last position of each prompt
    steered = ends[ends["condition"] > 0]
    base = ends[ends["condition"] == 0].iloc[0]
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
    prompts = shift.settings["prompts"]
    # Labels can be alike (one vector at many layers), so a condition's own rows are drawn by themselves.
    source = shift.mean_frame if shift.mean_frame is not None else shift.frame
    numbers = list(source["condition"].drop_duplicates())[:_FIGURES]
    figures = {}
    for number in numbers:
        row = source[source["condition"] == number].iloc[0]
        where = "several layers" if pd.isna(row["layer"]) else f"layer {row['layer']}"
        figures[f"{row['label']}, {where}, placement {row['placement']}."] = _one(shift, number).plot()
    left_out = source["condition"].nunique() - len(numbers)
    title = "Next-token shift on " + str(shift.settings["model"])
    subtitle = f"“{prompts[0]}”" if len(prompts) == 1 else f"{len(prompts)} prompts"
    if left_out > 0:
        subtitle += f"; figures of the first {len(numbers)} of {len(numbers) + left_out} conditions"
    return write_report(
        path,
        title=title,
        subtitle=subtitle,
        headlines=headlines,
        figures=figures,
        tables={"Tokens, largest rise first": source.drop(columns=["condition"]), "Every position": shift.summary},
        settings=shift.settings,
        command=command,
    )


def _one(shift: LogitShift, number: int) -> LogitShift:
    """The shift of one condition."""
    mean = None if shift.mean_frame is None else shift.mean_frame[shift.mean_frame["condition"] == number]
    return type(shift)(
        shift.frame[shift.frame["condition"] == number],
        shift.summary[shift.summary["condition"].isin([0, number])],
        mean,
        shift.settings,
    )
