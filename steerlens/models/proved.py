"""`proved`: an original as the first kind of TransformerLens model that computes the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

from steerlens.errors import SteerlensError, first_line
from steerlens.models.bridging import bridged, own_tokenizer
from steerlens.models.context import check_context, set_context
from steerlens.models.ends import keep_end_ids
from steerlens.models.in_pieces import in_pieces
from steerlens.models.no_processes import MissingPackage
from steerlens.models.originals import Original, Way
from steerlens.models.proof import Reference, compare, keep_proof, reference


def proved(
    original: Original,
    *,
    bridge: bool | None,
    processing: bool | None,
    n_ctx: int | None,
    prove: bool,
    dtype: Callable[[Any], torch.dtype],
) -> tuple[Any, list[str]]:
    """The model and what to tell the user. It is on the CPU and in float32, or its weights are in `dtype` already,
    unless the original must stay as it is.

    Args:
        bridge, processing, n_ctx, prove: see `load_model`.
        dtype: gives what the weights of a model are to end in.

    Raises:
        SteerlensError: none of what was asked for computes what the original computes.
    """
    tokenizer = own_tokenizer(original.tokenizer, original.name)
    expected: Reference | None = None
    failures: list[tuple[Way, str]] = []
    for way in _ways(original, bridge, processing):
        if original.in_pieces:
            model = in_pieces(original, way, tokenizer, n_ctx=n_ctx, prove=prove, dtype=dtype)
            if model is not None:
                return model, _notes(failures, way, original.kind)
        hf_model = _ready(original)  # another one each time: conversions rewrite what they are given
        kind, config = type(hf_model).__name__, hf_model.config
        check_context(config, n_ctx)
        if prove and expected is None:
            expected = reference(hf_model, tokenizer)
        model = None
        try:
            model = _made(way, hf_model, tokenizer, original.name)
            set_context(model, config, n_ctx)
            proof = None if expected is None else compare(model, expected, processed=way[1])
            why = "" if proof is None else proof.where
        except MissingPackage:
            raise
        except SteerlensError as error:
            why = str(error)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # as many kinds as conversions have flaws; the next way may have none
            why = f"it stops with {type(error).__name__}: {first_line(error)}"
        if model is not None and not why:
            if proof is not None:
                keep_proof(model, proof)
            return model, _notes(failures, way, kind)
        failures.append((way, why))
        del model, hf_model
    raise _refused(failures, kind)


def _ways(original: Original, bridge: bool | None, processing: bool | None) -> list[Way]:
    """What to try, in this order."""
    if original.as_it_is:
        for name, given in (("bridge=False", bridge is False), ("processing=True", processing is True)):
            if given:
                raise SteerlensError(
                    f"{name} does not go with {original.name!r}: {original.as_it_is}, "
                    "so it can only be a bridge with unprocessed weights; leave it out"
                )
        return [(True, False)]
    first = processing is None or processing
    ways = [] if not has_hooked_transformer(bridge) or bridge else [(False, first)]
    if bridge is not False:
        ways += [(True, one) for one in ([True, False] if processing is None else [processing])]
    return ways


def has_hooked_transformer(bridge: bool | None) -> bool:
    """Whether TransformerLens has HookedTransformer; raises SteerlensError if not and `bridge=False` asks for it."""
    try:
        from transformer_lens import HookedTransformer  # noqa: F401
    except ImportError:
        if bridge is False:
            raise SteerlensError(
                f"TransformerLens {version('transformer-lens')} has no HookedTransformer; "
                "install transformer-lens<4, or load a bridge"
            ) from None
        return False
    return True


def _ready(original: Original) -> Any:
    """The original as a conversion takes it."""
    hf_model = original.take(torch.float32)
    if not original.as_it_is:
        # Folding in half precision would round twice; convert in float32, cast at the end.
        hf_model = hf_model.to("cpu", torch.float32)
    return hf_model.eval().requires_grad_(False)


def _made(way: Way, hf_model: Any, tokenizer: Any, name: str) -> Any:
    use_bridge, processing = way
    if use_bridge:
        weights = [weight for weight in hf_model.parameters() if weight.is_floating_point()]  # packed ones are not
        options = {"device": str(weights[0].device), "dtype": weights[0].dtype}
        return bridged(hf_model, tokenizer, name=name, processing=processing, **options)
    from steerlens.models.conversion import hooked_transformer

    model = hooked_transformer(hf_model, tokenizer, name=name, processing=processing)
    keep_end_ids(model, hf_model)
    return model


def _notes(failures: list[tuple[Way, str]], taken: Way, kind: str) -> list[str]:
    """One line for the user, if it is not the way that was wanted first."""
    if not failures:
        return []
    return [f"this {kind} is loaded as {_named(taken)}, because {_told(failures)}"]


def _refused(failures: list[tuple[Way, str]], kind: str) -> SteerlensError:
    (use_bridge, processing), _ = failures[-1]
    hint = "; load it with bridge=True" if not use_bridge else "; try processing=False" if processing else ""
    lens = f"TransformerLens {version('transformer-lens')}"
    return SteerlensError(f"{lens} does not compute what this {kind} computes: {_told(failures)}{hint}")


def _told(failures: list[tuple[Way, str]]) -> str:
    return "; ".join(f"as {_named(way)}, {why}" for way, why in failures)


def _named(way: Way) -> str:
    use_bridge, processing = way
    name = "a TransformerBridge" if use_bridge else "a HookedTransformer"
    return f"{name} with {'processed' if processing else 'unprocessed'} weights"


def tell(notes: list[str]) -> None:
    """Nothing is returned: each note is a warning at the line that called `load_model`."""
    for note in notes:
        warnings.warn(note, stacklevel=3)
