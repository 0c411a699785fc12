"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import json
import math
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from geosam.finetune.batches import Batch, Batches
from geosam.finetune.folder import check_holds_no_run, make_run_folder
from geosam.finetune.losses import binary_cross_entropy, dice, intersection_over_union, iou_head
from geosam.finetune.published import begin_with_published
from geosam.finetune.ranks import Ranks
from geosam.finetune.recipe import Recipe, Schedule
from geosam.models.checkpoint import check_fit, read_tensors
from geosam.models.device import autocast, cpu_has_bfloat16
from geosam.models.image_encoder import Features
from geosam.models.network import TinySam, TinySamConfig
from geosam.models.tiny import STRIDE_PX

SAVE_EVERY_S = 240.0


def train(
    recipe: Recipe,
    root: Path,
    out: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
    start: Path | None = None,
) -> Path:
    """Train a small SAM from scratch or from weights, or go on from where an earlier run was cut off.

    Args:
        recipe: Data, schedule and model.
        root: Folder under which the recipe's data folders lie.
        out: Receives ``model.safetensors`` (the averaged weights), ``state.pt`` and ``log.jsonl``.
        device: A torch device.
        resume: Go on from ``state.pt``; the n-th batch is the same as in an unbroken run.
        overwrite: Begin again in a folder that holds a run.
        start: Weights that an earlier run of the same model wrote; None: random ones.

    Returns:
        Path of the weights.

    Raises:
        OutputError: ``out`` holds a run already, or cannot be written.
    """
    check_holds_no_run(out, resume, overwrite)
    schedule = recipe.schedule
    batches = Batches(recipe, root, out.parent / "synth")  # A fault of the data comes up before anything is written.
    ranks = Ranks.join(device)
    if ranks.rank == 0:
        make_run_folder(out, resume)
    ranks.wait()  # Nobody begins before everybody has looked.
    device = ranks.device
    torch.manual_seed(schedule.seed)
    model = TinySam(TinySamConfig(**recipe.model)).to(torch.device(device)).to(memory_format=torch.channels_last)
    if start is not None:
        model.load_state_dict(_weights_of(start, model))
    elif recipe.published is not None:
        begin_with_published(model, recipe.published)
    averaged = deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(_groups(model, schedule), fused=True)
    first, spent = 0, 0.0
    if resume and (out / "state.pt").exists():
        first, spent = _load(out / "state.pt", model, averaged, optimizer)
    mine = range(first * ranks.world + ranks.rank, schedule.steps * ranks.world, ranks.world)
    loader = DataLoader(Subset(batches, mine), batch_size=None, num_workers=1, prefetch_factor=4)
    begun, saved = time.monotonic() - spent, time.monotonic()
    done_steps = first
    for step, batch in enumerate(loader, start=first):
        elapsed = ranks.agree(time.monotonic() - begun)
        done = max(elapsed / (schedule.minutes * 60), step / schedule.steps)
        if done >= schedule.ends:
            break
        batches.reach(done)
        # By the agreed clock, not by the batch, which another process may have drawn a stage earlier.
        encoder_learns = schedule.stages[schedule.stage_at(done)].encoder
        model.image_encoder.requires_grad_(encoder_learns).train(encoder_learns)
        for part in model.image_encoder.parts()[: schedule.frozen]:
            part.requires_grad_(False).eval()
        rate = _set_rate(optimizer, schedule, step, done)
        figures = _step(model, optimizer, batch, schedule, device, ranks)
        _average(averaged, model, min(schedule.ema, (1 + step) / (10 + step)))
        done_steps = step + 1
        if ranks.rank > 0:
            continue
        if step % 20 == 0:
            _log(out / "log.jsonl", {"step": step, "elapsed_s": round(elapsed, 1), "rate": rate, **figures})
        if time.monotonic() - saved > SAVE_EVERY_S:
            _save(out, model, averaged, optimizer, done_steps, elapsed)
            saved = time.monotonic()
    if ranks.rank == 0:
        _save(out, model, averaged, optimizer, done_steps, time.monotonic() - begun)
    return out / "model.safetensors"


def _step(
    model: TinySam,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    schedule: Schedule,
    device: str,
    ranks: Ranks,
) -> dict[str, float]:
    """One update; gives back the figures of the log."""
    batch = _to(batch, device)
    with autocast(where := torch.device(device), _precision(where)):
        features = model.encode(batch.images)
        decoded = _decode(model, features, batch) if batch.prompts else None
    parts, loss = _losses(model, features, decoded, batch)
    if not torch.isfinite(loss):  # Skipped by leaving no gradient, so that other processes are not left waiting.
        loss = sum((p.sum() * 0 for p in model.parameters()), start=torch.zeros(()))
    (loss / ranks.world).backward()  # type: ignore[no-untyped-call]
    ranks.sum_gradients(model)
    nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {name: round(float(value.detach().mean()), 4) for name, value in parts.items()}


def _precision(device: torch.device) -> torch.dtype:
    """bfloat16, which needs no scaled loss as float16 does; a CPU that only emulates it is faster without."""
    return torch.float32 if device.type == "cpu" and not cpu_has_bfloat16() else torch.bfloat16


