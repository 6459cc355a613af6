"""Strides: the same weights bit for bit, the same logits bit for bit, no copy left in the forward pass."""

from __future__ import annotations

import pytest
import torch

import steerlens as sl
from tests import reference
from tests.conftest import HAS_HOOKED_TRANSFORMER, make_tokenizer, plain_model

pytestmark = pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="this TransformerLens has no HookedTransformer")


@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_values_and_logits_are_bitwise_the_same(architecture: str) -> None:
    plain, fast = (
        sl.load_model(
            plain_model(architecture), tokenizer=make_tokenizer(), device="cpu", bridge=False, strides=strides
        )
        for strides in (False, True)
    )
    changed = 0
    for (name, before), (_, after) in zip(plain.named_parameters(), fast.named_parameters(), strict=True):
        assert torch.equal(before, after), name
        changed += before.stride() != after.stride()
    assert changed >= 4 * reference.N_LAYERS
    tokens = plain.to_tokens("I went up to my friend and said")
    assert torch.equal(plain(tokens), fast(tokens))
    for block in fast.blocks:
        weight = block.attn.W_Q
        assert weight.permute(0, 2, 1).is_contiguous()  # what attn_linear copies unless it is
    assert fast.unembed.W_U.T.is_contiguous()
