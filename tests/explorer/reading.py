"""What is drawn in the explorer's figures."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go


def bars(figure: go.Figure) -> list[float]:
    return [float(x) for trace in figure.data for x in np.asarray(trace.x)]


def chosen(figure: go.Figure) -> list[float]:
    return [shape.x0 for shape in figure.layout.shapes if shape.name == "chosen layer"]
