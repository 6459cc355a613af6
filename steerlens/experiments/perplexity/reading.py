"""`Corpus`: documents read one chunk at a time, the first of them set aside to train the sentence splitter on."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from steerlens.errors import SteerlensError
from steerlens.experiments.perplexity.documents import Documents
from steerlens.experiments.perplexity.sentences import SAMPLE_CHARACTERS, Parameters, Splitter, splitter

Texts = list[str | None]


@dataclass(eq=False)
class Corpus:
    """Documents that are read once.

    Attributes:
        split: sentences of a text.
    """

    source: Documents
    split: Splitter
    _sample: Texts
    _rest: Iterator[str | None]

    @staticmethod
    def of(source: Documents, sentences: Parameters | Splitter) -> Corpus:
        """The documents of a source, and the splitter that fits them.

        Raises:
            SteerlensError: no text in the first documents, a splitter that is not there.
        """
        texts = iter(source)
        sample = list(_characters(texts, SAMPLE_CHARACTERS))
        some = [text for text in sample if text and text.strip()]
        if not some:
            raise SteerlensError(
                f"{source.name}: there is no text in the documents; give others, or name another column="
            )
        split = sentences if isinstance(sentences, Splitter) else splitter(some, sentences)
        return Corpus(source, split, sample, texts)

    def chunks(self, size: int) -> Iterator[Texts]:
        """All documents in order, `size` at a time."""
        documents = itertools.chain(self._sample, self._rest)
        self._sample = []
        while part := list(itertools.islice(documents, size)):
            yield part


def digest(texts: Sequence[str | None]) -> str:
    """32 hexadecimal digits that stand for the texts."""
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).hexdigest()


def _characters(texts: Iterator[str | None], most: int) -> Iterator[str | None]:
    """The first documents, until they hold so many characters together."""
    seen = 0
    for text in texts:
        yield text
        seen += len(text or "")
        if seen >= most:
            return
