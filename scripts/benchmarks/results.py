"""Results as Markdown and JSON, with the machine, the versions and the command."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import steerlens as sl

FOLDER = Path(__file__).resolve().parents[1] / "benchmark_results"


def machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "transformer-lens": version("transformer-lens"),
        "transformers": version("transformers"),
        "steerlens": sl.__version__,
        "python": platform.python_version(),
        "command": shlex.join(["python", "scripts/benchmark.py", *_nobody_s(sys.argv[1:])]),
    }


def _nobody_s(arguments: Sequence[str]) -> list[str]:
    """The arguments with no path of this machine in them."""
    return ["PYTHON" if before == "--peers" else one for before, one in zip(["", *arguments], arguments, strict=False)]


def write(results: Sequence[Mapping[str, Any]], *, stem: str, title: str, rows: str = "") -> str:
    """The page as text; STEM.json and STEM.md are written. `rows` goes under the table."""
    facts = machine()
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{stem}.json").write_text(json.dumps({"machine": facts, "results": list(results)}, indent=1) + "\n")
    lines = [
        f"# {title}",
        "",
        *(f"- {key}: {f'`{value}`' if key == 'command' else value}" for key, value in facts.items()),
        "",
        "| work | against | times as fast | range | goal | ours (s) | theirs (s) | rounds | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        spread = f"{number(r['low'])}–{number(r['high'])}" if r["low"] == r["low"] else "–"
        lines.append(
            f"| {r['work']} | {r['against']} | {number(r['ratio'])} | {spread} "
            f"| {r['goal']} | {number(r['seconds'])} | {number(r['seconds against'])} | {r['rounds']} | {r['note']} |"
        )
    text = "\n".join([*lines, *([rows] if rows else [])]) + "\n"
    (FOLDER / f"{stem}.md").write_text(text)
    return text


def number(value: float) -> str:
    return "–" if value != value else f"{value:.3g}"


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
