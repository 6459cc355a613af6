"""Vectors of CAA and of the package steering-vectors, against what these do with the plain model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import stamp
from tests import reference
from tests.conftest import KINDS, loaded, plain_model
from tests.steering.exchange.test_torch_files import Malicious
from tests.steering.sites.cases import D, ids_of

IDS = ids_of(7)[1:]  # without BOS, which these tools have no exception for


def values_of(seed: int = 0) -> torch.Tensor:
    return torch.randn(D, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def ours(model: Any, ids: list[int], *steering: Any) -> torch.Tensor:
    with sl.steer(model, *steering):
        return model(torch.tensor([ids])).log_softmax(-1)[0]


@pytest.mark.exchange
@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
@pytest.mark.parametrize("kind", ["decoder_block", "self_attn", "mlp"])
def test_steering_vectors_itself_steers_the_same(architecture: str, kind: Any, tmp_path: Path) -> None:
    package = pytest.importorskip("steering_vectors")
    if architecture == "opt" and kind == "mlp":
        return  # it finds no MLP in OPT
    model, hf = loaded(architecture, KINDS[0]), plain_model(architecture)
    theirs = package.SteeringVector({0: values_of(), 2: values_of(1)}, layer_type=kind)
    torch.save(dataclasses.asdict(theirs), tmp_path / "fields.pt")
    torch.save(theirs, tmp_path / "object.pt")
    with torch.no_grad(), theirs.apply(hf, multiplier=2.0):
        expected = hf(torch.tensor([IDS]), use_cache=False).logits[0].log_softmax(-1)
    for given in (theirs, tmp_path / "fields.pt"):
        read = sl.load_steering_vectors(model, given)
        assert list(read) == [0, 2]
        assert_close(ours(model, IDS, *(2 * one for one in read.values())), expected, rtol=0, atol=1e-4)
    with pytest.raises(sl.SteerlensError, match="nothing of it was executed"):
        sl.load_steering_vectors(model, tmp_path / "object.pt")


def test_steering_vectors_mapping(any_model: Any, tmp_path: Path) -> None:
    torch.save({1: values_of(), 0: values_of(1)[None]}, tmp_path / "activations.pt")
    read = sl.load_steering_vectors(any_model, tmp_path / "activations.pt")
    assert [(one.layer, one.site, one.placement) for one in read.values()] == [
        (0, "resid_post", "all"),
        (1, "resid_post", "all"),
    ]
    assert torch.equal(read[0].values[0], values_of(1))
    assert read[1].source == {"method": "foreign", "format": "steering-vectors", "file": "activations.pt"}
    assert read[1].model == stamp(any_model)
    for bad, words in (
        ({1: values_of(), 2: torch.ones(3)}, r"is a tensor \[32\]"),
        ({"layer_activations": {1: values_of()}, "layer_type": "input_layernorm"}, "has no site here"),
        ({7: values_of()}, "out of range"),
        ({"a": values_of()}, "must be a whole number"),
        ({}, "a mapping from layers to tensors"),
        (values_of(), "a mapping from layers to tensors"),
    ):
        torch.save(bad, tmp_path / "bad.pt")
        with pytest.raises(sl.SteerlensError, match=words):
            sl.load_steering_vectors(any_model, tmp_path / "bad.pt")


@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_caa_adds_behind_the_block(architecture: str, tmp_path: Path) -> None:
    """CAA's files are plain tensors named by layer; what it does with them is written out here with plain hooks."""
    model, hf = loaded(architecture, KINDS[0]), plain_model(architecture)
    torch.save(values_of().half(), tmp_path / "vec_layer_1_Llama-2-7b-chat-hf.pt")
    read = sl.load_caa(model, tmp_path / "vec_layer_1_Llama-2-7b-chat-hf.pt")
    assert (read.layer, read.site, read.placement) == (1, "resid_post", "from_last")
    assert (read.source["method"], read.source["format"]) == ("foreign", "CAA")

    def behind(x: torch.Tensor) -> torch.Tensor:
        made = x.clone()
        made[-1] += values_of().half().float()
        return made

    expected = reference.changed_log_probs(hf, IDS, [(1, "resid_post", behind)])
    assert_close(ours(model, IDS, read), expected, rtol=0, atol=1e-4)
    assert sl.load_caa(model, tmp_path / "vec_layer_1_Llama-2-7b-chat-hf.pt", layer=2, placement="all").layer == 2


def test_what_is_no_vector_of_caa(any_model: Any, tmp_path: Path) -> None:
    for content, name, words in (
        ({"a": torch.ones(D)}, "vec_layer_1.pt", "no vector of CAA"),
        (torch.ones(D + 1), "vec_layer_1.pt", r"a vector of CAA is a tensor \[32\]"),
        (torch.ones(2, D), "vec_layer_1.pt", "is a tensor"),
        (torch.ones(D), "vec_layer_9.pt", "layer 9 is out of range"),
        (torch.ones(D), "vector.pt", "does not say its layer.*give layer="),
        (torch.full((D,), float("nan")), "vec_layer_1.pt", "NaN"),
        (torch.ones(D, dtype=torch.long), "vec_layer_1.pt", "floating-point"),
        (Malicious(tmp_path / "trace"), "vec_layer_1.pt", "nothing of it was executed"),
    ):
        torch.save(content, tmp_path / name)
        with pytest.raises(sl.SteerlensError, match=words):
            sl.load_caa(any_model, tmp_path / name)
    assert not (tmp_path / "trace").exists()
