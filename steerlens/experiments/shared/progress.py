"""`progress_bar`: the bar of an experiment is that of the whole package."""

from steerlens.progress import progress_bar

__all__ = ["progress_bar"]
