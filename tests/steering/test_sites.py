"""Sites and operations: each as plain PyTorch hooks on the plain Hugging Face model have it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import steerlens as sl
from steerlens.engine.sampling import sample
from steerlens.engine.sampling_settings import Sampling
from steerlens.models import SITES, Site, stamp
from steerlens.steering.operations import OPERATIONS
from tests import reference
from tests.conftest import KINDS, VOCAB, Case, loaded, plain_model

D, HEADS, LAYERS = reference.D_MODEL, 4, reference.N_LAYERS


def ids_of(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [0, *torch.randint(1, VOCAB - 10, (length - 1,), generator=generator).tolist()]


def vector_on(model: Any, site: Site, layer: int = 1, span: int = 1, seed: int = 0, size: float = 1.5) -> Any:
    """A vector without a mean over its width, so that it is the same in a centred model."""
    values = torch.randn(span, D, generator=torch.Generator().manual_seed(seed)) * size
    values = values - values.mean(-1, keepdim=True)
    if site == "z":
        values = values.unflatten(-1, (HEADS, -1))
    return sl.SteeringVector(values, layer, stamp(model), site=site)


def injection_of(vector: Any, operation: Any, placement: Any = "all") -> sl.Injection:
    given: dict[str, Any] = {}
    if operation == "affine":
        mean = vector_like(vector, seed=9)
        given["mean"] = mean
    if operation == "clamp" and vector.layer % 2:
        given["value"] = 2.5
    return sl.Injection(vector, placement, operation, **given)


def vector_like(vector: Any, seed: int) -> Any:
    values = torch.randn(1, vector.values.shape[1], generator=torch.Generator().manual_seed(seed))
    shaped = values.unflatten(-1, (vector.heads, -1)) if vector.site == "z" else values
    return sl.SteeringVector(shaped, vector.layer, vector.model, site=vector.site)


def change_of(injection: sl.Injection, length: int, total: int | None = None) -> tuple[int, str, Any]:
    """What an injection does to a sequence that begins with a prompt of `length` tokens, for the reference."""
    vector = injection.vector
    rows = reference.placed(vector.values, injection.placement, length, total=total)
    touched = reference.placed(torch.ones(vector.n_positions, 1), injection.placement, length, total=total)[:, 0]

    def change(x: Tensor) -> Tensor:
        made = x.clone()
        for at in touched.nonzero().flatten().tolist():
            made[at] = reference.operated(
                x[at : at + 1],
                rows[at],
                injection.operation,
                heads=vector.heads,
                value=injection.value,
                mean=None if injection.mean is None else injection.mean.values[0],
            )[0]
        return made

    return vector.layer, vector.site, change


def expected(hf: Any, ids: list[int], *injections: sl.Injection, prompt: int | None = None) -> Tensor:
    length = prompt or len(ids)
    return reference.changed_log_probs(hf, ids, [change_of(one, length, len(ids)) for one in injections])


def log_probs(model: Any, rows: list[list[int]], mask: list[list[int]] | None = None) -> Tensor:
    kwargs = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    with torch.no_grad():
        return model(torch.tensor(rows), **kwargs).log_softmax(-1)


def close(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, rtol=0, atol=2e-5 * max(1.0, float(expected.abs().max())))


def sites_of(case: Case) -> list[Site]:
    return [site for site in SITES if not (site == "resid_mid" and case.architecture == "gptj")]  # type: ignore[misc]


def comparable(case: Case, site: str, operation: str) -> bool:
    """Whether the processed model's activation is the plain one's there, up to what the operation does not see."""
    if operation == "add" or case.kind.endswith("raw"):
        return True
    if site == "z":  # where biases are, a processed model moves those of the values behind the heads
        return case.architecture == "llama"
    return not (operation == "add_keep_norm" and case.centred)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_steer_equals_plain_hooks(case: Case, operation: Any) -> None:
    """At every site; rows padded on both sides, one row alone, and vectors of several positions."""
    rows = [ids_of(6), ids_of(4, 1), ids_of(7, 2)]
    width = 8
    padded = [[7, *row, *[7] * (width - 1 - len(row))] for row in rows]
    mask = [[0, *[1] * len(row), *[0] * (width - 1 - len(row))] for row in rows]
    for site in sites_of(case):
        if not comparable(case, site, operation):
            continue
        for placement, span in (("all", 1), ("last", 1), ("front", 3), ("back", 2)):
            one = injection_of(vector_on(case.model, site, span=span), operation, placement)
            with sl.steer(case.model, one) as receipts:
                close(log_probs(case.model, [rows[0]])[0], expected(case.hf, rows[0], one))
                batch = log_probs(case.model, padded, mask)
            assert receipts[0].applications == 4
            assert receipts[0].hook == f"blocks.1.{SITES[site]}"
            assert receipts[0].operation == operation
            for number, row in enumerate(rows):
                close(batch[number, 1 : 1 + len(row)], expected(case.hf, row, one))


def grid(case: Case, layers: Any = range(LAYERS)) -> list[Any]:
    """Every site × operation, at several layers and placements, several at one place, and none."""
    conditions: list[Any] = [None]
    number = 0
    for site in sites_of(case):
        for operation in OPERATIONS:
            if comparable(case, site, operation):
                placement, span = [("all", 1), ("front", 2), ("last", 1), ("prompt", 1)][number % 4]
                layer = list(layers)[number % len(layers)]
                conditions.append(injection_of(vector_on(case.model, site, layer, span), operation, placement))
                number += 1
    conditions.append(tuple(conditions[1:7]))
    # The order counts where something is read.
    add, ablate = (
        injection_of(vector_on(case.model, "resid_post", 1, seed=s), o) for s, o in ((4, "add"), (5, "ablate"))
    )
    conditions += [(add, ablate), (ablate, add)]
    return conditions


def parts_of(condition: Any) -> tuple[sl.Injection, ...]:
    return () if condition is None else condition if isinstance(condition, tuple) else (condition,)


PROMPTS = ["The dog ran", "Once upon a time there was a"]


@pytest.mark.parametrize("batch_size", [None, 5])
def test_grids_equal_plain_hooks(case: Case, batch_size: int | None) -> None:
    conditions = grid(case)
    found = sl.next_token_logits(case.model, PROMPTS, conditions, batch_size=batch_size).log_softmax(-1)
    for p, prompt in enumerate(PROMPTS):
        ids = case.model.to_tokens(prompt)[0].tolist()
        for c, condition in enumerate(conditions):
            close(found[c, p], expected(case.hf, ids, *parts_of(condition))[-1])


def test_grids_under_the_users_own_hooks(case: Case) -> None:
    """Then all rows run from the first block to the last, in the model's own forward pass."""
    conditions = grid(case)[::4]
    calls: list[int] = []
    with case.model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda x, hook: calls.append(len(x)))]):
        hooked = sl.next_token_logits(case.model, PROMPTS[0], conditions)
    close(hooked, sl.next_token_logits(case.model, PROMPTS[0], conditions))
    assert calls


