"""The page on other tools: its snippets run with the tools themselves, and find the directions that steerlens finds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from tests.conftest import HAS_HOOKED_TRANSFORMER, freshly_loaded, loaded, make_tokenizer, plain_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "other-tools.md"
RAW = "hooked-raw" if HAS_HOOKED_TRANSFORMER else "bridge-raw"
TOPICS = (
    "the wedding",
    "a bride",
    "her cake",
    "a church",
    "my sister",
    "that ring",
    "him",
    "love",
    "flowers",
    "a song",
)

pytestmark = pytest.mark.exchange


def snippet(tool: str) -> str:
    """The code in the tab of a tool, for a tiny model: layers 1 and 2 in place of 19 and 20."""
    tabs = dict(
        re.findall(r'^=== "([^"]+)"\n\n((?:    .*\n|\n)+)', PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    (code,) = re.findall(r"```py\n(.*?)```", dedent(tabs[tool]), flags=re.DOTALL)
    return code.replace("19", "1").replace("20", "2").replace("max_new_tokens=40", "max_new_tokens=4")


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the snippets take as given: texts with BOS written out, which not every tool adds, and a tiny "gpt2-xl"."""
    bos = make_tokenizer().bos_token
    monkeypatch.chdir(tmp_path)
    plain_model("gpt2").save_pretrained("gpt2-xl")
    make_tokenizer().save_pretrained("gpt2-xl")
    return {
        "positives": [f"{bos}We talked about {topic}" for topic in TOPICS],
        "negatives": [f"{bos}We talked about {number} of them" for number in range(len(TOPICS))],
        "prompt": f"{bos}I went up to my friend and said",
    }


def run(tool: str, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(snippet(tool), f"{PAGE.name}, {tool}", "exec"), names)
    return names


def ours(names: dict[str, Any]) -> sl.SteeringVector:
    return sl.mean_difference(loaded("gpt2", RAW), names["positives"], names["negatives"], layer=2)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.cosine_similarity(a.flatten().float(), b.flatten().float(), dim=0))


def test_steerlens(names: dict[str, Any]) -> None:
    made = run("steerlens", names)
    assert (made["vector"].layer, made["vector"].placement) == (2, "all")


def test_steering_vectors(names: dict[str, Any]) -> None:
    pytest.importorskip("steering_vectors")
    vector, mine = run("steering-vectors", names)["vector"], ours(names)
    assert list(vector.layer_activations) == [1]
    assert_close(vector.layer_activations[1], mine.values[0], rtol=0, atol=1e-4)
    ids = make_tokenizer()(names["prompt"], return_tensors="pt")["input_ids"]
    model = loaded("gpt2", RAW)
    with torch.no_grad(), vector.apply(names["model"], multiplier=2.0, min_token_index=1):
        theirs = names["model"](ids).logits.log_softmax(-1)
    with torch.no_grad(), sl.steer(model, 2 * mine):
        assert_close(model(ids).log_softmax(-1), theirs, rtol=0, atol=1e-4)


def test_repeng(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float_", np.float64, raising=False)  # repeng 0.4 names it; NumPy 2 has it no more
    pytest.importorskip("repeng")
    from transformers import AutoModelForCausalLM

    names |= {"hf_model": AutoModelForCausalLM.from_pretrained("gpt2-xl"), "tokenizer": make_tokenizer()}
    direction = torch.as_tensor(run("repeng", names)["vector"].directions[1])
    pairs = sl.ContrastSet.of(list(zip(names["positives"], names["negatives"], strict=True)))
    mine = sl.pca(loaded("gpt2", RAW), pairs, layer=2, center=True)
    assert cosine(direction, mine.values) == pytest.approx(1.0, abs=1e-3)
    assert float(direction.norm()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="steerkit is for HookedTransformer")
def test_steerkit(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    steerkit = pytest.importorskip("steerkit")
    monkeypatch.setattr(
        steerkit.models.HookedTransformer, "from_pretrained", lambda *a, **k: freshly_loaded("gpt2", RAW)
    )
    bos = make_tokenizer().bos_token
    given = [
        {"prompt": bos, "positive_response": up.removeprefix(bos), "negative_response": down.removeprefix(bos)}
        for up, down in zip(names["positives"], names["negatives"], strict=True)
    ]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, given)), encoding="utf-8")
    made = run("steerkit", names)
    assert made["probe"].hook_name == f"blocks.{made['probe'].layer}.hook_resid_post"
    every = steerkit.Probe.fit_all(made["activations"], made["model"], test_fraction=0.0)[1]
    texts = [[f"{bos}\n{one[side]}" for one in given] for side in ("positive_response", "negative_response")]
    mine = sl.mean_difference(loaded("gpt2", RAW), *texts, layer=2)
    direction = every.get_direction("diff_of_means")
    assert cosine(direction, mine.values) == pytest.approx(1.0, abs=1e-4)
    assert float(direction.norm()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.skipif(not HAS_HOOKED_TRANSFORMER, reason="the snippet is for HookedTransformer")
def test_bare_transformer_lens(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import transformer_lens

    monkeypatch.setattr(
        transformer_lens.HookedTransformer, "from_pretrained", lambda *a, **k: freshly_loaded("gpt2", RAW)
    )
    bos = make_tokenizer().bos_token  # TransformerLens adds it
    names = {
        key: [text.removeprefix(bos) for text in value] if isinstance(value, list) else value.removeprefix(bos)
        for key, value in names.items()
    }
    mine = ours(names)
    assert_close(run("TransformerLens", names)["vector"], mine.values[0], rtol=0, atol=1e-4)
    assert isinstance(names["text"], str)
