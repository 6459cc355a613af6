"""Adding vectors to the residual stream of a running model: hooks, the `steer` context manager, receipts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models import ForwardState, HookedModel, forward_states, require_model, resid_pre_hook
from steerlens.steering.adding import add_, in_turns
from steerlens.steering.conditions import Condition, Injection, as_condition, check_conditions
from steerlens.steering.placement import Placement, check_fit, first_positions, needs_length
from steerlens.steering.vectors import SteeringVector


@dataclass
class Receipt:
    """What one vector did, counted while it happened.

    Attributes:
        hook: name of the hook point.
        layer: its block.
        label: the vector's title.
        placement: where it was told to go.
        positions: positions it was added at in the first row it reached, counted from that row's first real token.
        applications: rows × forward passes in which something was added.
        norm: Euclidean norm of what is added to one row (0 for a zero vector: added, without effect).
    """

    hook: str
    layer: int
    label: str
    placement: Placement
    norm: float
    positions: tuple[int, ...] = ()
    applications: int = 0


@contextmanager
def steer(
    model: HookedModel, *vectors: SteeringVector | Injection | Condition, placement: Placement | None = None
) -> Iterator[list[Receipt]]:
    """The model steered by `vectors` for as long as the block lasts; yields their receipts.

    Inside, call the model as you like: `model(tokens)`, `run_with_cache`, `generate`, with or without a key-value
    cache, in batches padded on either side (give `attention_mask`, as TransformerLens needs it anyway). What a
    placement touches is fixed by the prompt; see `Placement` for what each does with later tokens. Hooks return new
    tensors, so activations cached before the layer stay as they were. On any exit steerlens' hooks are gone and the
    user's own are still there; `model.reset_hooks()` inside the block does not remove the steering.

    Args:
        placement: where the vectors go; by default each vector's own (`"front"` for ActAdd).

    Raises:
        SteerlensError: a vector of another model; a vector longer than the prompt (raised inside the forward pass);
            and, when the block ends without another error, a vector that was never added.
    """
    require_model(model)
    injections: list[Injection] = []
    for vector in vectors:
        injections.extend(as_condition(vector, placement=placement).injections)
    condition = Condition(tuple(injections))
    check_conditions(model, [condition])
    parts = [Part(injection) for injection in injections]
    with ExitStack() as stack:
        session = stack.enter_context(injecting(model, parts))
        stack.enter_context(_generation_noticed(model, session))
        yield session.receipts
    session.check_applied()


class Part:
    """An injection into some rows of a batch, with its values ready on the residual stream's device and dtype.

    Attributes:
        injection: the vector and its placement.
        rows: indices of the rows it goes to; None for every row.
    """

    def __init__(self, injection: Injection, rows: Int[Tensor, " some"] | None = None) -> None:
        vector = injection.vector
        self.injection, self.rows = injection, rows
        self.placement: Placement = injection.placement  # type: ignore[assignment]
        self.span = vector.n_positions
        self.receipt = Receipt(
            resid_pre_hook(vector.layer), vector.layer, vector.title, self.placement, norm=vector.norm
        )
        self._ready: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def on_rows(self, rows: Int[Tensor, " some"]) -> Part:
        """The same part for other rows; the receipt is shared, so that it counts the whole run."""
        other = copy(self)
        other.rows = rows
        return other

    def values_like(self, resid: Tensor) -> Float[Tensor, "pos d_model"]:
        """The values on the device and in the dtype of `resid` (moved once, then kept)."""
        key = (resid.device, resid.dtype)
        if key not in self._ready:
            self._ready[key] = self.injection.vector.values.to(*key)
        return self._ready[key]


class Session:
    """The hooks of one block of injections, and what they have done so far.

    Attributes:
        receipts: one per part, in the order given.
        prompt_width: width of the prompt batch while whole sequences are run again and again without a cache, so
            that placements counted from the end stay where the prompt put them; None when each pass is a prompt.
    """

    def __init__(
        self, parts: Sequence[Part], first_position: int, prompt_width: int | None = None, pad: int | None = None
    ) -> None:
        self.receipts = [part.receipt for part in parts]
        self.prompt_width = prompt_width
        self.generating = False
        self._first_position = first_position
        self._pad = pad
        self._last_layer = -1
        self._prompts: tuple[Tensor, Tensor, Tensor] | None = None

    def check_applied(self) -> None:
        """Nothing, if every part was added at least once; raises SteerlensError naming the one that was not."""
        for receipt in self.receipts:
            if receipt.applications == 0:
                raise SteerlensError(
                    f"the vector {receipt.label!r} was never added: no prompt passed {receipt.hook}; "
                    "run the model inside the with block"
                )

    def add(
        self, resid: Float[Tensor, "batch pos d_model"], parts: Sequence[Part], state: ForwardState
    ) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream with the parts added, as a new tensor; `resid` itself if there is nothing to add here."""
        if state.attention_mask is None and state.offset == 0 and self.prompt_width is None:
            self._check_padding(parts, state.tokens)
        if self.generating and state.offset == 0 and self.prompt_width is None:
            self.prompt_width = resid.shape[1]
        layer = parts[0].injection.vector.layer
        if layer <= self._last_layer:  # another pass has begun
            self._prompts = None
        self._last_layer = layer
        by_row = []
        for part in parts:
            if part.placement == "all":
                resid = self._add_everywhere(resid, part, state)
            elif state.attention_mask is None and part.rows is None:
                resid = self._add_uniform(resid, part, state)
            elif state.offset == 0 or not needs_length(part.placement):
                by_row.append(part)
        return self._add_by_row(resid, by_row, state) if by_row else resid

    def _check_padding(self, parts: Sequence[Part], tokens: Int[Tensor, "batch pos"] | None) -> None:
        """Nothing, if it is plain without an attention mask where each prompt of a batch ends.

        TransformerLens pads a list of texts on the right and makes no mask of it, since the real positions of a causal
        model do not depend on it; but where a vector goes may.
        """
        if self._pad is None or tokens is None or len(tokens) == 1:
            return
        padding = (tokens.flip(-1) == self._pad).int().cumprod(-1).sum(-1)
        longest = int(padding.max())
        for part in parts if longest else ():
            if needs_length(part.placement):
                raise SteerlensError(
                    f"placement={part.placement!r} counts from the end of each prompt, but this batch is padded on the "
                    "right and came without attention_mask; pass one, or run the prompts one by one"
                )
            if part.placement != "all":
                check_fit(part.placement, part.span, tokens.shape[1] - longest)

    def _add_everywhere(self, resid: Tensor, part: Part, state: ForwardState) -> Tensor:
        check_fit("all", part.span, resid.shape[1])
        batch, width = resid.shape[:2]
        if state.attention_mask is None:
            position = torch.arange(state.offset, state.offset + width, device=resid.device).expand(batch, width)
            touched = position >= self._first_position
        else:
            mask = state.attention_mask.to(resid.device) != 0
            position = mask.long().cumsum(-1)[:, state.offset :] - 1
            touched = mask[:, state.offset :] & (position >= self._first_position)
        if part.rows is not None:
            chosen = torch.zeros(batch, dtype=torch.bool, device=resid.device)
            touched = touched & chosen.index_fill(0, part.rows.to(resid.device), True)[:, None]
        if state.offset == 0 or not part.receipt.applications:
            # A prompt of BOS alone has no position to go to: what is not added must not be counted.
            reached = touched.any(-1).nonzero().flatten().tolist()
            if not reached:
                return resid
            _note(part.receipt, position[reached[0]][touched[reached[0]]].tolist(), len(reached))
        else:  # a generated token is real in every row; looking would make the host wait for the device at each
            _note(part.receipt, (), batch if part.rows is None else len(part.rows))
        return torch.where(touched[..., None], resid + part.values_like(resid)[0], resid)

    def _add_uniform(self, resid: Tensor, part: Part, state: ForwardState) -> Tensor:
        """Every row alike and no padding: one slice."""
        batch, width = resid.shape[:2]
        if state.offset > 0 and needs_length(part.placement):
            return resid
        length = width if self.prompt_width is None else self.prompt_width
        if state.offset == 0:
            check_fit(part.placement, part.span, length)
        first = int(first_positions(part.placement, part.span, torch.tensor([length]))) - state.offset
        begin, end = max(first, 0), min(first + part.span, width)
        if begin >= end:
            return resid
        values = part.values_like(resid)[begin - first : end - first]
        _note(part.receipt, range(begin + state.offset, end + state.offset), batch)
        changed = resid.clone()
        changed[:, begin:end] += values
        return changed

    def _add_by_row(self, resid: Tensor, parts: Sequence[Part], state: ForwardState) -> Tensor:
        """Parts that go to rows of their own, or to prompts of different lengths, all at once.

        Where they go is worked out on the host: it waits for the device once in a pass, not once for every part.
        """
        batch, width = resid.shape[:2]
        starts, lengths = self._where_prompts_are(state, batch, width)
        places: list[Tensor] = []
        table: list[Tensor] = []
        begin = 0
        for part in parts:
            rows = torch.arange(batch, device="cpu") if part.rows is None else part.rows.cpu()
            if state.offset == 0:
                check_fit(part.placement, part.span, int(lengths[rows].min()))
            first = first_positions(part.placement, part.span, lengths[rows])[:, None]
            spanned = torch.arange(part.span, device="cpu")
            columns = starts[rows][:, None] + first + spanned - state.offset
            inside = (columns >= 0) & (columns < width)
            if state.offset > 0 and not bool(inside.any()):
                continue
            _note(part.receipt, range(int(first[0]), int(first[0]) + part.span), len(rows))
            here = (rows[:, None], columns, begin + spanned)
            places.append(torch.stack([one.expand_as(columns)[inside] for one in here]))
            table.append(part.values_like(resid))
            begin += part.span
        if not table:
            return resid
        changed = resid.clone()
        add_(changed, [turn.to(resid.device) for turn in in_turns(torch.cat(places, dim=1))], torch.cat(table))
        return changed

    def _where_prompts_are(self, state: ForwardState, batch: int, width: int) -> tuple[Tensor, Tensor]:
        """Where each row's prompt begins, and how long it is, on the host; read from the device once in a pass."""
        prompt_width = width if self.prompt_width is None else self.prompt_width
        if state.attention_mask is None:
            return torch.zeros(batch, dtype=torch.long, device="cpu"), torch.full((batch,), prompt_width, device="cpu")
        if self._prompts is None or self._prompts[0] is not state.attention_mask:
            mask = state.attention_mask.cpu() != 0
            lengths = mask[:, : state.offset + prompt_width].sum(-1)
            self._prompts = state.attention_mask, mask.long().argmax(-1), lengths
        return self._prompts[1:]


