"""How the post's examples were shown there, and where the gallery departs from it."""

from __future__ import annotations

DIFFERENCES = (
    "The post shows for each example the best of three completions (its introduction: of thirty), picked by hand. "
    "Here the best of the first three is picked by a stated rule, the completion with most of the example's "
    "words, and all completions and the share with any such word stand beside it.",
    "The words by which an effect is counted are ours: in the post people judged.",
    "The post's polished notebook samples 3 completions of 50 tokens, an earlier one up to 15 of 50 to 90.",
    "Layers are those of GPT-2-XL (48 layers); another model is steered at the same relative depth. Coefficients "
    "are the post's; another model may need another scale.",
    "Added here: a random vector of equal norm beside each example, and intervals.",
)

VERDICTS = {"works": "works", "fails": "does not work", "what if": "tried, without a verdict"}
"""The post's headings, in words."""
