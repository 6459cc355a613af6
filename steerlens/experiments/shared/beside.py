"""`beside`: numbers of a run next to those that the literature reports, and where these stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

PAPER = "Turner et al., arXiv 2308.10248"
POST = "Turner et al., “Steering GPT-2-XL by adding an activation vector” (LessWrong, 2023)"


@dataclass(frozen=True)
class Reported:
    """What the literature says of one quantity.

    Attributes:
        what: the quantity.
        value: as it is printed there; in words where no number is.
        on: the model and data that it is of.
        where: figure or table, and version.
    """

    what: str
    value: str
    on: str
    where: str


def beside(rows: Iterable[tuple[Reported, str]]) -> pd.DataFrame:
    """One row per reported quantity with ours: what, here, reported, on, where."""
    return pd.DataFrame(
        [
            {"what": one.what, "here": here, "reported": one.value, "reported for": one.on, "where": one.where}
            for one, here in rows
        ],
        columns=["what", "here", "reported", "reported for", "where"],
    )
