"""How many rows run together: as many as fit the memory, as few as keep a CPU's caches warm."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from steerlens.arguments import finite_number, shown, whole_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, walkable

# A CPU's rate is flat from here on (measured from d_model 384 to 768); narrow models spend their time on call overhead.
_CPU_TOKENS, _CPU_NUMBERS = 1024, 1 << 18
# No accelerator in common use needs more than this to be busy.
_DEVICE_TOKENS = 65536
_CPU_BYTES = 1 << 30
# Share of the free memory; the estimate below counts only the large tensors.
_FREE_SHARE = 0.6
# Rows decoded together: a CPU's rate is flat from here on (scripts/benchmark.py --growth); accelerators need more.
_CPU_ROWS, _DEVICE_ROWS = 256, 2048
# Float32 copies of a row's logits that sampling a token holds at once.
_LOGITS_AT_ONCE = 6
# Logits reduced at a time: a few tensors of this size exist at once.
_CPU_SLICE_BYTES, _DEVICE_SLICE_BYTES, _SLICES_AT_ONCE = 32 << 20, 512 << 20, 16


def row_limit(
    model: HookedModel, *, logits_per_row: int, batch_size: int | None, memory_budget: int | None
) -> Callable[[int], int]:
    """A function from the width of a batch to the number of rows that may run together.

    Args:
        logits_per_row: positions whose logits are held until the pass is over (0 where they are computed in slices).
        batch_size: the caller's own number of rows, whatever the memory.
        memory_budget: bytes for activations and logits; by default a share of what the device has free.

    Raises:
        SteerlensError: a batch size below 1; (from the function) an explicit budget that does not hold one row.
    """
    if batch_size is not None:
        rows = whole_number("batch_size", batch_size, least=1)
        return lambda width: rows
    _check_budget(memory_budget)
    on_cpu = torch.device(model.cfg.device).type == "cpu"
    budget = memory_budget if memory_budget is not None else _free_bytes(model)
    tokens = max(_CPU_TOKENS, _CPU_NUMBERS // int(model.cfg.d_model)) if on_cpu else _DEVICE_TOKENS

    def limit(width: int) -> int:
        need = row_bytes(model.cfg, width, logits_per_row)
        fit = int(budget // need)
        # What was measured or assumed does not forbid a row that might just fit; what was asked for does.
        if fit < 1 and memory_budget is not None:
            raise SteerlensError(
                f"a memory budget of {_megabytes(budget)} does not hold one row of {width} tokens, which takes about "
                f"{_megabytes(need)}; raise memory_budget, or shorten the text"
            )
        return max(min(fit, tokens // width), 1)

    return limit


def row_bytes(cfg: Any, width: int, logits: int) -> int:
    """About how many bytes one row of `width` tokens takes at the peak of a forward pass.

    Counted: the residual stream and its copies, queries, keys and values, attention scores and pattern, both sides of
    the MLP's non-linearity; and `logits` positions of logits.
    """
    size = torch.finfo(cfg.dtype).bits // 8
    heads = int(cfg.n_heads)
    d_mlp = int(getattr(cfg, "d_mlp", None) or 4 * cfg.d_model)
    per_token = 6 * cfg.d_model + 4 * heads * cfg.d_head + 3 * d_mlp + 3 * heads * width
    return int(size * (width * per_token + logits * cfg.d_vocab))


def most_rows(model: HookedModel) -> int:
    """How many rows decode together where memory is not the limit."""
    return _CPU_ROWS if torch.device(model.cfg.device).type == "cpu" else _DEVICE_ROWS


def decode_rows(
    model: HookedModel, *, prompt: int, new: int, batch_size: int | None = None, memory_budget: int | None = None
) -> int:
    """How many rows decode together: `most_rows`, or as many as the memory holds.

    Args:
        prompt, new: tokens of the longest prompt, and of a completion.
        batch_size: the caller's own number of rows, whatever the memory.
        memory_budget: bytes for keys, values and logits; by default a share of what the device has free.

    Raises:
        SteerlensError: an explicit budget that does not hold one row.
    """
    if batch_size is not None:
        return whole_number("batch_size", batch_size, least=1)
    _check_budget(memory_budget)
    cfg = model.cfg
    heads = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
    size = torch.finfo(cfg.dtype).bits // 8
    # A bridge, or a model with hooks, copies the whole cache when it grows; others hold the new tokens' part alone.
    held = new if walkable(model, longest=prompt + new) else 2 * (prompt + new)
    need = size * 2 * cfg.n_layers * heads * cfg.d_head * held + _LOGITS_AT_ONCE * 4 * cfg.d_vocab
    on_cpu = torch.device(cfg.device).type == "cpu"
    room = memory_budget if memory_budget is not None else _host_share() if on_cpu else _free_bytes(model)
    fit = int(room // need)
    if fit < 1 and memory_budget is not None:
        raise SteerlensError(
            f"a memory budget of {_megabytes(memory_budget)} does not hold one row of {prompt} tokens and {new} new "
            f"ones, which takes about {_megabytes(need)}; raise memory_budget, or ask for fewer tokens"
        )
    return max(min(fit, most_rows(model)), 1)


def slice_rows(model: HookedModel, memory_budget: int | None = None) -> int:
    """How many positions' logits are reduced at a time."""
    on_cpu = torch.device(model.cfg.device).type == "cpu"
    most = _CPU_SLICE_BYTES if on_cpu else _DEVICE_SLICE_BYTES
    budget = memory_budget if memory_budget is not None else _free_bytes(model)
    return max(min(most, budget // _SLICES_AT_ONCE) // (4 * int(model.cfg.d_vocab)), 1)


def require_room(model: HookedModel, logits: int) -> None:
    """Check that the device has room for the logits of so many positions.

    Raises:
        SteerlensError: it does not.
    """
    device = torch.device(model.cfg.device)
    need = logits * int(model.cfg.d_vocab) * torch.finfo(model.cfg.dtype).bits // 8
    if device.type != "cpu" and need > (room := _free_bytes(model)):
        raise SteerlensError(
            f"the logits of this grid take {_megabytes(need)} and {device} has about {_megabytes(room)} free; "
            "ask reduce_next_tokens for what you need of them, or for fewer conditions at a time"
        )


def _check_budget(memory_budget: int | None) -> None:
    if memory_budget is None:
        return
    try:
        finite_number("memory_budget", memory_budget, least=0)
    except SteerlensError:
        raise SteerlensError(f"memory_budget is a number of bytes, such as 2e9; got {shown(memory_budget)}") from None


def _free_bytes(model: HookedModel) -> int:
    device = torch.device(model.cfg.device)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        # Memory that PyTorch has reserved but does not use is free as well.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free * _FREE_SHARE)
    if device.type == "mps":
        return int((torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()) * _FREE_SHARE)
    return _CPU_BYTES


def _host_share() -> int:
    """A quarter of the machine's memory; on a CPU caches pay off as long as they fit."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):  # Windows does not say
        return 2 * _CPU_BYTES


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
