"""Finished parts are found again, bit by bit; nothing else is."""

import math
import sqlite3
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlens.errors import SteerlensError
from steerlens.experiments.ledger import Ledger


def _never():
    raise AssertionError("computed again")


def test_a_part_is_computed_once_and_outlives_the_process(tmp_path):
    with Ledger(tmp_path / "parts.sqlite") as ledger:
        assert ledger.remember({"seed": 1}, lambda: {"x": [0.1, math.inf]}) == {"x": [0.1, math.inf]}
        assert ledger.knows({"seed": 1}) and not ledger.knows({"seed": 2})
    with Ledger(tmp_path / "parts.sqlite") as ledger:
        assert ledger.remember({"seed": 1}, _never) == {"x": [0.1, math.inf]}
        assert ledger.remember({"seed": 2}, lambda: 3) == 3


@given(st.lists(st.floats(allow_nan=False)), st.text())
def test_values_come_back_bit_by_bit(numbers, text):
    with Ledger(None) as ledger:
        first = ledger.remember({"of": text}, lambda: [numbers, text])
        assert first == [numbers, text] == ledger.remember({"of": text}, _never)


def test_the_order_of_settings_does_not_matter(tmp_path):
    assert Ledger.key({"a": 1, "b": [1, 2]}) == Ledger.key({"b": [1, 2], "a": 1}) != Ledger.key({"a": 1, "b": [2, 1]})


def test_what_fails_is_not_kept():
    with Ledger(None) as ledger:
        with pytest.raises(ZeroDivisionError):
            ledger.remember({"seed": 1}, lambda: 1 / 0)
        assert not ledger.knows({"seed": 1})


def test_a_killed_process_leaves_its_finished_parts(tmp_path):
    path = tmp_path / "parts.sqlite"
    code = (
        "import os, signal\n"
        "from steerlens.experiments.ledger import Ledger\n"
        f"ledger = Ledger({str(path)!r})\n"
        "for i in range(5):\n"
        "    ledger.remember({'part': i}, lambda: [i] * 1000)\n"
        "ledger.remember({'part': 5}, lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    with Ledger(path) as ledger:
        assert [ledger.knows({"part": i}) for i in range(6)] == [True] * 5 + [False]
        assert ledger.remember({"part": 3}, _never) == [3] * 1000


def test_foreign_and_damaged_files_are_refused_and_stay(tmp_path):
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    with pytest.raises(SteerlensError, match="is no ledger"):
        Ledger(foreign)
    text = tmp_path / "notes.txt"
    text.write_text("my notes, longer than a header of a data base file, by some way\n" * 9)
    for notes in (text.read_text(), "x", "my notes"):  # SQLite takes the shortest for empty, and would write over them
        text.write_text(notes)
        with pytest.raises(SteerlensError, match=r"notes\.txt is no ledger"):
            Ledger(text)
        assert text.read_text() == notes
    with pytest.raises(SteerlensError, match="cannot be used as a ledger of experiments: Is a directory"):
        Ledger(tmp_path)
    with pytest.raises(SteerlensError, match="does not exist"):
        Ledger(tmp_path / "missing" / "parts.sqlite")


def test_a_changed_value_is_seen(tmp_path):
    path = tmp_path / "parts.sqlite"
    with Ledger(path) as ledger:
        ledger.remember({"seed": 1}, lambda: [1, 2])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE part SET value = '[1, 3]'")
    db.close()
    with Ledger(path) as ledger, pytest.raises(SteerlensError, match="is damaged"):
        ledger.remember({"seed": 1}, _never)
