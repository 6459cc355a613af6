"""Is knowledge kept under steering? P@K on ConceptNet, base against steered (ActAdd, "preservation of performance")

The paper (Turner et al., arXiv 2308.10248) asks GPT-2-XL for the masked word of the ConceptNet part of LAMA (Petroni
et al. 2019; it says n = 29,774 sentences) with and without "the wedding activation addition": the prompt is the text
before the mask, only answers of one token count, and P@K is the share of sentences whose answer is among the K most
likely next tokens, drawn for a range of K. It finds the difference negligible.

What the text leaves open is here as in the original script: `" weddings"` − `""` (padded with a space, so the same as
`" weddings"` − `" "` where that is one token), coefficient 1, layer 16, and `K = unique(ceil(logspace(0, 2, 20)))`, to
which 10 is added. A model of another depth gets the layer at the same relative depth; both numbers are in the settings.
 Where text and script differ or something is ours:

- The script asks every sentence with an empty prompt too (BOS alone) and lets a vector longer than the prompt run into
  the padding. Here those sentences are left out and counted.
- A sentence with several masked sentences, or text behind the mask, is cut at its first mask, as in the script.
- The paper gives no intervals. Here each P@K has Wilson's, and the difference to the unsteered model the interval of
  Bonett and Price (2012) for paired shares (95 %, for each K alone).
- The paper has no control. Here a random vector of equal norm is asked the same.
- P@K moves only when an answer crosses rank K; the mean change of the answers' log-probability (nats) stands beside.

The default data is a small set written for this project, since LAMA's ConceptNet may not be shipped (CC-BY-NC-4.0). For
the paper's data give `data=` the path of its test.jsonl, from https://dl.fbaipublicfiles.com/LAMA/data.zip.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from steerlens.engine.reductions import reduce_next_tokens
from steerlens.errors import SteerlensError
from steerlens.experiments.knowledge.cloze import Cloze, ask, read_cloze
from steerlens.experiments.knowledge.figures import change_by_k, change_by_relation, precision_by_k
from steerlens.experiments.shared.depth import same_depth
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.prompts import Source
from steerlens.experiments.shared.result import Result
from steerlens.figures import theme
from steerlens.measures.statistics import paired_difference, wilson_interval
from steerlens.models import HookedModel, require_model
from steerlens.models.run_settings import run_settings
from steerlens.reports.page import Headline
from steerlens.steering import Condition, Injection, Placement, PromptPair, actadd
from steerlens.steering.random_vectors import Control, random_like

if TYPE_CHECKING:
    import plotly.graph_objects as go

PAPER_LAYER = 16
"""Of GPT-2-XL's 48, in the original script; the text does not name a layer."""

KS = tuple(sorted({10, *(int(k) for k in np.ceil(np.logspace(0, 2, 20)))}))
"""The script's K, 1 to 100, evenly spaced in the logarithm; and 10, the usual one to name."""

QUICK: dict[str, Any] = {"coeffs": (1.0, 4.0)}

_REVISION = 1  # part of every key: to be raised when the same settings would give other ranks than before


