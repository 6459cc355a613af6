"""`logit_shift`: the next tokens that steering made more or less likely, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from steerlens.analysis.compared import Compared, Comparison, Positions, against_unsteered, shared_columns
from steerlens.analysis.effectiveness import divergence, entropy, ranks
from steerlens.analysis.injected import injected_rows
from steerlens.analysis.named_tokens import Pieces, Words, followed_tokens
from steerlens.analysis.prompt_mean import PromptMean
from steerlens.arguments import choice, finite_number, whole_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, for_one_thread, require_model
from steerlens.models.run_settings import run_settings
from steerlens.showing import Shown
from steerlens.steering import Condition, Placement, Steering
from steerlens.steering.prompts import PromptLike, read_prompts
from steerlens.steering.tokens import token_strings

if TYPE_CHECKING:
    import plotly.graph_objects as go

By = Literal["shift", "kl", "prob"]


@dataclass(frozen=True, eq=False, repr=False)
class LogitShift(Shown):
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
        from steerlens.analysis.shift_page import shift_figure

        return shift_figure(
            self.frame, self.mean_frame, self.settings, condition=condition, prompt=prompt, position=position
        )

    def report(self, path: str | Path, *, command: str | None = None) -> Path:
        """One self-contained HTML page with figure, tables and settings; returns its path.

        Raises:
            SteerlensError: the place cannot be written (checked before anything is drawn).
        """
        from steerlens.analysis.shift_page import shift_page
        from steerlens.reports.writing import write_page

        return write_page(
            path, lambda: shift_page(self.frame, self.summary, self.mean_frame, self.settings, command=command)
        )

    def _told(self) -> tuple[str, Mapping[str, object]]:
        steered = self.summary[self.summary["condition"] > 0]
        facts: dict[str, object] = {
            "conditions": steered["condition"].nunique(),
            "prompts": steered["prompt"].nunique(),
            "largest KL divergence": f"{steered['kl'].max():.3g} nats",
        }
        if len(self.frame):
            row = self.frame.loc[self.frame["shift"].idxmax()]
            facts["largest rise"] = f"{row['token']!r}, {row['prob_base']:.2g} → {row['prob_steered']:.2g}"
        return f"on {self.settings.get('model', 'a model')}", facts


@for_one_thread
@torch.no_grad()
def logit_shift(
    model: HookedModel,
    prompts: PromptLike | Sequence[PromptLike],
    steering: Steering | Sequence[Steering],
    *,
    top_k: int = 10,
    by: By = "shift",
    min_prob: float = 0.0,
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
        prompts: one prompt or several (texts, chats, token ids).
        steering: a vector, a tuple of vectors (one condition), or a list of conditions; the unsteered model is added.
        top_k: how many rises and how many falls.
        by: what "most" means: the change of log-probability (which favours rare tokens), the token's part of the KL
            divergence, or the change of probability.
        min_prob: pass over tokens that neither run gives this probability (1e-4, say, leaves the rare ones out, whose
            log-probability moves most and matters least); followed words stay.
        follow: words to report in any case (`" wedding"`, with its space), or token ids.
        pieces: what to do with a followed word that is several tokens: "error", its "first" piece, or "all".
        positions: behind the last token of each prompt, or behind every token.
        placement: where vectors go, for those that come without an Injection; by default each vector's own.
        batch_size, memory_budget: as for `next_token_logits`.

    Raises:
        SteerlensError: nothing steered, an empty prompt, a word of several tokens, `top_k` beyond the vocabulary, a
            vector that does not fit.
    """
    require_model(model)
    given = read_prompts(model, prompts)
    texts = [prompt.text for prompt in given]
    conditions = against_unsteered(steering, placement=placement)
    job = Comparison.of(model, given, conditions, positions=positions)
    vocab = int(model.cfg.d_vocab)
    top_k = whole_number("top_k", top_k, least=1, most=vocab)
    choice("by", by, ("shift", "kl", "prob"))
    min_prob = finite_number("min_prob", min_prob, least=0, below=1)
    if not 0.0 <= min_prob < 1.0:
        raise SteerlensError(f"min_prob is a probability from 0 to below 1, got {min_prob!r}")
    followed = followed_tokens(model, follow, pieces=pieces)
    tokens, cells = [], []
    averaging = len(texts) > 1 and positions == "last"
    mean = PromptMean() if averaging else None
    reach = _reach(model, conditions, job)
    steered = set(job.distinct[1:])
    for part in job.cells(batch_size=batch_size, memory_budget=memory_budget):
        cells.append(_cell_numbers(part))
        if (moved := part.of(steered)) is not None:
            tokens.append(_moved_tokens(moved, top_k, by, min_prob, list(followed), reach))
            if mean is not None:
                mean.take(moved)
    rows = _Rows(model, texts, job, conditions)
    frame = rows.spread(tokens, _COLUMNS, steered_only=True)
    frame["followed"] = frame["token_id"].isin(list(followed))
    summary = rows.spread(cells, _SUMMARY_COLUMNS, steered_only=False)
    summary.loc[summary["top_prob"].isna(), "top_token"] = ""
    settings = {
        "prompts": texts,
        "conditions": [[injection.vector.describe() for injection in one.injections] for one in conditions],
        "labels": [one.label for one in conditions],
        "placements": [one.placement for one in conditions],
        "top_k": top_k,
        "by": by,
        "min_prob": min_prob,
        "follow": list(followed.values()),
        "positions": positions,
        **run_settings(model),
    }
    mean_frame = None
    if mean is not None:
        mean_frame = mean.frame(
            model, conditions, job.distinct, top_k=top_k, by=by, min_prob=min_prob, follow=list(followed)
        )
    return LogitShift(frame, summary, mean_frame, settings)


