"""Figures: each a function from a documented frame to a plotly figure, which it never shows."""

from steerlens.analysis.figures.completions import SideBySide, completions_side_by_side
from steerlens.analysis.figures.cosines import cosine_heatmap
from steerlens.analysis.figures.norms import norm_growth
from steerlens.analysis.figures.shifts import layer_lens, logit_shift_bars, token_position_heatmap
from steerlens.analysis.figures.sweeps import layer_coefficient_heatmap, layer_sweep
from steerlens.analysis.figures.texts import text_log_probs
from steerlens.analysis.figures.tradeoff import effect_against_damage

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
    "text_log_probs",
    "token_position_heatmap",
]
