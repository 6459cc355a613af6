"""`next_token_logits`, `score` and the reductions against the plain loop: one prompt, one condition, hooks by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock
from weakref import WeakKeyDictionary

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import steerlens as sl
from steerlens.engine.growing import can_grow_by_hooks
from steerlens.engine.jobs import Passage
from steerlens.engine.passes import Job
from steerlens.engine.reductions import reduce_next_tokens
from steerlens.models import resid_pre_hook, stamp
from steerlens.steering.conditions import as_condition
from steerlens.steering.prompts import prompt_ids
from steerlens.steering.tokens import continuation_ids
from tests import reference
from tests.conftest import KINDS, Case, live_hooks, loaded, make_tokenizer, plain_model

# 1 to 14 tokens and BOS; the first is one character
PROMPTS = (
    "I",
    "The dog",
    "I hate you because",
    "Once upon a time there was a",
    "The little girl went to the park with her mother and saw",
)
TEXTS = (" the sun", " and they were happy because it was a big day.", " cat")


def vector(model: Any, layer: int, n: int = 1, seed: int = 0, size: float = 1.0, placement: Any = "front") -> Any:
    """A vector of n random positions."""
    noise = torch.randn(n, model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return size * sl.SteeringVector(noise, layer, stamp(model), label=f"v{seed}", placement=placement)


def additions(condition: Any, length: int, total: int) -> dict[int, Tensor]:
    """What the condition adds to a prompt of `length` tokens, by layer, [total d_model]."""
    added: dict[int, Tensor] = {}
    for injection in condition.injections:
        one = injection.vector
        rows = reference.placed(one.values, injection.placement, length, total=total)
        rows = torch.nn.functional.pad(rows, (0, 0, 0, total - len(rows)))
        added[one.layer] = added.get(one.layer, 0) + rows
    return added


def plain_logits(model: Any, ids: list[int], condition: Any, prompt_length: int | None = None) -> Tensor:
    """Logits at every position, [pos d_vocab]: TransformerLens' own hooks, no padding, no mask."""
    added = additions(condition, prompt_length or len(ids), len(ids))

    def adder(values: Tensor) -> Any:
        return lambda resid, hook: resid + values.to(resid.dtype)

    hooks = [(resid_pre_hook(layer), adder(values)) for layer, values in added.items()]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        return model(torch.tensor([ids]))[0]


