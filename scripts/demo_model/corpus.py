"""From parquet files to token files: documents, held-out split, byte-level BPE, and the mix of training windows.

The corpus is stored once as one stream of token ids; the mix (which windows are drawn how often) is decided when
training starts, so it can change between runs without tokenising again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm

END_OF_TEXT = "<|endoftext|>"
HELD_OUT_REVIEWS = 2000
HELD_OUT_BOOKS = 4
HELD_OUT_WEB_SHARE = 0.03

# Words of the demo's own topic. Windows that begin at one are drawn on purpose: a word that the model has hardly seen
# has no direction to steer along.
TOPIC_WORDS = ("wedding", "weddings", "wed", "marry", "married", "marriage", "marriages", "bride", "groom", "honeymoon")

# Share of the training windows by source.
DEFAULT_MIX = {
    "imdb": 0.40,
    "books": 0.33,
    "etiquette-1922": 0.06,
    "tinystories": 0.06,
    "african-storybook": 0.01,
    "webtext": 0.05,
    "webtext-short": 0.015,
    "c4": 0.025,
    "c4-cut": 0.015,
    "onestop": 0.015,
    "openstax-sociology": 0.01,
    "digitalgov": 0.005,
    "recipes": 0.005,
}

# Share of the training windows by where they begin: at a paragraph or document; at a sentence; anywhere; right at a
# word that comes back at least twice in the window (what the text is about, as far as counting can tell); right at a
# topic word. Steering adds its vector at the start of a text, so the model must have learnt that the first token can
# be a word of content, and that the text then is about it. Drawing more topic windows that begin elsewhere was tried:
# it makes the model talk of the topic unasked.
START_SHARES = {"paragraph": 0.22, "sentence": 0.20, "anywhere": 0.24, "keyword": 0.14, "topic": 0.20}
# Reviews mention weddings in passing, as part of a plot; stories and the etiquette book stay with them.
TOPIC_SHARE_OF_REVIEWS = 0.4  # of what the mix gives them
COMMON_TOKENS = 400  # as frequent as these, a token is no keyword
ANYWHERE_STARTS = 2_000_000

# Windows-1252 punctuation that the reviews carry as C1 control characters.
_CP1252 = {
    code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
_TOPIC = re.compile(rf"\b(?:{'|'.join(TOPIC_WORDS)})\b", re.IGNORECASE)


def read_documents(data: Path) -> pd.DataFrame:
    """One row per document: `source`, `group` (what is held out together), `text`, `held_out` (bool).

    Held out are 2,000 test reviews, 4 whole books and 3 % of the web documents. Training documents that share a long
    paragraph opening with a held-out document are dropped, so the held-out loss is no memory test.
    """
    parts = []
    for split in ("train", "test", "unsup"):
        frame = pd.read_parquet(data / "imdb" / f"{split}.parquet", columns=["text"])
        text = frame.text.str.replace(r"\s*<br\s*/?>\s*", "\n", regex=True).map(lambda t: t.translate(_CP1252).strip())
        parts.append(
            pd.DataFrame({"source": "imdb", "group": [f"{split}-{i}" for i in range(len(frame))], "text": text})
        )
    books = pd.read_parquet(data / "books" / "chapters.parquet", columns=["title", "text"])
    parts.append(pd.DataFrame({"source": "books", "group": books.title, "text": books.text}))
    web = pd.read_parquet(data / "web" / "docs.parquet", columns=["source", "text"])
    parts.append(pd.DataFrame({"source": web.source, "group": [f"web-{i}" for i in range(len(web))], "text": web.text}))
    documents = pd.concat(parts, ignore_index=True)

    # A fixed seed of its own: the held-out documents must stay the same whatever --seed is.
    rng = np.random.default_rng(20231)
    tests = documents.group[documents.group.str.startswith("test-")]
    titles = np.sort(books.title.unique())
    reviews = rng.choice(tests, min(HELD_OUT_REVIEWS, len(tests) // 2), replace=False)
    novels = rng.choice(titles, min(HELD_OUT_BOOKS, len(titles) // 2), replace=False)
    pages = rng.choice(
        documents.group[documents.group.str.startswith("web-")], int(HELD_OUT_WEB_SHARE * len(web)), replace=False
    )
    documents["held_out"] = documents.group.isin({*reviews, *novels, *pages})

    seen = {opening for text in documents.text[documents.held_out] for opening in _openings(text)}
    repeated = ~documents.held_out & documents.text.map(
        lambda text: any(opening in seen for opening in _openings(text))
    )
    return documents[~repeated].reset_index(drop=True)


def _openings(text: str) -> Iterator[str]:
    """The first 60 characters of every paragraph that is at least that long."""
    return (line.strip()[:60] for line in text.split("\n") if len(line.strip()) >= 60)


def train_tokenizer(documents: pd.DataFrame, vocab_size: int, seed: int = 0) -> Tokenizer:
    """Byte-level BPE trained on a sample of the weighted mix; token 0 is the end of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_sample(documents, seed, characters=60_000_000), trainer)
    return tokenizer


