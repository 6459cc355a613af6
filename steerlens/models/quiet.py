"""Loading leaves no traces: no greetings of other libraries, no random numbers drawn."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without TransformerLens' greetings and deprecation notes, on which a steerlens user cannot act."""
    from transformers.utils import logging as hf_logging

    logger = logging.getLogger()
    level, bars = logger.level, hf_logging.is_progress_bar_enabled()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        hf_logging.disable_progress_bar()
        try:
            yield
        finally:
            logger.setLevel(level)
            if bars:
                hf_logging.enable_progress_bar()


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """Restore the random state afterwards, PyTorch's (on the CPU) and Python's."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
