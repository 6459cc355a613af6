"""`readable`: a frame as a page shows it, with headings and values in words in place of the names of columns."""

from __future__ import annotations

import pandas as pd

HEADINGS = {
    "coeff": "coefficient",
    "coeffs": "coefficients",
    "condition": "condition",
    "mean": "estimate",
    "low": "from (95 %)",
    "high": "to (95 %)",
    "n": "n",
    "k": "K",
    "p_at_k": "P@K",
    "difference": "change from unsteered",
    "difference_low": "change, from (95 %)",
    "difference_high": "change, to (95 %)",
    "p_value": "p",
    "ratio": "perplexity, steered over unsteered",
    "ratio_tokens": "the same, weighted by tokens",
    "mask": "injected positions left out",
    "enough": "enough documents",
    "share_low": "share of words, from",
    "share_high": "share of words, to",
    "effect_low": "effect, from (95 %)",
    "effect_high": "effect, to (95 %)",
    "damage": "disfluency",
    "damage_low": "disfluency, from (95 %)",
    "damage_high": "disfluency, to (95 %)",
    "allowed": "within the limit",
    "depth": "depth (share of the layers)",
    "base": "unsteered passes",
    "steered": "steered",
    "base_median": "unsteered, median pass",
    "steered_median": "steered, median pass",
    "post_layers": "post's layer",
    "prompt_number": "prompt",
}
"""Columns of the experiments' frames, and what a page calls them."""

_VALUES = {
    "actadd": "ActAdd",
    "actadd, space-padded": "ActAdd on spaces",
    "prompt": "phrase in front",
    "random": "random vector",
}
_OF_PROGRAMS = ("x", "x_low", "x_high")
"""Logarithms of columns that stand beside them."""


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with its columns and roles named in words; columns that only programs read are left out."""
    shown = frame.drop(columns=[one for one in _OF_PROGRAMS if one in frame])
    for column in ("role", "method"):
        if column in shown:
            shown[column] = shown[column].replace(_VALUES)
    return shown.rename(columns={one: HEADINGS.get(str(one), str(one).replace("_", " ")) for one in shown})
