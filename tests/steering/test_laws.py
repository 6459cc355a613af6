"""The laws of steering, each held against plain hooks on the plain Hugging Face model, in every architecture and class.

The numbers are those of the design. Law 6 is tested here for `steer`; laws 6, 8 and 9 for the engine in tests/engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import ModelStamp, stamp
from tests import reference
from tests.conftest import VOCAB, Case, hooks_removed, live_hooks, make_tokenizer, plain_model

PLACEMENTS: tuple[Any, ...] = ("front", "mid", "back", "last", "all", "prompt", "from_last", 0, 2, -3)
N_LAYERS, D_MODEL = reference.N_LAYERS, reference.D_MODEL

few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def close(actual: Tensor, expected: Tensor) -> None:
    """1e-5, of 1 or of the largest number in play: single precision cannot do better after sums of such numbers."""
    assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


def tokens_of(text: str) -> list[int]:
    """BOS and the text's tokens, by the tokenizer alone."""
    tokenizer = make_tokenizer()
    return [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]


def random_ids(length: int, seed: int = 0) -> list[int]:
    """BOS and random tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [0, *torch.randint(1, VOCAB - 10, (length - 1,), generator=generator).tolist()]


def random_vector(model: Any, layer: int, span: int, *, seed: int = 0, scale: float = 0.5) -> sl.SteeringVector:
    """A vector that came from nowhere, so that its values are known without steerlens."""
    values = torch.randn(span, D_MODEL, generator=torch.Generator().manual_seed(seed)) * scale
    return sl.SteeringVector(values, layer=layer, model=stamp(model))


def span_for(placement: Any, wanted: int = 3) -> int:
    return 1 if placement in (*reference.RANGES, "last") else wanted


def log_probs(model: Any, ids: Sequence[int] | Sequence[Sequence[int]], **kwargs: Any) -> Tensor:
    rows = torch.tensor(ids if isinstance(ids[0], list) else [list(ids)])
    with torch.no_grad():
        return model(rows, **kwargs).log_softmax(-1)


def greedy(model: Any, ids: Sequence[int], n: int, *, cache: bool) -> list[int]:
    """TransformerLens' own greedy generation."""
    out = model.generate(
        torch.tensor([list(ids)]),
        max_new_tokens=n,
        do_sample=False,
        use_past_kv_cache=cache,
        stop_at_eos=False,
        return_type="tokens",
        verbose=False,
    )
    return out[0, len(ids) :].tolist()


# ------------------------------------------------------------------------------------------------------------- law 1


@pytest.mark.parametrize(("positive", "negative"), [(" weddings are fun", " "), ("Love", "Hate it all"), ("", "War")])
def test_law_1_values_are_the_difference_of_the_padded_prompts(case: Case, positive: str, negative: str) -> None:
    plus, minus = tokens_of(positive), tokens_of(negative)
    (space,) = tokens_of(" ")[1:]
    width = max(len(plus), len(minus))
    plus, minus = plus + [space] * (width - len(plus)), minus + [space] * (width - len(minus))
    expected = [a - b for a, b in zip(*(reference.block_inputs(case.hf, row) for row in (plus, minus)), strict=True)]
    vectors = sl.actadd(case.model, positive, negative, layers="all")
    assert list(vectors) == list(range(N_LAYERS))
    for layer, vector in vectors.items():
        wanted = expected[layer] - (expected[layer].mean(-1, keepdim=True) if case.centred else 0)
        assert vector.values.dtype == torch.float32
        assert vector.layer == layer
        close(vector.values, wanted)
        assert (vector.values[0] == 0).all(), "the BOS row must be exactly 0"
        assert vector.source["tokens"] == [plus, minus]


def test_law_1_one_layer_equals_many_from_one_pass(model: Any) -> None:
    many = sl.actadd(model, "Love", "Hate", layers=[2, 0])
    assert list(many) == [2, 0]
    for layer, vector in many.items():
        assert torch.equal(vector.values, sl.actadd(model, "Love", "Hate", layer=layer).values)


