"""Every figure is a function from a documented frame to a plotly figure."""

import json
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pytest

from steerlens import figures
from steerlens.errors import SteerlensError
from steerlens.figures import theme
from steerlens.measures.metrics import length, words

NASTY = "<script>alert('x')</script> & <b>bold</b> $x^2$"


def summary(layers=range(6), coeffs=(1.0, 4.0), metric="weddings", kind="share", control=False):
    rows = [{"label": "unsteered", "role": "unsteered", "layer": pd.NA, "coeff": 0.0, "mean": 0.02}]
    for role in ("steered", "random") if control else ("steered",):
        for coeff in coeffs:
            for layer in layers:
                mean = 0.1 + 0.01 * layer * abs(coeff) if role == "steered" else 0.03
                rows.append(
                    {"label": f"{role} {coeff} {layer}", "role": role, "layer": layer, "coeff": coeff, "mean": mean}
                )
    frame = pd.DataFrame(rows).astype({"layer": "Int64"})
    frame["condition"], frame["placement"], frame["n"] = range(len(frame)), "front", 50
    return frame.assign(metric=metric, kind=kind, low=frame["mean"] - 0.01, high=frame["mean"] + 0.02)


def shift(tokens=(" love", " hate", "\n", "1", NASTY), labels=("5 × love",)):
    rows = []
    for label in labels:
        for index, token in enumerate(tokens):
            before, after = np.log(0.1), np.log(0.1) + (index - 1.5)
            rows.append(
                {"condition": 1, "label": label, "layer": 6, "coeff": 5.0, "prompt": "I hate you", "position": 3}
                | {"token": token, "token_id": index, "logprob_base": before, "logprob_steered": after}
                | {"shift": after - before, "prob_base": np.exp(before), "prob_steered": np.exp(after)}
                | {"kl_part": 0.1, "rank_base": 4, "rank_steered": 1}
            )
    return pd.DataFrame(rows)


def places():
    rows = [
        {"label": "5 × love", "prompt": "p", "position": p, "context": c, "token": t, "token_id": i, "shift": p - i}
        for p, c in enumerate(["<|endoftext|>", " a", " a"])
        for i, t in enumerate([" love", NASTY])
    ]
    return pd.DataFrame(rows)


def scored():
    tokens = ["<|endoftext|>", "A", " wedding", "\n", NASTY]
    rows = [
        {"label": label, "layer": layer, "coeff": coeff, "text": "t", "position": p, "token": token}
        | {"logprob": np.nan if p == 0 else -1.0 - p + 0.5 * coeff}
        for label, layer, coeff in (("unsteered", pd.NA, 0.0), ("4 × weddings", 3, 4.0))
        for p, token in enumerate(tokens)
    ]
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def lens(layers=7):
    rows = [
        {
            "label": label,
            "layer": layer,
            "coeff": coeff,
            "lens_layer": read,
            "token": token,
            "logprob": -5.0 + coeff * read,
        }
        for label, layer, coeff in (("unsteered", pd.NA, 0.0), ("1 × weddings", 3, 0.5))
        for read in range(layers)
        for token in (" wedding", NASTY)
    ]
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def norms():
    rows = [
        {"series": series, "layer": layer, "position": p, "token": " a", "norm": (0.0 if p == 0 else 1.0 + layer + p)}
        for series in ("residual stream", NASTY)
        for layer in range(5)
        for p in range(3)
    ]
    return pd.DataFrame(rows)


def trade():
    frame = summary(control=True).rename(columns={"mean": "effect"})
    return frame.assign(damage=np.linspace(0, 1, len(frame)))


def completions(labels=3, n=8):
    rows = [
        {
            "label": f"c{c}" if c else "unsteered",
            "layer": c or pd.NA,
            "coeff": float(c),
            "prompt": "I said",
            "sample": s,
        }
        | {"completion": f"{NASTY} wedding {s}" if c == 2 else f"plain {s}"}
        for c in range(labels)
        for s in range(n)
    ]
    return pd.DataFrame(rows).astype({"layer": "Int64"})


