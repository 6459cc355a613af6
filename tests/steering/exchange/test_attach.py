"""`attach` on the bare Hugging Face model against steerlens on the model that was made from it."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import stamp
from steerlens.steering.operations import OPERATIONS
from tests import reference
from tests.conftest import (
    HAS_HOOKED_TRANSFORMER,
    KINDS,
    VOCAB,
    Case,
    freshly_loaded,
    loaded,
    make_tokenizer,
    plain_model,
)
from tests.steering.sites.cases import D, ids_of, injection_of, sites_of, vector_on

# A vector knows of its model's class only how the weights were processed.
PROCESSED, RAW = KINDS[:2]
CLASSES = (PROCESSED, RAW, "bridge") if HAS_HOOKED_TRANSFORMER else (PROCESSED, RAW)

ROWS = [ids_of(7), ids_of(5, 1), ids_of(6, 2)]


@pytest.fixture(params=[(a, k) for a in reference.ARCHITECTURES for k in (PROCESSED, RAW)], ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    """Every architecture, with processed weights and without."""
    architecture, kind = request.param
    return Case(architecture, kind, loaded(architecture, kind), plain_model(architecture))


def padded(side: str = "left", width: int = 7) -> dict[str, torch.Tensor]:
    """The rows as a tokenizer pads them, and positions that count real tokens alone."""
    rows, mask = [], []
    for row in ROWS:
        fill, n = [0] * (width - len(row)), len(row)
        rows.append(fill + row if side == "left" else row + fill)
        mask.append([0] * len(fill) + [1] * n if side == "left" else [1] * n + [0] * len(fill))
    real = torch.tensor(mask)
    return {
        "input_ids": torch.tensor(rows),
        "attention_mask": real,
        "position_ids": (real.cumsum(-1) - 1).clamp_min(0),
    }


def raw_vector(model: Any, site: Any = "resid_pre", layer: int = 1, span: int = 1, seed: int = 0) -> sl.SteeringVector:
    """A vector with a mean over its width: a centred model sees that mean, and so does what comes after."""
    values = torch.randn(span, D, generator=torch.Generator().manual_seed(seed)) + 0.5
    if site == "z":
        values = values.unflatten(-1, (4, -1))
    return sl.SteeringVector(values, layer, stamp(model), site=site, placement="front")


@torch.no_grad()
def bare(hf: Any, **inputs: Any) -> torch.Tensor:
    return hf(**inputs, use_cache=False).logits.log_softmax(-1)


@torch.no_grad()
def ours(model: Any, *steering: Any) -> list[torch.Tensor]:
    """Log-probabilities row by row, unpadded."""
    found = []
    for row in ROWS:
        with sl.steer(model, *steering):
            found.append(model(torch.tensor([row])).log_softmax(-1)[0])
    return found


def same(logp: torch.Tensor, expected: list[torch.Tensor], side: str = "left") -> None:
    for one, row in zip(logp, expected, strict=True):
        assert_close(one[-len(row) :] if side == "left" else one[: len(row)], row, rtol=0, atol=1e-4)


def expected_refusal(case: Case, site: str, operation: str) -> bool:
    return site == "z" and operation != "add" and not case.kind.endswith("raw") and case.architecture != "llama"


def test_every_site_and_operation(case: Case) -> None:
    plain = bare(case.hf, **padded())
    for site, operation in product(sites_of(case), OPERATIONS):
        one = injection_of(raw_vector(case.model, site), operation)
        if expected_refusal(case, site, operation):
            with pytest.raises(sl.SteerlensError, match="biases of its values are moved behind the heads"):
                sl.attach(case.hf, one)
            continue
        with sl.attach(case.hf, one) as attached:
            same(bare(case.hf, **padded()), ours(case.model, one))
        assert attached.receipts[0].applications == 3
    assert torch.equal(bare(case.hf, **padded()), plain)


def test_every_placement(case: Case) -> None:
    for placement in ("front", "mid", "back", "last", "all", "prompt", "from_last", 1, -3):
        span = 1 if placement in ("last", *reference.RANGES) else 2
        one = sl.Injection(raw_vector(case.model, span=span), placement)
        expected = ours(case.model, one)
        for side in ("left", "right"):
            with sl.attach(case.hf, one):
                same(bare(case.hf, **padded(side)), expected, side)


def test_several_that_depend_on_each_other(case: Case) -> None:
    """What an earlier vector adds is part of what a later operation sees, its mean over the width included."""
    both = (
        sl.Injection(raw_vector(case.model, layer=0), "all"),
        sl.Injection(raw_vector(case.model, "attn_out", seed=3), "all"),
        sl.Injection(raw_vector(case.model, seed=1), "all", "add_keep_norm"),
        sl.Injection(raw_vector(case.model, "mlp_out", seed=4), "all", "clamp", 3.0),
        sl.Injection(raw_vector(case.model, seed=5), "all", "reft", 0.5, reads=0.1 * raw_vector(case.model, seed=6)),
        sl.Injection(raw_vector(case.model, "resid_post", layer=2, seed=2), "all", "ablate"),
    )
    with sl.attach(case.hf, both):
        same(bare(case.hf, **padded()), ours(case.model, *both))


@pytest.mark.parametrize(
    ("architecture", "kind", "placement"),
    [
        *product(("gpt2",), CLASSES, ("back", "all", "generated", "from_last")),
        *product(("llama", "opt", "gptj"), (PROCESSED,), ("front", "from_last")),
    ],
)
def test_generation_says_what_generate_says(architecture: str, kind: str, placement: Any) -> None:
    model, hf, tokenizer = loaded(architecture, kind), plain_model(architecture), deepcopy(make_tokenizer())
    tokenizer.padding_side = "left"
    vector = 2 * raw_vector(model, span=1)
    texts = ["The dog ran to the", "Once"]
    frame = sl.generate(model, texts, vector, placement=placement, max_new_tokens=6, temperature=0, stop_at_end=False)
    batch = tokenizer([tokenizer.bos_token + one for one in texts], padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    settings: dict[str, Any] = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    plain = hf.generate(**batch, **settings)
    for cache in (True, False):
        with sl.attach(hf, vector, placement=placement):
            tokens = hf.generate(**batch, **settings, use_cache=cache)[:, batch["input_ids"].shape[1] :]
        assert tokenizer.batch_decode(tokens) == frame["completion"].tolist()
    assert torch.equal(hf.generate(**batch, **settings), plain)
    assert "generate" not in vars(hf)


def test_ramps(case: Case) -> None:
    one = sl.Injection(raw_vector(case.model), "all", ramp=sl.Ramp([0, 2]))
    with sl.attach(case.hf, one):
        same(bare(case.hf, **padded()), ours(case.model, one))


def test_a_file_carries_the_condition(any_model: Any, tmp_path: Path) -> None:
    mean = sl.SteeringVector(torch.ones(1, D), 1, stamp(any_model), source={"method": "mean", "of": ["a", "b"]})
    condition = sl.Condition(
        (
            sl.Injection(3 * raw_vector(any_model, span=2), "front", ramp=sl.Ramp([0.5, 2])),
            sl.Injection(raw_vector(any_model, "attn_out"), "all", "clamp", 2.0),
            sl.Injection(raw_vector(any_model, seed=1).on("all"), None, "affine", mean=mean),
        ),
        "three of them",
    )
    path = sl.save_torch(condition, tmp_path / "condition.pt")
    plain = torch.load(path, weights_only=True)
    assert plain["label"] == "three of them"
    assert torch.equal(plain["injections"][0]["vector"]["values"], condition.injections[0].vector.values)
    back = sl.load_torch(path)
    for one, other in zip(back.injections, condition.injections, strict=True):
        assert (one.placement, one.operation, one.value) == (other.placement, other.operation, other.value)
        assert one.ramp == other.ramp
        assert one.vector.describe() == other.vector.describe()
        assert one.vector.model == other.vector.model
    hf = plain_model("gpt2")
    with sl.attach(hf, path):
        there = bare(hf, **padded())
    with sl.attach(hf, condition):
        assert torch.equal(bare(hf, **padded()), there)


def test_no_transformerlens_at_run_time(any_model: Any, tmp_path: Path) -> None:
    hf, vector = plain_model("gpt2"), raw_vector(any_model).on("all")
    hf.save_pretrained(tmp_path / "model")
    sl.save_torch(vector, tmp_path / "condition.pt")
    program = f"""
