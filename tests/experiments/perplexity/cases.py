"""Documents and a pair of prompts for the perplexity experiment."""

import steerlens as sl

TEXTS = [
    "The bride wore white. The groom was late for the wedding. Nobody laughed at him.",
    "He went to the old house by the sea and sat down. It rained. The dog slept on the floor all day long.",
    "A married man came in. " + " ".join(["and then they walked on over the hill"] * 10) + ".",
    "So. They sailed away and no one ever saw the ship again.",
]
PAIR = sl.PromptPair(" weddings", " ")
ALL = {"min_documents": 2, "essays": False, "sentences": "corpus"}
