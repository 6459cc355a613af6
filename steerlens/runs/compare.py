"""`compare`: methods of steering against each other and against words, each at its own best and at equal damage."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Unpack

import pandas as pd

from steerlens.analysis.strengths import solve_strengths
from steerlens.arguments import finite_number, listed, path_to, shown, whole_number
from steerlens.engine import Sampling, generate
from steerlens.engine.sampling_settings import SamplingOptions, chosen_sampling, shows_sampling_options
from steerlens.errors import SteerlensError
from steerlens.measures.damage import MARGIN
from steerlens.measures.measuring import check_metrics, measure_completions
from steerlens.measures.metrics import Metric
from steerlens.models import HookedModel, require_model, run_settings
from steerlens.runs.compared import Comparison
from steerlens.runs.controls import words_of
from steerlens.runs.methods import Method, vectors_by_method
from steerlens.runs.parts import complete_in_parts
from steerlens.runs.search import search
from steerlens.runs.search_space import STRENGTHS, Direction
from steerlens.steering import Condition, ContrastSet, Injection, PromptPair, Steering, SteeringVector, random_like
from steerlens.steering.extraction.token_choice import Token
from steerlens.steering.prompting import Prompting, prompted
from steerlens.steering.prompts import Prompt, PromptLike, read_prompts
from steerlens.steering.strengths import Strength, iso_surprise

DEFAULT_SAMPLING = Sampling(n=16)


@shows_sampling_options(DEFAULT_SAMPLING)
def compare(
    model: HookedModel,
    contrast: ContrastSet | PromptPair | Sequence[PromptPair],
    prompts: PromptLike | Sequence[PromptLike],
    *,
    goal: Metric,
    methods: Literal["all"] | Sequence[Method] | Mapping[str, Sequence[SteeringVector]] = "all",
    baselines: Sequence[Literal["random", "prompting"] | Prompting] = ("prompting", "random"),
    held_out: PromptLike | Sequence[PromptLike] | None = None,
    budget: int = 20_000,
    damage: float = 0.5,
    confirm: int = 20,
    layers: Sequence[int] | Literal["all"] = "all",
    token: Token = "last",
    strengths: Sequence[Strength] = STRENGTHS,
    margin: float = MARGIN,
    sampling: Sampling | None = None,
    storage: str | Path | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Unpack[SamplingOptions],
) -> Comparison:
    """Each method at the best setting that `search` finds for it with the same number of tokens, and at equal damage.

    The figures are those of held-out prompts and fresh samples, under the same decoding, seeds and goal for all:
    unsteered, each method, a random vector of its norm beside it, and prompting.

    Args:
        contrast: a ContrastSet (mean difference, PCA, probe, LDA, trained), or a PromptPair or several (ActAdd).
        prompts: to choose settings on. Of several, the last third is held out, unless `held_out` is given.
        goal: a metric that is a share, such as `sl.metrics.words("weddings")`.
        methods: `"all"` that the contrast is enough for; some of "actadd", "mean_difference", "pca", "probe", "lda",
            "trained" (at three layers, which takes the longest); or vectors by the name of their method.
        baselines: `"random"`, `"prompting"` (the positive side of a pair in words), or a `Prompting`.
        budget: tokens to search with, for each method.
        damage: at equal damage every method is scaled to be so many nats per token more surprising than unsteered
            text, at its own best layer and place (`iso_surprise`); it must be within `margin` to count as fluent.
        confirm: completions of each held-out prompt.
        layers, token: of the vectors, as of `mean_difference`.
        strengths: the scale to search; see `search`.
        storage: a folder that keeps every completion: an SQLite file for the search of each method, and one for the
            comparison. After an interruption, run the same call again: what is finished is read.
        margin, sampling, n, max_new_tokens, …, batch_size, progress: as of `search`.

    Raises:
        SteerlensError: no method that the contrast is enough for; one prompt is no error: nothing is held out then, and
            the result says so; what `search` and `generate` raise.
    """
    require_model(model)
    (goal,) = check_metrics(goal)
    sampling = chosen_sampling(sampling, options, default=DEFAULT_SAMPLING)
    damage, margin = finite_number("damage", damage, above=0), finite_number("margin", margin)
    confirm = whole_number("confirm", confirm, least=1)
    place = None if storage is None else _folder(storage)
    chosen, other, notes = _divided(model, prompts, held_out)
    vectors, left_out = vectors_by_method(model, contrast, methods, layers=layers, token=token)
    told, random = _baselines(model, baselines, contrast, [*chosen, *other], sampling, notes)
    found = {
        name: search(
            model, _named(name, one), chosen, goal=goal, budget=budget, strengths=strengths, margin=margin,
            held_out=other or None, confirm=0, sampling=sampling, batch_size=batch_size, progress=progress,
            storage=None if place is None else place / _file_name(name),
        )
        for name, one in vectors.items()
    }  # fmt: skip
    best = {name: one.candidate.injection for name, one in found.items()}
    cells = [(name, "best", injection) for name, injection in best.items()]
    for name, injection in best.items():
        one = solve_strengths(model, injection, chosen, iso_surprise(damage), batch_size=batch_size).iloc[0]
        if not one["found"]:
            notes.append(f"{name} at equal damage: {one['why']}")
        scaled = replace(injection, vector=float(one["coeff"]) * injection.vector)
        cells.append((name, "equal damage", scaled))
    fresh = replace(sampling, n=confirm, seed=sampling.seed + (1 if sampling.seed < 2**62 else -1))
    settings = {
        "what": str(contrast) if isinstance(contrast, PromptPair) else getattr(contrast, "name", "several pairs"),
        "goal": goal.name,
        "methods": list(found),
        "left out": left_out,
        "budget": budget,
        "tokens": {name: int(one.frame["spent"].iloc[-1]) for name, one in found.items()},
        "damage": damage,
        "margin": margin,
        "chosen on": f"{len(chosen)} prompts, {budget:,} tokens for each method",
        "confirmed on": f"{len(other) or len(chosen)} prompts × {confirm} samples, seed {fresh.seed}",
        "prompts": [prompt.text for prompt in chosen],
        "held_out": [prompt.text for prompt in other],
        **asdict(fresh),
        **run_settings(model),
    }
    frame = _completed(
        model, other or chosen, _planned(cells, told, random, seed=fresh.seed), fresh,
        settings={"compares": settings["what"], "goal": goal.name, **run_settings(model)},
        store=None if place is None else place / "compared.sqlite", batch_size=batch_size, progress=progress,
    )  # fmt: skip
    measure_completions(frame, (goal,))
    return Comparison(frame, goal, margin, found, (*notes, *left_out), settings)


def _file_name(method: str) -> str:
    """The file of a method's search in the folder, whatever the caller calls the method."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", method)[:40]
    told = "" if plain == method else "-" + hashlib.blake2b(method.encode(), digest_size=4).hexdigest()
    return f"search-{plain}{told}.sqlite"


