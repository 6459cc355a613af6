"""Figures as files for papers, through the extra "export"."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

import steerlens as sl

CHROMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.mark.slow
@pytest.mark.outside
@pytest.mark.skipif(importlib.util.find_spec("kaleido") is None, reason='needs pip install "steerlens[export]"')
@pytest.mark.skipif(not any(map(shutil.which, CHROMES)), reason="kaleido draws with a Chromium: there is none")
def test_a_figure_is_written_as_png_and_svg(demo: Any, tmp_path: Path) -> None:
    figure = sl.logit_shift(demo, "I hate you because", 5 * sl.actadd(demo, "Love", "Hate", layer=4)).plot()
    figure.write_image(tmp_path / "shift.png", width=900, height=500)
    figure.write_image(tmp_path / "shift.svg")
    assert (tmp_path / "shift.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "shift.svg").read_text()
    assert "<svg" in drawn and "change of log-probability (nats)" in drawn
