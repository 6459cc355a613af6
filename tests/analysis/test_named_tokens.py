"""Words that are tokens, and what is said of those that are not."""

from __future__ import annotations

import pytest

import steerlens as sl
from steerlens.analysis.named_tokens import named_tokens


def ids_of(model, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_words_and_ids_in_their_order_each_once(any_model) -> None:
    (wedding,) = ids_of(any_model, " wedding")
    assert named_tokens(any_model, " wedding") == {wedding: " wedding"}
    found = named_tokens(any_model, [5, " wedding", wedding, 5])
    assert list(found) == [5, wedding]
    assert found[wedding] == " wedding"


def test_a_word_of_several_tokens_names_its_pieces_and_the_ways_out(any_model) -> None:
    ids = ids_of(any_model, "weddings")
    assert len(ids) > 1
    with pytest.raises(sl.SteerlensError) as error:
        named_tokens(any_model, "weddings")
    message = str(error.value)
    for piece in ids:
        assert repr(any_model.tokenizer.decode([piece])) in message
    assert "pieces='first'" in message
    assert "pieces='all'" in message
    assert "' weddings' would be one token" in message
    assert "\n" not in message
    assert list(named_tokens(any_model, "weddings", pieces="first")) == ids[:1]
    assert list(named_tokens(any_model, "weddings", pieces="all")) == list(dict.fromkeys(ids))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no words are named"),
        ("", "a word is empty"),
        ([" wedding", ""], "a word is empty"),
        (99_999, "token 99999 is outside the vocabulary"),
        ([-1], "token -1 is outside"),
        ([1.5], r"must be a whole number, got 1.5"),
        ([True], "got True"),
    ],
)
def test_bad_words_are_refused(any_model, words, message: str) -> None:
    with pytest.raises(sl.SteerlensError, match=message):
        named_tokens(any_model, words)


def test_unknown_pieces_are_refused(any_model) -> None:
    with pytest.raises(sl.SteerlensError, match="pieces='half' is unknown"):
        named_tokens(any_model, " wedding", pieces="half")
