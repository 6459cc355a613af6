"""Which recipe makes SmolLM2 speak of weddings: the ActAdd paper's prompt pair, or the mean difference of sentences.

    steerlens get smollm2
    python scripts/smollm2_recipes.py --n 50

Prints a line for every recipe, layer and coefficient: the share of completions with a wedding word, and the mean
surprise of their tokens under the unsteered model (nats). Up to layer 8 of this model many a first word after BOS is
several times as long as ordinary words, and a pair's vector stands just there.
"""

from __future__ import annotations

import argparse

import steerlens as sl
from steerlens import demo
from steerlens.steering import Steering

PROMPT = "I went up to my friend and said"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50, help="completions per condition")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 6, 16, 20, 24])
    asked = parser.parse_args()
    model = sl.load_model("smollm2", dtype="bfloat16", bridge=True, processing=False)
    weddings, neutral = demo.topic_contrast("weddings")
    pairs = sl.actadd(model, " weddings", " ", layers=asked.layers)
    means = sl.mean_difference(model, weddings, neutral, layers=asked.layers, token=slice(1, None))
    conditions: list[Steering] = [None]
    names = [f"{'unsteered':24}"]
    for name, vectors, coeffs in (("pair, front", pairs, (1.0, 4.0)), ("mean, all", means, (1.0, 2.0, 2.5))):
        for layer, vector in vectors.items():
            for coeff in coeffs:
                conditions.append(coeff * vector)
                names.append(f"{name:12} {layer:>5} {coeff:>5g}")
    frame = sl.generate(model, PROMPT, conditions, n=asked.n, max_new_tokens=asked.tokens, seed=0, surprise=True)
    about = sl.metrics.words("weddings")
    for (_, rows), name in zip(frame.groupby("condition", sort=False), names, strict=True):
        print(f"{name}  {about(rows['completion']).mean():6.0%}  {rows['surprise'].mean():5.2f} nats")


if __name__ == "__main__":
    main()
