"""Raw tensors as vectors: `SteeringVector.of`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.models import SITES
from tests import reference
from tests.steering.sites.cases import HEADS, steered

WIDTH = reference.D_MODEL


def test_it_steers_like_the_vector_it_was(any_model: Any) -> None:
    love = sl.actadd(any_model, "I love it", "I hate it", layer=1)
    back = sl.SteeringVector.of(any_model, love.values.double(), layer=1, label="from a file")
    assert (back.placement, back.label, back.source["method"]) == ("front", "from a file", "foreign")
    ids = any_model.to_tokens("So they went home")[0].tolist()
    assert torch.equal(steered(any_model, ids, back), steered(any_model, ids, love))
    assert sl.SteeringVector.of(any_model, love.values[1].bfloat16(), layer=2).placement == "all"


@pytest.mark.parametrize("site", SITES)
def test_it_goes_to_any_site(gpt2: Any, site: Any) -> None:
    """At z one position may come flat or by heads."""
    values = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    flat = sl.SteeringVector.of(gpt2, values, layer=1, site=site)
    assert (flat.site, flat.n_positions, flat.placement) == (site, 1, "all")
    assert torch.equal(flat.values[0], values)
    if site == "z":
        for shape in ((1, HEADS, -1), (2, HEADS, -1)):
            by_head = sl.SteeringVector.of(gpt2, values.expand(shape[0], -1).reshape(shape), layer=1, site=site)
            assert (by_head.n_positions, by_head.heads) == (shape[0], HEADS)
        alone = sl.SteeringVector.of(gpt2, values.reshape(HEADS, -1)[None], layer=1, site=site)
        assert torch.equal(alone.values, flat.values)


@pytest.mark.parametrize(
    ("tensor", "given", "words"),
    [
        ([1.0], {}, "expected a torch.Tensor, got"),
        (torch.ones(WIDTH, dtype=torch.long), {}, "floating-point"),
        (torch.ones(WIDTH + 1), {}, "wide"),
        (torch.ones(WIDTH + 1), {"site": "z"}, "do not fall|heads"),
        (torch.ones(2 * WIDTH), {"site": "z"}, "heads"),
        (torch.full((WIDTH,), float("nan")), {}, "NaN"),
        (torch.ones(WIDTH), {"layer": 9}, "out of range"),
        (torch.ones(WIDTH), {"site": "nowhere"}, "site 'nowhere' is unknown"),
        (torch.ones(()), {}, "values must be"),
        (torch.ones(()), {"site": "z"}, "values must be"),
    ],
)
def test_tensors_that_are_no_vector(any_model: Any, tensor: Any, given: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        sl.SteeringVector.of(any_model, tensor, **{"layer": 1, **given})
