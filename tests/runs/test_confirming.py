"""What was chosen is measured anew: other samples, other prompts, every control; and it says on what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import steerlens as sl
from steerlens.measures import verdicts as v
from steerlens.measures.confirming import confirmed_table, confirmed_verdict
from steerlens.measures.pairing import paired_bootstrap, paired_by_sample

PROMPTS = ["I went up to my friend and said", "The weather today is"]
OTHERS = ["My dog and I", "In the evening we", "He looked at her and"]
SET = sl.ContrastSet.of([(f"I love {one}", f"I hate {one}") for one in ("tea", "rain", "dogs", "snow", "wine")])
METRIC = sl.metrics.words("the", "a", name="articles")


@pytest.fixture(scope="module")
def swept(any_model) -> sl.Sweep:
    how = {"n": 2, "max_new_tokens": 4, "metrics": [METRIC], "layers": [0, 1], "controls": [sl.Prompting("The the.")]}
    return sl.sweep(any_model, SET, PROMPTS, coeffs=[1, 3], **how)


def test_the_chosen_condition_is_run_again_with_every_control(swept, any_model, tmp_path: Path) -> None:
    found = swept.confirm(any_model, OTHERS, n=3, condition=4)
    counts = found.frame.groupby("role", sort=False)["condition"].nunique()
    assert counts.to_dict() == dict.fromkeys(("unsteered", "steered", "random", "shuffled", "negated", "prompting"), 1)
    assert set(found.frame["prompt"]) == set(OTHERS) and (found.frame["seed"] == 1).all()
    assert len(found.frame) == 6 * 3 * 3
    vector = 3 * sl.mean_difference(any_model, SET, layer=1)
    alone = sl.generate(any_model, OTHERS, vector, n=3, max_new_tokens=4, seed=1)
    assert found.frame.query("role == 'steered'")["completion"].tolist() == alone["completion"].tolist()
    told = sl.generate(any_model, OTHERS, sl.Prompting("The the."), n=3, max_new_tokens=4, seed=1)
    assert found.frame.query("role == 'prompting'")["completion"].tolist() == told["completion"].tolist()
    assert found.settings["chosen on"] == "2 prompts × 2 samples, seed 0, the best of 4"
    assert found.settings["confirmed on"] == "3 prompts × 3 samples, seed 1"
    page = found.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "the best of 4" in page and "3 prompts × 3 samples, seed 1" in page and found.verdict in page
    both = swept.report(tmp_path / "both.html", confirmed=found).read_text(encoding="utf-8")
    assert "confirmed on 3 prompts × 3 samples, seed 1" in both
    assert found.verdict in repr(found) and "confirmed on 3 prompts" in repr(found)
    assert len(found.plot().data[0].y) == 5  # (unsteered is a line)


def test_without_prompts_nothing_is_held_out_and_it_says_so(swept, any_model) -> None:
    found = swept.confirm(any_model, n=1, controls=None)
    assert "nothing is held out" in found.settings["confirmed on"]
    assert set(found.frame["role"]) == {"unsteered", "steered"}
    table = swept.effects()
    best = table[table["role"] == "steered"]["success"].max()
    chosen = found.settings["condition"]
    assert table.set_index("condition")["success"][swept._chosen(METRIC)] == best and "layer" in chosen


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompts": [*OTHERS, PROMPTS[1]]}, "is one that the condition was chosen on"),
        ({"seed": 0}, "would repeat the samples"),
        ({"condition": 0}, "condition 0 is 'unsteered'"),
        ({"condition": 99}, "there is no condition 99"),
        ({"n": 0}, "n must be"),
        ({"controls": "placebo"}, "controls='placebo'"),
        ({"metric": "x"}, "no metric 'x'"),
    ],
)
def test_bad_input_is_one_line(swept, any_model, arguments, words) -> None:
    with pytest.raises(sl.SteerlensError, match=words):
        swept.confirm(any_model, **arguments)
    with pytest.raises(sl.SteerlensError, match="put together from a frame"):
        sl.Sweep(swept.frame, swept.metrics).confirm(any_model)


def completions(shares: dict[str, list[float]], n: int = 20) -> pd.DataFrame:
    """A share per prompt for every role, exactly; all fluent."""
    rows = []
    for condition, (role, by_prompt) in enumerate(shares.items()):
        for prompt, share in enumerate(by_prompt):
            for sample in range(n):
                where = {"condition": condition, "label": role, "role": role, "placement": "all"}
                where |= {"layer": 1 if role in ("steered", "random") else pd.NA, "coeff": float(role != "unsteered")}
                seen = {"prompt": f"p{prompt}", "sample": sample, "completion": "x", "finished": True, "surprise": 1.0}
                rows.append({**where, **seen, "hit": float(sample < share * n)})
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def test_an_effect_on_one_prompt_of_many_is_no_effect_on_prompts() -> None:
    """Pairs taken for independent are sure of it; a bootstrap over prompts is not."""
    metric = sl.metrics.Metric("hit", "share", lambda texts: np.zeros(len(texts)))
    frame = completions({"unsteered": [0.0] * 6, "steered": [1.0] + [0.0] * 5})
    steered, base = frame[frame["role"] == "steered"], frame[frame["role"] == "unsteered"]
    plain, drawn = paired_by_sample(steered, base, "hit", "share"), paired_bootstrap(steered, base, "hit", "share")
    assert plain.p_value < 1e-4 and plain.low > 0.05
    assert drawn.estimate == plain.estimate and drawn.low <= 0 and drawn.p_value > 0.05
    assert "prompts and samples" in drawn.method
    assert confirmed_verdict(frame, metric)["verdict"] != v.WORKS
    everywhere = completions({"unsteered": [0.0] * 6, "steered": [0.4, 0.2, 0.3, 0.3, 0.5, 0.2]})
    assert confirmed_verdict(everywhere, metric)["verdict"] == v.WORKS


def test_few_pairs_that_agree_are_not_sure() -> None:
    frame = completions({"unsteered": [0.0], "steered": [1.0]}, n=4)
    found = paired_bootstrap(frame[frame["role"] == "steered"], frame[frame["role"] == "unsteered"], "hit", "share")
    assert found.p_value == 0.125 and found.low < 0.5  # McNemar's of 4 pairs


def test_the_bootstrap_is_a_plain_loop() -> None:
    frame = completions({"unsteered": [0.1, 0.3, 0.2, 0.0, 0.5], "steered": [0.4, 0.3, 0.9, 0.2, 0.5]})
    steered, base = (
        frame[frame["role"] == role].pivot(index="prompt", columns="sample", values="hit").to_numpy()
        for role in ("steered", "unsteered")
    )
    draw, means = np.random.default_rng(5), []
    for _ in range(4000):
        chosen = draw.integers(0, 5, 5)
        means.append(np.mean([draw.choice((steered - base)[one], 20) for one in chosen]))
    found = paired_bootstrap(frame[frame["role"] == "steered"], frame[frame["role"] == "unsteered"], "hit", "share")
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=0.02)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=0.02)


def test_the_table_holds_the_steered_condition_against_each(any_model) -> None:
    metric = sl.metrics.Metric("hit", "share", lambda texts: np.zeros(len(texts)))
    frame = completions({"unsteered": [0.0] * 6, "steered": [0.5] * 6, "random": [0.1] * 6, "prompting": [0.9] * 6})
    table = confirmed_table(frame, metric).set_index("role")
    assert list(table.index) == ["steered", "unsteered", "random", "prompting"]
    assert np.isnan(table["difference"]["steered"])
    assert table["difference"].tolist()[1:] == pytest.approx([0.5, 0.4, -0.4])
    assert (table["difference_low"] <= table["difference"])[1:].all()
    assert confirmed_verdict(frame, metric)["verdict"] == v.LESS_THAN_PROMPTING
