"""Sentences are Punkt's; without nltk's English parameters it is trained on the documents, and says so."""

import pytest

from steerlens.errors import SteerlensError
from steerlens.experiments.perplexity import sentences
from steerlens.experiments.perplexity.documents import open_documents
from steerlens.experiments.perplexity.sentences import sample_text, splitter

TEXT = "She wore white. He laughed! Was it over? Nobody knew."


def test_training_finds_abbreviations_of_the_corpus():
    split = splitter(list(open_documents("shipped", n=150)), "corpus")
    assert split(TEXT) == ["She wore white.", "He laughed!", "Was it over?", "Nobody knew."]
    assert split("Then Mr. Bennet married Mrs. Hale. They left.") == [
        "Then Mr. Bennet married Mrs. Hale.",
        "They left.",
    ]
    assert "trained on" in split.description and "the first 150" in split.description
    assert split("  \n ") == []


def test_equal_samples_split_equally_and_say_so():
    sample = list(open_documents("shipped", n=20))
    assert splitter(sample, "corpus").identity == splitter(sample, "corpus").identity
    assert splitter(sample, "corpus").identity != splitter(sample[:10], "corpus").identity


def test_the_sample_is_bounded():
    text, n = sample_text(["a" * 300_000] * 10)
    assert n == 4 and len(text) <= sentences.SAMPLE_CHARACTERS + 10


def test_english_parameters_are_taken_where_nltk_finds_them(monkeypatch):
    class Tokenizer:
        def __init__(self, language):
            assert language == "english"

        def tokenize(self, text):
            return text.split("|")

    monkeypatch.setattr("nltk.tokenize.punkt.PunktTokenizer", Tokenizer)
    split = splitter(["a b c."])
    assert "English" in split.description and split("one|two") == ["one", "two"]
    assert "trained" in splitter(["A text. And another."], "corpus").description


def test_without_them_auto_trains_and_english_is_an_error(monkeypatch):
    def missing(language):
        raise LookupError("Resource punkt_tab not found.")

    monkeypatch.setattr("nltk.tokenize.punkt.PunktTokenizer", missing)
    assert "trained" in splitter(["A text. And another."]).description
    with pytest.raises(SteerlensError, match=r"nltk\.download\('punkt_tab'\), or use sentences='corpus'"):
        splitter(["A text."], "english")
    with pytest.raises(SteerlensError, match="no text to train"):
        splitter(["  ", ""])
    with pytest.raises(SteerlensError, match="is unknown"):
        splitter(["A text."], "german")
