"""Log-probabilities of the tokens of many sentences under many conditions, reduced on the device as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.engine.jobs import Passage
from steerlens.engine.passes import Job
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering import Condition
from steerlens.steering.tokens import continuation_ids, token_ids


@dataclass(frozen=True, eq=False)
class Rows:
    """Token rows that are scored: sentences, each behind the same beginning.

    Attributes:
        rows: their tokens, the beginning (BOS, or BOS and a phrase) included.
        first: the first position whose prediction counts.
        of: for every predicted token, in order, which of the rows it stands in.
        position: … the position that predicts it (BOS is 0).
        token: … its id.
    """

    rows: tuple[tuple[int, ...], ...]
    first: int
    of: Int[Tensor, " token"]
    position: Int[Tensor, " token"]
    token: Int[Tensor, " token"]

    @staticmethod
    def of_sentences(sentences: Sequence[Sequence[int]], beginning: Sequence[int]) -> Rows:
        """The rows of tokenised sentences behind `beginning`; every token of a sentence counts that has one before."""
        rows = tuple((*beginning, *sentence) for sentence in sentences)
        first = max(len(beginning) - 1, 0)
        counts = torch.tensor([len(row) - 1 - first for row in rows], dtype=torch.long)
        position = [torch.arange(first, len(row) - 1) for row in rows]
        token = [torch.tensor(row[first + 1 :], dtype=torch.long) for row in rows]
        none = torch.empty(0, dtype=torch.long)
        return Rows(
            rows,
            first,
            torch.arange(len(rows)).repeat_interleave(counts),
            torch.cat([none, *position]),
            torch.cat([none, *token]),
        )


@torch.no_grad()
def token_logprobs(
    model: HookedModel,
    rows: Rows,
    conditions: Sequence[Condition],
    *,
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> Float[Tensor, "condition token"]:
    """Log-probability (nats) of every predicted token of the rows under each condition, on the model's device.

    One growing batch of all conditions; no more than a slice of the logits exists at a time.

    Raises:
        SteerlensError: a vector that does not fit, a batch that does not; NaN.
    """
    passages = [Passage(row, len(row), rows.first, len(row) - 1) for row in rows.rows]
    if not passages:
        return torch.empty(len(conditions), 0)
    job = Job.of(model, passages, conditions)
    counts = torch.tensor([passage.n_wanted for passage in passages])
    begin, asked = counts.cumsum(0) - counts, rows.token
    found: Tensor | None = None
    for cells in job.cells(batch_size=batch_size, memory_budget=memory_budget):
        logits = cells.logits if cells.logits.dtype == torch.float64 else cells.logits.float()
        if found is None:
            begin, asked = begin.to(logits.device), asked.to(logits.device)
            found = logits.new_zeros(len(job.tree.leaves), len(rows.token))
        place = begin[cells.passage] + cells.offset
        found[cells.leaf, place] = logits.gather(1, asked[place][:, None])[:, 0] - logits.logsumexp(1)
    assert found is not None
    broken = ~found.isfinite().all(1)
    for condition, leaf in zip(conditions, job.tree.leaf_of, strict=True):
        if broken[leaf]:
            raise SteerlensError(
                f"{condition.label!r} gives log-probabilities that are not finite; use smaller coefficients, or load "
                "the model in float32"
            )
    return found[torch.tensor(job.tree.leaf_of, device=found.device)]


@dataclass(frozen=True, eq=False)
class Windows:
    """Texts as sentences, tokenised without BOS; what is too long for the model is cut into windows.

    Attributes:
        ids: the tokens of each window; none is empty.
        text: which text each is of.
        n_sentences, n_cut: how many sentences there were, and how many of them became several windows.
    """

    ids: tuple[tuple[int, ...], ...]
    text: tuple[int, ...]
    n_sentences: int
    n_cut: int

    @staticmethod
    def of(model: HookedModel, texts: Sequence[str], split: Callable[[str], list[str]], *, most: int) -> Windows:
        """The windows of `texts`, of at most `most` tokens each.

        Raises:
            SteerlensError: a model whose context leaves no room for a token.
        """
        if most < 1:
            raise SteerlensError(
                f"the model reads {model.cfg.n_ctx} tokens, which leaves none for a sentence behind the phrase; "
                "shorten the prompts of the pair"
            )
        ids: list[tuple[int, ...]] = []
        of: list[int] = []
        n_sentences = n_cut = 0
        for number, text in enumerate(texts):
            for sentence in split(text):
                tokens = continuation_ids(model, sentence)
                parts = [tuple(tokens[start : start + most]) for start in range(0, len(tokens), most)]
                ids.extend(parts)
                of.extend([number] * len(parts))
                n_sentences += 1
                n_cut += len(parts) > 1
        return Windows(tuple(ids), tuple(of), n_sentences, n_cut)


def opening(model: HookedModel) -> list[int]:
    """What the model's rows begin with: BOS, or nothing."""
    return token_ids(model, "")
