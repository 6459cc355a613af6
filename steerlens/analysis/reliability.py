"""`reliability`: on which prompts steering works, on which it goes the wrong way, and how straight it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd
import torch

from steerlens.arguments import flag, listed, numbers, shown, text, whole_number
from steerlens.engine import Sampling, generate, next_token_logits
from steerlens.engine.sampling_settings import SamplingOptions, chosen_sampling, shows_sampling_options
from steerlens.errors import SteerlensError
from steerlens.measures.measuring import check_metrics, measure_completions
from steerlens.measures.metrics import Better, Metric
from steerlens.measures.reliability import by_direction, by_prompt, paraphrase_spread
from steerlens.models import HookedModel, for_one_thread, require_model, run_settings
from steerlens.steering import Condition, ContrastSet, Injection, Placement, PromptPair, SteeringVector, actadd
from steerlens.steering.conditions import check_conditions
from steerlens.steering.prompts import Prompt, PromptLike, following_ids, read_prompt, read_prompts

if TYPE_CHECKING:
    import plotly.graph_objects as go

COEFFS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
"""Those of Tan et al. 2024 (arXiv 2407.12404)."""
_AT_ONCE = 64
IN, OUT = "in distribution", "held out"


@dataclass(frozen=True, eq=False, repr=False)
class Reliability:
    """How reliably a vector steers, prompt by prompt.

    Attributes:
        frame: one row per direction, prompt, coefficient and sample: direction ("as given", or which paraphrase),
            split ("in distribution", "held out"), number, prompt, coeff, sample, value; for sampled metrics also
            completion.
        measure: what the values are.
        better: which way of it is success.
        notes: what cannot be said of these data.
        settings: everything needed to repeat it, as plain data.
    """

    frame: pd.DataFrame
    measure: str
    better: Better
    notes: tuple[str, ...]
    settings: dict[str, Any]

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """One row per direction and prompt; see `steerlens.measures.reliability.by_prompt`."""
        return by_prompt(self.frame, better=self.better)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per direction and split: mean slope, share of prompts steered the wrong way, share that turn.

        See `steerlens.measures.reliability.by_direction`.
        """
        return by_direction(self.prompts, better=self.better)

    @cached_property
    def paraphrases(self) -> pd.DataFrame:
        """One row per prompt: the spread of its slope over the paraphrases of the pair (`paraphrase_spread`)."""
        return paraphrase_spread(self.prompts)

    def plot(self) -> go.Figure:
        """Every prompt: its value over the coefficient, and the slopes of all in order."""
        from steerlens.figures.reliability import every_prompt

        first = self.frame["direction"].iloc[0]
        mine, rows = self.frame["direction"] == first, self.prompts["direction"] == first
        return every_prompt(
            self.frame[mine], self.prompts[rows], measure=self.measure, title=f"{self.settings['what']}: every prompt"
        )

    def report(self, path: str | Path, *, command: str | None = None) -> Path:
        """One self-contained HTML page with the figure, tables and settings; returns its path.

        Raises:
            SteerlensError: the place cannot be written (checked before anything is drawn).
        """
        command = None if command is None else text("command", command)
        from steerlens.analysis.reliability_page import reliability_page
        from steerlens.reports.writing import write_page

        return write_page(
            path,
            lambda: reliability_page(
                self.summary,
                self.prompts,
                self.paraphrases,
                self.settings,
                figure=self.plot(),
                measure=self.measure,
                notes=self.notes,
                command=command,
            ),
        )

    def __repr__(self) -> str:
        lines = [f"Reliability({self.settings['what']}, {self.measure}, coefficients {_some(self.settings['coeffs'])}:"]
        for row in self.summary.to_dict("records"):
            wrong = f"{row['wrong']:.0%} steered the wrong way ({row['wrong_low']:.0%} to {row['wrong_high']:.0%})"
            lines.append(
                f"  {row['direction']}, {row['split']}: {row['prompts']} prompts, slope {row['slope']:+.3g} ± "
                f"{row['sd']:.2g}, {wrong}, {row['turning']:.0%} not monotonic"
            )
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)]) + ")"


