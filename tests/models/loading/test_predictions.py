"""A model that was read predicts what the Hugging Face model does, leaves that alone, and has the tokenizer given."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import is_bridge, load_model
from tests import reference
from tests.conftest import KINDS, VOCAB, Case, loaded, make_tokenizer, plain_model
from tests.models.loading.cases import IDS, load


def test_same_predictions_as_the_hugging_face_model(case: Case) -> None:
    got = case.model(torch.tensor([IDS])).log_softmax(-1)[0]
    assert_close(got, reference.log_probs(case.hf, IDS), rtol=1e-5, atol=1e-4)
    assert is_bridge(case.model) == case.kind.startswith("bridge")
    assert not case.model.training


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_the_callers_model_and_random_state_stay_as_they_are(architecture: str, kind: str) -> None:
    hf = reference.tiny_model(architecture, vocab=VOCAB, seed=5).train()
    tokenizer = make_tokenizer("prepends")
    before = {name: value.clone() for name, value in hf.state_dict().items()}
    modules = {name: type(module) for name, module in hf.named_modules()}
    special = (
        tokenizer.bos_token,
        tokenizer.eos_token,
        tokenizer.pad_token,
        dict(tokenizer.init_kwargs),
        len(tokenizer),
    )
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    model = load(hf, kind, "prepends")
    model(torch.tensor([IDS]))
    assert hf.training
    assert {name: type(module) for name, module in hf.named_modules()} == modules
    assert hf.state_dict().keys() == before.keys()
    for name, value in hf.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert special == (
        tokenizer.bos_token,
        tokenizer.eos_token,
        tokenizer.pad_token,
        dict(tokenizer.init_kwargs),
        len(tokenizer),
    )
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokenizer", ["plain", "distinct", "pad", "prepends"])
def test_tokenizers_made_in_memory(kind: str, tokenizer: str) -> None:
    """No name to reload them from, no hub to ask: the special tokens are the caller's."""
    model, given = loaded("gpt2", kind, tokenizer), make_tokenizer(tokenizer)
    assert (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id) == (given.bos_token_id, given.eos_token_id)
    assert len(model.tokenizer) == len(given)
    plain = given("Hello there", add_special_tokens=False)["input_ids"]
    assert model.to_tokens("Hello there").tolist() == [[given.bos_token_id, *plain]]
    assert model.tokenizer.pad_token_id is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_changed_after_reading_keeps_its_changes(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    make_tokenizer("distinct").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<mark>"]})
    model = load_model(plain_model("gpt2"), tokenizer=tokenizer, device="cpu", bridge=kind.startswith("bridge"))
    assert model.to_tokens("<mark>", prepend_bos=False).tolist() == [[tokenizer.convert_tokens_to_ids("<mark>")]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_real_gpt2_tokenizer(kind: str, gpt2_tokenizer: Any) -> None:
    hf = reference.tiny_model("gpt2", vocab=len(gpt2_tokenizer), n_layers=1)
    model = load_model(
        hf,
        tokenizer=gpt2_tokenizer,
        device="cpu",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
    )
    assert sl.actadd(model, " weddings", " ", layer=0).source["tokens"] == [[50256, 37377], [50256, 220]]
