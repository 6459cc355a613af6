"""Models on an accelerator, and spread over two: everything stays where it should, and the host hardly ever waits.

The accelerator is a pretended one (see `tests.pretend_device`), so this runs anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pandas as pd
import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import PrefixDecoder
from tests import reference
from tests.conftest import HAS_HOOKED_TRANSFORMER, KINDS, make_tokenizer, plain_model
from tests.pretend_device import DefaultDevice, move, pretending, waits

PROMPTS = ["I went up to my friend and said", "Love"]
PAIR = sl.PromptPair(" weddings", " ")

Work = Callable[[Any], Any]

WORK: dict[str, Work] = {
    "extraction": lambda m: [v.values for v in sl.actadd(m, PAIR, layers="all").values()],
    "mean difference": lambda m: sl.mean_difference(m, ["I love", "you"], ["I hate"], layer=1).values,
    "next-token logits": lambda m: sl.next_token_logits(m, PROMPTS, conditions(m)),
    "scores": lambda m: sl.score(m, PROMPTS, conditions(m)),
    "completions": lambda m: sl.generate(m, PROMPTS, conditions(m), n=2, max_new_tokens=18, seed=1),
    "completions without a cache": lambda m: sl.generate(m, "Love", conditions(m), max_new_tokens=4, use_cache=False),
    "greedy completions": lambda m: sl.generate(m, PROMPTS, conditions(m), n=1, max_new_tokens=8, temperature=0.0),
    "steered by hand": lambda m: by_hand(m),
}
ANALYSIS: dict[str, Work] = {
    "logit shift": lambda m: sl.logit_shift(m, PROMPTS[0], vectors(m)[1]).frame,
    "shift parts": lambda m: sl.shift_parts(m, PROMPTS[0], vectors(m)[1]).frame,
    "layer lens": lambda m: sl.layer_lens(m, PROMPTS[0], vectors(m)[1]).frame,
    "magnitudes": lambda m: sl.magnitudes(m, PAIR, PROMPTS).frame,
    "layer effect": lambda m: sl.layer_effect(m, PAIR, PROMPTS[0], [" wedding"], pieces="first").frame,
    "sweep": lambda m: swept(m).frame,
}


def vectors(model: Any) -> list[sl.SteeringVector]:
    return list(sl.actadd(model, PAIR, layers="all").values())


def conditions(model: Any) -> list[Any]:
    first, second, third = vectors(model)
    front = sl.PromptPair("Love", "Hate")
    return [
        None,
        4 * first,
        (second, -2 * third),
        sl.Injection(third.at(1), "all"),
        sl.Injection(sl.actadd(model, front, layer=1).at(1), "last"),
    ]


def by_hand(model: Any) -> torch.Tensor:
    with torch.no_grad(), sl.steer(model, *vectors(model)):
        return model(model.to_tokens(PROMPTS[0]))  # type: ignore[no-any-return]


def swept(model: Any) -> Any:
    metrics = [sl.metrics.words("wedding")]
    return sl.sweep(model, PAIR, PROMPTS[0], layers=[0, 2], coeffs=[2], n=3, max_new_tokens=4, metrics=metrics)


def equal(there: Any, here: Any) -> None:
    if isinstance(here, list):
        for one, other in zip(there, here, strict=True):
            equal(one, other)
    elif isinstance(here, pd.DataFrame):
        pd.testing.assert_frame_equal(there, here, rtol=1e-4, atol=1e-5)
    else:
        assert_close(there.cpu(), here, rtol=1e-5, atol=1e-5)


def eager(architecture: str) -> Any:
    """The tiny model with attention in plain operations: PyTorch's fused one asks real devices only."""
    model = deepcopy(plain_model(architecture))
    model.config._attn_implementation = "eager"
    return model


def on_the_cpu(architecture: str, kind: str) -> Any:
    return sl.load_model(
        eager(architecture),
        tokenizer=make_tokenizer(),
        device="cpu",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
    )


@pytest.fixture(scope="module")
def pretended() -> Iterator[None]:
    with pretending():
        yield


def pair(architecture: str, kind: str) -> tuple[Any, Any]:
    """A model on the accelerator, and the same on the CPU."""
    here = on_the_cpu(architecture, kind)
    there = deepcopy(here)
    move(there, "pretend:0")
    there.cfg.device = "pretend:0"
    vars(there)["copied_from"] = here  # a copied bridge of TransformerLens 3.9 refers to the original's parts weakly
    return there, here


