"""Ratios equal plain forward passes of the Hugging Face model; bins and intervals hold."""

import inspect
import itertools
import math
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch

import steerlens as sl
from steerlens.errors import SteerlensError
from steerlens.experiments.perplexity.document_scoring import ACTADD, PADDED, PROMPT, RANDOM
from steerlens.experiments.perplexity.essay_curve import essay_curve
from steerlens.experiments.perplexity.experiment import QUICK, perplexity
from steerlens.experiments.perplexity.sentences import Splitter, splitter
from steerlens.experiments.perplexity.token_shifts import Rows, token_logprobs
from steerlens.measures.statistics import mean_interval
from tests import reference
from tests.experiments.perplexity.cases import ALL, PAIR, TEXTS


def ids_of(model, text):
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def by_hand(model, hf, texts, split, *, layer, coeff, method, masked):
    """Sum of changes of log-probability and number of tokens per document, from plain PyTorch alone."""
    bos = [model.tokenizer.bos_token_id] if model.cfg.default_prepend_bos else []
    plus, minus = bos + ids_of(model, PAIR.positive), bos + ids_of(model, PAIR.negative)
    space = ids_of(model, " ")
    assert len(space) == 1
    minus += space * (len(plus) - len(minus))
    values = reference.block_inputs(hf, plus)[layer] - reference.block_inputs(hf, minus)[layer]
    values[: len(bos)] = 0.0
    blank = bos + space * (len(plus) - len(bos))
    sums, counts = [], []
    for text in texts:
        total, count = 0.0, 0
        for sentence in split(text):
            tokens = ids_of(model, sentence)
            most = model.cfg.n_ctx - len(plus)
            for window in (tokens[i : i + most] for i in range(0, len(tokens), most)):
                if method == ACTADD:
                    base = steered = bos + window
                    if len(base) < len(values):
                        continue
                    start = 0
                else:
                    base, start = blank + window, len(plus) - 1
                    steered = base if method == PADDED else plus + window
                before = reference.log_probs(hf, base)
                after = reference.log_probs(hf, steered, None if method == PROMPT else {layer: coeff * values})
                for position in range(start, len(base) - 1):
                    if masked and position < len(values):
                        continue
                    token = base[position + 1]
                    total += float(after[position, token] - before[position, token])
                    count += 1
        sums.append(total)
        counts.append(count)
    return np.array(sums), np.array(counts)


def test_ratios_equal_plain_forward_passes(case):
    model = case.model
    result = perplexity(model, PAIR, documents=TEXTS, layer=1, layers=[2], coeffs=(1.0,), layer_coeffs=(-2.0,), **ALL)
    split = splitter(TEXTS, "corpus")
    frame = result.frame
    groups = {"related": [0, 2], "unrelated": [1, 3]}
    assert result.settings["sentences cut into windows"] == 1
    assert result.settings["sentences shorter than the vector"] == sum(
        len(ids_of(model, s)) + bool(model.cfg.default_prepend_bos) < result.settings["masked positions"]
        for text in TEXTS
        for s in split(text)
    )
    for method, layer, coeff in [
        (ACTADD, 1, 1.0),
        (ACTADD, 2, 1.0),
        (ACTADD, 1, -2.0),
        (PADDED, 1, 1.0),
        (PROMPT, 0, 1),
    ]:
        rows = frame[frame["method"] == method]
        if method != PROMPT:
            rows = rows[(rows["layer"] == layer) & (rows["coeff"] == coeff)]
        for masked in (True, False):
            sums, counts = by_hand(model, case.hf, TEXTS, split, layer=layer, coeff=coeff, method=method, masked=masked)
            for group, members in groups.items():
                (row,) = rows[(rows["group"] == group) & (rows["mask"] == masked)].itertuples()
                x = np.mean([sums[i] / counts[i] for i in members])
                assert row.x == pytest.approx(x, abs=1e-5)
                assert row.ratio == pytest.approx(math.exp(-x), abs=1e-5)
                assert row.tokens == counts[members].sum() and row.n == len(members) and row.enough
                over_tokens = sums[members].sum() / counts[members].sum()
                assert row.ratio_tokens == pytest.approx(math.exp(-over_tokens), abs=1e-5)


def test_at_layer_0_steering_spaces_is_prompting(gpt2):
    result = perplexity(gpt2, PAIR, documents=TEXTS, layer=0, **ALL)
    for masked in (True, False):
        steered, prompted = (result.main(method, mask=masked) for method in (PADDED, PROMPT))
        np.testing.assert_allclose(steered["x"], prompted["x"], atol=2e-5)
        assert steered["x"].abs().max() > 1e-2


def test_coefficient_0_changes_nothing(any_model):
    result = perplexity(any_model, PAIR, documents=TEXTS, layer=1, coeffs=(0.0,), **ALL)
    rows = result.frame[result.frame["method"].isin([ACTADD, RANDOM, PADDED])]
    assert (rows["x"] == 0).all() and (rows["ratio"] == 1).all()


