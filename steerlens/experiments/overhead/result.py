"""`Overhead`: the premium in time of every model, its figure and tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from steerlens.experiments.overhead import paper
from steerlens.experiments.overhead.figures import premium_by_size
from steerlens.experiments.shared import wording
from steerlens.experiments.shared.beside import beside
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
    differences: ClassVar[tuple[str, ...]] = paper.DIFFERENCES

    times: pd.DataFrame = field(default_factory=pd.DataFrame)

    def answer(self) -> list[str]:
        said = []
        for row in self.frame.itertuples():
            whole = wording.side(row.low, row.high) if row.low == row.low else "unclear"
            told = {
                "above": "steering takes more time",
                "below": "steered passes took less time, which can only be the machine's doing",
                "unclear": "no cost is shown",
            }[whole]
            said.append(
                f"On {row.model}, {told}. With the extraction of the vector, the time of {row.forwards} steered passes "
                f"differs by {wording.premium(row.premium, row.low, row.high)} from that of as many unsteered ones "
                f"({1000 * row.base:.1f} ms each); {_further(row)}."
            )
        if (self.frame["high"] - self.frame["low"] > _WIDE).any():
            said.append(
                "The intervals are wide: other work on the machine, or few seeds and passes. For a number to quote, "
                "run the paper's settings on an idle machine; till then the median pass tells more."
            )
        return said

    def beside_paper(self) -> pd.DataFrame:
        return beside(
            (paper.PREMIUM, f"{wording.premium(row.premium, row.low, row.high)}, {row.model}")
            for row in self.frame.itertuples()
        )

    def headlines(self) -> list[Headline]:
        tiles = []
        for row in self.frame.head(3).itertuples():
            limits = (
                f"above 0: takes longer; {_signed(row.low)} to {_signed(row.high)}"
                if row.low == row.low
                else "one seed, no interval"
            )
            tiles.append(Headline(f"time added, {row.model}", _signed(row.premium), limits))
            tiles.append(
                Headline(
                    f"time added to a further pass, {row.model}",
                    _signed(row.premium_forward),
                    f"without extraction; {_signed(row.premium_median)} by median pass",
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
    return _signed(value) + (f" ({_signed(low)} to {_signed(high)})" if low == low else "")


def _signed(value: float) -> str:
    return f"{wording.signed(100 * value, 1)} %"


def _further(row: Any) -> str:
    further = wording.premium(row.premium_forward, row.forward_low, row.forward_high)
    return f"without it, by {further}, and by {_signed(row.premium_median)} in the medians of single passes"


_WIDE = 0.1
"""Of a premium's interval, from which on the page warns."""
