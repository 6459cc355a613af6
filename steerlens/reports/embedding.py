"""Data inside a page: frames as columns, JSON that no text can end early, and what is large compressed."""

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import Any

import pandas as pd

_EXACT = 2**53  # beyond, a browser's numbers skip integers


def columns(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The columns of a frame as plain data, from which the page's script writes the CSV file that pandas would.

    Each has name, type ("text", "int", "float", "bool") and values; or, where few values are repeated, those values
    once (`of`) and the place of each row's value among them (`at`). Missing values are null.
    """
    return [_column(str(name), frame.iloc[:, place]) for place, name in enumerate(frame.columns)]


def _column(name: str, series: pd.Series) -> dict[str, Any]:
    if pd.api.types.is_bool_dtype(series):
        kind = "bool"
    elif pd.api.types.is_integer_dtype(series):
        kind = "int"
    else:
        kind = "float" if pd.api.types.is_float_dtype(series) else "text"
    values = [None if missing else _plain(value, kind) for value, missing in zip(series, series.isna(), strict=True)]
    distinct = {value: place for place, value in enumerate(dict.fromkeys(values))}
    column: dict[str, Any] = {"name": name, "type": kind}
    if 3 * len(distinct) > len(values):
        return column | {"values": values}
    return column | {"of": list(distinct), "at": [distinct[value] for value in values]}


def _plain(value: Any, kind: str) -> str | bool | int | float:
    if kind == "bool":
        return bool(value)
    if kind == "int":
        return int(value) if abs(int(value)) < _EXACT else str(int(value))
    if kind == "float":
        return float(value) if math.isfinite(value) else str(float(value))  # JSON has no infinity
    return str(value)


def json_text(data: Any) -> str:
    """`data` as JSON for a script element, which would end at "</script" wherever it stands: no "<" remains."""
    return guarded(json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def guarded(text: str) -> str:
    """JSON without the characters that HTML reads."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(text: str) -> str:
    """`text` compressed, in letters and digits: what the function `unpacked` of the page's script gives back."""
    payload = text.encode("utf-8", errors="replace")
    return base64.b64encode(gzip.compress(payload, 9, mtime=0)).decode("ascii")