@contextmanager
def injecting(model: HookedModel, parts: Sequence[Part], *, prompt_width: int | None = None) -> Iterator[Session]:
    """The model with the hooks of `parts` in place; the engine's way in (no check that anything was applied).

    Args:
        prompt_width: width of the prompts where a pass without a cache holds more than them (see Session).
    """
    session = Session(
        parts,
        first_position=1 if model.cfg.default_prepend_bos else 0,
        prompt_width=prompt_width,
        pad=getattr(model.tokenizer, "pad_token_id", None),
    )
    by_layer: dict[int, list[Part]] = {}
    for part in parts:
        by_layer.setdefault(part.injection.vector.layer, []).append(part)
    with ExitStack() as stack:
        state_at = stack.enter_context(forward_states(model, sorted(by_layer)))
        for layer, here in by_layer.items():

            def hook(resid: Tensor, hook: Any, layer: int = layer, here: Sequence[Part] = here) -> Tensor:
                return session.add(resid, here, state_at(layer))

            stack.callback(_attach(model.hook_dict, resid_pre_hook(layer), hook))
        yield session


def _attach(hook_dict: Mapping[str, Any], name: str, function: Any) -> Any:
    """Hook `function` onto the point `name`; returns what takes it off again.

    It counts as permanent, so that a habitual `model.reset_hooks()` does not silently end the steering.
    """
    point = hook_dict[name]
    point.add_hook(function, is_permanent=True)
    handle = point.fwd_hooks[-1]

    def detach() -> None:
        handle.hook.remove()
        point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]

    return detach


