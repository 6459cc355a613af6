"""What the package needs of a model, and what it is told by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from steerlens.errors import SteerlensError


@runtime_checkable
class HookedModel(Protocol):
    """A TransformerLens model: `HookedTransformer` (3.x) or `TransformerBridge` (3.x and 4.x).

    Only what both share is listed; the few things that differ live in `steerlens.models.running`.
    """

    cfg: Any
    tokenizer: Any

    @property
    def hook_dict(self) -> Mapping[str, Any]: ...

    def to_tokens(self, input: Any, prepend_bos: bool | None = ...) -> Tensor: ...

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


def is_bridge(model: HookedModel) -> bool:
    """True for a TransformerBridge, False for a HookedTransformer, decided without importing TransformerLens."""
    return any(cls.__name__ == "TransformerBridge" for cls in type(model).__mro__)


def require_model(model: object) -> HookedModel:
    """The model itself, if TransformerLens made it and it sits on one device.

    Raises:
        SteerlensError: anything else, HookedTransformers spread over several devices included (their device routing
            is faulty upstream, TransformerLens issues 837 and 968, so steered results could not be trusted).
    """
    names = {cls.__name__ for cls in type(model).__mro__}
    if not names & {"HookedTransformer", "TransformerBridge"}:
        raise SteerlensError(
            f"expected a HookedTransformer or TransformerBridge, got {type(model).__name__}; "
            "load it with steerlens.load_model(...)"
        )
    if "HookedTransformer" in names and getattr(model.cfg, "n_devices", 1) > 1:  # type: ignore[attr-defined]
        raise SteerlensError(
            f"this HookedTransformer is spread over {model.cfg.n_devices} devices, where TransformerLens "  # type: ignore[attr-defined]
            "mixes devices up; load it on one device, or load it as a bridge with a device_map"
        )
    _check_whole(model, hooked="HookedTransformer" in names)
    return model  # type: ignore[return-value]


def _check_whole(model: Any, *, hooked: bool) -> None:
    """Raises SteerlensError for a model that no longer is what its configuration says, which anyone may edit."""
    blocks = getattr(model, "blocks", None)
    if blocks is not None and len(blocks) != model.cfg.n_layers:
        raise SteerlensError(
            f"the model has {len(blocks)} layers but its cfg.n_layers says {model.cfg.n_layers}; set it back, or load "
            "the model anew"
        )
    embedding = getattr(getattr(model, "embed", None), "W_E", None) if hooked else None
    if embedding is not None and embedding.dtype != model.cfg.dtype:
        given, said = (str(one).removeprefix("torch.") for one in (embedding.dtype, model.cfg.dtype))
        raise SteerlensError(
            f"the model's weights are {given} but its cfg.dtype says {said}, so it cannot run; load it with "
            f"load_model(..., dtype={given!r}) instead of converting it"
        )


def weights_of(model: HookedModel) -> Iterator[tuple[str, Tensor]]:
    """Every parameter once, in a fixed order. A bridge may hold the wrapped model where PyTorch does not look."""
    seen: set[int] = set()
    for module in (model, getattr(model, "original_model", None)) if is_bridge(model) else (model,):
        for name, weight in sorted(module.named_parameters()) if module is not None else ():  # type: ignore[union-attr]
            if id(weight) not in seen:
                seen.add(id(weight))
                yield name, weight
