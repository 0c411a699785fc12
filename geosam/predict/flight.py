"""Results on their way from the device: while it computes a batch, the host does what the one before is good for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor


def works_ahead(device: torch.device) -> bool:
    """Whether the device computes on while the host does other things; tiles are then blended on it."""
    return device.type == "cuda"


@dataclass(frozen=True)
class Sent:
    """A tensor that may still be on its way."""

    value: Tensor
    """On the host."""
    arrived: torch.cuda.Event | None = None

    def landed(self) -> Tensor:
        """Wait for it."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.value


def sent(found: Tensor) -> Sent:
    """Send a tensor to the host: from a GPU into pinned memory, without waiting for it."""
    if found.device.type != "cuda":
        return Sent(found.cpu())
    host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
    host.copy_(found, non_blocking=True)
    arrived = _event()
    arrived.record()
    return Sent(host, arrived)


def _event(*, timed: bool = False) -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=timed)  # type: ignore[no-untyped-call]


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
