"""Metrics of completions: functions of text, never of models."""

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlens.arguments import choice, flag, listed, shown, visible, whole_number
from steerlens.arguments import text as read_text
from steerlens.errors import SteerlensError

Completions: TypeAlias = Sequence[str] | pd.Series
Kind = Literal["share", "mean"]
Better = Literal["higher", "lower"]
"""Which way of a metric is success: that of most is up, that of toxic words, say, is down."""

# "weddings" is the list of the ActAdd paper (Turner et al., arXiv 2308.10248); the others are made in its manner.
TOPICS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "weddings": (
            "wedding", "weddings", "wed", "marry", "married", "marriage", "bride", "groom", "honeymoon",
        ),
        "war": (
            "war", "wars", "battle", "battles", "soldier", "soldiers", "army", "armies", "enemy", "enemies",
            "troops", "weapon", "weapons", "military", "bomb", "bombs", "invasion", "combat",
        ),
        "horror": (
            "horror", "horrors", "horrible", "terror", "scary", "scared", "fear", "monster", "monsters", "zombie",
            "zombies", "ghost", "ghosts", "blood", "bloody", "gore", "creepy", "nightmare", "haunted",
        ),
        "music": (
            "music", "musical", "song", "songs", "sing", "singing", "singer", "sang", "band", "bands", "album",
            "guitar", "piano", "melody", "concert", "tune", "tunes", "dance", "orchestra",
        ),
        "money": (
            "money", "cash", "dollar", "dollars", "rich", "pay", "paid", "bank", "banks", "price", "cost", "costs",
            "profit", "profits", "wealth", "income", "loan", "tax", "taxes", "budget",
        ),
        "love": (
            "love", "loves", "loved", "loving", "lover", "lovers", "beloved", "romance", "romantic", "kiss", "kissed",
            "heart", "hearts", "affection", "adore", "tender",
        ),
        "hate": (
            "hate", "hates", "hated", "hating", "hatred", "despise", "despised", "loathe", "loathed", "detest",
            "disgust", "disgusting", "contempt",
        ),
        "anger": (
            "angry", "anger", "furious", "fury", "rage", "mad", "outrage", "outraged", "annoyed", "irritated",
        ),
        "dogs": (
            "dog", "dogs", "puppy", "puppies", "hound", "hounds", "terrier", "spaniel", "bark", "barked", "barking",
            "leash", "canine",
        ),
        "cats": ("cat", "cats", "kitten", "kittens", "feline", "meow", "purr", "purring"),
        "food": (
            "food", "foods", "eat", "eating", "ate", "eaten", "meal", "meals", "dinner", "lunch", "breakfast", "cook",
            "cooked", "cooking", "bread", "meat", "soup", "cake", "delicious", "recipe",
        ),
        "religion": (
            "god", "gods", "church", "churches", "pray", "prayed", "prayer", "prayers", "faith", "bible", "holy",
            "priest", "religion", "religious", "jesus", "christ", "heaven",
        ),
        "sea": (
            "sea", "seas", "ocean", "oceans", "ship", "ships", "boat", "boats", "sail", "sailed", "sailing", "sailor",
            "sailors", "wave", "waves", "island", "shore", "harbour", "harbor", "captain",
        ),
        "family": (
            "family", "families", "mother", "father", "mom", "dad", "parent", "parents", "sister", "sisters",
            "brother", "brothers", "son", "sons", "daughter", "daughters", "child", "children",
        ),
        "death": (
            "death", "deaths", "die", "dies", "died", "dying", "dead", "kill", "killed", "killing", "grave", "funeral",
            "corpse", "murder", "murdered",
        ),
        "school": (
            "school", "schools", "student", "students", "teacher", "teachers", "class", "classes", "college",
            "university", "lesson", "lessons", "study", "homework", "exam", "exams",
        ),
        "sports": (
            "sport", "sports", "game", "games", "team", "teams", "player", "players", "coach", "ball", "football",
            "baseball", "basketball", "soccer", "league", "championship",
        ),
        "science": (
            "science", "sciences", "scientist", "scientists", "scientific", "physics", "chemistry", "biology",
            "experiment", "experiments", "theory", "theories", "laboratory", "research",
        ),
        "praise": (
            "great", "good", "excellent", "wonderful", "amazing", "brilliant", "superb", "fantastic", "best",
            "beautiful", "perfect", "enjoyed", "masterpiece", "delightful", "terrific",
        ),
        "complaint": (
            "bad", "awful", "terrible", "horrible", "worst", "worse", "boring", "poor", "stupid", "waste", "dull",
            "disappointing", "ridiculous", "lame", "annoying",
        ),
    }
)  # fmt: skip

# A metric becomes a column beside these, of completions, summaries and stores; see `Metric.column`.
RESERVED_NAMES = frozenset(
    {"condition", "label", "role", "layer", "coeff", "placement", "prompt", "sample", "completion", "n_tokens"}
    | {"finished", "surprise", "seed", "metric", "kind", "n", "mean", "low", "high", "value", "sweep"}
    | {"model", "weights", "what", "max_new_tokens", "temperature", "top_k", "top_p", "frequency_penalty"}
)

