"""Documents scored under many conditions at once: sums by bin and group, ready to be kept and merged.

A chunk of documents goes in, plain data comes out: the change of log-probability of each document, summed by group, and
of each token. What the numbers mean stands at the head of `perplexity`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from steerlens.errors import SteerlensError
from steerlens.experiments.perplexity.moments import Moments
from steerlens.experiments.perplexity.sentences import Splitter
from steerlens.experiments.perplexity.token_shifts import Rows, Windows, opening, token_logprobs
from steerlens.experiments.perplexity.token_sums import TokenSums
from steerlens.measures.metrics import Metric, length, word_count
from steerlens.models import HookedModel
from steerlens.steering import Condition, Injection, PromptPair, SteeringVector, actadd
from steerlens.steering.random_vectors import random_like
from steerlens.steering.tokens import single_token

Counting = Literal["words", "split"]

ACTADD, PADDED, PROMPT, RANDOM = "actadd", "actadd, space-padded", "prompt", "random vector"
"""The methods of the frame: the vector added to the sentence itself; to spaces before it; the phrase before it; a
vector of random direction and equal norm."""

UNRELATED, RELATED = "unrelated", "related"


@dataclass(frozen=True)
class TopicWords:
    """Counts of words, and of words on the topic."""

    words: tuple[str, ...]
    count: Metric
    counting: Counting

    @staticmethod
    def of(words: str | Sequence[str], counting: Counting) -> TopicWords:
        if counting not in ("words", "split"):
            raise SteerlensError(f"counting={counting!r} is unknown; use 'words' or 'split'")
        count = word_count(*([words] if isinstance(words, str) else words))
        return TopicWords(count.marked, count, counting)

    def shares(self, texts: list[str]) -> list[tuple[int, int]]:
        """For each text its words on the topic, and all its words."""
        if self.counting == "split":
            wanted = {word.lower() for word in self.words}
            pieces = [text.lower().split() for text in texts]
            return [(sum(piece in wanted for piece in one), len(one)) for one in pieces]
        counted = zip(self.count(texts), length("words")(texts), strict=True)
        return [(int(some), int(all_of_them)) for some, all_of_them in counted]


@dataclass(frozen=True)
class Series:
    """One line of numbers: a way to change the model or its text, against its own baseline."""

    method: str
    layer: int | None
    coeff: float
    condition: Condition

    @property
    def on_spaces(self) -> bool:
        return self.method in (PADDED, PROMPT)


@dataclass(frozen=True, eq=False)
class DocumentScorer:
    """Documents in, sums as plain data out: what is computed for a chunk, and nothing about where it is kept."""

    model: HookedModel
    topic: TopicWords
    series: tuple[Series, ...]
    main: Series
    span: int
    start: list[int]
    spaces: list[int]
    phrase: list[int]
    bin_width: float
    related: float
    mask: bool
    prompting: bool
    options: dict[str, int | None]

    @staticmethod
    def of(
        model: HookedModel,
        pair: PromptPair,
        topic: TopicWords,
        *,
        main: int,
        layers: Sequence[int] | Literal["all"],
        coeffs: Sequence[float],
        layer_coeffs: Sequence[float],
        bin_width: float,
        related: float,
        mask: bool,
        prompting: bool,
        control: str | None,
        seed: int,
        batch_size: int | None,
        memory_budget: int | None,
    ) -> DocumentScorer:
        if not len(coeffs):
            raise SteerlensError("coeffs is empty; give at least one coefficient")
        n_layers = int(model.cfg.n_layers)
        chosen = list(range(n_layers)) if layers == "all" else list(layers)
        vectors = actadd(model, pair, layers=sorted({main, *chosen}))
        grid = [(main, coeffs[0]), *itertools.product(chosen, coeffs), *((main, c) for c in layer_coeffs)]
        series = [_steered(ACTADD, vectors[at], float(c)) for at, c in dict.fromkeys(grid)]
        first = series[0]
        if control is not None:
            series.append(_steered(RANDOM, random_like(vectors[main], seed=seed), first.coeff))
        start = opening(model)
        padded = pair.padded(model).ids[0].tolist()
        spaces: list[int] = []
        if prompting:
            space = single_token(model, " ")
            spaces = [*start, *[space] * (len(padded) - len(start))]
            series.append(_steered(PADDED, vectors[main], first.coeff))
            series.append(Series(PROMPT, None, math.nan, Condition()))
        return DocumentScorer(
            model,
            topic,
            tuple(series),
            first,
            vectors[main].n_positions,
            start,
            spaces,
            padded,
            bin_width,
            related,
            mask,
            prompting,
            {"batch_size": batch_size, "memory_budget": memory_budget},
        )

    def part(self, documents: Sequence[str | None], split: Splitter) -> dict[str, Any]:
        """The sums of some documents."""
        texts = [text for text in documents if text is not None and text.strip()]
        beginning = max(len(self.start), len(self.spaces))
        windows = Windows.of(self.model, texts, split, most=int(self.model.cfg.n_ctx) - beginning)
        long_enough = [i for i, ids in enumerate(windows.ids) if len(self.start) + len(ids) >= self.span]
        plain = Rows.of_sentences([windows.ids[i] for i in long_enough], self.start)
        text_of = torch.tensor(windows.text, dtype=torch.long)
        document = text_of[torch.tensor(long_enough, dtype=torch.long)][plain.of]
        steered = [one for one in self.series if not one.on_spaces]
        logprobs = token_logprobs(self.model, plain, [Condition(), *(one.condition for one in steered)], **self.options)
        change = _widest(logprobs[1:] - logprobs[:1])
        counted = plain.position >= self.span
        total, weight = _by_document(change, document, counted, len(texts))
        kept = counted if self.mask else torch.ones_like(counted)
        tokens = TokenSums.of(plain.token[kept].numpy(), change[0].cpu()[kept].numpy(), int(self.model.cfg.d_vocab))
        if self.prompting:
            more = self._prompted(windows, text_of, len(texts))
            total, weight = (np.concatenate(pair, 1) for pair in zip((total, weight), more, strict=True))
        groups = _grouped(self.topic.shares(texts), self.bin_width, self.related)
        return {
            "groups": {
                name: Moments.of(total[..., members], weight[..., members]).plain() for name, members in groups.items()
            },
            "tokens": tokens.plain(),
            "counts": {
                "documents read": len(documents),
                "empty documents": len(documents) - len(texts),
                "documents without a scored token": int((weight[0, 0] == 0).sum()),
                "sentences": windows.n_sentences,
                "sentences cut into windows": windows.n_cut,
                "sentences shorter than the vector": len(windows.ids) - len(long_enough),
                "tokens": len(plain.token),
            },
        }

    def _prompted(self, windows: Windows, text_of: torch.Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums of the phrase before each sentence, and of ActAdd on spaces in its place, against the spaces alone."""
        padded, phrase = (Rows.of_sentences(windows.ids, before) for before in (self.spaces, self.phrase))
        conditions = [one.condition for one in self.series if one.method == PADDED]
        logprobs = token_logprobs(self.model, padded, [Condition(), *conditions], **self.options)
        prompted = token_logprobs(self.model, phrase, [Condition()], **self.options)
        change = _widest(torch.cat([logprobs[1:], prompted]) - logprobs[:1])
        return _by_document(change, text_of[padded.of], padded.position >= self.span, n)


