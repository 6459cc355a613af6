"""Decoder rows of sparse autoencoders, however the user holds them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import steerlens as sl
from tests import reference
from tests.steering.sites.cases import HEADS

D = reference.D_MODEL
W = torch.randn(50, D, generator=torch.Generator().manual_seed(0))


def test_however_it_is_held(any_model: Any, tmp_path: Any) -> None:
    """SAELens' object and files, a plain Linear, a dictionary: the same row, at the place that the SAE names."""
    save_file({"W_dec": W, "W_enc": W.T.contiguous()}, tmp_path / "named", {"hook_name": "blocks.2.hook_resid_post"})
    save_file({"W_dec": W}, tmp_path / "plain")
    cfg = SimpleNamespace(hook_name="blocks.2.hook_resid_post")
    linear = nn.Linear(50, D)
    linear.weight.data = W.T.clone()
    for sae in (
        tmp_path / "named",
        SimpleNamespace(W_dec=nn.Parameter(W.clone()), cfg=cfg),
        SimpleNamespace(W_dec=W, cfg=SimpleNamespace(metadata=cfg)),
        {"W_dec": W, "cfg": {"hook_name": "blocks.2.hook_resid_post"}},
    ):
        found = sl.sae_direction(any_model, sae, 7)
        assert (found.layer, found.site, found.placement, found.label) == (2, "resid_post", "all", "SAE feature 7")
        assert torch.equal(found.values[0], W[7]) and found.source["hook"] == "blocks.2.hook_resid_post"
    for sae in (tmp_path / "plain", SimpleNamespace(decoder=linear), {"decoder.weight": W.T}, {"W_dec": W.half()}):
        found = sl.sae_direction(any_model, sae, 7, layer=1, label="cats")
        assert (found.layer, found.site, found.label) == (1, "resid_pre", "cats")
        assert torch.allclose(found.values[0], W[7], atol=2e-3)
    at_heads = sl.sae_direction(any_model, {"W_dec": W}, 0, layer=1, site="z")
    assert at_heads.heads == HEADS
    sl.next_token_logits(any_model, "They", 5 * at_heads)


@pytest.mark.parametrize(
    ("sae", "given", "words"),
    [
        ({"W_dec": W}, {"feature": 50, "layer": 1}, "feature must be a whole number from 0 to 49"),
        ({"W_dec": W}, {}, "does not say which layer"),
        ({"W_dec": W, "cfg": {"hook_name": "blocks.9.hook_resid_pre"}}, {}, "layer 9 is out of range"),
        ({"W_dec": W, "cfg": {"hook_name": "blocks.1.ln1.hook_scale"}}, {}, "no site of steerlens; give site="),
        ({"W_dec": torch.ones(50, D + 1)}, {"layer": 1}, r"decoder is \[50, 33\], but activations"),
        ({"W_enc": W}, {"layer": 1}, "found W_enc"),
        ({"W_dec": W[0]}, {"layer": 1}, "no decoder"),
        ({"W_dec": torch.full((50, D), float("nan"))}, {"layer": 1}, "NaN"),
        (4, {"layer": 1}, "no decoder in 4"),
        ("nothing.safetensors", {"layer": 1}, "no file at"),
    ],
)
def test_what_is_no_autoencoder_of_the_model(any_model: Any, sae: Any, given: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        sl.sae_direction(any_model, sae, **{"feature": 1, **given})


def test_other_files(any_model: Any, tmp_path: Any) -> None:
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04K\x01.")
    save_file({"weight": W}, tmp_path / "other")
    for name, words in (("pickle.pt", "is no safetensors file"), ("other", "found weight")):
        with pytest.raises(sl.SteerlensError, match=words):
            sl.sae_direction(any_model, tmp_path / name, 1, layer=1)
