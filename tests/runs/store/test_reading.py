"""`read_store` gives the table and the settings of a sweep that is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

import steerlens as sl
from steerlens.measures.metrics import words
from steerlens.runs import parts
from tests.conftest import KINDS, loaded
from tests.runs.store.runs import PAIR, run, same


def test_read_store_gives_the_table_and_the_settings(model: Any, expected: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    metric = words("weddings")
    result = run(model, path, metrics=[metric])
    frame = sl.read_store(path, metrics=[metric])
    settings = ["model", "weights", "dtype", "what", "max_new_tokens"]
    settings += ["temperature", "top_k", "top_p", "frequency_penalty"]
    assert list(frame.columns) == ["sweep", *result.frame.columns, *settings]
    pd.testing.assert_frame_equal(frame[list(result.frame.columns)], result.frame, check_exact=True)
    first = frame.iloc[0]
    assert (first["what"], first["max_new_tokens"], first["top_p"]) == (str(PAIR), 3, 0.3)
    assert frame.attrs["sweeps"][0]["settings"]["coeffs"] == [2.0]


def test_read_store_tells_dtypes_apart(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    for one in (model, loaded("gpt2", KINDS[0], dtype="bfloat16")):
        run(one, path, layers=[1])
    frame = sl.read_store(path)
    assert frame.groupby("sweep")["dtype"].unique().map(list).tolist() == [["float32"], ["bfloat16"]]
    assert set(frame[frame["sweep"] == 1]["weights"]).isdisjoint(frame[frame["sweep"] == 2]["weights"])


def test_odd_texts_come_back(model: Any, tmp_path: Path, monkeypatch) -> None:
    odd = ["nul \0 inside", "half a character �", "emoji 👩‍👧", "line\nbreak\r\n", "", "quote ' \" ; --"]
    generate = parts.generate

    def odd_ones(*args: Any, **settings: Any) -> pd.DataFrame:
        frame = generate(*args, **settings)
        frame["completion"] = [odd[i % len(odd)] for i in range(len(frame))]
        return frame

    monkeypatch.setattr(parts, "generate", odd_ones)
    path = tmp_path / "runs.sqlite"
    frame = run(model, path, batch_size=None, metrics=[words("x")]).frame
    assert frame["completion"].tolist() == [odd[i % len(odd)] for i in range(len(frame))]
    assert sl.read_store(path)["completion"].tolist() == frame["completion"].tolist()


def test_equal_prompts_stay_two(model: Any, tmp_path: Path) -> None:
    twice = {"prompts": ["The weather"] * 2, "n": 3, "max_new_tokens": 4, "control": None}
    plain = sl.sweep(model, PAIR, **twice).frame
    same(sl.sweep(model, PAIR, **twice, store=tmp_path / "a").frame, plain)
