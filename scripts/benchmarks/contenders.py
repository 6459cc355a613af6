"""What is timed: the same work by steerlens, by the plain loop, by Hugging Face alone, and by peer libraries."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch

import steerlens as sl
from steerlens.steering.injection import steer

from .peers import Peer
from .shapes import PROMPT, PROMPTS
from .timing import compared, interleaved

OURS = "steerlens"


@torch.no_grad()
def next_token_grid(model: Any, loop: Any, *, factors: Sequence[float], rounds: int) -> list[dict[str, Any]]:
    """Next-token logits for all layers × coefficients of one 24-token prompt."""
    ids = (model.to_tokens(PROMPT)[0].tolist() * 4)[:24]
    text = model.tokenizer.decode(ids[1:])
    tokens = model.to_tokens(text)
    vectors = sl.actadd(model, " weddings", " ", layers="all")
    theirs = sl.actadd(loop, " weddings", " ", layers="all")
    conditions = [None, *(c * v for v in vectors.values() for c in factors)]
    layers = len(vectors)
    # A row goes through the blocks from its layer on; the clean row through all of them.
    block_rows = layers + len(factors) * sum(layers - layer for layer in range(layers))
    plain_rows = tokens.repeat(max(round(block_rows / layers), 1), 1)

    def naive() -> None:
        loop(tokens)
        for vector in theirs.values():
            for factor in factors:
                values = (factor * vector.values).to(loop.cfg.dtype)

                def add(resid: torch.Tensor, hook: Any, values: torch.Tensor = values) -> torch.Tensor:
                    resid[:, : len(values)] += values
                    return resid

                with loop.hooks(fwd_hooks=[(f"blocks.{vector.layer}.hook_resid_pre", add)]):
                    loop(tokens)[:, -1]

    def ours() -> None:
        sl.next_token_logits(model, text, conditions)

    def as_many_plain_blocks() -> None:
        model(plain_rows, stop_at_layer=model.cfg.n_layers, return_type=None)

    contenders: dict[str, Any] = {"naive loop": naive, OURS: ours}
    hooked_transformer = hasattr(model, "unembed") and type(model).__name__ == "HookedTransformer"
    if hooked_transformer:
        contenders["plain forward of as many block rows"] = as_many_plain_blocks
    seconds = interleaved(contenders, rounds=rounds)
    work = f"next-token grid, {layers} layers × {len(factors)} coefficients, {tokens.shape[1]} tokens"
    results = [compared(work, seconds, ours=OURS, against="naive loop", goal="≥ 4")]
    if hooked_transformer:
        note = f"{block_rows} block rows"
        against = "plain forward of as many block rows"
        results.append(compared(work, seconds, ours=OURS, against=against, goal="≥ 0.9", note=note))
    return results


@torch.no_grad()
def sampling_sweep(
    model: Any, loop: Any, source: Any, peers: Sequence[Peer], *, layers: int, n: int, new: int, rounds: int
) -> list[dict[str, Any]]:
    """Completions for `layers` layers, evenly spread, with the paper's sampling, by everybody."""
    every = max(model.cfg.n_layers // layers, 1)
    chosen = list(range(0, model.cfg.n_layers, every))[:layers]
    vectors = list(sl.actadd(model, " weddings", " ", layers=chosen).values())
    theirs = list(sl.actadd(loop, " weddings", " ", layers=chosen).values())
    prompt = loop.to_tokens(PROMPT)
    tokens = prompt.repeat(n, 1)
    sampling = {"do_sample": True, "temperature": 1.0, "top_p": 0.3, "top_k": 0, "pad_token_id": 0}
    # What peers add: one direction of the layer's width (the vector's last position), at every position.
    directions = {vector.layer: vector.values[-1].float().tolist() for vector in theirs}

    def ours() -> None:
        sl.generate(model, PROMPT, list(vectors), n=n, max_new_tokens=new, stop_at_end=False, progress=False)

    def naive() -> None:
        for vector in theirs:
            with steer(loop, vector):
                loop.generate(
                    tokens,
                    max_new_tokens=new,
                    temperature=1.0,
                    top_p=0.3,
                    freq_penalty=1.0,
                    verbose=False,
                    stop_at_eos=False,
                    return_type="tokens",
                )

    def hugging_face() -> None:
        for _ in theirs:
            source.generate(
                tokens, attention_mask=torch.ones_like(tokens), min_new_tokens=new, max_new_tokens=new, **sampling
            )

    contenders: dict[str, Any] = {
        OURS: ours,
        "naive loop": naive,
        "Hugging Face generate, unsteered": hugging_face,
    }
    for peer in peers:
        contenders[peer.library] = lambda peer=peer: peer.sample(prompt.tolist(), directions, n=n, new=new)
    seconds = interleaved(contenders, rounds=rounds, warm=False)
    work = f"sampling sweep, {len(chosen)} layers × {n} × {new} tokens"
    goals = {"naive loop": "≥ 5", "Hugging Face generate, unsteered": "≥ 1"}
    rate = f"{len(chosen) * n * new / statistics.median(seconds[OURS]):,.0f} tokens/s"
    return [
        compared(work, seconds, ours=OURS, against=name, goal=goals.get(name, "≥ 2"), note=rate)
        for name in contenders
        if name != OURS
    ]


def search(model: Any, *, coeffs: int, prompts: int, n: int, new: int, rounds: int, goal: str) -> dict[str, Any]:
    """Completions of every prompt at all layers × coefficients, by steerlens alone: from the pair to the frame."""
    factors = [0.5 * (k + 1) for k in range(coeffs)]
    texts = list(PROMPTS[:prompts])

    def ours() -> None:
        vectors = sl.actadd(model, " weddings", " ", layers="all")
        conditions: list[Any] = [c * vector for vector in vectors.values() for c in factors]
        sl.generate(model, texts, conditions, n=n, max_new_tokens=new, stop_at_end=False, progress=False)

    seconds = interleaved({OURS: ours}, rounds=rounds)[OURS]
    layers = model.cfg.n_layers
    return {
        "work": f"search, {layers} layers × {coeffs} coefficients × {len(texts)} prompts × {n} × {new} tokens",
        "against": "–",
        "ratio": float("nan"),
        "low": float("nan"),
        "high": float("nan"),
        "seconds": statistics.median(seconds),
        "seconds against": float("nan"),
        "rounds": rounds,
        "goal": goal,
        "note": f"{layers * coeffs * len(texts) * n * new / statistics.median(seconds):,.0f} tokens/s",
    }


@torch.no_grad()
def premium(model: Any, *, rounds: int) -> dict[str, Any]:
    """One forward of 32 × 64 tokens: unsteered against steered."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.cfg.d_vocab, (32, 64), generator=generator).to(model.cfg.device)
    vector = sl.actadd(model, " weddings", " ", layer=model.cfg.n_layers // 2)

    def steered() -> None:
        with steer(model, vector):
            model(tokens)

    seconds = interleaved({"unsteered": lambda: model(tokens) is None or None, "steered": steered}, rounds=rounds)
    result = compared("one forward, 32 × 64 tokens", seconds, ours="steered", against="unsteered", goal="≥ 0.99")
    result["note"] = f"premium {1 / result['ratio'] - 1:+.1%}"
    return result


def import_time(rounds: int) -> dict[str, Any]:
    """`import steerlens` after `import torch`, in fresh processes that time it themselves."""
    code = "import torch, time; t = time.perf_counter(); import steerlens; print(time.perf_counter() - t)"
    extra = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(rounds)
    ]
    nothing = float("nan")
    return {
        "work": "import steerlens",
        "against": "–",
        "ratio": nothing,
        "low": nothing,
        "high": nothing,
        "seconds": statistics.median(extra),
        "seconds against": nothing,
        "rounds": rounds,
        "goal": "≤ 0.3 s",
        "note": "beyond torch",
    }
