"""Documents come from files, data sets, lists and the package, a few at a time; what is wrong is said in one line."""

import gzip
import itertools
import json
import sys
import types

import pandas as pd
import pytest

from steerlens.errors import SteerlensError
from steerlens.experiments.perplexity.documents import SHIPPED, open_documents
from steerlens.measures.metrics import length, word_count


def test_the_shipped_set_fills_several_bins_and_is_small():
    texts = list(open_documents("shipped"))
    share = word_count("weddings")(texts) / length("words")(texts)
    bins = pd.Series((share / 0.005 + 1e-9).astype(int)[share > 0]).value_counts()
    assert all(isinstance(text, str) and 500 < len(text) < 2200 for text in texts)
    assert (share == 0).sum() >= 100 and (bins.reindex(range(5)) >= 40).all()
    assert len(set(texts)) == len(texts)
    assert SHIPPED.stat().st_size < 400_000
    first = share[:80]  # the first ones are a fair sample, so that a short run has all bins
    assert 15 <= (first == 0).sum() <= 35 and (first >= 0.01).sum() >= 20


def test_lists_and_iterables_are_read_once_and_in_order():
    assert list(open_documents(["one", "two", "three"], n=2)) == ["one", "two"]
    assert open_documents(["one", "two", "three"], n=2).size == 2
    endless = (f"text {i}" for i in itertools.count())
    assert list(open_documents(endless, n=3)) == ["text 0", "text 1", "text 2"]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_json_lines(tmp_path, ending):
    path = tmp_path / f"texts{ending}"
    rows = "\n".join([json.dumps({"body": "first"}), "", json.dumps({"body": None}), json.dumps({"body": "né"})])
    path.write_bytes(gzip.compress(rows.encode()) if ending.endswith("gz") else rows.encode())
    assert list(open_documents(path, column="body")) == ["first", None, "né"]
    with pytest.raises(SteerlensError, match=r"line 1 of .* no column 'text'; use column= with one of body"):
        list(open_documents(path))
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(SteerlensError, match=r"line 2 of .* is no JSON"):
        list(open_documents(tmp_path / "broken.jsonl"))
    (tmp_path / "numbers.jsonl").write_text('{"text": 7}\n')
    with pytest.raises(SteerlensError, match="document 0 of numbers.jsonl is int, not text"):
        list(open_documents(tmp_path / "numbers.jsonl"))


def test_parquet(tmp_path):
    path = tmp_path / "texts.parquet"
    pd.DataFrame({"text": [f"text {i}" for i in range(600)] + [None], "n": 1}).to_parquet(path)
    documents = open_documents(path)
    assert documents.size == 601
    assert list(documents) == [*(f"text {i}" for i in range(600)), None]
    with pytest.raises(SteerlensError, match=r"no column 'body'; use column= with one of text, n"):
        open_documents(path, column="body")
    (tmp_path / "no.parquet").write_text("this is text")
    with pytest.raises(SteerlensError, match="is no parquet file"):
        open_documents(tmp_path / "no.parquet")


def test_broken_characters_do_not_stop_a_run():
    assert list(open_documents(["a \ud800 b", float("nan")])) == ["a ? b", None]


def test_what_is_no_source_is_said_in_one_line(tmp_path):
    for source, message in [
        (tmp_path / "missing.parquet", "there is no file of documents at"),
        ("missing.jsonl", "there is no file of documents at"),
        ("what is this?", "is no source of documents"),
        ([], "is empty"),
        (7, "is no source of texts"),
    ]:
        with pytest.raises(SteerlensError, match=message) as error:
            open_documents(source)
        assert "\n" not in str(error.value)
    with pytest.raises(SteerlensError, match="at least 1"):
        open_documents(["a"], n=0)


def test_a_data_set_is_streamed(monkeypatch):
    asked = {}

    def load_dataset(name, split, streaming):
        asked.update(name=name, split=split, streaming=streaming)
        return ({"text": f"text {i}", "id": i} for i in itertools.count())

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert list(open_documents("Skylion007/openwebtext", n=3)) == ["text 0", "text 1", "text 2"]
    assert asked == {"name": "Skylion007/openwebtext", "split": "train", "streaming": True}
    with pytest.raises(SteerlensError, match="no column 'body'; use column= with one of text, id"):
        next(iter(open_documents("Skylion007/openwebtext", column="body")))


def test_a_data_set_out_of_reach_says_what_to_do(monkeypatch):
    def load_dataset(*args, **options):
        raise ConnectionError("Couldn't reach\nthe hub")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(SteerlensError, match=r"cannot be read \(Couldn't reach the hub\); connect, or download it"):
        next(iter(open_documents("Skylion007/openwebtext")))


def test_a_data_frame_gives_its_column_of_texts() -> None:
    frame = pd.DataFrame({"label": ["x", "y"], "text": ["one", "two"], "other": ["three", "four"]})
    assert list(open_documents(frame)) == ["one", "two"]
    assert list(open_documents(frame, column="other", n=1)) == ["three"]
    with pytest.raises(SteerlensError, match="the data frame has no column 'body'; use column= with one of label"):
        open_documents(frame, column="body")


@pytest.mark.parametrize("source", [{"text": ["one"]}, {"one", "two"}, b"one", 7])
def test_what_only_looks_like_texts_is_refused(source) -> None:
    with pytest.raises(SteerlensError, match="is no source of texts") as caught:
        open_documents(source)
    assert "\n" not in str(caught.value)
