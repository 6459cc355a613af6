"""What can be chosen in an explorer: methods over the shipped contrasts, and models by their names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl

pytest.importorskip("ipywidgets", reason='the explorer needs the extra: pip install "steerlens[notebook]"')
pytest.importorskip("anywidget", reason='the explorer needs the extra: pip install "steerlens[notebook]"')


from steerlens.explorer import Explorer, contrasts


@pytest.mark.parametrize("method", ["mean_difference", "pca", "probe"])
@pytest.mark.parametrize("contrast", ["weddings", "sentiment"])
def test_other_methods_over_the_shipped_contrasts(demo: Any, explorer: Explorer, method: str, contrast: str) -> None:
    explorer.move(method=method, contrast=contrast, placement="all")
    assert explorer.error == ""
    expected = getattr(sl, method)(demo, contrasts.contrast_set(contrast), layer=2)
    torch.testing.assert_close(explorer.numbers.vectors(explorer.view)[2].values, expected.values)
    assert f"vectors = sl.{method}(model, contrast" in explorer.code


def test_another_model_is_loaded_by_its_name_and_keeps_the_depth(any_model: Any) -> None:
    explorer = sl.explore(any_model, words="love", layer=0)
    name = explorer.widget.options["models"][0]
    assert explorer.widget.options["models"][:2] == [name, "demo"]
    explorer.move(model="demo", words="love")
    assert explorer.error == "" and explorer.widget.options["n_layers"] == 8
    assert explorer.shift.settings["model"] == "demo"
    explorer.move(layer=7)
    explorer.move(model=name)
    assert explorer.settings["layer"] == any_model.cfg.n_layers - 1 and explorer.numbers.model is any_model
