"""`overhead`: what does steering cost in time? Forward passes with and without it.

The paper (Turner et al., arXiv 2308.10248, "scales with model size") runs 100 forward passes on 32 sequences of 64
random tokens, for each of 10 seeds, with and without the vector `"This is a test prompt."` − `""` at layer 6. It
reports, for models of several sizes,

    premium = t̄_ActAdd / t̄_baseline − 1,

where t̄ is the mean over seeds of the time that all passes take. Extracting the vector (one pass on a batch of two)
counts as time of steering.

Where the paper's text and its script differ, or where this experiment departs from both:
`steerlens.experiments.overhead.paper.DIFFERENCES`, which the page shows.

`generate`, `score` and `reduce_next_tokens` do not simply call the model and have costs of their own: see
`scripts/benchmark.py`.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from steerlens.arguments import finite_number, layer_number, whole_number
from steerlens.errors import SteerlensError
from steerlens.experiments.overhead.premium import premium_row
from steerlens.experiments.overhead.result import Overhead
from steerlens.experiments.overhead.timing import Clock, PassTimes, machine_of
from steerlens.experiments.shared.ledger import Ledger
from steerlens.models import HookedModel, load_model, require_model
from steerlens.models.run_settings import run_settings
from steerlens.progress import progress_bar
from steerlens.steering import PromptPair

PAPER_LAYER = 6

QUICK: dict[str, Any] = {"batch": 8, "forwards": 6, "seeds": 5}

_REVISION = 1


def overhead(
    models: HookedModel | str | Sequence[HookedModel | str],
    *,
    batch: int = 32,
    tokens: int = 64,
    pair: PromptPair | None = None,
    layer: int | None = None,
    coeff: float = 1.0,
    forwards: int = 100,
    seeds: int = 10,
    warm_up: int = 3,
    store: str | Path | None = None,
    clock: Clock = time.perf_counter,
    progress: bool | None = None,
) -> Overhead:
    """The time that steering adds to a forward pass, t̄_steered / t̄_base − 1, with its interval: figure 6 (v1).

    Source: Turner et al., arXiv 2308.10248; the head of this file says what its text and script leave open.

    Args:
        models: one or several; models given by name are loaded one at a time and released, so they need not fit into
            memory together.
        batch, tokens: shape of the random tokens, without BOS.
        pair: by default `"This is a test prompt."` − `""`.
        layer: by default 6, or the middle of a model that has no layer 6.
        forwards: measured passes of each kind per seed.
        seeds: how many; they number the random tokens and decide which kind of pass goes first.
        warm_up: unmeasured passes of each kind before a model's first measured one.
        store: a file that keeps finished seeds (a `Ledger`) for the machine on which they were measured.
        clock: gives seconds; for tests.

    Raises:
        SteerlensError: a layer out of range, more tokens than the context of the model, fewer tokens than the vector
            has positions, no pass to measure.
    """
    shape: dict[str, Any] = {
        "batch": whole_number("batch", batch, least=1),
        "tokens": whole_number("tokens", tokens, least=1),
        "coeff": finite_number("coeff", coeff),
        "forwards": whole_number("forwards", forwards, least=1),
    }
    seeds, warm_up = whole_number("seeds", seeds, least=1), whole_number("warm_up", warm_up, least=0)
    contrast = PromptPair("This is a test prompt.", "") if pair is None else pair
    given = list(models) if isinstance(models, list | tuple) else [models]
    if not given:
        raise SteerlensError("there are no models; give one or several")
    rows: list[dict[str, Any]] = []
    tables, described = [], []
    with (
        Ledger(store) as ledger,
        progress_bar(len(given) * seeds, unit="seed", what="overhead", progress=progress) as bar,
    ):
        for one in given:
            model = load_model(one) if isinstance(one, str) else require_model(one)
            passes = PassTimes(model, contrast, _layer(model, layer), clock=clock, **shape)
            facts = run_settings(model)
            table = _all_seeds(passes, facts, ledger, seeds=seeds, warm_up=warm_up, bar=bar)
            facts["model"] = _unique(facts, [row["model"] for row in rows])
            table.insert(0, "model", facts["model"])
            tables.append(table)
            rows.append(premium_row(model, facts, passes.layer, passes.forwards, table))
            described.append({**facts, "layer": passes.layer})
            del model, passes
    settings = {**shape, "pair": str(contrast), "seeds": seeds, "warm_up": warm_up, **_machine_settings(described)}
    return Overhead(pd.DataFrame(rows), settings, pd.concat(tables, ignore_index=True))


def _all_seeds(
    passes: PassTimes, facts: dict[str, Any], ledger: Ledger, *, seeds: int, warm_up: int, bar: Any
) -> pd.DataFrame:
    """The times of every seed on one model, one row each; those that the ledger holds are not measured again."""
    passes.check()
    depends = {
        "experiment": "overhead",
        "revision": _REVISION,
        **{name: getattr(passes, name) for name in ("batch", "tokens", "coeff", "forwards", "layer")},
        "pair": str(passes.pair),
        "pad": passes.pair.pad,
        "model": ledger.model_key(passes.model),
        "device": facts["device"],
        "dtype": facts["dtype"],
        "machine": machine_of(passes.model),
    }
    measured = []
    warm = False
    for seed in range(seeds):
        key = {**depends, "seed": seed}
        if not warm and not ledger.knows(key):
            passes.warm_up(warm_up)
            warm = True
        measured.append(ledger.remember(key, partial(passes.measure, seed)))
        bar.update()
    return pd.DataFrame(measured)


def _machine_settings(described: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        **{key: value for key, value in described[0].items() if key != "layer"},
        "layer in the paper": f"{PAPER_LAYER} (its script: the middle)",
        "layer of each model": [facts["layer"] for facts in described],
        "model": ", ".join(facts["model"] for facts in described),
        "model fingerprint": ", ".join(str(facts["model fingerprint"]) for facts in described),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }


def _unique(facts: dict[str, Any], taken: Sequence[str]) -> str:
    """The model's name; where it is taken, with its class and, if need be, a number."""
    names = [facts["model"], f"{facts['model']} ({facts['model class']})"]
    names += [f"{names[1]} #{i}" for i in range(2, len(taken) + 3)]
    return next(name for name in names if name not in taken)


def _layer(model: HookedModel, layer: int | None) -> int:
    n_layers = int(model.cfg.n_layers)
    if layer is None:
        return PAPER_LAYER if n_layers > PAPER_LAYER else n_layers // 2
    return layer_number(layer, n_layers)
