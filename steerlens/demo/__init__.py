"""The embedded model, its scorers, and small openly licensed data: where the files are."""

import json
from pathlib import Path

MODEL = Path(__file__).resolve().parent / "model"
DATA = MODEL.parent / "data"
SCORERS = MODEL.parent / "scorers"
TOPICS = ("weddings", "war", "music", "money", "dogs", "food")


def topic_contrast(topic: str) -> tuple[list[str], list[str]]:
    """Five sentences about one of `TOPICS`, and five about nothing in particular: what `mean_difference` takes."""
    sentences = json.loads((DATA / "topic_sentences.json").read_text(encoding="utf-8"))
    return sentences[topic], sentences["neutral"]
