"""What the paper reports of related words by layer, and where this experiment departs from it."""

from __future__ import annotations

from steerlens.experiments.shared.beside import PAPER, Reported

DIFFERENCES = (
    "The paper counts layers 1 to 48; here they are the blocks 0 to 47, whose inputs are steered.",
    "The paper gives no intervals: here shares have Wilson's, means Student's (95 %).",
    "The paper's figures have no control: here every condition has a random vector of equal norm beside it, and "
    "no layer is called the best unless it differs from both after correction for all that were tried.",
    "The text does not say how words are matched; the scripts count whole words ignoring case, as is done here.",
    "Weddings is the paper's only topic here. The pairs for other topics are formed in the same way; their word "
    "lists are ours.",
)

_ON = "GPT-2-XL, “ weddings” − “ ”, coefficient 1, 200 completions per layer"
_WHERE = f"{PAPER}, version 1, text and figures of wedding words by layer"

TOPIC = "weddings"
BEST = Reported("completions with a related word, at the best layer", "over 90 %", _ON, _WHERE)
UNSTEERED = Reported("the same, unsteered", "about 2 %", _ON, _WHERE)
LAYER = Reported("best layer", "6 of 48 (the effect begins at the very first)", _ON, _WHERE)
