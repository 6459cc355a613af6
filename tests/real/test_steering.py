"""Steering steers a model that nobody made for it: a topic's mean difference turns its texts, which stay readable."""

from __future__ import annotations

from typing import Any

import steerlens as sl
from steerlens import demo

PROMPT = "I went up to my friend and said"


def test_the_mean_difference_of_a_topic(real: Any) -> None:
    """Measured with these settings: 75 % of completions speak of weddings, 5 % unsteered; 2.1 and 1.5 nats a token."""
    model = real("bridge-raw", "bfloat16")
    weddings, neutral = demo.topic_contrast("weddings")
    # Every token but BOS and the first word, where this model has its attention sinks.
    vector = sl.mean_difference(model, weddings, neutral, layer=16, token=slice(2, None))
    frame = sl.generate(model, PROMPT, [None, 1.5 * vector], n=20, max_new_tokens=40, seed=0, placement="all")
    about = sl.metrics.words("weddings")
    unsteered, steered = (list(rows["completion"]) for _, rows in frame.groupby("condition", sort=False))
    assert about(steered).mean() >= 0.5
    assert about(unsteered).mean() <= 0.15
    surprise = -sl.score(model, steered, prompt=PROMPT)["logprob"].mean()
    assert surprise < 3.0, "readable to the unsteered model"
