"""Readers of arguments: each returns what the caller meant in the type the work needs, or raises one line that says
what was given and what was needed.

Every public function reads its arguments through these first, before it does any work. NumPy and PyTorch numbers count
as numbers, and nothing is taken for what it is not: a bool is not a number, a string is not a list of its characters, a
table is not a list of its column names. Iterators are read once, here.
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from steerlens.errors import SteerlensError, in_one_line, visible

__all__ = [
    "choice",
    "finite_number",
    "flag",
    "layer_number",
    "layer_numbers",
    "listed",
    "numbers",
    "path_to",
    "probability",
    "seed_number",
    "shown",
    "text",
    "texts",
    "visible",
    "whole_number",
]

T = TypeVar("T")

# More items than anyone passes as an argument, few enough to notice an endless iterator.
_MOST_ITEMS = 10_000_000
# The range of seeds: every random number generator accepts these, and files and tables can hold them.
_SEEDS = (-(2**63), 2**63 - 1)

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxdict = 5
_SHORT.maxlevel = 3


def shown(value: object) -> str:
    """A value as an error message shows it: short, on one line, and safe even if its own `repr` fails."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and getattr(value, "ndim", 0) > 0:
        return f"a {type(value).__name__} of shape {list(value.shape)}"
    plain = (str, bytes, bool, int, float, complex, list, tuple, set, frozenset, dict, range, slice, type(None))
    if not isinstance(value, plain) and not hasattr(value, "dtype") and not isinstance(value, os.PathLike):
        return f"{'an' if type(value).__name__[0] in 'AEIOUaeiou' else 'a'} {type(value).__name__}"
    try:
        return in_one_line(_SHORT.repr(value), most=120)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, or something deep
        return f"a very large {type(value).__name__}"


def whole_number(name: str, value: object, *, least: int | None = None, most: int | None = None) -> int:
    """A whole number of Python, numpy or PyTorch, within bounds.

    Raises:
        SteerlensError: anything else; True and 2.0 are not whole numbers.
    """
    number = _whole(value)
    if number is None or (least is not None and number < least) or (most is not None and number > most):
        raise SteerlensError(f"{name} must be a whole number{_between(least, most)}, got {shown(value)}")
    return number


def seed_number(value: object, name: str = "seed") -> int:
    """A seed: any 64-bit whole number.

    Raises:
        SteerlensError: anything else, None included (which elsewhere means a random seed).
    """
    number = _whole(value)
    if number is None or not _SEEDS[0] <= number <= _SEEDS[1]:
        raise SteerlensError(f"the {name} must be a whole number (of at most 64 bits), got {shown(value)}")
    return number


def finite_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """A finite number of Python, numpy or PyTorch as a float, within bounds (`above`, `below`: without the bound).

    Raises:
        SteerlensError: anything else; text that looks like a number is not one.
    """
    number = _real(value)
    within = number is not None and math.isfinite(number)
    if not within or not _holds(number, least=least, most=most, above=above, below=below):
        bounds = [f"at least {least:g}"] if least is not None else []
        bounds += [f"above {above:g}"] if above is not None else []
        bounds += [f"at most {most:g}"] if most is not None else []
        bounds += [f"below {below:g}"] if below is not None else []
        wanted = f" {' and '.join(bounds)}" if bounds else ""
        raise SteerlensError(f"{name} must be a finite number{wanted}, got {shown(value)}")
    assert number is not None
    return number


def probability(name: str, value: object) -> float:
    """A number from 0 to 1.

    Raises:
        SteerlensError: it is none.
    """
    return finite_number(name, value, least=0, most=1)


def flag(name: str, value: object) -> bool:
    """True or False, NumPy's included.

    Raises:
        SteerlensError: anything else: "no" and 2 would both count as yes.
    """
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    raise SteerlensError(f"{name} must be True or False, got {shown(value)}")


def text(name: str, value: object, *, empty: bool = True) -> str:
    """A string that can be encoded (no half of a surrogate pair).

    Raises:
        SteerlensError: anything else, or an empty string where one is not allowed.
    """
    if not isinstance(value, str):
        raise SteerlensError(f"{name} must be text, got {shown(value)}")
    if not value and not empty:
        raise SteerlensError(f"{name} must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SteerlensError(
            f"{name}: {shown(value)} is not valid text (half a surrogate pair); decode it properly"
        ) from None
    return value


def listed(name: str, value: object, *, of: str) -> list[Any]:
    """The items of a list, tuple, array, column or iterator, in order.

    Args:
        of: what the items are, for the message: "layer numbers".

    Raises:
        SteerlensError: something without an order (a set), something whose items are not what they seem (a string's
            characters, a mapping's keys, a table's column names), or something without items (a number).
    """
    odd = isinstance(value, str | bytes | bytearray | memoryview | Mapping | Set)
    ndim = getattr(value, "ndim", 1)
    if odd or ndim != 1 or not isinstance(value, Iterable):
        hint = ", such as one of its columns" if ndim == 2 and hasattr(value, "columns") else ""
        raise SteerlensError(f"{name} must be a list of {of}{hint}, got {shown(value)}")
    try:
        items = list(islice(value, _MOST_ITEMS + 1))
    except SteerlensError:
        raise
    except Exception as error:  # an iterator's own error
        raise SteerlensError(f"{name} cannot be read as a list of {of}: {type(error).__name__}: {error}") from error
    if len(items) > _MOST_ITEMS:
        raise SteerlensError(f"{name} has more than {_MOST_ITEMS:,} items; is it an iterator without an end?")
    return items


