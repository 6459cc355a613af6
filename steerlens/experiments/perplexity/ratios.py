"""`ratios_frame`: perplexity ratios with their intervals, from the sums of all documents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from steerlens.experiments.perplexity.document_scoring import RELATED, UNRELATED, DocumentScorer
from steerlens.experiments.perplexity.moments import Moments
from steerlens.figures import theme


def ratios_frame(groups: Mapping[str, Moments], scorer: DocumentScorer, *, min_documents: int) -> pd.DataFrame:
    """One row per group of documents, series and mask; the columns of `Perplexity.frame`."""
    # ActAdd and random vectors come first in the sums, what stands on spaces last.
    series = [*(one for one in scorer.series if not one.on_spaces), *(one for one in scorer.series if one.on_spaces)]
    rows = []
    for name, documents in _groups(groups, scorer.bin_width, scorer.related).items():
        for place, one in enumerate(series):
            for reading, masked in enumerate((True, False)):
                numbers = _numbers(groups[name], (reading, place), min_documents)
                rows.append(
                    {
                        **documents,
                        "method": one.method,
                        "layer": one.layer,
                        "coeff": one.coeff,
                        "mask": masked,
                        **numbers,
                    }
                )
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _groups(groups: Mapping[str, Moments], bin_width: float, related: float) -> dict[str, dict[str, Any]]:
    """The groups that have documents, bins first: what each is called and which shares of words it spans."""
    found = {}
    for number in sorted(int(name) for name in groups if name not in (UNRELATED, RELATED)):
        low, high = number * bin_width, min((number + 1) * bin_width, 1.0)
        label = f"{theme.number(100 * low, 3)}–{theme.number(100 * high, 3)} %"
        found[str(number)] = {"group": label, "kind": "bin", "share_low": low, "share_high": high}
    for name, low, high in ((UNRELATED, 0.0, 0.0), (RELATED, related, 1.0)):
        if name in groups:
            found[name] = {"group": name, "kind": "group", "share_low": low, "share_high": high}
    return found


def _numbers(moments: Moments, at: tuple[int, int], min_documents: int) -> dict[str, Any]:
    x = moments.interval(at)
    tokens = float(moments.weight[at])
    return {
        "n": x.n,
        "enough": x.n >= min_documents,
        "tokens": int(tokens),
        "x": x.mean,
        "x_low": x.low,
        "x_high": x.high,
        "ratio": math.exp(-x.mean),
        "low": math.exp(-x.high),
        "high": math.exp(-x.low),
        "ratio_tokens": math.exp(-float(moments.total[at]) / tokens) if tokens else math.nan,
    }
