"""The model of the small sweep, and its table without a store."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tests.conftest import KINDS, loaded
from tests.runs.store.runs import run


@pytest.fixture(scope="module")
def model() -> Any:
    return loaded("gpt2", KINDS[0])


@pytest.fixture(scope="module")
def expected(model: Any) -> pd.DataFrame:
    """The table of the same sweep without a store and without parts."""
    return run(model, None, batch_size=None).frame
