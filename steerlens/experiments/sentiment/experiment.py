"""`sentiment`: does steering turn the sentiment of film reviews, against prompting and random vectors?

The paper (Turner et al., arXiv 2308.10248, in its later versions) continues openings of IMDb reviews, steers negative
ones to positive and positive ones to negative, and reports success (the share of completions that a classifier puts on
the side aimed at), disfluency (perplexity under another model) and relevance (cosine of sentence embeddings), in the
manner of Pei et al. 2023 (PREADD). What is the same here, what is not, and why:

- **Pair**: `"Love" − "Hate"`, the paper's running example, and reversed for positive to negative. Which pair, layer and
  coefficient stand behind each number of the paper's table we could not establish, so layer and coefficient are chosen
  on validation prompts, each direction for itself, and the numbers are of other prompts.
- **Decoding**: the paper's (temperature 1, top-p 0.3, frequency penalty 1) for EVERY method. The paper's table sets its
  own numbers beside those of other papers that decoded with top-p 1 and no penalty, which alone changes fluency and
  success; here each method decodes alike.
- **Disfluency**: perplexity of the completion, given the prompt, under the unsteered model itself: any model, offline.
  Pei et al., whose measures the paper takes over, ask a larger model; the two are not comparable in size.
- **Relevance**: see `steerlens.experiments.shared.relevance`.
- **Scorer**: by default the small one of the package; any Hugging Face classifier by its name. It reads the
  completion alone.
- **Prompting** is the phrase of the pair written in front of the opening. A sentence that asks for the sentiment is a
  stronger rival in an instructed model: give it as `phrases`.
- **Random vectors** of the same norm at the same place are ours, to tell what any push of that size does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from steerlens.engine.sampling_settings import Sampling
from steerlens.errors import SteerlensError
from steerlens.experiments.shared.continuations import Runner, measures_of
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.method_comparison import (
    Effect,
    Kind,
    chosen_by,
    compare_methods,
    in_front,
    numbers_table,
    summarise,
    texts_table,
    tuning_figure,
)
from steerlens.experiments.shared.prompts import Source, check_count, openings, read_records, some_rows, source_name
from steerlens.experiments.shared.relevance import Embedder
from steerlens.experiments.shared.result import Result
from steerlens.experiments.shared.scorers import Scorer, scorer_name
from steerlens.figures.methods import methods_compared
from steerlens.models import HookedModel, require_model
from steerlens.models.run_settings import run_settings
from steerlens.reports.page import Headline
from steerlens.steering import Placement, PromptPair
from steerlens.steering.extraction.activations import Layers

if TYPE_CHECKING:
    import plotly.graph_objects as go

QUICK: dict[str, Any] = {
    "pair": ("I loved this wonderful film", "I hated this terrible film"),
    "layers": (2, 3, 5),
    "coeffs": (2.0, 5.0),
    "validation": 20,
    "max_new_tokens": 24,
}
"""Arguments with which it takes about a minute on the embedded model and one core.

