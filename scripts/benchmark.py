"""How fast steerlens is against the plain loop over TransformerLens, as ratios from interleaved runs.

    python scripts/benchmark.py                      # the embedded model, minutes on two cores
    python scripts/benchmark.py --model gpt2-small   # its shape with random weights, much longer
    python scripts/benchmark.py --device cuda --dtype bfloat16 --model llama-8b --n 10 --tokens 32 --coeffs 20

Every contender does the same work on the same weights in the same process; rounds alternate between them, so a noisy
machine hits all alike. Reported are medians of the per-round ratios with their range. Results are written as Markdown
and JSON beside this file, with machine, versions and command.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import steerlens as sl
from steerlens.steering.injection import steer

PROMPT = "I went up to my friend and said"
RESULTS = Path(__file__).resolve().parent / "benchmark_results"


def gpt2_shape(layers: int, width: int, heads: int) -> Callable[[], Any]:
    """A GPT-2 of the given shape with random weights and the real vocabulary size."""

    def make() -> Any:
        from transformers import GPT2Config, GPT2LMHeadModel

        return GPT2LMHeadModel(GPT2Config(n_layer=layers, n_embd=width, n_head=heads))

    return make


def llama_shape(layers: int, width: int, heads: int, groups: int, inner: int, vocab: int) -> Callable[[], Any]:
    """A Llama of the given shape with random weights."""

    def make() -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        return LlamaForCausalLM(
            LlamaConfig(
                num_hidden_layers=layers,
                hidden_size=width,
                num_attention_heads=heads,
                num_key_value_heads=groups,
                intermediate_size=inner,
                vocab_size=vocab,
                max_position_embeddings=2048,
            )
        )

    return make


SHAPES: dict[str, Callable[[], Any]] = {
    "gpt2-small": gpt2_shape(12, 768, 12),
    "gpt2-xl": gpt2_shape(48, 1600, 25),
    "llama-small": llama_shape(8, 512, 8, 2, 1408, 32000),
    "llama-8b": llama_shape(32, 4096, 32, 8, 14336, 128256),
}


def load(name: str, *, device: str, dtype: str, bridge: bool, strides: bool) -> Any:
    """The embedded model, or a shape with random weights and the embedded model's tokenizer."""
    if name not in SHAPES:
        return sl.load_model(name, device=device, dtype=dtype, bridge=bridge, strides=strides)
    from transformers import AutoTokenizer

    from steerlens.models import DEMO_MODEL_PATH

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL_PATH)
    return sl.load_model(
        SHAPES[name](), tokenizer=tokenizer, device=device, dtype=dtype, bridge=bridge, strides=strides
    )