def test_scores_equal_plain_hooks(case: Case) -> None:
    text = " and they were happy"
    conditions = [c for c in grid(case) if c is not None][::3]
    frame = sl.score(case.model, text, conditions, prompt=PROMPTS[0])
    before = case.model.to_tokens(PROMPTS[0])[0].tolist()
    for number, condition in enumerate(conditions):
        rows = frame[frame.condition == number]
        after = rows.token_id.tolist()
        wanted = expected(case.hf, before + after, *parts_of(condition), prompt=len(before))
        wanted = wanted[range(len(before) - 1, len(before + after) - 1), after]
        close(torch.tensor(rows.logprob.values).float(), wanted)


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_completions_equal_plain_hooks(case: Case, use_cache: bool) -> None:
    ids, n = ids_of(5, 3), 4
    conditions = [c for c in grid(case) if c is not None][::2]
    done = sample(
        case.model,
        [ids],
        [sl.Condition(parts_of(c)) for c in conditions],
        sampling=Sampling(temperature=0, max_new_tokens=n, stop_at_end=False, n=1),
        use_cache=use_cache,
    )
    for number, condition in enumerate(conditions):
        row = list(ids)
        for token in done.tokens[number, 0, 0].tolist():
            logits = expected(case.hf, row, *parts_of(condition), prompt=len(ids))[-1]
            # (two tokens may be a rounding apart)
            assert logits[token] > logits.max() - 1e-4
            row.append(token)
        assert all(receipt.applications for receipt in done.receipts[number])


