"""Linear probes as directions: logistic regression, linear discriminant, difference of the class means."""

from __future__ import annotations

from typing import overload

from steerlens.arguments import choice, flag, seed_number, whole_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, check_site, heads_at, require_model
from steerlens.steering.chats import template_of
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.extraction.activations import Layers, which_layers
from steerlens.steering.extraction.class_directions import as_vectors, scaled_to_means
from steerlens.steering.extraction.head_probes import head_vectors, probe_heads
from steerlens.steering.extraction.linear_probes import KINDS, ProbeKind, auc, probe_direction
from steerlens.steering.extraction.readings import contrast_readings
from steerlens.steering.extraction.token_choice import Token
from steerlens.steering.vectors import SteeringVector


@overload
def probe(
    model: HookedModel,
    contrast: ContrastSet,
    *,
    layer: int,
    kind: ProbeKind = ...,
    token: Token = ...,
    site: Site = ...,
    top_heads: int | None = ...,
    held_out: float | ContrastSet = ...,
    seed: int = ...,
    batch_size: int = ...,
    live_hooks: bool = ...,
) -> SteeringVector: ...


@overload
def probe(
    model: HookedModel,
    contrast: ContrastSet,
    *,
    layers: Layers,
    kind: ProbeKind = ...,
    token: Token = ...,
    site: Site = ...,
    top_heads: int | None = ...,
    held_out: float | ContrastSet = ...,
    seed: int = ...,
    batch_size: int = ...,
    live_hooks: bool = ...,
) -> dict[int, SteeringVector]: ...


def probe(
    model: HookedModel,
    contrast: ContrastSet,
    *,
    layer: int | None = None,
    layers: Layers | None = None,
    kind: ProbeKind = "logistic",
    token: Token = "last",
    site: Site = "resid_pre",
    top_heads: int | None = None,
    held_out: float | ContrastSet = 0.25,
    seed: int = 0,
    batch_size: int = 32,
    live_hooks: bool = False,
) -> SteeringVector | dict[int, SteeringVector]:
    """The one-position vector along the normal of a linear probe that separates positive from negative texts.

    Probes are scikit-learn's: logistic regression with an L2 penalty (C = 1) on activations divided by one number, the
    root mean square of their deviations (the direction does not depend on the residual stream's unit); linear
    discriminant analysis with Ledoit-Wolf shrinkage, w = Σ⁻¹(μ₊ − μ₋); or the class means themselves, w = μ₊ − μ₋ (the
    mass-mean probe of Marks and Tegmark, arXiv 2310.06824). The vector has the length and sign of the difference of the
    class means along w (see `scaled_to_means`), so coefficient 1 is comparable to `mean_difference`; it is zero at a
    layer where the classes have the same activations. Placement `"all"`.

    `vector.source["auc"]` is the area under the ROC curve of w·h on texts used neither for the probe nor for the
    length; 0.5 is chance. At site `"z"` a probe is fitted to each head as well, and `source["by_head"]` has the
    held-out accuracy (0.5 is chance) and AUC of each.

    `top_heads=k` keeps the k heads, over all layers asked for, whose probes have the largest held-out accuracy
    (inference-time intervention, Li et al., arXiv 2306.03341). The part of each is σθ: θ the unit normal, σ the
    standard deviation of the activations along it; so the coefficient is the paper's α. With `layers=` only layers that
    have such heads get a vector; `Condition.of(vectors.values())` applies them together. (The paper does best with θ
    along the difference of the means: `kind="means"`.)

    Args:
        contrast: pairs, or labelled texts (`ContrastSet.labelled`).
        layer, layers: one layer, or several from the same forward passes.
        kind: `"logistic"`, `"lda"` or `"means"`.
        token: which token is read; see `Token`.
        site: where in the layer activations are read, and the vector goes; see `Site`.
        top_heads: how many heads to keep, at site `"z"`; see above.
        held_out: the share to test on, split off by `ContrastSet.split`, or a separate set.
        seed: of the split.
        batch_size, live_hooks: as for `mean_difference`.

    Raises:
        SteerlensError: not a ContrastSet, fewer than two texts of a class to learn from, layer out of range.
    """
    require_model(model)
    chosen = which_layers(model, layer, layers)
    choice("kind", kind, tuple(KINDS))
    live_hooks, seed = flag("live_hooks", live_hooks), seed_number(seed)
    train, test = train_and_test(contrast, held_out, seed)
    check_site(site)
    if top_heads is not None:
        if site != "z":
            raise SteerlensError(f"top_heads= chooses among heads, which are at site='z', got site={site!r}")
        top_heads = whole_number("top_heads", top_heads, least=1, most=len(chosen) * int(model.cfg.n_heads))
    options = {"batch_size": batch_size, "live_hooks": live_hooks, "site": site}
    learned = contrast_readings(model, train, chosen, token=token, **options)  # type: ignore[arg-type]
    tested = contrast_readings(model, test, chosen, token=token, **options)  # type: ignore[arg-type]
    source = {
        "method": "probe",
        "kind": kind,
        "token": str(token),
        "contrast": train.record(),
        "held_out": test.record(),
        **template_of(model, train.texts),
    }
    heads = probe_heads(learned, tested, heads_at(model, site), kind=kind) if site == "z" else {}
    by_layer = {one: {"by_head": [head.record() for head in heads[one]]} for one in heads}
    if top_heads is not None:
        label = f"top {top_heads} heads, {kind} probe ({train.name})"
        found = head_vectors(heads, top_heads)
        vectors = as_vectors(model, found, label=label, source=source, by_layer=by_layer, site=site)
        return vectors[chosen[0]] if layer is not None else vectors
    normals = {one: probe_direction(*learned[one], kind=kind) for one in chosen}
    vectors = as_vectors(
        model,
        {one: scaled_to_means(normals[one], *learned[one]) for one in chosen},
        label=f"{kind} probe ({train.name})",
        source=source,
        by_layer={one: {"auc": auc(normals[one], *tested[one]), **by_layer.get(one, {})} for one in chosen},
        site=site,
    )
    return vectors[chosen[0]] if layer is not None else vectors


def train_and_test(contrast: object, held_out: float | ContrastSet, seed: int) -> tuple[ContrastSet, ContrastSet]:
    """The texts to learn from and those to test on.

    Raises:
        SteerlensError: not a ContrastSet, or too few texts to learn from.
    """
    if not isinstance(contrast, ContrastSet):
        raise SteerlensError(
            f"contrast must be a ContrastSet, got {type(contrast).__name__}; use ContrastSet.of(pairs)"
        )
    train, test = (contrast, held_out) if isinstance(held_out, ContrastSet) else contrast.split(held_out, seed=seed)
    if len(train) < 2:
        raise SteerlensError(
            f"{len(train)} text of a class is too few to learn from; give at least 2 besides those held out"
        )
    return train, test
