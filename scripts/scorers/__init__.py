"""Training of the two scorers that ship with the package; `scripts/train_scorers.py` is its command."""
