"""`essay_curve`: the perplexity of a wedding and a shipping essay by layer, beside the curve of the original post."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd
import torch

from steerlens.errors import SteerlensError
from steerlens.experiments.perplexity import original_curve, paper
from steerlens.experiments.perplexity.documents import SHIPPED
from steerlens.experiments.perplexity.sentences import Parameters, Splitter, splitter
from steerlens.experiments.perplexity.token_shifts import Rows, Windows, opening, token_logprobs
from steerlens.experiments.shared import wording
from steerlens.experiments.shared.beside import Reported, beside
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.result import Result
from steerlens.measures.statistics import t_quantile
from steerlens.models import HookedModel, require_model
from steerlens.models.run_settings import run_settings
from steerlens.reports.page import Headline
from steerlens.steering import Condition, Injection, PromptPair, actadd

if TYPE_CHECKING:
    import plotly.graph_objects as go

ESSAYS = {name: SHIPPED.parent / f"{name}_essay.txt" for name in original_curve.RATIO}
"""The two essays of the original post's figure, shipped with the package (MIT)."""

THIS_MODEL = "this model"


@dataclass(frozen=True, eq=False)
class EssayCurve(Result):
    """Perplexity ratios of essays by layer.

    `frame`, one row per source, essay, layer and mask: source (`"this model"`, or the original post's model), essay,
    layer (int), depth (layer over number of layers), coeff, mask (bool: positions that overlap the injection left
    out), sentences, tokens, x (mean change of log-probability, nats per token), x_low, x_high, ratio (`exp(−x)`), low,
    high (95 %: Student-t, sentences as clusters; NaN for the original, which has no interval).
    """

    name: ClassVar[str] = "essays"
    title: ClassVar[str] = "Is an essay on the topic more likely when steered, and another one as likely as before?"

    def answer(self) -> list[str]:
        rows = self.frame[(self.frame["source"] == THIS_MODEL) & self.frame["mask"]]
        said = []
        for essay, part in rows.groupby("essay", sort=False):
            best = part.loc[part["ratio"].idxmin()]
            is_lower = wording.side(best["low"], best["high"], of=1.0) == "below"
            told = "is more likely when steered" if is_lower else "is not clearly more likely at any layer"
            said.append(
                f"The {essay} essay {told}: its lowest perplexity ratio is "
                f"{wording.ratio(best['ratio'], best['low'], best['high'])}, at layer {best['layer']} of "
                f"{len(part)} tried."
            )
        return said

    def beside_post(self) -> list[tuple[Reported, str]]:
        """Points of the post's curve, each with this model's at the nearest depth."""
        own = self.frame[(self.frame["source"] == THIS_MODEL) & self.frame["mask"]]
        rows = []
        for essay, curve in original_curve.RATIO.items():
            mine = own[own["essay"] == essay]
            for layer in paper.ESSAY_LAYERS if len(mine) else ():
                near = mine.loc[(mine["depth"] - layer / original_curve.N_LAYERS).abs().idxmin()]
                here = f"{wording.ratio(near['ratio'], near['low'], near['high'])}; layer {near['layer']}"
                rows.append((paper.essay(essay, layer, curve[layer]), here))
        return rows

    def beside_paper(self) -> pd.DataFrame:
        return beside(self.beside_post())

    def headlines(self) -> list[Headline]:
        """The layer at which each essay's ratio is lowest, masked."""
        rows = self.frame[(self.frame["source"] == THIS_MODEL) & self.frame["mask"]]
        found = []
        for essay, part in rows.groupby("essay", sort=False):
            best = part.loc[part["ratio"].idxmin()]
            found.append(
                Headline(
                    f"lowest ratio, {essay} essay",
                    f"{best['ratio']:.3f}",
                    f"at layer {best['layer']}; 95 %: {best['low']:.3f} to {best['high']:.3f}",
                )
            )
        return found

    def figures(self) -> dict[str, go.Figure]:
        """The original post's figure, with the original as dashed lines."""
        from steerlens.experiments.perplexity.figures import essay_figure

        caption = (
            "Perplexity of the steered over that of the unsteered model, by layer. Solid: this model, with 95 % "
            f"intervals over sentences. Dashed: {original_curve.MODEL}. Positions that overlap the injection are left "
            "out."
        )
        return {caption: essay_figure(self.frame)}


