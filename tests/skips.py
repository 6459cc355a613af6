"""`--allowed-skips FILE`: a run in which a test skips for a reason that the file does not allow here has failed.

The file (TOML) lists reasons, as regular expressions, and the circumstance in which each may be given. A run without
the option skips what it cannot do, as ever.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

TRANSFORMER_LENS = version("transformer-lens").split(".")[0]


def circumstances(data: Path) -> dict[str, bool]:
    """What is so on this machine, by the names that the file of allowed skips uses."""
    return {
        "no CUDA device": not torch.cuda.is_available(),
        "a CUDA device": torch.cuda.is_available(),
        "TransformerLens 3": TRANSFORMER_LENS == "3",
        "TransformerLens 4": TRANSFORMER_LENS == "4",
        "not Linux": sys.platform != "linux",
        "no data": not data.is_dir(),
    }


@dataclass(eq=False)
class SkipWatch:
    """Collects why tests were skipped, lists the reasons at the end, and fails the run for one that is not allowed."""

    allowed: list[tuple[re.Pattern[str], bool]]
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)  # (file, reason) → tests

    @classmethod
    def read(cls, path: Path, here: dict[str, bool]) -> SkipWatch:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["skip"]
        return cls([(re.compile(entry["reason"]), here[entry["when"]]) for entry in entries])

    def may(self, reason: str) -> bool:
        return any(here and pattern.search(reason) for pattern, here in self.allowed)

    @property
    def forbidden(self) -> list[tuple[str, str]]:
        return [one for one in self.seen if not self.may(one[1])]

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.note(report)

    def pytest_collectreport(self, report: Any) -> None:
        self.note(report)

    def note(self, report: Any) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            _, _, reason = report.longrepr
            self.seen[report.nodeid.split("::")[0], reason.removeprefix("Skipped: ")] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: Any) -> None:
        if self.forbidden and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("skipped" if self.seen else "skipped: none")
        for (file, reason), count in sorted(self.seen.items()):
            mark = "allowed    " if self.may(reason) else "NOT ALLOWED"
            terminalreporter.line(f"{mark} {count:3}  {file}: {reason}")
        if self.forbidden:
            terminalreporter.line(
                "A skip that is not allowed fails the run: install what the test needs (make everything)."
            )


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--allowed-skips", type=Path, help="fail when a test skips for a reason not listed in this file")


def pytest_configure(config: Any) -> None:
    path = config.getoption("--allowed-skips")
    if path is not None and not hasattr(config, "workerinput"):  # workers of xdist report to the first process
        from tests.conftest import DATA

        config.pluginmanager.register(SkipWatch.read(path, circumstances(DATA)), "skip watch")
