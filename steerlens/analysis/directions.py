"""`directions`: several methods' vectors of one contrast set at many layers, and how well each tells classes apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from steerlens.arguments import seed_number, shown, texts
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, check_site, require_model
from steerlens.showing import Shown
from steerlens.steering import ContrastSet, SteeringVector
from steerlens.steering.chats import template_of
from steerlens.steering.extraction.activations import Layers, which_layers
from steerlens.steering.extraction.class_directions import as_vectors, scaled_to_means
from steerlens.steering.extraction.linear_probes import auc, probe_direction
from steerlens.steering.extraction.pca import check_pairs, principal_direction
from steerlens.steering.extraction.probe import train_and_test
from steerlens.steering.extraction.readings import contrast_readings
from steerlens.steering.extraction.token_choice import Token

if TYPE_CHECKING:
    import plotly.graph_objects as go

_METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean_difference": lambda positive, negative: positive.mean(0) - negative.mean(0),
    "pca": lambda positive, negative: principal_direction(positive - negative)[0],
    "probe": lambda positive, negative: probe_direction(positive, negative, kind="logistic"),
    "lda": lambda positive, negative: probe_direction(positive, negative, kind="lda"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Directions(Shown):
    """Vectors by method and layer, and what they are worth.

    Attributes:
        vectors: `vectors[method][layer]`; all have the length of the mean difference along them.
        frame: one row per method × layer. Columns: method, layer, auc (area under the ROC curve of v̂·h on held-out
            texts; 0.5 is chance), norm, cosine (with the mean difference of that layer; NaN where one is zero).
        cosines: one row per two methods × layer. Columns: method_a, method_b, layer, cosine.
        settings: everything needed to repeat it, as plain data.
    """

    vectors: dict[str, dict[int, SteeringVector]]
    frame: pd.DataFrame
    cosines: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)

    def best(self, method: str | None = None) -> SteeringVector:
        """The vector of the largest held-out AUC, of one method or of all (of equals, the earliest layer).

        A direction that tells classes apart need not be one that steers: look at its effect too.
        """
        rows = self.frame if method is None else self.frame[self.frame["method"] == method]
        if rows.empty:
            raise SteerlensError(f"there is no method {method!r} here; there are {', '.join(self.vectors)}")
        row = rows.loc[rows["auc"].idxmax()]
        return self.vectors[str(row["method"])][int(row["layer"])]

    def _told(self) -> tuple[str, Mapping[str, object]]:
        best = self.frame.loc[self.frame["auc"].idxmax()] if self.frame["auc"].notna().any() else None
        facts: dict[str, object] = {
            "methods": ", ".join(self.vectors),
            "layers": self.frame["layer"].nunique(),
            "held-out texts": sum(self.settings.get("held_out", {}).get("texts", [])),
        }
        if best is not None:
            facts["largest held-out AUC"] = f"{best['auc']:.3g} ({best['method']}, layer {best['layer']})"
        return f"directions of {self.settings.get('contrast', 'a contrast set')}", facts

    def plot(self) -> go.Figure:
        """Held-out AUC by layer, and the cosine of each method with the mean difference, one line per method."""
        from steerlens.figures.directions import directions_by_layer

        return directions_by_layer(self.frame, title=f"Directions of {self.settings.get('contrast', 'a contrast set')}")


def directions(
    model: HookedModel,
    contrast: ContrastSet,
    *,
    methods: Sequence[str] = ("mean_difference", "pca", "probe"),
    layers: Layers = "all",
    token: Token = "last",
    site: Site = "resid_pre",
    held_out: float | ContrastSet = 0.25,
    seed: int = 0,
    batch_size: int = 32,
) -> Directions:
    """The vectors of several methods at many layers, from one forward pass of every text, tested on held-out texts.

    Args:
        contrast: pairs, or labelled texts (not for `"pca"`).
        methods: of `"mean_difference"`, `"pca"`, `"probe"` (logistic regression) and `"lda"`.
        layers, token, site, batch_size: as of `mean_difference`.
        held_out: the share to test on, split off by `ContrastSet.split`, or a set of its own; the vectors are made of
            the rest.
        seed: of the split.

    Raises:
        SteerlensError: an unknown method, no pairs where they are needed, layer out of range.
    """
    require_model(model)
    chosen = which_layers(model, None, layers)
    names = list(dict.fromkeys(texts("methods", methods)))
    unknown = [name for name in names if name not in _METHODS]
    if unknown:
        raise SteerlensError(f"method {shown(unknown[0])} is unknown; use some of {', '.join(_METHODS)}")
    check_site(site)
    seed = seed_number(seed)
    train, test = train_and_test(contrast, held_out, seed)
    if "pca" in names:
        check_pairs(train, "pairs")
    learned = contrast_readings(model, train, chosen, token=token, batch_size=batch_size, site=site)
    tested = contrast_readings(model, test, chosen, token=token, batch_size=batch_size, site=site)
    vectors, rows = {}, []
    for name in names:
        found = {one: scaled_to_means(_METHODS[name](*learned[one]), *learned[one]) for one in chosen}
        aucs = {one: {"auc": auc(found[one], *tested[one])} for one in chosen}
        source = {"method": name, "token": str(token), "contrast": train.record(), "held_out": test.record()}
        source |= template_of(model, train.texts)
        vectors[name] = as_vectors(
            model, found, label=f"{name} ({train.name})", source=source, by_layer=aucs, site=site
        )
        for one in chosen:
            mean = learned[one][0].mean(0) - learned[one][1].mean(0)
            cosine = _cosine(found[one], mean)
            rows.append((name, one, aucs[one]["auc"], float(found[one].norm()), cosine))
    pairs = [
        (a, b, one, _cosine(vectors[a][one].values[0], vectors[b][one].values[0]))
        for number, a in enumerate(names)
        for b in names[number + 1 :]
        for one in chosen
    ]
    return Directions(
        vectors,
        pd.DataFrame(rows, columns=["method", "layer", "auc", "norm", "cosine"]),
        pd.DataFrame(pairs, columns=["method_a", "method_b", "layer", "cosine"]),
        {"contrast": train.name, "train": train.record(), "held_out": test.record(), "token": str(token), "seed": seed},
    )


def _cosine(a: Tensor, b: Tensor) -> float:
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 0 else float("nan")
