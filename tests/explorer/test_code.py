"""The Python lines that an explorer shows do what it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import steerlens as sl

pytest.importorskip("ipywidgets", reason='the explorer needs the extra: pip install "steerlens[notebook]"')
pytest.importorskip("anywidget", reason='the explorer needs the extra: pip install "steerlens[notebook]"')

import plotly.graph_objects as go

from tests.explorer.reading import bars


@pytest.mark.parametrize(
    "moves",
    [
        {},
        {"layer": 1, "coeff": -2.5, "by": "prob", "measure": "disruption"},
        {"placement": "all"},
        {"placement": "last", "words": ""},
        {"placement": "index", "index": 1, "n": 1},
        {"prompt": 'He said: "It\'s\\n late", and', "positive": "a b", "negative": "\t"},
        {"method": "mean_difference", "contrast": "war", "placement": "all"},
        {"method": "probe", "contrast": "sentiment", "placement": "last"},
    ],
    ids=["as it opens", "moved", "everywhere", "last", "index", "quotes", "means", "probe"],
)
def test_the_code_does_the_same(monkeypatch: pytest.MonkeyPatch, moves: dict[str, Any]) -> None:
    # Loaded as the code loads it: on the same device, from the same files.
    explorer = sl.explore(sl.load_model("demo"), ("Love", "Hate"), "I hate you because", layer=2, words="love, hate")
    shown: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "show", lambda figure, **options: shown.append(figure))
    explorer.move(max_new_tokens=6, **moves)
    names: dict[str, Any] = {}
    exec(compile(explorer.code, "as code", "exec"), names)
    columns = ["token", "shift", "prob_base", "prob_steered"]
    assert names["shift"].frame["token"].tolist() == explorer.shift.frame["token"].tolist()
    for column in columns[1:]:
        np.testing.assert_allclose(names["shift"].frame[column], explorer.shift.frame[column], atol=1e-6)
    np.testing.assert_allclose(bars(shown[0]), bars(explorer.shift_figure), atol=1e-6)
    if explorer.view.words:
        np.testing.assert_allclose(names["effect"].frame["kl"], explorer.effect.frame["kl"], atol=1e-6)
        assert len(shown) == 3
    explorer.complete()
    assert explorer.numbers.completions(explorer.view).equals(names["completions"])
    assert explorer.widget.code == explorer.code, "the panel shows it"


def test_a_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sl.load_model("demo")
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    monkeypatch.setattr(model.tokenizer, "chat_template", template, raising=False)
    explorer = sl.explore(model, prompt="I hate you", layer=2, chat=True)
    explorer.move(n=2, max_new_tokens=4)
    chat, vector = [{"role": "user", "content": "I hate you"}], 5 * sl.actadd(model, "Love", "Hate", layer=2)
    assert explorer.shift.summary["kl"].tolist() == sl.logit_shift(model, chat, vector).summary["kl"].tolist()
    explorer.complete()
    assert explorer.widget.streams["prompt"] == "user: I hate you"
    names: dict[str, Any] = {}
    monkeypatch.setattr(go.Figure, "show", lambda figure, **options: None)
    monkeypatch.setattr(sl, "load_model", lambda name, **options: model)
    exec(compile(explorer.code, "as code", "exec"), names)
    assert names["prompt"] == chat
    assert explorer.numbers.completions(explorer.view).equals(names["completions"])
    as_chat = explorer.shift.summary["kl"].tolist()
    explorer.move(chat=False)
    assert explorer.shift.summary["kl"].tolist() != as_chat, "nothing that is kept is mistaken for the other"
    assert "completions" in explorer.widget.stale
    explorer.move(placement="user")
    assert "no words of role" in explorer.error
    explorer.move(chat=True)
    assert explorer.error == ""


def test_the_code_names_how_the_model_was_loaded(any_model: Any) -> None:
    made = sl.explore(any_model, ("Love", "Hate"), "I hate you", words="love")
    assert "or the model that was given" in made.code
    ast_of = compile(made.code, "as code", "exec")
    assert ast_of is not None