@dataclass(frozen=True, eq=False)
class Knowledge(Result):
    """P@K and what steering changes of it.

    Attributes:
        frame: one row per condition and K: condition (number), label, role ("unsteered", "steered", "random"), layer,
            coeff, k, n, p_at_k, low, high; and against the unsteered model on the same sentences difference,
            difference_low, difference_high, p_value (NaN for the unsteered model itself).
        sentences: one row per condition and sentence: condition, role, coeff, row (of the data), relation, subject,
            prompt, answer, rank (tokens more likely than the answer: 0 is best), logprob (nats).
        left_out: how many sentences could not be asked, by reason.
    """

    name: ClassVar[str] = "knowledge"
    title: ClassVar[str] = "Is knowledge kept under steering?"

    sentences: pd.DataFrame = field(default_factory=pd.DataFrame)
    left_out: dict[str, int] = field(default_factory=dict)

    def at(self, k: int) -> pd.DataFrame:
        """The rows of `frame` for one K (the nearest there is, in the logarithm)."""
        ks = self.frame["k"].unique()
        nearest = min(ks, key=lambda one: abs(math.log(one / k)))
        return self.frame[self.frame["k"] == nearest]

    def log_probability(self) -> pd.DataFrame:
        """One row per condition but the unsteered: how much the answers' log-probability changed on average.

        Columns: label, role, layer, coeff, n, unsteered, steered (means, nats per answer), difference,
        difference_low, difference_high (paired Student-t, 95 %), p_value.
        """
        wide = self.sentences.pivot(index="row", columns="condition", values="logprob")
        rows = []
        for row in self.frame.drop_duplicates("condition").itertuples():
            if row.role == "unsteered":
                continue
            change = paired_difference(wide[row.condition], wide[0])
            rows.append(
                {
                    "label": row.label,
                    "role": row.role,
                    "layer": row.layer,
                    "coeff": row.coeff,
                    "n": change.n,
                    "unsteered": wide[0].mean(),
                    "steered": wide[row.condition].mean(),
                    "difference": change.estimate,
                    "difference_low": change.low,
                    "difference_high": change.high,
                    "p_value": max(0.0, change.p_value),  # rounding may leave −0
                }
            )
        return pd.DataFrame(rows)

    def by_relation(self, k: int = 10, coeff: float | None = None) -> pd.DataFrame:
        """P@K of each relation, unsteered and steered (at the largest coefficient by default).

        Columns: relation, n, unsteered, steered, difference, low, high (Bonett-Price, 95 %, each relation alone).
        """
        steered = self.sentences[self.sentences["role"] == "steered"]
        coeff = steered["coeff"].max() if coeff is None else float(coeff)
        steered = steered[steered["coeff"] == coeff].set_index("row")
        base = self.sentences[self.sentences["role"] == "unsteered"].set_index("row")
        if steered.empty:
            raise SteerlensError(f"no steered condition has coefficient {coeff:g}")
        rows = []
        for relation, part in base.groupby("relation", sort=True):
            before = (part["rank"] < k).astype(float)
            after = (steered.loc[part.index, "rank"] < k).astype(float)
            change = paired_difference(after, before, kind="share")
            rows.append(
                {
                    "relation": relation or "–",
                    "n": len(part),
                    "unsteered": before.mean(),
                    "steered": after.mean(),
                    "difference": change.estimate,
                    "low": change.low,
                    "high": change.high,
                }
            )
        return pd.DataFrame(rows)

    def headlines(self) -> list[Headline]:
        rows = self.at(10)
        k, n = int(rows["k"].iloc[0]), int(rows["n"].iloc[0])
        base = rows[rows["role"] == "unsteered"].iloc[0]
        tiles = [
            Headline(
                f"P@{k}, unsteered", f"{base['p_at_k']:.1%}", f"{base['low']:.1%} to {base['high']:.1%}, n = {n:,}"
            )
        ]
        for role, what in (("steered", "steered"), ("random", "random vector of equal norm")):
            for _, row in rows[rows["role"] == role].iterrows():
                limits = f"{_points(row['difference_low'])} to {_points(row['difference_high'])} percentage points"
                value = _points(row["difference"])
                tiles.append(Headline(f"change, {what}, coefficient {row['coeff']:g}", value, limits))
        return tiles

    def figures(self) -> dict[str, go.Figure]:
        drawn = {
            "Share of sentences whose missing word is among the K most likely next tokens.": precision_by_k(self.frame),
            "What steering changes of it (95 % intervals of the paired difference, each K alone).": (
                change_by_k(self.frame)
            ),
        }
        relations = self.by_relation()
        if len(relations) > 1:
            drawn["The change of P@10 by relation, at the largest coefficient."] = change_by_relation(relations, k=10)
        return drawn

    def tables(self) -> dict[str, pd.DataFrame]:
        asked = pd.DataFrame(
            [
                {"sentences": "read", "count": self.settings.get("sentences read", len(self.sentences))},
                {"sentences": "asked", "count": int(self.frame["n"].iloc[0])},
                *({"sentences": f"left out: {reason}", "count": count} for reason, count in self.left_out.items()),
            ]
        )
        return {
            "What was asked": asked,
            "Log-probability of the answer (nats, means)": _shown_change(self.log_probability()),
            "P@10 by relation, largest coefficient": _shown_relations(self.by_relation()),
            "All numbers": self.frame,
        }


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
    """P@K of missing words with and without steering, and the paired difference: figure 5 of the paper (v1).

    Formula: P@K = mean over sentences of [rank of the answer among all next tokens < K], where the rank is the number
    of tokens with a larger logit. Source: Turner et al., arXiv 2308.10248; see the head of this file for what text and
    script say. The defaults are theirs, except for the data.

    Args:
        data: LAMA ConceptNet as a parquet, JSONL or CSV file or a frame (see `read_cloze`); None takes 256 shipped
            sentences.
        pair: what to steer by; by default `" weddings"` − `""`.
        layer: by default layer 16 of GPT-2-XL, or as deep as that in another model.
        coeffs: coefficients.
        control: "random" asks with a random vector of equal norm too; None does not.
        ks: the K.
        limit: at most so many sentences, spread evenly over the data.
        seed: of the random vector.
        store: a file that keeps finished chunks (a `Ledger`): an interrupted run goes on from there.
        chunk: sentences per part that is kept.
        batch_size: rows that run together; by default what there is room for.
        progress: a progress bar; by default in a terminal or notebook.

    Raises:
        SteerlensError: data that is missing or has no mask, no answer of one token, a layer out of range, no K.
    """
    require_model(model)
    chosen = sorted({int(k) for k in ks})
    if not chosen or chosen[0] < 1:
        raise SteerlensError(f"ks must be whole numbers of at least 1, got {list(ks)}")
    if chunk < 1:
        raise SteerlensError(f"chunk must be at least 1, got {chunk}")
    if control not in ("random", None):
        raise SteerlensError(f"control={control!r} is unknown; use 'random' or None")
    factors = [float(c) for c in ([coeffs] if isinstance(coeffs, int | float) else coeffs)]
    if not factors:
        raise SteerlensError("coeffs is empty; give at least one coefficient")
    rows, source = read_cloze(data)
    contrast = PromptPair(" weddings", "") if pair is None else pair
    vector = actadd(model, contrast, layer=same_depth(model, PAPER_LAYER) if layer is None else layer)
    asked = ask(model, rows, source=source, shortest=vector.n_positions, limit=limit)

    conditions, roles = [Condition()], ["unsteered"]
    for role in ("steered", *(["random"] if control == "random" else [])):
        base = vector if role == "steered" else random_like(vector, seed=seed)
        conditions += [Condition((Injection(factor * base, placement),)) for factor in factors]
        roles += [role] * len(factors)
    settings = {
        "data": asked.source,
        "sentences read": asked.read,
        "sentences asked": len(asked.questions),
        "left out": asked.left_out,
        "pair": str(contrast),
        "pad": contrast.pad,
        "layer": vector.layer,
        "layer in the paper's script": f"{PAPER_LAYER} of GPT-2-XL's 48",
        "coeffs": factors,
        "placement": vector.placement if placement is None else placement,
        "control": control,
        "ks": chosen,
        "limit": limit,
        "seed": seed,
        **run_settings(model),
    }
    found = _ask_all(
        model, asked.questions, conditions, settings, store=store, chunk=chunk, batch_size=batch_size, progress=progress
    )
    sentences = _sentences(asked.questions, conditions, roles, found)
    return Knowledge(_precision(sentences, conditions, roles, chosen), settings, sentences, asked.left_out)


