"""Sites: the places in a block that are read and changed, by names that hold for HookedTransformer and bridge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models.protocol import HookedModel, is_bridge
from steerlens.models.running import resid_pre_hook

Site = Literal["resid_pre", "z", "attn_out", "resid_mid", "mlp_out", "resid_post"]
"""A place in a block, in the order in which a pass comes by:

- `"resid_pre"`: the residual stream at the block's input;
- `"z"`: the outputs of the attention heads before W_O, `n_heads` parts of width d_head;
- `"attn_out"`: what attention adds to the residual stream;
- `"resid_mid"`: the residual stream between attention and MLP (not where the two run side by side, as in GPT-J);
- `"mlp_out"`: what the MLP adds to the residual stream;
- `"resid_post"`: the residual stream at the block's output, which is the next block's input.
"""

SITES: dict[str, str] = {
    "resid_pre": "hook_resid_pre",
    "z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}


def site_hook(layer: int, site: Site) -> str:
    """Name of the hook point at a site of block `layer`."""
    return f"blocks.{layer}.{SITES[site]}"


def check_site(site: str) -> None:
    """Raise SteerlensError unless there is a site of that name."""
    if not isinstance(site, str) or site not in SITES:
        raise SteerlensError(f"site {site!r} is unknown; use one of {', '.join(SITES)}")


def site_width(model: HookedModel, site: Site) -> int:
    """How wide an activation is at a site: d_model, or at `"z"` all heads together."""
    return int(model.cfg.n_heads * model.cfg.d_head) if site == "z" else int(model.cfg.d_model)


def heads_at(model: HookedModel, site: Site) -> int:
    """Into how many parts an activation is divided at a site: the model's heads at `"z"`, else 1."""
    return int(model.cfg.n_heads) if site == "z" else 1


def require_site(model: HookedModel, site: Site) -> None:
    """Check that the model's blocks have such a place.

    Raises:
        SteerlensError: they do not; the message names those that they have.
    """
    if site_hook(0, site) not in model.hook_dict:
        there = ", ".join(one for one, name in SITES.items() if f"blocks.0.{name}" in model.hook_dict)
        why = " (its attention and MLP run side by side)" if site == "resid_mid" else ""
        raise SteerlensError(f"this model has no site {site!r}{why}; use one of {there}")


def changing_at(
    model: HookedModel, layer: int, site: Site, change: Callable[[Tensor], Tensor]
) -> list[tuple[str, Callable[[Tensor], Tensor | None]]]:
    """Hook points, and functions on what passes them, that together let `change` act at a site.

    `change` is given [batch pos width] and returns the same shape, or the very tensor if nothing is to change. The
    functions return None where they leave what passes as it is; they must be put on in the order given.

    A bridge's `hook_resid_mid` shows the input of the MLP's normalisation alone: what changed there would not go on
    along the residual stream. There the attention's output takes the change, which comes to the same.
    """
    name = site_hook(layer, site)
    if site == "z":

        def by_heads(z: Tensor) -> Tensor | None:
            flat = z.flatten(2)
            changed = change(flat)
            return None if changed is flat else changed.unflatten(2, z.shape[2:])

        return [(name, by_heads)]
    if site != "resid_mid" or not is_bridge(model):
        return [(name, lambda x: change(x))]
    held: list[Any] = []

    def hold(resid: Tensor) -> None:
        held[:] = [resid]

    def through_attention(attn_out: Tensor) -> Tensor | None:
        middle = held.pop() + attn_out
        changed = change(middle)
        return None if changed is middle else attn_out + (changed - middle)

    return [(resid_pre_hook(layer), hold), (site_hook(layer, "attn_out"), through_attention)]


def put_on(model: HookedModel, name: str, function: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
    """What takes `function` off the hook point `name` again, behind all hooks that are on it.

    It goes on by TransformerLens' own method, which gives hooks their shapes (inside, a bridge's point may see tokens
    in a row). It counts as permanent, so that a habitual `model.reset_hooks()` does not silently end the steering.
    """
    point = model.hook_dict[name]
    point.add_hook(lambda x, hook: function(x), is_permanent=True)
    handle = point.fwd_hooks[-1]

    def take_off() -> None:
        handle.hook.remove()
        point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]

    return take_off
