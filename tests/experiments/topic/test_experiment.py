"""Topic steering by layer: its numbers are those of its completions, counted anew; stopped runs go on."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import steerlens as sl
from steerlens.experiments.topic.experiment import COUNT, QUICK, SHARE, topic
from steerlens.measures.metrics import TOPICS
from steerlens.runs import parts
from tests.reference import N_LAYERS

SMALL: dict[str, Any] = {"n": 4, "max_new_tokens": 6, "coeffs": (1.0, 4.0), "topics": ("weddings", "war")}


@pytest.fixture(scope="module")
def result(any_model):
    return topic(any_model, **SMALL)


def counted(text: str, name: str) -> int:
    """Words of a list in a text, the way of the original scripts: lower case, white space for all that is no word."""
    found = re.sub(r"[\W_]", " ", text.lower()).split()
    return sum(found.count(word) for word in TOPICS[name])


def test_every_topic_layer_coefficient_and_control_is_there(result) -> None:
    assert set(result.frame["topic"]) == {"weddings", "war"}
    rows = result.frame[result.frame["metric"] == SHARE]
    assert rows.groupby("role").size().to_dict() == {"unsteered": 2, "steered": 4 * N_LAYERS, "random": 4 * N_LAYERS}
    assert (result.frame["n"] == 4).all()


def test_numbers_are_the_completions_counted_anew(demo) -> None:
    result = topic(demo, n=8, layers=[3, 4], coeffs=4.0, max_new_tokens=25)
    completions = result.sweeps["weddings"].frame
    counts = completions["completion"].map(lambda text: counted(text, "weddings"))
    assert counts.sum() > 0  # or nothing is tested
    for condition, group in completions.groupby("condition"):
        mine = result.frame[result.frame["condition"] == condition].set_index("metric")["mean"]
        assert mine[COUNT] == counts[group.index].mean()
        assert mine[SHARE] == (counts[group.index] > 0).mean()


def test_a_steered_cell_is_what_generate_gives(result, any_model) -> None:
    vector = 4 * sl.actadd(any_model, " war", " ", layer=1)
    alone = sl.generate(any_model, "I went up to my friend and said", vector, n=4, max_new_tokens=6, seed=0)
    cell = result.sweeps["war"].frame.query("role == 'steered' and layer == 1 and coeff == 4")
    assert cell["completion"].tolist() == alone["completion"].tolist()


def test_coefficient_0_changes_nothing(any_model) -> None:
    frame = topic(any_model, n=3, max_new_tokens=5, coeffs=0.0).sweeps["weddings"].frame
    base = frame.loc[frame["role"] == "unsteered", "completion"].tolist()
    for _, group in frame[frame["role"] == "steered"].groupby("layer"):
        assert group["completion"].tolist() == base


def test_the_best_is_the_largest_share_beside_its_own_controls(result) -> None:
    for row in result.best().itertuples():
        rows = result.frame[(result.frame["topic"] == row.topic) & (result.frame["metric"] == SHARE)]
        assert row.share == rows.loc[rows["role"] == "steered", "mean"].max()
        same = rows[(rows["role"] == "random") & (rows["layer"] == row.layer) & (rows["coeff"] == row.coeff)]
        assert row.random == same["mean"].item()


def test_a_stopped_run_goes_on(any_model, result, tmp_path: Path, monkeypatch) -> None:
    calls = []
    real = parts.generate

    def stopping(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    store = tmp_path / "runs.sqlite"
    monkeypatch.setattr(parts, "generate", stopping)
    with pytest.raises(KeyboardInterrupt):
        topic(any_model, **SMALL, store=store, batch_size=8)
    before = len(calls) - 1
    resumed = topic(any_model, **SMALL, store=store, batch_size=8)
    total = len(calls) - 1  # the interrupted call came to nothing
    for name in ("weddings", "war"):
        assert resumed.sweeps[name].frame["completion"].tolist() == result.sweeps[name].frame["completion"].tolist()
    topic(any_model, **SMALL, store=store, batch_size=8)
    assert len(calls) - 1 == total > before == 2


def test_settings_tell_all_that_is_needed(result, any_model) -> None:
    settings = result.settings
    assert settings["topics"] == {"weddings": "' weddings' − ' '", "war": "' war' − ' '"}
    assert settings["words"]["weddings"] == list(TOPICS["weddings"])
    assert (
        settings["seed"] == 0 and settings["n"] == 4 and settings["top_p"] == 0.3 and settings["coeffs"] == [1.0, 4.0]
    )
    assert len(settings["model fingerprint"]) == 32 and settings["torch"]


def test_the_defaults_are_the_papers() -> None:
    defaults = {key: one.default for key, one in inspect.signature(topic).parameters.items()}
    assert defaults["topics"] == ("weddings",) and defaults["prompts"] == "I went up to my friend and said"
    wanted = {"n": 200, "max_new_tokens": 40, "temperature": 1.0, "top_p": 0.3, "frequency_penalty": 1.0, "seed": 0}
    assert {key: defaults[key] for key in wanted} == wanted and defaults["coeffs"] == (1.0,)
    assert set(QUICK) <= set(defaults)


def test_page(result, tmp_path: Path) -> None:
    page = result.save(tmp_path / "out").read_text(encoding="utf-8")
    assert "weddings, best of all conditions" in page and "<h3>war</h3>" in page
    assert (tmp_path / "out" / "topic.csv").is_file() and (tmp_path / "out" / "topic.json").is_file()
    assert len(result.figures()) == 3 and result.plot().data


def test_the_overview_shows_each_topic_at_the_largest_coefficient(result) -> None:
    drawn = list(result.figures().values())[1].data[0]
    assert list(drawn.y) == ["war", "weddings"]  # from below
    rows = result.frame.query("metric == @SHARE and role == 'steered' and coeff == 4 and topic == 'war'")
    assert list(drawn.z[0]) == rows.sort_values("layer")["mean"].tolist()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"topics": ("weddings", "wedings")}, "topic 'wedings' is unknown; use one of weddings"),
        ({"topics": ()}, "topics is empty"),
        ({"topics": {"war": " war"}}, "give a PromptPair"),
        ({"layers": [3]}, "layer 3 is out of range"),
        ({"n": 0}, "n is "),
    ],
)
def test_bad_input_is_one_clear_line(any_model, arguments, words) -> None:
    with pytest.raises(sl.SteerlensError, match=words) as caught:
        topic(any_model, **{**SMALL, **arguments})
    assert "\n" not in str(caught.value)
