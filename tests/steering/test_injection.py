"""`steer` in use, beyond the laws (test_laws.py): masks, caches, generation, dtypes, gradients, odd callers."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import decode_logits, is_bridge, prefill, stamp
from steerlens.steering import Part, injecting
from tests import reference
from tests.conftest import KINDS, VOCAB, Case, live_hooks, loaded, plain_model

D = reference.D_MODEL
few = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def ids_of(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [0, *torch.randint(1, VOCAB - 10, (length - 1,), generator=generator).tolist()]


def vector_on(model: Any, layer: int = 1, span: int = 2, *, seed: int = 0, scale: float = 2.0) -> sl.SteeringVector:
    values = torch.randn(span, D, generator=torch.Generator().manual_seed(seed)) * scale
    return sl.SteeringVector(values, layer=layer, model=stamp(model))


def close(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


def log_probs(model: Any, rows: list[list[int]], mask: list[list[int]] | None = None) -> Tensor:
    kwargs = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    with torch.no_grad():
        return model(torch.tensor(rows), **kwargs).log_softmax(-1)


def expected(hf: Any, ids: list[int], vector: sl.SteeringVector, placement: Any = "front") -> Tensor:
    return reference.log_probs(hf, ids, {vector.layer: reference.placed(vector.values, placement, len(ids))})


# ------------------------------------------------------------------------------------------------- ways to call a model


def test_placements_mixed_in_one_call(case: Case) -> None:
    ids, model = ids_of(9), case.model
    injections = [
        sl.Injection(vector_on(model, 1, 2, seed=1), "front"),
        sl.Injection(vector_on(model, 1, 1, seed=2), "all"),
        sl.Injection(vector_on(model, 1, 1, seed=3), "last"),
        sl.Injection(vector_on(model, 0, 3, seed=4), "mid"),
        sl.Injection(vector_on(model, 2, 9, seed=5), "back"),
        sl.Injection(vector_on(model, 2, 2, seed=6), -4),
    ]
    sums: dict[int, Tensor] = {}
    for one in injections:
        added = reference.placed(one.vector.values, one.placement, len(ids))
        sums[one.vector.layer] = sums.get(one.vector.layer, torch.zeros(())) + added
    with sl.steer(model, *injections) as receipts:
        close(log_probs(model, [ids])[0], reference.log_probs(case.hf, ids, sums))
    assert [r.applications for r in receipts] == [1] * 6


def test_placement_argument_and_injections(gpt2: Any) -> None:
    ids, vector = ids_of(7), vector_on(gpt2)
    with sl.steer(gpt2, vector.on("back")) as receipts:
        log_probs(gpt2, [ids])
    assert receipts[0].positions == (5, 6)
    with sl.steer(gpt2, vector.on("back"), sl.Injection(vector, 1), placement="mid") as receipts:
        log_probs(gpt2, [ids])
    assert [r.positions for r in receipts] == [(2, 3), (1, 2)]


@few
@given(
    pads=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4),
    placement=st.sampled_from(["front", "mid", "back", "all", 2]),
)
@example(pads=[(0, 0), (3, 2), (1, 0)], placement="mid")
def test_rows_padded_on_both_sides(case: Case, pads: list[tuple[int, int]], placement: Any) -> None:
    width = 11
    vector = vector_on(case.model, 1, 1 if placement == "all" else 2)
    rows = [ids_of(width - before - after, number) for number, (before, after) in enumerate(pads)]
    padded = [[0] * before + row + [0] * after for row, (before, after) in zip(rows, pads, strict=True)]
    mask = [[0] * before + [1] * (width - before - after) + [0] * after for before, after in pads]
    with sl.steer(case.model, vector, placement=placement):
        batch = log_probs(case.model, padded, mask)
    for row, (before, after), got in zip(rows, pads, batch, strict=True):
        close(got[before : width - after], expected(case.hf, row, vector, placement))


@pytest.mark.parametrize("tokenizer", ["plain", "pad"])
@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_mixed_length_without_a_mask(kind: str, tokenizer: str) -> None:
    """TransformerLens pads on the right and makes no mask: what would go to padding is an error, the rest is right."""
    model, hf = loaded("gpt2", kind, tokenizer), plain_model("gpt2")
    texts = ["I went up to my friend and said", "I went"]
    rows = [model.to_tokens(text)[0].tolist() for text in texts]
    vector = vector_on(model, 1, 2)
    for placement in ("front", 1, "all", "prompt"):
        one = vector.at(0) if placement in reference.RANGES else vector
        with torch.no_grad(), sl.steer(model, one, placement=placement):
            for _ in range(2):
                got = model(texts).log_softmax(-1)
        for row, logits in zip(rows, got, strict=True):
            close(logits[: len(row)], expected(hf, row, one, placement))
    for placement in ("back", "mid", "last", "from_last", -1):
        one = vector.at(0)
        with (
            pytest.raises(sl.SteerlensError, match="came without attention_mask"),
            sl.steer(model, one, placement=placement),
        ):
            model(texts)
        with sl.steer(model, one, placement=placement):
            model([texts[0], texts[0]])
            model(texts[1])
    with pytest.raises(sl.SteerlensError, match="spans 5 positions but the prompt has 3"):  # noqa: SIM117
        with sl.steer(model, vector_on(model, 1, 5)):
            model(texts)


def test_rows_that_end_in_the_pad_token_are_asked_about_in_those_words(gpt2: Any) -> None:
    rows, vector = [[*ids_of(5), 0], [*ids_of(5, 1), 0]], vector_on(gpt2)
    with (
        pytest.raises(sl.SteerlensError, match=r"end in the pad token, which may be padding or .* pass attention_mask"),
        sl.steer(gpt2, vector, placement="back"),
    ):
        log_probs(gpt2, rows)
    with sl.steer(gpt2, vector, placement="back") as receipts:
        log_probs(gpt2, rows, [[1] * 6] * 2)
    assert receipts[0].positions == (4, 5)


@pytest.mark.parametrize("placement", ["all", "prompt"])
def test_bos_is_what_the_tokens_say(case: Case, placement: Any) -> None:
    """Not what a setting says: none, one, and two in front, alone, in a padded batch, and with the setting off."""
    model, was = case.model, case.model.cfg.default_prepend_bos
    rest, vector = ids_of(5)[1:], vector_on(case.model, 1, 1)
    rows = [[0] * n + rest for n in range(3)]
    wanted = [
        reference.log_probs(case.hf, row, {1: reference.placed(vector.values, placement, len(row), first=n)})
        for n, row in enumerate(rows)
    ]
    try:
        for model.cfg.default_prepend_bos in (False, True):
            with sl.steer(model, vector, placement=placement) as receipts:
                for row, expected_ in zip(rows, wanted, strict=True):
                    close(log_probs(model, [row])[0], expected_)
            assert receipts[0].positions == (0, 1, 2, 3)
            padded = [[7] * (6 - len(row)) + row for row in rows]
            mask = [[0] * (6 - len(row)) + [1] * len(row) for row in rows]
            with sl.steer(model, vector, placement=placement):
                batch = log_probs(model, padded, mask)
            for number, row in enumerate(rows):
                close(batch[number, 6 - len(row) :], wanted[number])
    finally:
        model.cfg.default_prepend_bos = was


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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("bridge")])
def test_a_pass_that_starts_from_a_residual_stream(kind: str) -> None:
    model, hf, ids = loaded("gpt2", kind), plain_model("gpt2"), ids_of(6)
    vector = vector_on(model, 1, 2)
    with torch.no_grad(), sl.steer(model, vector, placement="back"):
        model(torch.tensor([ids]))
        resid = model(torch.tensor([ids, ids]), stop_at_layer=1)
        got = model(resid, start_at_layer=1).log_softmax(-1)
        close(got[0], expected(hf, ids, vector, "back"))


def test_masks_of_other_dtypes(gpt2: Any) -> None:
    rows, vector = [[0, 0, *ids_of(4)], ids_of(6, 1)], vector_on(gpt2)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    with torch.no_grad(), sl.steer(gpt2, vector, vector.at(0).on("all")):
        wanted = gpt2(torch.tensor(rows), attention_mask=mask)
        dtypes = [torch.int32] if not is_bridge(gpt2) else [torch.int32, torch.bool]
        for dtype in dtypes:
            close(gpt2(torch.tensor(rows), attention_mask=mask.to(dtype)), wanted)


def test_strings_and_single_rows(gpt2: Any) -> None:
    vector = vector_on(gpt2)
    with sl.steer(gpt2, vector):
        from_text = gpt2("I hate you because").detach()
        from_tokens = gpt2(gpt2.to_tokens("I hate you because")).detach()
    assert torch.equal(from_text, from_tokens)


def test_run_with_cache_shows_the_steered_stream(case: Case) -> None:
    ids, vector = ids_of(6), vector_on(case.model, 1)
    name = "blocks.1.hook_resid_pre"
    _, base = case.model.run_with_cache(torch.tensor([ids]), names_filter=name, return_cache_object=False)
    with sl.steer(case.model, vector):
        _, steered = case.model.run_with_cache(torch.tensor([ids]), names_filter=name, return_cache_object=False)
    difference = (steered[name] - base[name])[0]
    close(difference[:2], vector.values)
    assert not difference[2:].any()


def test_a_shared_prefix_computed_before_the_block(case: Case) -> None:
    """With a cache from outside, what is counted from the prompt's end has no place; positions keep their numbers."""
    ids, vector = ids_of(8), vector_on(case.model, 1, 1)
    mask = torch.ones(1, 8, dtype=torch.long)

    def rest(cache: Any) -> Tensor:
        return chunk(case.model, torch.tensor([ids[5:]]), mask, cache)

    with torch.no_grad():
        _, cache = prefill(case.model, torch.tensor([ids[:5]]), mask[:, :5])
        with sl.steer(case.model, vector, placement="all") as receipts:
            got = rest(cache)
        added = reference.placed(vector.values, "all", 8, first=5)
        close(got[0].log_softmax(-1), reference.log_probs(case.hf, ids, {1: added})[5:])
        assert receipts[0].positions == (5, 6, 7)
        _, cache = prefill(case.model, torch.tensor([ids[:5]]), mask[:, :5])
        with sl.steer(case.model, vector, placement=6):
            got = rest(cache)
        added = reference.placed(vector.values, 6, 8)
        close(got[0].log_softmax(-1), reference.log_probs(case.hf, ids, {1: added})[5:])
        for placement in ("front", "back", "mid", "last", -1, 4):
            _, cache = prefill(case.model, torch.tensor([ids[:5]]), mask[:, :5])
            with (
                pytest.raises(sl.SteerlensError, match="never added"),
                sl.steer(case.model, vector, placement=placement),
            ):
                rest(cache)