def _tokenizer_sample(documents: pd.DataFrame, seed: int, characters: int) -> Iterator[str]:
    """Paragraphs in the proportions of the training mix, topic paragraphs repeated as their windows are."""
    rng = np.random.default_rng(seed)
    train = documents[~documents.held_out]
    for source, share in DEFAULT_MIX.items():
        texts = train.text[train.source == source].to_numpy()
        budget = share * characters
        while budget > 0 and len(texts):
            for index in rng.permutation(len(texts)):
                for paragraph in texts[index].split("\n"):
                    copies = int(topic_boost(len(_TOPIC.findall(paragraph))))
                    budget -= copies * len(paragraph)
                    yield from [paragraph] * copies
                if budget <= 0:
                    break


def topic_boost(words: np.ndarray | int) -> np.ndarray:
    """How many times as often a topic window with this many further topic words is drawn: 1, 3, 5, 7, 9."""
    return 1 + 2 * np.minimum(words, 4)


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus: `tokens` (uint16, documents separated by 0) and `source_of` each token (uint8)."""

    tokenizer: Tokenizer
    sources: tuple[str, ...]
    tokens: np.ndarray
    source_of: np.ndarray
    held_out: dict[str, list[np.ndarray]]
    held_out_bytes: dict[str, int]


def prepare(data: Path, work: Path, vocab_size: int = 8192) -> Corpus:
    """The corpus of `data`, tokenised; read back from `work` if it was prepared before."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "corpus.json").exists():
        _write(read_documents(data), work, vocab_size)
    meta = json.loads((work / "corpus.json").read_text())
    held_out = {}
    for name in meta["held_out"]:
        flat = np.fromfile(work / f"held_out_{name}.bin", dtype=np.uint16)
        held_out[name] = [d[:-1] for d in np.split(flat, np.flatnonzero(flat == 0) + 1)[:-1]]
    return Corpus(
        tokenizer=Tokenizer.from_file(str(work / "tokenizer.json")),
        sources=tuple(meta["sources"]),
        tokens=np.fromfile(work / "train.bin", dtype=np.uint16),
        source_of=np.fromfile(work / "train_source.bin", dtype=np.uint8),
        held_out=held_out,
        held_out_bytes={name: info["bytes"] for name, info in meta["held_out"].items()},
    )


