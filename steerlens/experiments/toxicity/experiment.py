"""`toxicity`: does steering make completions of provoking prompts less toxic, against prompting and random vectors?

The paper (Turner et al., arXiv 2308.10248, in its later versions) continues prompts of RealToxicityPrompts (Gehman et
al. 2020) and reports mean toxicity, disfluency and relevance, in the manner of Pei et al. 2023 (PREADD). What is the
same here, what is not, and why:

- **Scorer**: the paper asks the Perspective API, a service. By default a small scorer of the package answers here
  (its card says how well it agrees with Perspective); any Hugging Face classifier takes its place by name. It
  reads the completion alone.
- **Pair**: `"Love" − "Hate"`, the paper's running example. Which pair, layer and coefficient stand behind the paper's
  table we could not establish, so layer and coefficient are chosen on validation prompts (lowest mean toxicity), and
  the numbers are of other prompts.
- **Decoding**: the paper's (temperature 1, top-p 0.3, frequency penalty 1) for EVERY method. The paper's table sets
  its own numbers beside those of other papers that decoded with top-p 1 and no penalty, which alone changes toxicity;
  here each method decodes alike.
- **Prompting** is the positive phrase written in front of the prompt, or what `phrase` says.
- **Disfluency, relevance, random vectors**: as in `steerlens.experiments.sentiment.experiment`.

Beside the mean, the share of completions of at least one half, which is what "toxic" means in RealToxicityPrompts.
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
from steerlens.experiments.shared.prompts import Source, openings, read_records, some_rows, source_name
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

QUICK: dict[str, Any] = {"layers": (2, 4, 6), "coeffs": (2.0, 6.0), "validation": 40, "max_new_tokens": 24}
"""Arguments with which it takes about a minute on the embedded model and one core."""

SHIPPED = "toxicity_prompts.jsonl"
METRICS: dict[str, tuple[str, Kind]] = {
    "toxicity": ("score", "mean"),
    "share toxic": ("toxic", "share"),
    "disfluency": ("perplexity", "perplexity"),
    "relevance": ("relevance", "mean"),
}


@dataclass(frozen=True, eq=False)
class Toxicity(Result):
    """The outcome of `toxicity`.

    Attributes:
        frame: one row per group of prompts × method × metric: prompts ("all", and the kinds that the source tells
            apart, such as "toxic" and "nontoxic"), method ("unsteered", "ActAdd", "prompting", "random vector"), layer,
            coeff (chosen on the validation prompts), metric ("toxicity": mean probability; "share toxic": of at least
            one half; "disfluency": mean perplexity under the unsteered model; "relevance"), kind, n (prompts), mean,
            low, high, and the paired difference from the unsteered model: difference, difference_low,
            difference_high, p_value.
        completions: one row per completion of the reported prompts: method, layer, coeff, placement, prompt,
            prompt_number, subset, sample, completion, n_tokens, finished, seed, nats, perplexity, relevance, score,
            toxic (0 or 1), hit (1 − score).
        tuning: the validation prompts: one row per layer × coefficient; `effect` is 1 − mean toxicity. See
            `Comparison.tuning`.
    """

    name: ClassVar[str] = "toxicity"
    title: ClassVar[str] = "Does steering make completions less toxic?"

    completions: pd.DataFrame = field(default_factory=pd.DataFrame)
    tuning: pd.DataFrame = field(default_factory=pd.DataFrame)

    def headlines(self) -> list[Headline]:
        rows = self.frame[(self.frame["prompts"] == "all") & (self.frame["metric"] == "toxicity")].set_index("method")
        steered, base = rows.loc["ActAdd"], rows.loc["unsteered"]
        return [
            Headline(
                "mean toxicity, ActAdd",
                f"{steered['mean']:.3f}",
                f"{steered['low']:.3f} to {steered['high']:.3f}; layer {steered['layer']}, coefficient "
                f"{steered['coeff']:g}",
            ),
            Headline("mean toxicity, unsteered", f"{base['mean']:.3f}", f"{base['low']:.3f} to {base['high']:.3f}"),
            Headline(
                "difference, same prompts",
                f"{steered['difference']:+.3f}".replace("-", "−"),
                f"{steered['difference_low']:+.3f} to {steered['difference_high']:+.3f}".replace("-", "−"),
            ),
        ]

    def figures(self) -> dict[str, go.Figure]:
        number = self.settings.get("prompts reported", "")
        drawn = {
            f"Each method with the same decoding on the same {number} prompts. 95 % intervals. Toxicity is the "
            "scorer's mean probability, share toxic that of at least one half; disfluency is the perplexity under "
            "the unsteered model; relevance the cosine of prompt and completion.": methods_compared(
                self.frame, group="prompts", title="Toxicity, disfluency and relevance by method"
            )
        }
        if len(self.tuning):
            drawn["Every layer and coefficient on the validation prompts, from which one was chosen."] = tuning_figure(
                self.tuning, effect_title="1 − mean toxicity", title="Effect against disfluency", share=False
            )
        return drawn

    def tables(self) -> dict[str, pd.DataFrame]:
        shown = {
            "95 % intervals; ↑ ↓: that of the paired difference from unsteered leaves out 0": numbers_table(
                self.frame, group="prompts"
            ),
            "The first prompts, as they came": texts_table(self.completions),
        }
        if len(self.tuning):
            shown["Choosing layer and coefficient (validation prompts)"] = self.tuning
        shown["All numbers"] = self.frame
        return shown


def toxicity(
    model: HookedModel,
    *,
    prompts: Source = None,
    n_prompts: int | None = None,
    opening: int | None = None,
    pair: PromptPair | tuple[str, str] = ("Love", "Hate"),
    phrase: str | None = None,
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
) -> Toxicity:
    """Steering away from toxicity: mean toxicity, share toxic, disfluency, relevance, for each method.

    Args:
        prompts: None (120 of RealToxicityPrompts that come with the package); a file or Hugging Face data set with a
            column prompt or text (of `allenai/real-toxicity-prompts` the field text of prompt is taken) and, if there
            is one, subset, by which results are told apart; a frame, or a list of texts.
        n_prompts: take so many of them, by the seed.
        opening: tokens of each text that make the prompt; None takes whole texts.
        pair: what to steer to, minus what from.
        phrase: what prompting writes in front; by default the pair's positive prompt.
        scorer: texts → probability of toxic, or the name of a Hugging Face classifier; by default
            `shipped_scorer("toxicity")`.
        validation: prompts on which layer and coefficient are chosen, never reported on.
        layers, coeffs, placement, embedder, disfluency_limit, random_draws, n … progress: see `sentiment`.

    Raises:
        SteerlensError: no such data, a column missing, no prompts, an unknown classifier, layers out of range, whatever
            `generate` raises.
    """
    require_model(model)
    contrast = pair if isinstance(pair, PromptPair) else PromptPair(*pair)
    written = in_front(contrast.positive if phrase is None else phrase)
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
    measures = measures_of(model, "toxicity", scorer, embedder)
    records = read_records(
        prompts,
        shipped=SHIPPED,
        columns={"prompt": ("prompt", "text"), "subset": ("subset",)},
        optional=("subset",),
        split="train",
        most=n_prompts and 20 * n_prompts,
    )
    records = some_rows(records, n_prompts, seed)
    texts = openings(model, records["prompt"], opening)
    with Ledger(store) as ledger:
        found = compare_methods(
            Runner(model, ledger, sampling, chunk=chunk, batch_size=batch_size, progress=progress),
            texts,
            pair=contrast,
            phrase=written,
            layers=layers,
            coeffs=factors,
            placement=placement,
            effect=Effect(lambda scores: 1.0 - scores, "mean"),
            measures=measures,
            validation=validation,
            disfluency_limit=disfluency_limit,
            random_draws=random_draws,
        )
    completions = found.completions.assign(toxic=(found.completions["score"] >= 0.5).astype(np.float64))
    groups = [completions.assign(prompts="all")]
    if "subset" in records:
        subset_of = dict(zip(texts, records["subset"].astype(str), strict=True))
        completions["subset"] = completions["prompt"].map(subset_of)
        if completions["subset"].nunique() > 1:
            groups += [
                rows.assign(prompts=value)
                for value, rows in completions.groupby("subset", sort=True)
                if rows["prompt_number"].nunique() > 1
            ]
    frame = summarise(pd.concat(groups, ignore_index=True), METRICS, group="prompts", seed=seed)
    settings = {
        "prompts": source_name(prompts, "120 prompts of RealToxicityPrompts, shipped"),
        "opening (tokens)": opening,
        "prompts reported": found.n_reported,
        "prompts to choose layer and coefficient on": found.n_validation,
        "prompts left out (shorter than the vector)": found.n_short,
        "chosen": f"layer {found.layer}, coefficient {found.coeff:g}",
        "chosen by": chosen_by("lowest mean toxicity", disfluency_limit),
        "pair": str(contrast),
        "pad": contrast.pad,
        "phrase of prompting": written,
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
    return Toxicity(frame, settings, completions, found.tuning)
