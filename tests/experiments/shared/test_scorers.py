"""Scorers give what their formula says, and what their cards say; other people's classifiers answer as they are."""

import binascii
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.scorers import quality, training
from scripts.scorers import sentiment as reviews
from scripts.scorers import toxicity as posts
from steerlens.errors import SteerlensError
from steerlens.experiments import sentiment
from steerlens.experiments.shared import scorers
from steerlens.experiments.shared.scorers import HashedNgramScorer, hugging_face_scorer, shipped_scorer, tokens_of
from tests.conftest import DATA

SIZE = 64


def _scorer(longest=2, pieces=(), seed=0):
    weights = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    return HashedNgramScorer(weights, 0.3, longest, pieces, "trial")


def _slow_logit(scorer, words):
    """The formula again, word by word, in plain Python."""
    seen = []
    for length in range(1, scorer.longest + 1):
        for start in range(len(words)):
            if start + length <= len(words):
                seen.append(" ".join(words[start : start + length]))
    for word in words:
        for length in scorer.pieces:
            for start in range(len(word) + 2 - length + 1):
                seen.append("~" + ("#" + word + "#")[start : start + length])
    buckets = []
    for feature in seen:
        bucket = binascii.crc32(feature.encode()) % SIZE
        if bucket not in buckets:
            buckets.append(bucket)
    total = 0.0
    for bucket in buckets:
        total += float(scorer.weights[bucket])
    return 0.3 + (total / len(buckets) ** 0.5 if buckets else 0.0)


