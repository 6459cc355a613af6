"""llama.cpp itself, as the package xllamacpp brings it, called by its C interface: what it makes of a control vector.

The Python side of that package has no control vectors, but its library holds all of llama.cpp, the reader of control
vector files included, which is what `llama-cli --control-vector FILE` calls. Structures are taken as bytes, since only
a few fields matter; `_check` notices if another version has them elsewhere.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_LOAD = "_Z26common_control_vector_loadRKSt6vectorI31common_control_vector_load_infoSaIS0_EE"
# Where the types of a cache's keys and values stand in the settings of a context, and two numbers for the same.
_FLASH, _TYPES, _F32, _F16 = 52, 104, 0, 1


class _Bytes(ctypes.Structure):
    """Settings by value: longer than they are, of which the callee reads what it knows."""

    _fields_ = [("raw", ctypes.c_ubyte * 1024)]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


@cache
def library() -> Any:
    """llama.cpp; the test that asks for it is skipped where it is not installed."""
    package = pytest.importorskip("xllamacpp")
    path = next(Path(package.__file__).parent.glob("xllamacpp*.so"))
    found = ctypes.CDLL(str(path))
    pointer, c_int = ctypes.c_void_p, ctypes.c_int32
    for name, result, *arguments in (
        ("llama_backend_init", None),
        ("llama_log_set", None, pointer, pointer),
        ("llama_model_default_params", _Bytes),
        ("llama_context_default_params", _Bytes),
        ("llama_model_load_from_file", pointer, ctypes.c_char_p, _Bytes),
        ("llama_init_from_model", pointer, pointer, _Bytes),
        ("llama_model_get_vocab", pointer, pointer),
        ("llama_vocab_n_tokens", c_int, pointer),
        ("llama_model_n_layer", c_int, pointer),
        ("llama_model_n_embd", c_int, pointer),
        ("llama_batch_init", _Batch, c_int, c_int, c_int),
        ("llama_batch_free", None, _Batch),
        ("llama_decode", c_int, pointer, _Batch),
        ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), pointer, c_int),
        ("llama_get_memory", pointer, pointer),
        ("llama_memory_clear", None, pointer, ctypes.c_bool),
        ("llama_set_adapter_cvec", c_int, pointer, pointer, ctypes.c_size_t, c_int, c_int, c_int),
        ("llama_free", None, pointer),
        ("llama_model_free", None, pointer),
        (_LOAD, pointer, pointer, pointer),
    ):
        function = getattr(found, name)
        function.restype, function.argtypes = result, list(arguments)
    found.silence = ctypes.CFUNCTYPE(None, c_int, ctypes.c_char_p, pointer)(lambda level, text, data: None)
    found.llama_log_set(ctypes.cast(found.silence, pointer), None)
    found.llama_backend_init()
    return found


class Runner:
    """A model that llama.cpp runs on one thread, with its cache in float32."""

    def __init__(self, path: Path) -> None:
        self.llama = library()
        self.model = self.llama.llama_model_load_from_file(str(path).encode(), self.llama.llama_model_default_params())
        assert self.model, f"llama.cpp does not read {path}"
        settings = self.llama.llama_context_default_params()
        raw = settings.raw
        assert struct.unpack_from("ii", bytes(raw), _TYPES) == (_F16, _F16), "another version: see its llama.h"
        struct.pack_into("II", raw, 0, 512, 512)  # n_ctx, n_batch
        struct.pack_into("i", raw, _FLASH, 0)
        struct.pack_into("ii", raw, _TYPES, _F32, _F32)
        self.context = self.llama.llama_init_from_model(self.model, settings)
        assert self.context
        self.n_layers = self.llama.llama_model_n_layer(self.model)
        self.width = self.llama.llama_model_n_embd(self.model)
        self.n_tokens = self.llama.llama_vocab_n_tokens(self.llama.llama_model_get_vocab(self.model))

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Next-token logits at every position, [pos vocab]."""
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)
        batch = self.llama.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for place, token in enumerate(ids):
            batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
            batch.seq_id[place][0], batch.logits[place] = 0, 1
        assert self.llama.llama_decode(self.context, batch) == 0
        rows = [
            np.ctypeslib.as_array(self.llama.llama_get_logits_ith(self.context, place), (self.n_tokens,)).copy()
            for place in range(len(ids))
        ]
        self.llama.llama_batch_free(batch)
        return np.stack(rows)

    def greedy(self, ids: Sequence[int], n: int) -> list[int]:
        """The `n` most likely next tokens, one after the other."""
        ids, start = list(ids), len(ids)
        for _ in range(n):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[start:]

    def steer(self, path: Path, scale: float = 1.0) -> None:
        """As `--control-vector-scaled PATH:SCALE` does it: llama.cpp reads the file and takes all layers."""
        data = read_control_vector(path, scale)
        assert len(data) % self.width == 0
        # A second vector in one context would leave what the first put in layers beyond the second's last.
        data = np.pad(data, (0, (self.n_layers - 1) * self.width - len(data)))
        kept = data.ctypes.data_as(ctypes.c_void_p)
        assert self.llama.llama_set_adapter_cvec(self.context, kept, data.size, self.width, 1, self.n_layers) == 0

    def close(self) -> None:
        self.llama.llama_free(self.context)
        self.llama.llama_model_free(self.model)


@contextmanager
def running(path: Path) -> Iterator[Runner]:
    """llama.cpp with a model, until the end of the block."""
    runner = Runner(path)
    try:
        yield runner
    finally:
        runner.close()


def read_control_vector(path: Path, scale: float = 1.0) -> np.ndarray:
    """What llama.cpp's own reader finds in the file: [layer·width], beginning with layer 1; empty if it refuses it."""
    name = str(path).encode()
    # A string of C++ as this library is built: a pointer to its characters, behind length, capacity and a count.
    text = ctypes.create_string_buffer(struct.pack("QQi4x", len(name), len(name), 0) + name + b"\0")
    entry = ctypes.create_string_buffer(struct.pack("f4xQ", scale, ctypes.addressof(text) + 24), 16)
    begin = ctypes.addressof(entry)
    entries = (ctypes.c_uint64 * 3)(begin, begin + 16, begin + 16)
    found = ctypes.create_string_buffer(64)
    getattr(library(), _LOAD)(ctypes.addressof(found), ctypes.addressof(entries))
    width, first, last = struct.unpack_from("i4xQQ", found.raw)
    if width <= 0 or first == 0:
        return np.zeros(0, dtype=np.float32)
    count = (last - first) // 4
    return np.ctypeslib.as_array(ctypes.cast(first, ctypes.POINTER(ctypes.c_float)), (count,)).copy()
