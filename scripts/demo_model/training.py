"""The training loop: warm-up, stable, decay; Muon for the matrices, AdamW for the rest; resumable to the step."""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .corpus import Windows
from .network import Network, Shape, cross_entropy_chunk

CHUNK = 1024  # rows of logits at a time
_BAR = "{desc}: {percentage:5.1f}%|{bar}| {elapsed}<{remaining}{postfix}"


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train. Learning rates are those of the stable phase."""

    minutes: float = 100.0
    total_tokens: int | None = None  # the budget, where it is given in tokens
    decay_share: float = 0.22
    warmup_tokens: int = 500_000
    small_batch_tokens: int = 2_000_000  # until then one micro-batch per step, later `accumulate`
    micro_rows: int = 16
    accumulate: int = 2
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    muon_weight_decay: float = 0.05
    seed: int = 0


@dataclass
class Progress:
    """Where a run stands: counters, the learning curve, and what is needed to go on."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    def spent(self, plan: Plan) -> float:
        """Share of the plan's budget that is used up: 0 to 1, a little over at the end."""
        return self.tokens / plan.total_tokens if plan.total_tokens else self.seconds / (60 * plan.minutes)


class Trainer:
    """A network in bfloat16 with float32 masters, its optimisers and its progress."""

    def __init__(self, shape: Shape, windows: Windows, plan: Plan, device: str, compiled: bool = True) -> None:
        torch.manual_seed(plan.seed)
        self.shape, self.windows, self.plan, self.device = shape, windows, plan, device
        network = Network(shape).to(device)
        self.masters = {name: p.detach().clone() for name, p in network.named_parameters()}
        self.network = network.to(torch.bfloat16)
        self.progress = Progress()
        self._build_optimisers()
        self._body = torch.compile(self.network) if compiled else self.network
        self._loss = torch.compile(cross_entropy_chunk) if compiled else cross_entropy_chunk

    def _build_optimisers(self) -> None:
        """Muon over the blocks' matrices (queries, keys and values apart), AdamW over everything else."""
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        self._parts: dict[str, list[nn.Parameter]] = {}
        for name, master in self.masters.items():
            is_matrix = name.startswith("h.") and master.dim() == 2
            pieces = master.chunk(3) if name.endswith("qkv.weight") else (master,)
            self._parts[name] = [nn.Parameter(piece) for piece in pieces]  # views: a step on them moves the master
            (matrices if is_matrix else others).extend(self._parts[name])
        plan = self.plan
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=plan.muon_lr, momentum=0.95, weight_decay=plan.muon_weight_decay),
            torch.optim.AdamW(others, lr=plan.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        ]
        self._base_rates = [plan.muon_lr, plan.adamw_lr]

    # -- one step ---------------------------------------------------------------------------------------------

    def rate(self) -> float:
        """The learning rates' common factor now: linear warm-up by tokens, linear decay to 0 by budget."""
        left = max(0.0, 1 - self.progress.spent(self.plan))
        decay = min(1.0, left / self.plan.decay_share) if self.plan.decay_share else 1.0
        return min(1.0, (self.progress.tokens + 1) / self.plan.warmup_tokens) * decay

    def _forward_backward(self, rows: Tensor, scale: float) -> float:
        """Adds the gradients of one micro-batch, times `scale`, to the network; mean loss in nats per token."""
        inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].reshape(-1)
        hidden = self._body(inputs)
        flat = hidden.detach().reshape(-1, hidden.shape[-1])
        unembed, grad, total = (
            self.network.wte.weight.detach(),
            torch.empty_like(flat),
            torch.zeros((), device=flat.device),
        )
        for i in range(0, len(flat), CHUNK):
            loss, grad_hidden, grad_unembed = self._loss(
                flat[i : i + CHUNK], unembed, targets[i : i + CHUNK], scale / len(flat)
            )
            grad[i : i + CHUNK] = grad_hidden
            self._unembed_grad += grad_unembed
            total += loss
        hidden.backward(grad.view_as(hidden))
        return float(total) / len(flat)

    def step(self) -> float:
        """One optimiser step; mean training loss in nats per token."""
        plan, progress = self.plan, self.progress
        micro = 1 if progress.tokens < plan.small_batch_tokens else plan.accumulate
        batch = torch.from_numpy(self.windows.batch(progress.step, micro * plan.micro_rows)).to(self.device)
        self._unembed_grad = torch.zeros_like(self.masters["wte.weight"])
        gradients = {name: torch.zeros_like(master) for name, master in self.masters.items()}
        loss = 0.0
        for rows in batch.chunk(micro):
            loss += self._forward_backward(rows, 1 / micro) / micro
            for name, parameter in self.network.named_parameters():
                assert parameter.grad is not None
                gradients[name] += parameter.grad
                parameter.grad = None
        gradients["wte.weight"] += self._unembed_grad
        for name, parts in self._parts.items():
            for part, gradient in zip(parts, gradients[name].chunk(len(parts)), strict=True):
                part.grad = gradient
        nn.utils.clip_grad_norm_([part for parts in self._parts.values() for part in parts], 1.0)
        factor = self.rate()
        for optimiser, base in zip(self.optimisers, self._base_rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * factor
            optimiser.step()
        self.copy_masters()
        progress.step += 1
        progress.tokens += batch.shape[0] * (batch.shape[1] - 1)
        return loss

    @torch.no_grad()
    def copy_masters(self) -> None:
        """Rounds the float32 masters into the bfloat16 network."""
        for name, parameter in self.network.named_parameters():
            parameter.copy_(self.masters[name])

    @torch.no_grad()
    def loss_on(self, rows: Tensor) -> float:
        """Mean loss of given windows in nats per token, in the network's bfloat16."""
        total, count = 0.0, 0
        for part in rows.to(self.device).split(self.plan.micro_rows):
            hidden = self.network(part[:, :-1]).flatten(0, 1)
            logits = (hidden @ self.network.wte.weight.t()).float()
            total += float(nn.functional.cross_entropy(logits, part[:, 1:].flatten(), reduction="sum"))
            count += len(hidden)
        return total / count

    # -- the run ----------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the budget is spent and the learning rate decayed."""
        return self.plan.decay_share > 0 and self.progress.spent(self.plan) >= 1

    def run(self, checkpoints: Path, held_out: Tensor | None) -> None:
        """Trains until the budget is spent; writes `latest.pt` every 5 minutes and `stable.pt` before the decay.

        `held_out` windows [row length+1] give the held-out points of the learning curve.
        """
        plan, progress = self.plan, self.progress
        checkpoints.mkdir(parents=True, exist_ok=True)
        started, offset, first_tokens = time.monotonic(), progress.seconds, progress.tokens
        smooth, saved, compiled, speed = math.nan, progress.seconds, False, 0.0
        done = 100 * progress.spent(plan)
        with tqdm(total=100, initial=done, desc="training", mininterval=20, bar_format=_BAR) as bar:
            while progress.spent(plan) < 1:
                before = progress.spent(plan)
                loss = self.step()
                if not compiled:  # the first step compiles, which is not training: do not charge it to the budget
                    started, first_tokens, compiled = time.monotonic(), progress.tokens, True
                progress.seconds = offset + time.monotonic() - started
                smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
                speed = (progress.tokens - first_tokens) / max(progress.seconds - offset, 1e-9)
                bar.set_postfix_str(
                    f"loss {smooth:.3f}, {progress.tokens / 1e6:.2f} M tokens, {speed:.0f}/s", refresh=False
                )
                bar.update(min(100.0, 100 * progress.spent(plan)) - bar.n)
                decays = plan.decay_share > 0 and before < 1 - plan.decay_share <= progress.spent(plan)
                if decays:
                    self.save(checkpoints / "stable.pt")
                if progress.seconds - saved > 300 or decays:
                    saved = progress.seconds
                    self._note(smooth, held_out, speed)
                    self.save(checkpoints / "latest.pt")
        self._note(smooth, held_out, speed)
        self.save(checkpoints / "latest.pt")

    def _note(self, smooth: float, held_out: Tensor | None, speed: float) -> None:
        """Adds a point to the learning curve and shows it."""
        point = {
            "step": self.progress.step,
            "tokens": self.progress.tokens,
            "minutes": round(self.progress.seconds / 60, 2),
            "train_loss": round(smooth, 4),
            "held_out_loss": round(self.loss_on(held_out), 4) if held_out is not None else math.nan,
            "rate": round(self.rate(), 4),
            "tokens_per_second": round(speed),
        }
        self.progress.curve.append(point)
        tqdm.write(str(point))

    # -- checkpoints ------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Everything needed to go on, written beside `path` first and then moved there."""
        state: dict[str, Any] = {
            "format": 1,
            "shape": asdict(self.shape),
            "plan": asdict(self.plan),
            "progress": asdict(self.progress),
            "masters": self.masters,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint of the same shape."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["shape"] != asdict(self.shape):
            raise SystemExit(f"checkpoint {path} has shape {state['shape']}, asked for {asdict(self.shape)}")
        self.load_weights(state["masters"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.progress = Progress(**state["progress"])

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Sets masters and network to the given weights, in place (the optimisers hold views of the masters)."""
        for name, master in self.masters.items():
            master.copy_(weights[name])
        self.copy_masters()