def test_generation_in_steer_equals_that_of_the_engine(gpt2: Any) -> None:
    ids, n = ids_of(5, 3), 4
    for site in SITES:
        one = injection_of(vector_on(gpt2, site, 1, size=6.0), "add_keep_norm")  # type: ignore[arg-type]
        done = sample(
            gpt2, [ids], [sl.Condition((one,))], sampling=Sampling(temperature=0, max_new_tokens=n, stop_at_end=False)
        )
        for cache in (True, False):
            with sl.steer(gpt2, one):
                out = gpt2.generate(
                    torch.tensor([ids]), max_new_tokens=n, do_sample=False, use_past_kv_cache=cache,
                    stop_at_eos=False, return_type="tokens", verbose=False,
                )  # fmt: skip
            assert out[0, len(ids) :].tolist() == done.tokens[0, 0, 0].tolist()


# ------------------------------------------------------------------------------------------------------------- laws


def steered(model: Any, ids: list[int], *vectors: Any) -> Tensor:
    with sl.steer(model, *vectors):
        return log_probs(model, [ids])[0]


def test_the_end_of_a_block_is_the_beginning_of_the_next(model: Any) -> None:
    ids = ids_of(6)
    for operation in OPERATIONS:
        there, here = (
            sl.SteeringVector(vector_on(model, "resid_pre").values, layer, stamp(model), site=site)  # type: ignore[arg-type]
            for layer, site in ((1, "resid_post"), (2, "resid_pre"))
        )
        given: list[dict[str, Any]] = [{}, {}]
        if operation == "affine":
            given = [{"mean": vector_like(v, 9)} for v in (there, here)]
        one, other = (
            sl.Injection(v, "all", operation, **g)
            for v, g in zip((there, here), given, strict=True)  # type: ignore[arg-type]
        )
        close(steered(model, ids, one), steered(model, ids, other))


def test_two_heads_are_one_vector_through_the_output_map(case: Case) -> None:
    z = vector_on(case.model, "z", size=3.0).of_heads([0, 2])
    attention = case.model.blocks[1].attn
    through = torch.einsum("phd,hdm->pm", z.values.unflatten(1, (HEADS, -1)), attention.W_O.float())
    out = sl.SteeringVector(through, 1, stamp(case.model), site="attn_out")
    ids = ids_of(6)
    close(steered(case.model, ids, z.on("all")), steered(case.model, ids, out.on("all")))
    assert (steered(case.model, ids, z.on("all")) - log_probs(case.model, [ids])[0]).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", ["resid_pre", "resid_post", "attn_out", "mlp_out"])
def test_ablated_activations_are_orthogonal_and_ablating_is_idempotent(kind: str, site: Any) -> None:
    model, ids = loaded("gpt2", kind), ids_of(6)
    vector, name = vector_on(model, site), f"blocks.1.{SITES[site]}"
    unit = vector.values[0] / vector.norm
    one = sl.Injection(vector, 0, "ablate")
    rest = [sl.Injection(vector, at, "ablate") for at in range(1, 6)]
    with torch.no_grad(), sl.steer(model, one, *rest):
        _, once = model.run_with_cache(torch.tensor([ids]), names_filter=name, return_cache_object=False)
    with torch.no_grad(), sl.steer(model, one, *rest, one, *rest):
        _, twice = model.run_with_cache(torch.tensor([ids]), names_filter=name, return_cache_object=False)
    size = float(once[name].norm(dim=-1).max())
    assert (once[name] @ unit).abs().max() <= 1e-5 * max(1.0, size)
    assert_close(twice[name], once[name], rtol=0, atol=1e-5 * max(1.0, size))


