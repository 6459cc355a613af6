"""What `search` finds for each topic within minutes, and what that is worth on held-out prompts.

    steerlens get smollm2
    python scripts/search_topics.py --out topics_smollm2
    python scripts/search_topics.py --model demo --out topics_demo

For each topic two kinds of vector, both of its five shipped sentences (of sentiment: of openings of film reviews): the
mean difference from neutral ones at layers of the later two thirds, and, at three layers, a vector trained to make the
sentences likely; placed at all tokens. Beside the setting found, on ten held-out prompts, stand no steering, a
random vector of equal norm and a sentence in front of the prompt. One JSON file and one page per topic; topics whose
file is there are left out, and one that was interrupted goes on from its storage. `--table` prints what is there.
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
from steerlens.runs.methods import trained_vectors

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
STRENGTHS = [sl.norm_share(round(float(share), 3)) for share in np.geomspace(0.1, 1.05, 10)]
PLAIN: dict[str, Any] = {"bridge": True, "processing": False}


def main() -> None:
    """Search the topics one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", choices=["smollm2", "demo"])
    parser.add_argument("--topics", nargs="+", default=[*demo.TOPICS, "sentiment"])
    parser.add_argument("--minutes", type=float, default=5.0, help="of search per topic; the confirmation comes after")
    parser.add_argument("--n", type=int, default=8, help="samples of a prompt that a setting gets at most")
    parser.add_argument("--confirm", type=int, default=20, help="samples of each held-out prompt")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("topics"))
    parser.add_argument("--table", action="store_true", help="print what is there, and search nothing")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if not asked.table:
        how: dict[str, Any] = (
            {} if asked.model == "demo" else {"dtype": "bfloat16", "bridge": True, "processing": False}
        )
        model = sl.load_model(asked.model, **how)
        for topic in asked.topics:
            target = asked.out / f"{topic}.json"
            if not target.exists():
                target.write_text(json.dumps(searched(model, topic, asked), indent=1), encoding="utf-8")
                print(table([target]), flush=True)
    print(table(sorted(asked.out.glob("*.json"))))


def searched(model: sl.HookedModel, topic: str, asked: argparse.Namespace) -> dict[str, Any]:
    """What is found for a topic, as plain data."""
    started = time.monotonic()
    positive, negative, goal, words = contrast(topic)
    n_layers = model.cfg.n_layers
    later = range(n_layers // 3, n_layers, max(n_layers // 15, 1))
    means = sl.mean_difference(model, positive, negative, layers=later, token=slice(1, None))
    contrast_set = sl.ContrastSet(tuple(positive), tuple(negative), name=topic)
    trained = trained_vectors(model, contrast_set, layers="all")
    made = time.monotonic()
    found = sl.search(
        model,
        {"mean difference": means, "trained": trained},
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
        "minutes to make the vectors": round((made - started) / 60, 1),
        "minutes of search": asked.minutes,
        "minutes in all": round((time.monotonic() - started) / 60, 1),
        "verdict": found.confirmed.verdict,
        "why": str(found.confirmed.row["why"]),
        "held out": found.confirmed.table[told].round(3).to_dict("records"),
    }


def table(files: list[Path]) -> str:
    """A line for each topic: on topic / on topic and fluent (with its interval), and the same of its controls."""
    lines = []
    for file in files:
        one = json.loads(file.read_text(encoding="utf-8"))
        cells = [f"{one['topic']:10} {one['setting']:55} {one['minutes in all']:5} min"]
        for row in one["held out"]:
            limits = f" ({row['success_low']:.0%} to {row['success_high']:.0%})" if row["role"] == "steered" else ""
            cells.append(f"{row['role']} {row['effect']:.1%} / {row['success']:.1%}{limits}")
        lines.append("; ".join([*cells, one["verdict"]]))
    return "\n".join(lines)


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
