"""Every public function, every parameter, many bad values: one line of SteerlensError, never anything else.

The functions are found by walking `steerlens.__all__` and their signatures; what a parameter takes is known by its
name. A new function needs a good call (`GOOD`), a new parameter a kind (`KINDS`), or this test fails: neither can be
forgotten.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config

import steerlens as sl
from steerlens import arguments
from tests.bad_values import EXCUSED, KINDS, METHODS, NEVER, NOT_TRIED, SPECIAL, junk
from tests.conftest import KINDS as MODEL_KINDS
from tests.conftest import freshly_loaded, live_hooks, loaded, plain_model

PROMPT = "I went up to my friend and said"


@pytest.fixture(scope="module")
def good() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Every public function with arguments that it takes."""
    model = loaded("gpt2", MODEL_KINDS[0])
    vector = sl.actadd(model, " love", " hate", layer=1)
    things = ("tea", "rain", "dogs", "cats", "snow", "wine", "work", "music")
    everywhere = sl.actadd(model, " love", " hate", layer=2).at(1).on("all")
    contrast = sl.ContrastSet(tuple(f"I love {one}" for one in things), tuple(f"I hate {one}" for one in things))
    few = {"n": 1, "max_new_tokens": 1}
    learned = {"model": model, "targets": ["I like tea", "I like rain"], "layer": 1, "steps": 5, "progress": False}
    swept = sl.sweep(model, vector, PROMPT, metrics=[sl.metrics.length()], **few, progress=False)
    has_e = sl.metrics.Metric("an e", "share", lambda texts: np.array([float("e" in text) for text in texts]))
    scale = [sl.norm_share(1.0)]
    searched = sl.search(
        model, vector, PROMPT, goal=has_e, strengths=scale, budget=40, confirm=1, **few, progress=False
    )
    confirmed = swept.confirm(model, n=2, progress=False)
    text = {"model": model, "prompts": PROMPT}
    steered = {**text, "steering": vector}
    table: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "actadd": (sl.actadd, {"model": model, "positive": " love", "negative": " hate", "layer": 1}),
        "mean_difference": (
            sl.mean_difference,
            {"model": model, "positives": ["a b"], "negatives": ["b a"], "layer": 1},
        ),
        "pca": (sl.pca, {"model": model, "contrast": contrast, "layer": 1}),
        "probe": (sl.probe, {"model": model, "contrast": contrast, "layer": 1}),
        "directions": (sl.directions, {"model": model, "contrast": contrast, "layers": [1]}),
        "latent": (
            sl.latent,
            {"model": model, "target": " tea", "prompt": "I like", "layer": 1, "steps": 2, "progress": False},
        ),
        "trained": (sl.trained, learned),
        "reft": (sl.reft, learned),
        "model_difference": (
            sl.model_difference,
            {"after": _other(), "before": model, "texts": ["a b", "b a"], "layer": 1},
        ),
        "ContrastSet": (sl.ContrastSet, {"positive": ("a", "b"), "negative": ("c", "d")}),
        "ContrastSet.of": (sl.ContrastSet.of, {"pairs": [("a", "b")]}),
        "ContrastSet.labelled": (sl.ContrastSet.labelled, {"texts": ["a", "b"], "labels": [1, 0]}),
        "ContrastSet.template": (
            sl.ContrastSet.template,
            {"texts": ["a"], "positive": "Happily: {}", "negative": "Sadly: {}"},
        ),
        "ContrastSet.read": (sl.ContrastSet.read, {"path": "pairs.csv"}),
        "ContrastSet.split": (contrast.split, {}),
        "ContrastSet.sample": (contrast.sample, {"n": 2}),
        "ContrastSet.shuffled": (contrast.shuffled, {}),
        "ContrastSet.lint": (contrast.lint, {"model": model}),
        "ContrastSet.record": (contrast.record, {}),
        "generate": (sl.generate, {**steered, **few}),
        "next_token_logits": (sl.next_token_logits, steered),
        "score": (sl.score, {"model": model, "texts": PROMPT, "steering": vector}),
        "sweep": (
            sl.sweep,
            {**text, "what": vector, "metrics": [sl.metrics.length()], **few, "progress": False, "layers": [1]},
        ),
        "logit_shift": (sl.logit_shift, steered),
        "reliability": (sl.reliability, {**text, "vector": vector, "targets": (" a", " b"), "coeffs": [1.0]}),
        "shift_parts": (sl.shift_parts, steered),
        "layer_lens": (sl.layer_lens, steered),
        "layer_effect": (sl.layer_effect, {**text, "what": vector, "wanted": " wedding"}),
        "magnitudes": (sl.magnitudes, {**text, "what": vector}),
        "position_effect": (sl.position_effect, {**text, "vector": vector, "wanted": " wedding"}),
        "dimension_effect": (sl.dimension_effect, {**text, "vector": vector, "wanted": " wedding", "shares": [0.5]}),
        "token_map": (sl.token_map, {"model": model, "prompt": PROMPT, "steering": vector}),
        "norm_share": (sl.norm_share, {"share": 0.3}),
        "iso_kl": (sl.iso_kl, {"nats": 0.5}),
        "iso_surprise": (sl.iso_surprise, {"nats": 1.0}),
        "solve_strengths": (sl.solve_strengths, {**text, "vectors": vector, "strength": sl.norm_share(0.3)}),
        "search": (
            sl.search,
            {
                **text,
                "directions": vector,
                "goal": has_e,
                "strengths": scale,
                "budget": 40,
                **few,
                "confirm": 1,
                "progress": False,
            },
        ),
        "Search.front": (searched.front, {}),
        "Search.plot": (searched.plot, {}),
        "Search.report": (searched.report, {"path": "page.html"}),
        "read_store": (sl.read_store, {"path": "filled.sqlite"}),
        "side_by_side": (sl.side_by_side, {"frame": swept.frame}),
        "with_system": (sl.with_system, {"system": "Be brief.", "prompt": "Hello"}),
        "steer": (_steered, {"model": model, "vectors": vector}),
        "attach": (_attached, {"hf_model": plain_model("gpt2"), "steering": vector}),
        "save_torch": (sl.save_torch, {"steering": vector, "path": "a.pt"}),
        "load_torch": (sl.load_torch, {"path": "kept.pt"}),
        "save_gguf": (sl.save_gguf, {"vectors": everywhere, "path": "a.gguf"}),
        "save_hotwire": (sl.save_hotwire, {"vectors": everywhere, "path": "a.pt"}),
        "save_vllm_lens": (sl.save_vllm_lens, {"vectors": everywhere, "path": "a.pt"}),
        "save_lm_eval": (sl.save_lm_eval, {"steering": everywhere, "path": "a.pt"}),
        "load_caa": (sl.load_caa, {"model": model, "path": "vec_layer_1.pt"}),
        "load_steering_vectors": (sl.load_steering_vectors, {"model": model, "vectors": {1: torch.ones(32)}}),
        "load_gguf": (sl.load_gguf, {"model": model, "path": "kept.gguf"}),
        "Condition": (sl.Condition, {"injections": (sl.Injection(vector),)}),
        "Gate": (sl.Gate, {"direction": vector.at(1), "above": 0.0}),
        "Gate.opens": (sl.Gate(vector.at(1), above=0.0).opens, {"projections": torch.zeros(2)}),
        "Gate.projections": (sl.Gate(vector.at(1), above=0.0).projections, text),
        "Condition.of": (sl.Condition.of, {"parts": [vector]}),
        "Condition.under": (sl.Condition.of([vector]).under, {"gate": sl.Gate(vector.at(1), above=0.0)}),
        "sae_direction": (
            sl.sae_direction,
            {"model": model, "sae": {"W_dec": torch.ones(3, model.cfg.d_model)}, "feature": 1, "layer": 1},
        ),
        "Ramp": (sl.Ramp, {"points": [0, 1]}),
        "Injection": (sl.Injection, {"vector": vector}),
        "Injection.save": (sl.Injection(vector).save, {"path": "a.safetensors"}),
        "Injection.load": (sl.Injection.load, {"path": "kept-injection.safetensors"}),
        "PromptPair": (sl.PromptPair, {"positive": "a", "negative": "b"}),
        "Prompting": (sl.Prompting, {"words": "Be brief."}),
        "Prompting.before": (sl.Prompting("Be brief.").before, {"model": model, "prompt": PROMPT}),
        "Sampling": (sl.Sampling, {}),
        "SteeringVector": (
            sl.SteeringVector,
            {"values": vector.values, "layer": 1, "model": vector.model},
        ),
        "SteeringVector.of": (sl.SteeringVector.of, {"model": model, "tensor": vector.values, "layer": 1}),
        "SteeringVector.push": (_offline(vector.push), {"repository": "user/name"}),
        "SteeringVector.pull": (_offline(sl.SteeringVector.pull), {"repository": "user/name"}),
        "SteeringVector.at": (vector.at, {"position": 0}),
        "SteeringVector.of_heads": (sl.actadd(model, " love", " hate", layer=1, site="z").of_heads, {"heads": [0]}),
        "SteeringVector.on": (vector.on, {"placement": "back"}),
        "SteeringVector.save": (vector.save, {"path": "a.safetensors"}),
        "SteeringVector.load": (sl.SteeringVector.load, {"path": "kept.safetensors"}),
        "SteeringVector.describe": (vector.describe, {}),
        "PromptPair.read": (sl.PromptPair("a", "b").read, {"model": model}),
        "PromptPair.padded": (sl.PromptPair("a", "b").padded, {"model": model}),
        "Sweep.best": (swept.best, {}),
        "Sweep.effects": (swept.effects, {}),
        "Sweep.front": (swept.front, {}),
        "Sweep.verdicts": (swept.verdicts, {}),
        "Sweep.confirm": (swept.confirm, {"model": model, "n": 1, "progress": False}),
        "Confirmation.plot": (confirmed.plot, {}),
        "Confirmation.report": (confirmed.report, {"path": "page.html"}),
        "Sweep.baseline": (swept.baseline, {}),
        "Sweep.plot": (swept.plot, {}),
        "Sweep.report": (swept.report, {"path": "page.html"}),
        "metrics.words": (lambda words, **k: sl.metrics.words(words, **k), {"words": "cat"}),
        "metrics.word_count": (lambda words, **k: sl.metrics.word_count(words, **k), {"words": "cat"}),
        "metrics.topic": (sl.metrics.topic, {"topic": "war"}),
        "metrics.length": (sl.metrics.length, {}),
        "metrics.distinct_n": (sl.metrics.distinct_n, {}),
        "metrics.repetition": (sl.metrics.repetition, {}),
        "metrics.spans": (sl.metrics.spans, {"text": "a cat", "words": ["cat"]}),
        "Metric": (sl.metrics.Metric, {"name": "x", "kind": "mean", "function": lambda texts: np.zeros(len(texts))}),
    }
    return table


