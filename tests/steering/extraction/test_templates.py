"""A vector made of chats remembers the template that rendered them, whatever the method; one of texts has none."""

from __future__ import annotations

from typing import Any

import pytest

import steerlens as sl
from steerlens.steering.chats import template_hash

TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
TEXTS = sl.ContrastSet.of([("I love you", "I hate you"), ("so good", "so bad"), ("we like it", "we hate it")] * 2)
CHATS = sl.ContrastSet.of(
    [
        ([{"role": "user", "content": plus}], [{"role": "user", "content": minus}])
        for plus, minus in zip(TEXTS.positive, TEXTS.negative, strict=True)
    ]
)
MAKE: dict[str, Any] = {
    "actadd": lambda model, set: sl.actadd(model, sl.PromptPair(set.positive[0], set.negative[0]), layer=1),
    "mean_difference": lambda model, set: sl.mean_difference(model, set, layer=1),
    "mean_difference of lists": lambda model, set: sl.mean_difference(
        model, list(set.positive), list(set.negative), layer=1
    ),
    "pca": lambda model, set: sl.pca(model, set, layer=1),
    "probe": lambda model, set: sl.probe(model, set, layer=1, held_out=0.5),
    "directions": lambda model, set: sl.directions(model, set, methods=["pca"], layers=[1], held_out=0.5).vectors[
        "pca"
    ][1],
}


@pytest.mark.parametrize("method", MAKE)
def test_the_source_names_the_template_of_chats_alone(method: str, any_model: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(any_model.tokenizer, "chat_template", TEMPLATE, raising=False)
    assert MAKE[method](any_model, CHATS).source["template"] == template_hash(any_model) != ""
    assert "template" not in MAKE[method](any_model, TEXTS).source
