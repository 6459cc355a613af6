"""`logit_shift`: the next tokens that steering made likelier and unlikelier, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from steerlens.analysis.compared import Compared, Comparison, Positions, against_unsteered, shared_columns
from steerlens.analysis.effectiveness import divergence, entropy
from steerlens.analysis.named_tokens import Pieces, Words, named_tokens
from steerlens.analysis.prompt_mean import PromptMean
from steerlens.analysis.sweep import run_settings
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering import Condition, Placement, Steering
from steerlens.steering.prompts import token_strings

if TYPE_CHECKING:
    import plotly.graph_objects as go

By = Literal["shift", "kl", "prob"]


@dataclass(frozen=True, eq=False)
class LogitShift:
    """How steering moved the next-token distribution, against the unsteered model.

    Attributes:
        frame: one row per steered condition × prompt × position × token, the tokens that moved most and the followed
            ones, largest rise first. Columns: condition, label, layer, coeff, placement, prompt, position (BOS at 0),
            context (the prompt's token there), token, token_id, logprob_base, logprob_steered, shift (nats, steered −
            base), prob_base, prob_steered, rank_base, rank_steered (1 is the likeliest), kl_part (nats, the token's
            term of KL(steered ‖ base); negative for falls), top ("rise", "fall" or ""), followed (bool).
        summary: one row per condition (the unsteered one included) × prompt × position. Columns: the same first
            eight, kl (nats), entropy (nats), entropy_base, top_token, top_prob, top_prob_base (of that token).
        mean_frame: for several prompts at their last positions, the columns of `frame` averaged over the prompts
            for the tokens whose mean moved most, with low and high (95 % Student-t interval of shift) and n_prompts.
        settings: everything needed to repeat it, as plain data.
    """

    frame: pd.DataFrame
    summary: pd.DataFrame
    mean_frame: pd.DataFrame | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def plot(
        self, *, condition: str | None = None, prompt: str | None = None, position: int | None = None
    ) -> go.Figure:
        """Bars of the rises and falls; where every position was asked for and words are followed, a heat map of these.

        With several prompts and none chosen, the mean over the prompts (heat map: the first prompt).
        """
        from steerlens.analysis.figures import logit_shift_bars, token_position_heatmap

        prompts = list(self.frame["prompt"].drop_duplicates())
        followed = self.frame[self.frame["followed"]]
        if self.settings.get("positions") == "all" and len(followed) and position is None:
            return token_position_heatmap(followed, condition=condition, prompt=prompt or prompts[0])
        if prompt is None and self.mean_frame is not None:
            return logit_shift_bars(self.mean_frame, top=len(self.mean_frame), condition=condition)
        return logit_shift_bars(
            self.frame, top=len(self.frame), condition=condition, prompt=prompt or prompts[0], position=position
        )

    def report(self, path: str | Path, *, command: str | None = None) -> Path:
        """One self-contained HTML page with figure, tables and settings; returns its path.

        Raises:
            SteerlensError: the place cannot be written (checked before anything is drawn).
        """
        from steerlens.analysis.shift_report import write_shift_report

        return write_shift_report(self, path, command=command)


@torch.no_grad()
def logit_shift(
    model: HookedModel,
    prompts: str | Sequence[str],
    steering: Steering | Sequence[Steering],
    *,
    top_k: int = 10,
    by: By = "shift",
    follow: Words = (),
    pieces: Pieces = "error",
    positions: Positions = "last",
    placement: Placement | None = None,
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> LogitShift:
    """The tokens whose log-probability steering raised and lowered most, with KL, entropy and ranks (nats).

    Everything is reduced on the model's device; no more than a slice of the logits exists at a time, so a vocabulary
    of 128,000 at every position of a long prompt is no matter of memory.

    Args:
        prompts: one text or several.
        steering: a vector, a tuple of vectors (one condition), or a list of conditions; the unsteered model is added.
        top_k: how many rises and how many falls.
        by: what "most" means: the change of log-probability (which favours rare tokens), the token's part of the KL
            divergence, or the change of probability.
        follow: words to report in any case (`" wedding"`, with its space), or token ids.
        pieces: what to do with a followed word that is several tokens: "error", its "first" piece, or "all".
        positions: behind the last token of each prompt, or behind every token.
        placement: where vectors go, for those that come without an Injection; by default each vector's own.
        batch_size, memory_budget: as for `next_token_logits`.

    Raises:
        SteerlensError: nothing steered, an empty prompt, a word of several tokens, `top_k` beyond the vocabulary, a
            vector that does not fit.
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    conditions = against_unsteered(steering, placement=placement)
    job = Comparison.of(model, texts, conditions, positions=positions)
    vocab = int(model.cfg.d_vocab)
    if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= vocab:
        raise SteerlensError(f"top_k must be a whole number from 1 to {vocab} (the vocabulary), got {top_k!r}")
    if by not in ("shift", "kl", "prob"):
        raise SteerlensError(f"by={by!r} is unknown; use 'shift', 'kl' or 'prob'")
    followed = {} if not isinstance(follow, str | int) and not len(follow) else named_tokens(model, follow, pieces=pieces)
    tokens, cells = [], []
    averaging = len(texts) > 1 and positions == "last"
    mean = PromptMean() if averaging else None
    for part in job.cells(batch_size=batch_size, memory_budget=memory_budget):
        tokens.append(_moved_tokens(part, top_k, by, list(followed)))
        cells.append(_cell_numbers(part))
        if mean is not None:
            mean.take(part)
    names = _Names(model, texts, job, conditions)
    frame = names.spread(pd.concat(tokens, ignore_index=True), steered_only=True)
    frame["kl_part"] = frame["prob_steered"] * frame["shift"]
    frame["followed"] = frame["token_id"].isin(list(followed))
    order = ["condition", "_prompt", "position", "shift"]
    frame = frame.sort_values(order, ascending=[True, True, True, False], kind="stable", ignore_index=True)
    summary = names.spread(pd.concat(cells, ignore_index=True), steered_only=False)
    summary = summary.sort_values(order[:3], kind="stable", ignore_index=True)
    settings = {
        "prompts": texts,
        "conditions": [[injection.vector.describe() for injection in one.injections] for one in conditions],
        "labels": [one.label for one in conditions],
        "placements": [one.placement for one in conditions],
        "top_k": top_k,
        "by": by,
        "follow": list(followed.values()),
        "positions": positions,
        **run_settings(model),
    }
    mean_frame = None
    if mean is not None:
        mean_frame = mean.frame(model, conditions, job.distinct, top_k=top_k, by=by, follow=list(followed))
    return LogitShift(frame[list(_COLUMNS)], summary[list(_SUMMARY_COLUMNS)], mean_frame, settings)