def _other() -> Any:
    """The same model with other weights."""
    other = freshly_loaded("gpt2", MODEL_KINDS[0])
    with torch.no_grad():
        for weight in other.blocks[0].parameters():
            if weight.ndim > 1:  # scaled layer norms would read as weights that are not folded
                weight.mul_(1.5)
    return other


def _steered(model: Any, vectors: Any, **options: Any) -> None:
    with sl.steer(model, vectors, **options), torch.no_grad():
        model(torch.tensor([[1, 2, 3, 4, 5]]))


def _offline(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the hub, which no test has: good arguments get as far as the network, and no further."""

    def call(**arguments: Any) -> None:
        try:
            function(**arguments)
        except sl.SteerlensError as error:
            if "OfflineModeIsEnabled" not in str(error) and "LocalEntryNotFound" not in str(error):
                raise

    return call


def _attached(hf_model: Any, steering: Any, **options: Any) -> None:
    sl.attach(hf_model, steering, **options).remove()


def public() -> Iterator[tuple[str, Any]]:
    """Name and object of all that the package offers and that can be called."""
    for name in sl.__all__:
        value = getattr(sl, name)
        if name in EXCUSED and name not in METHODS:
            continue
        if inspect.isfunction(value) or (inspect.isclass(value) and name not in EXCUSED):
            yield name, value
        for method in METHODS.get(name, ()):
            yield f"{name}.{method}", getattr(value, method)
        if inspect.isclass(value) and name not in EXCUSED:
            found = {key for key, one in vars(value).items() if not key.startswith("_") and callable(one)}
            static = {key for key, one in vars(value).items() if isinstance(one, staticmethod | classmethod)}
            assert found | static <= set(METHODS.get(name, ())), f"{name} has methods that METHODS does not name"
    for name, value in vars(sl.metrics).items():
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == sl.metrics.__name__:
            yield f"metrics.{name}", value
    yield "Metric", sl.metrics.Metric


def parameters(value: Any) -> list[str]:
    """The names of what a function takes, without `self`."""
    return [name for name in inspect.signature(value).parameters if name != "self"]


NAMES = [name for name, _ in public()]


def test_nothing_public_is_left_out(good: dict[str, Any]) -> None:
    for name, value in public():
        assert name in good, f"{name} is new: give it a good call"
        for parameter in parameters(value):
            kind = SPECIAL.get((name, parameter), KINDS.get(parameter))
            assert kind in NEVER, f"{parameter} of {name} is new: give it a kind"
    callables = {name for name in sl.__all__ if callable(getattr(sl, name)) and name != "Placement"}
    assert callables - set(EXCUSED) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_bad_arguments_are_told_in_one_line(
    name: str, good: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As users have it: shapes in signatures are not checked, and every value reaches the function's own door.
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    monkeypatch.chdir(tmp_path)
    function, arguments = good[name]
    model = loaded("gpt2", MODEL_KINDS[0])
    vector = sl.actadd(model, " love", " hate", layer=1)
    vector.save("kept.safetensors")
    sl.Injection(vector).save("kept-injection.safetensors")
    Path("pairs.csv").write_text("positive,negative\na,b\nc,d\n")
    sl.save_torch(vector, "kept.pt")
    torch.save(torch.ones(32), "vec_layer_1.pt")
    sl.save_gguf(sl.actadd(model, " love", " hate", layer=2).at(1).on("all"), "kept.gguf")
    if name == "read_store":
        sl.sweep(model, vector, PROMPT, store="filled.sqlite", metrics=[sl.metrics.length()], n=1, max_new_tokens=1)
    before = live_hooks(model)
    failures = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function(**arguments)
        for parameter in parameters(dict(public())[name]):
            kind = SPECIAL.get((name, parameter), KINDS[parameter])
            for refused, value in [(True, one) for one in NEVER[kind]] + [(False, one) for one in junk()]:
                if isinstance(value, bool) and (parameter, value) in NOT_TRIED:
                    continue
                what = f"{name}({parameter}={str(value)[:40]!r})"
                try:
                    function(**{**arguments, parameter: value})
                except sl.SteerlensError as error:
                    line = str(error)
                    if not line or (not line.replace("\t", "").isprintable() and any(ord(c) < 32 for c in line)):
                        failures.append(f"{what}: no line: {line!r}")
                    if len(line) > 1600:
                        failures.append(f"{what}: {len(line)} characters")
                except Exception as error:
                    failures.append(f"{what}: {type(error).__name__}: {str(error)[:80]}")
                else:
                    if refused:
                        failures.append(f"{what} was taken")
    assert live_hooks(model) == before
    assert not failures, f"{len(failures)}:\n" + "\n".join(failures[:40])


quick = settings(max_examples=200, deadline=None, derandomize=True)
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.complex_numbers(),
    st.lists(st.one_of(st.integers(), st.floats(), st.text()), max_size=3),
    st.dictionaries(st.text(), st.integers(), max_size=2),
    st.sampled_from([object, object(), np.zeros(3), np.float64("nan"), torch.tensor(3), torch.tensor(True), pd.NA]),
)


@quick
@given(value=anything)
def test_the_readers_give_what_they_say_or_one_line(value: Any) -> None:
    readers: list[tuple[Callable[[Any], Any], type]] = [
        (lambda x: arguments.whole_number("n", x, least=1, most=9), int),
        (arguments.seed_number, int),
        (lambda x: arguments.finite_number("x", x, above=0), float),
        (lambda x: arguments.probability("p", x), float),
        (lambda x: arguments.flag("f", x), bool),
        (lambda x: arguments.text("t", x), str),
        (lambda x: arguments.listed("l", x, of="things"), list),
        (lambda x: arguments.texts("t", x), list),
        (lambda x: arguments.numbers("c", x), list),
        (lambda x: arguments.layer_number(x, 4), int),
        (lambda x: arguments.layer_numbers(x, 4), list),
        (lambda x: arguments.choice("c", x, ("a", None)), object),
        (arguments.path_to, Path),
        (arguments.shown, str),
    ]
    for reader, kind in readers:
        try:
            read = reader(value)
        except sl.SteerlensError as error:
            assert "\n" not in str(error) and len(str(error)) < 1600
        else:
            assert isinstance(read, kind)
            if kind is float:
                assert math.isfinite(read)
