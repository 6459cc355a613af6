"""Where a prompt begins behind BOS, read from its tokens: the model, a template or the user may have put BOS there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from steerlens.models import HookedModel


@dataclass(frozen=True)
class Beginning:
    """What BOS is for a model.

    Attributes:
        bos: its id; None where the tokenizer has none.
        by_default: whether the model's own tokenisation puts one first; asked only where the tokens are not known.
    """

    bos: int | None
    by_default: bool

    @staticmethod
    def of(model: HookedModel) -> Beginning:
        """What BOS is for `model`."""
        return Beginning(getattr(model.tokenizer, "bos_token_id", None), bool(model.cfg.default_prepend_bos))

    def after_bos(self, ids: Sequence[int]) -> int:
        """The first position of a prompt that is not BOS; its length if there is none."""
        if self.bos is None:
            return int(self.by_default)
        return next((at for at, one in enumerate(ids) if one != self.bos), len(ids))

    def after_bos_in(
        self, tokens: Int[Tensor, "batch pos"] | None, real: Tensor, prompt_width: int
    ) -> Int[Tensor, " batch"]:
        """The same for every row of a batch, counted from its first real token.

        Args:
            tokens: None where the model was given something else.
            real: [batch pos], whether a token is no padding.
            prompt_width: how much of the batch is its prompts; a BOS generated later is a token like any other.
        """
        if self.bos is None or tokens is None:
            return real.new_full((len(real),), int(self.by_default)).long()
        real = real[:, :prompt_width]
        led = (tokens[:, :prompt_width] == self.bos) | ~real
        return (led.long().cumprod(-1) * real).sum(-1)
