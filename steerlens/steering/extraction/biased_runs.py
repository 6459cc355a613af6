"""Log-probabilities of token rows with a bias at one layer, differentiable with respect to the bias."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, Site, changing_at, put_on, site_hook, site_width, without_live_hooks
from steerlens.steering.extraction.token_choice import TokenRow
from steerlens.steering.prompts import following_ids, prompt_ids, read_prompt
from steerlens.steering.tokens import pad_id


@dataclass
class BiasedRuns:
    """Forward passes with a bias added at a site of a layer, at every position after BOS (placement `"all"`).

    Attributes:
        site: by default the layer's input.
        edit: what is made of an activation [batch pos width] and the bias (one [n], or one for each row [batch n]); by
            default their sum.
        forward, backward: how many rows have gone through the model so far, and back.
    """

    model: HookedModel
    layer: int
    site: Site = "resid_pre"
    forward: int = 0
    backward: int = 0
    edit: Callable[[Tensor, Tensor], Tensor] = lambda x, bias: x + _by_row(bias.to(x.device, x.dtype))
    _norms: list[Tensor] = field(default_factory=list)

    def log_probs(self, rows: Sequence[TokenRow], bias: Float[Tensor, "*row n"] | None) -> Float[Tensor, " batch"]:
        """The log-probability (nats) of each row's span given what comes before it.

        Args:
            bias: one for all rows, or one for each; None: the activations as they are.
        """
        _, chosen = self._run(rows, bias)
        return torch.stack([values.sum() for values in chosen])

    def tokens(self, row: TokenRow, bias: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """For each token of the span: its log-probability, and its margin over the most likely other token."""
        logits, (chosen,) = self._run([row], bias)
        span = logits[0, row.begin - 1 : row.end - 1].detach()
        wanted = torch.tensor(row.ids[row.begin : row.end], device=span.device)[:, None]
        others = span.scatter(-1, wanted, float("-inf")).max(-1).values
        return chosen, span.gather(-1, wanted)[:, 0] - others

    def unit(self, rows: Sequence[TokenRow]) -> float:
        """The typical size of an entry of an activation here: the median norm of positions after BOS, over √width."""
        with torch.no_grad():
            self._run(rows, None)
        return float(torch.cat(self._norms).median()) / site_width(self.model, self.site) ** 0.5

    def _run(self, rows: Sequence[TokenRow], bias: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        tokens, mask = _padded(self.model, rows)
        touched = (mask.cumsum(-1) > first_steered(self.model)) & (mask != 0)
        self._norms = []

        def change(x: Tensor) -> Tensor:
            here = touched.to(x.device)
            self._norms.append(x.detach()[here].float().norm(dim=-1).cpu())
            return x if bias is None else torch.where(here[..., None], self.edit(x, bias), x)

        with ExitStack() as stack:
            stack.enter_context(without_live_hooks(self.model))
            for name, function in changing_at(self.model, self.layer, self.site, change):
                stack.callback(put_on(self.model, name, function))
            logits = self.model(tokens, attention_mask=mask, return_type="logits")
        if not self._norms:
            name = site_hook(self.layer, self.site)
            raise SteerlensError(f"TransformerLens passed nothing through {name} of this model")
        self.forward += len(rows)
        self.backward += len(rows) if bias is not None and bias.requires_grad else 0
        chosen = []
        for number, row in enumerate(rows):
            # The token at a position was predicted at the one before.
            predicted = logits[number, row.begin - 1 : row.end - 1].float().log_softmax(-1)
            wanted = torch.tensor(row.ids[row.begin : row.end], device=predicted.device)
            chosen.append(predicted.gather(-1, wanted[:, None])[:, 0])
        return logits, chosen


def _by_row(bias: Tensor) -> Tensor:
    return bias if bias.ndim == 1 else bias[:, None]


def _padded(model: HookedModel, rows: Sequence[TokenRow]) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """The rows, padded on the right, and their attention mask.

    With padding on the left, the first positions would attend to nothing, and some models' gradients would be NaN.
    """
    width, pad, device = max(len(row.ids) for row in rows), pad_id(model), model.cfg.device
    tokens = [row.ids + [pad] * (width - len(row.ids)) for row in rows]
    mask = [[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def first_steered(model: HookedModel) -> int:
    """The first position that placement `"all"` reaches: 1 where the model takes BOS, else 0."""
    return 1 if model.cfg.default_prepend_bos else 0


def target_rows(model: HookedModel, targets: Sequence[str], prompts: Sequence[Any] | None) -> list[TokenRow]:
    """Texts to make likely, each after its prompt; without prompts, from the first token that steering can reach.

    Raises:
        SteerlensError: a text with no token that could be made more likely.
    """
    rows = []
    begin = first_steered(model) + 1
    for number, text in enumerate(targets):
        if prompts is None:
            ids = prompt_ids(model, text)
            start = begin
        else:
            before = read_prompt(model, prompts[number])
            ids, start = [*before.ids, *(following_ids(model, before, text) if text else ())], len(before)
            if start < begin:
                raise SteerlensError(f"prompt {number} is nothing but BOS, which is not steered; give a longer prompt")
        if len(ids) <= start:
            raise SteerlensError(
                f"target {number} ({text!r:.40}) has no token that steering reaches; give a longer one"
            )
        if len(ids) > model.cfg.n_ctx:
            raise SteerlensError(
                f"target {number} has {len(ids)} tokens but the model reads {model.cfg.n_ctx}; shorten it"
            )
        rows.append(TokenRow(ids, start, len(ids)))
    return rows


@contextmanager
def frozen(model: HookedModel) -> Iterator[None]:
    """The model with its weights as constants, so that no gradient is computed for them; restored afterwards."""
    live = [weight for weight in model.parameters() if weight.requires_grad]  # type: ignore[attr-defined]
    try:
        for weight in live:
            weight.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for weight in live:
            weight.requires_grad_(True)