def test_law_1_a_pad_token_of_choice(case: Case) -> None:
    plus, minus = tokens_of(" weddings are fun"), tokens_of(" ")
    minus += [0] * (len(plus) - len(minus))  # 0 is <|endoftext|>: BOS, EOS and PAD at once
    h = [reference.block_inputs(case.hf, row)[1] for row in (plus, minus)]
    vector = sl.actadd(case.model, " weddings are fun", " ", layer=1, pad="<|endoftext|>")
    wanted = h[0] - h[1]
    close(vector.values, wanted - (wanted.mean(-1, keepdim=True) if case.centred else 0))


# ------------------------------------------------------------------------------------------------------------- law 2


@pytest.mark.parametrize("layer", [0, N_LAYERS - 1])
def test_law_2_coefficient_zero_equal_prompts_and_no_vectors_change_nothing(model: Any, layer: int) -> None:
    ids, mask = torch.tensor([random_ids(7)]), torch.tensor([[1] * 7])
    base = log_probs(model, ids.tolist())
    love = sl.actadd(model, "Love", "Hate", layer=layer)
    same = sl.actadd(model, "Love is all", "Love is all", layer=layer)
    assert not same.values.any()
    for vectors in ([], [0 * love], [same], [100 * same], [0 * love.at(1).on("all")], [-0.0 * love]):
        with sl.steer(model, *vectors):
            assert torch.equal(log_probs(model, ids.tolist()), base)
    masked = log_probs(model, ids.tolist(), attention_mask=mask)
    with sl.steer(model, 0 * love, 0 * love.at(1).on("last")):
        assert torch.equal(log_probs(model, ids.tolist(), attention_mask=mask), masked)


def test_law_2_swapping_the_prompts_negates(model: Any) -> None:
    there, back = sl.actadd(model, "Love", " hate it", layers="all"), sl.actadd(model, " hate it", "Love", layers="all")
    for layer in there:
        close(there[layer].values, -back[layer].values)
        assert torch.equal((-there[layer]).values, (-1 * there[layer]).values)


# ------------------------------------------------------------------------------------------------------------- law 3


@pytest.mark.parametrize("placement", ["front", "all", -3])
def test_law_3_nothing_before_the_layer_changes(model: Any, placement: Any) -> None:
    layer = 2
    vector = random_vector(model, layer, span_for(placement), scale=5)

    def earlier(name: str) -> bool:
        return name.startswith(("blocks.0.", "blocks.1.", "hook_embed", "hook_pos_embed", "embed.", "pos_embed."))

    ids = torch.tensor([random_ids(9)])
    _, base = model.run_with_cache(ids, names_filter=earlier, return_cache_object=False)
    with sl.steer(model, vector, placement=placement):
        _, steered = model.run_with_cache(ids, names_filter=earlier, return_cache_object=False)
    assert "blocks.1.hook_resid_post" in steered
    assert base.keys() == steered.keys()
    for name, activation in base.items():
        if isinstance(activation, torch.Tensor):
            assert torch.equal(activation, steered[name]), name


def test_law_3_the_activation_before_the_hook_is_not_overwritten(model: Any) -> None:
    """A hook that works in place would also change what the user recorded one hook earlier."""
    ids = torch.tensor([random_ids(6)])
    recorded: list[Tensor] = []

    def record(resid: Tensor, hook: Any) -> None:
        recorded.append(resid)  # the very tensor, no copy

    model.run_with_hooks(ids, fwd_hooks=[("blocks.0.hook_resid_post", record)])
    kept = recorded[0].clone()
    with sl.steer(model, random_vector(model, 1, 3, scale=5), random_vector(model, 1, 1).on("all")):
        model.run_with_hooks(ids, fwd_hooks=[("blocks.0.hook_resid_post", record)])
    assert torch.equal(recorded[1], kept)


