"""Completions of prompts under several methods with identical decoding, and what is measured of them.

Shared by the sentiment and the toxicity experiment. The methods: no steering; Activation Addition at a layer and
coefficient; the positive phrase written in front of the prompt; random vectors of the same norm at the same place.
Everything is kept part by part in a `Ledger`: completions as token ids, before anything is measured of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.analysis.figures.tradeoff import effect_against_damage
from steerlens.analysis.statistics import bootstrap_interval, mean_interval, paired_difference, wilson_interval
from steerlens.analysis.store import job_key, run_key
from steerlens.analysis.sweep import random_like
from steerlens.engine.generation import check_job
from steerlens.engine.jobs import Passage
from steerlens.engine.passes import Job
from steerlens.engine.sampler import Sampling
from steerlens.engine.sampling import conditions_together, sample
from steerlens.errors import SteerlensError
from steerlens.experiments.ledger import Ledger
from steerlens.experiments.relevance import Embedder, centre, cosines, hugging_face_embedder, model_embedder
from steerlens.experiments.scorers import Scorer, Shipped, hugging_face_scorer, probabilities, shipped_scorer
from steerlens.models import HookedModel, fingerprint
from steerlens.steering import Condition, Injection, Placement, PromptPair, SteeringVector, actadd
from steerlens.steering.extraction.activations import Layers
from steerlens.steering.prompts import prompt_ids

if TYPE_CHECKING:
    import plotly.graph_objects as go

METHODS = ("unsteered", "ActAdd", "prompting", "random vector")
"""In the order of tables and figures."""

Kind = Literal["share", "mean", "perplexity"]


@dataclass(frozen=True)
class Decoding:
    """How every method decodes. The defaults are the paper's: temperature 1, top-p 0.3, frequency penalty 1.

    The penalty counts the prompt's tokens too, as the paper's code (TransformerLens) does: so also the phrase that
    prompting writes in front. A completion's random numbers depend on the seed, its prompt and its sample number;
    methods that leave the prompt as it is share them.
    """

    n: int = 1
    max_new_tokens: int = 40
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 0.3
    frequency_penalty: float = 1.0
    seed: int = 0

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p, self.frequency_penalty)


@dataclass(frozen=True, eq=False)
class Way:
    """One way to complete prompts: a condition, and what is written in front of them."""

    method: str
    condition: Condition = field(default_factory=Condition)
    prefix: str = ""


@dataclass(frozen=True, eq=False)
class Measures:
    """What is measured: the scorer's probability, disfluency, relevance.

    Attributes:
        scorer: a probability for every completion (the completion alone: with the prompt, its score would be the
            prompt's).
        embedder: for relevance; None leaves it out.
    """

    scorer: Scorer
    embedder: Embedder | None


def measures_of(
    model: HookedModel, shipped: Shipped, scorer: Scorer | str | None, embedder: Embedder | str | None
) -> Measures:
    """What a caller's `scorer` and `embedder` mean: text is the name of a Hugging Face model, None the default.

    Raises:
        SteerlensError: no such model.
    """
    judge = shipped_scorer(shipped) if scorer is None else scorer
    judge = hugging_face_scorer(judge) if isinstance(judge, str) else judge
    if not callable(judge):
        raise SteerlensError(
            f"scorer={judge!r:.60} is no scorer; give a function from texts to probabilities, or a classifier's name"
        )
    if embedder is None:
        return Measures(judge, model_embedder(model))
    return Measures(judge, hugging_face_embedder(embedder) if isinstance(embedder, str) else embedder)


class Runner:
    """A model that completes and measures chunks of prompts, each part once per ledger.

    Args:
        chunk: prompts per part: what an interruption can cost.
        progress: None shows a bar in terminals only.
    """

    def __init__(
        self,
        model: HookedModel,
        ledger: Ledger,
        decoding: Decoding,
        *,
        chunk: int = 50,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> None:
        if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
            raise SteerlensError(f"chunk must be a whole number of at least 1, got {chunk!r}")
        self.model, self.ledger, self.decoding = model, ledger, decoding
        self._chunk, self._batch_size, self._progress = chunk, batch_size, progress
        self._weights = fingerprint(model)

    def complete(self, prompts: Sequence[str], ways: Sequence[Way], *, what: str = "completions") -> pd.DataFrame:
        """One row per completion, in the order way, prompt, sample; what is in the ledger is not made again.

        Columns: way (int), method, label, layer (Int64), coeff, placement, prompt, prompt_number, sample, completion,
        n_tokens, finished, seed; and the working columns `_ids` (token ids), `_part` (key of the
        part) and `_chunk`.
        """
        rows: list[dict[str, Any]] = []
        with self._bar(len(prompts) * len(ways) * self.decoding.n, what) as bar:
            for start in range(0, len(prompts), self._chunk):
                some = list(prompts[start : start + self._chunk])
                for numbers in _by_prefix(ways):
                    for number, part, key in self._complete_part(some, ways, numbers, bar):
                        rows += self._rows(number, ways[number], some, start, part, key)
        frame = pd.DataFrame.from_records(rows).astype({"layer": "Int64"})
        return frame.sort_values(["way", "prompt_number", "sample"], kind="stable", ignore_index=True)

    def measure(self, frame: pd.DataFrame, prompts: Sequence[str], measures: Measures) -> pd.DataFrame:
        """The frame of `complete` with what was measured.

        Columns added: score (probability), nats (mean negative log-probability of the completion's tokens under the
        unsteered model, given the prompt without any prefix), perplexity (its exponential: the paper's disfluency,
        which has it from another, larger model), relevance (cosine). NaN where a completion has no token.
        """
        frame = frame.copy()
        frame["nats"] = self._by_part(frame, "nats", "unsteered", lambda rows: self._nats(rows))
        frame["perplexity"] = np.exp(frame["nats"])
        frame["relevance"] = math.nan
        if measures.embedder is not None:
            frame["relevance"] = self._relevance(frame, prompts, measures.embedder)
        # Last, because a scorer is other people's code and may fail.
        key = str(getattr(measures.scorer, "key", ""))
        frame["score"] = self._by_part(
            frame, "score", key, lambda rows: probabilities(measures.scorer, rows["completion"].tolist()).tolist()
        )
        return frame

    def _complete_part(
        self, prompts: list[str], ways: Sequence[Way], numbers: Sequence[int], bar: Any
    ) -> Iterator[tuple[int, dict[str, Any], str]]:
        """The parts of some ways with one prefix, completing together what is missing."""
        decoding, prefix = self.decoding, ways[numbers[0]].prefix
        conditions = [ways[number].condition for number in numbers]
        texts, ids = check_job(
            self.model,
            [prefix + prompt for prompt in prompts],
            conditions,
            n=decoding.n,
            max_new_tokens=decoding.max_new_tokens,
            batch_size=self._batch_size,
        )
        job = job_key(self._weights, texts, ids, asdict(decoding))
        keys = {number: run_key(ways[number].condition, job=job) for number in numbers}
        missing = [number for number in numbers if not self.ledger.knows(_part(keys[number]))]
        bar.update((len(numbers) - len(missing)) * len(prompts) * decoding.n)
        together = conditions_together(self.model, prompts=len(prompts), n=decoding.n, batch_size=self._batch_size)
        for first in range(0, len(missing), together):
            batch = missing[first : first + together]
            done = sample(
                self.model,
                ids,
                [ways[number].condition for number in batch],
                n=decoding.n,
                max_new_tokens=decoding.max_new_tokens,
                sampling=decoding.sampling,
                seed=decoding.seed,
                batch_size=self._batch_size,
            )
            for place, number in enumerate(batch):
                lengths = done.lengths[place].flatten().tolist()
                tokens = done.tokens[place].flatten(0, 1).tolist()
                part = {
                    "tokens": [row[:length] for row, length in zip(tokens, lengths, strict=True)],
                    "finished": done.finished[place].flatten().tolist(),
                }
                self.ledger.remember(_part(keys[number]), lambda part=part: part)  # type: ignore[misc]
                bar.update(len(prompts) * decoding.n)
        for number in numbers:
            yield number, self.ledger.remember(_part(keys[number]), _gone), keys[number]

    def _rows(
        self, number: int, way: Way, prompts: Sequence[str], start: int, part: dict[str, Any], key: str
    ) -> list[dict[str, Any]]:
        n, tokenizer = self.decoding.n, self.model.tokenizer
        return [
            {
                "way": number,
                "method": way.method,
                "label": way.method if way.prefix else way.condition.label,
                "layer": way.condition.layer,
                "coeff": way.condition.coeff,
                "placement": way.condition.placement,
                "prompt": prompts[place // n],
                "prompt_number": start + place // n,
                "sample": place % n,
                "completion": tokenizer.decode(ids, clean_up_tokenization_spaces=False),
                "n_tokens": len(ids),
                "finished": finished,
                "seed": self.decoding.seed,
                "_ids": ids,
                "_part": key,
                "_chunk": f"{number} {start}",
            }
            for place, (ids, finished) in enumerate(zip(part["tokens"], part["finished"], strict=True))
        ]

    def _by_part(
        self, frame: pd.DataFrame, what: str, key: str, compute: Callable[[pd.DataFrame], list[float]]
    ) -> pd.Series:
        """A number for each row, part by part; kept if `key` says what they depend on."""
        found = pd.Series(math.nan, index=frame.index)
        with self._bar(len(frame), what) as bar:
            # By chunk too: a prompt that occurs twice may make two chunks with one key.
            for (_, part), rows in frame.groupby(["_chunk", "_part"], sort=False):
                made = (
                    self.ledger.remember({"experiment": what, "of": part, "by": key}, lambda rows=rows: compute(rows))  # type: ignore[misc]
                    if key
                    else compute(rows)
                )
                found[rows.index] = made
                bar.update(len(rows))
        return found

    @torch.no_grad()
    def _nats(self, rows: pd.DataFrame) -> list[float]:
        """Mean negative log-probability of each completion's tokens, in nats; reduced on the model's device."""
        known = [number for number, ids in enumerate(rows["_ids"]) if ids]
        before = {prompt: tuple(prompt_ids(self.model, prompt)) for prompt in set(rows["prompt"])}
        passages = []
        for number in known:
            row = rows.iloc[number]
            start = before[row["prompt"]]
            ids = (*start, *row["_ids"])
            passages.append(Passage(ids, len(start), len(start) - 1, len(ids) - 1))
        found = [math.nan] * len(rows)
        if not passages:
            return found
        most = max(passage.n_wanted for passage in passages)
        asked = torch.tensor([[*p.ids[p.first + 1 :], *[0] * (most - p.n_wanted)] for p in passages])
        total = torch.zeros(len(passages), dtype=torch.float64)
        for cells in Job.of(self.model, passages, [Condition()]).cells(batch_size=self._batch_size):
            logits = cells.logits if cells.logits.dtype == torch.float64 else cells.logits.float()
            token = asked[cells.where[1], cells.where[2]].to(logits.device)
            logprob = logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(1)
            total.index_add_(0, cells.where[1], logprob.cpu().double())
        for number, passage, one in zip(known, passages, total.tolist(), strict=True):
            found[number] = -one / passage.n_wanted
        return found

    def _relevance(self, frame: pd.DataFrame, prompts: Sequence[str], embedder: Embedder) -> pd.Series:
        own = embedder.embed(list(prompts))
        centres: tuple[Tensor, Tensor] | None = None
        if embedder.centred:
            plain = frame[frame["method"] == "unsteered"]["completion"].tolist()
            if not plain:
                raise SteerlensError("relevance is measured against unsteered completions and there are none")
            centres = (centre(own), centre(embedder.embed(plain)))
        marks = (
            "" if centres is None else hashlib.blake2b(torch.cat(centres).numpy().tobytes(), digest_size=8).hexdigest()
        )
        key = f"{embedder.key} {marks}" if embedder.key else ""

        def compute(rows: pd.DataFrame) -> list[float]:
            return cosines(own[rows["prompt_number"].tolist()], embedder.embed(rows["completion"].tolist()), centres)

        return self._by_part(frame, "relevance", key, compute)

    def _bar(self, total: int, what: str) -> Any:
        # disable=None shows the bar on terminals only.
        return tqdm(total=total, desc=what, disable=None if self._progress is None else not self._progress, leave=False)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods compared on one set of prompts.

    Attributes:
        completions: frame of `Runner.measure` for the reported prompts, with `hit` (the effect wanted, as a number).
        tuning: one row per layer × coefficient on the validation prompts (and the unsteered model): label, role,
            layer, coeff, n, effect, effect_low, effect_high, damage, damage_low, damage_high (perplexity, geometric
            mean), allowed (disfluency within the limit), chosen. Empty if there was nothing to choose.
        layer, coeff: what was chosen.
        n_validation, n_reported: prompts.
        n_short: prompts left out because the vector has more positions than they have tokens.
    """

    completions: pd.DataFrame
    tuning: pd.DataFrame
    layer: int
    coeff: float
    n_validation: int
    n_reported: int
    n_short: int


@dataclass(frozen=True)
class Effect:
    """What steering is after: from scores to an effect of which more is better.

    Attributes:
        of: scores in, one number each.
        kind: "share" where the numbers are 0 or 1.
    """

    of: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    kind: Literal["share", "mean"]


def compare_methods(
    runner: Runner,
    prompts: Sequence[str],
    *,
    pair: PromptPair,
    phrase: str,
    layers: Layers,
    coeffs: Sequence[float],
    placement: Placement | None,
    effect: Effect,
    measures: Measures,
    validation: int,
    disfluency_limit: float | None,
    random_draws: int,
    name: str = "",
) -> Comparison:
    """Unsteered, ActAdd, prompting and random vectors on the same prompts.

    Layer and coefficient are chosen on `validation` of the prompts (a random part, by the seed; at most half of them;
    prompts shorter than the vector are left out and counted), by the largest mean effect among those whose disfluency
    is at most `disfluency_limit` times the unsteered model's; the numbers are of the other prompts. With one layer and
    one coefficient there is nothing to choose and all prompts are reported.

    Raises:
        SteerlensError: too few prompts to choose and to report; whatever generating and scoring raise.
    """
    vectors = actadd(runner.model, pair, layers=layers)
    if isinstance(random_draws, bool) or not isinstance(random_draws, int) or random_draws < 1:
        raise SteerlensError(f"random_draws must be a whole number of at least 1, got {random_draws!r}")
    grid = [float(coeff) * vector for vector in vectors.values() for coeff in dict.fromkeys(coeffs)]
    span = max(vector.n_positions for vector in grid)
    given = len(prompts)
    prompts = [prompt for prompt in prompts if len(prompt_ids(runner.model, prompt)) >= span]
    if not prompts:
        raise SteerlensError(
            f"none of the {given} prompts has the {span} tokens that the vector {pair} needs; give longer prompts"
        )
    order = np.random.default_rng(runner.decoding.seed).permutation(len(prompts))
    choosing = len(grid) > 1
    if choosing and (len(prompts) < 2 or validation < 1):
        raise SteerlensError(
            f"{len(prompts)} prompts with validation={validation} leave none to choose a layer and coefficient on; "
            "give more, or one layer and one coefficient"
        )
    n_held = min(int(validation), len(prompts) // 2) if choosing else 0
    held = [prompts[i] for i in sorted(order[:n_held])]
    kept = [prompts[i] for i in sorted(order[n_held:])]
    tuning, best = pd.DataFrame(), grid[0]
    if choosing:
        ways = [Way("unsteered"), *(Way("ActAdd", _condition(vector, placement)) for vector in grid)]
        frame = runner.complete(held, ways, what=f"{name}choosing a layer")
        # Relevance is not asked for here: nothing is chosen by it.
        frame = runner.measure(frame, held, replace(measures, embedder=None))
        frame["hit"] = effect.of(frame["score"].to_numpy())
        tuning = _tuning(frame, effect, disfluency_limit)
        best = grid[int(tuning.index[tuning["chosen"]][0]) - 1]
    parts = [
        runner.complete(
            kept,
            [
                Way("unsteered"),
                Way("ActAdd", _condition(best, placement)),
                Way("prompting", prefix=phrase),
            ],
            what=f"{name}completions",
        )
    ]
    # Prompts take turns with the draws, so that one unlucky direction does not stand for all.
    for draw in range(min(random_draws, len(kept))):
        random = random_like(best, seed=runner.decoding.seed + draw)
        turn = list(range(draw, len(kept), random_draws))
        one = runner.complete(
            [kept[i] for i in turn],
            [Way("random vector", _condition(random, placement))],
            what=f"{name}random vector {draw + 1}",
        )
        one["prompt_number"] = [turn[i] for i in one["prompt_number"]]
        parts.append(one.assign(way=3))
    frame = pd.concat(parts, ignore_index=True).sort_values(
        ["way", "prompt_number", "sample"], kind="stable", ignore_index=True
    )
    frame = runner.measure(frame, kept, measures)
    frame["hit"] = effect.of(frame["score"].to_numpy())
    frame = frame.drop(columns=["_ids", "_part", "_chunk"])
    return Comparison(frame, tuning, best.layer, best.coeff, n_held, len(kept), given - len(prompts))


def summarise(
    frame: pd.DataFrame, metrics: Mapping[str, tuple[str, Kind]], *, group: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """One row per group × method × metric, with 95 % intervals and the paired difference from the unsteered model.

    Several samples of a prompt are averaged first: prompts are what was drawn. Intervals: Wilson for shares of single
    samples, Student-t for means, bootstrap over prompts for perplexities, whose mean hangs on a few. Differences pair
    each prompt with itself (Bonett-Price and McNemar, paired t, bootstrap and sign flips); NaN for the unsteered rows.

    Args:
        metrics: name → column of `frame` and kind.
    """
    rows = []
    groups = [("", frame)] if group is None else list(frame.groupby(group, sort=False))
    for value, part in groups:
        base = part[part["method"] == "unsteered"]
        for method in [one for one in METHODS if (part["method"] == one).any()]:
            own = part[part["method"] == method]
            for name, (column, kind) in metrics.items():
                mine = own.groupby("prompt_number")[column].mean()
                if mine.isna().all() and column == "relevance":
                    continue
                single = kind == "share" and bool(mine.dropna().isin((0.0, 1.0)).all())
                interval = _interval(mine.dropna().to_numpy(), kind, single, seed)
                both = pd.concat([mine, base.groupby("prompt_number")[column].mean()], axis=1, join="inner").dropna()
                row = {
                    "method": method,
                    "layer": own["layer"].iloc[0] if method in ("ActAdd", "random vector") else None,
                    "coeff": own["coeff"].iloc[0],
                    "metric": name,
                    "kind": "share" if kind == "share" else "mean",
                    "n": int(interval.n),
                    "mean": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    **_difference(both, method, kind, seed),
                }
                rows.append(row if group is None else {group: value, **row})
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def numbers_table(summary: pd.DataFrame, *, group: str) -> pd.DataFrame:
    """The frame of `summarise` as people read it: one row per group × method, each metric with its interval, as text.

    A ↑ or ↓ says that the interval of the paired difference from the unsteered model leaves 0 out.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in summary.itertuples():
        row = rows.setdefault((getattr(one, group), one.method), {group: getattr(one, group), "method": one.method})
        if "layer, coefficient" not in row:
            row["layer, coefficient"] = "–" if pd.isna(one.layer) else f"{one.layer}, {one.coeff:g}"
        if one.kind == "share":
            text = f"{one.mean:.1%} ({100 * one.low:.1f} to {100 * one.high:.1f})"
        else:
            digits = 1 if one.mean >= 3 else 3
            text = f"{one.mean:.{digits}f} ({one.low:.{digits}f} to {one.high:.{digits}f})"
        clear = one.difference_low > 0 or one.difference_high < 0
        row[one.metric] = text.replace("-", "−") + (" ↑" if clear and one.difference > 0 else " ↓" if clear else "")
    return pd.DataFrame(list(rows.values()))


def tuning_figure(tuning: pd.DataFrame, *, effect_title: str, title: str, share: bool) -> go.Figure:
    """Effect against disfluency of every layer and coefficient on the validation prompts, disfluency on a log axis."""
    figure = effect_against_damage(
        tuning.reset_index(drop=True),
        effect_title=effect_title,
        damage_title="disfluency (perplexity, geometric mean)",
        title=title,
    )
    # A coefficient too strong makes text a hundred times as disfluent; on a plain axis all others would be one point.
    low, high = tuning["damage_low"].min() / 1.05, tuning["damage_high"].max() * 1.05
    steps = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    ticks = [step * 10**power for power in range(8) for step in steps if low <= step * 10**power <= high]
    figure.update_xaxes(
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
    )
    figure.update_layout(coloraxis_colorbar_title_side="top")  # below, it would touch the layers' numbers
    if share:
        figure.update_yaxes(tickformat=",.0%")
    one = tuning[tuning["chosen"]].iloc[0]
    figure.add_annotation(
        x=math.log10(one["damage"]), y=one["effect"], text="chosen", showarrow=True, ax=34, ay=-26, arrowhead=0
    )
    return figure


def texts_table(frame: pd.DataFrame, *, n: int = 6) -> pd.DataFrame:
    """The first `n` prompts with the completions of every method beside each other, as they came."""
    some = frame[(frame["sample"] == 0) & frame["prompt_number"].isin(sorted(frame["prompt_number"].unique())[:n])]
    wide = some.pivot(index=["prompt_number", "prompt"], columns="method", values="completion").reset_index(level=1)
    return wide[["prompt", *(one for one in METHODS if one in wide.columns)]].reset_index(drop=True)


def chosen_by(what: str, limit: float | None) -> str:
    """How layer and coefficient were chosen, for the settings."""
    among = "" if limit is None else f" among those of at most {limit:g} times the unsteered perplexity"
    return f"{what} on the validation prompts{among}"


def in_front(phrase: str) -> str:
    """What prompting writes before a prompt: the phrase and a space."""
    return phrase if not phrase or phrase[-1].isspace() else f"{phrase} "


def _condition(vector: SteeringVector, placement: Placement | None) -> Condition:
    return Condition((Injection(vector, placement),))


def _tuning(frame: pd.DataFrame, effect: Effect, limit: float | None) -> pd.DataFrame:
    rows = []
    for way, part in frame.groupby("way", sort=True):
        by_prompt = part.groupby("prompt_number")[["hit", "nats"]].mean()
        hits = by_prompt["hit"].to_numpy()
        single = effect.kind == "share" and bool(np.isin(hits, (0.0, 1.0)).all())
        got = _interval(hits, effect.kind, single, 0)
        cost = mean_interval(by_prompt["nats"].dropna().to_numpy())
        first = part.iloc[0]
        rows.append(
            {
                "label": first["label"],
                "role": "unsteered" if way == 0 else "steered",
                "layer": first["layer"],
                "coeff": first["coeff"],
                "n": int(got.n),
                "effect": got.mean,
                "effect_low": got.low,
                "effect_high": got.high,
                "damage": math.exp(cost.mean),
                "damage_low": math.exp(cost.low),
                "damage_high": math.exp(cost.high),
            }
        )
    table = pd.DataFrame(rows).astype({"layer": "Int64"})
    ratio = table["damage"] / table["damage"].iloc[0]
    steered = table["role"] == "steered"
    table["allowed"] = (ratio <= limit) if limit is not None else True
    candidates = table[steered & table["allowed"]]
    # Where all exceed the limit, the least harmful is taken: a table must have something in its place.
    best = candidates["effect"].idxmax() if len(candidates) else table[steered]["damage"].idxmin()
    table["chosen"] = table.index == best
    return table


def _interval(values: NDArray[np.float64], kind: Kind, single: bool, seed: int) -> Any:
    if kind == "share" and single:
        return wilson_interval(float(values.sum()), values.size)
    return bootstrap_interval(values, seed=seed) if kind == "perplexity" else mean_interval(values)


def _difference(both: pd.DataFrame, method: str, kind: Kind, seed: int) -> dict[str, float]:
    names = ("difference", "difference_low", "difference_high", "p_value")
    if method == "unsteered" or both.empty:
        return dict.fromkeys(names, math.nan)
    after, before = both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy()
    binary = kind == "share" and bool(np.isin(both.to_numpy(), (0.0, 1.0)).all())
    found = paired_difference(
        after,
        before,
        kind="share" if binary else "mean",
        method="bootstrap" if kind == "perplexity" else "analytic",
        seed=seed,
    )
    return dict(zip(names, (found.estimate, found.low, found.high, found.p_value), strict=True))


def _by_prefix(ways: Sequence[Way]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for number, way in enumerate(ways):
        groups.setdefault(way.prefix, []).append(number)
    return list(groups.values())


def _part(key: str) -> dict[str, str]:
    return {"experiment": "completions", "of": key}


def _gone() -> Any:
    raise SteerlensError("a part of the ledger has gone while it was in use; run again")