def _decode(model: TinySam, features: Features, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits float (N, 1, S/4, S/4) and predicted IoUs float (N, 1) of what a batch asks for."""
    has_mask = batch.has_mask if bool(batch.has_mask.any()) else None
    mask = None if has_mask is None else _with_own_look(model, features, batch)
    return model.decode(features, batch.points, batch.labels, mask=mask, has_mask=has_mask, origin=batch.origin)


@torch.no_grad()
def _with_own_look(model: TinySam, features: Features, batch: Batch) -> Tensor:
    """The dense prompts of a batch, float (N, 1, S/4, S/4), the model's own among them."""
    if batch.own_hint is None or features.water is None or not bool(batch.own_hint.any()):
        return batch.mask
    seen = features.water
    if batch.own_scale < 1 and batch.images.shape[-1] * batch.own_scale % STRIDE_PX == 0:
        small = F.interpolate(batch.images.float(), scale_factor=batch.own_scale, mode="bilinear", antialias=True)
        learning = model.image_encoder.training
        model.image_encoder.eval()  # The norms' running statistics are those of full resolution.
        found = model.encode(small).water
        model.image_encoder.train(learning)
        seen = features.water if found is None else found
    seen = F.interpolate(seen.float(), batch.mask.shape[-2:], mode="bilinear", align_corners=False)
    own = torch.where(seen > 0, 1.0, -1.0)
    return torch.where(batch.own_hint.view(-1, 1, 1, 1), own, batch.mask)


def _losses(
    model: TinySam, features: Features, decoded: tuple[Tensor, Tensor] | None, batch: Batch
) -> tuple[dict[str, Tensor], Tensor]:
    """The figures of a batch, each float (N,), and the loss to descend.

    All water, straight from the encoder, counts in full while it is learned alone, and by half
    once the decoder's answers to prompts are learned with it.
    """
    parts: dict[str, Tensor] = {}
    loss, side = torch.zeros((), device=batch.images.device), batch.images.shape[-1]
    if features.water is not None:
        plain, target, known = _upsampled(features.water, side), batch.truth == 255, batch.truth != 128
        parts["water_bce"] = binary_cross_entropy(plain, target.float(), known.float())
        parts["water_dice"] = dice(plain, target.float(), known.float())
        parts["water_iou"] = intersection_over_union(plain.detach(), target, known)
        loss = loss + (parts["water_bce"] + 0.5 * parts["water_dice"]).mean() * (1.0 if decoded is None else 0.5)
    if decoded is not None:
        logits, target, known = _upsampled(decoded[0], side), batch.label == 255, batch.label != 128
        parts["bce"] = binary_cross_entropy(logits, target.float(), known.float())
        parts["dice"] = dice(logits, target.float(), known.float())
        parts["iou_head"] = iou_head(decoded[1].float(), logits, target, known)
        parts["iou"] = intersection_over_union(logits.detach(), target, known)
        loss = loss + (parts["bce"] + 0.5 * parts["dice"] + 0.1 * parts["iou_head"]).mean()
    return parts, loss


def _upsampled(logits: Tensor, side: int) -> Tensor:
    return F.interpolate(logits.float(), (side, side), mode="bilinear", align_corners=False)


def _groups(model: TinySam, schedule: Schedule) -> list[dict[str, Any]]:
    """Weights decay; biases, norms and embeddings of single tokens do not. The backbone has a rate of its own."""
    groups = []
    backbone = {id(p) for p in model.image_encoder.backbone.parameters()}
    for share, known in ((1.0, False), (schedule.backbone_rate, True)):
        for decay, matrices in ((schedule.weight_decay, True), (0.0, False)):
            chosen = [
                p
                for p in model.parameters()
                if (id(p) in backbone) == known and (p.ndim > 1 and p.shape[0] > 4) == matrices
            ]
            groups.append({"params": chosen, "weight_decay": decay, "share": share})
    return groups


def _set_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int, done: float) -> float:
    """Linear warm-up, then a cosine down to a hundredth over the share of the budget that is done."""
    rate = schedule.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
    rate *= min(1.0, (step + 1) / schedule.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
    return rate


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, keep: float) -> None:
    """Exponential moving average of weights and of batch-norm statistics."""
    pairs = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    real = [(mean, value) for mean, value in pairs if mean.dtype.is_floating_point]
    torch._foreach_lerp_([mean for mean, _ in real], [value for _, value in real], 1 - keep)
    for mean, value in pairs:
        if not mean.dtype.is_floating_point:
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
    optimizer: torch.optim.Optimizer,
    step: int,
    elapsed: float,
) -> None:
    """Write weights and state, each under another name first."""
    save_weights(averaged.state_dict(), model.config, out / "model.safetensors")
    state = {
        "model": model.state_dict(), "averaged": averaged.state_dict(), "optimizer": optimizer.state_dict(),
        "step": step, "elapsed": elapsed,
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


def _load(path: Path, model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["elapsed"])


def _weights_of(file: Path, model: TinySam) -> dict[str, Tensor]:
    """A file's weights in single precision, checked against the model, which may be the first to have far sight."""
    found = {name: v.float() if v.is_floating_point() else v for name, v in read_tensors(file).items()}
    new = {name: v for name, v in model.state_dict().items() if ".far_sight." in name}
    found = new | found if not new.keys() & found.keys() else found
    check_fit(found, model.state_dict(), str(file))
    return found


def _log(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
