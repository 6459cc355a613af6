"""Vectors and injections at every site, and what plain PyTorch hooks on the plain Hugging Face model make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import SITES, Site, stamp
from tests import reference
from tests.conftest import VOCAB, Case

D, HEADS, LAYERS = reference.D_MODEL, 4, reference.N_LAYERS


def ids_of(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [0, *torch.randint(1, VOCAB - 10, (length - 1,), generator=generator).tolist()]


def vector_on(model: Any, site: Site, layer: int = 1, span: int = 1, seed: int = 0, size: float = 1.5) -> Any:
    """A vector without a mean over its width, so that it is the same in a centred model."""
    values = torch.randn(span, D, generator=torch.Generator().manual_seed(seed)) * size
    values = values - values.mean(-1, keepdim=True)
    if site == "z":
        values = values.unflatten(-1, (HEADS, -1))
    return sl.SteeringVector(values, layer, stamp(model), site=site)


def injection_of(vector: Any, operation: Any, placement: Any = "all") -> sl.Injection:
    return sl.Injection(vector, placement, operation, **beside(vector, operation))


def beside(vector: Any, operation: str) -> dict[str, Any]:
    """What an operation needs beside its vector."""
    if operation == "affine":
        return {"mean": vector_like(vector, seed=9)}
    if operation == "reft":
        # Not so strong that an edit of an edited activation drowns the rest; without a mean over the width, which a
        # centred model would not see.
        reads = 0.2 * vector_like(vector, seed=8)
        values = reads.values - reads.values.mean(-1, keepdim=True)
        return {"reads": replace(reads, values=values), "value": 0.5}
    return {"value": 2.5} if operation == "clamp" and vector.layer % 2 else {}


def vector_like(vector: Any, seed: int) -> Any:
    values = torch.randn(1, vector.values.shape[1], generator=torch.Generator().manual_seed(seed))
    shaped = values.unflatten(-1, (vector.heads, -1)) if vector.site == "z" else values
    return sl.SteeringVector(shaped, vector.layer, vector.model, site=vector.site)


def change_of(injection: sl.Injection, length: int, total: int | None = None) -> tuple[int, str, Any]:
    """What an injection does to a sequence that begins with a prompt of `length` tokens, for the reference."""
    vector = injection.vector
    rows = reference.placed(vector.values, injection.placement, length, total=total)
    touched = reference.placed(torch.ones(vector.n_positions, 1), injection.placement, length, total=total)[:, 0]

    def change(x: Tensor) -> Tensor:
        made = x.clone()
        for at in touched.nonzero().flatten().tolist():
            made[at] = reference.operated(
                x[at : at + 1],
                rows[at],
                injection.operation,
                heads=vector.heads,
                value=injection.value,
                mean=None if injection.mean is None else injection.mean.values[0],
                reads=None if injection.reads is None else injection.reads.values[0],
            )[0]
        return made

    return vector.layer, vector.site, change


def expected(hf: Any, ids: list[int], *injections: sl.Injection, prompt: int | None = None) -> Tensor:
    length = prompt or len(ids)
    return reference.changed_log_probs(hf, ids, [change_of(one, length, len(ids)) for one in injections])


def log_probs(model: Any, rows: list[list[int]], mask: list[list[int]] | None = None) -> Tensor:
    kwargs = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    with torch.no_grad():
        return model(torch.tensor(rows), **kwargs).log_softmax(-1)


def close(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, rtol=0, atol=2e-5 * max(1.0, float(expected.abs().max())))


def sites_of(case: Case) -> list[Site]:
    return [site for site in SITES if not (site == "resid_mid" and case.architecture == "gptj")]  # type: ignore[misc]


def comparable(case: Case, site: str, operation: str) -> bool:
    """Whether the processed model's activation is the plain one's there, up to what the operation does not see."""
    if operation == "add" or case.kind.endswith("raw"):
        return True
    if site == "z":  # where biases are, a processed model moves those of the values behind the heads
        return case.architecture == "llama"
    return not (operation == "add_keep_norm" and case.centred)


PROMPTS = ["The dog ran", "Once upon a time there was a"]


def steered(model: Any, ids: list[int], *vectors: Any) -> Tensor:
    with sl.steer(model, *vectors):
        return log_probs(model, [ids])[0]
