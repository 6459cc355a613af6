"""The shipped contrasts: about what they say they are about, and about nothing else."""

from __future__ import annotations

import pytest

import steerlens as sl
from steerlens import demo


@pytest.mark.parametrize("topic", demo.TOPICS)
def test_sentences_are_about_their_topic_alone(topic: str) -> None:
    positives, negatives = demo.topic_contrast(topic)
    assert len(positives) == len(negatives) == len({*positives, *negatives}) / 2 == 5
    about = sl.metrics.topic(topic)
    assert about(positives).all()
    assert not about(negatives).any()
