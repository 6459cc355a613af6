"""The explorer without a browser: what a move of a control does to the figures, the errors, the code and the clock."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import steerlens as sl

pytest.importorskip("ipywidgets", reason='the explorer needs the extra: pip install "steerlens[notebook]"')
pytest.importorskip("anywidget", reason='the explorer needs the extra: pip install "steerlens[notebook]"')


from steerlens.explorer import Explorer, contrasts, numbers, session
from steerlens.figures import theme
from steerlens.interruptions import Interrupted, interruptible
from tests.explorer.reading import bars, chosen


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """The calls that the explorer makes to a function of the package, from now on."""
    calls: list[Any] = []
    function = getattr(numbers if hasattr(numbers, name) else contrasts, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return function(*args, **kwargs)

    monkeypatch.setattr(numbers if hasattr(numbers, name) else contrasts, name, call)
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
    explorer.move(layer=1)
    front = explorer.widget
    assert json.loads(front.shift_figure) == json.loads(explorer.shift_figure.to_json())
    sent = json.loads(front.effect_figure)
    assert [shape["x0"] for shape in sent["layout"]["shapes"] if shape.get("name") == "chosen layer"] == [1]
    (ring,) = [trace for trace in json.loads(front.damage_figure)["data"] if trace.get("name") == "chosen layer"]
    here = explorer.effect.frame.query("role == 'steered' and layer == 1").iloc[0]
    assert explorer.damage_figure.data[-1].x[0] == here["disruption"] and ring["name"] == "chosen layer"
    assert front.settings["layer"] == 1 and front.options["n_layers"] == 8


def test_effect_and_damage_stand_beside_those_of_a_random_vector(explorer: Explorer) -> None:
    tiles = {tile["label"]: tile for tile in explorer.widget.tiles}
    rows = explorer.effect.frame[explorer.effect.frame["layer"] == 2].set_index("role")
    for name in ("effectiveness", "disruption"):
        assert tiles[name]["value"] == f"{theme.number(rows.loc['steered', name])} nats"
        assert tiles[name]["note"].endswith(theme.number(rows.loc["random", name]))


def test_every_token_of_the_prompt_says_what_changed_behind_it(explorer: Explorer, demo: Any) -> None:
    shown = explorer.widget.tokens
    assert [one["token"] for one in shown][1:] == ["I", "␣hate", "␣you", "␣because"]
    expected = sl.logit_shift(
        demo, "I hate you because", 5 * sl.actadd(demo, "Love", "Hate", layer=2), by="prob", top_k=3, positions="all"
    )
    last = expected.frame[expected.frame["position"] == 4].sort_values("prob_base", ascending=False)
    assert shown[0]["next"] == [], "nothing reaches BOS"
    assert [one[0] for one in shown[-1]["next"]] == [theme.visible_token(token) for token in last["token"]]
    assert shown[-1]["next"][0][1:] == [theme.percent(last.iloc[0][name]) for name in ("prob_base", "prob_steered")]
    assert max(one["share"] for one in shown) == 1


def test_leading_spaces_are_seen_in_the_fields(explorer: Explorer) -> None:
    explorer.move(positive=" Love")
    fields = explorer.widget.fields
    assert fields["positive"] == [["␣Love"]] and fields["negative"] == [["H", "ate"]]
    assert fields["words"] == [["␣love"], ["␣hate"]]


@pytest.mark.parametrize(("control", "value"), [("layer", 1), ("coeff", -3.0), ("placement", "back"), ("by", "shift")])
def test_a_move_redraws_the_shift(explorer: Explorer, control: str, value: object) -> None:
    before = bars(explorer.shift_figure)
    explorer.move(**{control: value})
    after = bars(explorer.shift_figure)
    assert after != before
    assert after == bars(explorer.shift.plot())


def test_a_move_of_the_layer_computes_no_more_than_it_must(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {name: counted(monkeypatch, name) for name in ("actadd", "logit_shift", "layer_effect")}
    explorer.move(layer=1)
    assert chosen(explorer.effect_figure) == [1]
    made = {"actadd": 0, "logit_shift": 2, "layer_effect": 0}  # behind the last token, and behind each
    assert {name: len(found) for name, found in calls.items()} == made
    explorer.move(layer=2)  # has been shown before
    assert len(calls["logit_shift"]) == 2
    explorer.move(coeff=4)
    assert {name: len(found) for name, found in calls.items()} == {"actadd": 0, "logit_shift": 4, "layer_effect": 1}
    explorer.move(positive="Joy")
    assert len(calls["actadd"]) == 1
    explorer.move(positive="Love")
    assert len(calls["actadd"]) == 1


def test_weights_are_read_again_only_when_they_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sl.load_model("demo")
    explorer = sl.explore(model, words="love, hate")
    read: list[int] = []
    fingerprint = sys.modules["steerlens.models.fingerprint"]
    digest = fingerprint._digest
    monkeypatch.setattr(fingerprint, "_digest", lambda one: read.append(1) or digest(one))
    explorer.move(coeff=3)
    assert read == []
    before = explorer.shift.settings["model fingerprint"]
    with torch.no_grad():
        model.W_E.mul_(1.5)
    explorer.move(coeff=2)
    assert len(read) == 1
    assert explorer.shift.settings["model fingerprint"] not in (None, before)


def test_moves_in_a_row_are_drawn_once(demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def drag() -> tuple[Explorer, int, int]:
        explorer = sl.explore(demo, layer=2)
        shifts, effects = counted(monkeypatch, "logit_shift"), counted(monkeypatch, "layer_effect")
        for step in range(10):
            explorer.move(coeff=6 + step / 2)
        assert not shifts, "nothing is computed while the moves come in"
        await asyncio.sleep(0.005)
        assert "effect" in explorer.widget.stale or effects, "what runs over all layers waits, and is pale until then"
        deadline = time.monotonic() + 60
        while explorer.widget.stale and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return explorer, len(shifts), len(effects)

    explorer, shifts, effects = asyncio.run(drag())
    assert (shifts, effects) == (2, 1)  # behind the last token, and behind each
    assert explorer.view.coeff == 10.5
    assert bars(explorer.shift_figure) == bars(explorer.shift.plot())


def test_messages_of_other_threads_are_worked_off_in_the_thread_of_the_widget(
    demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer Jupyters give each widget's messages a thread; two passes at once would mix their hooks."""
    at_work: list[tuple[str, str]] = []

    def noted(name: str) -> Any:
        original = getattr(numbers.Numbers, name)

        def call(*args: Any) -> Any:
            at_work.append((name, threading.current_thread().name))
            return original(*args)

        return call

    for name in ("shift", "effect", "completions"):
        monkeypatch.setattr(numbers.Numbers, name, noted(name))

    async def use() -> Explorer:
        opened = sl.explore(demo)
        at_work.clear()

        def type_and_click() -> None:
            opened.widget.settings = {**opened.settings, "prompt": "This film was", "n": 1, "max_new_tokens": 3}
            opened.session.order("complete")

        thread = threading.Thread(target=type_and_click)
        thread.start()
        deadline = time.monotonic() + 30
        while len({name for name, _ in at_work}) < 3 and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return opened

    opened = asyncio.run(use())
    assert {thread for _, thread in at_work} == {threading.current_thread().name}
    assert opened.error == "" and opened.widget.streams["prompt"] == "This film was"


