"""`Result`: what every experiment returns: a tidy frame, figures, a page, and everything needed to repeat it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from steerlens.arguments import path_to
from steerlens.errors import SteerlensError
from steerlens.experiments.shared.headings import readable
from steerlens.reports.page import Completions, Headline, Page
from steerlens.reports.writing import write_page
from steerlens.whole_files import write_whole

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Result(ABC):
    """The outcome of an experiment. Each experiment has its own subclass, which documents the columns of `frame`.

    Attributes:
        frame: the main numbers, tidy, with intervals.
        settings: everything needed to repeat it, as plain data: arguments, seed, model, fingerprint, versions.
    """

    name: ClassVar[str]
    """As in `steerlens reproduce NAME`."""
    title: ClassVar[str]
    """What it asks, as the heading of its page."""
    differences: ClassVar[tuple[str, ...]] = ()
    """Where the paper and its scripts disagree, and where this departs from both; a remark each, for the page."""

    frame: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)

    @abstractmethod
    def answer(self) -> list[str]:
        """What the numbers say to the title, a paragraph each, with intervals; the first says it in short."""

    @abstractmethod
    def headlines(self) -> list[Headline]:
        """The few numbers to read first, each with its interval."""

    @abstractmethod
    def figures(self) -> dict[str, go.Figure]:
        """Captions and figures, the paper's figure first."""

    def beside_paper(self) -> pd.DataFrame:
        """What the paper (or the post) reports beside what was found here; no rows where it gives nothing.

        Columns: what, here, reported, reported for (model and data), where (figure or table).
        """
        return pd.DataFrame()

    def tables(self) -> dict[str, pd.DataFrame]:
        """Captions and tables of the page; by default the frame."""
        return {"All numbers": self.frame}

    def completions_shown(self) -> list[Completions]:
        """Completions side by side, where the experiment makes any."""
        return []

    def plot(self) -> go.Figure:
        """The paper's figure of this experiment, with intervals."""
        return next(iter(self.figures().values()))

    def page(self, *, command: str | None = None, index: str | None = None) -> Page:
        """What the experiment's page says; `index` is the file of the page it is listed on."""
        reported = self.beside_paper()
        tables = {"Beside what the paper reports": reported} if len(reported) else {}
        return Page(
            title=self.title,
            subtitle=f"on {self.settings.get('model', 'a model')}",
            answer=self.answer(),
            headlines=self.headlines(),
            links={"← All experiments": index} if index else {},
            figures=self.figures(),
            tables={caption: readable(frame) for caption, frame in (tables | self.tables()).items()},
            completions=self.completions_shown(),
            notes={"How this differs from the paper and its scripts": self.differences} if self.differences else {},
            settings=self.settings,
            command=command,
        )

    def report(self, path: str | Path, *, command: str | None = None) -> Path:
        """One self-contained HTML page; returns its path.

        Raises:
            SteerlensError: the place cannot be written (checked before anything is drawn).
        """
        return write_page(path, lambda: self.page(command=command))

    def save(self, folder: str | Path, *, command: str | None = None, index: str | None = None) -> Path:
        """NAME.html, NAME.csv and NAME.json (settings and headlines) in a folder, made if missing; the page's path.

        The page reads plotly.min.js, which is written beside it once for all pages of the folder; `report` writes one
        that stands alone.

        Args:
            index: the file in the folder that lists this page among others, for a link back.

        Raises:
            SteerlensError: the folder cannot be made, or a file in it cannot be written.
        """
        place = made_folder(folder)
        write_whole(place / f"{self.name}.csv", self.frame.to_csv(index=False), "the table")
        facts = {
            "name": self.name,
            "question": self.title,
            "answer": self.answer(),
            "headlines": [vars(headline) for headline in self.headlines()],
            "settings": _plain(self.settings),
        }
        write_whole(place / f"{self.name}.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "the settings")
        return write_page(
            place / f"{self.name}.html", lambda: self.page(command=command, index=index), library="beside"
        )


def made_folder(path: str | Path) -> Path:
    """The folder, made if it is missing.

    Raises:
        SteerlensError: it cannot be made.
    """
    place = path_to(path, "folder")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SteerlensError(f"cannot make the folder {place}: {reason}; give another one") from error
    return place


def _plain(value: Any) -> Any:
    """Settings as JSON knows them; what it does not know, as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
