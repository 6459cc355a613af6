"""Figures: each a function from a documented frame to a plotly figure, which it never shows."""

from steerlens.figures.completions import SideBySide, completions_side_by_side
from steerlens.figures.completions import completions_side_by_side as side_by_side
from steerlens.figures.cosines import cosine_heatmap
from steerlens.figures.layer_coefficient import layer_coefficient_heatmap
from steerlens.figures.lens import layer_lens
from steerlens.figures.norms import norm_growth
from steerlens.figures.shifts import logit_shift_bars, token_position_heatmap
from steerlens.figures.sweeps import layer_sweep
from steerlens.figures.texts import text_log_probs
from steerlens.figures.tradeoff import effect_against_damage

__all__ = [
    "SideBySide",
    "completions_side_by_side",
    "cosine_heatmap",
    "effect_against_damage",
    "layer_coefficient_heatmap",
    "layer_lens",
    "layer_sweep",
    "logit_shift_bars",
    "norm_growth",
    "side_by_side",
    "text_log_probs",
    "token_position_heatmap",
]
