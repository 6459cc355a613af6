"""`score` against the plain loop: continuations of prompts, and texts by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import steerlens as sl
from steerlens.steering.conditions import as_condition
from steerlens.steering.prompts import prompt_ids
from steerlens.steering.tokens import continuation_ids
from tests import reference
from tests.conftest import Case
from tests.engine.scoring.cases import PROMPTS, TEXTS, additions, drawn, grids, plain_logits, vector


@given(data=st.data())
@drawn
def test_scores_of_continuations_equal_the_plain_loop(case: Case, data: st.DataObject) -> None:
    model = case.model
    job = data.draw(grids(model, later=True))
    texts = data.draw(st.lists(st.sampled_from(TEXTS), min_size=len(job.prompts), max_size=len(job.prompts)))
    frame = sl.score(model, texts, job.steering, prompt=job.prompts, batch_size=job.batch_size)
    done = 0
    for c, one in enumerate(job.steering):
        condition = as_condition(one)
        for index, (prompt, text) in enumerate(zip(job.prompts, texts, strict=True)):
            before, after = prompt_ids(model, prompt), continuation_ids(model, text)
            logits = plain_logits(model, before + after, condition, len(before))
            expected = logits.log_softmax(-1)[range(len(before) - 1, len(before + after) - 1), after]
            rows = frame[(frame.condition == c) & (frame.text_index == index)]
            assert rows.token_id.tolist() == after
            assert rows.position.tolist() == list(range(len(before), len(before + after)))
            assert set(rows.prompt) == {prompt}
            assert set(rows.text) == {text}
            torch.testing.assert_close(torch.tensor(rows.logprob.values).float(), expected, rtol=1e-5, atol=2e-5)
            done += len(rows)
    assert done == len(frame)


@pytest.mark.parametrize("placement", reference.RANGES)
def test_ranges_of_scored_continuations(case: Case, placement: Any) -> None:
    """One row of a vector at many positions: in prompts of several lengths, and in what is scored behind them."""
    one = vector(case.model, 1, size=3.0, placement=placement)
    prompts, text = [PROMPTS[2], PROMPTS[3]], TEXTS[1]
    frame = sl.score(case.model, [text] * 2, [None, one], prompt=prompts)
    for index, prompt in enumerate(prompts):
        before, after = prompt_ids(case.model, prompt), continuation_ids(case.model, text)
        rows = reference.placed(one.values, placement, len(before), total=len(before + after))
        logprobs = reference.log_probs(case.hf, before + after, {1: rows})
        expected = logprobs[range(len(before) - 1, len(before + after) - 1), after]
        found = frame[(frame.condition == 1) & (frame.text_index == index)].logprob
        torch.testing.assert_close(torch.tensor(found.values).float(), expected, rtol=1e-5, atol=1e-4)


def test_generated_tokens_are_asked_for_where_there_are_none(any_model: Any) -> None:
    one = vector(any_model, 1, placement="generated")
    for ask in (sl.next_token_logits, sl.score):
        with pytest.raises(sl.SteerlensError, match="goes to generated tokens only.*use placement='from_last'"):
            ask(any_model, "The dog ran", [None, one])


def test_scores_of_texts_by_hand(case: Case) -> None:
    """Without a prompt the text is steered itself; the perplexity of the unsteered text is Hugging Face's loss."""
    model, condition = case.model, as_condition(vector(case.model, 1, 2, size=2.0, placement="mid"))
    texts = [PROMPTS[2], PROMPTS[4], "dog"]
    frame = sl.score(model, texts, [None, condition, None], batch_size=2)
    assert frame.condition.unique().tolist() == [0, 1, 2]
    for index, text in enumerate(texts):
        ids = prompt_ids(model, text)
        mine = frame[frame.text_index == index]
        loss = case.hf(torch.tensor([ids]), labels=torch.tensor([ids])).loss
        assert -mine[mine.condition == 0].logprob.mean() == pytest.approx(float(loss), rel=1e-5)
        steered = reference.log_probs(case.hf, ids, additions(condition, len(ids), len(ids)))
        by_hand = float(steered[range(len(ids) - 1), ids[1:]].sum())
        assert mine[mine.condition == 1].logprob.sum() == pytest.approx(by_hand, rel=1e-5, abs=1e-4)
        assert mine[mine.condition == 2].logprob.tolist() == mine[mine.condition == 0].logprob.tolist()
        assert "".join(mine[mine.condition == 1].token) == text


def test_score_frame_has_its_columns(any_model: Any) -> None:
    v = vector(any_model, 2, size=3.0)
    frame = sl.score(any_model, "The dog ran", [None, v, (v, vector(any_model, 0))], placement="last")
    assert list(frame.columns) == [
        "condition", "label", "layer", "coeff", "placement", "prompt", "text_index", "text", "position", "token",
        "token_id", "logprob",
    ]  # fmt: skip
    first = frame.drop_duplicates("condition").set_index("condition")
    assert first.label.tolist() == ["unsteered", v.title, f"{v.title}, 1 × (v0)"] or first.label[0] == "unsteered"
    assert str(frame.layer.dtype) == "Int64"
    assert first.layer.isna().tolist() == [True, False, True]
    assert first.layer[1] == 2
    assert first.coeff.iloc[:2].tolist() == [0.0, 3.0]
    assert first.placement.tolist() == ["", "last", "last"]
    assert set(frame.prompt) == {""}
    assert frame.logprob.lt(0).all()
    assert frame.position.min() == 1  # the first real token is predicted from BOS
