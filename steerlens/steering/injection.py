"""Adding vectors to the residual stream of a running model: hooks, and the `steer` context manager."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models import SITES, HookedModel, Site, changing_at, forward_states, one_at_a_time, put_on, require_model
from steerlens.steering.batch_gates import GateKeeper
from steerlens.steering.conditions import Condition, Injection, as_condition, check_conditions
from steerlens.steering.noticing import generation_noticed
from steerlens.steering.parts import Part
from steerlens.steering.placement import Placement, is_role
from steerlens.steering.receipts import Receipt
from steerlens.steering.sessions import Session
from steerlens.steering.vectors import SteeringVector


@contextmanager
def steer(
    model: HookedModel, *vectors: SteeringVector | Injection | Condition, placement: Placement | None = None
) -> Iterator[list[Receipt]]:
    """The model, steered by `vectors` inside the `with` block; yields their receipts.

    Inside, call the model as you like: `model(tokens)`, `run_with_cache`, `generate`, with or without a key-value
    cache, in batches padded on either side (give `attention_mask`, as TransformerLens needs it anyway). What a
    placement touches is determined by the prompt; see `Placement` for what each does with later tokens. Hooks return
    new tensors, so activations cached before the layer are unchanged. However the block ends, steerlens' hooks are
    removed and your own are kept; `model.reset_hooks()` inside the block does not remove the steering.

    Threads: until the block ends the model belongs to this thread, and steerlens functions in other threads wait (so do
    not wait inside the block for a thread that calls one). Your own calls of the model from another thread cannot be
    held back: they are steered too. The model cannot be copied or pickled inside the block.

    Args:
        placement: where the vectors go; by default each vector's own (`"front"` for ActAdd). No role of a chat: tokens
            do not say where messages stand.

    Raises:
        SteerlensError: a vector from another model; a vector longer than the prompt (raised inside the forward pass);
            and, if the block ends without another error, a vector that was never added. (One whose gate opened for no
            prompt is a warning.)
    """
    require_model(model)
    injections: list[Injection] = []
    for vector in vectors:
        injections.extend(as_condition(vector, placement=placement).injections)
    condition = Condition(tuple(injections))
    check_conditions(model, [condition])
    for injection in injections:
        if is_role(injection.placement):  # type: ignore[arg-type]
            raise SteerlensError(
                f"placement={injection.placement!r} needs a chat, and steer sees only its tokens; "
                "use generate, score or next_token_logits with the chat, or an index"
            )
    parts = [Part(injection) for injection in injections]
    with ExitStack() as stack:
        stack.enter_context(one_at_a_time(model))
        session = stack.enter_context(injecting(model, parts, gated=True))
        stack.enter_context(generation_noticed(model, session))
        yield session.receipts
    session.check_applied()


@contextmanager
def injecting(
    model: HookedModel, parts: Sequence[Part], *, prompt_width: int | None = None, gated: bool = False
) -> Iterator[Session]:
    """The model with the hooks of `parts` in place; for the engine (does not check that anything was applied).

    Args:
        prompt_width: width of the prompts where a pass without a cache holds more than those (see Session).
        gated: whether the gates of parts are to be asked about the prompts that pass; else all parts act.
    """
    gates = [part.gate for part in parts if part.gate is not None] if gated else []
    no_copies = _NoCopies()
    by_place: dict[tuple[int, Site], list[Part]] = {}
    for part in parts:
        by_place.setdefault((part.injection.vector.layer, part.injection.vector.site), []).append(part)
    with ExitStack() as stack:
        state_at = stack.enter_context(forward_states(model, sorted({layer for layer, _ in by_place})))
        session = Session(model, parts, prompt_width, GateKeeper(model, gates, state_at.apart) if gates else None)
        for layer, site in sorted(by_place, key=lambda place: (place[0], list(SITES).index(place[1]))):

            def act(x: Tensor, layer: int = layer, here: Sequence[Part] = by_place[layer, site]) -> Tensor:
                return session.add(x, here, state_at(layer))

            for name, function in changing_at(model, layer, site, act):
                stack.callback(put_on(model, name, function))
                stack.callback(_forbid_copies(model.hook_dict[name], no_copies))
        yield session


class _NoCopies:
    """Attached to what is steered: a copy would stay steered for ever, since nothing would remove its hooks."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise SteerlensError(
            "the model is being steered, and a copy would stay steered; copy it outside the with block"
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise SteerlensError(
            "the model is being steered, and a file of it would stay steered; save it outside the with block"
        )


def _forbid_copies(point: Any, no_copies: _NoCopies) -> Callable[[], object]:
    """Attach `no_copies` to a hook point; returns what removes it again."""
    name = f"_steered_{id(no_copies)}"
    point.__dict__[name] = no_copies
    return lambda: point.__dict__.pop(name, None)
