"""The proof of a conversion: what is wrong is found, what is right passes, what cannot be steered is refused."""

from __future__ import annotations

import warnings
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import is_bridge, load_model, prefill, proof_of, run_settings
from steerlens.models.proof import compare
from steerlens.models.proof import reference as reference_of
from tests import reference
from tests.conftest import HAS_HOOKED_TRANSFORMER, KINDS, VOCAB, make_tokenizer, plain_model

SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
# Configuration class, and what is not SMALL about it. HookedTransformer 3.9 is wrong on these, or stops.
WRONG_IN_HOOKED = {
    "linear rope": ("Llama", {"rope_parameters": LINEAR}),
    "yarn": ("Qwen2", {"rope_parameters": YARN}),
    "biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "head_dim": ("Llama", {"head_dim": 16}),
}
RIGHT = {
    "llama3 rope": ("Llama", {"rope_parameters": LLAMA_3}),
    "mistral": ("Mistral", {"sliding_window": 8}),
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "phi3": ("Phi3", {"sliding_window": 8}),
}
RIGHT_AS_BRIDGE = {
    "gemma2": ("Gemma2", {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3Text", {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}),
    "olmo2": ("Olmo2", {}),
}
OTHERS = {
    "gpt-oss": ("GptOss", {"num_local_experts": 4, "head_dim": 16, "sliding_window": 8}),
    "cohere": ("Cohere", {}),
}
# For tests of other things.
MORE = {
    "gemma": ("Gemma", {"head_dim": 8}),
    "phi": ("Phi", {"num_key_value_heads": 4}),
    "neox": ("GPTNeoX", {}),
    "mpt": ("Mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}),
}
ALL = WRONG_IN_HOOKED | RIGHT | RIGHT_AS_BRIDGE | OTHERS | MORE


@cache
def small(case: str) -> Any:
    """A model with random weights, none of them zero or one."""
    import transformers as hf

    kind, options = ALL[case]
    config = getattr(hf, f"{kind}Config")(**SMALL | options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.data.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
            else:
                weight.data.normal_(0.0, 0.35)
    return model.eval().requires_grad_(False)


def load(hf: Any, **options: Any) -> tuple[Any, list[str]]:
    """The model, and what was said when it was loaded."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = load_model(hf, tokenizer=make_tokenizer(), device="cpu", **options)
    return model, [str(one.message) for one in said if one.category is UserWarning]


def assert_right(model: Any, hf: Any) -> None:
    """On tokens of the test's own, not those of the probe."""
    ids = torch.randint(10, 8000, (60,), generator=torch.Generator().manual_seed(7)).tolist()
    got = model(torch.tensor([ids]), attention_mask=torch.ones(1, 60, dtype=torch.long)).log_softmax(-1)[0]
    assert_close(got, reference.log_probs(hf, ids), rtol=1e-4, atol=1e-3)
    proof = proof_of(model)
    assert proof is not None
    assert proof.holds
    assert proof.tokens >= 40
    assert max(proof.log_probs, proof.cached) < 1e-3
    assert proof.layers == model.cfg.n_layers
    assert proof.model_class == type(model).__name__


@pytest.mark.parametrize("case", WRONG_IN_HOOKED)
def test_a_wrong_hooked_transformer_becomes_a_bridge(case: str) -> None:
    hf = small(case)
    model, said = load(hf)
    assert is_bridge(model)
    assert_right(model, hf)
    if not HAS_HOOKED_TRANSFORMER:
        assert said == []
        return
    (line,) = said
    assert "\n" not in line
    assert "loaded as a TransformerBridge with processed weights, because as a HookedTransformer" in line
    with pytest.raises(
        sl.SteerlensError, match=r"does not compute what this .* computes: .*; load it with bridge=True"
    ):
        load(hf, bridge=False)


@pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="TransformerLens 4 has no HookedTransformer")
@pytest.mark.parametrize("case", ["linear rope", "yarn", "biases"])
def test_without_proof_wrong_numbers_pass(case: str) -> None:
    """What the proof is for; it fails on the day that TransformerLens knows these kinds."""
    hf, ids = small(case), list(range(10, 50))
    model, said = load(hf, prove=False)
    assert not is_bridge(model)
    assert (said, proof_of(model)) == ([], None)
    assert run_settings(model)["model proof"] == "none"
    assert (model(torch.tensor([ids])).log_softmax(-1)[0] - reference.log_probs(hf, ids)).abs().max() > 0.01


@pytest.mark.parametrize("case", RIGHT)
def test_right_ones_raise_no_alarm(case: str) -> None:
    model, said = load(small(case))
    assert said == []
    assert is_bridge(model) != HAS_HOOKED_TRANSFORMER
    assert_right(model, small(case))


@pytest.mark.parametrize("case", [*RIGHT, *RIGHT_AS_BRIDGE])
@pytest.mark.parametrize("processing", [True, False])
def test_right_bridges_raise_no_alarm(case: str, processing: bool) -> None:
    model, said = load(small(case), bridge=True, processing=processing)
    assert said == []
    assert_right(model, small(case))
    assert proof_of(model).processed == processing  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_the_papers_architectures_raise_no_alarm(architecture: str, kind: str) -> None:
    bridge, processing = kind.startswith("bridge"), not kind.endswith("raw")
    model, said = load(plain_model(architecture), bridge=bridge, processing=processing)
    assert said == []
    assert_right(model, plain_model(architecture))


def test_wrong_processing_is_left_out() -> None:
    """GPT-OSS: experts are not folded with their layer norm."""
    hf = small("gpt-oss")
    model, said = load(hf, bridge=True)
    assert_right(model, hf)
    assert not proof_of(model).processed  # type: ignore[union-attr]
    (line,) = said
    assert "as a TransformerBridge with unprocessed weights, because as a TransformerBridge with processed" in line
    with pytest.raises(sl.SteerlensError, match="; try processing=False"):
        load(hf, bridge=True, processing=True)


def test_cohere_is_right_or_refused() -> None:
    try:
        model, _ = load(small("cohere"))
    except sl.SteerlensError as error:
        assert HAS_HOOKED_TRANSFORMER, "TransformerLens 4 is right"
        assert "log-probabilities differ by" in str(error)
    else:
        assert_right(model, small("cohere"))


def test_results_carry_the_proof() -> None:
    model, _ = load(plain_model("gpt2"))
    assert "log-probabilities of 48 tokens within" in run_settings(model)["model proof"]


@pytest.mark.parametrize("part", ["plain", "cached", "stream"])
def test_each_part_of_the_proof_can_fail(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flaw that only one of the three comparisons can see."""
    hf = deepcopy(plain_model("gpt2"))
    expected = reference_of(hf, make_tokenizer())
    model, _ = load(hf, bridge=True, processing=False, prove=False)
    if part == "cached":
        monkeypatch.setattr("steerlens.models.proof.prefill", lambda *args: _shifted(prefill(*args)))
    elif part == "stream":  # an offset that the next layer norm takes out again
        streams = tuple(one.roll(1, dims=0) + 1.0 for one in expected.streams)
        expected = replace(expected, streams=streams)
    else:
        expected = replace(expected, log_probs=expected.log_probs.roll(1, dims=1))
    proof = compare(model, expected, processed=False)
    assert not proof.holds
    words = {"plain": "log-probabilities differ", "cached": "a prompt is padded", "stream": "stream at layer 0"}[part]
    assert words in proof.where


def _shifted(answer: Any) -> Any:
    logits, cache = answer
    logits = logits.clone()
    logits[1, 5] += 1.0
    return logits, cache


def test_nan_is_no_proof() -> None:
    expected = reference_of(plain_model("gpt2"), make_tokenizer())
    model, _ = load(plain_model("gpt2"), bridge=True, prove=False)
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    assert "log-probabilities differ by nan" in compare(model, expected, processed=True).where


# ---------------------------------------------------------------------------------------------- what cannot be steered


def _mamba() -> Any:
    import transformers as hf

    return hf.MambaForCausalLM(hf.MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=4))


def _bert() -> Any:
    import transformers as hf

    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return hf.BertForMaskedLM(hf.BertConfig(vocab_size=VOCAB, **tiny))


def _t5() -> Any:
    import transformers as hf

    return hf.T5ForConditionalGeneration(
        hf.T5Config(vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    )


def _headless() -> Any:
    return deepcopy(plain_model("llama")).model


def _classifier() -> Any:
    import transformers as hf

    return hf.LlamaForSequenceClassification(plain_model("llama").config)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_mamba, "a recurrent state in place of keys and values"),
        (_bert, "looks at later tokens too"),
        (_t5, "has an encoder and a decoder"),
        (_headless, "no language-model head"),
        (_classifier, "no language-model head"),
    ],
)
@pytest.mark.parametrize("directory", [False, True])
def test_what_is_no_language_model_is_told_in_a_line(make: Any, why: str, directory: bool, tmp_path: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = make()
    if directory:
        hf.save_pretrained(tmp_path)
        make_tokenizer().save_pretrained(tmp_path)
        why = f"{why}|lm_head.weight|cannot read a model|do not fit"
    with pytest.raises(sl.SteerlensError, match=why) as caught:
        load(tmp_path if directory else hf)
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_told() -> None:
    hf = deepcopy(plain_model("gpt2"))
    hf.transformer.h[1].mlp.c_fc.weight.data[3, 3] = float("nan")
    with pytest.raises(sl.SteerlensError, match="itself predicts NaN"):
        load(hf)
