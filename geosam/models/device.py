"""Where a model runs, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from geosam.errors import ModelError


def choose_device(wanted: str) -> torch.device:
    """The device for ``auto | cpu | cuda | mps``; auto is the first of cuda, mps, cpu that is there.

    Raises:
        ModelError: The device asked for is not on this machine.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, found in there.items() if found))
    if not there.get(wanted, False):
        found = ", ".join(name for name, yes in there.items() if yes)
        raise ModelError(f"--device {wanted} is not available on this machine; found {found}. Give --device auto.")
    return torch.device(wanted)


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The precision for ``auto | float32 | bfloat16 | float16``; auto is the fastest that is safe on the device."""
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device.type == "cuda":
        # is_bf16_supported() also says yes to cards that only emulate it, slowly: before 8.0 take float16.
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; without that, it is slower than float32, not faster."""
    return _cpu_says("_is_avx512_bf16_supported") or has_amx()


def has_amx() -> bool:
    """Whether the CPU has Intel's matrix units, which multiply bfloat16 about seven times as fast as float32."""
    return _cpu_says("_is_amx_tile_supported")


def _cpu_says(probe: str) -> bool:
    return bool(getattr(torch.cpu, probe, lambda: False)())


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """Images on the device; to a GPU by way of pinned memory, so that nobody waits for the copy."""
    if device.type == "cuda" and images.device.type == "cpu":
        return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """A context in which the heavy arithmetic runs in ``dtype``; for float32 it changes nothing."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)
