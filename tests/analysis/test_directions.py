"""Directions: each method's vectors are its own, from one pass of every text."""

from __future__ import annotations

from typing import Any

import pytest
from torch.testing import assert_close

import steerlens as sl
from steerlens.steering.extraction import readings

THINGS = ["film", "day", "book", "song", "meal", "walk", "city", "story", "house", "game", "play", "road"]
CONTRAST = sl.ContrastSet.of([(f"I love this {x} a lot", f"I hate this {x}") for x in THINGS], name="love")


def test_every_method_gives_what_it_gives_alone(gpt2: Any) -> None:
    found = sl.directions(gpt2, CONTRAST, methods=["mean_difference", "pca", "probe", "lda"], seed=2)
    train, test = CONTRAST.split(0.25, seed=2)
    alone = {
        "mean_difference": sl.mean_difference(gpt2, train, layers="all"),
        "pca": sl.pca(gpt2, train, layers="all"),
        "probe": sl.probe(gpt2, train, layers="all", held_out=test),
        "lda": sl.probe(gpt2, train, layers="all", held_out=test, kind="lda"),
    }
    assert list(found.vectors) == list(alone)
    for method, vectors in alone.items():
        for layer, vector in vectors.items():
            assert_close(found.vectors[method][layer].values, vector.values, rtol=1e-3, atol=1e-4)
    probes = found.frame[found.frame["method"] == "probe"].set_index("layer")["auc"]
    assert probes.to_dict() == pytest.approx({layer: v.source["auc"] for layer, v in alone["probe"].items()})
    means = found.frame[(found.frame["method"] == "mean_difference") & (found.frame["norm"] > 0)]
    assert means["cosine"].tolist() == pytest.approx([1.0] * len(means))
    assert len(found.cosines) == 6 * gpt2.cfg.n_layers
    best = found.best("pca")
    assert best.source["auc"] == found.frame[found.frame["method"] == "pca"]["auc"].max()


def test_every_text_is_run_once(any_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = readings.run_up_to

    def counted(model: Any, tokens: Any, *rest: Any) -> None:
        seen.append(len(tokens))
        real(model, tokens, *rest)

    monkeypatch.setattr(readings, "run_up_to", counted)
    sl.directions(any_model, CONTRAST, methods=["mean_difference", "pca", "probe", "lda"])
    assert sum(seen) == 2 * len(CONTRAST)


def test_the_figure_shows_every_method(any_model: Any) -> None:
    figure = sl.directions(any_model, CONTRAST).plot()
    assert {trace.name for trace in figure.data} == {"mean_difference", "pca", "probe"}
    assert len(figure.data) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": ["pca", "magic"]}, "method 'magic' is unknown; use some of mean_difference"),
        ({"methods": []}, "the list of methods is empty"),
        ({"layers": [7]}, "layer 7 is out of range"),
        ({"held_out": 2}, "held_out must be a share"),
    ],
)
def test_bad_input_is_one_line(any_model: Any, options: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        sl.directions(any_model, CONTRAST, **options)
    apart = sl.ContrastSet(CONTRAST.positive, CONTRAST.negative, paired=False)
    with pytest.raises(sl.SteerlensError, match="not in pairs"):
        sl.directions(any_model, apart)