Arrays = dict[str, np.ndarray]

_COLUMNS = (
    *("token", "token_id", "logprob_base", "logprob_steered", "shift", "prob_base", "prob_steered"),
    *("rank_base", "rank_steered", "kl_part", "top"),
)
_SUMMARY_COLUMNS = ("kl", "entropy", "entropy_base", "top_token", "top_prob", "top_prob_base")


def _reach(model: HookedModel, conditions: Sequence[Condition], job: Comparison) -> dict[tuple[int, int], int]:
    """By distinct condition and prompt: the first position at which anything is added; what comes before is as it was.

    (Exactly so in theory. Rows of another batch may round differently, and rounding is no rise.)
    """
    reach: dict[tuple[int, int], int] = {}
    for distinct, condition in zip(job.distinct, conditions, strict=True):
        for prompt, (ids, spans) in enumerate(zip(job.rows, job.spans, strict=True)):
            places = [
                position
                for injection in condition.injections
                for position, row in injected_rows(model, injection, ids, spans).items()
                if bool(injection.vector.values[row].any())
            ]
            reach[distinct, prompt] = min(places, default=len(ids))
    return reach


def _moved_tokens(
    part: Compared,
    top_k: int,
    by: By,
    min_prob: float,
    follow: list[int],
    reach: Mapping[tuple[int, int], int],
) -> Arrays:
    """One entry per cell and token: the rises, the falls and the followed, each token once.

    Rises rise and falls fall: where nothing has moved, or there is no distribution, none is named.
    """
    steered, base = part.logprobs, part.base
    change = steered - base
    if by == "shift":
        scores = change
    elif by == "kl":
        scores = steered.exp() * change
    else:
        scores = steered.exp() - base.exp()
    # By log-probabilities: of the two, the probability itself would cost another [cells vocab] each.
    enough = torch.maximum(steered, base) >= (math.log(min_prob) if min_prob else -math.inf)
    reached = [position >= reach[leaf, prompt] for leaf, prompt, position in part.where.T.tolist()]
    enough = enough & torch.tensor(reached, device=enough.device)[:, None]
    rises = scores.where(enough, -math.inf).topk(top_k, dim=1).indices
    falls = scores.where(enough, math.inf).topk(top_k, dim=1, largest=False).indices
    named = torch.tensor(follow, dtype=torch.long, device=steered.device).expand(len(steered), -1)
    ids = torch.cat([rises, falls, named], 1)
    width = ids.shape[1]
    found: dict[str, Tensor] = {"token_id": ids}
    for name, logprobs in (("steered", steered), ("base", base)):
        mine = logprobs.gather(1, ids)
        found[f"logprob_{name}"] = mine.double() if mine.device.type != "mps" else mine
        found[f"rank_{name}"] = ranks(logprobs, ids)
    # A followed token may be among the rises, and in a small vocabulary a rise among the falls: the first one stays.
    earlier = torch.ones(width, width, device=ids.device).tril(-1).bool()
    rose = enough.gather(1, rises) & (scores.gather(1, rises) > 0)
    fell = enough.gather(1, falls) & (scores.gather(1, falls) < 0)
    valid = torch.cat([rose, fell, torch.ones_like(named, dtype=torch.bool)], 1)
    again = ((ids[:, :, None] == ids[:, None, :]) & earlier & valid[:, None, :]).any(2)
    once = (valid & ~again).flatten().cpu().numpy()
    arrays = {name: values.flatten().cpu().numpy()[once] for name, values in found.items()}
    for name in ("steered", "base"):
        if (lost := np.isnan(arrays[f"logprob_{name}"])).any():  # without a distribution there is no rank
            arrays[f"rank_{name}"] = np.where(lost, np.nan, arrays[f"rank_{name}"])
    leaf, prompt, position = part.where.repeat_interleave(width, dim=1).numpy()[:, once]
    arrays |= {"distinct": leaf, "prompt": prompt, "position": position}
    for name in ("steered", "base"):
        arrays[f"prob_{name}"] = np.exp(arrays[f"logprob_{name}"])
    arrays["shift"] = arrays["logprob_steered"] - arrays["logprob_base"]
    arrays["kl_part"] = arrays["prob_steered"] * arrays["shift"]
    kinds = np.array(["rise"] * top_k + ["fall"] * top_k + [""] * len(follow), dtype=object)
    arrays["top"] = np.tile(kinds, len(ids))[once]
    return arrays


