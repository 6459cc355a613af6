"""`perplexity`: does steering make text on the topic more likely, and leave other text as likely as it was?

What is computed (arXiv 2308.10248, section on perplexity). Documents are binned by their share of wedding words. Each
is split into sentences, every sentence is a separate sequence after BOS, and every token is scored by the unsteered and
by the steered model. With L̄(d) the mean log-probability per token of document d,

    X(b) = mean over the documents d of bin b of  L̄_steered(d) − L̄_unsteered(d)        (nats per token)
    ratio(b) = exp(−X(b))

Below 1, the steered model finds the text more likely. Where the paper's text, its released scripts and its figures
disagree, and what is done here: `steerlens.experiments.perplexity.paper.DIFFERENCES`, which the page shows.

Of the two ways to count, the default is the paper's (`ratio`); the scripts' weighting is the column `ratio_tokens`. The
frame has both the reading that leaves out predictions at positions which the injection touches and the one that counts
every token; `mask=True` selects the scripts' for figures and the token table. Prompting puts the phrase before the
sentence; its baseline has as many spaces in its place, and ActAdd is also measured on those spaces. At layer 0 with
coefficient 1 the two coincide.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from steerlens.arguments import choice, finite_number, numbers, whole_number
from steerlens.experiments.perplexity.document_scoring import Counting, DocumentScorer, Sums, TopicWords
from steerlens.experiments.perplexity.documents import OPENWEBTEXT, Source, open_documents
from steerlens.experiments.perplexity.essay_curve import essay_curve
from steerlens.experiments.perplexity.ratios import ratios_frame
from steerlens.experiments.perplexity.reading import Corpus, digest
from steerlens.experiments.perplexity.result import Perplexity
from steerlens.experiments.perplexity.sentences import Parameters, Splitter
from steerlens.experiments.shared.ledger import Ledger
from steerlens.models import HookedModel, require_model, stamp
from steerlens.models.run_settings import run_settings
from steerlens.progress import progress_bar
from steerlens.steering import PromptPair
from steerlens.steering.random_vectors import Control

QUICK: dict[str, Any] = {
    "documents": "shipped",
    "n_documents": 64,
    "layers": "all",
    "coeffs": (1.0,),
    "layer": 4,
    "layer_coeffs": (-1.0, 2.0, 4.0),
    "min_documents": 8,
}
"""Arguments of a run that takes about a minute with the embedded model on one CPU core."""

# Part of every key; to be raised when the same settings would give other numbers than before.
_REVISION = 2


def perplexity(
    model: HookedModel,
    pair: PromptPair | None = None,
    *,
    documents: Source | None = None,
    column: str = "text",
    n_documents: int | None = 300_000,
    words: str | Sequence[str] = "weddings",
    counting: Counting = "words",
    layer: int | None = None,
    layers: Sequence[int] | Literal["all"] | None = None,
    coeffs: Sequence[float] = (1.0,),
    layer_coeffs: Sequence[float] = (),
    bin_width: float = 0.005,
    min_documents: int = 1000,
    related: float = 0.01,
    mask: bool = True,
    prompting: bool = True,
    control: Control = "random",
    sentences: Parameters | Splitter = "auto",
    essays: bool = True,
    least_count: int = 20,
    top_tokens: int = 12,
    seed: int = 0,
    store: str | Path | None = None,
    progress: bool | None = None,
    chunk: int = 100,
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> Perplexity:
    """Perplexity of the steered over that of the unsteered model, by the documents' share of words on the topic.

    The head of this file has the definition, and says where the paper and its scripts disagree. Documents are read one
    chunk at a time and only sums are kept, so memory does not grow with their number.

    Args:
        pair: by default `" weddings" − " "`.
        documents: see `open_documents`. By default OpenWebText, streamed, as in the paper; for the embedded model, the
            documents that ship with the package.
        column: the column of the source that holds the text.
        n_documents: at most this many, from the start of the source; None for all.
        words: a word list of `metrics.TOPICS`, or words; matched whole, ignoring case.
        counting: `"words"`, or `"split"`: pieces between white space as they stand (the paper's scripts).
        layer: the main layer; by default at a third of the depth (16 of 48 in GPT-2-XL, as in the paper).
        layers: layers to sweep at each of `coeffs`; `"all"`, or None for the main layer alone.
        coeffs: coefficients; the first is the main one.
        layer_coeffs: further coefficients, at the main layer only.
        bin_width, min_documents: of the bins; the width is a share of 1.
        related: the share of words on the topic from which a document counts as related in the sweeps.
        mask: which reading figures and token table show (the frame has both).
        prompting: also the phrase before each sentence, and ActAdd on spaces in its place (three passes more).
        control: a random vector of equal norm at the main condition, drawn from `seed`; None to leave it out.
        sentences: see `splitter`.
        essays: also the essay curve of the original post.
        least_count, top_tokens: the token table has tokens with more occurrences than this, this many each way.
        store: path of a `Ledger`. After an interruption, only the missing chunks are computed.
        progress: a progress bar; by default in a terminal or notebook.
        chunk: documents per stored part.
        batch_size, memory_budget: rows that run together; by default as many as the device has room for.

    Raises:
        SteerlensError: documents that cannot be read or hold no text, settings out of range, a vector that does not
            fit, log-probabilities that are not finite.
    """
    require_model(model)
    pair = pair or PromptPair(" weddings", " ")
    sizes = {"min_documents": min_documents, "chunk": chunk}
    sizes = {name: whole_number(name, size, least=1) for name, size in sizes.items()}
    top_tokens = whole_number("top_tokens", top_tokens, least=0)
    bin_width = finite_number("bin_width", bin_width, above=0, most=1)
    related = finite_number("related", related, above=0, most=1)
    choice("control", control, ("random", None))
    if documents is None:
        documents = "shipped" if stamp(model).name == "demo" else OPENWEBTEXT
    source = open_documents(documents, column=column, n=n_documents)
    main_layer = int(model.cfg.n_layers) // 3 if layer is None else layer
    scorer = DocumentScorer.of(
        model,
        pair,
        TopicWords.of(words, counting),
        main=main_layer,
        layers=[main_layer] if layers is None else layers,
        coeffs=numbers("coeffs", coeffs),
        layer_coeffs=numbers("layer_coeffs", layer_coeffs) if len(layer_coeffs) else [],
        bin_width=bin_width,
        related=related,
        mask=mask,
        prompting=prompting,
        control=control,
        seed=seed,
        batch_size=batch_size,
        memory_budget=memory_budget,
    )
    corpus = Corpus.of(source, sentences)
    with Ledger(store) as ledger:
        depends = _depends(scorer, pair, corpus.split, seed if control else None) | {"model": ledger.model_key(model)}
        kept = None if store is None else ledger
        found = _sums(scorer, corpus, kept, depends, chunk=sizes["chunk"], progress=progress)
    curve = None
    if essays:
        curve = essay_curve(
            model, sentences=corpus.split, store=store, batch_size=batch_size, memory_budget=memory_budget
        )
    settings: dict[str, Any] = {
        "documents": source.name,
        "n_documents": n_documents,
        "pair": str(pair),
        "pad": pair.pad,
        "words": list(scorer.topic.words),
        "counting": counting,
        "layer": scorer.main.layer,
        "layers": sorted({one.layer for one in scorer.series if one.layer is not None}),
        "coeffs": [float(c) for c in coeffs],
        "layer_coeffs": [float(c) for c in layer_coeffs],
        "bin_width": bin_width,
        "min_documents": sizes["min_documents"],
        "related": related,
        "mask": mask,
        "masked positions": scorer.span,
        "control": control,
        "least_count": least_count,
        "seed": seed,
        "sentence splitter": corpus.split.description,
        **run_settings(model),
        **found.counts,
    }
    frame = ratios_frame(found.groups, scorer, min_documents=sizes["min_documents"])
    return Perplexity(frame, settings, found.tokens.table(model, least=least_count, top=top_tokens), curve)


def _depends(scorer: DocumentScorer, pair: PromptPair, split: Splitter, seed: int | None) -> dict[str, Any]:
    """What the sums of a chunk depend on beside the model and the documents, as plain data for a ledger."""
    return {
        "experiment": "perplexity",
        "revision": _REVISION,
        "pair": [pair.positive, pair.negative, pair.pad],
        "series": [[one.method, one.layer, one.coeff] for one in scorer.series],
        "words": list(scorer.topic.words),
        "counting": scorer.topic.counting,
        "bins": [scorer.bin_width, scorer.related],
        "mask": scorer.mask,
        "seed": seed,
        "split": split.identity,
    }


def _sums(
    scorer: DocumentScorer,
    corpus: Corpus,
    ledger: Ledger | None,
    depends: dict[str, Any],
    *,
    chunk: int,
    progress: bool | None,
) -> Sums:
    """The sums over all documents, chunk by chunk; chunks that the ledger holds are not scored again."""
    found = Sums.none(scorer)
    with progress_bar(corpus.source.size, unit="document", what="perplexity", progress=progress) as bar:
        for part in corpus.chunks(chunk):
            score = partial(scorer.part, part, corpus.split)
            # Without a file nothing is kept: a ledger in memory would grow with the documents.
            found.take(score() if ledger is None else ledger.remember({**depends, "texts": digest(part)}, score))
            bar.update(len(part))
    return found
