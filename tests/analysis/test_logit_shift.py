"""Logit shifts against a plain loop over TransformerLens, on both model classes; and on the embedded model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.analysis import compared
from tests.reference import N_LAYERS

PROMPT = "I went up to my friend and said"
PROMPTS = [PROMPT, "The weather", "Once upon a time there was a little girl who"]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def plain_logprobs(model, prompt: str, *vectors) -> torch.Tensor:
    """Log-probabilities behind every token of the prompt, float64: raw TransformerLens within `steer`."""
    tokens = model.to_tokens(prompt)
    if not vectors:
        return model(tokens)[0].double().log_softmax(-1)
    with sl.steer(model, *vectors):
        return model(tokens)[0].double().log_softmax(-1)


def check_cell(rows, steered: torch.Tensor, base: torch.Tensor, *, top_k: int) -> None:
    """The rows of one condition, prompt and position against the two whole distributions."""
    change = steered - base
    ids = torch.tensor(rows["token_id"].to_numpy())
    assert len(set(ids.tolist())) == len(ids)
    close = {"atol": 2e-5, "rtol": 1e-5}
    for column, expected in (("logprob_steered", steered), ("logprob_base", base), ("shift", change)):
        torch.testing.assert_close(torch.tensor(rows[column].to_numpy()), expected[ids], **close)
    torch.testing.assert_close(torch.tensor(rows["prob_steered"].to_numpy()), steered.exp()[ids], atol=1e-6, rtol=1e-4)
    kl_parts = (steered.exp() * change)[ids]
    torch.testing.assert_close(torch.tensor(rows["kl_part"].to_numpy()), kl_parts, atol=1e-6, rtol=1e-3)
    for column, whole in (("rank_steered", steered), ("rank_base", base)):
        for found, token in zip(rows[column], ids.tolist(), strict=True):
            # float32 and float64 may order near ties differently, by a place or two
            low, high = int((whole > whole[token] + 2e-5).sum()), int((whole > whole[token] - 2e-5).sum())
            assert low + 1 <= found <= high + 1
    rises, falls = rows[rows["top"] == "rise"], rows[rows["top"] == "fall"]
    assert (len(rises), len(falls)) == (top_k, top_k)
    torch.testing.assert_close(torch.tensor(rises["shift"].to_numpy()), change.topk(top_k).values, **close)
    lowest = change.topk(top_k, largest=False).values.flip(0)
    torch.testing.assert_close(torch.tensor(falls["shift"].to_numpy()), lowest, **close)


def test_the_last_position_is_that_of_a_plain_run(model) -> None:
    vector = 5 * sl.actadd(model, "Love", "Hate", layer=1)
    shift = sl.logit_shift(model, PROMPT, vector, top_k=6, follow=[" wedding"])
    steered, base = plain_logprobs(model, PROMPT, vector)[-1], plain_logprobs(model, PROMPT)[-1]
    check_cell(shift.frame, steered, base, top_k=6)
    assert shift.frame["shift"].is_monotonic_decreasing
    assert shift.frame.query("followed")["token"].tolist() == [" wedding"]
    unsteered, row = shift.summary.iloc[0], shift.summary.iloc[1]
    assert row["kl"] == pytest.approx(float((steered.exp() * (steered - base)).sum()), rel=1e-4, abs=1e-7)
    assert row["entropy"] == pytest.approx(float(-(steered.exp() * steered).sum()), rel=1e-5)
    assert row["entropy_base"] == pytest.approx(float(-(base.exp() * base).sum()), rel=1e-5)
    assert row["top_prob"] == pytest.approx(float(steered.max().exp()), rel=1e-4)
    assert (unsteered["kl"], unsteered["label"], unsteered["coeff"]) == (0.0, "unsteered", 0.0)
    assert shift.summary["layer"].isna().tolist() == [True, False]


def test_every_position_of_every_prompt_and_condition(gpt2) -> None:
    vectors = sl.actadd(gpt2, "Love", "Hate", layers="all")
    conditions = [4 * vectors[0], (2 * vectors[1], -3 * vectors[2])]
    shift = sl.logit_shift(gpt2, PROMPTS, conditions, top_k=3, follow=[" wedding", 17], positions="all")
    for prompt in PROMPTS:
        base = plain_logprobs(gpt2, prompt)
        strings = [gpt2.tokenizer.decode([i]) for i in gpt2.to_tokens(prompt)[0]]
        for number, condition in enumerate(conditions, start=1):
            steered = plain_logprobs(gpt2, prompt, *(condition if isinstance(condition, tuple) else (condition,)))
            rows = shift.frame[(shift.frame["prompt"] == prompt) & (shift.frame["condition"] == number)]
            assert rows["position"].unique().tolist() == list(range(len(strings)))
            for position, cell in rows.groupby("position"):
                # Nothing changes at BOS (law 3), where ties leave the choice of tokens open.
                if position > 0:
                    check_cell(cell, steered[position], base[position], top_k=3)
                assert set(cell["context"]) == {strings[position]}
                assert len(cell.query("followed")) == 2
            at_bos = shift.summary.query("prompt == @prompt and condition == @number and position == 0")
            assert at_bos["kl"].item() == pytest.approx(0.0, abs=1e-9)


def test_a_long_prompt_is_asked_piece_by_piece_with_the_same_answer(gpt2, monkeypatch) -> None:
    """What bounds the memory at a vocabulary of 128,000 changes no number."""
    vector = 4 * sl.actadd(gpt2, "Love", "Hate", layer=1)
    ask = {"top_k": 2, "follow": [" wedding"], "positions": "all"}
    whole = sl.logit_shift(gpt2, PROMPTS, vector, **ask)
    monkeypatch.setattr(compared, "_BASE_BYTES", 3 * 4 * gpt2.cfg.d_vocab)  # three positions at a time
    pieces = sl.logit_shift(gpt2, PROMPTS, vector, **ask, batch_size=2)
    assert len(whole.frame) == len(pieces.frame)
    for column in ("condition", "prompt", "position", "context"):
        assert whole.frame[column].tolist() == pieces.frame[column].tolist()
    np.testing.assert_allclose(whole.summary["kl"], pieces.summary["kl"], atol=5e-6)
    keys = ["prompt", "position", "token_id"]
    merged = whole.frame.query("position > 0").merge(pieces.frame, on=keys, suffixes=("", "_pieces"))
    assert len(merged) >= 0.95 * len(whole.frame.query("position > 0"))  # near ties at the edge of the top
    np.testing.assert_allclose(merged["shift"], merged["shift_pieces"], atol=2e-5)


def test_no_more_than_slices_of_the_logits_exist(any_model, monkeypatch) -> None:
    """Every [cells vocab] tensor that reaches the numbers is a slice, however many positions are asked for."""
    monkeypatch.setattr("steerlens.engine.passes.slice_rows", lambda *_: 4)
    sizes = []
    cells = compared.Comparison.cells

    def noted(self, **kwargs):
        for part in cells(self, **kwargs):
            sizes.append(len(part.logprobs))
            yield part

    monkeypatch.setattr(compared.Comparison, "cells", noted)
    vectors = sl.actadd(any_model, "Love", "Hate", layers="all")
    sl.logit_shift(any_model, PROMPTS, list(vectors.values()), positions="all")
    assert max(sizes) <= 4
    total = sum(len(any_model.to_tokens(prompt)[0]) for prompt in PROMPTS) * (N_LAYERS + 1)
    assert sum(sizes) == total


def test_by_chooses_what_most_means(any_model) -> None:
    vector = 6 * sl.actadd(any_model, "Love", "Hate", layer=1)
    steered, base = plain_logprobs(any_model, PROMPT, vector)[-1], plain_logprobs(any_model, PROMPT)[-1]
    scores = {"shift": steered - base, "kl": steered.exp() * (steered - base), "prob": steered.exp() - base.exp()}
    for by, score in scores.items():
        frame = sl.logit_shift(any_model, PROMPT, vector, by=by, top_k=4).frame
        for top, largest in (("rise", True), ("fall", False)):
            found = frame.loc[frame["top"] == top, "token_id"].tolist()
            torch.testing.assert_close(
                score[found].sort(descending=largest).values,
                score.topk(4, largest=largest).values,
                atol=1e-7,
                rtol=1e-3,
            )


def test_rare_tokens_may_be_passed_over(any_model) -> None:
    vector = 6 * sl.actadd(any_model, "Love", "Hate", layer=1)
    steered, base = plain_logprobs(any_model, PROMPT, vector)[-1], plain_logprobs(any_model, PROMPT)[-1]
    likely = torch.maximum(steered, base).exp()
    rare = int(likely.argmin())
    limit = float(likely.topk(12).values[-1]) * 0.999  # twelve tokens are likely enough
    shift = sl.logit_shift(any_model, PROMPT, vector, min_prob=limit, top_k=20, follow=[rare])
    enough = set(likely.topk(12).indices.tolist())
    assert set(shift.frame.query("not followed")["token_id"]) == enough
    assert shift.frame.query("followed")["token_id"].tolist() == [rare]
    few = sl.logit_shift(any_model, PROMPT, vector, min_prob=limit, top_k=3).frame.query("top == 'rise'")
    expected = sorted(enough, key=lambda i: -float(steered[i] - base[i]))[:3]
    assert few["token_id"].tolist() == expected
    means = sl.logit_shift(any_model, [PROMPT, PROMPT], vector, min_prob=limit, top_k=20, follow=[rare]).mean_frame
    assert set(means["token_id"]) == enough | {rare}


def test_the_mean_over_prompts_is_the_mean_of_the_prompts(gpt2) -> None:
    vector = 5 * sl.actadd(gpt2, "Love", "Hate", layer=1)
    shift = sl.logit_shift(gpt2, PROMPTS, [vector, -1 * vector], top_k=5, follow=[" wedding"])
    for number, one in ((1, vector), (2, -1 * vector)):
        changes, probs = [], []
        for prompt in PROMPTS:
            steered, base = plain_logprobs(gpt2, prompt, one)[-1], plain_logprobs(gpt2, prompt)[-1]
            changes.append(steered - base)
            probs.append(steered.exp())
        change = torch.stack(changes)
        rows = shift.mean_frame[shift.mean_frame["condition"] == number]
        ids = torch.tensor(rows["token_id"].to_numpy())
        mean, error = change.mean(0)[ids], change.std(0)[ids] / 3**0.5
        torch.testing.assert_close(torch.tensor(rows["shift"].to_numpy()), mean, atol=2e-5, rtol=1e-4)
        t = 4.302652729911275  # Student's t, 2 degrees of freedom, 97.5 %
        torch.testing.assert_close(torch.tensor(rows["high"].to_numpy()), mean + t * error, atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(torch.tensor(rows["low"].to_numpy()), mean - t * error, atol=2e-4, rtol=1e-3)
        prob = torch.stack(probs).mean(0)[ids]
        torch.testing.assert_close(torch.tensor(rows["prob_steered"].to_numpy()), prob, atol=1e-6, rtol=1e-4)
        best = change.mean(0).topk(5).values
        found = torch.tensor(rows.loc[rows["top"] == "rise", "shift"].to_numpy())
        torch.testing.assert_close(found, best, atol=2e-5, rtol=1e-4)
        assert (rows["n_prompts"] == 3).all()
    assert sl.logit_shift(gpt2, PROMPT, vector).mean_frame is None


def test_conditions_without_effect_and_equal_ones_have_their_rows(gpt2) -> None:
    vector = sl.actadd(gpt2, "Love", "Hate", layer=1)
    shift = sl.logit_shift(gpt2, PROMPT, [None, 0 * vector, 2 * vector, 2 * vector], top_k=2)
    assert shift.frame["condition"].unique().tolist() == [2, 3], "where nothing moves no token is named"
    assert shift.summary["condition"].unique().tolist() == [0, 1, 2, 3]
    followed = sl.logit_shift(gpt2, PROMPT, [0 * vector, 2 * vector], top_k=2, follow=" wedding").frame
    assert (followed.query("condition == 1")["shift"] == 0).all() and (
        followed.query("condition == 1")["top"] == ""
    ).all()
    again = shift.frame.query("condition == 3")["shift"].to_numpy()
    np.testing.assert_allclose(shift.frame.query("condition == 2")["shift"], again, atol=1e-6)
    assert (again != 0).any()
    assert shift.summary["kl"].tolist()[:2] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompts": ""}, "the prompt is empty"),
        ({"prompts": []}, "the list of prompts is empty"),
        ({"steering": None}, "a shift needs a steered condition"),
        ({"steering": [None, None]}, "a shift needs a steered condition"),
        ({"steering": []}, "list of conditions is empty"),
        ({"top_k": 0}, "top_k must be a whole number"),
        ({"top_k": 10**6}, "top_k must be a whole number"),
        ({"by": "size"}, "by='size' is unknown"),
        ({"min_prob": 1.0}, "min_prob must be a finite number"),
        ({"min_prob": -0.1}, "min_prob must be a finite number"),
        ({"positions": "first"}, "positions='first' is unknown"),
        ({"follow": ["weddings"]}, "pieces='first'"),
        ({"follow": [""]}, "a word is empty"),
    ],
)
def test_bad_input_is_told(any_model, change: dict, words: str) -> None:
    given = {"prompts": PROMPT, "steering": sl.actadd(any_model, "Love", "Hate", layer=1), **change}
    with pytest.raises(sl.SteerlensError, match=words):
        sl.logit_shift(any_model, given.pop("prompts"), given.pop("steering"), **given)


def test_a_vector_longer_than_the_prompt_is_told(any_model) -> None:
    vector = sl.actadd(any_model, "I talk about weddings constantly", " ", layer=1)
    with pytest.raises(sl.SteerlensError, match="but the prompt has 2 tokens"):
        sl.logit_shift(any_model, [PROMPT, "I"], vector)


def test_the_figures_take_the_frames(any_model) -> None:
    vectors = sl.actadd(any_model, "Love", "Hate", layers="all")
    one = sl.logit_shift(any_model, PROMPT, vectors[1], top_k=4, follow=[" wedding"])
    bars = one.plot()
    assert sum(len(trace.x) for trace in bars.data) == len(one.frame)
    many = sl.logit_shift(any_model, PROMPTS, [vectors[1], vectors[2]], top_k=4)
    assert sum(len(trace.x) for trace in many.plot().data) == len(many.mean_frame)
    places = sl.logit_shift(any_model, PROMPT, vectors[1], follow=[" wedding", " house"], positions="all")
    n = len(any_model.to_tokens(PROMPT)[0])
    assert np.asarray(places.plot().data[0].z).shape == (2, n)
    assert places.plot(position=2).data[0].type == "bar"


def test_the_report_is_one_page_with_its_settings(any_model, tmp_path) -> None:
    vector = 3 * sl.actadd(any_model, "<b>", "Hate", layer=1)
    shift = sl.logit_shift(any_model, PROMPT, vector, follow=[" wedding"])
    path = shift.report(tmp_path / "shift.html", command="sl.logit_shift(…)")
    page = path.read_text(encoding="utf-8")
    assert PROMPT in page
    assert "sl.logit_shift(…)" in page
    assert "3 × (<b>" not in page
    assert "3 × (&lt;b&gt;" in page
    with pytest.raises(sl.SteerlensError, match="does not exist"):
        shift.report(tmp_path / "nowhere" / "shift.html")


def test_weddings_rise_on_the_embedded_model(demo) -> None:
    vector = 4 * sl.actadd(demo, " weddings", " ", layer=3)
    shift = sl.logit_shift(demo, "I went up to my friend and said", vector, follow=[" wedding", " marry"])
    followed = shift.frame.query("followed")
    assert (followed["shift"] > 1).all(), "steering towards weddings makes words of weddings likelier"
    assert (followed["rank_steered"] < followed["rank_base"]).all()


def test_nothing_rises_where_no_vector_reaches(gpt2) -> None:
    vector = 3 * sl.actadd(gpt2, " Love", " Hate", layer=1).at(1).on(4)
    shift = sl.logit_shift(gpt2, PROMPT, vector, positions="all", top_k=3)
    assert set(shift.frame["position"]) == set(shift.summary["position"]) - {0, 1, 2, 3}
    named = shift.frame[shift.frame["top"] != ""]
    assert (named["shift"] * np.where(named["top"] == "rise", 1, -1) > 0).all()


def test_what_overflows_is_no_number(gpt2) -> None:
    vector = sl.actadd(gpt2, " Love", " Hate", layer=1)
    # A residual stream whose mean is infinite (what half precision does at coefficients of a thousand).
    much = dataclasses.replace(vector, values=torch.full_like(vector.values, 3e38)).at(-1).on("last")
    with pytest.warns(RuntimeWarning, match=r"overflows the model under condition 2 \(of 3"):
        shift = sl.logit_shift(gpt2, PROMPT, [2 * vector, much], top_k=2, follow=" wedding")
    lost, kept = (shift.summary[shift.summary["condition"] == number] for number in (2, 1))
    assert lost[["kl", "entropy", "top_prob"]].isna().all(axis=None)
    assert lost["top_token"].tolist() == [""]
    assert kept[["kl", "entropy", "top_prob"]].notna().all(axis=None)
    rows = shift.frame[shift.frame["condition"] == 2]
    assert rows["top"].tolist() == [""], "only the followed token is there"
    assert rows[["shift", "kl_part", "rank_steered", "prob_steered"]].isna().all(axis=None)
