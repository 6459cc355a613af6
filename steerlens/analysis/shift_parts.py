"""Where a shift comes from: what the vector does to the logits itself, and what every later layer adds.

With r_b, r_s the residual stream after the last block, unsteered and steered, and the last norm
N(r) = c(r)/σ(r)·gain + bias (c linear), the shift of token t's logit is exactly

    u_t · (N(r_s) − N(r_b)) = u_t · gain · [ c(r_s − r_b)/σ(r_s)  +  c(r_b) · (1/σ(r_s) − 1/σ(r_b)) ]

with u_t its column of the unembedding. The convention: the steered run's scale σ(r_s) is held for everything that was
added to the stream; the second term, the base stream seen through another scale, is a part of its own ("rescaling").
And r_s − r_b is a sum without remainder: the vectors as injected, plus for every block what its attention and its MLP
wrote steered minus unsteered. So the parts add up to the shift of the logit; no part is a fit or an approximation.

A vector at the front of a long prompt has no direct part at the last position: it acts through attention alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from steerlens.analysis.compared import Positions, against_unsteered, shared_columns
from steerlens.analysis.named_tokens import Pieces, Words, followed_tokens
from steerlens.analysis.residual_trace import FinalNorm, ResidualTrace, residual_trace, token_directions
from steerlens.arguments import choice, whole_number
from steerlens.models import HookedModel, for_one_thread, require_model
from steerlens.models.run_settings import run_settings
from steerlens.showing import Shown
from steerlens.steering import Placement, Steering, check_vector
from steerlens.steering.prompts import PromptLike, read_prompts
from steerlens.steering.tokens import token_strings

if TYPE_CHECKING:
    import plotly.graph_objects as go

# What blocks wrote beside attention and MLP (a norm behind both, say) is a part of its own where it is more than this
# share of what they wrote.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False, repr=False)
class ShiftParts(Shown):
    """The shift of followed tokens' logits, taken apart (nats: a logit's unit).

    Attributes:
        frame: one row per steered condition × prompt × position × token × part. Columns: condition, label, layer (of
            the vector), coeff, placement, prompt, position, context, token, token_id, part, part_layer, contribution.
            `part` is "vector" (added at `part_layer`), "attention", "mlp" (of block `part_layer`), "rescaling" (the
            norm's scale; no layer), or "other" (what is left, such as a cap on the logits).
        totals: one row per condition × prompt × position × token: the same first ten, logit_base, logit_steered,
            shift (of the logit), direct (the vectors' part), downstream (attention, MLP of later blocks, others),
            rescaling, normaliser (−Δ ln Σ exp: the same for all tokens), logprob_shift (= shift + normaliser).
        settings: everything needed to repeat it, as plain data.
    """

    frame: pd.DataFrame
    totals: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)

    def _told(self) -> tuple[str, Mapping[str, object]]:
        facts: dict[str, object] = {
            "conditions": self.totals["condition"].nunique(),
            "prompts": self.totals["prompt"].nunique(),
            "tokens": self.totals["token_id"].nunique(),
        }
        if len(self.totals):
            row = self.totals.loc[self.totals["shift"].abs().idxmax()]
            facts["largest shift"] = (
                f"{row['token']!r} {row['shift']:+.3g} nats = vector {row['direct']:+.3g}, later blocks "
                f"{row['downstream']:+.3g}, rescaling {row['rescaling']:+.3g}"
            )
        return f"logit shifts in parts, on {self.settings.get('model', 'a model')}", facts

    def plot(
        self, *, condition: str | None = None, prompt: str | None = None, position: int | None = None
    ) -> go.Figure:
        """Each part's contribution, layer by layer, a panel for each token."""
        from steerlens.figures.shift_parts import shift_parts_bars

        prompt = prompt or self.frame["prompt"].iloc[0]
        return shift_parts_bars(self.frame, condition=condition, prompt=prompt, position=position)


@for_one_thread
@torch.no_grad()
def shift_parts(
    model: HookedModel,
    prompts: PromptLike | Sequence[PromptLike],
    steering: Steering | Sequence[Steering],
    *,
    follow: Words = (),
    top_k: int = 3,
    pieces: Pieces = "error",
    positions: Positions = "last",
    placement: Placement | None = None,
) -> ShiftParts:
    """The followed tokens' logit shift as a sum: the vector's own part, each later block's, and the norm's rescaling.

    One forward pass per prompt and condition, the unsteered included; only the asked positions are kept.

    Args:
        prompts: one prompt or several (texts, chats, token ids).
        steering: a vector, a tuple of vectors (one condition), or a list of conditions.
        follow: words or token ids; by default the `top_k` tokens whose probability rose most after the first prompt.
        pieces: what to do with a word that is several tokens: "error", its "first" piece, or "all".
        positions: "last", or "all" for the logits behind every token of the prompt.
        placement: where vectors go, for those that come without an Injection; by default each vector's own.

    Raises:
        SteerlensError: nothing steered, an empty prompt, a word of several tokens, a vector that does not fit.
    """
    require_model(model)
    given = read_prompts(model, prompts)
    top_k = whole_number("top_k", top_k, least=1)
    choice("positions", positions, ("last", "all"))
    base_condition, *conditions = against_unsteered(steering, placement=placement)
    for condition in conditions:
        for injection in condition.injections:
            check_vector(model, injection.vector)
    norm = FinalNorm.of(model)
    followed = followed_tokens(model, follow, pieces=pieces)
    rows: list[dict[str, Any]] = []
    totals: list[dict[str, Any]] = []
    for prompt in given:
        ids = list(prompt.ids)
        contexts = token_strings(model, ids)
        places = list(range(len(ids))) if positions == "all" else [len(ids) - 1]
        base = residual_trace(model, prompt, base_condition, places)
        for number, condition in enumerate(conditions, start=1):
            steered = residual_trace(model, prompt, condition, places)
            if not followed:
                rise = steered.logits[-1].softmax(-1) - base.logits[-1].softmax(-1)
                chosen = rise.topk(min(top_k, len(rise))).indices.tolist()
                followed = dict(zip(chosen, token_strings(model, chosen), strict=True))
            tokens = torch.tensor(list(followed), device=base.logits.device)
            parts = _parts(model, norm, base, steered, tokens)
            before, after = base.logits[:, tokens].cpu().double(), steered.logits[:, tokens].cpu().double()
            normaliser = (base.logits.logsumexp(-1) - steered.logits.logsumexp(-1)).cpu()
            for i, place in enumerate(places):
                shared = {**shared_columns(number, condition), "prompt": prompt.text}
                for j, (token_id, token) in enumerate(followed.items()):
                    here = {**shared, "position": place, "context": contexts[place]}
                    here |= {"token": token, "token_id": token_id}
                    values = {key: float(part[i, j]) for key, part in parts.items()}
                    rows.extend(
                        {**here, "part": part, "part_layer": layer, "contribution": value}
                        for (part, layer), value in values.items()
                    )
                    shift = float(after[i, j] - before[i, j])
                    direct = sum(value for (part, _), value in values.items() if part == "vector")
                    rescaling = values["rescaling", None]
                    totals.append(
                        {
                            **here,
                            "logit_base": float(before[i, j]),
                            "logit_steered": float(after[i, j]),
                            "shift": shift,
                            "direct": direct,
                            "downstream": sum(values.values()) - direct - rescaling,
                            "rescaling": rescaling,
                            "normaliser": float(normaliser[i]),
                            "logprob_shift": shift + float(normaliser[i]),
                        }
                    )
    settings = {
        "prompts": [prompt.text for prompt in given],
        "conditions": [[injection.vector.describe() for injection in one.injections] for one in conditions],
        "follow": list(followed.values()),
        "positions": positions,
        **run_settings(model),
    }
    frame = pd.DataFrame(rows).astype({"layer": "Int64", "part_layer": "Int64"})
    return ShiftParts(frame, pd.DataFrame(totals).astype({"layer": "Int64"}), settings)


def _parts(
    model: HookedModel, norm: FinalNorm, base: ResidualTrace, steered: ResidualTrace, tokens: Tensor
) -> dict[tuple[str, int | None], Tensor]:
    """{(part, layer): contribution [pos token]}, in the order of the forward pass; they sum to the logits' shift."""
    end_base, end = base.resid_post[-1], steered.resid_post[-1]
    directions = token_directions(model, tokens).to(end.device) * norm.gain.to(end.device)[:, None]
    scale, scale_base = norm.scale(end), norm.scale(end_base)

    def seen(change: Tensor) -> Tensor:
        return (norm.centred(change) / scale @ directions).cpu()

    parts: dict[tuple[str, int | None], Tensor] = {}
    before = torch.zeros_like(end)  # what the stream differs by so far
    for layer in range(len(base.resid_pre)):
        entering = steered.resid_pre[layer] - base.resid_pre[layer]
        injected = entering - before
        if bool(injected.any()):
            parts["vector", layer] = seen(injected)
        attention = steered.attention[layer] - base.attention[layer]
        mlp = steered.mlp[layer] - base.mlp[layer]
        before = steered.resid_post[layer] - base.resid_post[layer]
        if bool(before.any()):
            parts["attention", layer], parts["mlp", layer] = seen(attention), seen(mlp)
            rest = before - entering - attention - mlp
            if rest.norm() > _ROUNDING * (attention.norm() + mlp.norm() + entering.norm()):
                parts["other", layer] = seen(rest)
    parts["rescaling", None] = (norm.centred(end_base) * (1 / scale - 1 / scale_base) @ directions).cpu()
    total = (steered.logits[:, tokens] - base.logits[:, tokens]).cpu().double()
    rest = total - torch.stack(list(parts.values())).sum(0).double()
    if float(rest.abs().max()) > 1e-3 * max(float(total.abs().max()), 1.0):
        parts["other", None] = rest  # logits that are capped or scaled after the unembedding
    return parts
