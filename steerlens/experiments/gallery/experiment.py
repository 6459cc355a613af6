"""`gallery`: the qualitative examples of the original post, failures included; the best of three, and every completion.

The post ("Steering GPT-2-XL by adding an activation vector", LessWrong, May 2023) shows for each example the best of
three completions, picked by hand (its introduction: of thirty). A hand-picked completion says little about the typical
one, so a single page here shows the best of the first three by a stated rule, all completions, and the share of
completions that show the effect at all, with intervals: unsteered, steered, and with a random vector of equal norm.

**The rule.** Each example names the words that stand for its effect. The best of three is the completion with the most
of them (repeats counted); the earlier sample wins a tie. Unsteered completions are picked by the same rule.

Settings of the post: temperature 1, top-p 0.3, frequency penalty 1, seed 0. Its polished notebook samples 3 completions
of 50 tokens, an earlier one up to 15 of 50 to 90. The default here is 50 tokens, and 20 completions, so that the shares
mean something.

Layers are those of GPT-2-XL (48 layers); another model is steered at the same relative depth. Coefficients are the
post's unless `coeff_scale` says otherwise: another model may need another scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from steerlens.arguments import choice, finite_number, whole_number
from steerlens.engine.sampling_settings import Sampling, SamplingOptions, chosen_sampling, shows_sampling_options
from steerlens.errors import SteerlensError
from steerlens.experiments.gallery.completing import Prepared
from steerlens.experiments.gallery.examples import EXAMPLES, Example
from steerlens.experiments.gallery.result import Gallery
from steerlens.experiments.shared.depth import PAPER_LAYERS
from steerlens.experiments.shared.ledger import Ledger
from steerlens.models import HookedModel, require_model
from steerlens.models.run_settings import run_settings
from steerlens.progress import progress_bar
from steerlens.steering.random_vectors import Control

SAMPLING = Sampling(n=20, max_new_tokens=50)
"""As the post decodes, with more completions."""

QUICK: dict[str, Any] = {"sampling": replace(SAMPLING, n=10, max_new_tokens=40)}

# Part of every key; to be raised when the same settings would give other completions than before.
_REVISION = 2


@shows_sampling_options(SAMPLING)
def gallery(
    model: HookedModel,
    *,
    examples: Sequence[str | Example] | None = None,
    best_of: int = 3,
    sampling: Sampling | None = None,
    scale_layers: bool = True,
    coeff_scale: float = 1.0,
    control: Control = "random",
    store: str | Path | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Unpack[SamplingOptions],
) -> Gallery:
    """The post's examples on `model`: unsteered, steered, and with a random vector; the best of three, and all.

    Source and rule: the head of this file. An example whose vector is longer than its prompt (tokens differ from model
    to model) is listed as not run, with the reason.

    Args:
        examples: names (see `gallery.examples.EXAMPLES`) or `Example`s of your own; by default all of the post's.
        best_of: the best is picked from the first this many.
        sampling: how many completions of each kind and how they are drawn; by default `SAMPLING`.
        n, max_new_tokens, temperature, top_k, top_p, frequency_penalty, seed, stop_at_end, stop: fields of `Sampling`
            by name, in place of those of `sampling`.
        scale_layers: False uses the post's layer numbers as they are.
        coeff_scale: a factor for all coefficients.
        control: "random", or None to leave the random vectors out.
        store: a file that keeps finished examples (a `Ledger`), from which an interrupted run resumes.
        batch_size: see `generate`.
        progress: a progress bar; by default in a terminal or notebook.

    Raises:
        SteerlensError: an unknown example, no example that fits the model, a layer out of range, `best_of` below 1,
            whatever `generate` raises.
    """
    require_model(model)
    sampling = chosen_sampling(sampling, options, default=SAMPLING)
    chosen = _chosen(examples)
    best_of = whole_number("best_of", best_of, least=1)
    coeff_scale = finite_number("coeff_scale", coeff_scale)
    choice("control", control, ("random", None))
    tables, not_run = [], {}
    with (
        Ledger(store) as ledger,
        progress_bar(len(chosen), unit="example", what="gallery", progress=progress) as bar,
    ):
        always = {"experiment": "gallery", "revision": _REVISION, "model": ledger.model_key(model)}
        for example in chosen:
            ready = Prepared.of(model, example, scale_layers=scale_layers, coeff_scale=coeff_scale)
            why = ready.misfit
            if why is not None:
                not_run[example.name] = why
            else:
                complete = partial(ready.complete, sampling, control, batch_size)
                rows = ledger.remember(always | ready.depends(sampling, control), complete)
                tables.append(ready.table(pd.DataFrame(rows), best_of))
            bar.update()
    if not tables:
        raise SteerlensError(f"no example can be run on this model: {next(iter(not_run.values()))}")
    settings = {
        "examples": {
            one.name: {"words": list(one.words), "looked_for": one.looked_for, "note": one.note} for one in chosen
        },
        "best_of": best_of,
        "layers": f"scaled by depth from {PAPER_LAYERS}" if scale_layers else "as in the post",
        "coeff_scale": coeff_scale,
        "control": control,
        **asdict(sampling),
        **run_settings(model),
    }
    return Gallery(pd.concat(tables, ignore_index=True), settings, not_run)


def _chosen(examples: Sequence[str | Example] | None) -> list[Example]:
    if examples is None:
        return list(EXAMPLES)
    known = {one.name: one for one in EXAMPLES}
    found = []
    for one in [examples] if isinstance(examples, str) else examples:
        if isinstance(one, str) and one not in known:
            raise SteerlensError(f"no example is called {one!r}; there are {', '.join(known)}")
        found.append(known[one] if isinstance(one, str) else one)
    if not found:
        raise SteerlensError("examples is empty; give at least one name, or None for all")
    if len({one.name for one in found}) < len(found):
        raise SteerlensError("two examples have one name; give each its own")
    return found
