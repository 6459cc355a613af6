"""`reproduce`: several experiments in a row, a page for each and one page of results for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from steerlens.arguments import shown
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
from steerlens.experiments.shared.result import Result, made_folder
from steerlens.experiments.topic.experiment import QUICK as QUICK_TOPIC
from steerlens.experiments.topic.experiment import topic
from steerlens.experiments.toxicity.experiment import QUICK as QUICK_TOXICITY
from steerlens.experiments.toxicity.experiment import toxicity
from steerlens.models import HookedModel, load_code, require_model, stamp
from steerlens.models.run_settings import run_settings
from steerlens.reports.page import Page
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
    """The outcome of `reproduce`.

    Attributes:
        results: by name, of the experiments that finished.
        failures: by name, the error message of those that did not.
        seconds: by name, how long each took (little where an earlier run had finished it).
        page: the page of results; the page, table and settings of each experiment lie beside it.
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
    command: Callable[[Sequence[str]], str] | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> Suite:
    """The ActAdd paper's experiments on a model: NAME.html, .csv, .json each, and index.html with all of them.

    Every experiment keeps its finished parts in FOLDER/NAME.sqlite, so the same call resumes after an interruption. One
    that fails does not stop the others.

    Args:
        names: of `EXPERIMENTS`, or "all".
        quick: settings that take minutes on the embedded model, instead of the paper's.
        data: by name of an experiment, the path of its data, in place of the default.
        command: gives what to type to repeat some experiments, from their names; each page shows that of its own. By
            default the lines of Python.
        tell: called with a line of text as the work progresses.

    Raises:
        SteerlensError: an unknown name, data for an experiment that takes none or is not asked for, a folder that
            cannot be made, a `command` that cannot be called.
    """
    require_model(model)
    if command is not None and not callable(command):
        raise SteerlensError(f"command must be a function from names to a text, got {shown(command)}")
    chosen = _chosen(names)
    given = dict(data or {})
    for name in given:
        if name not in chosen or EXPERIMENTS[name].data is None:
            takers = ", ".join(one for one in chosen if EXPERIMENTS[one].data)
            raise SteerlensError(f"data was given for {name!r}; of the experiments to run, {takers or 'none'} take any")
    place = made_folder(folder)
    again = command or partial(_lines, model, folder=place, quick=quick, data=given, seed=seed)
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
            result.save(place, command=again([name]), index="index.html")
            results[name] = result
            tell(f"    {result.title}")
            tell(f"    {result.answer()[0]}")
        except (SteerlensError, OSError) as error:
            failures[name] = " ".join(str(error).split())
            tell(f"    failed: {failures[name]}")
        seconds[name] = time.perf_counter() - started
    page = _write_page(place / "index.html", model, results, failures, seconds, quick=quick, command=again(chosen))
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


def _lines(
    model: HookedModel,
    names: Sequence[str],
    *,
    folder: Path,
    quick: bool,
    data: Mapping[str, str | Path],
    seed: int,
) -> str:
    """The lines of Python that repeat some experiments."""
    own = {name: str(path) for name, path in data.items() if name in names}
    options = {"folder": str(folder), "quick": quick, "data": own, "seed": seed}
    defaults = {"folder": "results", "quick": False, "data": {}, "seed": 0}
    told = "".join(f", {name}={value!r}" for name, value in options.items() if value != defaults[name])
    loading = load_code(model, folded=stamp(model).folded)
    return f"import steerlens as sl\n\n{loading}\nsl.experiments.reproduce(model, {list(names)!r}{told})"


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
    beside = [result.beside_paper().assign(experiment=name) for name, result in results.items()]
    reported = pd.concat([one for one in beside if "what" in one] or [pd.DataFrame()])
    tables = {
        "Results (intervals are 95 %)": pd.DataFrame(
            [
                {"experiment": name, "what": one.label, "result": one.value, "": one.note}
                for name, result in results.items()
                for one in result.headlines()
            ]
        )
    }
    if failures:
        failed = [{"experiment": name, "why": why} for name, why in failures.items()]
        tables = {"Failed": pd.DataFrame(failed), **tables}
    took = pd.DataFrame([{"experiment": name, "seconds": value} for name, value in seconds.items()])
    tables["Time (parts finished by an earlier run take none)"] = took
    if len(reported):
        reported.insert(0, "experiment", reported.pop("experiment"))
        tables = {"Beside what the paper reports": reported, **tables}
    done = f"{len(results)} of {len(results) + len(failures)}"
    page = Page(
        title="Activation addition: what the paper’s experiments say of this model",
        subtitle=f"on {settings['model']}, with {'quick' if quick else 'the paper’s'} settings",
        answer=[
            f"Below are the answers of {done} experiments, {sum(seconds.values()) / 60:.1f} minutes of work. Each has "
            "a page with the numbers behind its answer, what the paper reports, and how the two differ.",
            *(f"{name} was not done: {why}." for name, why in failures.items()),
        ],
        links={result.title: f"{name}.html" for name, result in results.items()},
        said_there={result.title: result.answer()[0] for result in results.values()},
        figures={result.title: result.plot() for result in results.values()},
        tables=tables,
        settings={**settings, "quick": quick},
        command=command,
    )
    return write_page(path, page, library="beside")
