"""The engine: many conditions at once, exact, on the model's own device. Knows tensors, not topics or files."""

from steerlens.engine.generation import generate
from steerlens.engine.sampling_settings import Sampling
from steerlens.engine.scoring import next_token_logits, score

__all__ = ["Sampling", "generate", "next_token_logits", "score"]