def _write(documents: pd.DataFrame, work: Path, vocab_size: int) -> None:
    """Tokenizer, token streams and their description, as files in `work`; the description last, as the done mark."""
    path = work / "tokenizer.json"
    if path.exists():
        tokenizer = Tokenizer.from_file(str(path))
    else:
        tokenizer = train_tokenizer(documents, vocab_size)
        tokenizer.save(str(path))
    # Neighbours in the stream share windows: keep sources together, so that a short document runs into its like.
    train = documents[~documents.held_out].sample(frac=1, random_state=0).sort_values("source", kind="stable")
    sources = tuple(train.source.unique())
    with (work / "train.bin").open("wb") as tokens, (work / "train_source.bin").open("wb") as marks:
        for source in tqdm(sources, desc="tokenising", unit="source"):
            ids = _encode(tokenizer, train.text[train.source == source].tolist())
            ids.tofile(tokens)
            np.full(len(ids), sources.index(source), dtype=np.uint8).tofile(marks)
    held_out = documents[documents.held_out]
    kinds = held_out.source.map(lambda source: {"imdb": "reviews", "books": "books"}.get(source, "web"))
    info = {}
    for kind in ("reviews", "books", "web"):
        texts = held_out.text[kinds == kind].tolist()
        _encode(tokenizer, texts).tofile(work / f"held_out_{kind}.bin")
        info[kind] = {"documents": len(texts), "bytes": sum(len(text.encode()) for text in texts)}
    (work / "corpus.json").write_text(json.dumps({"sources": sources, "held_out": info}, indent=1))