@pytest.mark.parametrize("placement", ["front", "all"])
def test_law_3_logits_at_bos_do_not_change(model: Any, placement: Any) -> None:
    ids = random_ids(8)
    vector = sl.actadd(model, "Love", "Hate", layer=1)
    base = log_probs(model, ids)[0]
    with sl.steer(model, 5 * (vector if placement == "front" else vector.at(1)), placement=placement):
        steered = log_probs(model, ids)[0]
    assert torch.equal(steered[0], base[0])
    assert (steered[1:] - base[1:]).abs().max() > 0.1


# ------------------------------------------------------------------------------------------------------------- law 4


@few
@given(
    places=st.lists(
        st.tuples(st.integers(0, N_LAYERS - 1), st.integers(0, 5), st.integers(1, 3)), min_size=1, max_size=4
    ),
    data=st.data(),
)
@example(places=[(1, 1, 2), (1, 1, 2)], data=None)
def test_law_4_vectors_add_up_in_any_order(case: Case, places: list[tuple[int, int, int]], data: Any) -> None:
    ids, width = random_ids(8), 8
    injections, sums = [], {}
    for number, (layer, first, span) in enumerate(places):
        vector = random_vector(case.model, layer, span, seed=number)
        injections.append(sl.Injection(vector, first))
        sums[layer] = sums.get(layer, 0) + reference.placed(vector.values, first, width)
    shuffled = data.draw(st.permutations(injections)) if data else injections[::-1]
    expected = reference.log_probs(case.hf, ids, sums)
    for order in (injections, shuffled):
        with sl.steer(case.model, *order):
            close(log_probs(case.model, ids)[0], expected)


def test_law_4_several_vectors_at_one_place_equal_their_sum(model: Any) -> None:
    ids = random_ids(8)
    a, b = random_vector(model, 1, 3, seed=1), random_vector(model, 1, 2, seed=2)
    results = []
    for vectors in [(a, b), (b, a), (a + b,), (a, b, a, -1 * a), (sl.Condition((sl.Injection(a), sl.Injection(b))),)]:
        with sl.steer(model, *vectors):
            results.append(log_probs(model, ids))
    for result in results[1:]:
        close(result, results[0])
    with sl.steer(model, a), sl.steer(model, b):  # nested blocks act together
        close(log_probs(model, ids), results[0])
    with sl.steer(model, a, a):  # the same vector twice counts twice
        twice = log_probs(model, ids)
    with sl.steer(model, 2 * a):
        close(log_probs(model, ids), twice)


# ------------------------------------------------------------------------------------------------------------- law 5


@pytest.mark.parametrize("phrase", [" weddings", "I hate you because", "Ünïcode ☃ 雪"])
def test_law_5_a_prompt_of_spaces_becomes_the_phrase(case: Case, phrase: str) -> None:
    ids = tokens_of(phrase)
    (space,) = tokens_of(" ")[1:]
    vector = sl.actadd(case.model, phrase, " ", layer=0)
    with sl.steer(case.model, vector):
        steered = log_probs(case.model, [0] + [space] * (len(ids) - 1))[0]
    close(steered, log_probs(case.model, ids)[0])
    close(steered, reference.log_probs(case.hf, ids))


# ------------------------------------------------------------------------------------------------------------- law 6


