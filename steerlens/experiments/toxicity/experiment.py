"""`toxicity`: does steering make completions of provoking prompts less toxic, compared with prompting and controls?

The paper (Turner et al., arXiv 2308.10248, in its later versions) continues prompts of RealToxicityPrompts (Gehman et
al. 2020) and reports mean toxicity, disfluency and relevance, following Pei et al. 2023 (PREADD). What is the same
here, what differs, and why: `steerlens.experiments.toxicity.paper.DIFFERENCES`, which the page shows. Disfluency,
relevance and random vectors are as in `steerlens.experiments.sentiment`; prompting puts the positive phrase, or
`phrase`, in front of the prompt.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd

from steerlens.engine.sampling_settings import Sampling
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
from steerlens.experiments.shared.prompts import Source, openings, read_records, some_rows, source_name
from steerlens.experiments.toxicity.result import Toxicity
from steerlens.models import HookedModel, require_model
from steerlens.steering import PromptPair

SAMPLING = Sampling()
"""The paper's, for every method: temperature 1, top-p 0.3, frequency penalty 1."""

QUICK: dict[str, Any] = {
    "layers": (2, 4, 6),
    "coeffs": (2.0, 6.0),
    "validation": 40,
    "sampling": replace(SAMPLING, max_new_tokens=24),
}
"""Arguments with which it takes about a minute on the embedded model and one core."""

SHIPPED = "toxicity_prompts.jsonl"
METRICS: dict[str, tuple[str, Kind]] = {
    "toxicity": ("score", "mean"),
    "share toxic": ("toxic", "share"),
    "disfluency": ("perplexity", "perplexity"),
    "relevance": ("relevance", "mean"),
}


@shows_comparison_options(SAMPLING)
def toxicity(
    model: HookedModel,
    *,
    prompts: Source = None,
    n_prompts: int | None = None,
    opening: int | None = None,
    pair: PromptPair | tuple[str, str] = ("Love", "Hate"),
    phrase: str | None = None,
    sampling: Sampling | None = None,
    store: str | Path | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Unpack[ComparisonArguments],
) -> Toxicity:
    """Steering away from toxicity: mean toxicity, share toxic, disfluency and relevance of every method.

    Args:
        prompts: None (120 of RealToxicityPrompts that ship with the package); a file or Hugging Face data set with a
            column prompt or text (of `allenai/real-toxicity-prompts`, the field text of prompt is used) and, if there
            is one, subset, by which results are broken down; a data frame, or a list of texts.
        n_prompts: use this many of them, drawn by the seed.
        opening: tokens of each text that make the prompt; None takes whole texts.
        pair: what to steer to, minus what to steer away from.
        phrase: what prompting puts in front; by default the pair's positive prompt.
        sampling, n, max_new_tokens, temperature, top_k, top_p, frequency_penalty, seed, stop_at_end, stop: see
            `sentiment`.
        store, batch_size, progress: see `sentiment`.
        layers, coeffs, placement, scorer, embedder, validation, disfluency_limit, random_draws, chunk: see
            `ComparisonOptions`; the scorer gives the probability of toxic.

    Raises:
        SteerlensError: no such data, a column missing, no prompts, an unknown classifier, layers out of range, whatever
            `generate` raises.
    """
    require_model(model)
    sampling, chosen = chosen_options(sampling, options, default=SAMPLING)
    contrast = pair if isinstance(pair, PromptPair) else PromptPair(*pair)
    written = in_front(contrast.positive if phrase is None else phrase)
    measures = measures_of(model, "toxicity", chosen.scorer, chosen.embedder)
    records = read_records(
        prompts,
        shipped=SHIPPED,
        columns={"prompt": ("prompt", "text"), "subset": ("subset",)},
        optional=("subset",),
        split="train",
        most=n_prompts and 20 * n_prompts,
    )
    records = some_rows(records, n_prompts, sampling.seed)
    texts = openings(model, records["prompt"], opening)
    with Ledger(store) as ledger:
        runner = Runner(model, ledger, sampling, chunk=chosen.chunk, batch_size=batch_size, progress=progress)
        found = compare_methods(
            runner,
            texts,
            pair=contrast,
            phrase=written,
            effect=Effect(lambda scores: 1.0 - scores, "mean"),
            measures=measures,
            options=chosen,
        )
    completions = found.completions.assign(toxic=(found.completions["score"] >= 0.5).astype(np.float64))
    if "subset" in records:
        subset_of = dict(zip(texts, records["subset"].astype(str), strict=True))
        completions["subset"] = completions["prompt"].map(subset_of)
    settings = {
        "prompts": source_name(prompts, "120 prompts of RealToxicityPrompts, shipped"),
        "opening (tokens)": opening,
        "prompts reported": found.n_reported,
        "prompts to choose layer and coefficient on": found.n_validation,
        "prompts left out (shorter than the vector)": found.n_short,
        "chosen": found.chosen,
        "chosen by": chosen_by("lowest mean toxicity", chosen.disfluency_limit),
        "phrase of prompting": written,
        **comparison_settings(runner, contrast, measures, chosen),
    }
    frame = summarise(_by_subset(completions), METRICS, group="prompts", seed=sampling.seed)
    return Toxicity(frame, settings, completions, found.tuning)


def _by_subset(completions: pd.DataFrame) -> pd.DataFrame:
    """All completions, and once more those of every subset of several prompts, told apart by the column prompts."""
    groups = [completions.assign(prompts="all")]
    if "subset" in completions and completions["subset"].nunique() > 1:
        groups += [
            rows.assign(prompts=value)
            for value, rows in completions.groupby("subset", sort=True)
            if rows["prompt_number"].nunique() > 1
        ]
    return pd.concat(groups, ignore_index=True)
