"""Trains the embedded model, from parquet files to the model card.

    python scripts/train_demo_model.py --data DIR --work DIR --minutes 100          # one CPU core is enough
    python scripts/train_demo_model.py --data DIR --work DIR --minutes 200 --resume stable
    python scripts/train_demo_model.py --data DIR --work DIR --preset 19m --device cuda --tokens 400e6

`--data` holds imdb/{train,test,unsup}.parquet, books/chapters.parquet and web/docs.parquet. `--work` keeps the
tokenised corpus and the checkpoints; both are reused. On a CPU, starting with these variables set is a third faster,
because freed memory is kept instead of being faulted in again every step (the script sets them and restarts itself):

    MALLOC_MMAP_THRESHOLD_=34359738368 MALLOC_TRIM_THRESHOLD_=34359738368 MALLOC_TOP_PAD_=1073741824
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 30),
    "MALLOC_TOP_PAD_": str(1 << 30),
}
DEMO = Path(__file__).resolve().parent.parent / "steerlens" / "demo"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the parquet files")
    parser.add_argument("--work", type=Path, required=True, help="folder for the tokenised corpus and the checkpoints")
    parser.add_argument(
        "--out", type=Path, default=DEMO, help="folder that receives model/, MODEL_CARD.md, training_log.json"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=100.0, help="training time in all, resumed parts included")
    budget.add_argument("--tokens", type=float, help="tokens in all, instead of --minutes")
    parser.add_argument("--preset", default="8m", help="size: 8m, 17m, 19m, 29m (parameters)")
    parser.add_argument("--device", default=None, help="cpu or cuda; default: cuda where there is one")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; more than one only pays on free cores")
    parser.add_argument("--micro-rows", type=int, default=None, help="windows per forward pass; default 16, on cuda 64")
    parser.add_argument("--accumulate", type=int, default=2, help="forward passes per step")
    parser.add_argument(
        "--decay-share", type=float, default=0.22, help="last part of the budget, over which rates fall to 0"
    )
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adamw-lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        choices=("latest", "stable"),
        help="go on from the last checkpoint, or from the one before the decay (to train longer than first planned)",
    )
    start.add_argument("--init-from", type=Path, help="begin a new run from an exported model's weights and tokenizer")
    parser.add_argument(
        "--export-only", action="store_true", help="write the model of the checkpoint as it is, do not train"
    )
    parser.add_argument("--note", default="", help="a paragraph for the model card: what was different about this run")
    return parser.parse_args(arguments)


def restart_with_malloc_settings() -> None:
    """Starts this process anew with the memory settings, which the C library reads only at the start."""
    if sys.platform == "linux" and not any(name in os.environ for name in MALLOC):
        os.environ.update(MALLOC)
        os.execv(sys.executable, [sys.executable, *sys.argv])


def main(arguments: list[str] | None = None) -> None:
    """Prepares the corpus, trains, exports and reports."""
    args = parse(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    import numpy as np
    import torch
    from demo_model import corpus as corpora
    from demo_model import export
    from demo_model.model_card import Report, write_report
    from demo_model.network import PRESETS
    from demo_model.training import Plan, Trainer

    torch.set_num_threads(args.threads)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    shape, weights = PRESETS[args.preset], None
    if args.init_from:
        weights, shape, _ = export.load_model(args.init_from)
        adopt_tokenizer(args.init_from / "tokenizer.json", args.work / "corpus")
    corpus = corpora.prepare(args.data, args.work / "corpus", shape.vocab_size)
    plan = Plan(
        minutes=args.minutes,
        total_tokens=int(args.tokens) if args.tokens else None,
        decay_share=args.decay_share,
        micro_rows=args.micro_rows or (64 if device == "cuda" else 16),
        accumulate=args.accumulate,
        muon_lr=args.muon_lr,
        adamw_lr=args.adamw_lr,
        seed=args.seed,
    )
    windows = corpora.Windows(corpus, shape.n_ctx, plan.seed)
    trainer = Trainer(shape, windows, plan, device, compiled=not args.no_compile)
    checkpoints = args.work / "checkpoints" / args.preset
    if args.resume or args.export_only:
        trainer.load(checkpoints / f"{args.resume or 'latest'}.pt")
    elif weights is not None:
        trainer.load_weights(weights)

    if not args.export_only:
        longest = sorted(corpus.held_out["reviews"], key=len)[-200:]
        rows = [np.concatenate([[0], review[: shape.n_ctx].astype(np.int64)]) for review in longest]
        rows = [row for row in rows if len(row) == shape.n_ctx + 1][:48]
        trainer.run(checkpoints, torch.from_numpy(np.stack(rows)) if rows else None)

    model = args.out / "model"
    export.save_model(trainer.masters, shape, corpus.tokenizer, model)
    report = Report(
        shape=shape,
        plan=asdict(plan),
        progress=asdict(trainer.progress),
        losses=export.held_out_losses(model, corpus, device, exact=trainer.finished),
        samples=export.sample_texts(model, plan.seed),
        topic_share=windows.topic_share,
        finished=trainer.finished,
        device="one CUDA device" if device == "cuda" else f"{args.threads} CPU core{'s' * (args.threads > 1)}",
        started_from=args.init_from.name if args.init_from else None,
        note=args.note,
    )
    write_report(report, args.out)
    for name, loss in report.losses.items():
        print(
            f"held-out {name}: {loss['nats_per_token']:.4f} nats per token, {loss['nats_per_byte']:.4f} nats per byte"
        )


def adopt_tokenizer(tokenizer: Path, corpus: Path) -> None:
    """Puts an exported model's tokenizer where the corpus expects it; refuses a corpus tokenised by another."""
    own = corpus / "tokenizer.json"
    if own.exists() and own.read_bytes() != tokenizer.read_bytes():
        raise SystemExit(f"{corpus} was tokenised with another tokenizer than {tokenizer}; use another --work")
    corpus.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tokenizer, own)


if __name__ == "__main__":
    restart_with_malloc_settings()
    main()