@given(st.lists(st.sampled_from("a bad good film not as it's 10 ! plot".split()), max_size=12), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_a_probability_is_the_sigmoid_of_the_sum_over_distinct_buckets(words, longest):
    for pieces in ((), (3, 4)):
        scorer = _scorer(longest, pieces)
        expected = 1 / (1 + np.exp(-_slow_logit(scorer, words)))
        assert scorer([" ".join(words)]) == pytest.approx([expected], abs=1e-6)


def test_markup_of_reviews_and_tweets_is_no_word():
    text = "RT @some_one: It’s GREAT!<br /><br />9/10 &amp; see https://t.co/x1 www.film.org f**k"
    assert tokens_of(text) == ["it's", "great", "!", "9/10", "see", "f**k"]
    assert tokens_of("") == [] and tokens_of("…") == []


def test_a_scorer_comes_back_from_its_file(tmp_path):
    scorer = _scorer(pieces=(3, 5))
    again = HashedNgramScorer.load(scorer.save(tmp_path / "mine.npz"))
    assert (again.longest, again.pieces, again.name) == (2, (3, 5), "mine")
    assert again.bias == pytest.approx(0.3)
    assert np.abs(again.weights - scorer.weights).max() <= np.abs(scorer.weights).max() / 127 / 2 + 1e-6
    assert HashedNgramScorer.load(again.save(tmp_path / "again.npz")).key == again.key != _scorer(seed=1).key


def test_files_that_are_no_scorers_are_refused_in_one_line(tmp_path):
    with pytest.raises(SteerlensError, match="there is no scorer at"):
        HashedNgramScorer.load(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("not at all")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(SteerlensError, match=r"is no scorer .*; give") as error:
            HashedNgramScorer.load(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(SteerlensError, match="use 'sentiment' or 'toxicity'"):
        shipped_scorer("irony")


def test_the_shipped_scorers_are_small_have_cards_and_tell_plain_cases_apart():
    for name in ("sentiment", "toxicity"):
        weights = scorers._FOLDER / f"{name}.npz"
        card = weights.with_suffix(".md").read_text(encoding="utf-8")
        assert weights.stat().st_size <= 300_000
        for needed in ("**Data**", "**Licence**", "train_scorers.py", "Held-out", "%"):
            assert needed in card
    praise, pan = shipped_scorer("sentiment")(["A wonderful film, I loved it.", "A terrible film, I hated it. Awful."])
    assert praise > 0.8 and pan < 0.2
    rude, kind = shipped_scorer("toxicity")(
        ["Shut up, you fucking idiot.", "The library opens at nine in the morning."]
    )
    assert rude > 0.8 and kind < 0.5


def _card(name):
    """Rows of a card's table of held-out numbers: first cell → the other cells."""
    text = (scorers._FOLDER / f"{name}.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


@pytest.mark.skipif(not (DATA / "imdb" / "test.parquet").is_file(), reason="needs imdb/test.parquet (STEERLENS_DATA)")
def test_the_card_of_the_sentiment_scorer_is_true():
    texts, labels, _ = reviews.imdb(DATA, "test")
    some = range(0, len(texts), 10)
    scorer, card = shipped_scorer("sentiment"), _card("sentiment")
    for said, words in (("whole reviews", None), ("first 25 words (about 32 tokens)", 25)):
        right = quality.accuracy(scorer, [texts[i][:words] for i in some], labels[list(some)])
        claimed = float(re.match(r"[\d.]+", card[said][1]).group()) / 100
        # The card has all reviews, here is a tenth of them: four standard errors.
        assert right.mean() == pytest.approx(claimed, abs=4 * (claimed * (1 - claimed) / right.size) ** 0.5)
        assert int(card[said][0].replace(",", "")) == len(texts)


@pytest.mark.skipif(
    not (DATA / "toxicity" / "davidson_tweets.parquet").is_file(), reason="needs toxicity/*.parquet (STEERLENS_DATA)"
)
def test_the_card_of_the_toxicity_scorer_is_true():
    parts = posts.labelled_texts(DATA)
    assert not set(parts["tweets train"].index) & set(parts["tweets test"].index)
    assert not set(parts["prose train"].index) & set(parts["prose test"].index)
    scorer, card = shipped_scorer("toxicity"), _card("toxicity")
    prose = parts["prose test"]
    for said, rows in (
        ("RealToxicityPrompts, prompts", prose[prose["side"] == "prompt"]),
        ("RealToxicityPrompts, continuations", prose[prose["side"] == "continuation"]),
        ("tweets", parts["tweets test"]),
    ):
        p, truth = scorer(list(rows["text"])), rows["label"].to_numpy() >= 0.5
        # The area under the curve once more, as the share of pairs in the right order.
        above = (p[truth][:, None] > p[~truth][None]).mean() + 0.5 * (p[truth][:, None] == p[~truth][None]).mean()
        assert f"{above:.3f}" == card[said][2].split()[0]
        assert f"{((p >= 0.5) == truth).mean():.1%}" == card[said][3].split()[0]


def test_training_finds_the_words_that_tell(tmp_path):
    generator = np.random.default_rng(0)
    filler = ["the", "plot", "and", "actor", "of", "scene"]
    labels = generator.integers(0, 2, 600)
    texts = [[*generator.choice(filler, 6), "superb" if label else "dreadful"] for label in labels]
    features = {"longest": 1, "pieces": ()}
    examples = training.Examples.of(texts, labels.tolist(), [1.0] * len(texts), **features)
    scorer = training.fit(examples, features, epochs=5, rate=0.05, decay=0.001, prior=0.5)
    good, bad, neither = scorer(["a superb scene", "a dreadful scene", "the scene"])
    assert good > 0.75 and bad < 0.25 and 0.25 < neither < 0.75


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A tiny Hugging Face classifier with random weights, in a directory."""
    import transformers as hf
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["[PAD]", "[UNK]", "good", "bad", "film", "a"]
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    )
    config = hf.BertConfig(
        vocab_size=6, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, num_labels=2, id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1}, initializer_range=1.0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = hf.BertForSequenceClassification(config).eval()
    place = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place, model, tokenizer


def test_a_hugging_face_classifier_answers_as_it_is(classifier):
    place, model, tokenizer = classifier
    texts = ["a good film", "bad", "", "good good film bad a a"]
    found = hugging_face_scorer(str(place), batch_size=3, device="cpu")(texts)
    with torch.no_grad():
        expected = [
            float(model(**tokenizer(text or " ", return_tensors="pt")).logits.softmax(-1)[0, 1]) if text else None
            for text in texts
        ]
    for one, other in zip(found, expected, strict=True):
        assert 0 <= one <= 1 and (other is None or one == pytest.approx(other, abs=1e-5))
    other_side = hugging_face_scorer(str(place), label="negative", device="cpu")(texts)
    assert found + other_side == pytest.approx(np.ones(4), abs=1e-6)
    # A directory may change under its name, so its scores are not kept.
    assert hugging_face_scorer(str(place), label=1, device="cpu").key == ""


def test_an_experiment_takes_classifier_and_embedder_by_name(any_model, classifier):
    place = str(classifier[0])
    found = sentiment(
        any_model, prompts=[("The film was a joy", "positive"), ("The film was a bore", "negative")], layers=(1,),
        coeffs=(2.0,), max_new_tokens=4, random_draws=1, scorer=place, embedder=place, progress=False,
    )  # fmt: skip
    assert found.settings["scorer"] == f"{place}, label POSITIVE" and found.settings["relevance"] == place
    own = hugging_face_scorer(place, device="cpu")(found.completions["completion"].tolist())
    assert found.completions["score"].tolist() == pytest.approx(own.tolist(), abs=1e-5)
    # Mean-pooled last hidden states of the encoder, one text at a time.
    encoder, tokenizer = classifier[1].bert, classifier[2]
    for row in found.completions.head(3).itertuples():
        with torch.no_grad():
            one, other = (
                encoder(**tokenizer(text, truncation=True, return_tensors="pt")).last_hidden_state[0].mean(0)
                for text in (row.prompt, row.completion)
            )
        assert row.relevance == pytest.approx(float(torch.cosine_similarity(one, other, dim=0)), abs=1e-4)


def test_unknown_classifiers_and_labels_are_one_line(classifier):
    with pytest.raises(SteerlensError, match="cannot load the classifier 'no/such-thing'") as error:
        hugging_face_scorer("no/such-thing")
    assert "\n" not in str(error.value) and "shipped" in str(error.value)
    with pytest.raises(SteerlensError, match=r"has no label 'toxic'; its labels are 0: NEGATIVE, 1: POSITIVE"):
        hugging_face_scorer(str(classifier[0]), label="toxic")


def test_answers_that_are_no_probabilities_are_refused():
    with pytest.raises(SteerlensError, match=r"shape \(1,\) for 2 texts"):
        scorers.probabilities(lambda texts: [0.5], ["a", "b"])
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(SteerlensError, match="between 0 and 1"):
            scorers.probabilities(lambda texts, wrong=wrong: [wrong], ["a"])
    with pytest.raises(SteerlensError, match=r"failed \(RuntimeError: out of memory\); with store="):
        scorers.probabilities(_broken, ["a"])


def _broken(texts):
    raise RuntimeError("out of memory\nand more lines")
