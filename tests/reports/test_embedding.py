"""Frames go into a page whole, and come out of it as they were."""

import base64
import gzip
import json

import numpy as np
import pandas as pd

from steerlens.reports.embedding import columns, json_text, packed


def frame(rows: int = 4) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "layer": pd.array([None, 3, 4, 5][:rows], dtype="Int64"),
            "coeff": [0.0, 1.5, np.nan, np.inf][:rows],
            "seed": [2**62, 1, -(2**60), 0][:rows],
            "finished": [True, False, True, True][:rows],
            "completion": ["a", "</script>", "é😀", "\n"][:rows],
        }
    )


def values(column: dict) -> list:
    return column["values"] if "values" in column else [column["of"][place] for place in column["at"]]


def test_columns_keep_types_missing_values_and_large_numbers() -> None:
    found = {one["name"]: (one["type"], values(one)) for one in json.loads(json_text(columns(frame())))}
    assert found == {
        "layer": ("int", [None, 3, 4, 5]),
        "coeff": ("float", [0.0, 1.5, None, "inf"]),
        "seed": ("int", [str(2**62), 1, str(-(2**60)), 0]),
        "finished": ("bool", [True, False, True, True]),
        "completion": ("text", ["a", "</script>", "é😀", "\n"]),
    }


def test_repeated_values_are_kept_once() -> None:
    many = pd.concat([frame()] * 50, ignore_index=True)
    for column, one in zip(columns(many), columns(frame()), strict=True):
        assert len(column["of"]) == len(set(map(repr, values(one))))
        assert values(column) == values(one) * 50


def test_nothing_in_json_ends_a_script_element() -> None:
    assert "<" not in json_text({"</script>": ["<!--", "&lt;"]})


def test_packed_text_comes_back_and_is_the_same_each_time() -> None:
    text = "é😀 </script> \ud800" + "wedding " * 1000
    assert gzip.decompress(base64.b64decode(packed(text))).decode() == text.replace("\ud800", "?")
    assert packed(text) == packed(text)
    assert len(packed(text)) < 300
