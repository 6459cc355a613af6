"""How the cost of a job grows with its size, beside what the hardware would need at its own measured peak.

The bound of a job is the larger of two times: its multiplications at the rate of a large matrix product, and the bytes
that it must read (weights once per forward pass, keys and values once per token) at the rate of a large copy, both
measured on this machine just before.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

import steerlens as sl
from steerlens.figures import theme

from .results import FOLDER, machine
from .shapes import PROMPT, hooked, plain
from .timing import synchronise

_NEW = 20
_SAMPLES = 50
_SIZES = ((2, 128, 2), (4, 192, 3), (6, 256, 4), (8, 384, 6), (12, 512, 8), (12, 768, 12))


def run(name: str, *, device: str, dtype: str) -> str:
    """Where the figure is; growth-NAME-DEVICE.json and .png (.html without kaleido) are written."""
    source = plain(name)
    model = hooked(name, source, device=device, dtype=dtype)
    peak, bandwidth = measured_peak(device, dtype), measured_bandwidth(device, dtype)
    series = {
        "layers swept": layers_swept(model),
        "conditions": conditions(model),
        "samples": samples(model),
        "rows decoded together": rows_together(model),
        "prompt length (tokens)": prompt_length(model),
        "model size (parameters)": model_size(device, dtype),
    }
    rows = []
    for axis, points in series.items():
        for x, job, seconds, flops, bytes_read in points:
            bound = max(flops / peak, bytes_read / bandwidth)
            limit = "multiplications" if flops / peak >= bytes_read / bandwidth else "memory"
            rows.append({"axis": axis, "job": job, "x": x, "seconds": seconds, "bound": bound, "bound by": limit})
    FOLDER.mkdir(exist_ok=True)
    stem = FOLDER / f"growth-{name}-{device}"
    facts = {**machine(), "peak (FLOP/s)": peak, "bandwidth (bytes/s)": bandwidth}
    stem.with_suffix(".json").write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    figure = drawn(rows)
    try:
        figure.write_image(stem.with_suffix(".png"), scale=2)
        return str(stem.with_suffix(".png"))
    except (ImportError, ValueError, RuntimeError):
        figure.write_html(stem.with_suffix(".html"))
        return str(stem.with_suffix(".html"))


Point = tuple[float, str, float, float, float]
"""x, the job in words, seconds, FLOPs, bytes."""


def layers_swept(model: Any) -> list[Point]:
    vectors = list(sl.actadd(model, " weddings", " ", layers="all").values())
    counts = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= len(vectors)]
    return [_sampled(model, k, vectors[:k], _SAMPLES) for k in counts]


def samples(model: Any) -> list[Point]:
    vector = sl.actadd(model, " weddings", " ", layer=model.cfg.n_layers // 2)
    return [_sampled(model, n, [vector], n) for n in (1, 4, 16, 64, 256)]


def rows_together(model: Any) -> list[Point]:
    """One job in batches of many sizes: what `default_rows` of the engine is chosen by."""
    vectors = list(sl.actadd(model, " weddings", " ", layers="all").values())[:8]
    return [_sampled(model, size, vectors, 100, batch_size=size) for size in (25, 50, 100, 200, 400, 800)]


def conditions(model: Any) -> list[Point]:
    vectors = list(sl.actadd(model, " weddings", " ", layers="all").values())
    points = []
    for coeffs in (1, 2, 4, 8, 16):
        given = [None, *((0.5 + c) * v for v in vectors for c in range(coeffs))]
        points.append(_scored(model, len(given), PROMPT, given, vectors, coeffs))
    return points


def prompt_length(model: Any) -> list[Point]:
    vectors = list(sl.actadd(model, " weddings", " ", layers="all").values())
    points = []
    for length in (8, 16, 32, 64, 128, 256):
        ids = (model.to_tokens(PROMPT)[0].tolist()[1:] * 60)[: length - 1]
        points.append(_scored(model, length, model.tokenizer.decode(ids), [None, *vectors], vectors, 1))
    return points


def model_size(device: str, dtype: str) -> list[Point]:
    from transformers import GPT2Config, GPT2LMHeadModel

    points = []
    for layers, width, heads in _SIZES:
        torch.manual_seed(0)
        source = GPT2LMHeadModel(GPT2Config(n_layer=layers, n_embd=width, n_head=heads, vocab_size=8192)).eval()
        model = hooked("demo", source, device=device, dtype=dtype)
        vector = sl.actadd(model, " weddings", " ", layer=layers // 2)
        _, job, seconds, flops, bytes_read = _sampled(model, 0, [vector], _SAMPLES)
        parameters = float(_block_parameters(model) * layers + _head_parameters(model))
        points.append((parameters, job, seconds, flops, bytes_read))
    return points


def _sampled(model: Any, x: float, vectors: Sequence[Any], n: int, batch_size: int | None = None) -> Point:
    def job() -> None:
        sl.generate(
            model,
            PROMPT,
            list(vectors),
            n=n,
            max_new_tokens=_NEW,
            batch_size=batch_size,
            stop_at_end=False,
            progress=False,
        )

    cfg, prompt = model.cfg, int(model.to_tokens(PROMPT).shape[1])
    everything = _block_parameters(model) * cfg.n_layers + _head_parameters(model)
    units = len(vectors)
    flops = 2.0 * everything * units * (prompt + n * (_NEW - 1))
    size = cfg.dtype.itemsize
    # At least one pass over the weights per token; keys and values of every row grow by a token at a time.
    keys_and_values = 2 * cfg.n_layers * cfg.d_model * size * units * n * (_NEW * (prompt + _NEW / 2))
    return x, f"{units} × {n} × {_NEW} tokens", _median(job), flops, everything * size * _NEW + keys_and_values


def _scored(model: Any, x: float, text: str, given: list[Any], vectors: Sequence[Any], coeffs: int) -> Point:
    def job() -> None:
        sl.next_token_logits(model, text, given)

    cfg, length = model.cfg, int(model.to_tokens(text).shape[1])
    block_rows = cfg.n_layers + coeffs * sum(cfg.n_layers - vector.layer for vector in vectors)
    flops = 2.0 * (_block_parameters(model) * block_rows * length + _head_parameters(model) * len(given))
    bytes_read = (_block_parameters(model) * cfg.n_layers + _head_parameters(model)) * cfg.dtype.itemsize
    return x, f"{len(given)} conditions, {length} tokens", _median(job), flops, float(bytes_read)


def _block_parameters(model: Any) -> int:
    return sum(weight.numel() for weight in model.blocks[0].parameters())


def _head_parameters(model: Any) -> int:
    return int(model.cfg.d_model * model.cfg.d_vocab)


def measured_peak(device: str, dtype: str, size: int = 1536) -> float:
    """Multiplications and additions per second in a product of square matrices."""
    a = torch.randn(size, size, device=device).to(getattr(torch, dtype))
    return 2.0 * size**3 / _median(lambda: a @ a)


def measured_bandwidth(device: str, dtype: str, megabytes: int = 256) -> float:
    """Bytes per second read by a sum over more than the caches hold."""
    a = torch.ones(megabytes * 2**20 // 4, device=device)
    return a.numel() * 4 / _median(lambda: a.sum())


def _median(job: Callable[[], object], rounds: int = 5) -> float:
    seconds = []
    for number in range(rounds + 1):
        synchronise()
        started = time.perf_counter()
        job()
        synchronise()
        if number:
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def drawn(rows: Sequence[dict[str, Any]]) -> go.Figure:
    """One panel per axis: measured seconds, and the bound."""
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = make_subplots(rows=1, cols=len(axes), horizontal_spacing=0.05)
    for column, axis in enumerate(axes, start=1):
        mine = [row for row in rows if row["axis"] == axis]
        x = [row["x"] for row in mine]
        shown = column == 1
        for key, name, colour, dash in (
            ("seconds", "measured", theme.BLUE, "solid"),
            ("bound", "bound (multiplications or memory)", theme.ORANGE_RED, "dot"),
        ):
            figure.add_scatter(
                x=x,
                y=[row[key] for row in mine],
                name=name,
                legendgroup=key,
                showlegend=shown,
                mode="lines+markers",
                line={"color": colour, "dash": dash},
                row=1,
                col=column,
            )
        named = [f"{value / 1e6:.2g}M" if value >= 1e6 else f"{value:g}" for value in x]
        figure.update_xaxes(type="log", title=axis, tickvals=x, ticktext=named, row=1, col=column)
        doubling = {"dtick": math.log10(2), "tickformat": ".2~g"}
        figure.update_yaxes(type="log", title="seconds" if shown else None, **doubling, row=1, col=column)
    figure.update_layout(
        template=theme.THEME,
        title={
            "text": "Growth of cost",
            "subtitle": {"text": "20-token completions; conditions and prompt length: next-token grids"},
        },
        width=1900,
        height=430,
        paper_bgcolor="white",
        legend={"orientation": "h", "y": 1.18, "x": 1, "xanchor": "right"},
    )
    return figure