def _cell_numbers(part: Compared) -> Arrays:
    """One entry per cell: divergence, entropies, the likeliest token."""
    top = part.logprobs.max(1)
    numbers = {
        "kl": divergence(part.logprobs, part.base),
        "entropy": entropy(part.logprobs),
        "entropy_base": entropy(part.base),
        "top_prob": top.values.exp(),
        "top_prob_base": part.base.gather(1, top.indices[:, None])[:, 0].exp(),
        "token_id": top.indices,
    }
    arrays = {name: values.cpu().numpy() for name, values in numbers.items()}
    arrays |= dict(zip(("distinct", "prompt", "position"), part.where.numpy(), strict=True))
    arrays["shift"] = np.zeros(len(part.logprobs))
    return arrays


class _Rows:
    """Makes frames of arrays: conditions, prompts and tokens in words, equal conditions back beside each other."""

    def __init__(
        self, model: HookedModel, prompts: Sequence[str], job: Comparison, conditions: Sequence[Condition]
    ) -> None:
        self._model, self._job, self._conditions = model, job, conditions
        self._prompts = np.array([*prompts, None], dtype=object)[:-1]
        self._contexts = [np.array([*token_strings(model, ids), None], dtype=object) for ids in job.rows]

    def spread(self, parts: Sequence[Arrays], columns: Sequence[str], *, steered_only: bool) -> pd.DataFrame:
        together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        numbers = range(1 if steered_only else 0, len(self._conditions))
        rows_of = [np.flatnonzero(together["distinct"] == self._job.distinct[number]) for number in numbers]
        condition = np.repeat(np.array(numbers), [len(rows) for rows in rows_of])
        rows = np.concatenate(rows_of)
        data = {name: values[rows] for name, values in together.items()}
        order = np.lexsort((-data["shift"], data["position"], data["prompt"], condition))
        data, condition = {name: values[order] for name, values in data.items()}, condition[order]
        named = [shared_columns(number, one) for number, one in enumerate(self._conditions)]
        result: dict[str, Any] = {name: [named[i][name] for i in condition] for name in named[0]}
        result["layer"] = pd.array(result["layer"], dtype="Int64")
        result["prompt"] = self._prompts[data["prompt"]]
        result["position"] = data["position"]
        places = zip(data["prompt"], data["position"], strict=True)
        result["context"] = [self._contexts[prompt][position] for prompt, position in places]
        ids, back = np.unique(data["token_id"], return_inverse=True)
        strings = np.array([*token_strings(self._model, ids.tolist()), None], dtype=object)
        data["token"] = data["top_token"] = strings[back]
        result |= {name: data[name] for name in columns}
        return pd.DataFrame(result)
