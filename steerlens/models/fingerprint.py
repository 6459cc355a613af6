"""`fingerprint`: which computation a model is, as a short text. A stamp refuses vectors, this tells runs apart."""

from __future__ import annotations

import hashlib
import json
from enum import Enum
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models.held_weights import once_if_held
from steerlens.models.one_at_a_time import for_one_thread
from steerlens.models.protocol import HookedModel, is_bridge, weights_of
from steerlens.models.running import live_hooks

# Words per block. What is worked on stays in a core's cache, and is just too little for PyTorch to share out among
# threads, whose meetings at every block would cost more than the sums (a hundredfold on a busy machine).
_WORDS = 1 << 15
_BLOCKS_AT_ONCE = {"cpu": 1, "cuda": 512}
# Settings that decide where, not what, is computed; names and histories; and what TransformerLens also records.
_NO_MATTER = (
    "attn_implementation checkpoint_index checkpoint_label_type checkpoint_value default_padding_side device dtype "
    "from_checkpoint init_mode init_weights initializer_range model_name n_devices n_params name_or_path "
    "original_architecture seed tokenizer_name torch_dtype transformers_version trust_remote_code use_attn_in "
    "use_attn_result use_cache use_hook_mlp_in use_hook_tokens use_split_qkv_input"
).split()


@for_one_thread
@torch.no_grad()
def fingerprint(model: HookedModel) -> str:
    """32 hexadecimal digits that two models share only if they compute the same completions.

    Made of every bit of every parameter, the class, the configuration, and a sample of the tokenizer. It does not
    depend on the device, on the model's name, or on how weights lie in memory. Nothing is cached (but in the block of
    `weights_held`), so weights edited in place give another one.

    The weights are summed up where they are: 32-bit words times fixed odd 64-bit numbers, modulo 2**64, one sum
    for 2**15 words (multilinear hashing, Carter and Wegman 1979; integer sums have no order, so every device gets
    the same). One changed word always shows; two sets of weights agree by accident with probability below 2**-32.
    That reads memory once (about a second per 10⁹ bytes on a CPU core, nothing to speak of on an accelerator), and
    only the sums leave the device.

    Raises:
        SteerlensError: hooks on the model, which change what it computes and cannot be told apart; weights that are not
            in memory (offloaded to a disk).
    """
    hooked = user_hooks(model)
    if hooked:
        raise SteerlensError(
            f"the model has hooks of yours at {hooked[0]}{' and elsewhere' if len(hooked) > 1 else ''}, so its results "
            "cannot be kept or computed elsewhere; remove them (model.reset_hooks(), or leave the `with` block)"
        )
    return once_if_held(model, "fingerprint", lambda: _digest(model))


def _digest(model: HookedModel) -> str:
    digest = hashlib.blake2b(digest_size=16, person=b"steerlens model")
    digest.update(json.dumps([type(model).__name__, _settings(model), _tokenizer_sample(model)]).encode())
    for name, weight in weights_of(model):
        if weight.is_meta:
            raise SteerlensError(f"the weight {name} is not in memory (offloaded?), so this model cannot be told apart")
        sums = word_sums(weight)
        digest.update(f"{name} {list(weight.shape)} {weight.dtype}".encode())
        digest.update(sums.cpu().numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def user_hooks(model: HookedModel) -> list[str]:
    """The names of the hook points where the user's own hooks are."""
    return [name for name, point in model.hook_dict.items() if live_hooks(point)]


def word_sums(values: Tensor) -> Int64[Tensor, " blocks"]:
    """One number for every 2**15 words of 32 bits of a tensor, in the order of its elements."""
    flat = values.detach().reshape(-1).view(torch.uint8)
    whole, rest = divmod(len(flat), 4 * _WORDS)
    factors = _factors().to(flat.device)
    sums = []
    step = _BLOCKS_AT_ONCE.get(flat.device.type, 16)
    for start in range(0, whole, step):
        blocks = flat[4 * _WORDS * start : 4 * _WORDS * min(start + step, whole)]
        sums.append((blocks.view(torch.int32).view(-1, _WORDS).long() * factors).sum(1))
    if rest:
        tail = torch.nn.functional.pad(flat[len(flat) - rest :], (0, -rest % 4)).view(torch.int32)
        sums.append((tail.long() * factors[: len(tail)]).sum()[None])
    return torch.cat(sums) if sums else torch.zeros(0, dtype=torch.int64)


@lru_cache(maxsize=1)
def _factors() -> Int64[Tensor, " words"]:
    """Odd numbers, the same everywhere: from SHAKE-128, since a generator's stream may change between versions."""
    stream = bytearray(hashlib.shake_128(b"steerlens fingerprint").digest(8 * _WORDS))
    return torch.frombuffer(stream, dtype=torch.int64) | 1


def _settings(model: HookedModel) -> dict[str, Any]:
    """The parts of the configuration that numbers depend on."""
    settings = {name: _plain(value) for name, value in vars(model.cfg).items() if name not in _NO_MATTER}
    config = getattr(getattr(model, "original_model", None), "config", None) if is_bridge(model) else None
    if config is not None:
        given = json.loads(config.to_json_string(use_diff=False))
        settings["wrapped"] = {k: v for k, v in given.items() if k not in _NO_MATTER and not k.startswith("_")}
    return dict(sorted(settings.items()))


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if hasattr(value, "item"):  # numpy's numbers
        value = value.item()
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    # What has no plain form (a torch.dtype apart, which the weights show) might print its address: its type must do.
    return value if value is None or isinstance(value, str | int | float | bool) else type(value).__name__


def _tokenizer_sample(model: HookedModel) -> Any:
    tokenizer = model.tokenizer
    if tokenizer is None:
        return None
    size = len(tokenizer)
    ids = sorted({round(i * (size - 1) / 63) for i in range(64)})
    pieces = [tokenizer.decode([i], clean_up_tokenization_spaces=False) for i in ids]
    return [size, tokenizer.bos_token_id, tokenizer.eos_token_id, pieces]
