"""Vectors that other tools have made: CAA's files, and those of the package steering-vectors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from steerlens.arguments import layer_number, shown
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, require_model
from steerlens.steering.exchange.torch_files import read_torch
from steerlens.steering.placement import Placement
from steerlens.steering.vectors import SteeringVector

# vec_layer_13_Llama-2-7b-chat-hf.pt
_CAA_NAME = re.compile(r"layer_(\d+)")
# What steering-vectors calls the places whose output it adds to.
_LAYER_TYPES: dict[str, Site] = {"decoder_block": "resid_post", "self_attn": "attn_out", "mlp": "mlp_out"}


def load_caa(
    model: HookedModel, path: str | Path, *, layer: int | None = None, placement: Placement = "from_last"
) -> SteeringVector:
    """The vector of a file of Contrastive Activation Addition (arXiv 2312.06681), declared to belong to `model`.

    The file holds a tensor [d_model], which CAA adds at the output of a block (site `"resid_post"`) from the end of the
    instruction on: placement `"from_last"` by default. Its `source` says that it is foreign.

    Args:
        layer: the block; by default the number in the file's name (`vec_layer_13_….pt`).

    Raises:
        SteerlensError: no file, one with objects in it (none of which is made), something other than one tensor, a
            wrong width, a layer that the model does not have, or that neither the name nor `layer` says.
    """
    require_model(model)
    content = read_torch(path)
    if not isinstance(content, Tensor):
        raise SteerlensError(f"{path} holds {shown(content)} and no tensor, so it is no vector of CAA")
    if layer is None:
        named = _CAA_NAME.search(Path(path).name)
        if named is None:
            raise SteerlensError(f"{Path(path).name!r} does not say its layer, as vec_layer_13_….pt would; give layer=")
        layer = int(named[1])
    return _foreign(model, content, layer, "resid_post", placement, path=path, tool="CAA")


def load_steering_vectors(model: HookedModel, vectors: Any) -> dict[int, SteeringVector]:
    """The vectors of the package steering-vectors by layer, declared to belong to `model`. Placement `"all"`.

    That package adds to the output of blocks (site `"resid_post"`), of attention (`"attn_out"`) or of MLPs
    (`"mlp_out"`), by its `layer_type`, at every token: at BOS too, which `"all"` leaves out.

    Args:
        vectors: its `SteeringVector`, or the path of a PyTorch file with the mapping of its `layer_activations`, or
            with its fields (`torch.save(dataclasses.asdict(vector), path)`). A pickled object is refused unread: save
            one of these instead.

    Raises:
        SteerlensError: none of these, a layer type without a site here, a wrong width or layer.
    """
    require_model(model)
    kind: Any = "decoder_block"
    name: object = "a SteeringVector"
    if isinstance(vectors, str | Path):
        name, vectors = vectors, read_torch(vectors)
        if isinstance(vectors, Mapping) and "layer_activations" in vectors:
            vectors, kind = vectors["layer_activations"], vectors.get("layer_type", kind)
    elif not isinstance(vectors, Mapping):
        vectors, kind = getattr(vectors, "layer_activations", vectors), getattr(vectors, "layer_type", kind)
    if not isinstance(vectors, Mapping) or not vectors:
        raise SteerlensError(f"{name} holds {shown(vectors)}; steering-vectors has a mapping from layers to tensors")
    if not isinstance(kind, str) or kind not in _LAYER_TYPES:
        raise SteerlensError(f"layer_type {shown(kind)} has no site here; use one of {', '.join(_LAYER_TYPES)}")
    found = {
        layer_number(layer, int(model.cfg.n_layers)): _foreign(
            model, values, layer, _LAYER_TYPES[kind], "all", path=name, tool="steering-vectors"
        )
        for layer, values in vectors.items()
    }
    return dict(sorted(found.items()))


def _foreign(
    model: HookedModel, values: Any, layer: int, site: Site, placement: Placement, *, path: object, tool: str
) -> SteeringVector:
    """One row of another tool's as a vector."""
    if not isinstance(values, Tensor) or values.numel() != model.cfg.d_model:
        wanted = f"a vector of {tool} is a tensor [{model.cfg.d_model}]"
        raise SteerlensError(f"{path} holds {shown(values)} for layer {shown(layer)}; {wanted}")
    named = Path(path).name if isinstance(path, str | Path) else ""
    label = f"{Path(named).stem or tool} (foreign)"
    made = SteeringVector.of(model, values.reshape(-1), layer=layer, site=site, placement=placement, label=label)
    source = {"method": "foreign", "format": tool, **({"file": named} if named else {})}
    return replace(made, source=source)
