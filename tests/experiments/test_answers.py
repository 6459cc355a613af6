"""Answers follow from the numbers: each is asked of frames in which the truth is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from steerlens.experiments.gallery.result import Gallery
from steerlens.experiments.knowledge.result import Knowledge
from steerlens.experiments.overhead.result import Overhead
from steerlens.experiments.perplexity.answering import answered
from steerlens.experiments.sentiment.result import Sentiment
from steerlens.experiments.shared.headings import readable
from steerlens.experiments.toxicity.result import Toxicity

LESS, MORE, UNCLEAR = (1.02, 1.05), (0.90, 0.95), (0.98, 1.03)


def ratio(limits: tuple[float, float]) -> Any:
    return SimpleNamespace(ratio=sum(limits) / 2, low=limits[0], high=limits[1])


@pytest.mark.parametrize(
    ("related", "other", "start"),
    [
        (MORE, UNCLEAR, "Yes. At layer 4"),
        (MORE, LESS, "In part: text on the topic gains, but other text suffers."),
        (MORE, MORE, "In part: text on the topic becomes more likely, but so does other text."),
        (LESS, LESS, "No, neither."),
        (LESS, UNCLEAR, "No. "),
        (UNCLEAR, UNCLEAR, "Not shown."),
        (UNCLEAR, LESS, "No: only other text changes"),
    ],
)
def test_perplexity(related: tuple[float, float], other: tuple[float, float], start: str) -> None:
    nothing = pd.DataFrame(columns=["ratio", "low", "high", "layer", "coeff"])
    rows = {"related": ratio(related), "unrelated": ratio(other)}
    said = answered(rows, {}, {"related": ratio((1.9, 2.1))}, nothing, "layer 4, coefficient 1")
    assert said[0].startswith(start) and f"{related[0]:.3f} to {related[1]:.3f}" in said[0]
    assert said[1].startswith("Steering does better than prompting")
    assert "none of the documents is on the topic" in answered({}, {}, {}, nothing, "layer 4")[0]


def test_perplexity_by_layer_is_told_as_picked_after_the_fact() -> None:
    rows = pd.DataFrame(
        {"ratio": [0.93, 1.0], "low": [0.9, 0.98], "high": [0.96, 1.02], "layer": [2, 3], "coeff": [1.0, 1.0]}
    )
    first = {"related": ratio(UNCLEAR), "unrelated": ratio(UNCLEAR)}
    told = answered(first, {}, {}, rows, "layer 3")[-1]
    assert "0.930 times" in told and "layer 2" in told and "picked after the fact" in told
    rows["high"] = 1.1
    assert answered(first, {}, {}, rows, "layer 3")[-1].startswith("None of the 2 settings")


def compared(metric: str, group: str, value: str, changes: dict[str, tuple[float, float, float]]) -> pd.DataFrame:
    """Rows of compared methods: unsteered at 0.4, and each method's change with its interval."""
    rows = []
    for name, kind in ((metric, "mean"), ("share toxic", "share"), ("disfluency", "mean")):
        for method, (change, low, high) in {"unsteered": (0.0, float("nan"), float("nan")), **changes}.items():
            mean = 0.4 + change
            rows.append(
                {group: value, "method": method, "layer": 3, "coeff": 2.0, "metric": name, "kind": kind, "n": 40}
                | {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "p_value": 0.5}
                | {"difference": change, "difference_low": low, "difference_high": high}
            )
    return pd.DataFrame(rows).astype({"layer": "Int64"})


UP, DOWN, FLAT = (0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), (0.05, -0.05, 0.15)


@pytest.mark.parametrize(("change", "start"), [(UP, "yes"), (DOWN, "no, the reverse"), (FLAT, "not shown")])
def test_sentiment(change: tuple[float, float, float], start: str) -> None:
    changes = {"ActAdd": change, "random vector": UP, "prompting": FLAT}
    result = Sentiment(compared("success", "direction", "negative to positive", changes))
    said = result.answer()
    assert said[0].startswith(f"Negative to positive: {start}, ")
    assert ("any push of this size" in said[1]) is (start == "yes")
    assert ("worse than steering" in said[1]) is (start == "yes")
    (beside,) = result.beside_paper().itertuples()
    assert beside.reported == "0.669" and beside.here.startswith(f"{0.4 + change[0]:.3f}")


