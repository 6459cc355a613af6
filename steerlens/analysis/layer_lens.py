"""`layer_lens`: followed tokens read out of the residual stream at every layer, steered and unsteered (logit lens)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from steerlens.analysis.compared import against_unsteered, shared_columns
from steerlens.analysis.effectiveness import ranks
from steerlens.analysis.named_tokens import Pieces, Words, followed_tokens
from steerlens.analysis.residual_trace import read_out, residual_trace
from steerlens.arguments import whole_number
from steerlens.models import HookedModel, for_one_thread, require_model
from steerlens.models.run_settings import run_settings
from steerlens.showing import Shown
from steerlens.steering import Placement, Steering
from steerlens.steering.prompts import PromptLike, read_prompts
from steerlens.steering.tokens import token_strings

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False, repr=False)
class LayerLens(Shown):
    """What the model would predict if it ended at each layer.

    Attributes:
        frame: one row per condition (the unsteered one included) × prompt × lens_layer × token. Columns: condition,
            label, layer (of the vector, NA for the unsteered), coeff, placement, prompt, position, lens_layer (the
            INPUT of that block is read, vectors added; the number of layers means the final output), token, token_id,
            logprob (nats), prob, rank (1 is the likeliest), kl (nats, read-out of this condition ‖ unsteered).
        settings: everything needed to repeat it, as plain data.
    """

    frame: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)

    def _told(self) -> tuple[str, Mapping[str, object]]:
        steered = self.frame[self.frame["condition"] > 0]
        final = steered[steered["lens_layer"] == steered["lens_layer"].max()]
        tokens = list(dict.fromkeys(self.frame["token"]))
        return f"on {self.settings.get('model', 'a model')}", {
            "conditions": steered["condition"].nunique(),
            "prompts": self.frame["prompt"].nunique(),
            "tokens followed": ", ".join(map(repr, tokens[:5])) + ", …" * (len(tokens) > 5),
            "largest KL divergence at the output": f"{final['kl'].max():.3g} nats",
        }

    def plot(self, *, condition: str | None = None, prompt: str | None = None, difference: bool = False) -> go.Figure:
        """Log-probability of each followed token against the layer, steered solid, unsteered dashed."""
        from steerlens import figures

        chosen = self.frame[self.frame["prompt"] == (prompt or self.frame["prompt"].iloc[0])]
        return figures.layer_lens(chosen, condition=condition, difference=difference)


@for_one_thread
@torch.no_grad()
def layer_lens(
    model: HookedModel,
    prompts: PromptLike | Sequence[PromptLike],
    steering: Steering | Sequence[Steering],
    *,
    follow: Words = (),
    top_k: int = 3,
    pieces: Pieces = "error",
    placement: Placement | None = None,
) -> LayerLens:
    """The followed tokens' log-probability at every layer, steered against unsteered, after the last prompt token.

    The model's own last norm and unembedding read the residual stream (logit lens, nostalgebraist 2020); early layers
    speak another basis, so compare the two runs rather than the layers.

    Args:
        follow: words or token ids; by default the `top_k` tokens whose probability rose most after the first prompt.
        prompts, steering, pieces, placement: as for `shift_parts`.

    Raises:
        SteerlensError: nothing steered, an empty prompt, a word of several tokens, a vector that does not fit.
    """
    require_model(model)
    given = read_prompts(model, prompts)
    top_k = whole_number("top_k", top_k, least=1)
    conditions = against_unsteered(steering, placement=placement)
    followed = followed_tokens(model, follow, pieces=pieces)
    parts: list[pd.DataFrame] = []
    for prompt in given:
        ids = list(prompt.ids)
        traces = [residual_trace(model, prompt, condition, [len(ids) - 1]) for condition in conditions]
        if not followed:
            rise = traces[1].logits[-1].softmax(-1) - traces[0].logits[-1].softmax(-1)
            chosen = rise.topk(min(top_k, len(rise))).indices.tolist()
            followed = dict(zip(chosen, token_strings(model, chosen), strict=True))
        streams = [torch.cat([trace.resid_pre[:, 0], trace.resid_post[-1:, 0]]) for trace in traces]
        for number, (condition, numbers) in enumerate(zip(conditions, _lens(model, streams, followed), strict=True)):
            rows = pd.DataFrame(numbers)
            shared = {**shared_columns(number, condition), "prompt": prompt.text, "position": len(ids) - 1}
            for at, (name, value) in enumerate(shared.items()):
                rows.insert(at, name, pd.NA if value is None else value)
            parts.append(rows.astype({"layer": "Int64"}))
    settings = {
        "prompts": [prompt.text for prompt in given],
        "conditions": [[injection.vector.describe() for injection in one.injections] for one in conditions],
        "follow": list(followed.values()),
        **run_settings(model),
    }
    return LayerLens(pd.concat(parts, ignore_index=True), settings)


def _lens(model: HookedModel, streams: Sequence[Tensor], followed: dict[int, str]) -> list[list[dict[str, Any]]]:
    """For every stream [layer d_model], a row per layer and token; the first stream is the base."""
    result: list[list[dict[str, Any]]] = [[] for _ in streams]
    tokens = torch.tensor(list(followed), device=streams[0].device)
    for layer in range(len(streams[0])):  # layer by layer: never [layer condition d_vocab] at once
        logprobs = read_out(model, torch.stack([stream[layer] for stream in streams]))
        kl = (logprobs.exp() * (logprobs - logprobs[0])).sum(-1).clamp_min(0.0).tolist()
        mine = logprobs[:, tokens.to(logprobs.device)]
        places = ranks(logprobs, tokens.to(logprobs.device).expand(len(logprobs), -1)).tolist()
        for number, values in enumerate(mine.double().tolist()):
            for i, (token_id, token) in enumerate(followed.items()):
                result[number].append(
                    {
                        "lens_layer": layer,
                        "token": token,
                        "token_id": token_id,
                        "logprob": values[i],
                        "prob": float(torch.tensor(values[i]).exp()),
                        "rank": places[number][i],
                        "kl": kl[number],
                    }
                )
    return result
