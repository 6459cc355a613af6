"""What the explorer is set to, the numbers that follow from it, and the Python lines that do the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steerlens.analysis.layer_effect import LayerEffect, layer_effect
from steerlens.analysis.logit_shift import By, LogitShift, logit_shift
from steerlens.engine import generate
from steerlens.models import HookedModel, is_bridge, stamp
from steerlens.steering import Injection, Placement, PromptPair, SteeringVector, actadd
from steerlens.steering.chats import Message
from steerlens.steering.placement import takes_one_position
from steerlens.steering.prompts import PromptLike

if TYPE_CHECKING:
    import pandas as pd

# Results kept: enough to drag a slider back and forth without running the model again.
_KEPT = 256


@dataclass(frozen=True)
class View:
    """What the explorer is set to; everything it shows is a function of this and the model.

    Attributes:
        pair, prompt, layer, coeff, placement: the vector, and the text that it steers. Placements that take
            one position (`"last"`, `"all"`, …) get the last of the pair's.
        words: next words that are followed, without their leading space; of one that is several tokens, the first.
        by: which tokens count as moved most (see `logit_shift`).
        measure: what is drawn against the layer (see `layer_effect`).
        n, max_new_tokens, seed: of the completions.
        chat: whether the prompt is a user's turn in a chat, which the model answers.
    """

    pair: PromptPair
    prompt: str
    layer: int
    coeff: float
    placement: Placement = "front"
    words: tuple[str, ...] = ()
    by: By = "kl"
    measure: str = "effectiveness"
    n: int = 3
    max_new_tokens: int = 40
    seed: int = 0
    chat: bool = False

    @property
    def one_position(self) -> bool:
        """Whether the placement takes a single row of the vector."""
        return takes_one_position(self.placement)

    @property
    def given(self) -> tuple[str, bool]:
        """What the prompt is a function of."""
        return self.prompt, self.chat

    @property
    def asked(self) -> PromptLike:
        """The prompt as the package's functions take it."""
        return [Message("user", self.prompt)] if self.chat else self.prompt

    @property
    def wanted(self) -> tuple[str, ...]:
        """The words as they follow a text: with a space in front."""
        return tuple(f" {word}" for word in self.words)

    @property
    def by_layer(self) -> tuple[Hashable, ...]:
        """What the figure by layer depends on: not on the layer that is chosen."""
        return (self.pair, self.given, self.coeff, self.placement, self.words, self.measure)

    @property
    def sampled(self) -> tuple[Hashable, ...]:
        """What the completions depend on: after a change of anything else they still hold."""
        return (
            *(self.pair, self.given, self.layer, self.coeff, self.placement),
            *(self.n, self.max_new_tokens, self.seed),
        )

    def code(self, model: HookedModel) -> str:
        """The Python lines that do the same."""
        pad = [] if self.pair.pad == "space" else [f"pad={_quoted(self.pair.pad)}"]
        place = self.placement if isinstance(self.placement, int) else _quoted(self.placement)
        placed = [] if self.placement == "front" else [f"placement={place}"]
        words = f"[{', '.join(map(_quoted, self.wanted))}]"
        coeff = _plain(self.coeff)
        lines = [
            "import steerlens as sl",
            "",
            _load_line(model),
            _call("pair = sl.PromptPair", _quoted(self.pair.positive), _quoted(self.pair.negative), *pad),
            f"prompt = {_quoted(self.prompt)}"
            if not self.chat
            else _call("prompt = ", f'{{"role": "user", "content": {_quoted(self.prompt)}}}', brackets="[]"),
            'vectors = sl.actadd(model, pair, layers="all")',
        ]
        if self.one_position:
            lines.append("vectors = {layer: vector.at(-1) for layer, vector in vectors.items()}")
        lines += [f"vector = {coeff} * vectors[{self.layer}]", ""]
        if self.words:
            lines.append(f"words = {words}")
        follow = ["follow=words", 'pieces="first"'] if self.words else []
        lines += [
            _call("shift = sl.logit_shift", "model", "prompt", "vector", f"by={_quoted(self.by)}", *follow, *placed),
            "shift.plot().show()",
            "",
        ]
        if self.words:
            asked = ["model", "vectors", "prompt", "words", f"coeffs={coeff}", 'pieces="first"', *placed]
            lines += [
                _call("effect = sl.layer_effect", *asked),
                f"effect.plot({_quoted(self.measure)}, mark_layer={self.layer}).show()",
                "",
            ]
        sampled = [f"n={self.n}", f"max_new_tokens={self.max_new_tokens}", f"seed={self.seed}", *placed]
        lines += [
            _call("completions = sl.generate", "model", "prompt", "[None, vector]", *sampled),
            'print(completions[["label", "completion"]])',
        ]
        return "\n".join(lines) + "\n"