@dataclass(frozen=True)
class _Answers:
    """Ranks and log-probabilities, [condition][question]."""

    ranks: list[list[int]]
    logprobs: list[list[float]]


def _ask_all(
    model: HookedModel,
    questions: Sequence[Cloze],
    conditions: Sequence[Condition],
    settings: dict[str, Any],
    *,
    store: str | Path | None,
    chunk: int,
    batch_size: int | None,
    progress: bool | None,
) -> _Answers:
    """The answers to all questions, chunk by chunk; chunks that the store holds are not computed again."""
    ranks: list[list[int]] = [[] for _ in conditions]
    logprobs: list[list[float]] = [[] for _ in conditions]
    depends = {key: settings[key] for key in ("pair", "pad", "layer", "coeffs", "placement", "control", "seed")}
    depends |= {"experiment": "knowledge", "revision": _REVISION, "model": settings["model fingerprint"]}
    with (
        Ledger(store) as ledger,
        tqdm(
            total=len(questions), unit="sentence", desc="knowledge", disable=None if progress is None else not progress
        ) as bar,
    ):
        for start in range(0, len(questions), chunk):
            part = questions[start : start + chunk]
            part_depends = {**depends, "questions": _digest(part)}
            done = ledger.remember(part_depends, partial(_ask, model, part, conditions, batch_size))
            for condition in range(len(conditions)):
                ranks[condition] += done["ranks"][condition]
                logprobs[condition] += done["logprobs"][condition]
            bar.update(len(part))
    return _Answers(ranks, logprobs)


