"""The explorer without a browser: what a move of a control does to the figures, the errors, the code and the clock."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
import types
from typing import Any

import numpy as np
import pytest

import steerlens as sl

pytest.importorskip("ipywidgets", reason='the explorer needs the extra: pip install "steerlens[notebook]"')
pytest.importorskip("anywidget", reason='the explorer needs the extra: pip install "steerlens[notebook]"')

import plotly.graph_objects as go

from steerlens.explorer import Explorer, panels, view, widget
from steerlens.extras import needs


@pytest.fixture
def explorer(demo: Any) -> Explorer:
    return sl.explore(demo, ("Love", "Hate"), "I hate you because", layer=2, coeff=5, words="love, hate")


def bars(figure: go.Figure) -> list[float]:
    return [float(x) for trace in figure.data for x in np.asarray(trace.x)]


def chosen(figure: go.Figure) -> list[float]:
    return [shape.x0 for shape in figure.layout.shapes if shape.name == "chosen layer"]


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """The calls that the explorer makes to a function of the package, from now on."""
    calls: list[Any] = []
    function = getattr(view, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return function(*args, **kwargs)

    monkeypatch.setattr(view, name, call)
    return calls


def test_it_shows_what_the_package_computes(demo: Any, explorer: Explorer) -> None:
    vector = 5 * sl.actadd(demo, "Love", "Hate", layer=2)
    expected = sl.logit_shift(demo, "I hate you because", vector, by="kl", follow=[" love", " hate"], pieces="first")
    assert bars(explorer.shift_figure) == bars(expected.plot())
    assert explorer.shift.frame.equals(expected.frame)
    effect = sl.layer_effect(demo, sl.PromptPair("Love", "Hate"), "I hate you because", [" love", " hate"], coeffs=5)
    assert [t.name for t in explorer.effect_figure.data] == [t.name for t in effect.plot().data]
    np.testing.assert_allclose(explorer.effect.frame["kl"], effect.frame["kl"], atol=1e-6)
    assert explorer.error == ""


def test_the_browser_is_sent_what_is_shown(explorer: Explorer) -> None:
    explorer.controls["layer"].value = 1
    sent = [json.loads(text) for text in explorer._figures.figures]
    assert sent[0] == json.loads(explorer.shift_figure.to_json())
    assert [shape["x0"] for shape in sent[1]["layout"]["shapes"] if shape.get("name") == "chosen layer"] == [1]


@pytest.mark.parametrize(("control", "value"), [("layer", 1), ("coeff", -3.0), ("placement", "back"), ("by", "shift")])
def test_a_move_redraws_the_shift(explorer: Explorer, control: str, value: object) -> None:
    before = bars(explorer.shift_figure)
    explorer.controls[control].value = value
    after = bars(explorer.shift_figure)
    assert after != before
    assert after == bars(explorer.shift.plot())


def test_a_move_of_the_layer_computes_no_more_than_it_must(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {name: counted(monkeypatch, name) for name in ("actadd", "logit_shift", "layer_effect")}
    explorer.controls["layer"].value = 1
    assert chosen(explorer.effect_figure) == [1]
    assert {name: len(made) for name, made in calls.items()} == {"actadd": 0, "logit_shift": 1, "layer_effect": 0}
    explorer.controls["layer"].value = 2  # has been shown before
    assert len(calls["logit_shift"]) == 1
    explorer.controls["coeff"].value = 4
    assert {name: len(made) for name, made in calls.items()} == {"actadd": 0, "logit_shift": 2, "layer_effect": 1}
    explorer.controls["positive"].value = "Joy"
    assert len(calls["actadd"]) == 1
    explorer.controls["positive"].value = "Love"
    assert len(calls["actadd"]) == 1


def test_moves_in_a_row_are_drawn_once(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    shifts, effects = counted(monkeypatch, "logit_shift"), counted(monkeypatch, "layer_effect")

    async def drag() -> None:
        for step in range(10):
            explorer.controls["coeff"].value = 6 + step / 2
        assert not shifts, "nothing is computed while the moves come in"
        while not shifts:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0)
        assert explorer._figures.stale[1] or effects, "the figure by layer waits, and is pale until it is drawn"
        deadline = time.monotonic() + 30
        while not effects and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    asyncio.run(drag())
    assert len(shifts) == len(effects) == 1
    assert explorer._figures.stale == [False, False]
    assert explorer.view.coeff == 10.5
    assert bars(explorer.shift_figure) == bars(explorer.shift.plot())


def test_messages_of_other_threads_are_worked_off_in_the_thread_of_the_widget(
    demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer Jupyters give each widget's messages a thread; two passes at once would mix their hooks."""
    at_work: list[str] = []

    def noted(name: str) -> Any:
        original = getattr(view.Numbers, name)

        def call(numbers: Any, shown: Any) -> Any:
            at_work.append(threading.current_thread().name)
            return original(numbers, shown)

        return call

    for name in ("shift", "effect", "completions"):
        monkeypatch.setattr(view.Numbers, name, noted(name))

    async def use() -> Explorer:
        opened = sl.explore(demo)
        at_work.clear()

        def type_and_click() -> None:
            opened.controls["prompt"].value = "This film was"
            opened.controls["n"].value = 1
            opened.controls["max_new_tokens"].value = 3
            opened._button.click()

        threads = [threading.Thread(target=type_and_click, name=f"subshell {i}") for i in range(3)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while (opened._timers or any(map(threading.Thread.is_alive, threads))) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.02)  # what the last thread handed over
        while opened._timers and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return opened

    opened = asyncio.run(use())
    assert set(at_work) == {threading.current_thread().name} and len(at_work) >= 3
    assert opened.error == "" and "This film was" in opened.completions_html