@dataclass(eq=False)
class Sums:
    """What a run keeps: as much after 300,000 documents as after the first hundred."""

    groups: dict[str, Moments]
    tokens: TokenSums
    counts: dict[str, int]
    vocab: int

    @staticmethod
    def none(scorer: DocumentScorer) -> Sums:
        vocab = int(scorer.model.cfg.d_vocab)
        return Sums({}, TokenSums(np.zeros(vocab, dtype=np.int64), np.zeros(vocab), np.zeros(vocab)), {}, vocab)

    def take(self, plain: Mapping[str, Any]) -> None:
        """Add a part, from `DocumentScorer.part` or from the ledger."""
        for name, parts in plain["groups"].items():
            moments = Moments.from_plain(parts)
            self.groups[name] = self.groups[name] + moments if name in self.groups else moments
        self.tokens = self.tokens + TokenSums.from_plain(plain["tokens"], self.vocab)
        for name, count in plain["counts"].items():
            self.counts[name] = self.counts.get(name, 0) + count


def _steered(method: str, vector: SteeringVector, coeff: float) -> Series:
    return Series(method, vector.layer, coeff, Condition((Injection(coeff * vector, "front"),)))


def _widest(change: torch.Tensor) -> torch.Tensor:
    """In double precision, on the device where it has that."""
    return (change.cpu() if change.device.type == "mps" else change).double()


def _by_document(
    change: torch.Tensor, document: torch.Tensor, counted: torch.Tensor, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the changes and numbers of tokens, both [mask series document]: masked first, then all."""
    document, counted = document.to(change.device), counted.to(change.device)
    totals, weights = [], []
    for which in (counted, torch.ones_like(counted)):
        chosen = document[which]
        total = change.new_zeros(len(change), n).index_add_(1, chosen, change[:, which])
        totals.append(total.cpu().numpy())
        weights.append(chosen.bincount(minlength=n).cpu().numpy()[None].repeat(len(change), 0))
    return np.stack(totals), np.stack(weights).astype(np.float64)


def _grouped(shares: Sequence[tuple[int, int]], width: float, related: float) -> dict[str, list[int]]:
    """Which documents belong to which bin and group; a group's name is what the sums go by."""
    groups: dict[str, list[int]] = {}
    for index, (some, all_of_them) in enumerate(shares):
        share = some / all_of_them if all_of_them else 0.0
        names = [str(int(share / width + 1e-9))]  # 1 of 200 words is 0.5 % whatever the last bit says
        if some == 0:
            names.append(UNRELATED)
        if share >= related - 1e-12:
            names.append(RELATED)
        for name in names:
            groups.setdefault(name, []).append(index)
    return groups