class Numbers:
    """What the explorer shows, by view: computed by the package's own functions, and kept."""

    def __init__(self, model: HookedModel) -> None:
        self.model = model
        self._kept: dict[Hashable, Any] = {}

    def vectors(self, view: View) -> dict[int, SteeringVector]:
        """The vectors of all layers, coefficient 1, from one forward pass per pair."""
        found = self._once(("vectors", view.pair), lambda: actadd(self.model, view.pair, layers="all"))
        return {layer: vector.at(-1) for layer, vector in found.items()} if view.one_position else found

    def injection(self, view: View) -> Injection:
        """The vector of the view, at its place."""
        return Injection(view.coeff * self.vectors(view)[view.layer], view.placement)

    def shift(self, view: View) -> LogitShift:
        """`logit_shift` of the view."""
        key = ("shift", view.pair, view.given, view.layer, view.coeff, view.placement, view.words, view.by)
        return self._once(
            key,
            lambda: logit_shift(
                self.model, view.asked, self.injection(view), by=view.by, follow=view.wanted, pieces="first"
            ),
        )

    def effect(self, view: View) -> LayerEffect:
        """`layer_effect` of the view, whatever its layer."""
        key = ("effect", view.pair, view.given, view.coeff, view.placement, view.words)
        return self._once(
            key,
            lambda: layer_effect(
                self.model,
                self.vectors(view),
                view.asked,
                view.wanted,
                coeffs=view.coeff,
                placement=view.placement,
                pieces="first",
            ),
        )

    def completions(self, view: View) -> pd.DataFrame:
        """`generate` of the view, beside the unsteered model."""
        return self._once(
            ("completions", *view.sampled),
            lambda: generate(
                self.model,
                view.asked,
                [None, self.injection(view)],
                n=view.n,
                max_new_tokens=view.max_new_tokens,
                seed=view.seed,
                progress=False,
            ),
        )

    def _once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = compute()
            while len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept)))
        return self._kept[key]


def _load_line(model: HookedModel) -> str:
    """How this model is loaded, as far as it can be told from the model."""
    mark = stamp(model)
    options = "" if mark.folded else ", processing=False"
    if is_bridge(model):
        options += ", bridge=True"
    dtype = str(model.cfg.dtype).removeprefix("torch.")
    if dtype != "float32":
        options += f", dtype={_quoted(dtype)}"
    line = f"model = sl.load_model({_quoted(mark.name)}{options})"
    return line if mark.name == "demo" else f"{line}  # or the model that the explorer was given"


def _call(start: str, *arguments: str, brackets: str = "()") -> str:
    """A call (or a list) on one line, or its arguments on a line of their own where that would be too long."""
    begin, end = brackets[0], brackets[1]
    line = f"{start}{begin}{', '.join(arguments)}{end}"
    return line if len(line) <= 96 else f"{start}{begin}\n    {', '.join(arguments)},\n{end}"


def _quoted(text: str) -> str:
    """A Python string literal in double quotes (what JSON escapes, Python reads alike)."""
    return json.dumps(text, ensure_ascii=False)


def _plain(number: float) -> str:
    """A number as one writes it: 5 and not 5.0."""
    return str(int(number)) if number == int(number) else repr(number)
