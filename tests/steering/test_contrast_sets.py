"""Contrast sets: the value, splitting, what the lint finds."""

from __future__ import annotations

from typing import Any

import pytest

import steerlens as sl

PAIRS = [("I love it", "I hate it"), ("She is glad", "She is sad"), ("so good", "so bad"), ("a win", "a loss")]


def test_a_set_of_pairs() -> None:
    whole = sl.ContrastSet.of([*PAIRS, sl.PromptPair("yes", "no")], name="mood")
    assert len(whole) == 5
    assert whole.positive == ("I love it", "She is glad", "so good", "a win", "yes")
    assert whole.negative[-1] == "no"
    assert whole.paired
    assert whole == sl.ContrastSet(list(whole.positive), list(whole.negative), name="mood")
    assert sl.ContrastSet.of(whole) is whole
    frame = whole.frame
    assert list(frame.columns) == ["pair", "label", "text", "context"]
    assert frame[frame["label"] == 1]["text"].tolist() == list(whole.positive)
    with pytest.raises(AttributeError):
        whole.name = "other"  # type: ignore[misc]


def test_chats_are_texts_as_well() -> None:
    chat = [{"role": "user", "content": "hello"}]
    assert sl.ContrastSet.of([(chat, "no chat")]).positive == (chat,)


def test_templates() -> None:
    made = sl.ContrastSet.template(["the {} end", "a day"], "Happily: {}", "Sadly: {}")
    assert made.positive == ("Happily: the {} end", "Happily: a day")
    assert made.negative == ("Sadly: the {} end", "Sadly: a day")


