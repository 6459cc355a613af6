"""Exchange: vectors in the formats of other tools, in and out. One file per format."""

from steerlens.steering.exchange.attached import Attachment, attach
from steerlens.steering.exchange.gguf_vectors import load_gguf, save_gguf
from steerlens.steering.exchange.torch_files import load_torch, save_torch

__all__ = ["Attachment", "attach", "load_gguf", "load_torch", "save_gguf", "save_torch"]