@for_one_thread
@shows_sampling_options(Sampling(n=8))
def reliability(
    model: HookedModel,
    vector: SteeringVector,
    prompts: ContrastSet | PromptLike | Sequence[PromptLike],
    *,
    coeffs: Sequence[float] = COEFFS,
    metric: Metric | None = None,
    targets: Sequence[str] | None = None,
    paraphrases: Sequence[PromptPair | SteeringVector] = (),
    held_out: ContrastSet | PromptLike | Sequence[PromptLike] | None = None,
    placement: Placement | None = None,
    sampling: Sampling | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Unpack[SamplingOptions],
) -> Reliability:
    """What steering does to each prompt: means hide prompts that it steers the wrong way (Tan et al. 2407.12404: up to
    half of them).

    Of each prompt: the slope of its value in the coefficient (its steerability), whether it is steered the wrong way,
    whether the value turns back. Over prompts: mean slope, share steered the wrong way; spread over paraphrases of the
    pair; the same for held-out prompts.

    Args:
        vector: times each coefficient.
        prompts: a paired ContrastSet, as those of CAA (a question with its two answers): the value is the logit of the
            first token in which the texts of a pair differ, that of the positive minus that of the negative text, after
            what they share. Or prompts, with `metric` or `targets`.
        coeffs: 0 is always among them.
        metric: sampled: a metric of completions (`n` of each prompt and coefficient, paired by seed).
        targets: two texts: the value is the logit of the first token of the one minus that of the other, after the
            prompt.
        paraphrases: PromptPairs that mean the same as the vector's (`actadd` at its layer and site), or vectors.
        held_out: prompts unlike those that the vector was made on, of the kind of `prompts`.
        placement: where the vectors go; by default each vector's own.
        sampling, n, max_new_tokens, …, batch_size, progress: for sampled metrics, as of `generate`.

    Raises:
        SteerlensError: fewer than two coefficients; both or neither of metric and targets for plain prompts; pairs
            whose texts do not differ; targets that begin with the same token; what `generate` raises.
    """
    require_model(model)
    drawn = chosen_sampling(sampling, options, default=Sampling(n=8))
    progress = None if progress is None else flag("progress", progress)
    if batch_size is not None:
        whole_number("batch_size", batch_size, least=1)
    factors = sorted({0.0, *numbers("coeffs", coeffs)})
    if len(factors) < 2:
        raise SteerlensError("coeffs must hold a number other than 0")
    if not isinstance(vector, SteeringVector):
        raise SteerlensError(f"expected a SteeringVector, got {shown(vector)}; make one with actadd(model, …)")
    directions = {"as given": vector} | _paraphrased(model, vector, paraphrases)
    conditions = [Condition((Injection(factor * one, placement),)) for one in directions.values() for factor in factors]
    check_conditions(model, conditions)
    splits = {IN: prompts} | ({} if held_out is None else {OUT: held_out})
    measure, better = "logit difference", "higher"
    if metric is None:
        frame = _logit_differences(model, splits, conditions, targets, batch_size=batch_size)
        settings: dict[str, Any] = {"targets": None if targets is None else list(targets)}
    else:
        if targets is not None or any(isinstance(one, ContrastSet) for one in splits.values()):
            raise SteerlensError("a metric is of completions: give prompts, and neither targets nor a ContrastSet")
        (checked,) = check_metrics(metric)
        measure, better = checked.name, str(checked.better)
        frame = _sampled(model, splits, conditions, checked, drawn, batch_size=batch_size, progress=progress)
        settings = {"sampling": repr(drawn)}
    names = [name for name in directions for _ in factors]
    frame.insert(0, "direction", frame["condition"].map(dict(enumerate(names))))
    frame.insert(4, "coeff", frame.pop("condition").map(dict(enumerate(factors * len(directions)))))
    notes = []
    if held_out is None:
        notes.append("no held-out prompts: what generalises is not known")
    if frame["number"].nunique() == 1:
        notes.append("one prompt: nothing is known of others")
    settings |= {"what": vector.title, "layer": vector.layer, "coeffs": factors, "paraphrases": list(directions)[1:]}
    return Reliability(
        frame, measure, "lower" if better == "lower" else "higher", tuple(notes), settings | run_settings(model)
    )


