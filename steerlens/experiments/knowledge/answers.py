"""The pass of `knowledge`: rank and log-probability of every answer under every condition, and P@K from the ranks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import pandas as pd
import torch

from steerlens.engine.reductions import reduce_next_tokens
from steerlens.experiments.knowledge.cloze import Cloze
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.progress import progress_bar
from steerlens.measures.statistics import Interval, paired_difference, wilson_interval
from steerlens.models import HookedModel
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
            rank=found.ranks[number],
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
            hits, before = (ranks[number] < k).astype(float), (ranks[0] < k).astype(float)
            share = wilson_interval(float(hits.sum()), hits.size)
            change = None if one.role == "unsteered" else paired_difference(hits, before, kind="share")
            if (ranks[number] < 0).any():  # steering that overflowed: no distribution, so nothing to hit or miss
                share = Interval(math.nan, math.nan, math.nan, hits.size, share.level)
                change = None
            rows.append(
                {
                    "condition": number,
                    "label": one.condition.label,
                    "role": one.role,
                    "layer": one.condition.layer,
                    "coeff": one.condition.coeff,
                    "k": k,
                    "n": hits.size,
                    "p_at_k": share.estimate,
                    "low": share.low,
                    "high": share.high,
                    "difference": math.nan if change is None else change.estimate,
                    "difference_low": math.nan if change is None else change.low,
                    "difference_high": math.nan if change is None else change.high,
                    "p_value": math.nan if change is None else change.p_value,
                }
            )
    return pd.DataFrame(rows).astype({"layer": "Int64"})


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


def _digest(questions: Sequence[Cloze]) -> str:
    return hashlib.blake2b(repr([(one.prompt, one.token) for one in questions]).encode(), digest_size=16).hexdigest()
