"""How the next token is drawn: the settings, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

from steerlens.errors import SteerlensError


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; the defaults are those of the ActAdd paper (arXiv 2308.10248).

    temperature: 0 takes the largest raw logit and ignores all else.
    top_k: keeps the k most likely tokens, and those equal to the k-th; None keeps all. May exceed the vocabulary.
    top_p: nucleus; 1 keeps all.
    frequency_penalty: what a token's logit loses, after the division by the temperature, for each time it stands in the
        row, prompt and BOS included.

    As TransformerLens' `sample_logits`, except: padding is not counted (there it is); `top_k` and `top_p` both apply
    if both are set, `top_k` first (there `top_k` switches `top_p` off without a word); a negative penalty is applied
    (there it is ignored); ties are ordered.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 0.3
    frequency_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SteerlensError(f"temperature is {self.temperature}; needs a finite number >= 0 (0 is greedy)")
        if self.top_k is not None and (isinstance(self.top_k, bool) or self.top_k != int(self.top_k) or self.top_k < 1):
            raise SteerlensError(f"top_k is {self.top_k}; needs a whole number >= 1, or None to keep all tokens")
        if not 0 < self.top_p <= 1:
            raise SteerlensError(f"top_p is {self.top_p}; needs 0 < top_p <= 1 (1 keeps all tokens)")
        if not math.isfinite(self.frequency_penalty):
            raise SteerlensError(f"frequency_penalty is {self.frequency_penalty}; needs a finite number (0 is none)")

    @property
    def greedy(self) -> bool:
        """Whether the largest logit is always taken; then neither uniforms nor counts are looked at."""
        return self.temperature == 0

    @property
    def needs_counts(self) -> bool:
        """Whether `next_tokens` has to be given counts."""
        return not self.greedy and self.frequency_penalty != 0
