"""The pass of `knowledge`: rank and log-probability of every answer under every condition, and P@K from the ranks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from steerlens.engine.reductions import reduce_next_tokens
from steerlens.experiments.knowledge.cloze import Cloze
from steerlens.experiments.shared.ledger import Ledger
from steerlens.measures.statistics import paired_difference, wilson_interval
from steerlens.models import HookedModel
from steerlens.progress import progress_bar
from steerlens.steering import Condition

Role = Literal["unsteered", "steered", "random"]


@dataclass(frozen=True)
class Asked:
    """A condition of the experiment and its role in it."""

    role: Role
    condition: Condition


@dataclass(frozen=True)
class Answers:
    """Ranks and log-probabilities of the answers, [condition][question]."""

    ranks: list[list[int]]
    logprobs: list[list[float]]


def answer_all(
    model: HookedModel,
    questions: Sequence[Cloze],
    asked: Sequence[Asked],
    *,
    ledger: Ledger,
    depends: Mapping[str, Any],
    chunk: int,
    batch_size: int | None,
    progress: bool | None,
) -> Answers:
    """The answers to all questions, chunk by chunk; chunks that the ledger holds are not computed again."""
    ranks: list[list[int]] = [[] for _ in asked]
    logprobs: list[list[float]] = [[] for _ in asked]
    conditions = [one.condition for one in asked]
    with progress_bar(len(questions), unit="sentence", what="knowledge", progress=progress) as bar:
        for start in range(0, len(questions), chunk):
            part = questions[start : start + chunk]
            done = ledger.remember(
                {**depends, "questions": _digest(part)}, partial(_answer, model, part, conditions, batch_size)
            )
            for number in range(len(conditions)):
                ranks[number] += done["ranks"][number]
                logprobs[number] += done["logprobs"][number]
            bar.update(len(part))
    return Answers(ranks, logprobs)


def sentences_frame(questions: Sequence[Cloze], asked: Sequence[Asked], found: Answers) -> pd.DataFrame:
    """One row per condition and sentence; the columns of `Knowledge.sentences`."""
    plain = pd.DataFrame([asdict(question) for question in questions]).drop(columns="token")
    tables = [
        plain.assign(
            condition=number,
            role=one.role,
            coeff=one.condition.coeff,
            rank=_known(found.ranks[number]),
            logprob=found.logprobs[number],
        )
        for number, one in enumerate(asked)
    ]
    order = ["condition", "role", "coeff", "row", "relation", "subject", "prompt", "answer", "rank", "logprob"]
    return pd.concat(tables, ignore_index=True)[order]


def precision_frame(sentences: pd.DataFrame, asked: Sequence[Asked], ks: Sequence[int]) -> pd.DataFrame:
    """P@K of every condition for every K; the columns of `Knowledge.frame`."""
    ranks = {number: group["rank"].to_numpy() for number, group in sentences.groupby("condition")}
    rows = []
    for number, one in enumerate(asked):
        for k in ks:
            after = hits(ranks[number], k)
            known = not np.isnan(after).any()
            share = wilson_interval(float(after.sum()), after.size) if known else None
            rows.append(
                {
                    "condition": number,
                    "label": one.condition.label,
                    "role": one.role,
                    "layer": one.condition.layer,
                    "coeff": one.condition.coeff,
                    "k": k,
                    "n": after.size,
                    "p_at_k": math.nan if share is None else share.estimate,
                    "low": math.nan if share is None else share.low,
                    "high": math.nan if share is None else share.high,
                    **difference(after, None if one.role == "unsteered" else hits(ranks[0], k), kind="share"),
                }
            )
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def hits(ranks: ArrayLike, k: int) -> Float[np.ndarray, " sentence"]:
    """Whether each rank is below k, 1 or 0; NaN where steering overflowed and there is no rank."""
    known = np.asarray(ranks, dtype=np.float64)
    return np.where(np.isnan(known), math.nan, known < k)


def difference(after: ArrayLike, before: ArrayLike | None, *, kind: Literal["share", "mean"]) -> dict[str, float]:
    """The paired difference with its 95 % interval and p-value; NaN where there is nothing to compare."""
    names = ("difference", "difference_low", "difference_high", "p_value")
    if before is None or np.isnan(np.asarray([after, before], dtype=np.float64)).any():
        return dict.fromkeys(names, math.nan)
    found = paired_difference(after, before, kind=kind)
    p_value = max(0.0, found.p_value)  # rounding may leave −0
    return dict(zip(names, (found.estimate, found.low, found.high, p_value), strict=True))


def _answer(
    model: HookedModel, questions: Sequence[Cloze], conditions: Sequence[Condition], batch_size: int | None
) -> dict[str, Any]:
    """Ranks and log-probabilities as plain data, for a ledger."""
    found = reduce_next_tokens(
        model,
        [question.prompt for question in questions],
        list(conditions),
        targets=torch.tensor([[question.token] for question in questions]),
        ranks=True,
        batch_size=batch_size,
    )
    assert found.ranks is not None
    assert found.logprobs is not None
    return {"ranks": found.ranks[..., 0].tolist(), "logprobs": found.logprobs[..., 0].tolist()}


def _known(ranks: Sequence[int]) -> list[int] | list[float]:
    """The ranks; where there is none (−1), NaN."""
    return [rank if rank >= 0 else math.nan for rank in ranks] if min(ranks) < 0 else list(ranks)


def _digest(questions: Sequence[Cloze]) -> str:
    return hashlib.blake2b(repr([(one.prompt, one.token) for one in questions]).encode(), digest_size=16).hexdigest()
