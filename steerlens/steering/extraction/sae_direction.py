"""Directions of sparse autoencoders: a row of a decoder that the user holds. Nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from steerlens.arguments import layer_number, path_to, shown, text, whole_number
from steerlens.errors import SteerlensError
from steerlens.models import SITES, HookedModel, Site, check_site, require_model, require_site, site_width, stamp
from steerlens.steering.vectors import SteeringVector

# What decoders are called: SAELens, Gemma Scope and dictionary_learning; the last has a torch Linear's weight.
_NAMES = ("W_dec", "decoder.weight", "decoder", "W_dec.weight")
_HOOK = re.compile(r"blocks\.(\d+)\.(.+)")
_SITE_OF: dict[str, Site] = {name: site for site, name in SITES.items()}  # type: ignore[misc]


def sae_direction(
    model: HookedModel,
    sae: object,
    feature: int,
    *,
    layer: int | None = None,
    site: Site | None = None,
    label: str | None = None,
) -> SteeringVector:
    """The decoder row of a feature of a sparse autoencoder as a one-position vector, placed at `"all"`.

    The row is taken as it is: coefficient c adds what activation c of the feature adds to the reconstruction.

    Args:
        sae: a safetensors file, a mapping of tensors, or an object with them as attributes (SAELens' `SAE`, any
            `torch.nn.Module`). The decoder is found by its name: `W_dec` [feature width], or `decoder.weight` of either
            layout.
        feature: its number.
        layer, site: where the autoencoder reads; by default as its own metadata say (`cfg.hook_name` or
            `cfg.metadata.hook_name`, or `hook_name` in a file's header), else they must be given (site: `resid_pre`).
        label: by default the number of the feature.

    Raises:
        SteerlensError: no decoder, another width than the model's, a feature out of range, no layer said anywhere.
    """
    require_model(model)
    tensors, hook = _file(sae) if isinstance(sae, str | PathLike) else (_tensors(sae), _hook_of(sae))
    decoder = next((tensors[name] for name in _NAMES if name in tensors), None)
    if decoder is None or decoder.ndim != 2 or not decoder.is_floating_point():
        there = ", ".join(list(tensors)[:6]) or "no tensors"
        raise SteerlensError(f"no decoder in {shown(sae)}: needs a matrix W_dec or decoder.weight, found {there}")
    said = _HOOK.search(hook or "")
    if layer is None:
        if said is None:
            raise SteerlensError("the autoencoder does not say which layer it reads; give layer= (and site=)")
        layer = int(said[1])
    if site is None:
        site = "resid_pre"
        if said is not None:
            if said[2] not in _SITE_OF:
                raise SteerlensError(f"the autoencoder reads {hook!r}, which is no site of steerlens; give site=")
            site = _SITE_OF[said[2]]
    check_site(site)
    require_site(model, site)
    layer = layer_number(layer, int(model.cfg.n_layers))
    width = site_width(model, site)
    if decoder.shape[1] != width and decoder.shape[0] == width:
        decoder = decoder.T  # a torch Linear from features to activations
    if decoder.shape[1] != width:
        raise SteerlensError(
            f"the decoder is {list(decoder.shape)}, but activations at {site!r} of this model are {width} wide; "
            "give an autoencoder of this model"
        )
    feature = whole_number("feature", feature, least=0, most=decoder.shape[0] - 1)
    values = decoder[feature].detach().float()[None]
    heads = int(model.cfg.n_heads) if site == "z" else 1
    source = {"method": "sae_direction", "feature": feature, "features": int(decoder.shape[0]), "hook": hook}
    if isinstance(sae, str | PathLike):
        source["file"] = Path(sae).name
    named = f"SAE feature {feature}" if label is None else text("label", label)
    return SteeringVector(values, layer, stamp(model), named, "all", source=source, site=site, heads=heads)


def _file(path: object) -> tuple[dict[str, Tensor], str | None]:
    """The tensors that may be decoders, and the hook that the header names."""
    from safetensors import SafetensorError, safe_open

    place = path_to(path, "sae")
    if not place.is_file():
        raise SteerlensError(f"no file at {shown(place)}; give a safetensors file of an autoencoder")
    try:
        with safe_open(str(place), framework="pt") as file:
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names if name in _NAMES}
            return tensors or dict.fromkeys(names), (file.metadata() or {}).get("hook_name")  # type: ignore[return-value]
    except (SafetensorError, OSError, UnicodeError, ValueError) as error:
        raise SteerlensError(f"{shown(place)} is no safetensors file ({type(error).__name__})") from None


def _tensors(sae: object) -> dict[str, Tensor]:
    """The decoders of a mapping or an object, by name."""
    if isinstance(sae, Mapping):
        return {str(name): value for name, value in sae.items() if isinstance(value, Tensor)}
    found: dict[str, Tensor] = {}
    for name in _NAMES:
        value: Any = sae
        for part in name.split("."):
            value = getattr(value, part, None)
        if isinstance(value, Tensor):
            found[name] = value
    return found


def _hook_of(sae: object) -> str | None:
    """The hook point that an object says it reads."""
    cfg = sae.get("cfg") if isinstance(sae, Mapping) else getattr(sae, "cfg", None)
    for place in (cfg, _get(cfg, "metadata")):
        if isinstance(name := _get(place, "hook_name"), str):
            return name
    return None


def _get(place: object, name: str) -> object:
    return place.get(name) if isinstance(place, Mapping) else getattr(place, name, None)
