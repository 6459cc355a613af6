"""The surprise of completions: what steering costs in fluency, as judged by the unsteered model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.engine.jobs import Passage
from steerlens.engine.passes import Job
from steerlens.engine.sampling import Completions
from steerlens.models import HookedModel
from steerlens.steering.conditions import Condition


@torch.no_grad()
def completion_surprise(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    done: Completions,
    *,
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> Float[Tensor, "conditions prompts samples"]:
    """The mean −log p of a completion's tokens after its prompt under the unsteered model; NaN where it has none.

    In nats per token: the logarithm of the completion's perplexity. The end of text is not counted. Equal completions
    of a prompt are scored once.

    Args:
        prompts: the token ids that the completions were sampled from.
    """
    place_of: dict[tuple[int, tuple[int, ...]], int] = {}
    tokens, lengths = done.tokens.flatten(0, 2).tolist(), done.lengths.flatten().tolist()
    samples = done.tokens.shape[2]
    places = []
    for row, (ids, length) in enumerate(zip(tokens, lengths, strict=True)):
        prompt = row // samples % len(prompts)
        places.append(place_of.setdefault((prompt, tuple(ids[:length])), len(place_of)))
    passages = {
        place: Passage((*prompts[prompt], *ids), len(prompts[prompt]), len(prompts[prompt]) - 1, stop)
        for (prompt, ids), place in place_of.items()
        if ids and (stop := len(prompts[prompt]) + len(ids) - 1)
    }
    found = torch.full((len(place_of),), float("nan"), device="cpu")
    if passages:
        found[list(passages)] = _mean_surprise(
            model, list(passages.values()), batch_size=batch_size, memory_budget=memory_budget
        )
    return found[places].reshape(done.lengths.shape)


def _mean_surprise(
    model: HookedModel, passages: Sequence[Passage], *, batch_size: int | None, memory_budget: int | None
) -> Float[Tensor, " passages"]:
    job = Job.of(model, passages, [Condition()])
    most = max(passage.n_wanted for passage in passages)
    asked = torch.tensor([[*p.ids[p.first + 1 :], *[0] * (most - p.n_wanted)] for p in passages], device="cpu")
    surprise: Tensor | None = None
    for cells in job.cells(batch_size=batch_size, memory_budget=memory_budget):
        logits = cells.logits.float()
        if surprise is None:
            asked = asked.to(logits.device)
            surprise = logits.new_zeros(asked.shape)
        token = asked[cells.passage, cells.offset]
        surprise[cells.passage, cells.offset] = logits.logsumexp(1) - logits.gather(1, token[:, None])[:, 0]
    assert surprise is not None
    counts = torch.tensor([passage.n_wanted for passage in passages], device="cpu")
    return surprise.sum(1).cpu() / counts
