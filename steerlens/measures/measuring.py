"""Metrics on a frame of completions: checked before anything is sampled, and losing nothing if one fails later."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from steerlens.arguments import listed, shown
from steerlens.errors import SteerlensError
from steerlens.measures.metrics import Metric

# An empty completion, words, a line end, other letters, emphasis: what a metric will meet.
_SAMPLES = ["", "I went to a wedding, and then home.", "No.\nYes!", "Łódź 東京 _so_ 🙂"]


class MetricFailed(SteerlensError):
    """A metric failed on completions that are there: `error.frame` has them, with the metrics that did not fail."""

    def __init__(self, message: str = "", frame: pd.DataFrame | None = None) -> None:
        super().__init__(message)
        self.frame = frame


def check_metrics(metrics: object) -> tuple[Metric, ...]:
    """The metrics, each tried on a few texts, before an hour of sampling.

    Raises:
        SteerlensError: something that is no metric, two of one name, one that fails on a text or gives other than a
            number for each.
    """
    if isinstance(metrics, Metric):
        chosen = [metrics]
    else:
        chosen = listed("metrics", metrics, of="metrics, such as sl.metrics.words('weddings')")
    names: set[str] = set()
    for metric in chosen:
        if not isinstance(metric, Metric):
            raise SteerlensError(f"expected a metric, such as sl.metrics.words('weddings'), got {shown(metric)}")
        if metric.name in names:
            raise SteerlensError(f"two metrics have the name {metric.name!r}; pass another name= to one of them")
        names.add(metric.name)
        try:
            metric(_SAMPLES)
        except SteerlensError:
            raise
        except Exception as error:
            raise SteerlensError(f"metric {metric.name!r} fails on {_SAMPLES[1]!r}: {_told(error)}") from error
    return tuple(chosen)


def measure_completions(frame: pd.DataFrame, metrics: tuple[Metric, ...], *, kept: str = "") -> None:
    """Adds a column for each metric to a frame of completions, NaN where there is no completion.

    Args:
        kept: where the completions are kept anyway, for the message of an error.

    Raises:
        MetricFailed: one fails; its `frame` holds what there is.
    """
    failures = []
    completions = texts_of(frame)
    for metric in metrics:
        try:
            frame[metric.column] = measured(metric, completions)
        except Exception as error:  # whatever a user's function may raise
            failures.append(f"metric {metric.name!r} failed ({_told(error)})")
    if failures:
        raise MetricFailed(
            f"{'; '.join(failures)}; the completions are kept{kept}: `except steerlens.SteerlensError as error: "
            "error.frame`, or sys.last_value.frame in a notebook",
            frame,
        )


def lost(frame: pd.DataFrame) -> Bool[np.ndarray, " completion"]:
    """Which completions are none, because steering overflowed the model: no token, and yet not ended."""
    if "n_tokens" not in frame or "finished" not in frame:
        return np.zeros(len(frame), dtype=bool)
    return ((frame["n_tokens"] == 0) & ~frame["finished"].astype(bool)).to_numpy()


def texts_of(frame: pd.DataFrame) -> pd.Series:
    """The completions of a frame, missing where they are none (see `lost`)."""
    return frame["completion"].mask(lost(frame))


def measured(metric: Metric, completions: pd.Series) -> Float[np.ndarray, " completion"]:
    """The metric of each completion; NaN where there is none."""
    there = completions.notna().to_numpy()
    values = np.full(len(completions), np.nan)
    values[there] = metric(completions[there])
    return values


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, SteerlensError) else f"{type(error).__name__}: {error}"
