"""`premium`: what steering adds to the time, with its interval, and the row of a model in the frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from steerlens.errors import SteerlensError
from steerlens.measures.statistics import Interval, mean_interval
from steerlens.models import HookedModel


def premium(steered: ArrayLike, base: ArrayLike, level: float = 0.95) -> Interval:
    """mean(steered) / mean(base) − 1 over paired seeds, with Student's interval for a ratio of means.

    The residuals `steered − ratio · base` have mean 0; their standard error, divided by mean(base), is the ratio's
    (Cochran 1977, section 2.11). NaN limits for one seed.
    """
    above, below = np.asarray(steered, dtype=np.float64), np.asarray(base, dtype=np.float64)
    if above.shape != below.shape or above.ndim != 1 or above.size == 0:
        raise SteerlensError(f"steered has shape {above.shape} and base {below.shape}; give one time of each per seed")
    ratio = float(above.mean() / below.mean())
    residual = mean_interval(above - ratio * below, level)
    half = (residual.high - residual.low) / 2 / float(below.mean())
    return Interval(ratio - 1, ratio - 1 - half, ratio - 1 + half, above.size, level)


def premium_row(
    model: HookedModel, facts: dict[str, Any], layer: int, forwards: int, table: pd.DataFrame
) -> dict[str, Any]:
    """A row of `Overhead.frame`, from the times of all seeds of a model."""
    whole = premium(table["steered"] + table["extraction"], table["base"])
    further = premium(table["steered"], table["base"])
    return {
        "model": facts["model"],
        "parameters": sum(weight.numel() for weight in model.parameters()),  # type: ignore[attr-defined]
        "n_layers": int(model.cfg.n_layers),
        "layer": layer,
        "device": facts["device"],
        "dtype": facts["dtype"],
        "seeds": len(table),
        "forwards": forwards,
        "base": table["base"].mean() / forwards,
        "steered": table["steered"].mean() / forwards,
        "extraction": table["extraction"].mean(),
        "premium": whole.estimate,
        "low": whole.low,
        "high": whole.high,
        "premium_forward": further.estimate,
        "forward_low": further.low,
        "forward_high": further.high,
        "premium_median": table["steered_median"].mean() / table["base_median"].mean() - 1,
    }
