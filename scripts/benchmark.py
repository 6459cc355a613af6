"""How fast steerlens is against the plain loop, Hugging Face and peer libraries, as ratios from interleaved runs.

    python scripts/benchmark.py                                  # the embedded model, minutes on two cores
    python scripts/benchmark.py --model gpt2-small --layers 2    # that shape with random weights, much longer
    python scripts/benchmark.py --peers python-with-peers        # also steering-vectors and repeng (see below)
    python scripts/benchmark.py --directions                     # 200 pairs at all layers against the passes alone
    python scripts/benchmark.py --growth                         # how the cost grows, with the hardware's bounds
    python scripts/benchmark.py --search --coeffs 20 --prompts 10 --n 1 --tokens 32      # a whole search, in seconds
    … the same with --model llama-8b --device cuda --dtype bfloat16, and with
    --search --model gpt2-xl --coeffs 1 --n 200 --device cuda --dtype bfloat16: the goals for an H200

Every contender does the same work on the same weights; rounds alternate between them, so a noisy machine hits all
alike. Reported are medians of the per-round ratios with their range. Peers need an older transformers and run in their
own environment: `python -m venv peers && peers/bin/pip install torch 'transformers<5' steering-vectors repeng`, then
`--peers peers/bin/python`. Results are written as Markdown and JSON into benchmark_results beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import tempfile
from pathlib import Path

import torch
from benchmarks import growth, results
from benchmarks.contenders import import_time, next_token_grid, premium, sampling_sweep, search
from benchmarks.extraction import extraction
from benchmarks.peers import PEERS, Peer
from benchmarks.shapes import GOALS, NAMES, hooked, plain

import steerlens as sl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help=f"{', '.join(NAMES)}, or a Hugging Face name or folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--bridge", action="store_true", help="our contender runs on a TransformerBridge")
    parser.add_argument("--layers", type=int, default=10**6, help="layers of the sampling sweep [default: all]")
    parser.add_argument("--n", type=int, default=200, help="samples per layer")
    parser.add_argument("--tokens", type=int, default=40, help="new tokens per sample")
    parser.add_argument("--coeffs", type=int, default=8, help="coefficients of the next-token grid")
    parser.add_argument("--rounds", type=int, default=5, help="of the grid; half as many of the sampling sweep")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--peers", default=None, metavar="PYTHON", help="interpreter that has the peer libraries")
    parser.add_argument("--search", action="store_true", help="only a whole search by steerlens alone, in seconds")
    parser.add_argument("--prompts", type=int, default=1, help="prompts of the search")
    parser.add_argument("--directions", action="store_true", help="only directions, against the passes they are from")
    parser.add_argument("--growth", action="store_true", help="only the growth of cost, as figures")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    if asked.growth:
        print(growth.run(asked.model, device=asked.device, dtype=asked.dtype))
        return
    if asked.directions:
        model = sl.load_model(asked.model, device=asked.device, dtype=asked.dtype)
        found = extraction(model, rounds=asked.rounds)
        stem = f"directions-{asked.model.rsplit('/', 1)[-1]}-{asked.device}"
        print(results.write(found, stem=stem, title=asked.model))
        return
    if asked.search:
        model = hooked(
            asked.model, plain(asked.model), bridge=asked.bridge or None, device=asked.device, dtype=asked.dtype
        )
        work = {"coeffs": asked.coeffs, "prompts": asked.prompts, "n": asked.n, "new": asked.tokens}
        found = [search(model, **work, rounds=asked.rounds, goal=GOALS.get(asked.model, ""))]
        print(results.write(found, stem=f"search-{asked.model.rsplit('/', 1)[-1]}-{asked.device}", title=asked.model))
        return
    # The naive loop runs on what its users have: a HookedTransformer as TransformerLens makes it (a bridge under 4.x).
    from transformer_lens import __dict__ as lens

    source = plain(asked.model)
    common = {"device": asked.device, "dtype": asked.dtype}
    model = hooked(asked.model, copy.deepcopy(source), bridge=asked.bridge or None, **common)
    loop = hooked(asked.model, copy.deepcopy(source), bridge="HookedTransformer" not in lens, strides=False, **common)
    source = source.to(asked.device, getattr(torch, asked.dtype))
    factors = [0.5 * (k + 1) for k in range(asked.coeffs)]
    with contextlib.ExitStack() as stack:
        peers = []
        if asked.peers:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            source.save_pretrained(folder)
            where = {"python": asked.peers, "folder": folder, "threads": torch.get_num_threads()}
            peers = [stack.enter_context(Peer(library, **where, **common)) for library in PEERS]
        found = [
            *next_token_grid(model, loop, factors=factors, rounds=asked.rounds),
            *sampling_sweep(
                model,
                loop,
                source,
                peers,
                layers=min(asked.layers, model.cfg.n_layers),
                n=asked.n,
                new=asked.tokens,
                rounds=max(asked.rounds // 2, 1),
            ),
            premium(model, rounds=2 * asked.rounds),
            import_time(asked.rounds),
        ]
    stem = f"{asked.model.rsplit('/', 1)[-1]}-{asked.device}{'-bridge' if asked.bridge else ''}"
    print(results.write(found, stem=stem, title=asked.model))


if __name__ == "__main__":
    main()
