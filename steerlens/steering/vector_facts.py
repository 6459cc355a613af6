"""What a vector says of itself: in a line, and by headings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def line(vector: Any) -> str:
    """A `SteeringVector` as one line."""
    norms = ", ".join(f"{x:.3g}" for x in vector.norms.tolist()[:6])
    more = ", …" if vector.n_positions > 6 else ""
    site = "" if vector.site == "resid_pre" else f", site={vector.site!r}"
    return (
        f"SteeringVector({vector.title}, layer={vector.layer}{site}, positions={vector.n_positions}, "
        f"norms=[{norms}{more}], model={vector.model.name!r})"
    )


def facts(vector: Any) -> tuple[str, Mapping[str, object]]:
    """What a `SteeringVector` is called, and where it acts, how long it is, where it comes from."""
    norms = vector.norms.tolist()
    return vector.title, {
        "layer": vector.layer,
        "site": vector.site,
        "placement": vector.placement,
        "positions": vector.n_positions,
        "norms": ", ".join(f"{x:.3g}" for x in norms[:12]) + ", …" * (len(norms) > 12),
        "made by": vector.source.get("method", "arithmetic"),
        "model": vector.model.name,
    }
