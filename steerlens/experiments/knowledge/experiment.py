"""`knowledge`: does steering preserve what the model knows? P@K on cloze sentences, unsteered against steered.

The paper (Turner et al., arXiv 2308.10248, "preservation of performance") asks GPT-2-XL for the masked word of the
ConceptNet sentences in LAMA (Petroni et al. 2019; n = 29,774 in the text) with and without the wedding activation
addition. The prompt is the text before the mask, only single-token answers are kept, and P@K is the share of sentences
whose answer is among the K most likely next tokens, plotted over a range of K. The paper finds a negligible difference.

What the text leaves open follows the original script: `" weddings"` − `""` (padded with a space, which equals
`" weddings"` − `" "` where that is one token), coefficient 1, layer 16, and `K = unique(ceil(logspace(0, 2, 20)))`, to
which 10 is added. A model of another depth is steered at the same relative depth; the settings record both numbers.
Where the text and the script differ, or where this experiment departs from both:
`steerlens.experiments.knowledge.paper.DIFFERENCES`, which the page shows.

By default the questions are a small set written for this project, because LAMA's ConceptNet is CC-BY-NC-4.0 and is not
shipped. For the paper's data, pass `data=` the path of its test.jsonl, from
https://dl.fbaipublicfiles.com/LAMA/data.zip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steerlens.arguments import choice, listed, numbers, whole_number
from steerlens.errors import SteerlensError
from steerlens.experiments.knowledge.answers import Asked, answer_all, precision_frame, sentences_frame
from steerlens.experiments.knowledge.cloze import ask, read_cloze
from steerlens.experiments.knowledge.result import Knowledge
from steerlens.experiments.shared.depth import same_depth
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.prompts import Source
from steerlens.models import HookedModel, require_model
from steerlens.models.run_settings import run_settings
from steerlens.steering import Condition, Injection, Placement, PromptPair, SteeringVector, actadd
from steerlens.steering.random_vectors import Control, random_like

PAPER_LAYER = 16
"""Of GPT-2-XL's 48, in the original script; the text does not name a layer."""

KS = tuple(sorted({10, *(int(k) for k in np.ceil(np.logspace(0, 2, 20)))}))
"""The K of the script, 1 to 100 and evenly spaced on a logarithmic scale, and 10, the one usually quoted."""

QUICK: dict[str, Any] = {"coeffs": (1.0, 4.0)}

# Part of every key; to be raised when the same settings would give other ranks than before.
_REVISION = 2


def knowledge(
    model: HookedModel,
    *,
    data: Source = None,
    pair: PromptPair | None = None,
    layer: int | None = None,
    coeffs: Sequence[float] | float = (1.0,),
    placement: Placement | None = None,
    control: Control = "random",
    ks: Sequence[int] = KS,
    limit: int | None = None,
    seed: int = 0,
    store: str | Path | None = None,
    chunk: int = 1000,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Knowledge:
    """P@K on cloze sentences with and without steering, and the paired difference: figure 5 of the paper (v1).

    Formula: P@K = mean over sentences of [rank of the answer among all next tokens < K], where the rank is the number
    of tokens with a larger logit. Source: Turner et al., arXiv 2308.10248; the head of this file says where its text
    and its script differ. The defaults are theirs, except for the data.

    Args:
        data: LAMA ConceptNet as a parquet, JSONL or CSV file or a data frame (see `read_cloze`); None takes the 256
            sentences that ship with the package.
        pair: what to steer with; by default `" weddings"` − `""`.
        layer: by default layer 16 of GPT-2-XL, or the same relative depth in another model.
        coeffs: one coefficient or several.
        control: "random" also asks the model steered with a random vector of equal norm; None leaves it out.
        ks: the values of K.
        limit: at most this many sentences, spread evenly over the data.
        seed: of the random vector.
        store: a file that keeps finished chunks (a `Ledger`), from which an interrupted run resumes.
        chunk: sentences per stored part.
        batch_size: rows that run together; by default as many as fit.
        progress: a progress bar; by default in a terminal or notebook.

    Raises:
        SteerlensError: data that cannot be read or has no mask, no single-token answer, a layer out of range, a K that
            is no whole number of at least 1, logits that are not finite.
    """
    require_model(model)
    wanted = _ks(ks)
    chunk = whole_number("chunk", chunk, least=1)
    limit = None if limit is None else whole_number("limit", limit, least=1)
    choice("control", control, ("random", None))
    factors = numbers("coeffs", coeffs)
    contrast = PromptPair(" weddings", "") if pair is None else pair
    rows, source = read_cloze(data)
    vector = actadd(model, contrast, layer=same_depth(model, PAPER_LAYER) if layer is None else layer)
    questions = ask(model, rows, source=source, shortest=vector.n_positions, limit=limit)
    asked = _conditions(vector, factors, placement, control, seed)
    depends = {
        "pair": [contrast.positive, contrast.negative, contrast.pad],
        "layer": vector.layer,
        "coeffs": factors,
        "placement": vector.placement if placement is None else placement,
        "control": control,
        "seed": seed,
    }
    with Ledger(store) as ledger:
        found = answer_all(
            model,
            questions.questions,
            asked,
            ledger=ledger,
            depends={"experiment": "knowledge", "revision": _REVISION, "model": ledger.model_key(model), **depends},
            chunk=chunk,
            batch_size=batch_size,
            progress=progress,
        )
    settings = {
        "data": questions.source,
        "sentences read": questions.read,
        "sentences asked": len(questions.questions),
        "left out": questions.left_out,
        **depends,
        "pair": str(contrast),
        "pad": contrast.pad,
        "layer in the paper's script": f"{PAPER_LAYER} of GPT-2-XL's 48",
        "ks": wanted,
        "limit": limit,
        **run_settings(model),
    }
    sentences = sentences_frame(questions.questions, asked, found)
    return Knowledge(precision_frame(sentences, asked, wanted), settings, sentences, questions.left_out)


def _ks(ks: Sequence[int]) -> list[int]:
    wanted = sorted({whole_number("each of ks", k, least=1) for k in listed("ks", ks, of="whole numbers")})
    if not wanted:
        raise SteerlensError("ks is empty; give at least one K, such as ks=[1, 10, 100]")
    return wanted


def _conditions(
    vector: SteeringVector, factors: Sequence[float], placement: Placement | None, control: Control, seed: int
) -> list[Asked]:
    """No steering, the vector at each coefficient, and a random vector of equal norm at each."""
    found = [Asked("unsteered", Condition())]
    found += [Asked("steered", Condition((Injection(factor * vector, placement),))) for factor in factors]
    if control == "random":
        noise = random_like(vector, seed=seed)
        found += [Asked("random", Condition((Injection(factor * noise, placement),))) for factor in factors]
    return found
