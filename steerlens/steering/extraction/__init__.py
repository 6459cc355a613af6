"""Extraction: model and prompts in, steering vector out. One file per method.

`reft` makes an injection, not a vector. It is not imported here: injections have gates, and gates read activations.
"""

from steerlens.steering.extraction.actadd import actadd
from steerlens.steering.extraction.latent import latent
from steerlens.steering.extraction.mean_difference import mean_difference
from steerlens.steering.extraction.model_difference import model_difference
from steerlens.steering.extraction.pca import pca
from steerlens.steering.extraction.probe import probe
from steerlens.steering.extraction.sae_direction import sae_direction
from steerlens.steering.extraction.trained import trained

__all__ = ["actadd", "latent", "mean_difference", "model_difference", "pca", "probe", "sae_direction", "trained"]
