"""A type checker for jaxtyping's import hook that looks at the shapes in signatures and at nothing else.

beartype could check every annotation; but then bad input would end in its error, and never reach the messages of
steerlens that the tests are about. Shapes are promises between functions: no user's input is judged by them.
"""

from __future__ import annotations

from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def has_shape(annotation: Any) -> bool:
    """Whether a jaxtyping array type is part of the annotation."""
    if isinstance(annotation, str) and "Tensor, " in annotation:
        raise TypeError(f"a shape that cannot be checked, because its names are unknown at run time: {annotation}")
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(has_shape(part) for part in get_args(annotation))


# Takes shapes that its field will not have, and judges them itself.
JUDGES_ITSELF = {"SteeringVector.__init__"}


def check_shapes(function: Any) -> Any:
    """The function with its shape annotations checked by beartype, and the others taken off."""
    if function.__qualname__ in JUDGES_ITSELF:
        return function
    function.__annotations__ = {
        name: annotation for name, annotation in function.__annotations__.items() if has_shape(annotation)
    }
    return beartype(function)
