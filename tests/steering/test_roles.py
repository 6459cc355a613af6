"""Vectors at the messages of a role, against plain hooks on the Hugging Face model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens.engine.passes import Job, Passage, Way
from steerlens.steering.prompts import read_prompt
from steerlens.steering.roles import at_positions
from steerlens.steering.tokens import reader_after
from tests import reference
from tests.conftest import KINDS
from tests.steering.test_tokens import CHAT, loaded, tokenizer

ROLES = ("system", "user", "assistant")
SHORT = [{"role": "system", "content": "Hate"}, CHAT[2], {"role": "user", "content": "I"}]
KINDS_HERE = KINDS[::2]  # one of each class
HIDDEN = 32


def hf() -> Any:
    return reference.tiny_model("llama", vocab=len(tokenizer("byte")) + 3)


def vector(model: Any, placement: Any, seed: int = 0, layer: int = 1) -> sl.SteeringVector:
    values = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(seed))
    return 2 * sl.SteeringVector.of(model, values, layer=layer, placement=placement)


def said_by(model: Any, chat: Any, role: str) -> list[int]:
    """Positions of a role's words, found by writing the chat anew with each message's content left out."""
    ids = read_prompt(model, chat).ids
    places = []
    for number, message in enumerate(chat):
        if message["role"] != role:
            continue
        # Where the first and the last tokens that another content changes are.
        before = read_prompt(model, [*chat[:number], {**message, "content": "!"}, *chat[number + 1 :]]).ids
        first = next(i for i, (one, other) in enumerate(zip(ids, before, strict=False)) if one != other)
        from_end = next(
            i for i, (one, other) in enumerate(zip(reversed(ids), reversed(before), strict=False)) if one != other
        )
        places += range(first, len(ids) - from_end)
    return places


def rows_for(model: Any, steering: sl.SteeringVector, chat: Any, role: str) -> torch.Tensor:
    rows = torch.zeros(len(read_prompt(model, chat)), HIDDEN)
    rows[said_by(model, chat, role)] = steering.values[0]
    return rows


@pytest.mark.parametrize("kind", KINDS_HERE)
@pytest.mark.parametrize("role", ROLES)
def test_the_tokens_of_a_role_and_no_others(kind: str, role: str) -> None:
    model = loaded("byte", kind)
    steering = vector(model, role)
    both = sl.next_token_logits(model, [CHAT, SHORT], steering)
    for chat, logits in zip((CHAT, SHORT), both, strict=True):
        rows = rows_for(model, steering, chat, role)
        assert 0 < rows.any(-1).sum() < len(rows)
        expected = reference.log_probs(hf(), read_prompt(model, chat).ids, {1: rows})[-1]
        torch.testing.assert_close(logits.log_softmax(-1), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(sl.next_token_logits(model, chat, steering), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS_HERE)
@pytest.mark.parametrize("use_cache", [True, False])
def test_completions_and_their_scores(kind: str, use_cache: bool) -> None:
    """Greedy text of two chats of different lengths under every role at once, and what it scores."""
    model = loaded("byte", kind)
    conditions = [vector(model, role, seed) for seed, role in enumerate(ROLES)]
    frame = sl.generate(
        model,
        [CHAT, SHORT],
        [*conditions, tuple(conditions)],
        n=1,
        temperature=0,
        max_new_tokens=6,
        frequency_penalty=0,
        stop_at_end=False,
        use_cache=use_cache,
    )
    texts = iter(frame["completion"])
    for number in range(4):
        for chat in (CHAT, SHORT):
            ids = read_prompt(model, chat).ids
            mine = [number] if number < 3 else [0, 1, 2]
            rows = sum((rows_for(model, conditions[i], chat, ROLES[i]) for i in mine), torch.zeros(len(ids), HIDDEN))
            expected = reference.greedy(hf(), ids, 6, {1: rows})
            assert next(texts) == reader_after(model, ids)(expected)
    scored = sl.score(model, [" Paris", " Love"], conditions[1], prompt=[CHAT, SHORT])
    for chat, (_, rows_of_text) in zip((CHAT, SHORT), scored.groupby("text_index"), strict=True):
        ids = [*read_prompt(model, chat).ids, *rows_of_text["token_id"]]
        logprobs = reference.log_probs(hf(), ids, {1: rows_for(model, conditions[1], chat, "user")})
        expected = [float(logprobs[at - 1, token]) for at, token in rows_of_text[["position", "token_id"]].to_numpy()]
        assert rows_of_text["logprob"].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS_HERE)
def test_every_way_of_the_engine(kind: str) -> None:
    model = loaded("byte", kind)
    chats = [read_prompt(model, chat) for chat in (CHAT, SHORT)]
    passages = [Passage(one.ids, len(one), len(one) - 1, len(one), one.spans) for one in chats]
    condition = sl.Condition((sl.Injection(vector(model, "user")), sl.Injection(vector(model, "system", 1, 2))))
    ways: tuple[Way, ...] = ("rows", "hooks" if kind.startswith("bridge") else "walk")
    found = []
    for way in ways:
        cells = list(Job.of(model, passages, [sl.Condition(), condition]).cells(way=way))
        by_place = {
            (int(leaf), int(passage)): row
            for one in cells
            for leaf, passage, row in zip(one.leaf, one.passage, one.logits, strict=True)
        }
        found.append(torch.stack([by_place[key] for key in sorted(by_place)]))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
    one_by_one = sl.next_token_logits(model, SHORT, at_positions(condition, chats[1].spans))
    torch.testing.assert_close(found[0][3], one_by_one, atol=1e-4, rtol=1e-4)


def test_other_operations_act_at_a_role() -> None:
    model = loaded("byte")
    injection = sl.Injection(vector(model, "user"), operation="ablate")
    rows = torch.zeros(len(read_prompt(model, CHAT)), dtype=torch.bool)
    rows[said_by(model, CHAT, "user")] = True

    def change(x: torch.Tensor) -> torch.Tensor:
        return torch.where(rows[:, None], reference.operated(x, injection.vector.values[0], "ablate"), x)

    expected = reference.changed_log_probs(hf(), read_prompt(model, CHAT).ids, [(1, "resid_pre", change)])[-1]
    found = sl.next_token_logits(model, CHAT, injection).log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_analysis_goes_where_the_engine_goes() -> None:
    model = loaded("byte")
    steering = vector(model, "user")
    places = said_by(model, CHAT, "user")
    mapped = sl.token_map(model, CHAT, steering).frame
    assert mapped.loc[mapped["injected"], "position"].tolist() == places
    shift = sl.logit_shift(model, [CHAT, SHORT], steering)
    assert (shift.summary.query("condition == 1")["kl"] > 0).all()
    total = sl.shift_parts(model, CHAT, steering, follow=[5]).totals
    logits = sl.next_token_logits(model, CHAT, [None, steering])
    assert float(total["shift"].iloc[0]) == pytest.approx(float(logits[1, 5] - logits[0, 5]), abs=1e-3)
    lens = sl.layer_lens(model, CHAT, steering, follow=[5]).frame.query("condition == 1")
    assert lens["logprob"].iloc[-1] == pytest.approx(float(logits[1].log_softmax(-1)[5]), abs=1e-4)
    receipts = sl.generate(model, SHORT, steering, n=1, max_new_tokens=2).attrs["receipts"]
    assert receipts[0][0]["positions"] == tuple(said_by(model, SHORT, "user"))


def test_bad_roles_are_one_line_before_the_model_runs() -> None:
    model = loaded("byte")
    steering = vector(model, "assistant")
    alone = [CHAT[-1]]
    runs: list[Any] = [
        lambda: sl.generate(model, [CHAT, alone], steering),
        lambda: sl.generate(model, [CHAT, "I"], [None, steering]),
        lambda: sl.score(model, "I went", steering),
        lambda: sl.score(model, " Paris", steering, prompt=alone),
        lambda: sl.next_token_logits(model, alone, steering),
        lambda: sl.logit_shift(model, [CHAT, "I"], steering),
        lambda: sl.shift_parts(model, "I", steering),
        lambda: sl.layer_lens(model, alone, steering),
        lambda: sl.token_map(model, "I", steering),
    ]
    passes: list[int] = []
    handle = model.hook_dict["blocks.0.hook_resid_pre"].register_forward_hook(lambda *args: passes.append(1))
    try:
        for number, run in enumerate(runs):
            with pytest.raises(sl.SteerlensError, match="no words of role 'assistant'") as caught:
                run()
            assert "\n" not in str(caught.value)
            if number < 6:
                assert not passes
    finally:
        handle.remove()


def test_steer_sees_no_roles() -> None:
    model = loaded("byte")
    with pytest.raises(sl.SteerlensError, match="use generate, score"), sl.steer(model, vector(model, "user")):
        raise AssertionError("the block must not begin")
    with pytest.raises(sl.SteerlensError, match=r"vector\.at\(i\)"):
        sl.generate(model, CHAT, sl.actadd(model, "Love you", "Hate", layer=1), placement="user")