@pytest.mark.parametrize(
    ("control", "value", "words"),
    [
        ("prompt", "", "the prompt is empty"),
        ("words", " , ", "no words to follow"),
        ("negative", "too many words to fit the prompt, far too many of them", "vector spans"),
    ],
)
def test_errors_are_one_line_in_the_widget(explorer: Explorer, control: str, value: str, words: str) -> None:
    good = explorer.settings[control]
    explorer.move(**{control: value})
    assert words in explorer.error
    assert "\n" not in explorer.error
    assert "Traceback" not in explorer.error
    assert explorer.widget.errors == [explorer.error]
    assert explorer.widget.stale, "what is shown belongs to other settings"
    explorer.move(**{control: good})
    assert explorer.error == "" and explorer.widget.errors == []
    assert explorer.widget.stale == []


def test_an_error_of_other_settings_is_gone_before_its_part_is_drawn_anew(explorer: Explorer) -> None:
    explorer.move(words="")
    session = explorer.session
    session.settings = {**session.settings, "layer": 1}
    session._answer()  # what a browser sees while the hand moves; the figures by layer come when it rests
    assert "no words to follow" in explorer.error, "these settings have the same fault"
    session.settings = {**session.settings, "words": "love"}
    session._answer()
    assert explorer.error == "" and explorer.widget.errors == []


def test_both_prompts_empty_is_an_error_in_the_widget_too(explorer: Explorer) -> None:
    explorer.move(positive="", negative="")
    assert "both prompts of the pair are empty" in explorer.error


@pytest.mark.parametrize("word", ["xylophonequartz", "love, xylophonequartz"])
def test_a_word_that_is_no_token_is_refused_as_the_api_refuses_it(explorer: Explorer, demo: Any, word: str) -> None:
    explorer.move(words=word)
    with pytest.raises(sl.SteerlensError) as refused:
        sl.layer_effect(demo, sl.PromptPair("Love", "Hate"), "I hate you because", " xylophonequartz")
    assert explorer.error == str(refused.value)


