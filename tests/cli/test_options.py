"""How the text of an option is read."""

from __future__ import annotations

import dataclasses

import pytest

from steerlens.cli.options import SamplingChoice, read_layers, read_placement, read_prompt
from steerlens.engine import Sampling
from steerlens.errors import SteerlensError


@pytest.mark.parametrize(
    ("text", "layers"),
    [("all", "all"), ("0,4-6", [0, 4, 5, 6]), (" 3 , 1 ", [3, 1]), ("2,1-3,2", [2, 1, 3]), ("7", [7])],
)
def test_layers(text: str, layers: object) -> None:
    assert read_layers(text)(8) == layers


@pytest.mark.parametrize("text", ["", "-1", "1-", "-", "1,,2", "٣", "1.5", "0x1", "1-2-3"])
def test_layers_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SteerlensError, match="cannot be read; give 'all', or numbers and ranges"):
        read_layers(text)


def test_layers_that_the_model_does_not_have() -> None:
    assert read_layers("7")(8) == [7]
    with pytest.raises(SteerlensError, match="layer 8 is out of range; the model has layers 0 to 7"):
        read_layers("7-8")(8)


def test_placements_and_prompts() -> None:
    assert [read_placement(text) for text in ("front", "-3", "12", "²")] == ["front", -3, 12, "²"]
    assert read_prompt("Hi", chat=False) == "Hi"
    assert read_prompt("Hi", chat=True) == [{"role": "user", "content": "Hi"}]


def test_the_sampling_options_are_fields_of_sampling() -> None:
    names = {"max_new_tokens" if f.name == "tokens" else f.name for f in dataclasses.fields(SamplingChoice)}
    assert names <= {f.name for f in dataclasses.fields(Sampling)}
    assert SamplingChoice(n=3, tokens=5, top_k=2).read() == Sampling(n=3, max_new_tokens=5, top_k=2)
    assert SamplingChoice(n=1).read() == Sampling(), "the same defaults"
