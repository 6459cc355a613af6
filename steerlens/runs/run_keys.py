"""Keys of runs: what a condition's completions depend on, in 32 digits, and nothing else.

Equal keys mean equal completions, whenever, wherever and together with whatever else they are computed. So a key is all
that is needed to find them again, in a store or in a ledger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from steerlens.engine import Sampling
from steerlens.steering import Condition

# Part of every key. Raise it when the same job would give different completions than before.
_REVISION = 3


@dataclass(frozen=True)
class Planned:
    """A condition of a sweep as its table shows it, and the key of its completions."""

    label: str
    role: str
    layer: int | None
    coeff: float
    placement: str
    key: str

    @staticmethod
    def of(condition: Condition, role: str, *, job: str) -> Planned:
        """The condition in a job (see `job_key`)."""
        key = run_key(condition, job=job)
        return Planned(condition.label, role, condition.layer, condition.coeff, condition.placement, key)


def run_key(condition: Condition, *, job: str) -> str:
    """32 hexadecimal digits for a condition's completions in a job (see `job_key`): its vectors, layers, placements."""
    digest = hashlib.blake2b(job.encode(), digest_size=16, person=b"steerlens run")
    if condition.prompting is not None:
        words = condition.prompting
        digest.update(json.dumps(["words", words.words, words.system]).encode())
    for injection in condition.injections:
        values = injection.vector.values.detach().cpu().contiguous()
        vector = injection.vector
        place: list[Any] = [vector.layer, injection.placement, list(values.shape)]
        if vector.site != "resid_pre" or injection.operation != "add":
            place += [vector.site, vector.heads, injection.operation, injection.value]
        if (gate := injection.gate) is not None:
            place += [gate.layer, gate.direction.site, gate.above, gate.below, gate.token]
        if injection.ramp is not None:
            place += ["ramp", injection.ramp.points, injection.ramp.over]
        digest.update(json.dumps(place).encode())
        digest.update(values.numpy().astype("<f4").tobytes())
        if injection.mean is not None:
            digest.update(injection.mean.values.detach().cpu().numpy().astype("<f4").tobytes())
        if injection.reads is not None:
            digest.update(injection.reads.values.detach().cpu().numpy().astype("<f4").tobytes())
        if gate is not None:
            digest.update((gate.direction.values[0] / gate.direction.norm).cpu().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def job_key(
    weights: str,
    prompts: Sequence[str],
    ids: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    ends: Sequence[int] = (),
    surprise: bool = False,
) -> str:
    """What the completions of all conditions of a job depend on, as text.

    `weights` is the model's `fingerprint`, `ends` are the tokens that end its texts.
    The batch size, the device and the job's other conditions are left out: completions do not depend on them.
    """
    settings = dict(sorted(asdict(sampling).items())) | {"ends": list(ends)}
    if surprise:  # measured together with the completions, and kept with them
        settings["surprise"] = True
    if lowered := _autocast():  # under torch.autocast the same weights compute other numbers
        settings["autocast"] = lowered
    return json.dumps([_REVISION, weights, list(prompts), [list(row) for row in ids], settings])


def _autocast() -> list[str]:
    """The kinds of devices on which `torch.autocast` is active here, each with its dtype."""
    kinds = ("cpu", "cuda", "mps")
    return [f"{kind} {torch.get_autocast_dtype(kind)}" for kind in kinds if torch.is_autocast_enabled(kind)]
