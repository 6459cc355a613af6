"""Printing: tables show text as it is, and what an encoding lacks is written plainly."""

from __future__ import annotations

import io
import sys

import pytest

from steerlens.cli import console


def test_no_stdout_and_no_stderr_are_no_errors(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    console.prepare()
    console.say("x")
    console.note("x")
    assert not console.coloured()
    console.finish()


def test_a_table_shows_every_cell_as_it_is() -> None:
    text = console.table("[b]t[/b] :smile:", ["[red]a", "b"], [["[/x]", "\x1b[31m"], ["1", "2"]], ruled=[0])
    for piece in ("[b]t[/b] :smile:", "[red]a", "[/x]", r"\x1b[31m"):
        assert piece in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "− … “x” │─┼ 猫"), ("cp1252", "- … “x” |-+ ?"), ("ascii", '- ... "x" |-+ ?')],
)
def test_what_an_encoding_lacks_is_written_plainly(monkeypatch, encoding: str, shown: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    console.prepare()
    console.say("− … “x” │─┼ 猫")
    assert raw.getvalue().decode(encoding) == f"{shown}\n".replace("\n", "\r\n" if sys.platform == "win32" else "\n")
