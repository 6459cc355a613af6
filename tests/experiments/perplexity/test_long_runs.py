"""However many documents there are: chunks do not matter, interrupted runs go on, memory does not grow."""

import gc
import tracemalloc

import pandas as pd
import pytest
import torch

from steerlens.experiments.perplexity import document_scoring, reading, sentences
from steerlens.experiments.perplexity.experiment import perplexity
from tests.experiments.perplexity.cases import ALL, PAIR, TEXTS


def test_chunks_and_batches_do_not_matter(any_model):
    whole = perplexity(any_model, PAIR, documents=TEXTS * 2, layer=1, layers="all", **ALL)
    parts = perplexity(any_model, PAIR, documents=TEXTS * 2, layer=1, layers="all", chunk=3, batch_size=2, **ALL)
    pd.testing.assert_frame_equal(whole.frame, parts.frame, atol=1e-4, rtol=1e-4)
    pd.testing.assert_frame_equal(whole.tokens, parts.tokens, atol=1e-5)
    assert {k: v for k, v in whole.settings.items() if k != "chunk"} == parts.settings


def test_an_interrupted_run_goes_on(any_model, tmp_path, monkeypatch):
    documents = TEXTS * 5
    options = {"documents": documents, "layer": 1, "chunk": 4, **ALL}
    whole = perplexity(any_model, PAIR, **options)
    calls = []

    def counted(scorer, part, split, _original=document_scoring.DocumentScorer.part):
        calls.append(len(part))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return _original(scorer, part, split)

    monkeypatch.setattr(document_scoring.DocumentScorer, "part", counted)
    store = tmp_path / "parts.sqlite"
    options["documents"] = [f"{text} The end of {i}." for i, text in enumerate(documents)]  # five different chunks
    with pytest.raises(KeyboardInterrupt):
        perplexity(any_model, PAIR, store=store, **options)
    result = perplexity(any_model, PAIR, store=store, **options)
    assert len(calls) == 4 + 2  # three were kept; the fourth and fifth were missing
    again = perplexity(any_model, PAIR, store=store, **options)
    assert len(calls) == 6
    pd.testing.assert_frame_equal(result.frame, again.frame)
    monkeypatch.undo()
    fresh = perplexity(any_model, PAIR, **options)
    pd.testing.assert_frame_equal(result.frame, fresh.frame)
    pd.testing.assert_frame_equal(result.tokens, fresh.tokens)
    assert not result.frame.equals(whole.frame)
    other = perplexity(any_model, PAIR, store=store, **(options | {"layer": 2}))
    assert not result.frame.equals(other.frame)  # other settings find nothing of these


def test_memory_does_not_grow_with_the_number_of_documents(any_model, tmp_path, monkeypatch):
    monkeypatch.setattr(sentences, "SAMPLE_CHARACTERS", 2000)
    monkeypatch.setattr(reading, "SAMPLE_CHARACTERS", 2000)
    parts, held = [], []

    def watched(sums, plain, _original=document_scoring.Sums.take):
        _original(sums, plain)
        parts.append(len(plain["groups"]))
        if len(parts) in (10, 30):
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])

    monkeypatch.setattr(document_scoring.Sums, "take", watched)
    # What the model does with its rows is another matter (and slow to trace): here it finds nothing.
    monkeypatch.setattr(
        document_scoring,
        "token_logprobs",
        lambda model, rows, conditions, **_: torch.zeros(len(conditions), len(rows.token)),
    )
    texts = (f"The {i} bride{'s' * (i % 3)} sat by the sea. {'padding ' * 40}" for i in range(600))
    options = {"layer": 2, "chunk": 20, "control": None, "prompting": False, **ALL}
    tracemalloc.start()
    try:
        result = perplexity(any_model, PAIR, documents=texts, store=tmp_path / "parts.sqlite", **options)
    finally:
        tracemalloc.stop()
    assert len(parts) == 30 and result.settings["documents read"] == 600
    # 20 parts later, after 135 kB more of text and as much in the ledger.
    assert held[1] < held[0] + 70_000, held
