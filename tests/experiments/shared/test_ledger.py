"""Finished parts are found again, bit by bit; nothing else is."""

import math
import resource
import signal
import sqlite3
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlens.errors import SteerlensError
from steerlens.experiments.shared.ledger import Ledger
from tests.processes import in_child


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
        "from steerlens.experiments.shared.ledger import Ledger\n"
        f"ledger = Ledger({str(path)!r})\n"
        "for i in range(5):\n"
        "    ledger.remember({'part': i}, lambda: [i] * 1000)\n"
        "ledger.remember({'part': 5}, lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=300)
    with Ledger(path) as ledger:
        assert [ledger.knows({"part": i}) for i in range(6)] == [True] * 5 + [False]
        assert ledger.remember({"part": 3}, _never) == [3] * 1000


def test_foreign_and_damaged_files_are_refused_and_stay(tmp_path):
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    with pytest.raises(SteerlensError, match="is an SQLite file but no ledger of experiments"):
        Ledger(foreign)
    text = tmp_path / "notes.txt"
    text.write_text("my notes, longer than a header of a data base file, by some way\n" * 9)
    for notes in (text.read_text(), "x", "my notes"):  # SQLite takes the shortest for empty, and would write over them
        text.write_text(notes)
        with pytest.raises(SteerlensError, match=r"notes\.txt is no ledger"):
            Ledger(text)
        assert text.read_text() == notes
    with pytest.raises(SteerlensError, match="cannot keep a ledger at .*: it is a folder; give a file name in it"):
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


@pytest.mark.parametrize("value", ["1", "'[1, 2'", "x'5B315D'", "x'FF'", "CAST(x'FF' AS TEXT)"])
def test_values_of_other_types_are_seen(value, tmp_path):
    path = tmp_path / "parts.sqlite"
    with Ledger(path) as ledger:
        ledger.remember({"seed": 1}, lambda: [1])
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE part SET value = {value}")
    db.close()
    with Ledger(path) as ledger, pytest.raises(SteerlensError, match="is damaged"):
        ledger.remember({"seed": 1}, _never)


def test_damaged_bytes_end_in_one_line_or_change_nothing(tmp_path):
    path = tmp_path / "parts.sqlite"
    with Ledger(path) as ledger:
        for i in range(40):
            ledger.remember({"part": i}, lambda i=i: [i] * 50)
    data = path.read_bytes()
    errors = 0
    for start in range(100, len(data) - 8, 331):
        path.write_bytes(data[:start] + bytes(byte ^ 0xC3 for byte in data[start : start + 8]) + data[start + 8 :])
        try:
            with Ledger(path) as ledger:
                assert [ledger.remember({"part": i}, lambda i=i: [i] * 50) for i in range(40)] == [
                    [i] * 50 for i in range(40)
                ]
        except SteerlensError as error:
            assert "\n" not in str(error)
            errors += 1
    assert errors > 10


def test_another_version_is_refused(tmp_path):
    path = tmp_path / "parts.sqlite"
    with Ledger(path) as ledger:
        ledger.remember({"seed": 1}, lambda: 1)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 1")
    db.close()
    with pytest.raises(SteerlensError, match="has version 1 and this steerlens reads version 0; use a newer steerlens"):
        Ledger(path)


def test_a_ledger_taken_away_does_not_go_on_as_if_it_were_there(tmp_path):
    path = tmp_path / "parts.sqlite"
    with Ledger(path) as ledger:
        ledger.remember({"part": 0}, lambda: 0)
        path.unlink()
        with pytest.raises(SteerlensError, match="was removed or replaced while it was in use"):
            ledger.remember({"part": 1}, lambda: 1)


def test_who_is_second_gets_what_is_kept(tmp_path):
    """The same part may differ in its last bits between two machines; a resumed run must see what this one has seen."""
    with Ledger(tmp_path / "parts.sqlite") as first, Ledger(tmp_path / "parts.sqlite") as second:
        assert second.remember({"part": 0}, lambda: first.remember({"part": 0}, lambda: 0.1) + 1e-9) == 0.1
        assert first.remember({"part": 0}, _never) == 0.1


def test_a_full_disk_keeps_what_is_there_and_says_so(tmp_path):
    path = tmp_path / "parts.sqlite"
    with Ledger(path) as ledger:
        ledger.remember({"part": 0}, lambda: "x")

    def on_a_full_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        with Ledger(path) as ledger:
            with pytest.raises(SteerlensError, match="finished parts are kept: make room, then run again") as error:
                ledger.remember({"part": 1}, lambda: "y" * 10**6)
            assert "\n" not in str(error.value)
            assert ledger.remember({"part": 0}, _never) == "x"

    assert in_child(on_a_full_disk) == 0
    with Ledger(path) as ledger:
        assert (ledger.knows({"part": 0}), ledger.knows({"part": 1})) == (True, False)
