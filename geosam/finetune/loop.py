"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import json
import math
import os
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from geosam.finetune.batches import Batch, Batches
from geosam.finetune.losses import binary_cross_entropy, dice, intersection_over_union, iou_head
from geosam.finetune.recipe import Recipe, Schedule
from geosam.models.image_encoder import Features
from geosam.models.network import TinySam, TinySamConfig

SAVE_EVERY_S = 240.0


def train(recipe: Recipe, root: Path, out: Path, *, device: str = "cpu", resume: bool = False) -> Path:
    """Train a small SAM from scratch, or go on from where an earlier run was cut off.

    Args:
        recipe: Data, schedule and model.
        root: Folder under which the recipe's data folders lie.
        out: Receives ``model.safetensors`` (the averaged weights), ``state.pt`` and ``log.jsonl``.
        device: A torch device.
        resume: Go on from ``state.pt``; the n-th batch is the same as in an unbroken run.

    Returns:
        Path of the weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    schedule = recipe.schedule
    ranks = Ranks.join()
    torch.manual_seed(schedule.seed)
    model = TinySam(TinySamConfig(**recipe.model)).to(torch.device(device)).to(memory_format=torch.channels_last)
    guide = Guide(model).to(torch.device(device))
    averaged = deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(_groups(nn.ModuleList([model, guide]), schedule.weight_decay))
    first, spent = 0, 0.0
    if resume and (out / "state.pt").exists():
        first, spent = _load(out / "state.pt", model, averaged, guide, optimizer)
    mine = range(first * ranks.world + ranks.rank, schedule.steps * ranks.world, ranks.world)
    batches = Subset(Batches(recipe, root, out.parent / "synth"), mine)
    loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
    begun, saved = time.monotonic() - spent, time.monotonic()
    done_steps = first
    for step, batch in enumerate(loader, start=first):
        elapsed = ranks.agree(time.monotonic() - begun)
        done = max(elapsed / (schedule.minutes * 60), step / schedule.steps)
        if done >= 1:
            break
        rate = _set_rate(optimizer, schedule, step, done)
        figures = _step(model, guide, optimizer, batch, schedule, device, ranks)
        _average(averaged, model, min(schedule.ema, (1 + step) / (10 + step)))
        done_steps = step + 1
        if ranks.rank > 0:
            continue
        if step % 20 == 0:
            _log(out / "log.jsonl", {"step": step, "elapsed_s": round(elapsed, 1), "rate": rate, **figures})
        if time.monotonic() - saved > SAVE_EVERY_S:
            _save(out, model, averaged, guide, optimizer, done_steps, elapsed)
            saved = time.monotonic()
    if ranks.rank == 0:
        _save(out, model, averaged, guide, optimizer, done_steps, time.monotonic() - begun)
    return out / "model.safetensors"


class Guide(nn.Module):
    """A head for training alone: all water, straight from the encoder's features.

    The mask decoder learns slowly while the features say little; a plain head on them teaches the
    encoder from the first step on, whatever the prompts ask for.
    """

    def __init__(self, model: TinySam) -> None:
        super().__init__()
        self.wide = nn.Conv2d(256, 1, 1)
        self.fine = nn.Conv2d(model.image_encoder.channels[0], 1, 1) if model.config.skips else None

    def forward(self, features: Features, side: int) -> Tensor:
        """Logits of all water, float (N, 1, side, side)."""
        logits = F.interpolate(self.wide(features.embedding).float(), (side // 4, side // 4), mode="bilinear")
        if self.fine is not None:
            logits = logits + self.fine(features.stride4).float()
        return F.interpolate(logits, (side, side), mode="bilinear")


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, as ``torchrun --nproc-per-node N -m geosam finetune`` starts them."""

    rank: int
    world: int

    @classmethod
    def join(cls) -> Ranks:
        """Meet the other processes, if there are any."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return cls(int(os.environ.get("RANK", "0")), world)

    def agree(self, value: float) -> float:
        """The first process's value, for all: clocks differ, and one must not stop before the others."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(shared, 0)
        return float(shared[0])

    def mean_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.world == 1:
            return
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat)
        parts = torch.split(flat / self.world, [grad.numel() for grad in grads])
        for parameter, part in zip(model.parameters(), parts, strict=True):
            parameter.grad = part.view_as(parameter)