@pytest.mark.parametrize(
    ("control", "value", "words"),
    [
        ("prompt", "", "the prompt is empty"),
        ("words", " , ", "no words to follow"),
        ("negative", "too many words to fit the prompt, far too many of them", "vector spans"),
    ],
)
def test_errors_are_one_line_in_the_widget(explorer: Explorer, control: str, value: str, words: str) -> None:
    good = explorer.controls[control].value
    explorer.controls[control].value = value
    assert words in explorer.error
    assert "\n" not in explorer.error
    assert "Traceback" not in explorer.error
    assert True in explorer._figures.stale, "what is shown belongs to other settings"
    explorer.controls[control].value = good
    assert explorer.error == ""
    assert explorer._figures.stale == [False, False]


def test_both_prompts_empty_is_an_error_in_the_widget_too(explorer: Explorer) -> None:
    explorer.controls["positive"].value = ""
    explorer.controls["negative"].value = ""
    assert "both prompts of the pair are empty" in explorer.error


def test_an_index_that_does_not_fit(explorer: Explorer) -> None:
    assert explorer.controls["index"].layout.display == "none"
    explorer.controls["placement"].value = "index"
    assert explorer.controls["index"].layout.display == ""
    explorer.controls["index"].value = 1
    assert explorer.error == ""
    explorer.controls["index"].value = 77
    assert "use an index from" in explorer.error


