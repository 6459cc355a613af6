"""What an axis shows where a few values would stretch it, and how what it cuts off is marked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from steerlens.figures import theme

# An axis is cropped where nine in ten values fill less than a third of it, and at an interval that reaches further out
# than half the length that all values take.
_BULK, _STRETCH, _OUTSIDE = 0.9, 3.0, 0.5


@dataclass(frozen=True)
class Window:
    """The stretch of an axis that is shown.

    Attributes:
        low, high: its ends; values and intervals beyond are drawn up to here.
        beyond: True for each value above `high`. [n]
    """

    low: float
    high: float
    beyond: np.ndarray

    @property
    def range(self) -> list[float]:
        """The axis range: the window with a margin."""
        margin = 0.04 * (self.high - self.low) or 0.5
        return [self.low - margin, self.high + margin]

    def inside(self, values: pd.Series) -> pd.Series:
        """`values`, those beyond the window at its edge."""
        return values.clip(lower=self.low, upper=self.high)

    def cut(self, low: pd.Series, high: pd.Series) -> list[tuple[pd.Series, float]]:
        """For the lower end of the window and the upper: which intervals go on beyond it, and where it is."""
        return [(low < self.low, self.low), (high > self.high, self.high)]


def window_of(
    values: pd.Series,
    low: pd.Series | None = None,
    high: pd.Series | None = None,
    *,
    keep: pd.Series | None = None,
) -> Window:
    """The window of an axis that holds `values` but for a few large ones, and their intervals as far as they fit.

    `low`, `high`: limits of intervals, NaN for none. `keep`: True for values that are shown however large they are; by
    default all. No NaN in `values`.
    """
    kept = pd.Series(True, index=values.index) if keep is None else keep
    least, bulk = float(values.min()), float(values.quantile(_BULK))
    beyond = ~kept & (values > least + _STRETCH * (bulk - least)) & (bulk > least)
    first, last = least, float(values[~beyond].max())
    room = _OUTSIDE * (last - first)
    limits = [(np.nanmin, low, first - room, max), (np.nanmax, high, last + room, min)]
    ends = [first, last]
    for place, (outermost, limit, bound, nearer) in enumerate(limits):
        if limit is not None and limit[~beyond].notna().any():
            reached = nearer(float(outermost(limit[~beyond])), bound)
            ends[place] = min(first, reached) if place == 0 else max(last, reached)
    return Window(ends[0], ends[1], beyond.to_numpy())


def cut_marks(x: pd.Series, low: pd.Series, high: pd.Series, limits: Sequence[float]) -> go.Scatter:
    """Triangles at the lower and upper edge of a frame, where the upright intervals at `x` go on beyond it."""
    bottom, top = limits
    margin = 0.02 * (top - bottom)
    below, above = low < bottom, high > top
    return go.Scatter(
        x=[*x[below], *x[above]],
        y=[bottom + margin] * int(below.sum()) + [top - margin] * int(above.sum()),
        mode="markers",
        marker={
            "symbol": ["triangle-down"] * int(below.sum()) + ["triangle-up"] * int(above.sum()),
            "size": 7,
            "color": theme.BASELINE,
        },
        name="interval goes on<br>beyond the frame",
        hoverinfo="skip",
    )