# Letters and digits make words; the underscore does not, because plain-text books write emphasis as _so_.
_LETTER = r"[^\W_]"
_MARKS = r"\u0300-\u036f"  # combining accents: "cafe" must not match inside a decomposed "café"
_WORD = re.compile(rf"{_LETTER}[{_MARKS}]*(?:[^\W_]|[{_MARKS}])*(?:['’]{_LETTER}(?:[^\W_]|[{_MARKS}])*)*")


@dataclass(frozen=True)
class Metric:
    """A named number per completion.

    `function` takes a sequence of n completions and gives n floats: 0 or 1 for kind "share", any number for kind
    "mean", NaN where the metric is not defined for a completion. `marked` are the words that figures highlight.
    `better` says which way is success: what is called the best, the front, and verdicts go by it.
    Calling the metric calls the function and checks what comes back.
    """

    name: str
    kind: Kind
    function: Callable[[list[str]], Float[np.ndarray, " completion"]]
    marked: tuple[str, ...] = ()
    better: Better = "higher"

    def __post_init__(self) -> None:
        choice("better", self.better, ("higher", "lower"))
        if not isinstance(self.kind, str) or self.kind not in ("share", "mean"):
            raise SteerlensError(f'metric kind {shown(self.kind)} is unknown; use "share" or "mean"')
        if not read_text("a metric's name", self.name).strip():
            raise SteerlensError("a metric has an empty name; pass name=")
        if not callable(self.function):
            raise SteerlensError(f"metric {self.name!r} needs a function of texts, got {shown(self.function)}")
        marked = [read_text("a marked word", word) for word in listed("marked", self.marked, of="words")]
        object.__setattr__(self, "marked", tuple(marked))
        object.__setattr__(self, "name", visible(self.name))

    @property
    def column(self) -> str:
        """Its column in a frame of completions: its name, told apart where that is another column's ("kind")."""
        return f"{self.name} (metric)" if self.name in RESERVED_NAMES else self.name

    def __call__(self, completions: Completions) -> Float[np.ndarray, " completion"]:
        """One float per completion, [n]. Raises on anything that is not text, and on a function that miscounts."""
        texts = _texts(completions)
        values = np.asarray(self.function(texts), dtype=np.float64)
        if values.shape != (len(texts),):
            raise SteerlensError(
                f"metric {self.name!r} gave shape {values.shape} for {len(texts)} completions; one each"
            )
        if self.kind == "share" and not np.isin(values[~np.isnan(values)], (0.0, 1.0)).all():
            raise SteerlensError(f'metric {self.name!r} is a share but gave values other than 0 and 1; use kind="mean"')
        return values

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Places `(start, end)` of the marked words in `text`, in order and without overlap; [] if none are marked."""
        return spans(text, self.marked)


def words(*words: str, name: str | None = None, literal: bool = False, better: Better = "higher") -> Metric:
    """Share of completions that contain any of the words: whole words, upper and lower case alike.

    ONE word that names a list in `TOPICS` means that whole list: `words("weddings")` counts wedding, bride, married …
    Two or more words, or `literal=True`, are taken as they stand: `words("cat", "dog")`, `words("war", literal=True)`.
    `topic(...)` takes nothing but a list name. A word may hold several ("civil war": any white space between).
    Hyphens, apostrophes and underscores end a word, so "dog" is found in "dog's" and "_dog_", not in "dogs" or
    "dogma". `better="lower"` where the words are to go away.
    """
    chosen, default = _chosen(words, literal)
    return Metric(_named(name, default), "share", _ContainsAny(chosen), chosen, better)


def topic(topic: str, *, name: str | None = None, better: Better = "higher") -> Metric:
    """Share of completions with a word of the list `TOPICS[topic]`; an unknown name is a SteerlensError."""
    if not isinstance(topic, str) or topic not in TOPICS:
        near = difflib.get_close_matches(str(topic), TOPICS, n=3, cutoff=0.5) or sorted(TOPICS)
        raise SteerlensError(
            f"topic {shown(topic)} is unknown; use one of {', '.join(near)}, or words(...) with your own words"
        )
    return words(*TOPICS[topic], name=_named(name, topic), literal=True, better=better)


def word_count(*words: str, name: str | None = None, literal: bool = False, better: Better = "higher") -> Metric:
    """Mean number of the given words per completion, repeats counted; words and lists are chosen as in `words`."""
    chosen, default = _chosen(words, literal)
    return Metric(_named(name, f"{default} count"), "mean", _CountWords(chosen), chosen, better)


def length(
    unit: Literal["words", "characters"] = "words", *, name: str | None = None, better: Better = "higher"
) -> Metric:
    """Mean length of a completion in words or characters (tokens are the column n_tokens of the frame)."""
    choice("unit", unit, ("words", "characters"))
    return Metric(_named(name, f"length in {unit}"), "mean", _Length(unit), better=better)


def distinct_n(n: int = 2, *, name: str | None = None) -> Metric:
    """Mean share of a completion's word n-grams that differ: 1 is no repeat, near 0 a loop.

    NaN for completions of fewer than n words. Source: Li et al. 2016 (distinct-n), taken per completion.
    """
    n = whole_number("n (of n-grams)", n, least=1)
    return Metric(_named(name, f"distinct-{n}"), "mean", _Distinct(n))


def repetition(window: int = 16, *, name: str | None = None) -> Metric:
    """Mean share of a completion's words that already stand among the `window` words before them: 0 is no repeat.

    NaN for completions without a word. Source: Welleck et al. 2020 (rep/l), on words in place of tokens.
    """
    window = whole_number("window", window, least=1)
    return Metric(_named(name, "repetition"), "mean", _Repetition(window), better="lower")


def spans(text: str, words: Iterable[str]) -> list[tuple[int, int]]:
    """Places `(start, end)` of any of the words in `text`, in order, without overlap, the longer word first."""
    read_text("text", text)
    chosen = tuple(read_text("a word", word) for word in listed("words", words, of="words"))
    return [match.span() for match in _pattern(chosen).finditer(text)] if chosen else []


@dataclass(frozen=True)
class _ContainsAny:
    words: tuple[str, ...]

    def __call__(self, texts: list[str]) -> Float[np.ndarray, " completion"]:
        pattern = _pattern(self.words)
        return np.array([pattern.search(text) is not None for text in texts], dtype=np.float64)


@dataclass(frozen=True)
class _CountWords:
    words: tuple[str, ...]

    def __call__(self, texts: list[str]) -> Float[np.ndarray, " completion"]:
        pattern = _pattern(self.words)
        return np.array([sum(1 for _ in pattern.finditer(text)) for text in texts], dtype=np.float64)


@dataclass(frozen=True)
class _Length:
    unit: str

    def __call__(self, texts: list[str]) -> Float[np.ndarray, " completion"]:
        if self.unit == "characters":
            return np.array([len(text) for text in texts], dtype=np.float64)
        return np.array([len(_split(text)) for text in texts], dtype=np.float64)


@dataclass(frozen=True)
class _Distinct:
    n: int

    def __call__(self, texts: list[str]) -> Float[np.ndarray, " completion"]:
        return np.array([self._one(_split(text)) for text in texts], dtype=np.float64)

    def _one(self, tokens: list[str]) -> float:
        grams = [tuple(tokens[start : start + self.n]) for start in range(len(tokens) - self.n + 1)]
        return len(set(grams)) / len(grams) if grams else np.nan


@dataclass(frozen=True)
class _Repetition:
    window: int

    def __call__(self, texts: list[str]) -> Float[np.ndarray, " completion"]:
        return np.array([self._one(_split(text)) for text in texts], dtype=np.float64)

    def _one(self, tokens: list[str]) -> float:
        seen = [token in tokens[max(0, index - self.window) : index] for index, token in enumerate(tokens)]
        return sum(seen) / len(seen) if seen else np.nan


def _named(name: str | None, default: str) -> str:
    return default if name is None or (isinstance(name, str) and not name) else read_text("name", name)


def _chosen(given: tuple[str, ...], literal: bool) -> tuple[tuple[str, ...], str]:
    """The words to look for and the name they go by."""
    literal = flag("literal", literal)
    if any(not isinstance(word, str) for word in given):
        raise SteerlensError(
            'words are given one by one, as in words("cat", "dog"); unpack a list with words(*your_list)'
        )
    if not given:
        raise SteerlensError('no words were given; pass at least one, as in words("cat", "dog") or words("weddings")')
    if any(not word.strip() for word in given):
        raise SteerlensError("one of the words is empty or only white space; give words with letters")
    if len(given) == 1 and not literal and given[0].strip() in TOPICS:
        return TOPICS[given[0].strip()], given[0].strip()
    chosen = tuple(dict.fromkeys(word.strip() for word in given))  # order kept, repeats dropped
    shown = ", ".join(chosen[:3]) + (f" +{len(chosen) - 3}" if len(chosen) > 3 else "")
    return chosen, shown


def _texts(completions: Completions) -> list[str]:
    if isinstance(completions, str):
        raise SteerlensError("one string was given where a sequence of completions is needed; wrap it in a list")
    texts = listed("completions", completions, of="texts")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise SteerlensError(f"completion {index} is {shown(text)}, not text; remove missing completions first")
    return texts


def _split(text: str) -> list[str]:
    return [word.casefold().replace("’", "'") for word in _WORD.findall(unicodedata.normalize("NFC", text))]


@lru_cache(maxsize=256)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    # Both composed and decomposed accents are looked for, rather than normalising the text: spans must index the
    # text as it was given. Longest first, so that "wedding dress" wins over "wedding".
    forms = {unicodedata.normalize(form, word) for word in words for form in ("NFC", "NFD")}
    branches = "|".join(_as_regex(form) for form in sorted(forms, key=lambda form: (-len(form), form)))
    return re.compile(rf"(?<![^\W_])(?:{branches})(?![^\W_]|[{_MARKS}])", re.IGNORECASE)


def _as_regex(word: str) -> str:
    pieces = [re.sub("['’]", "['’]", re.escape(piece)) for piece in word.split()]
    return r"\s+".join(pieces)