_PLACE = ("condition", "label", "layer", "coeff", "placement", "prompt", "position", "context")
_COLUMNS = (
    *_PLACE,
    *("token", "token_id", "logprob_base", "logprob_steered", "shift", "prob_base", "prob_steered"),
    *("rank_base", "rank_steered", "kl_part", "top", "followed"),
)
_SUMMARY_COLUMNS = (*_PLACE, "kl", "entropy", "entropy_base", "top_token", "top_prob", "top_prob_base")


def _moved_tokens(part: Compared, top_k: int, by: By, follow: list[int]) -> pd.DataFrame:
    """One row per cell and token: the rises, the falls and the followed, each token once."""
    steered, base = part.logprobs, part.base
    change = steered - base
    if by == "shift":
        scores = change
    elif by == "kl":
        scores = steered.exp() * change
    else:
        scores = steered.exp() - base.exp()
    rises, falls = scores.topk(top_k, dim=1).indices, scores.topk(top_k, dim=1, largest=False).indices
    named = torch.tensor(follow, dtype=torch.long, device=steered.device).expand(len(steered), -1)
    ids = torch.cat([rises, falls, named], 1)
    columns: dict[str, Tensor] = {"token_id": ids}
    for name, logprobs in (("steered", steered), ("base", base)):
        mine = logprobs.gather(1, ids)
        columns[f"logprob_{name}"] = mine
        # Column by column: [cells vocab] once at a time and never [cells vocab tokens].
        above = [(logprobs > mine[:, i : i + 1]).sum(1) for i in range(ids.shape[1])]
        columns[f"rank_{name}"] = torch.stack(above, 1) + 1
    width = ids.shape[1]
    data = {name: values.flatten().cpu().numpy() for name, values in columns.items()}
    leaf, prompt, position = part.where.repeat_interleave(width, dim=1).numpy()
    frame = pd.DataFrame({"distinct": leaf, "_prompt": prompt, "position": position, **data})
    for name in ("steered", "base"):
        frame[f"logprob_{name}"] = frame[f"logprob_{name}"].astype(np.float64)
        frame[f"prob_{name}"] = np.exp(frame[f"logprob_{name}"])
    frame["shift"] = frame["logprob_steered"] - frame["logprob_base"]
    frame["top"] = np.tile(np.repeat(["rise", "fall", ""], [top_k, top_k, width - 2 * top_k]), len(ids))
    return frame.drop_duplicates(["distinct", "_prompt", "position", "token_id"], ignore_index=True)


def _cell_numbers(part: Compared) -> pd.DataFrame:
    """One row per cell: divergence, entropies, the likeliest token."""
    top = part.logprobs.max(1)
    numbers = {
        "kl": divergence(part.logprobs, part.base),
        "entropy": entropy(part.logprobs),
        "entropy_base": entropy(part.base),
        "token_id": top.indices,
        "top_prob": top.values.exp(),
        "top_prob_base": part.base.gather(1, top.indices[:, None])[:, 0].exp(),
    }
    leaf, prompt, position = part.where.numpy()
    frame = pd.DataFrame({"distinct": leaf, "_prompt": prompt, "position": position})
    for name, values in numbers.items():
        frame[name] = values.cpu().numpy() if name == "token_id" else values.double().cpu().numpy()
    return frame


class _Names:
    """Puts conditions, prompts and tokens in words, and equal conditions back beside each other."""

    def __init__(
        self, model: HookedModel, prompts: Sequence[str], job: Comparison, conditions: Sequence[Condition]
    ) -> None:
        self._model, self._prompts, self._job = model, prompts, job
        table = pd.DataFrame([shared_columns(i, one) for i, one in enumerate(conditions)])
        self._conditions = table.assign(distinct=job.distinct).astype({"layer": "Int64"})
        self._contexts = [token_strings(model, ids) for ids in job.rows]

    def spread(self, rows: pd.DataFrame, *, steered_only: bool) -> pd.DataFrame:
        conditions = self._conditions[1:] if steered_only else self._conditions
        frame = conditions.merge(rows, on="distinct", how="inner")
        ids = frame["token_id"].unique()
        frame["token"] = frame["token_id"].map(dict(zip(ids, token_strings(self._model, ids), strict=True)))
        frame["top_token"] = frame["token"]
        frame["prompt"] = [self._prompts[i] for i in frame["_prompt"]]
        frame["context"] = [
            self._contexts[i][at] for i, at in zip(frame["_prompt"], frame["position"], strict=True)
        ]
        return frame
