"""Keys of runs: the same for ever for the same run, so that stores of last year are found again; else another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from steerlens.engine import Sampling
from steerlens.models import ModelStamp
from steerlens.runs.run_keys import Planned, job_key, run_key
from steerlens.steering import Condition, Injection, SteeringVector

JOB: dict[str, Any] = {
    "weights": "0123abcd",
    "prompts": ["I", "du bist schön"],
    "ids": [[0, 1], [0, 2, 3]],
    "sampling": Sampling(n=2, max_new_tokens=3),
}
STAMP = ModelStamp("m", n_layers=4, d_model=2, d_vocab=9, folded=False, centred=False, sketch=(0.0,))


def condition(*, layer: int = 1, add: float = 0.0, placement: Any = "front", label: str = "a") -> Condition:
    values = torch.tensor([[0.0, 0.0], [1.5 + add, -2.0]])
    return Condition((Injection(SteeringVector(values, layer, STAMP), placement),), label)


def key(**changes: Any) -> str:
    return run_key(condition(**changes), job=job_key(**JOB))


def test_keys_stay_what_they_are() -> None:
    """If this fails, every store and ledger there is would be computed anew: see `_REVISION`."""
    assert key() == "c8e892ca01016597b5e368eea55f8740"
    assert run_key(Condition(), job=job_key(**JOB)) == "fde9a873bb4db211dd628f42d515fcba"


def test_what_completions_depend_on_is_in_the_key() -> None:
    changed = [{}, {"layer": 2}, {"add": 2.0**-22}, {"placement": "back"}, {"placement": 1}]
    assert len({key(**change) for change in changed}) == len(changed)
    assert key(label="another name") == key()


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "0123abce"},
        {"prompts": ["I", "du bist schon"]},
        {"ids": [[0, 1], [0, 2, 4]]},
        {"ids": [[0, 1, 0], [2, 3]]},
        {"ends": [0, 4]},
        *(
            {"sampling": replace(JOB["sampling"], **{name: value})}
            for name, value in {
                **dict.fromkeys(("n", "max_new_tokens", "temperature", "top_k", "frequency_penalty", "seed"), 7),
                "top_p": 0.7,
                "stop_at_end": False,
                "stop": (".", 3),
            }.items()
        ),
    ],
)
def test_what_a_job_depends_on_is_in_its_key(change: dict[str, Any]) -> None:
    assert job_key(**JOB | change) != job_key(**JOB)


def test_autocast_computes_other_numbers() -> None:
    plain = job_key(**JOB)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = job_key(**JOB)
        with torch.autocast("cpu", enabled=False):
            assert job_key(**JOB) == plain
    assert lowered != plain
    with torch.autocast("cpu", dtype=torch.float16):
        assert job_key(**JOB) not in (plain, lowered)


def test_equal_settings_are_one_key() -> None:
    same = Sampling(n=np.int64(2), max_new_tokens=3, temperature=1, top_p=0.3)
    assert job_key(**JOB | {"sampling": same}) == job_key(**JOB)


def test_a_plan_shows_its_condition() -> None:
    planned = Planned.of(condition(layer=3), "steered", job=job_key(**JOB))
    assert (planned.label, planned.role, planned.layer, planned.placement) == ("a", "steered", 3, "front")
    assert planned.key == key(layer=3)
