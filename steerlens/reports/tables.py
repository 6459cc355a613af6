"""A frame as a table that can be read without a script, and sorted and saved with one."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from steerlens.figures import theme
from steerlens.reports.embedding import columns, json_text

_LONG = 40  # letters: a column of longer texts keeps some width, or its rows grow tall


def table_html(index: int, caption: str, frame: pd.DataFrame) -> str:
    """The table, and its values in full as data for the page's script."""
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame.columns]
    head = "".join(
        f"<th scope=col{' class=number' if right else ''}>{html.escape(str(column))}</th>"
        for column, right in zip(frame.columns, numeric, strict=True)
    )
    conditions = frame.index if frame.index.name == "condition" else None
    rows = []
    for place, values in enumerate(frame.itertuples(index=False)):
        cells = "".join(_cell(value, right) for value, right in zip(values, numeric, strict=True))
        of = "" if conditions is None else f' data-condition="{int(conditions[place])}"'
        rows.append(f"<tr{of}>{cells}</tr>")
    name = html.escape(caption or "Table", quote=True)
    return (
        f'<div class=sideways><div class=table tabindex=0 role=region aria-label="{name}">'
        f"<table id=table-{index}><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
        f'<script type="application/json" data-table="table-{index}">{json_text(columns(frame))}</script>'
    )


def _cell(value: Any, right: bool) -> str:
    shown = plain(value)
    kind = " class=number" if right else " class=long" if len(shown) > _LONG else ""
    return f"<td{kind}>{html.escape(shown)}</td>"


def plain(value: Any) -> str:
    """A value as a person would write it: short floats, commas in lists, a dash for nothing."""
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return theme.number(float(value), 4)
    if isinstance(value, int | np.integer):
        return str(value).replace("-", "−")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(entry) for entry in value)
    return str(value)
