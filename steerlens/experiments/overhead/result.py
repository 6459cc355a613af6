"""`Overhead`: the premium in time of every model, its figure and tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from steerlens.experiments.overhead.figures import premium_by_size
from steerlens.experiments.shared.result import Result
from steerlens.reports.page import Headline

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Overhead(Result):
    """What steering costs in time.

    Attributes:
        frame: one row per model: model, parameters (as loaded; HookedTransformer stores tied embeddings twice),
            n_layers, layer, device, dtype, seeds, forwards, base and steered (seconds per pass, means over all),
            extraction (seconds per vector), premium, low, high (extraction included),
            premium_forward, forward_low, forward_high (extraction left out), premium_median (of medians, left out).
        times: one row per model and seed, in seconds: model, seed, base and steered (sums over the passes), extraction,
            base_median, steered_median (of single passes).
    """

    name: ClassVar[str] = "overhead"
    title: ClassVar[str] = "What does steering cost in time?"

    times: pd.DataFrame = field(default_factory=pd.DataFrame)

    def headlines(self) -> list[Headline]:
        tiles = []
        for row in self.frame.head(3).itertuples():
            limits = f"{row.low:+.1%} to {row.high:+.1%}" if row.low == row.low else "one seed, no interval"
            tiles.append(Headline(f"premium, {row.model}", f"{row.premium:+.1%}", limits))
            tiles.append(
                Headline(
                    f"premium without extraction, {row.model}",
                    f"{row.premium_forward:+.1%}",
                    f"{row.premium_median:+.1%} by median pass",
                )
            )
            tiles.append(
                Headline("unsteered pass", f"{1000 * row.base:.1f} ms", f"extraction: {1000 * row.extraction:.1f} ms")
            )
        return tiles

    def figures(self) -> dict[str, go.Figure]:
        return {
            "Premium (time with steering over time without, minus 1) by model size. Small points are single seeds.": (
                premium_by_size(self.frame, self.times)
            )
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        shown = pd.DataFrame(
            {
                "model": self.frame["model"],
                "parameters": [f"{size / 1e6:,.1f} M" for size in self.frame["parameters"]],
                "layer": self.frame["layer"],
                "device": self.frame["device"],
                "unsteered pass (ms)": 1000 * self.frame["base"],
                "steered pass (ms)": 1000 * self.frame["steered"],
                "extraction (ms)": 1000 * self.frame["extraction"],
                "premium": [_percent(*row) for row in self.frame[["premium", "low", "high"]].to_numpy()],
                "premium without extraction": [
                    _percent(*row) for row in self.frame[["premium_forward", "forward_low", "forward_high"]].to_numpy()
                ],
            }
        )
        return {"Models": shown, "All seeds (seconds)": self.times}


def _percent(value: float, low: float, high: float) -> str:
    """A premium with its interval, if it has one."""
    text = f"{value:+.1%}" + (f" ({low:+.1%} to {high:+.1%})" if low == low else "")
    return text.replace("-", "−")
