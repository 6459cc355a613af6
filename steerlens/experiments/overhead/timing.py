"""`PassTimes`: the passes of `overhead` on one model, base and steered in random order, and what they took."""

from __future__ import annotations

import math
import platform
import random
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering import PromptPair, actadd, steer

Clock = Callable[[], float]
Pass = Callable[[], object]


@dataclass(frozen=True, eq=False)
class PassTimes:
    """What is measured on one model: `forwards` passes of each kind on a batch of random tokens, for every seed."""

    model: HookedModel
    pair: PromptPair
    layer: int
    _: KW_ONLY
    coeff: float
    batch: int
    tokens: int
    forwards: int
    clock: Clock

    def check(self) -> None:
        """Raises SteerlensError if the vector does not fit the rows, or the rows do not fit the model."""
        if self.tokens > self.model.cfg.n_ctx:
            raise SteerlensError(
                f"tokens={self.tokens} exceeds the model's context of {self.model.cfg.n_ctx}; give fewer tokens"
            )
        span = actadd(self.model, self.pair, layer=self.layer).n_positions
        if span > self.tokens:
            raise SteerlensError(
                f"the vector spans {span} positions, but each row has {self.tokens} tokens; give more tokens"
            )

    def random_tokens(self, seed: int) -> Int[Tensor, "batch pos"]:
        """Rows of token ids, drawn uniformly from the vocabulary by the seed."""
        generator = torch.Generator().manual_seed(seed)
        vocabulary = len(self.model.tokenizer) if self.model.tokenizer is not None else int(self.model.cfg.d_vocab)
        shape = (self.batch, self.tokens)
        ids = torch.randint(min(vocabulary, int(self.model.cfg.d_vocab)), shape, generator=generator)
        return ids.to(self.model.cfg.device)

    @torch.no_grad()
    def warm_up(self, passes: int) -> None:
        """Run passes of each kind without measuring them."""
        ids = self.random_tokens(0)
        vector = self.coeff * actadd(self.model, self.pair, layer=self.layer)
        for _ in range(passes):
            self.model(ids)
            with steer(self.model, vector):
                self.model(ids)
        self._wait()

    @torch.no_grad()
    def measure(self, seed: int) -> dict[str, float]:
        """The times of one seed in seconds, as plain data for a ledger; the columns of `Overhead.times`."""
        ids = self.random_tokens(seed)
        made = []

        def extract() -> None:
            made.append(self.coeff * actadd(self.model, self.pair, layer=self.layer))

        extraction = timed(extract, self.clock, self._wait)

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


def alternate(
    base: Pass, steered: Pass, *, repeats: int, coin: random.Random, clock: Clock, wait: Callable[[], None]
) -> tuple[list[float], list[float]]:
    """Seconds of every pass of the two kinds, `repeats` of each, in pairs whose order a coin decides.

    `wait` returns when the device has finished its work; it is called before every reading of the clock.
    """
    seconds: dict[str, list[float]] = {"base": [], "steered": []}
    passes = {"base": base, "steered": steered}
    for _ in range(repeats):
        order = ["base", "steered"]
        if coin.random() < 0.5:
            order.reverse()
        for kind in order:
            seconds[kind].append(timed(passes[kind], clock, wait))
    return seconds["base"], seconds["steered"]


def timed(work: Pass, clock: Clock, wait: Callable[[], None]) -> float:
    """Seconds that one pass takes, with the device idle before and after."""
    wait()
    start = clock()
    work()
    wait()
    return clock() - start


def machine_of(model: HookedModel) -> str:
    """The machine, as text: times measured on one must not be taken for those of another."""
    device = torch.device(model.cfg.device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.node()} {platform.machine()} {torch.get_num_threads()} threads"
