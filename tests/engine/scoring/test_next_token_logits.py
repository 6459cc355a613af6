"""`next_token_logits` against the plain loop: one prompt, one condition, hooks by hand; unusual models too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import steerlens as sl
from steerlens.engine.reductions import reduce_next_tokens
from steerlens.steering.conditions import as_condition
from steerlens.steering.prompts import prompt_ids
from tests import reference
from tests.conftest import KINDS, Case, loaded, make_tokenizer
from tests.engine.scoring.cases import PROMPTS, additions, assert_same, drawn, grids, plain_logits, vector


@given(data=st.data())
@drawn
def test_logits_equal_the_plain_loop(case: Case, data: st.DataObject) -> None:
    job = data.draw(grids(case.model))
    logits = sl.next_token_logits(case.model, job.prompts, job.steering, batch_size=job.batch_size)
    assert logits.shape == (len(job.steering), len(job.prompts), case.model.cfg.d_vocab)
    for c, one in enumerate(job.steering):
        condition = as_condition(one)
        for p, prompt in enumerate(job.prompts):
            ids = prompt_ids(case.model, prompt)
            assert_same(logits[c, p], plain_logits(case.model, ids, condition)[-1])
            # … and plain Hugging Face with PyTorch hooks. Folding shifts all logits alike, and rounds once more.
            expected = reference.log_probs(case.hf, ids, additions(condition, len(ids), len(ids)))[-1]
            torch.testing.assert_close(logits[c, p].log_softmax(-1), expected, rtol=1e-5, atol=1e-4)


def test_shapes_follow_the_question(any_model: Any) -> None:
    v, d = vector(any_model, 1), any_model.cfg.d_vocab
    ask = sl.next_token_logits
    assert ask(any_model, "The dog").shape == (d,)
    assert ask(any_model, "The dog", (v, v)).shape == (d,)
    assert ask(any_model, ["The dog"], v).shape == (1, d)
    assert ask(any_model, "The dog", [v]).shape == (1, d)
    assert ask(any_model, ["The dog", "I"], [v, None, v]).shape == (3, 2, d)


def test_no_effect_is_bit_identical(gpt2: Any) -> None:
    nothing = [None, vector(gpt2, 1, size=0.0), sl.Condition((), "empty"), (vector(gpt2, 0, 2, size=0.0),)]
    logits = sl.next_token_logits(gpt2, list(PROMPTS), [*nothing, vector(gpt2, 1)], batch_size=3)
    for same in logits[1:4]:
        assert torch.equal(same, logits[0])
    assert not torch.equal(logits[4], logits[0])


def test_order_of_vectors_in_a_condition_does_not_matter(gpt2: Any) -> None:
    a, b, c = vector(gpt2, 1, 2, 1), vector(gpt2, 1, 1, 2), vector(gpt2, 2, 1, 3)
    one, other = sl.next_token_logits(gpt2, "The dog ran", [(a, b, c), (c, b, a)])
    assert torch.equal(one, other)


@pytest.mark.parametrize("prepend", [True, False])
def test_one_token_prompts(case: Case, prepend: bool) -> None:
    """Without BOS a prompt may be one token, whose position 0 every placement then touches."""
    model, was = case.model, case.model.cfg.default_prepend_bos
    model.cfg.default_prepend_bos = prepend
    try:
        v = vector(model, 1, size=3.0)
        places = ["front", "mid", "back", "last", 0, -1, "all"]
        logits = sl.next_token_logits(model, ["I", "The dog"], [sl.Injection(v, place) for place in places])
        for p, prompt in enumerate(["I", "The dog"]):
            ids = prompt_ids(model, prompt)
            assert len(ids) == prepend + p + 1
            for place, row in zip(places, logits[:, p], strict=True):
                rows = reference.placed(v.values, place, len(ids), first=int(prepend))
                expected = reference.log_probs(case.hf, ids, {1: rows})[-1]
                torch.testing.assert_close(row.log_softmax(-1), expected, rtol=1e-5, atol=1e-4)
    finally:
        model.cfg.default_prepend_bos = was


def test_left_padding_tokenizers_change_nothing(gpt2: Any) -> None:
    conditions = [None, vector(gpt2, 1, 2), sl.Injection(vector(gpt2, 0), "last")]
    expected = sl.next_token_logits(gpt2, list(PROMPTS), conditions)
    side = gpt2.tokenizer.padding_side
    gpt2.tokenizer.padding_side = "left"
    try:
        assert torch.equal(sl.next_token_logits(gpt2, list(PROMPTS), conditions), expected)
    finally:
        gpt2.tokenizer.padding_side = side


def test_half_precision_keeps_its_dtype() -> None:
    model = loaded("gpt2", KINDS[0], dtype="bfloat16")
    v = vector(model, 1, 2)
    logits = sl.next_token_logits(model, list(PROMPTS[:3]), [None, v])
    assert logits.dtype == torch.bfloat16
    found = reduce_next_tokens(model, list(PROMPTS[:3]), [None, v], base=0, entropy=True)
    assert found.kl is not None
    assert found.kl.dtype == torch.float32
    exact = sl.next_token_logits(loaded("gpt2", KINDS[0]), list(PROMPTS[:3]), [None, v])
    assert (logits.log_softmax(-1) - exact.log_softmax(-1)).abs().mean() < 0.1


@pytest.mark.skipif("hooked" not in KINDS, reason="TransformerLens 4 has no HookedTransformer")
@pytest.mark.parametrize(
    "settings_",
    [
        {"positional_embedding_type": "alibi"},
        {"positional_embedding_type": "shortformer"},
        {"use_local_attn": True, "window_size": 3, "attn_types": ["global", "local", "local"]},
        {"attn_only": True},
        {"parallel_attn_mlp": True, "normalization_type": None},
        {"use_qk_norm": True, "normalization_type": "RMS", "n_key_value_heads": 2},
        {"use_split_qkv_input": True},
        {"use_attn_in": True, "use_attn_result": True},
        {"output_logits_soft_cap": 3.0, "use_normalization_before_and_after": True, "normalization_type": "RMS"},
        {"positional_embedding_type": "rotary", "rotary_dim": 4, "use_dynamic_ntk_rope": True, "train_seq_length": 4},
        {"positional_embedding_type": "rotary", "rotary_dim": 4, "use_logn_attn": True, "train_seq_length": 4},
        {"use_attention_sinks": True, "use_hook_tokens": True},
        {"clip_qkv": 0.1},
    ],
    ids=lambda one: "-".join(one),
)
def test_unusual_models_equal_the_plain_loop(settings_: dict[str, Any]) -> None:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    sizes = {"n_layers": 3, "d_model": 16, "n_ctx": 32, "d_head": 4, "n_heads": 4, "d_mlp": 32, "d_vocab": 8200}
    common: dict[str, Any] = {"act_fn": "gelu_new", "normalization_type": "LN", "seed": 0, "initializer_range": 0.3}
    cfg = HookedTransformerConfig(**sizes, **(common | settings_))
    model = HookedTransformer(cfg, loaded("gpt2", "hooked").tokenizer).eval()
    model.cfg.model_name = "unusual"
    conditions = [None, vector(model, 0, 2), (vector(model, 1), vector(model, 2, placement="last"))]
    logits = sl.next_token_logits(model, list(PROMPTS), conditions)
    for c, one in enumerate(conditions):
        for p, prompt in enumerate(PROMPTS):
            assert_same(logits[c, p], plain_logits(model, prompt_ids(model, prompt), as_condition(one))[-1])


def test_rotary_frequencies_that_follow_the_width_are_not_padded() -> None:
    """With dynamic scaling a row's numbers depend on the width of its batch; the plain loop has no other rows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    config = LlamaConfig(
        vocab_size=8200, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=8, rope_parameters=rope, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = LlamaForCausalLM(config).eval()
    model = sl.load_model(hf, tokenizer=make_tokenizer(), device="cpu", bridge=True, processing=False)
    model.cfg.n_ctx = 32
    conditions = [None, vector(model, 1, 2)]
    logits = sl.next_token_logits(model, list(PROMPTS), conditions)
    for c, one in enumerate(conditions):
        for p, prompt in enumerate(PROMPTS):
            assert_same(logits[c, p], plain_logits(model, prompt_ids(model, prompt), as_condition(one))[-1])
