"""The Jupyter explorer: a steering vector on a slider. A front end: all its numbers come from elsewhere."""

from steerlens.explorer.widget import Explorer, explore

__all__ = ["Explorer", "explore"]
