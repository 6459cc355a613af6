"""Exchange: vectors in the formats of other tools, in and out. One file per format."""

from steerlens.steering.exchange.attached import Attachment, attach
from steerlens.steering.exchange.foreign_vectors import load_caa, load_steering_vectors
from steerlens.steering.exchange.gguf_vectors import load_gguf, save_gguf
from steerlens.steering.exchange.lm_eval_steering import save_lm_eval
from steerlens.steering.exchange.torch_files import load_torch, save_torch
from steerlens.steering.exchange.vllm_tensors import save_hotwire, save_vllm_lens

__all__ = [
    "Attachment",
    "attach",
    "load_caa",
    "load_gguf",
    "load_steering_vectors",
    "load_torch",
    "save_gguf",
    "save_hotwire",
    "save_lm_eval",
    "save_torch",
    "save_vllm_lens",
]
