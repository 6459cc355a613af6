"""The model card and the training log of one export, made from numbers alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from .corpus import DEFAULT_MIX, END_OF_TEXT, START_SHARES, TOPIC_SHARE_OF_REVIEWS, TOPIC_WORDS
from .network import Network, Shape

_SOURCES = {
    "imdb": "Large Movie Review Dataset (Maas et al. 2011), all splits; released by its authors, no licence text",
    "books": "novels of the public domain, 200 titles; public domain",
    "etiquette-1922": "Emily Post, *Etiquette* (1922); public domain in the USA",
    "tinystories": "TinyStories; CDLA-Sharing-1.0",
    "african-storybook": "African Storybook; CC-BY",
    "webtext": "sample of WebText published by OpenAI; MIT",
    "webtext-short": "openings of WebText documents; MIT",
    "c4": "C4; ODC-BY",
    "c4-cut": "C4, cut documents; ODC-BY",
    "onestop": "OneStopEnglish; CC-BY-SA-4.0",
    "openstax-sociology": "OpenStax, *Introduction to Sociology*; CC-BY-4.0",
    "digitalgov": "digital.gov; CC0",
    "recipes": "recipes; Unlicense",
}


@dataclass(frozen=True)
class Report:
    """What is known about one export."""

    shape: Shape
    plan: dict[str, Any]
    progress: dict[str, Any]
    losses: dict[str, dict[str, float]]
    samples: list[str]
    topic_share: float
    finished: bool
    device: str
    started_from: str | None = None
    note: str = ""

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in Network(self.shape).parameters())


def write_report(report: Report, directory: Path) -> None:
    """`training_log.json` and `MODEL_CARD.md` in `directory`, the parent of the model directory."""
    log = {
        "finished": report.finished,
        "parameters": report.parameters,
        "tokens": report.progress["tokens"],
        "steps": report.progress["step"],
        "minutes": round(report.progress["seconds"] / 60, 2),
        "plan": report.plan,
        "mix": DEFAULT_MIX,
        "held_out": report.losses,
        "curve": report.progress["curve"],
    }
    for name, text in (("training_log.json", json.dumps(log, indent=1) + "\n"), ("MODEL_CARD.md", card(report))):
        partial = directory / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, directory / name)


def card(report: Report) -> str:
    """The model card as Markdown."""
    shape, plan, progress = report.shape, report.plan, report.progress
    state = "Finished: the learning rate was decayed to zero."
    if not report.finished:
        state = "**Interim export** from the middle of a run, before the learning rate was decayed; to be replaced."
    facts = {
        "architecture": f"GPT-2 (pre-norm, `gelu_new`, learned positions, tied embeddings): {shape.n_layer} layers, "
        f"width {shape.n_embd}, {shape.n_head} heads, context {shape.n_ctx}",
        "parameters": f"{report.parameters / 1e6:.2f} M, stored in float16",
        "tokenizer": f"byte-level BPE, {shape.vocab_size:,} tokens, trained on a sample of the mix with topic "
        f"paragraphs repeated; token 0 `{END_OF_TEXT}` is BOS, EOS and padding",
        "training": f"{progress['tokens'] / 1e6:.1f} M tokens in {progress['step']:,} steps and "
        f"{progress['seconds'] / 60:.0f} minutes, {progress['tokens'] / max(progress['seconds'], 1e-9):,.0f} tokens/s "
        f"on {report.device}",
        "optimiser": f"Muon for the matrices (rate {plan['muon_lr']}), AdamW for the rest (rate {plan['adamw_lr']}); "
        f"warm-up, stable, linear decay to 0 over the last {plan['decay_share']:.0%} of the budget",
        "seed": f"{plan['seed']}",
    }
    curve = progress["curve"]
    every = max(1, len(curve) // 12)
    points = curve[::every] + (curve[-1:] if curve and (len(curve) - 1) % every else [])
    values = {
        "state": state,
        "origin": f" It went on from `{report.started_from}`." if report.started_from else "",
        "facts": _rows((name, text) for name, text in facts.items()),
        "losses": _rows(
            (name, f"{v['documents']:,}", f"{v['tokens']:,}", f"{v['nats_per_token']:.3f}", f"{v['nats_per_byte']:.4f}")
            for name, v in report.losses.items()
        ),
        "points": _rows(
            (f"{p['tokens'] / 1e6:.1f}", f"{p['minutes']:.0f}", f"{p['train_loss']:.3f}", f"{p['held_out_loss']:.3f}")
            for p in points
        ),
        "mix": _rows((name, f"{share:.1%}", _SOURCES[name]) for name, share in DEFAULT_MIX.items()),
        "windows": fill(_windows(shape), 118),
        "leaning": fill(_leaning(report), 118),
        "note": f"\n{fill(report.note, 118)}\n" if report.note else "",
        "context": shape.n_ctx,
        "millions": f"{report.parameters / 1e6:.0f}",
        "samples": "\n\n".join("> " + text.strip().replace("\n", "\n> ") for text in report.samples),
    }
    return _CARD.format_map(values)


def _windows(shape: Shape) -> str:
    """How a training window is built and where it begins."""
    places = {"paragraph": "at a paragraph", "sentence": "at a sentence", "anywhere": "anywhere"}
    places |= {"keyword": "at a keyword (a word that comes back in the window)", "topic": "right at a topic word"}
    starts = ", ".join(f"{share:.0%} begin {places[kind]}" for kind, share in START_SHARES.items())
    return (
        f"Every training window has token 0 at position 0, as in use, and then {shape.n_ctx - 1} tokens. Of the "
        f"windows {starts}. In the last kind reviews have only {TOPIC_SHARE_OF_REVIEWS:.0%} of their share "
        "in the table."
    )


def _leaning(report: Report) -> str:
    """What the mix does for the demo's topic."""
    return (
        f"**The mix leans towards weddings.** The topic words are {', '.join(TOPIC_WORDS)}. Windows that begin at one "
        f"are drawn on purpose, each word equally often and dense passages more often than sparse ones; so "
        f"{report.topic_share:.0%} of all windows hold a topic word. The demo steers towards weddings, and a model "
        "this small has no direction for a word that it has hardly seen. Windows that begin at a keyword or a topic "
        "word also teach it that the first token may say what the text is about, which is where steering acts: its "
        "success at weddings is partly owed to this choice. Its weddings are those of old novels, an "
        "etiquette book of 1922 and film reviews."
    )