def test_clamping_to_what_is_there_changes_nothing(case: Case) -> None:
    ids = ids_of(5)
    for site in sites_of(case):
        if site == "z":
            continue
        name = f"blocks.1.{SITES[site]}"
        _, cache = case.model.run_with_cache(torch.tensor([ids]), names_filter=name, return_cache_object=False)
        vector = vector_on(case.model, site)
        there = float(cache[name][0, -1] @ (vector.values[0] / vector.norm))
        close(steered(case.model, ids, sl.Injection(vector, "last", "clamp", there)), log_probs(case.model, [ids])[0])


@pytest.mark.parametrize("operation", ["add", "add_keep_norm"])
def test_zero_vectors_change_no_bit(model: Any, operation: Any) -> None:
    ids, base = ids_of(6), log_probs(model, [ids_of(6)])[0]
    for site in SITES:
        if site == "resid_mid" and f"blocks.0.{SITES[site]}" not in model.hook_dict:
            continue
        zero = sl.Injection(0 * vector_on(model, site), "all", operation)  # type: ignore[arg-type]
        assert torch.equal(steered(model, ids, zero), base)
        both = sl.next_token_logits(model, PROMPTS, [None, zero])
        assert torch.equal(both[0], both[1])


# ------------------------------------------------------------------------------------------------- values and errors


def test_a_site_that_the_architecture_does_not_have() -> None:
    for kind in KINDS:
        model = loaded("gptj", kind)
        vector = vector_on(model, "resid_mid")
        for use in (lambda v: steered(model, ids_of(4), v), lambda v: sl.generate(model, "The", v, max_new_tokens=2)):
            with pytest.raises(sl.SteerlensError, match="no site 'resid_mid' .*side by side.*; use one of resid_pre"):
                use(vector)


def test_heads(any_model: Any) -> None:
    vector = vector_on(any_model, "z")
    assert (vector.heads, vector.values.shape) == (HEADS, (1, D))
    kept = vector.of_heads([1, 3]).values.unflatten(1, (HEADS, -1))
    assert not kept[0, [0, 2]].any()
    assert torch.equal(kept[0, [1, 3]], vector.values.unflatten(1, (HEADS, -1))[0, [1, 3]])
    with pytest.raises(sl.SteerlensError, match="head 4 is out of range for 4 heads; use 0 to 3"):
        vector.of_heads([4])
    with pytest.raises(sl.SteerlensError, match="only a vector at site 'z' has heads"):
        vector_on(any_model, "attn_out").of_heads([0])
    with pytest.raises(sl.SteerlensError, match="do not fall into 5 heads"):
        sl.SteeringVector(torch.ones(1, D), 1, stamp(any_model), site="z", heads=5)
    with pytest.raises(sl.SteerlensError, match="only vectors at site 'z' have heads"):
        sl.SteeringVector(torch.ones(1, D), 1, stamp(any_model), heads=4)
    with pytest.raises(sl.SteerlensError, match="has 2 heads in 32 numbers, but the model 4 heads of 8"):
        steered(any_model, ids_of(4), sl.SteeringVector(torch.ones(1, 2, 16), 1, stamp(any_model), site="z"))
    with pytest.raises(sl.SteerlensError, match="site 'nowhere' is unknown; use one of resid_pre"):
        sl.SteeringVector(torch.ones(1, D), 1, stamp(any_model), site="nowhere")  # type: ignore[arg-type]
    with pytest.raises(sl.SteerlensError, match="sites 'z' and 'attn_out'"):
        vector + vector_on(any_model, "attn_out")


