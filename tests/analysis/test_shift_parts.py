"""Where a shift comes from: parts that sum to the total, in every architecture and class; parts by independent runs."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.analysis.residual_trace import FinalNorm, read_out, residual_trace
from steerlens.steering.prompts import read_prompt
from tests import reference
from tests.conftest import some_cases
from tests.reference import D_MODEL, N_LAYERS

PROMPT = "I went up to my friend and said"
FOLLOW = [" wedding", " house", 17]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def test_parts_sum_to_the_shift_everywhere(model) -> None:
    """Two layers at once, at every position: the sum is the shift of the model's own logits to 1e-4."""
    vectors = sl.actadd(model, "Love is", "Hate", layers="all")
    condition = (5 * vectors[1], sl.Injection(-2 * vectors[2], "back"))
    found = sl.shift_parts(model, PROMPT, condition, follow=FOLLOW, positions="all")
    tokens = model.to_tokens(PROMPT)
    base = model(tokens)[0]
    with sl.steer(model, *condition):
        steered = model(tokens)[0]
    sums = found.frame.groupby(["position", "token_id"])["contribution"].sum()
    assert len(sums) == tokens.shape[1] * len(FOLLOW)
    for (position, token), value in sums.items():
        assert value == pytest.approx(float(steered[position, token] - base[position, token]), abs=1e-4)
    totals = found.totals
    np.testing.assert_allclose(
        totals["direct"] + totals["downstream"] + totals["rescaling"], totals["shift"], atol=1e-4
    )
    change = steered.log_softmax(-1) - base.log_softmax(-1)
    for row in totals.itertuples():
        assert row.logprob_shift == pytest.approx(float(change[row.position, row.token_id]), abs=1e-4)
    assert "other" not in set(found.frame["part"]), "these blocks are attention and MLP and nothing else"


@some_cases(lambda architecture, kind: kind.endswith("raw"))  # as the plain model's weights are
def test_the_parts_are_those_of_the_reference(case) -> None:
    """Direct part and rescaling from a plain Hugging Face run and the norm's formula; raw weights, unfolded norm."""
    model, hf = case.model, case.hf
    vector = 4 * sl.actadd(model, "Love", "Hate", layer=1)
    placed = sl.Injection(vector, "back")
    found = sl.shift_parts(model, PROMPT, placed, follow=FOLLOW)
    ids = model.to_tokens(PROMPT)[0].tolist()
    ends = []
    for condition in (None, placed):
        trace = residual_trace(
            model, read_prompt(model, ids), sl.Condition((condition,) if condition else ()), [len(ids) - 1]
        )
        ends.append(trace.resid_post[-1, 0].double())
        extra = {1: reference.placed(vector.values, "back", len(ids))} if condition else None
        own = trace.logits[0].double().log_softmax(-1)
        torch.testing.assert_close(own, reference.log_probs(hf, ids, extra)[-1].double(), atol=1e-4, rtol=1e-4)
    end_base, end = ends
    last = hf.get_output_embeddings().weight.double()
    # The one norm outside the blocks.
    norms = {name: module for name, module in hf.named_modules() if "norm" in type(module).__name__.lower()}
    (norm,) = [module for name, module in norms.items() if not any(part.isdigit() for part in name.split("."))]
    gain, eps = norm.weight.double(), getattr(norm, "eps", None) or norm.variance_epsilon
    centred = case.architecture != "llama"

    def c(x: torch.Tensor) -> torch.Tensor:
        return x - x.mean() if centred else x

    def scale(x: torch.Tensor) -> torch.Tensor:
        return (c(x).pow(2).mean() + eps).sqrt()

    for token, word in zip(found.totals["token_id"], found.totals["token"], strict=True):
        direction = gain * last[token]
        direct = float(c(vector.values[-1].double()) / scale(end) @ direction)
        rescaling = float(c(end_base) * (1 / scale(end) - 1 / scale(end_base)) @ direction)
        row = found.totals.query("token_id == @token").iloc[0]
        assert row["direct"] == pytest.approx(direct, abs=1e-4), word
        assert row["rescaling"] == pytest.approx(rescaling, abs=1e-4), word


def test_a_vector_elsewhere_has_no_direct_part_and_nothing_before_its_layer(gpt2) -> None:
    vector = 5 * sl.actadd(gpt2, "Love", "Hate", layer=1)
    found = sl.shift_parts(gpt2, PROMPT, vector, follow=FOLLOW)
    assert (found.totals["direct"] == 0).all()
    assert "vector" not in set(found.frame["part"])
    assert found.frame["part_layer"].min() == 1
    last = sl.shift_parts(gpt2, PROMPT, (sl.Injection(vector, "back")), follow=FOLLOW)
    assert last.frame.query("part == 'vector'")["part_layer"].unique().tolist() == [1]
    assert (last.totals["direct"].abs() > 1e-3).all()


def test_a_vector_behind_all_blocks_but_one_is_nearly_all_there_is(gpt2) -> None:
    """At the last position of the last layer, attention and MLP of one block are all that can come later."""
    vector = sl.Injection(sl.actadd(gpt2, "Love", "Hate", layer=N_LAYERS - 1), "back")
    parts = sl.shift_parts(gpt2, PROMPT, vector, follow=FOLLOW).frame
    here = set(zip(parts["part"], parts["part_layer"].fillna(-1), strict=True))
    assert here == {("vector", 2), ("attention", 2), ("mlp", 2), ("rescaling", -1)}


