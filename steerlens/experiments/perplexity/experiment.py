"""`perplexity`: does steering make texts on the topic likelier, and leave others as likely as they were?

What is computed (arXiv 2308.10248, section on perplexity). Documents are binned by their share of wedding words. Each
is split into sentences, each sentence is a sequence of its own behind BOS, and every token is scored under the
unsteered and the steered model. With L̄(d) the mean log-probability per token of document d,

    X(b) = mean over the documents d of bin b of  L̄_steered(d) − L̄_unsteered(d)        (nats per token)
    ratio(b) = exp(−X(b))

Below 1 the steered model expects the text more. Where the paper's text, its released scripts and its figures disagree:

- The paper prints `−exp(X)`; that is a typo (it is negative). Scripts and figures have `exp(−X)`, and so has this.
- The paper means over the documents of a bin, the script that draws the figure (`openwebtext_show.py`) over its
  tokens. The default is the paper's (`ratio`); the script's is the column `ratio_tokens`.
- The paper keeps bins of more than 1,000 documents, the script of more than 100. Here all are kept; bins of fewer
  than `min_documents` (1,000) are marked.
- The script's word list is the paper's (wedding, weddings, wed, marry, married, marriage, bride, groom, honeymoon). It
  compares whole pieces between white space, so that "wedding," counts for nothing. Here punctuation ends a word;
  `counting="split"` is the script's way.
- The paper's figure is of " weddings" − " ", the scripts' of " weddings" − "" padded with a space: the same tokens.
- Scripts leave out the predictions made at positions that the injection touches (BOS and the phrase: the first two of
  every sentence for " weddings" in GPT-2). The frame has this reading and the one that counts every token; `mask=True`
  chooses the scripts' for figures and the token table.
- The scripts take from OpenWebText as many documents with the most wedding words as documents with none. Here
  documents come as the source has them.
- Prompting is compared as in the original's `compare_with_prompting`: the phrase stands before the sentence. Its
  baseline here is as many spaces in its place, so that every token stays where it was, and ActAdd is also measured
  on those spaces. At layer 0 with coefficient 1 the two are one and the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd
from tqdm import tqdm

from steerlens.errors import SteerlensError
from steerlens.experiments.perplexity.document_scoring import (
    ACTADD,
    PADDED,
    PROMPT,
    RANDOM,
    RELATED,
    UNRELATED,
    Counting,
    DocumentScorer,
    Sums,
    TopicWords,
)
from steerlens.experiments.perplexity.documents import OPENWEBTEXT, Source, open_documents
from steerlens.experiments.perplexity.essay_curve import EssayCurve, essay_curve
from steerlens.experiments.perplexity.moments import Moments
from steerlens.experiments.perplexity.sentences import SAMPLE_CHARACTERS, Parameters, Splitter, splitter
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.result import Result
from steerlens.figures import theme
from steerlens.models import HookedModel, require_model, stamp
from steerlens.models.run_settings import run_settings
from steerlens.reports.page import Headline
from steerlens.steering import PromptPair

if TYPE_CHECKING:
    import plotly.graph_objects as go


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


@dataclass(frozen=True, eq=False)
class Perplexity(Result):
    """Perplexity ratios by bin, layer and coefficient.

    `frame`, one row per group of documents, method, layer, coefficient and mask:

    - group ("0–0.5 %", …, "unrelated": no word of the list, "related": a share of at least `related`), kind ("bin",
      "group"), share_low, share_high: the documents;
    - method ("actadd", "random vector", "actadd, space-padded", "prompt"), layer (Int64, NA for the prompt), coeff;
    - mask (bool): positions that overlap the injection left out;
    - n (documents), enough (bool: n ≥ min_documents), tokens;
    - x (mean of the documents' mean change of log-probability, nats per token), x_low, x_high (95 %: Student-t over
      documents), ratio (`exp(−x)`), low, high; ratio_tokens (tokens weigh alike, not documents).

    Attributes:
        tokens: tokens that rose and fell most under the main condition, see `TokenSums.table`.
        essay: the essay curve of the original post; None if it was not asked for.
    """

    name: ClassVar[str] = "perplexity"
    title: ClassVar[str] = "Does steering make text on the topic likelier, and other text no less likely?"

    tokens: pd.DataFrame = field(default_factory=pd.DataFrame)
    essay: EssayCurve | None = None

    def main(self, method: str = ACTADD, *, mask: bool | None = None) -> pd.DataFrame:
        """The rows of one method at the main layer and coefficient, one per group."""
        chosen = self.settings["mask"] if mask is None else mask
        rows = self.frame[(self.frame["method"] == method) & (self.frame["mask"] == chosen)]
        if method != PROMPT:
            rows = rows[(rows["layer"] == self.settings["layer"]) & (rows["coeff"] == self.settings["coeffs"][0])]
        return rows.reset_index(drop=True)

    def headlines(self) -> list[Headline]:
        """The ratio of related and of unrelated text, steered and prompted; how many documents."""
        found = []
        where = f"layer {self.settings['layer']}, coefficient {theme.number(self.settings['coeffs'][0])}"
        wanted = [
            (ACTADD, RELATED, f"related text, {where}"),
            (ACTADD, UNRELATED, f"unrelated text, {where}"),
            (PROMPT, RELATED, "related text, prompted"),
            (PROMPT, UNRELATED, "unrelated text, prompted"),
        ]
        for method, group, label in wanted:
            rows = self.main(method)
            for row in rows[rows["group"] == group].itertuples():
                limits = f"95 %: {row.low:.4f} to {row.high:.4f}; " if not math.isnan(row.low) else ""
                few = "" if row.enough else ", fewer than asked for"
                found.append(Headline(label, f"{row.ratio:.4f}", f"{limits}{row.n:,} documents{few}"))
        bins = self.main()
        bins = bins[bins["kind"] == "bin"]
        note = f"of {len(bins)} have {self.settings['min_documents']:,} documents or more"
        return [*found, Headline("bins with enough documents", str(int(bins["enough"].sum())), note)]

    def figures(self) -> dict[str, go.Figure]:
        """By bin (the paper's figure), by layer, by coefficient, and the essays of the original post."""
        from steerlens.experiments.perplexity import figures as draw

        mask, least = self.settings["mask"], self.settings["min_documents"]
        layer, coeff = self.settings["layer"], theme.number(self.settings["coeffs"][0])
        read = "Positions that overlap the injection are " + ("left out." if mask else "counted too.")
        drawn = {
            f"Perplexity of the steered model over that of the unsteered one, by the documents' share of words on the "
            f"topic (layer {layer}, coefficient {coeff}). Bars: 95 % intervals over documents. Hollow: a bin of fewer "
            f"than {least:,} documents. {read}": draw.bin_figure(self.main(), self.main(PROMPT), self.main(RANDOM)),
        }
        groups = self.frame[(self.frame["kind"] == "group") & (self.frame["mask"] == mask)]
        share = theme.percent(self.settings["related"])
        limits = f"Related: at least {share} of the words are on the topic; unrelated: none."
        steered = groups[groups["method"] == ACTADD]
        if steered.groupby("coeff")["layer"].nunique().max() > 1:
            drawn[f"The same ratio by layer. Bands: 95 % intervals over documents. {limits}"] = draw.layer_figure(
                steered[steered["coeff"].isin(self.settings["coeffs"])], groups[groups["method"] == PROMPT]
            )
        at_layer = steered[steered["layer"] == layer]
        if at_layer["coeff"].nunique() > 1:
            caption = (
                f"The same ratio by coefficient, at layer {layer}. Above 1 the steered model expects the text less."
            )
            drawn[caption] = draw.coefficient_figure(at_layer)
        if self.essay is not None:
            drawn |= self.essay.figures()
        if len(self.tokens):
            drawn[
                f"Tokens of the documents whose log-probability rose and fell most on average (layer {layer}, "
                f"coefficient {coeff}; tokens that came more than {self.settings['least_count']} times)."
            ] = draw.token_figure(self.tokens)
        return drawn

    def tables(self) -> dict[str, pd.DataFrame]:
        """The bins, the tokens, and all numbers."""
        columns = ["group", "method", "mask", "n", "enough", "tokens", "ratio", "low", "high", "ratio_tokens"]
        both = [self.main(method, mask=mask) for method in (ACTADD, PADDED, PROMPT, RANDOM) for mask in (True, False)]
        shown = {"Main condition, by share of words on the topic": pd.concat(both)[columns]}
        if len(self.tokens):
            shown["Tokens whose log-probability (nats) rose and fell most"] = self.tokens.assign(
                token=self.tokens["token"].map(theme.visible_token)
            )
        shown["All numbers"] = self.frame
        if self.essay is not None:
            shown["Essays"] = self.essay.frame
        return shown


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
    control: Literal["random"] | None = "random",
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
    """Perplexity of steered over unsteered model on documents, by their share of words on the topic.

    The definition, and where paper and scripts disagree, stand at the head of this module. Documents are read one
    chunk at a time and only sums are kept: memory does not grow with their number.

    Args:
        pair: by default `" weddings" − " "`.
        documents: see `open_documents`. By default OpenWebText, streamed, as in the paper; the shipped set for the
            embedded model.
        column: which column of the source holds the text.
        n_documents: at most so many, the first ones; None for all.
        words: a word list of `metrics.TOPICS`, or words; counted whole, upper and lower case alike.
        counting: `"words"`, or `"split"`: pieces between white space as they stand (the paper's scripts).
        layer: the main layer; by default a third of the way (16 of 48 in GPT-2-XL, as in the paper).
        layers: layers to sweep at each of `coeffs`; `"all"`, or None for the main layer alone.
        coeffs: coefficients; the first one is the main one.
        layer_coeffs: further coefficients, at the main layer only.
        bin_width, min_documents: of the bins; shares of 1.
        related: from which share on a document counts as related in the sweeps.
        mask: which reading figures and token table show (both are in the frame).
        prompting: also the phrase before each sentence, and ActAdd on spaces in its place (three more rows each).
        control: a random vector of equal norm at the main condition, drawn from `seed`; None to leave it out.
        sentences: see `splitter`.
        essays: also the essay curve of the original post.
        least_count, top_tokens: the token table holds tokens with more occurrences, so many each way.
        store: path of a `Ledger`. Run again after an interruption, and only missing chunks are computed.
        progress: a progress bar; by default where somebody watches.
        chunk: documents per part.
        batch_size, memory_budget: rows that run together; by default what the device has room for.

    Raises:
        SteerlensError: in one line: documents that cannot be read or hold no text, settings out of range, a vector that
            does not fit, log-probabilities that are no numbers.
    """
    require_model(model)
    pair = pair or PromptPair(" weddings", " ")
    for name, least, value in (("min_documents", 1, min_documents), ("chunk", 1, chunk), ("top_tokens", 0, top_tokens)):
        if value < least:
            raise SteerlensError(f"{name}={value!r} is too small; give at least {least}")
    if not 0 < bin_width <= 1 or not 0 < related <= 1:
        raise SteerlensError(f"bin_width={bin_width} and related={related} are shares; give numbers above 0, up to 1")
    if control not in ("random", None):
        raise SteerlensError(f"control={control!r} is unknown; use 'random' or None")
    if documents is None:
        documents = "shipped" if stamp(model).name == "demo" else OPENWEBTEXT
    source = open_documents(documents, column=column, n=n_documents)
    topic = TopicWords.of(words, counting)
    main_layer = int(model.cfg.n_layers) // 3 if layer is None else layer
    scorer = DocumentScorer.of(
        model,
        pair,
        topic,
        main=main_layer,
        layers=[main_layer] if layers is None else layers,
        coeffs=coeffs,
        layer_coeffs=layer_coeffs,
        bin_width=bin_width,
        related=related,
        mask=mask,
        prompting=prompting,
        control=control,
        seed=seed,
        batch_size=batch_size,
        memory_budget=memory_budget,
    )
    settings: dict[str, Any] = {
        "documents": source.name,
        "n_documents": n_documents,
        "pair": str(pair),
        "pad": pair.pad,
        "words": list(topic.words),
        "counting": counting,
        "layer": scorer.main.layer,
        "layers": sorted({one.layer for one in scorer.series if one.layer is not None}),
        "coeffs": [float(c) for c in coeffs],
        "layer_coeffs": [float(c) for c in layer_coeffs],
        "bin_width": bin_width,
        "min_documents": min_documents,
        "related": related,
        "mask": mask,
        "masked positions": scorer.span,
        "control": control,
        "least_count": least_count,
        "seed": seed,
        **run_settings(model),
    }
    texts = iter(source)
    sample = list(_characters(texts, SAMPLE_CHARACTERS))
    if not any(text and text.strip() for text in sample):
        raise SteerlensError(f"{source.name}: there is no text in the documents; give others, or name another column=")
    if isinstance(sentences, Splitter):
        split = sentences
    else:
        split = splitter([text for text in sample if text], sentences)
    settings["sentence splitter"] = split.description
    depends = {
        "experiment": "perplexity",
        "version": 1,
        "model": settings["model fingerprint"],
        "pair": [pair.positive, pair.negative, pair.pad],
        "series": [[one.method, one.layer, one.coeff] for one in scorer.series],
        "words": settings["words"],
        "counting": counting,
        "bins": [bin_width, related],
        "mask": mask,
        "seed": seed if control else None,
        "split": split.identity,
    }
    found = Sums.none(scorer)
    with contextlib.ExitStack() as stack:
        ledger = None if store is None else stack.enter_context(Ledger(store))
        bar = stack.enter_context(
            tqdm(
                total=source.size,
                unit=" documents",
                desc="perplexity",
                disable=None if progress is None else not progress,
            )
        )
        for part in _chunks(itertools.chain(sample, texts), chunk):
            if ledger is None:
                plain = scorer.part(part, split)
            else:
                key = {**depends, "texts": _digest(part)}
                plain = ledger.remember(key, partial(scorer.part, part, split))
            found.take(plain)
            bar.update(len(part))
    curve = None
    if essays:
        curve = essay_curve(model, sentences=split, store=store, batch_size=batch_size, memory_budget=memory_budget)
    frame = _frame(found.groups, scorer, bin_width=bin_width, related=related, min_documents=min_documents)
    table = found.tokens.table(model, least=least_count, top=top_tokens)
    return Perplexity(frame, settings | found.counts, table, curve)


def _frame(
    groups: Mapping[str, Moments], scorer: DocumentScorer, *, bin_width: float, related: float, min_documents: int
) -> pd.DataFrame:
    """The frame of the result, see `Perplexity`."""
    bins = sorted(int(name) for name in groups if name not in (UNRELATED, RELATED))
    ends: list[tuple[str, str, str, float, float]] = []
    for number in bins:
        low, high = number * bin_width, min((number + 1) * bin_width, 1.0)
        label = f"{theme.number(100 * low, 3)}–{theme.number(100 * high, 3)} %"
        ends.append((str(number), label, "bin", low, high))
    ends += [(UNRELATED, UNRELATED, "group", 0.0, 0.0), (RELATED, RELATED, "group", related, 1.0)]
    # Actadd and random vectors come first in the sums, what stands on spaces last.
    series = [*(one for one in scorer.series if not one.on_spaces), *(one for one in scorer.series if one.on_spaces)]
    rows = []
    for name, label, kind, low, high in ends:
        if name not in groups:
            continue
        moments = groups[name]
        for place, one in enumerate(series):
            for reading, masked in enumerate((True, False)):
                at = (reading, place)
                x = moments.interval(at)
                tokens = float(moments.weight[at])
                rows.append(
                    {
                        "group": label,
                        "kind": kind,
                        "share_low": low,
                        "share_high": high,
                        "method": one.method,
                        "layer": one.layer,
                        "coeff": one.coeff,
                        "mask": masked,
                        "n": x.n,
                        "enough": x.n >= min_documents,
                        "tokens": int(tokens),
                        "x": x.mean,
                        "x_low": x.low,
                        "x_high": x.high,
                        "ratio": math.exp(-x.mean),
                        "low": math.exp(-x.high),
                        "high": math.exp(-x.low),
                        "ratio_tokens": math.exp(-float(moments.total[at]) / tokens) if tokens else math.nan,
                    }
                )
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _characters(texts: Iterator[str | None], most: int) -> Iterator[str | None]:
    """The first documents, until they hold so many characters together."""
    seen = 0
    for text in texts:
        yield text
        seen += len(text or "")
        if seen >= most:
            return


def _chunks(texts: Iterable[str | None], size: int) -> Iterator[list[str | None]]:
    rest = iter(texts)
    while part := list(itertools.islice(rest, size)):
        yield part


def _digest(texts: Sequence[str | None]) -> str:
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).hexdigest()