def interleaved(contenders: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round; one untimed round first; order reversed every other round."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(-1, rounds):
        order = list(contenders) if round_ % 2 else list(reversed(contenders))
        for name in order:
            synchronise()
            started = time.perf_counter()
            contenders[name]()
            synchronise()
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def row(work: str, baseline: str, ours: str, seconds: dict[str, list[float]], note: str = "") -> dict[str, Any]:
    """One line of the results: the ratio baseline / ours."""
    ratios = [a / b for a, b in zip(seconds[baseline], seconds[ours], strict=True)]
    return {
        "work": work,
        "against": baseline,
        "ours": ours,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "seconds ours": statistics.median(seconds[ours]),
        "seconds theirs": statistics.median(seconds[baseline]),
        "rounds": len(ratios),
        "note": note,
    }


@torch.no_grad()
def next_token_grid(model: Any, plain: Any, *, factors: Sequence[float], rounds: int) -> dict[str, Any]:
    """Next-token logits for all layers × coefficients of one 24-token prompt."""
    ids = (model.to_tokens(PROMPT)[0].tolist() * 4)[:24]
    text = model.tokenizer.decode(ids[1:])
    tokens = model.to_tokens(text)
    vectors = sl.actadd(model, " weddings", " ", layers="all")
    theirs = sl.actadd(plain, " weddings", " ", layers="all")
    conditions = [None, *(c * v for v in vectors.values() for c in factors)]

    def naive() -> None:
        plain(tokens)
        for vector in theirs.values():
            for factor in factors:
                values = (factor * vector.values).to(plain.cfg.dtype)

                def add(resid: torch.Tensor, hook: Any, values: torch.Tensor = values) -> torch.Tensor:
                    resid[:, : len(values)] += values
                    return resid

                with plain.hooks(fwd_hooks=[(f"blocks.{vector.layer}.hook_resid_pre", add)]):
                    plain(tokens)[:, -1]

    seconds = interleaved(
        {"naive loop": naive, "steerlens": lambda: sl.next_token_logits(model, text, conditions)}, rounds=rounds
    )
    note = f"{len(vectors)} layers × {len(factors)} coefficients, {tokens.shape[1]} tokens"
    return row("next-token grid", "naive loop", "steerlens", seconds, note)


@torch.no_grad()
def sampling_sweep(model: Any, plain: Any, *, layers: int, n: int, new: int, rounds: int) -> dict[str, Any]:
    """Completions for the first `layers` layers, evenly spread, with the paper's sampling."""
    every = max(model.cfg.n_layers // layers, 1)
    chosen = list(range(0, model.cfg.n_layers, every))[:layers]
    vectors = list(sl.actadd(model, " weddings", " ", layers=chosen).values())
    theirs = list(sl.actadd(plain, " weddings", " ", layers=chosen).values())
    tokens = plain.to_tokens(PROMPT).repeat(n, 1)

    def naive() -> None:
        for vector in theirs:
            with steer(plain, vector):
                plain.generate(
                    tokens,
                    max_new_tokens=new,
                    temperature=1.0,
                    top_p=0.3,
                    freq_penalty=1.0,
                    verbose=False,
                    stop_at_eos=False,
                    return_type="tokens",
                )

    def ours() -> None:
        sl.generate(model, PROMPT, list(vectors), n=n, max_new_tokens=new, stop_at_end=False, progress=False)

    seconds = interleaved({"naive loop": naive, "steerlens": ours}, rounds=rounds)
    return row("sampling sweep", "naive loop", "steerlens", seconds, f"{len(chosen)} layers × {n} × {new} tokens")


@torch.no_grad()
def premium(model: Any, *, rounds: int) -> dict[str, Any]:
    """One forward of 32 × 64 tokens, unsteered and steered."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.cfg.d_vocab, (32, 64), generator=generator).to(model.cfg.device)
    vector = sl.actadd(model, " weddings", " ", layer=model.cfg.n_layers // 2)

    def steered() -> None:
        with steer(model, vector):
            model(tokens)

    seconds = interleaved({"unsteered": lambda: model(tokens), "steered": steered}, rounds=rounds)
    return row("one forward, 32 × 64 tokens", "unsteered", "steered", seconds, "1 − ratio is the premium")


def import_time(rounds: int) -> dict[str, Any]:
    """`import steerlens` after `import torch`, in fresh processes that time it themselves."""
    code = "import torch, time; t = time.perf_counter(); import steerlens; print(time.perf_counter() - t)"
    extra = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(rounds)
    ]
    return {
        "work": "import steerlens",
        "against": "–",
        "ours": "steerlens",
        "ratio": float("nan"),
        "low": float("nan"),
        "high": float("nan"),
        "seconds ours": statistics.median(extra),
        "seconds theirs": float("nan"),
        "rounds": rounds,
        "note": "beyond torch",
    }


def write(results: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "transformer-lens": version("transformer-lens"),
        "transformers": version("transformers"),
        "steerlens": sl.__version__,
        "python": platform.python_version(),
        "command": shlex.join(["python", "scripts/benchmark.py", *sys.argv[1:]]),
    }
    RESULTS.mkdir(exist_ok=True)
    stem = f"{arguments.model}-{arguments.device}"
    (RESULTS / f"{stem}.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    lines = [
        f"# {arguments.model}",
        "",
        *(f"- {key}: {value}" for key, value in machine.items()),
        "",
        "| work | against | times as fast | range | ours (s) | theirs (s) | rounds | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        lines.append(
            f"| {r['work']} | {r['against']} | {r['ratio']:.2f} | {r['low']:.2f}–{r['high']:.2f} "
            f"| {r['seconds ours']:.3f} | {r['seconds theirs']:.3f} | {r['rounds']} | {r['note']} |"
        )
    text = "\n".join(lines) + "\n"
    (RESULTS / f"{stem}.md").write_text(text)
    print(text)


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help=f"demo, {', '.join(SHAPES)}, or anything load_model takes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--bridge", action="store_true", help="our contender runs on a TransformerBridge")
    parser.add_argument("--layers", type=int, default=10**6, help="layers of the sampling sweep [default: all]")
    parser.add_argument("--n", type=int, default=200, help="samples per layer")
    parser.add_argument("--tokens", type=int, default=40, help="new tokens per sample")
    parser.add_argument("--coeffs", type=int, default=8, help="coefficients of the next-token grid")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    common = {"device": arguments.device, "dtype": arguments.dtype}
    model = load(arguments.model, bridge=arguments.bridge, strides=True, **common)
    # The naive loop runs on what its users have: a HookedTransformer as TransformerLens makes it (a bridge under 4.x).
    from transformer_lens import __dict__ as lens

    plain = load(arguments.model, bridge="HookedTransformer" not in lens, strides=False, **common)
    factors = [0.5 * (k + 1) for k in range(arguments.coeffs)]
    layers = min(arguments.layers, model.cfg.n_layers)
    results = [
        next_token_grid(model, plain, factors=factors, rounds=arguments.rounds),
        sampling_sweep(
            model, plain, layers=layers, n=arguments.n, new=arguments.tokens, rounds=max(arguments.rounds // 2, 1)
        ),
        premium(model, rounds=4 * arguments.rounds),
        import_time(arguments.rounds),
    ]
    write(results, arguments)


if __name__ == "__main__":
    main()
