"""What `search` finds on SmolLM2 within minutes a topic, and what it is worth on ten held-out prompts.

    steerlens get smollm2
    python scripts/smollm2_topics.py --out smollm2_topics

For each topic the mean difference of its five shipped sentences from five neutral ones (of sentiment: of positive and
negative openings of film reviews), at layers 16 to 28, placed at all tokens. Beside the setting found stand no
steering, a random vector of equal norm and a sentence in front of the prompt. One JSON file and one page per topic;
topics whose file is there are left out, and one that was interrupted goes on from its storage.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import steerlens as sl
from steerlens import demo
from steerlens.experiments.shared.scorers import probabilities, shipped_scorer

SEARCHED = [
    "I went up to my friend and said",
    "The weather today is",
    "Last year my brother told me that",
    "On the way home she stopped and",
]
HELD_OUT = [
    "When I woke up this morning,",
    "The teacher looked at the class and",
    "My favorite thing about the summer is",
    "He opened the letter and read:",
    "We spent the whole evening talking about",
    "The old man sat down and told us about",
    "In the news today,",
    "She called her sister because",
    "Nobody in the town expected that",
    "After work I usually",
]
STRENGTHS = [sl.norm_share(round(float(share), 3)) for share in np.geomspace(0.25, 1.05, 6)]


def main() -> None:
    """Search the topics one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topics", nargs="+", default=[*demo.TOPICS, "sentiment"])
    parser.add_argument("--minutes", type=float, default=10.0, help="of search per topic; the confirmation comes after")
    parser.add_argument("--layers", type=int, nargs="+", default=list(range(16, 30, 2)))
    parser.add_argument("--n", type=int, default=8, help="samples of a prompt that a setting gets at most")
    parser.add_argument("--confirm", type=int, default=20, help="samples of each held-out prompt")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("smollm2_topics"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    model = sl.load_model("smollm2", dtype="bfloat16", bridge=True, processing=False)
    for topic in asked.topics:
        target = asked.out / f"{topic}.json"
        if not target.exists():
            found = searched(model, topic, asked)
            target.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(target.read_text(encoding="utf-8"), flush=True)


def searched(model: sl.HookedModel, topic: str, asked: argparse.Namespace) -> dict[str, Any]:
    """What is found for a topic, as plain data."""
    started = time.monotonic()
    positive, negative, goal, words = contrast(topic)
    vectors = sl.mean_difference(model, positive, negative, layers=asked.layers, token=slice(1, None))
    found = sl.search(
        model,
        {topic: vectors},
        SEARCHED,
        goal=goal,
        budget=1_000_000,
        minutes=asked.minutes,
        strengths=STRENGTHS,
        held_out=HELD_OUT,
        confirm=asked.confirm,
        prompting=words,
        n=asked.n,
        max_new_tokens=asked.tokens,
        storage=asked.out / f"{topic}.sqlite",
        progress=False,
    )
    found.report(asked.out / f"{topic}.html")
    assert found.confirmed is not None
    told = ["role", "n", "effect", "effect_low", "effect_high", "success", "success_low", "success_high", "surprise"]
    return {
        "topic": topic,
        "setting": found.candidate.label,
        "coefficient": round(found.candidate.injection.vector.coeff, 3),
        "settings sampled": len(found.candidates),
        "tokens": int(found.frame["spent"].iloc[-1]),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "verdict": found.confirmed.verdict,
        "why": str(found.confirmed.row["why"]),
        "held out": found.confirmed.table[told].round(3).to_dict("records"),
    }


def contrast(topic: str) -> tuple[list[str], list[str], sl.metrics.Metric, str]:
    """Texts on the topic and others, what counts as success, and the words that would ask for the same."""
    if topic != "sentiment":
        about, neutral = demo.topic_contrast(topic)
        return about, neutral, sl.metrics.topic(topic), f"This is a story about {topic}."
    rows = [json.loads(line) for line in (demo.DATA / "sentiment_openings.jsonl").read_text("utf-8").splitlines()]
    texts = {label: [row["text"] for row in rows if row["label"] == label] for label in ("positive", "negative")}
    scorer = shipped_scorer("sentiment")

    def is_positive(completions: list[str]) -> np.ndarray:
        return (np.asarray(probabilities(scorer, completions)) > 0.5).astype(float)

    goal = sl.metrics.Metric("positive", "share", is_positive)
    return texts["positive"][:20], texts["negative"][:20], goal, "What a wonderful, delightful day this is!"


if __name__ == "__main__":
    main()
