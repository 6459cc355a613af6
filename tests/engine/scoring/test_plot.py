"""The frame of `score` draws itself, and is a frame in everything else."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import steerlens as sl


def test_scores_are_a_frame_that_draws_itself(demo: Any) -> None:
    from steerlens.figures import text_log_probs

    vector = 4 * sl.actadd(demo, "Love", "Hate", layer=2)
    scores = sl.score(demo, ["I hate you because", "She left"], [None, vector])
    assert isinstance(scores, pd.DataFrame) and type(scores[scores["position"] > 1]) is pd.DataFrame
    drawn = scores.plot(text="She left")
    assert drawn.to_json() == text_log_probs(pd.DataFrame(scores), text="She left").to_json()
    with pytest.raises(sl.SteerlensError, match="text"):
        scores.plot()
    with pytest.raises(sl.SteerlensError, match="width must be a whole number"):
        scores.plot(text="She left", width=0)


def test_positions_are_named_by_their_tokens_on_the_axis(demo: Any) -> None:
    vector = 4 * sl.actadd(demo, "Love", "Hate", layer=2)
    effect = sl.position_effect(demo, vector, "I hate you because of it", " love", placements=[1, 2, "back"])
    assert list(effect.plot().layout.xaxis.ticktext) == ["1<br>I", "2<br>␣hate", "back"]
    several = sl.position_effect(demo, vector, ["I hate you all", "I love you all"], " love", placements=[1, 2])
    assert list(several.plot().layout.xaxis.ticktext) == ["1<br>I", "2"]


def test_completions_side_by_side_are_at_hand(demo: Any) -> None:
    from steerlens.figures import completions_side_by_side

    frame = sl.generate(demo, "I hate you", [None, 4 * sl.actadd(demo, "Love", "Hate", layer=2)], n=2, max_new_tokens=4)
    assert sl.side_by_side(frame, n=1).text() == completions_side_by_side(frame, n=1).text()
    for wrong in ({"n": 0}, {"metric": "wedding"}, {"labels": 3}, {"prompt": 5}, {"prompt": "no such"}):
        with pytest.raises(sl.SteerlensError):
            sl.side_by_side(frame, **wrong)
