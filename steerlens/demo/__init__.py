"""The embedded model, its scorers, and small openly licensed data: where the files are."""

from pathlib import Path

MODEL = Path(__file__).resolve().parent / "model"
DATA = MODEL.parent / "data"
SCORERS = MODEL.parent / "scorers"
