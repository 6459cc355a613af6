"""The Jupyter explorer: a steering vector at the end of a slider. A face: all its numbers come from elsewhere."""

from steerlens.explorer.widget import Explorer, explore

__all__ = ["Explorer", "explore"]
