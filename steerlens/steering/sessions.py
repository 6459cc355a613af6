"""Sessions: what the hooks of one block of injections do to the tensors that pass through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models import SITES, ForwardState, HookedModel
from steerlens.steering.batch_gates import GateKeeper
from steerlens.steering.beginnings import after_bos_in
from steerlens.steering.changing import Changes, change_, in_rounds
from steerlens.steering.gates import warn_closed
from steerlens.steering.operations import Table, change, joined
from steerlens.steering.parts import Part
from steerlens.steering.placement import bounds, check_fit, first_positions, is_range, needs_length, reaches_later
from steerlens.steering.ramps import Ramp, ramp_strengths
from steerlens.steering.receipts import note


class Session:
    """The hooks of one block of injections, and what they have done so far.

    Attributes:
        receipts: one per part, in the order given.
        prompt_width: width of the prompt batch while whole sequences are rerun without a cache, so that placements
            counted from the end stay where the prompt put them; None if each pass is a prompt.
    """

    def __init__(
        self,
        model: HookedModel,
        parts: Sequence[Part],
        prompt_width: int | None = None,
        keeper: GateKeeper | None = None,
    ) -> None:
        self.receipts = [part.receipt for part in parts]
        self.prompt_width = prompt_width
        self._parts, self._keeper = list(parts), keeper
        self.generating = False
        self._model = model
        self._pad = getattr(model.tokenizer, "pad_token_id", None)
        self._last_place = (-1, 0)
        self._prompts: tuple[Tensor, Tensor, Tensor] | None = None
        self._width: int | None = None  # of the prompts that passed last
        self._goes_on = False  # passes hold the prompts that gates were asked about, and more

    def check_applied(self) -> None:
        """Raise a SteerlensError that names the part unless every part was added at least once.

        Where a gate opened for no prompt it is a warning.
        """
        closed = {} if self._keeper is None else self._keeper.closed()
        for gate in closed.values():
            warn_closed(gate, "the prompts that passed inside the with block")
        for part in self._parts:
            receipt = part.receipt
            if receipt.applications == 0 and id(part.gate) not in closed:
                passed = "no generated token" if receipt.placement == "generated" else "no prompt"
                raise SteerlensError(
                    f"the vector {receipt.label!r} was never added: {passed} passed {receipt.hook}; "
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
        if state.offset == 0:
            self._width = resid.shape[1]
        vector = parts[0].injection.vector
        place = (vector.layer, list(SITES).index(vector.site))
        if another := place <= self._last_place or self._last_place[0] < 0:  # another pass has begun
            self._prompts = None
        self._last_place = place
        if self._keeper is not None:
            if another and state.offset == 0 and not self._goes_on:
                self._keeper.ask(state, self._parts)
                self._goes_on = self.generating
            parts = self._keeper.let_through(parts, len(resid))
        # Additions commute. If there are other operations as well, the order given counts.
        in_order = any(part.kind != "add" for part in parts)
        by_row: list[Part] = []
        for part in parts:
            if is_range(part.placement):
                resid = self._add_range(resid, part, state)
            elif state.attention_mask is None and part.rows is None and part.is_plain:
                resid = self._add_uniform(resid, part, state)
            elif state.offset == 0 or not needs_length(part.placement):
                if in_order:
                    resid = self._add_by_row(resid, [part], state)
                else:
                    by_row.append(part)
        return self._add_by_row(resid, by_row, state) if by_row else resid

    def known(self) -> tuple[int | None, bool, object]:
        """What is known of the prompts of a generation, for `recall`."""
        return self.prompt_width, self._goes_on, None if self._keeper is None else self._keeper.answers

    def recall(self, known: tuple[int | None, bool, Any] | None) -> None:
        """Go on with the prompts of a generation; None: they have not been seen yet, or it is over."""
        self.prompt_width, self._goes_on, answers = known or (None, False, None)
        if self._keeper is not None and answers is not None:
            self._keeper.answers = answers

    def _check_padding(self, parts: Sequence[Part], tokens: Int[Tensor, "batch pos"] | None) -> None:
        """Nothing, if it is plain without an attention mask where each prompt of a batch ends.

        TransformerLens pads a list of texts on the right and makes no mask, since the real positions of a causal model
        do not depend on the padding; but where a vector goes may.
        """
        if self._pad is None or tokens is None or len(tokens) == 1:
            return
        padding = (tokens.flip(-1) == self._pad).int().cumprod(-1).sum(-1)
        longest = int(padding.max())
        for part in parts if longest else ():
            if needs_length(part.placement) or (part.gate is not None and self._keeper is not None):
                what = f"placement={part.placement!r} counts from" if part.gate is None else "a gate reads to"
                raise SteerlensError(
                    f"{what} the end of each prompt, but this batch came without "
                    "attention_mask and rows of it end in the pad token, which may be padding or their own last token; "
                    "pass attention_mask (1 for every real token), or run the prompts one by one"
                )
            if not is_range(part.placement):
                check_fit(part.placement, part.span, tokens.shape[1] - longest)

    def _add_range(self, resid: Tensor, part: Part, state: ForwardState) -> Tensor:
        """One row of a vector at all positions of a range."""
        check_fit(part.placement, part.span, resid.shape[1])
        batch = len(resid)
        if state.offset > 0 and not reaches_later(part.placement):
            return resid
        position, touched, strengths = self._range(resid, part, state)
        if part.rows is not None:
            chosen = torch.zeros(batch, dtype=torch.bool, device=resid.device)
            touched = touched & chosen.index_fill(0, part.rows.to(resid.device), True)[:, None]
        if state.offset == 0 or not part.receipt.applications:
            # A prompt of BOS alone has no position to steer: what is not added must not be counted.
            reached = touched.any(-1).nonzero().flatten().tolist()
            if not reached:
                return resid
            note(part.receipt, position[reached[0]][touched[reached[0]]].tolist(), len(reached))
        else:  # a generated token is real in every row; looking would make the host wait for the device at each
            note(part.receipt, (), batch if part.rows is None else len(part.rows))
        by = change(resid, part.table_like(resid).at(0), part.kind, strength=strengths)
        return torch.where(touched[..., None], (resid + by).to(resid.dtype), resid)

    def _range(self, resid: Tensor, part: Part, state: ForwardState) -> tuple[Tensor, Tensor, Tensor | None]:
        """The position of every token of the pass in its row, whether a part's range includes it, and its strength."""
        batch, width = resid.shape[:2]
        if state.attention_mask is None:
            real = torch.ones(batch, state.offset + width, dtype=torch.bool, device=resid.device)
        else:
            real = state.attention_mask.to(resid.device) != 0
        position, here = real.long().cumsum(-1)[:, state.offset :] - 1, real[:, state.offset :]
        if state.offset > 0:  # the prompt is in the cache
            return position, here, None if part.ramp is None else self._later_strengths(part, part.ramp, position, real)
        prompt_width = width if self.prompt_width is None else self.prompt_width
        tokens = None if state.tokens is None else state.tokens.to(resid.device)
        begin = after_bos_in(self._model, tokens, real, prompt_width=prompt_width)
        lengths = real[:, :prompt_width].sum(-1)
        first, stop = bounds(part.placement, lengths, begin)
        strengths = None
        if part.ramp is not None:
            strengths = ramp_strengths(part.ramp, position - first[:, None], (lengths - first)[:, None])
        return position, here & (position >= first[:, None]) & (position < stop[:, None]), strengths

    def _later_strengths(self, part: Part, ramp: Ramp, position: Tensor, real: Tensor) -> Tensor:
        """The strengths of a ramp at tokens whose prompt is in the cache."""
        if part.placement == "all":  # it ends with the prompt
            return torch.full(position.shape, ramp.points[-1], device=position.device)
        width = self._width if self.prompt_width is None else self.prompt_width
        if width is None:
            raise SteerlensError("a ramp over generated tokens counts from their prompt; run it in the with block too")
        first = real[:, :width].sum(-1) - int(part.placement == "from_last")
        return ramp_strengths(ramp, position - first[:, None], torch.ones_like(first)[:, None])

    def _add_uniform(self, resid: Tensor, part: Part, state: ForwardState) -> Tensor:
        """All rows alike and no padding: one slice."""
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
        values = part.table_like(resid).values[begin - first : end - first]
        note(part.receipt, range(begin + state.offset, end + state.offset), batch)
        changed = resid.clone()
        changed[:, begin:end] += values
        return changed

    def _add_by_row(self, resid: Tensor, parts: Sequence[Part], state: ForwardState) -> Tensor:
        """Parts that go to separate rows, or to prompts of different lengths, all at once.

        Where they go is worked out on the host, which waits for the device once per pass, not once per part.
        """
        batch, width = resid.shape[:2]
        starts, lengths = self._where_prompts_are(state, batch, width)
        changes: list[Changes] = []
        tables: list[Table] = []
        begin = 0
        for part in parts:
            rows = torch.arange(batch, device="cpu") if part.rows is None else part.rows.cpu()
            if state.offset == 0:
                check_fit(part.placement, part.span, int(lengths[rows].min()))
            if part.positions is None:
                spanned = torch.arange(part.span, device="cpu")
                positions = first_positions(part.placement, part.span, lengths[rows])[:, None] + spanned
            else:  # the one row of the vector at each
                positions = torch.tensor(part.positions, device="cpu").expand(len(rows), -1)
                spanned = torch.zeros(positions.shape[1], dtype=torch.long, device="cpu")
            strengths = None
            if part.ramp is not None:
                index = torch.arange(positions.shape[1], device="cpu")
                strengths = ramp_strengths(part.ramp, index, torch.full_like(index, len(index)))
            columns = starts[rows][:, None] + positions - state.offset
            inside = (columns >= 0) & (columns < width)
            if state.offset > 0 and not bool(inside.any()):
                continue
            note(part.receipt, positions[0].tolist(), len(rows))
            here = (rows[:, None], columns, begin + spanned)
            places = torch.stack([one.expand_as(columns)[inside] for one in here])
            strengths = None if strengths is None else strengths.expand(columns.shape)[inside]
            changes.append(Changes(part.kind, places, strengths))
            tables.append(part.table_like(resid))
            begin += part.span
        if not tables:
            return resid
        changed = resid.clone()
        change_(changed, [one.to(resid.device) for one in in_rounds(changes)], joined(tables))
        return changed

    def _where_prompts_are(self, state: ForwardState, batch: int, width: int) -> tuple[Tensor, Tensor]:
        """Where each row's prompt begins, and how long it is, on the host; read from the device once per pass."""
        prompt_width = width if self.prompt_width is None else self.prompt_width
        if state.attention_mask is None:
            return torch.zeros(batch, dtype=torch.long, device="cpu"), torch.full((batch,), prompt_width, device="cpu")
        if self._prompts is None or self._prompts[0] is not state.attention_mask:
            mask = state.attention_mask.cpu() != 0
            lengths = mask[:, : state.offset + prompt_width].sum(-1)
            self._prompts = state.attention_mask, mask.long().argmax(-1), lengths
        return self._prompts[1:]