@pytest.mark.parametrize("site", SITES)
def test_files_keep_the_site(any_model: Any, site: Any, tmp_path: Any) -> None:
    vector = vector_on(any_model, site, span=2)
    back = sl.SteeringVector.load(vector.save(tmp_path / "v.safetensors"))
    assert (back.site, back.heads) == (site, vector.heads)
    assert torch.equal(back.values, vector.values)


def test_files_of_version_1_are_read(any_model: Any, tmp_path: Any) -> None:
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    vector = vector_on(any_model, "resid_pre")
    with safe_open(vector.save(tmp_path / "new"), framework="pt") as file:
        record, values = json.loads(file.metadata()["vector"]), file.get_tensor("values")
    del record["site"]
    save_file({"values": values}, tmp_path / "old", {"format": "steerlens.vector.1", "vector": json.dumps(record)})
    old = sl.SteeringVector.load(tmp_path / "old")
    assert (old.site, old.describe()) == ("resid_pre", vector.describe())


# ---------------------------------------------------------------------------------------------------------- extraction


def seen_at(hf: Any, ids: list[int], site: str) -> Tensor:
    """The activation of the plain model at a site of block 1, [pos width]."""
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.clone())
        return x

    reference.changed_log_probs(hf, ids, [(1, site, keep)])
    return kept[0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("raw")])
@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_activations_of_every_site_are_read(architecture: str, kind: str) -> None:
    case = Case(architecture, kind, loaded(architecture, kind), plain_model(architecture))
    texts = ["The dog", "Once upon a time there was"]
    rows = [case.model.to_tokens(text)[0].tolist() for text in texts]
    for site in sites_of(case):
        means = [seen_at(case.hf, row, site)[-1] for row in rows]
        vector = sl.mean_difference(case.model, texts[:1], texts[1:], layer=1, site=site)
        assert (vector.site, vector.heads) == (site, HEADS if site == "z" else 1)
        close(vector.values[0], means[0] - means[1])
        both = sl.mean_difference(case.model, texts, [texts[0]], layer=1, site=site)
        close(both.values[0], (means[1] - means[0]) / 2)
        pair = sl.actadd(case.model, "Love", "Hate", layer=1, site=site)
        plus, minus = (seen_at(case.hf, row, site) for row in pair.source["tokens"])
        close(pair.values, plus - minus)
        assert not pair.values[0].any()
        steered(case.model, rows[1], 2 * pair)


def test_a_site_to_read_that_is_not_there() -> None:
    model = loaded("gptj", KINDS[0])
    for site, words in (("resid_mid", "no site 'resid_mid'"), ("somewhere", "site 'somewhere' is unknown")):
        with pytest.raises(sl.SteerlensError, match=words):
            sl.actadd(model, "Love", "Hate", layer=1, site=site)  # type: ignore[call-overload]
        with pytest.raises(sl.SteerlensError, match=words):
            sl.mean_difference(model, ["Love"], ["Hate"], layer=1, site=site)  # type: ignore[call-overload]


def test_run_keys_tell_sites_and_operations_apart(any_model: Any) -> None:
    from steerlens.runs.run_keys import run_key

    vector, other = vector_on(any_model, "resid_pre"), vector_on(any_model, "resid_post")
    mean = vector_like(vector, 3)
    injections = [
        sl.Injection(vector),
        sl.Injection(other),
        sl.Injection(vector, operation="ablate"),
        sl.Injection(vector, operation="clamp"),
        sl.Injection(vector, operation="clamp", value=1.0),
        sl.Injection(vector, operation="affine", mean=mean),
        sl.Injection(vector, operation="affine", mean=2 * mean),
    ]
    keys = [run_key(sl.Condition((one,)), job="job") for one in injections]
    assert len(set(keys)) == len(keys)
