"""The arrows of the design: which room may know of which, and what `import steerlens` may cost."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from scripts.rooms import import_lines, imports, is_ours, modules, room

ROOT = Path(__file__).resolve().parents[1]

# Rooms from the ground up: each may know those named beside it, and itself. A module that is not listed stands below
# them all (errors.py, say): every room may know it, and it may know only its like.
MAY_KNOW: dict[str, set[str]] = {
    "demo": set(),
    "models": {"demo"},
    "steering": {"demo", "models"},
    "engine": {"demo", "models", "steering"},
    "measures": {"demo"},
    "figures": {"demo", "measures"},
    "reports": {"demo", "measures", "figures"},
    "analysis": {"demo", "models", "steering", "engine", "measures"},
    "runs": {"demo", "models", "steering", "engine", "measures", "analysis"},
    "experiments": {
        *("demo", "models", "steering", "engine", "measures", "figures", "reports", "analysis", "runs"),
    },
}
# Results draw themselves and write their pages inside `.plot()` and `.report()` only, so that numbers cost no plotly.
LAZILY: dict[str, set[str]] = {
    "engine": {"figures"},
    "analysis": {"figures", "reports"},
    "runs": {"figures", "reports"},
}
# A longer file holds two things.
LINES = 350
# Nobody knows the faces; they know everything. "" is steerlens/__init__.py.
FACES = {"", "cli", "explorer", "providers", "__main__"}


def broken_arrows(root: Path) -> list[str]:
    """Return one line for every import that the design forbids."""
    known = modules(root)
    rooms = {room(name) for name in known} | set(MAY_KNOW) | FACES
    ground = rooms - set(MAY_KNOW) - FACES
    broken = []
    for name, path in known.items():
        here = room(name)
        for found in imports(name, path):
            where = f"{path.relative_to(root)}:{found.line}"
            if is_ours(found.target):
                # `from steerlens import engine` names a room, `from steerlens import actadd` goes through the face.
                there = room(found.target) if room(found.target) in rooms else ""
                allowed = ground | MAY_KNOW.get(here, set()) | {here}
                if found.inside or name.endswith("_page"):  # a result's page is imported by its `.report()` alone
                    allowed |= LAZILY.get(here, set())
                if here not in FACES and there not in allowed and found.target != "steerlens.__version__":
                    broken.append(f"{where}: {here} must not know {there or 'the package face'} ({found.target})")
            elif found.target.split(".")[0] == "transformer_lens" and here != "models":
                broken.append(f"{where}: only models may know which TransformerLens it is ({found.target})")
    return broken


def circle(root: Path) -> list[str]:
    """Return the modules of one import circle, or nothing. Imports inside functions and for types count as well."""
    known = modules(root)
    graph: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for found in imports(name, path):
            target = found.target if found.target in known else found.target.rpartition(".")[0]
            # The face knows everybody; who may know the face is for `broken_arrows` to say.
            if target in known and target not in (name, "steerlens"):
                graph[name].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def long_files(root: Path) -> list[str]:
    """Return the files of the package, its tests and its scripts that have more than `LINES` lines."""
    return [
        f"{path.relative_to(root)}: {count} lines"
        for folder in ("steerlens", "tests", "scripts")
        for path in sorted((root / folder).rglob("*.py"))
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LINES
    ]


def drawing_with_tensors(root: Path) -> list[str]:
    """Return the files that import both plotly and torch: numbers and drawing live apart."""
    mixed = []
    for name, path in modules(root).items():
        used = {found.target.split(".")[0] for found in imports(name, path) if found.runtime}
        if {"plotly", "torch"} <= used:
            mixed.append(str(path.relative_to(root)))
    return mixed


def test_contributing_shows_the_arrows_as_they_are() -> None:
    """If this fails, paste what `python scripts/rooms.py` prints into CONTRIBUTING.md."""
    assert "\n".join(import_lines(ROOT)) in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_package_is_found() -> None:
    assert "steerlens" in modules(ROOT)


def test_rooms_know_only_what_the_design_lets_them() -> None:
    assert broken_arrows(ROOT) == []


def test_imports_make_no_circle() -> None:
    assert circle(ROOT) == []


def test_files_are_short() -> None:
    assert long_files(ROOT) == []


def test_drawing_files_handle_no_tensors() -> None:
    assert drawing_with_tensors(ROOT) == []


@pytest.mark.parametrize(
    ("path", "code", "why"),
    [
        ("steering/vectors.py", "from steerlens.engine import scoring", "steering must not know engine"),
        ("steering/vectors.py", "from ..engine.scoring import score", "steering must not know engine"),
        ("models.py", "def f():\n    import steerlens.steering.vectors", "models must not know steering"),
        ("engine/sampler.py", "from steerlens import analysis", "engine must not know analysis"),
        ("engine/sampler.py", "from steerlens import actadd", "engine must not know the package face"),
        ("analysis/sweeps.py", "if TYPE_CHECKING:\n    from .. import cli", "analysis must not know cli"),
        ("measures/words.py", "from steerlens.models import load_model", "measures must not know models"),
        ("figures/sweeps.py", "from steerlens.runs import sweep", "figures must not know runs"),
        ("reports/page.py", "from steerlens.runs import sweep", "reports must not know runs"),
        ("runs/sweep.py", "from steerlens.figures import layer_sweep", "runs must not know figures"),
        ("analysis/lens.py", "if x:\n    from steerlens.reports import page", "analysis must not know reports"),
        ("errors.py", "from steerlens.models import load_model", "errors must not know models"),
        ("engine/cache.py", "from transformer_lens import HookedTransformer", "only models may know"),
    ],
)
def test_a_broken_arrow_is_found(tmp_path: Path, path: str, code: str, why: str) -> None:
    plant(tmp_path, {path: code})
    (line,) = broken_arrows(tmp_path)
    assert why in line


def test_the_arrows_of_the_design_pass(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "__init__.py": "from steerlens.runs.sweeps import sweep",
            "errors.py": "import math",
            "models.py": "import transformer_lens\nfrom steerlens.errors import SteerError",
            "steering/vectors.py": "from ..models import HookedModel\nfrom . import prompts",
            "steering/prompts.py": "from steerlens import __version__",
            "analysis/shift.py": "from steerlens.engine import sampler\nfrom steerlens import models",
            "runs/sweeps.py": "from steerlens.analysis import shift\ndef f():\n    from steerlens import figures",
            "runs/sweeps_page.py": "from steerlens.figures import theme\nfrom steerlens.reports import page",
            "figures/theme.py": "import plotly",
            "reports/page.py": "from steerlens.figures import theme",
            "cli.py": "import steerlens.experiments.weddings",
        },
    )
    assert broken_arrows(tmp_path) == []
    assert circle(tmp_path) == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "steering/a.py": "from steerlens.steering.b import x",
            "steering/b.py": "from . import c",
            "steering/c.py": "def f():\n    from .a import y",
        },
    )
    assert {"steerlens.steering.a", "steerlens.steering.b", "steerlens.steering.c"} == set(circle(tmp_path))


def test_a_drawing_file_with_tensors_is_found(tmp_path: Path) -> None:
    plant(tmp_path, {"analysis/figures.py": "import torch\nimport plotly.graph_objects as go"})
    assert drawing_with_tensors(tmp_path) == ["steerlens/analysis/figures.py"]


@pytest.mark.parametrize("folder", ["steerlens/engine", "tests/engine", "scripts"])
def test_a_long_file_is_found(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "sampler.py"
    path.parent.mkdir(parents=True)
    path.write_text("x = 1\n" * LINES, encoding="utf-8")
    assert long_files(tmp_path) == []
    path.write_text("x = 1\n" * (LINES + 1), encoding="utf-8")
    assert long_files(tmp_path) == [f"{folder}/sampler.py: {LINES + 1} lines"]


def plant(root: Path, files: dict[str, str]) -> None:
    """Write a small package `steerlens` under `root`."""
    for name, code in files.items():
        path = root / "steerlens" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")


def fresh_python(code: str) -> str:
    """Return what a new interpreter prints; this one has long imported everything."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_lazy() -> None:
    heavy = {"transformer_lens", "transformers", "datasets", "plotly", "pandas", "typer"}
    loaded = fresh_python("import steerlens, sys; print(*sys.modules)").split()
    assert "steerlens" in loaded
    assert heavy.isdisjoint(loaded), f"import steerlens also imports {sorted(heavy.intersection(loaded))}"


def test_import_adds_nothing_to_torch_but_itself() -> None:
    """So that it costs little beside torch."""
    code = "import torch, sys; before = set(sys.modules); import steerlens; print(*(sys.modules.keys() - before))"
    added = {name.partition(".")[0] for name in fresh_python(code).split()}
    assert added - sys.stdlib_module_names == {"steerlens"}


def test_every_public_name_is_listed_and_found() -> None:
    """`__all__` is written out for type checkers; the lazy table must say the same, and every name must load."""
    import steerlens

    assert sorted(steerlens.__all__) == sorted(["__version__", *steerlens._HOMES])
    for name in steerlens.__all__:
        assert getattr(steerlens, name) is not None