def test_an_index_that_does_not_fit(explorer: Explorer) -> None:
    explorer.move(placement="index", index=1)
    assert explorer.error == ""
    explorer.move(index=77)
    assert "use an index from" in explorer.error


BAD: list[dict[str, Any]] = [
    *({"layer": value} for value in (99, -1, "3", None, 1.5, [1])),
    *({"coeff": value} for value in (1e9, "x", float("nan"))),
    *({"model": value} for value in ("/etc/passwd", "gpt2", 3, ["demo"], None)),
    {"n": 10**9},
    {"max_new_tokens": -1},
    {"prompt": "x " * 20_000},
    {"prompt": 7},
    {"placement": "nowhere"},
    {"method": "trained"},
    {"contrast": "../../secrets"},
    {"chat": "yes"},
    {"index": 10**400},
]


def test_whatever_a_page_sends_is_a_line_of_error(explorer: Explorer) -> None:
    good = explorer.settings
    for bad in BAD:
        explorer.session.take(bad)
        assert explorer.error and "\n" not in explorer.error, bad
        assert "Error" not in explorer.error, f"foreseen: {bad}"
        explorer.session.take({"nonsense": 1, **{name: good[name] for name in bad}})
        assert explorer.error == "" and "nonsense" not in explorer.settings


def test_an_unforeseen_error_is_named_on_one_line(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("out of <memory>\nwith a long story")

    monkeypatch.setattr(numbers, "logit_shift", fail)
    explorer.move(layer=1)
    assert "RuntimeError: out of <memory>" in explorer.error
    assert "long story" not in explorer.error


def test_completions_come_when_asked_for(explorer: Explorer, demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer.move(n=2, max_new_tokens=5, prompt="She wrote <b onclick=alert(1)> and")
    assert explorer.widget.streams == {}
    frame = explorer.complete()
    vector = 5 * sl.actadd(demo, "Love", "Hate", layer=2)
    expected = sl.generate(demo, explorer.view.asked, [None, vector], n=2, max_new_tokens=5, surprise=True)
    pd.testing.assert_frame_equal(frame, expected)
    shown = explorer.widget.streams
    assert shown["prompt"] == "She wrote <b onclick=alert(1)> and", "the page sets it as text"
    assert shown["rows"] == [list(pair) for pair in zip(frame["completion"][:2], frame["completion"][2:], strict=True)]
    assert all(note.startswith("surprise ") and "repetition" in note for note in shown["notes"])
    assert explorer.widget.stale == [] and explorer.widget.busy == ""
    explorer.move(by="prob")
    assert explorer.widget.stale == [], "the completions do not depend on it"
    explorer.move(coeff=1)
    assert explorer.widget.stale == ["completions"]


def test_completions_are_shown_as_they_are_written(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_STREAM", 0.0)
    explorer.move(n=2, max_new_tokens=6)
    shown: list[Any] = []
    explorer.widget.observe(lambda change: shown.append(change.new), names=["streams", "progress"])
    frame = explorer.complete()
    growing = [one["rows"][1][1] for one in shown if isinstance(one, dict)]
    assert len(growing) >= 6 and growing[-1] == frame["completion"].tolist()[3]
    for before, after in itertools.pairwise(growing):
        assert after.startswith(before.rstrip("\ufffd"))
    shares = [one for one in shown if isinstance(one, float)]
    assert shares == sorted(shares) and shares[-1] == 1 and shown[-1] is None


def test_sampling_can_be_stopped_and_answers_moves(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_STREAM", 0.0)
    explorer.move(n=1, max_new_tokens=40)
    told: list[int] = []
    drawn: list[Any] = []

    def meanwhile(change: Any) -> None:
        told.append(len(change.new["rows"][0][0]))
        if len(told) == 3:
            explorer.move(coeff=-2)
        if len(told) == 5:
            drawn.append(bars(explorer.shift_figure))
            explorer.session.order("stop")

    before = bars(explorer.shift_figure)
    explorer.widget.observe(meanwhile, names="streams")
    assert explorer.complete() is None
    assert drawn[0] != before, "a hand on a slider does not wait"
    assert len(told) <= 7 and explorer.widget.streams["notes"] == ["stopped", "stopped"]
    assert explorer.widget.busy == "" and explorer.widget.progress is None and explorer.error == ""
    explorer.widget.unobserve_all("streams")
    explorer.move(max_new_tokens=3)
    assert len(explorer.complete()) == 2, "stopped once, not for ever"


def test_what_runs_over_all_layers_stops_when_it_is_not_wanted(explorer: Explorer) -> None:
    with pytest.raises(Interrupted), interruptible(lambda: True):
        explorer.numbers.effect(replace(explorer.view, coeff=7.5))
    assert explorer.numbers.effect(replace(explorer.view, coeff=7.5)).settings["coeffs"] == [7.5]
