"""Probes of single attention heads, and the vectors of the best of them (ITI, Li et al., arXiv 2306.03341)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.steering.extraction.linear_probes import ProbeKind, accuracy, auc, probe_direction

Classes = tuple[Tensor, Tensor]
"""Activations of positive and of negative texts, [text heads·d_head]."""


@dataclass(frozen=True, eq=False)
class HeadProbe:
    """The probe of one head.

    Attributes:
        direction: its unit normal, towards the positives; zero if there is none.
        std: the standard deviation, along it, of what was learned from.
        accuracy, auc: on held-out texts.
    """

    direction: Float[Tensor, " d_head"]
    std: float
    accuracy: float
    auc: float

    def record(self) -> dict[str, float]:
        """What a vector's source says of it."""
        return {"accuracy": self.accuracy, "auc": self.auc, "std": self.std}


def probe_heads(
    learned: Mapping[int, Classes], tested: Mapping[int, Classes], heads: int, *, kind: ProbeKind
) -> dict[int, list[HeadProbe]]:
    """By layer, a probe for each head."""
    found: dict[int, list[HeadProbe]] = {}
    for layer in learned:
        own = zip(*(one.unflatten(-1, (heads, -1)).unbind(1) for one in (*learned[layer], *tested[layer])), strict=True)
        found[layer] = [_probe((a, b), (c, d), kind) for a, b, c, d in own]
    return found


def _probe(learned: Classes, tested: Classes, kind: ProbeKind) -> HeadProbe:
    normal = probe_direction(*learned, kind=kind)
    if not bool(normal.any()):
        return HeadProbe(normal, 0.0, 0.5, 0.5)
    unit = normal / normal.norm()
    std = float((torch.cat(learned) @ unit).std(correction=0))
    return HeadProbe(unit, std, accuracy(unit, learned, tested), auc(unit, *tested))


def head_vectors(probes: Mapping[int, list[HeadProbe]], k: int) -> dict[int, Float[Tensor, " width"]]:
    """The direction times its standard deviation for the k best heads, zero for the others; others are left out.

    Best by held-out accuracy, of equals by AUC, then by layer and head.
    """
    ranked = sorted(
        ((-one.accuracy, -one.auc, layer, head) for layer, mine in probes.items() for head, one in enumerate(mine)),
    )
    chosen = {(layer, head) for _, _, layer, head in ranked[:k]}
    found = {}
    for layer, mine in probes.items():
        parts = [one.direction * (one.std if (layer, head) in chosen else 0.0) for head, one in enumerate(mine)]
        if any((layer, head) in chosen for head in range(len(mine))):
            found[layer] = torch.cat(parts)
    return found
