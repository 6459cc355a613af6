"""Gates while a model is steered: asked about every batch of prompts that passes, in a pass of their own inside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch

from steerlens.errors import SteerlensError
from steerlens.models import ForwardState, HookedModel
from steerlens.steering.gates import Gate, Opened, open_gates
from steerlens.steering.parts import Part


class GateKeeper:
    """The gates of a session, and for which rows of its prompts they are open.

    Attributes:
        answers: by the id of a gate, for every row of the batch of prompts that passed last, whether it is open.
    """

    def __init__(
        self, model: HookedModel, gates: Sequence[Gate], apart: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._model, self._apart = model, apart
        self._gates = {id(gate): gate for gate in gates}
        self._ever: set[int] = set()
        self._asked = False
        self.answers: Opened = {}

    def ask(self, state: ForwardState, parts: Sequence[Part]) -> None:
        """Decide for the prompts of the pass under way, and note it on the receipts of `parts`.

        The pass stands still while the model, without any hooks, reads the prompts up to the gates' layers.

        Raises:
            SteerlensError: a pass that was not given tokens.
        """
        if state.tokens is None:
            raise SteerlensError(
                "a gate reads the tokens of the prompt, and this pass was given something else; run the model on tokens"
            )
        tokens, mask = state.tokens.cpu(), state.attention_mask
        real = torch.ones_like(tokens) if mask is None else mask[:, -tokens.shape[1] :].cpu()
        rows = [row[here != 0].tolist() for row, here in zip(tokens, real, strict=True)]
        if not all(rows):
            raise SteerlensError("a gate reads the prompt, and a row of this batch is nothing but padding")
        with self._apart():
            self.answers = open_gates(self._model, self._gates.values(), rows)
        self._asked = True
        self._ever |= {key for key, found in self.answers.items() if any(found)}
        for part in parts:
            if part.gate is not None:
                found = self.answers[id(part.gate)]
                part.receipt.fired = tuple(row for row, is_open in enumerate(found) if is_open)

    def let_through(self, parts: Sequence[Part], batch: int) -> list[Part]:
        """The parts that act in a batch, those with a gate only in the rows for which it is open.

        Raises:
            SteerlensError: rows other than those that the gates were asked about.
        """
        through = []
        for part in parts:
            if part.gate is None:
                through.append(part)
                continue
            found = self.answers.get(id(part.gate), ())
            if len(found) != batch:
                seen = f"prompts in a batch of {len(found)}" if found else "no prompt"
                raise SteerlensError(
                    f"this pass goes on with a batch of {batch}, but the gate {part.gate.title!r:.80} saw {seen}; run "
                    "the prompts inside the with block too, in the same batch"
                )
            rows = [row for row, is_open in enumerate(found) if is_open]
            if rows:
                through.append(part.on_rows(torch.tensor(rows, device="cpu")))
        return through

    def closed(self) -> dict[int, Gate]:
        """The gates, by their ids, that were asked and never opened."""
        return {key: gate for key, gate in self._gates.items() if self._asked and key not in self._ever}
