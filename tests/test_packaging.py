"""What stands in several places agrees: versions, dependencies, make targets and what continuous integration calls."""

from __future__ import annotations

import re
import sys
import tomllib
from typing import Any

import pytest
import yaml

import steerlens as sl
from scripts.rooms import imports, modules
from tests.conftest import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
NAMES = {
    "sklearn": "scikit-learn",
    "transformer_lens": "transformer-lens",
    "huggingface_hub": "huggingface-hub",
    "inspect_ai": "inspect-ai",
    "IPython": "ipython",
}


def distribution(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[]", requirement)[0].lower()


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == sl.__version__ == citation["version"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert citation["url"] == PROJECT["urls"]["Documentation"]


def test_every_import_is_declared() -> None:
    """By a dependency, or by an extra where it is imported only when it is used.

    So are providers: by the entry point of the program they serve.
    """
    needed = {distribution(one) for one in PROJECT["dependencies"]}
    extras = {distribution(one) for group in PROJECT["optional-dependencies"].values() for one in group}
    for name, path in modules(ROOT).items():
        for one in imports(name, path):
            top = one.target.split(".")[0]
            if top in sys.stdlib_module_names or top == "steerlens":
                continue
            declared = needed | extras if one.inside or name.startswith("steerlens.providers") else needed
            assert NAMES.get(top, top) in declared, f"{path}:{one.line} imports {top}"


def test_the_pins_of_both_transformer_lenses_name_the_same_packages() -> None:
    def pinned(name: str) -> set[str]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        return {line.split("==")[0] for line in lines if not line.startswith("#")}

    assert pinned("constraints.txt") - pinned("constraints-tl4.txt") == {"better-abc"}
    assert pinned("constraints-tl4.txt") <= pinned("constraints.txt")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_make_targets_that_exist(path: Any) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    called = set()
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            for line in step.get("run", "").splitlines():
                words = line.split()
                assert words[:1] == ["make"] or words == ["bash", ".ci/run"], line
                if "${{ matrix.target }}" in line:
                    called |= set(job["strategy"]["matrix"]["target"])
                elif words[0] == "make":
                    called |= {word for word in words[1:] if "=" not in word}
    assert called <= TARGETS


def test_ci_runs_every_kind_of_test() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    [groups] = re.findall(r"\$\{\*:-([a-z0-9 -]+)\}", script)
    assert set(groups.split()) - {"browser"} <= TARGETS
    assert {"test", "real", "outside", "test-tl4", "real-tl4", "outside-tl4", "check", "wheel"} <= set(groups.split())


def test_the_makefile_lists_all_its_targets() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)
    assert set(phony.split()) == TARGETS
