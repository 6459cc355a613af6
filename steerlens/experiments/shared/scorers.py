"""Scorers: texts in, probabilities out. Two small ones ship with the package; any Hugging Face classifier will do.

A scorer is a function from texts to one probability each. It may have a `name`, for the settings, and a `key`, which
stands for everything that its answers depend on: with a key, finished scores are kept in a store.
"""

from __future__ import annotations

import hashlib
import html
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from steerlens import demo
from steerlens.errors import SteerlensError

Probabilities = NDArray[np.float64]
Shipped = Literal["sentiment", "toxicity"]

_FOLDER = demo.SCORERS
# What the two sources write around their words: line breaks of reviews; retweets, users and links of tweets.
_MARKUP = re.compile(r"<br\s*/?>|https?://\S+|www\.\S+|@\w+|\brt\b|&#?\w+;")
_TOKEN = re.compile(r"[a-z*]+(?:'[a-z]+)?|\d+(?:/\d+)?|[!?]")


@runtime_checkable
class Scorer(Protocol):
    """Anything that maps n texts to n probabilities."""

    def __call__(self, texts: Sequence[str], /) -> Any: ...


def tokens_of(text: str) -> list[str]:
    """The words, numbers and ! ? of a text in lower case, without line breaks, links, users and retweet marks."""
    plain = html.unescape(text).lower().replace("’", "'")
    return _TOKEN.findall(_MARKUP.sub(" ", plain))