def test_bins_hold_the_documents_with_their_share(any_model):
    plain = "The old man sat by the fire and told them of the war and of the sea."  # 17 words
    documents = [
        plain,
        plain + " " + " ".join(["He slept."] * 92) + " She wed him.",  # 1 of 204 words: 0.49 %
        "One bride. " + " ".join(["He slept."] * 99),  # 1 of 200: 0.5 %, which is the second bin
        "wedding, WEDDING. " + "He did not know. " * 2,  # 20 %
    ]
    result = perplexity(any_model, PAIR, documents=documents, layer=1, **(ALL | {"min_documents": 2}))
    bins = result.main()
    bins = bins[bins["kind"] == "bin"]
    assert dict(zip(bins["group"], bins["n"], strict=True)) == {"0–0.5 %": 2, "0.5–1 %": 1, "20–20.5 %": 1}
    assert list(bins["enough"]) == [True, False, False]
    assert bins["low"].isna().tolist() == [False, True, True]  # one document says nothing about spread
    groups = result.main().set_index("group")["n"]
    assert groups["unrelated"] == 1 and groups["related"] == 1
    split = perplexity(any_model, PAIR, documents=documents, layer=1, counting="split", **ALL)
    found = dict(zip(split.main()["group"], split.main()["n"], strict=True))
    assert found == {"0–0.5 %": 4, "unrelated": 3} or found["unrelated"] == 2  # "wedding," and "bride." are no words


def test_intervals_are_students_over_documents(any_model):
    documents = [f"{text} {more}" for text, more in itertools.product(TEXTS[1::2], ["It was late.", "No one spoke."])]
    split = Splitter("at full stops", "full stops", lambda text: text.replace(". ", ".|").split("|"))
    options = {"layer": 1, "sentences": split, "essays": False}
    alone = []
    for text in documents:
        rows = perplexity(any_model, PAIR, documents=[text], control=None, prompting=False, **options).main()
        alone.append(rows.set_index("group").loc["unrelated", "x"])
    row = (
        perplexity(any_model, PAIR, documents=documents, chunk=3, **options).main().set_index("group").loc["unrelated"]
    )
    expected = mean_interval(alone)
    np.testing.assert_allclose(
        [row["x"], row["x_low"], row["x_high"]], [expected.mean, expected.low, expected.high], atol=1e-6
    )
    assert (row["low"], row["ratio"], row["high"]) == pytest.approx(
        (math.exp(-row["x_high"]), math.exp(-row["x"]), math.exp(-row["x_low"]))
    )
    assert row["low"] < row["ratio"] < row["high"]


@torch.no_grad()
def test_the_token_table_counts_what_stands_in_the_documents(any_model):
    result = perplexity(any_model, PAIR, documents=TEXTS, layer=1, least_count=1, top_tokens=300, mask=False, **ALL)
    split = splitter(TEXTS, "corpus")
    bos = any_model.tokenizer.bos_token_id
    vector = sl.actadd(any_model, PAIR, layer=1)
    changes: dict[int, list[float]] = {}
    for sentence in (sentence for text in TEXTS for sentence in split(text)):
        ids = ids_of(any_model, sentence)
        most = any_model.cfg.n_ctx - vector.n_positions
        for window in (ids[i : i + most] for i in range(0, len(ids), most)):
            row = torch.tensor([[bos, *window]])
            if row.shape[1] < vector.n_positions:
                continue
            before = any_model(row)[0].log_softmax(-1)
            with sl.steer(any_model, vector):
                after = any_model(row)[0].log_softmax(-1)
            for position, token in enumerate(window):
                changes.setdefault(token, []).append(float(after[position, token] - before[position, token]))
    expected = {token: (len(found), np.mean(found)) for token, found in changes.items() if len(found) > 1}
    table = result.tokens.set_index("token_id")
    assert set(table.index) == {token for token, (_, mean) in expected.items() if mean}
    for token, row in table.iterrows():
        n, mean = expected[token]
        interval = mean_interval(changes[token])
        assert row["n"] == n and row["change"] == pytest.approx(mean, abs=1e-5)
        assert row["low"] == pytest.approx(interval.low, abs=1e-4)
        assert row["direction"] == ("rose" if mean > 0 else "fell")
    assert table[table["direction"] == "rose"]["change"].is_monotonic_decreasing


def test_empty_documents_and_broken_ones_are_counted(any_model):
    documents = ["", TEXTS[0], None, "  \n", float("nan"), "Go.", TEXTS[1]]
    result = perplexity(any_model, PAIR, documents=documents, layer=1, chunk=2, **ALL)
    assert result.settings["documents read"] == 7 and result.settings["empty documents"] == 4
    same = perplexity(any_model, PAIR, documents=[TEXTS[0], "Go.", TEXTS[1]], layer=1, **ALL)
    pd.testing.assert_frame_equal(result.frame, same.frame, atol=1e-4, rtol=1e-4)
    for texts in (["", None], iter(())):
        with pytest.raises(SteerlensError, match="there is no text in the documents"):
            perplexity(any_model, documents=texts, layer=1, **ALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 7}, "layer"),
        ({"coeffs": ()}, "coeffs is empty"),
        ({"bin_width": 0}, "above 0"),
        ({"min_documents": 0}, "at least 1"),
        ({"counting": "letters"}, "use 'words' or 'split'"),
        ({"control": "none"}, "use 'random' or None"),
        ({"documents": "missing.parquet"}, "no file of documents"),
        ({"documents": [7]}, "is int, not text"),
    ],
)
def test_bad_input_is_one_line(any_model, options, message):
    with pytest.raises(SteerlensError, match=message) as error:
        perplexity(any_model, **({"documents": TEXTS, "layer": 1, "essays": False} | options))
    assert "\n" not in str(error.value)


