"""`attach`: steering a bare Hugging Face model with plain PyTorch hooks, without TransformerLens."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import torch
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models import (
    SITES,
    ForwardState,
    ModelStamp,
    Site,
    bare_blocks,
    bare_difference,
    change_bare,
    check_tokenizer,
    moves_values,
    require_bare_site,
    watch_passes,
)
from steerlens.steering.conditions import Condition, Steering, as_condition
from steerlens.steering.exchange.torch_files import load_torch
from steerlens.steering.noticing import generation_noticed
from steerlens.steering.parts import Part
from steerlens.steering.placement import Placement, is_role
from steerlens.steering.receipts import Receipt
from steerlens.steering.sessions import Session
from steerlens.steering.tokens import bos_ids


class Attachment:
    """A condition on a bare Hugging Face model, until `remove()` or the end of the `with` block.

    Attributes:
        condition: what steers.
        receipts: what each of its vectors did so far, in the order given.
    """

    def __init__(self, condition: Condition, session: Session, hooks: ExitStack) -> None:
        self.condition = condition
        self.receipts: list[Receipt] = session.receipts
        self._session, self._hooks, self._attached = session, hooks, True

    def remove(self) -> None:
        """Take the hooks off; the model is what it was. A second call does nothing."""
        self._attached = False
        self._hooks.close()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()
        if kind is None:
            self._session.check_applied()

    def __repr__(self) -> str:
        times = ", ".join(str(receipt.applications) for receipt in self.receipts)
        return f"Attachment({self.condition.label}, {'on' if self._attached else 'removed'}, applied={times or 0})"


def attach(
    hf_model: Any, steering: Steering | str | Path, *, placement: Placement | None = None, tokenizer: Any = None
) -> Attachment:
    """The condition, attached to a bare Hugging Face model: its calls and its `generate` are steered until removed.

        with sl.attach(hf_model, 5 * love) as attached:
            hf_model.generate(**tokenizer(["I hate you because"], return_tensors="pt"), max_new_tokens=20)

    Plain PyTorch hooks, no TransformerLens at run time. Every operation and placement, with and without a key-value
    cache (not a static one), in batches padded on either side (give `attention_mask`, as Hugging Face needs it anyway).
    Sites `resid_pre` and `resid_post` of every decoder with its blocks at the usual place; the others of GPT-2, GPT-J,
    OPT, Llama, Mistral, Qwen 2 and 3, and Gemma.

    Vectors of a processed model (folded layer norms, centred writing weights) act on logits here as there: the
    processed residual stream is this model's less its mean over the width, which no layer norm lets through. What is
    added is added as it is; operations that depend on the activation are given it without its mean. (At RMS norms
    nothing is centred: the streams are the same.) Refused: at site `"z"` all operations but `"add"`, where biases reach
    the values, which processing moves behind the heads; and gates, which read prompts in a pass of their own.

    Args:
        hf_model: a causal language model of transformers, of the weights that the vectors were made with.
        steering: a vector, an injection, a tuple of these, a Condition, or the path of a file of `save_torch`.
        placement: where vectors go; by default each one's own. No role of a chat: tokens do not say where messages are.
        tokenizer: says which tokens count as BOS; by default the `bos_token_id` of the model's configuration does.

    Returns:
        What takes the condition off again: `.remove()`, or the end of a `with` block, which also raises if a vector was
        never added. `.receipts` say what each did. Not for use of one model by several threads at once.

    Raises:
        SteerlensError: no Hugging Face model, vectors of other weights, a site that the model does not have; and from
            the model's own calls, a vector longer than the prompt, or a mask that is not [batch pos].
    """
    if isinstance(steering, str | os.PathLike):
        condition = load_torch(steering)
        if placement is not None:
            raise SteerlensError("placement= does not go with a file, which says where its vectors go; leave it out")
    else:
        condition = as_condition(steering, placement=placement)
    if tokenizer is not None:
        check_tokenizer(tokenizer)
    _check(hf_model, condition)
    parts = [Part(one) for one in condition.injections]
    session = Session(_facade(hf_model, tokenizer), parts)
    running = _Running(session, centred=any(one.vector.model.centred for one in condition.injections))
    by_place: dict[tuple[int, Site], list[Part]] = {}
    for part in parts:
        by_place.setdefault((part.injection.vector.layer, part.injection.vector.site), []).append(part)
    with ExitStack() as stack:
        stack.callback(watch_passes(hf_model, running.begin))
        for layer, site in sorted(by_place, key=lambda place: (place[0], list(SITES).index(place[1]))):
            for take_off in change_bare(hf_model, layer, site, running.acting(site, by_place[layer, site])):
                stack.callback(take_off)
        stack.enter_context(generation_noticed(hf_model, session))
        return Attachment(condition, session, stack.pop_all())


class _Running:
    """The passes of an attached model.

    In a centred model what is added may have a mean over the width, which then stays in the stream and is seen by
    later operations. `_carried` is that mean, [batch pos 1], summed up over the sites of a pass.
    """

    def __init__(self, session: Session, *, centred: bool) -> None:
        self._session, self._state = session, ForwardState()
        self._centred = centred and any(receipt.operation != "add" for receipt in session.receipts)
        self._carried: Tensor | float = 0.0

    def begin(self, state: ForwardState) -> None:
        self._state, self._carried = state, 0.0

    def acting(self, site: Site, parts: Sequence[Part]) -> Callable[[Tensor], Tensor]:
        """What acts on the activations of a site."""

        def act(x: Tensor) -> Tensor:
            rows = self._by_rows(x)
            changed = self._change(rows, site, parts)
            return x if changed is rows else changed.reshape(x.shape)

        return act

    def _by_rows(self, x: Tensor) -> Tensor:
        if x.ndim == 3:
            return x
        tokens = self._state.tokens
        if tokens is None:  # tokens in a row, and nobody says how many rows there are
            raise SteerlensError("this model's mlp_out is steered for token ids only; give input_ids, no embeddings")
        return x.reshape(tokens.shape[0], -1, x.shape[-1])

    def _change(self, x: Tensor, site: Site, parts: Sequence[Part]) -> Tensor:
        if not self._centred or site == "z":
            return self._session.add(x, parts, self._state)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        seen = wide - wide.mean(-1, keepdim=True)
        if site.startswith("resid"):
            seen = seen + self._carried
        changed = self._session.add(seen, parts, self._state)
        if changed is seen:
            return x
        by = changed - seen
        self._carried = self._carried + by.mean(-1, keepdim=True)
        return (wide + by).to(x.dtype)


def _check(hf_model: Any, condition: Condition) -> None:
    """Nothing, if every injection belongs on the model and can be made there as it is on the model it is from."""
    bare_blocks(hf_model)  # or the reason why it is no bare model
    known: dict[ModelStamp, str | None] = {}
    for one in condition.injections:
        vector = one.vector
        if vector.model not in known:
            known[vector.model] = bare_difference(vector.model, hf_model)
        if (difference := known[vector.model]) is not None:
            raise SteerlensError(f"the vector {vector.label!r} does not belong to this model: {difference}")
        if one.gate is not None:
            raise SteerlensError(
                f"the gate {one.gate.title!r:.120} reads prompts in a pass of its own, which hooks do not make; "
                "leave it out, or use steer(model, …) on the model as load_model gives it"
            )
        if is_role(one.placement):  # type: ignore[arg-type]
            raise SteerlensError(
                f"placement={one.placement!r} needs a chat, and hooks see only its tokens; use an index"
            )
        require_bare_site(hf_model, vector.site)
        depends = vector.site == "z" and one.operation != "add" and vector.model.folded
        if depends and moves_values(hf_model, vector.layer):
            raise SteerlensError(
                f"operation {one.operation!r} at site 'z' depends on the head outputs, and the processed model that "
                f"{vector.label!r} is from has other ones: the biases of its values are moved behind the heads; make "
                "the vector with load_model(..., processing=False)"
            )


def _facade(hf_model: Any, tokenizer: Any) -> Any:
    """What a session asks of a model: which tokens are BOS and padding."""
    config = hf_model.config
    pad = config.pad_token_id if tokenizer is None else tokenizer.pad_token_id
    begins = getattr(config, "bos_token_id", None)
    bare = SimpleNamespace(
        tokenizer=SimpleNamespace(pad_token_id=pad) if tokenizer is None else tokenizer,
        cfg=SimpleNamespace(default_prepend_bos=begins is not None),
    )
    if tokenizer is None:
        known = begins if isinstance(begins, list) else [begins]
        bare.bos_ids = tuple(int(one) for one in known if one is not None)
    else:
        bare.bos_ids = bos_ids(bare)
    return bare
