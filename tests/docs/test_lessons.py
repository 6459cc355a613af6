"""Notebooks as pages of the site: what their cells showed, in the site's own look."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from scripts.docs_site import lessons


def page_of(tmp_path: Path, *cells: dict[str, object]) -> str:
    path = tmp_path / "1_lesson.ipynb"
    path.write_text(json.dumps({"cells": list(cells)}), encoding="utf-8")
    return lessons.as_page(path, run=False)


def shown(**data: str) -> dict[str, object]:
    output = {"output_type": "display_data", "data": {kind.replace("_", "/"): text for kind, text in data.items()}}
    return {"cell_type": "code", "source": "it", "outputs": [output]}


def test_tables_of_pandas_look_like_the_others_and_have_short_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"token": [" wedding"], "share": [0.333333333], "before": [7.297932e-07], "rank": [2319]})
    page = page_of(tmp_path, {"cell_type": "markdown", "source": "# A"}, shown(text_html=frame._repr_html_()))
    assert 'class="sl-frame"' in page and "border=" not in page and "<style" not in page
    assert "<td>0.333</td>" in page and "<td>7.3e-07</td>" in page
    assert "<td>2319</td>" in page, "whole numbers stay whole"


def test_links_to_notebooks_and_files_lead_somewhere_on_the_site(tmp_path: Path) -> None:
    text = (
        "# A\n\n[next](2_next.ipynb) [card](../steerlens/demo/MODEL_CARD.md) [paper](https://arxiv.org/abs/2308.10248)"
    )
    page = page_of(tmp_path, {"cell_type": "markdown", "source": text})
    assert "(2_next.md)" in page and "(https://arxiv.org/abs/2308.10248)" in page
    assert f"({lessons.REPOSITORY}/blob/main/steerlens/demo/MODEL_CARD.md)" in page
