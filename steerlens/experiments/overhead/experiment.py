"""What does steering cost? Time of forward passes, base against steered (ActAdd, "scales with model size")

The paper (Turner et al., arXiv 2308.10248) runs 100 forward passes on 32 sequences of 64 random tokens, for each of 10
seeds, without and with the vector `"This is a test prompt."` − `""` at layer 6, and reports for models of several sizes

    premium = t̄_ActAdd / t̄_baseline − 1,

t̄ the mean over the seeds of the time of all passes. The extraction of the vector (one pass on a batch of two) counts
as time of steering.

Where its text and its script differ, or something is ours:

- The text says layer 6 and 100 passes; the script takes the layer in the middle and 1,000 passes. The default is the
  text's, and the middle where the model has no layer 6.
- The script measures the base first, then steering, with a clock that does not wait for the GPU. Here the device is
  waited for before every reading of the clock, both kinds of passes alternate, a coin (from the seed) decides which
  goes first in each pair, and passes before the first measured one warm up.
- The script uses bare Hugging Face models with its own hook, which it adds and removes with every pass. Here it is
  `steer` on the TransformerLens model, entered with every pass as well, so its set-up counts.
- The paper gives no intervals. Here the premium has Student's interval for a ratio of means over the seeds (95 %).
- `premium_forward` leaves the extraction out: what each further pass costs. `premium_median` compares the medians of
  single passes, which a busy machine disturbs less.

Engines that do not call the model (`generate`, `score`, `reduce_next_tokens`) have costs of their own: see
`scripts/benchmark.py`.
"""

from __future__ import annotations

import math
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.errors import SteerlensError
from steerlens.experiments.overhead.figures import premium_by_size
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.result import Result
from steerlens.measures.statistics import Interval, mean_interval
from steerlens.models import HookedModel, load_model, require_model
from steerlens.models.run_settings import run_settings
from steerlens.reports.page import Headline
from steerlens.steering import PromptPair, actadd, steer

if TYPE_CHECKING:
    import plotly.graph_objects as go

PAPER_LAYER = 6

QUICK: dict[str, Any] = {"batch": 8, "forwards": 6, "seeds": 5}

Clock = Callable[[], float]
Pass = Callable[[], object]

_REVISION = 1