def essay_curve(
    model: HookedModel,
    pair: PromptPair | None = None,
    *,
    essays: Mapping[str, str | Path] | None = None,
    layers: Sequence[int] | Literal["all"] = "all",
    coeff: float = 1.0,
    sentences: Parameters | Splitter = "auto",
    store: str | Path | None = None,
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> EssayCurve:
    """The perplexity ratio `exp(−X)` of essays by layer, with the curve of GPT-2-XL from the original post.

    X is the mean over ALL tokens of an essay of `log p_steered − log p_base` (nats), as in the original's script
    (`initial_post_quantitative.py`), not the mean over sentences. Essays are split by Punkt, and every sentence is a
    sequence of its own, behind BOS. With `mask`, predictions made at positions that overlap the injection (BOS and
    the phrase: the first 2 for " weddings" in GPT-2) do not count. Both readings are in the frame.

    Args:
        pair: by default `" weddings" − ""`, padded with spaces.
        essays: name to text or to the path of a text; by default the two shipped ones.
        layers, coeff: the original: all, 1.
        sentences: see `splitter`; the original: nltk's English parameters.
        store: path of a `Ledger`.
        batch_size, memory_budget: rows that run together; by default as many as the device has room for.

    Raises:
        SteerlensError: a layer out of range, a missing or empty essay, whatever `actadd` and `score` raise.
    """
    require_model(model)
    pair = pair or PromptPair(" weddings", "")
    texts = {name: _text(name, essay) for name, essay in (essays or ESSAYS).items()}
    split = sentences if isinstance(sentences, Splitter) else splitter(list(texts.values()), sentences)
    vectors = actadd(model, pair, layers=layers)
    conditions = [Condition(), *(Condition((Injection(coeff * vector),)) for vector in vectors.values())]
    layers_here, coeff = list(vectors), float(coeff)
    span = next(iter(vectors.values())).n_positions
    sums = partial(_sums, model, conditions, split, span, {"batch_size": batch_size, "memory_budget": memory_budget})
    found = []
    with Ledger(store) as ledger:
        depends = {
            "experiment": "essays",
            "model": ledger.model_key(model),
            "pair": [pair.positive, pair.negative, pair.pad],
            "layers": layers_here,
            "coeff": coeff,
            "split": split.identity,
        }
        for name, text in texts.items():
            parts = ledger.remember({**depends, "text": text}, partial(sums, text))
            for mask, (totals, counts) in zip((True, False), parts, strict=True):
                if not sum(counts):
                    raise SteerlensError(
                        f"the essay {name!r} has no token behind the {span} positions of the vector; give a longer text"
                    )
                for layer, total in zip(layers_here, totals, strict=True):
                    where = {"source": THIS_MODEL, "essay": name, "layer": layer, "depth": layer / model.cfg.n_layers}
                    found.append({**where, "coeff": coeff, "mask": mask, **_clustered(total, counts)})
    frame = pd.DataFrame(found)
    if set(texts) & set(original_curve.RATIO):
        frame = pd.concat([frame, _original(list(texts))], ignore_index=True)
    settings: dict[str, Any] = {
        "pair": str(pair),
        "pad": pair.pad,
        "layers": layers_here,
        "coeff": coeff,
        "sentence splitter": split.description,
        **run_settings(model),
    }
    return EssayCurve(frame, settings)


def _sums(
    model: HookedModel,
    conditions: Sequence[Condition],
    split: Splitter,
    span: int,
    options: dict[str, int | None],
    text: str,
) -> list[Any]:
    """For masked and for all tokens: sums by layer and sentence, and tokens by sentence, as plain data."""
    start = opening(model)
    windows = Windows.of(model, [text], split, most=model.cfg.n_ctx - len(start))
    rows = Rows.of_sentences([ids for ids in windows.ids if len(start) + len(ids) >= span], start)
    logprobs = token_logprobs(model, rows, conditions, **options).cpu()
    change = (logprobs[1:] - logprobs[0]).double()
    parts = []
    for counted in (rows.position >= span, torch.ones_like(rows.position, dtype=torch.bool)):
        total = torch.zeros(len(change), len(rows.rows), dtype=torch.float64)
        total.index_add_(1, rows.of[counted], change[:, counted])
        parts.append([total.tolist(), rows.of[counted].bincount(minlength=len(rows.rows)).tolist()])
    return parts


def _clustered(total: Sequence[float], counts: Sequence[int]) -> dict[str, Any]:
    """The mean per token with its interval, sentences taken as clusters (a ratio estimator)."""
    kept = [(t, n) for t, n in zip(total, counts, strict=True) if n]
    tokens = sum(n for _, n in kept)
    x = sum(t for t, _ in kept) / tokens if tokens else math.nan
    half = math.nan
    if len(kept) > 1:
        squares = sum((t - x * n) ** 2 for t, n in kept) * len(kept) / (len(kept) - 1)
        half = t_quantile(0.975, len(kept) - 1) * math.sqrt(squares) / tokens
    return {
        "sentences": len(kept),
        "tokens": tokens,
        "x": x,
        "x_low": x - half,
        "x_high": x + half,
        "ratio": math.exp(-x),
        "low": math.exp(-(x + half)),
        "high": math.exp(-(x - half)),
    }


def _original(essays: Sequence[str]) -> pd.DataFrame:
    """The original post's numbers in the columns of the frame."""
    rows = [
        {
            "source": original_curve.MODEL,
            "essay": essay,
            "layer": layer,
            "depth": layer / original_curve.N_LAYERS,
            "coeff": original_curve.COEFFICIENT,
            "mask": True,
            "x": -math.log(ratio),
            "ratio": ratio,
        }
        for essay in essays
        for layer, ratio in original_curve.RATIO.get(essay, {}).items()
    ]
    return pd.DataFrame(rows)


def _text(name: str, essay: str | Path) -> str:
    if isinstance(essay, Path):
        try:
            essay = essay.read_text(encoding="utf-8")
        except OSError as error:
            raise SteerlensError(
                f"the essay {name!r} cannot be read from {essay}: {(error.strerror or str(error)).lower()}; correct "
                "the path"
            ) from None
    if not essay.strip():
        raise SteerlensError(f"the essay {name!r} is empty; give a text")
    return essay