def chunk(model: Any, tokens: Tensor, mask: Tensor, cache: Any) -> Tensor:
    """Logits of the next chunk of a prompt; the cache grows."""
    if is_bridge(model):
        logits, _ = model(
            tokens, attention_mask=mask, past_key_values=cache, use_cache=True, return_type="logits_and_cache"
        )
        return logits
    return model(tokens, attention_mask=mask[:, -tokens.shape[1] :], past_kv_cache=cache)


@pytest.mark.parametrize("placement", ["front", 1, "all"])
@pytest.mark.parametrize("sizes", [(4, 4), (3, 1, 2, 2)])
def test_a_prompt_prefilled_in_chunks(case: Case, placement: Any, sizes: tuple[int, ...]) -> None:
    rows = [ids_of(8), ids_of(8, 1)]
    vector = vector_on(case.model, 1, 1 if placement == "all" else 2)
    mask, done = torch.ones(2, 8, dtype=torch.long), sizes[0]
    tokens = torch.tensor(rows)
    with torch.no_grad(), sl.steer(case.model, vector, placement=placement):
        last, cache = prefill(case.model, tokens[:, :done], mask[:, :done])
        got = [last[:, None]]
        for size in sizes[1:]:
            got.append(chunk(case.model, tokens[:, done : done + size], mask[:, : done + size], cache))
            done += size
    for number, row in enumerate(rows):
        wanted = expected(case.hf, row, vector, placement)[sizes[0] - 1 :]
        close(torch.cat([part[number] for part in got]).log_softmax(-1), wanted)


