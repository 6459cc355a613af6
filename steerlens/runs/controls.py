"""Controls: what steered conditions are held against, cell by cell and as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any, Literal

from steerlens.arguments import choice, listed, shown
from steerlens.engine import Sampling
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering import Condition, PromptPair, SteeringVector
from steerlens.steering.conditions import remade
from steerlens.steering.prompting import Prompting, prompted, prompting_of
from steerlens.steering.prompts import Prompt
from steerlens.steering.random_vectors import Control, random_condition
from steerlens.steering.shuffled_vectors import as_long_as, shuffled_vectors

ControlName = Literal["random", "shuffled", "negated", "prompting"]
Controls = Literal["standard"] | ControlName | Prompting | Sequence[ControlName | Prompting] | None
"""What steered conditions are held against; each is a role in the result:

- `"random"`: a random vector of the same norm at each position, at the same place;
- `"shuffled"`: a vector of the same norm, made of the same texts in the same way, but with shuffled labels
  (`ContrastSet.shuffled`); one pair has nothing to shuffle;
- `"negated"`: the vector times −1;
- `"prompting"`: the positive side of the pair in words; a `Prompting` in its place says which words;
- `"standard"`: all four.
"""
_NAMES = ("random", "shuffled", "negated", "prompting")
ROLES = _NAMES
"""The roles of controls."""


@dataclass(frozen=True, eq=False)
class ControlPlan:
    """The controls of a run, made once.

    Attributes:
        names: of those that stand beside every steered condition.
        shuffled: by layer, the vectors of the shuffled contrast, with coefficient 1.
        prompting: one condition each.
        left_out: what was asked for and cannot be made, and why, a sentence each.
        seed: of the random vectors.
    """

    names: tuple[str, ...]
    shuffled: Mapping[int, SteeringVector]
    prompting: tuple[Prompting, ...]
    left_out: tuple[str, ...]
    seed: int

    def beside(self, name: str, condition: Condition, factor: float) -> Condition:
        """The control of this name for `factor * condition`."""
        if name == "negated":
            return -factor * condition
        if name == "random":
            return factor * random_condition(condition, seed=self.seed)
        made = [
            replace(one, vector=as_long_as(self.shuffled[one.vector.layer], one.vector)) for one in condition.injections
        ]
        return factor * remade(condition, made, label="" if len(made) == 1 else "shuffled contrast")

    def record(self) -> dict[str, Any]:
        """What a result's settings say of them."""
        words = [one.title for one in self.prompting]
        return {"controls": [*self.names, *words], "controls left out": list(self.left_out)}


def read_controls(controls: object, control: Control | EllipsisType = ...) -> tuple[str | Prompting, ...]:
    """The names of controls, and words, each once.

    Args:
        control: an older name of the argument, which counts where it is given.

    Raises:
        SteerlensError: none of these.
    """
    if control is not ...:
        controls = choice("control", control, ("random", None))
    if controls is None:
        return ()
    if isinstance(controls, str) and controls == "standard":
        return _NAMES
    if isinstance(controls, str):
        return (choice("controls", controls, (*_NAMES, "standard")),)
    if isinstance(controls, Prompting):
        return (controls,)
    several = listed("controls", controls, of="names of controls, such as 'random'")
    for one in several:
        if not isinstance(one, Prompting) and not (isinstance(one, str) and one in _NAMES):
            raise SteerlensError(
                f"controls holds {shown(one)}; use {', '.join(map(repr, _NAMES))}, or words: sl.Prompting('…')"
            )
    return tuple(dict.fromkeys(several))


def plan_controls(
    model: HookedModel,
    asked: Sequence[str | Prompting],
    what: Any,
    vectors: Sequence[SteeringVector],
    prompts: Sequence[Prompt],
    *,
    sampling: Sampling,
) -> ControlPlan:
    """The controls asked for, as far as they can be made; the plan says what cannot.

    Args:
        what: what the vectors were made of.

    Raises:
        SteerlensError: nothing that was asked for can be made; words that do not fit the prompts.
    """
    names = [one for one in asked if isinstance(one, str) and one != "prompting"]
    words = [one for one in asked if isinstance(one, Prompting)]
    left_out: list[str] = []
    shuffled: Mapping[int, SteeringVector] = {}
    if "shuffled" in names:
        try:
            shuffled = shuffled_vectors(model, what, vectors, seed=sampling.seed)
        except SteerlensError as error:
            left_out.append(f"no shuffled contrast: {error}")
            names.remove("shuffled")
    for one in words:
        prompted(model, prompts, one, max_new_tokens=sampling.max_new_tokens)
    if "prompting" in asked and not words:
        try:
            own = words_of(what, vectors)
            prompted(model, prompts, own, max_new_tokens=sampling.max_new_tokens)
            words = [own]
        except SteerlensError as error:
            left_out.append(f"no prompting: {error}")
    if asked and not names and not words:
        raise SteerlensError("; ".join(left_out))
    return ControlPlan(tuple(names), shuffled, tuple(words), tuple(left_out), sampling.seed)


def words_of(what: Any, vectors: Sequence[SteeringVector]) -> Prompting:
    """What the vectors were made of, in words.

    Raises:
        SteerlensError: there are none: anything but one pair of texts.
    """
    sources = [vector.source for vector in vectors]
    pair = what
    if not isinstance(what, PromptPair) and sources and all(source == sources[0] for source in sources):
        positive, negative = sources[0].get("positive"), sources[0].get("negative")
        if isinstance(positive, str) and isinstance(negative, str) and (positive or negative):
            pair = PromptPair(positive, negative)
    found = prompting_of(pair) if isinstance(pair, PromptPair) else None
    if found is None:
        raise SteerlensError("what is steered with says nothing in words; give them: controls=[…, sl.Prompting('…')]")
    return found
