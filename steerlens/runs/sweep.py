"""`sweep`: a vector at every layer and coefficient, against no steering, random vectors of equal norm, and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import EllipsisType
from typing import Any, Literal, Unpack

from steerlens.analysis.strengths import coefficients
from steerlens.arguments import flag, path_to
from steerlens.engine import Sampling, generate
from steerlens.engine.sampling_settings import SamplingOptions, chosen_sampling, shows_sampling_options
from steerlens.errors import SteerlensError
from steerlens.measures.measuring import check_metrics, measure_completions
from steerlens.measures.metrics import Metric, words
from steerlens.models import HookedModel, require_model, run_settings
from steerlens.runs.controls import Controls, read_controls
from steerlens.runs.parts import Engine, check_engine, complete_in_parts
from steerlens.runs.planning import plan_sweep
from steerlens.runs.swept import Sweep
from steerlens.steering import Condition, Gate, Placement, PromptPair, Steering
from steerlens.steering.layer_vectors import Swept, is_pairs, swept_conditions
from steerlens.steering.prompts import Prompt, PromptLike, read_prompts
from steerlens.steering.random_vectors import Control
from steerlens.steering.strengths import Strength, read_coeffs

DEFAULT_SAMPLING = Sampling(n=100)


@shows_sampling_options(DEFAULT_SAMPLING)
def sweep(
    model: HookedModel,
    what: Swept,
    prompts: PromptLike | Sequence[PromptLike],
    *,
    layers: Sequence[int] | Literal["all"] = "all",
    coeffs: Sequence[float | Strength] | float | Strength = (1.0,),
    placement: Placement | None = None,
    gate: Gate | None = None,
    metrics: Sequence[Metric] = (),
    sampling: Sampling | None = None,
    controls: Controls = ("random", "prompting"),
    control: Control | EllipsisType = ...,
    damage: bool = True,
    batch_size: int | None = None,
    compile: bool = False,
    progress: bool | None = None,
    store: str | Path | None = None,
    engine: Engine = "local",
    **options: Unpack[SamplingOptions],
) -> Sweep:
    """`n` completions of each prompt for every layer × coefficient and for the unsteered model, measured.

    This is the layer experiment of the ActAdd paper (arXiv 2308.10248, section 4.2) with the controls it lacks: every
    share comes with an interval, and every steered condition with a random vector of the same norm at each position,
    which shows whether any push of that size would have done the same; and the positive side of the pair is also said
    in words, with the same decoding and seeds, which shows whether asking would have done the same (it often does
    better: AxBench, arXiv 2501.17148).

    Args:
        prompts: one prompt or several: texts, chats, token ids. One that is given twice counts once.
        what: a PromptPair or several (`actadd`) or a ContrastSet (`mean_difference`), whose vectors are extracted for
            all layers from one forward pass; vectors, one per layer; or injections or conditions: what `Condition.of`
            makes of several vectors is swept as a whole.
        layers: `"all"` or layer numbers; of given conditions, those are swept whose layers are all among them.
        coeffs: coefficients (0 is allowed), or strengths that compare, as `sl.iso_kl(0.5)`: these are solved for each
            vector's coefficient on the prompts (see `solve_strengths`), and the frame has a column strength. What is
            given twice counts once.
        gate: the prompts in which vectors act, the random ones too; by default all.
        metrics: from `steerlens.metrics`; by default whether a completion contains a word of the positive prompt.
        controls: `"random"`, `"shuffled"`, `"negated"`, `"prompting"` (or a `Prompting` with words of your own), a list
            of those, `"standard"` for all four, or None; see `steerlens.runs.controls.Controls`. Each of the first
            three takes as long as the steered conditions. What cannot be made is left out, and the settings say why:
            one pair has nothing to shuffle, a ContrastSet says nothing in words.
        control: an older name: `"random"` or None.
        damage: also measure what each completion costs in fluency: its surprise under the unsteered model (one more
            pass over the completions). `effects`, `front` and `verdicts` need it.
        sampling: how many completions and how they are drawn; by default 100 with the paper's settings.
        n, max_new_tokens, temperature, top_k, top_p, frequency_penalty, seed, stop_at_end: fields of `Sampling` by
            name, in place of those of `sampling`.
        batch_size, compile, progress: see `generate`.
        store: an SQLite file in which every condition is kept as soon as it is finished. After an interruption, run the
            same call again: only what is missing is computed, and the result is the same. Several processes may share
            one file. `read_store` reads it.
        engine: `"ray"` spreads the conditions over the workers of a Ray cluster (`pip install 'steerlens[ray]'`): the
            one that `ray.init` has connected to, the one that RAY_ADDRESS names, or one on this machine. Same result.

    Raises:
        SteerlensError: layer out of range, no layers or coefficients, n = 0; unknown controls, or none that can be
            made; words that do not fit before a prompt; whatever `generate` raises; a store that cannot be used or
            written, your own hooks on the model together with a store or Ray, an unreachable cluster.
    """
    require_model(model)
    check_engine(engine)
    flag("damage", damage)
    sampling = chosen_sampling(sampling, options, default=DEFAULT_SAMPLING)
    asked = list(dict.fromkeys(read_coeffs("coeffs", coeffs)))
    wanted = read_controls(controls, control)
    given = _distinct(read_prompts(model, prompts))
    damage, compile = flag("damage", damage), flag("compile", compile)
    progress = None if progress is None else flag("progress", progress)
    swept = _one_per_layer(swept_conditions(model, what, layers, placement=placement, gate=gate))
    chosen = check_metrics(metrics) or (_default_metric(what),)
    store = None if store is None else path_to(store, "store")
    found = coefficients(model, swept, given, asked)
    cells = [pair for factors in found for pair in zip(factors, swept, strict=True)]
    plan = plan_sweep(model, what, cells, given, sampling=sampling, placement=placement, asked=wanted)
    settings = {
        "what": str(what) if isinstance(what, PromptPair) else ", ".join(dict.fromkeys(one.label for one in swept)),
        "pad": what.pad if isinstance(what, PromptPair) else what[0].pad if is_pairs(what) else None,  # type: ignore
        "prompts": [prompt.text for prompt in given],
        "layers": [one.layer for one in swept],
        "coeffs": [str(one) if isinstance(one, Strength) else one for one in asked],
        "placement": swept[0].placement if placement is None else placement,
        **plan.controls.record(),
        **asdict(sampling),
        **run_settings(model),
    }
    if store is None and engine == "local":
        speed: dict[str, Any] = {"batch_size": batch_size, "compile": compile, "surprise": damage}
        frame = generate(model, given, list[Steering](plan.conditions), sampling=sampling, **speed, progress=progress)
        frame.insert(2, "role", frame["condition"].map(dict(enumerate(plan.roles))))
    else:
        frame = complete_in_parts(
            model,
            given,
            plan.conditions,
            plan.roles,
            sampling=sampling,
            settings=settings,
            store=store,
            engine=engine,
            batch_size=batch_size,
            compile=compile,
            surprise=damage,
            progress=progress,
        )
    if any(isinstance(one, Strength) for one in asked):
        named = [str(one) if isinstance(one, Strength) else f"coefficient {one:g}" for one in asked for _ in swept]
        named = ["", *named * (1 + len(plan.controls.names)), *[""] * len(plan.controls.prompting)]
        frame.insert(frame.columns.get_loc("coeff") + 1, "strength", frame["condition"].map(dict(enumerate(named))))
    measure_completions(frame, chosen, kept="" if store is None else f" in {store}")
    return Sweep(frame, chosen, settings, plan)


def _distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts, each once: tables and figures tell them apart by their text."""
    once = {prompt.ids: prompt for prompt in reversed(prompts)}
    kept = [once.pop(prompt.ids) for prompt in prompts if prompt.ids in once]
    by_text: dict[str, Prompt] = {}
    for prompt in kept:
        if by_text.setdefault(prompt.text, prompt) is not prompt:
            raise SteerlensError(
                f"two prompts show as {prompt.text!r:.60} but differ in their tokens; sweep them separately"
            )
    return kept


def _one_per_layer(conditions: list[Condition]) -> list[Condition]:
    """The conditions, if tables and figures can tell them apart by their layer."""
    by_layer: dict[int | None, Condition] = {}
    for one in conditions:
        if (other := by_layer.setdefault(one.layer, one)) is not one:
            where = "act on several layers" if one.layer is None else f"are both of layer {one.layer}"
            raise SteerlensError(
                f"a sweep takes one vector per layer, but {other.label!r:.60} and {one.label!r:.60} {where}; "
                "sweep them separately"
            )
    return conditions


def _default_metric(what: Any) -> Metric:
    text = what.positive.strip() if isinstance(what, PromptPair) and isinstance(what.positive, str) else ""
    if not text:
        raise SteerlensError("metrics is empty; give at least one, as in metrics=[sl.metrics.words('weddings')]")
    return words(text)