CASES = {
    "layer_sweep": (figures.layer_sweep, summary, {}),
    "layer_coefficient_heatmap": (figures.layer_coefficient_heatmap, summary, {}),
    "effect_against_damage": (figures.effect_against_damage, trade, {}),
    "logit_shift_bars": (figures.logit_shift_bars, shift, {}),
    "token_position_heatmap": (figures.token_position_heatmap, places, {}),
    "text_log_probs": (figures.text_log_probs, scored, {}),
    "norm_growth": (figures.norm_growth, norms, {}),
    "layer_lens": (figures.layer_lens, lens, {}),
}
REQUIRED = {
    "layer_sweep": ["layer", "coeff", "metric", "kind", "mean", "low", "high"],
    "layer_coefficient_heatmap": ["layer", "coeff", "metric", "kind", "mean", "low", "high"],
    "effect_against_damage": ["label", "layer", "coeff", "effect", "damage"],
    "logit_shift_bars": ["label", "token", "shift", "prob_base", "prob_steered", "logprob_base", "logprob_steered"],
    "token_position_heatmap": ["label", "token", "position", "context", "shift"],
    "text_log_probs": ["label", "layer", "coeff", "position", "token", "logprob"],
    "norm_growth": ["series", "layer", "norm"],
    "layer_lens": ["label", "layer", "coeff", "lens_layer", "token", "logprob"],
}


@pytest.mark.parametrize("name", CASES)
def test_a_figure_is_drawn_from_its_frame_and_leaves_it_alone(name, monkeypatch):
    draw, make, options = CASES[name]
    monkeypatch.setattr(plotly.io, "show", lambda *a, **k: pytest.fail("a figure function showed its figure"))
    frame = make()
    before, default = frame.copy(), plotly.io.templates.default
    figure = draw(frame, **options)
    assert isinstance(figure, go.Figure)
    assert len(figure.data) > 0
    pd.testing.assert_frame_equal(frame, before)
    assert plotly.io.templates.default == default
    json.loads(figure.to_json())


@pytest.mark.parametrize("name", CASES)
def test_a_missing_column_is_named(name):
    draw, make, options = CASES[name]
    for column in REQUIRED[name]:
        with pytest.raises(SteerlensError, match=f"missing: {column} ") as caught:
            draw(make().drop(columns=column), **options)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_no_rows_and_no_frame_are_errors(name):
    draw, make, options = CASES[name]
    with pytest.raises(SteerlensError, match="0 rows"):
        draw(make().iloc[:0], **options)
    with pytest.raises(SteerlensError, match="pandas frame"):
        draw([1, 2], **options)


@pytest.mark.parametrize("name", CASES)
def test_axes_are_titled_and_no_user_text_is_read_as_markup(name):
    draw, make, options = CASES[name]
    figure = draw(make(), **options)
    layout = figure.to_plotly_json()["layout"]
    for key, axis in layout.items():
        if re.fullmatch(r"[xy]axis", key) and axis.get("visible", True):
            assert axis.get("title", {}).get("text"), key
    text = json.dumps(json.loads(figure.to_json()))
    assert "<script" not in text
    assert "<b>bold" not in text
    assert "$x" not in text


@pytest.mark.parametrize(("name", "column"), [("logit_shift_bars", "shift"), ("layer_lens", "lens_layer"),
                                              ("norm_growth", "layer"), ("layer_sweep", "coeff"),
                                              ("token_position_heatmap", "position")])  # fmt: skip
def test_nan_where_a_number_is_needed_is_counted_and_named(name, column):
    draw, make, _ = CASES[name]
    frame = make().astype({column: "float64"})
    frame.loc[1, column] = np.nan
    with pytest.raises(SteerlensError, match=rf"1 of {len(frame)} rows .*'{column}'"):
        draw(frame)


def test_words_where_numbers_are_needed_are_an_error():
    with pytest.raises(SteerlensError, match="'mean' holds more than numbers"):
        figures.layer_sweep(summary().astype({"mean": object}).assign(mean="high"))