@few
@given(
    lengths=st.lists(st.integers(1, 10), min_size=1, max_size=5),
    placement=st.sampled_from(PLACEMENTS),
    side=st.sampled_from(["left", "right"]),
    layer=st.integers(0, N_LAYERS - 1),
)
@example(lengths=[4, 9, 6], placement="back", side="right", layer=1)
@example(lengths=[4, 9, 6], placement="mid", side="left", layer=1)
@example(lengths=[9, 4, 4], placement="front", side="left", layer=0)
@example(lengths=[5, 8, 3], placement="all", side="left", layer=2)
@example(lengths=[5, 8, 3], placement="prompt", side="right", layer=1)
@example(lengths=[5, 8, 3], placement="from_last", side="left", layer=0)
@example(lengths=[5, 8, 3], placement="from_last", side="right", layer=1)
@example(lengths=[3, 8, 5], placement=-3, side="right", layer=2)
def test_law_6_a_batch_equals_its_rows(case: Case, lengths: list[int], placement: Any, side: str, layer: int) -> None:
    shortest = 4 if placement in (2, -3) else 2  # else the vector would not fit, which is another test
    lengths = [max(length, shortest) for length in lengths]
    rows, width = [random_ids(n, seed=i) for i, n in enumerate(lengths)], max(lengths)
    vector = random_vector(case.model, layer, span_for(placement, 2))
    left = side == "left"
    padded = [[0] * (width - len(r)) + r if left else r + [0] * (width - len(r)) for r in rows]
    mask = [[0] * (width - n) + [1] * n if left else [1] * n + [0] * (width - n) for n in lengths]
    with sl.steer(case.model, vector, placement=placement) as receipts:
        batch = log_probs(case.model, padded, attention_mask=torch.tensor(mask))
    for number, (ids, n) in enumerate(zip(rows, lengths, strict=True)):
        added = {layer: reference.placed(vector.values, placement, n)}
        real = batch[number, width - n :] if left else batch[number, :n]
        close(real, reference.log_probs(case.hf, ids, added))
    assert receipts[0].applications == len(rows)


# ------------------------------------------------------------------------------------------------------------- law 7


PROMPT, NEW, LAYER = random_ids(6, seed=3), 6, 1


@cache
def expected_tokens(architecture: str, placement: Any) -> list[int]:
    """Greedy tokens of the plain model, steered at `placement` (None: not) by the vector of the test below."""
    values = strong_values(placement)

    def additions(total: int) -> Any:
        return placement is not None and {
            LAYER: reference.placed(values, placement, len(PROMPT), total=total),
        }

    return reference.greedy(plain_model(architecture), PROMPT, NEW, additions)


def strong_values(placement: Any) -> Tensor:
    return torch.randn(span_for(placement), D_MODEL, generator=torch.Generator().manual_seed(1)) * 8


@pytest.mark.parametrize("placement", [*PLACEMENTS, "generated"])
def test_law_7_generation_with_and_without_cache(case: Case, placement: Any) -> None:
    vector = sl.SteeringVector(strong_values(placement), layer=LAYER, model=stamp(case.model))
    expected = expected_tokens(case.architecture, placement)
    assert expected != expected_tokens(case.architecture, None), "this vector is too weak to test anything"
    with sl.steer(case.model, vector, placement=placement):
        assert greedy(case.model, PROMPT, NEW, cache=True) == expected
        assert greedy(case.model, PROMPT, NEW, cache=False) == expected
        close(  # a plain call afterwards does not take the last prompt's length for its own
            log_probs(case.model, [*PROMPT, 5, 6])[0],
            reference.log_probs(case.hf, [*PROMPT, 5, 6], {LAYER: reference.placed(vector.values, placement, 8)}),
        )
    assert greedy(case.model, PROMPT, NEW, cache=True) == expected_tokens(case.architecture, None)


# ------------------------------------------------------------------------------------------------------------- law 9


def test_law_9_the_callers_random_state_is_untouched(model: Any) -> None:
    import random

    import numpy as np

    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    vector = sl.actadd(model, "Love", "Hate", layer=1)
    sl.mean_difference(model, ["good"], ["bad"], layer=1)
    with sl.steer(model, vector):
        log_probs(model, random_ids(6))
        greedy(model, random_ids(6), 3, cache=True)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


