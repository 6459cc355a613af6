"""Figures of tokens and layers: shifts, positions, scored texts, norms, the layer lens."""

import numpy as np
import pandas as pd
import pytest

from steerlens import figures
from steerlens.errors import SteerlensError
from tests.figures.frames import completions, lens, norms, places, scored, shift


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


def test_layer_lens_is_not_stretched_by_what_the_embedding_reads():
    """SmolLM2's embedding reads −100 nats; the layers that tell something lie between 0 and −15."""
    plain = figures.layer_lens(lens())
    assert plain.layout.yaxis.range is None and "below the frame" not in plain.layout.title.subtitle.text
    deep = lens().assign(logprob=lambda rows: rows["logprob"].where(rows["lens_layer"] > 0, -100.0))
    figure = figures.layer_lens(deep)
    low, high = figure.layout.yaxis.range
    later = [y for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True) if x]
    assert -12 < low < min(later) and max(later) < high < 2
    assert "layer 0 is below the frame (down to −100)" in figure.layout.title.subtitle.text
    assert -100 in [y for trace in figure.data for y in trace.y], "still there, for whoever zooms out"


def test_logarithmic_ticks_are_written_in_full():
    """Plotly's own write 0.5 and 5 both as 5."""
    rows = pd.DataFrame({"series": "a", "layer": [0, 1, 2], "norm": [0.4, 2.0, 9.0]})
    axis = figures.norm_growth(rows).layout.yaxis
    assert {"0.5", "1", "2", "5"} <= set(axis.ticktext) and len(set(axis.ticktext)) == len(axis.ticktext)
    assert [float(text) for text in axis.ticktext] == pytest.approx(list(axis.tickvals))
    assert figures.norm_growth(rows.assign(norm=[1.0, 10.0, 25_000.0])).layout.yaxis.dtick == 1
