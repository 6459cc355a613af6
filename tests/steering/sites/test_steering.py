"""`steer` at every site with every operation, as plain PyTorch hooks have it; and what must follow from that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import SITES, stamp
from steerlens.steering.operations import OPERATIONS
from tests.conftest import KINDS, Case, loaded
from tests.steering.sites.cases import (
    HEADS,
    PROMPTS,
    D,
    beside,
    close,
    comparable,
    expected,
    ids_of,
    injection_of,
    log_probs,
    sites_of,
    steered,
    vector_on,
)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_steer_equals_plain_hooks(case: Case, operation: Any) -> None:
    """At every site; rows padded on both sides, one row alone, and vectors of several positions."""
    rows = [ids_of(6), ids_of(4, 1), ids_of(7, 2)]
    width = 8
    padded = [[7, *row, *[7] * (width - 1 - len(row))] for row in rows]
    mask = [[0, *[1] * len(row), *[0] * (width - 1 - len(row))] for row in rows]
    for site in sites_of(case):
        if not comparable(case, site, operation):
            continue
        for placement, span in (("all", 1), ("last", 1), ("front", 3), ("back", 2)):
            one = injection_of(vector_on(case.model, site, span=span), operation, placement)
            with sl.steer(case.model, one) as receipts:
                close(log_probs(case.model, [rows[0]])[0], expected(case.hf, rows[0], one))
                batch = log_probs(case.model, padded, mask)
            assert receipts[0].applications == 4
            assert receipts[0].hook == f"blocks.1.{SITES[site]}"
            assert receipts[0].operation == operation
            for number, row in enumerate(rows):
                close(batch[number, 1 : 1 + len(row)], expected(case.hf, row, one))


def test_the_end_of_a_block_is_the_beginning_of_the_next(model: Any) -> None:
    ids = ids_of(6)
    for operation in OPERATIONS:
        there, here = (
            sl.SteeringVector(vector_on(model, "resid_pre").values, layer, stamp(model), site=site)  # type: ignore[arg-type]
            for layer, site in ((1, "resid_post"), (2, "resid_pre"))
        )
        given = [beside(v, operation) | ({"value": 1.5} if operation == "clamp" else {}) for v in (there, here)]
        one, other = (sl.Injection(v, "all", operation, **g) for v, g in zip((there, here), given, strict=True))
        close(steered(model, ids, one), steered(model, ids, other))


def test_two_heads_are_one_vector_through_the_output_map(case: Case) -> None:
    z = vector_on(case.model, "z", size=3.0).of_heads([0, 2])
    attention = case.model.blocks[1].attn
    through = torch.einsum("phd,hdm->pm", z.values.unflatten(1, (HEADS, -1)), attention.W_O.float())
    out = sl.SteeringVector(through, 1, stamp(case.model), site="attn_out")
    ids = ids_of(6)
    close(steered(case.model, ids, z.on("all")), steered(case.model, ids, out.on("all")))
    assert (steered(case.model, ids, z.on("all")) - log_probs(case.model, [ids])[0]).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", ["resid_pre", "resid_post", "attn_out", "mlp_out"])
def test_ablated_activations_are_orthogonal_and_ablating_is_idempotent(kind: str, site: Any) -> None:
    model, ids = loaded("gpt2", kind), ids_of(6)
    vector, name = vector_on(model, site), f"blocks.1.{SITES[site]}"
    unit = vector.values[0] / vector.norm
    one = sl.Injection(vector, 0, "ablate")
    rest = [sl.Injection(vector, at, "ablate") for at in range(1, 6)]
    with torch.no_grad(), sl.steer(model, one, *rest):
        _, once = model.run_with_cache(torch.tensor([ids]), names_filter=name, return_cache_object=False)
    with torch.no_grad(), sl.steer(model, one, *rest, one, *rest):
        _, twice = model.run_with_cache(torch.tensor([ids]), names_filter=name, return_cache_object=False)
    size = float(once[name].norm(dim=-1).max())
    assert (once[name] @ unit).abs().max() <= 1e-5 * max(1.0, size)
    assert_close(twice[name], once[name], rtol=0, atol=1e-5 * max(1.0, size))


def test_clamping_to_what_is_there_changes_nothing(case: Case) -> None:
    ids = ids_of(5)
    for site in sites_of(case):
        if site == "z":
            continue
        name = f"blocks.1.{SITES[site]}"
        _, cache = case.model.run_with_cache(torch.tensor([ids]), names_filter=name, return_cache_object=False)
        vector = vector_on(case.model, site)
        there = float(cache[name][0, -1] @ (vector.values[0] / vector.norm))
        close(steered(case.model, ids, sl.Injection(vector, "last", "clamp", there)), log_probs(case.model, [ids])[0])


@pytest.mark.parametrize("operation", ["add", "add_keep_norm", "reft"])
def test_zero_vectors_change_no_bit(model: Any, operation: Any) -> None:
    ids, base = ids_of(6), log_probs(model, [ids_of(6)])[0]
    for site in SITES:
        if site == "resid_mid" and f"blocks.0.{SITES[site]}" not in model.hook_dict:
            continue
        zero = 0 * injection_of(vector_on(model, site), operation)  # type: ignore[arg-type]
        assert torch.equal(steered(model, ids, zero), base)
        both = sl.next_token_logits(model, PROMPTS, [None, zero])
        assert torch.equal(both[0], both[1])


def test_a_site_that_the_architecture_does_not_have() -> None:
    for kind in KINDS:
        model = loaded("gptj", kind)
        vector = vector_on(model, "resid_mid")
        for use in (lambda v: steered(model, ids_of(4), v), lambda v: sl.generate(model, "The", v, max_new_tokens=2)):
            with pytest.raises(sl.SteerlensError, match="no site 'resid_mid' .*side by side.*; use one of resid_pre"):
                use(vector)


def test_heads(any_model: Any) -> None:
    vector = vector_on(any_model, "z")
    assert (vector.heads, vector.values.shape) == (HEADS, (1, D))
    kept = vector.of_heads([1, 3]).values.unflatten(1, (HEADS, -1))
    assert not kept[0, [0, 2]].any()
    assert torch.equal(kept[0, [1, 3]], vector.values.unflatten(1, (HEADS, -1))[0, [1, 3]])
    with pytest.raises(sl.SteerlensError, match="head 4 is out of range for 4 heads; use 0 to 3"):
        vector.of_heads([4])
    with pytest.raises(sl.SteerlensError, match="only a vector at site 'z' has heads"):
        vector_on(any_model, "attn_out").of_heads([0])
    with pytest.raises(sl.SteerlensError, match="do not fall into 5 heads"):
        sl.SteeringVector(torch.ones(1, D), 1, stamp(any_model), site="z", heads=5)
    with pytest.raises(sl.SteerlensError, match="only vectors at site 'z' have heads"):
        sl.SteeringVector(torch.ones(1, D), 1, stamp(any_model), heads=4)
    with pytest.raises(sl.SteerlensError, match="has 2 heads in 32 numbers, but the model 4 heads of 8"):
        steered(any_model, ids_of(4), sl.SteeringVector(torch.ones(1, 2, 16), 1, stamp(any_model), site="z"))
    with pytest.raises(sl.SteerlensError, match="site 'nowhere' is unknown; use one of resid_pre"):
        sl.SteeringVector(torch.ones(1, D), 1, stamp(any_model), site="nowhere")  # type: ignore[arg-type]
    with pytest.raises(sl.SteerlensError, match="sites 'z' and 'attn_out'"):
        vector + vector_on(any_model, "attn_out")
