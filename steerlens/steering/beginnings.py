"""Where prompts begin after BOS, judged by their tokens: the model, a template or the user may have put BOS there."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Int
from torch import Tensor

from steerlens.models import HookedModel
from steerlens.steering.tokens import is_bos, n_bos


def after_bos(model: HookedModel, ids: Sequence[int]) -> int:
    """The first position of a prompt that is not BOS; its length if there is none."""
    return _by_default(model) if model.tokenizer is None else n_bos(model, ids)


def after_bos_in(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"] | None,
    real: Bool[Tensor, "batch pos"],
    *,
    prompt_width: int,
) -> Int[Tensor, " batch"]:
    """The same for every row of a batch, counted from its first real token.

    Args:
        tokens: None if the model was given something else.
        real: whether a token is not padding.
        prompt_width: how many columns of the batch are prompts; a BOS generated later is a token like any other.
    """
    if model.tokenizer is None or tokens is None:
        return real.new_full((len(real),), _by_default(model)).long()
    return is_bos(model, tokens[:, :prompt_width], real[:, :prompt_width]).sum(-1)


def _by_default(model: HookedModel) -> int:
    """What the model's own tokenisation would give, if the tokens cannot tell."""
    return 1 if model.cfg.default_prepend_bos else 0
