"""`generate`: completions as a tidy frame, one row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Unpack

import pandas as pd

from steerlens.arguments import flag, whole_number
from steerlens.engine.broken_rows import warn_of_lost
from steerlens.engine.sampling import Completions, sample
from steerlens.engine.sampling_settings import (
    Sampling,
    SamplingOptions,
    chosen_sampling,
    shows_sampling_options,
)
from steerlens.engine.stopping import Stops
from steerlens.engine.surprise import completion_surprise
from steerlens.errors import SteerlensError, visible
from steerlens.models import HookedModel, for_one_thread, require_model
from steerlens.progress import progress_bar
from steerlens.steering.conditions import Condition, Steering, as_conditions, check_conditions
from steerlens.steering.fits import check_fits
from steerlens.steering.placement import Placement
from steerlens.steering.prompting import prompted
from steerlens.steering.prompts import Prompt, PromptLike, read_prompts
from steerlens.steering.tokens import reader_after

# Below this many tokens a run is over before a progress bar says anything.
_LONG_RUN_TOKENS = 4000
# More takes tens of gigabytes for the result alone, and years on most machines.
_MOST_TOKENS = 2_000_000_000


@for_one_thread
@shows_sampling_options(Sampling())
def generate(
    model: HookedModel,
    prompts: PromptLike | Sequence[PromptLike],
    steering: Steering | list[Steering] = None,
    *,
    sampling: Sampling | None = None,
    placement: Placement | None = None,
    surprise: bool = False,
    batch_size: int | None = None,
    memory_budget: int | None = None,
    use_cache: bool = True,
    compile: bool = False,
    progress: bool | None = None,
    **options: Unpack[SamplingOptions],
) -> pd.DataFrame:
    """`n` completions of each prompt under each condition, one row per completion.

    The sampling defaults are the paper's (arXiv 2308.10248, section 4: temperature 1, top-p 0.3, frequency penalty 1).
    A completion's random numbers depend on the seed, the prompt and its sample number alone; the caller's random state
    is not touched. So the same job with the same batch size gives the same text. In another job, or with another batch
    size, logits agree up to rounding, and a completion may diverge at a token where rounding tips the balance: few do
    in float32, many in bfloat16. Samples are paired: sample 7 draws the same random numbers under every condition.

    Args:
        prompts: one prompt or several: texts, chats, token ids (see `PromptLike`).
        steering: None (unsteered), a vector, a tuple of vectors (one condition), words (`Prompting`), or a
            list of conditions.
        sampling: how many completions and how they are drawn; by default `Sampling()`.
        n, max_new_tokens, temperature, top_k, top_p, frequency_penalty, seed, stop_at_end, stop: fields of
            `Sampling` by name, in place of those of `sampling`.
        placement: where vectors go, for those that come without an Injection; by default each vector's own.
        surprise: also measure how surprising each completion is to the unsteered model (one more pass over them).
        batch_size: rows decoded together; by default as many as keep the device busy and fit its free memory.
        memory_budget: bytes for keys, values and logits instead of what the device has free.
        use_cache: False decodes without a key-value cache (slow; the same tokens).
        compile: compile the decode of a HookedTransformer with `torch.compile` (CUDA graphs on an accelerator). The
            first batch of each shape waits for the compiler; worth it for long runs. Rows that end stay in the batch.
        progress: show progress; by default, on long runs, a bar in a terminal and an occasional line elsewhere.

    Returns:
        Columns: condition (number in the order given), label, layer (<NA> for none or several), coeff, placement,
        prompt (a chat as "role: content" lines), sample, completion (text without the prompt and without what ended
        it), n_tokens, finished (reached its end), seed. Where steering overflows the model, a warning names the
        condition, and its completions are "", with n_tokens 0 and not finished; the others stand. With
        `surprise` also surprise (mean −log p of its tokens under the unsteered model, nats; NaN without tokens).
        `frame.attrs["receipts"]` lists what was injected where, `frame.attrs["dtype"]` names the model's.

    Raises:
        SteerlensError: an empty prompt, n = 0, a vector that does not fit, a completion that exceeds the context, a
            seed that is not a whole number, `compile` on a model that does not support it.
    """
    sampling = chosen_sampling(sampling, options, default=Sampling())
    surprise, use_cache, compile = (
        flag(*one) for one in (("surprise", surprise), ("use_cache", use_cache), ("compile", compile))
    )
    progress = None if progress is None else flag("progress", progress)
    conditions = as_conditions(steering, placement=placement, words=True)
    given = check_job(model, prompts, conditions, sampling=sampling, batch_size=batch_size)
    rows = [prompt.ids for prompt in given]
    total = len(conditions) * len(given) * sampling.n * sampling.max_new_tokens
    wanted = total >= _LONG_RUN_TOKENS if progress is None else progress
    with progress_bar(total, unit="token", what="sampling", scale=True, progress=progress if wanted else False) as bar:
        done = sample(
            model,
            rows,
            conditions,
            spans=[prompt.spans for prompt in given],
            told=_told(model, given, conditions, sampling),
            sampling=sampling,
            batch_size=batch_size,
            memory_budget=memory_budget,
            use_cache=use_cache,
            compiled=compile,
            on_tokens=bar.update,
        )
        bar.update(total - bar.n)  # completions that ended early
    frame = completions_frame(model, given, conditions, done, seed=sampling.seed)
    warn_of_lost(_without_text(conditions, done))
    if surprise:
        measured = completion_surprise(model, rows, done, batch_size=batch_size, memory_budget=memory_budget)
        frame.insert(frame.columns.get_loc("seed"), "surprise", measured.flatten().double().numpy())
    return frame


def check_job(
    model: HookedModel,
    prompts: PromptLike | Sequence[PromptLike],
    conditions: Sequence[Condition],
    *,
    sampling: Sampling,
    batch_size: int | None,
) -> list[Prompt]:
    """The prompts of a job.

    Raises:
        SteerlensError: a job that `generate` cannot do, as far as can be told before the model runs.
    """
    require_model(model)
    check_conditions(model, conditions)
    given = read_prompts(model, prompts)
    if batch_size is not None:
        whole_number("batch_size", batch_size, least=1)
    tokens = len(conditions) * len(given) * sampling.n * sampling.max_new_tokens
    if tokens > _MOST_TOKENS:
        raise SteerlensError(
            f"{len(conditions)} conditions × {len(given)} prompts × n={sampling.n} × {sampling.max_new_tokens} tokens "
            f"are more than one job holds ({_MOST_TOKENS:,} tokens); ask for fewer, or in several calls"
        )
    lengths, spans, names = zip(*((len(prompt), prompt.spans, prompt.text) for prompt in given), strict=True)
    check_fits(conditions, lengths, spans=spans, names=names)
    _told(model, given, conditions, sampling)
    return given


def _told(
    model: HookedModel, prompts: Sequence[Prompt], conditions: Sequence[Condition], sampling: Sampling
) -> dict[int, list[tuple[int, ...]]]:
    """For each condition of words, by its number, the tokens that the model reads in place of each prompt."""
    return {
        number: [one.ids for one in prompted(model, prompts, words, max_new_tokens=sampling.max_new_tokens)]
        for number, condition in enumerate(conditions)
        if (words := condition.prompting) is not None
    }


def completions_frame(
    model: HookedModel, prompts: Sequence[Prompt], conditions: Sequence[Condition], done: Completions, *, seed: int
) -> pd.DataFrame:
    """The frame of `generate` for sampled completions, in the order condition, prompt, sample."""
    tokens, lengths = done.tokens.tolist(), done.lengths.tolist()
    finished = done.finished.tolist()
    readers = [reader_after(model, prompt.ids) for prompt in prompts]
    records = [
        {
            "condition": c,
            "label": condition.label,
            "layer": condition.layer,
            "coeff": condition.coeff,
            "placement": condition.placement,
            "prompt": prompt.text,
            "sample": s,
            "completion": _completion(done.stops, ids, length, readers[p]),
            "n_tokens": length,
            "finished": finished[c][p][s],
            "seed": seed,
        }
        for c, condition in enumerate(conditions)
        for p, prompt in enumerate(prompts)
        for s, (ids, length) in enumerate(zip(tokens[c][p], lengths[c][p], strict=True))
    ]
    frame = pd.DataFrame.from_records(records).astype({"layer": "Int64"})
    frame.attrs["dtype"] = str(next(iter(model.parameters())).dtype).removeprefix("torch.")  # type: ignore[attr-defined]
    frame.attrs["receipts"] = [[asdict(receipt) for receipt in mine] for mine in done.receipts]
    return frame


def _without_text(conditions: Sequence[Condition], done: Completions) -> list[str]:
    """The conditions with completions that are none, as a warning names them."""
    lost = ((done.lengths == 0) & ~done.finished).flatten(1).any(1).tolist()
    return [
        f"{visible(condition.label):.60} ({'' if condition.layer is None else f'layer {condition.layer}, '}coefficient "
        f"{condition.coeff:g})"
        for number, condition in enumerate(conditions)
        if lost[number]
    ]


def _completion(stops: Stops, ids: Sequence[int], length: int, read: Callable[[Sequence[int]], str]) -> str:
    """The text of a completion, without the stop text that ended it."""
    if not length:
        return ""
    if stops.texts:
        text = read(ids)
        place = stops.first_in(text)
        if place is not None:
            return text[: place[0]]
    return read(ids[:length])
