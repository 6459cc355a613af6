"""`Scores`: the frame of `score`, which draws itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from steerlens.arguments import text as read_text
from steerlens.arguments import whole_number

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Scores(pd.DataFrame):
    """Log-probabilities of the tokens of texts: a frame in everything but `.plot()`. What is made of it is plain."""

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def plot(self, *, text: str | None = None, width: int = 84) -> go.Figure:
        """The text set in lines, its tokens coloured by log-probability: unsteered, steered, and the change.

        Args:
            text: which one, where several were scored.
            width: characters in a line.

        Raises:
            SteerlensError: several texts and none named, more than three steered conditions.
        """
        from steerlens.figures.texts import text_log_probs

        chosen = None if text is None else read_text("text", text)
        return text_log_probs(pd.DataFrame(self), text=chosen, width=whole_number("width", width, least=8, most=1000))
