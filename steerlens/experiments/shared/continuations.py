"""Completions of prompts by several methods with identical decoding, and the measures of them.

Everything is kept in a `Ledger` part by part; completions, as token ids, before anything is measured.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from steerlens.arguments import whole_number
from steerlens.engine.generation import check_job
from steerlens.engine.jobs import Passage
from steerlens.engine.passes import Job
from steerlens.engine.sampling import conditions_together, sample
from steerlens.engine.sampling_settings import Sampling
from steerlens.errors import SteerlensError
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.relevance import Embedder, centre, cosines, hugging_face_embedder, model_embedder
from steerlens.experiments.shared.scorers import Scorer, Shipped, hugging_face_scorer, probabilities, shipped_scorer
from steerlens.measures.measuring import lost
from steerlens.models import HookedModel, end_ids
from steerlens.progress import progress_bar
from steerlens.runs.run_keys import job_key, run_key
from steerlens.steering import Condition
from steerlens.steering.prompts import prompt_ids
from steerlens.steering.tokens import reader_after


@dataclass(frozen=True, eq=False)
class Way:
    """One way to complete prompts: a condition, and what is written in front of them."""

    method: str
    condition: Condition = field(default_factory=Condition)
    prefix: str = ""


@dataclass(frozen=True, eq=False)
class Measures:
    """What is measured: the scorer's probability, disfluency, relevance.

    Attributes:
        scorer: a probability for every completion (the completion alone: with the prompt, its score would be the
            prompt's).
        embedder: for relevance; None leaves it out.
    """

    scorer: Scorer
    embedder: Embedder | None


def measures_of(
    model: HookedModel, shipped: Shipped, scorer: Scorer | str | None, embedder: Embedder | str | None
) -> Measures:
    """What a caller's `scorer` and `embedder` mean: text is the name of a Hugging Face model, None the default.

    Raises:
        SteerlensError: no such model.
    """
    judge = shipped_scorer(shipped) if scorer is None else scorer
    judge = hugging_face_scorer(judge) if isinstance(judge, str) else judge
    if not callable(judge):
        raise SteerlensError(
            f"scorer={judge!r:.60} is no scorer; give a function from texts to probabilities, or a classifier's name"
        )
    if embedder is None:
        return Measures(judge, model_embedder(model))
    return Measures(judge, hugging_face_embedder(embedder) if isinstance(embedder, str) else embedder)


class Runner:
    """Completes prompts with a model and measures the completions; each part is computed once per ledger.

    Args:
        chunk: prompts per part, the most that an interruption can cost.
        progress: None shows a bar in terminals only.
    """

    def __init__(
        self,
        model: HookedModel,
        ledger: Ledger,
        sampling: Sampling,
        *,
        chunk: int = 50,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self.model, self.ledger, self.sampling = model, ledger, sampling
        chunk = whole_number("chunk", chunk, least=1)
        self._chunk, self._batch_size, self._progress = chunk, batch_size, progress
        self._weights = ledger.model_key(model)

    def complete(self, prompts: Sequence[str], ways: Sequence[Way], *, what: str = "completions") -> pd.DataFrame:
        """One row per completion, in the order way, prompt, sample; what is in the ledger is not made again.

        Columns: way (int), method, label, layer (Int64), coeff, placement, prompt, prompt_number, sample, completion,
        n_tokens, finished, seed; and the working columns `_ids` (token ids), `_part` (key of the
        part) and `_chunk`.
        """
        rows: list[dict[str, Any]] = []
        with self._bar(len(prompts) * len(ways) * self.sampling.n, what) as bar:
            for start in range(0, len(prompts), self._chunk):
                some = list(prompts[start : start + self._chunk])
                for numbers in _by_prefix(ways):
                    for number, part, key in self._complete_part(some, ways, numbers, bar):
                        rows += self._rows(number, ways[number], some, start, part, key)
        frame = pd.DataFrame.from_records(rows).astype({"layer": "Int64"})
        return frame.sort_values(["way", "prompt_number", "sample"], kind="stable", ignore_index=True)

    def measure(self, frame: pd.DataFrame, prompts: Sequence[str], measures: Measures) -> pd.DataFrame:
        """The frame of `complete` with what was measured.

        Columns added: score (probability), nats (mean negative log-probability of the completion's tokens under the
        unsteered model, given the prompt without any prefix), perplexity (its exponential: the paper's disfluency,
        which has it from another, larger model), relevance (cosine). NaN where a completion has no
        token; all of them where steering overflowed the model.
        """
        frame = frame.copy()
        frame["nats"] = self._by_part(frame, "nats", "unsteered", lambda rows: self._nats(rows))
        frame["perplexity"] = np.exp(frame["nats"])
        frame["relevance"] = math.nan
        if measures.embedder is not None:
            frame["relevance"] = self._relevance(frame, prompts, measures.embedder)
        # Last, because a scorer is other people's code and may fail.
        key = str(getattr(measures.scorer, "key", ""))
        frame["score"] = self._by_part(
            frame, "score", key, lambda rows: probabilities(measures.scorer, rows["completion"].tolist()).tolist()
        )
        frame.loc[lost(frame), ["score", "relevance"]] = math.nan
        return frame

    def _complete_part(
        self, prompts: list[str], ways: Sequence[Way], numbers: Sequence[int], bar: Any
    ) -> Iterator[tuple[int, dict[str, Any], str]]:
        """The parts of some ways with one prefix, completing together what is missing."""
        sampling, prefix = self.sampling, ways[numbers[0]].prefix
        conditions = [ways[number].condition for number in numbers]
        given = check_job(
            self.model,
            [prefix + prompt for prompt in prompts],
            conditions,
            sampling=sampling,
            batch_size=self._batch_size,
        )
        ids = [prompt.ids for prompt in given]
        job = job_key(self._weights, [prompt.text for prompt in given], ids, sampling, ends=end_ids(self.model))
        keys = {number: run_key(ways[number].condition, job=job) for number in numbers}
        missing = [number for number in numbers if not self.ledger.knows(_part(keys[number]))]
        bar.update((len(numbers) - len(missing)) * len(prompts) * sampling.n)
        together = conditions_together(self.model, prompts=len(prompts), n=sampling.n, batch_size=self._batch_size)
        for first in range(0, len(missing), together):
            batch = missing[first : first + together]
            done = sample(
                self.model,
                ids,
                [ways[number].condition for number in batch],
                sampling=sampling,
                batch_size=self._batch_size,
            )
            for place, number in enumerate(batch):
                lengths = done.lengths[place].flatten().tolist()
                tokens = done.tokens[place].flatten(0, 1).tolist()
                part = {
                    "tokens": [row[:length] for row, length in zip(tokens, lengths, strict=True)],
                    "finished": done.finished[place].flatten().tolist(),
                }
                self.ledger.remember(_part(keys[number]), lambda part=part: part)  # type: ignore[misc]
                bar.update(len(prompts) * sampling.n)
        for number in numbers:
            yield number, self.ledger.remember(_part(keys[number]), _gone), keys[number]

    def _rows(
        self, number: int, way: Way, prompts: Sequence[str], start: int, part: dict[str, Any], key: str
    ) -> list[dict[str, Any]]:
        n, read = self.sampling.n, reader_after(self.model)
        return [
            {
                "way": number,
                "method": way.method,
                "label": way.method if way.prefix else way.condition.label,
                "layer": way.condition.layer,
                "coeff": way.condition.coeff,
                "placement": way.condition.placement,
                "prompt": prompts[place // n],
                "prompt_number": start + place // n,
                "sample": place % n,
                "completion": read(ids),
                "n_tokens": len(ids),
                "finished": finished,
                "seed": self.sampling.seed,
                "_ids": ids,
                "_part": key,
                "_chunk": f"{number} {start}",
            }
            for place, (ids, finished) in enumerate(zip(part["tokens"], part["finished"], strict=True))
        ]

    def _by_part(
        self, frame: pd.DataFrame, what: str, key: str, compute: Callable[[pd.DataFrame], list[float]]
    ) -> pd.Series:
        """A number for each row, part by part; kept if `key` says what they depend on."""
        found = pd.Series(math.nan, index=frame.index)
        with self._bar(len(frame), what) as bar:
            # By chunk too: a prompt that occurs twice may make two chunks with one key.
            for (_, part), rows in frame.groupby(["_chunk", "_part"], sort=False):
                made = (
                    self.ledger.remember({"experiment": what, "of": part, "by": key}, lambda rows=rows: compute(rows))  # type: ignore[misc]
                    if key
                    else compute(rows)
                )
                found[rows.index] = made
                bar.update(len(rows))
        return found

    @torch.no_grad()
    def _nats(self, rows: pd.DataFrame) -> list[float]:
        """Mean negative log-probability of each completion's tokens, in nats; reduced on the model's device."""
        known = [number for number, ids in enumerate(rows["_ids"]) if ids]
        before = {prompt: tuple(prompt_ids(self.model, prompt)) for prompt in set(rows["prompt"])}
        passages = []
        for number in known:
            row = rows.iloc[number]
            start = before[row["prompt"]]
            ids = (*start, *row["_ids"])
            passages.append(Passage(ids, len(start), len(start) - 1, len(ids) - 1))
        found = [math.nan] * len(rows)
        if not passages:
            return found
        most = max(passage.n_wanted for passage in passages)
        asked = torch.tensor([[*p.ids[p.first + 1 :], *[0] * (most - p.n_wanted)] for p in passages])
        total = torch.zeros(len(passages), dtype=torch.float64)
        for cells in Job.of(self.model, passages, [Condition()]).cells(batch_size=self._batch_size):
            logits = cells.logits if cells.logits.dtype == torch.float64 else cells.logits.float()
            token = asked[cells.where[1], cells.where[2]].to(logits.device)
            logprob = logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(1)
            total.index_add_(0, cells.where[1], logprob.cpu().double())
        for number, passage, one in zip(known, passages, total.tolist(), strict=True):
            found[number] = -one / passage.n_wanted
        return found

    def _relevance(self, frame: pd.DataFrame, prompts: Sequence[str], embedder: Embedder) -> pd.Series:
        own = embedder.embed(list(prompts))
        centres: tuple[Tensor, Tensor] | None = None
        if embedder.centred:
            plain = frame[frame["method"] == "unsteered"]["completion"].tolist()
            if not plain:
                raise SteerlensError("relevance is measured against unsteered completions and there are none")
            centres = (centre(own), centre(embedder.embed(plain)))
        marks = (
            "" if centres is None else hashlib.blake2b(torch.cat(centres).numpy().tobytes(), digest_size=8).hexdigest()
        )
        key = f"{embedder.key} {marks}" if embedder.key else ""

        def compute(rows: pd.DataFrame) -> list[float]:
            return cosines(own[rows["prompt_number"].tolist()], embedder.embed(rows["completion"].tolist()), centres)

        return self._by_part(frame, "relevance", key, compute)

    def _bar(self, total: int, what: str) -> Any:
        return progress_bar(total, unit="completion", what=what, progress=self._progress, leave=False)


def _by_prefix(ways: Sequence[Way]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for number, way in enumerate(ways):
        groups.setdefault(way.prefix, []).append(number)
    return list(groups.values())


def _part(key: str) -> dict[str, str]:
    return {"experiment": "completions", "of": key}


def _gone() -> Any:
    raise SteerlensError("a part of the ledger has gone while it was in use; run again")
