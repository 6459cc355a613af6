"""The numbers that the explorer shows: computed by the package's own functions, and kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from torch import Tensor

from steerlens.analysis.layer_effect import LayerEffect, layer_effect
from steerlens.analysis.logit_shift import LogitShift, logit_shift
from steerlens.engine import Sampling
from steerlens.engine.generation import check_job, completions_frame
from steerlens.engine.sampling import sample
from steerlens.engine.stopping import Stops
from steerlens.engine.surprise import completion_surprise
from steerlens.explorer.contrasts import vectors_of
from steerlens.explorer.view import View
from steerlens.models import HookedModel, weights_held
from steerlens.steering import Condition, Injection, SteeringVector
from steerlens.steering.tokens import reader_after, token_ids, token_strings

if TYPE_CHECKING:
    import pandas as pd

# Results kept: enough to drag a slider back and forth without running the model again.
_KEPT = 256

Watch = Callable[[list[tuple[str, str]], float], object]
"""Takes the completions so far, unsteered and steered, and the share of the work that is done."""


@dataclass(frozen=True)
class TokenChange:
    """What steering changed behind one token of the prompt.

    Attributes:
        token, kl: the token, and KL(steered ‖ unsteered) of what comes next, in nats.
        next: next tokens that changed most, with their probabilities before and after.
    """

    token: str
    kl: float
    next: tuple[tuple[str, float, float], ...]


class Numbers:
    """What the explorer shows of a model, by view. Equal views are computed once."""

    def __init__(self, model: HookedModel) -> None:
        self.model = model
        self._kept: dict[Hashable, Any] = {}
        self._weights: object = None  # what they were when all this was computed

    def vectors(self, view: View) -> dict[int, SteeringVector]:
        """The vectors of all layers, coefficient 1."""
        whole = self._once(
            ("vectors", view.made), lambda: vectors_of(self.model, view.method, view.pair, view.contrast)
        )
        if not view.one_position:
            return whole
        return {layer: vector.at(-1) if vector.n_positions > 1 else vector for layer, vector in whole.items()}

    def injection(self, view: View) -> Injection:
        """The vector of the view, at its place."""
        return Injection(view.coeff * self.vectors(view)[view.layer], view.placement)

    def shift(self, view: View) -> LogitShift:
        """`logit_shift` of the view."""
        key = ("shift", view.made, view.given, view.layer, view.coeff, view.placement, view.words, view.by)
        return self._once(
            key,
            lambda: logit_shift(self.model, view.asked, self.injection(view), by=view.by, follow=view.wanted),
        )

    def effect(self, view: View) -> LayerEffect:
        """`layer_effect` of the view, whatever its layer."""
        return self._once(
            ("effect", view.by_layer),
            lambda: layer_effect(
                self.model,
                self.vectors(view),
                view.asked,
                view.wanted,
                coeffs=view.coeff,
                placement=view.placement,
            ),
        )

    def changes(self, view: View) -> list[TokenChange]:
        """What steering changed behind each token of the prompt."""
        key = ("changes", view.made, view.given, view.layer, view.coeff, view.placement)
        return self._once(key, lambda: self._changes(view))

    def _changes(self, view: View) -> list[TokenChange]:
        shift = logit_shift(self.model, view.asked, self.injection(view), by="prob", top_k=3, positions="all")
        moved = shift.frame.sort_values("prob_base", ascending=False)
        at = dict(iter(moved.groupby("position")))
        return [
            TokenChange(
                row["context"],
                float(row["kl"]),
                tuple(zip(*(at[place][name] for name in ("token", "prob_base", "prob_steered")), strict=True))
                if (place := row["position"]) in at
                else (),
            )
            for row in shift.summary[shift.summary["condition"] > 0].to_dict("records")
        ]

    def completions(self, view: View, watch: Watch = lambda pairs, share: None) -> pd.DataFrame:
        """`generate` of the view, beside the unsteered model, with each completion's surprise.

        Args:
            watch: called at each new token; an error raised there ends the work.
        """
        return self._once(("completions", *view.sampled), lambda: self._completions(view, watch))

    def _completions(self, view: View, watch: Watch) -> pd.DataFrame:
        sampling = Sampling(n=view.n, max_new_tokens=view.max_new_tokens, seed=view.seed)
        conditions = [Condition(), Condition((self.injection(view),))]
        given = check_job(self.model, view.asked, conditions, sampling=sampling, batch_size=None)
        rows = [prompt.ids for prompt in given]
        read = reader_after(self.model, rows[0])
        ends = set(Stops.of(self.model, sampling).ids)
        texts = [[""] * view.n for _ in conditions]

        def drawn(units: Sequence[tuple[int, int]], first: int, tokens: Tensor) -> None:
            for (condition, _), mine in zip(units, tokens.tolist(), strict=True):
                for sample_number, ids in enumerate(mine, first):
                    texts[condition][sample_number] = read(
                        list(takewhile(lambda one: one >= 0 and one not in ends, ids))
                    )
            watch(list(zip(*texts, strict=True)), tokens.shape[2] / view.max_new_tokens)

        spans = [prompt.spans for prompt in given]
        done = sample(self.model, rows, conditions, spans=spans, sampling=sampling, on_drawn=drawn)
        frame = completions_frame(self.model, given, conditions, done, seed=view.seed)
        surprise = completion_surprise(self.model, rows, done)
        frame.insert(frame.columns.get_loc("seed"), "surprise", surprise.flatten().double().numpy())
        return frame

    def tokens(self, text: str) -> tuple[str, ...]:
        """The tokens of a text as the model reads it, BOS left out; none of an empty one."""
        ids = token_ids(self.model, text)
        start = len(token_ids(self.model, ""))
        return token_strings(self.model, ids)[start:]

    def _once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        with weights_held(self.model) as weights:
            if weights != self._weights:
                self._kept, self._weights = {}, weights
            if key not in self._kept:
                self._kept[key] = compute()
                while len(self._kept) > _KEPT:
                    self._kept.pop(next(iter(self._kept)))
            return self._kept[key]
