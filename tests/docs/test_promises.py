"""The tests that the page of promises names exist, and every law has some."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "guides" / "promises.md").read_text(encoding="utf-8")


def test_every_named_test_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert named
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test in functions, f"{file} has no {test}"


def test_there_are_eighteen() -> None:
    rows = re.findall(r"^\| (\d+) \|.*`tests/", PAGE, flags=re.MULTILINE)
    assert rows == [str(number) for number in range(1, 19)]