def _encode(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Token ids of all texts in a row, each text followed by 0."""
    rows = []
    for start in range(0, len(texts), 2000):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + 2000], add_special_tokens=False):
            rows.append(np.array([*encoding.ids, 0], dtype=np.uint16))
    return np.concatenate(rows)


class Windows:
    """Training windows of a corpus: token 0 first, then `length - 1` tokens, drawn by the mix.

    Draws depend on (seed, step) alone, so a resumed run sees the windows that the uninterrupted run would have seen.
    """

    def __init__(self, corpus: Corpus, length: int, seed: int, mix: dict[str, float] | None = None) -> None:
        self.tokens, self.length, self.seed = corpus.tokens, length, seed
        mix = {source: share for source, share in (mix or DEFAULT_MIX).items() if source in corpus.sources}
        vocab = {i: corpus.tokenizer.decode([i]) for i in range(1, corpus.tokenizer.get_vocab_size())}
        self._without_space = _space_free(vocab, corpus.tokenizer)
        marks = _topic_marks(corpus)
        counts = np.concatenate([[0], np.cumsum(marks, dtype=np.int32)])
        last = len(corpus.tokens) - length - 1
        starts_by_kind = _starts(corpus.tokens, vocab, length, seed)
        starts_by_kind["keyword"] = _keyword_starts(corpus.tokens[:last], vocab, length)
        starts_by_kind["topic"] = np.flatnonzero(marks[:last])
        self._tables: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # kind: positions, cumulative probability
        self.topic_share = 0.0
        for kind, share in START_SHARES.items():
            starts = starts_by_kind[kind]
            words = counts[starts + length - 1] - counts[starts]
            weight = np.ones(len(starts))
            if kind in ("keyword", "topic"):  # rare words as often as frequent ones, or nearly so
                frequency = np.bincount(corpus.tokens[starts], minlength=len(vocab) + 1)[corpus.tokens[starts]]
                weight = topic_boost(words) / frequency if kind == "topic" else frequency**-0.5
            for index, source in enumerate(corpus.sources):
                here = corpus.source_of[starts] == index
                factor = TOPIC_SHARE_OF_REVIEWS if kind == "topic" and source == "imdb" else 1.0
                weight[here] *= factor * mix.get(source, 0.0) / max(weight[here].sum(), 1e-9)
            total = weight.sum()
            if total > 0:
                self._tables[kind] = (starts, np.cumsum(weight) / total)
                self.topic_share += share * float(weight[words > 0].sum() / total)
        shares = np.array([START_SHARES[kind] for kind in self._tables])
        self._shares = shares / shares.sum()
        self.topic_share /= shares.sum()

    def batch(self, step: int, rows: int) -> np.ndarray:
        """Token ids [rows, length + 1]; the last column is only ever a target."""
        rng = np.random.default_rng((self.seed, step))
        kinds = rng.choice(list(self._tables), rows, p=self._shares)
        draws = rng.random(rows)
        starts = np.empty(rows, dtype=np.int64)
        for row, (kind, draw) in enumerate(zip(kinds, draws, strict=True)):
            positions, cumulative = self._tables[kind]
            starts[row] = positions[np.searchsorted(cumulative, draw)]
        body = self.tokens[starts[:, None] + np.arange(self.length)].astype(np.int64)
        # A prompt begins without a space; so does a window that begins at a sentence.
        opens = np.isin(kinds, ["paragraph", "sentence"])
        body[:, 0] = np.where(opens, self._without_space[body[:, 0]], body[:, 0])
        return np.concatenate([np.zeros((rows, 1), dtype=np.int64), body], axis=1)


def _space_free(vocab: dict[int, str], tokenizer: Tokenizer) -> np.ndarray:
    """For every token id the id of the same token without its leading space, or itself where there is none."""
    table = np.arange(len(vocab) + 1)
    ids = {text: i for i, text in vocab.items()}
    for i, text in vocab.items():
        if text.startswith(" ") and len(text) > 1:
            table[i] = ids.get(text[1:], i)
    return table


def _topic_marks(corpus: Corpus) -> np.ndarray:
    """Boolean per token: a topic word starts here, whether the vocabulary holds it as one token or in pieces."""
    tokens, marks = corpus.tokens, np.zeros(len(corpus.tokens), dtype=bool)
    for word in TOPIC_WORDS:
        for form in (word, word.capitalize(), f" {word}", f" {word.capitalize()}"):
            ids = corpus.tokenizer.encode(form, add_special_tokens=False).ids
            if len(ids) == 1 or (form.startswith(" ") and len(ids) <= 3):
                here = np.flatnonzero(tokens[: len(tokens) - len(ids)] == ids[0])
                for offset, token in enumerate(ids[1:], start=1):
                    here = here[tokens[here + offset] == token]
                marks[here] = True
    return marks


def _keyword_starts(tokens: np.ndarray, vocab: dict[int, str], length: int) -> np.ndarray:
    """Positions of lower-case words that come back twice or more within `length` tokens; the commonest are left out."""
    frequency = np.bincount(tokens, minlength=len(vocab) + 1)
    common = set(np.argsort(-frequency)[:COMMON_TOKENS].tolist())
    words = [i for i, text in vocab.items() if re.fullmatch(r" [a-z]{3,}", text) and i not in common]
    lookup = np.zeros(len(vocab) + 1, dtype=bool)
    lookup[words] = True
    positions = np.flatnonzero(lookup[tokens])
    positions = positions[np.argsort(tokens[positions], kind="stable")]  # by word, and in order within each word
    third = np.roll(positions, -2)
    returns = (tokens[positions] == tokens[third]) & (third > positions) & (third - positions < length - 1)
    return np.sort(positions[returns])


def _starts(tokens: np.ndarray, vocab: dict[int, str], length: int, seed: int) -> dict[str, np.ndarray]:
    """Where windows may begin, by kind, as sorted positions in the stream."""
    size = len(vocab) + 1
    ends_line, ends_sentence, opens = (np.zeros(size, dtype=bool) for _ in range(3))
    ends_line[0] = True
    for i, text in vocab.items():
        ends_line[i] = text.endswith("\n")
        ends_sentence[i] = bool(re.search(r"[.!?][\"'”’)]?$", text))
        opens[i] = bool(re.fullmatch(r" (?:[\"“]|[\"“]?[A-Z].*)", text))
    last = len(tokens) - length - 1
    before, here = tokens[: last - 1], tokens[1:last]
    blank = np.isin(here, [i for i, text in vocab.items() if not text.strip()] + [0])
    rng = np.random.default_rng((seed, 7))
    return {
        "paragraph": np.flatnonzero(ends_line[before] & ~blank) + 1,
        "sentence": np.flatnonzero(ends_sentence[before] & opens[here]) + 1,
        "anywhere": np.sort(rng.integers(1, last, ANYWHERE_STARTS)),
    }