ENDS = sorted({KINDS[0], KINDS[-1]})  # one of each model class


@pytest.fixture(scope="module", params=[(a, k) for a in reference.ARCHITECTURES for k in ENDS], ids="-".join)
def both(request: pytest.FixtureRequest, pretended: None) -> tuple[Any, Any]:
    return pair(*request.param)


@pytest.mark.parametrize("work", WORK)
def test_an_accelerator_gives_the_same(both: tuple[Any, Any], work: str) -> None:
    there, here = both
    equal(WORK[work](there), WORK[work](here))


@pytest.mark.parametrize("kind", ENDS)
def test_the_callers_default_device_changes_nothing(pretended: None, kind: str) -> None:
    there, here = pair("gpt2", kind)
    for work in ("extraction", "next-token logits", "scores", "greedy completions", "completions without a cache"):
        with DefaultDevice():
            found = WORK[work](there)
        equal(found, WORK[work](here))


def spread(architecture: str) -> Any:
    """A bridge over two devices, as Accelerate lays it out: each block moves its input to its own device."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module
    from transformer_lens.model_bridge import TransformerBridge

    hf = eager(architecture)
    base = hf.base_model if architecture != "opt" else hf.model.decoder
    blocks = base.h if architecture in ("gpt2", "gptj") else base.layers
    norm = {"gpt2": "ln_f", "gptj": "ln_f", "llama": "norm", "opt": "final_layer_norm"}[architecture]
    # Embedding and unembedding may be one tensor, so they share a device; the last norm is behind the last block.
    places = {"pretend:0": [hf, blocks[0], hf.get_output_embeddings()], "pretend:1": [*blocks[1:], getattr(base, norm)]}
    for place, modules in places.items():
        for module in modules:
            move(module, place)
            if module is not hf:
                hook = AlignDevicesHook(execution_device=torch.device(place), place_submodules=False)
                add_hook_to_module(module, hook)
    hf.hf_device_map = {name: weight.device for name, weight in hf.named_parameters()}
    tokenizer = deepcopy(make_tokenizer())
    tokenizer.init_kwargs |= {"name_or_path": "live", "add_bos_token": True}
    return TransformerBridge.boot_transformers("live", hf_model=hf, tokenizer=tokenizer).eval()


@pytest.fixture(scope="module", params=reference.ARCHITECTURES)
def two_devices(request: pytest.FixtureRequest, pretended: None) -> tuple[Any, Any]:
    """A bridge over two devices, and the same on the CPU."""
    return spread(request.param), on_the_cpu(request.param, "bridge-raw")


@pytest.mark.parametrize("work", WORK)
def test_a_model_over_two_devices_gives_the_same(two_devices: tuple[Any, Any], work: str) -> None:
    there, here = two_devices
    assert {str(weight.device) for weight in there.parameters()} == {"pretend:0", "pretend:1"}
    equal(WORK[work](there), WORK[work](here))


@pytest.fixture(scope="module", params=["one", "two"])
def analysed(request: pytest.FixtureRequest, pretended: None) -> tuple[Any, Any]:
    """A model on one device, or a bridge over two, and the same on the CPU."""
    return pair("gpt2", KINDS[0]) if request.param == "one" else (spread("llama"), on_the_cpu("llama", "bridge-raw"))


@pytest.mark.parametrize("work", ANALYSIS)
def test_analysis_gives_the_same(analysed: tuple[Any, Any], work: str) -> None:
    there, here = analysed
    equal(ANALYSIS[work](there), ANALYSIS[work](here))


# ------------------------------------------------------------------------------------------ waiting for the device


@pytest.fixture(scope="module", params=ENDS)
def there(request: pytest.FixtureRequest, pretended: None) -> Any:
    """A model on the accelerator, for what does not depend on the architecture."""
    return pair("gpt2", request.param)[0]


def waited(work: Callable[[], object]) -> int:
    with waits() as found:
        work()
    return sum(found.values())


@pytest.mark.parametrize("placement", ["front", "all"])
def test_decoding_waits_once_in_sixteen_tokens(there: Any, placement: Any) -> None:
    vector = vectors(there)[1].at(1)

    def tokens(new: int) -> int:
        jobs = [None, vector]
        return waited(lambda: sl.generate(there, PROMPTS, jobs, n=2, max_new_tokens=new, placement=placement))

    assert tokens(36) - tokens(4) <= 2 * 2, "a look whether rows have ended, and their leaving, every 16 tokens"


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_p": 1.0}, {"top_k": 5}, {"frequency_penalty": 0.0}])
def test_no_way_of_sampling_waits(there: Any, settings: dict[str, Any]) -> None:
    def tokens(new: int) -> int:
        return waited(lambda: sl.generate(there, PROMPTS, None, n=4, max_new_tokens=new, stop_at_end=False, **settings))

    assert tokens(12) == tokens(3)


@pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="bridges do not guess")
@pytest.mark.parametrize(("settings", "wrong"), [({}, 0), ({"top_p": 0.99, "temperature": 3.0}, 1)])
def test_tokens_guessed_from_the_largest_logits_are_drawn_anew_where_that_was_wrong(
    pretended: None, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], wrong: int
) -> None:
    """Once in a job; and the completions are those of the CPU, ends of text and rows that leave included."""
    there, here = pair("gpt2", "hooked")
    ends = sl.generate(here, PROMPTS[0], None, n=1, max_new_tokens=9, **settings)["completion"][0]
    end = here.to_tokens(ends, prepend_bos=False)[0, -1].item()
    went_back = []
    rewind = PrefixDecoder.rewind
    monkeypatch.setattr(PrefixDecoder, "rewind", lambda self, steps: (went_back.append(steps), rewind(self, steps)))
    monkeypatch.setattr("steerlens.engine.stopping.end_ids", lambda model: (end,))
    jobs = [None, *vectors(here)]
    same = {"n": 5, "max_new_tokens": 40, "batch_size": 10, **settings}
    told: list[int] = []
    monkeypatch.setattr("tqdm.auto.tqdm.update", lambda self, count=1: told.append(count))
    found = sl.generate(there, PROMPTS, [None, *vectors(there)], **same, progress=True)
    assert len(went_back) == wrong
    assert sum(told[:-1]) <= len(found) * 40, "what is drawn anew is not told twice (the last call fills the bar)"
    expected = sl.generate(here, PROMPTS, jobs, **same)
    assert expected["finished"].any() and not expected["finished"].all()
    equal(found, expected)


def test_of_each_vector_two_numbers_are_read_and_its_prefill_does_not_wait(there: Any) -> None:
    vector = vectors(there)[1]

    def conditions(count: int) -> int:
        jobs: list[Any] = [(1 + i) * vector for i in range(count)]
        return waited(lambda: sl.generate(there, PROMPTS, jobs, n=1, max_new_tokens=1))

    extra = conditions(9) - conditions(1)
    assert extra <= 2 * 8, "that it is finite, and its norm for the receipt"


def test_a_larger_grid_waits_no_more(there: Any) -> None:
    some = vectors(there)

    def grid(factors: int) -> int:
        jobs: list[Any] = [None, *(vector * (1 + i) for vector in some for i in range(factors))]
        return waited(lambda: sl.next_token_logits(there, PROMPTS[0], jobs))

    grid(1)  # a bridge is looked at once
    assert grid(6) == grid(1)


def test_the_pretended_device_is_strict(pretended: None) -> None:
    here, there = torch.ones(3, device="pretend:0"), torch.ones(3, device="pretend:1")
    index = torch.tensor([0], device="pretend:0")
    wrongs: list[Callable[[], object]] = [
        lambda: here + there,
        lambda: here + torch.ones(3),
        lambda: torch.stack([here, there]),
        lambda: torch.ones(3)[index],
        lambda: here.index_put_((index,), torch.ones(1)),
    ]
    for wrong in wrongs:
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            wrong()
    with pytest.raises((RuntimeError, TypeError)):
        here.numpy()
    assert (here + torch.tensor(2.0)).device == here.device, "a number without dimensions goes anywhere"
    assert here[torch.tensor([0, 1])].device == here.device, "an index comes along"
    with waits() as found:
        here.sum().item()
        here.cpu()
        here.nonzero()
        here[here > 0]
        here.to("pretend:1")
        torch.ones(3).to("pretend:0")
    assert sum(found.values()) == 6
    with waits() as found:
        assert float((here + here).held.sum()) == 6.0
        here.masked_fill(here > 0, 2.0).argsort()
    assert not found


@pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="no HookedTransformer")
def test_a_hooked_transformer_over_two_devices_is_refused(pretended: None) -> None:
    model = on_the_cpu("gpt2", "hooked")
    model.cfg.n_devices = 2
    with pytest.raises(sl.SteerlensError, match="spread over 2 devices, where TransformerLens mixes devices up"):
        sl.generate(model, "Love")