@pytest.mark.parametrize("layers", [1, 12, 80])
def test_layer_sweep_holds_the_means_and_the_baseline(layers):
    frame = summary(layers=range(layers), control=True)
    figure = figures.layer_sweep(frame)
    traces = {trace.name: trace for trace in figure.data if trace.name}
    assert set(traces) == {"1", "4", "1, random vector", "4, random vector", "unsteered"}
    steered = frame[(frame["role"] == "steered") & (frame["coeff"] == 4)]
    assert list(traces["4"].x) == list(range(layers))
    assert list(traces["4"].y) == list(steered["mean"])
    assert set(traces["unsteered"].y) == {0.02}
    assert figure.layout.xaxis.dtick == {1: 1, 12: 1, 80: 10}[layers]
    assert "n = 50" in traces["4"].hovertext[0]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(bands) == (3 if layers > 1 else 1)  # the lines' bands and the baseline's; one layer has error bars
    if layers > 1:
        assert max(max(band.y) for band in bands) == pytest.approx(steered["high"].max())


def test_layer_sweep_draws_bars_for_many_lines_or_on_request():
    many = figures.layer_sweep(summary(coeffs=(-4.0, -1.0, 1.0, 4.0)))
    assert [trace.name for trace in many.data if trace.name] == ["unsteered", "−4", "−1", "1", "4"]
    assert all(len(t.error_y.array) == 6 for t in many.data if t.name and t.name != "unsteered")
    colours = [t.line.color for t in figures.layer_sweep(summary(coeffs=range(1, 12))).data if t.name]
    assert len(set(colours)) == 12
    bars = figures.layer_sweep(summary(), interval="bars")
    assert bars.data[-1].error_y.array[0] == pytest.approx(0.02)
    assert bars.data[-1].error_y.arrayminus[0] == pytest.approx(0.01)


def test_layer_sweep_takes_several_metrics_units_and_gaps():
    both = pd.concat([summary(), summary(metric="KL", kind="nats").assign(low=np.nan, high=np.nan)])
    figure = figures.layer_sweep(both)
    assert "KL" in figure.layout.yaxis2.title.text
    assert "(nats)" in figure.layout.yaxis2.title.text
    assert len(figures.layer_sweep(both, metric="KL").data) == 3  # no bands where there are no limits
    with pytest.raises(SteerlensError, match="no row has metric 'war'"):
        figures.layer_sweep(both, metric="war")
    gaps = summary()
    gaps.loc[3, ["mean", "low", "high"]] = np.nan
    assert np.isnan(figures.layer_sweep(gaps).data[-3].y).sum() == 1


def test_layer_sweep_splits_placements_and_pairs_and_refuses_to_overlay_them_silently():
    frame = pd.concat([summary(coeffs=(4.0,)), summary(coeffs=(4.0,)).assign(placement="back")])
    names = [trace.name for trace in figures.layer_sweep(frame).data if trace.name]
    assert names[-2:] == ["4 · back", "4 · front"]
    pairs = pd.concat([summary(coeffs=(4.0,)).assign(pair="a"), summary(coeffs=(4.0,)).assign(pair="b")])
    with pytest.raises(SteerlensError, match="more than one row for metric weddings, line coefficient 4"):
        figures.layer_sweep(pairs)
    assert [trace.name for trace in figures.layer_sweep(pairs, by="pair").data if trace.name][-2:] == ["4 · a", "4 · b"]
    with pytest.raises(SteerlensError, match="by='pear'"):
        figures.layer_sweep(pairs, by="pear")


def test_layer_sweep_draws_a_condition_of_several_layers_as_a_line_across():
    frame = summary()
    frame.loc[1, "layer"] = pd.NA
    figure = figures.layer_sweep(frame)
    across = next(trace for trace in figure.data if trace.line.dash == "dot")
    assert set(across.y) == {frame.loc[1, "mean"]}


def test_the_baseline_is_known_without_a_role():
    frame = summary().drop(columns="role")
    assert any(trace.name == "unsteered" for trace in figures.layer_sweep(frame).data)


