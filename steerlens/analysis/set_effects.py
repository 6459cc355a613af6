"""What many conditions do to the probability of a set of tokens, without sampling: one row per condition and prompt."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from steerlens.analysis.compared import Comparison, shared_columns
from steerlens.analysis.effectiveness import shift_of_set, token_set
from steerlens.errors import SteerlensError
from steerlens.measures.statistics import mean_interval
from steerlens.models import HookedModel
from steerlens.steering import Condition
from steerlens.steering.prompts import Prompt

MEASURES = {
    "shift": "nats",
    "effectiveness": "nats",
    "disruption": "nats",
    "two_way": "nats",
    "kl": "nats",
    "prob_base": "probability",
    "prob_steered": "probability",
}
"""The measures and their units. `shift` is the mean change of log-probability of the wanted tokens, each counted alike;
`effectiveness` the change of the log-probability that the next token is one of them; `kl = disruption + two_way`."""


@torch.no_grad()
def set_effects(
    model: HookedModel,
    prompts: Sequence[Prompt],
    conditions: Sequence[Condition],
    wanted: Sequence[int],
    *,
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> pd.DataFrame:
    """The measures of every condition against the first one, after the last token of every prompt.

    Returns:
        one row per condition × prompt: condition, label, layer, coeff, placement, prompt, prompt_index, and MEASURES.

    Raises:
        SteerlensError: no wanted tokens or all of them, an empty prompt, a vector that does not fit.
    """
    job = Comparison.of(model, prompts, conditions)
    members = token_set(wanted, int(model.cfg.d_vocab))
    found: dict[tuple[int, int], dict[str, float]] = {}
    for part in job.cells(batch_size=batch_size, memory_budget=memory_budget):
        members = members.to(part.logprobs.device)
        of_set = shift_of_set(part.logprobs, part.base, members)
        numbers = {
            "shift": (part.logprobs[:, members] - part.base[:, members]).mean(1),
            "effectiveness": of_set.effectiveness,
            "disruption": of_set.disruption,
            "two_way": of_set.two_way,
            "kl": of_set.kl,
            "prob_base": of_set.logprob_base.exp(),
            "prob_steered": of_set.logprob_steered.exp(),
        }
        table = {name: values.cpu().tolist() for name, values in numbers.items()}
        for i, (distinct, number, _) in enumerate(part.where.T.tolist()):
            found[distinct, number] = {name: values[i] for name, values in table.items()}
    rows = [
        {
            **shared_columns(number, condition),
            "prompt": prompt.text,
            "prompt_index": i,
            **found[job.distinct[number], i],
        }
        for number, condition in enumerate(conditions)
        for i, prompt in enumerate(prompts)
    ]
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def over_prompts(frame: pd.DataFrame, keys: Sequence[str], measures: dict[str, str]) -> pd.DataFrame:
    """Every measure averaged over the prompts, with 95 % Student-t intervals (none where there is one prompt).

    Args:
        keys: columns that name a condition; they come first in the result.
        measures: name and unit of each measure; NaN values (a measure without meaning there) are left out.

    Returns:
        one row per condition × measure: the keys, metric, kind (the unit), observations, mean, low, high.
    """
    missing = [name for name in (*keys, *measures) if name not in frame.columns]
    if missing:
        raise SteerlensError(f"the frame has no column {missing[0]!r}; it has {', '.join(frame.columns)}")
    rows = []
    for key, group in frame.groupby(list(keys), sort=False, dropna=False):
        for name, unit in measures.items():
            interval = mean_interval(group[name], nan="omit")
            rows.append(
                dict(zip(keys, key, strict=True))
                | {"metric": name, "kind": unit, "observations": interval.n}
                | {"mean": interval.mean, "low": interval.low, "high": interval.high}
            )
    summary = pd.DataFrame(rows)
    return summary.astype({"layer": "Int64"}) if "layer" in summary.columns else summary
