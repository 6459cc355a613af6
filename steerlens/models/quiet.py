"""`quiet`: loading without the greetings of other libraries."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without TransformerLens' greetings and deprecation notes, which tell a steerlens user nothing to act on."""
    from transformers.utils import logging as hf_logging

    logger, theirs = logging.getLogger(), logging.getLogger("transformers")
    level, own_level, bars = logger.level, theirs.level, hf_logging.is_progress_bar_enabled()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        theirs.setLevel(logging.ERROR)  # its table of weights that do not fit becomes an error of ours
        hf_logging.disable_progress_bar()
        try:
            yield
        finally:
            logger.setLevel(level)
            theirs.setLevel(own_level)
            if bars:
                hf_logging.enable_progress_bar()
