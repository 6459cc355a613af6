"""Every decoder gives the logits of whole passes; rows leave without harm; rarer models are left to themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from steerlens.errors import SteerlensError
from steerlens.models import Decoders, PrefixDecoder, WholeDecoder, is_bridge, prefill, walkable
from tests import reference
from tests.conftest import HAS_HOOKED_TRANSFORMER, ROOT, VOCAB, Case, loaded

few = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def left(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return tokens, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


def rows_of(lengths: list[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [[0, *torch.randint(1, VOCAB - 10, (n - 1,), generator=generator).tolist()] for n in lengths]


def begun(model: Any, rows: list[list[int]], samples: int, kind: str = "fastest") -> Any:
    tokens, mask = left(rows)
    _, cache = prefill(model, tokens, mask, use_cache=kind != "whole")
    if kind == "whole":
        return WholeDecoder(model, tokens, mask, samples=samples)
    return Decoders(model).begin(cache, mask, samples=samples, room=6, hooked=kind == "cache")


@few
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    samples=st.integers(1, 3),
    kind=st.sampled_from(["fastest", "cache", "whole"]),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_decoding_equals_whole_passes_row_by_row(
    case: Case, lengths: list[int], samples: int, kind: str, seed: int
) -> None:
    """Also when rows leave in the middle: those that stay are the ones it says, in the order it says."""
    prompts = rows_of(lengths, seed)
    rows = [list(row) for row in prompts for _ in range(samples)]
    decoder = begun(case.model, prompts, samples, kind)
    generator = torch.Generator().manual_seed(seed)
    for step in range(5):
        new = torch.randint(VOCAB - 10, (len(rows),), generator=generator)
        for row, token in zip(rows, new.tolist(), strict=True):
            row.append(token)
        logits = decoder.step(new)
        for row, got in zip(rows, logits, strict=True):
            assert_close(got.log_softmax(-1), reference.log_probs(case.hf, row)[-1], rtol=1e-5, atol=5e-5)
        if step in (1, 2):
            ended = torch.rand(len(rows), generator=generator) < 0.5
            ended[0] = False
            kept = decoder.leave(ended)
            if kept is not None:
                assert set((~ended).nonzero().flatten().tolist()) <= set(kept.tolist())
                assert len(kept) < len(rows) or not ended.any()
                rows = [rows[i] for i in kept.tolist()]


def test_a_hooked_transformer_is_walked_and_a_bridge_is_not(any_model: Any) -> None:
    assert walkable(any_model, longest=16) is not is_bridge(any_model)


def test_a_model_with_any_hook_is_not_walked(any_model: Any) -> None:
    """A hook on a hook point, on a block or inside it would not be called, so it is never passed by."""
    modules = [any_model.blocks[1], any_model.blocks[0].attn, any_model]
    before = walkable(any_model, longest=16)
    for module in modules:
        for register in (module.register_forward_hook, module.register_forward_pre_hook):
            handle = register(lambda *args: None)
            assert not walkable(any_model, longest=16)
            handle.remove()
    with any_model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda resid, hook: resid)]):
        assert not walkable(any_model, longest=16)
    assert walkable(any_model, longest=16) is before


@pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="this TransformerLens has bridges only")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attn_scores_soft_cap", 30.0),
        ("positional_embedding_type", "alibi"),
        ("use_attn_in", True),
        ("clip_qkv", 8.0),
        ("original_architecture", "Olmo2ForCausalLM"),
        ("use_normalization_before_and_after", True),
    ],
)
def test_rarer_kinds_of_attention_are_left_to_the_model(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    model = loaded("gpt2", "hooked")
    assert walkable(model, longest=16)
    monkeypatch.setattr(model.cfg, name, value, raising=False)
    assert not walkable(model, longest=16)


@pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="this TransformerLens has bridges only")
def test_local_attention_is_walked_while_the_window_holds_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gpt2", "hooked")
    monkeypatch.setattr(model.cfg, "use_local_attn", True)
    monkeypatch.setattr(model.cfg, "window_size", 16)
    assert walkable(model, longest=16) and not walkable(model, longest=17)


@pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="this TransformerLens has bridges only")
@torch.no_grad()
def test_a_prompt_is_held_once_whatever_the_number_of_samples() -> None:
    decoder = begun(loaded("llama", "hooked"), rows_of([5, 3]), samples=50)
    assert isinstance(decoder, PrefixDecoder)
    assert {layer.prefix_keys.shape[0] for layer in decoder._layers} == {2}


@pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="this TransformerLens has bridges only")
@torch.no_grad()
def test_tokens_are_forgotten_as_if_they_had_never_been() -> None:
    for architecture in reference.ARCHITECTURES:
        straight, back = (begun(loaded(architecture, "hooked"), rows_of([5, 3]), samples=2) for _ in range(2))
        for token in (1, 2, 3):
            expected = straight.step(torch.full((4,), token))
        for token in (1, 7, 8):
            back.step(torch.full((4,), token))
        back.rewind(2)
        back.step(torch.full((4,), 2))
        assert torch.equal(back.step(torch.full((4,), 3)), expected)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="this TransformerLens has bridges only")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_decode_gives_the_same() -> None:
    """In a process of its own: the shape checks of the tests cannot be compiled."""
    code = f"""
import torch
import steerlens as sl
from steerlens.models import Decoders, prefill
from tests.reference import tiny_model
from transformers import AutoTokenizer
from steerlens.models import DEMO_MODEL_PATH

torch.set_grad_enabled(False)
tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL_PATH)
model = sl.load_model(tiny_model('llama', vocab={VOCAB}), tokenizer=tokenizer, device="cpu", bridge=False)
tokens, mask = torch.tensor([[0, 5, 6, 7], [0, 0, 0, 9]]), torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
decoders = [Decoders(model, compiled=on) for on in (False, True)]
for batch in range(3):  # the second and third are filled into the first
    tokens = tokens.roll(batch, 0) + (tokens > 0) * batch
    mask = mask.roll(batch, 0)
    plain, compiled = (d.begin(prefill(model, tokens, mask)[1], mask, samples=2, room=5) for d in decoders)
    for step in range(4):
        new = torch.tensor([7, 8, 9, 10]) + step + batch
        torch.testing.assert_close(compiled.step(new), plain.step(new), rtol=1e-5, atol=5e-5)
assert compiled.leave(torch.tensor([True, False, True, False])) is None
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, torch._dynamo.utils.counters["stats"]
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_compiling_what_cannot_be_is_refused(any_model: Any) -> None:
    with (
        any_model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda resid, hook: resid)]),
        pytest.raises(SteerlensError, match="compile=True works on a HookedTransformer"),
    ):
        Decoders(any_model, compiled=True)
