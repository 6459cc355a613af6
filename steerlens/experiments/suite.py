"""`reproduce`: several experiments in a row, each on its own page, all on one page of results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from steerlens.errors import SteerlensError
from steerlens.experiments.gallery.experiment import QUICK as QUICK_GALLERY
from steerlens.experiments.gallery.experiment import gallery
from steerlens.experiments.knowledge.experiment import QUICK as QUICK_KNOWLEDGE
from steerlens.experiments.knowledge.experiment import knowledge
from steerlens.experiments.overhead.experiment import QUICK as QUICK_OVERHEAD
from steerlens.experiments.overhead.experiment import overhead
from steerlens.experiments.perplexity.experiment import QUICK as QUICK_PERPLEXITY
from steerlens.experiments.perplexity.experiment import perplexity
from steerlens.experiments.sentiment.experiment import QUICK as QUICK_SENTIMENT
from steerlens.experiments.sentiment.experiment import sentiment
from steerlens.experiments.shared.result import Result
from steerlens.experiments.topic.experiment import QUICK as QUICK_TOPIC
from steerlens.experiments.topic.experiment import topic
from steerlens.experiments.toxicity.experiment import QUICK as QUICK_TOXICITY
from steerlens.experiments.toxicity.experiment import toxicity
from steerlens.models import HookedModel, require_model
from steerlens.models.run_settings import run_settings
from steerlens.reports.page import Headline, Page
from steerlens.reports.writing import write_page


@dataclass(frozen=True)
class Experiment:
    """How `reproduce` runs an experiment.

    Attributes:
        run: the function; its defaults are the paper's settings.
        quick: arguments with which it takes about a minute on the embedded model.
        data: the argument that names its data, None where it needs none.
        seeded: whether it takes a seed.
    """

    run: Callable[..., Result]
    quick: Mapping[str, Any]
    data: str | None = None
    seeded: bool = True


EXPERIMENTS: Mapping[str, Experiment] = {
    "perplexity": Experiment(perplexity, QUICK_PERPLEXITY, data="documents"),
    "topic": Experiment(topic, QUICK_TOPIC),
    "knowledge": Experiment(knowledge, QUICK_KNOWLEDGE, data="data"),
    "overhead": Experiment(overhead, QUICK_OVERHEAD, seeded=False),
    "sentiment": Experiment(sentiment, QUICK_SENTIMENT, data="prompts"),
    "toxicity": Experiment(toxicity, QUICK_TOXICITY, data="prompts"),
    "gallery": Experiment(gallery, QUICK_GALLERY),
}
"""In the order of the paper, the original post's gallery last."""


@dataclass(frozen=True, eq=False)
class Suite:
    """What `reproduce` has done.

    Attributes:
        results: by name, of the experiments that went through.
        failures: by name, the line of error of those that did not.
        seconds: by name, what each took (little for one that was finished before).
        page: the page of results; each experiment's own page, table and settings lie beside it.
    """

    results: Mapping[str, Result]
    failures: Mapping[str, str]
    seconds: Mapping[str, float]
    page: Path


def reproduce(
    model: HookedModel,
    names: str | Sequence[str] = "all",
    *,
    folder: str | Path = "results",
    quick: bool = False,
    data: Mapping[str, str | Path] | None = None,
    seed: int = 0,
    progress: bool | None = None,
    command: str | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> Suite:
    """The ActAdd paper's experiments on a model: NAME.html, .csv, .json each, and index.html with all of them.

    Every experiment keeps its finished parts in FOLDER/NAME.sqlite: the same call after an interruption goes on there.
    One that fails does not stop the others.

    Args:
        names: of `EXPERIMENTS`, or "all".
        quick: settings for the embedded model and minutes instead of the paper's.
        data: by name, where the data of an experiment is, if not what it takes by default.
        command: what to type to get the same again; stands on the pages.
        tell: is given a line of progress now and then.

    Raises:
        SteerlensError: an unknown name, data for an experiment that takes none or is not asked for, a folder that
            cannot be made.
    """
    require_model(model)
    chosen = _chosen(names)
    given = dict(data or {})
    for name in given:
        if name not in chosen or EXPERIMENTS[name].data is None:
            takers = ", ".join(one for one in chosen if EXPERIMENTS[one].data)
            raise SteerlensError(
                f"data for {name!r} was given; of the experiments that are to run, {takers or 'none'} take any"
            )
    place = Path(folder).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SteerlensError(f"cannot make the folder {place}: {error.strerror}; give another one") from error
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for number, name in enumerate(chosen, start=1):
        experiment = EXPERIMENTS[name]
        arguments: dict[str, Any] = {**experiment.quick} if quick else {}
        if name in given:
            arguments[str(experiment.data)] = given[name]
        if experiment.seeded:
            arguments["seed"] = seed
        tell(f"{number}/{len(chosen)} {name} …")
        started = time.perf_counter()
        try:
            result = experiment.run(model, **arguments, store=place / f"{name}.sqlite", progress=progress)
            result.save(place, command=command)
            results[name] = result
            for one in result.headlines():
                tell(f"    {one.label}: {one.value}{f' ({one.note})' if one.note else ''}")
        except (SteerlensError, OSError) as error:
            failures[name] = " ".join(str(error).split())
            tell(f"    failed: {failures[name]}")
        seconds[name] = time.perf_counter() - started
    page = _write_page(place / "index.html", model, results, failures, seconds, quick=quick, command=command)
    return Suite(results, failures, seconds, page)


def _chosen(names: str | Sequence[str]) -> list[str]:
    wanted = list(dict.fromkeys([names] if isinstance(names, str) else names))
    if not wanted:
        raise SteerlensError(f"no experiment was named; use 'all' or some of {', '.join(EXPERIMENTS)}")
    if "all" in wanted:
        return list(EXPERIMENTS)
    for name in wanted:
        if name not in EXPERIMENTS:
            raise SteerlensError(f"there is no experiment {name!r}; use 'all' or some of {', '.join(EXPERIMENTS)}")
    return wanted


def _write_page(
    path: Path,
    model: HookedModel,
    results: Mapping[str, Result],
    failures: Mapping[str, str],
    seconds: Mapping[str, float],
    *,
    quick: bool,
    command: str | None,
) -> Path:
    settings = run_settings(model)
    tables = {
        "Results; intervals are 95 %": pd.DataFrame(
            [
                {"experiment": name, "what": one.label, "result": one.value, "": one.note}
                for name, result in results.items()
                for one in result.headlines()
            ]
        )
    }
    if failures:
        failed = [{"experiment": name, "why": why} for name, why in failures.items()]
        tables = {"Not done": pd.DataFrame(failed), **tables}
    took = pd.DataFrame([{"experiment": name, "seconds": value} for name, value in seconds.items()])
    tables["Time; parts that were finished by an earlier run take none"] = took
    firsts = {name: result.headlines()[0] for name, result in results.items()}
    done = f"{len(results)} of {len(results) + len(failures)}"
    page = Page(
        title="Activation addition, the paper’s experiments",
        subtitle=f"on {settings['model']}, {'quick' if quick else 'the paper’s'} settings",
        headlines=[
            Headline("experiments", done, f"{sum(seconds.values()) / 60:.1f} minutes"),
            *(Headline(f"{name}: {one.label}", one.value, one.note) for name, one in firsts.items()),
        ],
        links={result.title: f"{name}.html" for name, result in results.items()},
        figures={f"{result.title}.": result.plot() for result in results.values()},
        tables=tables,
        settings={**settings, "quick": quick},
        command=command,
    )
    return write_page(path, page)
