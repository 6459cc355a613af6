"""`steer` during generation of all kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import steerlens as sl
from steerlens.models import decode_logits, prefill
from steerlens.steering import Part, injecting
from tests import reference
from tests.conftest import KINDS, VOCAB, loaded, plain_model
from tests.steering.injection.cases import close, expected, ids_of, log_probs, vector_on


@pytest.mark.parametrize("cache", [True, False])
def test_a_generated_bos_is_a_token_like_any_other(gpt2: Any, cache: bool) -> None:
    """The prompt is BOS alone and the model says BOS next (the two are one token with GPT-2)."""
    hf, vector = plain_model("gpt2"), vector_on(gpt2, 1, 1)
    ids, mask = torch.tensor([[0], [0]]), torch.ones(2, 1, dtype=torch.long)
    with torch.no_grad():
        if cache:
            with sl.steer(gpt2, vector, placement="all"):
                _, kept = prefill(gpt2, ids, mask)
                got = decode_logits(gpt2, ids, torch.ones(2, 2, dtype=torch.long), kept)
        else:
            with injecting(gpt2, [Part(sl.Injection(vector, "all"))], prompt_width=1):
                got = prefill(
                    gpt2, torch.zeros(2, 2, dtype=torch.long), torch.ones(2, 2, dtype=torch.long), use_cache=False
                )[0]
    wanted = reference.log_probs(hf, [0, 0], {1: reference.placed(vector.values, "all", 1, total=2)})[-1]
    close(got[0].log_softmax(-1), wanted)


def test_generated_tokens_alone_that_never_came(gpt2: Any) -> None:
    vector = vector_on(gpt2, 1, 1)
    with (
        pytest.raises(sl.SteerlensError, match="never added: no generated token passed"),
        sl.steer(gpt2, vector, placement="generated"),
    ):
        log_probs(gpt2, [ids_of(5)])


TEXTS = ["I hate you because of all the", "I went"]


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("placement", ["front", "back", *reference.RANGES])
@pytest.mark.parametrize("kind", KINDS)
def test_generation_of_a_batch_of_texts(kind: str, placement: Any, cache: bool) -> None:
    """TransformerLens pads on the left and makes its own masks."""
    model, hf = loaded("gpt2", kind, "pad"), plain_model("gpt2")
    vector = vector_on(model, 1, 1 if placement in reference.RANGES else 2, scale=8)
    rows = [model.to_tokens(text)[0].tolist() for text in TEXTS]
    with sl.steer(model, vector, placement=placement):
        out = model.generate(
            TEXTS,
            max_new_tokens=4,
            do_sample=False,
            use_past_kv_cache=cache,
            stop_at_eos=False,
            return_type="tokens",
            padding_side="left",
            verbose=False,
        )
    for number, row in enumerate(rows):

        def additions(total: int, row: list[int] = row) -> dict[int, Tensor]:
            return {1: reference.placed(vector.values, placement, len(row), total=total)}

        wanted = reference.greedy(hf, row, 4, additions)
        assert wanted != reference.greedy(hf, row, 4)
        assert out[number, -4:].tolist() == wanted


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("placement", ["front", "back", "all"])
def test_generate_stream(gpt2: Any, placement: Any, cache: bool) -> None:
    hf, ids, n = plain_model("gpt2"), ids_of(6, 3), 6
    vector = vector_on(gpt2, 1, 1 if placement == "all" else 2, scale=8)

    def additions(total: int) -> dict[int, Tensor]:
        return {1: reference.placed(vector.values, placement, len(ids), total=total)}

    tokens: list[int] = []
    with sl.steer(gpt2, vector, placement=placement):
        stream = gpt2.generate_stream(
            torch.tensor([ids]),
            max_new_tokens=n,
            max_tokens_per_yield=2,
            do_sample=False,
            use_past_kv_cache=cache,
            stop_at_eos=False,
            return_type="tokens",
            verbose=False,
        )
        for part in stream:
            tokens += part[0].tolist()
            # what happens between two parts is a pass like any other
            close(log_probs(gpt2, [ids_of(9)])[0], expected(hf, ids_of(9), vector, placement))
    assert tokens[-n:] == reference.greedy(hf, ids, n, additions)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("placement", ["front", "back", *reference.RANGES])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("bridge")])
def test_hf_generate(kind: str, placement: Any, cache: bool) -> None:
    model, hf, ids, n = loaded("gpt2", kind), plain_model("gpt2"), ids_of(6, 3), 5
    vector = vector_on(model, 1, 1 if placement in reference.RANGES else 2, scale=8)

    def additions(total: int) -> dict[int, Tensor]:
        return {1: reference.placed(vector.values, placement, len(ids), total=total)}

    with sl.steer(model, vector, placement=placement):
        out = model.hf_generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, 6, dtype=torch.long),
            max_new_tokens=n,
            do_sample=False,
            use_cache=cache,
            eos_token_id=VOCAB - 1,
            return_type="tokens",
        )
    assert out[0, -n:].tolist() == reference.greedy(hf, ids, n, additions)


def test_generation_stopped_half_way_leaves_nothing(gpt2: Any) -> None:
    vector, ids, calls = vector_on(gpt2, 1, 2), ids_of(6), []

    def interrupt(resid: Tensor, hook: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with sl.steer(gpt2, vector, placement="back"):
        gpt2.add_hook("blocks.2.hook_resid_pre", interrupt)
        with pytest.raises(KeyboardInterrupt):
            gpt2.generate(
                torch.tensor([ids]), max_new_tokens=9, use_past_kv_cache=False, verbose=False, stop_at_eos=False
            )
        gpt2.reset_hooks()
        close(log_probs(gpt2, [ids_of(9)])[0], expected(plain_model("gpt2"), ids_of(9), vector, "back"))
    assert "generate" not in gpt2.__dict__