def texts(name: str, value: object) -> list[str]:
    """One text, or several, as a list of at least one.

    Raises:
        SteerlensError: neither, or an empty list.
    """
    if isinstance(value, str):
        return [text(name, value)]
    if value is None or isinstance(value, int | float):
        raise SteerlensError(f"{name} must be a text or a list of texts, got {shown(value)}")
    items = listed(name, value, of="texts")
    if not items:
        raise SteerlensError(f"the list of {name} is empty; give at least one")
    return [text(f"{name}[{place}]", item) for place, item in enumerate(items)]


def numbers(name: str, value: object) -> list[float]:
    """One finite number, or several, as a list of at least one.

    Raises:
        SteerlensError: neither, or an empty list.
    """
    one = _real(value)
    if one is not None:
        return [finite_number(name, value)]
    items = listed(name, value, of="numbers")
    if not items:
        raise SteerlensError(f"{name} is empty; give at least one number")
    return [finite_number(f"{name}[{place}]", item) for place, item in enumerate(items)]


def layer_number(value: object, n_layers: int) -> int:
    """The number of a layer of a model.

    Raises:
        SteerlensError: not a whole number, or out of range.
    """
    number = _whole(value)
    if number is None:
        raise SteerlensError(f"a layer must be a whole number, got {shown(value)}")
    if not 0 <= number < n_layers:
        raise SteerlensError(
            f"layer {shown(number)} is out of range for a model of {n_layers} layers; use 0 to {n_layers - 1}"
        )
    return number


def layer_numbers(value: object, n_layers: int, *, name: str = "layers") -> list[int]:
    """The numbers of layers of a model: `"all"`, or a list of at least one.

    Raises:
        SteerlensError: anything else.
    """
    if isinstance(value, str) and value == "all":
        return list(range(n_layers))
    if isinstance(value, str):
        raise SteerlensError(f"{name}={shown(value)} is unknown; use 'all' or a list of layer numbers")
    if value is None or _whole(value) is not None:
        raise SteerlensError(f"{name}={shown(value)} is no list; use 'all' or a list of layer numbers, such as [4]")
    items = listed(name, value, of="layer numbers")
    if not items:
        raise SteerlensError(f"{name}= is empty; give at least one layer")
    return [layer_number(item, n_layers) for item in items]


def choice(name: str, value: T, options: Sequence[T]) -> T:
    """One of the options.

    Raises:
        SteerlensError: none of them; the message names them.
    """
    for option in options:
        if type(option) is type(value) and option == value:
            return option
    named = [repr(option) for option in options]
    several = f"{', '.join(named[:-1])} or {named[-1]}" if len(named) > 1 else named[0]
    raise SteerlensError(f"{name}={shown(value)} is unknown; use {several}")


def path_to(value: object, name: str = "path") -> Path:
    """The path given, with `~` expanded; whether anything exists there is not checked.

    Raises:
        SteerlensError: not a path, an empty one, one that contains NUL, or the home of a user that does not exist.
    """
    given = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(given, str):
        raise SteerlensError(f"{name} must be the path of a file, got {shown(value)}")
    if not given:
        raise SteerlensError(f"{name} is empty; give the path of a file")
    if "\0" in given:
        raise SteerlensError(f"{name} {shown(given)} holds a NUL character, which no path can")
    try:
        os.fsencode(given)
    except UnicodeEncodeError:
        raise SteerlensError(f"{name} {shown(given)} holds half a surrogate pair, which no path can") from None
    try:
        return Path(given).expanduser()
    except (RuntimeError, KeyError):
        raise SteerlensError(
            f"{name} {shown(given)} names the home of a user that this machine does not have"
        ) from None


def _whole(value: object) -> int | None:
    """`value` as an int, if it is one whole number."""
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")) or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _real(value: object) -> float | None:
    """`value` as a float (infinity if it is too large for one), if it is one number."""
    if isinstance(value, bool | str | bytes) or "bool" in str(getattr(value, "dtype", "")):
        return None
    if getattr(value, "ndim", 0) != 0 or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError, RuntimeError):
        return None


def _holds(
    number: float | None, *, least: float | None, most: float | None, above: float | None, below: float | None
) -> bool:
    return (
        number is not None
        and (least is None or number >= least)
        and (most is None or number <= most)
        and (above is None or number > above)
        and (below is None or number < below)
    )


def _between(least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if least is not None:
        return f" of at least {least}"
    return f" of at most {most}" if most is not None else ""