def test_labelled_texts_are_no_pairs() -> None:
    one = sl.ContrastSet.labelled(["a", "b", "c", "d"], [1, "negative", True, 1])
    assert (one.positive, one.negative, one.paired, len(one)) == (("a", "c", "d"), ("b",), False, 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sl.ContrastSet.of([]), "the contrast set is empty"),
        (lambda: sl.ContrastSet.of("text"), r"pairs must be a list of \(positive, negative\), got str"),
        (lambda: sl.ContrastSet.of(["ab"]), "pair 0 must be"),
        (lambda: sl.ContrastSet.of([("a", "b"), ("a", "b", "c")]), "pair 1 must be"),
        (lambda: sl.ContrastSet.of([("a", "")]), "negative text 0 is empty"),
        (lambda: sl.ContrastSet.of([("a", 5)]), "negative text 0 must be a text or a chat"),
        (lambda: sl.ContrastSet(["a"], []), "no negative texts"),
        (lambda: sl.ContrastSet("a", ["b"]), "positive must be a list"),
        (lambda: sl.ContrastSet(["a", "b"], ["c"]), "2 positive and 1 negative texts make no pairs"),
        (lambda: sl.ContrastSet(["a"], ["c"], context=("x", "y")), "context needs one text for each pair"),
        (lambda: sl.ContrastSet.labelled(["a", "b"], [1, 1]), "no row with label 0"),
        (lambda: sl.ContrastSet.labelled(["a", "b"], [1]), "2 texts and 1 labels"),
        (lambda: sl.ContrastSet.labelled(["a", "b"], [1, "maybe"]), "label 'maybe' is neither of 1 and 0"),
        (lambda: sl.ContrastSet.template(["a"], "x", "y {}"), r"positive template must hold \{\}"),
        (lambda: sl.ContrastSet.of(PAIRS).split(1.0), "a share between 0 and 1"),
        (lambda: sl.ContrastSet.of([PAIRS[0]] * 3).split(), "give at least two that differ"),
        (lambda: sl.ContrastSet.of(PAIRS).sample(5), "cannot draw 5 of 4"),
    ],
)
def test_bad_input_is_one_line(make: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- split


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_a_split_is_a_partition_of_the_size_asked_for(share: float, paired: bool) -> None:
    n = 40
    whole = sl.ContrastSet([f"p{i}" for i in range(n)], [f"n{i}" for i in range(n)], paired=paired)
    train, test = whole.split(share, seed=3)
    assert len(test) == round(share * n)
    for side in ("positive", "negative"):
        parts = [*getattr(train, side), *getattr(test, side)]
        assert sorted(parts) == sorted(getattr(whole, side))
    if paired:
        assert all(p[1:] == m[1:] for part in (train, test) for p, m in zip(part.positive, part.negative, strict=True))


def test_a_split_depends_on_the_seed_alone() -> None:
    whole = sl.ContrastSet([f"p{i}" for i in range(20)], [f"n{i}" for i in range(20)])
    assert whole.split(seed=1) == whole.split(seed=1)
    assert whole.split(seed=1) != whole.split(seed=2)


def test_pairs_that_share_a_text_or_a_context_stay_on_one_side(any_model: Any) -> None:
    rows = [{"question": f"q{i // 2}?", "matching": f"yes {i}", "not_matching": f"no {i // 4}"} for i in range(24)]
    whole = sl.ContrastSet.of(rows)
    for seed in range(5):
        train, test = whole.split(seed=seed)
        assert train.context is not None
        assert test.context is not None
        assert not set(train.context) & set(test.context)
        assert len(train.lint(any_model, held_out=test).query("check == 'leakage'")) == 0
        assert len(train) + len(test) == 24


def test_a_sample_keeps_pairs_and_order() -> None:
    whole = sl.ContrastSet([f"p{i}" for i in range(20)], [f"n{i}" for i in range(20)])
    part = whole.sample(7, seed=1)
    numbers = [int(text[1:]) for text in part.positive]
    assert len(set(numbers)) == 7
    assert numbers == sorted(numbers)
    assert part.negative == tuple(f"n{i}" for i in numbers)


# ----------------------------------------------------------------------------------------------------------------- lint


def found(contrast: sl.ContrastSet, model: Any, check: str, **options: Any) -> list[tuple[int, str]]:
    frame = contrast.lint(model, **options)
    assert list(frame.columns) == ["check", "pair", "side", "message"]
    rows = frame[frame["check"] == check]
    return list(zip(rows["pair"].tolist(), rows["side"].tolist(), strict=True))


def test_nothing_is_found_in_a_clean_set(any_model: Any) -> None:
    pairs = [(f"The number {i} is good", f"The number {i} is bad") for i in range(10)]
    assert sl.ContrastSet.of(pairs).lint(any_model).empty


def test_lengths_and_the_longer_side(any_model: Any) -> None:
    pairs = [(f"The number {i} is very good", f"The number {i} is bad") for i in range(10)]
    assert found(sl.ContrastSet.of(pairs), any_model, "length") == [(i, "") for i in range(10)]
    assert found(sl.ContrastSet.of(pairs), any_model, "longer side") == [(-1, "positive")]
    turned = [pair if i % 2 else pair[::-1] for i, pair in enumerate(pairs)]
    assert found(sl.ContrastSet.of(turned), any_model, "longer side") == []
    apart = sl.ContrastSet([p for p, _ in pairs], [m for _, m in pairs], paired=False)
    assert found(apart, any_model, "longer side") == [(-1, "positive")]


def test_answer_letters(any_model: Any) -> None:
    asked = "Which? {}\n (A) one\n (B) two\n ({})"
    always = [(asked.format(i, "A"), asked.format(i, "B")) for i in range(10)]
    assert found(sl.ContrastSet.of(always), any_model, "answer letter") == [(-1, "positive"), (-1, "negative")]
    turned = [pair if i % 2 else pair[::-1] for i, pair in enumerate(always)]
    assert found(sl.ContrastSet.of(turned), any_model, "answer letter") == []


def test_duplicates(any_model: Any) -> None:
    pairs = [*PAIRS, (" i  LOVE it", "I hate it"), ("same", "Same")]
    assert found(sl.ContrastSet.of(pairs), any_model, "duplicate") == [(4, ""), (5, "")]
    apart = sl.ContrastSet(["a", "b", "a"], ["c", "b"], paired=False)
    assert found(apart, any_model, "duplicate") == [(2, "positive"), (1, "positive")]


def test_leading_spaces(any_model: Any) -> None:
    assert found(sl.ContrastSet.of([("love", " hate")]), any_model, "leading space") == [(0, "positive")]
    glued = sl.ContrastSet(["So it isgood"], ["So it is bad"], context=("So it is",))
    assert found(glued, any_model, "leading space") == [(0, "positive")]


def test_words_that_are_several_tokens(any_model: Any) -> None:
    one = sl.ContrastSet.of([("They went to Krasnodar today", "They went to work today")])
    (row,) = one.lint(any_model).query("check == 'split token'").itertuples()
    assert (row.pair, row.side) == (0, "positive")
    assert "tokens: ' K" in row.message


def test_leakage(any_model: Any) -> None:
    train = sl.ContrastSet.of(PAIRS)
    test = sl.ContrastSet.of([("new", "so  BAD")])
    assert found(train, any_model, "leakage", held_out=test) == [(2, "negative")]


def test_texts_that_cannot_be_used(any_model: Any) -> None:
    assert found(sl.ContrastSet.of([("word " * 100, "good")]), any_model, "unusable") == [(0, "positive")]
