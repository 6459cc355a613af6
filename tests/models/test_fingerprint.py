"""Fingerprints: the same for the same computation wherever it is loaded, another for the least change of it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import steerlens as sl
from steerlens.models import fingerprint, run_settings
from steerlens.models.fingerprint import word_sums
from steerlens.models.protocol import weights_of
from tests.conftest import KINDS, ROOT, Case, freshly_loaded, loaded, make_tokenizer, plain_model


def test_using_a_model_leaves_its_fingerprint(case: Case) -> None:
    before = fingerprint(case.model)
    vector = sl.actadd(case.model, "Love", "Hate", layer=1)
    sl.generate(case.model, "I went up", 2 * vector, n=2, max_new_tokens=3)
    assert fingerprint(case.model) == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.endswith("raw")])
def test_every_weight_counts(kind: str) -> None:
    """One element of one weight, moved to the next float, one weight after another."""
    model = freshly_loaded("gpt2", kind)
    before = fingerprint(model)
    assert before == fingerprint(loaded("gpt2", kind))
    for name, weight in weights_of(model):
        place = (weight.shape[0] // 2, *(0 for _ in weight.shape[1:]))
        old = weight.data[place].clone()
        weight.data[place] = old.nextafter(old + 1)
        assert fingerprint(model) != before, name
        weight.data[place] = old
    assert fingerprint(model) == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_counts_not_its_name_or_loading(kind: str) -> None:
    first = loaded("gpt2", kind)
    again = sl.load_model(
        plain_model("gpt2"),
        tokenizer=make_tokenizer(),
        device="cpu",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
    )
    again.cfg.model_name = "another name"
    assert fingerprint(again) == fingerprint(first)
    again.cfg.eps = 1e-3
    assert fingerprint(again) != fingerprint(first)
    others = [loaded("gpt2", kind, dtype="bfloat16"), loaded("gpt2", kind, "distinct"), loaded("llama", kind)]
    assert len({fingerprint(one) for one in (first, *others)}) == 4


def test_hooks_are_refused(any_model: Any) -> None:
    hook = ("blocks.1.hook_resid_pre", lambda resid, hook: resid)
    with any_model.hooks(fwd_hooks=[hook]), pytest.raises(sl.SteerlensError, match=r"hooks of yours at blocks\.1"):
        fingerprint(any_model)
    fingerprint(any_model)


def test_settings_of_a_hooked_model_say_so_instead_of_a_fingerprint(any_model: Any) -> None:
    plain = run_settings(any_model)
    with any_model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda values, hook: values)]):
        hooked = run_settings(any_model)
    assert plain["model fingerprint"] == fingerprint(any_model) and "hooks of the user" not in plain
    assert hooked.pop("hooks of the user")[0].startswith("blocks.1.")
    assert hooked == {**plain, "model fingerprint": None}


def test_the_layout_in_memory_does_not_count() -> None:
    values = torch.randn(300, 500)
    other = values.t().contiguous().t()
    assert other.stride() != values.stride()
    assert torch.equal(word_sums(values), word_sums(other))


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 70_000),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int8]),
    data=st.data(),
)
def test_any_changed_bit_shows(size: int, dtype: torch.dtype, data: st.DataObject) -> None:
    values = (torch.arange(size) % 101 - 50).to(dtype)
    changed = values.clone()
    bytes_ = changed.view(torch.uint8)
    bytes_[data.draw(st.integers(0, len(bytes_) - 1))] ^= data.draw(st.integers(1, 255))
    assert not torch.equal(word_sums(values), word_sums(changed))


def test_exchanged_and_negated_values_show() -> None:
    values = torch.randn(1000)
    for changed in (values.flip(0), -values, values.roll(2), torch.cat([values[500:], values[:500]])):
        assert not torch.equal(word_sums(values), word_sums(changed))
    two = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert not torch.equal(word_sums(two), word_sums(torch.tensor([1.0, -2.0, 3.0, -4.0])))


def test_another_process_gets_the_same() -> None:
    program = (
        "import torch; from steerlens.models.fingerprint import word_sums; print(word_sums(torch.arange(9e4)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == str(word_sums(torch.arange(9e4)).tolist())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gets_the_same() -> None:
    values = torch.randn(1_234_567).bfloat16()
    assert torch.equal(word_sums(values), word_sums(values.cuda()).cpu())
