"""The experiments of the ActAdd paper (Turner et al., arXiv 2308.10248), one file each, and `reproduce` for all of them.

result = sl.experiments.topic(model)       # the paper's settings
result = sl.experiments.topic(model, **sl.experiments.EXPERIMENTS["topic"].quick)
result.frame; result.plot(); result.report("topic.html")
"""

# The functions come last into this namespace: each has the name of its module, and it is the function that is meant.
from steerlens.experiments.ledger import Ledger
from steerlens.experiments.result import Result
from steerlens.experiments.suite import (
    EXPERIMENTS,
    Experiment,
    Suite,
    gallery,
    knowledge,
    overhead,
    perplexity,
    reproduce,
    sentiment,
    topic,
    toxicity,
)

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Ledger",
    "Result",
    "Suite",
    "gallery",
    "knowledge",
    "overhead",
    "perplexity",
    "reproduce",
    "sentiment",
    "topic",
    "toxicity",
]
