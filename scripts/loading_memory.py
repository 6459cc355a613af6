"""Peak memory of loading, as a multiple of the bfloat16 checkpoint: a random Llama, each way in a process of its own.

    python scripts/loading_memory.py            # a model of 300 MB
    python scripts/loading_memory.py --width 2048 --layers 16

Peak memory is what the kernel saw resident, anonymous and file pages, less what the process held before it loaded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = ROOT / "steerlens" / "demo" / "model" / "tokenizer.json"

LOAD = """
import json, sys, threading, time
from pathlib import Path
import torch, transformer_lens, transformers.models.llama.modeling_llama
import steerlens as sl

def resident(what):
    return int(next(line for line in open("/proc/self/status") if line.startswith(what)).split()[1]) * 1024

folder, options = sys.argv[1], json.loads(sys.argv[2])
sl.load_model("demo", device="cpu", **options)  # imports and first runs
before = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts anew
start = time.perf_counter()
try:
    model = sl.load_model(folder, device="cpu", **options)
    print((resident("VmHWM") - before), (resident("VmRSS") - before), time.perf_counter() - start)
except sl.SteerlensError as error:
    print("-", error)
"""


def main() -> None:
    """Print a table: way of loading, peak, what stays, seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = make_model(Path(folder), arguments.width, arguments.layers)
        print(f"checkpoint in bfloat16: {size / 1e6:.0f} MB, loaded in {arguments.dtype}")
        print(f"{'way':42s} {'peak':>6s} {'stays':>6s} {'seconds':>8s}")
        for bridge in (False, True):
            for processing in (True, False):
                for prove in (True, False):
                    options = {"bridge": bridge, "processing": processing, "prove": prove, "dtype": arguments.dtype}
                    name = "bridge" if bridge else "HookedTransformer"
                    name += ", processed" if processing else ", unprocessed"
                    name += "" if prove else ", not proved"
                    print(f"{name:42s} {measured(folder, options, size)}", flush=True)


def measured(folder: str, options: dict[str, object], size: int) -> str:
    """Peak and rest as multiples of the checkpoint, and seconds; or why there are none."""
    import json

    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, folder, json.dumps(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    if done.stdout.startswith("-"):
        return done.stdout.strip()
    peak, stays, seconds = map(float, done.stdout.split())
    return f"{peak / size:6.2f} {stays / size:6.2f} {seconds:8.1f}"


def make_model(folder: Path, width: int, layers: int) -> int:
    """A random Llama in the folder, with the embedded model's tokenizer; its size in bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER), eos_token="<|endoftext|>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 256,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(weight.numel() * 2 for weight in model.parameters())


if __name__ == "__main__":
    main()
