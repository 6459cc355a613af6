"""A peer library in a process of its own, with the transformers it needs: told what to sample, tells how long it took.

Started by `peers.py`; imports nothing of steerlens. One JSON object per line in and out.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch


def main() -> None:
    library, folder, threads, device = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(threads)
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, sys.argv[5])
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=dtype).to(device).eval()
    sample = {"steering-vectors": with_steering_vectors, "repeng": with_repeng}[library]
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        tokens = torch.tensor(job["tokens"], device=device).repeat(job["n"], 1)
        vectors = {int(layer): torch.tensor(v, dtype=dtype, device=device) for layer, v in job["vectors"].items()}
        synchronise()
        started = time.perf_counter()
        with torch.no_grad():
            sample(model, tokens, vectors, job["new"])
        synchronise()
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


def generate(model: Any, tokens: torch.Tensor, new: int) -> None:
    """The paper's sampling as far as Hugging Face has it: there is no frequency penalty."""
    model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=True,
        temperature=1.0,
        top_p=0.3,
        top_k=0,
        min_new_tokens=new,
        max_new_tokens=new,
        pad_token_id=0,
    )


def with_steering_vectors(model: Any, tokens: torch.Tensor, vectors: dict[int, torch.Tensor], new: int) -> None:
    from steering_vectors import SteeringVector

    for layer, values in vectors.items():
        with SteeringVector({layer: values}).apply(model):
            generate(model, tokens, new)


def with_repeng(model: Any, tokens: torch.Tensor, vectors: dict[int, torch.Tensor], new: int) -> None:
    from repeng import ControlModel, ControlVector

    for layer, values in vectors.items():
        controlled = ControlModel(model, [layer])
        try:
            controlled.set_control(ControlVector(model.config.model_type, {layer: values.float().cpu().numpy()}))
            generate(controlled, tokens, new)
        finally:
            controlled.unwrap()


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
