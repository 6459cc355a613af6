"""`Splitter`: documents into sentences by Punkt (Kiss and Strunk 2006), as nltk has it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from steerlens.errors import SteerlensError

Parameters = Literal["auto", "english", "corpus"]

# A small sample may hold "Mr" both with and without its full stop, and then Punkt does not take it for an abbreviation.
_TITLES = "mr mrs ms messrs dr st prof rev hon capt col gen lieut lt sgt jr sr".split()

SAMPLE_CHARACTERS = 1_000_000
"""As much text as Punkt is trained on where its English parameters are missing: a second or two of work."""


@dataclass(frozen=True, eq=False)
class Splitter:
    """Sentences of a text.

    Attributes:
        description: which parameters, for settings.
        identity: the same so exactly that equal identities split equally.
        split: a text to its sentences, in order.
    """

    description: str
    identity: str
    split: Callable[[str], list[str]]

    def __call__(self, text: str) -> list[str]:
        return [sentence for sentence in self.split(text) if sentence.strip()]


def splitter(sample: Sequence[str], parameters: Parameters = "auto") -> Splitter:
    """The splitter to use for documents of which `sample` are some.

    Args:
        sample: documents to train on, if need be; only the first `SAMPLE_CHARACTERS` characters are.
        parameters: `"english"` are those that nltk's data bring (`nltk.download("punkt_tab")`), as in the paper's
            scripts; `"corpus"` are trained on the sample, without a network, and know Mr., Mrs., Dr. and the like;
            `"auto"` takes the English ones where nltk finds them.

    Raises:
        SteerlensError: unknown parameters, English ones asked for and not found, an empty sample to train on.
    """
    if parameters not in ("auto", "english", "corpus"):
        raise SteerlensError(f"sentences={parameters!r} is unknown; use 'auto', 'english' or 'corpus'")
    if parameters != "corpus":
        found = _english()
        if found is not None:
            return found
        if parameters == "english":
            raise SteerlensError(
                "nltk does not find Punkt's English parameters; run nltk.download('punkt_tab'), or use "
                "sentences='corpus' to train Punkt on the documents"
            )
    return _trained(sample)


def _english() -> Splitter | None:
    from nltk.tokenize.punkt import PunktTokenizer

    try:
        tokenizer = PunktTokenizer("english")
    except LookupError:
        return None
    return Splitter("Punkt, English parameters of nltk", "punkt english", tokenizer.tokenize)


def _trained(sample: Sequence[str]) -> Splitter:
    from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTrainer

    text, n = sample_text(sample)
    if not text.strip():
        raise SteerlensError("there is no text to train Punkt on; give documents that hold some")
    trainer = PunktTrainer()
    trainer.INCLUDE_ALL_COLLOCS = True
    trainer.train(text, finalize=True)
    parameters = trainer.get_params()
    parameters.abbrev_types.update(_TITLES)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return Splitter(
        f"Punkt, trained on {len(text):,} characters of the documents (the first {n}), English titles added",
        f"punkt {digest}",
        PunktSentenceTokenizer(parameters).tokenize,
    )


def sample_text(sample: Sequence[str]) -> tuple[str, int]:
    """The text that Punkt is trained on, and how many documents of the sample it holds."""
    parts: list[str] = []
    room = SAMPLE_CHARACTERS
    for document in sample:
        if room <= 0:
            break
        parts.append(document[:room])
        room -= len(parts[-1])
    return "\n\n".join(parts), len(parts)
