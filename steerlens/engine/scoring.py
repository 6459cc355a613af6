"""Next-token logits and log-probabilities of given texts, for one condition or many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import texts as read_texts
from steerlens.engine.budget import require_room
from steerlens.engine.jobs import Passage
from steerlens.engine.passes import Job
from steerlens.engine.scores import Scores
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, for_one_thread, require_model
from steerlens.steering.conditions import Steering, as_conditions
from steerlens.steering.placement import Placement
from steerlens.steering.prompts import Prompt, PromptLike, following_ids, is_one_prompt, read_prompt, read_prompts
from steerlens.steering.tokens import token_ids, token_strings


@for_one_thread
@torch.no_grad()
def next_token_logits(
    model: HookedModel,
    prompts: PromptLike | Sequence[PromptLike],
    steering: Steering | Sequence[Steering] = None,
    *,
    placement: Placement | None = None,
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> Float[Tensor, "*condition_prompt d_vocab"]:
    """Logits of the token after each prompt, under each condition.

    Equal to `with model.hooks(…): model(tokens)[:, -1]` for every prompt and condition separately. Hooks already on the
    model act as they would there. All logits are kept in memory; `reduce_next_tokens` avoids that.

    Args:
        prompts: one prompt or several, of any lengths: texts, chats, token ids (see `PromptLike`).
        steering: a SteeringVector, a tuple of vectors (one condition), a Condition, None (unsteered), or a list of
            those (many conditions).
        placement: where vectors go that are not wrapped in an Injection; by default each vector's own.
        batch_size: rows that run together; by default as many as the device has room for.
        memory_budget: bytes for activations instead of what the device has free.

    Returns:
        [condition prompt d_vocab] in the model's dtype and on its device; a single prompt drops the prompt axis,
        anything but a list of conditions drops the condition axis.

    Raises:
        SteerlensError: an empty prompt, a vector from another model or longer than a prompt, a budget too small, logits
            that the device has no room for.
    """
    require_model(model)
    conditions = as_conditions(steering, placement=placement)
    rows = read_prompts(model, prompts)
    passages = [Passage(one.ids, len(one), len(one) - 1, len(one), one.spans) for one in rows]
    job = Job.of(model, passages, conditions)
    result: Tensor | None = None
    for cells in job.cells(batch_size=batch_size, memory_budget=memory_budget):
        if result is None:
            require_room(model, len(job.tree.leaf_of) * len(rows))
            result = cells.logits.new_empty(len(job.tree.leaves), len(rows), cells.logits.shape[-1])
        result[cells.leaf, cells.passage] = cells.logits
    assert result is not None
    if job.tree.leaf_of != tuple(range(len(job.tree.leaves))):
        result = result[torch.tensor(job.tree.leaf_of, device=result.device)]
    if is_one_prompt(prompts):
        result = result[:, 0]
    return result if isinstance(steering, list) else result[0]


@for_one_thread
@torch.no_grad()
def score(
    model: HookedModel,
    texts: str | Sequence[str],
    steering: Steering | Sequence[Steering] = None,
    *,
    prompt: PromptLike | Sequence[PromptLike] | None = None,
    placement: Placement | None = None,
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> Scores:
    """Log-probability of every token of given texts under each condition: one row per condition × text × token.

    A frame whose `.plot()` is the text with its tokens coloured.

    Without a prompt the text itself is steered, and scored from its second token on (from its first real token if the
    model prepends BOS). With a prompt, the text continues the prompt: placements are determined by the prompt, as in
    generation (`"all"` extends over the text), and only the text's own tokens are scored.

    Args:
        texts: one text or several.
        steering, placement, batch_size, memory_budget: as for `next_token_logits`.
        prompt: one prompt for all texts, or a list with one per text: texts, chats, token ids. A text is tokenised in
            place, as a continuation of its prompt.

    Returns:
        columns: condition (int, order of the job), label (str), layer (Int64, NA for unsteered or several layers),
        coeff (float), placement (str), prompt (str, "" without), text_index (int), text (str), position (int: of the
        token in the whole sequence, BOS at 0), token (str), token_id (int), logprob (float, nats).

    Raises:
        SteerlensError: an empty text, a text without a token to predict, prompt and text longer than the model's
            context, a number of prompts that is neither one nor that of the texts; and what `next_token_logits` raises.
    """
    require_model(model)
    conditions = as_conditions(steering, placement=placement)
    given = read_texts("texts", texts)
    prompts = _prompts_for(model, prompt, len(given))
    passages = [_scored(model, text, before) for text, before in zip(given, prompts, strict=True)]
    job = Job.of(model, passages, conditions)
    most = max(passage.n_wanted for passage in passages)
    # The target at each wanted position: the token that follows it.
    asked = torch.tensor([[*p.ids[p.first + 1 :], *[0] * (most - p.n_wanted)] for p in passages])
    found: Tensor | None = None
    for cells in job.cells(batch_size=batch_size, memory_budget=memory_budget):
        logits = cells.logits if cells.logits.dtype == torch.float64 else cells.logits.float()
        if found is None:
            asked = asked.to(logits.device)
            found = logits.new_full((len(job.tree.leaves), *asked.shape), float("nan"))
        token = asked[cells.passage, cells.offset]
        found[cells.leaf, cells.passage, cells.offset] = logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(1)
    assert found is not None
    logprobs = found.cpu().tolist()
    strings = {ids: token_strings(model, ids) for ids in {p.ids[p.first + 1 :] for p in passages}}
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for number, condition in enumerate(conditions):
        for index, (text, before, passage) in enumerate(zip(given, prompts, passages, strict=True)):
            n, ids = passage.n_wanted, passage.ids[passage.first + 1 :]
            shared = (number, condition.label, condition.layer, condition.coeff, condition.placement)
            own = ("" if before is None else before.text, index, text)
            for name, value in zip(_COLUMNS, (*shared, *own), strict=False):
                columns[name].extend([value] * n)
            columns["position"].extend(range(passage.first + 1, passage.stop + 1))
            columns["token"].extend(strings[ids])
            columns["token_id"].extend(ids)
            columns["logprob"].extend(logprobs[job.tree.leaf_of[number]][index][:n])
    frame = pd.DataFrame(columns)
    frame["layer"] = pd.array(columns["layer"], dtype="Int64")
    return Scores(frame)


_COLUMNS = (
    "condition",
    "label",
    "layer",
    "coeff",
    "placement",
    "prompt",
    "text_index",
    "text",
    "position",
    "token",
    "token_id",
    "logprob",
)


def _scored(model: HookedModel, text: str, prompt: Prompt | None) -> Passage:
    """The tokens of a text, after its prompt if it has one, and the positions that predict them."""
    if prompt is None:
        ids = token_ids(model, text)
        if text == "" or len(ids) < 2:
            raise SteerlensError(
                f"the text {text!r} has {len(ids)} token{'s' * (len(ids) != 1)} and nothing to be predicted from; "
                "give a longer text, or a prompt= before it"
            )
        return Passage(tuple(ids), len(ids), 0, len(ids) - 1)
    before, after = list(prompt.ids), following_ids(model, prompt, text)
    if not after:
        raise SteerlensError("a text is empty; give at least one token to score")
    ids = before + after
    if len(ids) > model.cfg.n_ctx:
        raise SteerlensError(
            f"a prompt of {len(before)} tokens and a text of {len(after)} do not fit the model's context of "
            f"{model.cfg.n_ctx}; shorten one of them"
        )
    return Passage(tuple(ids), len(before), len(before) - 1, len(ids) - 1, prompt.spans)


def _prompts_for(
    model: HookedModel, prompt: PromptLike | Sequence[PromptLike] | None, n: int
) -> Sequence[Prompt | None]:
    if prompt is None:
        return [None] * n
    if is_one_prompt(prompt):
        return [read_prompt(model, prompt)] * n  # type: ignore[arg-type]
    prompts = read_prompts(model, prompt)
    if len(prompts) != n:
        raise SteerlensError(f"{len(prompts)} prompts for {n} texts; give one prompt for all, or one per text")
    return prompts
