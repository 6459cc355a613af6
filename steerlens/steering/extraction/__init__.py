"""Extraction: model and prompts in, steering vector out. One file per method."""

from steerlens.steering.extraction.actadd import actadd
from steerlens.steering.extraction.mean_difference import mean_difference
from steerlens.steering.extraction.pca import pca
from steerlens.steering.extraction.probe import probe

__all__ = ["actadd", "mean_difference", "pca", "probe"]
