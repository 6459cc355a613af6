"""What the paper reports of sentiment, and where this experiment departs from it."""

from __future__ import annotations

from steerlens.experiments.shared.beside import PAPER, Reported

DIFFERENCES = (
    "We could not establish which pair, layer and coefficient are behind each number of the paper's table. The "
    "pair here is its running example, “Love” − “Hate” (unless the settings say otherwise), and layer and "
    "coefficient are chosen on validation prompts, separately for each direction; the numbers reported are for "
    "other prompts.",
    "The paper decodes its own completions with temperature 1, top-p 0.3 and frequency penalty 1, and puts the "
    "numbers beside those of other papers that decoded with top-p 1 and no penalty, which alone changes fluency "
    "and success. Here all methods decode alike.",
    "Disfluency is the perplexity of the completion, given the prompt, under the unsteered model itself. The "
    "paper's is under a larger model, after Pei et al. 2023 (PREADD), and cannot be compared with it.",
    "The scorer is by default the small one that ships with the package; it reads the completion alone.",
    "Prompting puts the pair's phrase in front of the opening. In an instruction-tuned model, a sentence that "
    "asks for the sentiment is a stronger competitor (phrases=).",
    "Random vectors of the same norm at the same place are our addition: they show what any push of that size does.",
)

_WHERE = f"{PAPER}, later versions, table of sentiment (success, disfluency, relevance on IMDb)"

SUCCESS = {
    "negative to positive": Reported("success, negative to positive", "0.669", "LLaMA-3-8B, ActAdd", _WHERE),
    "positive to negative": Reported("success, positive to negative", "0.432", "OPT-6.7B, ActAdd", _WHERE),
}
"""By direction, of the model for which the paper's text names the number."""