@pytest.mark.parametrize("placement", ["front", "mid", "back", "last", *reference.RANGES, 1])
def test_prefill_and_decode_of_a_left_padded_batch(case: Case, placement: Any) -> None:
    rows = [ids_of(7), ids_of(4, 1)]
    vector = vector_on(case.model, 1, 1 if placement in (*reference.RANGES, "last") else 2)
    tokens, mask = torch.tensor([rows[0], [0, 0, 0, *rows[1]]]), torch.tensor([[1] * 7, [0, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad(), sl.steer(case.model, vector, placement=placement) as receipts:
        logits, cache = prefill(case.model, tokens, mask)
        for new in ([3, 0], [0, 9]):
            mask = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], 1)
            logits = decode_logits(case.model, torch.tensor(new)[:, None], mask, cache)
    for number, row in enumerate(rows):
        whole = [*row, (3, 0)[number], (0, 9)[number]]
        values = reference.placed(vector.values, placement, len(row), total=len(whole))
        close(logits[number].log_softmax(-1), reference.log_probs(case.hf, whole, {1: values})[-1])
    assert receipts[0].applications == {"all": 6, "from_last": 6, "generated": 4}.get(placement, 2)


# ---------------------------------------------------------------------------------------------- generation of all kinds


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


# ------------------------------------------------------------------------------------------ numbers, devices, gradients


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_residuals(kind: str, dtype: str) -> None:
    model, full = loaded("llama", kind, dtype=dtype), loaded("llama", kind)
    vector, ids = vector_on(full, 1, 2), ids_of(7)
    mask = [[1] * 7, [0, 0, 1, 1, 1, 1, 1]]
    rows = [ids, [0, 0, *ids_of(5)]]
    for placement in ("front", "back", "all"):
        one = vector.at(0) if placement == "all" else vector
        with sl.steer(model, one, placement=placement):
            half = log_probs(model, rows, mask)
        with sl.steer(full, one, placement=placement):
            whole = log_probs(full, rows, mask)
        assert half.dtype == getattr(torch, dtype)
        real = torch.tensor(mask) == 1
        base = log_probs(full, rows, mask)
        assert (half.float() - whole)[real].abs().mean() < 0.5 * (base - whole)[real].abs().mean()


def test_values_that_are_not_contiguous_or_need_gradients(any_model: Any) -> None:
    values = torch.randn(D, 4, requires_grad=True)
    for odd in (values.T[::2], values.detach().T[::2], values.detach().T[::2].double()):
        vector = sl.SteeringVector(odd, layer=1, model=stamp(any_model))
        with sl.steer(any_model, vector):
            got = log_probs(any_model, [ids_of(5)])[0]
        close(got, expected(plain_model("gpt2"), ids_of(5), vector))


def test_a_vector_on_another_device_is_moved(any_model: Any) -> None:
    """No second device here: a vector whose values claim to be elsewhere must be asked to move."""
    vector = vector_on(any_model)
    part = Part(sl.Injection(vector))
    resid = torch.zeros(1, 2, D, dtype=torch.float64)
    assert part.table_like(resid).values.dtype == torch.float64
    assert part.table_like(resid) is part.table_like(resid), "moved once"
    meta = torch.zeros(1, 2, D, device="meta")
    assert part.table_like(meta).values.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu(kind: str) -> None:
    from tests.conftest import make_tokenizer

    model = sl.load_model(
        plain_model("gpt2"),
        tokenizer=make_tokenizer(),
        device="cuda",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
    )
    vector, ids = vector_on(model), ids_of(6)
    assert vector.values.device.type == "cpu"
    for placement in ("front", "back", "all", "last"):
        one = vector.at(0) if placement in ("all", "last") else vector
        with torch.no_grad(), sl.steer(model, one, placement=placement):
            got = model(torch.tensor([ids], device="cuda")).log_softmax(-1)[0].cpu()
        assert_close(got, expected(plain_model("gpt2"), ids, one, placement), rtol=1e-3, atol=1e-2)
    moved = sl.actadd(model, "Love", "Hate", layer=1)
    assert (moved + 2 * vector).values.device == moved.values.device


def test_huge_coefficients_stay_finite_where_the_model_does(any_model: Any) -> None:
    with sl.steer(any_model, 1e12 * vector_on(any_model)):
        assert torch.isfinite(log_probs(any_model, [ids_of(5)])).all()


def test_gradients_pass_through(gpt2: Any) -> None:
    vector, ids = vector_on(gpt2, 1, 2), torch.tensor([ids_of(5)])
    kept: list[Tensor] = []

    def watch(resid: Tensor, hook: Any) -> Tensor:
        leaf = resid.detach().requires_grad_()
        kept.append(leaf)
        return leaf

    for placement, mask in [("front", None), ("back", torch.ones_like(ids)), ("all", None)]:
        one = vector.at(0) if placement == "all" else vector
        kept.clear()
        try:
            gpt2.add_hook("blocks.1.hook_resid_pre", watch)
            with torch.enable_grad(), sl.steer(gpt2, one, placement=placement):
                gpt2(ids, **({} if mask is None else {"attention_mask": mask}))[0, -1, 0].backward()
        finally:
            gpt2.reset_hooks()
        assert kept[0].grad is not None
        assert kept[0].grad.abs().sum() > 0


def test_inference_mode(gpt2: Any) -> None:
    with torch.inference_mode():
        vector = sl.actadd(gpt2, "Love", "Hate", layer=1)
        with sl.steer(gpt2, vector):
            inside = gpt2(torch.tensor([ids_of(5)])).clone()
    with sl.steer(gpt2, vector):
        assert torch.equal(gpt2(torch.tensor([ids_of(5)])), inside)


# ---------------------------------------------------------------------------------------------------------- odd callers


def test_no_vectors_is_no_steering(model: Any) -> None:
    ids = ids_of(5)
    base = log_probs(model, [ids])
    for nothing in ((), (None,), ((),), (sl.Condition(),)):
        with sl.steer(model, *nothing) as receipts:  # type: ignore[arg-type]
            assert torch.equal(log_probs(model, [ids]), base)
        assert receipts == []
    with sl.steer(model):
        pass


@pytest.mark.parametrize("thing", [5, "love", torch.ones(2, D), {"a": 1}])
def test_things_that_steer_nothing(any_model: Any, thing: Any) -> None:
    before = live_hooks(any_model)
    with pytest.raises(sl.SteerlensError, match="expected a SteeringVector"), sl.steer(any_model, thing):
        pytest.fail("the block must not be entered")
    assert live_hooks(any_model) == before


def test_a_list_of_conditions_is_too_many(any_model: Any) -> None:
    vector = vector_on(any_model)
    with pytest.raises(sl.SteerlensError, match=r"SteeringVector, .*got \["), sl.steer(any_model, [vector, vector]):  # type: ignore[arg-type]
        pytest.fail("the block must not be entered")
    with sl.steer(any_model, (vector, vector)) as receipts:  # type: ignore[arg-type]
        log_probs(any_model, [ids_of(4)])
    assert len(receipts) == 2


@pytest.mark.parametrize("placement", ["nowhere", 1.5, True, ["front"]])
def test_a_placement_that_is_none(any_model: Any, placement: Any) -> None:
    with (
        pytest.raises(sl.SteerlensError, match="is unknown; use one of"),
        sl.steer(any_model, vector_on(any_model), placement=placement),
    ):
        pytest.fail("the block must not be entered")


def test_one_bad_vector_among_good_ones_leaves_nothing(any_model: Any) -> None:
    good = vector_on(any_model)
    before = live_hooks(any_model)
    with pytest.raises(sl.SteerlensError), sl.steer(any_model, good, "bad"):  # type: ignore[arg-type]
        pass
    assert live_hooks(any_model) == before


def test_nested_blocks_end_in_any_order(gpt2: Any) -> None:
    hf, ids = plain_model("gpt2"), ids_of(6)
    a, b = vector_on(gpt2, 1, 2, seed=1), vector_on(gpt2, 2, 2, seed=2)
    base = log_probs(gpt2, [ids])
    first, second = sl.steer(gpt2, a), sl.steer(gpt2, b)
    first.__enter__()
    second.__enter__()
    both = log_probs(gpt2, [ids])[0]
    close(both, reference.log_probs(hf, ids, {1: a.values, 2: b.values}))
    first.__exit__(None, None, None)  # the outer one first
    close(log_probs(gpt2, [ids])[0], expected(hf, ids, b))
    second.__exit__(None, None, None)
    assert torch.equal(log_probs(gpt2, [ids]), base)
    assert "generate" not in gpt2.__dict__


def test_nested_blocks_and_generation_without_cache(gpt2: Any) -> None:
    hf, ids = plain_model("gpt2"), ids_of(6, 3)
    a, b = vector_on(gpt2, 1, 2, seed=1, scale=8), vector_on(gpt2, 2, 1, seed=2, scale=8)

    def additions(total: int) -> dict[int, Tensor]:
        return {
            1: reference.placed(a.values, "back", 6, total=total),
            2: reference.placed(b.values, "last", 6, total=total),
        }

    wanted = reference.greedy(hf, ids, 5, additions)
    with sl.steer(gpt2, a, placement="back"), sl.steer(gpt2, b, placement="last"):
        for cache in (True, False):
            out = gpt2.generate(
                torch.tensor([ids]),
                max_new_tokens=5,
                do_sample=False,
                use_past_kv_cache=cache,
                stop_at_eos=False,
                return_type="tokens",
                verbose=False,
            )
            assert out[0, 6:].tolist() == wanted


def test_steer_as_a_decorator(gpt2: Any) -> None:
    vector, ids = vector_on(gpt2), ids_of(5)

    @sl.steer(gpt2, vector)
    def run() -> Tensor:
        return log_probs(gpt2, [ids])[0]

    for _ in range(2):
        close(run(), expected(plain_model("gpt2"), ids, vector))


def test_the_users_hooks_see_the_stream_in_their_order(gpt2: Any) -> None:
    """Hooks set before the block run before the addition, hooks set inside run after it."""
    vector, ids, name, seen = vector_on(gpt2), torch.tensor([ids_of(5)]), "blocks.1.hook_resid_pre", {}

    def see(text: str) -> Any:
        return lambda resid, hook: seen.__setitem__(text, resid.clone())

    try:
        gpt2.add_hook(name, see("before"))
        with sl.steer(gpt2, vector):
            gpt2.run_with_hooks(ids, fwd_hooks=[(name, see("inside"))])
    finally:
        gpt2.reset_hooks()
    close((seen["inside"] - seen["before"])[0, :2], vector.values)


def test_a_users_generate_of_their_own_survives(gpt2: Any) -> None:
    mine = lambda *args, **kwargs: "mine"  # noqa: E731
    gpt2.__dict__["generate"] = mine
    try:
        with pytest.raises(sl.SteerlensError, match="never added"), sl.steer(gpt2, vector_on(gpt2)):
            assert gpt2.generate("x") == "mine"
        assert gpt2.__dict__["generate"] is mine
    finally:
        del gpt2.__dict__["generate"]


def test_a_steered_model_is_not_copied(any_model: Any) -> None:
    """A copy would stay steered for ever, so copying is refused; the original comes to no harm."""
    ids = ids_of(5)
    base = log_probs(any_model, [ids])
    with sl.steer(any_model, vector_on(any_model)):
        log_probs(any_model, [ids])
        with pytest.raises(sl.SteerlensError, match="copy it outside the with block"):
            copy.deepcopy(any_model)
    assert torch.equal(log_probs(any_model, [ids]), base)


def test_threads_that_wait_for_each_other(any_model: Any) -> None:
    results = []

    def work() -> None:
        with sl.steer(any_model, vector_on(any_model)):
            results.append(log_probs(any_model, [ids_of(5)]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    work()
    assert torch.equal(*results)


# -------------------------------------------------------------------------------------------------- the engine's way in


@pytest.mark.parametrize("placement", ["front", "back", "all"])
@pytest.mark.parametrize("masked", [True, False])
def test_parts_go_to_their_rows_alone(case: Case, placement: Any, masked: bool) -> None:
    rows = [ids_of(6, seed) for seed in range(4)]
    span = 1 if placement in ("all", "last") else 2
    a, b = vector_on(case.model, 1, span, seed=1), vector_on(case.model, 1, span, seed=2)
    parts = [
        Part(sl.Injection(a, placement), torch.tensor([0, 2])),
        Part(sl.Injection(b, placement), torch.tensor([2, 3])),
    ]
    with injecting(case.model, parts) as session:
        got = log_probs(case.model, rows, [[1] * 6] * 4 if masked else None)
    at_a, at_b = (reference.placed(v.values, placement, 6) for v in (a, b))
    for row, added, result in zip(rows, [at_a, None, at_a + at_b, at_b], got, strict=True):
        close(result, reference.log_probs(case.hf, row, None if added is None else {1: added}))
    assert [r.applications for r in session.receipts] == [2, 2]


def test_a_part_on_other_rows_shares_its_receipt(any_model: Any) -> None:
    part = Part(sl.Injection(vector_on(any_model)), torch.tensor([0]))
    other = part.on_rows(torch.tensor([1]))
    with injecting(any_model, [other]):
        log_probs(any_model, [ids_of(4), ids_of(4, 1)])
    assert part.receipt is other.receipt
    assert part.receipt.applications == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_prompt_width_keeps_placements_at_the_end_of_the_prompt(kind: str) -> None:
    model, hf = loaded("gpt2", kind), plain_model("gpt2")
    vector, ids = vector_on(model, 1, 2), ids_of(9)
    with injecting(model, [Part(sl.Injection(vector, "back"))], prompt_width=6):
        got = log_probs(model, [ids])[0]
    close(got, reference.log_probs(hf, ids, {1: reference.placed(vector.values, "back", 6, total=9)}))
