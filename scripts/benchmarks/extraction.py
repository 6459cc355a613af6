"""What directions cost beside the forward passes that they are read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import steerlens as sl
from steerlens.steering.extraction.readings import run_up_to
from steerlens.steering.tokens import pad_id, pad_left, token_ids

from .shapes import PROMPTS
from .timing import compared, interleaved

GOAL = "≥ 0.83"  # at most 1.2 times the passes
_BATCH = 32
_ALONE = "the same forward passes alone"
_THINGS = (
    *("day", "film", "book", "song", "meal", "walk", "city", "story", "house", "game"),
    *("play", "road", "friend", "letter", "garden", "morning", "idea", "voice", "dinner", "teacher"),
)


def pairs_of(n: int) -> sl.ContrastSet:
    """`n` pairs of short texts of different lengths."""
    every = [(f"{begin} a good {thing}", f"{begin} a bad {thing}") for thing in _THINGS for begin in PROMPTS]
    return sl.ContrastSet.of(every[:n], name="good or bad")


@torch.no_grad()
def extraction(model: Any, *, pairs: int = 200, rounds: int = 5) -> list[dict[str, Any]]:
    """Directions for all layers of a contrast set, against forward passes of its texts in the same batches."""
    contrast = pairs_of(pairs)
    rows = sorted((token_ids(model, text) for text in contrast.texts), key=len)
    batches = [
        pad_left(rows[start : start + _BATCH], pad=pad_id(model), device=model.cfg.device)
        for start in range(0, len(rows), _BATCH)
    ]

    def passes() -> None:
        for tokens, mask in batches:
            run_up_to(model, tokens, mask, int(model.cfg.n_layers) - 1)

    def mean_difference() -> None:
        sl.mean_difference(model, contrast, layers="all")

    def pca() -> None:
        sl.pca(model, contrast, layers="all")

    def directions() -> None:
        sl.directions(model, contrast, layers="all")

    ours: dict[str, Callable[[], float | None]] = {
        "mean_difference": mean_difference,
        "pca": pca,
        "directions (mean difference, PCA, probe, with held-out AUC)": directions,
    }
    seconds = interleaved({_ALONE: passes, **ours}, rounds=rounds)
    found = []
    for name in ours:
        line = compared(f"{name}, {pairs} pairs, all layers", seconds, ours=name, against=_ALONE, goal=GOAL)
        found.append({**line, "note": f"{1 / line['ratio']:.2f} times the passes"})
    return found