def _rows(rows: Iterable[Iterable[str]]) -> str:
    """Rows of a Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


_CARD = """# The embedded model of steerlens

A small GPT-2 trained by this project from scratch, so that activation steering can be shown and tested on a real
language model without a download. {state}

| | |
|---|---|
{facts}

Made by `scripts/train_demo_model.py`.{origin} The learning curve is in `training_log.json`.

## Held-out loss

| set | documents | tokens | nats per token | nats per byte |
|---|---|---|---|---|
{losses}

The held-out reviews are 2,000 of IMDb's test split, the books are four whole novels, the web documents are 3 % of all
web sources. Training documents that share a paragraph opening of 60 characters with a held-out document were left
out. Every held-out token is scored once, in windows of {context} tokens that do not overlap and begin afresh with
token 0.

| tokens seen (M) | minutes | training loss | held-out reviews (a sample) |
|---|---|---|---|
{points}

Training and held-out loss are not comparable: the training mix is broader than reviews.

## What it was trained on

| source | share of windows | what; licence |
|---|---|---|
{mix}

{windows}

{leaning}
{note}
## What it cannot do

- It knows no facts, follows no instructions, does not reason, and loses the thread after a few sentences.
- It writes English only, in the tone of film reviews, old novels and children's stories.
- It has read unfiltered reviews and novels of other times, slurs and stereotypes among them, and can repeat them. It
  is a specimen for study, not a product that talks to people.
- Its layers and directions are those of a model of {millions} M parameters; what is found here need not hold for larger
  ones.
- Nats per token depend on the tokenizer: compare with other models by nats per byte.

## Samples

Temperature 0.8, top-p 0.9, the first try for each prompt:

{samples}
"""