# ------------------------------------------------------------------------------------------------------------ law 10


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_law_10_whatever_ends_the_block_only_steerlens_hooks_go(model: Any, error: type[BaseException] | None) -> None:
    calls: list[str] = []
    name = "blocks.1.hook_resid_pre"

    def note(text: str) -> Any:
        def hook(resid: Tensor, hook: Any) -> None:
            calls.append(text)

        return hook

    vector, ids = random_vector(model, 1, 2), random_ids(5)
    base = log_probs(model, ids)
    with hooks_removed(model):
        model.add_hook(name, note("first"))
        model.add_hook(name, note("second"), is_permanent=True)
        before = live_hooks(model)
        try:
            with sl.steer(model, vector), sl.steer(model, vector.on("back")):
                log_probs(model, ids)
                model.add_hook(name, note("third"))
                if error is not None:
                    raise error("inside")
        except BaseException as caught:
            assert type(caught) is error
        calls.clear()
        assert torch.equal(log_probs(model, ids), base), "the model is still steered"
        assert calls == ["first", "second", "third"]
        after = live_hooks(model)
        assert sum(after.values()) == sum(before.values()) + 2  # the third, in TransformerLens' list and in PyTorch's
    calls.clear()
    log_probs(model, ids)
    assert calls == []


def test_law_10_an_error_inside_the_forward_pass(model: Any) -> None:
    def fail(resid: Tensor, hook: Any) -> None:
        raise KeyboardInterrupt

    before = live_hooks(model)
    with pytest.raises(KeyboardInterrupt), sl.steer(model, random_vector(model, 0, 2)):
        model.run_with_hooks(torch.tensor([random_ids(5)]), fwd_hooks=[("blocks.1.hook_resid_pre", fail)])
    model.reset_hooks()
    assert live_hooks(model) == before
    assert "generate" not in model.__dict__


def test_law_10_live_hooks_stay_out_of_extraction_unless_asked_for(model: Any) -> None:
    clean = sl.actadd(model, "Love", "Hate", layer=2)
    clean_mean = sl.mean_difference(model, ["Love"], ["Hate it"], layer=2)
    calls: list[str] = []

    def disturb(resid: Tensor, hook: Any) -> Tensor:
        calls.append("disturb")
        # nonlinear and different for each row, so that it cannot cancel in the difference
        return resid * torch.linspace(0.5, 1.5, resid.shape[0])[:, None, None]

    model.add_hook("blocks.1.hook_resid_pre", disturb)
    try:
        assert torch.equal(sl.actadd(model, "Love", "Hate", layer=2).values, clean.values)
        assert torch.equal(sl.mean_difference(model, ["Love"], ["Hate it"], layer=2).values, clean_mean.values)
        assert calls == []
        disturbed = sl.actadd(model, "Love", "Hate", layer=2, live_hooks=True)
        assert calls
        assert (disturbed.values - clean.values).abs().max() > 0.1
        calls.clear()
        log_probs(model, random_ids(4))
        assert calls == ["disturb"], "the user's hook is alive again after extraction"
    finally:
        model.reset_hooks()


def test_law_10_an_enclosing_steer_stays_out_of_extraction_unless_asked_for(model: Any) -> None:
    clean = sl.actadd(model, "Love", "Hate", layer=2)
    strong = random_vector(model, 1, 1, scale=5).on("all")
    ids = random_ids(5)
    with sl.steer(model, strong) as receipts:
        assert torch.equal(sl.actadd(model, "Love", "Hate", layer=2).values, clean.values)
        assert receipts[0].applications == 0
        inside = sl.actadd(model, "Love", "Hate", layer=2, live_hooks=True)
        assert receipts[0].applications == 2
        steered = log_probs(model, ids)
    assert (inside.values - clean.values).abs().max() > 1e-3
    with sl.steer(model, strong):
        assert torch.equal(log_probs(model, ids), steered), "extraction left the enclosing steer intact"


def test_law_10_reset_hooks_inside_the_block_does_not_end_the_steering(model: Any) -> None:
    vector, ids = random_vector(model, 1, 2), random_ids(5)
    with sl.steer(model, vector):
        steered = log_probs(model, ids)
    with sl.steer(model, vector):
        model.reset_hooks()
        assert torch.equal(log_probs(model, ids), steered)
        with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda resid, hook: None)]):
            assert torch.equal(log_probs(model, ids), steered)
        assert torch.equal(log_probs(model, ids), steered)