import sys
sys.modules["transformer_lens"] = None
import torch, transformers, steerlens as sl
hf = transformers.AutoModelForCausalLM.from_pretrained({str(tmp_path / "model")!r})
with sl.attach(hf, {str(tmp_path / "condition.pt")!r}), torch.no_grad():
    torch.save(hf(torch.tensor([{ROWS[0]}])).logits, {str(tmp_path / "logits.pt")!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert_close(logits[0].log_softmax(-1), ours(any_model, vector)[0], rtol=0, atol=1e-4)


def test_it_comes_off_however_the_block_ends(any_model: Any) -> None:
    hf, vector = plain_model("gpt2"), raw_vector(any_model)
    plain = bare(hf, **padded())
    with pytest.raises(KeyError), sl.attach(hf, vector):
        raise KeyError
    assert torch.equal(bare(hf, **padded()), plain)
    attached = sl.attach(hf, vector)
    assert not torch.equal(bare(hf, **padded()), plain)
    assert "on, applied=3" in repr(attached)
    attached.remove()
    attached.remove()
    assert torch.equal(bare(hf, **padded()), plain)
    assert "removed" in repr(attached)
    with pytest.raises(sl.SteerlensError, match="was never added"), sl.attach(hf, vector):
        pass
    with sl.attach(hf, None):
        assert torch.equal(bare(hf, **padded()), plain)


def test_the_body_of_a_model_is_steered_too(any_model: Any) -> None:
    hf, vector = plain_model("gpt2"), raw_vector(any_model).on("last")
    inputs = padded()
    with sl.attach(hf, vector), torch.no_grad():
        bare(hf, **{name: value[:, 1:] for name, value in padded(width=8).items()})  # another width before
        through = hf.lm_head(hf.transformer(**inputs, use_cache=False).last_hidden_state)
        assert torch.equal(through.log_softmax(-1), bare(hf, **inputs))


def test_what_does_not_belong_is_refused(any_model: Any) -> None:
    # A model of its own: one whose weights some test has changed, and changed back, knows no original any more.
    hf, vector = plain_model("gpt2"), raw_vector(freshly_loaded("gpt2", KINDS[0]))
    with pytest.raises(sl.SteerlensError, match="does not belong to this model: the weights differ"):
        sl.attach(reference.tiny_model("gpt2", vocab=VOCAB, seed=1), vector)
    tuned = deepcopy(hf)
    tuned.transformer.h[2].mlp.c_fc.weight.data *= 1.1
    with pytest.raises(sl.SteerlensError, match="the weights differ"):
        sl.attach(tuned, vector)
    with pytest.raises(sl.SteerlensError, match="d_vocab is 50 where"):
        sl.attach(reference.tiny_model("gpt2", vocab=50), vector)
    with pytest.raises(sl.SteerlensError, match=r"of TransformerLens; steer it with steerlens\.steer"):
        sl.attach(any_model, vector)
    with pytest.raises(sl.SteerlensError, match="expected a Hugging Face model, got a Linear"):
        sl.attach(torch.nn.Linear(2, 2), vector)
    with pytest.raises(sl.SteerlensError, match="needs a chat"):
        sl.attach(hf, vector.on("user"))
    side_by_side = loaded("gptj", KINDS[0])
    with pytest.raises(sl.SteerlensError, match="side by side"):
        sl.attach(plain_model("gptj"), vector_on(side_by_side, "resid_mid"))
    long = raw_vector(any_model, span=9)
    with pytest.raises(sl.SteerlensError, match="spans 9 positions but the prompt has 5"), sl.attach(hf, long):
        bare(hf, **padded())
    with pytest.raises(sl.SteerlensError, match=r"needs an attention_mask of \[batch pos\]"), sl.attach(hf, vector):
        bare(hf, input_ids=torch.tensor([ROWS[0]]), attention_mask=torch.ones(1, 1, 7, 7))


@pytest.mark.parametrize("kind", [PROCESSED, RAW])
def test_vectors_of_live_models_are_known_by_their_embedding(kind: str) -> None:
    """Where it is not known which weights a model was made from, entries of its embedding tell, centred or not."""
    vector = raw_vector(loaded("gpt2", kind))
    unknown = replace(vector, model=replace(vector.model, origin=None))
    sl.attach(plain_model("gpt2"), unknown).remove()
    with pytest.raises(sl.SteerlensError, match="the weights differ"):
        sl.attach(reference.tiny_model("gpt2", vocab=VOCAB, seed=1), unknown)
