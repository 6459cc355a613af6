"""Several experiments in a row: all pages there, one failure stops nothing, an interruption costs little."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import steerlens as sl
from steerlens.errors import SteerlensError
from steerlens.experiments import suite

TINY: dict[str, dict[str, Any]] = {
    "topic": {"n": 2, "max_new_tokens": 4, "layers": [4], "coeffs": (4.0,)},
    "overhead": {"batch": 2, "tokens": 8, "forwards": 2, "seeds": 2},
    "knowledge": {"limit": 8},
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        name: dataclasses.replace(one, quick=TINY.get(name, one.quick)) for name, one in suite.EXPERIMENTS.items()
    }
    monkeypatch.setattr(suite, "EXPERIMENTS", settings)


def test_every_experiment_has_its_page_and_all_have_one(demo: Any, tiny: None, tmp_path: Path) -> None:
    lines: list[str] = []
    done = sl.experiments.reproduce(
        demo,
        ["topic", "overhead"],
        folder=tmp_path / "out",
        quick=True,
        command=lambda names: f"repeat <{names}>",
        tell=lines.append,
    )
    assert list(done.results) == ["topic", "overhead"] and not done.failures
    assert done.page == tmp_path / "out" / "index.html"
    page = done.page.read_text()
    assert "?.<" not in page
    for name, result in done.results.items():
        assert f'href="{name}.html"' in page and result.title in page
        assert 'href="index.html"' in (tmp_path / "out" / f"{name}.html").read_text(), "and back"
        assert (tmp_path / "out" / f"{name}.html").stat().st_size < 1e6, "without plotly.js"
        facts = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert facts["settings"]["model fingerprint"] and facts["headlines"]
        assert len((tmp_path / "out" / f"{name}.csv").read_text().splitlines()) == len(result.frame) + 1
    assert "repeat &lt;[&#x27;topic&#x27;, &#x27;overhead&#x27;]&gt;" in page
    assert "repeat &lt;[&#x27;topic&#x27;]&gt;" in (tmp_path / "out" / "topic.html").read_text()
    assert [line for line in lines if "topic" in line] and len(lines) > 4


def test_a_failure_does_not_stop_the_others(demo: Any, tiny: None, tmp_path: Path) -> None:
    missing = {"knowledge": tmp_path / "conceptnet.parquet"}
    done = sl.experiments.reproduce(demo, ["knowledge", "overhead"], folder=tmp_path, quick=True, data=missing)
    assert list(done.results) == ["overhead"]
    assert "conceptnet.parquet" in done.failures["knowledge"]
    assert "conceptnet.parquet" in done.page.read_text()


def test_a_second_run_computes_nothing_again(demo: Any, tiny: None, tmp_path: Path) -> None:
    """Vectors are extracted anew, a pass each; nothing else runs the model."""
    first = sl.experiments.reproduce(demo, ["topic", "knowledge"], folder=tmp_path, quick=True)
    counted = []
    handle = demo.register_forward_hook(lambda *args: counted.append(1))
    try:
        again = sl.experiments.reproduce(demo, ["topic", "knowledge"], folder=tmp_path, quick=True)
    finally:
        handle.remove()
    for name in ("topic", "knowledge"):
        assert again.results[name].frame.equals(first.results[name].frame)
    assert len(counted) <= 4


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        ("sentimant", {}, "there is no experiment 'sentimant'; use 'all' or some of perplexity"),
        ([], {}, "no experiment was named"),
        ("topic", {"data": {"topic": "x"}}, "data was given for 'topic'; of the experiments to run, none"),
        ("topic", {"data": {"knowledge": "x"}}, "data was given for 'knowledge'"),
        ("topic", {"command": "steerlens reproduce"}, "command must be a function from names to a text"),
    ],
)
def test_bad_input(demo: Any, tmp_path: Path, names: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SteerlensError, match=words):
        sl.experiments.reproduce(demo, names, folder=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