# ------------------------------------------------------------------------------------------------------------ law 11


@pytest.mark.parametrize("placement", ["front", "mid", "back", 0, -2])
def test_law_11_a_vector_longer_than_the_prompt(gpt2: Any, placement: Any) -> None:
    model, vector = gpt2, random_vector(gpt2, 1, 5)
    with (
        pytest.raises(sl.SteerlensError, match=r"spans 5 positions.*3 tokens"),
        sl.steer(model, vector, placement=placement),
    ):
        log_probs(model, random_ids(3))
    with (
        pytest.raises(sl.SteerlensError, match=r"spans 5 positions.*3 tokens"),
        sl.steer(model, vector, placement=placement),
    ):
        log_probs(
            model,
            [random_ids(6), [0, 0, 0, *random_ids(3)]],
            attention_mask=torch.tensor([[1] * 6, [0, 0, 0, 1, 1, 1]]),
        )


@pytest.mark.parametrize(("placement", "span"), [(4, 2), (5, 1), (-6, 1), (-1, 2), (50, 1)])
def test_law_11_an_index_outside_the_prompt(gpt2: Any, placement: int, span: int) -> None:
    with (
        pytest.raises(sl.SteerlensError, match="use an index from"),
        sl.steer(gpt2, random_vector(gpt2, 1, span), placement=placement),
    ):
        log_probs(gpt2, random_ids(5))


@pytest.mark.parametrize("placement", ["all", "last", "prompt", "generated", "from_last"])
def test_law_11_a_long_vector_where_only_one_position_goes(model: Any, placement: Any) -> None:
    with (
        pytest.raises(sl.SteerlensError, match=r"takes a vector of 1 position.*spans 2"),
        sl.steer(model, random_vector(model, 1, 2), placement=placement),
    ):
        log_probs(model, random_ids(5))


@pytest.mark.parametrize("layer", [-1, N_LAYERS, 1000])
def test_law_11_a_layer_out_of_range(any_model: Any, layer: int) -> None:
    with pytest.raises(sl.SteerlensError, match="out of range for a model of 3 layers; use 0 to 2"):
        sl.actadd(any_model, "Love", "Hate", layer=layer)
    with pytest.raises(sl.SteerlensError, match="out of range"):
        sl.actadd(any_model, "Love", "Hate", layers=[0, layer])
    with pytest.raises(sl.SteerlensError, match="out of range"):
        sl.SteeringVector(torch.zeros(1, D_MODEL), layer=layer, model=stamp(any_model))


def test_law_11_a_vector_of_another_model(case: Case) -> None:
    vector = random_vector(case.model, 1, 2)
    origin = vector.model
    others = {
        "d_model is": ModelStamp(**{**vars(origin), "d_model": 16}),
        "n_layers is": ModelStamp(**{**vars(origin), "n_layers": 12}),
        "layer-norm folding": ModelStamp(**{**vars(origin), "folded": not origin.folded}),
        "centring": ModelStamp(**{**vars(origin), "centred": not origin.centred}),
        "weights differ": ModelStamp(**{**vars(origin), "sketch": tuple(-x for x in origin.sketch)}),
    }
    for words, other in others.items():
        stranger = sl.SteeringVector(torch.ones(2, other.d_model), layer=1, model=other)
        with pytest.raises(sl.SteerlensError, match=words), sl.steer(case.model, stranger):
            pytest.fail("the block must not be entered")


