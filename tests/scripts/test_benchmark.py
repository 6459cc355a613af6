"""The benchmark does equal work on all sides, interleaves it, and writes what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks import contenders, growth, results, timing


def test_rounds_are_interleaved_and_a_contender_elsewhere_tells_its_own_time() -> None:
    order: list[str] = []

    def near() -> None:
        order.append("near")

    def far() -> float:
        order.append("far")
        return 8.0

    seconds = timing.interleaved({"near": near, "far": far}, rounds=2)
    assert order == ["near", "far", "far", "near", "near", "far"]  # one round to warm up
    assert seconds["far"] == [8.0, 8.0] and all(0 <= one < 1 for one in seconds["near"])
    line = timing.compared("work", {"a": [1.0, 2.0, 4.0], "b": [2.0, 6.0, 4.0]}, ours="a", against="b")
    assert (line["ratio"], line["low"], line["high"]) == (2.0, 1.0, 3.0)


@pytest.mark.slow
def test_all_contenders_run_and_the_page_holds_their_numbers(
    demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    from steerlens.models import DEMO_MODEL_PATH

    source = AutoModelForCausalLM.from_pretrained(DEMO_MODEL_PATH).eval()
    found = [
        *contenders.next_token_grid(demo, demo, factors=[1.0], rounds=1),
        *contenders.sampling_sweep(demo, demo, source, [], layers=1, n=2, new=3, rounds=1),
        contenders.search(demo, coeffs=2, prompts=2, n=1, new=3, rounds=1, goal="≤ 60 s"),
        contenders.premium(demo, rounds=1),
        contenders.import_time(1),
    ]
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    page = results.write(found, stem="demo-cpu", title="demo")
    assert {line["against"] for line in found} >= {"naive loop", "Hugging Face generate, unsteered", "unsteered", "–"}
    assert len(json.loads((tmp_path / "demo-cpu.json").read_text())["results"]) == len(found)
    assert page.count("\n| ") == len(found) + 1
    assert found[-1]["seconds"] > 0


def test_growth_draws_measured_and_bound_for_every_axis() -> None:
    rows = [
        {"axis": axis, "x": x, "seconds": 2.0 * x, "bound": 1.0 * x, "job": "", "bound by": "memory"}
        for axis in ("samples", "layers")
        for x in (1, 2, 4)
    ]
    figure = growth.drawn(rows)
    assert [list(trace.y) for trace in figure.data] == [[2.0, 4.0, 8.0], [1.0, 2.0, 4.0]] * 2
    assert growth.measured_peak("cpu", "float32", size=64) > 0
