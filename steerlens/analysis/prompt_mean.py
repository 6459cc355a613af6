"""The mean shift of every token over several prompts, kept on the device: a few numbers per token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from steerlens.analysis.compared import Compared, shared_columns
from steerlens.measures.statistics import t_quantile
from steerlens.models import HookedModel
from steerlens.steering import Condition
from steerlens.steering.tokens import token_strings


class PromptMean:
    """Running means over prompts, by condition, and the spread of the shift (Welford 1962: no cancellation)."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._means: dict[int, dict[str, Tensor]] = {}
        self._squares: dict[int, Tensor] = {}

    def take(self, part: Compared) -> None:
        """Count the cells in; each is one prompt under one condition."""
        for i, leaf in enumerate(part.where[0].tolist()):
            steered, base = part.logprobs[i], part.base[i]
            prob = steered.exp()
            new = {
                "logprob_base": base,
                "logprob_steered": steered,
                "prob_base": base.exp(),
                "prob_steered": prob,
                "kl_part": prob * (steered - base),
            }
            self._seen[leaf] = n = self._seen.get(leaf, 0) + 1
            if n == 1:
                self._means[leaf] = {name: value.clone() for name, value in new.items()}
                self._squares[leaf] = torch.zeros_like(base)
                continue
            means = self._means[leaf]
            before = means["logprob_steered"] - means["logprob_base"]
            for name, value in new.items():
                means[name] += (value - means[name]) / n
            after = means["logprob_steered"] - means["logprob_base"]
            change = steered - base
            self._squares[leaf] += (change - before) * (change - after)

    def frame(
        self,
        model: HookedModel,
        conditions: Sequence[Condition],
        distinct: Sequence[int],
        *,
        top_k: int,
        by: str,
        min_prob: float,
        follow: Sequence[int],
    ) -> pd.DataFrame:
        """The tokens whose mean moved most, and the followed, per steered condition (see `LogitShift.mean_frame`)."""
        parts = []
        for number, condition in enumerate(conditions):
            if number == 0:
                continue
            means, squares = self._means[distinct[number]], self._squares[distinct[number]]
            n = self._seen[distinct[number]]
            shift = means["logprob_steered"] - means["logprob_base"]
            scores = {"shift": shift, "kl": means["kl_part"], "prob": means["prob_steered"] - means["prob_base"]}[by]
            enough = torch.maximum(means["prob_steered"], means["prob_base"]) >= min_prob
            rises = scores.where(enough, -math.inf).topk(top_k).indices
            falls = scores.where(enough, math.inf).topk(top_k, largest=False).indices
            rises, falls = rises[enough[rises] & (scores[rises] > 0)], falls[enough[falls] & (scores[falls] < 0)]
            ids = torch.cat([rises, falls, torch.tensor(follow, dtype=torch.long, device=shift.device)])
            half = t_quantile(0.975, n - 1) * (squares[ids] / (n - 1) / n).sqrt()
            values = {name: value[ids] for name, value in means.items()}
            values |= {"shift": shift[ids], "low": shift[ids] - half, "high": shift[ids] + half}
            rows = pd.DataFrame({name: value.double().cpu().numpy() for name, value in values.items()})
            rows.insert(0, "token_id", ids.cpu().numpy())
            rows.insert(0, "token", token_strings(model, ids.tolist()))
            rows["top"] = ["rise"] * len(rises) + ["fall"] * len(falls) + [""] * len(follow)
            rows["followed"] = rows["token_id"].isin(list(follow))
            rows = rows.drop_duplicates("token_id").sort_values("shift", ascending=False, kind="stable")
            shared = {**shared_columns(number, condition), "prompt": f"each of {n} prompts (mean)", "n_prompts": n}
            parts.append(rows.assign(**shared))
        frame = pd.concat(parts, ignore_index=True).astype({"layer": "Int64"})
        first = ["condition", "label", "layer", "coeff", "placement", "prompt", "n_prompts"]
        return frame[first + [name for name in frame.columns if name not in first]]