def test_law_11_a_one_token_prompt(model: Any) -> None:
    """[BOS] alone: what can be added there is, what cannot is an error, nothing is silent."""
    one, ids = random_vector(model, 1, 1, scale=3), [0]
    base = log_probs(model, ids)
    for placement in ("front", "mid", "back", "last", 0, -1):
        with sl.steer(model, one, placement=placement) as receipts:
            assert (log_probs(model, ids) - base).abs().max() > 0.01
        assert receipts[0].positions == (0,)
    with (
        pytest.raises(sl.SteerlensError, match="spans 2 positions but the prompt has 1 token"),
        sl.steer(model, random_vector(model, 1, 2)),
    ):
        log_probs(model, ids)
    # "all" and "prompt" mean positions after BOS: there is none.
    with pytest.raises(sl.SteerlensError, match="never added"), sl.steer(model, one, placement="prompt"):
        assert torch.equal(log_probs(model, ids), base)
    with pytest.raises(sl.SteerlensError, match="never added"), sl.steer(model, one, placement="all"):
        assert torch.equal(log_probs(model, ids), base)
    with pytest.raises(sl.SteerlensError, match="never added"), sl.steer(model, one, placement="all"):
        log_probs(model, [[0, 0], [0, 0]], attention_mask=torch.tensor([[0, 1], [0, 1]]))


# ------------------------------------------------------------------------------------------------------------ law 12


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_law_12_receipts_tell_what_was_added_where(model: Any, placement: Any) -> None:
    span, n = span_for(placement, 2), 6
    vector = 3 * random_vector(model, 2, span)
    expected = {
        "front": (0, 1),
        "mid": (2, 3),
        "back": (4, 5),
        "last": (5,),
        "all": (1, 2, 3, 4, 5),
        "prompt": (1, 2, 3, 4, 5),
        "from_last": (5,),
        0: (0, 1),
        2: (2, 3),
        -3: (3, 4),
    }[placement]
    with sl.steer(model, vector, placement=placement) as receipts:
        (receipt,) = receipts
        assert receipt.applications == 0
        log_probs(model, random_ids(n))
        assert receipt.applications == 1
        log_probs(model, [random_ids(n), random_ids(n, 1)])
    assert receipt.applications == 3
    assert receipt.hook == "blocks.2.hook_resid_pre"
    assert (receipt.layer, receipt.placement, receipt.positions) == (2, placement, expected)
    assert receipt.norm == pytest.approx(float(vector.values.norm()))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_law_12_receipts_count_positions_from_the_first_real_token(gpt2: Any, placement: Any, side: str) -> None:
    span = span_for(placement, 2)
    ids, other = random_ids(5), random_ids(8)
    row = [0, 0, 0, *ids] if side == "left" else [*ids, 0, 0, 0]
    mask = [[0] * 3 + [1] * 5 if side == "left" else [1] * 5 + [0] * 3, [1] * 8]
    expected = {"front": (0, 1), "mid": (1, 2), "back": (3, 4), "last": (4,), "all": (1, 2, 3, 4), 0: (0, 1)}
    expected |= {"prompt": (1, 2, 3, 4), "from_last": (4,)}
    with sl.steer(gpt2, random_vector(gpt2, 1, span), placement=placement) as receipts:
        log_probs(gpt2, [row, other], attention_mask=torch.tensor(mask))
    assert receipts[0].positions == (expected | {2: (2, 3), -3: (2, 3)})[placement]
    assert receipts[0].applications == 2


def test_law_12_a_vector_that_was_never_added_is_an_error(model: Any) -> None:
    vector = random_vector(model, 1, 2)
    with pytest.raises(sl.SteerlensError, match=r"never added.*blocks\.1\.hook_resid_pre"), sl.steer(model, vector):
        pass
    with pytest.raises(sl.SteerlensError, match="never added"), sl.steer(model, random_vector(model, 2, 2)):
        model.run_with_cache(
            torch.tensor([random_ids(5)]), stop_at_layer=1, names_filter="blocks.0.hook_resid_pre", return_type=None
        )
    # The user's own error is not covered up by ours.
    with pytest.raises(ZeroDivisionError), sl.steer(model, vector):
        raise ZeroDivisionError


def test_law_12_a_zero_vector_was_added(model: Any) -> None:
    with sl.steer(model, 0 * random_vector(model, 1, 2)) as receipts:
        log_probs(model, random_ids(5))
    assert (receipts[0].applications, receipts[0].norm) == (1, 0.0)
