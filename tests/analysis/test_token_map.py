"""The token map: what it says is what the residual stream shows."""

from __future__ import annotations

import pytest

import steerlens as sl

PROMPT = "I went up to my friend and said"


@pytest.mark.parametrize("placement", ["front", "mid", "back", 3, -6])
def test_the_map_is_what_changed_in_the_stream(gpt2, placement) -> None:
    vector = 3 * sl.actadd(gpt2, "Love is all", "Hate", layer=1)
    found = sl.token_map(gpt2, PROMPT, vector, placement=placement)
    tokens = gpt2.to_tokens(PROMPT)
    name = "blocks.1.hook_resid_pre"
    _, base = gpt2.run_with_cache(tokens, names_filter=[name])
    with sl.steer(gpt2, vector, placement=placement):
        _, steered = gpt2.run_with_cache(tokens, names_filter=[name])
    change = (steered[name] - base[name])[0].norm(dim=-1).tolist()
    assert len(found.frame) == tokens.shape[1]
    for row in found.frame.itertuples():
        assert row.norm == pytest.approx(change[row.position], rel=1e-4, abs=1e-5)
        assert row.token == gpt2.tokenizer.decode([tokens[0, row.position]])
        assert row.resid_norm == pytest.approx(float(base[name][0, row.position].norm()), rel=1e-4)
    rows = found.frame.query("injected")["row"].tolist()
    assert rows == list(range(vector.n_positions))


def test_extraction_and_padding_are_shown(any_model) -> None:
    pair = sl.PromptPair("I love talking about weddings", "I hate")
    vector = sl.actadd(any_model, pair, layer=1)
    found = sl.token_map(any_model, PROMPT, vector)
    padded = pair.padded(any_model)
    rows = found.frame.query("injected")
    assert tuple(rows["positive"]) == padded.positive
    assert tuple(rows["negative"]) == padded.negative
    assert rows["positive_padded"].sum() == padded.padding[0] == 0
    assert rows["negative_padded"].sum() == padded.padding[1] > 0
    assert "[␣]" in found.text
    assert "␣talking" in str(found)


def test_padding_is_on_the_right_of_an_empty_prompt_too(any_model) -> None:
    rows = sl.token_map(any_model, PROMPT, sl.actadd(any_model, "", "Hate this", layer=1)).frame.query("injected")
    assert not rows["positive_padded"].iloc[0], "BOS is no padding"
    assert rows["positive_padded"].iloc[1:].all()


def test_several_vectors_have_a_table_each_and_other_methods_no_tokens(any_model) -> None:
    one = sl.actadd(any_model, "Love", "Hate", layer=1)
    mean = sl.mean_difference(any_model, ["good day"], ["bad day", "sad"], layer=2)
    found = sl.token_map(any_model, PROMPT, (one, mean, one + 2 * one, one.at(1).on("last")))
    assert found.frame["injection"].unique().tolist() == [0, 1, 2, 3]
    everywhere = found.frame.query("injection == 1")
    assert everywhere["injected"].tolist() == [False] + [True] * (len(everywhere) - 1)
    assert set(everywhere["positive"]) == {""}
    assert found.frame.query("injection == 2")["norm"].iloc[1] == pytest.approx(3 * float(one.norms[1]), rel=1e-5)
    assert found.frame.query("injection == 3 and injected")["position"].tolist() == [len(everywhere) - 1]
    assert found.html.count("<table") == 4


def test_text_is_escaped(any_model) -> None:
    vector = sl.actadd(any_model, "<b>&x", "Hate", layer=1)
    page = sl.token_map(any_model, "I said <script>alert(1)</script> to him", vector)._repr_html_()
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;" in page


def test_bad_input_is_told(any_model) -> None:
    vector = sl.actadd(any_model, "I love talking about weddings", "Hate", layer=1)
    with pytest.raises(sl.SteerlensError, match="needs a vector"):
        sl.token_map(any_model, PROMPT, None)
    with pytest.raises(sl.SteerlensError, match="but the prompt has"):
        sl.token_map(any_model, "I", vector)
    with pytest.raises(sl.SteerlensError, match="the prompt is empty"):
        sl.token_map(any_model, "", vector)
