"""Extraction at every site: the same formulas on what is read there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.models import SITES
from steerlens.steering.extraction.linear_probes import auc
from tests import reference
from tests.conftest import KINDS, VOCAB, loaded, make_tokenizer
from tests.steering.sites.cases import HEADS, close

PLUS = [f"I love {thing}" for thing in ("tea", "rain", "dogs", "cats", "snow", "wine")]
MINUS = [f"I hate {thing} today" for thing in ("tea", "rain", "dogs", "cats", "snow", "wine")]
PAIRS = sl.ContrastSet(tuple(PLUS), tuple(MINUS))
TEST = sl.ContrastSet(("I love you", "I love work"), ("I hate you today", "I hate work today"))


def readings(model: Any, texts: Any, site: Any, layer: int = 1) -> torch.Tensor:
    """By `mean_difference` from one text, whose sites have tests of their own."""
    zero = sl.mean_difference(model, ["They"], ["It"], layer=layer, site=site)
    it = [sl.mean_difference(model, [text], ["It"], layer=layer, site=site).values[0] for text in texts]
    return torch.stack(it) + 0 * zero.values  # (all are seen from "It")


@pytest.mark.parametrize("site", SITES)
def test_pca_probe_and_directions(any_model: Any, site: Any) -> None:
    plus, minus = readings(any_model, PLUS, site), readings(any_model, MINUS, site)
    found = sl.pca(any_model, PAIRS, layer=1, site=site)
    assert (found.site, found.heads, found.placement) == (site, HEADS if site == "z" else 1, "all")
    first = torch.from_numpy(np.linalg.svd((plus - minus).double().numpy())[2][0]).float()
    close(found.values[0], first * (first @ (plus - minus).mean(0)))
    means = sl.probe(any_model, PAIRS, layer=1, site=site, kind="means", held_out=TEST)
    close(means.values[0], (plus - minus).mean(0))
    both = sl.directions(any_model, PAIRS, methods=["mean_difference"], layers=[1], site=site, held_out=TEST)
    close(both.vectors["mean_difference"][1].values[0], (plus - minus).mean(0))
    base, steered = sl.next_token_logits(any_model, "They went", [None, 3 * found])
    assert not torch.equal(base, steered)


@pytest.mark.parametrize("site", SITES)
def test_model_difference(any_model: Any, site: Any) -> None:
    other = sl.load_model(
        reference.tiny_model("gpt2", vocab=VOCAB, seed=1), tokenizer=make_tokenizer(), device="cpu",
        bridge=KINDS[0].startswith("bridge"),
    )  # fmt: skip
    texts = ["The dog", "They went home"]
    found = sl.model_difference(other, any_model, texts, layer=1, site=site)
    # Seen from "It" in each model; what "It" differs by is the model difference of it alone.
    it = sl.model_difference(other, any_model, ["It"], layer=1, site=site).values[0]
    close(found.values[0] - it, (readings(other, texts, site) - readings(any_model, texts, site)).mean(0))


@pytest.mark.parametrize("site", ["z", "attn_out", "resid_mid", "resid_post"])
def test_trained_and_latent(gpt2: Any, site: Any) -> None:
    """What was trained is what steering adds: `score` gives the log-probabilities that the search saw."""
    target, prompt = " and they were happy", "The dog ran"
    found = sl.trained(gpt2, [target], prompts=prompt, layer=1, site=site, held_out=0, steps=10, progress=False)
    frame = sl.score(gpt2, target, [None, found], prompt=prompt)
    before, after = -frame.groupby("condition").logprob.mean()
    assert found.source["losses"][0][1] == pytest.approx(before, abs=1e-4)
    assert min(loss for _, loss in found.source["losses"]) == pytest.approx(after, abs=1e-4)
    assert after < before
    one = sl.latent(gpt2, target, prompt=prompt, layer=1, site=site, steps=5, progress=False)
    logprob = sl.score(gpt2, target, one, prompt=prompt).logprob.sum()
    assert one.site == site and one.source["log_prob"] == pytest.approx(logprob, abs=1e-3)


@pytest.mark.parametrize("kind", ["means", "logistic"])
def test_the_best_heads(any_model: Any, kind: Any) -> None:
    """Inference-time intervention: single heads by held-out accuracy, each as long as the spread along it."""
    found = sl.probe(any_model, PAIRS, layers="all", site="z", kind=kind, held_out=TEST, top_heads=3)
    heads = []
    for layer in range(3):
        whole = sl.probe(any_model, PAIRS, layer=layer, site="z", kind=kind, held_out=TEST)
        sides = [readings(any_model, texts, "z", layer).chunk(HEADS, -1) for texts in (PLUS, MINUS, *TEST_SIDES)]
        for head, record in enumerate(whole.source["by_head"]):
            plus, minus, right, wrong = (side[head] for side in sides)
            heads.append((-record["accuracy"], -record["auc"], layer, head, record, plus, minus))
            if kind == "means":
                unit = (plus - minus).mean(0) / (plus - minus).mean(0).norm()
                middle = (plus.mean(0) + minus.mean(0)) @ unit / 2
                share = ((right @ unit > middle).float().mean() + (wrong @ unit <= middle).float().mean()) / 2
                assert record["accuracy"] == pytest.approx(float(share))
                assert record["auc"] == auc(unit, right, wrong)
                assert record["std"] == pytest.approx(
                    float((torch.cat([plus, minus]) @ unit).std(correction=0)), rel=1e-3
                )
    best = {
        (layer, head): (record, plus, minus)
        for _, _, layer, head, record, plus, minus in sorted(heads, key=lambda x: x[:4])[:3]
    }
    assert sorted(found) == sorted({layer for layer, _ in best})
    for layer, vector in found.items():
        for head, part in enumerate(vector.values[0].chunk(HEADS)):
            if (layer, head) not in best:
                assert not part.any()
                continue
            record, plus, minus = best[layer, head]
            assert float(part.norm()) == pytest.approx(record["std"], rel=1e-4)
            assert float(part @ (plus - minus).mean(0)) > 0
    together = sl.Condition.of(found.values(), label="ITI")
    assert (15 * together).coeff == 15.0 and len(together.injections) == len(found)
    sl.next_token_logits(any_model, "They went", 15 * together)


TEST_SIDES = (TEST.positive, TEST.negative)


def test_heads_that_cannot_be_chosen(any_model: Any) -> None:
    for given, words in (
        ({"top_heads": 2}, "which are at site='z'"),
        ({"top_heads": 5, "site": "z"}, "top_heads must be a whole number from 1 to 4"),
        ({"site": "nowhere"}, "site 'nowhere' is unknown"),
    ):
        with pytest.raises(sl.SteerlensError, match=words):
            sl.probe(any_model, PAIRS, layer=1, **given)
    gptj = loaded("gptj", KINDS[0])
    for function, more in ((sl.pca, {}), (sl.probe, {}), (sl.directions, {"layers": [1]})):
        with pytest.raises(sl.SteerlensError, match="no site 'resid_mid'"):
            function(gptj, PAIRS, site="resid_mid", **(more or {"layer": 1}))
    with pytest.raises(sl.SteerlensError, match="no site 'resid_mid'"):
        sl.trained(gptj, [" and"], prompts="They", layer=1, site="resid_mid", held_out=0)
