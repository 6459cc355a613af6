"""Trains the two scorers that ship with the package: linear models on hashed n-grams, and their cards.

    python scripts/train_scorers.py sentiment --data DATA
    python scripts/train_scorers.py toxicity --data DATA

Settings were chosen on a tenth of the training data (`--choose`), never on the test data, which is looked at once, for
the card. Completions are short, so the sentiment scorer learns from short windows of the reviews beside whole ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from scorers import sentiment, toxicity

OUT = Path(__file__).resolve().parents[1] / "steerlens" / "demo" / "scorers"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scorer", choices=("sentiment", "toxicity"))
    parser.add_argument("--data", type=Path, required=True, help="folder with imdb/ and toxicity/")
    parser.add_argument("--choose", action="store_true", help="try settings on a part of the training data instead")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"there is no folder {arguments.data}; give the one that holds imdb/ and toxicity/ as --data")
    torch.set_num_threads(1)
    room = {"sentiment": sentiment, "toxicity": toxicity}[arguments.scorer]
    if arguments.choose:
        room.choose(arguments.data)
        return
    OUT.mkdir(exist_ok=True)
    print(room.train(arguments.data, OUT).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