def test_heatmap_places_each_mean_and_the_baseline_row():
    figure = figures.layer_coefficient_heatmap(summary(coeffs=(-1.0, 4.0), control=True))
    z = np.array(figure.data[0].z)
    assert list(figure.layout.yaxis.ticktext) == ["−1", "0 (unsteered)", "4"]
    assert z.shape == (3, 6)
    assert (z[1] == 0.02).all()
    assert z[2, 5] == pytest.approx(0.1 + 0.01 * 5 * 4)
    random = figures.layer_coefficient_heatmap(summary(control=True), role="random")
    assert np.array(random.data[0].z)[-1, -1] == pytest.approx(0.03)
    assert figures.layer_coefficient_heatmap(summary(layers=range(80))).data[0].texttemplate is None
    with pytest.raises(SteerlensError, match="no steered row"):
        figures.layer_coefficient_heatmap(summary().iloc[:1])


def test_effect_against_damage_joins_the_pareto_front():
    frame = pd.DataFrame(
        {"label": ["unsteered", "a", "b", "c", "d"], "layer": [pd.NA, 1, 2, 3, 4], "coeff": [0.0, 1, 1, 1, 1]}
        | {"effect": [0.0, 1.0, 2.0, 0.5, np.nan], "damage": [0.0, 0.2, 0.5, 0.4, 0.1]}
    ).astype({"layer": "Int64"})
    figure = figures.effect_against_damage(frame, effect_title="effectiveness (nats)")
    assert list(figure.data[0].x) == [0.0, 0.2, 0.5]
    assert list(figure.data[0].y) == [0.0, 1.0, 2.0]
    assert figure.layout.yaxis.title.text == "effectiveness (nats)"
    hover = " ".join(text for trace in figure.data for text in (trace.hovertext or ()))
    assert hover.count("on the Pareto front") == 3
    with pytest.raises(SteerlensError, match="every row has NaN"):
        figures.effect_against_damage(frame.assign(effect=np.nan))


def test_logit_shift_bars_show_rises_above_falls_with_spaces_visible():
    figure = figures.logit_shift_bars(shift(), top=2)
    bars, labels = figure.data[0], list(figure.layout.yaxis.ticktext)
    assert list(bars.x) == pytest.approx([2.5, 1.5, -0.5, -1.5])
    assert labels[1:] == ["1", "␣hate", "␣love"]
    assert labels[0].startswith("&lt;script&gt;")
    assert bars.text[3] == "10 % → 2.2 %"
    assert "rank 4 → 1" in bars.hovertext[0]
    assert "id 0" in bars.hovertext[3]
    assert "part of KL 0.1 nats" in bars.hovertext[0]


def test_logit_shift_bars_take_one_prompt_the_last_position_and_up_to_four_conditions():
    frame = pd.concat([shift(), shift().assign(position=9, shift=0.25)])
    assert set(figures.logit_shift_bars(frame).data[0].x) == {0.25}
    assert len(figures.logit_shift_bars(frame, position=3).data[0].x) == 5
    with pytest.raises(SteerlensError, match="pass prompt="):
        figures.logit_shift_bars(pd.concat([shift(), shift().assign(prompt="other")]))
    two = shift(labels=("a", "b"))
    assert len(figures.logit_shift_bars(two).data) == 2
    assert len(figures.logit_shift_bars(two, condition="b").data) == 1
    with pytest.raises(SteerlensError, match="up to 4 conditions but the frame has 5"):
        figures.logit_shift_bars(shift(labels="abcde"))
    with pytest.raises(SteerlensError, match="more than one row"):
        figures.logit_shift_bars(pd.concat([shift(), shift()]))
    with pytest.raises(SteerlensError, match="only rows of the unsteered baseline"):
        figures.logit_shift_bars(shift(labels=("unsteered",)))


def test_two_tokens_written_alike_keep_their_own_bars():
    figure = figures.logit_shift_bars(shift(tokens=("\ufffd", "\ufffd", "\ufffd")))
    assert len(set(figure.layout.yaxis.tickvals)) == 3


def test_token_position_heatmap_keeps_repeated_context_tokens_apart():
    figure = figures.token_position_heatmap(places())
    assert np.array(figure.data[0].z).tolist() == [[0, 1, 2], [-1, 0, 1]]
    assert list(figure.layout.xaxis.ticktext) == ["&lt;|endoftext|&gt;", "␣a", "␣a"]
    assert figure.layout.coloraxis.cmid == 0
    with pytest.raises(SteerlensError, match="nothing but NaN"):
        figures.token_position_heatmap(places().assign(shift=np.nan))
    assert figures.token_position_heatmap(places().assign(kl=1.0), value="kl", value_title="KL (nats)")