class _NoticedMethod:
    """A model's own method of generation that tells sessions while it runs.

    Without a cache every pass of a generation holds the whole sequence, and nothing in the pass itself says where the
    prompt ended.
    """

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original
        self.sessions: list[Session] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._running({}):
            result = self.original(*args, **kwargs)
        return self._streamed(result) if isinstance(result, Generator) else result

    @contextmanager
    def _running(self, widths: dict[int, int | None]) -> Iterator[None]:
        """`widths` keeps, by session, what the prompt's width turned out to be."""
        sessions = list(self.sessions)
        for session in sessions:
            session.generating, session.prompt_width = True, widths.get(id(session))
        try:
            yield
        finally:
            for session in sessions:
                widths[id(session)] = session.prompt_width
                session.generating, session.prompt_width = False, None

    def _streamed(self, parts: Generator[Any, Any, Any]) -> Iterator[Any]:
        """What the caller runs between two parts is no part of the generation."""
        widths: dict[int, int | None] = {}
        nothing = object()
        while True:
            with self._running(widths):
                part = next(parts, nothing)
            if part is nothing:
                return
            yield part


@contextmanager
def _generation_noticed(model: HookedModel, session: Session) -> Iterator[None]:
    """While the block lasts, the model's methods of generation tell the session that their passes grow from one prompt.

    Blocks may end in any order: the last one to end takes the watching off the model.
    """
    own = model.__dict__
    replaced = {name: own.get(name) for name in ("generate", "generate_stream", "hf_generate") if hasattr(model, name)}
    watching: dict[str, _NoticedMethod] = {}
    try:
        for name, before in replaced.items():
            watching[name] = before if isinstance(before, _NoticedMethod) else _NoticedMethod(getattr(model, name))
            watching[name].sessions.append(session)
            own[name] = watching[name]
        yield
    finally:
        for name, method in watching.items():
            method.sessions.remove(session)
            if own.get(name) is method and not method.sessions:
                if getattr(type(model), name, None) is getattr(method.original, "__func__", None):
                    del own[name]  # it was the class's
                else:
                    own[name] = method.original  # it was the user's


def _note(receipt: Receipt, positions: Sequence[int], rows: int) -> None:
    if not receipt.applications:
        receipt.positions = tuple(positions)
    receipt.applications += rows
