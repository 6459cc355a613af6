"""Every page of `reproduce` answers its title, leads back, says how to repeat it, and names its columns in words."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path
from typing import Any

import pytest

import steerlens as sl
from steerlens.experiments import suite
from steerlens.models import DEMO_MODEL_PATH

_METHODS: dict[str, Any] = {"layers": [4], "coeffs": (2.0,), "n_prompts": 6, "max_new_tokens": 3, "random_draws": 1}
TINY: dict[str, dict[str, Any]] = {
    "perplexity": {"documents": "shipped", "n_documents": 6, "layer": 4, "layers": [3, 4], "essays": False},
    "topic": {"n": 3, "max_new_tokens": 4, "layers": [4], "coeffs": (4.0,)},
    "knowledge": {"limit": 8},
    "overhead": {"batch": 2, "tokens": 8, "forwards": 2, "seeds": 2},
    "sentiment": _METHODS | {"pair": ("I loved this wonderful film", "I hated this terrible film")},
    "toxicity": _METHODS,
    "gallery": {"examples": ["love", "goose, a conditional behaviour"], "n": 3, "max_new_tokens": 4},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = {name: dataclasses.replace(one, quick=TINY[name]) for name, one in suite.EXPERIMENTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "EXPERIMENTS", settings)
        model = sl.load_model(DEMO_MODEL_PATH)
        return sl.experiments.reproduce(model, folder=tmp_path_factory.mktemp("all") / "out", quick=True, seed=2)


def text_of(page: str) -> str:
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.mark.parametrize("name", list(TINY))
def test_a_page(done: Any, name: str) -> None:
    assert not done.failures
    result, source = done.results[name], (done.page.parent / f"{name}.html").read_text(encoding="utf-8")
    text = text_of(source)
    assert result.title.endswith("?"), "a title asks"
    answer = result.answer()
    assert answer and all(" ".join(one.split()) in text for one in answer)
    assert text.index(result.title) < text.index(answer[0].split("(")[0].strip()), "the answer follows the question"
    assert "nan" not in re.findall(r"[a-z]+", " ".join(answer).lower())
    assert 'href="index.html"' in source
    assert f"sl.experiments.reproduce(model, ['{name}']" in text and "seed=2" in text
    assert str(DEMO_MODEL_PATH.resolve()) in text, "the place that the model was loaded from"
    for one in result.differences:
        assert " ".join(one.split()) in text
    headings = [html.unescape(one) for one in re.findall(r"<th scope=col[^>]*>([^<]*)", source)]
    assert headings and not [one for one in headings if "_" in one or one in ("x", "mask", "coeff")]
    assert "?." not in text
    beside = result.beside_paper()
    assert list(beside) == ["what", "here", "reported", "reported for", "where"] and len(beside)
    assert beside["where"].str.contains("Turner et al.").all()


def test_the_index_has_every_answer(done: Any) -> None:
    text = text_of(done.page.read_text(encoding="utf-8"))
    for result in done.results.values():
        assert result.title in text and " ".join(result.answer()[0].split()) in text
    assert f"sl.experiments.reproduce(model, {list(TINY)!r}" in text
    assert (done.page.parent / "topic.html").is_file() and Path(done.page).name == "index.html"
