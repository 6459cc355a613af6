"""Exchange: vectors in the formats of other tools, in and out. One file per format."""

from steerlens.steering.exchange.gguf_vectors import load_gguf, save_gguf
from steerlens.steering.exchange.raw_tensor import vector_of

__all__ = ["load_gguf", "save_gguf", "vector_of"]
