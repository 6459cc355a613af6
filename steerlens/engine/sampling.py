"""Completions under many conditions: prefill once per condition and prompt, then decode every sample together.

The injection touches only the prompt, so it is paid for once: its keys and values are in the cache that all samples of
a condition share; decoding needs no hook (except for placements that touch generated tokens, such as `"all"`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.engine.broken_rows import NO_TOKEN, refuse_unsteered
from steerlens.engine.budget import decode_rows, most_rows
from steerlens.engine.live_rows import LiveRows
from steerlens.engine.random_streams import row_keys, uniforms
from steerlens.engine.sampler import likely_tokens, may_be_guessed, next_tokens_where_any
from steerlens.engine.sampling_settings import Sampling
from steerlens.engine.stop_texts import end_at_texts, with_stop_texts
from steerlens.engine.stopping import Stops, exempt_from_penalty
from steerlens.errors import SteerlensError
from steerlens.models import Decoder, Decoders, HookedModel, PrefixDecoder, WholeDecoder, for_one_thread, prefill
from steerlens.models.contention import notice_contention
from steerlens.steering.chats import Span
from steerlens.steering.conditions import Condition, gates_of
from steerlens.steering.gates import open_gates, warn_of_closed
from steerlens.steering.injection import injecting
from steerlens.steering.parts import Part
from steerlens.steering.placement import reaches_later
from steerlens.steering.receipts import Receipt
from steerlens.steering.tokens import pad_id, pad_left, reader_after

# Rows that have ended are removed once they are this share of the batch: each removal copies the cache.
_LEAVE_SHARE = 0.25
# Checking whether rows have ended waits for the device; on an accelerator it is done once every so many tokens.
_LOOK_EVERY = {"cpu": 1, "cuda": 16, "mps": 16}


OnDrawn = Callable[[Sequence[tuple[int, int]], int, Tensor], object]
"""Takes (condition, prompt) of each unit of a batch, its first sample number, and its tokens so far, unit × sample ×
new, the fill of `Stops` after an end."""


@dataclass(frozen=True, eq=False)
class Completions:
    """What was sampled, on the CPU.

    Attributes:
        tokens: including those that ended a completion; after that, filled with an end-of-text id.
        lengths: tokens before the end (not counting the end itself, but counting a token in which a stop text begins).
        finished: whether the completion ended by itself. If not, and without a token, its logits overflowed.
        stops: where completions end.
        receipts: what was injected, per condition.
    """

    tokens: Int[Tensor, "conditions prompts samples new"]
    lengths: Int[Tensor, "conditions prompts samples"]
    finished: Bool[Tensor, "conditions prompts samples"]
    receipts: tuple[tuple[Receipt, ...], ...]
    stops: Stops


@dataclass(frozen=True)
class _Unit:
    """One condition on one prompt: the rows that share a prefill."""

    condition: int
    prompt: int


@for_one_thread
@torch.no_grad()
def sample(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    conditions: Sequence[Condition],
    *,
    sampling: Sampling,
    spans: Sequence[Sequence[Span]] | None = None,
    told: Mapping[int, Sequence[Sequence[int]]] | None = None,
    batch_size: int | None = None,
    memory_budget: int | None = None,
    use_cache: bool = True,
    compiled: bool = False,
    on_tokens: Callable[[int], object] | None = None,
    on_drawn: OnDrawn | None = None,
) -> Completions:
    """`sampling.n` completions of every prompt under every condition, in the order of the job.

    A completion depends on (seed, prompt, sample number) and on its own logits, which the batch's shape changes by
    rounding; the same sample number draws the same random numbers under every condition, so differences are paired.

    Args:
        prompts: token ids, BOS included.
        spans: where the messages stand in those that are chats, prompt by prompt; for vectors that go to a role.
        told: of conditions of words, by number, what is read in place of each prompt (whose penalty and draws stay).
        batch_size, memory_budget: rows decoded together, or the bytes they may take; see `decode_rows`.
        use_cache: False runs the whole sequence for every token; for models without a cache, and for checks.
        compiled: compile the decode of a HookedTransformer (on CUDA into a graph); see `generate`.
        on_tokens: called with the number of tokens drawn since the last call.
        on_drawn: called after each step of a batch, see `OnDrawn`; an error raised there ends the job.

    Raises:
        SteerlensError: a job beyond the model's context or the memory budget; unsteered logits that are not finite.
    """
    notice_contention(model.cfg.device)
    n, max_new_tokens = sampling.n, sampling.max_new_tokens
    told = told or {}
    longest = max(len(ids) for rows in (prompts, *told.values()) for ids in rows)
    if longest + max_new_tokens > model.cfg.n_ctx:
        raise SteerlensError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit the model's context of "
            f"{model.cfg.n_ctx}; ask for fewer tokens or shorten the prompt"
        )
    stops = Stops.of(model, sampling)
    tokens = torch.full((len(conditions), len(prompts), n, max_new_tokens), stops.fill)
    exempt = exempt_from_penalty(model, stops).to(model.cfg.device) if sampling.needs_counts else None
    keys = row_keys(sampling.seed, prompts, n)
    parts_of = [[Part(injection) for injection in condition.injections] for condition in conditions]
    gates = gates_of(conditions)
    opened = open_gates(model, gates, prompts)
    warn_of_closed(model, gates, prompts, opened)
    for part in (part for parts in parts_of for part in parts if part.gate is not None):
        part.receipt.fired = tuple(p for p in range(len(prompts)) if opened[id(part.gate)][p])
    units = [_Unit(c, p) for c in range(len(conditions)) for p in range(len(prompts))]
    limit = decode_rows(model, prompt=longest, new=max_new_tokens, batch_size=batch_size, memory_budget=memory_budget)
    decoders = Decoders(model, compiled=compiled)
    guess = True
    for batch, samples in _batches(units, n, limit):
        drawn, guess = _sample_batch(
            model,
            [told.get(unit.condition, prompts)[unit.prompt] for unit in batch],
            [
                [
                    part.in_prompt(spans[unit.prompt] if spans else ())
                    for part in parts_of[unit.condition]
                    if part.gate is None or opened[id(part.gate)][unit.prompt]
                ]
                for unit in batch
            ],
            torch.stack([keys[unit.prompt, samples] for unit in batch]),
            counted=[prompts[unit.prompt] for unit in batch],
            sampling=sampling,
            stops=stops,
            exempt=exempt,
            use_cache=use_cache,
            decoders=decoders,
            guess=guess,
            on_tokens=on_tokens or (lambda count: None),
            on_rows=on_drawn and partial(on_drawn, [(unit.condition, unit.prompt) for unit in batch], samples.start),
        )
        for unit, row in zip(batch, drawn, strict=True):
            tokens[unit.condition, unit.prompt, samples] = row
            refuse_unsteered(row, steered=bool(conditions[unit.condition].injections))
    tokens[lost := (tokens == NO_TOKEN).any(-1)] = stops.fill
    ends = torch.isin(tokens, torch.tensor(stops.ids, dtype=torch.long))
    finished = ends.any(-1) & ~lost
    lengths = torch.where(finished, ends.long().argmax(-1), max_new_tokens).masked_fill(lost, 0)
    if stops.texts:
        end_at_texts(model, prompts, stops, tokens, lengths, finished)
    receipts = tuple(tuple(part.receipt for part in parts) for parts in parts_of)
    return Completions(tokens, lengths, finished, receipts, stops)


def conditions_together(model: HookedModel, *, prompts: int, n: int, batch_size: int | None = None) -> int:
    """How many conditions fill one batch, at least one: parts of that size are as fast as the whole job."""
    return max((batch_size or most_rows(model)) // (prompts * n), 1)


def _batches(units: Sequence[_Unit], n: int, limit: int) -> Iterator[tuple[Sequence[_Unit], slice]]:
    """Batches of at most `limit` rows (one at least): whole units together, or a unit's samples in pieces."""
    if n > limit:
        for unit in units:
            for start in range(0, n, limit):
                yield [unit], slice(start, min(start + limit, n))
        return
    together = max(limit // n, 1)
    for start in range(0, len(units), together):
        yield units[start : start + together], slice(0, n)


def _sample_batch(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    parts: Sequence[Sequence[Part]],
    keys: Int[Tensor, "units samples"],
    *,
    counted: Sequence[Sequence[int]],
    sampling: Sampling,
    stops: Stops,
    exempt: Bool[Tensor, " d_vocab"] | None,
    use_cache: bool,
    decoders: Decoders,
    guess: bool,
    on_tokens: Callable[[int], object],
    on_rows: Callable[[Tensor], object] | None = None,
) -> tuple[Int[Tensor, "units samples new"], bool]:
    """The new tokens of one batch of units, `keys.shape[1]` samples each.

    Args:
        counted: of each unit, the tokens before the completion that the frequency penalty counts.
        guess: on an accelerator, draw from the largest logits alone; whether they were enough is checked when the host
            looks anyway, and if not, the tokens since the last check are drawn again. So the host need not wait at
            every token, and the vocabulary need not be sorted for every row.

    Returns:
        The tokens, and whether it is worthwhile to guess again.
    """
    device = torch.device(model.cfg.device)
    units, samples = keys.shape
    max_new_tokens = sampling.max_new_tokens
    prompt_tokens, prompt_mask = pad_left(prompts, pad=pad_id(model), device=device)
    # Of each live row, on the host like the indices of parts (whatever default device the caller has set).
    unit_of = torch.arange(units, device="cpu").repeat_interleave(samples)
    by_unit = [(part, unit) for unit, mine in enumerate(parts) for part in mine]
    late = [(part, unit) for part, unit in by_unit if reaches_later(part.placement) or not use_cache]
    logits, decoder = _prefilled(
        model,
        prompt_tokens,
        prompt_mask,
        by_unit,
        decoders if use_cache else None,
        samples=samples,
        room=max_new_tokens - 1,
        hooked=bool(late),
    )
    later = _on_their_rows(late, unit_of, device)
    if sampling.needs_counts and counted != prompts:
        prompt_tokens, prompt_mask = pad_left(counted, pad=pad_id(model), device=device)
    rows = LiveRows.begin(keys, prompt_tokens, prompt_mask, counted=sampling.needs_counts, exempt=exempt)
    ends = torch.tensor(stops.ids, dtype=torch.long, device=device)
    result = torch.full((units * samples, max_new_tokens), stops.fill, device=device)
    readers = [reader_after(model, ids) for ids in prompts] if stops.texts else []
    look_every = _LOOK_EVERY.get(device.type, 16)
    # Who guesses must be able to go back.
    guessing = guess and isinstance(decoder, PrefixDecoder) and device.type != "cpu" and may_be_guessed(sampling)
    doubt = torch.zeros((), dtype=torch.bool, device=device)  # whether any token since `sure` may be wrong
    sure, sure_step = rows, 0
    step = announced = 0

    while step < max_new_tokens:
        if step > 0:
            with _injecting(model, later, prompt_width=prompt_tokens.shape[1]):
                # A broken row (NO_TOKEN) must not break the step of its neighbours.
                logits = decoder.step(rows.drawn.clamp(min=0)).to(device)
        numbers = uniforms(rows.keys, step)
        # The first token is not guessed: drawing it again would take the prefill's logits.
        if guessing and step > 0:
            drawn, certain = likely_tokens(logits, sampling, numbers, rows.counts)
            doubt = doubt | ~(certain | rows.ended).all()
        else:
            drawn = next_tokens_where_any(logits, sampling, numbers, rows.counts)
        rows = rows.after(drawn, ends, stops.fill)
        result[rows.place, step] = rows.drawn
        step += 1
        if step > announced:  # what is drawn again is not reported twice
            on_tokens(len(rows.drawn))
            if on_rows is not None:
                on_rows(rearrange(result[:, :step], "(unit sample) new -> unit sample new", unit=units))
            announced = step
        if step == 1:
            sure, sure_step = rows, step
        if step % look_every and step < max_new_tokens:
            continue
        if guessing and bool(doubt):
            assert isinstance(decoder, PrefixDecoder)
            decoder.rewind(step - sure_step)
            rows, step, guess, guessing = sure, sure_step, False, False
            continue
        if readers and step < max_new_tokens:
            said = with_stop_texts(
                stops, readers, result[rows.place, :step].clamp(min=0).tolist(), unit_of.tolist(), step - sure_step
            )
            rows = replace(rows, ended=rows.ended | torch.tensor(said, device=device))
        if stops and step < max_new_tokens:
            gone = int(rows.ended.sum())
            if gone == len(rows.ended):
                break
            if gone >= _LEAVE_SHARE * len(rows.ended) and (kept := decoder.leave(rows.ended)) is not None:
                rows, unit_of = rows.select(kept), unit_of[kept.cpu()]
                later = _on_their_rows(late, unit_of, device)
        sure, sure_step = rows, step
    return rearrange(result.cpu(), "(unit sample) new -> unit sample new", unit=units), guess


def _prefilled(
    model: HookedModel,
    prompts: Int[Tensor, "unit pos"],
    mask: Int[Tensor, "unit pos"],
    parts: Sequence[tuple[Part, int]],
    decoders: Decoders | None,
    *,
    samples: int,
    room: int,
    hooked: bool,
) -> tuple[Float[Tensor, "row d_vocab"], Decoder]:
    """The logits of every sample's first token, and what goes on from there: each unit's prompt is run once.

    Args:
        parts: with the unit that each acts on.
        decoders: None decodes without a cache.
        hooked: whether parts act on later tokens too.
    """
    with _injecting(model, [part.on_rows(torch.tensor([unit], device="cpu")) for part, unit in parts]):
        logits, cache = prefill(model, prompts, mask, use_cache=decoders is not None)
    # A bridge spread over several devices gives its logits on the last of them.
    logits = logits.to(prompts.device).repeat_interleave(samples, dim=0)
    if decoders is None:
        return logits, WholeDecoder(model, prompts, mask, samples=samples)
    return logits, decoders.begin(cache, mask, samples=samples, room=room, hooked=hooked)


def _on_their_rows(parts: Sequence[tuple[Part, int]], unit_of: Int[Tensor, " row"], device: torch.device) -> list[Part]:
    """Each part on the live rows of its unit; parts without any are left out."""
    found = [(part, (unit_of == unit).nonzero()[:, 0]) for part, unit in parts]
    return [part.on_rows(rows.to(device)) for part, rows in found if len(rows)]


def _injecting(
    model: HookedModel, parts: Sequence[Part], *, prompt_width: int | None = None
) -> AbstractContextManager[object]:
    """The hooks of parts; none at all if there are no parts."""
    return injecting(model, parts, prompt_width=prompt_width) if parts else nullcontext()