def _ask(
    model: HookedModel, questions: Sequence[Cloze], conditions: Sequence[Condition], batch_size: int | None
) -> dict[str, Any]:
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


def _sentences(
    questions: Sequence[Cloze], conditions: Sequence[Condition], roles: Sequence[str], found: _Answers
) -> pd.DataFrame:
    asked = pd.DataFrame([asdict(question) for question in questions]).drop(columns="token")
    tables = [
        asked.assign(
            condition=number, role=role, coeff=condition.coeff, rank=found.ranks[number], logprob=found.logprobs[number]
        )
        for number, (condition, role) in enumerate(zip(conditions, roles, strict=True))
    ]
    order = ["condition", "role", "coeff", "row", "relation", "subject", "prompt", "answer", "rank", "logprob"]
    return pd.concat(tables, ignore_index=True)[order]


def _precision(
    sentences: pd.DataFrame, conditions: Sequence[Condition], roles: Sequence[str], ks: Sequence[int]
) -> pd.DataFrame:
    ranks = {number: group["rank"].to_numpy() for number, group in sentences.groupby("condition")}
    rows = []
    for number, (condition, role) in enumerate(zip(conditions, roles, strict=True)):
        for k in ks:
            hits, before = (ranks[number] < k).astype(float), (ranks[0] < k).astype(float)
            share = wilson_interval(float(hits.sum()), hits.size)
            row = {
                "condition": number,
                "label": condition.label,
                "role": role,
                "layer": condition.layer,
                "coeff": condition.coeff,
                "k": k,
                "n": hits.size,
                "p_at_k": share.estimate,
                "low": share.low,
                "high": share.high,
            }
            change = None if role == "unsteered" else paired_difference(hits, before, kind="share")
            row["difference"] = math.nan if change is None else change.estimate
            row["difference_low"] = math.nan if change is None else change.low
            row["difference_high"] = math.nan if change is None else change.high
            row["p_value"] = math.nan if change is None else change.p_value
            rows.append(row)
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _points(share: float) -> str:
    """A difference of shares in percentage points, signed."""
    return _signed(100 * share, 2)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _shown_change(table: pd.DataFrame) -> pd.DataFrame:
    """`Knowledge.log_probability` for people."""
    return pd.DataFrame(
        {
            "condition": table["role"].replace({"random": "random vector"}),
            "layer": table["layer"],
            "coefficient": table["coeff"],
            "unsteered": table["unsteered"],
            "steered": table["steered"],
            "change (95 %)": [
                f"{_signed(row.difference, 3)} ({_signed(row.difference_low, 3)} to {_signed(row.difference_high, 3)})"
                for row in table.itertuples()
            ],
        }
    )


def _shown_relations(table: pd.DataFrame) -> pd.DataFrame:
    """`Knowledge.by_relation` for people."""
    return pd.DataFrame(
        {
            "relation": table["relation"],
            "n": table["n"],
            "unsteered": [theme.percent(share) for share in table["unsteered"]],
            "steered": [theme.percent(share) for share in table["steered"]],
            "change in points (95 %)": [
                f"{_points(row.difference)} ({_points(row.low)} to {_points(row.high)})" for row in table.itertuples()
            ],
        }
    )
