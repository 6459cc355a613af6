"""The user's own hooks are part of a model: every analysis computes what it would with the change in the weights.

Only what is stored refuses them, since the model's fingerprint would not know of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import steerlens as sl
from steerlens.experiments import knowledge
from tests.conftest import KINDS, freshly_loaded, live_hooks, loaded

PROMPT = "I went up to my friend and said"


@pytest.fixture(scope="module", params=KINDS)
def models(request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    """A model with a hook that halves what block 0's MLP writes, one whose weights do so, and one as it was."""
    hooked, halved = (freshly_loaded("gpt2", request.param) for _ in range(2))
    with torch.no_grad():
        mlp = halved.blocks[0].mlp
        for weight in mlp.parameters() if not hasattr(mlp, "out") else mlp.out.parameters():
            if hasattr(mlp, "out") or weight is mlp.W_out or weight is mlp.b_out:
                weight.mul_(0.5)
    hooked.add_hook("blocks.0.hook_mlp_out", lambda value, hook: 0.5 * value)
    return hooked, halved, loaded("gpt2", request.param)


def vector(model: Any) -> sl.SteeringVector:
    values = 3 * torch.randn(3, model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    return sl.SteeringVector.of(model, values, layer=1)


CALLS: dict[str, Callable[[Any], Any]] = {
    "logit_shift": lambda m: sl.logit_shift(m, PROMPT, vector(m)),
    "layer_effect": lambda m: sl.layer_effect(m, vector(m), PROMPT, wanted=" wedding"),
    "shift_parts": lambda m: sl.shift_parts(m, PROMPT, vector(m)),
    "layer_lens": lambda m: sl.layer_lens(m, PROMPT, vector(m)),
    "magnitudes": lambda m: sl.magnitudes(m, vector(m), PROMPT),
    "position_effect": lambda m: sl.position_effect(m, vector(m), PROMPT, wanted=" wedding"),
    "dimension_effect": lambda m: sl.dimension_effect(m, vector(m), PROMPT, wanted=" wedding", shares=[0.5]),
    "score": lambda m: sl.score(m, PROMPT, vector(m)),
    "generate": lambda m: sl.generate(m, PROMPT, vector(m), n=2, max_new_tokens=3),
    "sweep": lambda m: sl.sweep(
        m, vector(m), PROMPT, metrics=[sl.metrics.length()], n=2, max_new_tokens=3, progress=False
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_hook_counts_as_the_change_it_makes(models: tuple[Any, Any, Any], name: str) -> None:
    hooked, halved, unhooked = models
    before = live_hooks(hooked)
    found, wanted, plain = (frame_of(CALLS[name](model)) for model in (hooked, halved, unhooked))
    assert list(found.columns) == list(wanted.columns)
    for column in found:
        one, other = found[column].to_numpy(), wanted[column].to_numpy()
        if np.issubdtype(one.dtype, np.number):
            np.testing.assert_allclose(one.astype(float), other.astype(float), rtol=1e-3, atol=1e-4, err_msg=column)
    assert live_hooks(hooked) == before
    assert not found.equals(plain)  # the hook does matter


def test_knowledge_too(models: tuple[Any, Any, Any]) -> None:
    hooked, halved = models[:2]
    # At layer 0 the pair's vector is the same on both.
    found, wanted = (
        knowledge(model, limit=6, layer=0, pair=sl.PromptPair(" love", " hate"), progress=False) for model in models[:2]
    )
    pd.testing.assert_frame_equal(found.frame, wanted.frame, check_exact=False, rtol=1e-3)
    assert live_hooks(hooked) != live_hooks(halved)


@pytest.mark.parametrize("options", [{"store": "kept.sqlite"}, {"engine": "ray"}])
def test_what_is_kept_or_computed_elsewhere_is_refused_before_the_work(
    models: tuple[Any, Any, Any], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hooked = models[0]
    called: list[int] = []
    hooked.add_hook("blocks.1.hook_mlp_out", lambda value, hook: called.append(1))
    with pytest.raises(sl.SteerlensError, match=r"hooks of yours at blocks\.0\."):
        sl.sweep(hooked, vector(hooked), PROMPT, metrics=[sl.metrics.length()], n=1, max_new_tokens=2, **options)
    assert not called


def frame_of(result: Any) -> pd.DataFrame:
    return result if isinstance(result, pd.DataFrame) else result.frame
