"""Steering: prompts, vectors, extraction, injection. Knows models; nothing of engines, analysis or experiments."""

from steerlens.steering.chats import with_system
from steerlens.steering.conditions import Condition, Injection, Steering, as_condition, as_conditions, check_conditions
from steerlens.steering.contrast_sets import ContrastSet
from steerlens.steering.extraction import (
    actadd,
    latent,
    mean_difference,
    model_difference,
    pca,
    probe,
    sae_direction,
    trained,
)
from steerlens.steering.extraction.reft import reft
from steerlens.steering.gates import Gate
from steerlens.steering.injection import injecting, steer
from steerlens.steering.pairs import PaddedPair, PromptPair
from steerlens.steering.parts import Part
from steerlens.steering.placement import Placement
from steerlens.steering.prompting import Prompting
from steerlens.steering.ramps import Ramp
from steerlens.steering.random_vectors import random_like
from steerlens.steering.receipts import Receipt
from steerlens.steering.sessions import Session
from steerlens.steering.vectors import SteeringVector, check_vector

__all__ = [
    "Condition",
    "ContrastSet",
    "Gate",
    "Injection",
    "PaddedPair",
    "Part",
    "Placement",
    "PromptPair",
    "Prompting",
    "Ramp",
    "Receipt",
    "Session",
    "Steering",
    "SteeringVector",
    "actadd",
    "as_condition",
    "as_conditions",
    "check_conditions",
    "check_vector",
    "injecting",
    "latent",
    "mean_difference",
    "model_difference",
    "pca",
    "probe",
    "random_like",
    "reft",
    "sae_direction",
    "steer",
    "trained",
    "with_system",
]
