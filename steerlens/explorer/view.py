"""What the explorer is set to, and the Python lines that do the same."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass

from steerlens.analysis.logit_shift import By
from steerlens.explorer.contrasts import Method, code_of
from steerlens.models import HookedModel, load_code, stamp
from steerlens.steering import Placement, PromptPair
from steerlens.steering.chats import Message
from steerlens.steering.placement import takes_one_position
from steerlens.steering.prompts import PromptLike


@dataclass(frozen=True)
class View:
    """What the explorer is set to; everything it shows is a function of this and the model.

    Attributes:
        pair, prompt, layer, coeff, placement: the vector, and the text that it steers. Placements that take
            one position (`"last"`, `"all"`, …) get the last of the pair's. Of an empty pair there is None.
        words: next words that are followed, without their leading space; each must be one token of the model.
        by: which tokens count as moved most (see `logit_shift`).
        measure: what is drawn against the layer (see `layer_effect`).
        n, max_new_tokens, seed: of the completions.
        chat, system: whether the prompt is a user's turn in a chat, which the model answers; what the system says.
        method, contrast: how the vector is made; methods other than `"actadd"` take the shipped contrast set.
    """

    pair: PromptPair | None
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
    system: str = ""
    method: Method = "actadd"
    contrast: str = "weddings"

    @property
    def one_position(self) -> bool:
        """Whether the placement takes a single row of the vector."""
        return takes_one_position(self.placement)

    @property
    def given(self) -> tuple[Hashable, ...]:
        """What the prompt is a function of."""
        return (self.prompt, self.chat, self.system if self.chat else "")

    @property
    def made(self) -> tuple[Hashable, ...]:
        """What the vectors of all layers are a function of."""
        return (self.method, self.pair if self.method == "actadd" else self.contrast)

    @property
    def asked(self) -> PromptLike:
        """The prompt as the package's functions take it."""
        if not self.chat:
            return self.prompt
        system = [Message("system", self.system)] if self.system else []
        return [*system, Message("user", self.prompt)]

    @property
    def wanted(self) -> tuple[str, ...]:
        """The words as they follow a text: with a space in front."""
        return tuple(f" {word}" for word in self.words)

    @property
    def by_layer(self) -> tuple[Hashable, ...]:
        """What the figures by layer depend on: not on the layer that is chosen."""
        return (self.made, self.given, self.coeff, self.placement, self.words)

    @property
    def sampled(self) -> tuple[Hashable, ...]:
        """What the completions depend on: after a change of anything else they still hold."""
        return (
            *(self.made, self.given, self.layer, self.coeff, self.placement),
            *(self.n, self.max_new_tokens, self.seed),
        )

    def code(self, model: HookedModel) -> str:
        """The Python lines that do the same."""
        place = self.placement if isinstance(self.placement, int) else _quoted(self.placement)
        placed = [f"placement={place}"]
        words = f"[{', '.join(map(_quoted, self.wanted))}]"
        coeff = _plain(self.coeff)
        imports, making = ([], self._pair_lines()) if self.method == "actadd" else code_of(self.method, self.contrast)
        loading = load_code(model, folded=stamp(model).folded)
        lines = ["import steerlens as sl", *imports, "", loading, *self._prompt_lines(), *making]
        if self.one_position and self.method == "actadd":
            lines.append("vectors = {layer: vector.at(-1) for layer, vector in vectors.items()}")
        lines += [f"vector = {coeff} * vectors[{self.layer}]", ""]
        if self.words:
            lines.append(f"words = {words}")
        follow = ["follow=words"] if self.words else []
        lines += [
            _call("shift = sl.logit_shift", "model", "prompt", "vector", f"by={_quoted(self.by)}", *follow, *placed),
            "shift.plot().show()",
            "",
        ]
        if self.words:
            lines += [
                _call("effect = sl.layer_effect", "model", "vectors", "prompt", "words", f"coeffs={coeff}", *placed),
                f"effect.plot({_quoted(self.measure)}, mark_layer={self.layer}).show()",
                "effect.plot_damage().show()",
                "",
            ]
        sampled = [f"n={self.n}", f"max_new_tokens={self.max_new_tokens}", f"seed={self.seed}", "surprise=True"]
        lines += [
            _call("completions = sl.generate", "model", "prompt", "[None, vector]", *sampled, *placed),
            'print(completions[["label", "completion"]])',
        ]
        return "\n".join(lines) + "\n"

    def _pair_lines(self) -> list[str]:
        assert self.pair is not None
        pad = [] if self.pair.pad == "space" else [f"pad={_quoted(self.pair.pad)}"]
        return [
            _call("pair = sl.PromptPair", _quoted(self.pair.positive), _quoted(self.pair.negative), *pad),
            'vectors = sl.actadd(model, pair, layers="all")',
        ]

    def _prompt_lines(self) -> list[str]:
        if not self.chat:
            return [f"prompt = {_quoted(self.prompt)}"]
        turns = [("system", self.system)] * bool(self.system) + [("user", self.prompt)]
        said = [f'{{"role": "{role}", "content": {_quoted(content)}}}' for role, content in turns]
        return [_call("prompt = ", *said, brackets="[]")]


def split_words(words: str) -> tuple[str, ...]:
    """The words of a line separated by commas, each once."""
    return tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))


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
