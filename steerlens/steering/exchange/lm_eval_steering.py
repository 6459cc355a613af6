"""What `lm_eval --model steered` reads: hook points of a Hugging Face model, and what is done to their outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steerlens.arguments import path_to, text
from steerlens.errors import SteerlensError
from steerlens.steering.conditions import Injection, Steering, as_condition, rows_of
from steerlens.steering.exchange.block_outputs import block_before, listed_vectors, require_everywhere
from steerlens.steering.exchange.torch_files import write_torch

_TOOL = "lm-eval's steering"
# A vector is as good as without a mean over its width if the mean is rounding error beside its entries.
_CENTRED = 1e-5


def save_lm_eval(steering: Steering, path: str | Path, *, blocks: str = "layers") -> Path:
    """The path of a PyTorch file with a condition, for lm-evaluation-harness.

        lm_eval --model steered --model_args pretrained=MODEL,steer_path=PATH --tasks …

    Its log-likelihoods are those of `score`, with one difference: BOS is steered too, which placement `"all"` leaves
    out. `score(model, texts, (vector, vector.on(0)))` is what it does with a text that begins with BOS.

    lm-eval adds at the output of a module: a vector at the input of layer l becomes `layers.{l−1}`, one at
    `"resid_post"` `layers.{l}`. Operations other than `"add"` become its `clamp` (to 0 for `"ablate"`), which is the
    same where the vector belongs to an unprocessed model, a model with RMS norms, or has no mean over its width.

    Args:
        steering: injections at every position (placement `"all"`) of the residual stream between blocks; several may be
            added at one place, other operations stand alone there.
        blocks: where the Hugging Face model's body keeps its blocks: `"layers"` (Llama, Mistral, Qwen, Gemma and most),
            `"h"` (GPT-2, GPT-J), `"decoder.layers"` (OPT). lm-eval refuses a name that the model does not have.

    Raises:
        SteerlensError: an injection that lm-eval cannot make, with the reason; a path that does not end in .pt or
            cannot be written.
    """
    text("blocks", blocks, empty=False)
    written = path_to(path)
    if written.suffix not in (".pt", ".pth"):
        raise SteerlensError(f"lm-eval reads files that end in .pt, not {written.name!r:.60}; call it NAME.pt")
    condition = as_condition(steering)
    listed_vectors([one.vector for one in condition.injections])
    points: dict[str, dict[str, Any]] = {}
    for one in condition.injections:
        name = f"{blocks}.{_block(one)}"
        new = _point(one)
        if name in points:
            if not new["action"] == points[name]["action"] == "add":
                raise SteerlensError(f"lm-eval does one thing at a place, and {name} would be added to and clamped")
            new["steering_vector"] = new["steering_vector"] + points[name]["steering_vector"]
        points[name] = new
    return write_torch(written, points, "the condition for lm-eval")


def _block(injection: Injection) -> int:
    vector = injection.vector.on(injection.placement)  # type: ignore[arg-type]
    require_everywhere(vector, _TOOL)
    if injection.gate is not None:
        raise SteerlensError(f"{_TOOL} has no gates; leave the gate {injection.gate.title!r:.120} out")
    if injection.ramp is not None:
        raise SteerlensError(f"{_TOOL} is as strong everywhere; leave the {injection.ramp.title} out")
    return block_before(vector, _TOOL)


def _point(injection: Injection) -> dict[str, Any]:
    """What lm-eval is to do with an injection."""
    vector, plain = injection.vector, {"bias": None, "head_index": None}
    values = vector.values[0].cpu()
    if injection.operation == "add":
        return {"steering_vector": values.clone(), "steering_coefficient": 1.0, "action": "add", **plain}
    if injection.kind != "project":
        raise SteerlensError(f"lm-eval adds and clamps, and cannot {injection.operation!r}; use another operation")
    table = rows_of(injection)
    direction = table.values[0].cpu()
    if vector.model.centred and bool(direction.mean().abs() > _CENTRED * direction.abs().max()):
        raise SteerlensError(
            f"{vector.label!r:.60} has a mean over its width and belongs to a model whose residual stream has none, so "
            f"lm-eval's {injection.operation!r} would see other projections; make it with processing=False"
        )
    target = float(table.targets[0, 0])
    return {"steering_vector": direction, "steering_coefficient": target, "action": "clamp", **plain}
