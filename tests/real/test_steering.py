"""Steering steers a model that nobody made for it: a topic's mean difference turns its texts, which stay readable."""

from __future__ import annotations

from typing import Any

import steerlens as sl
from steerlens import demo

PROMPT = "I went up to my friend and said"


def test_the_mean_difference_of_a_topic(real: Any) -> None:
    """Measured with these settings: 94 % of completions speak of weddings, none unsteered; 2.1 and 1.6 nats a token."""
    model = real("bridge-raw", "bfloat16")
    weddings, neutral = demo.topic_contrast("weddings")
    vector = sl.mean_difference(model, weddings, neutral, layer=24, token=slice(1, None))
    frame = sl.generate(model, PROMPT, [None, 2 * vector], n=16, max_new_tokens=24, seed=0, placement="all")
    about = sl.metrics.words("weddings")
    unsteered, steered = (list(rows["completion"]) for _, rows in frame.groupby("condition", sort=False))
    surprises = [-sl.score(model, texts, prompt=PROMPT)["logprob"].mean() for texts in (unsteered, steered)]
    assert about(steered).mean() >= 0.6
    assert about(unsteered).mean() <= 0.15
    assert surprises[1] < 2.8, "readable to the unsteered model"
