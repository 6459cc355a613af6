"""The explorer: a vector on sliders, in Jupyter or in a browser. A front end: its numbers come from elsewhere."""

from steerlens.explorer.widget import Explorer, explore

__all__ = ["Explorer", "explore"]
