"""Metrics are functions of text alone."""

import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlens.errors import SteerlensError
from steerlens.measures import metrics
from steerlens.measures.metrics import TOPICS, Metric, distinct_n, length, repetition, spans, topic, word_count, words

PAPER = {"wedding", "weddings", "wed", "marry", "married", "marriage", "bride", "groom", "honeymoon"}


def test_a_topic_name_alone_is_the_list_of_the_paper():
    metric = words("weddings")
    assert set(metric.marked) == set(TOPICS["weddings"]) == PAPER
    assert metric == topic("weddings")
    assert (metric.name, metric.kind) == ("weddings", "share")
    assert list(metric(["The bride wept.", "A wedlock", "They WED!", ""])) == [1, 0, 1, 0]


def test_other_words_are_taken_as_they_stand():
    assert words("cat", "dog").marked == ("cat", "dog")
    assert words("war", "peace").marked == ("war", "peace")
    assert words("war", literal=True).marked == ("war",)
    assert len(words("war").marked) > 5
    assert words("cheese").marked == ("cheese",)


def test_an_unknown_topic_names_near_ones():
    with pytest.raises(SteerlensError, match="weddings"):
        topic("wedding")


@pytest.mark.parametrize("words_of", TOPICS.values(), ids=TOPICS)
def test_topic_lists_are_lower_case_and_without_repeats(words_of):
    assert len(set(words_of)) == len(words_of)
    assert all(word == word.lower().strip() and word for word in words_of)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dog", 1), ("Dogs", 0), ("a DOG.", 1), ("dog's", 1), ("dog’s", 1), ("_dog_", 1), ("hot-dog", 1),
        ("dogma", 0), ("bulldog", 0), ("dog1", 0), ("\ndog\n", 1), ("dög", 0), ("do g", 0),
    ],
)  # fmt: skip
def test_only_whole_words_count(text, found):
    assert words("dog")([text])[0] == found


def test_words_are_no_regular_expressions():
    assert list(words("c++", ".*", "(a|b)", "don't")(["I like C++.", "anything", "(a|b)", "I don’t"])) == [1, 0, 1, 1]


def test_accents_match_composed_and_decomposed_and_spans_index_the_text_given():
    composed, decomposed = "un café noir", "un cafe\u0301 noir"
    assert list(words("café")([composed, decomposed, "un cafe noir"])) == [1, 1, 0]
    assert list(words("cafe")([composed, decomposed, "un cafe noir"])) == [0, 0, 1]
    assert [decomposed[a:b] for a, b in words("café").spans(decomposed)] == ["cafe\u0301"]


def test_a_phrase_wins_over_its_first_word_and_bridges_line_ends():
    text = "Her Wedding\n dress, the wedding"
    assert [text[a:b] for a, b in spans(text, ["wedding", "wedding dress"])] == ["Wedding\n dress", "wedding"]


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=4))
def test_spans_are_ordered_apart_and_agree_with_the_metrics(text, chosen):
    share, count = words(*chosen, literal=True, name="x"), word_count(*chosen, literal=True, name="y")
    found = share.spans(text)
    assert all(0 <= a < b <= len(text) for a, b in found)
    assert all(first[1] <= second[0] for first, second in pairwise(found))
    assert share([text])[0] == float(bool(found))
    assert count([text])[0] == len(found)


@given(st.text(alphabet="abc XYZ_'’-éß9", max_size=40))
def test_a_word_between_spaces_is_always_found(text):
    assert words("needle")([f"{text} NEEDLE {text}"])[0] == 1


def test_word_count_counts_repeats():
    metric = word_count("weddings")
    assert (metric.name, metric.kind) == ("weddings count", "mean")
    assert list(metric(pd.Series(["wedding, wedding and bride", "none"]))) == [3, 0]


def test_length():
    assert list(length()(["two words", "", "it’s one_two"])) == [2, 0, 3]
    assert list(length("characters")(["abc", ""])) == [3, 0]
    with pytest.raises(SteerlensError, match="'tokens'"):
        length("tokens")


def test_distinct_n_and_repetition():
    loop, plain = "the cat the cat the cat", "one two three four"
    assert list(distinct_n(2)([loop, plain])) == pytest.approx([2 / 5, 1])
    assert np.isnan(distinct_n(2)(["one", ""])).all()
    assert list(repetition()([loop, plain])) == pytest.approx([4 / 6, 0])
    assert repetition(window=1)([loop])[0] == 0
    assert repetition()(["Go go!"])[0] == pytest.approx(0.5)
    assert np.isnan(repetition()([" "])[0])
    for wrong in (distinct_n, repetition):
        with pytest.raises(SteerlensError, match="0"):
            wrong(0)


def test_bad_input_is_named():
    with pytest.raises(SteerlensError, match="one string"):
        words("cat")("a cat")
    with pytest.raises(SteerlensError, match="completion 1 is"):
        words("cat")(["a", None])
    with pytest.raises(SteerlensError, match="no words"):
        words()
    with pytest.raises(SteerlensError, match="empty"):
        words("cat", " ")
    with pytest.raises(SteerlensError, match="unpack"):
        words(["cat", "dog"])
    assert (words("seed").name, words("seed").column, words("cat").column) == ("seed", "seed (metric)", "cat")
    assert words("seed", name="seeds").marked == ("seed",)


def test_a_metric_of_ones_own_is_checked():
    assert list(
        Metric("capitals", "mean", lambda texts: np.array([sum(map(str.isupper, t)) for t in texts]))(["Ab"])
    ) == [1]
    with pytest.raises(SteerlensError, match="gave shape"):
        Metric("x", "mean", lambda texts: np.zeros(1))(["a", "b"])
    with pytest.raises(SteerlensError, match="is a share but"):
        Metric("x", "share", lambda texts: np.full(len(texts), 0.5))(["a"])
    with pytest.raises(SteerlensError, match="'median'"):
        Metric("x", "median", lambda texts: np.zeros(1))


def test_no_completions_give_no_values():
    assert words("cat")([]).shape == (0,)


@pytest.mark.parametrize("metric", [words("weddings"), word_count("a", "b"), length(), distinct_n(), repetition()])
def test_metrics_compare_by_value_and_can_be_sent_to_other_processes(metric):
    again = pickle.loads(pickle.dumps(metric))
    assert again == metric
    assert (again(["a wedding a day"]) == metric(["a wedding a day"])).all()


def test_the_module_needs_no_model():
    assert not any(name.startswith(("torch", "transformer_lens")) for name in vars(metrics))
