"""`sentiment`: does steering change the sentiment of film reviews, compared with prompting and random vectors?

The paper (Turner et al., arXiv 2308.10248, in its later versions) continues openings of IMDb reviews, steers negative
ones to positive and positive ones to negative, and reports success (the share of completions that a classifier assigns
the intended sentiment), disfluency (perplexity under another model) and relevance (cosine similarity of sentence
embeddings), following Pei et al. 2023 (PREADD). What is the same here, what differs, and why:
`steerlens.experiments.sentiment.paper.DIFFERENCES`, which the page shows. Relevance is that of
`steerlens.experiments.shared.relevance`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlens.engine.sampling_settings import Sampling
from steerlens.errors import SteerlensError
from steerlens.experiments.sentiment.result import Sentiment
from steerlens.experiments.shared.comparison_options import (
    ComparisonArguments,
    chosen_options,
    shows_comparison_options,
)
from steerlens.experiments.shared.continuations import Runner, measures_of
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.method_comparison import (
    Effect,
    chosen_by,
    compare_methods,
    comparison_settings,
    in_front,
)
from steerlens.experiments.shared.method_summary import Kind, summarise
from steerlens.experiments.shared.prompts import Source, check_count, openings, read_records, some_rows, source_name
from steerlens.models import HookedModel, require_model
from steerlens.steering import PromptPair

SAMPLING = Sampling()
"""The paper's, for every method: temperature 1, top-p 0.3, frequency penalty 1."""

QUICK: dict[str, Any] = {
    "pair": ("I loved this wonderful film", "I hated this terrible film"),
    "layers": (2, 3, 5),
    "coeffs": (2.0, 5.0),
    "validation": 20,
    "sampling": replace(SAMPLING, max_new_tokens=24),
}
"""Arguments with which it takes about a minute on the embedded model and one core.

"Love" and "Hate" are not single tokens of the embedded model, so the pair is one that reads like its reviews.
"""

DIRECTIONS = ("negative to positive", "positive to negative")
SHIPPED = "sentiment_openings.jsonl"
METRICS: dict[str, tuple[str, Kind]] = {
    "success": ("hit", "share"),
    "disfluency": ("perplexity", "perplexity"),
    "relevance": ("relevance", "mean"),
}
_POSITIVE, _NEGATIVE = {"pos", "positive", "1"}, {"neg", "negative", "0"}


