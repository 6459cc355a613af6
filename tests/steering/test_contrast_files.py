"""Contrast sets in files: the formats of the literature, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import steerlens as sl
from tests.conftest import DATA

ROWS = [{"positive": "I love it", "negative": "I hate, it"}, {"positive": 'A "good"\nday', "negative": "a bad"}]


def written(folder: Path, name: str, rows: list[Any]) -> Path:
    import pandas as pd

    path = folder / name
    if name.endswith(".csv"):
        pd.DataFrame(rows).to_csv(path, index=False)
    elif name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
    elif name.endswith(".jsonl"):
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("name", ["set.csv", "set.json", "set.jsonl", "set.parquet"])
def test_every_format_holds_the_same_set(tmp_path: Path, name: str) -> None:
    read = sl.ContrastSet.read(written(tmp_path, name, ROWS))
    assert read == sl.ContrastSet.of(ROWS, name="set")
    assert read.positive == ("I love it", 'A "good"\nday')


@pytest.mark.parametrize(
    "columns",
    [
        ("positive_prompt", "negative_prompt"),
        ("matching", "not_matching"),
        ("answer_matching_behavior", "answer_not_matching_behavior"),
        ("chosen", "rejected"),
    ],
)
def test_column_names_of_the_literature(tmp_path: Path, columns: tuple[str, str]) -> None:
    path = written(tmp_path, "set.json", [{"question": "Who?", columns[0]: "me", columns[1]: " you"}])
    read = sl.ContrastSet.read(path)
    assert (read.positive, read.negative, read.context) == (("Who? me",), ("Who? you",), ("Who?",))


def test_columns_of_other_names(tmp_path: Path) -> None:
    path = written(tmp_path, "set.csv", [{"warm": "sun", "cold": "ice"}])
    assert sl.ContrastSet.read(path, columns=("cold", "warm")).positive == ("ice",)
    with pytest.raises(sl.SteerlensError, match="has the columns warm, cold; needed are hot and cold"):
        sl.ContrastSet.read(path, columns=("hot", "cold"))


def test_chats_in_files(tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": text}] for text in ("good", "bad")]
    read = sl.ContrastSet.read(
        written(tmp_path, "set.jsonl", [{"chosen": chats[0], "rejected": chats[1], "prompt": "x"}])
    )
    assert (read.positive, read.negative, read.context) == ((chats[0],), (chats[1],), None)


def test_labels_side_by_side_are_pairs_and_others_are_not(tmp_path: Path) -> None:
    def read(labels: list[int]) -> sl.ContrastSet:
        rows = [{"statement": f"s{i}", "label": label} for i, label in enumerate(labels)]
        return sl.ContrastSet.read(written(tmp_path, "set.csv", rows))

    assert read([1, 0, 0, 1]) == sl.ContrastSet(["s0", "s3"], ["s1", "s2"], name="set")
    assert not read([1, 1, 0, 0]).paired


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "no file at"),
        ("set.txt", "a,b", "no contrast set by its name"),
        ("set.csv", "", "holds no rows"),
        ("set.csv", "positive,negative\n", "holds no rows"),
        ("set.csv", "positive,negative\na,b\nc\n", "row 2: negative is missing"),
        ("set.csv", "positive,negative\na,b,c\n", "row 1 has more fields than the header"),
        ("set.csv", "a,b\n1,2\n", "has the columns a, b; needed are"),
        ("set.csv", "text,label\nx,1\ny,1\n", "no row with label 0"),
        ("set.csv", "text,label\nx,1\ny,unsup\n", "row 2: label 'unsup' is neither"),
        ("set.csv", b"positive,negative\n\xff\xfe,b\n", "it is not UTF-8 text"),
        ("set.csv", 'positive,negative\n"a,b\n', "is no CSV"),
        ("set.json", "[", "is no JSON"),
        ("set.json", "{}", "must hold a list, got dict"),
        ("set.json", "[1]", "row 1 is no object with columns"),
        ("set.json", '["a"]', "is a list of texts without a contrast; give templates"),
        ("set.json", '[{"positive": "a", "negative": 5}]', "row 1: negative is no text: 5"),
        ("set.json", '[{"positive": "a", "negative": null}]', "row 1: negative is missing"),
        ("set.jsonl", '{"positive": "a"', "is no JSONL"),
        ("set.parquet", b"no parquet", "is no parquet file"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: str | bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        sl.ContrastSet.read(path)
    assert "\n" not in str(caught.value)


def test_templates_need_texts(tmp_path: Path) -> None:
    path = written(tmp_path, "set.json", ["a day", "a night"])
    read = sl.ContrastSet.read(path, positive="Good {}", negative="Bad {}")
    assert read.positive == ("Good a day", "Good a night")
    with pytest.raises(sl.SteerlensError, match="row 1 is no text"):
        sl.ContrastSet.read(written(tmp_path, "pairs.json", ROWS), positive="Good {}", negative="Bad {}")
    with pytest.raises(sl.SteerlensError, match="the negative template must hold"):
        sl.ContrastSet.read(path, positive="Good {}")


PUBLISHED = {
    "cities.csv": (748, True, None),
    "corrigible-neutral-HHH.json": (340, True, None),
    "emotions_happiness_sadness.json": (202, True, None),
    "myopic-reward.json": (1000, True, None),
    "refusal.json": (458, True, None),
    "sp_en_trans.csv": (177, False, None),
    "survival-instinct.json": (953, True, None),
    "true_facts.json": (306, True, None),
    "wealth-seeking_train.csv": (623, True, 623),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets(name: str) -> None:
    path = DATA / "contrast" / name
    if not path.is_file():
        pytest.skip(f"no {path}; set STEERLENS_DATA to the folder that holds contrast/")
    texts = name in ("emotions_happiness_sadness.json", "true_facts.json")
    templates = {"positive": "Pretend you are glad. {}", "negative": "Pretend you are sad. {}"} if texts else {}
    read = sl.ContrastSet.read(path, **templates)  # type: ignore[arg-type]
    assert (len(read), read.paired, read.context and len(read.context)) == PUBLISHED[name]
    if path.suffix == ".json" and not texts:  # answers to the same question: nothing differs but the letter
        assert all(p[:-2] == m[:-2] and p != m for p, m in zip(read.positive, read.negative, strict=True))


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000 + "]" * 100_000, '[{"positive": ' + "9" * 5000 + ', "negative": "b"}]', '[{"positive": 1e400}]'],
)
@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_json_that_python_reads_with_other_errors(tmp_path: Path, content: str, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_text(content)
    with pytest.raises(sl.SteerlensError, match=f"a.{kind}"):
        sl.ContrastSet.read(path)


def test_halves_of_surrogate_pairs_are_refused_where_they_come_in(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"positive": "\\ud800 a", "negative": "b"}]')
    with pytest.raises(sl.SteerlensError, match="surrogate"):
        sl.ContrastSet.read(tmp_path / "a.json")
