"""How the answers of pages say numbers: estimates with their intervals, and what an interval leaves open."""

from __future__ import annotations

import math
from typing import Literal

from steerlens.figures import theme

Side = Literal["above", "below", "unclear"]


def side(low: float, high: float, *, of: float = 0.0) -> Side:
    """On which side of `of` an interval lies; "unclear" where it holds it, or is not known."""
    if low > of:
        return "above"
    return "below" if high < of else "unclear"


def share(estimate: float, low: float, high: float) -> str:
    """A share with its 95 % interval: "53 % (95 %: 41 % to 65 %)"."""
    return f"{theme.percent(estimate)}{limits(theme.percent(low), theme.percent(high), math.isnan(low))}"


def points(estimate: float, low: float, high: float) -> str:
    """A difference of shares in percentage points, signed: "−6.7 points (95 %: −10.3 to −2.9)"."""
    # A limit just off 0 must not look like 0: the verdict hangs on it.
    digits = 2 if any(0 < abs(100 * one) < 0.05 for one in (low, high)) else 1
    inside = limits(signed(100 * low, digits), signed(100 * high, digits), math.isnan(low))
    return f"{signed(100 * estimate, digits)} points{inside}"


def ratio(estimate: float, low: float, high: float) -> str:
    """A ratio: "1.040 times (95 %: 1.027 to 1.052)"."""
    return f"{estimate:.3f} times{limits(f'{low:.3f}', f'{high:.3f}', math.isnan(low))}"


def change(estimate: float, low: float, high: float, *, digits: int = 3) -> str:
    """A signed difference: "+0.053 (95 %: +0.017 to +0.089)"."""
    return f"{signed(estimate, digits)}{limits(signed(low, digits), signed(high, digits), math.isnan(low))}"


def premium(estimate: float, low: float, high: float) -> str:
    """A relative difference in per cent, signed: "+2.1 % (95 %: −0.4 % to +4.6 %)"."""
    low_text, high_text = f"{signed(100 * low, 1)} %", f"{signed(100 * high, 1)} %"
    return f"{signed(100 * estimate, 1)} %{limits(low_text, high_text, math.isnan(low))}"


def limits(low: str, high: str, unknown: bool = False) -> str:
    """An interval in brackets, or nothing."""
    return "" if unknown else f" (95 %: {low} to {high})"


def signed(value: float, digits: int) -> str:
    """With its sign, a true minus; what rounds to 0 has none."""
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def listed(things: list[str], *, most: int = 8) -> str:
    """ "a, b and c", shortened where there are many."""
    if len(things) > most:
        return f"{', '.join(things[:most])} and {len(things) - most} more"
    return " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else things)