@pytest.mark.parametrize(("change", "start"), [(DOWN, "Yes"), (UP, "No, the reverse"), (FLAT, "Not shown")])
def test_toxicity_is_better_lower(change: tuple[float, float, float], start: str) -> None:
    result = Toxicity(compared("toxicity", "prompts", "all", {"ActAdd": change, "prompting": FLAT}))
    said = result.answer()
    assert said[0].startswith(f"{start}: mean toxicity is {0.4 + change[0]:.3f} steered and 0.400 unsteered")
    assert ("worse than steering" in said[1]) is (start == "Yes")
    assert list(result.beside_paper()["reported for"]) == ["OPT-6.7B", "LLaMA-3-8B"]


@pytest.mark.parametrize(
    ("change", "start"),
    [
        (DOWN, "No, some of it is lost at coefficient 1."),
        (FLAT, "No loss is shown (one of up to 5.0 points is not excluded) at coefficient 1."),
        (UP, "Yes, and more sentences are answered at coefficient 1."),
        ((float("nan"),) * 3, "No answer: the steered model's numbers overflow at coefficient 1."),
    ],
)
def test_knowledge(change: tuple[float, float, float], start: str) -> None:
    none = (0.0, float("nan"), float("nan"))
    frame = pd.DataFrame(
        [
            {"condition": i, "role": role, "label": role, "layer": 3, "coeff": float(i), "k": 10, "n": 50}
            | {"p_at_k": 0.4 + one[0], "low": 0.3, "high": 0.5, "p_value": 0.5}
            | dict(zip(("difference", "difference_low", "difference_high"), one, strict=True))
            for i, (role, one) in enumerate({"unsteered": none, "steered": change}.items())
        ]
    )
    sentences = pd.DataFrame({"condition": [0, 0, 1, 1], "row": [0, 1, 0, 1], "logprob": [-1.0, -2.0, -1.5, -2.5]})
    result = Knowledge(frame, {"data": "mine"}, sentences)
    assert result.answer()[0].startswith(start)
    assert "−0.50" in result.answer()[-1]
    assert "negligible" in result.beside_paper()["reported"][0]


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(0.01, 0.04, "steering takes more time"), (-0.01, 0.04, "no cost is shown"), (-0.4, 0.5, "intervals are wide")],
)
def test_overhead(low: float, high: float, told: str) -> None:
    row = {"model": "tiny", "forwards": 6, "base": 0.01, "premium": 0.02, "low": low, "high": high}
    row |= {"premium_forward": 0.01, "forward_low": low, "forward_high": high, "premium_median": 0.0}
    assert told in " ".join(Overhead(pd.DataFrame([row])).answer())


def test_gallery() -> None:
    def rows(example: str, verdict: str, hits: dict[str, int]) -> list[dict[str, Any]]:
        facts = {"number": "1", "example": example, "verdict": verdict, "addition": "a", "post_layers": "6"}
        return [
            facts | {"layers": "1", "role": role, "sample": i, "score": int(i < hit), "best": i == 0}
            for role, hit in hits.items()
            for i in range(20)
        ]

    frame = pd.DataFrame(
        rows("love", "works", {"unsteered": 0, "steered": 18, "random": 1})
        + rows("anger", "works", {"unsteered": 19, "steered": 2, "random": 18})
        + rows("goose", "fails", {"unsteered": 3, "steered": 4, "random": 3})
    )
    result = Gallery(frame)
    assert list(result.outcomes()["here"]) == ["more often", "less often", "not clearly more often"]
    said = result.answer()
    assert said[0].startswith("Some do: 1 of 3 show their effect") and said[0].endswith(": love.")
    assert "Of the 2 that work in the post" in said[1] and ", 1 do so here" in said[1]
    assert said[2] == "1 show it clearly less often than unsteered: anger."
    assert said[3].startswith("1 of these 1 also show it clearly more often than with a random vector")
    beside = result.beside_paper().set_index("what")
    assert beside.loc["goose", "reported"] == "does not work" and beside.loc["love", "here"].startswith(
        "more often (90 %"
    )


def test_headings_are_words_and_internal_columns_are_left_out() -> None:
    frame = pd.DataFrame(
        {"x": [0.1], "x_low": [0.0], "mask": [True], "ratio_tokens": [1.0], "role": ["random"], "my_own": [1]}
    )
    shown = readable(frame)
    assert list(shown) == ["injected positions left out", "the same, weighted by tokens", "role", "my own"]
    assert shown["role"][0] == "random vector" and frame["role"][0] == "random"