def test_an_unforeseen_error_is_named_on_one_line(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("out of <memory>\nwith a long story")

    monkeypatch.setattr(view, "logit_shift", fail)
    explorer.controls["layer"].value = 1
    assert "RuntimeError: out of &lt;memory&gt;" in explorer.error
    assert "long story" not in explorer.error


def test_completions_come_when_asked_for_and_escaped(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, "generate")
    explorer.controls["n"].value, explorer.controls["max_new_tokens"].value = 2, 5
    explorer.controls["prompt"].value = "She wrote <b onclick=alert(1)> and"
    assert not calls
    assert explorer.completions_html == ""
    explorer._button.click()
    assert len(calls) == 1
    assert "&lt;b onclick=alert(1)&gt;" in explorer.completions_html
    assert "<b onclick" not in explorer.completions_html
    assert "steerlens-stale" not in explorer._completions._dom_classes
    explorer.controls["by"].value = "prob"
    assert "steerlens-stale" not in explorer._completions._dom_classes, "the completions do not depend on it"
    explorer.controls["coeff"].value = 1
    assert "steerlens-stale" in explorer._completions._dom_classes
    assert not explorer._button.disabled


@pytest.mark.parametrize(
    "moves",
    [
        {},
        {"layer": 1, "coeff": -2.5, "by": "prob", "measure": "disruption"},
        {"placement": "all"},
        {"placement": "last", "words": ""},
        {"placement": "index", "index": 1, "n": 1},
        {"prompt": 'He said: "It\'s\\n late", and', "positive": "a b", "negative": "\t"},
    ],
    ids=["as it opens", "moved", "everywhere", "last", "index", "quotes"],
)
def test_the_code_does_the_same(monkeypatch: pytest.MonkeyPatch, moves: dict[str, Any]) -> None:
    # Loaded as the code loads it: on the same device, from the same files.
    explorer = sl.explore(sl.load_model("demo"), ("Love", "Hate"), "I hate you because", layer=2, words="love, hate")
    shown: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "show", lambda figure, **options: shown.append(figure))
    explorer.controls["max_new_tokens"].value = 6
    for control, value in moves.items():
        explorer.controls[control].value = value
    names: dict[str, Any] = {}
    exec(compile(explorer.code, "as code", "exec"), names)
    columns = ["token", "shift", "prob_base", "prob_steered"]
    assert names["shift"].frame["token"].tolist() == explorer.shift.frame["token"].tolist()
    for column in columns[1:]:
        np.testing.assert_allclose(names["shift"].frame[column], explorer.shift.frame[column], atol=1e-6)
    np.testing.assert_allclose(bars(shown[0]), bars(explorer.shift_figure), atol=1e-6)
    if explorer.view.words:
        np.testing.assert_allclose(names["effect"].frame["kl"], explorer.effect.frame["kl"], atol=1e-6)
        assert len(shown) == 2
    explorer.complete()
    assert explorer.numbers.completions(explorer.view).equals(names["completions"])
    assert explorer._code.code == explorer.code, "the panel shows it"


def test_a_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sl.load_model("demo")
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    monkeypatch.setattr(model.tokenizer, "chat_template", template, raising=False)
    explorer = sl.explore(model, prompt="I hate you", layer=2, chat=True)
    explorer.controls["n"].value, explorer.controls["max_new_tokens"].value = 2, 4
    chat, vector = [{"role": "user", "content": "I hate you"}], 5 * sl.actadd(model, "Love", "Hate", layer=2)
    assert explorer.shift.summary["kl"].tolist() == sl.logit_shift(model, chat, vector).summary["kl"].tolist()
    explorer.complete()
    assert "user: I hate you" in explorer.completions_html
    names: dict[str, Any] = {}
    monkeypatch.setattr(go.Figure, "show", lambda figure, **options: None)
    monkeypatch.setattr(sl, "load_model", lambda name, **options: model)
    exec(compile(explorer.code, "as code", "exec"), names)
    assert names["prompt"] == chat
    assert explorer.numbers.completions(explorer.view).equals(names["completions"])
    as_chat = explorer.shift.summary["kl"].tolist()
    explorer.controls["chat"].value = False
    assert explorer.shift.summary["kl"].tolist() != as_chat, "nothing that is kept is mistaken for the other"
    assert "steerlens-stale" in explorer._completions._dom_classes
    explorer.controls["placement"].value = "user"
    assert "no words of role" in explorer.error
    explorer.controls["chat"].value = True
    assert explorer.error == ""


def test_no_chat_without_a_template(demo: Any, explorer: Explorer) -> None:
    assert explorer.controls["chat"].disabled
    with pytest.raises(sl.SteerlensError, match="no chat template"):
        sl.explore(demo, chat=True)
    with pytest.raises(sl.SteerlensError, match="none of the explorer's: front"):
        sl.explore(demo, placement="assistant")


def test_the_code_names_how_the_model_was_loaded(any_model: Any) -> None:
    made = sl.explore(any_model, ("Love", "Hate"), "I hate you", words="love")
    assert "or the model that the explorer was given" in made.code
    ast_of = compile(made.code, "as code", "exec")
    assert ast_of is not None


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
    panels.figures_class.cache_clear()
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
