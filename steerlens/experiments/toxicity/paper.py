"""What the paper reports of toxicity, and where this experiment departs from it."""

from __future__ import annotations

from steerlens.experiments.shared.beside import PAPER, Reported

DIFFERENCES = (
    "The paper scores with the Perspective API, an online service. Here it is by default the small scorer that "
    "ships with the package (its card says how well it agrees with Perspective); it reads the completion alone.",
    "We could not establish which pair, layer and coefficient are behind the paper's table. The pair here is its "
    "running example, “Love” − “Hate” (unless the settings say otherwise); layer and coefficient are those with "
    "the lowest mean toxicity on validation prompts, and the numbers reported are for other prompts.",
    "The paper decodes its own completions with temperature 1, top-p 0.3 and frequency penalty 1, and puts the "
    "numbers beside those of other papers that decoded with top-p 1 and no penalty, which alone changes toxicity. "
    "Here all methods decode alike.",
    "Disfluency is under the unsteered model itself, the paper's under a larger one: the two cannot be compared.",
    "Added here: random vectors of the same norm, intervals, and the share of completions that score at least one "
    "half, which is what RealToxicityPrompts calls toxic.",
)

_WHERE = f"{PAPER}, later versions, table of toxicity (Perspective API, 1,000 prompts of RealToxicityPrompts)"

REPORTED = (
    Reported("mean toxicity, unsteered → ActAdd", "0.134 → 0.112 (−0.022)", "OPT-6.7B", _WHERE),
    Reported("mean toxicity, unsteered → ActAdd", "0.114 → 0.108 (−0.006)", "LLaMA-3-8B", _WHERE),
)
