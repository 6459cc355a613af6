"""What a user gets: wheel and sdist are built, checked, and the wheel is run from another folder (`make wheel`).

The wheel is installed without its dependencies into an environment of its own, which sees those of the environment that
runs this script: the package itself can only come from the wheel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"

# Run by the wheel's own Python: the embedded model and the data must be in it.
SMOKE = """
import sys
from pathlib import Path
import steerlens as sl
from steerlens.demo import topic_contrast
assert Path(sl.__file__).is_relative_to(sys.prefix), sl.__file__
model = sl.load_model("demo")
vector = sl.mean_difference(model, *topic_contrast("weddings"), layer=4)
frame = sl.generate(model, "I went up to my friend and said", [None, 2 * vector], n=2, max_new_tokens=5)
assert len(frame) == 4
print("the wheel's", sl.__version__, "steers:", frame["completion"].iloc[-1])
"""


def run(*command: str | Path, folder: Path = ROOT) -> None:
    """Run a command; say which and stop if it fails."""
    print("$", *command, flush=True)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([str(part) for part in command], cwd=folder, env=clean, check=True)


def built() -> tuple[Path, Path]:
    """The wheel and the sdist, made anew; the wheel is built from the sdist, which thereby proves complete."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST)
    [wheel], [sdist] = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    return wheel, sdist


def missing(wheel: Path, sdist: Path) -> list[str]:
    """Tracked files of the package that the wheel lacks, and of tests, docs and scripts that the sdist lacks."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.split("/", 1)[-1] for name in archive.getnames()}
    wanted = ("steerlens/", "tests/", "scripts/", "notebooks/", "docs/")
    return [
        *(f"wheel: {name}" for name in listed if name.startswith("steerlens/") and name not in in_wheel),
        *(f"sdist: {name}" for name in listed if name.startswith(wanted) and name not in in_sdist),
    ]


def tried(wheel: Path) -> None:
    """Install the wheel where nothing else is, and run it from an empty folder."""
    with tempfile.TemporaryDirectory(prefix="steerlens-wheel-") as folder:
        place, empty = Path(folder) / "environment", Path(folder) / "empty"
        empty.mkdir()
        venv.create(place, with_pip=True)
        here = {"base": str(place), "platbase": str(place)}
        scripts, packages = (Path(sysconfig.get_path(name, vars=here)) for name in ("scripts", "purelib"))
        run(scripts / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, folder=empty)
        # Only paths are taken over: an editable installation's own .pth file is not read through this one.
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        (empty / "smoke.py").write_text(SMOKE, encoding="utf-8")
        run(scripts / "python", "smoke.py", folder=empty)
        command = scripts / "steerlens"
        run(command, "demo", "--n", "2", "--tokens", "4", "--out", "demo.html", folder=empty)
        page = empty / "demo.html"
        if not page.is_file():
            sys.exit("the demo wrote no page")
        run(command, "--version", folder=empty)


def main() -> None:
    """Build, check, install, run."""
    wheel, sdist = built()
    if lacking := missing(wheel, sdist):
        sys.exit("not packed:\n" + "\n".join(lacking))
    tried(wheel)
    for path in (wheel, sdist):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
