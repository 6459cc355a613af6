"""lm-evaluation-harness' own steered model, run on the file: its log-likelihoods are those of `score`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import steerlens as sl
from steerlens.models import stamp
from tests.conftest import KINDS, loaded, make_tokenizer, plain_model
from tests.steering.sites.cases import D

PAIRS = [("The dog ran", " to the house"), ("Once upon a time there was", " a little girl named"), ("He said", " no")]
BLOCKS = {"gpt2": "h", "llama": "layers", "opt": "decoder.layers", "gptj": "h"}


@pytest.fixture(scope="module", params=BLOCKS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An architecture, and the directory of its tiny model with a tokenizer."""
    path = tmp_path_factory.mktemp("model") / request.param
    plain_model(request.param).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return request.param, path


def vector(model: Any, layer: int = 1, seed: int = 0, centred: bool = False, **fields: Any) -> sl.SteeringVector:
    values = torch.randn(1, D, generator=torch.Generator().manual_seed(seed))
    values = values - values.mean() if centred else values + 0.3
    return sl.SteeringVector(values, layer, stamp(model), **{"placement": "all", **fields})


def twice(condition: tuple[sl.Injection, ...]) -> tuple[sl.Injection, ...]:
    """The same at BOS too, which lm-eval has no exception for."""
    from dataclasses import replace

    return tuple(replace(one, placement=place) for one in condition for place in (0, "all"))


def steered_model(path: Path, file: Path) -> Any:
    steered = pytest.importorskip("lm_eval.models.hf_steered")
    return steered.SteeredModel(pretrained=str(path), steer_path=str(file), device="cpu", batch_size=2, dtype="float32")


def conditions(model: Any) -> dict[str, tuple[sl.Injection, ...]]:
    one, centred = vector(model), vector(model, seed=1, centred=True)
    mean = vector(model, seed=2, centred=True)
    return {
        "sum at two places": (
            sl.Injection(2 * one),
            sl.Injection(vector(model, layer=0, seed=3, site="resid_post")),
            sl.Injection(vector(model, layer=2, seed=4, site="resid_post")),
        ),
        "ablate": (sl.Injection(centred, operation="ablate"),),
        "clamp": (sl.Injection(centred, operation="clamp", value=2.0),),
        "affine": (sl.Injection(centred, operation="affine", mean=mean),),
    }


@pytest.mark.exchange
@pytest.mark.parametrize("name", ["sum at two places", "ablate", "clamp", "affine"])
def test_log_likelihoods_are_those_of_score(folder: Any, name: str, tmp_path: Path) -> None:
    architecture, path = folder
    instance = pytest.importorskip("lm_eval.api.instance")
    model = loaded(architecture, KINDS[0])
    condition = conditions(model)[name]
    file = sl.save_lm_eval(sl.Condition(condition), tmp_path / "steer.pt", blocks=BLOCKS[architecture])
    harness = steered_model(path, file)
    bos = model.tokenizer.bos_token
    requests = [instance.Instance("loglikelihood", {}, (bos + one, two), 0) for one, two in PAIRS]
    theirs = [found for found, _ in harness.loglikelihood(requests, disable_tqdm=True)]
    frame = [
        float(sl.score(model, [continuation], prompt=prompt, steering=twice(condition))["logprob"].sum())
        for prompt, continuation in PAIRS
    ]
    assert_close(torch.tensor(theirs), torch.tensor(frame), rtol=0, atol=1e-4)
    plain = [float(sl.score(model, [two], prompt=one)["logprob"].sum()) for one, two in PAIRS]
    assert (torch.tensor(plain) - torch.tensor(frame)).abs().max() > 0.1


@pytest.mark.exchange
def test_a_task_from_a_file(folder: Any, tmp_path: Path) -> None:
    """As `lm_eval --model steered --tasks` runs it: a multiple choice read from a local file."""
    evaluator, tasks = pytest.importorskip("lm_eval.evaluator"), pytest.importorskip("lm_eval.tasks")
    architecture, path = folder
    if architecture != "llama":
        return
    model = loaded(architecture, KINDS[0])
    one = 3 * vector(model)
    file = sl.save_lm_eval(one, tmp_path / "steer.pt", blocks=BLOCKS[architecture])
    bos = model.tokenizer.bos_token
    rows = [{"question": bos + ask, "choices": [right, " cat"], "answer": 0} for ask, right in PAIRS]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "local.yaml").write_text(
        f"""task: local
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{tmp_path / "data.jsonl"}"}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
    )
    found = evaluator.simple_evaluate(
        model=steered_model(path, file),
        tasks=["local"],
        task_manager=tasks.TaskManager(include_path=str(tmp_path), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = sorted(found["samples"]["local"], key=lambda sample: sample["doc_id"])
    for sample, row in zip(samples, rows, strict=True):
        theirs = [float(pair[0][0]) for pair in sample["resps"]]
        both = (one.on(0), one)
        ours = [
            float(sl.score(model, [text], prompt=row["question"].removeprefix(bos), steering=both)["logprob"].sum())
            for text in row["choices"]
        ]
        assert_close(torch.tensor(theirs), torch.tensor(ours), rtol=0, atol=1e-4)


def test_what_it_cannot_do_is_refused(any_model: Any, tmp_path: Path) -> None:
    one = vector(any_model)
    centred = any_model.cfg.normalization_type == "LNPre"
    for bad, words in (
        (one.on("front"), "is placed at 'front'"),
        (vector(any_model, layer=0), "use layer 1 or more"),
        (vector(any_model, site="mlp_out"), "not to mlp_out"),
        (sl.Injection(one, operation="add_keep_norm"), "cannot 'add_keep_norm'"),
        ((one, sl.Injection(vector(any_model, centred=True), operation="ablate")), "would be added to and clamped"),
        (sl.Injection(one, ramp=sl.Ramp([0, 1])), "is as strong everywhere"),
        (sl.Injection(one, gate=sl.Gate(one, above=0.0)), "has no gates"),
        (None, "no vector to save"),
    ):
        with pytest.raises(sl.SteerlensError, match=words):
            sl.save_lm_eval(bad, tmp_path / "steer.pt")
    with pytest.raises(sl.SteerlensError, match=r"call it NAME\.pt"):
        sl.save_lm_eval(one, tmp_path / "steer.bin")
    if centred:
        with pytest.raises(sl.SteerlensError, match="has a mean over its width"):
            sl.save_lm_eval(sl.Injection(one, operation="ablate"), tmp_path / "steer.pt")
    assert list(tmp_path.iterdir()) == []
