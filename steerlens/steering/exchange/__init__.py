"""Exchange: vectors in the formats of other tools, in and out. One file per format."""

from steerlens.steering.exchange.gguf_vectors import load_gguf, save_gguf

__all__ = ["load_gguf", "save_gguf"]
