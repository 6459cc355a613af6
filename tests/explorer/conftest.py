"""`explorer`: the widget on the embedded model."""

from __future__ import annotations

from typing import Any

import pytest

import steerlens as sl


@pytest.fixture
def explorer(demo: Any) -> Any:
    return sl.explore(demo, ("Love", "Hate"), "I hate you because", layer=2, coeff=5, words="love, hate")
