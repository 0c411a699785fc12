"""Results on their way from the device: while it computes a batch, the one before is laid into the mosaic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVELS = 255
"""Steps of a probability that comes off a GPU: a quarter of float32's bytes, and half a step is 0.002."""


def works_ahead(device: torch.device) -> bool:
    """Whether the device computes on while the host does other things."""
    return device.type == "cuda"


@dataclass(frozen=True)
class Flight:
    """Probabilities of a batch that may still be on their way."""

    values: Tensor
    """On the host, (B, h, w): float32, or uint8 in steps of 1/255."""
    has_nan: Tensor
    """On the host, bool (): whether the model gave NaN anywhere."""
    arrived: torch.cuda.Event | None = None

    def landed(self) -> NDArray[np.float32]:
        """Wait for them: float32 (B, h, w), NaN where the model gave it.

        Raises:
            FloatingPointError: The model gave NaN.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        if bool(self.has_nan):
            raise FloatingPointError("the model gave NaN")
        values = self.values.numpy()
        if values.dtype == np.uint8:
            return values.astype(np.float32) / np.float32(LEVELS)
        return np.asarray(values, np.float32)


def launched(logits: Tensor) -> Flight:
    """Logits (B, h, w) as probabilities, on their way to the host."""
    probability = logits.float().sigmoid()
    has_nan = probability.isnan().any()
    if not works_ahead(logits.device):
        return Flight(probability.cpu(), has_nan.cpu())
    flight = Flight(_sent(as_levels(probability)), _sent(has_nan), _event())
    assert flight.arrived is not None
    flight.arrived.record()
    return flight


def _event(*, timed: bool = False) -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=timed)  # type: ignore[no-untyped-call]


def as_levels(probability: Tensor) -> Tensor:
    """Probabilities to the nearest of 256 levels, uint8."""
    return (probability * LEVELS).round().nan_to_num(0).to(torch.uint8)


def _sent(found: Tensor) -> Tensor:
    """A copy in pinned memory, which is whole once the stream has come to it."""
    host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
    return host.copy_(found, non_blocking=True)


@dataclass
class StageClock:
    """Seconds a stage: the host's, or for work on a device that works ahead, the device's own."""

    device: torch.device
    seconds: dict[str, float]
    open: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list)

    @contextmanager
    def host(self, stage: str) -> Iterator[None]:
        """Add the host's time to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - began

    @contextmanager
    def computing(self, stage: str) -> Iterator[None]:
        """Add the time of what is computed, without waiting for it: see :meth:`settle`."""
        if not works_ahead(self.device):
            with self.host(stage):
                yield
            return
        begin, end = _event(timed=True), _event(timed=True)
        begin.record()
        yield
        end.record()
        self.open.append((stage, begin, end))

    def settle(self) -> None:
        """Add the times of what the device has finished by now."""
        while self.open and self.open[0][2].query():  # type: ignore[no-untyped-call]
            stage, begin, end = self.open.pop(0)
            self.seconds[stage] += begin.elapsed_time(end) / 1000