@shows_comparison_options(SAMPLING)
def sentiment(
    model: HookedModel,
    *,
    prompts: Source = None,
    n_prompts: int | None = None,
    opening: int | None = 32,
    pair: PromptPair | tuple[str, str] = ("Love", "Hate"),
    phrases: tuple[str, str] | None = None,
    sampling: Sampling | None = None,
    store: str | Path | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Unpack[ComparisonArguments],
) -> Sentiment:
    """Steering openings of film reviews from negative to positive and back: success, disfluency, relevance.

    Args:
        prompts: labelled reviews or openings: None (120 openings that ship with the package), a file or Hugging Face
            data set with the columns text and label ("stanfordnlp/imdb"), a data frame, or (text, label) tuples. Labels
            are pos/neg, positive/negative or 1/0.
        n_prompts: use this many of them, half of each label, drawn by the seed.
        opening: tokens of each text that make the prompt (the paper: 32); None takes whole texts.
        pair: what to steer to for positive, minus what for negative; the other direction takes it reversed.
        phrases: what prompting puts in front (for positive, for negative); by default the pair's own.
        sampling: how completions are drawn, the same way for every method; by default `SAMPLING`.
        n, max_new_tokens, temperature, top_k, top_p, frequency_penalty, seed, stop_at_end, stop: fields of `Sampling`
            by name, in place of those of `sampling`.
        layers, coeffs, placement, scorer, embedder, validation, disfluency_limit, random_draws, chunk: see
            `ComparisonOptions`; `validation` is for each direction, and the scorer gives the probability of positive.
        store: a file that keeps finished parts: a run that was stopped, or whose scorer failed, resumes from it.
        batch_size, progress: see `generate`.

    Raises:
        SteerlensError: no such data, a column or label missing, no prompts of one label, an unknown classifier, layers
            out of range, whatever `generate` raises.
    """
    require_model(model)
    sampling, chosen = chosen_options(sampling, options, default=SAMPLING)
    contrast = pair if isinstance(pair, PromptPair) else PromptPair(*pair)
    reverse = PromptPair(contrast.negative, contrast.positive, contrast.pad)
    said = (contrast.positive, contrast.negative) if phrases is None else phrases
    measures = measures_of(model, "sentiment", chosen.scorer, chosen.embedder)
    positive, negative = _labelled(model, prompts, n_prompts, opening, sampling.seed)
    found = {}
    with Ledger(store) as ledger:
        runner = Runner(model, ledger, sampling, chunk=chosen.chunk, batch_size=batch_size, progress=progress)
        for direction, texts, one, phrase, upwards in (
            (DIRECTIONS[0], negative, contrast, said[0], True),
            (DIRECTIONS[1], positive, reverse, said[1], False),
        ):
            found[direction] = compare_methods(
                runner,
                texts,
                pair=one,
                phrase=in_front(phrase),
                effect=Effect(_turned(upwards), "share"),
                measures=measures,
                options=chosen,
                name=f"{direction}: ",
            )
    completions, tuning = (
        pd.concat([frame.assign(direction=direction) for direction, frame in frames], ignore_index=True)
        for frames in (
            [(direction, one.completions) for direction, one in found.items()],
            [(direction, one.tuning) for direction, one in found.items()],
        )
    )
    settings = {
        "prompts": source_name(prompts, "120 openings of film reviews, written for this package"),
        "opening (tokens)": opening,
        "prompts reported": {direction: one.n_reported for direction, one in found.items()},
        "prompts to choose layer and coefficient on": {direction: one.n_validation for direction, one in found.items()},
        "prompts left out (shorter than the vector)": {direction: one.n_short for direction, one in found.items()},
        "chosen": {direction: one.chosen for direction, one in found.items()},
        "chosen by": chosen_by("largest success", chosen.disfluency_limit),
        "phrases of prompting": [in_front(one) for one in said],
        **comparison_settings(runner, contrast, measures, chosen),
    }
    frame = summarise(completions, METRICS, group="direction", seed=sampling.seed)
    return Sentiment(frame, settings, completions, tuning)


def _turned(upwards: bool) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    # Exactly one half counts for neither side.
    return lambda scores: ((scores > 0.5) if upwards else (scores < 0.5)).astype(np.float64)


def _labelled(
    model: HookedModel, prompts: Source, n_prompts: int | None, opening: int | None, seed: int
) -> tuple[list[str], list[str]]:
    """Positive and negative openings."""
    check_count("n_prompts", n_prompts)
    columns = {"text": ("text", "prompt", "review", "sentence"), "label": ("label", "sentiment")}
    frame = read_records(prompts, shipped=SHIPPED, columns=columns, split="test")
    labels = [str(label).strip().lower().removesuffix(".0") for label in frame["label"]]
    unknown = sorted(set(labels) - _POSITIVE - _NEGATIVE)
    if unknown:
        raise SteerlensError(
            f"the label {unknown[0]!r} is neither positive nor negative; labels are pos/neg, positive/negative or 1/0"
        )
    found = []
    for wanted, said in ((_POSITIVE, "positive"), (_NEGATIVE, "negative")):
        rows = frame[[label in wanted for label in labels]]
        if not len(rows):
            raise SteerlensError(f"no prompt has a {said} label; give prompts of both")
        rows = some_rows(rows, None if n_prompts is None else max(n_prompts // 2, 1), seed)
        found.append(openings(model, rows["text"], opening))
    return found[0], found[1]
