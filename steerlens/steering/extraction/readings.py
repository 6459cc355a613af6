"""One activation per text, at many layers at once, from one forward pass per batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, is_bridge, require_site, site_hook, without_live_hooks
from steerlens.progress import progress_bar
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.extraction.token_choice import Token, TokenRow, contrast_rows
from steerlens.steering.tokens import pad_id, pad_left

Readings = dict[int, Tensor]
"""By layer: float32 activations [text width]."""

_LONG = 512  # texts: no progress bar for fewer


def contrast_readings(
    model: HookedModel,
    contrast: ContrastSet,
    layers: Sequence[int],
    *,
    token: Token = "last",
    batch_size: int = 32,
    live_hooks: bool = False,
    site: Site = "resid_pre",
) -> dict[int, tuple[Float[Tensor, "positive width"], Float[Tensor, "negative width"]]]:
    """The activations of the positive and the negative texts by layer, float32, in the order of the set."""
    positive, negative = contrast_rows(model, contrast, token)
    found = row_readings(model, [*positive, *negative], layers, batch_size=batch_size, live_hooks=live_hooks, site=site)
    n = len(positive)
    return {layer: (values[:n], values[n:]) for layer, values in found.items()}


def row_readings(
    model: HookedModel,
    rows: Sequence[TokenRow],
    layers: Sequence[int],
    *,
    batch_size: int,
    live_hooks: bool = False,
    site: Site = "resid_pre",
) -> Readings:
    """The activation of each row by layer: the mean over its span at a site of the layer."""
    found: dict[int, Tensor] = {}
    for places, batch in batch_readings(model, rows, layers, batch_size=batch_size, live_hooks=live_hooks, site=site):
        for layer, values in batch.items():
            if layer not in found:
                found[layer] = values.new_empty(len(rows), values.shape[-1])
            found[layer][places.to(values.device)] = values
    return found


def mean_reading(
    model: HookedModel,
    rows: Sequence[TokenRow],
    layers: Sequence[int],
    *,
    batch_size: int,
    live_hooks: bool = False,
    site: Site = "resid_pre",
) -> dict[int, Float[Tensor, " width"]]:
    """The mean of the rows' activations by layer; at most one batch is in memory at a time."""
    total: dict[int, Tensor] = {}
    for _, found in batch_readings(model, rows, layers, batch_size=batch_size, live_hooks=live_hooks, site=site):
        for layer, values in found.items():
            # float64, so that the mean does not depend on the order of batches
            here = values.double().sum(0) if values.device.type != "mps" else values.sum(0)
            total[layer] = total[layer] + here if layer in total else here
    return {layer: (value / len(rows)).to(torch.float32) for layer, value in total.items()}


def batch_readings(
    model: HookedModel,
    rows: Sequence[TokenRow],
    layers: Sequence[int],
    *,
    batch_size: int,
    live_hooks: bool = False,
    site: Site = "resid_pre",
) -> Iterator[tuple[Int[Tensor, " batch"], Readings]]:
    """The rows of each batch and their activations by layer, batch by batch.

    Rows of similar length share a batch, so that little is wasted on padding. Only what is needed is kept from a pass:
    one vector per row and layer. Hooks already on the model do not act unless `live_hooks`.

    Raises:
        SteerlensError: activations that are NaN or infinite, a site that the model does not have.
    """
    require_site(model, site)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise SteerlensError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    starts = range(0, len(order), batch_size)
    with progress_bar(len(order), unit="text", what="reading", progress=None if len(order) >= _LONG else False) as bar:
        for start in starts:
            places = order[start : start + batch_size]
            yield torch.tensor(places), _one_batch(model, [rows[i] for i in places], layers, site, live_hooks)
            bar.update(len(places))


@torch.no_grad()
def _one_batch(
    model: HookedModel, rows: Sequence[TokenRow], layers: Sequence[int], site: Site, live_hooks: bool
) -> Readings:
    tokens, mask = pad_left([row.ids for row in rows], pad=pad_id(model), device=model.cfg.device)
    width = tokens.shape[1]
    begin = torch.tensor([width - len(row.ids) + row.begin for row in rows])
    end = torch.tensor([width - len(row.ids) + row.end for row in rows])
    found: Readings = {}
    with ExitStack() as stack:
        if not live_hooks:
            stack.enter_context(without_live_hooks(model))
        for layer in dict.fromkeys(layers):
            # A plain PyTorch hook: it runs after everything that changes the activations, and does not change them.
            point = model.hook_dict[site_hook(layer, site)]
            stack.callback(point.register_forward_hook(_reader(found, layer, begin, end, width)).remove)
        run_up_to(model, tokens, mask, max(layers))
    for layer in layers:
        if layer not in found:
            raise SteerlensError(f"TransformerLens passed nothing through {site_hook(layer, site)} of this model")
        if not torch.isfinite(found[layer]).all():
            raise SteerlensError(f"the activations at layer {layer} are NaN or infinite; load the model in float32")
    return found


def _reader(
    found: Readings, layer: int, begin: Int[Tensor, " batch"], end: Int[Tensor, " batch"], width: int
) -> Callable[[Any, Any, Tensor], None]:
    single = bool((end - begin == 1).all())

    def read(module: Any, args: Any, resid: Tensor) -> None:
        # (heads have an axis of their own, and OPT's MLP lays all tokens in one row)
        resid = resid.reshape(len(begin), width, -1)
        here = begin.to(resid.device)
        if single:
            found[layer] = resid[torch.arange(len(here), device=resid.device), here].float()
            return
        position = torch.arange(resid.shape[1], device=resid.device)
        inside = (position >= here[:, None]) & (position < end.to(resid.device)[:, None])
        # Padding may hold anything, NaN too: it is left out, not multiplied by zero.
        kept = torch.where(inside[..., None], resid.float(), 0.0)
        found[layer] = kept.sum(1) / inside.sum(1, keepdim=True)

    return read


def run_up_to(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], attention_mask: Int[Tensor, "batch pos"], layer: int
) -> None:
    """A forward pass run only for what hooks see at the inputs of the blocks up to `layer`."""
    # Stopping at l runs blocks 0 … l−1, so the input of block l is only reached by stopping after it.
    last = layer + 1 >= model.cfg.n_layers
    options: dict[str, Any] = {} if last else {"stop_at_layer": layer + 1}
    if last and is_bridge(model):
        options["logits_to_keep"] = 1  # a bridge unembeds whatever it is asked to return
    model(tokens, attention_mask=attention_mask, return_type=None, **options)
