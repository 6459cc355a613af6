"""What the paper and the original post report of perplexity, and where their text, scripts and figures disagree."""

from __future__ import annotations

from steerlens.experiments.shared.beside import PAPER, POST, Reported

DIFFERENCES = (
    "The paper prints the ratio as −exp(X), which is negative and must be a typo. Its scripts and figures use "
    "exp(−X), as is done here.",
    "The paper averages over the documents of a bin; the script that draws the figure (openwebtext_show.py) "
    "averages over its tokens. Shown here is the paper's; the script's is in the table of all numbers, weighted "
    "by tokens.",
    "The paper keeps bins of more than 1,000 documents, the script those of more than 100. Here all bins are "
    "kept, and those with too few documents are marked.",
    "The script's word list is the paper's, but it compares pieces between white space as they stand, so that "
    '“wedding,” does not count. Here punctuation ends a word; counting="split" counts as the script does.',
    'The paper\'s figure is for " weddings" − " ", the scripts\' for " weddings" − "" padded with a space: the same '
    "tokens.",
    "The scripts leave out predictions at positions that the injection touches (BOS and the phrase). Both "
    "readings are in the table; the figures show the scripts'.",
    "From OpenWebText the scripts take the documents with the most wedding words and equally many with none. Here "
    "documents are taken in the order of the source.",
    "Prompting is compared as in the original's compare_with_prompting: the phrase precedes the sentence. Here "
    "its baseline has as many spaces in the phrase's place, so that every token keeps its position.",
    "The paper gives no intervals and has no random vector beside its own; both are added here.",
)

ON_TOPIC = Reported(
    "text on the topic, perplexity ratio",
    "below 1, and lower the more wedding words a document has (read off a figure; the text gives no number)",
    "GPT-2-XL, layer 16 of 48, coefficient 1, OpenWebText",
    f"{PAPER}, figure of the perplexity ratio by share of wedding words",
)
OTHER = Reported(
    "other text, perplexity ratio",
    "about 1 (likewise)",
    "GPT-2-XL, layer 16 of 48, coefficient 1, OpenWebText",
    ON_TOPIC.where,
)

ESSAY_LAYERS = (1, 6, 16, 30)
"""Of the post's curve, those told beside ours; the figure has all nine."""


def essay(name: str, layer: int, ratio: float) -> Reported:
    """A point of the post's curve."""
    return Reported(
        f"{name} essay, perplexity ratio at {layer / 48:.0%} of the depth".replace("%", " %"),
        f"{ratio:.3f}",
        f"GPT-2-XL, layer {layer} of 48, coefficient 1",
        f"{POST}, figure of the essays' perplexity by layer",
    )