def buckets_of(tokens: Sequence[str], *, longest: int, pieces: Sequence[int] = (), size: int) -> NDArray[np.int64]:
    """The distinct buckets of a text's features, sorted: crc32 of each, modulo `size`.

    Features are the n-grams of words, n = 1 … `longest`, joined by spaces; and, for each length in `pieces`, the runs
    of so many characters within "#word#", with "~" in front (spelling variants and compounds share them).
    """
    found = {
        zlib.crc32(" ".join(tokens[start : start + n]).encode()) % size
        for n in range(1, longest + 1)
        for start in range(len(tokens) - n + 1)
    }
    if pieces:
        for token in set(tokens):
            marked = f"#{token}#"
            for n in pieces:
                found.update(
                    zlib.crc32(f"~{marked[start : start + n]}".encode()) % size for start in range(len(marked) - n + 1)
                )
    return np.array(sorted(found), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class HashedNgramScorer:
    """A linear model on hashed features: `p = σ(bias + Σ w[b] / √m)` over the m distinct buckets b of a text.

    The root keeps long and short texts on one scale. A text without a word has the probability `σ(bias)`.

    Attributes:
        weights: one per bucket (int8 in the file, times `scale`).
        bias: the offset.
        longest, pieces: which features; see `buckets_of`.
        name: for settings and tables.
        key: of the weights.
    """

    weights: NDArray[np.float32]
    bias: float
    longest: int
    pieces: tuple[int, ...] = ()
    name: str = "linear model on hashed n-grams"
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            digest = hashlib.blake2b(np.ascontiguousarray(self.weights, dtype="<f4").tobytes(), digest_size=8)
            digest.update(repr((float(self.bias), int(self.longest), tuple(self.pieces))).encode())
            object.__setattr__(self, "key", f"hashed n-grams {digest.hexdigest()}")

    def __call__(self, texts: Sequence[str], /) -> Probabilities:
        logits = np.array([self.logit(text) for text in texts], dtype=np.float64)
        return 1.0 / (1.0 + np.exp(-logits))

    def logit(self, text: str) -> float:
        """The log-odds of one text."""
        return self.logit_of_tokens(tokens_of(text))

    def logit_of_tokens(self, tokens: Sequence[str]) -> float:
        """The log-odds of a text that `tokens_of` has cut."""
        buckets = buckets_of(tokens, longest=self.longest, pieces=self.pieces, size=len(self.weights))
        return self.bias + float(self.weights[buckets].sum(dtype=np.float64)) / max(len(buckets), 1) ** 0.5

    def save(self, path: str | Path) -> Path:
        """Writes one .npz file (weights as int8) and returns its path. The file is the same for the same weights."""
        scale = float(np.abs(self.weights).max()) / 127 or 1.0
        arrays: dict[str, Any] = {
            "weights": np.round(self.weights / scale).astype(np.int8),
            "scale": np.float32(scale),
            "bias": np.float32(self.bias),
            "longest": np.int32(self.longest),
            "pieces": np.array(self.pieces, dtype=np.int32),
        }
        target = Path(path)
        with target.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return target

    @staticmethod
    def load(path: str | Path, *, name: str | None = None) -> HashedNgramScorer:
        """The scorer in a file that `save` wrote.

        Raises:
            SteerlensError: no such file, or not such a file.
        """
        place = Path(path)
        try:
            with np.load(place, allow_pickle=False) as arrays:
                weights = arrays["weights"].astype(np.float32) * np.float32(arrays["scale"])
                features = int(arrays["longest"]), tuple(arrays["pieces"].tolist())
                return HashedNgramScorer(weights, float(arrays["bias"]), *features, name=name or place.stem)
        except FileNotFoundError:
            raise SteerlensError(
                f"there is no scorer at {place}; give a file that HashedNgramScorer.save wrote"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise SteerlensError(
                f"{place} is no scorer ({error}); give a file that HashedNgramScorer.save wrote"
            ) from None


def shipped_scorer(name: Shipped) -> HashedNgramScorer:
    """The scorer that ships with the package: "sentiment" (positive film review) or "toxicity".

    The card beside the weights says what each was trained on and how good it is.
    """
    if name not in ("sentiment", "toxicity"):
        raise SteerlensError(f"no scorer {name!r} ships with the package; use 'sentiment' or 'toxicity'")
    return HashedNgramScorer.load(_FOLDER / f"{name}.npz", name=f"shipped {name} scorer")


@dataclass(frozen=True, eq=False)
class HuggingFaceScorer:
    """A Hugging Face sequence classifier; the probability of one of its labels. Made by `hugging_face_scorer`."""

    name: str
    key: str
    label: str
    _probabilities: Callable[[Sequence[str]], Probabilities]

    def __call__(self, texts: Sequence[str], /) -> Probabilities:
        return self._probabilities(texts)


def hugging_face_scorer(
    name: str, *, label: str | int | None = None, batch_size: int = 32, device: str | None = None
) -> HuggingFaceScorer:
    """The probability that a Hugging Face sequence classifier gives to one of its labels.

    Args:
        name: a model's name on the hub, or its directory.
        label: the label's name (case does not matter) or number. Without it, "positive", "pos", "toxic" or "toxicity",
            whichever the classifier has.
        batch_size, device: how it runs.

    Raises:
        SteerlensError: it cannot be loaded (no such name, no network), or has no such label; the message lists those
            that it has.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        classifier = AutoModelForSequenceClassification.from_pretrained(name)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise SteerlensError(
            f"cannot load the classifier {name!r} ({_first_line(error)}); download it and give its directory, or leave "
            "scorer out to use the shipped one"
        ) from None
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    classifier = classifier.eval().to(place)
    labels = {int(number): str(text) for number, text in classifier.config.id2label.items()}
    chosen = _which_label(name, labels, label)
    several = classifier.config.problem_type == "multi_label_classification" or len(labels) == 1
    longest = min(int(getattr(tokenizer, "model_max_length", 512) or 512), 512)

    @torch.no_grad()
    def probabilities(texts: Sequence[str]) -> Probabilities:
        found = []
        for start in range(0, len(texts), batch_size):
            # An empty text is a text too; some tokenizers make nothing of it.
            batch = [text or " " for text in texts[start : start + batch_size]]
            rows = tokenizer(batch, padding=True, truncation=True, max_length=longest, return_tensors="pt").to(place)
            logits = classifier(**rows).logits.float()
            each = logits.sigmoid() if several else logits.softmax(-1)
            found.append(each[:, chosen].cpu().double().numpy())
        return np.concatenate(found) if found else np.zeros(0)

    commit = getattr(classifier.config, "_commit_hash", None)
    # A directory may change under its name: without a commit nothing is kept between runs.
    key = f"{name} {commit} {labels[chosen]}" if commit else ""
    return HuggingFaceScorer(f"{name}, label {labels[chosen]}", key, labels[chosen], probabilities)


def probabilities(scorer: Scorer, texts: Sequence[str]) -> Probabilities:
    """The checked answer of a scorer: one probability for each text.

    Raises:
        SteerlensError: it failed (the message names the scorer and the reason), or its answer is not of that kind.
    """
    try:
        found = np.asarray(scorer(list(texts)), dtype=np.float64)
    except SteerlensError:
        raise
    except Exception as error:
        # Whatever it was: the texts are kept by now, and this line says so.
        raise SteerlensError(
            f"the scorer {scorer_name(scorer)!r} failed ({type(error).__name__}: {_first_line(error)}); with store= "
            "the completions are kept, and a run with a working scorer resumes from them"
        ) from error
    if found.shape != (len(texts),):
        raise SteerlensError(
            f"the scorer {scorer_name(scorer)!r} gave an array of shape {found.shape} for {len(texts)} texts; "
            "it must give one probability for each"
        )
    wrong = ~((found >= 0) & (found <= 1))
    if wrong.any():
        raise SteerlensError(
            f"the scorer {scorer_name(scorer)!r} gave {found[wrong][0]:g}; probabilities lie between 0 and 1"
        )
    return found


def scorer_name(scorer: Scorer) -> str:
    """Its name for settings and messages."""
    return str(getattr(scorer, "name", "") or getattr(scorer, "__qualname__", "") or type(scorer).__name__)


def _which_label(name: str, labels: dict[int, str], label: str | int | None) -> int:
    listed = ", ".join(f"{number}: {text}" for number, text in labels.items())
    if isinstance(label, int) and label in labels:
        return label
    wanted = [label] if isinstance(label, str) else ["positive", "pos", "toxic", "toxicity"] if label is None else []
    for one in wanted:
        for number, text in labels.items():
            if text.lower() == one.lower():
                return number
    asked = f"has no label {label!r}" if label is not None else "has several labels and none with a telling name"
    raise SteerlensError(f"the classifier {name!r} {asked}; its labels are {listed}; give one of them as label=")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
