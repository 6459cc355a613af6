"""SmolLM2 against plain PyTorch hooks on the plain Hugging Face model: logits, vectors, placements, greedy text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from tests import reference
from tests.conftest import KINDS

PROMPT = "I went up to my friend and said"


def rows(model: Any, text: str) -> list[int]:
    return [int(i) for i in model.to_tokens(text)[0]]


def test_it_is_the_model_it_says(plain: Any, real: Any) -> None:
    model = real()
    ids = rows(model, "The capital of France is")
    assert ids[0] == model.tokenizer.bos_token_id == 1
    assert model.tokenizer.decode(int(reference.log_probs(plain(), ids)[-1].argmax())) == " Paris"
    assert model.cfg.model_name == "SmolLM2-135M-Instruct"
    assert plain().generation_config.eos_token_id == 2


@pytest.mark.parametrize("kind", KINDS)
def test_logits(kind: str, plain: Any, real: Any) -> None:
    model = real(kind)
    ids = rows(model, "In 1969 astronauts landed on the Moon, and the whole world watched.\n\n1. The first step was")
    got = model(torch.tensor([ids])).log_softmax(-1)[0]
    assert_close(got, reference.log_probs(plain(), ids), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("raw")])
def test_logits_in_bfloat16(kind: str, plain: Any, real: Any) -> None:
    """No further from float32 than Hugging Face's own bfloat16 is."""
    ids = rows(real(), "In 1969 astronauts landed on the Moon, and the whole world watched.")
    exact = reference.log_probs(plain(), ids)
    theirs = (reference.log_probs(plain("bfloat16"), ids).float() - exact).abs().mean()
    ours = (real(kind, "bfloat16")(torch.tensor([ids])).float().log_softmax(-1)[0] - exact).abs().mean()
    assert ours < 1.5 * theirs


def test_a_vector_is_the_difference_of_the_streams(plain: Any, real: Any) -> None:
    model = real()
    vectors = sl.actadd(model, "Love", "Hate", layers=[6, 12])
    padded = vectors[6].source["tokens"]
    assert padded[1] == rows(model, "Hate") and padded[0] == [*rows(model, "Love"), *rows(model, " ")[1:]]
    streams = [reference.block_inputs(plain(), ids) for ids in padded]
    for layer, vector in vectors.items():
        assert not vector.values[0].any()
        assert_close(vector.values[1:], (streams[0][layer] - streams[1][layer])[1:], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("placement", ["front", "mid", "back", "last", "all", 3])
def test_steered_logits_at_every_placement(placement: Any, plain: Any, real: Any) -> None:
    model = real()
    ids = rows(model, PROMPT)
    vector = sl.actadd(model, " weddings are", " funerals are", layer=8).at(-1)
    added = reference.placed(vector.values, placement, len(ids))
    with sl.steer(model, vector, placement=placement):
        got = model(torch.tensor([ids])).log_softmax(-1)[0]
    expected = reference.log_probs(plain(), ids, {8: added})
    assert_close(got, expected, rtol=1e-5, atol=2e-3)
    assert (expected - reference.log_probs(plain(), ids)).abs().max() > 0.05


def test_cached_greedy_text(plain: Any, real: Any) -> None:
    model = real()
    ids = rows(model, PROMPT)
    vector = 4 * sl.actadd(model, " weddings are", " funerals are", layer=8).at(-1)
    frame = sl.generate(
        model, PROMPT, [None, vector], n=1, max_new_tokens=12, temperature=0, frequency_penalty=0, placement="all"
    )

    def additions(length: int) -> dict[int, torch.Tensor]:
        return {8: reference.placed(vector.values, "all", len(ids), total=length)}

    for text, expected in zip(
        frame["completion"],
        (reference.greedy(plain(), ids, 12), reference.greedy(plain(), ids, 12, additions)),
        strict=True,
    ):
        assert text == model.tokenizer.decode(expected)
