"""`search`: the setting that steers best, found with few samples and confirmed on prompts that it was not chosen on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd

from steerlens.arguments import choice, finite_number, path_to, shown, text, whole_number
from steerlens.arguments import flag as read_flag
from steerlens.engine import Sampling
from steerlens.engine.sampling_settings import SamplingOptions, chosen_sampling, shows_sampling_options
from steerlens.errors import SteerlensError
from steerlens.measures.damage import MARGIN, success
from steerlens.measures.measuring import MetricFailed, check_metrics
from steerlens.measures.metrics import Metric
from steerlens.models import HookedModel, fingerprint, for_one_thread, require_model, run_settings
from steerlens.progress import progress_bar
from steerlens.runs.search_confirmation import confirmed_on
from steerlens.runs.search_ledger import Ledger
from steerlens.runs.search_result import Search
from steerlens.runs.search_sampling import Sampler
from steerlens.runs.search_space import STRENGTHS, Candidates, Direction, candidates_of
from steerlens.runs.search_strategies import STRATEGIES, StrategyName, rungs_of, strategy_of
from steerlens.runs.store import Store
from steerlens.steering import Condition, Placement
from steerlens.steering.operations import Operation
from steerlens.steering.prompting import Prompting
from steerlens.steering.prompts import Prompt, PromptLike, read_prompts
from steerlens.steering.strengths import Strength

DEFAULT_SAMPLING = Sampling(n=16)
DEFAULT_STRATEGY: StrategyName = "ordered+halving"

# Fewer at a time than a batch may hold: what is sampled together is chosen without knowing of each other.
_STEPS = 8
_AT_LEAST = 8


@for_one_thread
@shows_sampling_options(DEFAULT_SAMPLING)
def search(
    model: HookedModel,
    directions: Direction | Mapping[str, Direction],
    prompts: PromptLike | Sequence[PromptLike],
    *,
    goal: Metric,
    budget: int = 100_000,
    minutes: float | None = None,
    layers: Sequence[int] | Literal["all"] = "all",
    operations: Sequence[Operation] | Operation = ("add",),
    placements: Sequence[Placement] | Placement | None = None,
    strengths: Sequence[Strength] = STRENGTHS,
    margin: float = MARGIN,
    held_out: PromptLike | Sequence[PromptLike] | None = None,
    confirm: int = 50,
    prompting: str | Prompting | None = None,
    strategy: StrategyName = DEFAULT_STRATEGY,
    sampling: Sampling | None = None,
    storage: str | Path | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Unpack[SamplingOptions],
) -> Search:
    """The setting with the largest share of completions that are on topic AND fluent, confirmed on held-out prompts.

    Over directions × layers × operations × placements × strengths. A setting first gets few samples, and more if it
    does well; samples of the same number share their random numbers. Every batch holds several settings. What was
    found is then sampled anew on prompts that took no part in the choice, beside no steering and a random vector.

    Args:
        directions: what to steer with: a PromptPair or a ContrastSet (vectors of all `layers` are extracted), vectors
            (`{layer: vector}` as `mean_difference(layers=…)` gives, or a list), what `directions` returns, or a mapping
            from names to several of these.
        prompts: texts, chats or token ids. Of several, the last third is held out, unless `held_out` is given.
        goal: a metric that is a share, such as `sl.metrics.words("weddings")`.
        budget: tokens to sample, those of the unsteered model included and those of the confirmation not.
        minutes: stop choosing after this time, too. (A search that is resumed then knows more than one that is not.)
        layers: `"all"` or layer numbers.
        operations: what vectors do; see `Injection`.
        placements: where they go; by default each vector's own place.
        strengths: the scale to search: several of one kind, such as `[sl.iso_kl(x) for x in (0.1, 0.3, 1.0)]`.
        margin: nats per token that a fluent completion may be more surprising than unsteered ones.
        held_out: prompts for the confirmation.
        confirm: completions of each held-out prompt; 0 leaves the confirmation out.
        prompting: words that stand before the prompt, as one more control of the confirmation: would they do as well?
        strategy: `"ordered+halving"`, `"random+halving"`, `"random"`, or `"tpe+halving"` and `"tpe"`, which need Optuna
            (`pip install 'steerlens[search]'`). `scripts/search_study.py` compares them: halving helps most; neither
            order nor TPE is ahead of random candidates with halving on every topic.
        sampling: how completions are drawn; `n` is how many of each prompt a setting gets at most. By default 16.
        n, max_new_tokens, temperature, top_k, top_p, frequency_penalty, seed, stop_at_end: fields of `Sampling` by
            name, in place of those of `sampling`.
        storage: an SQLite file that keeps every completion. After an interruption, run the same call again: what is
            finished is read, and the result is the same. Several processes may share it; `read_store` reads it.
        batch_size, progress: see `generate`.

    Raises:
        SteerlensError: a goal that is no share or fails on a text, a budget that does not pay for a single setting, no
            setting left after a look at the next tokens, the storage of another search, and what `generate` raises.
        MetricFailed: the goal fails on a completion; `error.frame` has all completions so far.
    """
    require_model(model)
    (goal,) = _share(goal)
    sampling = chosen_sampling(sampling, options, default=DEFAULT_SAMPLING)
    budget = whole_number("budget", budget, least=1)
    minutes = None if minutes is None else finite_number("minutes", minutes, above=0)
    margin = finite_number("margin", margin)
    confirm = whole_number("confirm", confirm, least=0)
    choice("strategy", strategy, STRATEGIES)
    told = Prompting(text("prompting", prompting)) if isinstance(prompting, str) else prompting
    if told is not None and not isinstance(told, Prompting):
        raise SteerlensError(f"prompting must be words, such as 'A story about a wedding.', got {shown(prompting)}")
    progress = None if progress is None else read_flag("progress", progress)
    if batch_size is not None:
        whole_number("batch_size", batch_size, least=1)
    place = None if storage is None else path_to(storage, "storage")
    chosen, other, note = _divided(model, prompts, held_out)
    deciding = strategy_of(strategy, seed=sampling.seed)
    found = candidates_of(
        model,
        directions,
        chosen,
        layers=layers,
        operations=operations,  # type: ignore[arg-type]
        placements=placements,  # type: ignore[arg-type]
        strengths=strengths,
        words=goal.marked,
        better=goal.better,
        batch_size=batch_size,
    )
    settings: dict[str, Any] = {
        "what": ", ".join(dict.fromkeys(one.direction for one in found.all)),
        "goal": goal.name,
        "prompts": [prompt.text for prompt in chosen],
        "held_out": [prompt.text for prompt in other],
        "strategy": strategy,
        "margin": margin,
        "strengths": [str(one) for one in dict.fromkeys(candidate.strength for candidate in found.all)],
        **asdict(sampling),
        **run_settings(model),
    }
    settings["search"] = _identity(found, settings)
    if place is not None:
        settings["weights"] = fingerprint(model)
        _check_storage(place, settings["search"])
    rungs = rungs_of(strategy, sampling.n)
    sampler = Sampler(model, chosen, rungs, sampling, goal, settings, store=place, batch_size=batch_size)
    settings |= {"budget": budget, "minutes": minutes}
    run = _Run(sampler, found, Ledger(found.space, rungs), margin)
    run.begin(budget)
    run.go(deciding, budget, seconds=None if minutes is None else 60 * minutes, progress=progress)
    best = run.ledger.best()
    if best is None or not run.ledger.tries[best]:
        raise MetricFailed(
            f"the goal {goal.name!r} has no number for any completion; error.frame has them", run.completions()
        )
    confirmation = None
    if confirm:
        confirmation = confirmed_on(
            sampler, found.all[best], other or chosen, n=confirm, margin=margin, note=note, prompting=told
        )
    return Search(run.frame(), run.table(), run.completions(), confirmation, found.all[best], goal, settings, note)


def room_at_once(candidates: int) -> int:
    """How many candidates are sampled together, at most, whatever a batch has room for."""
    return max(-(-candidates // _STEPS), _AT_LEAST)


class _Run:
    """A search under way: what was sampled, in order."""

    def __init__(self, sampler: Sampler, found: Candidates, ledger: Ledger, margin: float) -> None:
        self._sampler, self._found, self._margin = sampler, found, margin
        self.ledger = ledger
        self.spent = 0
        self._steps: list[dict[str, Any]] = []
        self._frames: list[pd.DataFrame] = []
        self._base = pd.DataFrame()

    def begin(self, budget: int) -> None:
        """Sample the unsteered model, which says what is fluent."""
        rungs = range(len(self._sampler.rungs))
        usual, first = sum(map(self._sampler.most_tokens, rungs)), self._sampler.most_tokens(0)
        if usual + first > budget:
            raise SteerlensError(
                f"a budget of {budget:,} tokens does not pay for one setting; it takes {usual:,} for the unsteered "
                f"model and {first:,} for each: give more, or fewer or shorter completions (n, max_new_tokens)"
            )
        parts = [self._sampled([Condition()], rung, ["unsteered"]) for rung in rungs]
        self._base = pd.concat(parts, ignore_index=True)
        self.spent += int(self._base["n_tokens"].sum())

    def go(self, deciding: Any, budget: int, *, seconds: float | None, progress: bool | None) -> None:
        """Sample what the strategy asks for until the budget, the time or the settings are used up."""
        until = None if seconds is None else time.monotonic() + seconds
        most = room_at_once(len(self._found.all))
        rungs = range(len(self._sampler.rungs))
        with progress_bar(budget, unit="token", what="searching", scale=True, progress=progress) as bar:
            bar.update(self.spent)
            while until is None or time.monotonic() < until:
                left = budget - self.spent
                room = [min(self._sampler.room(r), most, left // self._sampler.most_tokens(r)) for r in rungs]
                rung, chosen = deciding.ask(self.ledger, room)
                if not chosen:
                    break
                before = self.spent
                self._step(rung, chosen)
                bar.update(self.spent - before)

    def _step(self, rung: int, chosen: Sequence[int]) -> None:
        frame = self._sampled([self._found.all[one].condition for one in chosen], rung)
        both = pd.concat([self._base, frame], ignore_index=True)
        goal = self._sampler.goal
        frame["_success"] = success(both, goal.column, goal.kind, margin=self._margin, better=goal.better).to_numpy()[
            len(self._base) :
        ]
        frame["candidate"] = frame["condition"].map(dict(enumerate(chosen)))
        for candidate, rows in frame.groupby("candidate", sort=False):
            counted = rows["_success"].dropna()
            self.ledger.take(int(candidate), float(counted.sum()), len(counted))
            tokens = int(rows["n_tokens"].sum())
            self.spent += tokens
            best = self.ledger.best()
            self._steps.append(
                {
                    "step": len(self._frames),
                    "candidate": int(candidate),
                    "rung": rung,
                    **self._found.all[int(candidate)].columns(),
                    "n": int(self.ledger.tries[candidate]),
                    "success": self.ledger.hits[candidate] / max(self.ledger.tries[candidate], 1),
                    "effect": rows[goal.column].mean(),
                    "surprise": rows["surprise"].mean(),
                    "tokens": tokens,
                    "spent": self.spent,
                    "best": best,
                    "best_success": np.nan
                    if best is None
                    else self.ledger.hits[best] / max(self.ledger.tries[best], 1),
                }
            )
        self._frames.append(frame)

    def _sampled(self, conditions: list[Condition], rung: int, roles: Sequence[str] | None = None) -> pd.DataFrame:
        try:
            return self._sampler(conditions, rung, roles=roles)
        except MetricFailed as failed:
            raise MetricFailed(str(failed), pd.concat([self.completions(), failed.frame], ignore_index=True)) from None

    def frame(self) -> pd.DataFrame:
        """One row per candidate and rung, in the order sampled."""
        return pd.DataFrame(self._steps)

    def completions(self) -> pd.DataFrame:
        """All completions, those of the unsteered model first."""
        parts = [self._base.assign(candidate=pd.NA), *self._frames] if len(self._base) else self._frames
        if not parts:
            return pd.DataFrame()
        found = pd.concat([part.drop(columns="_success", errors="ignore") for part in parts], ignore_index=True)
        return found.astype({"candidate": "Int64"}).drop(columns="condition")

    def table(self) -> pd.DataFrame:
        """One row per candidate that was sampled, over all its completions."""
        drawn = pd.concat(self._frames, ignore_index=True) if self._frames else pd.DataFrame({"candidate": []})
        rows = []
        for candidate, mine in drawn.groupby("candidate", sort=True):
            one = self._found.all[int(candidate)]
            rows.append(
                {
                    "candidate": int(candidate),
                    "label": one.label,
                    **one.columns(),
                    "kl": one.kl,
                    "shift": one.shift,
                    "n": len(mine),
                    "effect": mine[self._sampler.goal.column].mean(),
                    "surprise": mine["surprise"].mean(),
                    "success": mine["_success"].mean(),
                    "tokens": int(mine["n_tokens"].sum()),
                }
            )
        return pd.DataFrame(rows)


def _share(goal: object) -> tuple[Metric, ...]:
    """The goal, checked on a few texts.

    Raises:
        SteerlensError: no metric, one that fails, or no share.
    """
    if not isinstance(goal, Metric):
        raise SteerlensError(f"goal must be a metric, such as sl.metrics.words('weddings'), got {shown(goal)}")
    if goal.kind != "share":
        raise SteerlensError(f"goal must be a share of completions, but {goal.name!r} is a mean; use 0 and 1 for each")
    return check_metrics(goal)


def _divided(model: HookedModel, prompts: Any, held_out: Any) -> tuple[list[Prompt], list[Prompt], str]:
    """The prompts to choose on, those to confirm on, and what is to be said about them."""
    given = list({prompt.ids: prompt for prompt in read_prompts(model, prompts)}.values())
    if held_out is not None:
        other = list({prompt.ids: prompt for prompt in read_prompts(model, held_out)}.values())
        known = {prompt.ids for prompt in given}
        both = [prompt.text for prompt in other if prompt.ids in known]
        if both:
            raise SteerlensError(f"held_out has a prompt that is searched on, {shown(both[0])}; give others")
        return given, other, ""
    if len(given) == 1:
        return given, [], "no held-out prompts: there is one prompt, so the confirmation has new samples of that"
    count = max(len(given) // 3, 1)
    return given[:-count], given[-count:], ""


def _identity(found: Candidates, settings: dict[str, Any]) -> str:
    """What makes a search another one, in 16 digits: all but its budget."""
    told = [settings, [one.label for one in found.all]]
    return hashlib.blake2b(json.dumps(told, default=str).encode(), digest_size=8).hexdigest()


def _check_storage(place: Path, mine: str) -> None:
    """Raise SteerlensError if the storage holds another search."""
    with Store(place) as store:
        for settings in store.sweeps()["settings"]:
            if settings.get("search", mine) != mine:
                what = f"of {settings.get('what')} for {settings.get('goal')}"
                raise SteerlensError(
                    f"{place} holds another search ({what:.120}); give another storage, or the same arguments as then"
                )