@dataclass(frozen=True, eq=False)
class Overhead(Result):
    """What steering costs.

    Attributes:
        frame: one row per model: model, parameters (as loaded: HookedTransformer holds tied embeddings twice),
            n_layers, layer, device, dtype, seeds, forwards, base and steered (seconds per pass, means over all),
            extraction (seconds per vector), premium, low, high (steered with its extraction against base),
            premium_forward, forward_low, forward_high (without it), premium_median (medians of single passes, without).
        times: one row per model and seed, in seconds: model, seed, base and steered (sums over the passes), extraction,
            base_median, steered_median (of single passes).
    """

    name: ClassVar[str] = "overhead"
    title: ClassVar[str] = "What does steering cost in time?"

    times: pd.DataFrame = field(default_factory=pd.DataFrame)

    def headlines(self) -> list[Headline]:
        tiles = []
        for row in self.frame.head(3).itertuples():
            limits = f"{row.low:+.1%} to {row.high:+.1%}" if row.low == row.low else "one seed, no interval"
            tiles.append(Headline(f"premium, {row.model}", f"{row.premium:+.1%}", limits))
            tiles.append(
                Headline(
                    "… of a further pass", f"{row.premium_forward:+.1%}", f"median of passes {row.premium_median:+.1%}"
                )
            )
            tiles.append(
                Headline("base pass", f"{1000 * row.base:.1f} ms", f"extraction {1000 * row.extraction:.1f} ms")
            )
        return tiles

    def figures(self) -> dict[str, go.Figure]:
        return {
            "Premium (time with steering over time without, minus 1) against model size; small points are the seeds.": (
                premium_by_size(self.frame, self.times)
            )
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        shown = pd.DataFrame(
            {
                "model": self.frame["model"],
                "parameters": [f"{size / 1e6:,.1f} M" for size in self.frame["parameters"]],
                "layer": self.frame["layer"],
                "device": self.frame["device"],
                "base pass (ms)": 1000 * self.frame["base"],
                "steered pass (ms)": 1000 * self.frame["steered"],
                "extraction (ms)": 1000 * self.frame["extraction"],
                "premium": [_percent(*row) for row in self.frame[["premium", "low", "high"]].to_numpy()],
                "of a further pass": [
                    _percent(*row) for row in self.frame[["premium_forward", "forward_low", "forward_high"]].to_numpy()
                ],
            }
        )
        return {"Models": shown, "Every seed (seconds)": self.times}


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

    Source: Turner et al., arXiv 2308.10248; see the head of this file for its text, its script and what differs here.

    Args:
        models: one or several; names are loaded one after the other and let go, so that they need not fit together.
        batch, tokens: shape of the random tokens, BOS none.
        pair: by default `"This is a test prompt."` − `""`.
        layer: by default 6, or the middle of a model that has no layer 6.
        forwards: measured passes of each kind per seed.
        seeds: how many; they number the random tokens and decide which kind of pass goes first.
        warm_up: unmeasured passes of each kind before a model's first measured one.
        store: a file that keeps finished seeds (a `Ledger`), for the machine that it was begun on.
        clock: seconds; for tests.

    Raises:
        SteerlensError: a layer out of range, more tokens than the model reads, a vector longer than them, no pass.
    """
    for name, value in (("batch", batch), ("tokens", tokens), ("forwards", forwards), ("seeds", seeds)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SteerlensError(f"{name} must be a whole number of at least 1, got {value!r}")
    contrast = PromptPair("This is a test prompt.", "") if pair is None else pair
    given = list(models) if isinstance(models, list | tuple) else [models]
    if not given:
        raise SteerlensError("there are no models; give one or several")
    shape = {"batch": batch, "tokens": tokens, "pair": str(contrast), "coeff": coeff, "forwards": forwards}
    rows: list[dict[str, Any]] = []
    tables, described = [], []
    with (
        Ledger(store) as ledger,
        tqdm(
            total=len(given) * seeds, unit="seed", desc="overhead", disable=None if progress is None else not progress
        ) as bar,
    ):
        for one in given:
            model = load_model(one) if isinstance(one, str) else require_model(one)
            where = _layer(model, layer)
            job = _Job(model, contrast, where, coeff, batch, tokens, forwards, clock)
            job.check()
            facts = run_settings(model)
            described.append({**facts, "layer": where})
            depends = {"experiment": "overhead", "revision": _REVISION, **shape, "pad": contrast.pad, "layer": where}
            depends |= {"model": facts["model fingerprint"], "device": facts["device"], "dtype": facts["dtype"]}
            depends |= {"machine": _machine(model)}
            measured = []
            warm = False
            for seed in range(seeds):
                if not warm and not ledger.knows({**depends, "seed": seed}):
                    job.warm_up(warm_up)
                    warm = True
                measured.append(ledger.remember({**depends, "seed": seed}, partial(job.measure, seed)))
                bar.update()
            table = pd.DataFrame(measured)
            facts["model"] = _unique(facts, [row["model"] for row in rows])
            table.insert(0, "model", facts["model"])
            tables.append(table)
            rows.append(_row(model, facts, where, forwards, table))
            del model, job
    settings = {
        **shape,
        "layer": [facts["layer"] for facts in described],
        "layer in the paper": f"{PAPER_LAYER} (its script: the middle)",
        "seeds": seeds,
        "warm_up": warm_up,
        **described[0],
        "layer of each model": [facts["layer"] for facts in described],
        "model": ", ".join(facts["model"] for facts in described),
        "model fingerprint": ", ".join(facts["model fingerprint"] for facts in described),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }
    settings.pop("layer")
    return Overhead(pd.DataFrame(rows), settings, pd.concat(tables, ignore_index=True))


def premium(steered: ArrayLike, base: ArrayLike, level: float = 0.95) -> Interval:
    """mean(steered) / mean(base) − 1 over paired seeds, with Student's interval for a ratio of means.

    The residuals `steered − ratio · base` have mean 0; their standard error, divided by mean(base), is the ratio's
    (Cochran 1977, section 2.11). NaN limits for one seed.
    """
    above, below = np.asarray(steered, dtype=np.float64), np.asarray(base, dtype=np.float64)
    if above.shape != below.shape or above.ndim != 1 or above.size == 0:
        raise SteerlensError(f"steered has shape {above.shape} and base {below.shape}; give one time of each per seed")
    ratio = float(above.mean() / below.mean())
    residual = mean_interval(above - ratio * below, level)
    half = (residual.high - residual.low) / 2 / float(below.mean())
    return Interval(ratio - 1, ratio - 1 - half, ratio - 1 + half, above.size, level)


def alternate(
    base: Pass, steered: Pass, *, repeats: int, coin: random.Random, clock: Clock, wait: Callable[[], None]
) -> tuple[list[float], list[float]]:
    """Seconds of every pass of the two kinds, `repeats` each, in pairs whose order a coin decides.

    `wait` returns when the device has done all that it was given; it is called before every reading of the clock.
    """
    seconds: dict[str, list[float]] = {"base": [], "steered": []}
    passes = {"base": base, "steered": steered}
    for _ in range(repeats):
        order = ["base", "steered"]
        if coin.random() < 0.5:
            order.reverse()
        for kind in order:
            seconds[kind].append(_timed(passes[kind], clock, wait))
    return seconds["base"], seconds["steered"]


@dataclass(frozen=True, eq=False)
class _Job:
    """What is measured on one model."""

    model: HookedModel
    pair: PromptPair
    layer: int
    coeff: float
    batch: int
    tokens: int
    forwards: int
    clock: Clock

    def check(self) -> None:
        if self.tokens > self.model.cfg.n_ctx:
            raise SteerlensError(f"tokens={self.tokens}, but the model reads {self.model.cfg.n_ctx}; give fewer")
        span = actadd(self.model, self.pair, layer=self.layer).n_positions
        if span > self.tokens:
            raise SteerlensError(
                f"the vector spans {span} positions, but rows have {self.tokens} tokens; give more tokens"
            )

    def random_tokens(self, seed: int) -> Int[Tensor, "batch pos"]:
        generator = torch.Generator().manual_seed(seed)
        vocabulary = len(self.model.tokenizer) if self.model.tokenizer is not None else int(self.model.cfg.d_vocab)
        shape = (self.batch, self.tokens)
        ids = torch.randint(min(vocabulary, int(self.model.cfg.d_vocab)), shape, generator=generator)
        return ids.to(self.model.cfg.device)

    @torch.no_grad()
    def warm_up(self, passes: int) -> None:
        ids = self.random_tokens(0)
        vector = self.coeff * actadd(self.model, self.pair, layer=self.layer)
        for _ in range(passes):
            self.model(ids)
            with steer(self.model, vector):
                self.model(ids)
        self._wait()

    @torch.no_grad()
    def measure(self, seed: int) -> dict[str, float]:
        ids = self.random_tokens(seed)
        made = []

        def extract() -> None:
            made.append(self.coeff * actadd(self.model, self.pair, layer=self.layer))

        extraction = _timed(extract, self.clock, self._wait)

        def base() -> None:
            self.model(ids)

        def steered() -> None:
            with steer(self.model, made[0]):
                self.model(ids)

        coin = random.Random(seed)
        times = alternate(base, steered, repeats=self.forwards, coin=coin, clock=self.clock, wait=self._wait)
        return {
            "seed": seed,
            "base": math.fsum(times[0]),
            "steered": math.fsum(times[1]),
            "extraction": extraction,
            "base_median": float(np.median(times[0])),
            "steered_median": float(np.median(times[1])),
        }

    def _wait(self) -> None:
        device = torch.device(self.model.cfg.device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()


def _timed(work: Pass, clock: Clock, wait: Callable[[], None]) -> float:
    wait()
    start = clock()
    work()
    wait()
    return clock() - start


def _row(model: HookedModel, facts: dict[str, Any], layer: int, forwards: int, table: pd.DataFrame) -> dict[str, Any]:
    whole = premium(table["steered"] + table["extraction"], table["base"])
    further = premium(table["steered"], table["base"])
    return {
        "model": facts["model"],
        "parameters": sum(weight.numel() for weight in model.parameters()),  # type: ignore[attr-defined]
        "n_layers": int(model.cfg.n_layers),
        "layer": layer,
        "device": facts["device"],
        "dtype": facts["dtype"],
        "seeds": len(table),
        "forwards": forwards,
        "base": table["base"].mean() / forwards,
        "steered": table["steered"].mean() / forwards,
        "extraction": table["extraction"].mean(),
        "premium": whole.estimate,
        "low": whole.low,
        "high": whole.high,
        "premium_forward": further.estimate,
        "forward_low": further.low,
        "forward_high": further.high,
        "premium_median": table["steered_median"].mean() / table["base_median"].mean() - 1,
    }


def _unique(facts: dict[str, Any], taken: Sequence[str]) -> str:
    """The model's name; where it is taken, with class and, if need be, a number."""
    names = [facts["model"], f"{facts['model']} ({facts['model class']})"]
    names += [f"{names[1]} #{i}" for i in range(2, len(taken) + 3)]
    return next(name for name in names if name not in taken)


def _layer(model: HookedModel, layer: int | None) -> int:
    n_layers = int(model.cfg.n_layers)
    if layer is None:
        return PAPER_LAYER if n_layers > PAPER_LAYER else n_layers // 2
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < n_layers:
        raise SteerlensError(f"layer {layer} is out of range for a model of {n_layers} layers; use 0 to {n_layers - 1}")
    return layer


def _percent(value: float, low: float, high: float) -> str:
    """A premium with its interval, if it has one."""
    text = f"{value:+.1%}" + (f" ({low:+.1%} to {high:+.1%})" if low == low else "")
    return text.replace("-", "−")


def _machine(model: HookedModel) -> str:
    """What a time depends on beside the job: times of another machine must not be taken for this one's."""
    device = torch.device(model.cfg.device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.node()} {platform.machine()} {torch.get_num_threads()} threads"
