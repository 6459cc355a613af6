"""Principal components of differences between activations (RepE's LAT, Zou et al., arXiv 2310.01405)."""

from __future__ import annotations

from typing import Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import choice, flag, seed_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, check_site, require_model
from steerlens.steering.chats import template_of
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.extraction.activations import Layers, which_layers
from steerlens.steering.extraction.class_directions import as_vectors, scaled_to_means
from steerlens.steering.extraction.readings import contrast_readings
from steerlens.steering.extraction.token_choice import Token
from steerlens.steering.vectors import SteeringVector

Pairing = Literal["pairs", "random"]


@overload
def pca(
    model: HookedModel,
    contrast: ContrastSet,
    *,
    layer: int,
    token: Token = ...,
    site: Site = ...,
    pairing: Pairing = ...,
    center: bool = ...,
    seed: int = ...,
    batch_size: int = ...,
    live_hooks: bool = ...,
) -> SteeringVector: ...


@overload
def pca(
    model: HookedModel,
    contrast: ContrastSet,
    *,
    layers: Layers,
    token: Token = ...,
    site: Site = ...,
    pairing: Pairing = ...,
    center: bool = ...,
    seed: int = ...,
    batch_size: int = ...,
    live_hooks: bool = ...,
) -> dict[int, SteeringVector]: ...


def pca(
    model: HookedModel,
    contrast: ContrastSet,
    *,
    layer: int | None = None,
    layers: Layers | None = None,
    token: Token = "last",
    site: Site = "resid_pre",
    pairing: Pairing = "pairs",
    center: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    live_hooks: bool = False,
) -> SteeringVector | dict[int, SteeringVector]:
    """The one-position vector along the first principal component of the differences h(positive) − h(negative).

    The method of representation engineering (Zou et al., arXiv 2310.01405: linear artificial tomography).
    There the two texts of each pair come in random order, so that the differences have mean zero; the component is then
    the direction of their largest second moment, which is what is computed here (exactly, without the random order).
    Its sign and length are those of the difference of the class means along it (see `scaled_to_means`), so coefficient
    1 is comparable to `mean_difference`; a layer where the means do not differ gives a zero vector. Placement `"all"`.

    Args:
        contrast: at least two pairs.
        layer, layers: one layer, or several from the same forward passes.
        token: which token is read; see `Token`.
        site: where in the layer activations are read, and the vector goes; see `Site`.
        pairing: `"pairs"`: the set's own. `"random"`: all texts are paired at random regardless of class, as LAT does
            without labels; the classes only determine the sign and the length.
        center: subtract the mean of the differences first (as repeng's `pca_diff` does): the component then lies along
            what varies between pairs, not along what they have in common.
        seed: of the random pairing.
        batch_size, live_hooks: as for `mean_difference`.

    Raises:
        SteerlensError: not a ContrastSet, fewer than two pairs, no pairs where they are needed, layer out of range.
    """
    require_model(model)
    chosen = which_layers(model, layer, layers)
    choice("pairing", pairing, ("pairs", "random"))
    center, live_hooks, seed = flag("center", center), flag("live_hooks", live_hooks), seed_number(seed)
    check_site(site)
    check_pairs(contrast, pairing)
    found = contrast_readings(
        model, contrast, chosen, token=token, batch_size=batch_size, live_hooks=live_hooks, site=site
    )
    directions, shares = {}, {}
    for one, (positive, negative) in found.items():
        direction, share = principal_direction(differences(positive, negative, pairing, seed), center=center)
        directions[one] = scaled_to_means(direction, positive, negative)
        shares[one] = {"explained": share}
    settings = {"token": str(token), "pairing": pairing, "center": center}
    source = {"method": "pca", "contrast": contrast.record(), **settings, "seed": seed}
    source |= template_of(model, contrast.texts)
    vectors = as_vectors(model, directions, label=f"pca ({contrast.name})", source=source, by_layer=shares, site=site)
    return vectors[chosen[0]] if layer is not None else vectors


def check_pairs(contrast: ContrastSet, pairing: Pairing) -> None:
    """Raise SteerlensError unless the set has the pairs that a principal component needs."""
    if not isinstance(contrast, ContrastSet):
        raise SteerlensError(
            f"contrast must be a ContrastSet, got {type(contrast).__name__}; use ContrastSet.of(pairs)"
        )
    if pairing not in ("pairs", "random"):
        raise SteerlensError(f"pairing={pairing!r} is unknown; use 'pairs' or 'random'")
    if pairing == "pairs" and not contrast.paired:
        raise SteerlensError("the texts of this contrast set are not in pairs; use pairing='random', or give pairs")
    if len(contrast.positive) + len(contrast.negative) < 4:
        raise SteerlensError("a principal component needs at least two pairs; give more, or use mean_difference")


def differences(
    positive: Float[Tensor, "n width"], negative: Float[Tensor, "m width"], pairing: Pairing, seed: int
) -> Float[Tensor, "pairs width"]:
    """Differences within the pairs given, or within pairs drawn at random from all rows."""
    if pairing == "pairs":
        return positive - negative
    pool = torch.cat([positive, negative])
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)).to(pool.device)
    half = len(pool) // 2
    return pool[order[:half]] - pool[order[half : 2 * half]]


def principal_direction(
    rows: Float[Tensor, "pairs width"], *, center: bool = False
) -> tuple[Float[Tensor, " width"], float]:
    """The unit direction of the largest second moment of the rows, and the share of it that it explains.

    Zero, and 0, for rows that are all zero (or, centred, all equal).
    """
    data = rows.double() if rows.device.type != "mps" else rows.cpu().double()
    if center:
        data = data - data.mean(0)
    total = float(data.square().sum())
    if total <= 1e-12 * float(rows.square().sum()):  # rounding, not variation
        return torch.zeros_like(rows[0]), 0.0
    # The component of n rows in d dimensions lies in their span: the smaller of the two Gram matrices is enough.
    few = len(data) <= data.shape[1]
    values, vectors = torch.linalg.eigh(data @ data.T if few else data.T @ data)
    direction = data.T @ vectors[:, -1] if few else vectors[:, -1]
    return (direction / direction.norm()).to(rows), float(values[-1]) / total
