"""How an explorer is opened, and by whom: Jupyter, Colab, nobody without a model."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

import steerlens as sl

pytest.importorskip("ipywidgets", reason='the explorer needs the extra: pip install "steerlens[notebook]"')
pytest.importorskip("anywidget", reason='the explorer needs the extra: pip install "steerlens[notebook]"')


from steerlens.explorer import Explorer, widget
from steerlens.extras import needs


def test_no_chat_without_a_template(demo: Any, explorer: Explorer) -> None:
    assert not explorer.widget.options["chats"]
    with pytest.raises(sl.SteerlensError, match="no chat template"):
        sl.explore(demo, chat=True)
    with pytest.raises(sl.SteerlensError, match="none of the explorer's: front"):
        sl.explore(demo, placement="assistant")


def test_jupyter_is_given_the_widget(explorer: Explorer) -> None:
    bundle = explorer._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.widget.model_id
    assert repr(explorer).startswith("Explorer(5 × ('Love' − 'Hate') at layer 2, front;")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": 99}, "layer 99 is out of range"),
        ({"layer": -1}, "layer -1 is out of range"),
        ({"coeff": 50}, "coeff = 50 is off the slider"),
        ({"pair": sl.PromptPair("a", "b"), "coeff": -21}, "pass coeffs="),
    ],
)
def test_what_it_is_opened_with_must_fit(demo: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        sl.explore(demo, **options)


def test_it_wants_a_model() -> None:
    with pytest.raises(sl.SteerlensError, match="expected a HookedTransformer"):
        sl.explore("demo")  # type: ignore[arg-type]


def test_a_missing_package_is_named_with_its_extra(demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(sl.SteerlensError, match=r'no_such is not installed; pip install "steerlens\[notebook\]"'):
        needs("json", "no_such", extra="notebook")
    monkeypatch.setitem(sys.modules, "anywidget", None)
    widget.front_class.cache_clear()
    with pytest.raises(sl.SteerlensError, match=r'pip install "steerlens\[notebook\]"'):
        sl.explore(demo)


def test_colab_is_asked_to_show_widgets(demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    output = types.ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda: asked.append(True)  # type: ignore[attr-defined]
    for name, module in (("google.colab", types.ModuleType("google.colab")), ("google.colab.output", output)):
        monkeypatch.setitem(sys.modules, name, module)
    widget._let_colab_show_widgets()
    assert asked == [True]