def forward(model: TinySam, batch: Batch) -> tuple[Tensor, Tensor, Features]:
    """Logits float (N, 1, S, S), predicted IoUs float (N, 1) and the features of a batch."""
    features = model.encode(batch.images)
    has_mask = batch.has_mask if bool(batch.has_mask.any()) else None
    mask = None if has_mask is None else batch.mask
    logits, iou = model.decode(features, batch.points, batch.labels, mask=mask, has_mask=has_mask, origin=batch.origin)
    side = batch.images.shape[-1]
    return F.interpolate(logits.float(), (side, side), mode="bilinear", align_corners=False), iou.float(), features


def _step(
    model: TinySam,
    guide: Guide,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    schedule: Schedule,
    device: str,
    ranks: Ranks,
) -> dict[str, float]:
    """One update; gives back the figures of the log."""
    batch = _to(batch, device)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        logits, predicted, features = forward(model, batch)
        plain = guide(features, batch.label.shape[-1])
    target, known = (batch.label == 255).float(), (batch.label != 128).float()
    parts = {
        "bce": binary_cross_entropy(logits, target, known).mean(),
        "dice": dice(logits, target, known).mean(),
        "iou_head": iou_head(predicted, logits, target, known).mean(),
        "guide": binary_cross_entropy(plain, (batch.truth == 255).float(), (batch.truth != 128).float()).mean(),
    }
    loss = parts["bce"] + parts["dice"] + 0.1 * parts["iou_head"] + 0.5 * parts["guide"]
    if not torch.isfinite(loss):  # Skipped by leaving no gradient, so that other processes are not left waiting.
        loss = sum((p.sum() * 0 for p in model.parameters()), start=torch.zeros(()))
    loss.backward()  # type: ignore[no-untyped-call]
    for part in (model, guide):
        ranks.mean_gradients(part)
    nn.utils.clip_grad_norm_([*model.parameters(), *guide.parameters()], schedule.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    iou = intersection_over_union(logits.detach(), target, known).mean()
    return {name: round(float(value.detach()), 4) for name, value in {**parts, "iou": iou}.items()}


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases, norms and embeddings of single tokens do not."""
    matrices = [p for p in model.parameters() if p.ndim > 1 and p.shape[0] > 4]
    others = [p for p in model.parameters() if not (p.ndim > 1 and p.shape[0] > 4)]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _set_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int, done: float) -> float:
    """Linear warm-up, then a cosine down to a hundredth over the share of the budget that is done."""
    rate = schedule.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
    rate *= min(1.0, (step + 1) / schedule.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, keep: float) -> None:
    """Exponential moving average of weights and of batch-norm statistics."""
    for mean, value in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)


def _to(batch: Batch, device: str) -> Batch:
    if device == "cpu":
        return batch
    moved: dict[str, Any] = {k: v.to(device) for k, v in vars(batch).items() if isinstance(v, Tensor)}
    return replace(batch, **moved)


def _save(
    out: Path,
    model: TinySam,
    averaged: nn.Module,
    guide: Guide,
    optimizer: torch.optim.Optimizer,
    step: int,
    elapsed: float,
) -> None:
    """Write weights and state, each under another name first."""
    save_weights(averaged.state_dict(), model.config, out / "model.safetensors")
    state = {
        "model": model.state_dict(), "averaged": averaged.state_dict(), "guide": guide.state_dict(),
        "optimizer": optimizer.state_dict(), "step": step, "elapsed": elapsed,
    }  # fmt: skip
    torch.save(state, out / "state.part")
    (out / "state.part").replace(out / "state.pt")


def save_weights(weights: dict[str, Tensor], config: TinySamConfig, path: Path) -> None:
    """Write weights in half precision, their configuration in the header: a file that ``--model`` takes.

    Args:
        weights: By the names of :class:`TinySam`.
        config: What they fit.
        path: ``.safetensors``; appears whole or not at all.
    """
    half = {name: v.half() if v.is_floating_point() else v for name, v in weights.items()}
    part = path.with_suffix(".part")
    metadata = {"format": "pt", "config": json.dumps(config.to_dict())}
    save_file({name: value.contiguous().cpu() for name, value in half.items()}, part, metadata=metadata)
    part.replace(path)


def _load(
    path: Path, model: nn.Module, averaged: nn.Module, guide: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    averaged.load_state_dict(state["averaged"])
    guide.load_state_dict(state["guide"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["elapsed"])


def _log(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