def _folder(storage: str | Path) -> Path:
    """The folder, made if it is not there."""
    place = path_to(storage, "storage")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SteerlensError(f"storage must be a folder, and {place} cannot be one: {error.strerror}") from None
    return place


def _named(name: str, vectors: Sequence[SteeringVector]) -> dict[str, Direction]:
    return {name: list(vectors)}


def _divided(model: HookedModel, prompts: Any, held_out: Any) -> tuple[list[Prompt], list[Prompt], list[str]]:
    """The prompts to choose on and those to confirm on; what is to be said where there are none of these."""
    given = list({prompt.ids: prompt for prompt in read_prompts(model, prompts)}.values())
    if held_out is not None:
        other = list({prompt.ids: prompt for prompt in read_prompts(model, held_out)}.values())
        if {prompt.ids for prompt in given} & {prompt.ids for prompt in other}:
            raise SteerlensError("held_out has a prompt that settings are chosen on; give others")
        return given, other, []
    if len(given) == 1:
        return given, [], ["one prompt: nothing is held out, and the figures are of fresh samples of it"]
    count = max(len(given) // 3, 1)
    return given[:-count], given[-count:], []


def _baselines(
    model: HookedModel, baselines: object, contrast: Any, prompts: list[Prompt], sampling: Sampling, notes: list[str]
) -> tuple[list[Prompting], bool]:
    """What is said in words, and whether random vectors are run."""
    asked = listed("baselines", baselines, of="'random', 'prompting' or words")
    words = [one for one in asked if isinstance(one, Prompting)]
    for one in asked:
        if not isinstance(one, Prompting) and one not in ("random", "prompting"):
            raise SteerlensError(f"baselines holds {shown(one)}; use 'random', 'prompting' or sl.Prompting('…')")
    if "prompting" in asked and not words:
        try:
            words = [words_of(contrast, [])]
        except SteerlensError as error:
            notes.append(f"no prompting: {error}".replace("controls=", "baselines="))
    for one in words:
        prompted(model, prompts, one, max_new_tokens=sampling.max_new_tokens)
    return words, "random" in asked


Planned = tuple[str, str, str, Condition]
"""Role, method and setting of a condition that is compared."""


def _planned(
    cells: Sequence[tuple[str, str, Injection]], told: Sequence[Prompting], random: bool, *, seed: int
) -> list[Planned]:
    """Everything that is compared, the unsteered model first."""
    plan: list[Planned] = [("unsteered", "", "", Condition())]
    plan += [("steered", name, setting, Condition((one,))) for name, setting, one in cells]
    if random:
        for name, setting, one in cells:
            noise = replace(one, vector=random_like(one.vector, seed=seed))
            plan.append(("random", name, setting, Condition((noise,))))
    return plan + [("prompting", one.title, "", Condition(prompting=one)) for one in told]


def _completed(
    model: HookedModel,
    prompts: list[Prompt],
    plan: Sequence[Planned],
    sampling: Sampling,
    *,
    settings: Mapping[str, Any],
    store: Path | None,
    batch_size: int | None,
    progress: bool | None,
) -> pd.DataFrame:
    """The completions of everything that is compared, with columns role, method and setting."""
    conditions, roles = [condition for *_, condition in plan], [role for role, *_ in plan]
    how: dict[str, Any] = {"sampling": sampling, "surprise": True, "batch_size": batch_size, "progress": progress}
    if store is None:
        frame = generate(model, prompts, list[Steering](conditions), **how)
        frame.insert(2, "role", frame["condition"].map(dict(enumerate(roles))))
    else:
        settings = {**settings, "prompts": [prompt.text for prompt in prompts], **asdict(sampling)}
        frame = complete_in_parts(
            model, prompts, conditions, roles, settings=settings, store=store, engine="local", **how
        )
    for place, name in enumerate(("method", "setting"), start=1):
        frame.insert(2 + place, name, frame["condition"].map({number: one[place] for number, one in enumerate(plan)}))
    return frame
