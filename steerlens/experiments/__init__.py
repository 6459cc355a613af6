"""The experiments of the ActAdd paper (Turner et al., arXiv 2308.10248), a folder each, and `reproduce` for all.

result = sl.experiments.topic(model)       # the paper's settings
result = sl.experiments.topic(model, **sl.experiments.EXPERIMENTS["topic"].quick)
result.frame; result.plot(); result.report("topic.html")
"""

# Each function has the name of its module; both stand in this namespace under it, and it is the function that is meant.
from steerlens.experiments.gallery.experiment import gallery
from steerlens.experiments.knowledge.experiment import knowledge
from steerlens.experiments.overhead.experiment import overhead
from steerlens.experiments.perplexity.experiment import perplexity
from steerlens.experiments.sentiment.experiment import sentiment
from steerlens.experiments.shared.ledger import Ledger
from steerlens.experiments.shared.result import Result
from steerlens.experiments.suite import EXPERIMENTS, Experiment, Suite, reproduce
from steerlens.experiments.topic.experiment import topic
from steerlens.experiments.toxicity.experiment import toxicity

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