def test_text_log_probs_colour_every_token_but_the_first():
    figure = figures.text_log_probs(scored())
    cells = [trace for trace in figure.data if trace.type == "heatmap"]
    first_block = np.concatenate([np.array(trace.z).ravel() for trace in cells[: len(cells) // 3]])
    assert np.isnan(first_block[0])
    assert list(first_block[1:]) == [-2, -3, -4, -5]
    change = np.concatenate([np.array(trace.z).ravel() for trace in cells[-len(cells) // 3 :]])
    assert list(change[1:]) == [2, 2, 2, 2]
    assert any("␣wedding" in str(trace.text) for trace in cells)
    words_without_value = [trace.text for trace in figure.data if trace.type == "scatter"]
    assert words_without_value == [("&lt;|endoftext|&gt;",)] * 3
    heads = [note.text for note in figure.layout.annotations]
    assert heads[0] == "<b>unsteered: −14 nats in all</b>"
    assert heads[2] == "<b>4 × weddings, change: +8 nats</b>"


def test_text_log_probs_fill_lines_and_need_equal_tokens():
    long = pd.concat([scored().iloc[:5]] * 20).assign(position=range(100))
    figure = figures.text_log_probs(long, width=40)
    for trace in figure.data:
        if trace.type == "heatmap":
            assert trace.x[-1] <= 41
            assert (np.diff(trace.x) > 0).all()
    wrong = scored()
    wrong.loc[6, "token"] = "B"
    with pytest.raises(SteerlensError, match="tokens of '4 × weddings' differ"):
        figures.text_log_probs(wrong)
    with pytest.raises(SteerlensError, match="pass text="):
        figures.text_log_probs(pd.concat([scored(), scored().assign(text="u")]))


def test_norm_growth_draws_medians_and_leaves_zeros_off_the_logarithmic_axis():
    figure = figures.norm_growth(norms())
    line = next(trace for trace in figure.data if trace.name == "residual stream")
    assert list(line.y) == [2.5 + layer for layer in range(5)]
    assert figure.layout.yaxis.type == "log"
    plain = figures.norm_growth(norms(), logarithmic=False)
    assert min(min(trace.y) for trace in plain.data) == 0
    with pytest.raises(SteerlensError, match="negative"):
        figures.norm_growth(norms().assign(norm=-1.0))


def test_layer_lens_pairs_steered_with_unsteered():
    figure = figures.layer_lens(lens())
    wedding = [trace for trace in figure.data if trace.legendgroup == "token 0"]
    assert [trace.line.dash for trace in wedding] == [None, "dash"]
    assert list(wedding[0].y) == [-5 + 0.5 * layer for layer in range(7)]
    assert set(wedding[1].y) == {-5}
    difference = figures.layer_lens(lens(), difference=True)
    assert list(difference.data[0].y) == [0.5 * layer for layer in range(7)]
    assert "layer 3" in difference.layout.annotations[0].text
    with pytest.raises(SteerlensError, match="lacks the baseline"):
        figures.layer_lens(lens().query("label != 'unsteered'"))
    with pytest.raises(SteerlensError, match="pass condition="):
        figures.layer_lens(pd.concat([lens(), lens().query("coeff > 0").assign(label="other")]))


def test_completions_stand_side_by_side_with_marked_words():
    shown = figures.completions_side_by_side(completions(), words("weddings"), n=2)
    assert shown.columns == ("unsteered", "c1", "c2")
    assert shown.notes == ("weddings: 0 of 8 (0 %)", "weddings: 0 of 8 (0 %)", "weddings: 8 of 8 (100 %)")
    assert shown.html.count("<mark>wedding</mark>") == 2
    assert "<script>" not in shown.html
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in shown.html
    assert shown._repr_html_() == shown.html
    assert str(shown).count("*wedding*") == 2
    assert "The first 2 of 8 samples." in str(shown)
    assert "\x1b[1;33mwedding\x1b[0m" in shown.text(90, colour=True)


def test_many_conditions_are_narrowed_to_the_baseline_and_the_best():
    frame = completions(labels=6)
    shown = figures.completions_side_by_side(frame, words("weddings"))
    assert shown.columns == ("unsteered", "c2")
    assert "highest mean of 5" in shown.footnote
    roles = frame["label"].map({"unsteered": "unsteered", "c2": "random"}).fillna("steered")
    assert figures.completions_side_by_side(frame.assign(role=roles), words("weddings")).columns == ("unsteered", "c1")
    assert figures.completions_side_by_side(frame, labels=["c5", "c3"]).columns == ("c5", "c3")
    assert "mean 2" in figures.completions_side_by_side(frame, length()).notes[0]


def test_one_vector_at_several_layers_gives_columns_that_can_be_told_apart():
    frame = completions(labels=3).assign(condition=lambda f: f.groupby("label", sort=False).ngroup())
    frame.loc[frame["condition"] > 0, "label"] = "weddings"
    shown = figures.completions_side_by_side(frame.assign(coeff=frame["coeff"].clip(upper=1.0)))
    assert shown.columns == ("unsteered", "weddings, layer 1", "weddings, layer 2")
    same = frame.assign(coeff=1.0, layer=4)
    same.loc[same["condition"] == 0, ["coeff", "layer"]] = [0.0, pd.NA]
    assert figures.completions_side_by_side(same).columns == ("unsteered", "weddings, #1", "weddings, #2")
    lenses = pd.concat([lens().assign(condition=0), lens().query("coeff > 0").assign(condition=1, layer=5)])
    lenses.loc[lenses["label"] == "unsteered", "condition"] = 2
    with pytest.raises(SteerlensError, match="'1 × weddings, layer 3', '1 × weddings, layer 5'"):
        figures.layer_lens(lenses)


def test_the_terminal_text_keeps_its_width_and_lets_no_control_character_through():
    frame = completions(labels=2, n=2)
    frame["completion"] = ["\x1b[2J wedding\nnext\u202e line", "結婚式 " * 30 + "wedding", "x" * 200, "a " * 90]
    shown = figures.completions_side_by_side(frame, words("weddings"))
    for width in (40, 79, 120):
        text = shown.text(width)
        assert all(_columns(line) <= width for line in text.split("\n") if not line.startswith(("Prompt", "The first")))
    assert "\x1b" not in text
    assert "\\u001b[2J" in text
    assert "\\u202e" in text
    assert text.count("x") > 200 - 1
    with pytest.raises(SteerlensError, match="width = 20"):
        shown.text(20)


def _columns(line):
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


def test_side_by_side_refuses_unknown_labels_repeats_and_missing_columns():
    with pytest.raises(SteerlensError, match="'war'"):
        figures.completions_side_by_side(completions(), labels=["war"])
    with pytest.raises(SteerlensError, match="more than one row for label"):
        figures.completions_side_by_side(pd.concat([completions(), completions()]))
    with pytest.raises(SteerlensError, match="missing: sample"):
        figures.completions_side_by_side(completions().drop(columns="sample"))
    with pytest.raises(SteerlensError, match="no 'completion'"):
        figures.completions_side_by_side(completions().assign(completion=None))


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" wedding", "␣wedding"), ("\n\n", "⏎⏎"), ("", "∅"), ("\t", "⇥"), ("\u200b", "\\u200b"), ("\x07", "\\u0007"),
     ("\xa0", "\\u00a0"), ("é", "é")],
)  # fmt: skip
def test_invisible_characters_of_tokens_are_shown(token, shown):
    assert theme.visible_token(token) == shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.9999, "> 99.9 %"), (0.995, "99.5 %"),
     (0.314, "31 %"), (0.042, "4.2 %"), (0.0031, "0.31 %"),
     (1e-9, "< 0.001 %"), (float("nan"), "n/a")],
)  # fmt: skip
def test_percent(value, text):
    assert theme.percent(value) == text


def test_numbers_have_true_minus_signs():
    assert [theme.number(x) for x in (-1.5, 5512.4, 0.0, 1234567.0, -1e-9, 4.0)] == [
        "−1.5",
        "5,512",
        "0",
        "1.23e+06",
        "−1.00e−09",
        "4",
    ]