def test_by_default_documents_are_openwebtext_or_the_shipped_ones(any_model, demo, monkeypatch):
    def out_of_reach(name, **options):
        raise ConnectionError(f"no route to {name}")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=out_of_reach))
    with pytest.raises(SteerlensError, match="Skylion007/openwebtext.* cannot be read .*documents='shipped'"):
        perplexity(any_model, layer=1)
    result = perplexity(demo, n_documents=2, essays=False, prompting=False, control=None)
    assert result.settings["documents"].startswith("shipped")
    assert result.settings["layer"] == 2  # a third of the way
    assert set(QUICK) <= set(inspect.signature(perplexity).parameters)


def test_log_probabilities_that_are_none_are_an_error(any_model):
    rows = Rows.of_sentences([ids_of(any_model, TEXTS[0])], [any_model.tokenizer.bos_token_id])
    condition = sl.Condition((sl.Injection(sl.actadd(any_model, PAIR, layer=1)),))
    with (
        any_model.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", lambda resid, hook: resid * math.nan)]),
        pytest.raises(SteerlensError, match="the unsteered model's own logits hold NaN"),
    ):
        token_logprobs(any_model, rows, [sl.Condition(), condition])


@pytest.mark.parametrize("case", [("gpt2", "bridge"), ("llama", "bridge-raw")], indirect=True)
def test_the_essay_curve_equals_plain_forward_passes(case):
    model, essays = case.model, {"wedding": TEXTS[0], "shipping": TEXTS[1]}
    split = splitter(list(essays.values()), "corpus")
    result = essay_curve(model, PAIR, essays=essays, sentences=split)
    for row in result.frame[result.frame["source"] == "this model"].itertuples():
        sums, counts = by_hand(
            model, case.hf, [essays[row.essay]], split, layer=row.layer, coeff=1.0, method=ACTADD, masked=row.mask
        )
        assert row.x == pytest.approx(sums[0] / counts[0], abs=1e-5) and row.tokens == counts[0]
        assert row.low < row.ratio < row.high or row.x_low == row.x_high
    original = result.frame[result.frame["source"] != "this model"].set_index(["essay", "layer"])["ratio"]
    assert original["wedding", 4] == 0.8793 and original["shipping", 1] == 1.2557 and len(original) == 18


def test_essays_that_are_missing_or_empty(any_model, tmp_path):
    with pytest.raises(SteerlensError, match="cannot be read from"):
        essay_curve(any_model, essays={"mine": tmp_path / "missing.txt"})
    with pytest.raises(SteerlensError, match="is empty; give a text"):
        essay_curve(any_model, essays={"mine": "  "})


def test_the_page_has_all_figures(any_model, tmp_path):
    result = perplexity(
        any_model,
        documents="shipped",
        n_documents=12,
        layer=1,
        layers="all",
        coeffs=(1.0, 4.0),
        layer_coeffs=(-1.0,),
        min_documents=3,
    )
    figures = list(result.figures().values())
    assert len(figures) == 5
    bins, layers, coefficients, essays, tokens = figures
    marks = {trace.name: trace.marker.symbol for trace in bins.data}
    shown = result.main()
    shown = shown[shown["kind"] == "bin"]
    assert [not symbol.endswith("-open") for symbol in marks["ActAdd"]] == list(shown["enough"])
    assert not shown["enough"].all() and shown["enough"].any()
    assert any(trace.line.dash == "dash" and "original post" in (trace.name or "") for trace in essays.data)
    drawn = next(trace for trace in coefficients.data if trace.name == "related")
    assert list(drawn.x) == [-1, 0, 1, 4] and drawn.y[1] == 1
    lines = [(trace.name, trace.yaxis) for trace in layers.data if trace.mode == "lines+markers"]
    assert sorted(lines) == [(name, axis) for name in ("related", "unrelated") for axis in ("y", "y2")]
    assert sum(trace.showlegend for trace in layers.data if trace.mode == "lines+markers") == 2
    assert len(tokens.data[0].x) == len(result.tokens)
    page = result.save(tmp_path / "out")
    assert "Does steering make text on the topic more likely" in page.read_text()
    saved = pd.read_csv(tmp_path / "out" / "perplexity.csv")
    assert len(saved) == len(result.frame)
    assert len(result.headlines()) == 5