def test_the_norm_is_read_off_the_model(model) -> None:
    norm = FinalNorm.of(model)
    rows = torch.randn(20, D_MODEL, generator=torch.Generator().manual_seed(1)) * 3 + 0.7
    expected = model.ln_final(rows[None])[0].double()
    torch.testing.assert_close(
        norm.centred(rows) / norm.scale(rows) * norm.gain + norm.bias, expected, atol=2e-5, rtol=2e-5
    )


def test_a_norm_of_another_kind_is_refused(any_model, monkeypatch) -> None:
    monkeypatch.setattr(type(any_model.ln_final), "forward", lambda self, x: x.clamp(-0.1, 0.1) * x.abs())
    with pytest.raises(sl.SteerlensError, match="neither layer norm nor RMS norm"):
        FinalNorm.of(any_model)


def test_the_default_follows_what_rose_most(demo) -> None:
    vector = 4 * sl.actadd(demo, " weddings", " ", layer=3)
    found = sl.shift_parts(demo, PROMPT, vector, top_k=2)
    rise = sl.next_token_logits(demo, PROMPT, vector).softmax(-1) - sl.next_token_logits(demo, PROMPT).softmax(-1)
    assert found.totals["token_id"].tolist() == rise.topk(2).indices.tolist()
    named = sl.shift_parts(demo, PROMPT, vector, follow=[" wedding"])
    assert named.totals["downstream"].item() > 0.5, "weddings come through attention to the front"
    assert named.plot().data[0].type == "bar"


@pytest.mark.parametrize(
    ("prompts", "given", "words"),
    [
        ([], {}, "the list of prompts is empty"),
        ("", {}, "the prompt is empty"),
        (PROMPT, {"positions": "some"}, "positions='some' is unknown"),
        (PROMPT, {"follow": "weddings"}, "pieces='first'"),
    ],
)
def test_bad_input_is_told(any_model, prompts, given, words: str) -> None:
    vector = sl.actadd(any_model, "Love", "Hate", layer=1)
    with pytest.raises(sl.SteerlensError, match=words):
        sl.shift_parts(any_model, prompts, vector, **given)
    with pytest.raises(sl.SteerlensError, match="needs a steered condition"):
        sl.shift_parts(any_model, PROMPT, None)


def _keep_last(streams: dict[int, torch.Tensor], layer: int, value: torch.Tensor, hook: object) -> None:
    streams[layer] = value[0, -1].clone()


def test_the_lens_is_a_plain_read_out_and_ends_in_the_models_answer(model) -> None:
    vector = 5 * sl.actadd(model, "Love", "Hate", layer=1)
    lens = sl.layer_lens(model, PROMPT, vector, follow=FOLLOW).frame
    tokens = model.to_tokens(PROMPT)
    for number, label in ((0, "unsteered"), (1, vector.title)):
        rows = lens.query("condition == @number")
        assert set(rows["label"]) == {label}
        assert sorted(rows["lens_layer"].unique()) == list(range(N_LAYERS + 1))
        streams: dict[int, torch.Tensor] = {}
        hooks = [(f"blocks.{i}.hook_resid_pre", partial(_keep_last, streams, i)) for i in range(N_LAYERS)]
        with sl.steer(model, vector) if number else nullcontext(), model.hooks(fwd_hooks=hooks):
            final = model(tokens)[0, -1].log_softmax(-1)
        for row in rows.itertuples():
            if row.lens_layer == N_LAYERS:
                expected = final
            else:
                expected = (model.ln_final(streams[row.lens_layer][None, None]) @ model.W_U + model.b_U)[
                    0, 0
                ].log_softmax(-1)
            assert row.logprob == pytest.approx(float(expected[row.token_id]), abs=2e-5)
            assert row.rank == pytest.approx(int((expected > expected[row.token_id]).sum()) + 1, abs=1)
            assert row.prob == pytest.approx(float(expected[row.token_id].exp()), rel=1e-4)


def test_the_lens_differs_only_from_the_vectors_layer_on(gpt2) -> None:
    vector = sl.Injection(5 * sl.actadd(gpt2, "Love", "Hate", layer=1), "back")
    frame = sl.layer_lens(gpt2, PROMPT, vector, follow=FOLLOW).frame
    keys = ["lens_layer", "token_id"]
    both = frame.query("condition == 1").merge(frame.query("condition == 0"), on=keys, suffixes=("", "_base"))
    same = both["logprob"] == both["logprob_base"]
    assert same[both["lens_layer"] < 1].all()
    assert not same[both["lens_layer"] >= 1].any()
    assert (both.loc[both["lens_layer"] < 1, "kl"] == 0).all()
    assert (both.loc[both["lens_layer"] >= 1, "kl"] > 0).all()


def test_the_lens_is_drawn(any_model) -> None:
    vectors = sl.actadd(any_model, "Love", "Hate", layers="all")
    lens = sl.layer_lens(any_model, [PROMPT, "Once upon"], [3 * vectors[1], 3 * vectors[2]], follow=FOLLOW)
    assert len(lens.frame) == 3 * 2 * (N_LAYERS + 1) * len(FOLLOW)
    label = next(iter(lens.frame.query("condition == 1")["label"]))
    with pytest.raises(sl.SteerlensError):
        lens.plot()  # two conditions: one has to be chosen
    assert lens.plot(condition=f"{label}, layer 1").data


def test_read_out_caps_logits_as_the_model_would(any_model, monkeypatch) -> None:
    rows = torch.randn(3, D_MODEL)
    plain = any_model.unembed(any_model.ln_final(rows[None]))[0]
    monkeypatch.setattr(any_model.cfg, "output_logits_soft_cap", 0.5)
    torch.testing.assert_close(read_out(any_model, rows), (0.5 * torch.tanh(plain / 0.5)).log_softmax(-1))
