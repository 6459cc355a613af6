"""The work that is disturbed, small enough to be done often, and what it gives undisturbed."""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import steerlens as sl
from steerlens import cli

PROMPTS = ["I went up to my friend and said", "The weather today is"]
COMMAND = ("sweep", " weddings", " ", "--layers", "1-2", "--n", "2", "--tokens", "4", "--controls", "random")


@dataclass
class Work:
    """A model, and what each piece of work on it gives when nothing disturbs it.

    Attributes:
        expected: per piece of work, its table or its vector.
        seconds: how long each takes undisturbed.
    """

    model: Any
    expected: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def on(cls, model: Any) -> Work:
        """Everything done once to warm up, and once to be kept."""
        work = cls(model)
        for _ in range(2):
            for name in ("generate", "actadd", "sweep"):
                started = time.perf_counter()
                work.expected[name] = getattr(work, name)()
                work.seconds[name] = time.perf_counter() - started
        return work

    def generate(self, coeff: float = 4.0) -> pd.DataFrame:
        """A table of steered completions."""
        vector = coeff * sl.actadd(self.model, " weddings", " ", layer=2)
        return sl.generate(self.model, PROMPTS, vector, n=2, max_new_tokens=6, seed=0, progress=False)

    def actadd(self) -> Any:
        """The vectors of all layers."""
        found = sl.actadd(self.model, " weddings and churches", " ", layers="all")
        return np.stack([found[layer].values.float().cpu().numpy() for layer in sorted(found)])

    def sweep(self, store: Path | None = None, *, whole: bool = False) -> Any:
        """The table of a sweep of five conditions in parts; `whole` gives the sweep itself."""
        pair = sl.PromptPair(" weddings", " ")
        result = sl.sweep(
            self.model, pair, PROMPTS, layers=[1, 2], coeffs=[4.0], n=2, max_new_tokens=6, batch_size=4, store=store,
            controls="random", progress=False,
        )  # fmt: skip
        return result if whole else result.frame

    def differs(self, name: str, found: Any) -> str:
        """How `found` differs from what the work gives undisturbed; nothing if it does not."""
        expected = self.expected[name]
        if isinstance(expected, np.ndarray):
            return "" if np.array_equal(found, expected) else "other vectors"
        return different(found, expected)

    def hooks(self) -> int:
        """How many functions hang on the model."""
        points = list(self.model.hook_dict.values())
        return sum(len(point._forward_hooks) + len(point._backward_hooks) for point in points)


def different(found: pd.DataFrame, expected: pd.DataFrame) -> str:
    """How a table differs from what was expected: all but the last digits of surprises; nothing if it does not."""
    try:
        rounded = [name for name in expected.columns if name == "surprise"]
        for name in rounded:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
        pd.testing.assert_frame_equal(found.drop(columns=rounded), expected.drop(columns=rounded), check_exact=True)
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return ""


def finished(store: Path) -> int:
    """Finished conditions in a store, read without steerlens."""
    if not store.exists():
        return 0
    with closing(sqlite3.connect(store)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'run'").fetchone():
            return 0
        return int(db.execute("SELECT count(*) FROM run WHERE finished IS NOT NULL").fetchone()[0])


def command(*arguments: object) -> None:
    """What the shell does with `steerlens …`; ends with SystemExit."""
    sys.argv = ["steerlens", *map(str, arguments)]
    cli.main()


def broken_files(folder: Path, rows: int) -> str:
    """Which of out.html and table.csv in the folder is there in part; nothing if none is."""
    page, csv = folder / "out.html", folder / "table.csv"
    if page.exists() and not page.read_text().rstrip().endswith("</html>"):
        return "half a page"
    if csv.exists() and len(pd.read_csv(csv)) != rows:
        return "half a table"
    left = [one.name for one in folder.iterdir() if one.name.endswith(".part")]
    return f"files left behind: {left}" if left else ""