def _paraphrased(model: HookedModel, vector: SteeringVector, given: Any) -> dict[str, SteeringVector]:
    found: dict[str, SteeringVector] = {}
    for number, one in enumerate(listed("paraphrases", given, of="PromptPairs or vectors"), start=1):
        if isinstance(one, PromptPair):
            one = replace(
                actadd(model, one, layer=vector.layer, site=vector.site) * vector.coeff, placement=vector.placement
            )
        if not isinstance(one, SteeringVector):
            raise SteerlensError(f"a paraphrase is a PromptPair or a vector, got {shown(one)}")
        found[f"paraphrase {number}: {one.label}"] = one
    return found


def _logit_differences(
    model: HookedModel,
    splits: dict[str, Any],
    conditions: list[Condition],
    targets: Sequence[str] | None,
    *,
    batch_size: int | None,
) -> pd.DataFrame:
    """Columns condition, split, number, prompt, sample, value."""
    rows: list[tuple[Any, ...]] = []
    number = 0
    for split, given in splits.items():
        asked = _asked(model, given, targets)
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            logits = next_token_logits(
                model, [prompt for prompt, _, _ in part], list(conditions), batch_size=batch_size
            )
            wanted = torch.tensor([[first, second] for _, first, second in part], device=logits.device)
            two = logits.float().gather(2, wanted[None].expand(len(conditions), -1, -1)).cpu()
            differences = (two[..., 0] - two[..., 1]).tolist()
            rows += [
                (condition, split, number + place, prompt.text, 0, differences[condition][place])
                for condition in range(len(conditions))
                for place, (prompt, _, _) in enumerate(part)
            ]
            number += len(part)
    return pd.DataFrame(rows, columns=["condition", "split", "number", "prompt", "sample", "value"])


def _asked(model: HookedModel, given: Any, targets: Sequence[str] | None) -> list[tuple[Prompt, int, int]]:
    """Prompts, each with the token whose logit counts and the one that it is held against."""
    if isinstance(given, ContrastSet):
        if targets is not None:
            raise SteerlensError("a ContrastSet has its own targets (the tokens in which its pairs differ)")
        if not given.paired:
            raise SteerlensError(f"{given.name!r} has no pairs, so no two answers to one question; give a paired set")
        return [
            _pair(model, *pair, number) for number, pair in enumerate(zip(given.positive, given.negative, strict=True))
        ]
    if targets is None:
        raise SteerlensError("say what to measure: metric= (of completions), targets= (two texts), or a ContrastSet")
    both = listed("targets", targets, of="two texts")
    if len(both) != 2:
        raise SteerlensError(f"targets must be two texts, such as (' yes', ' no'), got {shown(targets)}")
    found = []
    for prompt in read_prompts(model, given):
        first, second = (following_ids(model, prompt, text("targets", one, empty=False))[0] for one in both)
        if first == second:
            raise SteerlensError(f"the targets {both[0]!r} and {both[1]!r} begin with the same token; give others")
        found.append((prompt, first, second))
    return found


def _pair(model: HookedModel, positive: Any, negative: Any, number: int) -> tuple[Prompt, int, int]:
    mine, theirs = read_prompt(model, positive).ids, read_prompt(model, negative).ids
    shared = next((place for place, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
    if not shared:
        raise SteerlensError(
            f"the texts of pair {number} of the contrast set do not differ in a token after a beginning that they share"
        )
    prompt = read_prompt(model, list(mine[:shared]))
    return prompt, mine[shared], theirs[shared]


def _sampled(
    model: HookedModel,
    splits: dict[str, Any],
    conditions: list[Condition],
    metric: Metric,
    sampling: Sampling,
    *,
    batch_size: int | None,
    progress: bool | None,
) -> pd.DataFrame:
    parts, number = [], 0
    for split, given in splits.items():
        read = list({prompt.ids: prompt for prompt in read_prompts(model, given)}.values())
        made = generate(model, read, list(conditions), sampling=sampling, batch_size=batch_size, progress=progress)
        measure_completions(made, (metric,))
        places = (made.groupby("condition").cumcount() // sampling.n) + number
        parts.append(
            pd.DataFrame(
                {
                    "condition": made["condition"],
                    "split": split,
                    "number": places,
                    "prompt": made["prompt"],
                    "sample": made["sample"],
                    "value": made[metric.column],
                    "completion": made["completion"],
                }
            )
        )
        number += len(read)
    return pd.concat(parts, ignore_index=True)


def _some(factors: Sequence[float]) -> str:
    return f"{factors[0]:g} to {factors[-1]:g}"