def assert_same(logits: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest logit: float32 rounds by that much when a batch is laid out differently."""
    assert logits.shape == expected.shape
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)


@dataclass
class Grid:
    prompts: list[str]
    steering: list[Any]
    batch_size: int | None


@st.composite
def grids(draw: st.DrawFn, model: Any, texts: tuple[str, ...] = PROMPTS, later: bool = False) -> Grid:
    prompts = draw(st.lists(st.sampled_from(texts), min_size=1, max_size=4))
    shortest = min(len(prompt_ids(model, prompt)) for prompt in prompts)
    ranges = [one for one in reference.RANGES if one != "generated" or later]

    @st.composite
    def injection(draw: st.DrawFn) -> Any:
        placement = draw(st.sampled_from(["front", "mid", "back", *ranges, "last", 0, 1, -1, -2]))
        most = {**dict.fromkeys(ranges, 1), "last": 1, 1: shortest - 1, -1: 1}.get(
            placement, min(shortest, 2 if placement == -2 else 4)
        )
        n = draw(st.integers(1, max(most, 1)))
        size = draw(st.sampled_from([0.0, 1.0, -2.5, 4.0]))
        layer = draw(st.integers(0, model.cfg.n_layers - 1))
        return sl.Injection(vector(model, layer, n, draw(st.integers(0, 5)), size), placement)

    one = st.one_of(st.none(), st.lists(injection(), min_size=1, max_size=3).map(tuple))
    conditions = draw(st.lists(one, min_size=1, max_size=5))
    if draw(st.booleans()):
        conditions.append(conditions[0])
    # What begins alike shares rows.
    if draw(st.booleans()) and conditions[0]:
        conditions.append((*conditions[0], draw(injection())))
    return Grid(prompts, conditions, draw(st.sampled_from([None, 1, 2, 3, 5, 7])))


drawn = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


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


@given(data=st.data())
@drawn
def test_scores_of_continuations_equal_the_plain_loop(case: Case, data: st.DataObject) -> None:
    model = case.model
    job = data.draw(grids(model, later=True))
    texts = data.draw(st.lists(st.sampled_from(TEXTS), min_size=len(job.prompts), max_size=len(job.prompts)))
    frame = sl.score(model, texts, job.steering, prompt=job.prompts, batch_size=job.batch_size)
    done = 0
    for c, one in enumerate(job.steering):
        condition = as_condition(one)
        for index, (prompt, text) in enumerate(zip(job.prompts, texts, strict=True)):
            before, after = prompt_ids(model, prompt), continuation_ids(model, text)
            logits = plain_logits(model, before + after, condition, len(before))
            expected = logits.log_softmax(-1)[range(len(before) - 1, len(before + after) - 1), after]
            rows = frame[(frame.condition == c) & (frame.text_index == index)]
            assert rows.token_id.tolist() == after
            assert rows.position.tolist() == list(range(len(before), len(before + after)))
            assert set(rows.prompt) == {prompt}
            assert set(rows.text) == {text}
            torch.testing.assert_close(torch.tensor(rows.logprob.values).float(), expected, rtol=1e-5, atol=2e-5)
            done += len(rows)
    assert done == len(frame)


@pytest.mark.parametrize("placement", reference.RANGES)
def test_ranges_of_scored_continuations(case: Case, placement: Any) -> None:
    """One row of a vector at many positions: in prompts of several lengths, and in what is scored behind them."""
    one = vector(case.model, 1, size=3.0, placement=placement)
    prompts, text = [PROMPTS[2], PROMPTS[3]], TEXTS[1]
    frame = sl.score(case.model, [text] * 2, [None, one], prompt=prompts)
    for index, prompt in enumerate(prompts):
        before, after = prompt_ids(case.model, prompt), continuation_ids(case.model, text)
        rows = reference.placed(one.values, placement, len(before), total=len(before + after))
        logprobs = reference.log_probs(case.hf, before + after, {1: rows})
        expected = logprobs[range(len(before) - 1, len(before + after) - 1), after]
        found = frame[(frame.condition == 1) & (frame.text_index == index)].logprob
        torch.testing.assert_close(torch.tensor(found.values).float(), expected, rtol=1e-5, atol=1e-4)


def test_generated_tokens_are_asked_for_where_there_are_none(any_model: Any) -> None:
    one = vector(any_model, 1, placement="generated")
    for ask in (sl.next_token_logits, sl.score):
        with pytest.raises(sl.SteerlensError, match="goes to generated tokens only.*use placement='from_last'"):
            ask(any_model, "The dog ran", [None, one])


def test_scores_of_texts_by_hand(case: Case) -> None:
    """Without a prompt the text is steered itself; the perplexity of the unsteered text is Hugging Face's loss."""
    model, condition = case.model, as_condition(vector(case.model, 1, 2, size=2.0, placement="mid"))
    texts = [PROMPTS[2], PROMPTS[4], "dog"]
    frame = sl.score(model, texts, [None, condition, None], batch_size=2)
    assert frame.condition.unique().tolist() == [0, 1, 2]
    for index, text in enumerate(texts):
        ids = prompt_ids(model, text)
        mine = frame[frame.text_index == index]
        loss = case.hf(torch.tensor([ids]), labels=torch.tensor([ids])).loss
        assert -mine[mine.condition == 0].logprob.mean() == pytest.approx(float(loss), rel=1e-5)
        steered = reference.log_probs(case.hf, ids, additions(condition, len(ids), len(ids)))
        by_hand = float(steered[range(len(ids) - 1), ids[1:]].sum())
        assert mine[mine.condition == 1].logprob.sum() == pytest.approx(by_hand, rel=1e-5, abs=1e-4)
        assert mine[mine.condition == 2].logprob.tolist() == mine[mine.condition == 0].logprob.tolist()
        assert "".join(mine[mine.condition == 1].token) == text


def test_score_frame_has_its_columns(any_model: Any) -> None:
    v = vector(any_model, 2, size=3.0)
    frame = sl.score(any_model, "The dog ran", [None, v, (v, vector(any_model, 0))], placement="last")
    assert list(frame.columns) == [
        "condition", "label", "layer", "coeff", "placement", "prompt", "text_index", "text", "position", "token",
        "token_id", "logprob",
    ]  # fmt: skip
    first = frame.drop_duplicates("condition").set_index("condition")
    assert first.label.tolist() == ["unsteered", v.title, f"{v.title}, 1 × (v0)"] or first.label[0] == "unsteered"
    assert str(frame.layer.dtype) == "Int64"
    assert first.layer.isna().tolist() == [True, False, True]
    assert first.layer[1] == 2
    assert first.coeff.iloc[:2].tolist() == [0.0, 3.0]
    assert first.placement.tolist() == ["", "last", "last"]
    assert set(frame.prompt) == {""}
    assert frame.logprob.lt(0).all()
    assert frame.position.min() == 1  # the first real token is predicted from BOS


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


@pytest.mark.parametrize(("batch_size", "base"), [(None, 0), (1, 2), (2, -1), (5, 0)])
@pytest.mark.parametrize("positions", ["last", "all"])
def test_reductions_equal_those_of_the_logits(
    gpt2: Any, batch_size: int | None, positions: Any, base: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steerlens.engine.passes.slice_rows", lambda model, budget: 4)
    steering = [None, vector(gpt2, 2, 1, 1, 3.0), vector(gpt2, 0, 2, 2), None, (vector(gpt2, 1), vector(gpt2, 2))]
    prompts = [PROMPTS[3], PROMPTS[0], PROMPTS[1], PROMPTS[1]]
    targets = torch.tensor([[5, 77, 901], [0, 1, 2], [8, 8, 8], [3, 4, 5]])
    sets = [[3, 9, 9, 27], list(range(100, 4000))]
    found = reduce_next_tokens(
        gpt2, prompts, steering, targets=targets, ranks=True, sets=sets, entropy=True, base=base, top_k=6, likely=3,
        positions=positions, batch_size=batch_size,
    )  # fmt: skip
    rows = [prompt_ids(gpt2, prompt) for prompt in prompts]
    assert found.prompts == tuple(map(tuple, rows))
    close = {"rtol": 1e-5, "atol": 2e-5}
    for p, ids in enumerate(rows):
        logprobs = torch.stack([plain_logits(gpt2, ids, as_condition(one)) for one in steering]).log_softmax(-1)
        for c, lp in enumerate(logprobs):
            for t in [len(ids) - 1] if positions == "last" else range(len(ids)):
                cell = (c, p) if positions == "last" else (c, p, t)
                mine, other = lp[t], logprobs[base, t]
                torch.testing.assert_close(found.logprobs[cell], mine[targets[p]], **close)
                expected_ranks = torch.stack([(mine > mine[i]).sum() for i in targets[p]])
                assert (found.ranks[cell] - expected_ranks).abs().max() <= 1  # two tokens may be a rounding apart
                in_sets = torch.stack([mine.exp()[sorted(set(ids_))].sum() for ids_ in sets]).log()
                torch.testing.assert_close(found.set_logprobs[cell], in_sets, **close)
                torch.testing.assert_close(found.entropy[cell], -(mine.exp() * mine).sum(), **close)
                kl = (mine.exp() * (mine - other)).sum()
                torch.testing.assert_close(found.kl[cell], kl.clamp_min(0), **close)
                torch.testing.assert_close(found.likely.logprobs[cell], mine.topk(3).values, **close)
                for top, sign in ((found.rises, 1), (found.falls, -1)):
                    change = top.logprobs[cell] - top.base_logprobs[cell]
                    torch.testing.assert_close(
                        change, sign * (sign * (mine - other)).topk(6).values, rtol=1e-5, atol=4e-5
                    )
                    torch.testing.assert_close(top.logprobs[cell], mine[top.ids[cell]], **close)
            if positions == "all":
                assert found.kl[c, p, len(ids) :].isnan().all()
                assert (found.rises.ids[c, p, len(ids) :] == -1).all()
    assert (found.kl[base][~found.kl[base].isnan()] == 0).all()


def test_kl_splits_into_disruption_and_effect(any_model: Any) -> None:
    """KL = KL of the two-way split (in the set or not) + what is left within the two parts (law 13)."""
    words = [17, 423, 3000]
    v = vector(any_model, 1, 2, size=2.0)
    found = reduce_next_tokens(any_model, PROMPTS[2], [None, v], sets=[words], base=0)
    lp = sl.next_token_logits(any_model, PROMPTS[2], [None, v]).log_softmax(-1)
    inside = torch.zeros(lp.shape[1], dtype=torch.bool).index_fill(0, torch.tensor(words), True)
    split, within = torch.tensor(0.0), torch.tensor(0.0)
    for part in (inside, ~inside):
        base, mine = lp[:, part].logsumexp(1)
        split += mine.exp() * (mine - base)
        within += (lp[1, part].exp() * ((lp[1, part] - mine) - (lp[0, part] - base))).sum()
    torch.testing.assert_close(found.kl[1, 0], split + within, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.set_logprobs[:, 0, 0], lp[:, inside].logsumexp(1), rtol=1e-5, atol=1e-5)


def test_impossible_tokens_do_not_spoil_sums(any_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding of a vocabulary may have logit −inf: it has probability 0 and counts for nothing."""
    b_U = any_model.unembed.b_U if hasattr(any_model.unembed, "b_U") else any_model.unembed.bias
    # A vector knows the weights of the model that it is declared for, and these change.
    before = b_U[-5:].clone()
    with torch.no_grad():
        b_U[-5:] = -torch.inf
    try:
        found = reduce_next_tokens(any_model, "The dog", [None, vector(any_model, 1)], entropy=True, base=0, top_k=3)
    finally:
        with torch.no_grad():
            b_U[-5:] = before
    assert found.entropy.isfinite().all()
    assert found.kl.isfinite().all()
    assert found.kl[1] > 0


def test_the_caller_s_hooks_act_as_in_a_plain_call(case: Case) -> None:
    model, v = case.model, vector(case.model, 1, 2, 1)
    outer = vector(case.model, 0, 1, 2, 2.0, "back")
    shapes = set()

    def halve_last(resid: Tensor, hook: Any) -> Tensor:
        resid = resid.clone()
        resid[:, -1] *= 0.5  # the last position by its place in the tensor: right only without padding
        return resid

    def look(resid: Tensor, hook: Any) -> None:
        shapes.add(resid.shape[1:])

    prompts = list(PROMPTS)
    with sl.steer(model, outer), model.hooks(fwd_hooks=[(resid_pre_hook(2), halve_last), (resid_pre_hook(2), look)]):
        steered = sl.next_token_logits(model, prompts, [None, v])
        texts = sl.score(model, prompts, [None, v])
        expected = []
        for one in (None, v):
            for prompt in prompts:
                ids = prompt_ids(model, prompt)
                expected.append(plain_logits(model, ids, as_condition(one)))
    last = torch.stack([logits[-1] for logits in expected])
    assert_same(steered.flatten(0, 1), last)
    sums = texts.groupby(["condition", "text_index"]).logprob.sum().tolist()
    for total, logits, prompt in zip(sums, expected, prompts * 2, strict=True):
        ids = prompt_ids(model, prompt)
        assert total == pytest.approx(float(logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]].sum()), abs=1e-3)
    assert shapes == {(len(prompt_ids(model, prompt)), model.cfg.d_model) for prompt in prompts}


def test_hooks_go_and_the_caller_s_stay(case: Case) -> None:
    model = case.model
    seen = []
    sl.next_token_logits(model, "The dog", vector(model, 1))  # a bridge puts hooks of its own in its first pass
    with model.hooks(fwd_hooks=[(resid_pre_hook(1), lambda resid, hook: seen.append(1))]):
        before = live_hooks(model)
        sl.next_token_logits(model, "The dog", [vector(model, 1), None])
        with pytest.raises(sl.SteerlensError, match="vector spans 9 positions"):
            sl.next_token_logits(model, "The dog", vector(model, 1, 9))
        assert live_hooks(model) == before
    assert seen


@contextmanager
def counted_rows(model: Any) -> Iterator[dict[int, list[int]]]:
    """How many rows come out of each block, call by call."""
    rows: dict[int, list[int]] = {}
    kind = type(model.blocks[0])
    forward = kind.forward
    layer_of = {id(block): layer for layer, block in enumerate(model.blocks)}

    def counted(block: Any, *args: Any, **options: Any) -> Any:
        result = forward(block, *args, **options)
        if id(block) in layer_of:
            rows.setdefault(layer_of[id(block)], []).append(len(result[0] if isinstance(result, tuple) else result))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "forward", counted)
        yield rows


@pytest.mark.parametrize("kind", KINDS)
def test_a_condition_costs_only_the_blocks_behind_its_injection(kind: str) -> None:
    gpt2 = loaded.__wrapped__("gpt2", kind)  # a fresh one: what others hooked onto theirs would change the way
    grid = [vector(gpt2, layer, 1, seed, size) for layer in range(3) for seed, size in ((1, 1.0), (2, 2.0))]
    sl.next_token_logits(gpt2, "I", grid)  # a bridge is tried first
    gpt2.run_with_cache(gpt2.to_tokens("I"))  # after which transformers leaves hooks of its own on the wrapped model
    with counted_rows(gpt2) as rows:
        sl.next_token_logits(gpt2, PROMPTS[4], grid)
    # Two rows more at every layer; the clean row until the last layer has taken its copy.
    assert rows == {0: [3], 1: [5], 2: [6]}
    a, b, c = vector(gpt2, 0, 1, 1), vector(gpt2, 2, 1, 2), vector(gpt2, 2, 1, 3)
    with counted_rows(gpt2) as rows:
        sl.next_token_logits(gpt2, [PROMPTS[4]], [None, (a, b), (c, a), None, a, (b, a)])
    # (a, b) and (c, a) begin as a does; equal and empty conditions are one row.
    assert rows == {0: [2], 1: [2], 2: [4]}
    with counted_rows(gpt2) as rows:
        sl.next_token_logits(gpt2, [PROMPTS[2], PROMPTS[2]], grid)
    assert rows == {0: [6], 1: [10], 2: [12]}


@pytest.mark.skipif("hooked" not in KINDS, reason="TransformerLens 4 has no HookedTransformer")
@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_only_what_is_wanted_reaches_the_unembedding(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, heads = loaded(architecture, "hooked"), []
    forward = type(model.unembed).forward

    def counted(unembed: Any, resid: Tensor) -> Tensor:
        heads.append(resid.shape[0] * resid.shape[1])
        return forward(unembed, resid)

    monkeypatch.setattr(type(model.unembed), "forward", counted)
    conditions = [None, vector(model, 1), vector(model, 2), vector(model, 2)]
    sl.next_token_logits(model, [PROMPTS[4], PROMPTS[2]], conditions[:3])
    assert sum(heads) == 6
    heads.clear()
    frame = sl.score(model, TEXTS, conditions[:3], prompt=PROMPTS[4])
    assert sum(heads) == len(frame)


@pytest.mark.parametrize("growing", [True, False])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_every_way_of_running_gives_the_same(case: Case, growing: bool, batch_size: int | None) -> None:
    way: Any = "rows" if not growing else "walk" if case.kind.startswith("hooked") else "hooks"
    a, b = vector(case.model, 1, 2, 1), vector(case.model, 2, 1, 2, placement="last")
    conditions = [as_condition(one) for one in (b, None, (a, b), a, sl.Injection(b, "all"))]
    rows = [tuple(prompt_ids(case.model, prompt)) for prompt in PROMPTS[1:4]]
    passages = [Passage(ids, len(ids), max(len(ids) - 2, 0), len(ids)) for ids in rows]
    found = torch.full((len(conditions), len(rows), 2, case.model.cfg.d_vocab), torch.nan)
    for cells in Job.of(case.model, passages, conditions).cells(way=way, batch_size=batch_size):
        found[cells.leaf, cells.passage, cells.offset] = cells.logits
    for c, condition in enumerate(conditions):
        for p, ids in enumerate(rows):
            assert_same(found[c, p], plain_logits(case.model, list(ids), condition)[-2:])


def test_a_bridge_that_does_not_grow_runs_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gpt2", "bridge-raw")
    grid = [None, vector(model, 1), vector(model, 2)]
    expected = sl.next_token_logits(model, list(PROMPTS), grid)
    monkeypatch.setattr("steerlens.engine.growing._TRIED", WeakKeyDictionary())
    broken = RuntimeError("The size of tensor a must match the size of tensor b")
    with monkeypatch.context() as patch:
        patch.setattr("steerlens.engine.growing.grow_by_hooks", Mock(side_effect=broken))
        assert not can_grow_by_hooks(model)
    with counted_rows(model) as rows:
        assert_same(sl.next_token_logits(model, list(PROMPTS), grid), expected)
    assert {sum(calls) for calls in rows.values()} == {3 * len(PROMPTS)}


def test_batches_are_what_was_asked_for(any_model: Any) -> None:
    grid = [None, *(vector(any_model, layer, 1, layer) for layer in range(3))]
    sl.next_token_logits(any_model, "I", grid)
    for batch_size in (1, 3, 4, 100):
        with counted_rows(any_model) as rows:
            sl.next_token_logits(any_model, list(PROMPTS), grid, batch_size=batch_size)
        assert max(rows[2]) <= batch_size
        assert sum(rows[2]) == len(PROMPTS) * len(grid)


def test_a_device_out_of_memory_is_told_what_would_help(any_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory."))
    monkeypatch.setattr(type(any_model.blocks[1]), "forward", full)
    v = vector(any_model, 0)
    with pytest.raises(sl.SteerlensError, match="out of memory with 4 rows of 3 tokens; give a smaller batch_size"):
        sl.next_token_logits(any_model, ["The dog"] * 2, [None, v])
    with pytest.raises(sl.SteerlensError, match="out of memory with 1 rows of 3 tokens; shorten"):
        sl.next_token_logits(any_model, "The dog", v)


def test_what_does_not_fit_is_said_in_one_line(any_model: Any) -> None:
    v = vector(any_model, 1)
    ask = sl.next_token_logits
    cases: list[tuple[Any, str]] = [
        (lambda: ask(any_model, "The dog", v, batch_size=0), "batch_size must be a whole number of at least 1, got 0"),
        (lambda: ask(any_model, "The dog", v, memory_budget=1000), "does not hold one row of 3 tokens"),
        (lambda: ask(any_model, [], v), "the list of prompts is empty"),
        (lambda: ask(any_model, "", v), "the prompt is empty"),
        (lambda: ask(any_model, "The dog", []), "the list of conditions is empty"),
        (lambda: ask(any_model, ["Once upon a time", "I"], vector(any_model, 1, 3)), "vector spans 3 .* has 2 tokens"),
        (lambda: ask(any_model, "The dog", vector(any_model, 1, 2), placement="last"), "takes a vector of 1 position"),
        (lambda: ask(any_model, "The dog", v, placement=-4), "use an index from -3 to 2"),
        (lambda: ask(plain_model("gpt2"), "The dog", v), "expected a HookedTransformer or TransformerBridge"),
        (lambda: sl.score(any_model, ""), "nothing to be predicted from"),
        (lambda: sl.score(any_model, ["a", ""], prompt="The"), "a text is empty"),
        (lambda: sl.score(any_model, [" a", " b"], prompt=["The"]), "1 prompts for 2 texts"),
        (lambda: sl.score(any_model, " dog" * 50, prompt="The dog" * 20), "do not fit the model's context of 64"),
        (lambda: reduce_next_tokens(any_model, "I", [v], base=1), "base=1 is no index into 1 conditions"),
        (lambda: reduce_next_tokens(any_model, "I", [v], top_k=3), "give base="),
        (
            lambda: reduce_next_tokens(any_model, "I", [v], base=0, top_k=9000),
            "top_k must be a whole number from 1 to 8200",
        ),
        (lambda: reduce_next_tokens(any_model, "I", [v], ranks=True), "give targets="),
        (lambda: reduce_next_tokens(any_model, "I", [v], targets=[8200]), "token 8200"),
        (lambda: reduce_next_tokens(any_model, "I", [v], targets=[[1], [2]]), "2 rows for 1 prompts"),
        (lambda: reduce_next_tokens(any_model, "I", [v], sets=[[1], []]), "a set of tokens is empty"),
        (lambda: reduce_next_tokens(any_model, "I", [v], positions="some"), "positions must be"),  # type: ignore[arg-type]
    ]
    for ask_for, message in cases:
        with pytest.raises(sl.SteerlensError, match=message) as raised:
            ask_for()
        assert "\n" not in str(raised.value)


def test_results_are_ordinary_and_the_random_state_is_the_caller_s(gpt2: Any) -> None:
    state = torch.get_rng_state()
    logits = sl.next_token_logits(gpt2, "The dog", vector(gpt2, 1))
    found = reduce_next_tokens(gpt2, "The dog", [None, vector(gpt2, 1)], base=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    for tensor in (logits, found.kl):
        assert tensor is not None
        assert not tensor.is_inference()
        assert not tensor.requires_grad
        tensor += 1


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
