"""Each kind of tokenizer, made here: BOS stands once, nothing stands behind a prompt, texts are read in their place."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.analysis.named_tokens import named_tokens
from steerlens.steering.chats import with_system
from steerlens.steering.prompts import following_ids, read_prompt, read_prompts
from steerlens.steering.tokens import (
    continuation_ids,
    is_bos,
    n_bos,
    pad_id,
    reader_after,
    token_ids,
    token_strings,
)
from tests import reference
from tests.conftest import KINDS

TEXT = "The capital of France is Paris . I went to a wedding and Love you Hate it"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
# byte: as GPT-2's, nothing is added; byte-bos: BOS in front; byte-eos: and EOS behind; one-end: BOS is EOS; metaspace:
# a space before every text, BOS in front, as Llama 2's.
TOKENIZERS = ("byte", "byte-bos", "byte-eos", "one-end", "metaspace", "unigram")


@cache
def tokenizer(kind: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    spaced = kind in ("metaspace", "unigram")
    words = sorted({piece for word in TEXT.split() for piece in (word, *word)})
    if spaced:
        pieces = ["<unk>", *SPECIAL, "▁", *words, *(f"▁{word}" for word in TEXT.split() if len(word) > 1), *"!?:,)0\n"]
        pieces = list(dict.fromkeys(pieces))
        core = Tokenizer(models.Unigram([(piece, -1.0 if len(piece) > 1 else -9.0) for piece in pieces], 0, False))
        if kind == "metaspace":
            core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
            core.decoder = decoders.Metaspace(prepend_scheme="always", split=True)
        else:
            core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            core.decoder = decoders.Sequence(
                [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
            )
    else:
        core = Tokenizer(models.BPE())
        core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=1
        )
        core.train_from_iterator([TEXT], trainer)
    core.add_special_tokens(SPECIAL)
    bos, eos = ("</s>", "</s>") if kind == "one-end" else ("<s>", "</s>")
    front = "" if kind in ("byte", "one-end") else f"{bos} "
    behind = f" {eos}" if kind == "byte-eos" else ""
    known = [(one, core.token_to_id(one)) for one in {bos, eos}]
    if front or behind:
        core.post_processor = processors.TemplateProcessing(single=f"{front}$A{behind}", special_tokens=known)
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=bos, eos_token=eos)
    made.chat_template = TEMPLATE
    return made


@cache
def loaded(kind: str, model_kind: str = KINDS[0]) -> Any:
    return sl.load_model(
        reference.tiny_model("llama", vocab=len(tokenizer(kind)) + 3),
        tokenizer=tokenizer(kind),
        device="cpu",
        bridge=model_kind.startswith("bridge"),
    )


@pytest.fixture(params=TOKENIZERS)
def model(request: pytest.FixtureRequest) -> Any:
    return loaded(request.param)


@pytest.fixture(params=["metaspace", "unigram"])
def spaced(request: pytest.FixtureRequest) -> Any:
    return loaded(request.param)


def plain(model: Any, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_prompt_has_one_bos_and_no_end(model: Any) -> None:
    bos = model.tokenizer.bos_token
    for text in ("The capital", f"{bos}The capital"):
        ids = token_ids(model, text)
        assert ids.count(model.tokenizer.bos_token_id) == 1 and ids[0] == model.tokenizer.bos_token_id
        assert ids[1:] == plain(model, text)[text.startswith(bos) :]
        assert n_bos(model, ids) == 1


def test_without_bos_by_default_what_is_written_counts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.cfg, "default_prepend_bos", False)
    bos = model.tokenizer.bos_token
    assert n_bos(model, token_ids(model, "The capital")) == 0
    assert token_ids(model, "The capital") == plain(model, "The capital")
    assert n_bos(model, token_ids(model, f"{bos}The capital")) == 1


def test_bos_in_a_batch_is_where_rows_begin(any_model: Any) -> None:
    bos = any_model.tokenizer.bos_token_id  # padding is the same token
    tokens = torch.tensor([[bos, bos, 5, bos], [bos, bos, bos, 7], [bos, 5, 6, 7], [4, 5, 6, 7]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    assert is_bos(any_model, tokens, mask).long().tolist() == [[0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_continuation_is_what_the_whole_text_holds(model: Any) -> None:
    before, after = "The capital of France is", " Paris"
    ids = following_ids(model, read_prompt(model, before), after)
    assert token_ids(model, before) + ids == token_ids(model, before + after)
    assert continuation_ids(model, after) == ids
    found = sl.score(model, after, prompt=before)
    whole = sl.score(model, before + after)
    assert found["token_id"].tolist() == ids
    assert found["logprob"].tolist() == pytest.approx(whole["logprob"].tolist()[-len(ids) :], abs=1e-5)


def test_completions_keep_their_first_space(model: Any) -> None:
    prompt = token_ids(model, "The capital of France is")
    assert reader_after(model, prompt)(continuation_ids(model, " Paris")) == " Paris"
    assert reader_after(model)(continuation_ids(model, "wedding")) == "wedding"
    assert "".join(token_strings(model, continuation_ids(model, " wedding and"))) == " wedding and"


def test_a_word_with_its_space_is_one_piece(spaced: Any) -> None:
    (number,) = named_tokens(spaced, " wedding")
    assert spaced.tokenizer.convert_ids_to_tokens(number) == "▁wedding"
    (bare,) = named_tokens(spaced, "wedding")
    assert spaced.tokenizer.convert_ids_to_tokens(bare) == "wedding"


def test_prompts_of_equal_length_need_no_pad(model: Any) -> None:
    n = len(token_ids(model, "Love"))
    if n == len(token_ids(model, "Hate")):
        assert sl.actadd(model, "Love", "Hate", layer=1, pad="no such token").n_positions == n
    with pytest.raises(sl.SteerlensError, match="tokens for this model"):
        sl.actadd(model, "Love you", "Hate", layer=1, pad="no such token")


def test_pads_outside_the_embedding_never_reach_it() -> None:
    own = deepcopy(tokenizer("byte"))
    small = reference.tiny_model("llama", vocab=len(own))
    own.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": ["<far>"]})
    for kind in KINDS[::2]:
        model = sl.load_model(small, tokenizer=own, device="cpu", bridge=kind.startswith("bridge"))
        assert own.pad_token_id >= model.cfg.d_vocab > pad_id(model)
        both = sl.next_token_logits(model, ["The capital of France", "I"])
        assert torch.allclose(both[1], sl.next_token_logits(model, "I"), atol=1e-5)
        sl.mean_difference(model, ["The capital", "I"], ["Hate"], layer=1)
        sl.generate(model, ["The capital of France", "I"], max_new_tokens=3)
        for run in (lambda: sl.generate(model, "I <far>"), lambda: sl.score(model, " <pad>", prompt="I")):
            with pytest.raises(sl.SteerlensError, match="outside the model's embedding") as caught:
                run()
            assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- chats

CHAT = [
    {"role": "system", "content": "user"},
    {"role": "user", "content": " The capital "},
    {"role": "assistant", "content": "Paris ."},
    {"role": "user", "content": "The capital"},
]


def test_a_chat_is_what_its_template_makes_of_it(model: Any) -> None:
    prompt = read_prompt(model, CHAT)
    theirs = model.tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert list(prompt.ids) == theirs
    assert prompt.n_bos == 1
    assert prompt.text.splitlines()[-1] == "user: The capital"
    said = [(span.role, reader_after(model)(prompt.ids[span.begin : span.stop]).strip()) for span in prompt.spans]
    assert said == [(one["role"], one["content"].strip()) for one in CHAT]
    assert prompt.positions_of("user") == tuple(
        place for span in prompt.spans if span.role == "user" for place in range(span.begin, span.stop)
    )


def test_a_chat_and_its_rendered_text_and_its_ids_are_one_prompt(model: Any) -> None:
    prompt = read_prompt(model, CHAT)
    written = model.tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    same = [CHAT, list(prompt.ids), torch.tensor(prompt.ids), prompt]
    if not written.startswith(" "):
        same.append(written)
    assert {read_prompt(model, one).ids for one in same} == {prompt.ids}
    logits = [sl.next_token_logits(model, one) for one in same]
    assert all(one.equal(logits[0]) for one in logits)
    assert sl.next_token_logits(model, [CHAT, CHAT]).shape[0] == 2


def test_one_prompt_and_several(any_model: Any) -> None:
    ids = [3, 4, 5]
    for one in ("a", ids, tuple(ids), torch.tensor(ids)):
        assert len(read_prompts(any_model, one)) == 1
        assert len(read_prompts(any_model, [one, one])) == 2


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([{"role": "user"}], "message 0 of the chat has the keys role; needs a role and a content"),
        ([{"role": "user", "content": None}], "content of a message must be text"),
        ([{"role": "user", "content": "a", "name": "b"}], "has the keys role, content, name"),
        (torch.zeros(2, 3, dtype=torch.long), "one dimension"),
        ([], "list of prompts is empty"),
        ([[]], "the prompt is empty"),
        ([10**6], "outside the model's embedding"),
        ([-1], "outside the model's embedding"),
    ],
)
def test_prompts_that_are_none(prompt: Any, words: str) -> None:
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        sl.generate(loaded("byte"), prompt)
    assert "\n" not in str(caught.value)


def test_a_chat_needs_a_template(any_model: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="has no chat template"):
        sl.generate(any_model, [{"role": "user", "content": "Hello"}])


def test_every_function_takes_a_chat() -> None:
    model = loaded("byte")
    pair = sl.PromptPair(with_system("Love you", CHAT), with_system("Hate it", CHAT))
    vector = sl.actadd(model, pair, layer=1)
    assert vector.source["template"] and vector.source["positive"][0] == {"role": "system", "content": "Love you"}
    mean = sl.mean_difference(model, [CHAT], [with_system("Hate", "I")], layer=1)
    assert mean.source["template"] == vector.source["template"]
    text = read_prompt(model, CHAT).text
    assert set(sl.generate(model, [CHAT, "I"], mean, max_new_tokens=2)["prompt"]) == {text, "I"}
    assert set(sl.score(model, ["Paris", "Love"], mean, prompt=CHAT)["prompt"]) == {text}
    assert set(sl.logit_shift(model, CHAT, mean).frame["prompt"]) == {text}
    assert set(sl.layer_effect(model, pair, CHAT, wanted="P", layers=[1]).frame["prompt"]) == {text}
    assert sl.token_map(model, CHAT, vector).prompt == text
    frame = sl.sweep(model, pair, CHAT, layers=[1], n=1, max_new_tokens=2, metrics=[sl.metrics.words("Paris")]).frame
    assert set(frame["prompt"]) == {text}


def test_a_system_prompt_as_a_baseline() -> None:
    assert with_system("Be kind", "Hi") == [
        {"role": "system", "content": "Be kind"},
        {"role": "user", "content": "Hi"},
    ]
    assert with_system("Be kind", CHAT)[1:] == CHAT[1:]


def test_a_pair_of_chats_is_a_value() -> None:
    pair = sl.PromptPair(CHAT, [1, 2, 3])
    assert hash(pair) == hash(sl.PromptPair(list(CHAT), [1, 2, 3]))
    assert pair == sl.PromptPair(list(CHAT), torch.tensor([1, 2, 3]))