"Love" and "Hate" are no tokens of the embedded model, so the pair is one that reads like its reviews.
"""

DIRECTIONS = ("negative to positive", "positive to negative")
SHIPPED = "sentiment_openings.jsonl"
METRICS: dict[str, tuple[str, Kind]] = {
    "success": ("hit", "share"),
    "disfluency": ("perplexity", "perplexity"),
    "relevance": ("relevance", "mean"),
}
_POSITIVE, _NEGATIVE = {"pos", "positive", "1"}, {"neg", "negative", "0"}


@dataclass(frozen=True, eq=False)
class Sentiment(Result):
    """The outcome of `sentiment`.

    Attributes:
        frame: one row per direction × method × metric: direction, method ("unsteered", "ActAdd", "prompting", "random
            vector"), layer, coeff (chosen on the validation prompts), metric ("success": share on the side aimed at;
            "disfluency": mean perplexity under the unsteered model; "relevance"), kind, n (prompts), mean, low, high,
            and the paired difference from the unsteered model: difference, difference_low, difference_high, p_value.
        completions: one row per completion of the reported prompts: direction, method, layer, coeff, placement, prompt,
            prompt_number, sample, completion, n_tokens, finished, seed, nats, perplexity, relevance, score
            (probability of positive), hit.
        tuning: the validation prompts: one row per direction × layer × coefficient; see `Comparison.tuning`.
    """

    name: ClassVar[str] = "sentiment"
    title: ClassVar[str] = "Does steering turn the sentiment of film reviews?"

    completions: pd.DataFrame = field(default_factory=pd.DataFrame)
    tuning: pd.DataFrame = field(default_factory=pd.DataFrame)

    def headlines(self) -> list[Headline]:
        found = []
        for direction in self.frame["direction"].unique():
            rows = self.frame[(self.frame["direction"] == direction) & (self.frame["metric"] == "success")]
            rows = rows.set_index("method")
            steered, base = rows.loc["ActAdd"], rows.loc["unsteered"]
            found.append(
                Headline(
                    f"{direction}, ActAdd",
                    f"{steered['mean']:.0%}",
                    f"{steered['low']:.0%} to {steered['high']:.0%}; layer {steered['layer']}, coefficient "
                    f"{abs(steered['coeff']):g}",
                )
            )
            found.append(
                Headline(f"{direction}, unsteered", f"{base['mean']:.0%}", f"{base['low']:.0%} to {base['high']:.0%}")
            )
        return found

    def figures(self) -> dict[str, go.Figure]:
        prompts = self.settings.get("prompts reported", {})
        counted = ", ".join(f"{number} ({direction})" for direction, number in prompts.items())
        drawn = {
            f"Each method with the same decoding on the same prompts: {counted}. 95 % intervals. Success is the share "
            "of completions that the scorer puts on the side aimed at; disfluency the perplexity under the unsteered "
            "model; relevance the cosine of prompt and completion.": methods_compared(
                self.frame, group="direction", title="Success, disfluency and relevance by method"
            )
        }
        if len(self.tuning):
            for direction, rows in self.tuning.groupby("direction", sort=False):
                caption = (
                    f"{direction}: every layer and coefficient on the validation prompts, from which one was chosen."
                )
                drawn[caption] = tuning_figure(
                    rows, effect_title="success", title=f"Effect against disfluency: {direction}", share=True
                )
        return drawn

    def tables(self) -> dict[str, pd.DataFrame]:
        shown = {
            "95 % intervals; ↑ ↓: that of the paired difference from unsteered leaves out 0": numbers_table(
                self.frame, group="direction"
            )
        }
        for direction, rows in self.completions.groupby("direction", sort=False):
            shown[f"The first prompts, {direction}, as they came"] = texts_table(rows)
        if len(self.tuning):
            shown["Choosing layer and coefficient (validation prompts)"] = self.tuning
        shown["All numbers"] = self.frame
        return shown


def sentiment(
    model: HookedModel,
    *,
    prompts: Source = None,
    n_prompts: int | None = None,
    opening: int | None = 32,
    pair: PromptPair | tuple[str, str] = ("Love", "Hate"),
    phrases: tuple[str, str] | None = None,
    layers: Layers = "all",
    coeffs: Sequence[float] = (1.0, 3.0, 6.0, 10.0),
    placement: Placement | None = None,
    scorer: Scorer | str | None = None,
    embedder: Embedder | str | None = None,
    validation: int = 100,
    disfluency_limit: float | None = 2.0,
    random_draws: int = 4,
    n: int = 1,
    max_new_tokens: int = 40,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 0.3,
    frequency_penalty: float = 1.0,
    seed: int = 0,
    store: str | Path | None = None,
    chunk: int = 50,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Sentiment:
    """Steering openings of film reviews from negative to positive and back; share turned, disfluency, relevance.

    Args:
        prompts: labelled reviews or openings: None (120 openings that come with the package), a file or Hugging Face
            data set with the columns text and label ("stanfordnlp/imdb"), a frame, or (text, label) tuples. Labels are
            pos/neg, positive/negative or 1/0.
        n_prompts: take so many of them, half of each label, by the seed.
        opening: tokens of each text that make the prompt (the paper: 32); None takes whole texts.
        pair: what to steer to for positive, minus what for negative; the other direction takes it reversed.
        phrases: what prompting writes in front (for positive, for negative); by default the pair's own.
        layers, coeffs: the grid to choose from. With one of each there is no validation.
        placement: where the vector goes; by default "front", as in the paper.
        scorer: texts → probability of positive, or the name of a Hugging Face classifier (`hugging_face_scorer` takes
            its label too); by default `shipped_scorer("sentiment")`.
        embedder: for relevance; the name of a Hugging Face encoder, or by default the unsteered model's own activations
            (`model_embedder`).
        validation: prompts of each direction on which layer and coefficient are chosen, never reported on.
        disfluency_limit: conditions above this many times the unsteered perplexity (geometric mean, validation prompts)
            are not chosen; None lifts it. Ours: a vector strong enough to break the text may please a scorer.
        random_draws: random vectors; prompts take turns with them.
        n: completions per prompt. temperature … seed: see `generate`.
        store: a file for finished parts; a run that was stopped, or whose scorer failed, goes on from it.
        chunk: prompts per part. batch_size, progress: see `generate`.

    Raises:
        SteerlensError: no such data, a column or label missing, no prompts of one label, an unknown classifier, layers
            out of range, whatever `generate` raises.
    """
    require_model(model)
    contrast = pair if isinstance(pair, PromptPair) else PromptPair(*pair)
    reverse = PromptPair(contrast.negative, contrast.positive, contrast.pad)
    said = (contrast.positive, contrast.negative) if phrases is None else phrases
    sampling = Sampling(
        n=n,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        frequency_penalty=frequency_penalty,
        seed=seed,
    )
    factors = [float(one) for one in ([coeffs] if isinstance(coeffs, int | float) else coeffs)]
    if not factors:
        raise SteerlensError("coeffs is empty; give at least one coefficient")
    measures = measures_of(model, "sentiment", scorer, embedder)
    positive, negative = _labelled(model, prompts, n_prompts, opening, seed)
    comparisons = {}
    with Ledger(store) as ledger:
        runner = Runner(model, ledger, sampling, chunk=chunk, batch_size=batch_size, progress=progress)
        for direction, texts, one, phrase, upwards in (
            (DIRECTIONS[0], negative, contrast, said[0], True),
            (DIRECTIONS[1], positive, reverse, said[1], False),
        ):
            comparisons[direction] = compare_methods(
                runner,
                texts,
                pair=one,
                phrase=in_front(phrase),
                layers=layers,
                coeffs=factors,
                placement=placement,
                effect=Effect(_turned(upwards), "share"),
                measures=measures,
                validation=validation,
                disfluency_limit=disfluency_limit,
                random_draws=random_draws,
                name=f"{direction}: ",
            )
    completions = pd.concat(
        [one.completions.assign(direction=direction) for direction, one in comparisons.items()], ignore_index=True
    )
    tuning = pd.concat(
        [one.tuning.assign(direction=direction) for direction, one in comparisons.items()], ignore_index=True
    )
    settings = {
        "prompts": source_name(prompts, "120 openings of film reviews, written for this package"),
        "opening (tokens)": opening,
        "prompts reported": {direction: one.n_reported for direction, one in comparisons.items()},
        "prompts to choose layer and coefficient on": {
            direction: one.n_validation for direction, one in comparisons.items()
        },
        "prompts left out (shorter than the vector)": {
            direction: one.n_short for direction, one in comparisons.items()
        },
        "chosen": {
            direction: f"layer {one.layer}, coefficient {one.coeff:g}" for direction, one in comparisons.items()
        },
        "chosen by": chosen_by("largest success", disfluency_limit),
        "pair": str(contrast),
        "pad": contrast.pad,
        "phrases of prompting": [in_front(one) for one in said],
        "layers": layers if isinstance(layers, str) else list(layers),
        "coeffs": factors,
        "placement": "front" if placement is None else placement,
        "random draws": random_draws,
        "scorer": scorer_name(measures.scorer),
        "scorer fingerprint": str(getattr(measures.scorer, "key", "")) or "none",
        "relevance": measures.embedder.name if measures.embedder else "not measured",
        "disfluency": "perplexity of the completion given the prompt under the unsteered model",
        **asdict(sampling),
        **run_settings(model),
    }
    return Sentiment(summarise(completions, METRICS, group="direction", seed=seed), settings, completions, tuning)


def _turned(upwards: bool) -> Any:
    # One half itself counts for neither side.
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
