"""P@K: ranks of a naive hooked forward loop, the paper's arithmetic on them, honest counts of what was left out."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import steerlens as sl
from steerlens.experiments.knowledge import answers
from steerlens.experiments.knowledge.cloze import SHIPPED, ask, read_cloze
from steerlens.experiments.knowledge.experiment import KS, QUICK, knowledge
from steerlens.experiments.shared.depth import same_depth
from steerlens.measures.statistics import wilson_interval
from tests.conftest import DATA, plain_model
from tests.reference import block_inputs, log_probs, tiny_model

CONCEPTNET = DATA / "lama" / "conceptnet.parquet"
SMALL: dict[str, Any] = {"limit": 20, "layer": 1, "coeffs": (0.0, 1.0, 3.0)}


@pytest.fixture(scope="module")
def result(any_model):
    return knowledge(any_model, **SMALL)


def naive(model: Any, prompt: str, additions: Any) -> Any:
    """Log-probabilities of the next token from plain hooks on the plain model, one prompt at a time."""
    return log_probs(plain_model("gpt2"), model.to_tokens(prompt)[0].tolist(), additions)[-1]


def test_ranks_and_log_probabilities_are_those_of_a_naive_loop(result, any_model) -> None:
    hf = plain_model("gpt2")
    plus = any_model.to_tokens(" weddings")[0].tolist()
    minus = any_model.to_tokens("")[0].tolist()
    space = any_model.to_tokens(" ", prepend_bos=False)[0].tolist()
    minus += space * (len(plus) - len(minus))
    vector = block_inputs(hf, plus)[1] - block_inputs(hf, minus)[1]
    vector[0] = 0
    tested = 0
    for coeff in (0.0, 1.0, 3.0):
        role = "unsteered" if coeff == 0 else "steered"
        rows = result.sentences[(result.sentences["role"] == role) & (result.sentences["coeff"] == coeff)]
        for row in rows.itertuples():
            expected = naive(any_model, row.prompt, {1: coeff * vector} if coeff else None)
            target = expected[any_model.to_tokens(f" {row.answer}", prepend_bos=False)[0].item()]
            assert row.logprob == pytest.approx(target.item(), abs=2e-4)
            # Two tokens may be nearer to each other than two ways to compute them.
            assert (expected > target + 2e-4).sum() <= row.rank <= (expected > target - 2e-4).sum() - 1
            tested += 1
    assert tested == 60


def test_p_at_k_is_the_share_of_ranks_below_k(result) -> None:
    assert len(result.frame) == (1 + 3 + 3) * len(KS)
    for row in result.frame.itertuples():
        ranks = result.sentences.loc[result.sentences["condition"] == row.condition, "rank"]
        before = result.sentences.loc[result.sentences["role"] == "unsteered", "rank"]
        limits = wilson_interval(int((ranks < row.k).sum()), 20)
        assert (row.p_at_k, row.low, row.high, row.n) == ((ranks < row.k).mean(), limits.low, limits.high, 20)
        if row.role != "unsteered":
            gained = ((ranks < row.k).to_numpy() & ~(before < row.k).to_numpy()).sum()
            lost = (~(ranks < row.k).to_numpy() & (before < row.k).to_numpy()).sum()
            assert row.difference == pytest.approx((gained - lost) / 20, abs=1e-12)
            assert row.difference_low <= row.difference <= row.difference_high
    for _, group in result.frame.groupby("condition"):
        assert group.sort_values("k")["p_at_k"].is_monotonic_increasing


def test_coefficient_0_changes_exactly_nothing(result) -> None:
    same = result.frame[(result.frame["role"] != "unsteered") & (result.frame["coeff"] == 0)]
    assert len(same) == 2 * len(KS) and (same["difference"] == 0).all() and (same["p_value"] == 1).all()
    table = result.log_probability()
    assert (table.loc[table["coeff"] == 0, "difference"] == 0).all()
    assert (table.loc[table["coeff"] == 3, "difference"] != 0).all()


def test_among_all_tokens_every_answer_is_found(any_model) -> None:
    everything = int(any_model.cfg.d_vocab)
    frame = knowledge(any_model, limit=5, coeffs=1.0, control=None, ks=[everything]).frame
    assert (frame["p_at_k"] == 1).all()


def test_by_relation_adds_up(result) -> None:
    table = result.by_relation(k=100, coeff=3.0)
    overall = result.frame.query("role == 'steered' and coeff == 3 and k == 100").iloc[0]
    assert table["n"].sum() == 20
    assert (table["n"] * table["difference"]).sum() / 20 == pytest.approx(overall["difference"])
    with pytest.raises(sl.SteerlensError, match="no steered condition has coefficient 7"):
        result.by_relation(coeff=7)


def test_the_papers_examples_are_cut_as_its_script_does(gpt2_tokenizer) -> None:
    """Prompt and answer are tokenised together; the answer is the last token, its space included."""
    model = sl.load_model(tiny_model("gpt2", vocab=50257), tokenizer=gpt2_tokenizer, device="cpu")
    rows = [
        {"sentence": sentence, "label": label, "relation": "", "subject": ""}
        for sentence, label in (
            ("A salad spinner is used to remove [MASK].", "water"),
            ("You are likely to find a bee in a flower's [MASK].", "blossom"),
            ('To understand the event "Paul went to a vegetarian restaurant.", it is important to know that vegetarian '
             "restaurants do not serve [MASK].", "meat"),
            ("[MASK] is a fruit.", "apple"),
            ("A dog wants [MASK].", "pneumonoultramicroscopic"),
            ("Cats [MASK] mice and [MASK] birds.", "eat"),
            ("pre[MASK]", "war"),
        )
    ]  # fmt: skip
    asked = ask(model, rows, shortest=2)
    by_row = {one.row: one for one in asked.questions}
    expected = {number: gpt2_tokenizer.encode(f" {rows[number]['label']}") for number in (0, 2, 5)}
    assert {number: [by_row[number].token] for number in expected} == expected
    assert by_row[5].prompt == "Cats" and by_row[0].prompt.endswith("remove")
    whole = gpt2_tokenizer.encode(rows[1]["sentence"].split("[MASK]")[0] + "blossom")
    assert (1 in by_row) == (gpt2_tokenizer.decode(whole[-1:]).strip() == "blossom")
    assert asked.left_out["nothing before the mask"] == 1 and 3 not in by_row and 4 not in by_row
    assert asked.read == len(rows) == len(asked.questions) + sum(asked.left_out.values())


def test_prompts_shorter_than_the_vector_are_counted(any_model) -> None:
    rows, _ = read_cloze()
    pair = sl.PromptPair("In the garden of the house", "")
    long = knowledge(any_model, pair=pair, layer=0, control=None)
    assert long.left_out["prompt shorter than the vector"] > 0
    assert long.settings["sentences asked"] + sum(long.left_out.values()) == len(rows) == 256
    lengths = [len(any_model.to_tokens(prompt)[0]) for prompt in long.sentences["prompt"].unique()]
    assert min(lengths) >= sl.actadd(any_model, pair, layer=0).n_positions


def test_a_stopped_run_goes_on_where_it_was(any_model, result, tmp_path: Path, monkeypatch) -> None:
    calls = []
    real = answers._answer

    def stopping(model: Any, questions: Any, *rest: Any) -> Any:
        calls.append(len(questions))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(model, questions, *rest)

    monkeypatch.setattr(answers, "_answer", stopping)
    store = tmp_path / "parts.sqlite"
    with pytest.raises(KeyboardInterrupt):
        knowledge(any_model, **SMALL, store=store, chunk=6)
    resumed = knowledge(any_model, **SMALL, store=store, chunk=6)
    assert calls == [6, 6, 6, 6, 2]  # the third was stopped, and came again
    pd.testing.assert_frame_equal(
        resumed.frame.drop(columns="p_value"), result.frame.drop(columns="p_value"), check_exact=True
    )
    assert resumed.sentences["rank"].tolist() == result.sentences["rank"].tolist()
    knowledge(any_model, **SMALL, store=store, chunk=6)
    assert len(calls) == 5
    knowledge(any_model, **{**SMALL, "layer": 2}, store=store, chunk=20)
    assert len(calls) == 6  # other settings are other parts


def test_files_of_every_kind_hold_the_same(any_model, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in SHIPPED.read_text(encoding="utf-8").splitlines()][:9]
    frame = pd.DataFrame(rows)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    lama = [{**row, "masked_sentences": [row["masked_sentence"]]} for row in rows]
    for row in lama:
        del row["masked_sentence"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lama), encoding="utf-8")
    expected = read_cloze()[0][:9]
    for kind in ("parquet", "csv", "jsonl"):
        assert read_cloze(tmp_path / f"a.{kind}")[0] == expected
    assert read_cloze(frame)[0] == expected


def test_the_shipped_sentences() -> None:
    rows, source = read_cloze()
    assert source == "shipped sentences" and len(rows) == 256
    assert len({row["sentence"] for row in rows}) == 256
    assert all(row["sentence"].count("[MASK]") == 1 and row["label"].isalpha() for row in rows)
    assert pd.Series([row["relation"] for row in rows]).value_counts().to_dict() == dict.fromkeys(
        {row["relation"] for row in rows}, 16
    )
    assert SHIPPED.with_suffix(".md").is_file()


@pytest.mark.skipif(not CONCEPTNET.is_file(), reason=f"LAMA ConceptNet is not at {CONCEPTNET}; set STEERLENS_DATA")
def test_all_of_conceptnet_can_be_read(any_model) -> None:
    rows, _ = read_cloze(CONCEPTNET)
    assert len(rows) == 29_920
    frame = knowledge(any_model, data=CONCEPTNET, limit=30, control=None).frame
    assert (frame["n"] == 30).all()


def test_defaults_are_those_of_the_papers_script(any_model) -> None:
    assert set(KS) == {int(k) for k in np.unique(np.ceil(np.logspace(0, 2, 20)))} | {10}
    assert inspect.signature(knowledge).parameters["coeffs"].default == (1.0,) and set(QUICK) <= set(
        inspect.signature(knowledge).parameters
    )
    settings = knowledge(any_model, limit=2, control=None).settings
    assert settings["pair"] == "' weddings' − ''" and settings["layer"] == same_depth(any_model, 16) == 1
    assert len(settings["model fingerprint"]) == 32


@pytest.mark.parametrize(("layers", "expected"), [(48, (6, 16, 47)), (12, (2, 4, 11)), (8, (1, 3, 7)), (1, (0, 0, 0))])
def test_the_same_depth(layers: int, expected: tuple[int, ...]) -> None:
    class Model:
        class cfg:
            n_layers = layers

    assert tuple(same_depth(Model, layer) for layer in (6, 16, 47)) == expected  # type: ignore[arg-type]


def test_page(result, tmp_path: Path) -> None:
    page = result.save(tmp_path / "out").read_text(encoding="utf-8")
    assert (
        "Does the model keep its knowledge under steering?" in page and "P@10, unsteered" in page and "left out" in page
    )
    assert json.loads((tmp_path / "out" / "knowledge.json").read_text())["settings"]["sentences read"] == 256


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": "nowhere.jsonl"}, "no file at nowhere.jsonl"),
        ({"layer": 3}, "layer 3 is out of range"),
        ({"ks": []}, "ks is empty"),
        ({"ks": [0]}, "each of ks must be a whole number of at least 1, got 0"),
        ({"ks": [1.9]}, "each of ks must be a whole number of at least 1, got 1.9"),
        ({"ks": "14"}, "ks must be a list of whole numbers, got '14'"),
        ({"coeffs": "14"}, "coeffs must be a list of numbers"),
        ({"limit": 1.5}, "limit must be"),
        ({"coeffs": []}, "coeffs is empty"),
        ({"limit": 0}, "limit must be"),
        ({"control": "placebo"}, "control='placebo'"),
        ({"chunk": 0}, "chunk must be"),
    ],
)
def test_bad_input_is_one_clear_line(any_model, arguments, words) -> None:
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        knowledge(any_model, **arguments)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<a/>", encoding="utf-8")
    with pytest.raises(sl.SteerlensError, match="of no kind that prompts are read from"):
        read_cloze(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ('{"obj_label": "x"}', "no column 'masked_sentence' or"),
        ('{"masked_sentence": "A [MASK]"}', "no column 'obj_label'"),
        ('{"masked_sentence": "A b.", "obj_label": "x"}', r"row 0 .* has no \[MASK\]"),
        ('{"masked_sentence": "A [MASK].", "obj_label": ""}', "1 of the 1 prompts"),
        ('{"masked_sentence": "A [MASK].", "obj_label": "qwxzvk"}', "1 × answer of several tokens"),
        ("{", "cannot read prompts from"),
    ],
)
def test_bad_files_are_one_clear_line(any_model, tmp_path: Path, text, words) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        knowledge(any_model, data=path)
    assert "\n" not in str(caught.value)


def test_ks_of_numpy_are_whole_numbers(any_model) -> None:
    frame = knowledge(any_model, limit=3, control=None, ks=np.array([3, 1, 3])).frame
    assert sorted(frame["k"].unique()) == [1, 3]


def test_where_steering_overflows_nothing_is_finite(any_model, tmp_path: Path, monkeypatch) -> None:
    real = answers._answer

    def overflowing(*arguments: Any) -> Any:
        """The last condition has one row without a distribution, told as the engine tells it."""
        found = real(*arguments)
        found["ranks"][-1][0], found["logprobs"][-1][0] = -1, np.nan
        return found

    monkeypatch.setattr(answers, "_answer", overflowing)
    found = knowledge(any_model, limit=4, control=None, coeffs=(1.0, 2.0), ks=[1, 10], store=tmp_path / "parts.sqlite")
    numbers = ["p_at_k", "low", "high", "difference", "difference_low", "difference_high", "p_value"]
    broken, whole = (found.frame.loc[found.frame["coeff"] == coeff, numbers] for coeff in (2.0, 1.0))
    assert broken.isna().all(axis=None) and whole.notna().all(axis=None)
    changes = found.log_probability().set_index("coeff")["difference"]
    assert np.isnan(changes[2.0]) and np.isfinite(changes[1.0])
    assert found.by_relation()["difference"].isna().sum() == 1
    assert found.save(tmp_path / "out").is_file()


def test_hooks_of_the_user_are_refused_only_where_parts_are_kept(any_model, result, tmp_path: Path) -> None:
    def double(values: Any, hook: Any) -> Any:
        return 2 * values

    with any_model.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", double)]):
        hooked = knowledge(any_model, **SMALL)
        with pytest.raises(sl.SteerlensError, match=r"hooks of yours at blocks\.2"):
            knowledge(any_model, **SMALL, store=tmp_path / "parts.sqlite")
    assert hooked.settings["model fingerprint"] is None
    assert hooked.sentences["logprob"].tolist() != result.sentences["logprob"].tolist()
