"""Tensors for activation steering in vLLM: the plugins vllm-lens and hotwire-vllm."""

from __future__ import annotations

from pathlib import Path

import torch

from steerlens.arguments import path_to
from steerlens.errors import SteerlensError
from steerlens.steering.exchange.block_outputs import Vectors, block_before, block_outputs, listed_vectors
from steerlens.steering.exchange.torch_files import write_torch


def save_vllm_lens(vectors: Vectors, path: str | Path) -> Path:
    """The path of a PyTorch file with the fields of a vllm-lens `SteeringVector`.

        fields = torch.load(path, weights_only=True)
        SamplingParams(extra_args={"apply_steering_vectors": [vllm_lens.SteeringVector(**fields)]})

    `activations` [layers d_model] for vectors placed at `"all"`, or [layers positions d_model] with `position_indices`,
    counted from the beginning of the prompt, for those at `"front"` or an index of 0 or more (so ActAdd vectors fit).
    vllm-lens adds at the *output* of a block: a vector at the input of layer l stands under `layer_indices` l − 1, one
    at `"resid_post"` under l. `scale` is 1, coefficients are multiplied in. Placed at `"all"`, BOS is steered too,
    which steerlens leaves out.

    Not shown by running vLLM: the fields, their shapes and the numbers of layers follow vllm-lens' own definition.

    Raises:
        SteerlensError: vectors with other placements or sites, of layer 0, of two models, or some placed everywhere and
            some not (make two files); a path that cannot be written.
    """
    given = listed_vectors(vectors)
    tool = "a vector of vllm-lens"
    everywhere = [vector.placement == "all" for vector in given]
    if all(everywhere):
        by_block = block_outputs(given, tool)
        activations, positions = torch.stack(list(by_block.values())), None
    elif any(everywhere):
        raise SteerlensError("vllm-lens has vectors at every position or at some, not both in one; save two files")
    else:
        starts = []
        for vector in given:
            start = 0 if vector.placement == "front" else vector.placement
            if isinstance(start, str) or start < 0:
                raise SteerlensError(
                    f"vllm-lens counts positions from the beginning, but {vector.label!r:.60} is placed at "
                    f"{vector.placement!r}; use 'front', an index of 0 or more, or 'all'"
                )
            starts.append(start)
        blocks = sorted({block_before(vector, tool) for vector in given})
        spans = [range(start, start + vector.n_positions) for vector, start in zip(given, starts, strict=True)]
        positions = sorted({position for span in spans for position in span})
        activations = torch.zeros(len(blocks), len(positions), given[0].values.shape[1])
        for vector, span in zip(given, spans, strict=True):
            rows = [positions.index(position) for position in span]
            activations[blocks.index(block_before(vector, tool)), rows] += vector.values.cpu()
        by_block = dict.fromkeys(blocks, activations)
    fields = {
        "activations": activations,
        "layer_indices": list(by_block),
        "scale": 1.0,
        "norm_match": False,
        "position_indices": positions,
    }
    return write_torch(path, fields, "the vector for vllm-lens")


def save_hotwire(vectors: Vectors, path: str | Path) -> Path:
    """The path of a PyTorch file with a tensor [n_layers d_model], as hotwire-vllm reads it from `$HOTWIRE_VECTORS`.

    A request names the file, without `.pt`, and one row: `{"id": "love", "layer": 13, "scale": 1.0}`. Rows are added
    at the *output* of a block, at every token: a vector at the input of layer l stands in row l − 1, one at
    `"resid_post"` in row l; other rows are zero. Coefficients are multiplied in. BOS is steered too, which placement
    `"all"` leaves out.

    Shown with hotwire's own reading code, which hands these rows to its kernel; vLLM itself was not run.

    Raises:
        SteerlensError: vectors that are not placed at `"all"`, of other sites, of layer 0, of two models; a path that
            does not end in .pt (hotwire would not read it) or cannot be written.
    """
    by_block = block_outputs(vectors, "a vector of hotwire")
    first = listed_vectors(vectors)[0]
    table = torch.zeros(first.model.n_layers, first.model.d_model)
    for block, values in by_block.items():
        table[block] = values
    written = path_to(path)
    if written.suffix != ".pt":
        raise SteerlensError(f"hotwire reads files that end in .pt, not {written.name!r:.60}; call it NAME.pt")
    return write_torch(written, table, "the vectors for hotwire")
