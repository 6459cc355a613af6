"""What a figure asks of its frame: the columns, their types, and one condition, prompt or text at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from steerlens.errors import SteerlensError
from steerlens.figures import theme
from steerlens.measures.summaries import CONTROLS


def require(
    frame: pd.DataFrame,
    figure: str,
    *,
    text: Sequence[str] = (),
    numbers: Sequence[str] = (),
    gaps: Sequence[str] = (),
) -> pd.DataFrame:
    """A copy of `frame` with its `text` columns as str and its number columns as float64.

    `numbers` may not hold NaN or infinity, `gaps` are numbers that may (missing values become NaN). Raises
    SteerlensError for what is no frame, 0 rows, missing columns, missing text, or numbers that are none.
    """
    if not isinstance(frame, pd.DataFrame):
        raise SteerlensError(f"{figure} takes a pandas frame but got {type(frame).__name__}; pass the result's .frame")
    needed = [*text, *numbers, *gaps]
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        has = ", ".join(map(str, frame.columns)) or "none"
        raise SteerlensError(
            f"{figure} needs the columns {', '.join(needed)}; missing: {', '.join(missing)} (has: {has})"
        )
    if len(frame) == 0:
        raise SteerlensError(f"{figure} got a frame with 0 rows; there is nothing to draw")
    checked = frame.reset_index(drop=True).copy()
    for column in text:
        if checked[column].isna().any():
            bad = int(checked[column].isna().sum())
            raise SteerlensError(f"{figure}: {bad} of {len(checked)} rows have no {column!r}; fill or drop them")
        checked[column] = checked[column].map(str)
    for column in [*numbers, *gaps]:
        try:
            checked[column] = checked[column].astype("float64")
        except (TypeError, ValueError):
            raise SteerlensError(f"{figure}: column {column!r} holds more than numbers; convert it first") from None
        if column in numbers and not np.isfinite(checked[column]).all():
            bad = int((~np.isfinite(checked[column])).sum())
            raise SteerlensError(
                f"{figure}: {bad} of {len(checked)} rows have NaN or infinity in {column!r}; drop those rows first"
            )
    return checked


def choose(
    frame: pd.DataFrame, figure: str, column: str, value: Any = None, *, argument: str | None = None
) -> pd.DataFrame:
    """The rows with `frame[column] == value`; with value None the frame itself if the column has one value only.

    `argument` is what the figure calls the choice, where that is not the column's name.
    """
    if column not in frame.columns:
        if value is None:
            return frame
        raise SteerlensError(f"{figure}: {column}={value!r} was asked for but the frame has no column {column!r}")
    present = list(frame[column].drop_duplicates())
    if value is None:
        if len(present) <= 1:
            return frame
        raise SteerlensError(
            f"{figure} shows one {column} at a time but the frame has {_some(present)}; pass {argument or column}="
        )
    chosen = frame[frame[column] == value]
    if chosen.empty:
        raise SteerlensError(f"{figure}: no row has {column} {value!r}; the frame has {_some(present)}")
    return chosen.reset_index(drop=True)


def one_each(frame: pd.DataFrame, figure: str, columns: Sequence[str]) -> None:
    """Raise an error that names the first repeated combination of `columns`, if there is one."""
    repeated = frame.duplicated(list(columns))
    if repeated.any():
        row = frame.loc[repeated.idxmax()]
        where = ", ".join(f"{column} {row[column]}" for column in columns)
        raise SteerlensError(f"{figure}: more than one row for {where}; average or select rows first")


def name_conditions(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with labels that tell its conditions apart.

    A label names the vector, and a sweep applies one vector at many layers. Where several values of the column
    condition share a label, what differs among them is added to it: layer, coefficient, placement, role, or at last
    the number of the condition. Without the column condition the frame comes back as it is.
    """
    if "condition" not in frame.columns:
        return frame
    keys = frame["condition"].map(str) + "\0" + frame["label"]  # both: a frame may be made of several jobs
    first = frame.set_index(keys).loc[~keys.duplicated().to_numpy()]
    names = first["label"].copy()
    for column, word in (("layer", "layer "), ("coeff", "coefficient "), ("placement", ""), ("role", ""), (None, "#")):
        shared = names.duplicated(keep=False)
        if not shared.any():
            break
        if column is None:
            added = first["condition"]
        elif column in first.columns:
            added = first[column].map(lambda value: "none" if pd.isna(value) else theme.plain_value(value))
        else:
            continue
        differs = added.groupby(names).transform("nunique") > 1
        names = names.where(~(shared & differs), names + ", " + word + added.map(str))
    return frame.assign(label=keys.map(names))


def steered(frame: pd.DataFrame) -> pd.Series:
    """True for rows of all conditions but the baseline, controls included.

    The baseline has the role "unsteered" where the frame has the column role; else coefficient 0 and no layer, or the
    label "unsteered".
    """
    if "role" in frame.columns:
        return frame["role"] != "unsteered"
    plain = pd.Series(False, index=frame.index)
    if "coeff" in frame.columns and "layer" in frame.columns:
        plain |= (frame["coeff"].fillna(0.0) == 0) & frame["layer"].isna()
    if "label" in frame.columns:
        plain &= ~frame["label"].map(str).str.startswith("prompting: ")
        plain |= frame["label"] == "unsteered"
    return ~plain


def condition_numbers(frame: pd.DataFrame) -> list[int] | None:
    """The numbers of the rows' conditions; None where the frame has no column condition that holds numbers.

    A trace has them as `customdata`, so that a page knows which condition a point belongs to.
    """
    if "condition" not in frame.columns or not pd.api.types.is_numeric_dtype(frame["condition"]):
        return None
    return [int(number) for number in frame["condition"]]


def control(frame: pd.DataFrame) -> pd.Series:
    """True for rows of controls: the roles "random", "shuffled", "negated", "prompting" where the frame has roles."""
    return roles(frame).isin(list(CONTROLS))


def roles(frame: pd.DataFrame) -> pd.Series:
    """The role of each row; "steered" or "unsteered" (see `steered`) where the frame has no column role."""
    if "role" in frame.columns:
        return frame["role"]
    return steered(frame).map({True: "steered", False: "unsteered"})


def _some(values: list[Any], limit: int = 4) -> str:
    shown = ", ".join(repr(value) for value in values[:limit])
    return f"{shown} and {len(values) - limit} more" if len(values) > limit else shown


def identity(frame: pd.DataFrame) -> pd.Series:
    """What tells tokens apart: the id where there is one (several ids can be written alike), else the text."""
    return frame["token_id"].map(str) if "token_id" in frame.columns else frame["token"]
