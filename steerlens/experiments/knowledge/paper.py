"""What the paper reports of kept knowledge, and where its text, its script and this experiment differ."""

from __future__ import annotations

from steerlens.experiments.shared.beside import PAPER, Reported

DIFFERENCES = (
    "The data here are by default a small set written for this project, because LAMA's ConceptNet (n = 29,774 in "
    "the paper) is CC-BY-NC-4.0 and is not shipped; --data knowledge=PATH takes the paper's.",
    "The text names no layer; the script takes layer 16 of GPT-2-XL's 48. Another model is steered at the same "
    "relative depth.",
    "The script also asks sentences with an empty prompt (BOS alone), and lets a vector that is longer than the "
    "prompt run into the padding. Here those sentences are left out and counted.",
    "A sentence with several masks, or with text after the mask, is cut at its first mask, as in the script.",
    "The paper gives no intervals. Here P@K has Wilson's, and its difference from the unsteered model that of "
    "Bonett and Price (2012) for paired proportions (95 %, pointwise in K).",
    "The paper has no control. Here a random vector of equal norm answers the same questions.",
    "P@K changes only when an answer crosses rank K, so the mean change in the answers' log-probability is given "
    "as well.",
)

_ON = "GPT-2-XL, “ weddings” − “ ”, coefficient 1"
_WHERE = f"{PAPER}, version 1, figure of P@K on ConceptNet"

CHANGE = Reported(
    "change in P@K", "negligible at every K from 1 to 100 (a figure; the text gives no number)", _ON, _WHERE
)
ASKED = Reported("sentences", "29,774 (LAMA, ConceptNet)", _ON, _WHERE)
