"""The shapes in signatures are promises that the whole suite checks; here it is shown that it does."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError

import steerlens
from steerlens.models import final_logits, prefill
from steerlens.steering.placement import first_positions

# Providers are imported by the programs that they serve, which need not be here.
MODULES = [
    module.name
    for module in pkgutil.walk_packages(steerlens.__path__, "steerlens.")
    if not module.name.startswith("steerlens.providers.")
]


def test_wrong_shapes_and_dtypes_are_found(any_model: Any) -> None:
    rows, ones = torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.long)
    prefill(any_model, rows, ones)
    for tokens, mask in [(rows[0], ones[0]), (rows.float(), ones), (rows, torch.ones(2, 4, dtype=torch.long))]:
        with pytest.raises(TypeCheckError):
            prefill(any_model, tokens, mask)
    with pytest.raises(TypeCheckError):
        first_positions("front", 2, torch.ones(2, 2, dtype=torch.long))
    with pytest.raises(TypeCheckError):
        final_logits(any_model, rows)


@pytest.mark.parametrize("name", MODULES)
def test_every_promise_is_checked(name: str) -> None:
    """A module whose shapes cannot be read at run time fails to import (see `tests.typechecking.has_shape`)."""
    module = importlib.import_module(name)
    for owner in [module, *(one for _, one in inspect.getmembers(module, inspect.isclass) if one.__module__ == name)]:
        for member in vars(owner).values():
            function = getattr(member, "__func__", member)
            if inspect.isfunction(function) and function.__module__ == name and function.__name__ != "__annotate__":
                promises = [a for a in function.__annotations__.values() if "[Tensor" in str(a)]
                assert not promises or hasattr(function, "__wrapped__"), f"{function.__qualname__} is not checked"
